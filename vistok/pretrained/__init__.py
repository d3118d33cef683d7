"""Official checkpoints into a `VisualTokenizer`: the format is found from the file, and nothing in the file is executed.

    tokenizer = load_pretrained("vq_ds16_c2i.pt")

A family of checkpoints is a file here: its docstring says the project, network, quantizer and deviations, its `FORMAT` how its
files name our tensors and what their shapes tell. A line in `registry.FORMATS` makes it known. What is reported of published
checkpoints, by whom and under which convention, is data in `official.toml`: a new checkpoint of a known family needs no code.
"""

from typing import TYPE_CHECKING

from vistok.pretrained.official import (
    Place,
    checkpoint_path,
    find_tokenizer,
    official_file,
    reference_checkpoints,
)
from vistok.pretrained.registry import FORMATS, find_format
from vistok.system.lazy import lazily

if TYPE_CHECKING:
    from vistok.pretrained.loading import load_pretrained

__all__ = [
    "FORMATS",
    "Place",
    "checkpoint_path",
    "find_format",
    "find_tokenizer",
    "load_pretrained",
    "official_file",
    "reference_checkpoints",
]
# Facts about checkpoints can be asked for without waiting for PyTorch.
__getattr__, __dir__ = lazily(__name__, {"vistok.pretrained.loading": ["load_pretrained"]})
