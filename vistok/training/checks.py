"""What ends a training with a sentence: numbers that are not finite, and processes that would train something else each."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.system.checkpoints import Checkpoints
from vistok.system.processes import of_all_processes


def check_same_start(start: dict[str, Any], path: Path) -> None:
    """Raise ValueError unless all processes begin alike: at one step, with one dataset; every process calls it.

    Args:
        start: what to compare, by its name in the sentence.
        path: of the run.
    """
    starts = of_all_processes(start)
    for rank, there in enumerate(starts):
        for what, value in there.items():
            if value != starts[0][what]:
                raise ValueError(
                    f"Process {rank} would begin with {what} {value}, process 0 with {starts[0][what]}: the run directory "
                    f"{path} and the data must be the same for all, on a disk that every machine sees."
                )


def check_entries(state: Mapping[str, Any], names: Set[str], file: Path) -> None:
    """Raise ValueError where the state in a checkpoint's file lacks entries of these names."""
    if missing := names - state.keys():
        raise ValueError(f"The checkpoint {file} is not one of this version's: it has no {', '.join(sorted(missing))}.")


def check_finite_losses(window: Sequence[Mapping[str, Tensor]], step: int, checkpoints: Checkpoints) -> None:
    """Raise FloatingPointError, naming the step and the last good checkpoint, where a loss was not finite.

    Args:
        window: the losses of the last steps, scalars.
        step: steps taken with them.
        checkpoints: of the run.
    """
    if not window:
        return
    sums = torch.stack([torch.stack([*losses.values()]).sum() for losses in window])
    if len(bad := (~sums.isfinite()).nonzero()):
        first = int(bad[0])
        values = ", ".join(f"{name} {float(value):.4g}" for name, value in window[first].items())
        raise FloatingPointError(
            f"The loss is not finite at step {step - len(window) + 1 + first} ({values}); {_what_helps(checkpoints)}"
        )


def check_finite_weights(weights: Mapping[str, Tensor], step: int, checkpoints: Checkpoints) -> None:
    """Raise FloatingPointError where a weight is not finite: the gradient can overflow before the loss does."""
    bad = [name for name, value in weights.items() if not value.isfinite().all()]
    if bad:
        raise FloatingPointError(f"The weights are not finite after step {step} ({bad[0]}); {_what_helps(checkpoints)}")


def _what_helps(checkpoints: Checkpoints) -> str:
    files = checkpoints.files()
    good = f"the last good checkpoint is {files[-1]}" if files else "there is no checkpoint yet"
    return f"{good}. A lower lr usually helps."
