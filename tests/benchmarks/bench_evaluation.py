"""How much of an evaluation's time goes into networks: SimpleCNN h=256 at 64x64 on photos, with and without rFID.

    python tests/benchmarks/bench_evaluation.py

Networks are the tokenizer and Inception, both with random weights, which cost what trained ones do. Each case runs in a
process of its own; peak memory is above what it held once everything was imported.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from vistok import TrainConfig, VisualTokenizer
from vistok.evaluation import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from test_metrics import write_inception_weights

NUM_IMAGES = 256
CASES = {"PSNR, SSIM, usage": False, "PSNR, SSIM, usage, rFID": True}  # whether with rFID


def run() -> list[dict[str, Any]]:
    """Measure every case.

    Returns:
        For each case: value (share of the time spent in networks), unit, goal, images_per_second, seconds, and
        peak_memory_mib (None where the system does not tell it).
    """
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, "--case", case]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        share = found["seconds"]["network"] / found["seconds"]["total"]
        rows.append({"case": case, "value": share, "unit": "share in networks", "goal": 0.8} | found)
    return rows


def _evaluate_and_report(case: str) -> None:
    """Print what one evaluation took, as JSON."""
    warnings.simplefilter("ignore")  # rFID's bias, and weights that are not the published ones
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(TrainConfig())
    with tempfile.TemporaryDirectory() as folder:
        weights = write_inception_weights(Path(folder) / "inception.pth") if CASES[case] else None
        options = {"device": "cpu", "lpips": "off", "rfid": CASES[case], "rfid_weights": weights, "progress": False}
        evaluate(tokenizer, "photos", max_images=16, **options)  # the pixel cache is built, the kernels are chosen
        before = _memory_mib("VmRSS")
        record = evaluate(tokenizer, "photos", max_images=NUM_IMAGES, **options)
        after = _memory_mib("VmHWM")
    memory = None if before is None or after is None else after - before
    print(
        json.dumps(
            {
                "seconds": record.seconds,
                "images_per_second": record.images_per_second,
                "peak_memory_mib": memory,
            }
        )
    )


def _memory_mib(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def _print_table(rows: list[dict[str, Any]]) -> None:
    parts = ("network", "data", "metrics", "total")
    print(
        f"{'':26} {'networks':>9} {'goal':>8} {'images/s':>9}" + "".join(f"{p + ' s':>11}" for p in parts) + " peak MiB"
    )
    for row in rows:
        memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.0f}"
        seconds = "".join(f"{row['seconds'][part]:11.2f}" for part in parts)
        share = f"{row['value']:9.1%} >= {row['goal']:.0%}"
        print(f"{row['case']:26} {share:>18} {row['images_per_second']:9.1f}{seconds} {memory:>8}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        _evaluate_and_report(sys.argv[2])
    else:
        _print_table(run())
        print(f"{NUM_IMAGES} images of 64x64, {os.cpu_count()} processors, torch {torch.__version__}")
