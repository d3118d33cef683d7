"""How much of an evaluation's time goes into networks: SimpleCNN h = 256 at 64x64 on photos, with and without rFID.

    PYTHONPATH=tests python -m benchmarks.bench_evaluation

Networks are the tokenizer and Inception, both with random weights, which cost what trained ones do. The first pass builds
the pixel cache and chooses kernels; the second one counts. Peak memory is that of a process of its own.

Last, rFID of the same images once more, by a tokenizer of the laptop's width and one of the paper's: now their statistics are
kept. Of these evaluations everything counts, the loading of Inception too.
"""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from helpers.weights import write_inception_weights

from vistok import TrainConfig, VisualTokenizer
from vistok.evaluation import Evaluation, evaluate

NUM_IMAGES = 256
WIDTHS = {64: 1.8, 256: None}  # hidden_dim to the goal of how much faster the second evaluation is
CASES = {"PSNR, SSIM, usage": False, "PSNR, SSIM, usage, rFID": True}  # whether with rFID


def run() -> list[dict[str, Any]]:
    """Measure every case; returns rows with case, value, unit, goal and peak_memory_mib."""
    rows = []
    for case in CASES:
        record = _evaluate(case)
        share = record.seconds["network"] / record.seconds["total"]
        memory = peak_memory_mib(__file__, case)
        rows.append(row(f"{case}: share of time in networks", share, "", goal=0.8, memory=memory))
        rows.append(row(f"{case}: rate", record.images_per_second, "images/s"))
    for width, goal in WIDTHS.items():
        rows.append(
            row(f"rFID of the same images again, h = {width}: times as fast", _times_as_fast(width), "", goal=goal)
        )
    return rows


@contextmanager
def _options(rfid: bool) -> Iterator[dict[str, Any]]:
    """Yield options of `evaluate`, with a cache folder that holds no statistics yet."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), mock.patch.dict(os.environ):
        warnings.simplefilter("ignore")  # rFID's bias, and weights that are not the published ones
        os.environ["VISTOK_CACHE"] = folder
        weights = write_inception_weights(Path(folder) / "inception.pth") if rfid else None
        yield {"device": "cpu", "lpips": "off", "rfid": rfid, "rfid_weights": weights, "progress": False}


def _evaluate(case: str) -> Evaluation:
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(TrainConfig())
    with _options(CASES[case]) as options:
        evaluate(tokenizer, "photos", max_images=64, **options)
        return evaluate(tokenizer, "photos", max_images=NUM_IMAGES, **options)


def _times_as_fast(width: int) -> float:
    """Return the seconds of an evaluation with rFID over those of the next one, whose values must be the same."""
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(TrainConfig(hidden_dim=width))
    seconds, values = [], []
    with _options(rfid=True) as options:
        evaluate(tokenizer, "photos", max_images=64, **options)
        for _ in range(2):
            start = time.perf_counter()
            record = evaluate(tokenizer, "photos", max_images=NUM_IMAGES, **options)
            seconds.append(time.perf_counter() - start)
            values.append([record.rfid, record.psnr, record.ssim, record.usage])
    assert values[0] == values[1], "kept statistics changed a value"
    return seconds[0] / seconds[1]


if __name__ == "__main__":
    if not report_memory(sys.argv, _evaluate):
        print_rows(run())
