"""A loop shared among threads: every part once, on one thread each, whoever calls it, and nothing after a failure."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch._subclasses import FakeTensorMode

from vistok.quantizers import nearest_code
from vistok.system.threads import on_one_thread, share_out, slower_than_one


def doubled(numbers: range) -> tuple[list[int], set[int], set[int]]:
    """Return twice each number, by parts; the thread counts that PyTorch had there; and the threads."""
    result, counts, threads = [0] * len(numbers), set(), set()

    def work(parts: Iterator[int]) -> None:
        for part in parts:
            result[part] = 2 * numbers[part]
            counts.add(torch.get_num_threads())
            threads.add(threading.get_ident())
            time.sleep(0.001)

    share_out(range(len(numbers)), work)
    return result, counts, threads


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("num_parts", [0, 1, 2, 50])
def test_every_part_is_done_once_on_one_thread_each(num_threads: int, num_parts: int) -> None:
    torch.set_num_threads(num_threads)
    result, counts, threads = doubled(range(num_parts))
    assert result == [2 * number for number in range(num_parts)]
    assert torch.get_num_threads() == num_threads
    if min(num_threads, num_parts) > 1:
        assert counts == {1} and threading.get_ident() not in threads
        assert len(threads) <= num_threads
    if num_parts == 50:
        assert len(threads) == num_threads


def test_threads_to_come_have_the_count_that_was_set() -> None:
    """The workers' count of 1, the last one set, must not be that of a thread that begins to compute later."""
    torch.set_num_threads(3)
    doubled(range(6))
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]


def test_several_threads_may_call_it_at_once() -> None:
    torch.set_num_threads(2)
    results: dict[int, list[int]] = {}

    def call(number: int) -> None:
        torch.set_num_threads(2)
        results[number] = doubled(range(number, number + 20))[0]

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert results == {number: [2 * n for n in range(number, number + 20)] for number in range(4)}


def test_a_failure_reaches_the_caller_and_ends_the_rest() -> None:
    torch.set_num_threads(2)
    done = []

    def work(parts: Iterator[int]) -> None:
        for part in parts:
            if part == 3:
                raise ValueError("part 3")
            done.append(part)
            time.sleep(0.005)

    with pytest.raises(ValueError, match="part 3"):
        share_out(range(1000), work)
    time.sleep(0.05)
    assert len(done) < 10
    assert doubled(range(5))[0] == [0, 2, 4, 6, 8]  # the threads are still there


def test_nobody_computes_on_after_a_failure() -> None:
    """A thread amid its part as the caller gives up, after Ctrl-C say, would write on, or crash the interpreter's end."""
    torch.set_num_threads(2)
    begun, done = threading.Event(), []

    def work(parts: Iterator[int]) -> None:
        for part in parts:
            if part == 0:
                begun.wait(timeout=60)
                raise KeyboardInterrupt
            begun.set()
            time.sleep(0.2)
            done.append(part)

    with pytest.raises(KeyboardInterrupt):
        share_out(range(2), work)
    assert done == [1]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_gradient_modes_are_the_callers(mode: type) -> None:
    torch.set_num_threads(2)
    seen = set()

    def work(parts: Iterator[int]) -> None:
        seen.update((torch.is_grad_enabled(), torch.is_inference_mode_enabled()) for _ in parts)

    with mode():
        expected = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        share_out(range(4), work)
    assert seen == {expected}


def test_fake_tensors_stay_in_the_callers_thread() -> None:
    torch.set_num_threads(2)
    with FakeTensorMode():
        assert doubled(range(4))[2] == {threading.get_ident()}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
def test_what_traces_or_transforms_operations_sees_all_of_them() -> None:
    """Those of another thread are missing in a trace, which then gives whatever lies in fresh memory."""
    torch.set_num_threads(2)
    z, codebook = torch.randn(600, 4), torch.randn(64, 4)
    expected = nearest_code(-z, codebook)
    traced = torch.jit.trace(nearest_code, (z, codebook), check_trace=False)
    assert torch.equal(traced(-z, codebook), expected)
    assert torch.equal(torch.func.functionalize(nearest_code)(-z, codebook), expected)


def _doubled_in_child(queue: multiprocessing.Queue) -> None:
    torch.set_num_threads(2)
    queue.put(doubled(range(5))[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    torch.set_num_threads(2)
    doubled(range(5))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_doubled_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == [0, 2, 4, 6, 8]
    child.join(timeout=60)


@pytest.mark.slow
def test_a_thread_that_outlives_the_main_one_still_computes() -> None:
    """A script may end while its training goes on in a thread; pools of `concurrent.futures` take no work then."""
    script = """
import threading, time, torch
from vistok.quantizers import nearest_code
torch.set_num_threads(2)
z, codebook = torch.randn(4096, 4), torch.randn(64, 4)
nearest_code(z, codebook)

def later():
    threading.main_thread().join()
    time.sleep(0.1)
    print(len(nearest_code(z, codebook)), flush=True)

threading.Thread(target=later).start()
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout, found.stderr) == (0, "4096\n", "")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Seconds of a step by the number of threads, on a clock that only steps move."""
    now, seconds = [0.0], {}
    monkeypatch.setattr("vistok.system.threads.time.perf_counter", lambda: now[0])

    def step() -> None:
        now[0] += seconds[torch.get_num_threads()]

    seconds["step"] = step  # type: ignore[index]
    return seconds


@pytest.mark.parametrize(
    ("several", "alone", "num_steps", "found"),
    [
        (0.5, 0.25, 1000, True),
        (0.1, 0.15, 1000, False),  # as on a machine of one's own
        (0.11, 0.1, 10_000, False),  # a matter of chance
        (0.5, 0.25, 100, False),  # over within a minute
        (32.0, 8.0, 1000, True),  # one trial each way
    ],
)
def test_one_thread_is_advised_where_it_is_faster(clock, several, alone, num_steps, found) -> None:
    torch.set_num_threads(2)
    clock |= {2: several, 1: alone}
    assert slower_than_one(clock["step"], num_steps) == ((several, alone) if found else None)
    assert torch.get_num_threads() == 2


def test_one_thread_is_not_compared_with_itself() -> None:
    torch.set_num_threads(1)
    assert slower_than_one(lambda: pytest.fail("nothing to try out"), 1000) is None


def test_on_one_thread_it_returns_what_is_computed_there() -> None:
    torch.set_num_threads(2)
    with torch.no_grad():
        assert on_one_thread(lambda: (torch.get_num_threads(), torch.is_grad_enabled())) == (1, False)
    assert on_one_thread(torch.is_grad_enabled) and torch.get_num_threads() == 2

    def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        on_one_thread(fail)
    assert on_one_thread(lambda: 3) == 3, "the thread goes on"
