"""A loop shared among threads that never wait for each other: each takes the next part when it is done with its own.

PyTorch's way is to share out every single operation, and to wait for the last thread at the end of each. Where a neighbour (a
browser, another training, a container's quota) holds a core, the thread on it comes late by a slice of the scheduler, some
milliseconds; a loop of a thousand short operations then takes a hundred times as long as on one thread. Here there is one
wait, for the last part.
"""

import contextlib
import ctypes
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from statistics import median
from typing import TypeVar

import torch

from vistok.system.files import say

T = TypeVar("T")

TRIALS, TRIAL_SECONDS = 5, 2.0  # each way, at most; and the most that they may take together
WORTH_SAYING = 1.2  # times as fast on one thread
WORTH_A_TRIAL = 60.0  # seconds that the whole job takes


def share_out(parts: Collection[T], work: Callable[[Iterator[T]], None]) -> None:
    """Do the parts of a job on as many threads as PyTorch has, each of which computes alone.

    Args:
        parts: what there is to do, in no particular order.
        work: called once in each thread, with an iterator that gives it parts until none is left. Parts are done at the same
            time, so each has a place of its own to write to.
    """
    num_threads = min(torch.get_num_threads(), len(parts))
    if num_threads < 2 or _is_watched():
        work(iter(parts))
        return
    left, modes = deque(parts), (torch.is_inference_mode_enabled(), torch.is_grad_enabled())

    def taken() -> Iterator[T]:
        with contextlib.suppress(IndexError):  # none is left
            while True:
                yield left.popleft()

    def take() -> None:
        try:
            with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]):  # each thread has its own modes
                work(taken())
        except BaseException:
            left.clear()  # nobody begins another part
            raise

    release_idle_threads()  # they would wait actively, some milliseconds, and take a core from those that work
    jobs = _WORKERS.begin(take, num_threads)
    try:
        for job in jobs:
            job.result()
    finally:  # after Ctrl-C too: nobody computes on what the caller takes for its own, or while the interpreter ends
        left.clear()
        wait(jobs)


def on_one_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, called where PyTorch computes on one thread: its sums round alike however many there are."""
    modes, found = (torch.is_inference_mode_enabled(), torch.is_grad_enabled()), []

    def run() -> None:
        with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1]):
            found.append(work())

    (job,) = _WORKERS.begin(run, 1)
    job.result()
    return found[0]


def _is_watched() -> bool:
    """Whether something traces, transforms or counts operations (a compiler, fake tensors): it sees this thread's only."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    transformed = torch._C._functorch.peek_interpreter_stack() is not None
    return traced or transformed or torch._C._len_torch_dispatch_stack() > 0


def slower_than_one(step: Callable[[], object], num_steps: int) -> tuple[float, float] | None:
    """Try out whether the machine, busy as it is now, takes a step faster on one thread than on all that PyTorch has.

    Args:
        step: takes one; on a CPU.
        num_steps: how many there will be. Of a job of less than a minute nothing is tried out but one step.

    Returns:
        None where it is not faster, or else the seconds of a step on all threads and on one, both medians.
    """
    num_threads = torch.get_num_threads()
    if num_threads == 1:
        return None
    step()  # the first one, at which things are made or compiled, does not count
    if _seconds(step) * num_steps < WORTH_A_TRIAL:
        return None
    times: dict[int, list[float]] = {num_threads: [], 1: []}
    end = time.perf_counter() + TRIAL_SECONDS
    try:
        while len(times[1]) < TRIALS and (not times[1] or time.perf_counter() < end):
            for count, of_count in times.items():
                torch.set_num_threads(count)
                of_count.append(_seconds(step))
    finally:
        torch.set_num_threads(num_threads)
    usual, on_one = median(times[num_threads]), median(times[1])
    return (usual, on_one) if usual > WORTH_SAYING * on_one else None


def say_if_one_is_faster(step: Callable[[], object], num_steps: int, num_items: int, items: str) -> None:
    """Say where something else keeps the processor so busy that one thread would train faster than several.

    Nothing changes by itself: the number of threads changes how sums round.

    Args:
        step, num_steps: as of `slower_than_one`.
        num_items: in a step.
        items: what they are called.
    """
    if (found := slower_than_one(step, num_steps)) is None:
        return
    several, alone = (num_items / seconds for seconds in found)
    say(
        f"Something else keeps this machine busy: {torch.get_num_threads()} threads train {several:.3g} {items} a second now, "
        f"one thread {alone:.3g}. While that lasts one is better: set OMP_NUM_THREADS=1 before Python starts, or "
        "torch.set_num_threads(1) in a notebook before it trains. (It changes how sums round.)",
        warning=True,
    )


def _seconds(step: Callable[[], object]) -> float:
    begun = time.perf_counter()
    step()
    return time.perf_counter() - begun


class _Workers:
    """Threads, in which PyTorch computes on that one thread only, and a queue that they share.

    Daemons, unlike those of `concurrent.futures`, which takes no more work once the main thread has come to its end.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[Future[None], Callable[[], None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._number = 0

    def begin(self, work: Callable[[], None], number: int) -> list[Future[None]]:
        """Have `work` called in so many threads."""
        with self._lock:
            if self._number < number:
                self._add(number - self._number)
        jobs: list[Future[None]] = [Future() for _ in range(number)]
        for job in jobs:
            self._jobs.put((job, work))
        return jobs

    def _add(self, number: int) -> None:
        """Start threads. PyTorch's thread count is each thread's own, but the last one set is also that of threads to come."""
        num_threads, ready = torch.get_num_threads(), threading.Barrier(number + 1)
        for _ in range(number):
            threading.Thread(target=self._work, args=(ready,), name="vistok-part", daemon=True).start()
        ready.wait()
        torch.set_num_threads(num_threads)
        self._number += number

    def _work(self, ready: threading.Barrier) -> None:
        torch.get_num_threads()  # a thread takes over the count of others when it first asks for it; from here on it is its own
        torch.set_num_threads(1)
        ready.wait()
        while True:
            job, work = self._jobs.get()
            try:
                work()
            except BaseException as error:  # for the thread that waits for it
                job.set_exception(error)
            else:
                job.set_result(None)
            del job, work  # while this waits for the next one


def _start_anew() -> None:
    global _WORKERS
    _WORKERS = _Workers()


_start_anew()
if hasattr(os, "register_at_fork"):  # a forked process has no threads but its own
    os.register_at_fork(after_in_child=_start_anew)


def release_idle_threads() -> None:
    """Let go of the threads that OpenMP keeps for the calling thread; its next computation makes new ones.

    For a thread that hands the computing over to another one. Each has a pool of its own, as large as the machine, and where
    two pools exist libgomp no longer lets threads wait actively between two loops: training on two cores was 11 % slower.
    """
    loaded = ctypes.CDLL(None) if os.name == "posix" else None  # whatever PyTorch brought with it
    pause = getattr(loaded, "omp_pause_resource_all", None)  # OpenMP 5.0
    if pause is not None:
        pause(1)  # omp_pause_soft
