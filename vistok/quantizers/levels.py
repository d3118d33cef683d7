"""Indices as people give them: taken where it is plain what is meant, else refused in one sentence that says what is expected
and what was given."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Grid = tuple[int, int]


def as_indices(levels: tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    """Return levels as people get them: the one tensor where there is one level, else the tuple of them."""
    return levels[0] if len(levels) == 1 else levels


def as_levels(
    indices: object, sizes: tuple[int, ...], grids: list[Grid], is_sequence: bool = False
) -> tuple[Tensor, ...]:
    """Return indices as int64 [B, h_l, w_l], one tensor a level, on the device that they are on.

    Args:
        indices: integers of any dtype, as tensors, arrays or lists: of one level [B, h, w]; of several a tuple or list of
            them. On the tokenizer's own grid also [B, h*w] or [h, w] of each level, and [B, tokens of all levels] as in a
            file of tokens, or one row of it.
        sizes: K of each level.
        grids: each level's, for images of the tokenizer's own size.
        is_sequence: whether each is a sequence, 1 x N, of which the first n tokens are taken as well, [B, n] or [B, 1, n].

    Raises:
        ValueError: they are no integers, or not in [0, K), or it is not plain what their shape means.
    """
    given = _parts(indices, len(sizes), grids)
    expected = _expected(sizes, grids, is_sequence)
    if is_sequence and len(grids) == 1 and getattr(given[0], "ndim", 0) == 2 and 0 < given[0].shape[1] < grids[0][1]:
        grids = [(1, given[0].shape[1])]
    wrong = f"Indices must be {expected}, not {_described(given)}."
    if not all(is_whole(part) for part in given):
        hint = " Whole numbers become indices by .long()." if any(_floating(part) for part in given) else ""
        raise ValueError(wrong + hint)
    levels: Sequence[Tensor | None] = [_to_int64(part) for part in given]
    if len(levels) == 1 and len(sizes) > 1:
        levels = _split(levels[0], grids)
    if len(levels) > 1 and len(levels) != len(sizes) and all(level.ndim > 1 for level in levels):
        raise ValueError(f"There are {len(levels)} levels of indices, but the tokenizer has {len(sizes)} codebooks.")
    if len(levels) == len(sizes):
        levels = [_on_grid(level, grid) for level, grid in zip(levels, grids, strict=True)]
    if len(levels) != len(sizes) or any(level is None for level in levels):
        raise ValueError(wrong)
    if not all(math.prod(level.shape[1:]) for level in levels):
        raise ValueError(wrong)  # of images without a token nothing can be decoded; no images are fine
    if len({len(level) for level in levels}) > 1:
        raise ValueError(f"The levels are of {' and '.join(str(len(level)) for level in levels)} images.")
    for level, size in zip(levels, sizes, strict=True):
        if level.numel():
            low, high = torch.stack(level.aminmax()).tolist()
            if low < 0 or high >= size:
                index = low if low < 0 else high
                raise ValueError(f"Index {index} is outside of this tokenizer's codebook: [0, {size}).")
    return tuple(levels)


def _parts(indices: object, num_levels: int, grids: list[Grid]) -> list[Any]:
    """Return the tensor or array of each level; one where all levels are in it."""
    if not isinstance(indices, list | tuple):
        return [indices]
    parts = [part if isinstance(part, Tensor | np.ndarray) else _to_array(part) for part in indices]
    rows = all(part.ndim == 1 and len(part) == sum(map(math.prod, grids)) for part in parts)
    if num_levels > 1 and all(part.ndim for part in parts) and not rows:
        return parts  # also where there are too few or too many
    if (
        parts and parts[0].ndim < 3 and len({tuple(part.shape) for part in parts}) == 1
    ):  # grids or rows of single images
        if all(isinstance(part, Tensor) for part in parts):
            return [torch.stack(parts)]
        return [np.stack([np.asarray(part) for part in parts])]
    return parts


def _to_array(numbers: object) -> np.ndarray:
    """Return nested lists of numbers as an array; of what is no such thing an array of objects."""
    try:
        return np.asarray(numbers)
    except ValueError:  # rows of different lengths
        return np.asarray(numbers, dtype=object)


def is_whole(part: object) -> bool:
    """Whether a tensor or array is one of integers; truth values are not."""
    if isinstance(part, Tensor):
        return not (part.is_floating_point() or part.is_complex() or part.dtype == torch.bool)
    return isinstance(part, np.ndarray) and part.dtype.kind in "iu"


def _floating(part: object) -> bool:
    return part.is_floating_point() if isinstance(part, Tensor) else getattr(part, "dtype", np.dtype(bool)).kind == "f"


def _to_int64(part: Tensor | np.ndarray) -> Tensor:
    return part.to(torch.int64) if isinstance(part, Tensor) else torch.from_numpy(part.astype(np.int64))


def _split(rows: Tensor, grids: list[Grid]) -> list[Tensor]:
    """Return the levels of rows [B, tokens of all levels], or of one row; what is no such thing as it is."""
    tokens = [math.prod(grid) for grid in grids]
    if rows.ndim not in (1, 2) or rows.shape[-1] != sum(tokens):
        return [rows]
    return list(rows.split(tokens, dim=-1))


def _on_grid(level: Tensor, grid: Grid) -> Tensor | None:
    """Return a level as [B, h, w]; None where it is not plain how."""
    if level.ndim == 3:
        return level
    if tuple(level.shape) == grid:
        return level[None]
    if level.ndim in (1, 2) and level.shape[-1] == math.prod(grid):
        return level.reshape(-1, *grid)
    return None


def _expected(sizes: tuple[int, ...], grids: list[Grid], is_sequence: bool) -> str:
    bounds = " and ".join(f"[0, {size})" for size in dict.fromkeys(sizes))
    shapes = [f"[B, {height}, {width}]" for height, width in grids]
    total = sum(map(math.prod, grids))
    if len(grids) == 1:
        others = f"the first n, [B, 1, n] or [B, n] with n from 1 to {total}" if is_sequence else "another [B, h, w]"
        return f"integers in {bounds}, {shapes[0]} or [B, {total}] or {others}"
    return f"integers in {bounds}, a tuple of {len(grids)}, {', '.join(shapes)}, or one [B, {total}]"


def _described(parts: list[Any]) -> str:
    """Return dtypes and shapes of what was given."""
    names = [
        f"{part.dtype} {list(part.shape)}" if isinstance(part, Tensor | np.ndarray) else type(part).__name__
        for part in parts
    ]
    if len(names) < 2:
        return names[0] if names else "an empty list"
    return f"{len(names)} parts: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
