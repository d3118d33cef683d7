"""How fast PSNR and SSIM of a batch are, against scikit-image image by image (one thread, 64 images of 64x64).

    PYTHONPATH=tests python -m benchmarks.bench_metrics

Candidates take turns, and the fastest turn of each counts: the speed of a shared machine drifts, its best moment less
so. Peak memory is that of a process of its own, above what it held once everything was imported.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import piqa
import skimage.metrics
import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from torchmetrics.functional.image import structural_similarity_index_measure

from vistok.metrics import PSNR, SSIM, SSIMUniform7
from vistok.quantizers.usage import CodebookUsage

NUM_IMAGES, IMAGE_SIZE, NUM_TURNS = 64, 64, 30
GAUSSIAN = {"win_size": 11, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
NUM_TOKENS, CODEBOOK_SIZE = 64 * 16 * 16, 16_384


def run() -> list[dict[str, Any]]:
    """Measure every candidate; returns rows with case, value, unit, goal and peak_memory_mib."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # scikit-image uses one
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
            rows.append(row(name, 1e6 * seconds[name], "us"))
        else:
            rows.append(row(name, NUM_IMAGES / seconds[name], "images/s", memory=peak_memory_mib(__file__, name)))
    uniform_loop, uniform_batch = "scikit-image, 7x7 SSIM, each image", "vistok, 7x7 SSIM"
    rows.append(row("PSNR + SSIM against scikit-image", seconds[loop] / seconds[batch], "x", goal=3))
    rows.append(row("7x7 SSIM against scikit-image", seconds[uniform_loop] / seconds[uniform_batch], "x"))
    psnr, ssim = candidates[batch]()
    expected_psnr, expected_ssim = candidates[loop]()
    rows.append(row("PSNR, distance from scikit-image's", abs(psnr - expected_psnr), "dB", goal=-1e-4))
    rows.append(row("SSIM, distance from scikit-image's", abs(ssim - expected_ssim), "", goal=-1e-5))
    torch.set_num_threads(num_threads)
    return rows


def _candidates() -> dict[str, Callable[[], Any]]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(NUM_IMAGES, 3, 8, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
    reconstructions = (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    arrays = [batch.permute(0, 2, 3, 1).contiguous().numpy() for batch in (images, reconstructions)]
    pairs = list(zip(*arrays, strict=True))
    similarity = skimage.metrics.structural_similarity
    piqa_ssim = piqa.SSIM()
    usage, indices = CodebookUsage([CODEBOOK_SIZE]), torch.randint(0, CODEBOOK_SIZE, (NUM_TOKENS,), generator=generator)

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
        f"CodebookUsage.update, {NUM_TOKENS:,} tokens, K {CODEBOOK_SIZE:,}": lambda: usage.update([indices]),
    }


def _measure(name: str) -> None:
    torch.set_num_threads(1)
    _candidates()[name]()


if __name__ == "__main__":
    if not report_memory(sys.argv, _measure):
        print_rows(run())
