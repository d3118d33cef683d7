"""What watching costs: training with `TrainingDashboard` against training without.

    PYTHONPATH=tests python -m benchmarks.bench_dashboard

One run (`celeba64` at scale quick, on photographs, a report every step) trains in turns of some steps, watched and alone:
the speed of a shared machine drifts, and the fastest turn of each counts. There is no page here; what would be sent is made
and counted all the same. Then it trains for a minute at one go, and the dashboard says what of it was its own time,
reconstructions included.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import print_rows, row

from vistok import Run, TrainConfig, Trainer
from vistok.data import open_dataset, to_float
from vistok.widgets import TrainingDashboard

TURNS, STEPS, SKIPPED = 6, 40, 3  # turns of each kind; steps that are timed; before them: the first reconstruction
LONG_SECONDS = 60.0
SETTINGS = {"dataset": "photos", "steps": 10**6, "report_every": 1, "checkpoint_every": 10**6}


def run() -> list[dict[str, Any]]:
    """Measure; returns rows with case, value, unit, goal and peak_memory_mib."""
    config = TrainConfig.from_row("celeba64", "quick", **SETTINGS)
    images = to_float(open_dataset("photos", "test", config.image_size).images(range(0, 88, 11)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Run.open(Path(folder) / "run", config), progress=False)
        times = _timed(trainer)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(2 * (TURNS + 1)):
            times.clear()
            watched = bool(turn % 2)
            _watched(trainer, images) if watched else _alone(trainer)
            if turn >= 2:  # the first ones choose kernels and allocate
                seconds[watched].append((times[SKIPPED + STEPS] - times[SKIPPED]) / STEPS)
        dashboard = TrainingDashboard(trainer, images)
        dashboard.start()
        begun = time.monotonic()
        time.sleep(LONG_SECONDS)
        elapsed, spent, pushes = time.monotonic() - begun, dashboard.seconds, dashboard.pushes
        dashboard.stop()
        dashboard.wait()
    alone, watched = min(seconds[False]), min(seconds[True])
    return [
        row("training alone", 1 / alone, "steps/s"),
        row("training watched, a report every step", 1 / watched, "steps/s"),
        row("what watching adds to a step", watched / alone - 1, "of it", goal=-0.02),
        row("the dashboard's own time in a minute of training", spent / elapsed, "of it", goal=-0.02),
        row("messages to the page", pushes / elapsed, "/s", goal=-10),
    ]


def _timed(trainer: Trainer) -> list[float]:
    """Return a list that gets the time at which each step begins."""
    times: list[float] = []
    take = trainer.train_step

    def step(images: torch.Tensor) -> Any:
        times.append(time.perf_counter())
        return take(images)

    trainer.train_step = step  # type: ignore[method-assign]
    return times


def _alone(trainer: Trainer) -> None:
    last = trainer.step + SKIPPED + STEPS + 1
    for report in trainer:
        if report.step == last:
            break


def _watched(trainer: Trainer, images: torch.Tensor) -> None:
    last = trainer.step + SKIPPED + STEPS + 1
    dashboard = TrainingDashboard(trainer, images)
    dashboard.start()
    while trainer.step < last:
        time.sleep(0.05)
    dashboard.stop()
    dashboard.wait()


if __name__ == "__main__":
    print_rows(run())
