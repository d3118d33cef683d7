"""The codebook explorer in a real JupyterLab and Chromium: first paint, a chosen code's patches, and 262,144 codes.

    PYTHONPATH=tests python -m benchmarks.bench_widgets

The tokenizers have random weights, which cost what trained ones do; the images are the 512 of photos' test split, their
tokens drawn at random, some codes far more often than others, so that there are patches to show. First paint runs from the
arrival of the data in the page to the second frame after it was drawn; choosing a code from the key that chooses it, which is
what a click does, through the kernel, to its drawn patches. At 262,144 codes a browser trace gives the longest task of the
page's main thread, the time for which it cannot answer, while the pointer moves over the map, zooms, and sorts it anew.
"""

import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from benchmarks.harness import print_rows, row
from browser.lab import FLAGS, NotebookPage, opened_notebooks, running_lab

CODEBOOKS = {  # K to the quantizer and its options
    16_384: ("vq", {"codebook_size": 16_384, "codebook_dim": 8}),
    262_144: ("lfq", {"codebook_size": 262_144, "codebook_dim": 18}),
}
CLICKS = 12
SOURCE = """
import torch, vistok
from vistok import widgets
from vistok.data import open_dataset
from vistok.tokens.encoded import EncodedImages
torch.manual_seed(0)
model = vistok.VisualTokenizer(quantizer={quantizer!r}, quantizer_options={options!r}, network_options={{"hidden_dim": 64}})
images = open_dataset("photos", "test", 64).images(range(512))
indices = (torch.rand(512, 16, 16) ** 3 * model.quantizer.codebook_size).long()
widgets.CodebookExplorer(EncodedImages(model.eval(), images, indices))
"""
MEASURES = "name => performance.getEntriesByName(name).map(entry => entry.duration / 1000)"


def run() -> list[dict[str, Any]]:
    """Measure every case; returns rows with case, value, unit, goal and peak_memory_mib."""
    from playwright.sync_api import sync_playwright

    rows = []
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=FLAGS)
        with running_lab(Path(folder)) as lab:
            for size, (quantizer, options) in CODEBOOKS.items():
                _write(lab.root / f"codes-{size}.ipynb", SOURCE.format(quantizer=quantizer, options=options))
                with opened_notebooks(lab, browser) as open_notebook:
                    notebook = open_notebook(f"codes-{size}")
                    notebook.run_all(seconds=300)
                    rows += _explored(notebook, size)
                    if size > 100_000:
                        rows += _traced(browser, notebook, size, Path(folder) / "trace.json")
                    assert not notebook.errors, notebook.errors
        browser.close()
    return rows


def _write(path: Path, source: str) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)


def _explored(notebook: NotebookPage, size: int) -> list[dict[str, Any]]:
    page = notebook.page
    page.wait_for_selector("[data-painted=true]")
    (paint,) = page.evaluate(MEASURES, "vistok:first-paint")
    for number in range(CLICKS):  # low codes are the frequent ones
        page.locator("input.go").fill(str(3 * number + 1))
        page.keyboard.press("Enter")
        page.wait_for_function(
            "wanted => performance.getEntriesByName('vistok:click-to-patches').length > wanted", arg=number
        )
        assert page.locator(".detail .pair").count() > 0
    clicks = page.evaluate(MEASURES, "vistok:click-to-patches")
    return [
        row(f"K = {size:,}: first paint after the data arrived", paint, "s", goal=-1.0),
        row(
            f"K = {size:,}: choosing a code to its patches, median of {CLICKS}",
            statistics.median(clicks),
            "s",
            goal=-0.5,
        ),
        row(f"K = {size:,}: choosing a code to its patches, slowest", max(clicks), "s"),
    ]


def _traced(browser: Any, notebook: NotebookPage, size: int, file: Path) -> list[dict[str, Any]]:
    """Move over, zoom and sort the map under a browser trace; return the longest task of the page's main thread for each."""
    page = notebook.page
    canvas = page.locator("canvas.map")
    box = canvas.bounding_box()

    def hover() -> None:
        for place in range(60):
            page.mouse.move(box["x"] + 10 + 6 * place, box["y"] + 20 + 5 * place)

    def zoom() -> None:
        for _ in range(5):
            page.locator("button.zoom-in").click()
        page.get_by_text("whole map").click()

    def sort() -> None:
        for order in ("count", "similarity", "index"):
            page.locator("select.sort").select_option(order)

    rows = []
    for name, act in (("moving over the map", hover), ("zooming", zoom), ("sorting", sort)):
        browser.start_tracing(page=page, path=file, categories=["toplevel", "disabled-by-default-devtools.timeline"])
        act()
        browser.stop_tracing()
        rows.append(row(f"K = {size:,}: longest task while {name}", _longest_task(file), "s", goal=-0.2))
    return rows


def _longest_task(file: Path) -> float:
    """Return the longest task of any renderer's main thread in a trace, in seconds."""
    events = json.loads(file.read_text())["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    main = {thread for thread, name in names.items() if name == "CrRendererMain"}
    tasks = [e["dur"] for e in events if e.get("ph") == "X" and "RunTask" in e["name"] and (e["pid"], e["tid"]) in main]
    return max(tasks) / 1e6


if __name__ == "__main__":
    print_rows(run())
