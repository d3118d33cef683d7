"""Keys pressed in a view, in a real JupyterLab: the notebook gets none of them, every control is reached and moved by them."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browser.lab import opened_notebooks, write_notebook
from browser.views import ENCODED, source, view_classes

SECONDS = 300
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


@pytest.fixture(scope="module")
def views(lab: Any, browser: Any) -> Iterator[Any]:
    """A notebook that shows every view, run to its end; what a view's own cell raises, its test says."""
    write_notebook(lab, "keys", ENCODED, *map(source, view_classes()), "'after'")
    with opened_notebooks(lab, browser) as open_copy:
        notebook = open_copy("keys")
        notebook.start("notebook:run-all-cells")
        notebook.finish(SECONDS)
        yield notebook


@pytest.mark.parametrize("name", view_classes())
def test_no_key_in_a_view_reaches_the_notebook_and_every_control_is_reached(views: Any, name: str) -> None:
    page = views.page
    box = page.locator(".jp-Notebook .jp-Cell").nth(1 + view_classes().index(name)).locator(".vistok")
    assert box.count() == 1, views.failures()
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
    assert not views.errors, views.errors


def _kinds_of_controls(box: Any) -> dict[str, Any]:
    """Return one control of each kind that a view has."""
    found = box.locator("button, select, input, textarea, [tabindex]")
    all_ = [one for one in found.all() if one.is_visible() and one.is_enabled()]
    return {
        one.evaluate("one => `${one.tagName} ${one.type ?? ''} ${one.getAttribute('role') ?? ''}`"): one for one in all_
    }


def test_arrows_move_selects_and_sliders_and_a_save_is_still_a_save(
    lab: Any, open_notebook: Callable[..., Any]
) -> None:
    write_notebook(lab, "arrows", ENCODED, "editor = TokenEditor(encoded); editor", "CodebookExplorer(encoded)")
    notebook = open_notebook("arrows")
    notebook.run_all(SECONDS)
    page = notebook.page
    expect = pytest.importorskip("playwright.sync_api").expect
    order = page.locator("select.sort")
    order.focus()
    page.keyboard.press("ArrowDown")
    expect(order).to_have_value("count")
    slider = page.locator(".token-editor input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("0.03")
    page.keyboard.press("Control+s")
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    saved = json.loads((lab.root / "arrows.ipynb").read_text())
    assert saved["cells"][1]["outputs"]
    assert not notebook.errors, notebook.errors
