"""LlamaGen (arXiv:2406.06525): a VQGAN, codes on the unit sphere, images in [-1, 1]; files `vq_ds16_c2i.pt`, `vq_ds8_c2i.pt`.

Its buffer of the latest 65,536 tokens, by which it measures usage, is not of the tokenizer.
"""

from vistok.pretrained.common import QUANT_CONVS, vqgan_options
from vistok.pretrained.formats import Format

_FIRST_TENSOR = "encoder.conv_blocks.0.res.0.conv1.weight"
_NAMES = (
    *QUANT_CONVS,
    (r"\.mid\.block_1\.", ".mid.2."),
    (r"\.mid\.attention_0\.", ".mid.1."),
    (r"\.mid\.block_0\.", ".mid.0."),
    (r"\.levels\.", ".conv_blocks."),
    (r"\.block_(\d+)\.", r".res.\1."),
    (r"\.attention_(\d+)\.", r".attn.\1."),
)

FORMAT = Format(
    "vqgan",
    "vq",
    _NAMES,
    _FIRST_TENSOR,
    None,
    vqgan_options,
    l2_norm=True,
    ignored=(r"^quantize\.codebook_used$",),
)
