"""One's own picture in a real JupyterLab: dropped, pasted, chosen; its tokens changed; two tokenizers in a row.

And the editor beside its controls, and three pictures side by side, in the column that JupyterLab gives a notebook.
"""

import base64
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browser.lab import READY, Lab, NotebookPage, eventually, opened_notebooks, pixels, write_notebook
from PIL import Image

from vistok.data.transforms import CenterSquare
from vistok.runs import EXAMPLE_RUN
from vistok.tokenizer import VisualTokenizer

CELLS = (
    "from vistok import widgets\nfrom vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN\n"
    "view = widgets.TryPicture(EXAMPLE_RUN, COLLAPSED_RUN)\nview",
    "encoded = widgets.open_encoded(EXAMPLE_RUN, 'photos', max_images=60, device='cpu')\n"
    "widgets.TokenEditor(encoded, image=30, other=11)",
    "widgets.ReconstructionViewer(encoded)",
)
DROP = """(box, [name, type, content]) => { const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name, { type }));
    for (const kind of ['dragenter', 'dragover', 'drop'])
        box.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true })); }"""
COPY = """async (content) => { const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({ 'image/png': new Blob([bytes], { type: 'image/png' }) })]); }"""


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


@pytest.fixture(scope="module")
def notebook(lab: Lab, browser: Any) -> Iterator[NotebookPage]:
    """The three views, run."""
    write_notebook(lab, "try", *CELLS)
    with opened_notebooks(lab, browser) as open_copy:
        opened = open_copy("try")
        opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        opened.run_all(seconds=300)
        yield opened


def photograph(width: int = 1500, height: int = 1000) -> Image.Image:
    """Smooth colours that rise over the picture, and a stripe."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    values = np.stack([across, down, 255 - across], -1).astype(np.uint8)
    values[:, width // 2 : width // 2 + width // 12] = (250, 240, 30)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def sampled(canvas: Any, size: int = 64) -> np.ndarray:
    """Return the pixels of an enlarged picture, uint8 [size, size, 3], each from its middle."""
    shown = pixels(canvas)
    at = ((np.arange(size) + 0.5) * len(shown) / size).astype(int)
    return shown[at][:, at]


def named(view: Any, name: str) -> None:
    expect(view.locator("[data-role=name]")).to_have_text(name)
    expect(view.locator("[data-role=busy]")).to_have_text("")


def test_ones_own_picture_is_taken_tokenized_and_changed(notebook: NotebookPage) -> None:
    page = notebook.page
    view = page.locator(".vistok.try-picture")
    own, second = view.locator("canvas[data-card=ema-d4]"), view.locator("canvas[data-card=vq-d64]")
    expect(own).to_have_attribute("data-painted", re.compile(r"\d"))  # never empty
    expect(view.locator("[data-role=name]")).to_contain_text("chelsea.png")

    # Dropped: what the tokenizer sees is what an evaluation would make of it, and the reconstruction is the tokenizer's.
    view.evaluate(DROP, ["holiday.jpg", "image/jpeg", encoded(photograph(), "JPEG", quality=95)])
    named(view, "holiday.jpg")
    expect(view.locator(".file-name ~ .number")).to_have_text("1,500 × 1,000 pixels")
    seen = sampled(view.locator("canvas[data-card='your picture']"))
    expected = CenterSquare(64).render(0, photograph())
    assert np.abs(seen.astype(int) - expected).mean() < 1.5
    tokenizer = VisualTokenizer.load(EXAMPLE_RUN)
    images = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    tokens = tokenizer.encode(images)
    made = tokenizer.decode(tokens)[0].permute(1, 2, 0).add(1).mul(127.5).round().numpy()
    assert np.abs(sampled(own).astype(int) - made).max() <= 1
    expect(view.locator("[data-role=psnr]").nth(2)).to_contain_text("dB")
    assert "256 tokens" in view.locator(".cards").inner_text() and "2,304 bits" in view.locator(".cards").inner_text()

    # A token is clicked and given the code nearest to its own: one reconstruction changes there, the other does not.
    before, other = sampled(own), sampled(second)
    canvas = view.locator("canvas[data-picture=seen]")
    token = canvas.bounding_box()["width"] / 16
    canvas.click(position={"x": 4.5 * token, "y": 9.5 * token})
    code = int(tokens[0, 9, 4])
    expect(view.locator("[data-role=token]")).to_have_text(f"selected: row 9, column 4: code {code}")
    nearest = view.locator("[aria-label='nearest codes'] button")
    expect(nearest.first).to_have_attribute("data-code", str(code))
    painted = own.get_attribute("data-painted")
    nearest.nth(5).click()
    expect(own).not_to_have_attribute("data-painted", painted)
    changed = np.argwhere(np.abs(sampled(own).astype(int) - before).sum(-1) > 3) / 4  # in tokens
    assert len(changed) and np.array_equal(sampled(second), other)
    assert np.abs(changed - [9.5, 4.5]).max() < 5
    painted = own.get_attribute("data-painted")
    view.get_by_role("button", name="undo").click()
    expect(own).not_to_have_attribute("data-painted", painted)
    assert np.array_equal(sampled(own), before)

    # Pasted with the keys, chosen as a file, and what is no picture.
    page.evaluate(COPY, encoded(photograph(300, 400)))
    canvas.focus()
    page.keyboard.press("Control+V")
    expect(view.locator(".file-name ~ .number")).to_have_text("300 × 400 pixels")
    with page.expect_file_chooser() as chooser:
        view.get_by_role("button", name="choose a picture").click()
    grey = base64.b64decode(encoded(photograph().convert("L"), "JPEG"))
    chooser.value.set_files({"name": "grey.jpg", "mimeType": "image/jpeg", "buffer": grey})
    named(view, "grey.jpg")
    view.evaluate(DROP, ["notes.txt", "text/plain", "bm90ZXM="])
    expect(view.locator(".message")).to_contain_text("notes.txt is no picture that this browser can read")
    expect(view.locator("[data-role=name]")).to_have_text("grey.jpg")  # it stays
    assert notebook.cells()[0]["cell_type"] == "code" and len(notebook.cells()) == len(CELLS)  # no key left the view
    assert not notebook.errors, notebook.errors


@pytest.mark.parametrize("width", [1000, 1280])
def test_pictures_and_what_acts_on_them_stand_together(notebook: NotebookPage, width: int) -> None:
    page = notebook.page
    page.set_viewport_size({"width": width, "height": 1000})
    editor, viewer, view = (
        page.locator(f".vistok.{name}") for name in ("token-editor", "reconstruction-viewer", "try-picture")
    )
    editor.locator("[aria-label='nearest codes'] button").first.wait_for()

    def stand_together() -> None:
        picture = editor.locator("canvas[data-picture=decoded]").bounding_box()
        for found in (
            editor.get_by_role("button", name="replace", exact=True),
            editor.locator("[aria-label='nearest codes']"),
        ):
            box = found.bounding_box()
            assert box["x"] > picture["x"] + picture["width"] - 1
            assert box["y"] + box["height"] < picture["y"] + picture["height"] + 20
        for target, names in (
            (viewer, ("original", "reconstruction", "error")),
            (editor, ("original", "before", "difference")),
            (view, ("seen", "decoded")),
        ):
            target.locator(f"canvas[data-picture={names[-1]}][data-painted]").wait_for()
            boxes = [target.locator(f"canvas[data-picture={name}]").bounding_box() for name in names]
            assert len({box["y"] for box in boxes}) == 1 and min(box["width"] for box in boxes) > 120, boxes
            assert target.evaluate("box => box.scrollWidth <= box.clientWidth")

    eventually(stand_together)  # the page is laid out anew

    # A typed number is taken while the field has the focus.
    field = editor.get_by_role("spinbutton", name="image", exact=True)
    title = editor.locator(".caption", has_text="original:")
    before = title.inner_text()
    field.fill({1000: "31", 1280: "30"}[width])  # the photographs of the test split take turns
    expect(title).not_to_have_text(before)
    assert field.evaluate("field => field === document.activeElement")
    assert not notebook.errors, notebook.errors


def drag(page: Any, source: Any, target: Any) -> None:
    """Drag with the mouse, as JupyterLab and the browser notice it: after some pixels."""
    (x, y), (to_x, to_y) = ((box["x"] + 12, box["y"] + 8) for box in (source.bounding_box(), target.bounding_box()))
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 15, y + 15, steps=3)
    page.mouse.move(to_x, to_y, steps=6)
    page.mouse.move(to_x + 4, to_y + 4)
    page.mouse.up()


def test_pictures_are_dragged_from_an_output_and_from_the_list_of_files(
    lab: Lab, open_notebook: Callable[..., Any]
) -> None:
    figure = "from PIL import Image\nImage.new('RGB', (60, 40), 'teal')"
    write_notebook(lab, "drags", figure, CELLS[0])
    photograph().save(lab.root / "from the list.jpg")
    notebook = open_notebook("drags")
    page = notebook.page
    page.goto(f"{lab.url}/lab/tree/drags.ipynb?reset&token={lab.token}")  # beside the list of files
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_function(READY)
    notebook.run_all(120)
    view = page.locator(".vistok.try-picture")
    expect(view.locator("[data-role=name]")).to_contain_text("chelsea.png")
    drag(page, page.locator(".jp-OutputArea-output img").first, view)
    named(view, "picture of the page")
    expect(view.locator(".file-name ~ .number")).to_have_text("60 × 40 pixels")
    drag(page, page.locator(".jp-DirListing-item", has_text="from the list.jpg"), view)
    named(view, "from the list.jpg")
    expect(view.locator(".file-name ~ .number")).to_have_text("1,500 × 1,000 pixels")
    assert len(notebook.cells()) == 2 and not notebook.errors, notebook.errors
