"""Shared by the views of a whole codebook: its level, how often each code is chosen, and the code that all views look at."""

import math
from typing import Any

import numpy as np
import traitlets

from vistok.tokens.codebook import similarity_order
from vistok.tokens.encoded import EncodedImages
from vistok.widgets.view import Refusal, View, answering, check_level


class CodebookView(View):
    """Base of the views of a whole codebook, whose map puts similar codes side by side.

    The level, the chosen code and the codes selected together are those of all views of the same images (`encoded.choice`).

    Attributes:
        encoded: the images that are looked into, or None.
        level: number of the codebook, where the quantizer has several.
        selected: the chosen code; -1: none.
        marked: uint32, the codes selected together, as bytes.
    """

    name = traitlets.Unicode("").tag(sync=True)
    sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    level = traitlets.Int(0).tag(sync=True)
    counts = traitlets.Bytes(b"").tag(sync=True)  # uint32 [K]
    similar = traitlets.Bytes(b"").tag(sync=True)  # uint32 [K], the code of each cell in the order of similarity
    columns = traitlets.Int(1).tag(sync=True)
    sequence = traitlets.Bool(False).tag(sync=True)  # tokens are one: a code has no patch
    selected = traitlets.Int(-1).tag(sync=True)
    marked = traitlets.Bytes(b"").tag(sync=True)

    def _open(self, encoded: EncodedImages | Refusal) -> bool:
        """Take the images to look into; return whether there are any."""
        self.encoded = self._opened(encoded)
        if self.encoded is not None:
            self._turn = encoded.choice.turn
            self.name, self.sizes = encoded.title, list(encoded.codebook_sizes)
            self.sequence = encoded.tokenizer.is_sequence
        return self.encoded is not None

    @answering
    def _on_level(self, change: Any) -> None:
        try:
            check_level(change.new, len(self.sizes))
        except ValueError:
            self.level = change.old
            raise
        if change.new != self.encoded.choice.chosen.level:
            self.encoded.choice.choose(level=change.new)  # it comes back as `_show`, here and in the other views

    def _read_codebook(self) -> None:
        """Set what the map shows of the level's codes, in the caller's `hold_sync`."""
        self._codebook = self.encoded.tokenizer.quantizer.codebooks[self.level].detach().float().cpu()
        self.columns = math.ceil(math.sqrt(self.sizes[self.level]))
        self._order = similarity_order(self._codebook, self.columns)
        self.counts = self.encoded.counts(self.level).numpy().astype("<u4").tobytes()
        self.similar = self._order.numpy().astype("<u4").tobytes()

    def _mark(self, codes: tuple[int, ...]) -> None:
        self.marked = np.asarray(codes, "<u4").tobytes()
