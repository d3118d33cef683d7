"""Codebook usage: which of its codes a tokenizer chooses, and how evenly.

Plain sums, without torchmetrics, whose import takes longer than that of PyTorch: every training counts, few measure.
"""

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from vistok.system.processes import max_over_processes, sum_over_processes

USAGES = ("usage", "usage_queue", "perplexity", "entropy_bits")


class CodebookUsage:
    """How much of each codebook of a tokenizer is used, in four numbers, from the indices of any number of batches.

    - usage: distinct codes over all indices / K
    - usage_queue: distinct codes among the last `queue_size` indices / K
    - perplexity: exp of the entropy of the histogram of codes
    - entropy_bits: that entropy, in bits a token

    For the queue no queue is kept, only where each code was last seen. So an update costs a few passes over the batch's
    indices and one over K, and no wait for the device. Each process counts what it sees, and `summed` is over all of them:
    the same four numbers as of one process where each says where its images stand; else "the last" are the last
    `queue_size` / P of each of P processes, which is the same where batches are dealt out to processes in turn.

    Args:
        codebook_sizes: K of each level, at least 1; none: there is nothing to count.
        queue_size: number of indices, at least 1; 65,536 is the protocol's.
        device: where it counts.

    Attributes:
        counts: the histogram of each level, int64 [K].

    Raises:
        ValueError: an argument is below 1.
    """

    def __init__(
        self, codebook_sizes: Sequence[int], queue_size: int = 65_536, device: torch.device | str = "cpu"
    ) -> None:
        for name, value in (*(("codebook_size", size) for size in codebook_sizes), ("queue_size", queue_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        self.codebook_sizes = tuple(codebook_sizes)
        self.queue_size = queue_size
        self.device = torch.device(device)
        self.reset()

    def reset(self) -> None:
        """Forget all that was counted."""
        self.counts = [torch.zeros(size, dtype=torch.int64, device=self.device) for size in self.codebook_sizes]
        self._last = [counts - 1 for counts in self.counts]  # place of each code's last index; -1: none yet
        self._num_outside = [counts.new_zeros(()) for counts in self.counts]

    def update(self, levels: Sequence[Tensor], images_before: int | None = None) -> None:
        """Add the indices of a batch, in their order.

        Args:
            levels: for each codebook int64 [B, ...] in [0, K).
            images_before: number of images that stand before these among those of all processes; None: they come after
                those seen here.

        Raises:
            ValueError: there are more or fewer levels than codebooks; the type is another; or an index is outside [0, K), which
                on another device than the CPU is said by `compute`, for asking here would make every training step wait.
        """
        if len(levels) != len(self.counts):
            raise ValueError(f"There are {len(levels)} levels of indices, but {len(self.counts)} codebooks to count.")
        for level, indices in enumerate(levels):
            tokens_before = None if images_before is None else images_before * math.prod(indices.shape[1:])
            self._count(level, indices, tokens_before)

    def _count(self, level: int, indices: Tensor, place: int | None) -> None:
        counts, size = self.counts[level], self.codebook_sizes[level]
        if indices.dtype != torch.int64:
            raise ValueError(f"Indices are {indices.dtype}, but must be torch.int64.")
        indices = indices.detach().to(self.device).flatten()  # [N]
        outside = (indices < 0) | (indices >= size)
        if self.device.type == "cpu" and outside.any():
            raise ValueError(
                f"Index {indices[outside][0]} is outside the codebook of {size} codes; indices are 0 to {size - 1}."
            )
        self._num_outside[level] += outside.sum()
        indices = indices.clamp(0, size - 1)
        places = torch.arange(indices.numel(), device=self.device) + (counts.sum() if place is None else place)
        counts.scatter_add_(0, indices, torch.ones_like(indices))
        self._last[level].scatter_reduce_(0, indices, places, "amax")

    def state(self) -> list[dict[str, Tensor]]:
        """Return what was counted, of each level the tensors by name; `load_state` takes it."""
        parts = zip(self.counts, self._last, self._num_outside, strict=True)
        return [{"counts": counts, "last": last, "num_outside": outside} for counts, last, outside in parts]

    def load_state(self, state: Sequence[dict[str, Tensor]]) -> None:
        """Go on from what was counted before, on this object's device, whatever device it was saved on.

        Args:
            state: what `state` returned of an object with the same `codebook_sizes`.
        """
        for own, saved in zip(self.state(), state, strict=True):
            for name, value in own.items():
                value.copy_(saved[name])

    def summed(self) -> Self:
        """Return a copy that has counted what all processes have; every process must call it."""
        copy = type(self)(self.codebook_sizes, self.queue_size, self.device)
        copy.load_state(self.state())
        for tensors in copy.state():
            sum_over_processes(tensors["counts"])
            max_over_processes(tensors["last"])
            sum_over_processes(tensors["num_outside"])
        return copy

    def compute(self) -> list[dict[str, float]]:
        """Return of each level usage and usage_queue as fractions, perplexity and entropy_bits.

        Raises:
            ValueError: no index was given, or one outside [0, K).
        """
        return [self._computed(level) for level in range(len(self.codebook_sizes))]

    def means(self) -> dict[str, float]:
        """Return the mean over the levels of each of the four numbers; nothing where there is no codebook.

        Raises:
            ValueError: as of `compute`.
        """
        levels = self.compute()
        return {name: sum(level[name] for level in levels) / len(levels) for name in USAGES} if levels else {}

    def _computed(self, level: int) -> dict[str, float]:
        size = self.codebook_sizes[level]
        if self._num_outside[level]:
            raise ValueError(
                f"{int(self._num_outside[level])} indices were outside the codebook of {size} codes; "
                f"indices are 0 to {size - 1}."
            )
        counts = self.counts[level].cpu().double()
        if counts.sum() == 0:
            raise ValueError("Codebook usage needs at least one index, but was given none.")
        last = self._last[level].cpu()
        end = int(last.max()) + 1
        # Where the processes counted for themselves, one place stands for an index of each.
        in_queue = last >= max(0, end - max(1, self.queue_size * end // int(counts.sum())))
        used = int((counts > 0).sum())
        entropy = torch.special.entr(counts / counts.sum()).sum().abs()  # nats; of a single code PyTorch gives -0
        # Rounding would put some of these a little over their bounds.
        return {
            "usage": float((counts > 0).double().mean()),
            "usage_queue": float(in_queue.double().mean()),
            "perplexity": float(entropy.exp().clamp(max=used)),
            "entropy_bits": float((entropy / math.log(2)).clamp(max=math.log2(used))),
        }
