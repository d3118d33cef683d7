"""Sums and means over the processes of a distributed run; of one process they are what it has."""

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn
from torch.optim import Optimizer


def process_state() -> PartialState:
    """Return what Accelerate knows of this process and those beside it; the group of processes is begun with it.

    On a machine without a GPU it takes several processes for so many single ones, unless it is told that the CPU is meant.
    ACCELERATE_USE_CPU, which `accelerate launch --cpu` sets, it would read later, when the device is chosen.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    only_one = not torch.accelerator.is_available() or torch.backends.mps.is_available()
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or (several and only_one))


def is_distributed() -> bool:
    """Return whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_number() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
    """Return a model and its optimiser as several processes train them; of one process they are what they were."""
    with warnings.catch_warnings():
        # PyTorch renames the option that Accelerate passes on. Ours is off: a codebook's buffers are summed where they change.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return accelerator.prepare(model, optimizer)


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


def max_over_processes(tensor: Tensor) -> Tensor:
    """Take the maximum of a tensor over all processes in place, element by element, and return it."""
    if is_distributed():
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def of_all_processes(value: Any) -> list[Any]:
    """Return what each process has, a small object that can be pickled, by rank."""
    if not is_distributed():
        return [value]
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def batch_mean(mean: Tensor) -> Tensor:
    """Return a batch's mean, given that of this process's equal share of it, for a loss that is not linear in it.

    Its gradient is that of the share alone, and of full size: with the mean over processes that gradients are given after
    the backward pass, it becomes the batch's.
    """
    if not is_distributed():
        return mean
    return mean + (mean_over_processes(mean.detach().clone()) - mean.detach())
