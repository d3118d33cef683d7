"""What every test gets: runs of its own, one pixel cache for all, and the thread count it found."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before PyTorch is imported, and for every process that a test starts: the tests of other files compute at the same time.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from helpers.forked_kernels import forked_kernels
from PIL import Image

from vistok.config import TrainConfig
from vistok.system.paths import repository_root

LONG = ("laws/test_notebooks", "laws/test_kills", "_in_lab", "laws/test_processes", "test_metrics", "test_launching")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process is left alone with one at the end; without a GPU some skip."""

    def place(item: pytest.Item) -> int:
        return next((place for place, name in enumerate(LONG) if name in str(item.path)), len(LONG))

    items.sort(key=place)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pixel cache for the session: the photographs are cropped once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs go to a folder of the test's own; the thread count is put back at its end."""
    monkeypatch.setenv("VISTOK_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("VISTOK_CACHE", str(cache_folder))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def kernels() -> Iterator[dict[str, str]]:
    """The environment in which notebooks' kernels start at once."""
    with forked_kernels() as environment:
        yield environment


@pytest.fixture(scope="session")
def shared() -> Path:
    """The team's shared folder beside the checkout: golden files and larger data."""
    folder = repository_root().parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}: the shared data is not on this machine")
    return folder


@pytest.fixture(scope="session")
def images_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 20 small images: 18 for training, 2 for testing."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(20):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((24, 24), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def toy(images_root: Path) -> Callable[..., TrainConfig]:
    """Make a configuration that trains in a blink: 16x16 images, K = 16, 6 steps of 4 images."""

    def make(**settings: Any) -> TrainConfig:
        small: dict[str, Any] = {
            "dataset": "folder",
            "data_root": str(images_root),
            "image_size": 16,
            "hidden_dim": 8,
            "num_res_blocks": 1,
            "codebook_size": 16,
            "codebook_dim": 4,
            "batch_size": 4,
            "steps": 6,
            "lr": 1e-3,
            "seed": 0,
            "precision": "float32",
            "report_every": 2,
            "checkpoint_every": 4,
        }
        return TrainConfig(**(small | settings))

    return make
