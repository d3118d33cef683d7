"""A checkpoint into a `VisualTokenizer`: the format is found from the file, and nothing in the file is executed."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vistok.pretrained.fitting import expected_tensors, file_shapes, misfits, of_no_format
from vistok.pretrained.official import WEIGHTS, checkpoint_path, official_at
from vistok.pretrained.reading import open_checkpoint, unreadable_as_value_error
from vistok.pretrained.registry import FORMATS, find_format
from vistok.pretrained.settings import said_of_quantizer, tokenizer_settings
from vistok.pretrained.state_dicts import choose_weights, state_dicts
from vistok.pretrained.unpickling import LazyTensor
from vistok.system.devices import floating_dtype, usable_device
from vistok.system.files import say, strict_json
from vistok.system.values import check_known, checked
from vistok.system.weights import first_line
from vistok.tokenizer import VisualTokenizer


def load_pretrained(
    path: str | Path,
    format: str | None = None,
    *,
    weights: str | None = None,
    l2_norm: bool | None = None,
    quantizer: str | None = None,
    levels: Sequence[int] | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
) -> VisualTokenizer:
    """Load an official checkpoint, or a tokenizer of this package; executes nothing in it, prints what it found.

    Args:
        path: a checkpoint (.pt, .ckpt, .bin, .pth or .safetensors), or a run directory, a directory written by
            `VisualTokenizer.save`, or the `model.safetensors` in it; the name of an official checkpoint, whose file is
            downloaded where `official_file` expects it and it is not; or "owner/name" on the Hugging Face Hub.
        format: a key of `FORMATS`, to insist; None: found from the tensors' names.
        weights: "model", or "ema", the moving average, or another name that the file has for some; None: the average where the
            file has one.
        l2_norm: whether codes and encoder outputs are on the unit sphere; None: as the configuration beside the file says, or
            else as the format's official files.
        quantizer: a key of `QUANTIZERS`, where the tensors do not tell (visual-tokenizer-pytorch); None: as that
            configuration says, or else `vq` where there is a codebook.
        levels: of `fsq`, an integer for each channel, None: as that configuration says; of VAR, the height and width of each
            scale, None: those of its official tokenizer at 256 pixels.
        device, dtype: as of `VisualTokenizer.load`.

    Returns:
        the tokenizer, in eval mode.

    Raises:
        FileNotFoundError: there is no such file, or it cannot be downloaded; or it is a folder with another project's weights.
        ValueError: the file is not a checkpoint, or broken, or of no known format (the sentence names the nearest), or tensors
            are missing, unexpected or of another shape (named as in the file), or it has no such weights, or what it is of
            must be said.
        TypeError: `l2_norm` is no bool: any text, "no" too, would be true.
    """
    device, dtype = usable_device(device), floating_dtype(dtype)
    checked("l2_norm", bool | None, l2_norm)
    if format is not None:
        check_known("There is no checkpoint format", format, FORMATS)
    path = checkpoint_path(path)
    if path.is_dir():
        _refuse_others_folder(path)
    if path.is_dir() or _is_own(path):
        if any(given is not None for given in (format, weights, l2_norm, quantizer, levels)):
            raise ValueError(
                f"{path} is a tokenizer of this package: format, weights, l2_norm, quantizer and levels are in it; leave "
                "them out."
            )
        tokenizer = VisualTokenizer.load(path if path.is_dir() else path.parent, device, dtype)
        _check_is_official(path, tokenizer)
        return tokenizer

    with contextlib.ExitStack() as files:
        with unreadable_as_value_error(path):
            content = open_checkpoint(path, files)
        available = state_dicts(content, path)
        tensors, chosen = choose_weights(available, weights, path)
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        # Names of moving averages, which tell some formats, are among the model's.
        name = format or find_format(shapes.keys() | (available.get("model", {}).keys() if chosen == "ema" else ()))
        if name is None:
            raise ValueError(of_no_format(shapes, path))
        form = FORMATS[name]
        if chosen == "ema":
            model = available.get("model", {})
            tensors = {name: model[name] for name in form.frozen if name in model} | tensors
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
        said = said_of_quantizer(form, path, quantizer=quantizer, levels=levels, l2_norm=l2_norm)
        settings = tokenizer_settings(form, shapes, said, path)
        tokenizer = _filled(settings, tensors, name, path, device)
    _check_is_official(path, tokenizer, name)
    _say_found(f"{path.name}: {name}, {chosen} weights", tokenizer)
    if form.several and settings["quantizer"] == form.quantizer and not said:
        say(form.several.unsaid)
    return tokenizer.to(dtype).eval() if dtype else tokenizer.eval()


def _filled(
    settings: dict[str, Any], tensors: Mapping[str, LazyTensor], name: str, path: Path, device: torch.device
) -> VisualTokenizer:
    """Return a tokenizer of these settings with the tensors of a file of the format `name`, once it is known that they fit."""
    try:
        expected = expected_tensors(FORMATS[name], settings)
    except (RuntimeError, OverflowError) as error:  # sizes beyond what any tensor has
        raise ValueError(f"{path} describes no tokenizer that can be built: {first_line(error)}.") from error
    if wrong := misfits({theirs: tensor.shape for theirs, tensor in tensors.items()}, file_shapes(expected)):
        raise ValueError(f"The tensors of {path} are not those of the format {name!r}: {wrong}.")
    with torch.device(device):
        tokenizer = VisualTokenizer(**settings)
    own = tokenizer.state_dict()
    with unreadable_as_value_error(path), torch.no_grad():
        for theirs, shapes in expected.items():
            whole = tensors[theirs].read()
            # Where one tensor of the file holds several of ours, by their lengths; else as it is, which may have no length.
            parts = whole.split([shape[0] for shape in shapes.values()]) if len(shapes) > 1 else [whole]
            for (ours, shape), part in zip(shapes.items(), parts, strict=True):
                own[ours].copy_(part.reshape(shape))
    return tokenizer


def _check_is_official(path: Path, tokenizer: VisualTokenizer, name: str | None = None) -> None:
    """Raise ValueError where a file has the place of an official checkpoint, and so its name, and is another one.

    Many of their files are called alike, `model.safetensors`; what is measured of one would stand beside another's numbers.

    Args:
        path: of the file.
        tokenizer: what is in it.
        name: of its format; None: it is this package's own.
    """
    official = official_at(path)
    if official is None:
        return
    expected = {
        key: official[key] for key in ("format", "codebook_size", "downsample_factor", "num_tokens") if key in official
    }
    found = {
        "format": expected["format"] if name is None or name.startswith(expected["format"]) else name,  # maskbit-legacy
        "codebook_size": max(tokenizer.quantizer.codebook_sizes, default=None),
        "downsample_factor": tokenizer.downsample_factor,
        "num_tokens": tokenizer.token_grids()[0][1] if tokenizer.is_sequence else None,
    }
    if wrong := [f"{key} is {found[key]}, not {value}" for key, value in expected.items() if found[key] != value]:
        raise ValueError(
            f"{path} is another checkpoint than the {path.parent.name!r} that belongs there: {', '.join(wrong)}. Put that one "
            f"there, from {official['address']}, and this one elsewhere."
        )


def _say_found(what: str, tokenizer: VisualTokenizer) -> None:
    quantizer = tokenizer.quantizer
    sizes = " + ".join(map(str, dict.fromkeys(quantizer.codebook_sizes)))
    levels = f" in {len(quantizer.codebook_sizes)} levels" if len(quantizer.codebook_sizes) > 1 else ""
    say(
        f"{what}, K = {sizes}{levels}, D = {quantizer.codebook_dim}, downsample factor {tokenizer.downsample_factor}, "
        f"quantizer {tokenizer.settings['quantizer']}."
    )


def _refuse_others_folder(path: Path) -> None:
    """Raise FileNotFoundError for a folder with another project's weights, as a download leaves it; it names the files."""
    own = path / "model.safetensors"
    if (path / "tokenizer").is_dir() or (path.parent / "tokenizer").is_dir() or (own.is_file() and _is_own(own)):
        return
    if files := sorted(file.name for file in path.iterdir() if file.suffix in WEIGHTS):
        held = ", ".join(files[:4]) + (", ..." if len(files) > 4 else "")
        raise FileNotFoundError(
            f"{path} is no tokenizer of this package (model.safetensors with its config.json), but holds {held}: give a file, "
            f"as {path / files[0]}."
        )


def _is_own(path: Path) -> bool:
    """Return whether a file is the weights that `VisualTokenizer.save` wrote, by the settings beside it.

    Other projects' models on the Hub lie beside a `config.json` too, which says nothing of `network` and `quantizer`. One that
    cannot be read is for whoever reads it.
    """
    config = path.parent / "config.json"
    if path.name != "model.safetensors" or not config.is_file():
        return False
    try:
        settings = strict_json(config.read_bytes())
    except (ValueError, OSError):
        return True
    return not isinstance(settings, dict) or not settings or bool(settings.keys() & {"network", "quantizer"})
