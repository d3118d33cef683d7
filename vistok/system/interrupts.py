"""Ctrl-C, and how clusters end a job, as a request to stop after the step under way."""

import contextlib
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SAME_SIGNAL_SECONDS = 1.0  # a launcher passes on the Ctrl-C that the terminal has sent to all of its processes


@contextlib.contextmanager
def deferred_interrupt(stop: Callable[[], None], number: int = signal.SIGINT) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop, for instance `Trainer.stop`; a second one interrupts at once.

    Only the main thread receives signals; elsewhere the owner of the thread stops the loop.

    Args:
        stop: called at the first one.
        number: of the signal: SIGINT is Ctrl-C, SIGTERM is how clusters end a job.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(number)
    first = -math.inf

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if now - first < SAME_SIGNAL_SECONDS:
            return
        if first > -math.inf:
            signal.signal(number, previous)
            signal.raise_signal(number)
            return
        first = now
        stop()

    signal.signal(number, ask)
    try:
        yield
    finally:
        # A loop that was left by another thread is closed wherever it is collected.
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, previous)


def run_command(main: Callable[[], int]) -> NoReturn:
    """End the process with what a command returns; ended by Ctrl-C with 130, as shells do, and a line, not a traceback."""
    try:
        status = main()
    except KeyboardInterrupt:
        # What a notebook's cell was to answer is never asked for again, and asyncio would say so with a traceback.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        print("Interrupted. What was complete is kept: give the same command again to go on.", file=sys.stderr)
        status = 130
    sys.exit(status)
