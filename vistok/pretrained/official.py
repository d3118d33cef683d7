"""The official checkpoints: what is known of them, and where their files lie."""

import tomllib
from pathlib import Path
from typing import Any

from vistok.system.paths import PACKAGE, resolve_path, runs_root
from vistok.system.values import check_known
from vistok.system.words import misspelt


def reference_checkpoints() -> dict[str, dict[str, Any]]:
    """Return what is known of the official checkpoints, by name: file, address, and the numbers reported for them.

    Every number is beside the project that reported it and the convention it used; see `official.toml`.
    """
    return tomllib.loads((PACKAGE / "pretrained" / "official.toml").read_text(encoding="utf-8"))


def checkpoint_path(given: str | Path) -> Path:
    """Return where a checkpoint lies that is given by its place or, an official one, by its name.

    Raises:
        FileNotFoundError: there is nothing; of an official one the sentence says where it is to be had.
    """
    official = reference_checkpoints()
    path = official_file(str(given)) if str(given) in official else resolve_path(given)
    if not path.exists():
        found = [known for name, known in official.items() if official_file(name) == path]
        where = f" It is to be had from {found[0]['address']}." if found else ""
        meant = misspelt(given, official) or _run_meant(path)
        where += f" Did you mean {meant!r}?" if meant and not found else ""
        raise FileNotFoundError(f"There is no checkpoint {path}.{where}")
    return path


def _run_meant(path: Path) -> str | None:
    """Return the run that has a tokenizer and whose name this path misspells or begins."""
    runs = {tokenizer.parent.name: str(tokenizer.parent) for tokenizer in runs_root().glob("*/tokenizer")}
    name = misspelt(path.name, runs)
    return None if name is None else runs[name]


def official_file(name: str) -> Path:
    """Return where the file of an official checkpoint is expected: `checkpoints/<name>/<file>` of the repository.

    Raises:
        ValueError: there is no official checkpoint of that name.
    """
    known = reference_checkpoints()
    check_known("There is no official checkpoint", name, known)
    return resolve_path(f"checkpoints/{name}/{known[name]['file']}")
