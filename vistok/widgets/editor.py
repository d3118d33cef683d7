"""`TokenEditor`: change tokens of an image and see what the decoder makes of it; of a sequence, what each token does."""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure, SubFigure
from scipy import ndimage
from torch import Tensor, nn

from vistok.images import to_uint8
from vistok.plots import DPI
from vistok.system.progress import progress_bar
from vistok.tokens.codebook import interpolate
from vistok.tokens.encoded import Chosen, EncodedImages
from vistok.tokens.parts import influence
from vistok.widgets.reconstructions import ERROR_SCALE, draw_picture, error_map
from vistok.widgets.tokenview import NEAREST, Edit, Edits, NearCodes, TokenView
from vistok.widgets.view import Refusal, answering, check_level, image_png, script

MAPS_A_ROW = 16  # maps of influence in the figure
MAPPED_AT_ONCE = 20_000_000  # parameters of a decoder on a CPU, at most


class TokenEditor(TokenView):
    """Edit the tokens of an image: replace them, exchange them with another image's, or mix the codes of both images.

    The methods do what the buttons do. What cannot be done is said in `message`, and nothing is changed.

    Tokens of a sequence are shown as a row. Which pixels follow the selected one is mapped, of the image as it was encoded
    (`vistok.tokens.parts.influence`), and the picture may be decoded from the first tokens alone.

    Attributes:
        image, other: numbers of the two images; `choose` changes them.
        share, to_codes: of the mixture; `interpolate` changes them.
        prefix: how many tokens of a sequence are decoded, 0 for all; `show_prefix` changes it.
        followed: of a sequence, for each of its tokens how much the picture follows it, the mean over pixels where it becomes
            the nearest code, and where it becomes random ones; NaN: not yet mapped.
        change: how the picture differs from that before any edit, in sentences.
        titles: names of the two images.
        images: how many images there are.
        offered: the code that was chosen in another view of the same images, to paint with; -1: none.
    """

    ACTS = (*TokenView.ACTS, "choose", "swap", "interpolate", "show_prefix", "map_all")
    _esm = script("errors", "tokens", "editor")
    image = traitlets.Int(0).tag(sync=True)
    other = traitlets.Int(0).tag(sync=True)
    share = traitlets.Float(0.0).tag(sync=True)
    to_codes = traitlets.Bool(False).tag(sync=True)
    change = traitlets.Unicode("").tag(sync=True)
    titles = traitlets.List(traitlets.Unicode(), ["", ""]).tag(sync=True)
    images = traitlets.Int(0).tag(sync=True)
    offered = traitlets.Int(-1).tag(sync=True)
    original = traitlets.Bytes().tag(sync=True)  # PNG, as are the next three
    before = traitlets.Bytes().tag(sync=True)  # its tokens decoded before any edit
    decoded_png = traitlets.Bytes().tag(sync=True)  # and now
    other_decoded = traitlets.Bytes().tag(sync=True)  # the other image's tokens decoded now
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)
    prefix = traitlets.Int(0).tag(sync=True)
    followed = traitlets.Bytes().tag(sync=True)  # float32 [2, N], `nearest` and `random`
    maps = traitlets.Bytes().tag(sync=True)  # float32 [2, H, W], of the first selected token

    def __init__(
        self,
        encoded: EncodedImages | Refusal,
        image: int = 0,
        other: int = 1,
        *,
        level: int = 0,
        map_influence: bool | None = None,
    ) -> None:
        """Show an image with its tokens.

        Args:
            encoded: the images, or why there are none.
            image: number of the one to edit.
            other: number of the one that tokens are exchanged or mixed with; where there is only one image, that one.
            level: of the codebooks.
            map_influence: of a sequence: map every token's influence at once, 5 pictures a token; False: a token's where it is
                selected; None: at once where that takes seconds, which is with a decoder on a GPU, or of at most 20 million
                parameters.
        """
        super().__init__()
        self._encoded = self._opened(encoded)
        if self._encoded is None:
            return
        self._maps_all = _is_fast(encoded.tokenizer.decoder) if map_influence is None else map_influence
        self._near = NearCodes(encoded.tokenizer)
        self.images, self.codebook_sizes = len(encoded), list(encoded.codebook_sizes)
        if len(encoded) == 1:
            other = 0
        try:
            self._check_image(image)
            self._check_image(other)
            check_level(level, len(self.codebook_sizes))
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

    # Done by the buttons.

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
    def swap(self) -> None:
        """Exchange the selected tokens with those at the same place of the other image."""
        now = self._edits.now
        mine, theirs = (levels[self.level].clone() for levels in (now.mine, now.theirs))
        mine[self._region], theirs[self._region] = theirs[self._region].clone(), mine[self._region].clone()
        self._do(now._replace(mine=self._with_level(now.mine, mine), theirs=self._with_level(now.theirs, theirs)))

    @answering
    def interpolate(self, share: float, to_codes: bool = False) -> None:
        """Mix the codes of all tokens with the other image's: a share of 0 is this image, 1 the other.

        Args:
            share: of the other image, in [0, 1].
            to_codes: take the nearest codes of the mixture, which alone lies between codes.
        """
        if isinstance(share, str) or not 0 <= share <= 1:
            raise ValueError(f"share is {share}, but must be in 0 to 1.")
        self._do(self._edits.now._replace(share=float(share), to_codes=bool(to_codes)), sliding=True)

    @answering
    def show_prefix(self, number: int | None) -> None:
        """Decode the first tokens of a sequence alone: so many, or all."""
        self._encoded.tokenizer.check_num_tokens(number)
        self._do(self._edits.now._replace(prefix=0 if number in (None, self.grid[1]) else int(number)), sliding=True)

    @answering
    def map_all(self) -> None:
        """Map the influence of every token of a sequence that is not yet mapped."""
        if not self.sequence:
            raise ValueError("Tokens of a grid lie where they act; influence is mapped of those of a sequence.")
        self._map(range(self.grid[1]))

    @property
    def other_tokens(self) -> np.ndarray:
        """The other image's tokens of the level now, int64 [h, w]."""
        return self._edits.now.theirs[self.level][0].numpy().copy()

    @property
    def decoded(self) -> Tensor:
        """The picture as it is decoded now, uint8 [3, H, W]."""
        return self._decoded.clone()

    @property
    def difference(self) -> Tensor:
        """How much the picture differs from that before any edit, uint8 [3, H, W]."""
        before = self._encoded.reconstructions([self.image])[0]
        return (self._decoded.int() - before.int()).abs().to(torch.uint8)

    # How it is done.

    def _asked(self, widget: Any, content: dict[str, Any], buffers: Any) -> None:
        """Do what the page asks for; a token that it selects is chosen in the other views too."""
        with self._turn:
            super()._asked(widget, content, buffers)
            if content.get("do") in ("select", "look_at"):
                self._choose_token()

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

    def _begin(self, image: int, other: int) -> None:
        self._influence: dict[tuple[int, int], Tensor] = {}  # level and token to its maps, [2, H, W]
        self._edits = Edits(Edit(self._encoded.indices([image]), self._encoded.indices([other])))
        self._shown: dict[str, Any] = {}
        with self.hold_sync():
            self.image, self.other, self.selection = image, other, [0, 0, 1, 1]
            self.titles = [self._encoded.image_names[number] for number in (image, other)]
            self.original = image_png(self._encoded.pixels([image])[0])
            self.before = image_png(self._encoded.reconstructions([image])[0])
            self._update()
        if self._is_mapped and self._maps_all:
            self._map(range(self.grid[1]))

    @property
    def _is_mapped(self) -> bool:
        """Whether tokens of the level have an influence to map: they are a sequence, and each could be another code."""
        return self.sequence and self.codebook_sizes[self.level] > 1

    def _map(self, tokens: Iterable[int]) -> None:
        """Map the influence of tokens of the level, those that are not mapped yet, and tell the page."""
        missing = [token for token in tokens if (self.level, token) not in self._influence]
        encoded, levels = self._encoded, self._edits.first.mine
        bar = progress_bar(
            total=len(missing), desc="influence", unit=" tokens", delay=2, leave=False, disable=len(missing) < 2
        )
        with bar:
            for token in missing:
                found = influence(encoded.tokenizer, levels, [token], level=self.level)
                self._influence[self.level, token] = torch.cat([found.nearest, found.random])
                bar.update(1)
        self._tell_influence()

    def _tell_influence(self) -> None:
        known = [self._influence.get((self.level, token)) for token in range(self.grid[1])]
        means = [[math.nan] * 2 if maps is None else maps.mean((1, 2)).tolist() for maps in known]
        chosen = known[self.selection[1]]
        with self.hold_sync():
            self.followed = np.array(means, "<f4").T.tobytes()
            self.maps = b"" if chosen is None else chosen.numpy().astype("<f4").tobytes()

    def _take_other(self, other: int) -> None:
        """Put another image beside this one, now and in all that can be undone."""
        self._edits.with_other(self._encoded.indices([other]))
        with self.hold_sync():
            self.other, self.titles = other, [self.titles[0], self._encoded.image_names[other]]
            self._update()

    def _is_new(self, name: str, state: tuple[Any, ...]) -> bool:
        """Return whether a picture has to be made anew: it was last made of other tokens or numbers."""
        last, self._shown[name] = self._shown.get(name), state
        pairs = zip(last or (), state, strict=last is not None)
        return last is None or any(a is not b and (isinstance(a, tuple) or a != b) for a, b in pairs)

    def _update(self) -> None:
        edit = self._edits.now
        if self._is_new("mine", tuple(edit)):
            self._decoded = self._decode(edit)
        if self._is_new("theirs", (edit.theirs,)):
            self._other_decoded = self._decode(Edit(edit.theirs))
        with self.hold_sync():
            self.share, self.to_codes, self.prefix = edit.share, edit.to_codes, edit.prefix
            self.decoded_png, self.other_decoded = image_png(self._decoded), image_png(self._other_decoded)
            self._tell_tokens()
            if self.sequence:
                self._map([self.selection[1]] if self._is_mapped else [])
            self.change = self._describe_change()
            self.description = self._describe()

    def _decode(self, edit: Edit) -> Tensor:
        """Return the picture of an edit, uint8 [3, H, W]."""
        mine, theirs = (
            tuple(level[..., : edit.prefix or None] for level in levels) for levels in (edit.mine, edit.theirs)
        )
        if 0 < edit.share < 1:
            mixed = interpolate(self._encoded.tokenizer, mine, theirs, edit.share, to_codes=edit.to_codes)
        else:
            mixed = self._encoded.decode(theirs if edit.share else mine)
        return to_uint8(mixed)[0].cpu()

    def _edited_pixels(self) -> np.ndarray:
        """Return which pixels lie in tokens, of any level, that are not the encoder's; bool [H, W]."""
        size = self._decoded.shape[1:]
        pixels = np.zeros(tuple(size), dtype=bool)
        for now, then in zip(self._edits.now.mine, self._edits.first.mine, strict=True):
            changed = (now != then).float()[None]
            pixels |= torch.nn.functional.interpolate(changed, tuple(size), mode="nearest")[0, 0].numpy() > 0
        return pixels

    def _describe_change(self) -> str:
        """Return how the picture differs from that before any edit, and how far from the edited tokens."""
        edit, number = self._edits.now, self._num_edited()
        parts = [f"{_tokens(number)} not as encoded." if number else "All tokens are as encoded."]
        if edit.share:
            snapped = ", snapped to codes" if edit.to_codes else ""
            parts.append(f"All codes are mixed with image {self.other}'s, a share of {edit.share:.2f}{snapped}.")
        if edit.prefix:
            parts.append(f"Decoded are the first {edit.prefix} of {self.grid[1]} tokens.")
        largest = self.difference.amax(0).numpy()  # [H, W]
        changed = largest > 1
        if not largest.any():
            return " ".join([*parts, "No pixel differs from the image decoded before any edit."])
        parts.append(
            f"{changed.sum():,} of {changed.size:,} pixels changed by more than 1/255, at most by {largest.max()}/255."
        )
        if number and changed.any() and not edit.share and not self.sequence:
            distances = ndimage.distance_transform_cdt(~self._edited_pixels(), metric="chessboard")
            farthest = distances[changed].max() * self.grid[0] / changed.shape[0]
            parts.append(
                f"The farthest of them lies {farthest:.2f} tokens from the edited ones (across or down, whichever is more)."
            )
        return " ".join(parts)

    def _describe(self) -> str:
        names = self._encoded.image_names
        level = f" of level {self.level}" if len(self.codebook_sizes) > 1 else ""
        near = ", ".join(map(str, self.near[1:]))
        verb = "is" if self._selected().startswith("token ") else "are"
        shape = f"a sequence of {self.grid[1]} tokens" if self.sequence else f"{self.grid[0]} x {self.grid[1]} tokens"
        return (
            f"Image {self.image}, {names[self.image]}, as {shape}{level} of {self._encoded.title}, and what they decode to; "
            f"the other image is {self.other}, {names[self.other]}. Selected {verb} {self._selected()}; the first token there "
            f"is code {self.near[0]}, and the codes nearest to it are {near}. {self.change}{self._describe_influence()}"
        )

    def _describe_influence(self) -> str:
        """Return which pixels follow the first selected token of a sequence, in a sentence; empty: of a grid."""
        maps = self._influence.get((self.level, self.selection[1]))
        if not self.sequence or maps is None:
            return ""
        nearest, random = (float(100 * of.mean()) for of in maps)
        order = maps[1].flatten().sort(descending=True).values
        total = float(order.sum())
        half = int((order.cumsum(0) < total / 2).sum()) + 1 if total else 0
        return (
            f" As encoded, token {self.selection[1]} moves a pixel by {nearest:.2f}% of the range where it becomes the nearest "
            f"code, and by {random:.2f}% where it becomes a random one; half of that falls on {half / len(order):.0%} of the "
            "pixels."
        )

    def figure(self) -> Figure | None:
        """Return the decoded image with its grid and selection, and beside it what else the widget shows."""
        if self._encoded is None:
            return None
        encoded = self._encoded
        before = encoded.reconstructions([self.image])[0]
        rows = -(-len(self._influence) // MAPS_A_ROW)
        figure = plt.figure(figsize=(10, 6.2 + 0.8 * rows + 0.4 * bool(rows)), dpi=DPI, layout="constrained")
        heights = (5, 1.2, 0.8 * rows + 0.4) if rows else (5, 1.2)
        above, below, *lowest = figure.subfigures(len(heights), 1, height_ratios=heights)
        if lowest:
            self._draw_influence(lowest[0], rows)
        axes = above.subplot_mosaic([["now", "now", "a", "b"], ["now", "now", "c", "d"]])
        draw_picture(axes["now"], self._decoded, f"image {self.image}, {encoded.image_names[self.image]}: decoded now")
        self._draw_grid(axes["now"], *self._decoded.shape[1:])
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
            f"code of the selected {self._selected()}, and those nearest to it, each as all tokens of the sequence"
            if self.sequence
            else "code of the first selected token, and the codes nearest to it with their distances",
            fontsize=10,
        )
        above.supxlabel(textwrap.fill(self.change, 105), fontsize=9)
        return figure

    def _draw_influence(self, figure: SubFigure, rows: int) -> None:
        """Draw the maps of the tokens that are mapped, random codes in place of each; all have one scale."""
        known = sorted((token, maps) for (level, token), maps in self._influence.items() if level == self.level)
        most = max((float(maps[1].max()) for _, maps in known), default=0.0) or 1.0
        axes = figure.subplots(rows, MAPS_A_ROW, squeeze=False).flat
        colours = plt.get_cmap("cividis", 16)  # in steps: at this size as plain, in a file of half the size
        for axis, (token, maps) in zip(axes, known, strict=False):
            axis.imshow(maps[1].numpy(), cmap=colours, vmin=0, vmax=most)
            axis.set(xticks=[], yticks=[])
            axis.set_title(str(token), fontsize=8, pad=2)
        for axis in figure.axes[len(known) :]:
            axis.remove()
        figure.suptitle(
            f"which pixels follow each token, as encoded: mean change to random codes, colours 0 to {most:.2g}",
            fontsize=10,
        )


def _is_fast(decoder: nn.Module) -> bool:
    """Return whether a decoder paints hundreds of pictures in seconds."""
    parameters = list(decoder.parameters())
    return parameters[0].device.type != "cpu" or sum(map(torch.numel, parameters)) <= MAPPED_AT_ONCE


def _tokens(number: int) -> str:
    return "1 token is" if number == 1 else f"{number:,} tokens are"
