"""FSQ, BSQ, LFQ, SimVQ and Gumbel-softmax: parity with the originals and with vector-quantize-pytorch, options, annealing."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.golden import GOLDEN, relative_error
from safetensors.torch import load_file
from torch import Tensor
from vector_quantize_pytorch import FSQ, LFQ

from vistok import TrainConfig, VisualTokenizer, quantizers
from vistok.quantizers import BSQQuantizer, FSQQuantizer, GumbelQuantizer, LFQQuantizer, SimVQQuantizer, bsq

LEVELS = [[8, 8, 8], [8, 5, 5, 5], [8, 8, 8, 6, 5], [7, 5, 5, 5, 5], [3, 5, 4], [4, 4]]


def reversed_bits(indices: Tensor, num_bits: int) -> Tensor:
    """Little-endian to big-endian and back."""
    bits = indices.unsqueeze(-1) >> torch.arange(num_bits) & 1
    return (bits * 2 ** torch.arange(num_bits - 1, -1, -1)).sum(-1)


def z_within_bins(quantizer: FSQQuantizer, indices: Tensor) -> Tensor:
    """Some z [1, D, 1, N] of which every channel is well inside of the bin of its level."""
    half_width = (quantizer.levels // 2).view(-1, 1, 1)
    rounded = quantizer.indices_to_codes(indices.view(1, 1, -1)) * half_width
    levels = quantizer.levels.view(-1, 1, 1)
    half_range, offset = (levels - 1) * 0.999 / 2, (levels % 2 == 0) * 0.5
    bounded = rounded + 0.8 * (torch.rand(rounded.shape, generator=torch.Generator().manual_seed(0)) - 0.5)
    squashed = ((bounded + offset) / half_range).clamp(-0.999, 0.999)
    return squashed.atanh() - (offset / half_range).atanh()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_matches_the_installed_peer_on_every_code(levels: list[int]) -> None:
    quantizer, peer = FSQQuantizer(levels=levels), FSQ(levels)
    assert (quantizer.codebook_size, quantizer.codebook_dim) == (math.prod(levels), len(levels))
    every_index = torch.arange(quantizer.codebook_size)
    z = z_within_bins(quantizer, every_index)
    quantized, (peer_codes, peer_indices) = quantizer(z), peer(z)
    assert torch.equal(quantized.indices.flatten(), every_index)
    assert torch.equal(quantized.indices, peer_indices.long())
    torch.testing.assert_close(quantized.codes, peer_codes, atol=1e-6, rtol=0)
    torch.testing.assert_close(quantizer.codebook, peer.implicit_codebook, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_matches_the_codes_of_diffusers(levels: list[int]) -> None:
    from diffusers.models.autoencoders.autoencoder_vidtok import FSQRegularizer  # seconds to import

    quantizer, peer = FSQQuantizer(levels=levels), FSQRegularizer(levels)
    z = z_within_bins(quantizer, torch.arange(quantizer.codebook_size))
    torch.testing.assert_close(quantizer(z).codes, peer(z)[0], atol=1e-6, rtol=0)  # its indices are truncated
    torch.testing.assert_close(quantizer.codebook, peer.implicit_codebook, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_passes_the_gradient_of_its_bound(levels: list[int]) -> None:
    quantizer = FSQQuantizer(levels=levels)
    z = torch.randn(2, len(levels), 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(quantizer(z).codes.sum(), z)
    for channel, num_levels in enumerate(levels):
        half_range, offset = (num_levels - 1) * 0.999 / 2, 0.0 if num_levels % 2 else 0.5
        slope = half_range * (1 - (z[:, channel] + math.atanh(offset / half_range)).tanh() ** 2) / (num_levels // 2)
        torch.testing.assert_close(grad[:, channel], slope, atol=1e-6, rtol=1e-4)


def test_fsq_on_an_example_worked_by_hand() -> None:
    quantizer = FSQQuantizer(levels=[3, 5, 4])  # of the paper's notebook
    quantized = quantizer(torch.tensor([0.25, 0.6, -7.0]).view(1, 3, 1, 1))
    assert quantized.codes.flatten().tolist() == [0.0, 0.5, -1.0]
    assert quantized.indices.item() == 1 + 3 * 3 + 0 * 15
    assert FSQQuantizer(levels=[8, 4])(torch.zeros(1, 2, 1, 1)).codes.abs().max() == 0
    extreme = quantizer(torch.tensor([1e9, -1e9, 1e9]).view(1, 3, 1, 1))
    assert extreme.indices.item() == 2 + 0 * 3 + 3 * 15


def test_fsq_levels_follow_from_the_sizes_or_must_agree_with_them() -> None:
    assert quantizers.build("fsq", codebook_size=512, codebook_dim=3).levels.tolist() == [8, 8, 8]
    with pytest.raises(ValueError, match=r"512 codes are no grid of 4 .*usual are \[8, 8, 8\], codebook_size 512"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4)
    with pytest.raises(ValueError, match=r"levels \[8, 5, 5, 5\] give codebook_size 1000 and codebook_dim 4"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4, levels=[8, 5, 5, 5])
    with pytest.raises(ValueError, match="give codebook_size 512 and codebook_dim 3"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4, levels=[8, 8, 8])
    with pytest.raises(ValueError, match="fsq needs levels, or codebook_size and codebook_dim"):
        quantizers.build("fsq")
    for levels in ([8, 2], []):
        with pytest.raises(ValueError, match="needs integers of 3 or more"):
            quantizers.build("fsq", levels=levels)
    with pytest.raises(TypeError, match=r"levels\[1\] is 4\.0 \(float\), but must be of type int"):
        quantizers.build("fsq", levels=[8, 4.0])
    with pytest.raises(ValueError, match="16 codes are no grid of 4 equal levels of 3 or more"):
        quantizers.build("fsq", codebook_size=16, codebook_dim=4)


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


def test_bsq_is_on_the_unit_sphere_and_little_endian() -> None:
    quantizer = BSQQuantizer(16)
    z = torch.tensor([[0.3, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1e-6]]).view(2, 4, 1, 1)
    quantized = quantizer(z)
    assert quantized.indices.flatten().tolist() == [1 + 4, 8]
    assert quantized.codes[0].flatten().tolist() == [0.5, -0.5, 0.5, -0.5]
    torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(16))
    torch.testing.assert_close(quantizer(7 * z).losses, quantized.losses)  # only the direction of z counts


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_entropy_loss_of_bsq_equals_the_sum_over_bits_of_the_direct_computation(temperature: float) -> None:
    torch.manual_seed(0)
    num_bits, diversity = 6, 0.7
    tokens = F.normalize(torch.randn(100, num_bits), dim=1).requires_grad_()
    loss = bsq.entropy_loss(tokens, temperature, diversity)
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
    loss = bsq.entropy_loss(tokens, 1e-3, 1.0)
    loss.backward()
    assert loss.abs() < 1e-6 and tokens.grad.isfinite().all()


def test_bsq_of_30_bits_needs_no_codebook() -> None:
    quantizer = BSQQuantizer(2**30)
    z = torch.randn(2, 30, 4, 4, requires_grad=True)
    quantized = quantizer(z)
    (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    assert quantized.indices.max() > 2**28
    assert torch.equal(quantizer.indices_to_codes(quantized.indices), quantized.codes)


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


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_gumbel_matches_torch_and_the_direct_divergence(temperature: float) -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4, temperature=temperature).train()
    z = torch.randn(2, 4, 5, 5, requires_grad=True)
    cotangent = torch.randn(2, 4, 5, 5)
    torch.manual_seed(1)
    quantized = quantizer(z)
    ours = torch.autograd.grad((quantized.codes * cotangent).sum(), [z, *quantizer.parameters()])

    logits = quantizer.projection(z.movedim(1, -1))  # [B, h, w, K]
    torch.manual_seed(1)
    one_hot = F.gumbel_softmax(logits, tau=temperature, hard=True)
    codes = (one_hot @ quantizer.weight).movedim(-1, 1)
    expected = torch.autograd.grad((codes * cotangent).sum(), [z, *quantizer.parameters()])
    assert torch.equal(quantized.indices, one_hot.argmax(-1))
    torch.testing.assert_close(quantized.codes, codes)
    for grad, direct in zip(ours, expected, strict=True):
        torch.testing.assert_close(grad, direct, atol=1e-5, rtol=1e-4)
    p = torch.distributions.Categorical(logits=logits)
    uniform = torch.distributions.Categorical(logits=torch.zeros(16))
    divergence = torch.distributions.kl_divergence(p, uniform).mean()
    torch.testing.assert_close(quantized.losses["kl"], divergence, atol=1e-6, rtol=1e-5)


def test_gumbel_draws_in_training_and_takes_the_arg_max_in_eval() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4)
    z = torch.randn(1, 4, 1, 1)
    p = quantizer.projection(z.view(1, 4)).softmax(1).squeeze(0)
    drawn = quantizer.train()(z.expand(1, 4, 100, 100)).indices.flatten().bincount(minlength=16) / 10_000
    torch.testing.assert_close(drawn, p, atol=0.02, rtol=0)  # four standard deviations or more
    quantizer.eval()
    assert (quantizer(z.expand(1, 4, 10, 10)).indices == p.argmax()).all()


def test_gumbel_anneals_with_the_forward_passes_of_training_and_keeps_its_place() -> None:
    options = {"temperature": 1.0, "final_temperature": 0.0625, "anneal_steps": 4}
    quantizer, z = GumbelQuantizer(16, 4, **options), torch.randn(1, 4, 2, 2)
    found = []
    for _ in range(6):
        found.append(float(quantizer.current_temperature()))
        quantizer.train()(z)
        quantizer.eval()(z)
    cosine = [0.0625 + 0.9375 * (1 + math.cos(math.pi * min(step / 4, 1))) / 2 for step in range(6)]
    assert found == pytest.approx(cosine)
    other = GumbelQuantizer(16, 4, **options)
    other.load_state_dict(quantizer.state_dict())
    assert other.current_temperature() == quantizer.current_temperature()
    assert "step" not in GumbelQuantizer(16, 4).state_dict()


def test_bad_options_are_refused() -> None:
    def build(name: str, **options: object) -> None:
        quantizers.build(name, **{"codebook_size": 16, "codebook_dim": 4} | options)

    with pytest.raises(ValueError, match="bsq has one bit a channel: take codebook_size 16, or 512 and codebook_dim 9"):
        build("bsq", codebook_size=512)
    with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
        build("bsq", temperature=0)
    with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
        build("gumbel", temperature=0)
    with pytest.raises(ValueError, match="anneal_steps None, but annealing needs both"):
        build("gumbel", final_temperature=0.1)
    with pytest.raises(ValueError, match="final_temperature is None and anneal_steps 10"):
        build("gumbel", anneal_steps=10)
    with pytest.raises(ValueError, match="final_temperature is 2.0, but must be above 0 and at most temperature 1.0"):
        build("gumbel", final_temperature=2, anneal_steps=10)
    with pytest.raises(ValueError, match="anneal_steps is 0, but must be at least 1"):
        build("gumbel", final_temperature=0.1, anneal_steps=0)


@pytest.mark.parametrize(
    ("name", "size", "dim", "options"),
    [
        ("fsq", 1000, 4, {"levels": [8, 5, 5, 5]}),
        ("bsq", 16, 4, {}),
        ("simvq", 16, 4, {}),
        ("gumbel", 16, 4, {"final_temperature": 0.0625, "anneal_steps": 10}),
    ],
)
def test_a_tokenizer_of_a_configuration_trains_saves_and_loads(
    name: str, size: int, dim: int, options: dict, tmp_path: Path
) -> None:
    config = TrainConfig(
        quantizer=name, codebook_size=size, codebook_dim=dim, quantizer_options=options, hidden_dim=8, image_size=16
    )
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(config)
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    output = tokenizer(images)
    (F.mse_loss(output.reconstruction, images) + sum(output.losses.values())).backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())
    tokenizer.save(tmp_path)
    loaded = VisualTokenizer.load(tmp_path)
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))


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
