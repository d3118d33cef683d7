"""How the tokens of an image are laid out for a transformer: places in a row, each of which holds a token or several.

- One level: a place for each token, row by row, where it lies in the picture.
- Several levels or groups on one grid (residual, grouped): a place for each cell, which holds a token of each level.
- Levels on grids of several sizes (VAR): a place for each token, one level after the other, coarse to fine.

Sequences, [1, N] tokens, and levels of several sizes lie nowhere in a plane: their places are numbered only.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vistok.quantizers.levels import as_indices
from vistok.system.files import shown

MOST_PLACES = 2**16


class Layout:
    """The places of an image's tokens.

    Attributes:
        codebook_sizes: K of each level, as the tokenizer has them.
        level_shapes: height and width of each level's grid.
        num_places: S, places of an image.
        sizes: K of each of the L tokens of a place.
        grid: height and width of the places where they lie in a plane, S = h * w; None: they are a sequence.
    """

    def __init__(self, codebook_sizes: Sequence[int], level_shapes: Sequence[Sequence[int]]) -> None:
        """Lay out levels of these codebooks and grids.

        Raises:
            ValueError: grids of several sizes have codebooks of several sizes, a number is below 1, or the places are more than
                a transformer could see.
        """
        numbers = [*codebook_sizes, *(number for shape in level_shapes for number in shape)]
        if not codebook_sizes or len(numbers) != 3 * len(codebook_sizes) or min(numbers) < 1:
            raise ValueError(
                f"Levels of {shown(list(codebook_sizes))} codes have grids {shown(list(level_shapes))}, but each must have a "
                "size and a grid like [4, 4], of numbers from 1 on."
            )
        self.codebook_sizes = tuple(codebook_sizes)
        self.level_shapes = [tuple(shape) for shape in level_shapes]
        self._together = len(set(self.level_shapes)) == 1
        tokens = [math.prod(shape) for shape in self.level_shapes]
        if not self._together and len(set(self.codebook_sizes)) > 1:
            raise ValueError(
                f"Levels on grids of several sizes, {self.level_shapes}, make one sequence where their codebooks are of one "
                f"size, but these have {list(self.codebook_sizes)} codes."
            )
        self.num_places = tokens[0] if self._together else sum(tokens)
        if self.num_places > MOST_PLACES:
            raise ValueError(f"An image has {self.num_places:,} places, but must have at most {MOST_PLACES:,}.")
        self.sizes = self.codebook_sizes if self._together else self.codebook_sizes[:1]
        self.grid = self.level_shapes[0] if self._together and self.level_shapes[0][0] > 1 else None

    def to_places(self, rows: Tensor) -> Tensor:
        """Return rows of tokens, int64 [B, tokens of all levels], level after level, as places, int64 [B, S, L]."""
        if self._together:
            return rows.unflatten(1, (len(self.sizes), self.num_places)).transpose(1, 2)  # [B, L * S] -> [B, S, L]
        return rows.unsqueeze(2)

    def to_rows(self, places: Tensor) -> Tensor:
        """Return places, int64 [B, S, L], as rows of tokens, int64 [B, tokens of all levels]; undoes `to_places`."""
        return places.transpose(1, 2).flatten(1)

    def to_indices(self, places: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return places, int64 [B, S, L], as `VisualTokenizer.decode` takes tokens: int64 [B, h_l, w_l] of each level."""
        parts = self.to_rows(places).split([math.prod(shape) for shape in self.level_shapes], dim=1)
        return as_indices(tuple(part.unflatten(1, shape) for part, shape in zip(parts, self.level_shapes, strict=True)))

    def from_levels(self, levels: tuple[Tensor, ...]) -> Tensor:
        """Return levels, [B, h_l, w_l] each, as places, [B, S, L]."""
        return self.to_places(torch.cat([level.flatten(1) for level in levels], dim=1))

    def first(self, number: int) -> Tensor | tuple[Tensor, ...]:
        """Return which tokens lie at the first `number` places, bool [1, h_l, w_l], as `known` of a generator's `sample`."""
        places = torch.arange(self.num_places) < number
        return self.to_indices(places.view(1, -1, 1).repeat(1, 1, len(self.sizes)))
