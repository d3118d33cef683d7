"""Progress of what takes its time, shown where people look, and left nowhere.

Everything that waits opens a `progress_bar`. It is tqdm's, with one of four faces:

- On a page (JupyterLab, Jupyter Notebook, VS Code, Colab): a display in the theme's colours, updated in place. It is plain HTML
  without a comm, so that it moves while a cell runs, and a notebook that is opened again finds no model missing. When it is
  done, one line of text takes its place: a front end offers no way to take a display back.
- In a terminal: tqdm's own, on standard error.
- In a pipe, a log file, a CI: a line now and then, on standard error.
- In a kernel that no person sits at (papermill, nbconvert, nbval): nothing in the notebook. It goes where the kernel's
  own standard error goes, which is the terminal, under papermill's bar, or the log file of whoever started it; or, where a
  bar of that process follows it (`KernelBars`), there.

A kernel knows which it is by the request that it works on: the front end of a person says that it answers `input()`
(`allow_stdin`), programs that run notebooks say that they do not. Environment variables would not do: a notebook that is run
from within another one inherits them. A click in a view is no request to run a cell; the view itself shows what it does,
so no bar appears.
"""

import contextlib
import html
import io
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

UPDATE_SECONDS = 0.5  # at least between two states of a bar
PATIENCE_SECONDS = 0.5  # a job that is over sooner does not come on a page
FIRST_LINE_SECONDS = 5.0  # a job that is over sooner says nothing in a log
# The next line of a log comes after LINE_SECONDS where LINE_SHARE of the whole is done since, and after LONGEST_SECONDS anyway.
LINE_SECONDS, LINE_SHARE, LONGEST_SECONDS = 30.0, 0.1, 600.0
MARK = {"vistok": "progress"}  # metadata of what is shown on a page, by which it is found again
FOLLOWED = "VISTOK_FOLLOWED_BAR"  # environment variable of a kernel: the file that its bars are written to
FOLLOWED_KEYS = ("n", "total", "elapsed", "initial", "unit", "unit_scale", "prefix", "postfix")  # in `format_dict`


def progress_bar(
    iterable: Iterable[Any] | None = None,
    *,
    desc: str = "",
    unit: str = " steps",
    leave: bool = True,
    disable: bool = False,
    **options: Any,
) -> tqdm:
    """Return a progress bar that is shown where people look; use it in a `with`, or iterate over it.

    Args:
        iterable: what to go through; None: `update(n)` says how far it is.
        desc: what is going on.
        unit: name of what is counted, plural, with a space before it.
        leave: keep the last state in a terminal.
        disable: show nothing.
        **options: more of tqdm's: `total`, of the units; `initial`, units done before; `delay`, seconds that pass before
            it is shown; `unit_scale`, count in thousands and millions, as bytes are.
    """
    face, own = (tqdm, {"disable": True}) if disable else _face()
    options |= {"desc": desc, "unit": unit, "leave": leave, "mininterval": UPDATE_SECONDS} | own
    return face(iterable, **options)


def on_page() -> bool:
    """Return whether the code that runs was sent by a person's front end, which shows what is displayed."""
    request = _request()  # a request that is none to run a cell is a click in a view, so there is a page
    return request.get("content", {}).get("allow_stdin", bool(request))


class KernelBars:
    """One bar that follows the bars of the kernels that this process starts one after the other.

    with KernelBars("rows") as kernels:
        kernels.begin("02_train")  # until a bar of the kernel says more
        ...                        # starts the kernel, and waits for its end
    """

    def __init__(self, desc: str) -> None:
        """Show nothing yet.

        Args:
            desc: what all of them are about.
        """
        self._desc, self._prefix, self._number = desc, "", 0
        self._ended, self._lock = threading.Event(), threading.Lock()

    def __enter__(self) -> "KernelBars":
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "bar.json"
        self._before = os.environ.get(FOLLOWED)
        os.environ[FOLLOWED] = str(self._file)
        self._bar = progress_bar(desc=self._desc, leave=False)
        self._since = self._bar.start_t if not self._bar.disable else 0.0
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()
        return self

    def begin(self, starting: str, prefix: str = "") -> None:
        """Say which kernel comes next.

        Args:
            starting: what is going on before it says anything.
            prefix: stands before all that it says.
        """
        with self._lock:
            self._prefix, self._number = prefix, self._number + 1
            self._file.unlink(missing_ok=True)
            self._set({"n": 0, "total": None, "elapsed": 0.0, "prefix": f"{prefix}{starting}"})

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._follower.join()
        unit = " notebook" if self._number == 1 else " notebooks"
        state = {"n": self._number, "total": None, "unit": unit, "elapsed": time.time() - self._since}
        self._set(state | {"prefix": self._desc}, refresh=False)
        self._bar.close()
        os.environ.pop(FOLLOWED)
        if self._before is not None:
            os.environ[FOLLOWED] = self._before
        self._folder.cleanup()

    def _follow(self) -> None:
        while not self._ended.wait(UPDATE_SECONDS):
            with self._lock:
                try:
                    state = json.loads(self._file.read_bytes())
                except FileNotFoundError:  # there is no bar in the kernel yet
                    self._bar.refresh()
                else:
                    self._set(state | {"prefix": f"{self._prefix}{_words(state['prefix'])}"})

    def _set(self, state: dict[str, Any], refresh: bool = True) -> None:
        bar = self._bar
        bar.n, bar.total, bar.initial = state["n"], state["total"], state.get("initial", 0)
        bar.unit, bar.unit_scale = state.get("unit", ""), state.get("unit_scale", False)
        bar.postfix = state.get("postfix")
        bar.bar_format = None if bar.total else "{desc}{elapsed}"  # tqdm's own would count nothing
        bar.last_print_t = time.time()
        bar.start_t = bar.last_print_t - state["elapsed"]
        bar.set_description(state["prefix"], refresh=refresh)


# Where it is shown.


def _request() -> dict[str, Any]:
    """Return the message that this kernel works on; empty where this is no kernel."""
    if "ipykernel" not in sys.modules:  # a training needs no IPython, and need not wait until it is loaded
        return {}
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel.get_parent("shell") or {} if kernel is not None else {}


def _face() -> tuple[type[tqdm], dict[str, Any]]:
    """Return the kind of bar for where this runs, and its options."""
    request = _request()
    if not request:
        stream = sys.stderr
        if stream is None:
            return tqdm, {"disable": True}
        return (tqdm, {"dynamic_ncols": True}) if stream.isatty() else (_Lines, {"file": stream})
    if request["header"]["msg_type"] != "execute_request":
        return tqdm, {"disable": True}
    if on_page():
        return _Page, {}
    if FOLLOWED in os.environ:
        return _Followed, {}
    stream = _inherited_stderr()
    if stream is None:
        return tqdm, {"disable": True}
    if not stream.isatty():
        return _Lines, {"file": stream, "apart": True}
    return tqdm, {"file": stream, "position": 1, "leave": False, "dynamic_ncols": True}  # under papermill's own


def _inherited_stderr() -> TextIO | None:
    """Return what standard error was for this kernel before it was made part of the notebook."""
    # The kernel's stream has the number of the original where it has taken that over; elsewhere that is as it was.
    for stream in (sys.stderr, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError):
            return open(os.dup(stream.fileno()), "w", encoding="utf-8", errors="backslashreplace")
    return None


# The faces other than tqdm's own. Their common ground is `gui=True`: tqdm counts and calls `display`, and prints nothing.


class _Quiet(tqdm):
    """tqdm that prints nothing; `display` is called when there is something new, at most every `UPDATE_SECONDS`."""

    monitor_interval = 0  # no thread of tqdm's that calls `display` too

    def __init__(self, *args: Any, file: TextIO | None = None, **options: Any) -> None:
        super().__init__(*args, file=io.StringIO() if file is None else file, gui=True, **options)

    def refresh(self, nolock: bool = False, lock_args: tuple[Any, ...] | None = None) -> None:
        """Show the state as it is now; an interrupt that comes meanwhile leaves no lock behind, as it does in tqdm's own."""
        with self.get_lock():
            self.display()

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing is in the way of what is printed."""

    @property
    def _elapsed(self) -> float:
        return self._time() - self.start_t


class _Page(_Quiet):
    """A display on a page."""

    def __init__(self, *args: Any, delay: float = 0.0, **options: Any) -> None:
        self._id: str | None = None
        super().__init__(*args, delay=max(delay, PATIENCE_SECONDS), **options)
        # By itself: what is slow may take long to its first unit.
        self._timer = threading.Timer(self.delay + 0.01, self.refresh)
        self._timer.daemon = True
        self._timer.start()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.disable or self._elapsed < self.delay:
            return
        state = self.format_dict
        self._show({"text/html": as_html(state), "text/plain": f"{title(state)}: {sentence(state)}"})

    def close(self) -> None:
        if self.disable:
            return
        with self.get_lock():  # a thread may be showing a state
            self._timer.cancel()
            super().close()
            if self._id is not None:
                self._show({"text/plain": closing_line(self.format_dict)})

    def _show(self, bundle: dict[str, str]) -> None:
        from IPython.display import display, update_display

        if self._id is None:
            self._id = uuid.uuid4().hex
            display(bundle, raw=True, metadata=MARK, display_id=self._id)
        else:
            update_display(bundle, raw=True, metadata=MARK, display_id=self._id)


class _Lines(_Quiet):
    """A line now and then; `apart`: also from what another process has not ended its line after, as papermill's bar."""

    def __init__(self, *args: Any, apart: bool = False, **options: Any) -> None:
        self._before = "\n" if apart else ""
        self._said_at: float | None = None
        self._said: tuple[str, float] = ("", 0.0)  # description and share at the last line
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.disable or not self._due():
            return
        state = self.format_dict
        self._said_at, self._said = self._time(), (title(state), _share(state) or 0.0)
        self._write(f"{title(state)}: {sentence(state)}")

    def close(self) -> None:
        if self.disable:
            return
        super().close()
        if self._elapsed >= FIRST_LINE_SECONDS and self.leave:
            self._write(closing_line(self.format_dict))

    def _due(self) -> bool:
        if self._said_at is None:
            return self._elapsed >= max(FIRST_LINE_SECONDS, self.delay)
        since, state = self._time() - self._said_at, self.format_dict
        desc, share = self._said
        another = desc != title(state) or abs((_share(state) or 0.0) - share) >= LINE_SHARE
        return since >= LONGEST_SECONDS or (since >= LINE_SECONDS and another)

    def _write(self, line: str) -> None:
        print(f"{self._before}{line}", file=self.fp, flush=True)


class _Followed(_Quiet):
    """A state in a file, for the bar of another process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.disable or self._elapsed < self.delay:
            return
        file = Path(os.environ[FOLLOWED])
        # A name of its own: another bar, perhaps of a process that was started, may be writing too.
        part = file.with_suffix(f".{os.getpid()}.{threading.get_ident()}.part")
        state = {name: value for name, value in self.format_dict.items() if name in FOLLOWED_KEYS}
        with contextlib.suppress(FileNotFoundError):  # the process that follows is gone
            part.write_text(json.dumps(state), encoding="utf-8")
            part.replace(file)


# The words of a bar.


def title(state: dict[str, Any]) -> str:
    """Return what is going on, from tqdm's `format_dict`."""
    return _words(state["prefix"]) or "working"


def _words(prefix: str) -> str:
    return prefix.removesuffix(": ")


def sentence(state: dict[str, Any]) -> str:
    """Return how far it is, how fast and how much time is left, from tqdm's `format_dict`."""
    done = state["n"] - state["initial"]
    rate = state["rate"] or (done / state["elapsed"] if state["elapsed"] else 0)
    parts = [_counted(state)] if state["total"] or state["n"] else []
    if done and rate:
        parts.append(_speed(rate, state))
        if state["total"]:
            parts.append(f"{span(max(0.0, state['total'] - state['n']) / rate)} left")
    else:
        parts.append(f"for {span(state['elapsed'])} so far")
    return " · ".join([*parts, *([state["postfix"]] if state["postfix"] else [])])


def closing_line(state: dict[str, Any]) -> str:
    """Return what was done, and how long it took, from tqdm's `format_dict`."""
    counted = f"{_counted(state)} " if state["total"] or state["n"] else ""
    line = f"{title(state)}: {counted}in {span(state['elapsed'])}"
    return f"{line} · {state['postfix']}" if state["postfix"] else line


def span(seconds: float) -> str:
    """Return a time as people say it: "12 s", "4 min", "1 h 20 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"


def _counted(state: dict[str, Any]) -> str:
    number = tqdm.format_sizeof if state["unit_scale"] else "{:,}".format
    of_total = f" of {number(state['total'])}" if state["total"] else ""
    return f"{number(state['n'])}{of_total}{state['unit']}"


def _speed(rate: float, state: dict[str, Any]) -> str:
    if state["unit_scale"]:
        return f"{tqdm.format_sizeof(rate)}{state['unit']}/s"
    if rate >= 100:
        return f"{rate:,.0f}{state['unit']}/s"
    return f"{rate:.3g}{state['unit']}/s" if rate >= 1 else f"{1 / rate:.2g} s each"


def _share(state: dict[str, Any]) -> float | None:
    return min(1.0, state["n"] / state["total"]) if state["total"] else None


def as_html(state: dict[str, Any]) -> str:
    """Return a bar as HTML that needs neither script nor style sheet, in the colours of the front end."""
    share, words = _share(state), html.escape(sentence(state))
    name = html.escape(title(state), quote=True)
    value = "" if share is None else f'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{share * 100:.0f}" '
    percent = "" if share is None else f'<span style="font-variant-numeric: tabular-nums">{share:.0%}</span>'
    return (
        f'<div class="vistok-progress" style="max-width: 44em; {_FONT}">'
        f'<div style="display: flex; gap: 1em; justify-content: space-between"><span>{name}</span>{percent}</div>'
        f'<div role="progressbar" aria-label="{name}" {value}aria-valuetext="{words}" style="{_TROUGH}">'
        f'<div style="width: {100 * (share or 0):.1f}%; {_FILL}"></div></div>'
        f'<div style="{_SMALL}">{words}</div></div>'
    )


_FONT = (
    "padding: 4px; font: 13px/1.4 var(--jp-ui-font-family, system-ui, sans-serif); "
    "color: var(--jp-ui-font-color1, inherit)"
)
_TROUGH = (
    "height: 6px; margin: 3px 0; border-radius: 3px; overflow: hidden; "
    "background: var(--jp-layout-color3, rgba(128, 128, 128, .35))"
)
_FILL = "height: 100%; border-radius: 3px; background: var(--jp-brand-color1, var(--vscode-progressBar-background, #1976d2))"
_SMALL = "font-size: 12px; font-variant-numeric: tabular-nums; color: var(--jp-ui-font-color2, inherit)"
