"""What watching costs: training with `TrainingDashboard` against training without, of the same run.

    PYTHONPATH=tests python -m benchmarks.bench_dashboard

The same run (`celeba64` at scale quick, on photographs) trains in one process with the dashboard and without, in turns of a
few steps, and the dashboard's thread stops between them: the speed of a shared machine drifts, so the turns of both are
spread alike, and the fastest turn of each counts. There is no page here; what is sent is made and counted all the same. The share of
the time is what the dashboard itself measures, reconstructions included.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import print_rows, row

from vistok import Run, TrainConfig, Trainer
from vistok.data import open_dataset, to_float
from vistok.widgets import TrainingDashboard

TURNS, STEPS = 8, 60  # of each kind; steps a turn
LONG_SECONDS = 60.0  # of the run whose share is taken: two reconstructions at its ends weigh little, as in a real one
CONFIG = TrainConfig.from_row(
    "celeba64", "quick", dataset="photos", steps=10**6, report_every=1, checkpoint_every=10**6
)


def run() -> list[dict[str, Any]]:
    """Measure; returns rows with case, value, unit, goal and peak_memory_mib."""
    images = to_float(open_dataset("photos", "test", CONFIG.image_size).images(range(0, 88, 11)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Run.open(Path(folder) / "run", CONFIG), progress=False)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * TURNS + 2):
            watched = bool(turn % 2)
            taken = _watched(trainer, images) if watched else _alone(trainer)
            if turn >= 2:  # the first ones choose kernels and allocate
                seconds[watched].append(taken)
        dashboard = TrainingDashboard(trainer, images)
        dashboard.start()
        time.sleep(LONG_SECONDS)
        dashboard.stop()
        dashboard.wait()
    elapsed = dashboard._until - dashboard._since
    return [
        row("training step, alone", STEPS / min(seconds[False]), "steps/s"),
        row("training step, watched, a report every step", STEPS / min(seconds[True]), "steps/s"),
        row("watching's cost, of the fastest turns", min(seconds[True]) / min(seconds[False]) - 1, "share", goal=-0.02),
        row("the dashboard's own time in a run of a minute", dashboard.seconds / elapsed, "share", goal=-0.02),
        row("messages to the page", dashboard.pushes / elapsed, "/s", goal=-10),
    ]


def _alone(trainer: Trainer) -> float:
    """Take STEPS steps and return the seconds between the first report and the last."""
    begun, first = None, trainer.step
    for report in trainer:
        begun = begun or time.perf_counter()
        if report.step == first + STEPS + 1:
            return time.perf_counter() - begun
    raise AssertionError("the run is too short")


def _watched(trainer: Trainer, images: Any) -> float:
    """The same with the dashboard; the reconstructions at its beginning and end lie outside of what is timed."""
    dashboard = TrainingDashboard(trainer, images)
    first = trainer.step
    dashboard.start()
    while trainer.step < first + 2:  # the first report and its reconstruction are past
        time.sleep(0.001)
    begun, at = time.perf_counter(), trainer.step
    while trainer.step < at + STEPS:
        time.sleep(0.001)
    taken = time.perf_counter() - begun
    dashboard.stop()
    dashboard.wait()
    return taken


if __name__ == "__main__":
    print_rows(run())
