"""What a run spends on not being lost, and on waiting for data: shares of its time, from its own log.

    PYTHONPATH=tests python -m benchmarks.bench_checkpoints

Row ema-d4 at scale laptop on `imagenet-sample` (where that is; else on the embedded photographs), with a full pixel cache, one
default interval of checkpoints and a little more. Then a checkpoint as large as that of a VQGAN, beside `torch.save` alone.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import print_rows, row

from vistok import Run, TrainConfig, Trainer
from vistok.system.checkpoints import Checkpoints
from vistok.system.paths import repository_root

EVERY, MORE = TrainConfig().checkpoint_every, 20  # steps
LARGE = 2**28  # float32 numbers: 1 GiB
TURNS = 2  # each to files of its own


def run() -> list[dict[str, Any]]:
    """Measure; returns rows with case, value, unit, goal and peak_memory_mib."""
    dataset = "imagenet-sample" if (repository_root() / "data" / "imagenet-sample").is_dir() else "photos"
    config = TrainConfig.from_row("celeba64/ema-d4", "laptop", dataset=dataset, steps=10**6, report_every=MORE)
    with tempfile.TemporaryDirectory() as folder:
        open_first = Trainer(Run.open(Path(folder) / "first", config), progress=False)  # builds the cache
        del open_first
        run = Run.open(Path(folder) / "run", config)
        for report in Trainer(run, progress=False):
            if report.step == EVERY + MORE:
                break
        log = run.log()[1:]  # in the first steps kernels are chosen and memory is allocated
        seconds = [MORE * config.batch_size / line["images_per_second"] for line in log]
        shares = {
            name: sum(line[name] * time for line, time in zip(log, seconds, strict=True)) / sum(seconds)
            for name in ("checkpoint_share", "data_share")
        }
        ratio, speed = _large(Path(folder))
    return [
        row(
            f"writing checkpoints, every {EVERY} steps, {dataset}",
            shares["checkpoint_share"],
            "of the time",
            goal=-0.02,
        ),
        row(f"waiting for data, {dataset}, cached", shares["data_share"], "of the time", goal=-0.02),
        row("a checkpoint of 1 GiB, with its checksum", speed, "MB/s"),
        row("its time over that of torch.save, synced", ratio, "x"),
    ]


def _large(folder: Path) -> tuple[float, float]:
    """Return the time of a large checkpoint over that of saving alone, and its speed; the fastest of some turns each."""
    state = {"weights": torch.rand(LARGE)}
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(TURNS):
        begun = time.perf_counter()
        Checkpoints(folder / "large").save(state, turn)
        times["ours"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        with (folder / f"plain-{turn}.pt").open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        times["plain"].append(time.perf_counter() - begun)
    return min(times["ours"]) / min(times["plain"]), 4 * LARGE / min(times["ours"]) / 1e6


if __name__ == "__main__":
    print_rows(run())
