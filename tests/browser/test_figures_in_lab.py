"""A figure on JupyterLab's light and dark page: sharp, as wide as the text, on the page's own ground."""

import io
from collections.abc import Callable
from typing import Any

import nbformat
import numpy as np
import pytest
from PIL import Image

SECONDS = 300
SHOW = """import numpy as np
from vistok import plots
plots.show(plots.usage_and_quality({"vq-d4": ([0.5, 0.6], [24.0, 24.2]), "fsq": ([0.9], [25.0])}))"""
SET_THEME = "name => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })"


@pytest.mark.parametrize(("theme", "is_dark"), [("JupyterLab Light", False), ("JupyterLab Dark", True)])
def test_a_figure_has_the_ground_of_the_page(
    lab: Any, open_notebook: Callable[..., Any], theme: str, is_dark: bool
) -> None:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SHOW)])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, lab.root / "figure.ipynb")
    notebook = open_notebook("figure")
    notebook.page.evaluate(SET_THEME, theme)
    notebook.page.wait_for_selector(f"body[data-jp-theme-light={'false' if is_dark else 'true'}]", state="attached")
    notebook.run_all(seconds=SECONDS)
    (image,) = notebook.page.locator(".jp-Cell-outputArea img").all()
    measured = notebook.measure(image)
    assert measured["natural"][0] == 2 * measured["shown"][0]  # sharp where a pixel of the page is two of the screen
    assert measured["shown"][0] / measured["shown"][1] == pytest.approx(
        measured["natural"][0] / measured["natural"][1], 0.01
    )
    (output,) = notebook.cells()[0]["outputs"]
    assert output["metadata"]["image/png"]["alt"] == "PSNR, dB against codebook usage, %"
    seen = np.asarray(Image.open(io.BytesIO(image.screenshot())).convert("L"))
    ground = np.median(seen)
    assert ground < 40 if is_dark else ground > 240
    letters = np.abs(seen.astype(int) - ground)[:, : seen.shape[1] // 2]
    assert (letters > 80).sum() > 300  # they stand out on it
