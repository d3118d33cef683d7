"""IBQ: parity with the original implementation, the entropy loss against a direct computation, memory."""

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN, relative_error
from helpers.quantizers import direct_entropy_loss, largest_allocation
from safetensors.torch import load_file

from vistok import quantizers
from vistok.config import TrainConfig
from vistok.losses import loss_weights
from vistok.quantizers import IBQQuantizer, entropy
from vistok.quantizers.search import largest_dot


def test_ibq_matches_the_original() -> None:
    golden = load_file(GOLDEN / "quantizer_ibq.safetensors")
    quantizer = IBQQuantizer(64, 8)
    with torch.no_grad():
        quantizer.weight.copy_(golden["param.codebook"])
    z = golden["z"].clone().requires_grad_()
    quantized = quantizer(z)
    squared = quantized.losses["commitment"] + 0.25 * quantized.losses["codebook"]
    entropy = 0.05 * quantized.losses["entropy"]

    assert torch.equal(quantized.indices, golden["indices"])
    torch.testing.assert_close(quantized.codes, golden["codes"], atol=1e-5, rtol=0)
    torch.testing.assert_close(squared, golden["loss.quantizer"], atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, golden["loss.entropy"], atol=1e-5, rtol=0)
    ((quantized.codes * golden["cotangent"]).sum() + squared + entropy).backward()
    assert relative_error(z.grad, golden["grad.z"]) < 1e-4
    assert relative_error(quantizer.weight.grad, golden["grad.codebook"]) < 1e-4


@pytest.mark.parametrize("tile", [2**8, 2**20])
def test_ibq_takes_the_largest_dot_product_and_the_gradient_of_the_softmax(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(entropy._TILE_SCORES, "cpu", tile)
    torch.manual_seed(0)
    quantizer = IBQQuantizer(50, 6)
    quantizer.weight.data = quantizer.weight.data.double()  # float64 to compare with, which `double()` does not give
    weight, z = quantizer.weight, torch.randn(2, 6, 5, 3, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(2, 6, 5, 3, dtype=torch.float64)
    quantized = quantizer.quantize(z)
    (quantized.codes * cotangent).sum().backward()
    grads, z.grad, weight.grad = (z.grad, weight.grad), None, None

    scores = torch.einsum("bdhw,kd->bhwk", z, weight)
    assert torch.equal(quantized.indices, scores.argmax(-1))
    soft = scores.softmax(-1)
    one_hot = F.one_hot(scores.argmax(-1), 50).double() - soft.detach() + soft  # as the paper writes it
    (torch.einsum("bhwk,kd->bdhw", one_hot, weight) * cotangent).sum().backward()
    for ours, expected in zip(grads, (z.grad, weight.grad), strict=True):
        torch.testing.assert_close(ours, expected)


def test_ibq_codes_of_the_original_scale_let_a_gradient_through_and_small_ones_do_not() -> None:
    torch.manual_seed(0)
    slopes = {}
    for init in ("normal", "uniform"):
        quantizer = IBQQuantizer(512, 8, init=init)
        z = torch.randn(1, 8, 8, 8, requires_grad=True)
        (diagonal,) = torch.autograd.grad(quantizer(z).codes.sum(), z)
        slopes[init] = diagonal.abs().mean().item()
    assert slopes["normal"] > 0.1 and slopes["uniform"] < 1e-4


@pytest.mark.parametrize("tile", [2**8, 2**20])
def test_entropy_loss_of_ibq_equals_the_direct_computation(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(entropy._TILE_SCORES, "cpu", tile)
    torch.manual_seed(0)
    tokens, codebook = torch.randn(70, 4, requires_grad=True), torch.randn(33, 4, requires_grad=True)
    loss = entropy.entropy_of_dot_products(tokens, codebook, temperature=0.5, diversity=1.0)
    expected = direct_entropy_loss(tokens @ codebook.T / 0.5)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    for ours, direct in zip(
        torch.autograd.grad(loss, (tokens, codebook)), torch.autograd.grad(expected, (tokens, codebook)), strict=True
    ):
        torch.testing.assert_close(ours, direct, atol=1e-5, rtol=1e-4)


def test_memory_of_ibq_does_not_grow_with_tokens_times_codes() -> None:
    quantizer = IBQQuantizer(2**13, 8)
    z = torch.randn(8, 8, 32, 32, requires_grad=True)  # 8,192 tokens; all scores at once would be 256 MiB
    largest, _ = largest_allocation(quantizer, z)
    assert 2**18 < largest < 2**24


@pytest.mark.parametrize(("tokens", "codes", "dim"), [(1, 1, 1), (1000, 513, 3), (3, 2**21, 2)])
def test_dot_product_search_equals_the_float64_arg_max(tokens: int, codes: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    z, codebook = (torch.randn(n, dim, generator=generator) for n in (tokens, codes))
    scores = z.double() @ codebook.double().T
    chosen = scores.gather(1, largest_dot(z, codebook)[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, scores.max(1).values, atol=1e-5, rtol=1e-6)  # equal but for rounding ties


def test_diversity_weighs_the_entropy_of_the_batch_of_ibq() -> None:
    torch.manual_seed(0)
    tokens, codebook = torch.randn(64, 4), torch.randn(16, 4)
    none, one, three = (
        entropy.entropy_of_dot_products(tokens, codebook, 0.5, diversity) for diversity in (0.0, 1.0, 3.0)
    )
    assert none > 0 > one - none
    torch.testing.assert_close(three - none, 3 * (one - none))


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="init is 'zeros', but must be 'normal' or 'uniform'"):
        quantizers.build("ibq", codebook_size=16, codebook_dim=4, init="zeros")
    with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
        quantizers.build("ibq", codebook_size=16, codebook_dim=4, temperature=0)
    with pytest.raises(ValueError, match=r"diversity is -1(\.0)?, but must be at least 0"):
        quantizers.build("ibq", codebook_size=16, codebook_dim=4, diversity=-1)


@pytest.mark.parametrize("row", ["ibq-d64-k512", "ibq-d64-k2048"])
def test_the_weights_of_the_published_rows_are_those_of_their_three_squared_errors(row: str) -> None:
    """1 for codes to z, 0.25 for z to codes, 1 for both to each other: the same gradients, the softmax aside."""
    torch.manual_seed(0)
    config = TrainConfig.from_row(f"imagenet64/{row}", "paper")
    quantizer = IBQQuantizer(config.codebook_size, 64, **config.quantizer_options)
    weights, z = loss_weights(config, quantizer), torch.randn(2, 64, 4, 4, requires_grad=True)
    losses = quantizer(z).losses
    squared = sum(weights[name] * losses[name] for name in ("codebook", "commitment"))
    ours = torch.autograd.grad(squared, (z, quantizer.weight))

    tokens, codebook = z.permute(0, 2, 3, 1).flatten(0, 2), quantizer.weight
    soft = (tokens @ codebook.T).softmax(1)
    one_hot = F.one_hot(soft.argmax(1), len(codebook)).float()
    chosen, through = one_hot @ codebook, (one_hot - soft.detach() + soft) @ codebook
    to_z, to_codes = F.mse_loss(chosen, tokens.detach()), F.mse_loss(tokens, chosen.detach())
    theirs = to_z + 0.25 * to_codes + F.mse_loss(through, tokens)
    for ours_of, theirs_of in zip(ours, torch.autograd.grad(theirs, (z, codebook)), strict=True):
        assert relative_error(ours_of, theirs_of) < 0.01
    assert weights["entropy"] == 0.1
