"""`CodebookExplorer`: every code of a codebook on one map, and what images make of the one that is chosen."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from vistok import plots
from vistok.images import poster
from vistok.system.files import say
from vistok.system.weights import first_line
from vistok.tokens.codebook import decode_alone, nearest_codes
from vistok.tokens.encoded import QUEUE_SIZE, Chosen, EncodedImages
from vistok.widgets.codebookview import CodebookView
from vistok.widgets.view import Refusal, answering, image_png, script, smaller, strip_png

SHOWN_PATCHES = 12
SHOWN_IMAGES = 4
SHOWN_NEAREST = 8
LARGEST_ATLAS = 4096  # pixels a side, of what a page is given; the poster in a file has no limit


class CodebookExplorer(CodebookView):
    """A map of all codes, coloured by how often images use them; a chosen code shows where, and what it paints.

    The map sorts codes by index, by count or by similarity (first two principal components), zooms until every code is a
    cell, and can show each code decoded alone in place of the colour: the atlas. Beside it stand the codes' frequencies and
    how usage grows with the number of tokens that were seen.

    Attributes:
        detail: what is shown of the chosen code: numbers, and pictures as PNG.
        decoded: its patches as the decoder paints them in their images; comes after `detail`, for it takes longer.
    """

    _esm = script("cellmap", "curves", "explorer")
    curve = traitlets.Dict({}).tag(sync=True)  # the fields of `UsageCurve`, float32 each
    atlas = traitlets.Bytes(b"").tag(sync=True, saved=False)  # PNG, all codes decoded alone by index, `columns` a row
    tile = traitlets.Int(1).tag(sync=True)  # pixels a code in `atlas`
    decoding = traitlets.Bool(False).tag(sync=True)  # the atlas is being made
    detail = traitlets.Dict({}).tag(sync=True)
    decoded = traitlets.Dict({}).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, *, selected: int | None = None, seed: int = 0) -> None:
        """Show a codebook.

        Args:
            encoded: images and their tokens (`open_encoded`), or why there are none.
            selected: the code to begin with; None: the one that other views chose, or else the one that is used most.
            seed: of the random sample of patches.
        """
        super().__init__()
        self._seed = seed
        self._tiles: dict[int, Tensor] = {}
        self._shown_level = -1
        if not self._open(encoded):
            return
        self._show(encoded.choice.chosen, selected)
        if selected is not None or encoded.choice.chosen.code < 0:
            self._select(self.selected if selected is None else selected)
        self.observe(self._on_level, names="level")
        self.observe(lambda change: self._select(change.new), names="selected")
        self.on_msg(self._on_message)
        encoded.choice.observe(lambda change: self._show(change.new), names="chosen")

    # The whole codebook.

    @answering
    def _show(self, chosen: Chosen, code: int | None = None) -> None:
        """Show what is chosen; where no code is, the one that is used most."""
        if chosen.level != self._shown_level:  # `level` is there already where the page asked for it
            self.level = self._shown_level = chosen.level
            self._show_level()
        self._mark(chosen.codes)
        if code is None:
            code = chosen.code if chosen.code >= 0 else int(self.encoded.counts(self.level).argmax())
        self._look(code)

    def _show_level(self) -> None:
        curve = self.encoded.usage_curve(self.level)._asdict()
        with self.hold_sync():
            self._read_codebook()
            self.curve = {name: np.asarray(part, "<f4").tobytes() for name, part in curve.items()}
            self.atlas = b""
        self._describe()

    def _describe(self) -> None:
        usage = self.encoded.usage(self.level)
        size, counts = self.sizes[self.level], self.encoded.counts(self.level)
        total = int(counts.sum())
        queue = f"; of the last {QUEUE_SIZE:,} tokens alone {usage['usage_queue']:.1%}" if total > QUEUE_SIZE else ""
        self.description = (
            f"{int((counts > 0).sum()):,} of {size:,} codes are used ({usage['usage']:.1%}) by {total:,} tokens of "
            f"{len(self.encoded):,} images{queue}. Perplexity {usage['perplexity']:.0f}. The most frequent code, "
            f"{int(counts.argmax())}, has {int(counts.max()):,} tokens."
        )
        if self.sequence:
            self.description += (
                f" Tokens are a sequence of {self.encoded.tokens[self.level].shape[2]} and lie nowhere in the image, so that a "
                "code has no patch. Decoded alone it stands for all tokens of a sequence, and its tile is the whole picture, "
                "made small, which is of no image; what a token does in an image, TokenEditor maps."
            )

    def tiles(self) -> Tensor:
        """Return every code of the level decoded alone, uint8 [K, 3, p, p]; computed once."""
        if self.level not in self._tiles:
            codes = torch.arange(self.sizes[self.level])
            self._tiles[self.level] = torch.cat(list(decode_alone(self.encoded.tokenizer, codes, level=self.level)))
        return self._tiles[self.level]

    def poster(self, order: str = "similarity") -> Tensor:
        """Return the atlas: every code decoded alone, as one picture.

        Args:
            order: "index", "count" (most used first) or "similarity".

        Returns:
            uint8 [H, W, 3].

        Raises:
            ValueError: there is no such order.
        """
        orders = {
            "index": None,
            "count": self.encoded.counts(self.level).argsort(descending=True, stable=True),
            "similarity": self._order,
        }
        if order not in orders:
            raise ValueError(f"order is {order!r}, but must be one of {', '.join(orders)}.")
        return poster(self.tiles(), self.columns, orders[order])

    @answering
    def show_atlas(self) -> None:
        """Decode every code alone and hand the atlas to the page; where that fails, say why."""
        if self.atlas:
            return
        self.message = f"Decoding {self.sizes[self.level]:,} codes …"
        self.decoding = True
        try:
            tiles = self._page_tiles()
            with self.hold_sync():
                self.tile = tiles.shape[2]
                self.atlas = image_png(poster(tiles, self.columns).permute(2, 0, 1))
        except Exception as error:  # whatever it is: the page waits for an answer
            raise ValueError(f"The codes could not be decoded. {type(error).__name__}: {first_line(error)}.") from error
        finally:
            self.decoding = False

    def _page_tiles(self) -> Tensor:
        """Return `tiles` no larger than a page is given; made smaller part by part: as floats all take a GB at K = 262,144."""
        side = max(1, LARGEST_ATLAS // self.columns)
        if self.encoded.tokenizer.downsample_factor <= side:
            return self.tiles()
        codes = torch.arange(self.sizes[self.level])
        parts = decode_alone(self.encoded.tokenizer, codes, level=self.level)
        return torch.cat([smaller(part, side) for part in parts])

    def _on_message(self, widget: object, content: dict[str, Any], buffers: object) -> None:
        if content.get("do") == "atlas":
            self.show_atlas()
        elif content.get("do") == "sample":
            self.another_sample()

    # One code.

    def select(self, code: int) -> None:
        """Choose a code; of one that there is not the message says so."""
        self.selected = code

    @answering
    def _select(self, code: int) -> None:
        self._look(code)
        chosen = self.encoded.choice.chosen
        if (chosen.level, chosen.code) != (self.level, code):
            self.encoded.choice.choose(code, level=self.level)  # last: the view that was clicked answers first

    def _look(self, code: int) -> None:
        if code != self.detail.get("code") or self.level != self.detail.get("level"):
            self._show_code(code, self.encoded.places(code, self.level))  # refuses an unknown code

    @answering
    def another_sample(self) -> None:
        """Draw another random sample of the chosen code's patches."""
        self._seed += 1
        code = self.detail["code"]
        self._show_code(code, self.encoded.places(code, self.level))

    def _show_code(self, code: int, places: np.ndarray) -> None:
        detail = self._look_at(code, places)
        with self.hold_sync():
            self.detail, self.selected = detail, code
        if len(places) and not self.sequence:
            patches = self.encoded.patches(self._shown, self.level, decoded=True)
            self.decoded = {"code": code, "level": self.level, "patches": strip_png(patches)}

    def _look_at(self, code: int, places: np.ndarray) -> dict[str, Any]:
        """Return numbers and pictures of a code, without running the decoder on whole images."""
        encoded, level = self.encoded, self.level
        counts = encoded.counts(level)
        images, times = encoded.most_using(code, SHOWN_IMAGES, level)
        rng = np.random.default_rng([self._seed, code])
        first = _in_turns(places, images, SHOWN_PATCHES)
        drawn = places[np.sort(rng.choice(len(places), min(SHOWN_PATCHES, len(places)), replace=False))]
        self._shown = np.concatenate([first, drawn])
        near, distances = nearest_codes(self._codebook, code, SHOWN_NEAREST)
        codes = torch.cat([near.new_tensor([code]), near])
        decoded_alone = torch.cat(list(decode_alone(encoded.tokenizer, codes, level=level)))
        h, w = encoded.tokens[level].shape[1:]
        return {
            "code": code,
            "level": level,
            "count": int(counts[code]),
            "share": float(counts[code] / counts.sum()),
            "rank": int((counts > counts[code]).sum()) + 1,
            "nearest": near.tolist(),
            "distances": [round(value, 4) for value in distances.tolist()],
            "alone": strip_png(decoded_alone),
            "grid": [h, w],
            "grid_counts": encoded.grid_counts(code, level).astype("<u4").tobytes(),
            "images": strip_png(encoded.pixels(images)) if len(images) else b"",
            "image_names": [
                f"{encoded.image_names[i]} (image {i}): {n} times" for i, n in zip(images, times, strict=True)
            ],
            "image_places": [places[places[:, 0] == image, 1:].tolist() for image in images],
            "patches": strip_png(encoded.patches(self._shown, level)) if len(places) and not self.sequence else b"",
            "patch_places": self._shown.tolist(),
            "num_first": len(first),
        }

    def figure(self) -> Figure | None:
        if self.encoded is None:
            return None
        counts = self.encoded.counts(self.level)
        patches = [None, None]
        code = self.detail.get("code", -1)
        if code >= 0 and len(self.encoded.places(code, self.level)) and not self.sequence:
            patches = [self.encoded.patches(self._shown, self.level, decoded=decoded) for decoded in (False, True)]
        curve = self.encoded.usage_curve(self.level)
        return plots.codebook_overview(counts, self._order, self.columns, curve, QUEUE_SIZE, code, *patches)

    def show_poster(self, order: str = "similarity") -> None:
        """Show the atlas in the notebook, each code as one square of the same size; where there is nothing to show, say why."""
        if self.encoded is None:
            say(self.message)
            return
        picture = self.poster(order)
        figure = plt.figure(figsize=(5.5, 5.5 * picture.shape[0] / picture.shape[1]), dpi=plots.DPI)
        axis = figure.add_axes((0, 0, 1, 1))
        axis.imshow(picture.numpy(), interpolation="nearest")
        axis.set_axis_off()
        plots.show_photographs(figure)


def show_maps(*several: EncodedImages | Refusal) -> None:
    """Show the maps of codebooks side by side, codes by index; of what could not be opened, say why."""
    opened = [encoded for encoded in several if not isinstance(encoded, Refusal)]
    for refusal in (encoded for encoded in several if isinstance(encoded, Refusal)):
        say(refusal.sentence)
    if not opened:
        return
    figure, axes = plt.subplots(1, len(opened), figsize=(4.8 * len(opened), 4.4), dpi=plots.DPI, squeeze=False)
    for axis, encoded in zip(axes[0], opened, strict=True):
        counts = encoded.counts()
        plots.draw_code_map(axis, counts, math.ceil(math.sqrt(len(counts))))
        axis.set_title(f"{encoded.title}\n{axis.get_title()}", fontsize=9, parse_math=False)
    figure.tight_layout()
    plots.show(figure)


def _in_turns(places: np.ndarray, images: np.ndarray, number: int) -> np.ndarray:
    """Return up to `number` places in some images: the first of each image, then the second of each, and so on."""
    own = [places[places[:, 0] == image] for image in images]
    turns = [part[turn] for turn in range(max(map(len, own), default=0)) for part in own if turn < len(part)]
    return np.array(turns[:number], dtype=np.int64).reshape(-1, 3)
