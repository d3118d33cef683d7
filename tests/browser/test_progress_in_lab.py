"""Progress in a real JupyterLab: seen while a cell runs, and afterwards neither in red boxes nor in what is saved.

(`test_notebooks_in_lab.py` looks at that of the notebooks it runs.)
"""

import re
from collections.abc import Callable
from typing import Any

import nbformat
import pytest
from browser.bars import STEPS, lines_left, run_with_bar, start, watch

from vistok.system import progress

OpenNotebook = Callable[..., Any]
WAITING = """import time
from pathlib import Path
from vistok.system.files import say
from vistok.system.progress import progress_bar

print("before")
with progress_bar(total=10**6, desc="waiting <1>", unit=" turns") as bar:
    while not Path("go-on").exists():
        bar.update()
        time.sleep(0.02)
    say("a calm warning", warning=True)
print("after")"""
IN_THREADS = """from concurrent.futures import ThreadPoolExecutor

with progress_bar(total=40, desc="in threads", unit=" turns") as bar, ThreadPoolExecutor(2) as pool:
    for _ in range(40):
        pool.submit(lambda: (time.sleep(0.1), bar.update()))"""


def new_notebook(lab: Any, name: str, *sources: str) -> None:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab.root / f"{name}.ipynb")


def test_a_bar_moves_while_its_cell_runs_and_becomes_one_line(lab: Any, open_notebook: OpenNotebook) -> None:
    new_notebook(lab, "waiting", WAITING, IN_THREADS)
    notebook = open_notebook("waiting")
    start(notebook)
    bar = notebook.page.get_by_role("progressbar", name="waiting <1>")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(bar).to_have_attribute(
        "aria-valuetext", re.compile(r"^\d+ of 1,000,000 turns · [\d.]+ turns/s · \d+ h \d+ min left$")
    )
    first = bar.get_attribute("aria-valuetext")
    expect(bar).not_to_have_attribute("aria-valuetext", first)
    later = bar.get_attribute("aria-valuetext")
    assert int(STEPS.match(later)[1].replace(",", "")) > int(STEPS.match(first)[1].replace(",", ""))
    (lab.root / "go-on").touch()
    assert len(watch(notebook)["in threads"]) > 1
    waited, in_threads = lines_left(notebook)
    assert re.fullmatch(r"waiting <1>: [\d,]+ of 1,000,000 turns in \d+ s", waited)
    assert re.fullmatch(r"in threads: 40 of 40 turns in \d+ s", in_threads)
    (said,) = [output for output in notebook.cells()[0]["outputs"] if "calm" in str(output)]
    assert said["name"] == "stdout"
    assert not notebook.errors, notebook.errors


def test_a_bar_whose_kernel_died_is_no_error_when_the_notebook_is_opened_again(
    lab: Any, open_notebook: OpenNotebook
) -> None:
    state = {
        "prefix": "training: ",
        "n": 40,
        "total": 200,
        "initial": 0,
        "elapsed": 4.0,
        "rate": 10.0,
        "unit": " steps",
    }
    state |= {"unit_scale": False, "postfix": None}
    left = {"text/html": progress.as_html(state), "text/plain": progress.sentence(state)}
    new_notebook(lab, "died", "1")
    saved = nbformat.read(lab.root / "died.ipynb", as_version=4)
    saved.cells[0].outputs = [nbformat.v4.new_output("display_data", data=left, metadata=progress.MARK)]
    nbformat.write(saved, lab.root / "died.ipynb")
    reopened = open_notebook("died")  # not trusted: JupyterLab takes out of it what could do harm
    reopened.page.get_by_text("40 of 200 steps · 10 steps/s · 16 s left").wait_for()
    assert "rror" not in reopened.text() and not reopened.errors, reopened.errors


@pytest.mark.parametrize(
    ("name", "parameters", "bar"),
    [
        ("03_codebook", {"image_size": 96}, "encoding"),
        ("04_evaluate", {}, "evaluating on photos"),
    ],
)
def test_notebooks_show_what_they_wait_for_and_leave_no_red_box(
    lab: Any, open_notebook: OpenNotebook, name: str, parameters: dict[str, Any], bar: str
) -> None:
    run_with_bar(open_notebook(name, **parameters), bar)
