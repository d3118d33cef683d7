"""03_codebook in a real JupyterLab: run all, hover, click a code, change a token; and the screenshots of the READMEs.

    VISTOK_SCREENSHOTS=1 python -m pytest tests/browser/test_codebook_in_lab.py

writes the screenshots anew, into notebooks/screenshots/.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from browser.lab import REPOSITORY, keep_screenshot, pixels

from vistok.runs import EXAMPLE_RUN
from vistok.tokens.encoded import EncodedImages

SECONDS = 300
SEQUENCE_OF_32 = "runs/titok-32-laptop-imagenet-sample-s0-ed6bfeba"  # trained in one stage
VIEWS = {  # class of the widget's element to the file of its screenshot
    "try-picture": "try-picture",
    "codebook-explorer": "explorer",
    "codebook-space": "space",
    "place-explorer": "places",
    "token-editor": "editor",
    "coarse-to-fine": "coarse-to-fine",
    "reconstruction-viewer": "reconstructions",
    "run-comparison": "comparison",
}
OpenNotebook = Callable[..., Any]


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    """What the notebook opens by default, computed here."""
    return EncodedImages.open(EXAMPLE_RUN, "scenes", max_images=512, device="cpu", progress=False)


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def view(notebook: Any, name: str) -> Any:
    found = notebook.page.locator(f".vistok.{name}").first  # of two editors that of the grid
    found.scroll_into_view_if_needed()
    expect(found).to_be_visible()
    return found


def test_a_codebook_is_explored_and_a_picture_changed(
    lab: Any, open_notebook: OpenNotebook, encoded: EncodedImages
) -> None:
    notebook = open_notebook("03_codebook")
    notebook.run_all(seconds=SECONDS)
    page = notebook.page
    outputs = [output for cell in notebook.cells() for output in cell.get("outputs", [])]
    said = ["".join(output.get("data", {}).get("text/plain", "")) for output in outputs]
    assert repr(encoded) in said  # the tokenizer that comes with the repository, by default

    # Hover, and click a code: its patches appear.
    explorer = view(notebook, "codebook-explorer")
    counts = encoded.counts().numpy()
    canvas = explorer.locator("canvas.map")
    expect(canvas).to_have_attribute("data-total", str(counts.sum()))
    columns = int(canvas.get_attribute("data-columns"))
    size = canvas.bounding_box()["width"] / columns
    code = int(np.flatnonzero((counts > 30) & (counts < 90))[5])
    place = {"x": (code % columns + 0.5) * size, "y": (code // columns + 0.5) * size}
    canvas.hover(position=place)
    expect(explorer.locator(".tip").first).to_contain_text(f"code {code}: {counts[code]} tokens")
    canvas.click(position=place)
    expect(explorer.locator(f".detail[data-code='{code}']")).to_be_visible()
    expect(explorer.locator(".detail .head")).to_contain_text(f"code {code}: {counts[code]} tokens")
    images, times = encoded.most_using(code, 4)
    captions = explorer.locator(".detail").inner_text()
    for image, number in zip(images, times, strict=True):
        assert f"(image {image}): {number} times" in " ".join(captions.split())
    pair = explorer.locator(".detail .pair").first
    expect(pair.locator("canvas")).to_have_count(2)  # from the image, and as decoded there
    patch = encoded.patches(np.array([encoded.places(code)[encoded.places(code)[:, 0] == images[0]][0]]))[0]
    shown = pixels(pair.locator("canvas").first)  # 12 pixels a side, enlarged
    step = shown.shape[0] // patch.shape[1]
    assert np.array_equal(shown[step // 2 :: step, step // 2 :: step][:3], patch[:, :3].permute(1, 2, 0).numpy())
    explorer.locator("select.sort").select_option("similarity")
    explorer.locator("select.cells").select_option("patch")
    expect(canvas).to_have_attribute("data-drawn", "tiles")
    page.mouse.move(0, 0)  # no tip over it
    keep_screenshot(canvas, "atlas")
    explorer.locator("select.cells").select_option("count")
    keep_screenshot(explorer, VIEWS["codebook-explorer"])
    explorer.locator("input.go").fill("600")
    page.keyboard.press("Enter")
    expect(explorer.locator(".message")).to_have_text("There is no code 600: codes are 0 to 511.")

    for name in ("try-picture", "codebook-space", "place-explorer", "reconstruction-viewer", "run-comparison"):
        keep_screenshot(view(notebook, name), VIEWS[name])

    _change_a_token(notebook)
    _decode_beginnings(notebook)
    assert not notebook.errors, notebook.errors


def test_a_tokenizer_without_a_grid_opens_by_parameter(lab: Any, open_notebook: OpenNotebook) -> None:
    """Every view of the notebook either shows a sequence or says in a sentence what has no meaning of it."""
    notebook = open_notebook("03_codebook", run_dir=SEQUENCE_OF_32, compare_with=EXAMPLE_RUN, max_images=64)
    notebook.run_all(seconds=SECONDS)
    explorer = view(notebook, "codebook-explorer")
    expect(explorer.locator(".no-patches")).to_contain_text("tokens are a sequence")
    keep_screenshot(explorer, "explorer-32-tokens")
    editor = view(notebook, "token-editor")
    expect(editor.locator("[data-role=influence]")).to_contain_text("What does token")
    keep_screenshot(editor, "editor-32-tokens")
    expect(view(notebook, "place-explorer")).to_contain_text("sequence")
    for name in VIEWS:
        expect(view(notebook, name).locator(".message")).to_have_text("")
    assert not notebook.errors, notebook.errors


def _decode_beginnings(notebook: Any) -> None:
    """Of a sequence: fewer tokens are a coarser picture, and a selected token has pixels that follow it."""
    coarse = view(notebook, "coarse-to-fine")
    expect(coarse.locator("[data-role=step]")).to_contain_text("64 tokens")
    keep_screenshot(coarse, VIEWS["coarse-to-fine"])
    now = coarse.locator("canvas[data-picture=now]")
    whole = pixels(now)
    coarse.get_by_role("radio").first.click()
    expect(now).to_have_attribute("data-step", "0")
    assert (
        whole.astype(float).var((0, 1)).sum() > pixels(now).astype(float).var((0, 1)).sum()
    )  # one token: nearly one colour
    editor = notebook.page.locator(".vistok.token-editor").nth(1)
    editor.scroll_into_view_if_needed()
    expect(editor.locator("[data-role=influence]")).to_contain_text("What does token 0 do?")
    row = editor.locator("canvas[data-picture=sequence]")
    row.focus()
    notebook.page.keyboard.press("ArrowRight")
    expect(editor.locator("canvas[data-map=random]")).to_have_attribute("data-token", "1")
    keep_screenshot(editor, "editor-sequence")


def _change_a_token(notebook: Any) -> None:
    """Change one token: the decoded image changes there, and nowhere far from it."""
    editor = view(notebook, "token-editor")
    now, difference = (editor.locator(f"canvas[data-picture={name}]") for name in ("decoded", "difference"))
    keep_screenshot(editor, VIEWS["token-editor"])
    # Pictures are decoded after the sentence is there: one that is slow shows that the test waits for it.
    notebook.page.evaluate("""() => { const decode = window.createImageBitmap; window.createImageBitmap = async (...all) => {
        await new Promise((done) => setTimeout(done, 300)); return decode(...all); }; }""")
    painted = difference.get_attribute("data-painted")
    editor.get_by_role("button", name="reset").click()  # the notebook has swapped a region
    expect(difference).not_to_have_attribute("data-painted", painted)
    expect(editor.locator("[data-role=change]")).to_contain_text("All tokens are as encoded")
    row, column = 4, 11
    size = now.bounding_box()["width"] / 16
    now.click(position={"x": (column + 0.5) * size, "y": (row + 0.5) * size})
    change = editor.locator("[data-role=change]")
    before, painted = pixels(difference), difference.get_attribute("data-painted")
    editor.get_by_label("code", exact=True).fill("129")
    editor.get_by_role("button", name="replace", exact=True).click()
    expect(difference).not_to_have_attribute("data-painted", painted)
    after = pixels(difference)
    changed = np.abs(after.astype(int) - before.astype(int)).sum(-1) > 0  # [H, W]
    rows, columns = (np.flatnonzero(changed.any(axis)) / changed.shape[0] * 16 for axis in (1, 0))
    assert changed[int((row + 0.5) / 16 * len(changed)), int((column + 0.5) / 16 * len(changed))]
    # The decoder's field of view is a few tokens; beyond it no pixel may differ.
    assert row - 5 <= rows.min() and rows.max() <= row + 6, (rows.min(), rows.max())
    assert column - 5 <= columns.min() and columns.max() <= column + 6, (columns.min(), columns.max())
    assert re.search(r"\d", change.inner_text())


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"run_dir": "runs/vq-d8-laptop-imagenet-sample-s0-*"}, "There is no tokenizer in"),
        ({"dataset": "imagenet", "data_root": "nowhere"}, "nowhere, does not exist"),
        ({"tokens": "nowhere"}, "nowhere"),
    ],
    ids=["a run without a tokenizer", "a dataset that is not there", "no tokens"],
)
def test_what_cannot_be_opened_is_said_in_a_sentence(
    lab: Any, open_notebook: OpenNotebook, parameters: dict[str, Any], sentence: str
) -> None:
    if "run_dir" in parameters:  # a record without weights
        (record,) = (REPOSITORY / "runs").glob(parameters["run_dir"].removeprefix("runs/"))
        parameters = {"run_dir": f"runs/{record.name}"}
    notebook = open_notebook("03_codebook", **parameters)
    notebook.run_all(seconds=SECONDS)  # no cell fails
    another = set() if "dataset" in parameters else {"coarse-to-fine"}  # of another tokenizer, and tokens of its own
    for name in VIEWS.keys() - another:
        expect(view(notebook, name).locator(".message")).to_contain_text(sentence)
    assert not notebook.errors, notebook.errors
