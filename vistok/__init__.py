"""vistok: discrete visual tokenizers in notebooks. Train, look inside the codebook, measure, compare."""

from vistok import quantizers
from vistok.config import TrainConfig
from vistok.evaluation import evaluate
from vistok.pretrained import load_pretrained
from vistok.runs import Run
from vistok.tokenizer import VisualTokenizer
from vistok.training import Trainer

__all__ = ["Run", "TrainConfig", "Trainer", "VisualTokenizer", "evaluate", "load_pretrained", "quantizers"]
__version__ = "0.1.0"
