"""Finite scalar quantization: each channel of z is bounded and rounded to one of a few levels; nothing is learned.

Source: FSQ (Mentzer et al. 2023, arXiv:2309.15505), section 3.1 and appendix A.1. There is no loss either: every code is in
use as soon as every channel takes all of its levels. The paper takes 5 levels or more a channel. To know:

- Codes are in [-1, 1]; the first channel of an index is the least significant one, as in the original.
- An even number of levels is not symmetric about 0: a channel is shifted so that z = 0 still gives the code 0. That shift is
  the inverse of the bound, atanh; the first published code had tan, which is near it for many levels only.
- Channels of two levels are refused: an offset of half a level is then half the range, and no finite shift undoes it.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from vistok.quantizers.base import Quantized, Quantizer, straight_through

_EPS = 1e-3  # by which the bound is narrower than the levels, as in the original
_USUAL_LEVELS = {2**8: [8, 6, 5], 2**9: [8, 8, 8], 2**10: [8, 5, 5, 5], 2**12: [7, 5, 5, 5, 5], 2**14: [8, 8, 8, 6, 5]}


class FSQQuantizer(Quantizer):
    """A grid of codes: L_i equidistant levels in channel i, K = product of all L_i."""

    loss_names: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, codebook_size: int | None = None, codebook_dim: int | None = None, levels: Sequence[int] | None = None
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, the product of `levels`; None: that.
            codebook_dim: D, their number; None: that.
            levels: L_i, 3 or more in each channel; None: D equal ones whose product is K.

        Raises:
            ValueError: a channel has fewer than 3 levels, or the levels do not give `codebook_size` and `codebook_dim`.
        """
        if levels is None:
            levels = _equal_levels(codebook_size, codebook_dim)
        if not levels or any(not isinstance(level, int) or level < 3 for level in levels):
            raise ValueError(
                f"levels is {list(levels)}, but fsq needs integers of 3 or more; lfq and bsq have 2 a channel."
            )
        size, dim = math.prod(levels), len(levels)
        super().__init__(
            (size if codebook_size is None else codebook_size,), dim if codebook_dim is None else codebook_dim
        )
        if (self.codebook_size, self.codebook_dim) != (size, dim):
            raise ValueError(
                f"codebook_size is {self.codebook_size} and codebook_dim {self.codebook_dim}, but levels {list(levels)} "
                f"give codebook_size {size} and codebook_dim {dim}: set these, or other levels."
            )
        num_levels = torch.tensor(levels)
        places = torch.cat([torch.ones(1, dtype=torch.int64), num_levels.cumprod(0)[:-1]])
        self.register_buffer("levels", num_levels, persistent=False)  # [D]
        self.register_buffer(
            "places", places, persistent=False
        )  # [D], what one level up in a channel adds to the index

    @property
    def codebook(self) -> Tensor:
        return self._codes(torch.arange(self.codebook_size, device=self.levels.device))

    def bound(self, z: Tensor) -> Tensor:
        """Return z, float32 [B, D, h, w], squashed so that rounding gives L_i integers in channel i (appendix A.1)."""
        half_range = (self.levels - 1).float() * (1 - _EPS) / 2
        offset = (self.levels % 2 == 0).float() / 2
        shift = (offset / half_range).atanh()
        half_range, offset, shift = (x.view(-1, 1, 1) for x in (half_range, offset, shift))
        return (z + shift).tanh() * half_range - offset

    def quantize(self, z: Tensor) -> Quantized:
        bounded = self.bound(z)
        rounded = bounded.round()  # integers in [-L//2, (L-1)//2]
        half_width = (self.levels // 2).view(-1, 1, 1)
        whole = (
            rounded.nan_to_num().long()
        )  # what is not a number gets some index in [0, K) too, and a code that is none
        indices = ((whole + half_width) * self.places.view(-1, 1, 1)).sum(1)  # [B, h, w]
        return Quantized(straight_through(bounded, rounded) / half_width, (indices,), {})

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return self._codes(indices).movedim(-1, 1)  # [B, D, h, w]

    def _codes(self, indices: Tensor) -> Tensor:
        """The codes, float32 [..., D], of indices, int64 [...]."""
        half_width = self.levels // 2
        return (indices.unsqueeze(-1) // self.places % self.levels - half_width).float() / half_width


def _equal_levels(codebook_size: int | None, codebook_dim: int | None) -> list[int]:
    """D equal levels whose product is K."""
    if codebook_size is None or codebook_dim is None:
        raise ValueError(f"fsq needs levels, or codebook_size and codebook_dim; {_suggestion(codebook_size or 512)}.")
    for name, value in (("codebook_size", codebook_size), ("codebook_dim", codebook_dim)):
        if value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1.")
    level = round(codebook_size ** (1 / codebook_dim))
    if level < 3 or level**codebook_dim != codebook_size:
        raise ValueError(
            f"codebook_size is {codebook_size} and codebook_dim {codebook_dim}, but {codebook_size} codes are no grid of "
            f"{codebook_dim} equal levels of 3 or more: set levels; {_suggestion(codebook_size)}."
        )
    return [level] * codebook_dim


def _suggestion(codebook_size: int) -> str:
    """Levels of about as many codes that the literature uses."""
    levels = _USUAL_LEVELS[min(_USUAL_LEVELS, key=lambda size: abs(math.log(size / codebook_size)))]
    return f"usual are {levels}, codebook_size {math.prod(levels)} and codebook_dim {len(levels)}"
