"""taming-transformers (arXiv:2012.09841): a VQGAN with `vq`, images in [-1, 1]; files `last.ckpt`, written by Lightning."""

from vistok.pretrained.common import FIRST_TENSOR, LEVELS, QUANT_CONVS, vqgan_options
from vistok.pretrained.formats import Format

NAMES = (
    *QUANT_CONVS,
    *LEVELS,
    (r"\.mid\.block_1\.", ".mid.block_2."),
    (r"\.mid\.block_0\.", ".mid.block_1."),
    (r"\.mid\.attention_0\.", ".mid.attn_1."),
    (r"\.attention_(\d+)\.", r".attn.\1."),
)

FORMAT = Format("vqgan", "vq", NAMES, FIRST_TENSOR, None, vqgan_options, decoder_from_image=True)
