"""`RunCurves`: the logs of one or several runs as curves over each other, to be read point by point."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from vistok.plots import DPI
from vistok.plots.styles import legend_below, line_style
from vistok.runs import Run, run_labels
from vistok.widgets.view import ANSWERED, View, script

ROWS_SENT = 20_000  # a run has no more: the page smooths them, and draws what a screen shows
FIRST_COLUMNS = ("step", "usage", "perplexity", "images_per_second")
CHOICES = {"against": ("step", "images"), "axis": ("log", "linear")}
UNITS = {"usage": "codes in use, %", "perplexity": "perplexity, codes", "images_per_second": "images/s"}


class RunCurves(View):
    """Curves of runs: any loss, usage, perplexity or speed over steps or images seen; also of a run that is being trained.

    Runs are named by what differs between their settings. What is chosen on the page may be set here too.

    Attributes:
        quantity: what is drawn, one of `quantities`; may be set.
        against: "step", or "images", those seen; may be set.
        axis: "log" or "linear"; may be set.
        smoothing: weight of the exponential moving average, in [0, 1): 0 is none; may be set.
        labels: names of the runs.
    """

    _esm = script("curves", "run_curves")
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    notes = traitlets.List(traitlets.Unicode()).tag(sync=True)  # how far each run is, where it is not finished
    columns = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)  # names of each run's curves
    curves = traitlets.List(traitlets.Bytes()).tag(sync=True)  # each run's float32 [rows, columns]
    batch_sizes = traitlets.List(traitlets.Int()).tag(sync=True)  # images a step
    quantities = traitlets.List(traitlets.Unicode()).tag(sync=True)
    quantity = traitlets.Unicode("").tag(sync=True)
    against = traitlets.Unicode("step").tag(sync=True)
    axis = traitlets.Unicode("log").tag(sync=True)
    smoothing = traitlets.Float(0.0).tag(sync=True)

    def __init__(self, runs: str | Path | Run | Sequence[str | Path | Run], *, quantity: str | None = None) -> None:
        """Read the logs; runs that cannot be read are named in `message`, and the others shown.

        Args:
            runs: run directories or runs; relative paths are counted from the repository.
            quantity: what is drawn first; None: the reconstruction loss, where there is one.
        """
        super().__init__()
        self._asked = [runs] if isinstance(runs, str | Path | Run) else list(runs)
        self._runs: list[Run] = []
        self._tables: list[np.ndarray] = []  # each run's float64 [reports, columns]
        self._problems: list[str] = [] if self._asked else ["There are no runs to show: `runs` is empty."]
        self.refresh()
        if quantity is not None:
            self.quantity = quantity
        self.on_msg(self._heard)

    def refresh(self) -> None:
        """Read the logs anew: of runs that are being trained, and of those that were not there before."""
        with self._turn:
            problems, self._runs, tables, columns = [] if self._asked else self._problems, [], [], []
            for asked in self._asked:
                try:
                    run = _opened(asked)
                    names, table = _table(run.log())
                except ANSWERED as error:
                    problems.append(str(error))
                    continue
                self._runs.append(run)
                tables.append(table)
                columns.append(names)
            self._problems, self._tables = problems, tables
            with self.hold_sync():
                self.labels = run_labels(self._runs)
                self.notes = [_note(run, table) for run, table in zip(self._runs, tables, strict=True)]
                self.columns = columns
                self.curves = [thinned(table, ROWS_SENT).astype("<f4").tobytes() for table in tables]
                self.batch_sizes = [run.config.batch_size for run in self._runs]
                self.quantities = _quantities(columns)
                if self.quantity not in self.quantities:
                    usual = [name for name in ("reconstruction", "total") if name in self.quantities]
                    self.quantity = [*usual, *self.quantities, ""][0]
                self.message = " ".join(problems)
                self._describe()

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("do") == "refresh":
            self.refresh()

    @traitlets.validate("quantity", "against", "axis", "smoothing")
    def _known(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        known = CHOICES.get(name, self.quantities)
        if name == "smoothing":
            wrong = None if 0 <= value < 1 else "must be in [0, 1): 0 is none"
        else:
            wrong = None if value in known or not known else f"must be one of {', '.join(known)}"
        self.message = " ".join([*self._problems, *([f"{name} is {value!r}, but {wrong}."] if wrong else [])])
        return getattr(self, name) if wrong else value

    @traitlets.observe("quantity", "against", "axis", "smoothing")
    def _describe(self, _change: Any = None) -> None:
        if self._runs:
            ends = []
            for label, note, columns, table in zip(self.labels, self.notes, self.columns, self._tables, strict=True):
                if self.quantity in columns and len(table):
                    last = table[-1, columns.index(self.quantity)] * (100 if self.quantity == "usage" else 1)
                    ends.append(f"{label}: {last:.4g} at step {table[-1, 0]:,.0f}")
                else:
                    ends.append(f"{label}: {note or f'no {self.quantity}'}")
            against = "images seen" if self.against == "images" else "steps"
            runs = f"{len(ends)} run{'s' if len(ends) > 1 else ''}"
            self.description = f"{UNITS.get(self.quantity, self.quantity)} of {runs} over {against}. {'; '.join(ends)}."

    def figure(self) -> Figure | None:
        """Return the curves as they are chosen; None where no run could be read."""
        if not self._runs:
            return None
        figure = Figure(figsize=(9.5, 4.2), dpi=DPI, layout="constrained")
        axis, above = figure.subplots(), True
        for number, (label, note, columns, table, batch) in enumerate(
            zip(self.labels, self.notes, self.columns, self._tables, self.batch_sizes, strict=True)
        ):
            style = line_style(number)
            if self.quantity in columns and len(table):
                note = ", ".join(filter(None, [note, _diverged(table[:, 0], table[:, columns.index(self.quantity)])]))
            name = f"{label} ({note})" if note else label
            if self.quantity not in columns or not len(table):
                axis.plot([], [], **style, label=name)
                continue
            rows = thinned(table, ROWS_SENT)
            x = rows[:, 0] * (batch if self.against == "images" else 1)
            y = rows[:, columns.index(self.quantity)] * (100 if self.quantity == "usage" else 1)
            above = above and not (y <= 0).any()
            if self.smoothing:
                axis.plot(x, y, color=style["color"], lw=0.7, alpha=0.3)
            marker = "o" if len(x) == 1 else ""
            axis.plot(x, smoothed(y, self.smoothing), lw=1.4, marker=marker, label=name, **style)
        axis.set(xlabel="images seen" if self.against == "images" else "step", yscale=self.axis if above else "linear")
        linear = "" if above or self.axis == "linear" else ",\nlinear axis: some are not above 0"
        axis.set_ylabel(UNITS.get(self.quantity, f"{self.quantity} loss") + linear)
        axis.grid(alpha=0.3)
        legend_below(figure, axis)
        return figure


def _opened(asked: Any) -> Run:
    if isinstance(asked, Run):
        return asked
    if not isinstance(asked, str | Path):
        raise ValueError(f"runs holds {asked!r}, but must hold run directories or runs.")
    return Run.open(asked)


def _table(log: Sequence[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Return the names of a log's numbers, and these, float64 [reports, names]; NaN where a report lacks one.

    Without a codebook there is no usage and no perplexity.
    """
    losses = dict.fromkeys(name for entry in log for name in entry["losses"])
    without = {name for entry in log for name in FIRST_COLUMNS if entry.get(name, 0) is None}
    names = [*(name for name in FIRST_COLUMNS if name not in without), *losses]
    rows = [[{**entry["losses"], **entry}.get(name, np.nan) for name in names] for entry in log]
    return names, np.array(rows, dtype=np.float64).reshape(len(log), len(names))


def _quantities(columns: Sequence[Sequence[str]]) -> list[str]:
    """Return what can be drawn of some run: losses, then usage, perplexity and speed."""
    found = dict.fromkeys(name for names in columns for name in names)
    return [
        *(name for name in found if name not in FIRST_COLUMNS),
        *(name for name in FIRST_COLUMNS[1:] if name in found),
    ]


def _note(run: Run, table: np.ndarray) -> str:
    if not len(table):
        return "no log yet"
    step = int(table[-1, 0])
    return "" if step >= run.config.steps else f"at step {step:,} of {run.config.steps:,}"


def _diverged(steps: np.ndarray, values: np.ndarray) -> str:
    """Return since when there are no numbers any more, in words; empty where the last value is one."""
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) and finite[-1] == len(values) - 1:
        return ""
    return f"not finite after step {steps[finite[-1]]:,.0f}" if len(finite) else "no finite values"


def thinned(rows: np.ndarray, most: int) -> np.ndarray:
    """Return rows of a table, at most so many: of every stretch those in which a column is lowest or highest.

    Args:
        rows: float [rows, columns], the first column rising.
        most: at least 2 rows a column and two more.
    """
    if len(rows) <= most:
        return rows
    stretches = max(1, (most - 2) // (2 * rows.shape[1]))
    edges = np.linspace(0, len(rows), stretches + 1).astype(int)
    kept = {0, len(rows) - 1}
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        part = rows[start:end]
        missing = np.isnan(part)
        kept.update(start + np.where(missing, np.inf, part).argmin(0))
        kept.update(start + np.where(missing, -np.inf, part).argmax(0))
    return rows[sorted(kept)]


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """Return the exponential moving average as TensorBoard draws it, divided by the weight that the values so far have.

    Args:
        values: float [n]; what is not finite stays, and counts for nothing.
        weight: of the mean so far, in [0, 1).
    """
    made, mean, seen = np.array(values, dtype=np.float64), 0.0, 0
    for place in np.flatnonzero(np.isfinite(made)):
        mean, seen = weight * mean + (1 - weight) * made[place], seen + 1
        made[place] = mean / (1 - weight**seen)
    return made
