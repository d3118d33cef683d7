"""The VQGAN of MaskGIT (arXiv:2202.04200) as in 1d-tokenizer: the network `maskgit` with `vq`, images in [0, 1].

A `VisualTokenizer` takes and gives images in [-1, 1] whatever the original does: the network `maskgit` maps between the two.
"""

from collections.abc import Collection

from vistok.pretrained.common import FIRST_TENSOR, LEVELS, NO_QUANT_CONVS, levels_of_blocks
from vistok.pretrained.formats import Format

_NAMES = (
    *NO_QUANT_CONVS,
    *LEVELS,
    (r"\.mid\.block_(\d+)\.", r".mid.\1."),
    (r"\.upsample\.conv\.", ".upsample_conv."),
)


def _found_in(names: Collection[str]) -> bool:
    return FIRST_TENSOR in names and "encoder.mid.0.conv1.weight" in names


FORMAT = Format("maskgit", "vq", _NAMES, FIRST_TENSOR, _found_in, levels_of_blocks, decoder_from_image=True)
