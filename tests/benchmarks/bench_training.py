"""How fast a training step is: `Trainer.train_step` against a plain float32 eager loop, SimpleCNN h = 256 at 64x64.

    PYTHONPATH=tests python -m benchmarks.bench_training

The plain loop is what one writes first: the same model, NCHW, float32, `torch.optim.Adam` as it comes. Both take the same
batches of photographs in turns, and the fastest step of each counts: the speed of a shared machine drifts, its best moment
less so. The first batch's gradient is compared too, and what comes out at laptop scale, from committed records. Peak
memory is that of a process of its own.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row

from vistok import Run, TrainConfig, Trainer, VisualTokenizer
from vistok.data import open_dataset, to_float, train_batches
from vistok.system.devices import in_precision
from vistok.tables import plan

BATCH_SIZE, NUM_TURNS = 64, 12
CONFIG = TrainConfig.from_row("celeba64/vq-d4", "paper", batch_size=BATCH_SIZE, num_workers=0, seed=0)
PLAIN, OURS = "plain float32 eager step", "Trainer.train_step"


def run() -> list[dict[str, Any]]:
    """Measure both steps; returns rows with case, value, unit, goal and peak_memory_mib."""
    with tempfile.TemporaryDirectory() as folder:
        steps = {PLAIN: _plain(), OURS: _ours(Path(folder))}
        batches = _batches()
        seconds = dict.fromkeys(steps, float("inf"))
        for turn in range(NUM_TURNS):
            images = next(batches)
            for name, step in steps.items():
                start = time.perf_counter()
                step(images)
                if turn >= 2:  # the first ones choose kernels and allocate
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
    rows = [row(name, BATCH_SIZE / seconds[name], "images/s", memory=peak_memory_mib(__file__, name)) for name in steps]
    rows.append(row(f"{OURS} against the plain loop", seconds[PLAIN] / seconds[OURS], "x", goal=2.2))
    rows.append(row("cosine of the first batch's gradient to float32's", _gradient_cosine(), "", goal=0.99))
    rows.append(
        row("ema-d4 at laptop scale, PSNR's distance from float32's (records)", _psnr_distance(), "dB", goal=-0.3)
    )
    return rows


def _psnr_distance() -> float:
    """Return |PSNR in the hardware's precision - PSNR in float32| of the committed records of one row and seed."""
    about = {"rows": ["ema-d4"], "scale": "laptop", "seeds": [0], "dataset": "imagenet-sample"}
    found = [plan("celeba64", **about, **precision)[0].metrics for precision in ({}, {"precision": "float32"})]
    return abs(found[0]["psnr"] - found[1]["psnr"])


def _batches() -> Any:
    dataset = open_dataset("photos", "train", CONFIG.image_size)
    return (to_float(batch) for batch in train_batches(dataset, BATCH_SIZE, seed=0, steps=10**6))


def _plain() -> Callable[[torch.Tensor], None]:
    torch.manual_seed(0)
    tokenizer = VisualTokenizer.from_config(CONFIG)
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=CONFIG.lr)

    def step(images: torch.Tensor) -> None:
        output = tokenizer(images.contiguous())
        loss = torch.nn.functional.mse_loss(output.reconstruction, images)
        loss = loss + output.losses["codebook"] + 0.25 * output.losses["commitment"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _ours(folder: Path) -> Callable[[torch.Tensor], Any]:
    return Trainer(Run.open(folder / "run", CONFIG), progress=False).train_step


def _gradient_cosine() -> float:
    """Return the cosine between all gradients of one batch in the Trainer's precision and in float32."""
    images = next(_batches())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Run.open(Path(folder) / "run", CONFIG), progress=False)
    gradients = []
    for dtype in (trainer.dtype, torch.float32):
        trainer.tokenizer.zero_grad()
        with in_precision(dtype, images.device):
            output = trainer.tokenizer(images)
        total, _ = trainer.loss(images, output.reconstruction, output.losses)
        total.backward()
        gradients.append(torch.cat([p.grad.flatten().double() for p in trainer.tokenizer.parameters()]))
    return torch.nn.functional.cosine_similarity(*gradients, dim=0).item()


def _take_steps(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        step = _plain() if name == PLAIN else _ours(Path(folder))
        batches = _batches()
        for _ in range(3):
            step(next(batches))


if __name__ == "__main__":
    if not report_memory(sys.argv, _take_steps):
        print_rows(run())
