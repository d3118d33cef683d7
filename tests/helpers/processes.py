"""Two processes at one thing."""

import os
import subprocess
import sys
from pathlib import Path

from vistok.system.paths import repository_root


def run_two(script: str, store: Path) -> None:
    """Run a script in two processes, with its rank and where they meet as arguments; both must end well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(rank), str(store)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            cwd=repository_root(),
        )
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
