"""One codebook in several views of a notebook: what a click shows, and how choosing in one view chooses in all."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browser.lab import Lab, NotebookPage, eventually, opened_notebooks, pixels, write_notebook

from vistok.runs import EXAMPLE_RUN
from vistok.tokens.codebook import decode_alone
from vistok.tokens.encoded import EncodedImages
from vistok.widgets import CodebookSpace

CELLS = [
    "from vistok import widgets\nfrom vistok.runs import EXAMPLE_RUN\n"
    'encoded = widgets.open_encoded(EXAMPLE_RUN, "photos", max_images=64, device="cpu")',
    "widgets.CodebookExplorer(encoded)",
    "widgets.CodebookSpace(encoded)",
    "widgets.PlaceExplorer(encoded)",
    "widgets.TokenEditor(encoded)",
    "encoded.choice.chosen",
]
HEIGHT = 680  # pixels, what a window of 1280x800 leaves to a notebook


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    """What the notebook opens, computed here."""
    return EncodedImages.open(EXAMPLE_RUN, "photos", max_images=64, device="cpu", progress=False)


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


@pytest.fixture(scope="module")
def notebook(lab: Lab, browser: Any) -> Iterator[NotebookPage]:
    """A notebook of all views, run."""
    write_notebook(lab, "views", *CELLS)
    with opened_notebooks(lab, browser) as open_copy:
        opened = open_copy("views")
        opened.run_all(seconds=300)
        yield opened


def view(notebook: Any, name: str) -> Any:
    """Return a view, scrolled to the top of the notebook, where it stays: cells above are laid out as one comes by."""
    found = notebook.page.locator(f".vistok.{name}")
    former = None
    while former != (now := found.bounding_box()):
        found.evaluate("view => view.scrollIntoView({ block: 'start' })")
        notebook.page.wait_for_timeout(300)
        former = now
    return found


def cell_of(canvas: Any, code: int) -> dict[str, float]:
    """Return the middle of a code's cell on a map that is sorted by index."""
    columns = int(canvas.get_attribute("data-columns"))
    size = canvas.bounding_box()["width"] / columns
    return {"x": (code % columns + 0.5) * size, "y": (code // columns + 0.5) * size}


def test_a_click_on_a_code_shows_it_beside_the_map(notebook: NotebookPage, encoded: EncodedImages) -> None:
    page = notebook.page
    margins = page.viewport_size["width"] - notebook.page.locator(".vistok.codebook-explorer").bounding_box()["width"]
    above = page.locator(".jp-WindowedPanel-outer").bounding_box()["y"]
    counts = encoded.counts().numpy()
    codes = np.flatnonzero((counts > 30) & (counts < 90))[5:8].tolist()
    for width, code in zip((825, 1000, 1300), codes, strict=True):
        page.set_viewport_size({"width": round(width + margins), "height": round(HEIGHT + above)})
        explorer = view(notebook, "codebook-explorer")
        assert explorer.bounding_box()["width"] == pytest.approx(width, abs=2)
        _click_and_see(page, explorer, code)
    assert not notebook.errors, notebook.errors


def _click_and_see(page: Any, explorer: Any, code: int) -> None:
    """Click a code; all that matters first of it is seen beside the map, within the window."""
    canvas, around = explorer.locator("canvas.map"), page.viewport_size
    canvas.click(position=cell_of(canvas, code))
    expect(explorer.locator(f".detail[data-code='{code}']")).to_be_visible()
    expect(explorer.locator(".head")).to_contain_text(f"code {code}: ")
    page.mouse.move(0, 0)
    box = canvas.bounding_box()
    right, bottom = box["x"] + box["width"], box["y"] + box["height"]
    # The name, the patch alone, where it appears, and four images.
    shown = explorer.locator(".head, .first canvas").all()
    assert len(shown) == 1 + 1 + 1 + 4
    for part in shown:
        box = part.bounding_box()
        assert box["x"] >= right and box["x"] + box["width"] <= around["width"], box
        assert box["y"] + box["height"] <= around["height"], box
    # The curves stand below the map, side by side, and nothing is wider than the view.
    tops = [explorer.locator(f"canvas.{name}").bounding_box()["y"] for name in ("frequencies", "covered", "growth")]
    assert min(tops) >= bottom and max(tops) == min(tops)
    assert explorer.evaluate("view => view.scrollWidth <= view.clientWidth")


def test_choosing_in_one_view_chooses_in_all(notebook: NotebookPage, encoded: EncodedImages) -> None:
    page = notebook.page
    page.set_viewport_size({"width": 1280, "height": 1000})
    counts = encoded.counts().numpy()
    points = CodebookSpace(encoded)._projected.points.double().numpy()
    space = view(notebook, "codebook-space")
    scatter = space.locator("canvas.scatter")

    def place(code: int) -> dict[str, float]:
        (x, y), scale = (
            map(float, scatter.get_attribute("data-origin").split()),
            float(scatter.get_attribute("data-scale")),
        )
        return {"x": x + points[code, 0] * scale, "y": y - points[code, 1] * scale}

    # Hover: the patch that the code decodes to alone, pixel by pixel.
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + 99 * np.eye(len(points))
    code = int(apart.min(1).argmax())  # a code far from all others
    (tile,) = torch.cat(list(decode_alone(encoded.tokenizer, torch.tensor([code]))))

    def patch_is_seen() -> None:
        scatter.hover(position=place(code))  # again: what is above the scatter may still grow, and the pointer stays
        # Where the pointer missed the code there is nothing to wait for: it hovers again.
        expect(space.locator(".tip .patch")).to_have_attribute("data-code", str(code), timeout=5000)
        expect(space.locator(".tip").first).to_contain_text(f"code {code}: ")
        seen = pixels(space.locator(".tip .patch"))
        step = seen.shape[0] // tile.shape[1]
        assert np.array_equal(seen[step // 2 :: step, step // 2 :: step], tile.permute(1, 2, 0).numpy())

    eventually(patch_is_seen)

    # A click: the map, the places and the editor have the code too.
    scatter.click(position=place(code))
    expect(space.locator(".head")).to_contain_text(f"code {code}: ")
    explorer = view(notebook, "codebook-explorer")
    expect(explorer.locator(f".detail[data-code='{code}']")).to_be_visible()
    expect(explorer.locator("canvas.map")).to_have_attribute("data-selected", str(code))
    places = view(notebook, "place-explorer")
    expect(places.locator(".where")).to_contain_text(f"code {code}")
    editor = view(notebook, "token-editor")
    expect(editor.get_by_label("code", exact=True)).to_have_value(str(code))

    # A box: its codes reach Python, the rest of the map steps back, and the places are theirs.
    space = view(notebook, "codebook-space")
    box, corners = scatter.bounding_box(), [place(int(points[:, 0].argmax())), place(int(points[:, 1].argmax()))]
    middle = place(int(np.abs(points).sum(1).argmin()))
    page.mouse.move(box["x"] + middle["x"] + 5, box["y"] + corners[1]["y"] - 4)
    page.mouse.down()
    page.mouse.move(box["x"] + middle["x"] + 90, box["y"] + middle["y"] - 60)
    page.mouse.move(box["x"] + corners[0]["x"] + 4, box["y"] + middle["y"] - 40)
    page.mouse.up()
    expect(space.locator(".group")).to_contain_text("codes selected")
    left, scale = middle["x"] + 5 - place(0)["x"], float(scatter.get_attribute("data-scale"))
    x, y = points[:, 0] - points[0, 0], points[:, 1] - points[0, 1]
    high = place(0)["y"] - (middle["y"] - 40)
    inside = np.flatnonzero((x >= left / scale) & (y >= high / scale)).tolist()
    assert len(inside) > 5
    notebook.start_cell(len(CELLS) - 1)
    assert notebook.finish(60) is True
    (said,) = notebook.cells()[-1]["outputs"]
    assert f"codes={tuple(inside)!r}" in "".join(said["data"]["text/plain"])
    canvas = view(notebook, "codebook-explorer").locator("canvas.map")
    expect(explorer.locator(".number.caption").first).to_contain_text(f"the {len(inside)} codes that are selected")
    expect(canvas).to_have_attribute("data-marked", str(len(inside)))
    shown, inner = counts > 0, np.isin(np.arange(len(counts)), inside)

    def others_step_back() -> None:
        picture, columns = pixels(canvas), int(canvas.get_attribute("data-columns"))
        at = [(np.array(divmod(code, columns)) + 0.3) * picture.shape[1] / columns for code in range(len(counts))]
        bright = np.array([picture[int(row), int(column)].max() for row, column in at])
        dark = np.flatnonzero(shown & ~inner & (bright < 204))  # four fifths of the paper
        assert not len(dark), (dark, bright[dark], canvas.evaluate("canvas => ({ ...canvas.dataset })"))
        assert bright[shown & inner].min() < 204

    eventually(others_step_back)
    places = view(notebook, "place-explorer")
    expect(places.locator(".where")).to_contain_text(f"any of the {len(inside)} selected codes")

    # A token of the editor: its code is chosen, and what was offered to paint with stays.
    editor = view(notebook, "token-editor")
    tokens = editor.locator("canvas[data-picture=decoded]")
    side = tokens.bounding_box()["width"] / 16
    tokens.click(position={"x": 5.5 * side, "y": 3.5 * side})
    wanted = int(encoded.tokens[0][0, 3, 5])
    assert wanted != code
    explorer = view(notebook, "codebook-explorer")
    expect(explorer.locator(f".detail[data-code='{wanted}']")).to_be_visible()
    expect(notebook.page.locator(".vistok.token-editor").get_by_label("code", exact=True)).to_have_value(str(code))
    assert not notebook.errors, notebook.errors
