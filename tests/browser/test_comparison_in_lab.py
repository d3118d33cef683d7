"""The views of 07_quantizers in a real JupyterLab: a code dragged, learning played, a table sorted, a tile enlarged.

(`test_plane_js.py` and `test_gallery_js.py` have what the scripts draw.)
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.lab import Lab, NotebookPage, opened_notebooks, write_notebook

from vistok.lessons import pictures, plane
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN

SECONDS = 300
CELLS = (
    "from vistok.widgets import PlaneExplorer, QuantizerGallery, SortableTable\nfrom vistok import tables\n"
    'explorer = PlaneExplorer("vq")\nexplorer',
    'planned = tables.plan("quantizers64", scale="laptop", seeds=[0, 1, 2], dataset="imagenet-sample")\n'
    "SortableTable(tables.markdown(planned))",
    'gallery = QuantizerGallery(["vq-d64", "fsq-888", "ema-d4"], folder="FOLDER")\ngallery',
    "print(explorer.method, explorer.step, gallery.image, gallery.order, gallery.errors)",
)
# Every text that an element is given from now on.
KEEP_STEPS = """step => { window.stepsSeen = [];
    const keep = changes => changes.flatMap(change => [...change.addedNodes]).forEach(text => window.stepsSeen.push(text.data));
    new MutationObserver(keep).observe(step, { childList: true }); }"""


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the two tokenizers that come with the repository."""
    where = tmp_path_factory.mktemp("pictures")
    for run in (EXAMPLE_RUN, COLLAPSED_RUN):
        pictures.make(run, "photos", [0, 1, 2], where)
    return where


@pytest.fixture(scope="module")
def opened(lab: Lab, browser: Any, folder: Path) -> Iterator[NotebookPage]:
    """A notebook with the three views, run to its end: each test looks at another one of them."""
    write_notebook(lab, "views", *(cell.replace("FOLDER", str(folder)) for cell in CELLS))
    with opened_notebooks(lab, browser) as open_copy:
        notebook = open_copy("views")
        notebook.run_all(seconds=SECONDS)
        yield notebook


@pytest.fixture
def notebook(opened: NotebookPage) -> Iterator[NotebookPage]:
    """The notebook; after each test nothing may have gone wrong in it."""
    yield opened
    assert not opened.errors, opened.errors


def said(notebook: Any) -> str:
    """Return what the last cell prints of the views' state, in Python, now."""
    notebook.start_cell(len(CELLS) - 1)
    assert notebook.finish(seconds=SECONDS) is True
    return "".join(notebook.cells()[-1]["outputs"][0]["text"]).strip()


def photograph(view: Any, name: str) -> None:
    """Keep a screenshot of a view where VISTOK_LOOK names a folder."""
    if folder := os.environ.get("VISTOK_LOOK"):
        view.screenshot(path=f"{folder}/{name}.png")


def test_a_code_is_dragged_and_learning_played(notebook: Any) -> None:
    view = notebook.page.locator(".vistok.plane-explorer")
    view.scroll_into_view_if_needed()
    canvas, error = view.locator("canvas[data-layer=marks]"), view.locator("[data-role=error]")
    expect(error).to_have_text(f"{plane.learn('vq')[-1].error:.3f}")
    before = json.loads(canvas.get_attribute("data-handles"))
    box = canvas.bounding_box()
    notebook.page.mouse.move(box["x"] + before[0][0], box["y"] + before[0][1])
    notebook.page.mouse.down()
    notebook.page.mouse.move(box["x"] + 30, box["y"] + 40, steps=3)
    notebook.page.mouse.up()
    after = json.loads(canvas.get_attribute("data-handles"))
    assert after[0] == pytest.approx([30, 40], abs=1) and after[1:] == before[1:]
    expect(error).not_to_have_text(f"{plane.learn('vq')[-1].error:.3f}")
    photograph(view, "plane")
    view.locator("[data-role=step]").evaluate(KEEP_STEPS)
    view.get_by_role("button", name="play the steps of learning").click()
    expect(
        view.get_by_role("button", name="play the steps of learning")
    ).to_be_visible()  # again: it was "pause" meanwhile
    expect(view.locator("[data-role=step]")).to_have_text(f"step {plane.FRAMES[-1]}")
    played = [int(text.removeprefix("step ")) for text in view.evaluate("() => window.stepsSeen")]
    assert played == list(plane.FRAMES)  # from the start, however late one looks
    view.get_by_label("quantizer").select_option("lfq")  # is learnt now
    expect(view.locator("[data-role=used]")).to_have_text("3 of 4")
    assert said(notebook).startswith("lfq 300 ")


def test_a_table_is_sorted_by_its_heading_and_keys_stay_in_it(notebook: Any) -> None:
    box = notebook.page.locator(".vistok-table")
    box.scroll_into_view_if_needed()

    def column(heading: str) -> list[str]:
        (rows,) = notebook.tables()
        at = [cell.replace("\n", " ") for cell in rows[0]].index(heading)
        return [row[at] for row in rows[1:]]

    def numbers() -> list[float]:
        return [float(cell.split("\n")[0]) for cell in column("PSNR ↑") if cell != "–"]

    names = column("row")
    psnr = box.locator("th", has=notebook.page.get_by_role("button", name="PSNR ↑", exact=True))
    psnr.get_by_role("button").click()
    assert numbers() == sorted(numbers(), reverse=True) and psnr.get_attribute("aria-sort") == "descending"
    cells = len(notebook.cells())
    psnr.get_by_role("button").focus()
    for key in ("Enter", "d", "d", "a"):  # of which all but the first would change the notebook
        notebook.page.keyboard.press(key)
    assert numbers() == sorted(numbers()) and psnr.get_attribute("aria-sort") == "ascending"
    assert len(notebook.cells()) == cells
    notebook.page.keyboard.press("Space")
    assert column("row") == names and psnr.get_attribute("aria-sort") is None
    published = box.locator("th", has=notebook.page.get_by_role("button", name="rFID ↓ published"))
    published.get_by_role("button").click()
    values = column("rFID ↓ published")
    measured = [float(cell) for cell in values if cell != "–"]
    assert measured == sorted(measured) and set(values[len(measured) :]) == {"–"}  # what is missing comes last
    heights = box.locator("tbody tr").evaluate_all("rows => rows.map(row => row.clientHeight)")
    assert max(heights) < 60  # a mean and its range: two lines
    outer = notebook.page.locator(".jp-Cell-outputArea", has=box)
    assert outer.evaluate("area => area.scrollWidth <= area.clientWidth")  # it scrolls inside its own box
    assert notebook.cells()[1]["outputs"][0]["data"]["text/markdown"].startswith("| row")
    photograph(box, "table")


def test_a_photograph_is_seen_through_every_quantizer(notebook: Any) -> None:
    view = notebook.page.locator(".vistok.quantizer-gallery")
    view.scroll_into_view_if_needed()
    tiles = view.locator("[data-row]")
    grid = view.locator("[data-painted]")

    def names() -> list[str]:
        return tiles.evaluate_all("tiles => tiles.map(tile => tile.dataset.row)")

    expect(grid).to_have_attribute("data-painted", "0 false null")
    assert names() == ["original", "ema-d4", "vq-d64"]
    expect(view.locator("[data-role=missing]")).to_contain_text("No pictures of fsq-888")
    photograph(view, "gallery")
    view.get_by_role("radio").nth(1).click()
    expect(grid).to_have_attribute("data-painted", "1 false null")
    view.get_by_label("order").select_option("worst first")
    assert names() == ["original", "vq-d64", "ema-d4"]
    tile = view.locator("[data-row=vq-d64] canvas")
    small = tile.bounding_box()["width"]
    tile.click()
    large = tile.bounding_box()
    assert large["width"] > 1.9 * small
    notebook.page.mouse.move(large["x"] + 20, large["y"] + 20)
    notebook.page.mouse.down()
    notebook.page.mouse.move(large["x"] + 0.25 * large["width"], large["y"] + 20, steps=2)
    notebook.page.mouse.up()
    assert float(tile.get_attribute("data-split")) == pytest.approx(0.25, abs=0.01)
    view.get_by_label("where the errors are").check()
    expect(grid).to_have_attribute("data-painted", "1 true 1" if names()[0] == "vq-d64" else "1 true 0")
    photograph(view, "gallery-errors")
    assert said(notebook).endswith(" 1 worst first True")
