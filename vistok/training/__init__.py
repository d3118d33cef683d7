"""Training: the loop, what a tokenizer's step computes, its discriminator, several processes, the command line."""

from typing import TYPE_CHECKING

from vistok.system.lazy import lazily

if TYPE_CHECKING:
    from vistok.training.trainer import Trainer

__all__ = ["Trainer"]
__getattr__, __dir__ = lazily(__name__, {"vistok.training.trainer": __all__})
