"""What parts of an image's tokens do: the influence of each, prefixes of a sequence, pictures after each level."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vistok import VisualTokenizer
from vistok.tokens.parts import coarse_to_fine, influence, usual_numbers

CODES = {"codebook_size": 16, "codebook_dim": 4}


def sequence() -> VisualTokenizer:
    torch.manual_seed(0)
    options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": 5, "patch_size": 4}
    made = VisualTokenizer(network="titok", network_options=options, quantizer_options=CODES, image_size=16).eval()
    return _with_large_weights(made)


def grid(quantizer: str = "vq", **options: object) -> VisualTokenizer:
    torch.manual_seed(0)
    settings = {"network_options": {"hidden_dim": 8}, "quantizer": quantizer, "quantizer_options": CODES | options}
    return _with_large_weights(VisualTokenizer(image_size=16, **settings).eval())


@torch.no_grad()
def _with_large_weights(tokenizer: VisualTokenizer) -> VisualTokenizer:
    """Return it with codes and a decoder under which the picture follows its tokens before any training."""
    for part in (tokenizer.quantizer, tokenizer.decoder):
        for parameter in part.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return tokenizer


def tokens_of(tokenizer: VisualTokenizer) -> tuple[Tensor, ...]:
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return tokenizer.encode_levels(images)


@pytest.mark.parametrize("make", [sequence, grid])
def test_influence_against_one_change_at_a_time(make: object) -> None:
    """Each token is replaced by hand, the decoder called for each picture by itself."""
    tokenizer = make()
    (tokens,) = tokens_of(tokenizer)
    found = influence(tokenizer, (tokens,), num_random=3, seed=7)
    count = tokens.numel()
    assert found.nearest.shape == found.random.shape == (count, 16, 16) and found.random_codes.shape == (count, 3)
    codebook = tokenizer.quantizer.codebook.double()
    with torch.no_grad():
        before = tokenizer.decoder(tokenizer.quantizer.indices_to_codes(tokens)).clamp(-1, 1)[0].double()
        for place in range(count):
            own = int(tokens.flatten()[place])
            distances = [math.dist(codebook[own], other) for other in codebook]
            distances[own] = math.inf
            assert int(found.nearest_codes[place]) == distances.index(min(distances))

            def change(code: int, place: int = place) -> Tensor:
                edited = tokens.clone()
                edited.view(-1)[place] = code
                picture = tokenizer.decoder(tokenizer.quantizer.indices_to_codes(edited)).clamp(-1, 1)[0].double()
                return ((picture - before) / 2).abs().mean(0)

            torch.testing.assert_close(
                found.nearest[place].double(), change(int(found.nearest_codes[place])), atol=1e-6, rtol=0
            )
            drawn = found.random_codes[place].tolist()
            assert own not in drawn and all(0 <= code < 16 for code in drawn)
            expected = torch.stack([change(code) for code in drawn]).mean(0)
            torch.testing.assert_close(found.random[place].double(), expected, atol=1e-6, rtol=0)
    assert found.random.mean((1, 2)).min() > 1e-4, "or nothing was looked at"


def test_what_is_drawn_for_a_token_does_not_depend_on_the_others() -> None:
    tokenizer = sequence()
    levels = tokens_of(tokenizer)
    every, some = influence(tokenizer, levels), influence(tokenizer, levels, [3, 1])
    for one, other in zip(every, some, strict=True):
        torch.testing.assert_close(one[[3, 1]], other)
    assert not torch.equal(influence(tokenizer, levels, seed=1).random_codes, every.random_codes)
    drawn = influence(tokenizer, levels, [0], num_random=600).random_codes
    assert set(drawn.flatten().tolist()) == set(range(16)) - {int(levels[0][0, 0, 0])}


def test_influence_of_a_level_changes_that_level_alone() -> None:
    tokenizer = grid("multiscale", scales=[1, 2, 4])
    levels = tokens_of(tokenizer)
    found = influence(tokenizer, levels, level=1)
    assert found.nearest.shape == (4, 16, 16)
    changed = levels[1].clone()
    changed[0, 1, 0] = found.nearest_codes[2]
    expected = (tokenizer.decode((levels[0], changed, levels[2])) - tokenizer.decode(levels)).abs().mean(1)[0] / 2
    torch.testing.assert_close(found.nearest[2], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"places": [5]}, "There is no token 5: tokens of this level are 0 to 4."),
        ({"level": 1}, "There is no level 1: levels are 0 to 0."),
        ({"num_random": 0}, "num_random is 0, but must be at least 1; 4 is usual."),
        ({"places": []}, "places is empty: give the tokens to change, or None for all of them."),
        ({"places": 3}, "places is 3, but must be a list of whole numbers."),
        ({"places": [0.5]}, "places is [0.5], but must be a list of whole numbers."),
        ({"places": [True]}, "places is [True], but must be a list of whole numbers."),
    ],
)
def test_what_influence_refuses(options: dict, sentence: str) -> None:
    tokenizer = sequence()
    levels = tokens_of(tokenizer)
    with pytest.raises(ValueError) as error:
        influence(tokenizer, levels, **options)
    assert str(error.value) == sentence
    with pytest.raises(ValueError, match="These are tokens of 2 images; influence is of one"):
        influence(tokenizer, (levels[0].expand(2, -1, -1),))
    with pytest.raises(TypeError, match="num_random is 2.5"):
        influence(tokenizer, levels, num_random=2.5)


@pytest.mark.parametrize("as_given", [list, np.array, torch.tensor])
def test_a_mask_is_no_list_of_places(as_given: Callable) -> None:
    tokenizer = sequence()
    with pytest.raises(ValueError, match="but must be a list of whole numbers"):
        influence(tokenizer, tokens_of(tokenizer), as_given([True, False, True, False, False]))


@pytest.mark.parametrize("as_given", [tuple, np.array, torch.tensor])
def test_places_and_numbers_in_arrays_and_tensors_are_those_of_a_list(as_given: Callable) -> None:
    tokenizer = sequence()
    levels = tokens_of(tokenizer)
    found, expected = (influence(tokenizer, levels, places, seed=3) for places in (as_given([3, 1]), [3, 1]))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    steps = coarse_to_fine(tokenizer, levels, as_given([4, 2]))
    assert [step.num_tokens for step in steps] == [4, 2] and all(type(step.num_tokens) is int for step in steps)


def test_prefixes_of_a_sequence_are_what_the_decoder_makes_of_the_first_codes() -> None:
    tokenizer = sequence()
    (tokens,) = tokens_of(tokenizer)
    steps = coarse_to_fine(tokenizer, (tokens,))
    assert [step.num_tokens for step in steps] == [1, 2, 4, 5] and steps[0].name == "1 token"
    codes = tokenizer.quantizer.codebook[tokens[0, 0]].T[None, :, None]  # [1, D, 1, N]
    with torch.no_grad():
        for step in steps:
            expected = tokenizer.decoder(codes[..., : step.num_tokens])[0].clamp(-1, 1)
            torch.testing.assert_close(step.image, expected)
    assert [step.num_tokens for step in coarse_to_fine(tokenizer, (tokens,), [3, 5])] == [3, 5]
    with pytest.raises(ValueError, match="There is no picture of 6 tokens: numbers are 1 to 5"):
        coarse_to_fine(tokenizer, (tokens,), [6])


def test_numbers_of_prefixes() -> None:
    assert [usual_numbers(length) for length in (1, 2, 3, 32)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8, 16, 32]]


def test_scales_add_up_as_in_vars_algorithm() -> None:
    """VAR, algorithm 2, written as a loop: look up, enlarge, repair, add."""
    tokenizer = grid("multiscale", scales=[1, 2, 3, 4])
    levels = tokens_of(tokenizer)
    steps = coarse_to_fine(tokenizer, levels)
    assert [step.num_tokens for step in steps] == [1, 5, 14, 30] and steps[1].name == "level 1, 2x2"
    f_hat = torch.zeros(1, 4, 4, 4)
    with torch.no_grad():
        for number, (step, level) in enumerate(zip(steps, levels, strict=True)):
            h = tokenizer.quantizer.members[0].codebook[level].permute(0, 3, 1, 2)
            h = h if number == 3 else F.interpolate(h, (4, 4), mode="bicubic")
            phi = tokenizer.quantizer.phis[number]  # as many as scales here
            f_hat = f_hat + 0.5 * h + 0.5 * F.conv2d(h, phi.weight, phi.bias, padding=1)
            torch.testing.assert_close(step.image, tokenizer.decoder(f_hat)[0].clamp(-1, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(steps[-1].image, tokenizer.decode(levels)[0])


def test_residual_levels_add_up() -> None:
    tokenizer = grid("residual", num_levels=3)
    levels = tokens_of(tokenizer)
    books = tokenizer.quantizer.codebooks
    with torch.no_grad():
        codes = torch.stack([book[level].permute(0, 3, 1, 2) for book, level in zip(books, levels, strict=True)])
        for number, step in enumerate(coarse_to_fine(tokenizer, levels)):
            expected = tokenizer.decoder(codes[: number + 1].sum(0))[0].clamp(-1, 1)
            torch.testing.assert_close(step.image, expected, atol=1e-5, rtol=1e-5)
    assert step.num_tokens == 48


@pytest.mark.parametrize(("quantizer", "options"), [("vq", {}), ("grouped", {"num_groups": 2})])
def test_tokens_of_one_grid_have_no_coarser_picture(quantizer: str, options: dict) -> None:
    tokenizer = grid(quantizer, **options)
    with pytest.raises(ValueError, match="No part of these tokens is a coarser image"):
        coarse_to_fine(tokenizer, tokens_of(tokenizer))
    with pytest.raises(ValueError, match="numbers is \\[1\\], but these tokens are no sequence"):
        coarse_to_fine(tokenizer, tokens_of(tokenizer), [1])


def test_a_beginning_of_a_sequence_has_no_pictures_of_more_tokens_than_it_has() -> None:
    tokenizer = sequence()
    first = (tokens_of(tokenizer)[0][..., :3],)
    assert [step.num_tokens for step in coarse_to_fine(tokenizer, first)] == [1, 2, 3]
    with pytest.raises(
        ValueError, match=r"There is no picture of 4 tokens: numbers are 1 to 3, as many as there are\."
    ):
        coarse_to_fine(tokenizer, first, [3, 4])
