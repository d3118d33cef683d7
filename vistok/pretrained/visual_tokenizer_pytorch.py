"""visual-tokenizer-pytorch: its SimpleCNN or VQGAN with one of its quantizers, images in [-1, 1]; files `model.pt`.

The quantizers are `vq`, `ema`, `simvq`, `ibq`, `fsq` and `lfq`. Its VQGAN is the same network as taming-transformers', but for
the epsilon in the normalisation before attention.

What it stores does not always tell the quantizer: `vq`, with l2-normalised codes or without, and `ibq` have a codebook and
nothing else, `fsq` and `lfq` have nothing at all. Then the configuration of its training says it, `config-<time>.yaml` beside
the checkpoint or where that project writes it, or whoever calls.

Deviations: an index of `lfq` has channel i as bit i, one of `fsq` the first channel as its least significant digit.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from vistok.pretrained.common import vqgan_options
from vistok.pretrained.formats import Format, Several, Shapes
from vistok.system.files import shown

_FIRST_TENSOR = "encoder.downblocks.0.weight"
_FIRST_OF_VQGAN = "encoder.down_blocks.0.0.block.0.weight"
_ATTENTION_EPS = 1e-5
_AROUND_CODES = (
    (r"^quantizer\.weight$", "quantizer.codebook.weight"),
    (r"^quantizer\.projection\.", "quantizer.codebook_proj."),
    (r"^quantizer\.ema_sum$", "quantizer.ema_sumz"),
    (r"^quantizer\.ema_count$", "quantizer.ema_sumn"),
    (r"^encoder\.to_codes\.", "enc2code."),
    (r"^decoder\.from_codes\.", "code2dec."),
)
_NAMES = (
    *_AROUND_CODES,
    (r"^encoder\.down\.", "encoder.downblocks."),
    (r"^decoder\.up\.", "decoder.upblocks."),
    (r"\.res_blocks\.(\d+)\.conv1\.", r".resblocks.\1.blocks.1."),
    (r"\.res_blocks\.(\d+)\.conv2\.", r".resblocks.\1.blocks.3."),
)
_VQGAN_NAMES = (
    *_AROUND_CODES,
    (r"\.norm1\.", ".block.0."),
    (r"\.conv1\.", ".block.2."),
    (r"\.norm2\.", ".block.3."),
    (r"\.conv2\.", ".block.6."),
    (r"\.proj_out\.", ".proj."),
    (r"\.mid\.block_1\.", ".bottleneck_block.2."),
    (r"\.mid\.attention_0\.", ".bottleneck_block.1."),
    (r"\.mid\.block_0\.", ".bottleneck_block.0."),
    (r"^encoder\.levels\.", "encoder.down_blocks."),
    (r"^decoder\.levels\.", "decoder.up_blocks."),
    (r"^encoder\.conv_out\.", "encoder.out_block.2."),
    (r"^encoder\.norm_out\.", "encoder.out_block.0."),
    (r"^decoder\.conv_in\.", "decoder.in_block."),
    (r"^decoder\.conv_out\.", "decoder.conv_out.2."),
    (r"^decoder\.norm_out\.", "decoder.conv_out.0."),
)
_QUANTIZERS = {  # its classes, an older one among them
    "VectorQuantizer": "vq",
    "VectorQuantizerEMA": "ema",
    "SimVQQuantizer": "simvq",
    "IndexBackpropagationQuantizer": "ibq",
    "FiniteScalarQuantizer": "fsq",
    "LookupFreeQuantizer": "lfq",
}
_UNSAID = (
    "Nothing says how this codebook is searched: it is read as vq, by distance. Give l2_norm=True where its codes are "
    "l2-normalised, quantizer='ibq' where the largest dot product counts, or keep its config-<time>.yaml beside it."
)


def _found_in(names: Collection[str]) -> bool:
    return "enc2code.weight" in names and _FIRST_TENSOR in names


def _network_options(shapes: Shapes) -> dict[str, Any]:
    return {
        "hidden_dim": shapes.of("encoder.to_codes.weight")[1],
        "num_res_blocks": shapes.count("encoder.res_blocks.{}.conv1.weight"),
    }


def _vqgan_options(shapes: Shapes) -> dict[str, Any]:
    return vqgan_options(shapes) | {"attention_eps": _ATTENTION_EPS}


def _possible(names: Collection[str], said: Mapping[str, Any], num_channels: int, path: Path) -> tuple[list[str], str]:
    own = [name for name in names if name.startswith("quantizer.")]
    if "quantizer.ema_sumz" in own:
        return ["ema"], "for it has moving sums of codes"
    if any(name.startswith("quantizer.codebook_proj.") for name in own):
        return ["simvq"], "for it has a projection of its codebook"
    if own:
        return ["vq", "ibq"], "for it has a codebook and nothing else"
    if "quantizer" not in said:
        raise ValueError(
            f"{path} has no codebook, so its quantizer is lfq or fsq, which store nothing. Say quantizer='lfq', for "
            f"2^{num_channels} codes; or the levels of fsq, an integer for each of its {num_channels} channels, as "
            "levels=[8, 5, 5, 5] is for four; or keep its training's config-<time>.yaml beside it."
        )
    return ["lfq", "fsq"], "for it has no codebook"


def _said_beside(path: Path) -> dict[str, Any]:
    """What its configuration says, in the checkpoint's folder or two above, where it writes it."""
    found = []
    for folder in (path.parent, *path.parents[2:3]):
        for file in sorted(folder.glob("config*.yaml")):
            try:
                quantizer = yaml.safe_load(file.read_bytes())["quantizer"]
                name = _QUANTIZERS[quantizer["target"].rpartition(".")[2]]
                options = dict(quantizer.get("params") or {})
            except (yaml.YAMLError, OSError, RecursionError, ValueError, TypeError, KeyError, AttributeError):
                continue  # another program wrote it
            name = "ema" if options.get("use_ema_update") else name
            found.append({"quantizer": name} | {key: options[key] for key in ("levels", "l2_norm") if options.get(key)})
    if any(one != found[0] for one in found):
        raise ValueError(
            f"The configurations beside {path} differ in the quantizer: {' and '.join(map(shown, found))}. Say which it is: "
            "quantizer, levels, l2_norm."
        )
    return found[0] if found else {}


_SEVERAL = Several(_possible, _said_beside, _UNSAID)
FORMAT = Format(
    "simple_cnn",
    "vq",
    _NAMES,
    _FIRST_TENSOR,
    _found_in,
    _network_options,
    smallest={},
    l2_search_only=True,
    image_size=64,
    several=_SEVERAL,
)
VQGAN = Format(
    "vqgan",
    "vq",
    _VQGAN_NAMES,
    _FIRST_OF_VQGAN,
    None,
    _vqgan_options,
    numbered_parts=True,
    l2_search_only=True,
    several=_SEVERAL,
)
