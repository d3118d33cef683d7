"""`PlaceExplorer`: which codes appear at which place of the grid."""

from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from vistok import plots
from vistok.tokens.codebook import decode_alone
from vistok.tokens.encoded import Chosen, EncodedImages
from vistok.widgets.view import Refusal, View, answering, check_level, script, strip_png

SHOWN_CODES = 10


class PlaceExplorer(View):
    """The grid of tokens, coloured by how many codes share each place; a chosen place names its most frequent codes.

    Beside it stands where the code or codes appear that are chosen in any view of the same images (`encoded.choice`).

    Attributes:
        encoded: the images that are looked into, or None.
        level: number of the codebook, where the quantizer has several.
        selected: the chosen place, row * w + column.
    """

    _esm = script("cellmap", "places")
    grid = traitlets.List([0, 0]).tag(sync=True)
    perplexity = traitlets.Bytes(b"").tag(sync=True)  # float32 [h, w]
    codes = traitlets.Bytes(b"").tag(sync=True)  # int32 [h, w, n], -1 where there are fewer
    counts = traitlets.Bytes(b"").tag(sync=True)  # uint32 [h, w, n]
    num_images = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    tiles = traitlets.Bytes(b"").tag(sync=True)  # the chosen place's codes decoded alone, a strip as PNG
    where = traitlets.Bytes(b"").tag(sync=True)  # uint32 [h, w], images with a chosen code there; empty: none is chosen
    sequence = traitlets.Bool(False).tag(sync=True)  # places are positions in one, not of the image
    whose = traitlets.Unicode("").tag(sync=True)  # the chosen codes, in words
    level = traitlets.Int(0).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, *, level: int = 0) -> None:
        """Show the places of a grid.

        Args:
            encoded: images and their tokens (`open_encoded`), or why there are none.
            level: of the quantizer's codebooks, where it has several.
        """
        super().__init__()
        self.encoded = self._opened(encoded)
        if self.encoded is None:
            return
        try:
            check_level(level, len(encoded.tokens))
        except ValueError as error:
            self.encoded = None
            self._refuse(Refusal(str(error)))
            return
        self._turn, self.sequence = encoded.choice.turn, encoded.tokenizer.is_sequence
        self._show_level(level)
        self._show_where(encoded.choice.chosen)
        self.observe(lambda change: self._show_tiles(), names="selected")
        self.on_msg(self._on_message)
        encoded.choice.observe(lambda change: self._follow(change.new), names="chosen")

    def _show_level(self, level: int) -> None:
        encoded = self.encoded
        self._codes, self._counts, self._perplexity = encoded.codes_by_place(SHOWN_CODES, level)
        perplexity = self._perplexity
        row, column = np.unravel_index(perplexity.argmin(), perplexity.shape)
        with self.hold_sync():
            self.level, self.grid, self.num_images = level, list(perplexity.shape), len(encoded)
            self.perplexity = perplexity.astype("<f4").tobytes()
            self.codes = self._codes.astype("<i4").tobytes()
            self.counts = self._counts.astype("<u4").tobytes()
            self.selected = int(perplexity.argmin())
            self._show_tiles()
        of_level = f" of level {level}" if len(encoded.tokens) > 1 else ""
        places = f"{perplexity.shape[1]} tokens" if self.sequence else f"{'x'.join(map(str, perplexity.shape))} places"
        self._summary = (
            f"The perplexity of the codes{of_level} at each of the {places} over {len(encoded):,} images lies between "
            f"{perplexity.min():.0f} and {perplexity.max():.0f}; the lowest is at {self._named(row, column)}, where code "
            f"{self._codes[row, column, 0]} is the most frequent ({self._counts[row, column, 0]:,} images)."
        )
        if self.sequence:
            self._summary += (
                " Tokens are a sequence: these are positions in it, and none of them is a place of the image."
            )

    def _named(self, row: int, column: int) -> str:
        """Return what sentences call a place."""
        return f"token {column}" if self.sequence else f"row {row}, column {column}"

    def _follow(self, chosen: Chosen) -> None:
        if chosen.level != self.level:
            self._show_level(chosen.level)
        self._show_where(chosen)

    def _show_where(self, chosen: Chosen) -> None:
        """Show where the codes selected together appear, or else the one that is chosen."""
        codes = chosen.codes or ((chosen.code,) if chosen.code >= 0 else ())
        if chosen.level != self.level or not codes:
            self.where, self.whose, self.description = b"", "", self._summary
            return
        grid = self.encoded.grid_counts(codes if len(codes) > 1 else codes[0], self.level)
        row, column = np.unravel_index(grid.argmax(), grid.shape)
        whose = f"code {codes[0]}" if len(codes) == 1 else f"any of the {len(codes):,} selected codes"
        found = f"most often at {self._named(row, column)} ({grid.max():,} images)" if grid.any() else "nowhere"
        with self.hold_sync():
            self.where, self.whose = grid.astype("<u4").tobytes(), whose
            self.description = f"{self._summary} {whose[0].upper()}{whose[1:]} appears {found}."

    def _on_message(self, widget: object, content: dict[str, Any], buffers: object) -> None:
        if content.get("do") == "choose":
            self._choose(content["code"])

    @answering
    def _choose(self, code: int) -> None:
        self.encoded.choice.choose(code, codes=(), level=self.level)

    @answering
    def _show_tiles(self) -> None:
        places = self.grid[0] * self.grid[1]
        if not 0 <= self.selected < places:
            raise ValueError(f"There is no place {self.selected}: places are 0 to {places - 1}.")
        here = torch.from_numpy(self._codes.reshape(places, -1)[self.selected])
        self.tiles = strip_png(torch.cat(list(decode_alone(self.encoded.tokenizer, here[here >= 0], level=self.level))))

    def figure(self) -> Figure | None:
        if self.encoded is None:
            return None
        return plots.places(self._perplexity, self.sequence)
