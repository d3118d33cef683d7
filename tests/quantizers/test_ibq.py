"""IBQ and LFQ: parity with the original implementations, the entropy loss against a direct computation, memory."""

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN, relative_error
from safetensors.torch import load_file
from torch import Tensor

from vistok import quantizers
from vistok.quantizers import IBQQuantizer, LFQQuantizer, Quantizer, ibq, lfq
from vistok.quantizers.search import largest_dot


def direct_entropy_loss(logits: Tensor) -> Tensor:
    """E[H(p)] - H(E[p]) with all N x K probabilities at once, in float64."""
    p = logits.double().softmax(1)
    mean = p.mean(0)
    return -(p * p.clamp(min=1e-300).log()).sum(1).mean() + (mean * (mean + 1e-5).log()).sum()


def largest_allocation(quantizer: Quantizer, z: Tensor) -> tuple[int, int]:
    """Bytes of the largest single allocation, and of the peak of all, in a forward and a backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        quantized = quantizer(z)
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    changes = [
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, num_bytes in sorted(changes):
        total += num_bytes
        peak = max(peak, total)
    return max(num_bytes for _, num_bytes in changes), peak


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


def test_lfq_matches_the_original() -> None:
    golden = load_file(GOLDEN / "quantizer_lfq.safetensors")
    quantizer = LFQQuantizer(256)
    z = golden["z"].clone().requires_grad_()
    quantized = quantizer(z)
    losses = {"commitment": 0.25 * quantized.losses["commitment"], "entropy": 0.1 * quantized.losses["entropy"]}

    assert torch.equal(quantized.indices, golden["indices"])
    assert torch.equal(quantized.codes, golden["codes"])
    for name, loss in losses.items():
        torch.testing.assert_close(loss, golden[f"loss.{name}"], atol=1e-5, rtol=0)
    ((quantized.codes * golden["cotangent"]).sum() + sum(losses.values())).backward()
    assert relative_error(z.grad, golden["grad.z"]) < 1e-4


@pytest.mark.parametrize("tile", [2**8, 2**20])
def test_ibq_takes_the_largest_dot_product_and_the_gradient_of_the_softmax(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ibq._TILE_SCORES, "cpu", tile)
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
    monkeypatch.setitem(ibq._TILE_SCORES, "cpu", tile)
    torch.manual_seed(0)
    tokens, codebook = torch.randn(70, 4, requires_grad=True), torch.randn(33, 4, requires_grad=True)
    loss = ibq.entropy_loss(tokens, codebook, temperature=0.5, diversity=1.0)
    expected = direct_entropy_loss(tokens @ codebook.T / 0.5)
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    for ours, direct in zip(
        torch.autograd.grad(loss, (tokens, codebook)), torch.autograd.grad(expected, (tokens, codebook)), strict=True
    ):
        torch.testing.assert_close(ours, direct, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("num_bits", "temperature"), [(10, 1.0), (10, 0.01), (7, 0.3), (1, 0.3)])
def test_entropy_loss_of_lfq_equals_the_direct_computation(num_bits: int, temperature: float) -> None:
    torch.manual_seed(0)
    tokens = (0.3 * torch.randn(300, num_bits)).requires_grad_()
    loss = lfq.entropy_loss(tokens, temperature, diversity=1.0)
    codebook = LFQQuantizer(2**num_bits).codebook
    expected = direct_entropy_loss(2 * tokens.double() @ codebook.double().T / temperature)
    torch.testing.assert_close(loss.double(), expected, atol=1e-4, rtol=0)
    (grad,), (direct,) = torch.autograd.grad(loss, tokens), torch.autograd.grad(expected, tokens)
    assert relative_error(grad, direct) < 1e-4


def test_diversity_weighs_the_entropy_of_the_batch() -> None:
    torch.manual_seed(0)
    tokens, codebook = torch.randn(64, 4), torch.randn(16, 4)
    for values in (
        [ibq.entropy_loss(tokens, codebook, 0.5, diversity) for diversity in (0.0, 1.0, 3.0)],
        [lfq.entropy_loss(tokens, 0.5, diversity) for diversity in (0.0, 1.0, 3.0)],
    ):
        none, one, three = values
        assert none > 0 > one - none
        torch.testing.assert_close(three - none, 3 * (one - none))


def test_lfq_is_little_endian_and_zero_is_negative() -> None:
    quantizer = LFQQuantizer(16)
    z = torch.tensor([[0.3, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1e-6]]).view(2, 4, 1, 1)
    quantized = quantizer(z)
    assert quantized.indices.flatten().tolist() == [1 + 4, 8]
    assert quantized.codes[0].flatten().tolist() == [1, -1, 1, -1]
    assert quantizer.codebook[6].tolist() == [-1, 1, 1, -1]


def test_lfq_of_18_bits_stays_under_300_mb() -> None:
    quantizer = LFQQuantizer(2**18)
    z = torch.randn(64, 18, 16, 16, requires_grad=True)  # 16,384 tokens; all probabilities at once would be 16 GiB
    _, peak = largest_allocation(quantizer, z)
    assert 2**20 < peak < 300e6


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


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="take codebook_size 16, or 512 and codebook_dim 9"):
        quantizers.build("lfq", codebook_size=512, codebook_dim=4)
    with pytest.raises(ValueError, match="init is 'zeros', but must be 'normal' or 'uniform'"):
        quantizers.build("ibq", codebook_size=16, codebook_dim=4, init="zeros")
    for name in ("ibq", "lfq"):
        with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, temperature=0)
        with pytest.raises(ValueError, match=r"diversity is -1(\.0)?, but must be at least 0"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, diversity=-1)
