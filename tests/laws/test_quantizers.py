"""The laws of the quantizer contract, over every registered quantizer."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.quantizers import (
    CODED,
    REMEDIES,
    VARIANTS,
    D,
    K,
    build,
    every_variant,
    every_variant_with_codes,
    every_variant_without_codes,
    options_of,
)
from torch import Tensor

from vistok import TrainConfig, VisualTokenizer, quantizers
from vistok.quantizers import QUANTIZERS, Quantizer, nearest_code
from vistok.quantizers.base import look_up

every_shape = pytest.mark.parametrize("grid", [(2, 8, 8), (3, 1, 20)], ids=["4d", "1xN"])
every_precision = pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])


def z_of(grid: tuple[int, int, int], quantizer: Quantizer) -> Tensor:
    batch, height, width = grid
    return torch.randn(batch, quantizer.codebook_dim, height, width, generator=torch.Generator().manual_seed(1))


def same(levels: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    return all(map(torch.equal, levels, others)) and len(levels) == len(others)


@every_variant
def test_what_is_no_mean_over_tokens_is_said_to_be_of_the_batch(variant: str) -> None:
    """Losses of a batch that comes in four parts are means over the parts, but for those that are named."""
    quantizer = build(variant).eval()
    z = 0.1 * z_of((8, 4, 4), quantizer)  # of a size at which the entropies are not at their limits
    whole = quantizer(z).losses
    parts = [quantizer(part).losses for part in z.chunk(4)]
    for name, loss in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean()
        assert torch.allclose(mean, loss, rtol=1e-4, atol=1e-6) == (name not in quantizer.of_batch), name


@every_variant
def test_what_is_counted_in_steps_is_counted_once_a_step(variant: str) -> None:
    whole, parted = build(variant).train(), build(variant).train()
    z = z_of((8, 4, 4), whole)
    for _ in range(3):
        whole(z)
        for number, part in enumerate(z.chunk(4)):
            parted.set_part(first=number == 0, last=number == 3)
            parted(part)
    counters = [name for name in whole.state_dict() if name.rpartition(".")[2] in ("step", "unused_steps")]
    assert bool(counters) == (variant == "gumbel-annealed" or "remedies" in variant)
    if not variant.startswith("ema"):  # a moving codebook moves with every part, and so what is chosen
        for name in counters:
            assert torch.equal(parted.state_dict()[name], whole.state_dict()[name]), name


def test_every_registered_quantizer_is_under_the_laws() -> None:
    assert {variant.partition("-")[0] for variant in VARIANTS} == set(QUANTIZERS)


@every_variant
@every_shape
@every_precision
@pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
def test_shapes_dtypes_and_range(variant: str, grid: tuple[int, int, int], autocast: bool, training: bool) -> None:
    quantizer = build(variant).train(training)
    z = z_of(grid, quantizer)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        quantized = quantizer(z)
    assert quantized.codes.shape == z.shape and quantized.codes.dtype == torch.float32
    levels = quantized.levels
    assert isinstance(levels, tuple) and [level.shape for level in levels[-1:]] == [grid][: len(levels)]
    assert quantized.indices is (levels[0] if len(levels) == 1 else levels)
    for level, size in zip(levels, quantizer.codebook_sizes, strict=True):
        assert level.ndim == 3 and len(level) == len(z) and level.dtype == torch.int64
        assert level.min() >= 0 and level.max() < size
    assert all(len(level.unique()) > 3 for level in levels[-1:])
    assert set(quantized.losses) == set(quantizer.loss_names)
    assert all(loss.ndim == 0 and loss.dtype == torch.float32 for loss in quantized.losses.values())
    if len(quantizer.codebook_sizes) == 1:
        assert quantizer.codebook.shape == (quantizer.codebook_size, quantizer.codebook_dim)


@every_variant_with_codes
@every_shape
@every_precision
def test_indices_to_codes_gives_the_codes_exactly(variant: str, grid: tuple[int, int, int], autocast: bool) -> None:
    quantizer = build(variant).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        quantized = quantizer(z_of(grid, quantizer))
        assert torch.equal(quantizer.indices_to_codes(quantized.indices), quantized.codes)
        after_each = quantizer.codes_after_each(*quantized.levels)
        assert torch.equal(after_each[-1], quantized.codes) and len(after_each) in (1, len(quantized.levels))
        if len(quantized.levels) == 1:
            assert torch.equal(quantizer.codebook[quantized.indices].movedim(-1, 1), quantized.codes)


@every_variant_with_codes
@every_shape
def test_codes_in_training_are_those_before_the_update(variant: str, grid: tuple[int, int, int]) -> None:
    quantizer, before = build(variant).train(), build(variant)
    z = z_of(grid, quantizer)
    quantized = quantizer(z)
    codes = before.indices_to_codes(quantized.indices)
    assert ((codes - quantized.codes).abs() <= 1e-6 * z.abs().clamp(min=1)).all()


@every_variant_with_codes
def test_indices_are_the_nearest_codes(variant: str) -> None:
    if variant.startswith(("ibq", "gumbel")):
        pytest.skip("the largest dot product or logit, not the nearest code: tested in a file of their own")
    quantizer = build(variant).eval()
    if len(quantizer.codebook_sizes) > 1:
        pytest.skip("several codebooks: tested in a file of their own")
    z = z_of((2, 8, 8), quantizer)
    if variant.startswith(("vq-l2", "bsq")):
        z = F.normalize(z, dim=1)
    elif variant.startswith("fsq"):
        z = quantizer.bound(z) / (quantizer.levels // 2).view(-1, 1, 1)
    distances = (z.double().movedim(1, -1).unsqueeze(-2) - quantizer.codebook.double()).square().sum(-1)
    assert torch.equal(quantizer(z_of((2, 8, 8), quantizer)).indices, distances.argmin(-1))


@every_variant
@every_precision
def test_a_gradient_reaches_z(variant: str, autocast: bool) -> None:
    quantizer = build(variant).train()
    z = z_of((2, 8, 8), quantizer).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        quantized = quantizer(z)
    cotangent = torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    (grad,) = torch.autograd.grad((quantized.codes * cotangent).sum(), z)
    assert grad.isfinite().all() and grad.abs().sum() > 0


@every_variant
def test_eval_changes_no_state(variant: str) -> None:
    quantizer = build(variant).eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(z_of((2, 8, 8), quantizer))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@every_variant
def test_loading_a_state_keeps_every_index(variant: str) -> None:
    quantizer, other = build(variant).train(), build(variant).eval()
    quantizer(z_of((2, 8, 8), quantizer))
    quantizer.eval()
    other.load_state_dict(quantizer.state_dict())
    z = z_of((4, 8, 8), quantizer)
    assert same(other(z).levels, quantizer(z).levels) and torch.equal(other(z).codes, quantizer(z).codes)


@every_variant
def test_float32_inside_autocast(variant: str) -> None:
    quantizer, other = build(variant).train(), build(variant).train()
    z = z_of((2, 8, 8), quantizer)
    torch.manual_seed(3)
    plain = quantizer(z)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = other(z)
    assert same(under_autocast.levels, plain.levels)
    assert torch.equal(under_autocast.codes, plain.codes)
    assert all(torch.equal(loss, plain.losses[name]) for name, loss in under_autocast.losses.items())


@every_variant
def test_bfloat16_input_gives_float32_codes(variant: str) -> None:
    quantizer = build(variant).eval()
    assert quantizer(z_of((2, 8, 8), quantizer).bfloat16()).codes.dtype == torch.float32


@every_variant
def test_it_stays_in_float32_in_networks_of_another_precision(variant: str) -> None:
    quantizer, moved = build(variant), build(variant).bfloat16().half().double()
    z = z_of((2, 8, 8), quantizer)
    assert all(
        a.dtype == b.dtype for a, b in zip(quantizer.state_dict().values(), moved.state_dict().values(), strict=True)
    )
    for _ in range(3):  # also what learns inside `forward`
        torch.manual_seed(2)
        expected = quantizer(z)
        torch.manual_seed(2)
        found = moved(z)
        assert same(found.levels, expected.levels) and torch.equal(found.codes, expected.codes)
    assert all(map(torch.equal, quantizer.state_dict().values(), moved.state_dict().values()))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_it_computes_in_float32_whatever_the_default_dtype_is(variant: str, dtype: torch.dtype) -> None:
    quantizer = build(variant)
    z = z_of((2, 8, 8), quantizer)
    found = []
    try:
        for default in (torch.float32, dtype):
            torch.set_default_dtype(default)
            torch.manual_seed(2)
            found.append(copy.deepcopy(quantizer)(z))
        new = quantizers.build(variant.partition("-")[0], **options_of(variant))
        assert {value.dtype for value in new.state_dict().values() if value.is_floating_point()} <= {torch.float32}
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0].codes, found[1].codes) and same(found[0].levels, found[1].levels)
    assert found[0].losses == found[1].losses


@every_variant
def test_no_tokens_have_no_codes(variant: str) -> None:
    quantizer = build(variant).eval()
    quantized = quantizer(z_of((0, 8, 8), quantizer))
    assert quantized.codes.shape == (0, quantizer.codebook_dim, 8, 8)
    assert all(level.shape == (0, 8, 8) for level in quantized.levels[-1:])


@every_variant_with_codes
def test_choosing_changes_no_state_in_training(variant: str) -> None:
    quantizer = build(variant).train()
    if len(quantizer.codebook_sizes) > 1:
        pytest.skip("what is chosen is one codebook's")
    before = copy.deepcopy(quantizer.state_dict())
    z = z_of((2, 8, 8), quantizer)
    torch.manual_seed(2)
    chosen = quantizer.choose(z)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())
    assert torch.equal(copy.deepcopy(quantizer).quantize_as(z, chosen).indices, chosen)
    torch.manual_seed(2)
    assert torch.equal(quantizer(z).indices, chosen)


@every_variant
def test_z_of_another_dimension_is_refused(variant: str) -> None:
    quantizer = build(variant)
    with pytest.raises(ValueError, match=rf"must be \[B, {quantizer.codebook_dim}, h, w\]"):
        quantizer(torch.zeros(2, quantizer.codebook_dim + 1, 8, 8))


@every_variant
@pytest.mark.parametrize("setting", ["codebook_size", "codebook_dim"])
def test_sizes_below_one_are_refused(variant: str, setting: str) -> None:
    if setting not in options_of(variant):
        with pytest.raises(ValueError, match=f"has no option '{setting}'"):
            quantizers.build(variant.partition("-")[0], **options_of(variant) | {setting: 16})
        return
    with pytest.raises(ValueError, match=f"{setting} is 0, but must be at least 1"):
        quantizers.build(variant.partition("-")[0], **options_of(variant) | {setting: 0})


@every_variant_without_codes
def test_without_a_codebook_vectors_go_through_and_what_asks_for_indices_is_refused(variant: str) -> None:
    quantizer = build(variant).eval()
    z = z_of((2, 8, 8), quantizer)
    assert (quantizer.codebook_sizes, quantizer.codebooks, quantizer.grids(8, 8)) == ((), (), [])
    assert (quantizer(z).levels, quantizer(z).indices) == ((), ())
    assert len(quantizer(z).codes.unique()) == z.numel()  # nothing was rounded to a few values
    sentence = f"{type(quantizer).__name__} has no codebook, and so there are no tokens"
    for ask in (
        lambda: quantizer.codebook,
        lambda: quantizer.codebook_size,
        lambda: quantizer.choose(z),
        lambda: quantizer.indices_to_codes(torch.zeros(2, 8, 8, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match=sentence):
            ask()
    for composite in ("residual", "grouped", "multiscale"):
        options = {"codebook_size": K, "codebook_dim": D, "member": variant}
        with pytest.raises(ValueError, match=f"member is '{variant}', but must be a quantizer of one codebook"):
            quantizers.build(composite, **options)


REFUSED = [  # name, options, the one sentence
    ("vq", {"codebook_size": 0}, "codebook_size is 0, but must be at least 1"),
    ("lfq", {"codebook_size": 2**31, "codebook_dim": 31}, "31 bits a token, but must be at most 1073741824, 30 bits"),
    ("bsq", {"codebook_size": 2**31, "codebook_dim": None}, "31 bits a token, but must be at most 1073741824, 30 bits"),
    ("fsq", {"codebook_size": None, "codebook_dim": None, "levels": [8] * 11}, "33 bits a token, but must be at most"),
    (
        "fsq",
        {"codebook_size": 8, "codebook_dim": 2, "levels": [8, 1]},
        r"levels is \[8, 1\], but fsq needs integers of 3",
    ),
    ("fsq", {"levels": [8, 8]}, r"but levels \[8, 8\] give codebook_size 64 and codebook_dim 2: set these, or other"),
    ("grouped", {"num_groups": 3}, "num_groups is 3, but must divide codebook_dim 4; the nearest that does: 2"),
    (
        "residual",
        {"member": "lfq", "codebook_size": 2**31, "codebook_dim": 31},
        "but must be at most 1073741824, 30 bits",
    ),
    ("residual", {"member_options": {"codebook_dim": 2}}, "which is a setting of its own: set codebook_dim instead"),
    ("gumbel", {"final_temperature": 0.1}, "anneal_steps None, but annealing needs both"),
    ("multiscale", {"scales": [4], "phi_ratio": 0.5}, "one scale is never enlarged: set phi_ratio to 0"),
]


@pytest.mark.parametrize(("name", "options", "sentence"), REFUSED)
def test_invalid_settings_are_refused_in_one_sentence_at_construction(name: str, options: dict, sentence: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=sentence) as refused:
        quantizers.build(name, **{"codebook_size": K, "codebook_dim": D} | options)
    assert "\n" not in str(refused.value) and str(refused.value).rstrip(".").count(". ") <= 1


def test_look_up_gives_the_gradients_of_its_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()
    codebook = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    indices = torch.tensor([0, 1, 1, 4, 4, 4, 0, 1])
    cotangent = torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64)
    codes, losses = look_up(z, codebook, indices)
    plain = codebook[indices].view(2, 2, 2, 3).permute(0, 3, 1, 2)
    assert torch.equal(codes, plain)
    expected = {"codebook": F.mse_loss(plain, z.detach()), "commitment": F.mse_loss(z, plain.detach())}
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    through = plain.detach() + (z - z.detach())
    found, wanted = (
        torch.autograd.grad(
            (codes * cotangent).sum() + 0.7 * parts["codebook"] + 0.3 * parts["commitment"], (z, codebook)
        )
        for codes, parts in ((codes, losses), (through, expected))
    )
    for gradient, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, other)
    (once,) = torch.autograd.grad(look_up(z, codebook, indices)[1]["codebook"], codebook, create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):  # better than a second derivative that is wrong
        once.sum().backward()


# The largest of its family that is quick to run; all tokens x K at once would be 64 MiB of float32.
LARGE = {
    "vq": {},
    "vq-remedies": REMEDIES | {"entropy_temperature": 0.1},
    "ema-remedies": REMEDIES,
    "ibq": {},
    "lfq": {"codebook_dim": 12},
    "bsq": {"codebook_dim": 12},
    "fsq": {"codebook_dim": 4},
    "simvq": {},
    "none": {"codebook_dim": 32},
    "kl": {},
}


def test_every_quantizer_but_gumbel_softmax_is_under_the_memory_law() -> None:
    made_of_others = {name for name, kind in QUANTIZERS.items() if kind.__module__.endswith("composite")}
    assert {variant.partition("-")[0] for variant in LARGE} == set(QUANTIZERS) - made_of_others - {"gumbel"}


@pytest.mark.parametrize("variant", LARGE)
def test_memory_does_not_grow_with_tokens_times_codes(variant: str) -> None:
    options = ({"codebook_size": 2**12} if variant in CODED else {}) | {"codebook_dim": 8} | LARGE[variant]
    quantizer = quantizers.build(variant.partition("-")[0], **options)
    z = torch.randn(4, quantizer.codebook_dim, 32, 32, requires_grad=True)  # 4,096 tokens
    torch.set_num_threads(1)  # the profiler sees what this thread allocates
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        quantized = quantizer(z)
        (quantized.codes.sum() + sum(quantized.losses.values())).backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        peak = max(peak, total)
    assert 2**16 < peak < 2**25


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
    indices = quantizer(z_of((1, 1, 5), quantizer)).indices
    moved = (quantizer.codebook != before).any(1)
    assert set(moved.nonzero().flatten().tolist()) == set(indices.unique().tolist())


def test_memory_of_the_search_does_not_grow_with_tokens_times_codes() -> None:
    z, codebook = torch.randn(2**15, 4), torch.randn(2**13, 4)  # all scores at once would be 1 GiB
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nearest_code(z, codebook)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < 2**24


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
