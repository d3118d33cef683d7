"""Generators: what they draw is what they find likely, reproducible, completed and guided; saved, loaded and refused."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import GRIDS, generator, places_of, toy_tokenizer
from torch import Tensor

import vistok.generation.generator
from vistok.generation.generator import GENERATORS, UNKNOWN, Generator
from vistok.generation.sampling import Sampling

KINDS = [*GENERATORS]


def as_tuple(indices: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return indices if isinstance(indices, tuple) else (indices,)


def same(one: Tensor | tuple[Tensor, ...], other: Tensor | tuple[Tensor, ...]) -> bool:
    return all(torch.equal(*pair) for pair in zip(as_tuple(one), as_tuple(other), strict=True))


def rows(indices: Tensor | tuple[Tensor, ...], which: slice | list[int]) -> tuple[Tensor, ...]:
    return tuple(level[which] for level in as_tuple(indices))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_an_image_is_a_function_of_its_seed(kind: str, grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator(kind, grid)
    seeds = [4, 9, 4, 2**32 - 1, 0]
    together = made.sample(seeds)
    assert [tuple(level.shape[1:]) for level in as_tuple(together)] == made.layout.level_shapes
    assert same(made.sample(seeds), together)
    assert same(rows(together, [0]), rows(together, [2])) and not same(rows(together, [0]), rows(together, [1]))
    for place, seed in enumerate(seeds):
        assert same(made.sample([seed]), rows(together, [place]))
    monkeypatch.setattr(vistok.generation.generator, "AT_ONCE", 2)
    assert same(made.sample(seeds), together)
    for level, size in zip(as_tuple(together), made.layout.codebook_sizes, strict=True):
        assert level.dtype == torch.int64 and level.min() >= 0 and level.max() < size


@pytest.mark.parametrize("kind", KINDS)
def test_it_draws_without_changing_anything(kind: str) -> None:
    made = generator(kind, dropout=0.5).train()
    before, state = {name: value.clone() for name, value in made.state_dict().items()}, torch.get_rng_state()
    drawn = made.sample(range(3))
    assert same(made.eval().sample(range(3)), drawn), "dropout is off"
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("levels", [1, 2])
def test_it_draws_images_as_often_as_they_are_likely(levels: int) -> None:
    """All images of 3 tokens: their likelihoods sum to one, and so many of 4,000 are drawn."""
    made = generator(codebook_sizes=[3] * levels, level_shapes=[[1, 3 // levels]] * levels)
    shape = (made.layout.num_places, levels)
    every = torch.tensor([*itertools.product(range(3), repeat=math.prod(shape))]).view(-1, *shape)
    likely = (-made.token_losses(every).double().sum((1, 2))).exp().detach()
    assert float(likely.sum()) == pytest.approx(1, abs=1e-5)
    drawn = made.layout.from_levels(as_tuple(made.sample(range(4000))))
    shares = torch.stack([(drawn == image).all(1).all(1).double().mean() for image in every])
    assert (shares - likely).abs().max() < 4 * 0.5 / math.sqrt(4000)
    assert (shares - 1 / len(every)).abs().max() > 0.05, "not all images are alike"


@pytest.mark.parametrize("num_steps", [1, 2, 5, 40])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_masked_one_ends_without_a_mask_along_the_cosine(grid: str, num_steps: int) -> None:
    made = generator("masked", grid)
    number = made.layout.num_places
    nothing = torch.full((4, number, len(made.layout.sizes)), UNKNOWN)
    former, counts = nothing, []
    for places in made.steps(range(4), None, nothing, Sampling(num_steps=num_steps)):
        drawn = former != UNKNOWN
        assert torch.equal(places[drawn], former[drawn]), "what was drawn stays"
        counts.append(int((places == UNKNOWN).any(2).sum(1).unique()))
        former = places
    expected = [math.floor(math.cos(math.pi / 2 * (n + 1) / num_steps) * number) for n in range(num_steps - 1)]
    assert counts == [*expected, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_what_is_given_of_an_image_stays(kind: str, grid: str) -> None:
    made = generator(kind, grid)
    given = made.layout.to_indices(places_of(made, 4))
    known = tuple(
        torch.rand(level.shape, generator=torch.Generator().manual_seed(1)) < 0.4 for level in as_tuple(given)
    )
    drawn = made.sample(range(4), given=given, known=known if len(known) > 1 else known[0])
    for level, of_given, where in zip(as_tuple(drawn), as_tuple(given), known, strict=True):
        assert torch.equal(level[where], of_given[where])
    free = as_tuple(made.sample(range(4)))
    assert not all(
        torch.equal(level[~where], f[~where]) for level, f, where in zip(as_tuple(drawn), free, known, strict=True)
    )


def test_an_image_goes_on_from_its_own_first_rows_as_it_was() -> None:
    made = generator()
    whole = made.sample(range(3))
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[:2] = True
    assert same(made.sample(range(3), given=whole.masked_fill(~known, 0), known=known), whole)
    assert not same(made.sample(range(3, 6), given=whole, known=known), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_of_one_is_none(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generator(kind, classes=["a", "b", "c"], class_dropout=0.1)
    plain = made.sample(range(4), 2)
    assert same(made.sample(range(4), 2, guidance=1.0), plain) and same(made.sample(range(4), [2] * 4), plain)
    assert not same(made.sample(range(4), 1), plain) and not same(made.sample(range(4)), plain)
    assert not same(made.sample(range(4), 2, guidance=4.0), plain)
    none = made.sample(range(4), 2, guidance=0.0)
    assert same(none, made.sample(range(4))), "without the class"


def test_without_temperature_the_likeliest_token_is_drawn() -> None:
    made = generator()
    places = made.layout.from_levels(as_tuple(made.sample([0, 1], temperature=0)))
    assert torch.equal(places[0], places[1])
    state = made.transformer(made.class_numbers(None, 2), places[:, :-1])
    assert torch.equal(made.transformer.heads.outputs[0](state).argmax(-1), places[..., 0])
    assert same(made.sample([0, 1], temperature=0), made.sample([0, 1], top_k=1))


def test_without_temperature_a_masked_one_keeps_what_it_learned_to_be_surest_of() -> None:
    made = generator("masked")
    how = Sampling(temperature=0, noise=0, num_steps=2)
    held = torch.full((1, 16, 1), UNKNOWN)
    first, _ = made.steps([0], None, held, how)
    hidden = made.hidden(held, torch.ones(1, 16, dtype=torch.bool))
    state = made.transformer(made.class_numbers(None, 1), hidden)[:, 1:]
    surest = made.transformer.heads.outputs[0](state).softmax(-1).amax(-1)  # [1, 16]
    kept = (first != UNKNOWN).all(2)
    assert 0 < kept.sum() < 16 and surest[kept].min() > surest[~kept].max()


def test_classes_are_left_out_while_training_only() -> None:
    made, labels = generator(classes=["a", "b"], class_dropout=0.25), torch.ones(4000, dtype=torch.int64)
    assert torch.equal(made.class_numbers(labels, 4000), labels)
    torch.manual_seed(0)
    seen = made.train().class_numbers(labels, 4000)
    assert set(seen.tolist()) == {1, 2} and float((seen == 2).double().mean()) == pytest.approx(0.25, abs=0.03)


def test_a_masked_one_learns_from_what_is_masked_only() -> None:
    made = generator("masked")
    places = places_of(made)
    torch.manual_seed(0)
    loss = made(places)
    torch.manual_seed(0)
    shares = torch.cos(math.pi / 2 * torch.rand(3, 1))
    masked = torch.rand(3, 16).argsort(1).argsort(1) < (shares * 16).ceil()
    assert 3 <= int(masked.sum()) < 48
    hidden = torch.where(masked[:, :, None], 16, places)
    logits = made.transformer.heads(made.transformer(torch.zeros(3, dtype=torch.int64), hidden)[:, 1:], places)[0]
    expected = -logits.log_softmax(-1)[masked].gather(1, places[masked]).mean()
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_draws_the_same(kind: str, tmp_path: Path) -> None:
    made = generator(kind, "levels", classes=["a", "b"], class_dropout=0.1, tokenizer={"weights_sha256": "00"})
    made.save(tmp_path / "run" / "generator")
    for path in (tmp_path / "run", tmp_path / "run" / "generator"):
        loaded = Generator.load(path)
        assert type(loaded) is type(made) and loaded.settings == made.settings and not loaded.training
        assert same(loaded.sample(range(3), 1), made.sample(range(3), 1))


def test_a_generator_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="There is no generator in .*nowhere: model.safetensors and config.json"
    ):
        Generator.load(tmp_path / "nowhere")
    generator().save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())

    def refused(match: str, **changed: Any) -> None:
        (tmp_path / "config.json").write_text(json.dumps(settings | changed))
        with pytest.raises((ValueError, TypeError), match=match) as error:
            Generator.load(tmp_path)
        assert "\n" not in str(error.value)

    refused("is 'autoregresive'; did you mean 'autoregressive'?", model="autoregresive")
    refused("another architecture", hidden_dim=32)
    refused("has no option 'widths'", widths=3)
    refused("codebook_sizes", codebook_sizes="many")
    refused("each must have a size and a grid like", level_shapes=[])
    refused("each must have a size and a grid like", level_shapes=[[4, -4]])
    refused("cannot be built|another architecture", codebook_sizes=[2**60])
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="The generator in .* cannot be read"):
        Generator.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": 2}, "labels holds 2, but a class must be at least 0 and at most 1."),
        ({"labels": [0, 1, 0]}, "labels holds 3 classes, but there are 2 seeds."),
        ({"guidance": 2.0}, "guidance is 2.0, but no class is given, so that there is nothing to guide; leave it 1."),
        ({"num_steps": 3}, "num_steps is 3, but the autoregressive generator has no such thing; leave it out."),
        ({"top_q": 3}, "The sampling has no option 'top_q'; did you mean 'top_k'?"),
        ({"known": torch.ones(4, 4, dtype=torch.bool)}, "given and known go together: tokens, and where they hold."),
        (
            {"given": torch.zeros(2, 4, 5, dtype=torch.int64), "known": torch.ones(4, 4, dtype=torch.bool)},
            "given has shapes [(2, 4, 5)], but must be [(2, 4, 4)].",
        ),
        (
            {"given": torch.full((2, 4, 4), 16), "known": torch.ones(4, 4, dtype=torch.bool)},
            "given holds a token outside of this generator's codebook, [0, 16).",
        ),
        (
            {"given": torch.full((2, 4, 4), 1.7), "known": torch.ones(4, 4, dtype=torch.bool)},
            "given is torch.float32, but tokens are integers.",
        ),
        (
            {"given": torch.ones(2, 4, 4, dtype=torch.int64), "known": torch.full((4, 4), 0.3)},
            "known is torch.float32, but must be bool, True where a token is given.",
        ),
    ],
)
def test_what_cannot_be_drawn(options: dict[str, Any], sentence: str) -> None:
    made = generator(classes=["a", "b"], class_dropout=0.1)
    with pytest.raises(ValueError) as error:
        made.sample(range(2), **options)
    assert str(error.value).startswith(sentence)


def test_numbers_are_whole_whoever_counts_them() -> None:
    made = generator(classes=["a", "b"], class_dropout=0.1)
    plain = made.sample([0, 1], [1, 1])
    for one in (np.int64(1), torch.tensor(1), np.array([1, 1]), torch.tensor([1, 1])):
        assert same(made.sample(np.arange(2), one), plain)
    for wrong in (1.0, [0, True]):
        with pytest.raises(TypeError, match="labels is"):
            made.sample([0, 1], wrong)
    for wrong in ([0.5], ["1"], 3):
        with pytest.raises(ValueError, match="seeds is .*, but must be a list of whole numbers."):
            made.sample(wrong)
    with pytest.raises(TypeError, match="labels is 'cat'"):
        made.sample([0, 1], "cat")


@pytest.mark.parametrize(("seed", "bound"), [(-1, "at least 0"), (2**32, r"below 2\*\*32"), (2**64, "within 64 bits")])
def test_a_seed_is_one_that_no_other_draws_like(seed: int, bound: str) -> None:
    with pytest.raises(ValueError, match=f"seeds is {seed}, but must be {bound}"):
        generator().sample([0, seed])


def test_arrays_are_completed_as_tensors_are() -> None:
    made = generator()
    given, known = made.sample([3]), torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    completed = made.sample([7], given=given, known=known)
    assert torch.equal(made.sample([7], given=given.numpy(), known=known.numpy()), completed)
    assert torch.equal(made.sample([7], given=given, known=known.numpy()[0]), completed)
    for wrong in ("tokens", given.tolist()):
        with pytest.raises(
            ValueError, match="given is .*, but must be a tensor or an array, or a tuple of one a level"
        ):
            made.sample([7], given=wrong, known=known)
    with pytest.raises(ValueError, match="given is torch.complex64, but tokens are integers"):
        made.sample([7], given=given.to(torch.complex64), known=known)


def test_classes_that_it_needs_or_does_not_know() -> None:
    sure = generator(classes=["cat", "dog"])
    with pytest.raises(ValueError, match="trained with class_dropout 0 and needs a class"):
        sure.sample([0])
    with pytest.raises(ValueError, match="guidance is 2.0, but it was trained with class_dropout 0"):
        sure.sample([0], 1, guidance=2.0)
    with pytest.raises(ValueError, match="There is no class 'cap'; did you mean 'cat'?"):
        sure.label_of("cap")
    assert sure.label_of("dog") == 1
    with pytest.raises(ValueError, match="this generator knows no classes"):
        generator().sample([0], 0)


def test_levels_that_make_no_one_sequence() -> None:
    with pytest.raises(
        ValueError, match=r"make one sequence where their codebooks are of one size, but these have \[4, 16\]"
    ):
        generator(codebook_sizes=[4, 16], level_shapes=[[2, 2], [4, 4]])


@pytest.mark.parametrize("quantizer", ["vq", "residual", "multiscale"])
def test_what_it_draws_is_what_the_tokenizer_decodes(quantizer: str) -> None:
    options = (
        {"num_levels": 2} if quantizer == "residual" else {"scales": [1, 2, 4]} if quantizer == "multiscale" else {}
    )
    tokenizer = toy_tokenizer(quantizer=quantizer, **options)
    levels = tokenizer.encode_levels(torch.rand(2, 3, 16, 16) * 2 - 1)
    made = generator(
        codebook_sizes=list(tokenizer.quantizer.codebook_sizes), level_shapes=[list(of.shape[1:]) for of in levels]
    )
    assert same(made.layout.to_indices(made.layout.from_levels(levels)), levels)
    rows_of_file = torch.cat([level.flatten(1) for level in levels], dim=1)
    places = made.layout.to_places(rows_of_file)
    assert torch.equal(places, made.layout.from_levels(levels)) and torch.equal(
        made.layout.to_rows(places), rows_of_file
    )
    assert tokenizer.decode(made.sample(range(2))).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_first_places_are_those_that_are_drawn_first(grid: str) -> None:
    made = generator(grid=grid)
    layout = made.layout
    held = made._held(made.sample([0]), layout.first(5), 1)
    assert ((held != UNKNOWN).all(2)[0] == (torch.arange(layout.num_places) < 5)).all()
    assert not torch.cat([level.flatten() for level in as_tuple(layout.first(0))]).any()
