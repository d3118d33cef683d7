"""The laws of the quantizer contract, over every registered quantizer."""

import pytest
import torch
from torch import Tensor

from vistok import quantizers
from vistok.quantizers import QUANTIZERS, Quantizer, nearest_code

K, D = 16, 4
VARIANTS = {
    "vq": {},
    "vq-l2": {"l2_norm": True},
    "ema": {},
    "ibq": {},
    "ibq-uniform": {"init": "uniform"},
    "lfq": {},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_shape = pytest.mark.parametrize("shape", [(2, D, 8, 8), (3, D, 1, 20)], ids=["4d", "1xN"])


def build(variant: str) -> Quantizer:
    torch.manual_seed(0)
    quantizer = quantizers.build(variant.partition("-")[0], codebook_size=K, codebook_dim=D, **VARIANTS[variant])
    with torch.no_grad():  # codes of the size of z, so that many of them are chosen
        if "weight" in quantizer.state_dict():  # lookup-free ones have no codebook to learn
            quantizer.state_dict()["weight"].normal_()
    return quantizer


def z_of(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_every_registered_quantizer_is_under_the_laws() -> None:
    assert {variant.partition("-")[0] for variant in VARIANTS} == set(QUANTIZERS)


@every_variant
@every_shape
@pytest.mark.parametrize("training", [True, False])
def test_shapes_dtypes_and_range(variant: str, shape: tuple[int, ...], training: bool) -> None:
    quantizer = build(variant).train(training)
    quantized = quantizer(z_of(shape))
    assert quantized.codes.shape == shape and quantized.codes.dtype == torch.float32
    assert quantized.indices.shape == (shape[0], *shape[2:]) and quantized.indices.dtype == torch.int64
    assert quantized.indices.min() >= 0 and quantized.indices.max() < K
    assert len(quantized.indices.unique()) > 3
    assert set(quantized.losses) == set(quantizer.loss_names)
    assert all(loss.ndim == 0 for loss in quantized.losses.values())
    assert quantizer.codebook.shape == (K, D)


@every_variant
@every_shape
def test_indices_to_codes_gives_the_codes_exactly(variant: str, shape: tuple[int, ...]) -> None:
    quantizer = build(variant).eval()
    quantized = quantizer(z_of(shape))
    assert torch.equal(quantizer.indices_to_codes(quantized.indices), quantized.codes)
    assert torch.equal(quantizer.codebook[quantized.indices].movedim(-1, 1), quantized.codes)


@every_variant
def test_codes_in_training_are_those_before_the_update(variant: str) -> None:
    quantizer = build(variant).train()
    codebook = quantizer.codebook.detach().clone()
    quantized = quantizer(z_of((2, D, 8, 8)))
    assert torch.equal(codebook[quantized.indices].movedim(-1, 1), quantized.codes)


@every_variant
def test_indices_are_the_nearest_codes(variant: str) -> None:
    if variant.startswith("ibq"):
        pytest.skip("IBQ takes the largest dot product: tests/test_ibq_and_lfq.py")
    quantizer = build(variant).eval()
    z = z_of((2, D, 8, 8))
    if variant == "vq-l2":
        z = torch.nn.functional.normalize(z, dim=1)
    distances = (z.double().movedim(1, -1).unsqueeze(-2) - quantizer.codebook.double()).square().sum(-1)
    assert torch.equal(quantizer(z).indices, distances.argmin(-1))


@every_variant
def test_a_gradient_reaches_z(variant: str) -> None:
    quantizer = build(variant).train()
    z = z_of((2, D, 8, 8)).requires_grad_()
    quantizer(z).codes.square().sum().backward()
    assert z.grad.abs().sum() > 0


@every_variant
def test_eval_changes_no_state(variant: str) -> None:
    quantizer = build(variant).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(z_of((2, D, 8, 8)))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@every_variant
def test_loading_a_state_keeps_every_index(variant: str) -> None:
    quantizer, other = build(variant).eval(), build(variant).eval()
    quantizer.train()
    quantizer(z_of((2, D, 8, 8)))
    quantizer.eval()
    other.load_state_dict(quantizer.state_dict())
    z = z_of((4, D, 8, 8))
    assert torch.equal(other(z).indices, quantizer(z).indices)


@every_variant
def test_float32_inside_autocast(variant: str) -> None:
    z = z_of((2, D, 8, 8))
    plain = build(variant).train()(z)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = build(variant).train()(z)
    assert torch.equal(under_autocast.indices, plain.indices)
    assert torch.equal(under_autocast.codes, plain.codes)
    assert all(loss.dtype == torch.float32 for loss in under_autocast.losses.values())


@every_variant
def test_bfloat16_input_gives_float32_codes(variant: str) -> None:
    quantized = build(variant).eval()(z_of((2, D, 8, 8)).bfloat16())
    assert quantized.codes.dtype == torch.float32


@every_variant
def test_z_of_another_dimension_is_refused(variant: str) -> None:
    with pytest.raises(ValueError, match=r"must be \[B, 4, h, w\]"):
        build(variant)(torch.zeros(2, D + 1, 8, 8))


@every_variant
@pytest.mark.parametrize("setting", ["codebook_size", "codebook_dim"])
def test_sizes_below_one_are_refused(variant: str, setting: str) -> None:
    sizes = {"codebook_size": K, "codebook_dim": D} | {setting: 0}
    with pytest.raises(ValueError, match=f"{setting} is 0, but must be at least 1"):
        quantizers.build(variant.partition("-")[0], **sizes, **VARIANTS[variant])


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'vq'"):
        quantizers.build("vqq", codebook_size=K, codebook_dim=D)
    with pytest.raises(ValueError, match="did you mean 'l2_norm'"):
        quantizers.build("vq", codebook_size=K, codebook_dim=D, l2norm=True)
    with pytest.raises(ValueError, match="no option 'l2_norm'"):
        quantizers.build("ema", codebook_size=K, codebook_dim=D, l2_norm=True)


@pytest.mark.parametrize(("tokens", "codes", "dim"), [(1, 1, 1), (1000, 513, 3), (4097, 64, 8), (3, 2**19, 2)])
def test_search_equals_the_float64_arg_min(tokens: int, codes: int, dim: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    z, codebook = (torch.randn(n, dim, generator=generator) for n in (tokens, codes))
    found = nearest_code(z, codebook)
    distances = torch.cdist(z[:64].double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")
    chosen = distances.gather(1, found[:64, None]).squeeze(1)
    torch.testing.assert_close(chosen, distances.min(1).values, atol=1e-6, rtol=1e-6)  # equal but for rounding ties


def test_the_ema_codebook_moves_only_codes_that_were_chosen() -> None:
    quantizer = build("ema").train()
    before = quantizer.codebook.clone()
    indices = quantizer(z_of((1, D, 1, 5))).indices
    moved = (quantizer.codebook != before).any(1)
    assert set(moved.nonzero().flatten().tolist()) == set(indices.unique().tolist())


def test_memory_of_the_search_does_not_grow_with_tokens_times_codes() -> None:
    z, codebook = torch.randn(2**15, 4), torch.randn(2**13, 4)  # all scores at once would be 1 GiB
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nearest_code(z, codebook)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 2**23
