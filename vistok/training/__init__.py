"""Training: the loop, what a tokenizer's step computes, its discriminator, several processes, the command line."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok.training.trainer import Trainer

__all__ = ["Trainer"]


def __getattr__(name: str) -> Any:  # so that `python -m vistok.training --help` does not wait for PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("vistok.training.trainer"), name)
