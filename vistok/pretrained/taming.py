"""taming-transformers (arXiv:2012.09841): a VQGAN with `vq` or `gumbel`, images in [-1, 1]; `last.ckpt`, written by Lightning.

Deviation: its Gumbel tokenizer draws its codes when it encodes, in evaluation too; here they are the likeliest, as its users
take them. Its last temperature is not in the file, and matters to training alone.
"""

from collections.abc import Collection

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
_GUMBEL_CODEBOOK = "quantize.embed.weight"
_GUMBEL_NAMES = ((r"^quantizer\.weight$", _GUMBEL_CODEBOOK), (r"^quantizer\.projection\.", "quantize.proj."), *NAMES)


def _is_gumbel(names: Collection[str]) -> bool:
    return FIRST_TENSOR in names and _GUMBEL_CODEBOOK in names


FORMAT = Format("vqgan", "vq", NAMES, FIRST_TENSOR, None, vqgan_options, decoder_from_image=True)
GUMBEL = Format("vqgan", "gumbel", _GUMBEL_NAMES, FIRST_TENSOR, _is_gumbel, vqgan_options, decoder_from_image=True)
