"""Trainings of toys, and what is compared of two of them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.config import TrainConfig
from vistok.runs import RATES, Run
from vistok.training.trainer import Trainer


def opened(config: TrainConfig, path: Path | None = None) -> Trainer:
    return Trainer(Run.open(path, config), progress=False)


def trained(config: TrainConfig, path: Path | None = None) -> Trainer:
    trainer = opened(config, path)
    for _ in trainer:
        pass
    return trainer


def assert_same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def log_without_rates(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in RATES} for line in run.log()]


def crash_at(trainer: Trainer, step: int) -> None:
    """Make the trainer fail while it takes a step, as a lost device or a full disk would."""
    take = trainer.train_step

    def failing(images: Tensor) -> Any:
        if trainer.step + 1 == step:
            raise RuntimeError("crashed")
        return take(images)

    trainer.train_step = failing  # type: ignore[method-assign]
