"""A dataset as tokens: in a file for generators, in memory for who looks into it, and what its codes stand for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok.tokens.store import TokenFile, encode_dataset

__all__ = ["TokenFile", "encode_dataset"]


def __getattr__(name: str) -> Any:  # so that `python -m vistok.tokens --help` does not wait for PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("vistok.tokens.store"), name)
