"""Optimisers and learning rates, as functions of the configuration and of the step alone."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from vistok.config import TrainConfig


def build_optimizer(config: TrainConfig, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the configuration's optimiser for some parameters; fused, where the device has that."""
    parameters = list(parameters)
    options = {"lr": lr, "betas": (config.beta1, config.beta2), "fused": parameters[0].device.type in ("cpu", "cuda")}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, weight_decay=config.weight_decay, **options)
    return torch.optim.Adam(parameters, **options)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the step that comes."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def lr_factor(config: TrainConfig, step: int) -> float:
    """Return what the learning rate is multiplied by: a linear rise over `warmup_steps`, then the schedule.

    Args:
        config: its `lr_schedule` is "constant", or "cosine", from `lr` to `min_lr` at the end of the run; another side's
            learning rate falls in the same proportion.
        step: steps taken before this one.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
