"""SimVQ: parity with the original, what is frozen and what moves."""

import pytest
import torch
from helpers.golden import GOLDEN, relative_error
from safetensors.torch import load_file

from vistok.quantizers import SimVQQuantizer


def test_simvq_matches_the_original() -> None:
    golden = load_file(GOLDEN / "quantizer_simvq.safetensors")
    quantizer = SimVQQuantizer(64, 8)
    state = {
        "weight": golden["param.codebook"],
        "projection.weight": golden["param.projection.weight"],
        "projection.bias": golden["param.projection.bias"],
    }
    quantizer.load_state_dict(state)
    z = golden["z"].clone().requires_grad_()
    quantized = quantizer(z)
    loss = quantized.losses["codebook"] + 0.25 * quantized.losses["commitment"]

    assert torch.equal(quantized.indices, golden["indices"])
    torch.testing.assert_close(quantized.codes, golden["codes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(loss, golden["loss.quantizer"], atol=1e-5, rtol=0)
    ((quantized.codes * golden["cotangent"]).sum() + loss).backward()
    assert relative_error(z.grad, golden["grad.z"]) < 1e-4
    for name in ("weight", "bias"):
        grad = getattr(quantizer.projection, name).grad
        assert relative_error(grad, golden[f"grad.projection.{name}"]) < 1e-4


def test_simvq_draws_its_frozen_codes_at_unit_length() -> None:
    torch.manual_seed(0)
    assert SimVQQuantizer(1000, 16).weight.square().sum(1).mean().item() == pytest.approx(1, abs=0.05)


def test_simvq_moves_every_code_and_keeps_the_frozen_ones() -> None:
    torch.manual_seed(0)
    quantizer = SimVQQuantizer(64, 4)
    assert [name for name, _ in quantizer.named_parameters()] == ["projection.weight", "projection.bias"]
    frozen, codebook = quantizer.weight.clone(), quantizer.codebook.detach()
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    quantized = quantizer(torch.randn(1, 4, 1, 3))
    sum(quantized.losses.values()).backward()
    optimizer.step()
    assert len(quantized.indices.unique()) <= 3
    assert torch.equal(quantizer.weight, frozen)
    assert ((quantizer.codebook - codebook).abs().sum(1) > 0).all()
