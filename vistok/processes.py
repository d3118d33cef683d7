"""Sums and means over the processes of a distributed run; of one process they are what it has."""

import torch.distributed as dist
from torch import Tensor


def is_distributed() -> bool:
    """Return whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_number() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum a tensor in place over all processes, and return it."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Average a float tensor in place over all processes, and return it."""
    if is_distributed():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensor


def batch_mean(mean: Tensor) -> Tensor:
    """Return a batch's mean, given that of this process's equal share of it, for a loss that is not linear in it.

    Its gradient is that of the share alone, and of full size: with the mean over processes that gradients are given after
    the backward pass, it becomes the batch's.
    """
    if not is_distributed():
        return mean
    return mean + (mean_over_processes(mean.detach().clone()) - mean.detach())
