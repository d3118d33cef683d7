"""What 1.28 million images cost before the first is read, and how fast images of shards and of folders are read.

    PYTHONPATH=tests python -m benchmarks.bench_index

The index of ImageNet's size is generated as a file and opened as any other, fingerprint included; the shards that it speaks of
are empty files of their size. The folder has 100,000 empty files in 100 subfolders. Candidates take turns, and the fastest
turn of each counts: the speed of a shared machine drifts, its best moment less so. Peak memory is that of a process of its
own, above what it held once everything was imported.
"""

import itertools
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from PIL import Image

from vistok.data import open_dataset
from vistok.data.cache import open_pixel_cache
from vistok.data.draws import permutation
from vistok.data.files import FolderFiles
from vistok.data.shards import Shard, ShardIndex, index_path, open_shards, shards_key, write_index
from vistok.data.transforms import CelebASquare

NUM_IMAGES, NUM_SHARDS = 1_280_000, 1024  # as ImageNet's training split has in WebDataset
NUM_FILES, NUM_FOLDERS = 100_000, 100
NUM_READ, NUM_TURNS = 2000, 10
NUM_CACHED, IMAGE_SIZE = 4000, 64


def generate_index(root: Path) -> None:
    """Write the index of 1,280,000 images, and the 1024 shards in `root`/train as files without content."""
    folder = root / "train"
    folder.mkdir()
    shards = []
    per_shard = NUM_IMAGES // NUM_SHARDS
    for number in range(NUM_SHARDS):
        path = folder / f"imagenet1k-train-{number:04}.tar"
        path.touch()
        os.truncate(path, 112_000 * per_shard)  # takes no room on the disk
        shards.append(Shard(str(path), path.stat().st_size, path.stat().st_mtime_ns))
    names = [b"n%08d/n%08d_%05d.JPEG" % (i // 1300, i // 1300, i % 1300) for i in range(NUM_IMAGES)]
    index = ShardIndex(
        blob=np.frombuffer(b"".join(names), np.uint8),
        stops=np.cumsum([len(name) for name in names]),
        num_bytes=np.random.default_rng(0).integers(20_000, 100_000, NUM_IMAGES),
        offsets=np.arange(NUM_IMAGES) % per_shard * 112_000 + 512,
        shards=np.repeat(np.arange(NUM_SHARDS, dtype=np.int32), per_shard),
    )
    path = index_path(folder, [os.path.basename(shard.path) for shard in shards])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_index(path, shards_key(shards), index)


def run() -> list[dict[str, Any]]:
    """Measure every case; returns rows with case, value, unit, goal and peak_memory_mib."""
    before = os.environ.get("VISTOK_CACHE")
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            os.environ["VISTOK_CACHE"] = os.environ["VISTOK_BENCH_ROOT"] = folder
            return [*_open_rows(root), *_folder_rows(root), *_order_rows(), *_read_rows(root), *_cache_rows(root)]
    finally:
        os.environ.pop("VISTOK_BENCH_ROOT", None)
        os.environ.pop("VISTOK_CACHE")
        if before is not None:
            os.environ["VISTOK_CACHE"] = before


def _open_rows(root: Path) -> list[dict[str, Any]]:
    generate_index(root)
    seconds = _fastest({"open": lambda: CASES["open"](root)}, turns=3)["open"]
    memory = peak_memory_mib(__file__, "open") or float("nan")
    name = f"index of {NUM_IMAGES:,} images in {NUM_SHARDS} shards"
    files = open_dataset("imagenet", "train", 256, data_root=root, crop="adm")._files
    hashing = _fastest({"key": lambda: files.content_key("setting")}, turns=3)["key"]
    return [
        row(f"{name}: open", seconds, "s", goal=-10),
        row(f"{name}: memory", memory, "MiB", goal=-200),
        row(f"{name}: key of the pixel cache", hashing, "s"),
    ]


def _folder_rows(root: Path) -> list[dict[str, Any]]:
    for number in range(NUM_FOLDERS):
        folder = root / "many" / f"n{number:08}"
        folder.mkdir(parents=True)
        for file in range(NUM_FILES // NUM_FOLDERS):
            (folder / f"n{number:08}_{file}.JPEG").touch()
    seconds = _fastest({"scan": lambda: CASES["scan"](root)}, turns=3)["scan"]
    memory = peak_memory_mib(__file__, "scan")
    return [row(f"listing a folder of {NUM_FILES:,} files", 1e6 * seconds / NUM_FILES, "µs a file", memory=memory)]


def _order_rows() -> list[dict[str, Any]]:
    seconds = _fastest({"order": lambda: CASES["order"](Path())}, turns=3)["order"]
    memory = peak_memory_mib(__file__, "order")
    return [row(f"order of {NUM_IMAGES:,} images in an epoch", 1e3 * seconds, "ms", memory=memory)]


def _read_rows(root: Path) -> list[dict[str, Any]]:
    """Random reads, without decoding, of the same 10 kB files."""
    folder = _generate_faces(root / "faces")
    names = sorted(path.name for path in folder.iterdir())
    shards = []
    for number in range(10):
        shards.append(f"{number}.tar")
        with tarfile.open(root / shards[-1], "w") as tar:
            for name in names[number::10]:
                tar.add(folder / name, name)
    files = {"folder": FolderFiles.scan(folder), "shards": open_shards(root, shards)}
    order = np.random.default_rng(0).integers(0, len(names), NUM_READ)
    seconds = _fastest({kind: _reader(files[kind], order) for kind in files}, turns=NUM_TURNS)
    return [
        *(row(f"random reads, {kind}", NUM_READ / seconds[kind], "images/s") for kind in files),
        row("random reads, shards against folder", seconds["folder"] / seconds["shards"], "x", goal=0.8),
    ]


def _reader(files: Any, order: np.ndarray) -> Callable[[], None]:
    def read() -> None:
        for index in order:
            files.read(index)

    return read


def _cache_rows(root: Path) -> list[dict[str, Any]]:
    """Building a cache of 64x64 faces, against threads that only decode and resize, and keep nothing."""
    faces = FolderFiles.scan(root / "faces")
    files = faces.select(np.arange(NUM_CACHED) % len(faces))
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    square, count = CelebASquare(IMAGE_SIZE), itertools.count()

    def render(index: int) -> np.ndarray:
        return square.render(index, files.image(index))

    def build() -> None:
        open_pixel_cache(
            "bench", str(next(count)), len(files), IMAGE_SIZE, render, keep_going=False, num_threads=num_threads
        )
        (root / "bench.pixels").unlink()

    def only_decode() -> None:
        def part(first: int) -> None:
            for index in range(first, len(files), num_threads):
                render(index)

        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(part, range(num_threads)))

    seconds = _fastest({"build": build, "decode": only_decode}, turns=NUM_TURNS)
    return [
        row(f"decoding and resizing, {num_threads} threads", NUM_CACHED / seconds["decode"], "images/s"),
        row(f"building the pixel cache, {num_threads} threads", NUM_CACHED / seconds["build"], "images/s"),
        row("building the pixel cache, against decoding", seconds["decode"] / seconds["build"], "x", goal=0.85),
    ]


def _generate_faces(folder: Path) -> Path:
    """Write 1000 smooth JPEGs of CelebA's size, about 10 kB each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(1000):
        coarse = Image.fromarray(rng.integers(0, 256, (27, 22, 3), dtype=np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)
    return folder


def _fastest(candidates: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    seconds = dict.fromkeys(candidates, float("inf"))
    for name in list(candidates) * turns:
        start = time.perf_counter()
        candidates[name]()
        seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


CASES: dict[str, Callable[[Path], Any]] = {
    "open": lambda root: open_dataset("imagenet", "train", 256, data_root=root, crop="adm"),
    "scan": lambda root: FolderFiles.scan(root / "many"),
    "order": lambda root: permutation(0, 0, NUM_IMAGES),
}


if __name__ == "__main__":
    if not report_memory(sys.argv, lambda case: CASES[case](Path(os.environ["VISTOK_BENCH_ROOT"]))):
        print_rows(run())
