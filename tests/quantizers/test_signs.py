"""LFQ and BSQ: parity with the originals and with vector-quantize-pytorch, their entropy losses directly, memory."""

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN, relative_error
from helpers.quantizers import direct_entropy_loss, largest_allocation
from safetensors.torch import load_file
from torch import Tensor
from vector_quantize_pytorch import LFQ

from vistok import quantizers
from vistok.quantizers import BSQQuantizer, LFQQuantizer
from vistok.quantizers.entropy import entropy_of_independent_signs, entropy_of_signs


def reversed_bits(indices: Tensor, num_bits: int) -> Tensor:
    """Little-endian to big-endian and back."""
    bits = indices.unsqueeze(-1) >> torch.arange(num_bits) & 1
    return (bits * 2 ** torch.arange(num_bits - 1, -1, -1)).sum(-1)


@pytest.mark.parametrize("num_bits", [1, 5, 10])
@pytest.mark.parametrize("spherical", [False, True], ids=["lfq", "bsq"])
def test_lfq_and_bsq_match_the_installed_peer(num_bits: int, spherical: bool) -> None:
    quantizer = (BSQQuantizer if spherical else LFQQuantizer)(2**num_bits, temperature=0.1, diversity=0.0)
    peer = LFQ(codebook_size=2**num_bits, dim=num_bits, spherical=spherical, diversity_gamma=0.0).train()
    torch.manual_seed(0)
    z = torch.randn(2, num_bits, 8, 8)
    quantized = quantizer(z)
    (codes, indices, _), breakdown = peer(z, inv_temperature=10.0, return_loss_breakdown=True)
    torch.testing.assert_close(quantized.codes, codes, atol=1e-6, rtol=0)
    assert torch.equal(quantized.indices, reversed_bits(indices.long(), num_bits))
    in_its_order = peer.maybe_l2norm(peer.codebook)[reversed_bits(torch.arange(2**num_bits), num_bits)]
    torch.testing.assert_close(quantizer.codebook, in_its_order, atol=1e-6, rtol=0)
    torch.testing.assert_close(quantized.losses["entropy"], breakdown.per_sample_entropy, atol=2e-3, rtol=1e-3)


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


def test_lfq_is_little_endian_and_zero_is_negative() -> None:
    quantizer = LFQQuantizer(16)
    z = torch.tensor([[0.3, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1e-6]]).view(2, 4, 1, 1)
    quantized = quantizer(z)
    assert quantized.indices.flatten().tolist() == [1 + 4, 8]
    assert quantized.codes[0].flatten().tolist() == [1, -1, 1, -1]
    assert quantizer.codebook[6].tolist() == [-1, 1, 1, -1]


def test_bsq_is_on_the_unit_sphere_and_little_endian() -> None:
    quantizer = BSQQuantizer(16)
    z = torch.tensor([[0.3, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1e-6]]).view(2, 4, 1, 1)
    quantized = quantizer(z)
    assert quantized.indices.flatten().tolist() == [1 + 4, 8]
    assert quantized.codes[0].flatten().tolist() == [0.5, -0.5, 0.5, -0.5]
    torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(16))
    torch.testing.assert_close(quantizer(7 * z).losses, quantized.losses)  # only the direction of z counts


@pytest.mark.parametrize(("num_bits", "temperature"), [(10, 1.0), (10, 0.01), (7, 0.3), (1, 0.3)])
def test_entropy_loss_of_lfq_equals_the_direct_computation(num_bits: int, temperature: float) -> None:
    torch.manual_seed(0)
    tokens = (0.3 * torch.randn(300, num_bits)).requires_grad_()
    loss = entropy_of_signs(tokens, temperature, diversity=1.0)
    codebook = LFQQuantizer(2**num_bits).codebook
    expected = direct_entropy_loss(2 * tokens.double() @ codebook.double().T / temperature)
    torch.testing.assert_close(loss.double(), expected, atol=1e-4, rtol=0)
    (grad,), (direct,) = torch.autograd.grad(loss, tokens), torch.autograd.grad(expected, tokens)
    assert relative_error(grad, direct) < 1e-4


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_entropy_loss_of_bsq_equals_the_sum_over_bits_of_the_direct_computation(temperature: float) -> None:
    torch.manual_seed(0)
    num_bits, diversity = 6, 0.7
    tokens = F.normalize(torch.randn(100, num_bits), dim=1).requires_grad_()
    loss = entropy_of_independent_signs(tokens, temperature, diversity)
    codebook = BSQQuantizer(2**num_bits).codebook.double()
    p = (2 * tokens.double() @ codebook.T / temperature).softmax(1)  # [N, 2^D], all codes
    token_entropy = -(p * p.clamp(min=1e-300).log()).sum(1).mean()
    one = p.mean(0) @ (codebook > 0).double()  # [D], the batch's probability of each bit
    batch_entropy = -(one * one.log() + (1 - one) * (1 - one).log()).sum()
    expected = token_entropy - diversity * batch_entropy
    torch.testing.assert_close(loss.double(), expected, atol=1e-5, rtol=0)
    (grad,), (direct,) = torch.autograd.grad(loss, tokens), torch.autograd.grad(expected, tokens)
    assert relative_error(grad, direct) < 1e-4
    joint = -(p.mean(0) * p.mean(0).log()).sum()
    assert batch_entropy >= joint  # as if bits were independent: an upper bound


def test_entropy_loss_of_bsq_is_finite_where_every_bit_is_certain() -> None:
    tokens = torch.full((10, 4), 0.5, requires_grad=True)
    loss = entropy_of_independent_signs(tokens, 1e-3, 1.0)
    loss.backward()
    assert loss.abs() < 1e-6 and tokens.grad.isfinite().all()


def test_lfq_of_18_bits_stays_under_300_mb() -> None:
    quantizer = LFQQuantizer(2**18)
    z = torch.randn(64, 18, 16, 16, requires_grad=True)  # 16,384 tokens; all probabilities at once would be 16 GiB
    _, peak = largest_allocation(quantizer, z)
    assert 2**20 < peak < 300e6


def test_bsq_of_30_bits_needs_no_codebook() -> None:
    quantizer = BSQQuantizer(2**30)
    z = torch.randn(2, 30, 4, 4, requires_grad=True)
    quantized = quantizer(z)
    (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    assert quantized.indices.max() > 2**28
    assert torch.equal(quantizer.indices_to_codes(quantized.indices), quantized.codes)


def test_bsq_scales_the_gradient_as_the_original_where_it_is_asked_to() -> None:
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    grads, found = [], []
    for gradient in ("straight-through", "scaled"):
        given = z.clone().requires_grad_()
        found.append(BSQQuantizer(16, gradient=gradient)(given))
        grads.append(torch.autograd.grad((found[-1].codes * z).sum(), given)[0])
    torch.testing.assert_close(grads[1], grads[0] / 2)  # 1/sqrt(D)
    assert torch.equal(found[0].codes, found[1].codes) and found[0].losses == found[1].losses

    unit = F.normalize(z, dim=1).requires_grad_()  # as the original writes it, with z on the sphere already
    signs = torch.where(unit > 0, 1.0, -1.0)
    (expected,) = torch.autograd.grad((((unit + (signs - unit).detach()) * 4**-0.5) * z).sum(), unit)
    given = z.clone().requires_grad_()
    (through_the_norm,) = torch.autograd.grad(F.normalize(given, dim=1), given, expected)
    torch.testing.assert_close(grads[1], through_the_norm)
    with pytest.raises(ValueError, match="gradient is 'scale', but must be 'straight-through' or 'scaled'"):
        BSQQuantizer(16, gradient="scale")


def test_diversity_weighs_the_entropy_of_the_batch_of_lfq() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(64, 4)
    none, one, three = (entropy_of_signs(tokens, 0.5, diversity) for diversity in (0.0, 1.0, 3.0))
    assert none > 0 > one - none
    torch.testing.assert_close(three - none, 3 * (one - none))


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="bsq has one bit a channel: take codebook_size 16, or 512 and codebook_dim 9"):
        quantizers.build("bsq", codebook_size=512, codebook_dim=4)
    with pytest.raises(ValueError, match="take codebook_size 16, or 512 and codebook_dim 9"):
        quantizers.build("lfq", codebook_size=512, codebook_dim=4)
    for name in ("lfq", "bsq"):
        with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, temperature=0)
        with pytest.raises(ValueError, match=r"diversity is -1(\.0)?, but must be at least 0"):
            quantizers.build(name, codebook_size=16, codebook_dim=4, diversity=-1)
