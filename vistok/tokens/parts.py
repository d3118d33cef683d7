"""What parts of an image's tokens do: how far the picture follows one token, and what the first tokens or scales already show.

Nothing here asks whether tokens have places. Where they are a sequence (TiTok), or scales of the whole image (VAR), these are
the questions that a place would have answered.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vistok.system.devices import eval_view
from vistok.system.files import shown
from vistok.system.values import checked, whole_numbers
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import nearest_codes

DECODED_TOGETHER = 32  # images


class Influence(NamedTuple):
    """How far a picture follows its tokens: the mean over the channels of a pixel's absolute change, in [0, 1].

    Attributes:
        nearest: float32 [n, H, W], where a token becomes the code nearest to it.
        random: float32 [n, H, W], where it becomes another code, the mean over those that were drawn.
        nearest_codes: int64 [n], that code.
        random_codes: int64 [n, num_random], those.
    """

    nearest: Tensor
    random: Tensor
    nearest_codes: Tensor
    random_codes: Tensor


@torch.no_grad()
def influence(
    tokenizer: VisualTokenizer,
    levels: tuple[Tensor, ...],
    places: Sequence[int] | None = None,
    *,
    level: int = 0,
    num_random: int = 4,
    seed: int = 0,
) -> Influence:
    """Change one token of an image at a time, to the code nearest to its own and to random ones, and see which pixels follow.

    Args:
        tokenizer: whose tokens they are.
        levels: int64 [1, h_l, w_l] of each level: one image.
        places: the tokens, row by row from 0; None: all of the level.
        level: of the tokens.
        num_random: codes drawn for each token, at least 1, uniformly from all but its own; a codebook of two has one other.
        seed: of the draws; what is drawn for a token depends on it and on the token's place alone.

    Raises:
        ValueError: there is no such place or level, or no place is given, `num_random` is below 1, these are tokens of several
            images, or there is one code only.
        TypeError: `level`, `num_random` or `seed` is no whole number.
    """
    level, seed = checked("level", int, level), checked("seed", int, seed)
    levels = tokenizer.as_levels(levels)
    if len(levels[0]) != 1:
        raise ValueError(f"These are tokens of {len(levels[0])} images; influence is of one.")
    if not 0 <= level < len(levels):
        raise ValueError(f"There is no level {level}: levels are 0 to {len(levels) - 1}.")
    if checked("num_random", int, num_random) < 1:
        raise ValueError(f"num_random is {num_random}, but must be at least 1; 4 is usual.")
    tokens = levels[level].flatten()  # [h*w]
    places = range(len(tokens)) if places is None else whole_numbers("places", places)
    if not places:
        raise ValueError("places is empty: give the tokens to change, or None for all of them.")
    for place in places:
        if not 0 <= place < len(tokens):
            raise ValueError(f"There is no token {place}: tokens of this level are 0 to {len(tokens) - 1}.")
    codebook = tokenizer.quantizer.codebooks[level]
    if len(codebook) < 2:
        raise ValueError("There is one code only: no token can be another.")
    others = torch.stack(
        [_other_codes(codebook, place, int(tokens[place]), num_random, seed) for place in places]
    )  # [n, 1 + num_random]
    rows = [(place, code) for place, codes in zip(places, others.tolist(), strict=True) for code in codes]
    before = tokenizer.decode(levels).float()
    changes = []
    for start in range(0, len(rows), DECODED_TOGETHER):
        part = rows[start : start + DECODED_TOGETHER]
        changed = tokens.repeat(len(part), 1)
        for row, (place, code) in enumerate(part):
            changed[row, place] = code
        given = [one.expand(len(part), -1, -1) for one in levels]
        given[level] = changed.view(-1, *levels[level].shape[1:])
        changes.append(((tokenizer.decode(tuple(given)).float() - before).abs().mean(1) / 2).cpu())  # [m, H, W]
    maps = torch.cat(changes).unflatten(0, (-1, 1 + num_random))  # [n, 1 + num_random, H, W]
    return Influence(maps[:, 0], maps[:, 1:].mean(1), others[:, 0], others[:, 1:])


def _other_codes(codebook: Tensor, place: int, code: int, num_random: int, seed: int) -> Tensor:
    """Return the code nearest to a code, and random others, int64 [1 + num_random] on the CPU."""
    nearest, _ = nearest_codes(codebook, code, 1)
    generator = torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)
    drawn = torch.randint(len(codebook) - 1, (num_random,), generator=generator)
    return torch.cat([nearest.cpu(), drawn + (drawn >= code)])  # all but the code itself


class Step(NamedTuple):
    """An image as it is decoded from a part of its tokens.

    Attributes:
        name: the part, in words.
        num_tokens: tokens up to there.
        image: float [3, H, W] in [-1, 1].
    """

    name: str
    num_tokens: int
    image: Tensor


@torch.no_grad()
def coarse_to_fine(
    tokenizer: VisualTokenizer, levels: tuple[Tensor, ...], numbers: Sequence[int] | None = None
) -> list[Step]:
    """Decode an image from the first tokens of a sequence, or after each of the scales or levels that add up.

    Args:
        tokenizer: whose tokens they are.
        levels: int64 [1, h_l, w_l] of each level: one image.
        numbers: tokens of a sequence to take, each in [1, N]; None: 1, 2, 4, ..., N.

    Returns:
        the steps, the last of them the image from all tokens where `numbers` is None.

    Raises:
        ValueError: there is no such number; `numbers` are given where tokens are no sequence; these are tokens of several
            images; or no part of the tokens is an image: they lie on one grid, or are groups of channels.
    """
    levels = tokenizer.as_levels(levels)
    if len(levels[0]) != 1:
        raise ValueError(f"These are tokens of {len(levels[0])} images; coarse_to_fine is of one.")
    if tokenizer.is_sequence and len(levels) == 1:
        length = levels[0].shape[2]
        chosen = usual_numbers(length) if numbers is None else whole_numbers("numbers", numbers)
        for number in chosen:
            if not 1 <= number <= length:
                raise ValueError(
                    f"There is no picture of {number} tokens: numbers are 1 to {length}, as many as there are."
                )
        tokens = ["token" if number == 1 else "tokens" for number in chosen]
        return [
            Step(f"{number} {word}", number, tokenizer.decode(levels[0][..., :number])[0].cpu())
            for number, word in zip(chosen, tokens, strict=True)
        ]
    if numbers is not None:
        raise ValueError(f"numbers is {shown(numbers)}, but these tokens are no sequence; leave it out.")
    sums = eval_view(tokenizer.quantizer).codes_after_each(*levels)
    if len(sums) < 2:
        raise ValueError(
            "No part of these tokens is a coarser image: that takes a sequence (titok), or levels that add up (residual, "
            "multiscale)."
        )
    steps, seen = [], 0
    for number, (codes, level) in enumerate(zip(sums, levels, strict=True)):
        seen += level[0].numel()
        grid = "x".join(map(str, level.shape[1:]))
        steps.append(Step(f"level {number}, {grid}", seen, tokenizer.decode_codes(codes)[0].cpu()))
    return steps


def usual_numbers(length: int) -> list[int]:
    """Return 1, 2, 4, ... and `length`: the prefixes of a sequence that are looked at."""
    return [*(2**power for power in range(length.bit_length()) if 2**power < length), length]
