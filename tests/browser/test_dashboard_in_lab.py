"""The training's dashboard and the curves of runs in a real JupyterLab, at the widths that a notebook's column has."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from vistok import TrainConfig
from vistok.runs import EXAMPLE_RUN, Report, Run

OpenNotebook = Callable[..., Any]
SECONDS = 300
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
SMOKE = {"scale": "smoke", "dataset": "photos", "row": "celeba64", "hidden_dim": 8, "batch_size": 4}
SCROLLER = ".jp-WindowedPanel-outer"


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def in_view(target: Any) -> bool:
    """Whether the upper edge of a view is on the screen."""
    return target.evaluate(
        "(box, scroller) => { const outer = box.closest(scroller).getBoundingClientRect(), { top, height } ="
        " box.getBoundingClientRect(); return height > 0 && top >= outer.top - 2 && top < outer.bottom - 100; }",
        SCROLLER,
    )


def wait_for(true: Callable[[], bool], notebook: Any) -> None:
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end and not notebook.failures(), notebook.failures()
        notebook.page.wait_for_timeout(100)


def trained(notebook: Any, steps: int) -> Any:
    """Return the dashboard, once it has taken so many steps."""
    box = notebook.page.locator(".training-dashboard")
    box.wait_for(state="attached", timeout=1000 * SECONDS)
    wait_for(lambda: int(box.locator(".steps").text_content().split()[1].replace(",", "")) >= steps, notebook)
    return box


def open_cells(lab: Any, open_notebook: OpenNotebook, name: str, *sources: str) -> Any:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, lab.root / f"{name}.ipynb")
    return open_notebook(name)


def test_run_all_shows_the_training_and_scrubbing_goes_back(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("02_train", **SMOKE, steps=1_000_000, report_every=5, checkpoint_every=1_000_000, seed=21)
    page = notebook.page
    notebook.start("notebook:run-all-cells")
    box = trained(notebook, 10)
    wait_for(lambda: in_view(box), notebook)  # though the notebook went to its last cell
    assert page.evaluate("!document.querySelector('.training-dashboard').contains(document.activeElement)")

    for width in (1280, 1460):  # the notebook's column has some 825 and 1,000 pixels
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(300)
        map_box, picture = (box.locator(name).bounding_box() for name in ("canvas[data-cells]", "img"))
        assert picture["x"] >= map_box["x"] + map_box["width"] and abs(picture["y"] - map_box["y"]) < 3
        assert box.locator("canvas.usage").bounding_box()["x"] > box.locator("canvas.losses").bounding_box()["x"]
        assert box.bounding_box()["height"] < 800

    # Back to earlier reconstructions, asked from Python by a page that has not seen them, while the cell below waits.
    scrubber, said = box.locator(".scrubber"), box.locator(".pictured")
    expect(scrubber).to_be_visible(timeout=1000 * SECONDS)
    first = said.inner_text()
    scrubber.focus()
    page.keyboard.press("Home")
    expect(said).not_to_have_text(first)
    earliest = int(re.search(r"at step ([\d,]+)\.", said.inner_text())[1].replace(",", ""))
    assert earliest == 5
    trained(notebook, int(box.locator(".steps").text_content().split()[1].replace(",", "")) + 20)
    assert f"at step {earliest}." in said.inner_text()
    box.get_by_role("button", name="latest").click()
    expect(said).not_to_have_text(re.compile("at step 5[.:]"))

    # The arrow keys read the curves, and the notebook stays as it is.
    cells = len(notebook.cells())
    losses = box.locator("canvas.losses")
    losses.focus()
    page.keyboard.press("Home")
    expect(box.locator(".readout strong")).to_have_text("step 5")
    page.keyboard.press("ArrowRight")
    expect(losses).to_have_attribute("aria-valuetext", re.compile(r"^step \d+: reconstruction 0\.\d+, "))
    assert len(notebook.cells()) == cells and losses.evaluate("canvas => canvas === document.activeElement")

    box.get_by_role("button", name="stop and save").click()
    assert notebook.finish(seconds=SECONDS) is True and not notebook.failures(), notebook.failures()
    curves = page.locator(".run-curves canvas.curves")
    curves.scroll_into_view_if_needed()
    assert int(curves.get_attribute("data-points")) > 5  # this run's, below
    assert not notebook.errors, notebook.errors


def test_whoever_scrolls_meanwhile_stays_where_he_is(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("02_train", **SMOKE, steps=1_000_000, report_every=5, checkpoint_every=1_000_000, seed=22)
    page = notebook.page
    notebook.start("notebook:run-all-cells")
    page.wait_for_timeout(500)
    page.locator(SCROLLER).first.hover()
    for _ in range(30):
        page.mouse.wheel(0, -3000)  # up to the first cell, to read while it trains
    box = trained(notebook, 20)
    assert page.locator(SCROLLER).first.evaluate("outer => outer.scrollTop") < 50
    assert not in_view(box)
    box.locator("button.stop").dispatch_event("click")
    assert notebook.finish(seconds=SECONDS) is True
    assert not notebook.errors, notebook.errors


def test_runs_lie_over_each_other_and_one_is_still_trained(lab: Any, open_notebook: OpenNotebook) -> None:
    run = Run.open(lab.runs / "still-trained", TrainConfig(steps=100))
    run.write_config("cpu")

    def report(step: int) -> None:
        losses = {"reconstruction": 1 / step, "codebook": 0.5 / step, "total": float("nan") if step == 20 else 2 / step}
        run.append_log(Report(step, losses, usage=0.5, perplexity=9.0, images_per_second=50.0, data_share=0.0))

    paths = [str(run.path), str(lab.runs / Path(EXAMPLE_RUN).name), str(lab.runs / "still-traned")]
    source = f"from vistok.widgets import RunCurves\ncurves = RunCurves({paths})\ncurves"
    notebook = open_cells(lab, open_notebook, "curves", source, "print(curves.quantity, curves.smoothing)")
    notebook.run_all(seconds=SECONDS)
    page = notebook.page
    box = page.locator(".run-curves")
    legend = box.locator(".legend > span")
    expect(legend).to_have_text(["vq (no log yet)", "ema-d4"])
    expect(box.locator(".message")).to_contain_text("Did you mean 'still-trained'")
    for step in (10, 20, 30):
        report(step)
    box.get_by_role("button", name="read the logs again").click()
    expect(legend).to_have_text(["vq (at step 30 of 100)", "ema-d4"])
    canvas = box.locator("canvas.curves")
    canvas.focus()
    page.keyboard.press("Home")
    expect(canvas).to_have_attribute("aria-valuetext", "step 10: vq 0.1000, ema-d4 –")
    box.locator("select.quantity").select_option("total")
    box.locator("input.smoothing").focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    notebook.start_cell(1)
    notebook.finish(seconds=SECONDS)
    assert "total 0.1" in notebook.text()  # what is chosen on the page is Python's, too
    log = [json.loads(line) for line in (lab.runs / Path(EXAMPLE_RUN).name / "log.jsonl").read_text().splitlines()]
    place = int(np.argmax([entry["step"] for entry in log]))
    canvas.focus()
    page.keyboard.press("End")
    expect(canvas).to_have_attribute(
        "aria-valuetext",
        re.compile(rf"^step {log[place]['step']:,}: .*raw {np.float32(log[place]['losses']['total']):#.4g}"),
    )
    assert len(notebook.cells()) == 2 and not notebook.errors, notebook.errors
