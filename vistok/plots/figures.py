"""How figures look wherever they are seen: readable on light and dark pages, sharp on dense screens, as PNG or JPEG.

Figures are drawn in black on white, as matplotlib does. What is black in them, text, axes and lines, becomes *ink* here:

- on a page, PNG without a ground, in a grey that is readable on white and on black alike;
- photographs, as JPEG, which has no transparency, on a dark ground of their own, as on a light table;
- in a file, on white, wherever that is opened.
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.table import Cell
from matplotlib.text import Text

from vistok.system.files import make_folder, replace_file

DPI = 96  # pixels of a page an inch, so that a point of text is what it is elsewhere on the page
WIDTH = 7.5  # inches; beside JupyterLab's sidebar a figure has about 720 pixels, and is made smaller where it has more
DENSITY = 2  # pixels of the file for each pixel of the page
SMALL, NORMAL = 8, 9  # points of text: numbers and legends; names of axes and titles
INK = "#797979"  # 4.3:1 on white, and as much on the dark pages of JupyterLab (#111111) and GitHub (#0d1117)
PAPER, INK_ON_PAPER = "#ffffff", "#1f2328"
CARD, INK_ON_CARD = "#1f2328", "#d5dae0"
_INKS = {"#000000", INK, INK_ON_PAPER, INK_ON_CARD}


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file without a ground, for a page; it is `page_width` pixels wide there."""
    return _file(figure, INK, "none", "png")


def page_width(figure: Figure) -> int:
    """Return how many pixels of a page a figure is wide: its file has `DENSITY` times as many."""
    return round(figure.get_figwidth() * figure.dpi)


def show(figure: Figure) -> None:
    """Show a figure in the notebook, and close it."""
    width = page_width(figure)
    display(Image(png(figure), format="png", width=width, alt=_description(figure)))
    plt.close(figure)


def show_photographs(figure: Figure, path: Path | None = None) -> None:
    """Show a figure of photographs in the notebook, and save it; as JPEG, a fifth of a PNG's size.

    Args:
        figure: what to show; it is closed.
        path: a `.jpg` file; None: show only.
    """
    width = page_width(figure)
    content = _file(figure, INK_ON_CARD, CARD, "jpeg", pil_kwargs={"quality": 85, "optimize": True})
    display(Image(content, format="jpeg", width=width, alt=_description(figure)))
    plt.close(figure)
    if path is not None:
        replace_file(path, content)


def save(figure: Figure, path: Path) -> None:
    """Save a figure as PNG, on white, whole or not at all; its folder is made where it is missing."""
    content = _file(figure, INK_ON_PAPER, PAPER, "png")
    make_folder(path.parent)
    replace_file(path, content)


def _file(figure: Figure, ink: str, ground: str, kind: str, **options: object) -> bytes:
    style(figure, ink)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DENSITY * figure.dpi, facecolor=ground, edgecolor="none", **options)
    return _with_palette(buffer) if kind == "png" else buffer.getvalue()


def _with_palette(png: io.BytesIO) -> bytes:
    """Return a PNG file with 256 colours: a third of the size, and lines, letters and photographs look the same."""
    pixels = np.asarray(PIL.Image.open(png).convert("RGBA"))
    solid = pixels[..., 3] == 255
    indices, palette = np.zeros(solid.shape, np.uint8), []
    # The edges of letters are of one colour and need few entries; median cut, which photographs need, knows no transparency.
    for where, number, method, mode in ((solid, 208, "MEDIANCUT", "RGB"), (~solid, 48, "FASTOCTREE", "RGBA")):
        if where.any():
            found = PIL.Image.fromarray(pixels[where][None, :, : len(mode)], mode)
            found = found.quantize(number, PIL.Image.Quantize[method], kmeans=1, dither=PIL.Image.Dither.NONE)
            indices[where] = np.asarray(found)[0] + len(palette)
            colours = np.frombuffer(found.palette.tobytes(), np.uint8).reshape(-1, len(mode))
            palette += [(*colour, 255)[:4] for colour in colours.tolist()]
    image = PIL.Image.fromarray(indices, "P")
    image.putpalette([value for colour in palette for value in colour[:3]])
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True, transparency=bytes(colour[3] for colour in palette))
    return buffer.getvalue()


def style(figure: Figure, ink: str = INK) -> None:
    """Give what is black in a figure, or has another ink already, this one, and text its sizes; the ground of axes goes."""
    for axis in figure.findobj(Axes):
        axis.patch.set_alpha(0)
        axis.tick_params(which="both", color=ink, labelcolor=ink, labelsize=SMALL)  # ticks yet to be made included
        for text in (axis.xaxis.label, axis.yaxis.label, axis.title):
            text.set_size(min(text.get_size(), NORMAL))
    for artist in figure.findobj(lambda artist: isinstance(artist, Text | Line2D)):
        if to_hex(artist.get_color()) in _INKS:
            artist.set_color(ink)
    for edge in figure.findobj(lambda artist: isinstance(artist, Spine | Cell)):
        if to_hex(edge.get_edgecolor()) in _INKS:
            edge.set_edgecolor(ink)
    for cell in figure.findobj(Cell):
        cell.set_facecolor("none")
        cell.get_text().set_color(ink)  # no search finds it


def _description(figure: Figure) -> str:
    """Return the titles of a figure and the names of its axes: the text alternative."""
    parts = [figure.get_suptitle()]
    for axis in figure.findobj(Axes):
        names = " against ".join(name for name in (axis.get_ylabel(), axis.get_xlabel()) if name)
        parts += [": ".join(part for part in (axis.get_title(), names) if part)]
    return "; ".join(dict.fromkeys(" ".join(part.split()) for part in parts if part))
