"""Open-MAGVIT2 of SEED-Voken (arXiv:2409.04410): the network `magvit2` with `lfq`, images in [-1, 1]; `imagenet_256_L.ckpt`."""

from collections.abc import Collection

from vistok.pretrained.common import FIRST_TENSOR, LEVELS, NO_QUANT_CONVS, levels_of_blocks
from vistok.pretrained.formats import Format

NAMES = (
    *NO_QUANT_CONVS,
    *LEVELS,
    (r"\.mid\.block_(\d+)\.", r".mid_block.\1."),
    (r"\.upsample\.conv\.", ".upsample.conv1."),
    (r"^decoder\.norms\.", "decoder.adaptive."),
)


def _found_in(names: Collection[str]) -> bool:
    return "decoder.adaptive.0.gamma.weight" in names


FORMAT = Format("magvit2", "lfq", NAMES, FIRST_TENSOR, _found_in, levels_of_blocks, decoder_from_image=True)
