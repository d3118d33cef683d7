"""Every view, in one notebook that is run once: what it looks like, which keys it takes, and what is left of it without Python.

At the two widths that a notebook's column usually has, in both themes, nothing is cut off or scrolls sideways. Of the keys that
are pressed in a view the notebook gets none; every control is reached and moved by them. Saved and opened again without its
kernel, trusted or not, the notebook still shows the views.

`VISTOK_LOOK=FOLDER` keeps the photographs of all views there, those of the notebook that was opened again among them: to be
looked at by somebody.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browser.lab import REPOSITORY, Lab, NotebookPage, eventually, opened_notebooks, write_notebook
from browser.views import ENCODED, saved_models, shows_what_it_knows, source, view_classes
from PIL import Image

SECONDS = 300
GONE = "The kernel that made this view is gone: what needs Python needs the cell to be run again."
NEEDS_NO_PYTHON = ("TrainingDashboard", "QuantizerGallery")  # once trained; drawn by the page
# Controls and pictures of a view that reach beyond its edges, and whether it would have to be scrolled sideways.
BEYOND = """view => { const edge = view.getBoundingClientRect();
    const out = [...view.querySelectorAll("canvas, img, button, select, input, svg, .caption")].filter(part => {
        const box = part.getBoundingClientRect();
        return box.width > 0 && !part.closest(".hidden-text, .tip")
            && (box.right > edge.right + 1 || box.left < edge.left - 1);
    }).map(part => `${part.tagName} ${part.className}`);
    return view.scrollWidth > view.clientWidth + 1 ? [...out, `scrolls sideways: ${view.scrollWidth}`] : out; }"""
# With them JupyterLab deletes, inserts, cuts, pastes, turns, merges, moves and runs cells, and goes from one to another.
MOVES = ["Delete", "ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home", "End", "Space", "Shift+M", "Shift+Z"]
RUNS = [
    "Enter",
    "Shift+Enter",
    "Control+Enter",
    "Alt+Enter",
    "Control+x",
    "Control+v",
    "Control+z",
    "Control+Shift+ArrowUp",
]
KEYS = [*"ddabxcvzymr1jko", *MOVES, *RUNS]
# The notebook as its reader has it: cells with their numbers, which one is active, and what was run.
STATE = """() => { const { content } = window.jupyterapp.shell.currentWidget;
    return { cells: content.widgets.map(cell => [cell.model.id, cell.model.type, cell.model.sharedModel.getSource(),
        cell.model.executionCount]), active: content.activeCellIndex, mode: content.mode }; }"""
# Focuses a control if it is there to be used; whether it is.
FOCUS = """found => found.some((one) =>
    one.checkVisibility({ visibilityProperty: true }) && !one.disabled && (one.focus(), true))"""
# How many controls the tab key goes through.
REACHABLE = """box => [...box.querySelectorAll("button, select, input, textarea, summary, a[href], [tabindex]")].filter((one) =>
    one.tabIndex >= 0 && !one.disabled && one.checkVisibility({ visibilityProperty: true })).length"""


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the photographs go."""
    folder = Path(os.environ.get("VISTOK_LOOK") or tmp_path_factory.mktemp("views"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def shown(lab: Lab, browser: Any) -> Iterator[NotebookPage]:
    """A notebook with every view, run."""
    write_notebook(lab, "every_view", ENCODED, *map(source, view_classes()), "'after'")
    with opened_notebooks(lab, browser) as open_copy:
        notebook = open_copy("every_view")
        notebook.run_all(SECONDS)
        yield notebook


@pytest.fixture(scope="module")
def left(lab: Lab, shown: NotebookPage) -> Path:
    """A copy of it as it is saved, as trusted as itself: JupyterLab signs what is in a notebook, whatever its name."""
    shown.save()
    return shutil.copy(lab.root / "every_view.ipynb", lab.root / "left.ipynb")


@pytest.fixture(scope="module")
def reopened(lab: Lab, browser: Any, shown: NotebookPage, left: Path) -> Iterator[NotebookPage]:
    """The copy, opened once the kernel is gone that made its views: the tests above no longer have theirs."""
    shown.page.context.close()
    lab.shut_down_kernels()
    with opened_notebooks(lab, browser) as open_copy:
        yield open_copy(left.stem, again=True)


def photograph_all(notebook: NotebookPage, folder: Path, name: str) -> None:
    """Photograph every view, and check that it fits and is drawn."""
    with notebook.as_high_as_its_views():
        for number, view in enumerate(view_classes(), 1):
            box = notebook.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".vistok")
            eventually(lambda box=box, view=view: _fits_and_is_drawn(box, folder / f"{view}-{name}.png"))


def _fits_and_is_drawn(box: Any, file: Path) -> None:
    box.scroll_into_view_if_needed()
    box.page.wait_for_timeout(100)
    box.screenshot(path=file)
    assert not box.evaluate(BEYOND), (file.stem, box.evaluate(BEYOND))
    few_colours = Image.open(file).convert("RGB").getcolors(maxcolors=20)
    assert few_colours is None, f"{file} shows nothing"  # there are more


@pytest.mark.parametrize("width", [825, 1300])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_and_is_drawn(shown: NotebookPage, look: Path, theme: str, width: int) -> None:
    shown.set_theme(theme)
    shown.set_column(width)
    photograph_all(shown, look, f"{width}-{theme}")
    assert not shown.errors, shown.errors


def test_arrows_move_selects_and_sliders_and_a_save_is_still_a_save(lab: Lab, shown: NotebookPage) -> None:
    page = shown.page
    order = page.locator(".codebook-explorer select.sort")
    order.focus()
    page.keyboard.press("ArrowDown")
    expect(order).to_have_value("count")
    slider = page.locator(".token-editor input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("0.03")
    assert page.evaluate("window.jupyterapp.shell.currentWidget.context.model.dirty")
    page.keyboard.press("Control+s")
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    saved = json.loads((lab.root / "every_view.ipynb").read_text())
    assert all(cell["outputs"] for cell in saved["cells"][1:])
    assert not shown.errors, shown.errors


def test_a_page_of_a_saved_notebook_shows_the_pictures_without_the_internet(left: Path) -> None:
    text = (REPOSITORY / "notebooks" / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"`(jupyter nbconvert [^`]*)`[^`]*`(--[^`]*)`", text)
    made = subprocess.run(
        [sys.executable, "-m", *" ".join(command).split(), "--stdout", str(left)], capture_output=True, text=True
    )
    assert made.stdout.count("<img") == len(view_classes()), made.stderr
    assert "widget-view+json" not in made.stdout


@pytest.mark.parametrize("name", view_classes())
def test_no_key_in_a_view_reaches_the_notebook_and_every_control_is_reached(shown: NotebookPage, name: str) -> None:
    page = shown.page
    box = page.locator(".jp-Notebook .jp-Cell").nth(1 + view_classes().index(name)).locator(".vistok")
    assert box.count() == 1, shown.failures()
    box.scroll_into_view_if_needed()
    box.evaluate("box => box.focus()")
    before = page.evaluate(STATE)
    for kind, control in [*_kinds_of_controls(box).items(), ("the view itself", box)]:
        for key in KEYS:
            if control.evaluate_all(FOCUS):  # else Space pressed it, and it is gone
                page.keyboard.press(key)
        assert page.evaluate(STATE) == before, kind
    number = box.evaluate(REACHABLE)
    box.evaluate("box => box.focus()")
    inside = []
    for _ in range(number + 1):
        page.keyboard.press("Tab")
        inside.append(box.evaluate("box => box.contains(document.activeElement)"))
    assert inside == [True] * number + [False]
    assert not shown.errors, shown.errors


def _kinds_of_controls(box: Any) -> dict[str, Any]:
    """Return one control of each kind that a view has."""
    found = box.locator("button, select, input, textarea, [tabindex]")
    all_ = [one for one in found.all() if one.is_visible() and one.is_enabled()]
    return {
        one.evaluate("one => `${one.tagName} ${one.type ?? ''} ${one.getAttribute('role') ?? ''}`"): one for one in all_
    }


def test_it_is_seen_without_its_kernel(reopened: NotebookPage, look: Path) -> None:
    expect(reopened.page.locator(".vistok[data-live=false]")).to_have_count(len(view_classes()), timeout=180_000)
    reopened.set_column(825)
    photograph_all(reopened, look, "825-again")
    assert not reopened.errors, reopened.errors


def test_a_trusted_notebook_without_its_kernel_shows_the_views(left: Path, reopened: NotebookPage) -> None:
    notebook = reopened
    assert left.stat().st_size < 4_000_000
    before = saved_models(left)
    shows_what_it_knows(notebook, len(view_classes()))
    for number, name in enumerate(view_classes(), 1):
        box = notebook.page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".vistok")
        shown = box.locator(".gone:not([hidden])")
        assert shown.all_text_contents() == ([] if name in NEEDS_NO_PYTHON else [GONE]), name
    # What needs Python answers, and is drawn as it was; what does not works.
    editor = notebook.page.locator(".token-editor")
    editor.get_by_role("button", name="swap region").click()
    expect(editor.locator(".message")).to_have_text(GONE)
    notebook.page.keyboard.press("Escape")
    expect(editor.locator(".message")).to_be_hidden()
    viewer = notebook.page.locator(".reconstruction-viewer")
    # Not `inner_text`, which says nothing of what is out of sight.
    heading = viewer.locator("[data-role=psnr]").text_content()
    assert heading
    viewer.locator("[role=radio][aria-checked=false]").first.click()
    expect(viewer.locator(".message")).to_have_text(GONE)
    assert viewer.locator("[data-role=psnr]").text_content() == heading
    lens = viewer.locator("select").first
    lens.select_option("8")
    expect(lens).to_have_value("8")
    # The next day's save keeps what it did not make.
    notebook.save()
    assert saved_models(left) == before
    assert not notebook.errors, notebook.errors


def test_an_untrusted_notebook_shows_the_pictures(left: Path, open_notebook: Callable[..., Any]) -> None:
    copy = nbformat.read(left, as_version=4)
    copy.cells[0].source += "  # from somebody else"
    nbformat.write(copy, left.with_name("untrusted.ipynb"))
    notebook = open_notebook("untrusted", again=True)
    expect(notebook.page.locator(".jp-OutputArea-output img")).to_have_count(len(view_classes()))
    expect(notebook.page.locator(".vistok")).to_have_count(0)
    assert not notebook.errors, notebook.errors
