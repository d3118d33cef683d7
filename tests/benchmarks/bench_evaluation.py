"""How much of an evaluation's time goes into networks: SimpleCNN h = 256 at 64x64 on photos, with and without rFID.

    PYTHONPATH=tests python -m benchmarks.bench_evaluation

Networks are the tokenizer and Inception, both with random weights, which cost what trained ones do. The first pass builds
the pixel cache and chooses kernels; the second one counts. Peak memory is that of a process of its own.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from helpers.weights import write_inception_weights

from vistok import TrainConfig, VisualTokenizer
from vistok.evaluation import Evaluation, evaluate

NUM_IMAGES = 256
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
    return rows


def _evaluate(case: str) -> Evaluation:
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(TrainConfig())
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rFID's bias, and weights that are not the published ones
        weights = write_inception_weights(Path(folder) / "inception.pth") if CASES[case] else None
        options = {"device": "cpu", "lpips": "off", "rfid": CASES[case], "rfid_weights": weights, "progress": False}
        evaluate(tokenizer, "photos", max_images=64, **options)
        return evaluate(tokenizer, "photos", max_images=NUM_IMAGES, **options)


if __name__ == "__main__":
    if not report_memory(sys.argv, _evaluate):
        print_rows(run())
