"""Weights files: found where they are, downloaded and checked where asked for, read without executing anything in them.

Weights that are published under a fixed address, such as those of the metrics' networks, have file names that end in eight
hex digits of the file's SHA-256. They are looked for in PyTorch's download folder, and nowhere else unless a place is given.
"""

import hashlib
import http.client
import json
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn

from vistok.system.files import make_folder, replace_file, strict_json
from vistok.system.paths import resolve_path
from vistok.system.progress import progress_bar

DOWNLOAD_TIMEOUT_SECONDS = 10  # to connect, and for every read
# Parts that wrappers put into the names of a module's tensors: DistributedDataParallel, DataParallel and AveragedModel,
# torch.compile, FullyShardedDataParallel, and activation checkpointing. No network read here has a part of such a name.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_COUNTER = "n_averaged"  # AveragedModel's own, beside the tensors that it averages
MAX_REASON = 1000  # characters of an error's message, which may quote a damaged file


Value = TypeVar("Value")
Network = TypeVar("Network", bound=nn.Module)


class Unavailable(RuntimeError):
    """A network cannot be had here, because its weights are not; the message says why and what helps."""


def find_weights(given: str | Path | None, url: str, what: str, download: bool, options: str) -> Path:
    """Return the path of a weights file: the one given, one already downloaded, or one downloaded now.

    Args:
        given: the file, a folder that holds it, or None.
        url: where it is published; its last part is the file's name and ends in eight hex digits of the SHA-256.
        what: what the weights are, and their size, for messages.
        download: whether to download what is not there.
        options: how the reader of a message asks for the weights.

    Raises:
        Unavailable: there are no weights; the message says what, how large, from where and where to put it.
        FileNotFoundError: `given` does not exist.
    """
    name = url.rpartition("/")[2]
    if given is not None:
        path = resolve_path(given)
        if not path.exists():
            raise FileNotFoundError(f"There is no weights file {path}; it should be a copy of {url}.")
        if path.is_file():
            return path
        if not (path / name).is_file():
            raise Unavailable(f"The weights of {what} are not in the given folder: put {url} into it.")
        return path / name
    cached = Path(torch.hub.get_dir()).expanduser() / "checkpoints" / name
    if cached.is_file():
        return cached
    # The message goes into records, which name nobody's home.
    shown = f"~/{cached.relative_to(Path.home())}" if cached.is_relative_to(Path.home()) else cached
    remedy = f"put {url} at {shown}, or use {options}."
    if not download:
        raise Unavailable(f"The weights of {what} are not here, and their download was not asked for: {remedy}")
    try:
        download_file(url, cached)
    except (OSError, ValueError, http.client.HTTPException) as error:  # a URLError and a timeout are OSErrors
        reason = first_line(getattr(error, "reason", error))
        raise Unavailable(f"The weights of {what} could not be downloaded ({reason}): {remedy}") from error
    return cached


def download_file(url: str, path: Path, *, named_by_sha256: bool = True) -> None:
    """Download a file; nothing is left where that fails.

    Args:
        url: where it is.
        path: where to put it, under that name.
        named_by_sha256: whether the name ends in eight hex digits of the file's SHA-256, which it is then compared with. Of any
            file it is seen to that it is whole, as far as its length is said, and not a web page.

    Raises:
        OSError: the file cannot be had, or not be written.
        ValueError: what came is another file.
    """
    with urllib.request.urlopen(url, timeout=DOWNLOAD_TIMEOUT_SECONDS) as response:
        make_folder(path.parent)
        size = int(response.headers.get("Content-Length", 0)) or None
        if response.headers.get_content_type() == "text/html":
            raise ValueError("what came is a web page")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # beside it, so that the last step is atomic
            partial = Path(folder) / path.name
            with (
                partial.open("wb") as file,
                progress_bar(total=size, unit="B", unit_scale=True, desc=f"downloading {path.name}") as bar,
            ):
                while block := response.read(2**20):
                    file.write(block)
                    bar.update(len(block))
            if size is not None and partial.stat().st_size != size:
                raise ValueError(f"{partial.stat().st_size:,} of {size:,} bytes came")
            if named_by_sha256 and not path.stem.endswith(file_sha256(partial)):
                raise ValueError(f"what came has SHA-256 {file_sha256(partial)}..., against the file's name")
            partial.replace(path)


def file_sha256(path: Path) -> str:
    """Return the first eight hex digits of a file's SHA-256, which a published file's name ends in."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a weights file, executing nothing that the file says.

    Raises:
        ValueError: the file is not one that PyTorch wrote, or holds more than tensors.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file raises whatever PyTorch meets first
        raise ValueError(f"{path} is not a PyTorch weights file.") from error


def torchvision_network(
    path: Path, title: str, build: Callable[[], Network], fill: Callable[[Network, dict[str, Tensor]], object]
) -> Network:
    """Return a network with the weights of a file of torchvision's; draws nothing from the random generator.

    Args:
        path: the file.
        title: what the weights are, for the message.
        build: makes the network, with random weights.
        fill: puts the file's tensors into it; raises KeyError or RuntimeError where they are not its own.

    Raises:
        ValueError: the file is no weights file, or not that network's.
    """
    state = load_state(path)
    with torch.random.fork_rng(devices=[]):
        network = build()
    try:
        fill(network, state)
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{path} does not hold torchvision's {title}: {first_line(error)}.") from error
    return network


def unwrapped(state: Mapping[str, Value], source: object) -> dict[str, Value]:
    """Return a state dict under the names that it has outside of all wrappers, whichever modules were wrapped, and how often.

    Args:
        state: name to tensor, or to what stands for one.
        source: where it is from, for the message.

    Raises:
        ValueError: two names become one.
    """
    named: dict[str, str] = {}
    for name in state:
        *parts, last = name.split(".")
        bare = ".".join([*(part for part in parts if part not in _WRAPPERS), last])
        if last == _COUNTER:
            continue
        if bare in named:
            raise ValueError(f"{source} has {named[bare]} and {name}, which name one tensor: save one of them.")
        named[bare] = name
    return {bare: state[name] for bare, name in named.items()}


def write_saved(directory: Path, state: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Write `model.safetensors` and `config.json` into a directory, each replaced whole or not at all."""
    make_folder(directory)
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    replace_file(directory / "model.safetensors", safetensors.torch.save(tensors))
    replace_file(directory / "config.json", json.dumps(settings, indent=2).encode())


def is_saved(directory: Path) -> bool:
    """Return whether both files of `write_saved` lie in a directory."""
    return all((directory / name).is_file() for name in ("model.safetensors", "config.json"))


def read_saved(directory: Path, what: str = "tokenizer") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings and the weights of what is saved in a directory, from `config.json` and `model.safetensors`.

    Raises:
        ValueError: a file cannot be read, or two names of tensors become one.
    """
    try:
        settings = strict_json((directory / "config.json").read_bytes())
        state = safetensors.torch.load_file(directory / "model.safetensors")
    except (ValueError, safetensors.SafetensorError) as error:
        raise ValueError(f"The {what} in {directory} cannot be read: {error}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"The {what} in {directory} cannot be read: its config.json holds no settings.")
    return settings, unwrapped(state, directory)


def check_weights(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: object, hint: str = "") -> None:
    """Compare names and shapes of a state dict with those of a model's own.

    Args:
        own: of the model.
        state: that would be loaded.
        source: where it is from, for the message.
        hint: what the message ends in.

    Raises:
        ValueError: a tensor is missing, is not expected or has another shape; the sentence names `source` and them.
    """
    wrong = [f"{name} is missing" for name in own if name not in state]
    wrong += [f"{name} is not expected" for name in state if name not in own]
    wrong += [
        f"{name} is {list(tensor.shape)}, not {list(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"The weights in {source} are of another architecture: {'; '.join(wrong[:4])}{more}.{hint}")


def check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Raise ValueError for weights that hold NaN or infinity: any index would come of them, and look like a token.

    Args:
        state: name to tensor, as `Module.state_dict` returns it.
        name: of what they are the weights, for the message.
    """
    for tensor, values in state.items():
        if values.is_floating_point() and not values.isfinite().all():
            raise ValueError(
                f"Not all weights of {name} are finite (of {tensor} {int((~values.isfinite()).sum()):,} of {values.numel():,} "
                "are not), so its tokens mean nothing: its training diverged, or the file is damaged."
            )


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a state dict, 64 hex digits: of names, types, shapes and values, in the order of the names.

    The same on every device and in every memory format.

    Args:
        state: name to tensor, as `Module.state_dict` returns it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())  # no copy where it is contiguous
    return digest.hexdigest()


def first_line(error: object) -> str:
    """Return the first line of an error's message, fit to stand inside a sentence: not longer than `MAX_REASON`."""
    line = str(error).split("\n")[0].strip().rstrip(".:") or type(error).__name__
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}..."
