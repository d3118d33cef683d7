"""Tokenizers by what people call them: a run, a saved tokenizer, a file, an official checkpoint, a model of the Hub.

What is known of the official checkpoints is data, in `official.toml`. Their files lie in `checkpoints/<name>/` of the
repository, and are downloaded there where they are asked for by name and are not here. Nothing here waits for PyTorch.
"""

import contextlib
import http.client
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from vistok.recipes import TABLES
from vistok.system.files import make_folder, say
from vistok.system.paths import PACKAGE, RUN_NAME, beside_caller, resolve_path, runs_root
from vistok.system.values import check_known
from vistok.system.words import misspelt

WEIGHTS = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")  # what names of weights files end in
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w./=-]+)?")  # owner/name, or owner/name/file
_HUB_ADDRESS = re.compile(
    r"https?://huggingface\.co/([\w.-]+/[\w.-]+)(?:/(?:tree|blob|resolve)/[^/?]+(/[\w./=-]*\w)?)?/?(?:\?.*)?"
)
_HUB_REVISION = re.compile(r"([\w.-]+/[\w.-]+)(/[\w./=-]+)?@[\w./-]+")  # as others write it


class Place(NamedTuple):
    """Where a tokenizer lies, or will.

    Attributes:
        path: a directory or a file; None: in the Hub's cache, once it is downloaded.
        address: where it is to be had, an address or a name on the Hub; None: nowhere but here.
        results: folder for what is found out about it.
        prefix: what the names of files there begin with.
    """

    path: Path | None
    address: str | None
    results: Path
    prefix: str = ""


def reference_checkpoints() -> dict[str, dict[str, Any]]:
    """Return what is known of the official checkpoints, by name: file, address, licence, and the numbers reported for them.

    Every number is beside the project that reported it and the convention it used; see `official.toml`.
    """
    return tomllib.loads((PACKAGE / "pretrained" / "official.toml").read_text(encoding="utf-8"))


def find_tokenizer(given: str | Path) -> Place:
    """Return where a tokenizer lies, whatever it is called by; asks no network.

    Args:
        given: a run directory, a directory that `VisualTokenizer.save` wrote, or a weights file; the name of an official
            checkpoint; or "owner/name" on the Hugging Face Hub, "owner/name/file" where it has several there.

    Raises:
        FileNotFoundError: there is nothing of that name; the sentence says what is nearest.
    """
    name, official = str(given), reference_checkpoints()
    if name in official:
        path = official_file(name)
        return Place(path, official[name]["address"], path.parent)
    path = resolve_path(given)
    if path.is_dir():
        return Place(path, None, path)
    if path.exists():
        return Place(path, None, path.parent, f"{path.stem}.")
    beside = beside_caller(given)  # no path of the repository, and no model of the Hub either
    if _is_of_hub(name) and not beside:
        return Place(None, name, resolve_path(f"checkpoints/{name}"))
    if (known := official_at(path)) is not None:
        return Place(path, known["address"], path.parent)
    meant = _name_of_address(name) or misspelt(given, official) or _run_meant(path) or misspelt(path.name, official)
    hint = f" Did you mean {meant!r}?" if meant else ""
    run = RUN_NAME.fullmatch(path.name)
    if run and path.parent == runs_root():  # as a row names the run that it begins with
        hint = f" It would be a run of {run['row']}, with seed {run['seed']}, and is not trained yet.{hint}"
    raise FileNotFoundError(f"There is no run, tokenizer or checkpoint {path}.{beside or hint}")


def checkpoint_path(given: str | Path) -> Path:
    """Return where a tokenizer lies that is here, or that is downloaded now, which is said.

    Args:
        given: as of `find_tokenizer`.

    Raises:
        FileNotFoundError: there is nothing of that name, or it cannot be downloaded; the sentence says where it goes.
    """
    place = find_tokenizer(given)
    if place.path is None:
        from vistok.system.hub import download_weights  # here, since facts about checkpoints do not wait for PyTorch

        return download_weights(place.address, WEIGHTS)
    if not place.path.exists():
        _download(place.address, place.path)
    return place.path


def _download(address: str, path: Path) -> None:
    from vistok.system.weights import download_file, first_line

    lock = path.with_name(f".{path.name}.lock")
    try:
        make_folder(path.parent)
        with filelock.FileLock(lock):  # one process downloads, the others wait for it
            if not path.exists():
                say(f"{path.name} is not here yet: downloading {address} to {path.parent}")
                download_file(address, path, named_by_sha256=False)
    except (OSError, ValueError, http.client.HTTPException) as error:  # a URLError and a timeout are OSErrors
        with contextlib.suppress(OSError):  # something else is in the folder: it stays
            lock.unlink(missing_ok=True)
            path.parent.rmdir()
        reason = first_line(getattr(error, "reason", error))
        raise FileNotFoundError(
            f"There is no checkpoint {path}, and it could not be downloaded ({reason}). It is to be had from {address}: put it "
            "there."
        ) from error


def _is_of_hub(name: str) -> bool:
    """Return whether a name may be one on the Hub: two parts or more, of which the first is no folder and no table here."""
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        return False
    owner = name.partition("/")[0]
    folder, is_file = resolve_path(owner), name.count("/") == 1 and name.endswith(WEIGHTS)
    is_ours = folder == runs_root() or owner in ("runs", "checkpoints") or (TABLES / f"{owner}.toml").is_file()
    return not is_file and not is_ours and not folder.exists()


def _name_of_address(address: str) -> str | None:
    """Return the name on the Hub of a model or its file, of which this is a page's address or a revision; None: of neither."""
    match = _HUB_ADDRESS.fullmatch(address) or _HUB_REVISION.fullmatch(address)
    return match and match[1] + (match[2] or "")


def _run_meant(path: Path) -> str | None:
    """Return the run that has a tokenizer and whose name this path misspells or begins."""
    runs = {tokenizer.parent.name: str(tokenizer.parent) for tokenizer in runs_root().glob("*/tokenizer")}
    name = misspelt(path.name, runs)
    return None if name is None else runs[name]


def official_at(path: Path) -> dict[str, Any] | None:
    """Return what is known of the official checkpoint whose file is expected at this path; None: that of none is."""
    entry = reference_checkpoints().get(path.parent.name)
    return entry if entry and official_file(path.parent.name) == path else None


def official_file(name: str) -> Path:
    """Return where the file of an official checkpoint is expected: `checkpoints/<name>/<file>` of the repository.

    Raises:
        ValueError: there is no official checkpoint of that name.
    """
    known = reference_checkpoints()
    check_known("There is no official checkpoint", name, known)
    return resolve_path(f"checkpoints/{name}/{known[name]['file']}")
