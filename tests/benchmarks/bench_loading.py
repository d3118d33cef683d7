"""How fast batches come from the pixel cache, against decoding each image with PIL (one thread, 64 images of 64x64).

    python tests/benchmarks/bench_loading.py

Candidates take turns of four batches, and the fastest batch of each counts: the speed of a shared machine drifts, its
best moment less so. Peak memory is that of a process of its own that loads 200 batches, above what it held once
everything was imported; pages of the mapped cache count, though the system may drop them at any time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vistok.config import repository_root
from vistok.data import open_dataset, train_batches

IMAGE_SIZE, BATCH_SIZE = 64, 64
NUM_TURNS, BATCHES_A_TURN = 60, 4
CELEBA_MINI = repository_root().parent / "shared/data/celeba-mini"


def decode_each(root: Path) -> Iterator[torch.Tensor]:
    """CelebA as a loop over files gives it: open, crop, resize and flip each image, then stack."""
    paths = sorted((root / "img_align_celeba").iterdir())
    rng = np.random.default_rng(0)
    while True:
        squares = []
        for index in rng.integers(0, len(paths), BATCH_SIZE):
            with Image.open(paths[index]) as image:
                square = image.convert("RGB").crop((25, 57, 153, 185))
            square = square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
            if rng.random() < 0.5:
                square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            squares.append(np.asarray(square))
        yield torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)


def from_cache(root: Path) -> Iterator[torch.Tensor]:
    """CelebA through `train_batches`: random flips of cached squares."""
    return train_batches(open_dataset("celeba", "train", IMAGE_SIZE, data_root=root), BATCH_SIZE, seed=0, steps=10**9)


def from_cache_with_crops(root: Path) -> Iterator[torch.Tensor]:
    """The same files as a plain folder: random flips and random crops of cached squares."""
    dataset = open_dataset("folder", "train", IMAGE_SIZE, data_root=root / "img_align_celeba")
    return train_batches(dataset, BATCH_SIZE, seed=0, steps=10**9)


CANDIDATES: dict[str, Callable[[Path], Iterator[torch.Tensor]]] = {
    "PIL, each image": decode_each,
    "pixel cache, flips": from_cache,
    "pixel cache, flips and crops": from_cache_with_crops,
}


def run() -> list[dict[str, Any]]:
    """Measure every candidate.

    Returns:
        For each: name, milliseconds a batch, images_per_second, ratio to the first candidate, and peak_memory_mib (None
        where the system does not tell it).
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = CELEBA_MINI if CELEBA_MINI.is_dir() else _generate_celeba(Path(folder))
        streams = {name: candidate(root) for name, candidate in CANDIDATES.items()}
        seconds = dict.fromkeys(CANDIDATES, float("inf"))
        for name in list(CANDIDATES) * NUM_TURNS:
            for _ in range(BATCHES_A_TURN):
                start = time.perf_counter()
                next(streams[name])
                seconds[name] = min(seconds[name], time.perf_counter() - start)
        memory = {name: _peak_memory_mib(name, root) for name in CANDIDATES}
    torch.set_num_threads(num_threads)
    slowest = seconds["PIL, each image"]
    return [
        {
            "name": name,
            "milliseconds": 1e3 * seconds[name],
            "images_per_second": BATCH_SIZE / seconds[name],
            "ratio": slowest / seconds[name],
            "peak_memory_mib": memory[name],
        }
        for name in CANDIDATES
    ]


def _peak_memory_mib(name: str, root: Path) -> float | None:
    command = [sys.executable, __file__, "--memory", name, str(root)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _load_and_report_memory(name: str, root: Path) -> None:
    """Print how much the peak of this process's memory rises while it loads 200 batches."""
    torch.set_num_threads(1)
    before = _memory_mib("VmRSS")
    stream = CANDIDATES[name](root)
    for _ in range(200):
        next(stream)
    after = _memory_mib("VmHWM")
    print(json.dumps(None if before is None or after is None else after - before))


def _memory_mib(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def _generate_celeba(root: Path) -> Path:
    """Write 1000 smooth JPEGs of CelebA's size, about 10 kB each, in its official layout."""
    folder = root / "img_align_celeba"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{i:06d}.jpg" for i in range(1, 1001)]
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, (27, 22, 3), dtype=np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(folder / name, quality=90)
    (root / "list_eval_partition.txt").write_text("".join(f"{name} 0\n" for name in names))
    return root


def _print_table(rows: list[dict[str, Any]]) -> None:
    print(f"{'':30} {'ms a batch':>10} {'images/s':>10} {'ratio':>8} {'peak MiB':>9}")
    for row in rows:
        memory = "-" if row["peak_memory_mib"] is None else f"{row['peak_memory_mib']:.1f}"
        speed = f"{row['milliseconds']:10.3f} {row['images_per_second']:10,.0f} {row['ratio']:7.1f}x"
        print(f"{row['name']:30} {speed} {memory:>9}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        _load_and_report_memory(sys.argv[2], Path(sys.argv[3]))
    else:
        _print_table(run())
        print(f"{os.cpu_count()} processors, torch {torch.__version__}, Pillow {Image.__version__}")
