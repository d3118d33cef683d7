"""How fast PSNR and SSIM of a batch are, against scikit-image image by image (64 images of 64x64, float32).

    python tests/benchmarks/bench_metrics.py

Candidates take turns, and the fastest turn of each counts: the speed of a shared machine drifts, its best moment less so.
Peak memory is that of a process of its own, above what it held once everything was imported.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import piqa
import skimage
import skimage.metrics
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from vistok.metrics import PSNR, SSIM, CodebookUsage, SSIMUniform7

NUM_IMAGES, IMAGE_SIZE, NUM_TURNS = 64, 64, 30
GAUSSIAN = {"win_size": 11, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
NUM_TOKENS, CODEBOOK_SIZE = 64 * 16 * 16, 16_384


def run() -> list[dict[str, Any]]:
    """Measure every candidate.

    Returns:
        For each case: value, unit, goal (None where there is none), peak_memory_mib (None where it is not measured).
    """
    candidates = _candidates()
    seconds = dict.fromkeys(candidates, float("inf"))
    for name in list(candidates) * NUM_TURNS:
        start = time.perf_counter()
        candidates[name]()
        seconds[name] = min(seconds[name], time.perf_counter() - start)
    loop, batch = "scikit-image, PSNR + SSIM, each image", "vistok, PSNR + SSIM"
    rows = []
    for name in candidates:
        if name.startswith("CodebookUsage"):
            rows.append(_row(name, 1e6 * seconds[name], "us"))
        else:
            rows.append(_row(name, NUM_IMAGES / seconds[name], "images/s", memory=_peak_memory_mib(name)))
    uniform_loop, uniform_batch = "scikit-image, 7x7 SSIM, each image", "vistok, 7x7 SSIM"
    rows.append(_row("PSNR + SSIM against scikit-image", seconds[loop] / seconds[batch], "x", goal=3))
    rows.append(_row("7x7 SSIM against scikit-image", seconds[uniform_loop] / seconds[uniform_batch], "x"))
    psnr, ssim = candidates[batch]()
    expected_psnr, expected_ssim = candidates[loop]()
    rows.append(_row("PSNR, distance from scikit-image's", abs(psnr - expected_psnr), "dB", goal=-1e-4))
    rows.append(_row("SSIM, distance from scikit-image's", abs(ssim - expected_ssim), "", goal=-1e-5))
    return rows


def _row(case: str, value: float, unit: str, goal: float | None = None, memory: float | None = None) -> dict[str, Any]:
    """Return a row; a goal below 0 is an upper limit."""
    return {"case": case, "value": value, "unit": unit, "goal": goal, "peak_memory_mib": memory}


def _candidates() -> dict[str, Callable[[], Any]]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(NUM_IMAGES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    reconstructions = (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    arrays = [batch.permute(0, 2, 3, 1).contiguous().numpy() for batch in (images, reconstructions)]
    pairs = list(zip(*arrays, strict=True))
    similarity = skimage.metrics.structural_similarity
    piqa_ssim = piqa.SSIM()
    usage, indices = CodebookUsage(CODEBOOK_SIZE), torch.randint(0, CODEBOOK_SIZE, (NUM_TOKENS,), generator=generator)

    def with_scikit_image() -> tuple[float, float]:
        psnr = [skimage.metrics.peak_signal_noise_ratio(x, y, data_range=1) for x, y in pairs]
        ssim = [similarity(x, y, channel_axis=2, data_range=1, **GAUSSIAN) for x, y in pairs]
        return float(np.mean(psnr)), float(np.mean(ssim, dtype=np.float64))

    def measured(*metrics: torch.nn.Module) -> list[float]:
        for metric in metrics:
            metric.update(images, reconstructions)
        return [float(metric.compute()) for metric in metrics]

    return {
        "scikit-image, PSNR + SSIM, each image": with_scikit_image,
        "vistok, PSNR + SSIM": lambda: measured(PSNR(), SSIM()),
        "piqa, SSIM": lambda: piqa_ssim(images, reconstructions),
        "torchmetrics, SSIM": lambda: structural_similarity_index_measure(images, reconstructions, data_range=1.0),
        "scikit-image, 7x7 SSIM, each image": lambda: [
            similarity(x, y, channel_axis=2, data_range=1) for x, y in pairs
        ],
        "vistok, 7x7 SSIM": lambda: measured(SSIMUniform7()),
        f"CodebookUsage.update, {NUM_TOKENS:,} tokens, K {CODEBOOK_SIZE:,}": lambda: usage.update(indices),
    }


def _peak_memory_mib(name: str) -> float | None:
    command = [sys.executable, __file__, "--memory", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _measure_and_report_memory(name: str) -> None:
    """Print how much the peak of this process's memory rises while it measures."""
    candidate = _candidates()[name]
    before = _memory_mib("VmRSS")
    candidate()
    after = _memory_mib("VmHWM")
    print(json.dumps(None if before is None or after is None else after - before))


def _memory_mib(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'':52} {'value':>14} {'goal':>12} {'peak MiB':>9}")
    for row in rows:
        goal = "" if row["goal"] is None else f"{'>=' if row['goal'] > 0 else '<='} {abs(row['goal']):g}"
        memory = "" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.1f}"
        print(f"{row['case']:52} {row['value']:10.4g} {row['unit']:8}{goal:>8} {memory:>9}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        _measure_and_report_memory(sys.argv[2])
    else:
        _print_table(run())
        print(f"{os.cpu_count()} processors, torch {torch.__version__}, scikit-image {skimage.__version__}")
