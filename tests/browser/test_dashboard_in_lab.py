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
BESIDE, PROMPT = 83, 85  # pixels: what stands beside a notebook's column, and in it beside the outputs
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


def test_run_all_shows_the_training(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("02_train", **SMOKE, steps=1_000_000, report_every=5, checkpoint_every=1_000_000, seed=21)
    page = notebook.page
    notebook.start("notebook:run-all-cells")
    box = trained(notebook, 10)
    expect(box.locator("img")).to_be_visible()
    wait_for(lambda: in_view(box), notebook)  # though the notebook went to its last cell
    assert page.evaluate("!document.querySelector('.training-dashboard').contains(document.activeElement)")

    for width in (825, 1000, 1300):  # of the notebook's column, its prompts included
        page.set_viewport_size({"width": width + BESIDE, "height": 1000})
        wait_for(lambda width=width: abs(box.bounding_box()["width"] - width + PROMPT) < 30, notebook)
        map_box, picture = (box.locator(name).bounding_box() for name in ("canvas[data-cells]", "img"))
        assert picture["x"] >= map_box["x"] + map_box["width"] and abs(picture["y"] - map_box["y"]) < 3
        assert box.locator("canvas.usage").bounding_box()["x"] > box.locator("canvas.losses").bounding_box()["x"]
        assert box.bounding_box()["height"] < 700
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")

    box.locator("button.stop").dispatch_event("click")
    assert notebook.finish(seconds=SECONDS) is True and not notebook.failures(), notebook.failures()
    assert int(page.locator(".run-curves canvas.curves").get_attribute("data-points")) > 1  # this run's, below
    assert not notebook.errors, notebook.errors


TRAINING = """
import torch
from vistok import Run, TrainConfig, Trainer
from vistok.widgets import TrainingDashboard, dashboard as module
module.PICTURES_SHARE = 1e9  # as many as can be, however busy the machine
config = TrainConfig(hidden_dim=8, batch_size=2, steps=1_000_000, report_every=5, checkpoint_every=1_000_000, dataset="photos")
images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
dashboard = TrainingDashboard(Trainer(Run.open(None, config), progress=False), images, images_every=0.5)
dashboard.start()
"""


def test_reconstructions_are_scrubbed_and_curves_read_while_it_trains(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_cells(lab, open_notebook, "training", TRAINING, "dashboard.wait()", "dashboard.shown_step = -1")
    page = notebook.page
    notebook.start("notebook:run-all-cells")
    box = trained(notebook, 15)
    scrubber, said, latest = (
        box.locator(".scrubber"),
        box.locator(".pictured"),
        box.get_by_role("button", name="latest"),
    )
    expect(scrubber).to_be_visible()
    scrubber.focus()
    page.keyboard.press("Home")
    expect(said).to_have_text("Originals, and below them their reconstructions at step 5.")
    now = int(box.locator(".steps").text_content().split()[1].replace(",", ""))
    trained(notebook, now + 20)
    assert "at step 5." in said.inner_text()  # newer ones have come, and nobody is taken to them
    latest.click()
    expect(said).not_to_contain_text("at step 5.")

    # The arrow keys read the curves, and the notebook stays as it is.
    losses = box.locator("canvas.losses")
    losses.focus()
    page.keyboard.press("Home")
    expect(box.locator(".readout strong")).to_have_text("step 5")
    page.keyboard.press("ArrowRight")
    expect(losses).to_have_attribute("aria-valuetext", re.compile(r"^step 10: reconstruction 0\.\d+, "))
    assert losses.evaluate("canvas => canvas === document.activeElement")
    box.locator("button.stop").click()
    assert notebook.finish(seconds=SECONDS) is True and not notebook.failures(), notebook.failures()

    # Shown anew at its end, it asks Python for what this view of it has not seen.
    scrubber.focus()
    page.keyboard.press("Home")
    expect(said).to_have_text("Originals, and below them their reconstructions at step 5.")
    notebook.start_cell(2)
    notebook.finish(seconds=SECONDS)
    expect(said).not_to_contain_text("at step 5.")
    assert len(notebook.cells()) == 3 and not notebook.errors, notebook.errors


def test_whoever_scrolls_meanwhile_stays_where_he_is(lab: Any, open_notebook: OpenNotebook) -> None:
    notebook = open_notebook("02_train", **SMOKE, steps=1_000_000, report_every=5, checkpoint_every=1_000_000, seed=22)
    page = notebook.page
    notebook.start("notebook:run-all-cells")
    scroller = page.locator(SCROLLER).first
    wait_for(lambda: scroller.evaluate("outer => outer.scrollTop") > 2000, notebook)  # taken to the last cell
    page.wait_for_timeout(1000)
    scroller.hover()
    while scroller.evaluate("outer => outer.scrollTop"):
        page.mouse.wheel(0, -3000)  # up to the first cell, to read while it trains
        page.wait_for_timeout(50)
    box = trained(notebook, 20)
    assert scroller.evaluate("outer => outer.scrollTop") < 50
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
    box.locator("input.smoothing").fill("0.1")

    def chosen_in_python() -> str:
        notebook.start_cell(1)
        assert notebook.finish(seconds=SECONDS) is True
        return "".join(notebook.cells()[1]["outputs"][0]["text"]).strip()

    # What is chosen on the page is Python's, too. A page sends a change only when the one before is answered, so a cell that
    # is started at once may still read the value before.
    wait_for(lambda: chosen_in_python() == "total 0.1", notebook)
    log = [json.loads(line) for line in (lab.runs / Path(EXAMPLE_RUN).name / "log.jsonl").read_text().splitlines()]
    place = int(np.argmax([entry["step"] for entry in log]))
    canvas.focus()
    page.keyboard.press("End")
    expect(canvas).to_have_attribute(
        "aria-valuetext",
        re.compile(rf"^step {log[place]['step']:,}: .*raw {np.float32(log[place]['losses']['total']):#.4g}"),
    )
    assert len(notebook.cells()) == 2 and not notebook.errors, notebook.errors
