"""Locks: of several processes one writes, and the others say which one that is."""

import contextlib
import datetime
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil

from vistok.system.files import replace_file

DYING_SECONDS = 20.0  # loading processes outlive a killed one by some seconds, and with them its lock


@contextlib.contextmanager
def only_process(path: Path, busy: str, remedy: str) -> Iterator[None]:
    """Hold the lock at `path` while entered. The system takes it back when the process ends, however that comes.

    Args:
        path: of the lock file; who holds it stands in `<path>.holder`.
        busy: the beginning of the error's sentence: what is being done here.
        remedy: its end: what helps.

    Raises:
        ValueError: it is held; the sentence says by whom and since when.
        OSError: the lock file cannot be written.
    """
    holder_file = path.with_name(f"{path.name}.holder")
    holder = _read(holder_file)
    lock = filelock.FileLock(path, thread_local=False)  # a generator may be closed in another thread
    try:
        lock.acquire(timeout=0 if holder is None or _lives(holder) else DYING_SECONDS)
    except filelock.Timeout as error:
        raise ValueError(f"{busy} by {_named(_read(holder_file))}: {remedy}") from error
    try:
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        mine = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
        replace_file(holder_file, json.dumps(mine).encode())
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _read(holder_file: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(holder_file.read_bytes())
        return {"process": int(holder["process"]), "host": holder["host"], "since": holder["since"]}
    except (OSError, ValueError, TypeError, KeyError):  # there is none, or it is no holder's
        return None


def _lives(holder: dict[str, Any]) -> bool:
    """Return whether the process is there, as far as one can know: on another host it counts as alive."""
    return holder["host"] != socket.gethostname() or psutil.pid_exists(holder["process"])


def _named(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another process"
    if (holder["process"], holder["host"]) == (os.getpid(), socket.gethostname()):
        return f"this process already, since {holder['since']}"
    return f"process {holder['process']} on {holder['host']} since {holder['since']}"
