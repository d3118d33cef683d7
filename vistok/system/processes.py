"""The processes of a distributed run: what Accelerate says of them, the model that they share, sums and means over them.

Accelerate decides where a training runs, from its launcher's environment variables. Those that would decide what it
computes, which `accelerate config` of another project may have left, are without effect here or refused.
"""

import os
import warnings
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin, TorchDynamoPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# Variables that `accelerate launch` sets for ways of sharing a model that this package does not have.
OTHER_WAYS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor or context parallelism",
}


def process_state() -> PartialState:
    """Return what Accelerate knows of this process and those beside it; the group of processes is begun with it.

    On a machine without a GPU it takes several processes for so many single ones, unless it is told that the CPU is meant.
    ACCELERATE_USE_CPU, which `accelerate launch --cpu` sets, it would read later, when the device is chosen.

    Raises:
        ValueError: an environment variable of Accelerate's asks for what this package does not have, or is not valid.
    """
    for name, way in OTHER_WAYS.items():
        if _flag(name):
            raise ValueError(
                f"{name} is {os.environ[name]!r}, but every process holds the whole model here, without {way}: unset it, or "
                "start with `accelerate launch --multi_gpu`, which needs no `accelerate config`."
            )
    if (name := os.environ.get("ACCELERATE_TORCH_DEVICE")) is not None:
        try:
            torch.zeros(1, device=name).cpu()
        except (RuntimeError, AssertionError) as error:  # no device's name; one that this machine or PyTorch has not
            raise ValueError(
                f"ACCELERATE_TORCH_DEVICE is {name!r}, but that is no device here: unset it, or set cpu or cuda:0."
            ) from error
    for name in ("ACCELERATE_DEBUG_MODE", "ACCELERATE_CPU_AFFINITY"):  # it reads them, and would not say which is wrong
        _flag(name)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    only_one = not torch.accelerator.is_available() or torch.backends.mps.is_available()
    state = PartialState(cpu=_flag("ACCELERATE_USE_CPU") or (several and only_one))
    if state.distributed_type == DistributedType.XLA:
        raise ValueError(
            "Accelerate has found torch_xla and would train with it, which this package does not: set USE_TORCH_XLA=0."
        )
    return state


def leave_processes() -> None:
    """Leave the group of processes, where there is one: its threads may else outlive the interpreter, which then aborts."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _flag(name: str) -> bool:
    """Return an environment variable that is true or false; unset is false."""
    try:
        return parse_flag_from_env(name)
    except ValueError as error:
        raise ValueError(f"{name} is {os.environ[name]!r}, but must be true or false.") from error


def make_accelerator(**options: Any) -> Accelerator:
    """Return an `Accelerator` whose environment variables change nothing that is computed.

    Gradient accumulation, mixed precision and compilation are the configuration's, whatever `accelerate config` says.

    Args:
        **options: further arguments of it.
    """
    process_state()
    return Accelerator(
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_plugin=TorchDynamoPlugin(backend="no", mode="default", fullgraph=False, dynamic=False),
        **options,
    )


def is_distributed() -> bool:
    """Return whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def rank_and_number() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    return (dist.get_rank(), dist.get_world_size()) if is_distributed() else (0, 1)


def share_model(model: nn.Module, device: torch.device) -> nn.Module:
    """Return a model whose gradients are means over processes; of one process it is what it was.

    Not Accelerate's `prepare`, which also compiles and converts as the environment, or another Accelerator of this process,
    says.

    Args:
        model: on its device, with a parameter to train.
        device: that one.
    """
    if not is_distributed():
        return model
    with warnings.catch_warnings():
        # PyTorch renames this option. It is off, as a codebook's buffers are summed where they change.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, broadcast_buffers=False
        )


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
