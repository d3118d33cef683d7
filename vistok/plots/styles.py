"""Colours, dashes and markers that readers tell apart, and small parts of several figures."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from vistok.images import to_unit
from vistok.plots.figures import SMALL

# Okabe and Ito's hues, told apart by colour-blind readers too, some darkened: those of `LINES` in widgets/js/common.js.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87f00", "#1f8fd0", "#767676", "#8f8400")
_DASHES = ("-", "--", ":", "-.")  # four lines each
_MARKERS = "osD^v<>phX*"


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dashes of a figure's line, counted from 0; no two of 16 are alike."""
    return {"color": COLOURS[number % len(COLOURS)], "ls": _DASHES[number // 4 % len(_DASHES)]}


def point_style(number: int) -> dict[str, Any]:
    """Return colour and marker of a figure's points, counted from 0."""
    return {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[number % len(_MARKERS)], "ls": ""}


def legend_beside(axis: Axes) -> None:
    """Put the legend to the right of a plot."""
    handles = axis.get_legend_handles_labels()
    axis.legend(*handles, fontsize=SMALL, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.02))


def legend_below(figure: Figure, axis: Axes) -> None:
    """Put the legend of one of a figure's plots below all of them, in as many columns as there is room for."""
    handles, names = axis.get_legend_handles_labels()
    columns = max(1, 110 // (max(map(len, names), default=0) + 8))
    legend = figure.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run may be called anything


def to_pixels(image: Tensor) -> np.ndarray:
    """Return what matplotlib draws of an image, float [3, H, W] in [-1, 1]: [H, W, 3] in [0, 1]."""
    return to_unit(image).permute(1, 2, 0).cpu().numpy()
