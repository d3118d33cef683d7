"""What every benchmark shares: rows, their table, and the peak memory of a process of its own."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vistok.system.paths import repository_root
from vistok.system.provenance import provenance


def row(case: str, value: float, unit: str, goal: float | None = None, memory: float | None = None) -> dict[str, Any]:
    """Return one line of a benchmark; a goal below 0 is an upper limit."""
    return {"case": case, "value": value, "unit": unit, "goal": goal, "peak_memory_mib": memory}


def peak_memory_mib(script: str, case: str) -> float | None:
    """Return by how much the peak memory of a new process rises while it runs a case of a benchmark."""
    command = [sys.executable, script, "--memory", case]
    environment = os.environ | {"PYTHONPATH": str(repository_root() / "tests")}
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(found.stdout.splitlines()[-1])


def report_memory(arguments: Sequence[str], run_case: Callable[[str], Any]) -> bool:
    """In a process started by `peak_memory_mib`, run the case and print the rise; else return False."""
    if list(arguments[1:2]) != ["--memory"]:
        return False
    import torch._dynamo  # noqa: F401  # 150 MiB that PyTorch imports with the first optimiser, which are no case's own

    before = _memory_mib("VmRSS")
    run_case(arguments[2])
    after = _memory_mib("VmHWM")
    print(json.dumps(None if before is None or after is None else after - before))
    return True


def _memory_mib(field: str) -> float | None:
    status = Path("/proc/self/status")  # Linux only
    if not status.is_file():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a benchmark as a Markdown table."""
    print("| case | value | goal | peak memory |\n| --- | ---: | ---: | ---: |")
    for line in rows:
        goal = "" if line["goal"] is None else _against(line["value"], line["goal"])
        memory = "" if line["peak_memory_mib"] is None else f"{line['peak_memory_mib']:,.0f} MiB"
        value = f"{line['value']:,.0f}" if line["value"] >= 1000 else f"{line['value']:.4g}"
        print(f"| {line['case']} | {value} {line['unit']} | {goal} | {memory} |")


def _against(value: float, goal: float) -> str:
    missed = value < goal if goal > 0 else value > -goal
    return f"{'at least' if goal > 0 else 'at most'} {abs(goal):g}{': **missed**' if missed else ''}"


def machine() -> str:
    """Return one line that names the machine and the versions."""
    record = provenance("cpu")
    versions = ", ".join(f"{name} {record['versions'][name]}" for name in ("torch", "numpy", "pillow", "torchmetrics"))
    return f"{record['device']}, {torch.get_num_threads()} threads; {platform.system()}; Python {record['python']}, {versions}"
