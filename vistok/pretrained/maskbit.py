"""MaskBit and VQGAN+ (arXiv:2409.16211): the network `maskgit` with `lfq` of 10 to 18 bits, or with `vq`; images in [0, 1].

Files `maskbit_tokenizer_10bit.bin` to `_18bit.bin`, `vqgan_plus_12bit.bin`. A `VisualTokenizer` takes and gives images in
[-1, 1] whatever the original does: the network `maskgit` maps between the two, and clamps where the original leaves that to
whoever shows images. `FORMAT` counts the decoder's levels from the codes on; `LEGACY`, the layout of its oldest weights, from
the image on. The temperature of its entropy loss, 0.01, is that of `lfq` here.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vistok.pretrained.common import NO_QUANT_CONVS, levels_of_blocks
from vistok.pretrained.formats import Format, Several, Shapes

_FIRST_TENSOR = "encoder.down.0.res_blocks.0.conv1.weight"
_CODEBOOK = "quantize.embedding.weight"
_NAMES = (
    *NO_QUANT_CONVS,
    (r"\.mid\.block_(\d+)\.", r".mid.res_blocks.\1."),
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.block_(\d+)\.", r".res_blocks.\1."),
    (r"\.downsample\.conv\.", ".down_conv."),
    (r"\.upsample\.conv\.", ".upsample_conv."),
)
_UNSAID = (
    "Nothing says whether these codes are l2-normalised: they are read as they are, as in its official files. Give "
    "l2_norm=True where use_l2_normalisation was set."
)


def _found_in_legacy(names: Collection[str]) -> bool:
    return _FIRST_TENSOR in names and "decoder.up.0.upsample_conv.weight" not in names


def _network_options(shapes: Shapes) -> dict[str, Any]:
    return levels_of_blocks(shapes) | {"strided": shapes.has("encoder.levels.0.downsample.conv.weight")}


def _possible(names: Collection[str], said: Mapping[str, Any], num_channels: int, path: Path) -> tuple[list[str], str]:
    return (
        (["vq"], "for it has a codebook") if _CODEBOOK in names else (["lfq"], "for it has no codebook that is learned")
    )


FORMAT = Format(
    "maskgit",
    "vq",
    _NAMES,
    _FIRST_TENSOR,
    None,
    _network_options,
    ignored=(r"^quantize\.(bits_to_indices|codebook)$",),
    several=Several(_possible, lambda path: {}, _UNSAID),
)
LEGACY = replace(FORMAT, found_in=_found_in_legacy, decoder_from_image=True)
