"""How fast batches come from the pixel cache, against decoding each image with PIL (one thread, 64 images of 64x64).

    PYTHONPATH=tests python -m benchmarks.bench_loading

Candidates take turns of four batches, and the fastest batch of each counts: the speed of a shared machine drifts, its
best moment less so. Peak memory is that of a process of its own that loads 200 batches, above what it held once
everything was imported; pages of the mapped cache count, though the system may drop them at any time.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from PIL import Image

from vistok.data import open_dataset, train_batches
from vistok.system.paths import repository_root

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


PIL = "PIL, each image"
CANDIDATES: dict[str, Callable[[Path], Iterator[torch.Tensor]]] = {
    PIL: decode_each,
    "pixel cache, flips": from_cache,
    "pixel cache, flips and crops": from_cache_with_crops,
}


def run() -> list[dict[str, Any]]:
    """Measure every candidate; returns rows with case, value, unit, goal and peak_memory_mib."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = _root(Path(folder))
        streams = {name: candidate(root) for name, candidate in CANDIDATES.items()}
        seconds = dict.fromkeys(CANDIDATES, float("inf"))
        for name in list(CANDIDATES) * NUM_TURNS:
            for _ in range(BATCHES_A_TURN):
                start = time.perf_counter()
                next(streams[name])
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    torch.set_num_threads(num_threads)
    rows = [
        row(name, BATCH_SIZE / seconds[name], "images/s", memory=peak_memory_mib(__file__, name)) for name in CANDIDATES
    ]
    for name in list(CANDIDATES)[1:]:
        rows.append(row(f"{name}, against PIL", seconds[PIL] / seconds[name], "x", goal=50))
    return rows


def _root(folder: Path) -> Path:
    return CELEBA_MINI if CELEBA_MINI.is_dir() else _generate_celeba(folder)


def _load(name: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        stream = CANDIDATES[name](_root(Path(folder)))
        for _ in range(200):
            next(stream)


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


if __name__ == "__main__":
    if not report_memory(sys.argv, _load):
        print_rows(run())
