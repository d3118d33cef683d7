"""Whether a file's tensors are those of a format, and of a file of none, what it lacks of the nearest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vistok.pretrained.formats import Format
from vistok.pretrained.registry import FORMATS, is_beside_the_tokenizer
from vistok.pretrained.settings import tokenizer_settings
from vistok.system.weights import first_line
from vistok.tokenizer import VisualTokenizer

_OF_THIS_PACKAGE = ".encoder.to_codes.weight"


def expected_tensors(form: Format, settings: dict[str, Any]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of our tensors by their names, for each tensor of the file those that lie in it one after the other.

    Args:
        form: of the file.
        settings: arguments of `VisualTokenizer`.
    """
    num_levels = len(settings["network_options"].get("ch_mult", ()))
    with torch.device("meta"):  # shapes only: a file of unknown origin may describe more than there is memory
        own = VisualTokenizer(**settings).state_dict()
    expected: dict[str, dict[str, tuple[int, ...]]] = {}
    for ours, tensor in own.items():
        expected.setdefault(form.file_name(ours, num_levels, own), {})[ours] = tuple(tensor.shape)
    return expected


def file_shapes(expected: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a file of which `expected_tensors` are."""
    shapes = {}
    for name, parts in expected.items():
        first, *others = parts.values()
        shapes[name] = (sum(shape[0] for shape in parts.values()), *first[1:]) if others else first
    return shapes


def misfits(tensors: Mapping[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> str:
    """Return how a file's tensors differ from those of a format, named as the file does; empty where they do not.

    The weight of a linear map may be one of a 1x1 convolution, and the other way round.

    Args:
        tensors: the shape of each tensor of the file.
        expected: the shape of each tensor of the tokenizer, by its name in the file.
    """
    missing = [f"{n} is missing" for n in expected if n not in tensors]
    others = [f"{n} is not expected" for n in tensors if n not in expected and not is_beside_the_tokenizer(n)]
    shapes = [
        f"{n} is {list(tensors[n])}, not {list(shape)}"
        for n, shape in expected.items()
        if n in tensors and _of_linear_map(tensors[n]) != _of_linear_map(shape)
    ]
    named = [*missing[:4], *others[:4], *shapes[:4]]
    more = len(missing) + len(others) + len(shapes) - len(named)
    return "; ".join(named) + (f", and {more} more" if more else "")


def _of_linear_map(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if set(shape[2:]) == {1} else shape


def of_no_format(tensors: Mapping[str, tuple[int, ...]], path: Path) -> str:
    """Return the sentence for a file of no known format: some of its names, the known formats, what it lacks of the nearest.

    Args:
        tensors: the shape of each tensor of the file.
        path: the file.
    """
    if any(f".{name}".endswith(_OF_THIS_PACKAGE) for name in tensors):
        beside = "no config.json beside them says what they are of"
        if (path.parent / "config.json").is_file() and path.name != "model.safetensors":
            beside = "the config.json beside them is only read with a file that is called model.safetensors"
        return (
            f"The tensors of {path} are named as this package's own, but {beside}: give the run's directory, or one that "
            "VisualTokenizer.save wrote; or make the VisualTokenizer and use its load_state_dict."
        )
    likeness, reason = max((_compared(name, tensors, path) for name in FORMATS), key=lambda compared: compared[0])
    return (
        f"The tensors of {path} ({', '.join(list(tensors)[:3])}, ...) are named as in no known format. Known: "
        f"{', '.join(FORMATS)}.{f' {reason}' if likeness else ''}"
    )


def _compared(name: str, tensors: Mapping[str, tuple[int, ...]], path: Path) -> tuple[float, str]:
    """How alike a file and a format are, in [0, 1], and a sentence on what differs."""
    form = FORMATS[name]
    try:
        settings = tokenizer_settings(form, tensors, {"quantizer": form.quantizer}, path)
        expected = file_shapes(expected_tensors(form, settings))
        differs = f"The nearest is {name!r}: {misfits(tensors, expected)}."
    except (ValueError, RuntimeError, OverflowError) as error:
        codes = {"codebook_size": 2, "codebook_dim": 1}
        settings = {"network": form.network, "network_options": form.smallest, "quantizer": form.quantizer}
        expected = file_shapes(expected_tensors(form, settings | {"quantizer_options": codes, "image_size": 256}))
        differs = f"The nearest is {name!r}. {first_line(error)}."
    return len(expected.keys() & tensors.keys()) / len(expected.keys() | tensors.keys()), differs
