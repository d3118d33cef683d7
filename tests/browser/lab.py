"""A JupyterLab on loopback, and notebooks that are open in it: what tests and benchmarks in a browser start.

Nothing of the repository is written to: notebooks are opened as copies, runs and caches lie in temporary folders, and
the kernels reach no network, so that a test is the same on a machine with one and on a machine without.
"""

import ast
import base64
import contextlib
import io
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from helpers.forked_kernels import forked_kernels
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
RECORD_FILES = ("config.json", "log.jsonl", "metrics.json")  # of a committed run, what tables read
SCREENSHOTS = REPOSITORY / "notebooks" / "screenshots"
MAKING_SCREENSHOTS = bool(os.environ.get("VISTOK_SCREENSHOTS"))
NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there: downloads are refused at once
FLAGS = [
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
FOLDERS = {  # environment variable to folder under the lab's own
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "IPYTHONDIR": "ipython",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "VISTOK_RUNS": "runs",
    "VISTOK_CACHE": "cache",
    "TORCH_HOME": "torch",
}
NORMAL = (  # what a JupyterLab that is well says as an error
    "Failed to load resource",  # /lsp/status is not there
    "Could not restore the debugger state",  # of a kernel that is restarted meanwhile
)
# What kernels run as they start: a bar comes at once and moves often, so that a test of what bars show does not depend on how
# fast a machine is (else what is over within half a second shows none, and some that go again come after two).
BARS_AT_ONCE = """from vistok.system import progress
progress.PATIENCE_SECONDS, progress.UPDATE_SECONDS = 0.0, 0.1
def _at_once(*values, bar=progress.progress_bar, **options):
    return bar(*values, **(options | {"delay": 0.0}))
progress.progress_bar = _at_once
del progress, _at_once
"""
START_SECONDS = 120  # until the server, a page or a kernel has surely started; a few where nothing else runs

# The notebook is ready: its document is loaded and its kernel waits for work.
READY = """() => { const widget = window.jupyterapp?.shell.currentWidget;
    return !!(widget?.context?.isReady && widget.sessionContext?.session?.kernel?.status === 'idle'); }"""
# No view of the notebook waits for its models any more.
LOADED = """() => !document.querySelector('.jp-Notebook').innerText.includes('Loading widget...')"""
# Starts a command without waiting for it; its result is found in `window.finished`.
START = """command => { window.finished = undefined;
    window.jupyterapp.commands.execute(command).then(result => { window.finished = result ?? null; },
                                                     error => { window.finished = String(error); }); }"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.toJSON())"
# Text of cells by line, also of what JupyterLab keeps out of sight, of which `innerText` says nothing.
TABLES = """tables => tables.map(table => [...table.querySelectorAll("tr")].map(row =>
    [...row.querySelectorAll("th, td")].map(cell => {
        const copy = cell.cloneNode(true);
        copy.querySelectorAll("br").forEach(br => br.replaceWith("\\n"));
        return copy.textContent.trim();
    })))"""
COLUMN = """() => { const areas = [...document.querySelectorAll('.jp-OutputArea-output, .jp-InputArea-editor')];
    return Math.max(0, ...areas.map(area => area.getBoundingClientRect().width)); }"""
THEME_FILE = "@jupyterlab/apputils-extension/themes.jupyterlab-settings"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
SELECT = "index => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = index; }"
# Of an image on the page, once it is decoded: its own size, the size it is shown at, how many colours it has, and a number that
# changes with any of its pixels.
MEASURE_IMAGE = """async image => {
    await image.decode();
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    const shown = image.getBoundingClientRect();
    return {natural: [image.naturalWidth, image.naturalHeight], shown: [shown.width, shown.height],
            colours: new Set(pixels).size,
            sum: pixels.reduce((sum, pixel) => (Math.imul(sum, 31) + pixel) | 0, 0)}; }"""


def pixels(canvas: Any) -> np.ndarray:
    """Return what a canvas shows, uint8 [H, W, 3]."""
    png = base64.b64decode(canvas.evaluate("canvas => canvas.toDataURL('image/png').split(',')[1]"))
    return np.asarray(Image.open(io.BytesIO(png)))[..., :3]


class Lab:
    """A running JupyterLab.

    Attributes:
        url: where it answers.
        token: what it asks for.
        root: the folder that it shows.
        runs: its kernels' `VISTOK_RUNS`.
        log: the file of what it printed.
    """

    def __init__(self, url: str, token: str, base: Path) -> None:
        self.url, self.token = url, token
        self.root, self.runs, self.log = base / "root", base / "runs", base / "lab.log"

    def request(self, path: str, method: str = "GET", seconds: float = 30) -> Any:
        """Return the answer of the server's REST interface."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"token {self.token}")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment's proxy
        with opener.open(request, timeout=seconds) as answer:
            return json.loads(answer.read() or "null")

    def shut_down_kernels(self) -> None:
        """End every kernel of this server, also one that is busy."""
        for session in self.request("/api/sessions"):
            self.request(f"/api/sessions/{session['id']}", "DELETE")


class NotebookPage:
    """A notebook that is open in JupyterLab.

    Attributes:
        page: Playwright's page.
        errors: what the page threw or logged as an error.
    """

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type == "error" and not any(text in message.text for text in NORMAL):
            self.errors.append(message.text)

    def start(self, command: str) -> None:
        """Start one of JupyterLab's commands, for instance `notebook:run-all-cells`, and do not wait for it."""
        self.page.evaluate(START, command)

    def finish(self, seconds: float) -> Any:
        """Wait for the started command and return its result; for commands that run cells: did none of them fail."""
        self.page.wait_for_function("window.finished !== undefined", timeout=1000 * seconds)
        return self.page.evaluate("window.finished")

    def run_all(self, seconds: float) -> None:
        """Run all cells; fail with what they raised."""
        self.start("notebook:run-all-cells")
        succeeded = self.finish(seconds)
        assert not self.failures(), "\n".join(self.failures())
        assert succeeded is True, succeeded

    def start_cell(self, number: int) -> None:
        """Start one cell, counted from 0, and do not wait for it."""
        self.page.evaluate(SELECT, number)
        self.start("notebook:run-cell")

    def set_theme(self, theme: str) -> None:
        """Show the page in a theme, "light" or "dark"."""
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", THEMES[theme]
        )
        light = str(theme == "light").lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
        self.page.wait_for_timeout(300)  # the theme's style sheet is loaded; canvases are drawn anew

    def set_column(self, width: int) -> None:
        """Make the window as wide as the column of outputs needs it to be `width` CSS pixels wide (825 beside the sidebar)."""
        for _ in range(3):  # a scroll bar may come or go with it
            missing = width - round(self.page.evaluate(COLUMN))
            if missing:
                size = self.page.viewport_size
                self.page.set_viewport_size({"width": size["width"] + missing, "height": size["height"]})
                self.page.wait_for_timeout(200)
        assert abs(self.page.evaluate(COLUMN) - width) < 2, self.page.evaluate(COLUMN)

    @contextlib.contextmanager
    def as_high_as_its_views(self) -> Iterator[None]:
        """A window in which every view of the notebook can be seen whole."""
        former = self.page.viewport_size
        heights = self.page.locator(".vistok").evaluate_all("views => views.map(view => view.clientHeight)")
        self.page.set_viewport_size({"width": former["width"], "height": max(former["height"], *heights) + 200})
        self.page.wait_for_timeout(300)
        try:
            yield
        finally:
            self.page.set_viewport_size(former)

    def save(self) -> None:
        """Save the notebook, as Ctrl+S does."""
        self.start("docmanager:save")
        self.finish(START_SECONDS)

    def cells(self) -> list[dict[str, Any]]:
        """Return the cells with their outputs, as they would be saved now."""
        return self.page.evaluate(CELLS)

    def failures(self) -> list[str]:
        """Return what the cells raised: the name of each error and its message."""
        outputs = [output for cell in self.cells() for output in cell.get("outputs", [])]
        return [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]

    def text(self) -> str:
        """Return the text of all outputs, as the page shows it."""
        return "\n".join(self.page.locator(".jp-OutputArea-output").all_inner_texts())

    def figures(self) -> list[dict[str, Any]]:
        """Return of every picture among the outputs what `measure` does."""
        return [self.measure(image) for image in self.page.locator(".jp-Cell-outputArea img").all()]

    def measure(self, image: Any) -> dict[str, Any]:
        """Return of a picture its size, the size it is shown at, its number of colours, and a sum over its pixels."""
        return image.evaluate(MEASURE_IMAGE)

    def tables(self) -> list[list[list[str]]]:
        """Return every table among the outputs, scrolled out of sight or not: rows of cells, the header first."""
        return self.page.locator(".jp-Cell-outputArea table").evaluate_all(TABLES)


@contextlib.contextmanager
def running_lab(base: Path) -> Iterator[Lab]:
    """A JupyterLab of its own, away from the user's settings, with everything that it writes under `base`."""
    (base / "root").mkdir()
    _copy_records(REPOSITORY / "runs", base / "runs")
    for plugin, settings in SETTINGS.items():
        file = base / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings))
    startup = base / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "bars_at_once.py").write_text(BARS_AT_ONCE)
    port, token = _free_port(), secrets.token_hex()
    options = f"""--no-browser --allow-root --ip=127.0.0.1 --ServerApp.port={port} --ServerApp.port_retries=0
        --IdentityProvider.token={token} --LabApp.expose_app_in_browser=True --LabApp.news_url=
        --LabApp.extension_manager=readonly --ServerApp.terminals_enabled=False""".split()
    with (base / "lab.log").open("wb") as log, forked_kernels() as kernels:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={base / 'root'}"],
            env=_environment(base) | kernels,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group that can be ended as a whole
        )
        running = Lab(f"http://127.0.0.1:{port}", token, base)
        try:
            _wait_until_up(running, server)
            yield running
        finally:
            server.terminate()  # it ends its kernels
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)


@contextlib.contextmanager
def opened_notebooks(lab: Lab, browser: Any) -> Iterator[Callable[..., NotebookPage]]:
    """A function that opens a copy of a notebook, `open_notebook("02_train", scale="smoke")`, or one in `lab.root`.

    With `again=True` it opens what lies in `lab.root` as it was left, outputs included.
    """
    contexts = []

    def open_copy(name: str, again: bool = False, **parameters: Any) -> NotebookPage:
        notebook_file = REPOSITORY / "notebooks" / f"{name}.ipynb"
        if notebook_file.is_file() and not again:
            copy_with_parameters(notebook_file, lab.root / notebook_file.name, parameters)
        # The lab keeps a theme that a test before this one has chosen. Once a page is open it is too late for another: views
        # that are drawn anew while their models are still read from the file are lost.
        (lab.root.parent / "settings" / THEME_FILE).unlink(missing_ok=True)
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        contexts.append(context)
        notebook = NotebookPage(context.new_page())
        notebook.page.set_default_timeout(1000 * START_SECONDS)
        notebook.page.goto(f"{lab.url}/doc/tree/{name}.ipynb?reset&token={lab.token}")
        _wait_until_ready(notebook.page)
        if again and not _views_are_there(notebook.page):
            notebook.page.reload()
            _wait_until_ready(notebook.page)
        assert notebook.page.evaluate("document.body.dataset.jpThemeLight") == "true"
        return notebook

    yield open_copy
    for context in contexts:
        context.close()
    lab.shut_down_kernels()


def _wait_until_ready(page: Any) -> None:
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=1000 * START_SECONDS)
    page.wait_for_function(READY, timeout=1000 * START_SECONDS)


def _views_are_there(page: Any) -> bool:
    """Wait for the views of a notebook that was opened again; whether they came.

    Where the connection to the kernel breaks in the second after a page was opened (a kernel that starts on a busy machine),
    JupyterLab's manager of widgets gives up without a word, and every view says "Loading widget..." until the page is loaded
    again: its fault, and what its reader does.
    """
    timed_out = pytest.importorskip("playwright.sync_api").TimeoutError
    try:
        page.wait_for_function(LOADED, timeout=60_000)
    except timed_out:
        return False
    return True


def write_notebook(lab: Lab, name: str, *sources: str) -> None:
    """Write a notebook of code cells into the lab's folder, for `open_notebook(name)`."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}  # else JupyterLab asks for one
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), lab.root / f"{name}.ipynb")


def copy_with_parameters(notebook: Path, copy: Path, parameters: dict[str, Any]) -> None:
    """Write a copy of a notebook without outputs, and with these values in the cell tagged `parameters`."""
    content = nbformat.read(notebook, as_version=4)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    for name, value in parameters.items():
        cell.source = _with_assigned(cell.source, name, value)
    nbformat.write(content, copy)


def _with_assigned(source: str, name: str, value: Any) -> str:
    """Return a cell in which the assignment to `name`, on one line or more, assigns this value; without one it is added."""
    assigned = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    old = next((node for node in assigned if node.targets[0].id == name), None)
    if old is None:
        return f"{source}\n{name} = {value!r}"
    lines = source.splitlines()
    comment = lines[old.end_lineno - 1].encode()[old.end_col_offset :].decode()  # offsets count bytes
    return "\n".join([*lines[: old.lineno - 1], f"{name} = {value!r}{comment}", *lines[old.end_lineno :]])


def _copy_records(runs: Path, copy: Path) -> None:
    """Copy of every complete run what the tables read, and the pictures of what rows make of photographs."""
    copy.mkdir()
    if (runs / "pictures").is_dir():
        shutil.copytree(runs / "pictures", copy / "pictures")
    for metrics in runs.glob("*-laptop-*/metrics.json"):
        (copy / metrics.parent.name).mkdir()
        for name in RECORD_FILES:
            if (metrics.parent / name).is_file():
                shutil.copy(metrics.parent / name, copy / metrics.parent.name / name)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _environment(base: Path) -> dict[str, str]:
    """Return the environment of the server and its kernels: folders under `base`, no network."""
    environment = (
        os.environ | {name: str(base / folder) for name, folder in FOLDERS.items()} | {"JUPYTER_NO_CONFIG": "1"}
    )
    for name in ("http_proxy", "https_proxy"):
        environment |= {name: NOWHERE, name.upper(): NOWHERE}
    environment |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
    environment.pop("MPLBACKEND", None)  # Agg would silently remove all figures
    return environment


def _wait_until_up(lab: Lab, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            lab.request("/api/status", seconds=1)
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{lab.log.read_text()[-3000:]}")


def eventually(check: Callable[[], None]) -> None:
    """Check again until it holds: pixels are no state that Playwright waits for."""
    for _ in range(20):
        with contextlib.suppress(AssertionError):
            return check()
        time.sleep(0.5)
    check()


def keep_screenshot(target: Any, name: str) -> None:
    """Write the screenshot of a view where that is asked for; else look only that one is there."""
    file = SCREENSHOTS / f"{name}.png"
    if MAKING_SCREENSHOTS:
        SCREENSHOTS.mkdir(exist_ok=True)
        former = target.page.viewport_size
        target.page.set_viewport_size({"width": 1180, "height": 1500})  # JupyterLab cuts off what does not fit
        target.screenshot(path=file)
        target.page.set_viewport_size(former)
    assert file.stat().st_size > 10_000, f"{file} is missing: VISTOK_SCREENSHOTS=1 makes it"
