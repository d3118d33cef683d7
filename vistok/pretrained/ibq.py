"""IBQ of SEED-Voken (arXiv:2412.02692): a VQGAN with `ibq`, images in [-1, 1]; files such as `imagenet256_16384.ckpt`.

Its tensors are named as in taming-transformers. IBQ is what has moving averages or four residual blocks a level, as all its
published tokenizers have and none of taming-transformers'.
"""

from collections.abc import Collection

from vistok.pretrained.common import FIRST_TENSOR, vqgan_options
from vistok.pretrained.formats import Format
from vistok.pretrained.taming import NAMES


def _found_in(names: Collection[str]) -> bool:
    has_four_blocks = "encoder.down.0.block.3.conv1.weight" in names
    return FIRST_TENSOR in names and (has_four_blocks or any(name.startswith("model_ema.") for name in names))


FORMAT = Format("vqgan", "ibq", NAMES, FIRST_TENSOR, _found_in, vqgan_options, decoder_from_image=True)
