"""Statistics of test sets in Inception's features, kept from one evaluation to the next: half of what an rFID costs.

One file for each set of images and way of computing, `rfid-*.npz` of 34 MB, beside the pixel caches; of more than `MOST_FILES`
those that were not used for longest are deleted. Sums in other batches, or on another device, differ in their last bits; so
these are part of its name, and a record is the same whether the statistics were kept or not. It is written under another name
and renamed when complete, so that processes that write it at once both succeed; who reads a file that is deleted has it open.
"""

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from vistok.data import ImageDataset
from vistok.data.cache import cache_folder, make_cache_folder
from vistok.metrics import RFID, ImageStatistics
from vistok.networks.inception import NUM_FEATURES
from vistok.system.files import left_behind, replacing
from vistok.system.processes import of_all_processes, rank_and_number, sum_over_processes
from vistok.system.provenance import provenance
from vistok.system.weights import first_line

MOST_FILES = 32  # 1.1 GB
_VERSION = 1  # goes up when the same images give other statistics


@contextlib.contextmanager
def kept_statistics(
    metric: RFID | None, images: ImageDataset, num_images: int, batch_size: int, device: torch.device
) -> Iterator[bool]:
    """Give rFID what an earlier evaluation found of the images, or else keep what this one finds; in all processes at once.

    Args:
        metric: on its device; None: rFID is not measured, and nothing happens.
        images: what is measured.
        num_images: the first so many of them.
        batch_size: that they are computed in.
        device: that they are computed on.

    Yields:
        whether they were kept: the metric looks at reconstructions only.
    """
    if metric is None:
        yield False
        return
    path = _path(metric, images, num_images, batch_size, device)
    metric.given = _kept(path, num_images, metric.sums.device)
    yield metric.given is not None
    if metric.given is None and rank_and_number()[0] == 0:
        _keep(metric.found, path)


def _path(metric: RFID, images: ImageDataset, num_images: int, batch_size: int, device: torch.device) -> Path:
    here = provenance(device)
    of_images = [images.record(), images.content_key(), num_images, metric.weights_sha256]
    of_computing = [batch_size, rank_and_number()[1], here["device"], here["threads"], here["versions"]["torch"]]
    key = hashlib.sha256(json.dumps([_VERSION, *of_images, *of_computing], sort_keys=True).encode()).hexdigest()
    size = "whole" if images.image_size is None else images.image_size
    return cache_folder() / f"rfid-{images.name}-{images.split}-{size}-{key[:16]}.npz"


def _kept(path: Path, num_images: int, device: torch.device) -> ImageStatistics | None:
    """Return what the file on the disk of the main process holds, on a device; the same in all processes."""
    rank, num_processes = rank_and_number()
    found = _read_if_good(path, num_images) if rank == 0 else None
    if not of_all_processes(found is not None)[0]:
        return None
    shapes = (NUM_FEATURES,), (NUM_FEATURES, NUM_FEATURES)
    arrays = found[:2] if found else [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    sums, outer_sums = (array.to(device) for array in arrays)
    if num_processes > 1:  # those of the others are 0
        sums, outer_sums = sum_over_processes(sums), sum_over_processes(outer_sums)
    return ImageStatistics(sums, outer_sums, num_images)


def _keep(statistics: ImageStatistics, path: Path) -> None:
    """Write the file; warns where that cannot be done: what was measured is worth more."""
    arrays = {"sums": statistics.sums.cpu().numpy(), "outer_sums": statistics.outer_sums.cpu().numpy()}
    try:
        make_cache_folder()
        for part in path.parent.glob(".rfid-*.part"):
            if left_behind(part):  # by a process that was killed
                part.unlink(missing_ok=True)
        with replacing(path) as file:
            np.savez(file, **arrays, num_images=statistics.num_images)  # a zip file: each array has its checksum
        _delete_oldest(path.parent)
    except OSError as error:
        warnings.warn(
            f"The statistics of the images are not kept, and the next evaluation computes them again: {error}.",
            stacklevel=5,
        )


def _delete_oldest(folder: Path) -> None:
    """Delete all files but the `MOST_FILES` that were used last; another process may delete them meanwhile."""
    used: dict[Path, int] = {}
    for file in folder.glob("rfid-*.npz"):
        with contextlib.suppress(FileNotFoundError):
            used[file] = file.stat().st_mtime_ns
    for file in sorted(used, key=used.__getitem__)[:-MOST_FILES]:
        with contextlib.suppress(OSError):  # on Windows, a file that somebody reads stays
            file.unlink()


def _read_if_good(path: Path, num_images: int) -> ImageStatistics | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sums, outer_sums, number = arrays["sums"], arrays["outer_sums"], arrays["num_images"]
        if (sums.shape, outer_sums.shape, number.shape) != ((NUM_FEATURES,), (NUM_FEATURES, NUM_FEATURES), ()):
            raise ValueError("its arrays have other shapes")
        if {sums.dtype, outer_sums.dtype} != {np.dtype(np.float64)} or number != num_images:
            raise ValueError("its arrays hold other numbers")
        with contextlib.suppress(OSError):  # the folder may be somebody else's
            os.utime(path)  # when it was used last
        return ImageStatistics(torch.from_numpy(sums), torch.from_numpy(outer_sums), num_images)
    except FileNotFoundError:  # not kept, or deleted by now
        return None
    except Exception as error:  # a damaged file raises whatever the parser of the zip or of an array meets first
        warnings.warn(
            f"The statistics of the images, {path.name}, are computed again: their file is damaged ({first_line(error)}).",
            stacklevel=6,
        )
        return None
