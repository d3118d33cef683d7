"""Where something was computed: what every record says of versions, commit, device and threads."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from vistok.system.paths import in_repository, repository_root


def provenance(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return where something was computed: package versions, commit, device and thread count; no machine path."""
    device = torch.device(device)
    packages = ("vistok", "torch", "torchvision", "accelerate", "torchmetrics", "torch-fidelity", "numpy", "pillow")
    commit, dirty = _commit()
    return {
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "commit": commit,
        "dirty": dirty,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({_cpu_name()})",
        "threads": torch.get_num_threads(),
    }


def _commit() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether tracked files were changed since; (None, None) outside of a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository_root()), *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace").strip()

    if not in_repository():  # the working directory of an installed package is somebody else's repository
        return None, None
    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):  # no git, or not a checkout
        return None, None


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"
