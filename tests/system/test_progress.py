"""Progress is shown where people look, and nowhere else: pages, terminals, logs, and kernels that a program runs."""

import ast
import contextlib
import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

from vistok.notebooks import cleaning, execution
from vistok.system import progress
from vistok.system.files import say
from vistok.system.paths import PACKAGE
from vistok.system.progress import KernelBars, progress_bar

WAITING = """
import time
from vistok.system.progress import progress_bar
for _ in progress_bar(range(60), desc="waiting", unit=" turns"):
    time.sleep(0.1)
"""


class Page:
    """A front end: what is displayed there, by id, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any]) -> None:
        self.shown: dict[str, dict[str, str]] = {}
        self.states: list[dict[str, str]] = []
        monkeypatch.setattr(progress, "_request", lambda: request)
        monkeypatch.setattr("IPython.display.display", self.take)
        monkeypatch.setattr("IPython.display.update_display", self.take)

    def take(self, bundle: dict[str, str], *, raw: bool, metadata: dict[str, str], display_id: str) -> None:
        assert raw and metadata == progress.MARK
        self.shown[display_id] = bundle
        self.states.append(bundle)


def request(*, person: bool) -> dict[str, Any]:
    return {"header": {"msg_type": "execute_request"}, "content": {"allow_stdin": person}}


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return Page(monkeypatch, request(person=True))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UPDATE_SECONDS", "PATIENCE_SECONDS", "FIRST_LINE_SECONDS", "LINE_SECONDS"):
        monkeypatch.setattr(progress, name, 0.0)


def test_on_a_page_a_bar_is_one_display_that_becomes_a_line(page: Page, impatient: None) -> None:
    with progress_bar(total=4, desc='<b>"x"', unit=" images") as bar:
        for _ in range(4):
            time.sleep(0.02)
            bar.update()
    assert len(page.shown) == 1 and len(page.states) >= 5
    first, half, last = page.states[0], page.states[2], page.states[-1]
    assert 'aria-label="&lt;b&gt;&quot;x&quot;"' in first["text/html"] and "<b>" not in first["text/html"]
    numbers = [int(re.search(r'aria-valuenow="(\d+)"', state["text/html"])[1]) for state in page.states[:-1]]
    assert numbers == sorted(numbers) and numbers[-1] == 100 and "images/s" in half["text/plain"]
    assert last == {"text/plain": '<b>"x": 4 of 4 images in 0 s'}


def test_on_a_page_what_is_over_soon_is_not_shown(page: Page) -> None:
    for _ in progress_bar(range(10), desc="quick"):
        pass
    assert page.states == []


def test_on_a_page_a_slow_first_step_is_shown_too(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.01)
    shown = threading.Event()
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: shown.set())
    with progress_bar(total=2, desc="slow"):
        assert shown.wait(30)


def test_on_a_page_an_interrupted_bar_says_how_far_it_came(page: Page, impatient: None) -> None:
    with pytest.raises(KeyboardInterrupt), progress_bar(total=9, desc="it") as bar:
        time.sleep(0.02)
        bar.update(2)
        raise KeyboardInterrupt
    assert page.states[-1] == {"text/plain": "it: 2 of 9 steps in 0 s"}


def test_nested_bars_are_two_displays(page: Page, impatient: None) -> None:
    with progress_bar(total=1, desc="outer") as outer, progress_bar(total=1, desc="inner") as inner:
        time.sleep(0.02)
        inner.update()
        outer.update()
    assert sorted(state["text/plain"].partition(":")[0] for state in page.shown.values()) == ["inner", "outer"]


def test_a_page_gets_no_red_box(page: Page, impatient: None, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in progress_bar(range(3), desc="it"):
        say("calm", warning=True)
    out, err = capsys.readouterr()
    assert (out, err) == ("calm\n" * 3, "")


def test_a_click_shows_no_bar(
    monkeypatch: pytest.MonkeyPatch, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Page(monkeypatch, {"header": {"msg_type": "comm_msg"}, "content": {"data": {}}})
    for _ in progress_bar(range(3), desc="it"):
        time.sleep(0.02)
    assert page.states == [] and capsys.readouterr() == ("", "")
    say("calm", warning=True)
    assert capsys.readouterr() == ("calm\n", "")


def test_an_interrupt_while_it_is_shown_keeps_no_other_thread_waiting(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.0)
    bar = progress_bar(total=3, desc="it")
    bar._timer.cancel()
    bar._timer.join()
    monkeypatch.setattr(bar, "_show", interrupted)
    time.sleep(0.02)
    with pytest.raises(KeyboardInterrupt):
        bar.refresh()
    monkeypatch.undo()
    went_on = threading.Event()

    def other() -> None:
        with bar.get_lock():
            went_on.set()

    threading.Thread(target=other, daemon=True).start()
    assert went_on.wait(30)
    bar.close()


def test_a_log_gets_few_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A training of an hour, of ten seconds, and one of ten days."""
    clock = {"now": 0.0}
    for total, seconds, least, most in ((3600, 1.0, 9, 13), (100, 0.1, 1, 3), (1000, 864.0, 500, 1002)):
        with progress_bar(total=total, desc="it") as bar:
            clock["now"] = bar.start_t
            bar._time = lambda: clock["now"]
            for _ in range(total):
                clock["now"] += seconds
                bar.update()
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == "" and least <= len(lines) <= most and "\r" not in err and "\x1b" not in err, lines
        assert lines[-1] == f"it: {total:,} of {total:,} steps in {progress.span(total * seconds)}"
    with progress_bar(total=100, desc="quick") as bar:
        bar.update(100)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"n": 400, "total": 1200, "rate": 16.0, "elapsed": 25}, "400 of 1,200 steps · 16 steps/s · 50 s left"),
        ({"n": 400, "total": 1200, "initial": 390, "elapsed": 25}, "400 of 1,200 steps · 2.5 s each · 33 min left"),
        ({"n": 0, "total": 1200, "elapsed": 2}, "0 of 1,200 steps · for 2 s so far"),
        ({"n": 0, "elapsed": 100}, "for 2 min so far"),
        ({"n": 3, "elapsed": 1, "postfix": "loss 1.0"}, "3 steps · 3 steps/s · loss 1.0"),
        ({"n": 9, "total": 4, "rate": 3, "elapsed": 3}, "9 of 4 steps · 3 steps/s · 0 s left"),
        (
            {"n": 5e6, "total": 1e7, "rate": 1e6, "unit": "B", "unit_scale": True},
            "5.00M of 10.0MB · 1.00MB/s · 5 s left",
        ),
    ],
)
def test_the_sentence(state: dict[str, Any], expected: str) -> None:
    whole = {"n": 0, "total": None, "initial": 0, "rate": None, "elapsed": 0, "unit": " steps", "unit_scale": False}
    assert progress.sentence(whole | {"postfix": None, "prefix": ""} | state) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (99, "99 s"), (100, "2 min"), (3600, "60 min"), (7260, "2 h 1 min"), (10**7, "2,777 h 47 min")],
)
def test_times_are_said_as_people_do(seconds: float, words: str) -> None:
    assert progress.span(seconds) == words


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(WAITING)])
    content.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(content, tmp_path / "waiting.ipynb")
    return tmp_path / "waiting.ipynb"


def papermill(notebook: Path, stderr: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "papermill", notebook.name, "out.ipynb"]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "90"}
    return subprocess.Popen(command, cwd=notebook.parent, stdout=subprocess.DEVNULL, stderr=stderr, env=environment)


def outputs(notebook: Path) -> list[Any]:
    (cell,) = nbformat.read(notebook, as_version=4).cells
    return cell.outputs


@pytest.mark.slow
def test_papermill_in_a_terminal_shows_the_steps_of_a_cell_under_its_own_bar(notebook: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 100))
    process = papermill(notebook, theirs)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
        while part := os.read(ours, 2**16):
            text += part
    os.close(ours)
    assert process.wait(300) == 0, text
    steps = [int(step) for step in re.findall(rb"waiting: .*? (\d+)/60 \[", text)]
    assert len(set(steps)) > 3 and steps == sorted(steps), text
    assert b"turns/s" in text and b"\x1b[A" in text  # on the line below, and back
    assert outputs(notebook.with_name("out.ipynb")) == []


@pytest.mark.slow
def test_papermill_in_a_pipe_says_lines(notebook: Path) -> None:
    process = papermill(notebook, subprocess.PIPE)
    text = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 0, text
    lines = [line for line in text.split("\n") if line.startswith("waiting: ")]
    assert re.fullmatch(r"waiting: \d+ of 60 turns · [\d.]+ turns/s · \d+ s left", lines[0]), text
    assert re.fullmatch(r"waiting: 60 of 60 turns in \d+ s", lines[-1]) and len(lines) == 2, text
    assert outputs(notebook.with_name("out.ipynb")) == []


@pytest.mark.slow
def test_a_notebook_that_is_run_from_here_shows_its_steps_here(
    notebook: Path, page: Page, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE.parent))
    content = nbformat.read(notebook, as_version=4)
    content.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(content, notebook)
    with KernelBars("both") as kernels:
        kernels.begin("starting it", prefix="1 of 1, ")
        execution.execute(notebook, notebook.with_name("out.ipynb"), {})
    lines = [state["text/plain"] for state in page.states]
    assert lines[0].startswith("1 of 1, starting it: for ")
    steps = [int(m[1]) for line in lines if (m := re.match(r"1 of 1, waiting: (\d+) of 60 turns", line))]
    assert len(set(steps)) > 3 and steps == sorted(steps)
    assert re.fullmatch(r"both: 1 notebook in \d+ s", lines[-1])
    assert len(page.shown) == 1 and capfd.readouterr().err == "" and progress.FOLLOWED not in os.environ
    assert outputs(notebook.with_name("out.ipynb")) == []


def test_cleaning_drops_what_a_bar_has_left(tmp_path: Path) -> None:
    left = nbformat.v4.new_output("display_data", data={"text/plain": "it: 3 of 3 in 1 s"}, metadata=progress.MARK)
    kept = nbformat.v4.new_output("display_data", data={"text/plain": "a figure"})
    cell = nbformat.v4.new_code_cell("1", outputs=[left, kept])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "it.ipynb")
    cleaning.clean(tmp_path / "it.ipynb")
    assert [output.data["text/plain"] for output in outputs(tmp_path / "it.ipynb")] == ["a figure"]


def test_nothing_else_makes_bars() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name == "progress.py":
            continue
        for call in (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)):
            assert ast.unparse(call.func) not in ("tqdm", "trange", "tqdm.tqdm"), f"{path.name}:{call.lineno}"


def test_a_followed_bar_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_request", lambda: request(person=False))
    monkeypatch.setenv(progress.FOLLOWED, str(tmp_path / "bar.json"))
    with progress_bar(total=8, initial=2, desc="it") as bar:
        bar.n = 5
        bar.set_postfix_str("loss 1.0")
        state = json.loads((tmp_path / "bar.json").read_bytes())
    assert (state["n"], state["total"], state["initial"], state["postfix"]) == (5, 8, 2, "loss 1.0")


def test_a_followed_file_is_whole_whoever_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_request", lambda: request(person=False))
    monkeypatch.setenv(progress.FOLLOWED, str(tmp_path / "bar.json"))
    with progress_bar(total=8, desc="short") as short, progress_bar(total=10**9, desc="long " * 200) as long:

        def write(bar: Any) -> None:
            for _ in range(500):
                bar.display()

        writers = [threading.Thread(target=write, args=(bar,)) for bar in (short, long)]
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert json.loads((tmp_path / "bar.json").read_bytes())["total"] in (8, 10**9)
    assert [file.name for file in tmp_path.iterdir()] == ["bar.json"]


def test_without_standard_error_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    for _ in progress_bar(range(3)):
        pass
    monkeypatch.setattr(progress, "_request", lambda: request(person=False))
    for _ in progress_bar(range(3)):
        pass
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # without a number
    for _ in progress_bar(range(3)):
        pass
