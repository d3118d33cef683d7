"""Figures of the notebooks; each function returns a matplotlib figure, and `show` puts it on the page.

They are drawn in black on white; `figures.py` shows and saves them so that they are readable anywhere.
"""

from vistok.plots.codebook import codebook_overview, codebook_usage, draw_code_map, places
from vistok.plots.figures import DPI, save, show, show_photographs
from vistok.plots.generation import completions, drawn_step_by_step
from vistok.plots.pictures import check_zoom, image_rows, indices_shown, pixel_values, reconstructions, side_by_side
from vistok.plots.plane import partitions
from vistok.plots.rows import bits_and_quality, by_length, rate_and_distortion, usage_and_quality
from vistok.plots.styles import COLOURS
from vistok.plots.training import (
    ADVERSARIAL_NAMES,
    codebook_curves,
    collapse,
    dashboard,
    training_curves,
    weighted_losses,
)

__all__ = [
    "ADVERSARIAL_NAMES",
    "COLOURS",
    "DPI",
    "bits_and_quality",
    "by_length",
    "check_zoom",
    "codebook_curves",
    "codebook_overview",
    "codebook_usage",
    "collapse",
    "completions",
    "dashboard",
    "draw_code_map",
    "drawn_step_by_step",
    "image_rows",
    "indices_shown",
    "partitions",
    "pixel_values",
    "places",
    "rate_and_distortion",
    "reconstructions",
    "save",
    "show",
    "show_photographs",
    "side_by_side",
    "training_curves",
    "usage_and_quality",
    "weighted_losses",
]
