"""What becomes of a figure on a page, dark or light, and in a file."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from vistok import plots
from vistok.plots import figures

PAGES = {"white": "#ffffff", "JupyterLab's dark": "#111111", "GitHub's dark": "#0d1117"}


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it, 1 to 21."""

    def luminance(colour: str) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def a_figure() -> Figure:
    figure, axis = plt.subplots(figsize=(4, 3), dpi=figures.DPI)
    axis.plot([1, 2], color="black")
    axis.plot([2, 1], color=plots.COLOURS[1])
    axis.set(xlabel="step", ylabel="loss", title="of a run")
    axis.table([["a"]], colLabels=["b"])
    return figure


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_ink_and_lines_are_readable_on_every_page(page: str) -> None:
    assert contrast(figures.INK, page) >= 4
    assert all(contrast(colour, page) >= 3 for colour in plots.COLOURS)  # WCAG 2's for graphics
    assert contrast(figures.INK_ON_CARD, figures.CARD) >= 7 and contrast(figures.INK_ON_PAPER, figures.PAPER) >= 7


def test_on_a_page_a_figure_has_no_ground_and_nothing_black_or_white() -> None:
    figure = a_figure()
    shown = pixels(figures.png(figure))
    plt.close(figure)
    assert (shown[..., 3] == 0).mean() > 0.5
    solid = shown[shown[..., 3] > 200][:, :3].astype(int)
    grey = solid[np.ptp(solid, axis=1) < 12]
    ink = round(255 * to_rgb(figures.INK)[0])
    assert len(grey) > 1000 and abs(grey - ink).max() < 40


def test_a_figure_is_as_sharp_as_a_dense_screen_and_a_third_of_a_plain_file() -> None:
    figure = a_figure()
    content = figures.png(figure)
    height, width = pixels(content).shape[:2]
    assert width == 2 * figures.page_width(figure) and (width, height) == (768, 576)
    plain = io.BytesIO()
    figure.savefig(plain, format="png", dpi=2 * figures.DPI)
    plt.close(figure)
    assert len(content) < 0.6 * len(plain.getvalue())


def test_the_palette_keeps_photographs() -> None:
    y, x = np.mgrid[:64, :64] / 63
    photograph = np.stack([0.1 + 0.2 * x, 0.2 + 0.3 * y, 0.4 + 0.4 * x * y], 2)  # like a sky: slow changes
    figure = plt.figure(figsize=(2, 2), dpi=32)
    axis = figure.add_axes((0, 0, 1, 1))
    axis.imshow(photograph)
    axis.set_axis_off()
    shown = pixels(figures.png(figure))[..., :3] / 255
    plt.close(figure)
    assert np.abs(shown[::2, ::2] - photograph).max() < 0.06


def test_a_figure_can_be_saved_and_then_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    figure = a_figure()
    figures.save(figure, tmp_path / "curves.png")
    figures.show(figure)
    saved = pixels((tmp_path / "curves.png").read_bytes())
    assert (saved[..., 3] == 255).all() and (saved[0, 0] == 255).all()  # on white wherever it is opened
    assert saved[..., :3].min() < 60
    (image,) = shown
    assert (pixels(image.data)[..., 3] == 0).any() and image.width == 384
    assert image.alt == "of a run: loss against step" and not plt.fignum_exists(figure.number)


def test_photographs_have_a_ground_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(figures, "display", shown.append)
    figures.show_photographs(a_figure(), tmp_path / "pictures.jpg")
    saved = np.asarray(Image.open(tmp_path / "pictures.jpg"))
    assert abs(saved[0, 0] - 255 * np.array(to_rgb(figures.CARD))).max() < 8
    assert saved.max() > 180 and (tmp_path / "pictures.jpg").read_bytes() == shown[0].data and shown[0].width == 384
