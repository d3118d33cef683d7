"""`TokenEditor`: change tokens of an image and see what the decoder makes of it."""

import textwrap
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage
from torch import Tensor

from vistok.codebook import decode_alone, interpolate, nearest_codes, to_uint8
from vistok.encoded import Chosen, EncodedImages
from vistok.plots import DPI
from vistok.widgets.reconstructions import ERROR_SCALE, draw_picture, error_map
from vistok.widgets.view import Refusal, View, answering, image_png, script, strip_png

NEAREST = 8  # codes offered in place of one
ACTS = ("choose", "look_at", "select", "replace", "swap", "interpolate", "undo", "reset")  # what the page may ask for


class _State(NamedTuple):
    """What is edited; the picture is a function of it.

    Attributes:
        mine, theirs: int64 [1, h, w] of each level, tokens of the image and of the other.
        share: of the other image in the picture, in [0, 1].
        to_codes: whether a mixture is quantized.
    """

    mine: tuple[Tensor, ...]
    theirs: tuple[Tensor, ...]
    share: float = 0.0
    to_codes: bool = False


class TokenEditor(View):
    """Edit the tokens of an image: replace them, exchange them with another image's, or mix the codes of both images.

    The methods do what the buttons do. What cannot be done is said in `message`, and nothing is changed.

    Attributes:
        image, other: numbers of the two images; `choose` changes them.
        level: whose tokens are shown and changed; `look_at` changes it.
        selection: top, left, bottom and right of the selected tokens, as of slices; `select` changes it.
        share, to_codes: of the mixture; `interpolate` changes them.
        change: how the picture differs from that before any edit, in sentences.
        can_undo: whether there is something to take back.
        titles: names of the two images.
        images: how many images there are.
        offered: the code that was chosen in another view of the same images, to paint with; -1: none.
        codebook_sizes: K of each level.
        grid: height and width of the level's grid.
        token_values: uint32 [h, w], the level's tokens, as bytes.
        edited: uint8 [h, w], 1 where they are not the encoder's, as bytes.
        near, near_distances: the code of the first selected token and those nearest to it, and how far they are from it.
        near_tiles: PNG of these codes in a row, each decoded alone.
        original, before, decoded_png, other_decoded: PNG of the image, of what its tokens decoded to before any edit and
            decode to now, and of what the other image's decode to now.
        answered: how many requests of the page were dealt with.
    """

    _esm = script("errors", "editor")
    image = traitlets.Int(0).tag(sync=True)
    other = traitlets.Int(0).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)
    selection = traitlets.List(traitlets.Int(), [0, 0, 1, 1]).tag(sync=True)
    share = traitlets.Float(0.0).tag(sync=True)
    to_codes = traitlets.Bool(False).tag(sync=True)
    change = traitlets.Unicode("").tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    titles = traitlets.List(traitlets.Unicode(), ["", ""]).tag(sync=True)
    images = traitlets.Int(0).tag(sync=True)
    offered = traitlets.Int(-1).tag(sync=True)
    codebook_sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    grid = traitlets.List(traitlets.Int(), [1, 1]).tag(sync=True)
    token_values = traitlets.Bytes().tag(sync=True)
    edited = traitlets.Bytes().tag(sync=True)
    near = traitlets.List(traitlets.Int()).tag(sync=True)
    near_distances = traitlets.List(traitlets.Float()).tag(sync=True)
    near_tiles = traitlets.Bytes().tag(sync=True)
    original = traitlets.Bytes().tag(sync=True)
    before = traitlets.Bytes().tag(sync=True)
    decoded_png = traitlets.Bytes().tag(sync=True)
    other_decoded = traitlets.Bytes().tag(sync=True)
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)
    answered = traitlets.Int(0).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, image: int = 0, other: int = 1, *, level: int = 0) -> None:
        """Show an image with its tokens.

        Args:
            encoded: the images, or why there are none.
            image: number of the one to edit.
            other: number of the one that tokens are exchanged or mixed with; where there is only one image, that one.
            level: of the codebooks.
        """
        super().__init__()
        self._encoded: EncodedImages | None = None
        if isinstance(encoded, Refusal):
            self._refuse(encoded)
            return
        self._encoded = encoded
        self._tile_of: dict[
            tuple[int, int], Tensor
        ] = {}  # of level and code: slow to decode where a ViT decodes whole grids
        self.images, self.codebook_sizes = len(encoded), list(encoded.codebook_sizes)
        if len(encoded) == 1:
            other = 0
        try:
            self._check_image(image)
            self._check_image(other)
            self._check_level(level)
        except ValueError as error:  # said, and the first images are shown
            self.message = str(error)
            image, other, level = 0, min(1, len(encoded) - 1), 0
        self.level = level
        self._begin(image, other)
        self.on_msg(self._asked)
        self._turn, self._choosing = encoded.choice.turn, False
        if encoded.choice.chosen.level == self.level:
            self.offered = encoded.choice.chosen.code
        encoded.choice.observe(lambda change: self._offer(change.new), names="chosen")

    # What the buttons do.

    @answering
    def choose(self, image: int, other: int) -> None:
        """Take two images as they were encoded; what was edited stays where `image` does, and can be undone."""
        self._check_image(image)
        self._check_image(other)
        if image != self.image:
            self._begin(image, other)
        elif other != self.other:
            self._take_other(other)

    @answering
    def look_at(self, level: int) -> None:
        """Show and change the tokens of a level; edits of other levels stay."""
        self._check_level(level)
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
        mine = self._state.mine[self.level].clone()
        mine[self._region] = code
        self._do(self._state._replace(mine=self._with_level(self._state.mine, mine)))

    @answering
    def swap(self) -> None:
        """Exchange the selected tokens with those at the same place of the other image."""
        mine, theirs = (levels[self.level].clone() for levels in (self._state.mine, self._state.theirs))
        mine[self._region], theirs[self._region] = theirs[self._region].clone(), mine[self._region].clone()
        changed = {
            "mine": self._with_level(self._state.mine, mine),
            "theirs": self._with_level(self._state.theirs, theirs),
        }
        self._do(self._state._replace(**changed))

    @answering
    def interpolate(self, share: float, to_codes: bool = False) -> None:
        """Mix the codes of all tokens with the other image's: a share of 0 is this image, 1 the other.

        Args:
            share: of the other image, in [0, 1].
            to_codes: take the nearest codes of the mixture, which alone lies between codes.
        """
        if isinstance(share, str) or not 0 <= share <= 1:
            raise ValueError(f"share is {share}, but must be in 0 to 1.")
        state = self._state._replace(share=float(share), to_codes=bool(to_codes))
        self._do(state, sliding=True)

    @answering
    def undo(self) -> None:
        """Take the last change back; all moves of the slider since another change are one."""
        if not self._history:
            raise ValueError("There is nothing to undo.")
        self._state, self._sliding = self._history.pop(), False
        self._update()

    @answering
    def reset(self) -> None:
        """Take all changes back."""
        self._state, self._sliding = self._encoder_state, False
        self._history.clear()
        self._update()

    @property
    def tokens(self) -> np.ndarray:
        """The image's tokens of the level now, int64 [h, w]; a mixture does not change them."""
        return self._state.mine[self.level][0].numpy().copy()

    @property
    def other_tokens(self) -> np.ndarray:
        """The other image's tokens of the level now, int64 [h, w]."""
        return self._state.theirs[self.level][0].numpy().copy()

    @property
    def decoded(self) -> Tensor:
        """What is decoded now, uint8 [3, H, W]."""
        return self._decoded.clone()

    @property
    def difference(self) -> Tensor:
        """How much the picture differs from that before any edit, uint8 [3, H, W]."""
        before = self._encoded.reconstructions([self.image])[0]
        return (self._decoded.int() - before.int()).abs().to(torch.uint8)

    # How it is done.

    def _asked(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """Do what the page asks for."""
        arguments = dict(content)
        act = arguments.pop("do", None)
        with self._turn:
            try:
                if act in ACTS:
                    getattr(self, act)(**arguments)
                if act in ("select", "look_at"):
                    self._choose_token()
            finally:  # whatever came of it: the page waits for it
                self.answered += 1

    def _choose_token(self) -> None:
        """Choose the code of the first selected token in the other views; what is offered here stays."""
        self._choosing = True
        try:
            self._encoded.choice.choose(self.near[0], level=self.level)
        finally:
            self._choosing = False

    def _offer(self, chosen: Chosen) -> None:
        """Offer what was chosen in another view, and look at its level."""
        if self._choosing:
            return
        if chosen.level != self.level:
            self.look_at(chosen.level)
        self.offered = chosen.code

    def _check_image(self, number: int) -> None:
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 0 <= number < self.images:
            raise ValueError(f"There is no image {number!r}: images are 0 to {self.images - 1}.")

    def _check_level(self, level: int) -> None:
        if not 0 <= level < len(self.codebook_sizes):
            raise ValueError(f"There is no level {level}: levels are 0 to {len(self.codebook_sizes) - 1}.")

    def _begin(self, image: int, other: int) -> None:
        self._encoder_state = self._state = _State(self._encoded.indices([image]), self._encoded.indices([other]))
        self._history: list[_State] = []
        self._sliding = False  # whether the last change was a move of the slider
        self._shown: dict[str, Any] = {}
        with self.hold_sync():
            self.image, self.other, self.selection = image, other, [0, 0, 1, 1]
            self.titles = [self._encoded.image_names[number] for number in (image, other)]
            self.original = image_png(self._encoded.pixels([image])[0])
            self.before = image_png(self._encoded.reconstructions([image])[0])
            self._update()

    def _take_other(self, other: int) -> None:
        """Put another image beside this one, now and in all that can be undone."""
        theirs = self._encoded.indices([other])
        self._state, self._encoder_state, *self._history = (
            state._replace(theirs=theirs) for state in (self._state, self._encoder_state, *self._history)
        )
        self._sliding = False
        with self.hold_sync():
            self.other, self.titles = other, [self.titles[0], self._encoded.image_names[other]]
            self._update()

    def _do(self, state: _State, *, sliding: bool = False) -> None:
        """Make a change that can be taken back."""
        if not (sliding and self._sliding):
            self._history.append(self._state)
        self._state, self._sliding = state, sliding
        self._update()

    @property
    def _region(self) -> tuple[slice, slice, slice]:
        top, left, bottom, right = self.selection
        return slice(None), slice(top, bottom), slice(left, right)

    def _with_level(self, levels: tuple[Tensor, ...], changed: Tensor) -> tuple[Tensor, ...]:
        return (*levels[: self.level], changed, *levels[self.level + 1 :])

    def _is_new(self, name: str, state: tuple[Any, ...]) -> bool:
        """Return whether a picture has to be made anew: it was last made of other tokens or numbers."""
        last, self._shown[name] = self._shown.get(name), state
        return last is None or any(
            a is not b and (isinstance(a, tuple) or a != b) for a, b in zip(last, state, strict=True)
        )

    def _update(self) -> None:
        """Decode what has changed and tell the page."""
        state, level = self._state, self.level
        if self._is_new("mine", tuple(state)):
            self._decoded = self._decode(state)
        if self._is_new("theirs", (state.theirs,)):
            self._other_decoded = self._decode(_State(state.theirs, state.mine))
        tokens = self.tokens
        edited = tokens != self._encoder_state.mine[level][0].numpy()
        with self.hold_sync():
            self.grid = list(tokens.shape)
            self.token_values, self.edited = tokens.astype("<u4").tobytes(), edited.astype(np.uint8).tobytes()
            self.share, self.to_codes, self.can_undo = state.share, state.to_codes, bool(self._history)
            self.decoded_png, self.other_decoded = image_png(self._decoded), image_png(self._other_decoded)
            self._find_near(int(tokens[self.selection[0], self.selection[1]]))
            self.change = self._describe_change()
            self.description = self._describe()

    def _decode(self, state: _State) -> Tensor:
        """Return the picture of a state, uint8 [3, H, W]."""
        if 0 < state.share < 1:
            mixed = interpolate(self._encoded.tokenizer, state.mine, state.theirs, state.share, to_codes=state.to_codes)
        else:
            mixed = self._encoded.decode(state.theirs if state.share else state.mine)
        return to_uint8(mixed)[0].cpu()

    @torch.no_grad()
    def _find_near(self, code: int) -> None:
        """Offer the codes nearest to one."""
        if not self._is_new("near", (self.level, code)):
            return
        tokenizer = self._encoded.tokenizer
        near, distances = nearest_codes(tokenizer.quantizer.codebooks[self.level], code, NEAREST)
        codes = torch.cat([torch.tensor([code]), near.cpu()])
        self.near, self.near_distances = codes.tolist(), [0.0, *distances.tolist()]
        missing = [number for number in codes.tolist() if (self.level, number) not in self._tile_of]
        if missing:
            made = torch.cat(list(decode_alone(tokenizer, torch.tensor(missing), level=self.level)))
            self._tile_of.update({(self.level, number): tile for number, tile in zip(missing, made, strict=True)})
        self._tiles = torch.stack([self._tile_of[self.level, number] for number in self.near])
        self.near_tiles = strip_png(self._tiles)

    def _edited_pixels(self) -> np.ndarray:
        """Return which pixels lie in tokens, of any level, that are not the encoder's; bool [H, W]."""
        size = self._decoded.shape[1:]
        pixels = np.zeros(tuple(size), dtype=bool)
        for now, then in zip(self._state.mine, self._encoder_state.mine, strict=True):
            changed = (now != then).float()[None]
            pixels |= torch.nn.functional.interpolate(changed, tuple(size), mode="nearest")[0, 0].numpy() > 0
        return pixels

    def _describe_change(self) -> str:
        """Return how the picture differs from that before any edit, and how far from the edited tokens."""
        pairs = zip(self._state.mine, self._encoder_state.mine, strict=True)
        number = sum(int((now != then).sum()) for now, then in pairs)
        parts = [f"{_tokens(number)} not as encoded." if number else "All tokens are as encoded."]
        if self._state.share:
            snapped = ", snapped to codes" if self._state.to_codes else ""
            parts.append(f"All codes are mixed with image {self.other}'s, a share of {self._state.share:.2f}{snapped}.")
        largest = self.difference.amax(0).numpy()  # [H, W]
        changed = largest > 1
        if not largest.any():
            return " ".join([*parts, "No pixel differs from the image decoded before any edit."])
        parts.append(
            f"{changed.sum():,} of {changed.size:,} pixels changed by more than 1/255, at most by {largest.max()}/255."
        )
        if number and changed.any() and not self._state.share:
            distances = ndimage.distance_transform_cdt(~self._edited_pixels(), metric="chessboard")
            farthest = distances[changed].max() * self.grid[0] / changed.shape[0]
            parts.append(
                f"The farthest of them lies {farthest:.2f} tokens from the edited ones (across or down, whichever is more)."
            )
        return " ".join(parts)

    def _describe(self) -> str:
        names, (top, left, bottom, right) = self._encoded.image_names, self.selection
        level = f" of level {self.level}" if len(self.codebook_sizes) > 1 else ""
        near = ", ".join(map(str, self.near[1:]))
        return (
            f"Image {self.image}, {names[self.image]}, as {self.grid[0]} x {self.grid[1]} tokens{level} of "
            f"{self._encoded.name}, and what they decode to; the other image is {self.other}, {names[self.other]}. Selected "
            f"are rows {top} to {bottom - 1} and columns {left} to {right - 1}; the first token there is code {self.near[0]}, "
            f"and the codes nearest to it are {near}. {self.change}"
        )

    def figure(self) -> Figure | None:
        """Return the decoded image with its grid and selection, and beside it what else the widget shows."""
        if self._encoded is None:
            return None
        encoded = self._encoded
        before = encoded.reconstructions([self.image])[0]
        figure = plt.figure(figsize=(10, 6.2), dpi=DPI, layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(5, 1.2))
        axes = above.subplot_mosaic([["now", "now", "a", "b"], ["now", "now", "c", "d"]])
        draw_picture(axes["now"], self._decoded, f"image {self.image}, {encoded.image_names[self.image]}: decoded now")
        self._draw_grid(axes["now"])
        draw_picture(axes["a"], encoded.pixels([self.image])[0], "original")
        draw_picture(axes["b"], before, "before any edit")
        draw_picture(axes["c"], error_map(self._decoded, before), f"difference, 0 to {ERROR_SCALE:g}")
        draw_picture(axes["d"], self._other_decoded, f"other image, {self.other}, now")
        tiles = below.subplots(1, NEAREST + 1)
        for axis, tile, code, distance in zip(tiles, self._tiles, self.near, self.near_distances, strict=False):
            draw_picture(axis, tile, f"{code}\n{distance:.3g}", size=9)
        for axis in tiles[len(self.near) :]:
            axis.remove()
        below.suptitle(
            "code of the first selected token, and the codes nearest to it with their distances", fontsize=10
        )
        above.supxlabel(textwrap.fill(self.change, 105), fontsize=9)
        return figure

    def _draw_grid(self, axis: Axes) -> None:
        (rows, columns), (height, width) = self.grid, self._decoded.shape[1:]
        high, wide = height / rows, width / columns
        axis.hlines(np.arange(1, rows) * high - 0.5, -0.5, width - 0.5, color="white", alpha=0.4, lw=0.6)
        axis.vlines(np.arange(1, columns) * wide - 0.5, -0.5, height - 0.5, color="white", alpha=0.4, lw=0.6)
        top, left, bottom, right = self.selection
        for colour, thick in (("white", 3.5), ("black", 1.5)):
            corner, size = (left * wide - 0.5, top * high - 0.5), ((right - left) * wide, (bottom - top) * high)
            axis.add_patch(Rectangle(corner, *size, fill=False, ec=colour, lw=thick))


def _tokens(number: int) -> str:
    return "1 token is" if number == 1 else f"{number:,} tokens are"
