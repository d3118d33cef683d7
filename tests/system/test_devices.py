"""How something is computed: by which threads, and whether the same at every time."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from vistok.system.devices import computing

COUNT = """
import os, torch
from vistok.system.threads import release_idle_threads

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


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_idle_threads_are_released_and_come_back() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    before, computing, released, again = map(int, done.stdout.split())
    assert computing == before + 2
    assert released == before
    assert again == computing


@pytest.mark.parametrize("on", [False, True])
def test_deterministic_algorithms_are_on_while_asked_for_and_off_again(
    on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with pytest.raises(KeyError), computing(torch.device("cpu"), deterministic=on):
        assert torch.are_deterministic_algorithms_enabled() == on
        assert torch.backends.cudnn.deterministic == on
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == on
        raise KeyError
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


@pytest.mark.parametrize(("kind", "waits"), [("cuda", True), ("cpu", False)])
def test_a_gpus_settings_do_not_change_amid_another_threads_step(kind: str, waits: bool) -> None:
    device, changed = torch.device(kind), threading.Event()

    def look() -> None:
        with computing(device, exact=True):
            changed.set()

    thread = threading.Thread(target=look)
    with computing(device):  # a step
        thread.start()
        assert changed.wait(0.2) != waits
    thread.join()
    assert changed.is_set()
    with computing(device, exact=True), computing(device):  # a thread does not wait for itself
        pass
