"""VAR (arXiv:2404.02905): a VQGAN with `multiscale`, images in [-1, 1], clamped there; `vae_ch160v4096z32.pth`.

Its queries, keys and values are one convolution, and its quant convolutions 3x3. What it stores says how many scales there are,
and not how large: ten are taken as those for 256 pixels; for 512 pixels, with the same weights, VAR itself has
`levels=[1, 2, 3, 4, 6, 9, 13, 18, 24, 32]`. Its counts of chosen codes (`ema_vocab_hit_SV`) are not of the tokenizer.
"""

from collections.abc import Collection, Mapping
from typing import Any

from vistok.pretrained.common import FIRST_TENSOR, vqgan_options
from vistok.pretrained.formats import Format, Shapes
from vistok.pretrained.taming import NAMES

_PHIS = "quantize.quant_resi.qresi_ls."
_COUNTS = "quantize.ema_vocab_hit_SV"
_NAMES = (
    (r"^quantizer\.members\.0\.", "quantizer."),
    (r"^quantizer\.phis\.", _PHIS),
    (r"(\.attention_\d+)\.[qkv]\.", r"\1.qkv."),
    *NAMES,
)


def _found_in(names: Collection[str]) -> bool:
    return FIRST_TENSOR in names and f"{_PHIS}0.weight" in names


def _network_options(shapes: Shapes) -> dict[str, Any]:
    return vqgan_options(shapes) | {"code_kernel": shapes.of("encoder.to_codes.weight")[-1]}


def _quantizer_options(shapes: Shapes, said: Mapping[str, Any]) -> dict[str, Any]:
    from vistok.quantizers.composite import VAR_SCALES  # here, since facts about checkpoints do not wait for PyTorch

    num_scales = (shapes.shapes.get(_COUNTS) or (len(VAR_SCALES),))[0]
    scales = list(said.get("levels", VAR_SCALES))
    if len(scales) != num_scales:
        raise ValueError(
            f"{shapes.path} has {num_scales} scales, but nothing in it says how large they are: give as many growing integers, "
            f"the height and width of each, as levels={list(VAR_SCALES)} are for ten."
        )
    return {"scales": scales, "losses_of_sums": True}


def _image_size(settings: dict[str, Any]) -> int:
    return settings["quantizer_options"]["scales"][-1] * 2 ** (len(settings["network_options"]["ch_mult"]) - 1)


FORMAT = Format(
    "vqgan",
    "multiscale",
    _NAMES,
    FIRST_TENSOR,
    _found_in,
    _network_options,
    decoder_from_image=True,
    codebook="quantizer.members.0.weight",
    quantizer_options=_quantizer_options,
    image_size=_image_size,
    ignored=(f"^{_COUNTS}$".replace(".", r"\."),),
)
