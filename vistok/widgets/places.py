"""`PlaceExplorer`: which codes appear at which place of the grid."""

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure

from vistok import plots
from vistok.codebook import decode_alone
from vistok.encoded import EncodedImages
from vistok.widgets.view import Refusal, View, answering, script, strip_png

SHOWN_CODES = 10


class PlaceExplorer(View):
    """The grid of tokens, coloured by how many codes share each place; a chosen place names its most frequent codes.

    Attributes:
        encoded: what is looked into, or None.
        selected: the chosen place, row * w + column.
        tiles: its most frequent codes decoded alone, a strip as PNG.
    """

    _esm = script("cellmap", "places")
    grid = traitlets.List([0, 0]).tag(sync=True)
    perplexity = traitlets.Bytes(b"").tag(sync=True)  # float32 [h, w]
    codes = traitlets.Bytes(b"").tag(sync=True)  # int32 [h, w, n], -1 where there are fewer
    counts = traitlets.Bytes(b"").tag(sync=True)  # uint32 [h, w, n]
    num_images = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    tiles = traitlets.Bytes(b"").tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, *, level: int = 0) -> None:
        """Show the places of a grid.

        Args:
            encoded: images and their tokens (`open_encoded`), or why there are none.
            level: of the quantizer's codebooks, where it has several.
        """
        super().__init__()
        self.encoded = None if isinstance(encoded, Refusal) else encoded
        if self.encoded is None:
            self._refuse(encoded)
            return
        if not 0 <= level < (levels := len(encoded.tokens)):
            self.encoded = None
            self._refuse(Refusal(f"There is no level {level}: levels are 0 to {levels - 1}."))
            return
        self._level = level
        self._codes, self._counts, perplexity = encoded.codes_by_place(SHOWN_CODES, level)
        self.grid, self.num_images = list(perplexity.shape), len(encoded)
        self._perplexity = perplexity
        with self.hold_sync():
            self.perplexity = perplexity.astype("<f4").tobytes()
            self.codes = self._codes.astype("<i4").tobytes()
            self.counts = self._counts.astype("<u4").tobytes()
        row, column = np.unravel_index(perplexity.argmin(), perplexity.shape)
        self.description = (
            f"The perplexity of the codes at each of the {perplexity.shape[0]}x{perplexity.shape[1]} places over "
            f"{len(encoded):,} images lies between {perplexity.min():.0f} and {perplexity.max():.0f}; the lowest is at row "
            f"{row}, column {column}, where code {self._codes[row, column, 0]} is the most frequent "
            f"({self._counts[row, column, 0]:,} images)."
        )
        self.observe(self._on_selected, names="selected")
        self.selected = int(perplexity.argmin())
        self._show_tiles()

    def _on_selected(self, change: object) -> None:
        self._show_tiles()

    @answering
    def _show_tiles(self) -> None:
        places = self.grid[0] * self.grid[1]
        if not 0 <= self.selected < places:
            raise ValueError(f"There is no place {self.selected}: places are 0 to {places - 1}.")
        here = torch.from_numpy(self._codes.reshape(places, -1)[self.selected])
        self.tiles = strip_png(
            torch.cat(list(decode_alone(self.encoded.tokenizer, here[here >= 0], level=self._level)))
        )

    def figure(self) -> Figure | None:
        if self.encoded is None:
            return None
        return plots.places(self._perplexity)
