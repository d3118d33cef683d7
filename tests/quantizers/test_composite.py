"""Quantizers made of quantizers: the laws with every member, against direct computations, and through the package."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.evaluation import evaluate
from vistok.quantizers import QUANTIZERS, Quantizer, gumbel, has_codebook
from vistok.quantizers.composite import Composite, GroupedQuantizer, MultiScaleQuantizer, ResidualQuantizer
from vistok.runs import Run
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import encode_dataset
from vistok.training.trainer import Trainer

K, D = 16, 4
COMPOSITES = {"residual": ResidualQuantizer, "grouped": GroupedQuantizer, "multiscale": MultiScaleQuantizer}
MEMBERS = [name for name, kind in QUANTIZERS.items() if has_codebook(name) and not issubclass(kind, Composite)]
KINDS: dict[str, tuple[type[Composite], dict[str, Any]]] = {
    "residual": (ResidualQuantizer, {"num_levels": 3}),
    "residual-shared": (ResidualQuantizer, {"num_levels": 3, "shared": True}),
    "grouped": (GroupedQuantizer, {"num_groups": 2}),
    "multiscale": (MultiScaleQuantizer, {"scales": [1, 2, 5, 8]}),
    "multiscale-plain": (MultiScaleQuantizer, {"scales": [1, 2, 5, 8], "phi_ratio": 0}),
}
CODES_A_CHANNEL = {"fsq": 3}  # of members whose K is that to the power of D, as of lfq's two
every_kind = pytest.mark.parametrize("kind", KINDS)
every_member = pytest.mark.parametrize("member", MEMBERS)
every_shape = pytest.mark.parametrize("shape", [(2, D, 8, 8), (3, D, 1, 20), (2, D, 6, 9)], ids=str)


def spread(quantizer: Quantizer) -> Quantizer:
    """Put codebooks that are learned or moved at the size of z, so that many codes are chosen."""
    with torch.no_grad():
        for name, value in quantizer.state_dict().items():
            if name.endswith("weight") and value.ndim == 2:
                value.normal_(std=0.7)
    return quantizer


def build(kind: str, member: str = "vq", **options: Any) -> Composite:
    torch.manual_seed(0)
    cls, usual = KINDS[kind]
    size = CODES_A_CHANNEL.get(member, 2) ** (D // 2 if kind == "grouped" else D)  # 16, or 4 a group
    return spread(cls(**({"codebook_size": size, "codebook_dim": D, "member": member} | usual | options)))


def z_of(shape: tuple[int, ...] = (2, D, 8, 8), seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def state_of(quantizer: Quantizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in quantizer.state_dict().items()}


def nearest_directly(z: Tensor, codebook: Tensor) -> Tensor:
    """The nearest codes of z [B, D, h, w], int64 [B, h, w], from all distances in float64."""
    distances = z.double().movedim(1, -1).unsqueeze(-2) - codebook.double()
    return distances.square().sum(-1).argmin(-1)


def lookup(indices: Tensor, codebook: Tensor) -> Tensor:
    return codebook[indices].movedim(-1, 1)


def assert_all_equal(ours: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert len(ours) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(ours, expected, strict=True))


# The laws.


def test_every_registered_composite_is_under_the_laws() -> None:
    registered = {name for name, kind in QUANTIZERS.items() if issubclass(kind, Composite)}
    assert registered <= set(COMPOSITES) == {kind.partition("-")[0] for kind in KINDS}
    assert {"vq", "ema"} <= set(MEMBERS)


@every_kind
@every_member
@every_shape
def test_shapes_dtypes_and_range(kind: str, member: str, shape: tuple[int, ...]) -> None:
    quantizer = build(kind, member).train()
    quantized = quantizer(z_of(shape))
    assert quantized.codes.shape == shape and quantized.codes.dtype == torch.float32
    assert isinstance(quantized.levels, tuple) and len(quantized.levels) == len(quantizer.codebook_sizes)
    assert quantized.levels[-1].shape == (shape[0], *shape[2:])
    for indices, size in zip(quantized.levels, quantizer.codebook_sizes, strict=True):
        assert indices.dtype == torch.int64 and indices.ndim == 3 and indices.shape[0] == shape[0]
        assert indices.min() >= 0 and indices.max() < size
    assert len(quantized.levels[-1].unique()) > 2
    assert set(quantized.losses) == set(quantizer.loss_names)
    assert all(loss.ndim == 0 and loss.dtype == torch.float32 for loss in quantized.losses.values())


@every_kind
@every_member
@every_shape
def test_indices_to_codes_gives_the_codes(kind: str, member: str, shape: tuple[int, ...]) -> None:
    quantizer = build(kind, member).eval()
    z = z_of(shape)
    quantized = quantizer(z)
    assert torch.equal(quantizer.indices_to_codes(quantized.levels), quantized.codes)

    before = copy.deepcopy(quantizer)  # in training the codes are those before the update
    quantized = quantizer.train()(z)
    error = (before.indices_to_codes(quantized.levels) - quantized.codes).abs()
    assert bool((error <= 1e-6 * z.abs().clamp(min=1)).all())


@every_kind
@every_member
def test_a_gradient_reaches_z_and_every_parameter(kind: str, member: str) -> None:
    quantizer = build(kind, member).train()
    z = (z_of() + 1).requires_grad_()  # a mean other than 0, so that on the coarsest grid too no code is 0
    quantized = quantizer(z)
    (grad,) = torch.autograd.grad((quantized.codes * z_of(seed=2)).sum(), z, retain_graph=True)
    assert (grad.abs().amax((0, 2, 3)) > 0).all()
    (quantized.codes.square().sum() + sum(quantized.losses.values())).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantizer.parameters())


@every_kind
@pytest.mark.parametrize("member", ["vq", "ema"])
def test_straight_through_is_the_identity_over_the_whole(kind: str, member: str) -> None:
    z = z_of().requires_grad_()
    cotangent = z_of(seed=2)
    (grad,) = torch.autograd.grad((build(kind, member).train()(z).codes * cotangent).sum(), z)
    torch.testing.assert_close(grad, cotangent)


@every_kind
@every_member
def test_eval_changes_no_state_and_loading_keeps_every_index(kind: str, member: str) -> None:
    quantizer, other = build(kind, member), build(kind, member)
    quantizer.train()(z_of())
    before = state_of(quantizer.eval())
    quantized = quantizer(z_of(seed=3))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    other.load_state_dict(before)
    assert_all_equal(other.eval()(z_of(seed=3)).levels, quantized.levels)
    assert not any(module.training for module in quantizer.modules())


@every_kind
@every_member
def test_float32_inside_autocast(kind: str, member: str) -> None:
    plain_quantizer, quantizer = build(kind, member).eval(), build(kind, member).eval()
    plain = plain_quantizer(z_of())
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = quantizer(z_of())
        from_indices = quantizer.indices_to_codes(under_autocast.levels)
    assert_all_equal(under_autocast.levels, plain.levels)
    assert torch.equal(under_autocast.codes, plain.codes) and torch.equal(from_indices, plain.codes)
    assert all(loss.dtype == torch.float32 for loss in under_autocast.losses.values())
    assert quantizer(z_of().bfloat16()).codes.dtype == torch.float32


@every_kind
def test_z_of_another_dimension_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=r"must be \[B, 4, h, w\]"):
        build(kind)(torch.zeros(2, D + 1, 8, 8))


@every_kind
def test_several_codebooks_are_not_one(kind: str) -> None:
    quantizer = build(kind)
    for name in ("codebook", "codebook_size"):
        with pytest.raises(ValueError, match=f"has {len(quantizer.codebook_sizes)} codebooks"):
            getattr(quantizer, name)


@pytest.mark.parametrize("kind", ["residual-shared", "multiscale"])
def test_memory_does_not_grow_with_tokens_times_codes(kind: str) -> None:
    quantizer = build(kind, codebook_size=2**12)
    z = z_of((1, D, 64, 64)).requires_grad_()  # all scores of one level at once would be 64 MiB
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        quantized = quantizer(z)
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    assert 2**16 < max(event.self_cpu_memory_usage for event in profile.events()) < 2**24


# One level, or one group, is the member.


@every_member
@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (ResidualQuantizer, {"num_levels": 1}),
        (ResidualQuantizer, {"num_levels": 1, "shared": True}),
        (GroupedQuantizer, {"num_groups": 1}),
        (MultiScaleQuantizer, {"scales": [8], "phi_ratio": 0}),
    ],
    ids=["residual", "residual-shared", "grouped", "multiscale"],
)
@pytest.mark.parametrize("training", [True, False])
def test_one_part_equals_the_member(member: str, cls: type[Composite], options: dict, training: bool) -> None:
    torch.manual_seed(0)
    quantizer = spread(cls(CODES_A_CHANNEL.get(member, 2) ** D, D, member, **options)).train(training)
    alone = copy.deepcopy(quantizer.members[0])
    assert quantizer.loss_names == alone.loss_names and quantizer.codebook_size == alone.codebook_size
    assert torch.equal(quantizer.codebook, alone.codebook)
    found = []
    for part in (quantizer, alone):
        torch.manual_seed(1)  # for members that draw
        z = z_of().requires_grad_()
        quantized = part(z)
        total = (quantized.codes * z_of(seed=2)).sum() + sum(quantized.losses.values())
        total.backward()
        found.append((quantized, z.grad, [p.grad for p in part.parameters()], list(state_of(part).values())))
    (ours, *our_rest), (expected, *expected_rest) = found
    assert torch.equal(ours.indices, expected.indices)
    torch.testing.assert_close([ours.codes, ours.losses, our_rest], [expected.codes, expected.losses, expected_rest])


# Residual levels.


def test_residual_levels_are_the_nearest_codes_of_what_is_left() -> None:
    quantizer = build("residual").train()
    z = z_of().requires_grad_()
    quantized = quantizer(z)
    left, errors, indices = z.detach(), [], []
    for member in quantizer.members:
        indices.append(nearest_directly(left, member.codebook))
        left = left - lookup(indices[-1], member.codebook.detach())
        errors.append(left.square().mean())
    assert_all_equal(quantized.levels, tuple(indices))
    torch.testing.assert_close(quantized.codes, z - left)
    for name in ("codebook", "commitment"):
        torch.testing.assert_close(quantized.losses[name], torch.stack(errors).mean())

    sums = [z.detach()]  # RQ-VAE's commitment: every level's |z - sg[sum up to it]|^2 reaches z
    for member, level in zip(quantizer.members, indices, strict=True):
        sums.append(sums[-1] - lookup(level, member.codebook.detach()))
    (grad,) = torch.autograd.grad(quantized.losses["commitment"], z)
    torch.testing.assert_close(grad, 2 / z.numel() * torch.stack(sums[1:]).mean(0))


@pytest.mark.parametrize("shared", [False, True])
def test_the_error_falls_with_every_level_once_fitted(shared: bool) -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(K, D, "ema", {"decay": 0.8}, num_levels=4, shared=shared).train()
    for step in range(60):
        quantizer(z_of((4, D, 8, 8), seed=10 + step))
    z = z_of((4, D, 8, 8), seed=9)
    indices = quantizer.eval()(z).levels
    left, errors = z, [z.square().mean()]
    for level, index in enumerate(indices):
        left = left - quantizer.members[0 if shared else level].indices_to_codes(index)
        errors.append(left.square().mean())
    assert all(after < 0.9 * before for before, after in zip(errors, errors[1:], strict=False)), errors
    assert len(quantizer.state_dict()) == (3 if shared else 12)


@pytest.mark.parametrize("kind", ["residual-shared", "multiscale"])
def test_a_shared_codebook_moves_once_by_the_tokens_of_all_levels(kind: str) -> None:
    quantizer = build(kind, "ema").train()
    member = quantizer.members[0]
    expected = copy.deepcopy(member)
    z = z_of()
    residuals = [residual.movedim(1, -1).reshape(-1, D) for residual in quantizer._chosen(z)[0]]
    indices = quantizer(z).levels
    tokens, chosen = torch.cat(residuals), torch.cat([level.flatten() for level in indices])
    one_hot = F.one_hot(chosen, K).float()
    count = 0.99 * expected.ema_count + 0.01 * one_hot.sum(0)
    sums = 0.99 * expected.ema_sum + 0.01 * one_hot.T @ tokens
    moved = torch.where(one_hot.any(0)[:, None], sums / count[:, None], expected.weight)
    torch.testing.assert_close(member.ema_count, count)
    torch.testing.assert_close(member.ema_sum, sums)
    torch.testing.assert_close(member.weight, moved)


@pytest.mark.parametrize("kind", ["residual", "residual-shared", "multiscale"])
def test_each_level_quantizes_what_the_codes_that_were_drawn_have_left(kind: str) -> None:
    quantizer = build(kind, "gumbel").train()
    z = z_of()
    torch.manual_seed(3)
    quantized = quantizer(z)
    assert not all(map(torch.equal, quantized.levels, copy.deepcopy(quantizer).eval()(z).levels))  # they are drawn
    members = [quantizer.members[0 if quantizer.shared else level] for level in range(len(quantized.levels))]
    residual, uniform = z, []
    for level, (member, indices) in enumerate(zip(members, quantized.levels, strict=True)):
        tokens = quantizer._down(residual, level).movedim(1, -1).reshape(-1, D)
        p = member.projection(tokens).softmax(1)
        uniform.append((p * (p * K).log()).sum(1))
        residual = residual - quantizer._up(member.indices_to_codes(indices), level, z.shape[2:])
    torch.testing.assert_close(quantized.losses["kl"], torch.cat(uniform).mean())
    torch.testing.assert_close(quantized.codes, z - residual)


def test_noise_given_what_was_drawn_is_the_noise_that_it_was_drawn_with() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([1.0, 0.0, -1.0]).expand(200_000, 3)
    drawn = gumbel._with_noise(logits)
    given = gumbel._with_noise_of(logits, gumbel._with_noise(logits).argmax(1))
    for largest in range(3):
        a, b = (noisy[noisy.argmax(1) == largest] for noisy in (drawn, given))
        assert abs(len(a) - len(b)) < 0.02 * len(a)
        for quantity in (lambda noisy: noisy, lambda noisy: noisy.sort(1).values.diff(dim=1)):
            levels = torch.tensor([0.1, 0.5, 0.9])
            torch.testing.assert_close(
                quantity(a).quantile(levels, 0), quantity(b).quantile(levels, 0), atol=0.04, rtol=0.04
            )


@pytest.mark.parametrize("member", ["vq", "ema"])
@pytest.mark.parametrize("options", [{}, {"revive_after": 1}], ids=str)
def test_a_shared_codebook_that_starts_by_kmeans_starts_near_z(member: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(K, D, member, {"init": "kmeans"} | options, num_levels=4, shared=True).train()
    z = z_of((8, D, 8, 8)) + 2
    quantized = quantizer(z)
    assert (quantized.codes - z).square().mean() < 0.15 * (z - z.mean()).square().mean()
    sums = quantizer._sums([quantizer.members[0].indices_to_codes(level) for level in quantized.levels])
    errors = [(part - z).square().mean().item() for part in sums]
    assert errors == sorted(errors, reverse=True)
    assert bool(quantizer.members[0].initialized) and not quantizer.members[0].unstarted


def test_a_multiscale_codebook_starts_by_kmeans_with_fewer_images_than_codes() -> None:
    torch.manual_seed(0)
    quantizer = MultiScaleQuantizer(K, D, "ema", {"init": "kmeans"}, scales=[1, 2, 5, 8], phi_ratio=0).train()
    z = z_of() + 2  # the coarsest grid has 2 tokens
    assert (quantizer(z).codes - z).square().mean() < 0.4 * (z - z.mean()).square().mean()


def test_levels_quantize_what_revived_codes_have_left() -> None:
    quantizer = build("residual-shared", "ema", member_options={"revive_after": 1}).train()
    member = quantizer.members[0]
    with torch.no_grad():
        member.weight[: K // 2] = 100.0  # codes that nobody uses
    quantizer(z_of())
    seen: list[Tensor] = []
    quantize_as = member.quantize_as
    member.quantize_as = lambda z, indices: seen.append((z, member.weight.clone())) or quantize_as(z, indices)
    indices = quantizer(z_of(seed=2)).levels
    (tokens, codebook), left = seen[0], z_of(seed=2)
    assert not (codebook == 100).any()
    for level, part in enumerate(tokens[0, :, 0].T.split(2 * 8 * 8)):
        torch.testing.assert_close(part, left.movedim(1, -1).reshape(-1, D))
        left = left - lookup(indices[level], codebook)


@pytest.mark.parametrize("shared", [False, True])
def test_residual_indices_equal_those_of_vector_quantize_pytorch(shared: bool) -> None:
    package = pytest.importorskip("vector_quantize_pytorch")
    theirs = package.ResidualVQ(dim=D, num_quantizers=3, codebook_size=K, shared_codebook=shared).eval()
    quantizer = build("residual-shared" if shared else "residual").eval()
    with torch.no_grad():
        for level, layer in enumerate(theirs.layers):
            layer._codebook.embed.copy_(quantizer.members[0 if shared else level].codebook[None])
            layer._codebook.initted.fill_(True)
    z = z_of()
    codes, indices, *_ = theirs(z.flatten(2).mT)  # [B, h*w, D]
    quantized = quantizer(z)
    assert torch.equal(torch.stack(quantized.levels, -1).flatten(1, 2), indices)
    torch.testing.assert_close(quantized.codes.flatten(2).mT, codes)


# Groups.


def test_groups_are_the_members_of_their_channels() -> None:
    quantizer = build("grouped", member_options={"l2_norm": True}).train()
    z = z_of()
    quantized = quantizer(z)
    for group, member in enumerate(quantizer.members):
        part = F.normalize(z[:, 2 * group : 2 * group + 2], dim=1)
        indices = nearest_directly(part, F.normalize(member.weight, dim=1))
        assert torch.equal(quantized.levels[group], indices)
        codes = lookup(indices, F.normalize(member.weight, dim=1))
        torch.testing.assert_close(quantized.codes[:, 2 * group : 2 * group + 2], codes)
    by_group = [member(z[:, 2 * g : 2 * g + 2]).losses["commitment"] for g, member in enumerate(quantizer.members)]
    torch.testing.assert_close(quantized.losses["commitment"], torch.stack(by_group).mean())


# Scales.


@pytest.mark.parametrize("phi_ratio", [0.5, 0])
def test_scales_are_those_of_var(phi_ratio: float) -> None:
    """Algorithms 1 and 2 of VAR as its code has them, with the convolutions' share of its codebook loss."""
    quantizer = build("multiscale", phi_ratio=phi_ratio).train()
    z, codebook = z_of(), quantizer.members[0].codebook.detach()
    left, f_hat, indices, errors = z, torch.zeros_like(z), [], []
    own_errors, num_tokens = 0.0, 0
    for scale, phi in zip((1, 2, 5, 8), range(4), strict=True):
        small = F.interpolate(left, (scale, scale), mode="area")
        indices.append(nearest_directly(small, codebook))
        codes = lookup(indices[-1], codebook)
        own_errors += (small - codes).square().sum()
        num_tokens += codes.numel()
        h = F.interpolate(codes, (8, 8), mode="bicubic")
        if phi_ratio:
            convolution = quantizer.phis[phi]
            h = 0.5 * h + 0.5 * F.conv2d(h, convolution.weight, convolution.bias, padding=1)
        f_hat, left = f_hat + h, left - h.detach()
        errors.append((f_hat - z).square().mean())

    quantized = quantizer(z)
    assert_all_equal(quantized.levels, tuple(indices))
    torch.testing.assert_close(quantized.codes, f_hat, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quantized.losses["commitment"], own_errors / num_tokens)
    if phi_ratio:
        error = torch.stack(errors).mean()
        torch.testing.assert_close(quantized.losses["codebook"], own_errors / num_tokens + error)
        ours = torch.autograd.grad(quantized.losses["codebook"], list(quantizer.phis.parameters()))
        torch.testing.assert_close(ours, torch.autograd.grad(error, list(quantizer.phis.parameters())))


def test_losses_of_sums_are_those_of_var() -> None:
    """Its golden file has their values; here are their gradients, and the member's own losses are not among them."""
    options = {"scales": (1, 2, 5, 8), "losses_of_sums": True}
    quantizer = MultiScaleQuantizer(K, D, member_options={"entropy_temperature": 0.1}, **options).train()
    z = z_of().requires_grad_()
    quantized = quantizer(z)
    assert quantized.losses.keys() == {"codebook", "commitment", "entropy"}
    learning = [quantizer.members[0].weight, *quantizer.phis.parameters()]
    f_hat, sums = 0, []
    for level, indices in enumerate(quantized.levels):
        codes = F.embedding(indices, quantizer.members[0].weight).permute(0, 3, 1, 2)
        h = F.interpolate(codes, (8, 8), mode="bicubic") if level < 3 else codes
        f_hat = f_hat + 0.5 * h + 0.5 * nn.Conv2d.forward(quantizer.phis[level], h)
        sums.append(f_hat)
    of_codes = torch.stack([(f_hat - z.detach()).square().mean() for f_hat in sums]).mean()
    of_z = torch.stack([(f_hat.detach() - z).square().mean() for f_hat in sums]).mean()
    for found, expected, of in (
        (quantized.losses["codebook"], of_codes, learning),
        (quantized.losses["commitment"], of_z, [z]),
    ):
        torch.testing.assert_close(found, expected)
        gradients = (
            torch.autograd.grad(found, of, retain_graph=True),
            torch.autograd.grad(expected, of, retain_graph=True),
        )
        torch.testing.assert_close(*gradients)


def test_ten_levels_share_four_convolutions_as_in_var() -> None:
    quantizer = MultiScaleQuantizer(K, D)
    assert len(quantizer.codebook_sizes) == 10
    # The nearest of 1/12, 13/36, 23/36, 11/12 to l / 9, as VAR's code finds it: l = 2 and 7 lie halfway.
    assert [quantizer._phi_of(level) for level in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    for num_scales in (2, 3, 4, 5):
        quantizer = MultiScaleQuantizer(K, D, scales=range(1, num_scales + 1))
        used = [quantizer._phi_of(level) for level in range(num_scales)]
        assert used == sorted(used) and set(used) == set(range(min(4, num_scales)))


def test_scales_keep_their_proportions_on_other_grids() -> None:
    quantizer = MultiScaleQuantizer(K, D, scales=[1, 2, 4, 8])
    assert quantizer.grids(8, 8) == [(1, 1), (2, 2), (4, 4), (8, 8)]
    assert quantizer.grids(16, 4) == [(2, 1), (4, 1), (8, 2), (16, 4)]
    assert [tuple(level.shape) for level in quantizer(z_of((3, D, 16, 4))).levels] == [
        (3, *grid) for grid in quantizer.grids(16, 4)
    ]


def test_an_ema_codebook_gains_a_loss_for_the_convolutions_only() -> None:
    assert build("multiscale", "ema").loss_names == ("codebook", "commitment")
    assert build("multiscale-plain", "ema").loss_names == ("commitment",)


# What is refused.


@pytest.mark.parametrize(
    ("cls", "options", "sentence"),
    [
        (ResidualQuantizer, {"num_levels": 0}, "num_levels is 0, but must be at least 1; 4 is usual"),
        (ResidualQuantizer, {"member": "emaa"}, "member is 'emaa', .*did you mean 'ema'"),
        (ResidualQuantizer, {"member": "residual"}, "member is 'residual', but must be a quantizer of one codebook"),
        (ResidualQuantizer, {"member_options": {"decy": 0.9}}, "The quantizer 'vq' has no option 'decy'"),
        (ResidualQuantizer, {"member_options": {"codebook_dim": 2}}, "holds 'codebook_dim', which is a setting of its"),
        (ResidualQuantizer, {"codebook_size": 0}, "codebook_size is 0, but must be at least 1"),
        (ResidualQuantizer, {"codebook_dim": 0}, "codebook_dim is 0, but must be at least 1"),
        (GroupedQuantizer, {"codebook_dim": 0}, "codebook_dim is 0, but must be at least 1"),
        (GroupedQuantizer, {"codebook_dim": 0, "num_groups": 0}, "num_groups is 0, but must divide codebook_dim 0"),
        (GroupedQuantizer, {"num_groups": 3}, "num_groups is 3, but must divide codebook_dim 4; .*: 2"),
        (GroupedQuantizer, {"num_groups": 9}, "num_groups is 9, but must divide codebook_dim 4; .*: 4"),
        (GroupedQuantizer, {"num_groups": 0}, "num_groups is 0, but must divide codebook_dim 4; .*: 1"),
        (MultiScaleQuantizer, {"scales": []}, r"scales is \[\], but must grow from at least 1; \[1\] does"),
        (MultiScaleQuantizer, {"scales": [4, 2, 2]}, r"scales is \[4, 2, 2\], but must grow .*; \[2, 4\] does"),
        (MultiScaleQuantizer, {"scales": [0, 2]}, r"scales is \[0, 2\], but must grow .*; \[1, 2\] does"),
        (MultiScaleQuantizer, {"phi_ratio": 1.5}, r"phi_ratio is 1.5, but must be in \[0, 1\]; 0.5 is usual"),
        (MultiScaleQuantizer, {"scales": [8]}, "phi_ratio is 0.5, but one scale is never enlarged: set phi_ratio to 0"),
        (
            MultiScaleQuantizer,
            {"losses_of_sums": True, "member": "ema"},
            "losses_of_sums is true, but the codes of 'ema' do not learn from the codebook and commitment losses: take the",
        ),
    ],
)
def test_bad_options_are_refused(
    cls: type[Composite], options: dict, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUANTIZERS, "residual", ResidualQuantizer)
    with pytest.raises(ValueError, match=sentence):
        cls(**({"codebook_size": K, "codebook_dim": D} | options))


@every_kind
def test_indices_of_another_number_of_levels_are_refused(kind: str) -> None:
    quantizer = build(kind).eval()
    with pytest.raises(ValueError, match="The levels of indices are"):
        quantizer.indices_to_codes(quantizer(z_of()).levels[1:])


# Through the package, by name.


SETTINGS = {
    "residual": {"member": "ema", "num_levels": 3},
    "grouped": {"member": "vq", "member_options": {"l2_norm": True}, "num_groups": 2},
    "multiscale": {"member": "ema", "member_options": {"decay": 0.9}, "scales": [1, 2, 4]},
}
TOKENS = {"residual": [16] * 3, "grouped": [16] * 2, "multiscale": [1, 4, 16]}  # a level, of a 16x16 image


@pytest.fixture(params=SETTINGS)
def trained(
    request: pytest.FixtureRequest, toy: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Trainer]:
    for name, kind in COMPOSITES.items():
        monkeypatch.setitem(QUANTIZERS, name, kind)
    config = toy(quantizer=request.param, quantizer_options=SETTINGS[request.param])
    trainer = Trainer(Run.open(tmp_path / "run", config), progress=False)
    reports = list(trainer)
    assert all(0 < report.usage <= 1 and 1 <= report.perplexity <= K for report in reports)
    assert len(reports) == 3 and len(trainer.counts) == len(TOKENS[request.param])
    return request.param, trainer


def test_training_evaluation_and_tokens_take_several_grids(
    trained: tuple[str, Trainer], images_root: Path, tmp_path: Path
) -> None:
    name, trainer = trained
    num_tokens = TOKENS[name]
    tokenizer = VisualTokenizer.load(tmp_path / "run")
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    indices = tokenizer.encode(images)
    assert_all_equal(trainer.tokenizer.cpu().encode(images), indices)
    assert [level[0].numel() for level in indices] == num_tokens
    torch.testing.assert_close(tokenizer.decode(indices), tokenizer(images).reconstruction.clamp(-1, 1))
    assert VisualTokenizer.from_config(trainer.config).config_settings()["quantizer_options"] == SETTINGS[name]

    record = evaluate(tokenizer, "folder", data_root=images_root, device="cpu", rfid=False, lpips="off", progress=False)
    assert len(record.codebooks) == len(num_tokens)
    assert record.bits_per_pixel == pytest.approx(sum(num_tokens) * math.log2(K) / 16**2)
    assert record.usage == pytest.approx(sum(c["usage"] for c in record.codebooks) / len(num_tokens))
    assert [int(counts.sum()) for counts in record.counts] == [record.num_images * tokens for tokens in num_tokens]

    file = encode_dataset(tokenizer, "folder", tmp_path / "tokens", data_root=images_root, device="cpu", progress=False)
    assert file.tokens.shape == (18, sum(num_tokens))
    rows = file.indices([3, 5])
    assert [level.flatten(1).shape[1] for level in rows] == num_tokens
    assert torch.equal(file.decode(tokenizer, [3, 5]), tokenizer.decode(rows))
