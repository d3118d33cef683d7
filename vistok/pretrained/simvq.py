"""SimVQ (arXiv:2411.02038): the network `magvit2` without the codes' influence on its levels, with `simvq`; images in [-1, 1].

Files `epoch=49-step=250250.ckpt` in a folder for each size of the codebook, trained at 128 pixels, with moving averages. Its
codes are frozen, so that the average has none, and only their projection is learned.
"""

from collections.abc import Collection
from typing import Any

from vistok.pretrained import open_magvit2
from vistok.pretrained.common import FIRST_TENSOR, levels_of_blocks
from vistok.pretrained.formats import Format, Shapes

_CODEBOOK = "quantize.embedding.weight"
_PROJECTION = "quantize.embedding_proj."
_NAMES = ((r"^quantizer\.projection\.", _PROJECTION), *open_magvit2.NAMES)


def _found_in(names: Collection[str]) -> bool:
    return FIRST_TENSOR in names and f"{_PROJECTION}weight" in names


def _network_options(shapes: Shapes) -> dict[str, Any]:
    return levels_of_blocks(shapes) | {"adaptive": False}


FORMAT = Format(
    "magvit2",
    "simvq",
    _NAMES,
    FIRST_TENSOR,
    _found_in,
    _network_options,
    decoder_from_image=True,
    image_size=128,
    frozen=(_CODEBOOK,),
)
