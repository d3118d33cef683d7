"""Batches: which image comes when, and how it is augmented, as a function of (seed, epoch, sample index) alone."""

import atexit
import functools
import signal
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vistok.data.datasets import FLIP_DRAW, ImageDataset, called
from vistok.data.draws import NUM_DRAWS, permutation, uniform
from vistok.system.values import NonNegativeInt, PositiveInt, checked


def train_batches(
    dataset: ImageDataset,
    batch_size: int,
    *,
    seed: int,
    start_step: int = 0,
    steps: int,
    flip: bool = True,
    num_workers: int = 0,
    rank: int = 0,
    num_processes: int = 1,
    num_parts: int = 1,
    pin_memory: bool = False,
) -> Iterator[torch.Tensor]:
    """Iterate over the training batches of steps `start_step` to `steps`.

    Position p = step * batch_size + j of the stream is sample permutation(seed, epoch)[p mod N] of epoch p div N;
    nothing is dropped between epochs. The stream is the same whatever the number of workers or processes and the first
    step.

    Args:
        dataset: N images; or else what has a length, a `name`, a `split` and an `images(indices, draws)`, whose batches come.
        batch_size: images a step, over all processes; each takes its contiguous share of every part.
        seed: of order, crops and flips.
        start_step: the first step, of a resumed run.
        steps: the step to end before.
        flip: mirror each image with probability 1/2.
        num_workers: loading processes; 0: load here.
        rank: this process, in [0, num_processes).
        num_processes: that share the batch.
        num_parts: of the batch that are computed one after the other: each holds the same images whatever the number of
            processes.
        pin_memory: put the batches in pinned memory, for asynchronous copies to a GPU.

    Returns:
        An iterator over uint8 [batch_size / num_processes, 3, H, W], channels_last.

    Raises:
        ValueError: the dataset is smaller than a batch, or the batch cannot be shared evenly.
    """
    check_batch_size(dataset, batch_size, num_processes * num_parts)
    mine = np.arange(batch_size).reshape(num_parts, num_processes, -1)[:, rank].flatten()
    batches = _TrainBatches(dataset, batch_size, seed, flip, mine)
    return _load(batches, range(start_step, steps), num_workers, pin_memory)


def check_batch_size(dataset: ImageDataset, batch_size: int, num_parts: int) -> None:
    """Raise ValueError where a dataset is smaller than a batch, or a batch cannot be shared evenly.

    Args:
        dataset: N images.
        batch_size: images a step.
        num_parts: that share them: processes times what each takes one after the other.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, but must be at least 1.")
    if len(dataset) < batch_size:
        raise ValueError(
            f"The {dataset.split} split of {called(dataset.name)} has {len(dataset)} "
            f"{'image' if len(dataset) == 1 else 'images'}, fewer than one batch of {batch_size}; the largest batch_size is "
            f"{len(dataset)}."
        )
    if batch_size % num_parts:
        nearest_size = max(1, round(batch_size / num_parts)) * num_parts
        raise ValueError(
            f"batch_size {batch_size} cannot be shared evenly by {num_parts}, the processes times accumulate; "
            f"{nearest_size} can."
        )


def check_loading(batch_size: int, num_workers: int = 0, max_images: int | None = None) -> None:
    """Check how images are to be read, before any is.

    Raises:
        ValueError: a number is out of range.
        TypeError: it is none.
    """
    checked("batch_size", PositiveInt, batch_size)
    checked("num_workers", NonNegativeInt, num_workers)
    checked("max_images", PositiveInt | None, max_images)


def eval_batches(
    dataset: ImageDataset,
    batch_size: int,
    *,
    first_image: int = 0,
    end_image: int | None = None,
    num_workers: int = 0,
    rank: int = 0,
    num_processes: int = 1,
) -> Iterator[torch.Tensor]:
    """Iterate once over the images in order, without augmentation (centre crops); nothing is dropped or repeated.

    Args:
        dataset: N images.
        batch_size: images a batch of this process; the last may have fewer.
        first_image: number of the image to begin with.
        end_image: number of the image to end before; None: all.
        num_workers: loading processes; 0: load here.
        rank: this process, in [0, num_processes).
        num_processes: each takes one contiguous part of these images (`share`); their parts differ by at most one image.

    Returns:
        An iterator over uint8 [b, 3, H, W], channels_last; of whole pictures a batch ends where their size changes.
    """
    check_loading(batch_size, num_workers)
    images = share(range(first_image, len(dataset) if end_image is None else end_image), rank, num_processes)
    batches = _EvalBatches(dataset, batch_size, images.start, images.stop)
    return _load(batches, range(len(batches)), num_workers, pin_memory=False)


def share(images: range, rank: int, num_processes: int) -> range:
    """Return the contiguous part of some images that one of several processes takes; parts differ by at most one image."""
    first, end = (len(images) * r // num_processes for r in (rank, rank + 1))
    return images[first:end]


class _TrainBatches(Dataset):
    """This process's share of each training step, by step."""

    def __init__(self, dataset: ImageDataset, batch_size: int, seed: int, flip: bool, mine: np.ndarray) -> None:
        self.dataset, self.batch_size, self.seed, self.flip = dataset, batch_size, seed, flip
        self.mine = mine  # places within the batch, int [share]

    def __getitem__(self, step: int) -> torch.Tensor:
        positions = step * self.batch_size + self.mine
        epochs, places = np.divmod(positions, len(self.dataset))
        indices = np.empty(len(self.mine), np.int64)
        draws = np.empty((len(self.mine), NUM_DRAWS))
        for epoch in np.unique(epochs):  # two at the most
            here = epochs == epoch
            indices[here] = _order(self.seed, int(epoch), len(self.dataset))[places[here]]
            draws[here] = uniform(self.seed, int(epoch), indices[here])
        if not self.flip:
            draws[:, FLIP_DRAW] = 1.0
        return self.dataset.images(indices, draws)


class _EvalBatches(Dataset):
    """Images first to last in batches."""

    def __init__(self, dataset: ImageDataset, batch_size: int, first: int, last: int) -> None:
        self.dataset, self.batches = dataset, dataset.batches(first, last, batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.dataset.images(np.asarray(self.batches[number]))


@functools.lru_cache(maxsize=2)  # the epoch that ends in a batch and the one that begins there
def _order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    return permutation(seed, epoch, num_samples)


_LOADING: "weakref.WeakSet[Iterator[torch.Tensor]]" = weakref.WeakSet()  # iterators that have loading processes


def _leave_signals(_worker: int) -> None:
    """Let a loading process go on when all processes are told to end: the trainer needs its batches until it has saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end_loading() -> None:
    """End what still loads when Python exits; `multiprocessing` would send SIGTERM, which they leave, and wait for ever."""
    for batches in list(_LOADING):
        for worker in batches._workers:
            worker.kill()


def _load(batches: Dataset, numbers: Sequence[int], num_workers: int, pin_memory: bool) -> Iterator[torch.Tensor]:
    loader = DataLoader(
        batches,
        batch_size=None,  # an item is a batch
        sampler=numbers,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals,
        generator=torch.Generator(),  # or the loader would draw from, and so change, the global one
    )
    batches = iter(loader)
    if num_workers:
        if not _LOADING:  # now `multiprocessing` has registered its own end, and what is registered later comes first
            atexit.register(_end_loading)
        _LOADING.add(batches)
    return batches
