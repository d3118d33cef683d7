"""vistok: discrete visual tokenizers in notebooks. Train, look inside the codebook, measure, compare."""

from typing import TYPE_CHECKING

from vistok.system.lazy import lazily

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
__getattr__, __dir__ = lazily(
    __name__,
    {
        "vistok.config": ["TrainConfig"],
        "vistok.evaluation": ["evaluate"],
        "vistok.pretrained": ["load_pretrained"],
        "vistok.quantizers": [],
        "vistok.runs": ["Run"],
        "vistok.tokenizer": ["VisualTokenizer"],
        "vistok.training.trainer": ["Trainer"],
    },
)
