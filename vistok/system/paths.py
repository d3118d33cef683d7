"""Where things lie: the checkout, the runs, and what a path that a reader gives is relative to."""

import os
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
RUN_NAME = re.compile(
    r"(?P<row>.+)-(?P<scale>smoke|quick|laptop|paper)-(?P<dataset>.+)-s(?P<seed>\d+)-(?P<settings>[0-9a-f]{8})"
)


def in_repository() -> bool:
    """Return whether this package lies in its checkout, and not where a package is installed without one."""
    return (PACKAGE.parent / "pyproject.toml").is_file()


def repository_root() -> Path:
    """Return the checkout that holds `notebooks/` and `runs/`, or the working directory for an installed package."""
    return PACKAGE.parent if in_repository() else Path.cwd()


def runs_root() -> Path:
    """Return the folder of all runs: `$VISTOK_RUNS`, or `runs/` of the repository."""
    return path_from_environment("VISTOK_RUNS", "runs")


def path_from_environment(variable: str, usual: str) -> Path:
    """Return the path that an environment variable names, or the usual one where it is unset or empty: see `resolve_path`.

    Variables in it are expanded: no shell does that for a container's or a notebook's.
    """
    try:
        return resolve_path(os.path.expandvars(os.environ.get(variable) or usual))
    except ValueError as error:
        raise ValueError(f"{error} Or set {variable} to another folder.") from error


def resolve_path(path: str | Path) -> Path:
    """Return `path` absolute, `~` expanded and a relative one counted from the repository.

    Notebooks run with their own folder as working directory under JupyterLab and with the caller's under papermill; counted
    from the repository, one path means one place.

    Raises:
        ValueError: it is empty, or begins with a home folder that is not known here.
        TypeError: it is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"A path is {path!r:.200} ({type(path).__name__}), but must be a text or a pathlib.Path.")
    if not str(path).strip():  # counted from the repository it would be all of that
        raise ValueError(
            f"A path is {str(path)!r}, which is empty; is a shell variable unset? Give the path, or leave it out."
        )
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:  # no such user; or, in a container, a user without a home folder
        raise ValueError(
            f"{str(path)!r} begins with a home folder that is not known here: give the whole path."
        ) from error
    return expanded if expanded.is_absolute() else repository_root() / expanded


def beside_caller(path: str | Path) -> str:
    """Return what to add to a sentence that something is not there, where it would be in the caller's folder; else nothing."""
    if resolve_path(path).exists() or not Path(path).exists():
        return ""
    return f" A relative path counts from the repository: did you mean {str(Path(path).absolute())!r}?"


def real_place(path: str) -> str:
    """Return `path` resolved, without links: one text for one place. One that is none of this machine is returned as it is."""
    try:
        return os.path.realpath(resolve_path(path))
    except (ValueError, RuntimeError, OSError):  # whoever opens it says so
        return path
