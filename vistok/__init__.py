"""vistok: discrete visual tokenizers in notebooks. Train, look inside the codebook, measure, compare."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok import quantizers
    from vistok.config import TrainConfig
    from vistok.evaluation import evaluate
    from vistok.pretrained import load_pretrained
    from vistok.runs import Run
    from vistok.tokenizer import VisualTokenizer
    from vistok.training.trainer import Trainer

__all__ = ["Run", "TrainConfig", "Trainer", "VisualTokenizer", "evaluate", "load_pretrained", "quantizers"]
__version__ = "0.1.0"

# Imported when they are asked for: `python -m vistok.training` would else find itself imported before it begins.
_PLACES = {
    "Run": "vistok.runs",
    "TrainConfig": "vistok.config",
    "Trainer": "vistok.training.trainer",
    "VisualTokenizer": "vistok.tokenizer",
    "evaluate": "vistok.evaluation",
    "load_pretrained": "vistok.pretrained",
}


def __getattr__(name: str) -> Any:
    if name == "quantizers":
        return importlib.import_module("vistok.quantizers")
    if name not in _PLACES:
        raise AttributeError(f"module 'vistok' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
