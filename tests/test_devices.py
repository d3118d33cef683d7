"""The threads that compute: a thread that hands over lets go of its own."""

import subprocess
import sys

import pytest

COUNT = """
import os, torch
from vistok.devices import release_idle_threads

torch.set_num_threads(3)
threads = lambda: len(os.listdir("/proc/self/task"))
compute = lambda: torch.rand(1 << 20).exp().sum()
before = threads()
compute()
computing = threads()
release_idle_threads()
released = threads()
compute()
print(before, computing, released, threads())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_idle_threads_are_released_and_come_back() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, computing, released, again = map(int, done.stdout.split())
    assert computing == before + 2
    assert released == before
    assert again == computing
