"""One's own pictures and misspelt parameters in a real JupyterLab: what a newcomer meets in the first minute."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser.lab import REPOSITORY, copy_with_parameters
from PIL import Image

SECONDS = 300
SMOKE = {"scale": "smoke", "row": "celeba64"}
OpenNotebook = Callable[..., Any]
# Whether a picture on the page has a pixel that is as magenta as no photograph of a package.
IS_MAGENTA = """pictures => pictures.some(picture => {
    const canvas = document.createElement('canvas');
    canvas.width = picture.naturalWidth || picture.width; canvas.height = picture.naturalHeight || picture.height;
    if (!canvas.width || !canvas.height) return false;
    const context = canvas.getContext('2d');
    context.drawImage(picture, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < data.length; i += 4) if (data[i] > 225 && data[i + 1] < 30 && data[i + 2] > 225) return true;
    return false; })"""


def said(notebook: Any) -> str:
    """Return the text of all outputs, of those that JupyterLab keeps out of sight too."""
    texts = notebook.page.locator(".jp-OutputArea-output").all_text_contents()
    return "\n".join(text.strip() for text in texts if text.strip())


def left_behind(lab: Any) -> list[str]:
    """Return all that runs and caches consist of."""
    folders = [lab.runs, lab.runs.parent / "cache"]
    return sorted(str(path) for folder in folders if folder.is_dir() for path in folder.rglob("*"))


def written_wrong(path: Path, name: str, wrong: dict[str, Any], in_a_cell_of_its_own: str | None = None) -> None:
    """Write a copy of a notebook as a newcomer edits it: with values that are wrong, or a line that is."""
    copy_with_parameters(REPOSITORY / "notebooks" / f"{name}.ipynb", path, wrong)
    if in_a_cell_of_its_own is not None:
        content = nbformat.read(path, as_version=4)
        place = next(i for i, cell in enumerate(content.cells) if "parameters" in cell.metadata.get("tags", []))
        content.cells.insert(place + 1, nbformat.v4.new_code_cell(in_a_cell_of_its_own))
        nbformat.write(content, path)


@pytest.mark.parametrize(
    ("name", "wrong", "line", "sentence"),
    [
        (
            "02_train",
            SMOKE,
            "codebok_dim = 8",
            "This notebook has no parameter 'codebok_dim'; did you mean 'codebook_dim'?",
        ),
        ("02_train", SMOKE | {"dataset": "photo"}, None, "dataset is 'photo'; did you mean 'photos'?"),
        ("03_codebook", {"split": "tset"}, None, "split is 'tset'; did you mean 'test'?"),
    ],
    ids=["a name in a cell below", "a dataset", "a split"],
)
def test_what_is_written_wrong_is_answered_by_one_sentence_and_leaves_nothing(
    lab: Any, open_notebook: OpenNotebook, name: str, wrong: dict[str, Any], line: str | None, sentence: str
) -> None:
    written_wrong(lab.root / "wrong.ipynb", name, wrong, line)
    before = left_behind(lab)
    notebook = open_notebook("wrong")
    notebook.start("notebook:run-all-cells")
    assert notebook.finish(seconds=SECONDS) is False
    assert len(notebook.failures()) == 1
    text = said(notebook)
    assert text.startswith(sentence) and "\n" not in text and "Traceback" not in text, text
    assert left_behind(lab) == before
    assert not notebook.errors, notebook.errors


def test_a_misspelt_parameter_is_refused_once_written_and_corrected_it_is_not(
    lab: Any, open_notebook: OpenNotebook
) -> None:
    """In the cell of parameters itself, in place of the right one; what was raised stays available."""
    written_wrong(lab.root / "wrong.ipynb", "02_train", SMOKE)
    content = nbformat.read(lab.root / "wrong.ipynb", as_version=4)
    content.cells = content.cells[:3]
    content.cells[1].source = content.cells[1].source.replace("codebook_dim = None", "codebok_dim = 8")
    content.cells.append(nbformat.v4.new_code_cell("%tb"))
    nbformat.write(content, lab.root / "wrong.ipynb")
    before = left_behind(lab)
    notebook = open_notebook("wrong")
    notebook.start("notebook:run-all-cells")
    assert notebook.finish(seconds=SECONDS) is False
    assert said(notebook) == "This notebook has no parameter 'codebok_dim'; did you mean 'codebook_dim'?"
    assert left_behind(lab) == before
    notebook.start_cell(3)
    notebook.finish(seconds=SECONDS)
    assert "check_parameters(globals())" in said(notebook)  # the whole traceback, asked for


def test_a_folder_of_twelve_pictures_is_trained_on_and_seen_in_the_dashboard(
    lab: Any, open_notebook: OpenNotebook, tmp_path: Path
) -> None:
    for number in range(12):
        Image.new("RGB", (40 + number, 33), (255, number, 255)).save(tmp_path / f"bild {number} é.png")
    own = {"dataset": "folder", "data_root": str(tmp_path), "image_size": 16, "hidden_dim": 8, "steps": 4}
    notebook = open_notebook("02_train", **(SMOKE | own))
    notebook.run_all(seconds=SECONDS)
    text = said(notebook)
    assert "batch_size is 11, not 16 as at this scale: there are no more training images." in text
    assert "training images: 11; test images for the figures: 1" in text
    dashboard = notebook.page.locator(".training-dashboard").first
    dashboard.scroll_into_view_if_needed()
    assert dashboard.get_attribute("data-phase") == "finished"
    assert dashboard.locator("img, canvas").evaluate_all(IS_MAGENTA)
    assert notebook.page.locator(".jp-RenderedImage img").evaluate_all(IS_MAGENTA)  # and in the figure below
    assert not notebook.errors, notebook.errors
