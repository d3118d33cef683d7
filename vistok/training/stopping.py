"""Stopping a training: what whoever trains asks for, and the step at which several processes agree on it."""

import abc
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistok.images import to_uint8
from vistok.runs import Report, Run
from vistok.system.devices import eval_view, in_precision
from vistok.system.processes import max_over_processes

STOP_EVERY, STOP_SECONDS = 10, 5.0  # the most between two steps at which several processes agree


class Stoppable(abc.ABC):
    """A training that one iterates over, stops and iterates over again.

    Attributes:
        run, config: what is trained.
        trains: what that must be, a key of `vistok.runs.KINDS`.
        step: optimiser steps taken.
        progress: whether it shows a bar.
        pictured: what `look` shows, in words.
        dtype, device: in what precision and where it is looked at.
    """

    trains: ClassVar[str] = "tokenizer"
    pictured: ClassVar[str] = "originals, and below them their reconstructions"
    result: Any  # what is trained, as it is saved
    dtype: torch.dtype
    device: torch.device
    step = 0
    _stop_asked = False

    def __init__(self, run: Run, progress: bool) -> None:
        run.check_kind(self.trains)
        self.run, self.config, self.progress = run, run.config, progress

    @abc.abstractmethod
    def _train(self) -> Iterator[Report]:
        """Train until the end, or until `_stop_asked`, and yield reports."""

    def check_shown(self, shown: Any) -> Any:
        """Return what `look` takes, a sequence: images, float [N, 3, H, W] in [-1, 1]; ValueError where it is no such thing."""
        return self.result.check_images(shown)

    def look(self, shown: Any) -> Tensor:
        """Return pictures of what is trained, uint8 [N, 3, h, w], of what `check_shown` returned; changes nothing."""
        with in_precision(self.dtype, self.device):
            reconstruction = eval_view(self.result)(shown).reconstruction
        return torch.cat([to_uint8(shown).cpu(), to_uint8(reconstruction).cpu()], dim=2)

    def __iter__(self) -> Iterator[Report]:
        self._stop_asked = False  # here, not in the loop, which may begin later and in another thread
        return self._train()

    def stop(self) -> None:
        """Ask the loop to end after the step under way, saved; from any thread. Iterating again goes on.

        Several processes end together within some steps, where one of them is asked.
        """
        self._stop_asked = True

    @property
    def interruption(self) -> str:
        """What a loop that was asked to stop has left behind, as a sentence."""
        return f"Interrupted: saved at step {self.step} of {self.config.steps}; the same command goes on from there."


class SharedStop:
    """Whether a stop was asked for in any of several processes, at steps they agree on: else some would wait for others."""

    def __init__(self, step: int, device: torch.device) -> None:
        """Begin a loop at a step; tensors are exchanged on `device`."""
        self._device = device
        self._next = step  # the next step to agree at
        self._last = (step, 0.0)  # the last one, and when that was

    def asked(self, here: bool, step: int) -> bool:
        """Return whether to end before the step that comes; the same in all processes, each of which calls it at every step.

        Args:
            here: whether this process was asked.
            step: steps taken.
        """
        if step < self._next:
            return False
        (since, then), now = self._last, time.perf_counter()
        seconds = (now - then) / (step - since) if since < step else STOP_SECONDS  # not known yet
        values = torch.tensor([float(here), seconds], device=self._device)
        asked, seconds = max_over_processes(values).tolist()  # the same in all of them, so they agree on when, too
        every = max(1, min(STOP_EVERY, int(STOP_SECONDS / seconds)))
        self._next, self._last = step // every * every + every, (step, now)
        return asked > 0
