"""What a file's tensor shapes, and what is said beside them, make a tokenizer of."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from vistok.pretrained.formats import Format, Shapes
from vistok.quantizers import QUANTIZERS
from vistok.quantizers.base import MOST_BITS
from vistok.system.files import shown
from vistok.system.values import check_known

_WITH_LEVELS = ("fsq", "multiscale")  # quantizers that `levels` says something of


def said_of_quantizer(form: Format, path: Path, **given: Any) -> dict[str, Any]:
    """Return what is said of a quantizer beside its tensors, by the caller, or by a file.

    Args:
        form: of the file.
        path: the file.
        **given: `quantizer`, `levels` and `l2_norm`, as the caller says; None: not said.

    Returns:
        these, as far as they are said.

    Raises:
        ValueError: there is no such quantizer, or it has no levels, or files contradict each other.
    """
    given = {name: value for name, value in given.items() if value is not None}
    name = given.get("quantizer", form.quantizer)
    check_known("There is no quantizer", name, QUANTIZERS)
    if "levels" in given and given.setdefault("quantizer", name if name in _WITH_LEVELS else "fsq") not in _WITH_LEVELS:
        of = " or ".join(map(repr, _WITH_LEVELS))
        raise ValueError(f"levels are of {of}, but the quantizer is said to be {name!r}: give one of them.")
    return given if "quantizer" in given or not form.several else form.several.said_beside(path) | given


def tokenizer_settings(
    form: Format, tensors: Mapping[str, tuple[int, ...]], said: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Return the arguments of `VisualTokenizer`, read off the tensors' shapes, and what is said of the quantizer.

    Args:
        form: of the file.
        tensors: the shape of each tensor, by its name in the file.
        said: as `said_of_quantizer` returns it.
        path: the file, for messages.

    Raises:
        ValueError: a tensor that tells a size is missing, or no weight; or nothing tells the quantizer, or what is said of
            it does not fit the tensors.
    """
    shapes = Shapes(form, tensors, path)
    network = form.network_options(shapes)
    num_channels = shapes.of("encoder.to_codes.weight")[0]
    name = _quantizer(form, tensors, said, num_channels, path)
    quantizer: dict[str, Any] = {"codebook_dim": num_channels} | form.quantizer_options(shapes, said)
    if name == "fsq":
        quantizer["levels"] = _checked_levels(said.get("levels"), num_channels, path)
    else:
        # Of a file of unknown origin the power may be beyond all memory: one bit too many is refused like many.
        bits = min(num_channels, MOST_BITS + 1)
        quantizer["codebook_size"] = 2**bits if name == "lfq" else shapes.of(form.codebook)[0]
    if said.get("l2_norm", form.l2_norm):
        quantizer |= {"l2_norm": True} | ({"l2_search_only": True} if form.l2_search_only else {})
    settings = {
        "network": form.network,
        "network_options": network,
        "quantizer": name,
        "quantizer_options": quantizer,
    }
    size = form.image_size(settings) if callable(form.image_size) else form.image_size
    return settings | {"image_size": size}


def _quantizer(form: Format, names: Collection[str], said: Mapping[str, Any], num_channels: int, path: Path) -> str:
    """The quantizer of a file: the only one that its tensors may be of, or which of these is said to be."""
    if form.several:
        possible, because = form.several.possible(names, said, num_channels, path)
    else:
        possible, because = [form.quantizer], "as all files of its format"
    name = said.get("quantizer", possible[0])
    if name not in possible:
        raise ValueError(f"The quantizer of {path} is {' or '.join(possible)}, {because}, but {name!r} is said to be.")
    return name


def _checked_levels(levels: Any, num_channels: int, path: Path) -> list[int]:
    if not isinstance(levels, Sequence) or isinstance(levels, str) or len(levels) != num_channels:
        raise ValueError(
            f"levels is {shown(levels)}, but must be {num_channels} integers of 3 or more, one for each channel of {path}."
        )
    return list(levels)
