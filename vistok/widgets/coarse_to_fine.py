"""`CoarseToFine`: what the first tokens of a sequence, or the first scales, already show of an image."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from vistok.images import psnr, to_uint8
from vistok.plots import DPI
from vistok.tokens.encoded import EncodedImages
from vistok.tokens.parts import Step, coarse_to_fine
from vistok.widgets.reconstructions import ERROR_SCALE, decibels, draw_picture, error_map
from vistok.widgets.view import Refusal, View, image_png, script, strip_png

COLUMNS = 6  # pictures a row of the figure


class CoarseToFine(View):
    """An image as it is decoded from more and more of its tokens: 1, 2, 4, ... of a sequence, or scale by scale.

    A sequence is decoded from its beginning whatever it was trained for: a tokenizer that never dropped tokens in training was
    never asked for such pictures. Of tokens of one grid there is no coarser picture, and `message` says so.

    Attributes:
        image: number of the image that is shown; may be set.
        step: number of the part that is shown large; may be set.
        names: of the images.
        steps: what each part is called.
        num_tokens: tokens up to there, of each part.
        psnr: of each part's picture in dB; None where nothing differs.
    """

    _esm = script("errors", "coarse_to_fine")
    image = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    steps = traitlets.List(traitlets.Unicode()).tag(sync=True)
    num_tokens = traitlets.List(traitlets.Int()).tag(sync=True)
    psnr = traitlets.List(traitlets.Float(allow_none=True)).tag(sync=True)
    original = traitlets.Bytes().tag(sync=True)  # PNG
    pictures = traitlets.Bytes().tag(sync=True)  # PNG of all parts' pictures in a row
    error_scale = traitlets.Float(ERROR_SCALE).tag(sync=True)

    def __init__(self, encoded: EncodedImages | Refusal, image: int = 0) -> None:
        """Decode an image part by part.

        Args:
            encoded: images and their tokens (`open_encoded`), or why there are none.
            image: number of the image to begin with.
        """
        super().__init__()
        self._encoded = self._opened(encoded)
        if self._encoded is None:
            return
        try:
            self._parts = self._steps_of(0)
        except ValueError as error:
            self._encoded = None
            self._refuse(Refusal(str(error)))
            return
        self.names = encoded.image_names
        self.image = image
        self._show()

    def _steps_of(self, image: int) -> list[Step]:
        return coarse_to_fine(self._encoded.tokenizer, self._encoded.indices([image]))

    @traitlets.validate("image")
    def _known(self, proposal: Any) -> int:
        return self._known_number(proposal, len(self.names))

    @traitlets.validate("step")
    def _known_step(self, proposal: Any) -> int:
        return self._known_number(proposal, len(self.steps))

    @traitlets.observe("image")
    def _show(self, change: Any = None) -> None:
        if self._encoded is None or not self.names:
            return
        with self._turn, self.hold_sync():
            said = self.message  # a step that is chosen here would take it away
            self._parts = self._steps_of(self.image)
            self._pictures = to_uint8(torch.stack([part.image for part in self._parts]))  # [n, 3, H, W]
            original = self._original()
            values = psnr(original.expand_as(self._pictures), self._pictures).tolist()
            self.psnr = [value if math.isfinite(value) else None for value in values]
            self.steps = [part.name for part in self._parts]
            self.num_tokens = [part.num_tokens for part in self._parts]
            self.step = min(self.step, len(self.steps) - 1) if change else len(self.steps) - 1
            self.original, self.pictures = image_png(original[0]), strip_png(self._pictures)
            self.message, self.description = said, self._describe()

    def _original(self) -> Tensor:
        return self._encoded.pixels([self.image])

    def _describe(self) -> str:
        parts = zip(self.steps, self.num_tokens, self.psnr, strict=True)
        told = "; ".join(f"{name} ({number:,} in all): {_decibels(value)}" for name, number, value in parts)
        return (
            f"Image {self.image}, {self.names[self.image]}, as {self._encoded.title} decodes it from more and more of its "
            f"tokens, and PSNR. {told}."
        )

    def figure(self) -> Figure | None:
        """Return the original and the picture after each part, in rows, and below PSNR over the number of tokens."""
        if self._encoded is None:
            return None
        rows = -(-(len(self.steps) + 1) // COLUMNS)
        figure = plt.figure(figsize=(10, 1.95 * rows + 2.4), dpi=DPI, layout="constrained")
        above, below = figure.subfigures(2, 1, height_ratios=(1.95 * rows, 2.4))
        axes = list(above.subplots(rows, COLUMNS, squeeze=False).flat)
        draw_picture(axes[0], self._original()[0], f"image {self.image}, original", size=9)
        for axis, picture, name, value in zip(axes[1:], self._pictures, self.steps, self.psnr, strict=False):
            draw_picture(axis, picture, f"{name}\n{_decibels(value)}", size=9)
        for axis in axes[len(self.steps) + 1 :]:
            axis.remove()
        axis, last = below.subplots(1, 2, width_ratios=(3, 1))
        axis.plot(self.num_tokens, [math.nan if value is None else value for value in self.psnr], "o-")
        axis.set(xlabel="tokens", ylabel="PSNR, dB", xscale="log", xticks=self.num_tokens)
        axis.set_xticklabels(map(str, self.num_tokens), fontsize=8)
        axis.minorticks_off()
        error = error_map(self._original()[0], self._pictures[-1])
        draw_picture(last, error, f"error of the last, 0 to {ERROR_SCALE:g}", size=9)
        return figure


def _decibels(value: float | None) -> str:
    return decibels(np.inf if value is None else value)
