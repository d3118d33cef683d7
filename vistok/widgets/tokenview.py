"""Shared by views with tokens to click and change: the selection, the codes offered in place of one, what can be undone."""

import functools
from typing import NamedTuple

import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import decode_alone, nearest_codes
from vistok.widgets.view import AskedView, answering, check_level, strip_png

NEAREST = 8  # codes offered in place of one


class Edit(NamedTuple):
    """The tokens and numbers that are edited; a picture is a function of them.

    Attributes:
        mine: int64 [1, h, w] of each level, tokens of the picture.
        theirs: of the other picture, where there is one.
        share: the other picture's part of the mixture, in [0, 1].
        to_codes: whether a mixture is quantized.
        prefix: how many tokens of a sequence are decoded, from its beginning; 0: all.
    """

    mine: tuple[Tensor, ...]
    theirs: tuple[Tensor, ...] = ()
    share: float = 0.0
    to_codes: bool = False
    prefix: int = 0


class Edits:
    """An edit, what it was before, and what the encoder said.

    Attributes:
        first: as encoded.
        now: after all changes.
        history: what can be undone, the newest last.
    """

    def __init__(self, first: Edit) -> None:
        self.first = self.now = first
        self.history: list[Edit] = []
        self._sliding = False  # whether the last change was a move of the slider

    def do(self, edit: Edit, *, sliding: bool = False) -> None:
        """Make a change that can be taken back; all moves of a slider since another change are one."""
        if not (sliding and self._sliding):
            self.history.append(self.now)
        self.now, self._sliding = edit, sliding

    def undo(self) -> None:
        """Take the last change back.

        Raises:
            ValueError: there was none.
        """
        if not self.history:
            raise ValueError("There is nothing to undo.")
        self.now, self._sliding = self.history.pop(), False

    def reset(self) -> None:
        """Take all changes back."""
        self.now, self._sliding = self.first, False
        self.history.clear()

    def with_other(self, theirs: tuple[Tensor, ...]) -> None:
        """Put another picture beside this one, now and in all that can be undone."""
        edits = (self.first, self.now, *self.history)
        self.first, self.now, *self.history = (edit._replace(theirs=theirs) for edit in edits)
        self._sliding = False


class NearCodes:
    """The codes nearest to one, each decoded alone; what was decoded is kept, as a ViT decodes whole grids."""

    def __init__(self, tokenizer: VisualTokenizer) -> None:
        self._tokenizer = tokenizer
        self.is_sequence = tokenizer.is_sequence
        self._tile_of: dict[tuple[int, int], Tensor] = {}  # level and code to the patch
        self.of = functools.lru_cache(maxsize=1)(self._of)  # asked again whenever another token changes

    @torch.no_grad()
    def _of(self, level: int, code: int) -> tuple[list[int], list[float], Tensor]:
        """Return a code and those nearest to it, their distances from it, and patches of them, uint8 [n, 3, p, p]."""
        near, distances = nearest_codes(self._tokenizer.quantizer.codebooks[level], code, NEAREST)
        codes = [code, *near.tolist()]
        missing = [number for number in codes if (level, number) not in self._tile_of]
        if missing:
            made = torch.cat(list(decode_alone(self._tokenizer, torch.tensor(missing), level=level)))
            self._tile_of.update({(level, number): tile for number, tile in zip(missing, made, strict=True)})
        return codes, [0.0, *distances.tolist()], torch.stack([self._tile_of[level, number] for number in codes])


class TokenView(AskedView):
    """Base of the views in which tokens are clicked and changed.

    A subclass sets `_edits` and `_near`, shows what has changed in `_update`, and names in `ACTS` what its page may ask for.
    What cannot be done is said in `message`, and nothing is changed.

    Attributes:
        level: whose tokens are shown and changed; `look_at` changes it.
        selection: top, left, bottom and right of the selected tokens, as of slices; `select` changes it.
        can_undo: whether there is something to take back.
        codebook_sizes: K of each level.
        grid: height and width of the level's grid; 1 and N of a sequence.
        sequence: whether tokens are a sequence, shown as a row, for they lie nowhere in the picture.
        near, near_distances: the code of the first selected token and those nearest to it, and how far they are from it.
    """

    ACTS: tuple[str, ...] = ("look_at", "select", "replace", "undo", "reset")
    level = traitlets.Int(0).tag(sync=True)
    selection = traitlets.List(traitlets.Int(), [0, 0, 1, 1]).tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    codebook_sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    grid = traitlets.List(traitlets.Int(), [1, 1]).tag(sync=True)
    sequence = traitlets.Bool(False).tag(sync=True)
    token_values = traitlets.Bytes().tag(sync=True)  # uint32 [h, w]
    edited = traitlets.Bytes().tag(sync=True)  # uint8 [h, w], 1 where tokens are not the encoder's
    near = traitlets.List(traitlets.Int()).tag(sync=True)
    near_distances = traitlets.List(traitlets.Float()).tag(sync=True)
    near_tiles = traitlets.Bytes().tag(sync=True)  # PNG of these codes in a row, each decoded alone

    _edits: Edits
    _near: NearCodes

    # Done by the buttons.

    @answering
    def look_at(self, level: int) -> None:
        """Show and change the tokens of a level; edits of other levels stay."""
        check_level(level, len(self.codebook_sizes))
        self.level = level
        self.selection = [0, 0, 1, 1]
        self._update()

    @answering
    def select(self, top: int, left: int, bottom: int, right: int) -> None:
        """Select tokens: rows `top` to `bottom` and columns `left` to `right`, the ends left out, as in a slice."""
        height, width = self.grid
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ValueError(
                f"There is no region of rows {top} to {bottom} and columns {left} to {right}, ends left out: rows are within "
                f"0 to {height} and columns within 0 to {width}, and at least one of each is selected."
            )
        self.selection = [top, left, bottom, right]
        self._update()

    @answering
    def replace(self, code: int) -> None:
        """Give all selected tokens a code."""
        size = self.codebook_sizes[self.level]
        if isinstance(code, bool) or not isinstance(code, int | np.integer):
            raise ValueError(f"Code {code!r} is not a whole number: codes are 0 to {size - 1}.")
        if not 0 <= code < size:
            raise ValueError(f"There is no code {code}: codes are 0 to {size - 1}.")
        now = self._edits.now
        mine = now.mine[self.level].clone()
        mine[self._region] = code
        self._do(now._replace(mine=self._with_level(now.mine, mine)))

    @answering
    def undo(self) -> None:
        """Take the last change back; all moves of the slider since another change are one."""
        self._edits.undo()
        self._update()

    @answering
    def reset(self) -> None:
        """Take all changes back."""
        self._edits.reset()
        self._update()

    @property
    def tokens(self) -> np.ndarray:
        """The picture's tokens of the level now, int64 [h, w]; a mixture does not change them."""
        return self._edits.now.mine[self.level][0].numpy().copy()

    # How it is done.

    def _do(self, edit: Edit, *, sliding: bool = False) -> None:
        self._edits.do(edit, sliding=sliding)
        self._update()

    def _update(self) -> None:
        """Decode what has changed and tell the page."""
        raise NotImplementedError

    @property
    def _region(self) -> tuple[slice, slice, slice]:
        top, left, bottom, right = self.selection
        return slice(None), slice(top, bottom), slice(left, right)

    def _with_level(self, levels: tuple[Tensor, ...], changed: Tensor) -> tuple[Tensor, ...]:
        return (*levels[: self.level], changed, *levels[self.level + 1 :])

    def _num_edited(self) -> int:
        """Return how many tokens, of any level, are not the encoder's."""
        pairs = zip(self._edits.now.mine, self._edits.first.mine, strict=True)
        return sum(int((now != then).sum()) for now, then in pairs)

    def _tell_tokens(self) -> None:
        """Tell the page the level's tokens, which of them are changed, and the codes near the selected one."""
        tokens = self.tokens
        edited = tokens != self._edits.first.mine[self.level][0].numpy()
        self.sequence = self._near.is_sequence
        self.grid, self.can_undo = list(tokens.shape), bool(self._edits.history)
        self.token_values, self.edited = tokens.astype("<u4").tobytes(), edited.astype(np.uint8).tobytes()
        self.near, self.near_distances, self._tiles = self._near.of(self.level, int(tokens[tuple(self.selection[:2])]))
        self.near_tiles = strip_png(self._tiles)

    def _selected(self) -> str:
        """Return which tokens are selected, in words."""
        top, left, bottom, right = self.selection
        if self.sequence:
            return f"token {left}" if right == left + 1 else f"tokens {left} to {right - 1}"
        return f"rows {top} to {bottom - 1} and columns {left} to {right - 1}"

    def _draw_grid(self, axis: Axes, height: int, width: int) -> None:
        """Draw the grid of tokens and the selection over a picture of so many pixels; those of a sequence lie nowhere in it."""
        if self.sequence:
            return
        rows, columns = self.grid
        high, wide = height / rows, width / columns
        axis.hlines(np.arange(1, rows) * high - 0.5, -0.5, width - 0.5, color="white", alpha=0.4, lw=0.6)
        axis.vlines(np.arange(1, columns) * wide - 0.5, -0.5, height - 0.5, color="white", alpha=0.4, lw=0.6)
        top, left, bottom, right = self.selection
        for colour, thick in (("white", 3.5), ("black", 1.5)):
            corner, size = (left * wide - 0.5, top * high - 0.5), ((right - left) * wide, (bottom - top) * high)
            axis.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=thick))
