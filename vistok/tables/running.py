"""Planned runs through the notebooks, one after the other; what is complete is not run again."""

import dataclasses
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from vistok.notebooks.cells import notebook_path
from vistok.notebooks.execution import execute
from vistok.system.files import say
from vistok.system.paths import resolve_path
from vistok.system.progress import KernelBars
from vistok.tables.planning import PlannedRun


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a planned run: "done", "complete" (before, so not run again) or "failed", with the reason."""

    run: Any  # a `PlannedRun` or a `PlannedGenerator`
    status: str
    seconds: float
    reason: str = ""


def run_all(planned: Sequence[PlannedRun], *, pass_on_warnings: bool = False) -> list[Outcome]:
    """Train and evaluate each planned run through 02_train and 04_evaluate; a failed one does not stop the others.

    Args:
        planned: the runs; complete ones are skipped.
        pass_on_warnings: what the notebooks say on standard error is said here too.

    Raises:
        FileNotFoundError: the notebooks are not there, as beside an installed package; or the `rfid_weights`.
    """
    for name in ("02_train", "04_evaluate"):  # they are there, before anything runs
        notebook_path(name)
    for run in planned:
        weights = run.evaluate_parameters.get("rfid_weights")
        if weights is not None and not resolve_path(weights).exists():
            raise FileNotFoundError(f"rfid_weights is {weights!r}, but there is no such file.")
    outcomes = []
    with KernelBars(f"{len(planned)} of the table's runs" if len(planned) > 1 else "one run") as kernels:
        for number, run in enumerate(planned, 1):
            if run.metrics is not None:
                outcomes.append(Outcome(run, "complete", 0.0))
                continue
            of_all = f"{number} of {len(planned)}, " if len(planned) > 1 else ""
            outcomes.append(attempt(run, _through_notebooks(run, kernels, of_all, pass_on_warnings)))
            say(outcome_line(outcomes[-1]))
    return outcomes


def _through_notebooks(run: PlannedRun, kernels: KernelBars, prefix: str, pass_on_warnings: bool) -> Iterator[str]:
    """Execute the notebooks of a run; yields the name of each before it is executed."""
    for notebook, parameters in run.steps(run.run_dir).items():
        yield notebook
        kernels.begin(f"{run.config.run_name}: starting {notebook}", prefix=prefix)
        output = run.run_dir / f"{notebook}.ipynb"
        execute(notebook_path(notebook), output, parameters, pass_on_warnings=pass_on_warnings)


def attempt(run: Any, work: Iterator[str]) -> Outcome:
    """Do the work of a planned run, which yields the name of each part that it begins; a failure is reported, not raised."""
    start, part = time.perf_counter(), ""
    status, reason = "done", ""
    try:
        for name in work:
            part = name
    except Exception as error:  # whatever a part raised: it is reported, and the next run's turn comes
        status, reason = "failed", f"{part}: {_last_line(error)}"
    return Outcome(run, status, time.perf_counter() - start, reason)


def outcome_line(outcome: Outcome) -> str:
    """Return one line: the run, what became of it, in how long or why."""
    after = f" in {outcome.seconds:.0f} s" if outcome.status == "done" else ""
    return f"{outcome.run.config.run_name}: {outcome.status}{after}{': ' if outcome.reason else ''}{outcome.reason}"


def _last_line(error: Exception) -> str:
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
