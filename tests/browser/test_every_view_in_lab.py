"""Every view at the two widths that a notebook's column usually has, in both themes: nothing is cut off or scrolls sideways.

`VISTOK_LOOK=FOLDER` keeps the photographs of all views there, those of the notebook that was opened again among them: to be
looked at by somebody.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.lab import Lab, NotebookPage, opened_notebooks, write_notebook
from browser.views import ENCODED, source, view_classes
from PIL import Image

SECONDS = 300
# Controls and pictures of a view that reach beyond its edges, and whether it would have to be scrolled sideways.
BEYOND = """view => { const edge = view.getBoundingClientRect();
    const out = [...view.querySelectorAll("canvas, img, button, select, input, svg, .caption")].filter(part => {
        const box = part.getBoundingClientRect();
        return box.width > 0 && !part.closest(".hidden-text, .tip")
            && (box.right > edge.right + 1 || box.left < edge.left - 1);
    }).map(part => `${part.tagName} ${part.className}`);
    return view.scrollWidth > view.clientWidth + 1 ? [...out, `scrolls sideways: ${view.scrollWidth}`] : out; }"""


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the photographs go."""
    folder = Path(os.environ.get("VISTOK_LOOK") or tmp_path_factory.mktemp("views"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def shown(lab: Lab, browser: Any) -> Iterator[NotebookPage]:
    """A notebook with every view, run."""
    write_notebook(lab, "every_view", ENCODED, *map(source, view_classes()))
    with opened_notebooks(lab, browser) as open_copy:
        notebook = open_copy("every_view")
        notebook.run_all(SECONDS)
        yield notebook


def photograph_all(notebook: NotebookPage, folder: Path, name: str) -> None:
    for number, view in enumerate(view_classes(), 1):
        box = notebook.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".vistok")
        box.scroll_into_view_if_needed()
        file = folder / f"{view}-{name}.png"
        notebook.photograph(box, file)
        assert not box.evaluate(BEYOND), (view, name, box.evaluate(BEYOND))
        pixels = np.asarray(Image.open(file).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 20, f"{file} shows nothing"


@pytest.mark.parametrize("width", [825, 1300])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_is_drawn(shown: NotebookPage, look: Path, theme: str, width: int) -> None:
    shown.set_theme(theme)
    shown.set_column(width)
    photograph_all(shown, look, f"{width}-{theme}")
    assert not shown.errors, shown.errors


def test_it_is_seen_without_its_kernel(
    lab: Lab, shown: NotebookPage, look: Path, open_notebook: Callable[..., NotebookPage]
) -> None:
    shown.save()
    lab.shut_down_kernels()
    again = open_notebook("every_view", again=True)
    expect = pytest.importorskip("playwright.sync_api").expect
    views = again.page.locator(".vistok[data-live=false]")
    expect(views).to_have_count(len(view_classes()), timeout=180_000)  # beside other tests a page takes long to open
    again.set_column(825)
    photograph_all(again, look, "825-again")
    assert not again.errors, again.errors
