"""Parity with the original implementations: codes, indices, losses, gradients and state, from golden files."""

import pytest
import torch
from helpers.golden import GOLDEN, relative_error
from safetensors.torch import load_file
from torch import Tensor

from vistok.losses import reconstruction_loss, weighted_sum
from vistok.quantizers import EMAQuantizer, Quantizer, VectorQuantizer
from vistok.tokenizer import VisualTokenizer

WEIGHTS = {"reconstruction": 1.0, "codebook": 1.0, "commitment": 0.25}

# Names of visual-tokenizer-pytorch, in pieces, to ours.
RENAMED = {
    "encoder.downblocks": "encoder.down",
    "decoder.upblocks": "decoder.up",
    "resblocks": "res_blocks",
    "blocks.1.weight": "conv1.weight",
    "blocks.3.weight": "conv2.weight",
    "enc2code": "encoder.to_codes",
    "code2dec": "decoder.from_codes",
    "codebook.weight": "weight",
}


def renamed(name: str) -> str:
    residual = ".resblocks." in name
    for old, new in RENAMED.items():
        if old in name and (residual or not old.startswith("blocks.")):
            name = name.replace(old, new)
    return name


@pytest.fixture(scope="module")
def model() -> tuple[VisualTokenizer, dict[str, Tensor]]:
    golden = load_file(GOLDEN / "model_simple_cnn_vq.safetensors")
    tokenizer = VisualTokenizer(
        network_options={"hidden_dim": 32, "num_res_blocks": 2},
        quantizer_options={"codebook_size": 64, "codebook_dim": 8},
        image_size=32,
    )
    state = {renamed(k.removeprefix("state.")): v for k, v in golden.items() if k.startswith("state.")}
    tokenizer.load_weights(state, source="the golden file")
    return tokenizer, golden


def test_simple_cnn_with_vq_matches_the_original(model: tuple[VisualTokenizer, dict[str, Tensor]]) -> None:
    tokenizer, golden = model
    output = tokenizer(golden["x"])
    losses = {"reconstruction": reconstruction_loss(output.reconstruction, golden["x"]), **output.losses}
    total = weighted_sum(losses, WEIGHTS)

    assert len(golden["indices"].unique()) == 64
    assert torch.equal(output.indices, golden["indices"])
    torch.testing.assert_close(output.z, golden["z"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.codes, golden["codes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(output.reconstruction, golden["reconstruction"], atol=1e-5, rtol=0)
    for name in ("codebook", "commitment"):
        torch.testing.assert_close(output.losses[name], golden[f"loss.{name}"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(total, golden["loss.total"], atol=1e-5, rtol=0)


def test_every_gradient_of_simple_cnn_with_vq_matches(model: tuple[VisualTokenizer, dict[str, Tensor]]) -> None:
    tokenizer, golden = model
    tokenizer.zero_grad()
    output = tokenizer(golden["x"])
    losses = {"reconstruction": reconstruction_loss(output.reconstruction, golden["x"]), **output.losses}
    weighted_sum(losses, WEIGHTS).backward()
    expected = {renamed(k.removeprefix("grad.")): v for k, v in golden.items() if k.startswith("grad.")}
    assert expected.keys() == dict(tokenizer.named_parameters()).keys()
    for name, parameter in tokenizer.named_parameters():
        assert relative_error(parameter.grad, expected[name]) < 1e-4, name


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("quantizer_vq", {}),
        ("quantizer_vq_l2", {"l2_norm": True}),
        ("quantizer_vq_l2_search", {"l2_norm": True, "l2_search_only": True}),
        ("quantizer_vq_l2_search_d4", {"l2_norm": True, "l2_search_only": True}),
    ],
)
def test_vector_quantizer_matches_the_original(file: str, options: dict[str, bool]) -> None:
    golden = {
        name.replace("codebook.weight", "codebook"): t for name, t in load_file(GOLDEN / f"{file}.safetensors").items()
    }
    quantizer = VectorQuantizer(*golden["param.codebook"].shape, **options)
    with torch.no_grad():
        quantizer.weight.copy_(golden["param.codebook"])
    z = golden["z"].clone().requires_grad_()
    quantized = quantizer(z)
    losses = {name: WEIGHTS[name] * loss for name, loss in quantized.losses.items()}

    assert torch.equal(quantized.indices, golden["indices"])
    torch.testing.assert_close(quantized.codes, golden["codes"], atol=1e-5, rtol=0)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, golden[f"loss.{name}"], atol=1e-5, rtol=0)
    ((quantized.codes * golden["cotangent"]).sum() + sum(losses.values())).backward()
    assert relative_error(z.grad, golden["grad.z"]) < 1e-4
    assert relative_error(quantizer.weight.grad, golden["grad.codebook"]) < 1e-4


def test_ema_codebook_matches_the_original_after_each_of_four_steps() -> None:
    golden = load_file(GOLDEN / "quantizer_ema.safetensors")
    quantizer: Quantizer = EMAQuantizer(64, 8, decay=0.99)
    quantizer.load_state_dict(
        {"weight": golden["codebook.0"], "ema_sum": golden["ema_sum.0"], "ema_count": golden["ema_count.0"]}
    )
    quantizer.train()
    for step in range(1, 5):
        quantized = quantizer(golden[f"z.{step}"])
        assert torch.equal(quantized.indices, golden[f"indices.{step}"])
        state = quantizer.state_dict()
        for name, ours in (("codebook", "weight"), ("ema_sum", "ema_sum"), ("ema_count", "ema_count")):
            torch.testing.assert_close(state[ours], golden[f"{name}.{step}"], atol=1e-5, rtol=1e-5)
