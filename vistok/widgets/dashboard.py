"""A training as one watches it: it goes on in a thread, while curves, codes and reconstructions are drawn anew.

In a thread, because a cell that trains by itself would keep a click from reaching Python until it ends.
"""

import atexit
import dataclasses
import io
import math
import threading
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import traitlets
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vistok import plots
from vistok.runs import Report, loss_and_usage
from vistok.system.files import say
from vistok.system.interrupts import deferred_interrupt
from vistok.system.progress import progress_bar
from vistok.system.threads import release_idle_threads
from vistok.training.stopping import Stoppable
from vistok.widgets.view import View, script, strip_png

POINTS = 600  # a curve has no more: they would not be seen
PUSH_SECONDS = 0.5  # at least between two messages to the page
COUNTS_SECONDS = 1.0  # at least between two that carry counts
IDLE_SECONDS = 0.5  # at least between two that only tell the step, where reports are far apart
PICTURES_SHARE = 0.015  # part of the training's time: beyond it reconstructions wait
PICTURES_KEPT = 24  # strips of reconstructions, in memory: the first, the last and between them ever farther apart
SENTENCES = (ValueError, FileNotFoundError, FloatingPointError)  # their sentences are meant for a reader


class TrainingDashboard(View):
    """Trains in a thread of its own, and shows how it goes.

    dashboard = TrainingDashboard(trainer, images)
    dashboard.start()   # returns at once: the cell ends, clicks work
    dashboard.wait()    # in the next cell: until the training ends, with a progress bar

    Its stop button, `stop()`, and interrupting `wait()` do the same: a checkpoint is saved after the step under way.
    Starting it again goes on. What is trained is the same, bit for bit, as without it.

    Attributes:
        trainer: what trains.
        images: float [N, 3, H, W] in [-1, 1], whose reconstructions are shown; of a generator the seeds of its samples.
        shown_step: whose reconstructions are shown, one of `pictured_steps`; -1: the latest. May be set.
        last: the last line of the log, or None.
        seconds: time spent on showing, by both threads, since the last start.
        pushes: messages sent to the page, since the last start.
    """

    _esm = script("cellmap", "curves", "dashboard")
    name = traitlets.Unicode("").tag(sync=True)
    phase = traitlets.Unicode("ready").tag(sync=True)  # or training, stopping, stopped, finished, failed
    step = traitlets.Int(0).tag(sync=True)
    steps = traitlets.Int(1).tag(sync=True)
    images_per_second = traitlets.Float(0.0).tag(sync=True)
    seconds_left = traitlets.Float(-1.0).tag(sync=True)  # below 0: not known
    weights = traitlets.Dict().tag(sync=True)  # loss to weight
    adversarial = traitlets.List().tag(sync=True)  # names of what discriminator and tokenizer make of each other
    series = traitlets.List().tag(sync=True)  # names of the columns of `curves`
    curves = traitlets.Bytes(b"").tag(sync=True)  # float32 [points, series]
    levels = traitlets.List().tag(sync=True)  # codes of each level
    counts = traitlets.Bytes(b"").tag(sync=True)  # uint32, all levels in a row; empty: not known yet
    pictures = traitlets.Bytes(b"").tag(sync=True)  # PNG, a strip
    pictured = traitlets.Unicode("pictures").tag(sync=True)  # what the pictures are, in words
    pictures_step = traitlets.Int(0).tag(sync=True)
    pictured_steps = traitlets.List(traitlets.Int()).tag(sync=True)  # whose reconstructions can be looked at again
    shown_step = traitlets.Int(-1).tag(sync=True)  # one of them; -1: the latest is followed
    unseen = traitlets.Bool(False).tag(sync=True)  # a training has begun that no page has shown yet

    def __init__(self, trainer: Stoppable, images: Tensor | Sequence[int], *, images_every: float = 10.0) -> None:
        """Show a training, and do not begin it.

        Args:
            trainer: made with `progress=False`: `wait` has a bar.
            images: what to look at it by: float [N, 3, H, W] in [-1, 1], a few; of a generator the seeds of its samples.
            images_every: seconds between two reconstructions at least; more where they would take too much of the time.

        Raises:
            ValueError: the images have another shape or dtype, or are clearly out of range.
        """
        self.trainer, self.images_every = trainer, images_every
        self.images = trainer.check_shown(images)
        self.last: dict[str, Any] | None = None
        self._history = _History()
        for entry in trainer.run.log():
            if entry["step"] <= trainer.step:  # later steps than the checkpoint's are trained anew
                self._history.add(entry)
                self.last = entry
        self._counts: list[Tensor] = []  # int64 [K] a level; empty: not known yet
        self._pictures: dict[int, bytes] = {}  # step to PNG, a strip
        self._news = {"curves"}  # parts that the page does not have yet
        self._writing = threading.Lock()  # held by whoever writes traits, or what they are made of
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._waited_for = False
        self._display_id = uuid.uuid4().hex
        self._reset()
        super().__init__(
            name=trainer.config.run_name,
            pictured=trainer.pictured,
            steps=trainer.config.steps,
            weights=dict(trainer.loss_weights),
            adversarial=list(plots.ADVERSARIAL_NAMES),
            levels=[len(of_codes) for of_codes in trainer.counts],
        )
        self._answer_beside_cells()
        self._take_counts()
        self._push()
        self.on_msg(self._heard)

    # Done by a reader.

    def start(self) -> None:
        """Show the widget here, and train in the background; one that trains already is shown only.

        A dashboard that trains the same run is stopped first, and its checkpoint saved: of two threads each would undo
        what the other does.
        """
        if self._trains:
            self._show()
            return
        for other in list(_STARTED):
            if other.trainer.run.path == self.trainer.run.path:
                other._stop_and_join()
        reports = iter(self.trainer)  # from here on a stop is heard
        self._reset()
        with self._writing:
            self._push(phase="training", message="", unseen=True)
        self._show()
        self._thread = threading.Thread(target=self._train, args=(reports,), daemon=True, name=self.name)
        _STARTED.add(self)
        release_idle_threads()
        self._thread.start()

    def stop(self) -> None:
        """Ask the training to end after the step under way; a checkpoint is saved. Returns at once."""
        self.trainer.stop()
        with self._writing:
            if self._trains and not self._ended.is_set():
                self.phase = "stopping"

    def wait(self) -> None:
        """Show a progress bar until the training ends; interrupting it (■, Ctrl-C) stops the training, saved, and returns.

        Raises:
            RuntimeError: it was not started.
            Exception: what the training raised.
        """
        if self._thread is None:
            raise RuntimeError("Nothing is being trained: call start() first.")
        self._waited_for = True
        try:
            with deferred_interrupt(self.stop), self._bar() as bar:
                while self._trains:
                    self._thread.join(0.1)
                    self._advance(bar)
                self._advance(bar)
        finally:
            self._waited_for = False
        self._show(again=True)
        if self._error is not None:
            raise self._error
        if self.trainer.step < self.steps:
            say(self.trainer.interruption)

    def figure(self) -> Figure | None:
        """Return the training so far as a picture; None before the first report."""
        with self._writing:
            log, counts = self._history.entries(), self._counts
            pictures = self._pictures.get(max(self._pictures, default=0) if self.shown_step < 0 else self.shown_step)
        if not log:
            return None
        return plots.dashboard(log, self.weights, self.steps, counts, self._unpacked(pictures), self.pictured)

    def _unpacked(self, png: bytes | None) -> Tensor | None:
        """Return a strip of pictures as uint8 [N, 3, 2H, W]."""
        if png is None:
            return None
        strip = torch.from_numpy(np.array(Image.open(io.BytesIO(png))))  # [2H, N * W, 3]
        return strip.unflatten(1, (len(self.images), -1)).permute(1, 3, 0, 2)

    def _heard(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("stop"):
            self.stop()
        if (png := self._pictures.get(content.get("pictures"))) is not None:  # a page that was not there at that step
            self.send({"pictures": content["pictures"]}, buffers=[png])

    @traitlets.validate("shown_step")
    def _known_step(self, proposal: Any) -> int:
        """Return the step that is proposed where its reconstructions are there; else say which one is nearest."""
        steps = list(self._pictures)
        if proposal.value < 0 or proposal.value in steps:
            if self.phase != "failed":  # else the message says why
                self.message = ""
            return max(proposal.value, -1)
        near = min(steps, key=lambda step: abs(step - proposal.value), default=None)
        self.message = f"There are no pictures of step {proposal.value}; " + (
            "there are none yet." if near is None else f"the nearest are those of step {near}."
        )
        return self.shown_step

    def _show(self, again: bool = False) -> None:
        """Display the widget; `again`: anew where it stands, so that the saved output holds the last picture."""
        display(self, display_id=self._display_id, update=again)

    def _bar(self) -> tqdm:
        ahead = self._first_step < self.steps  # else there was nothing to train
        desc = self.trainer.config.run_name
        bar = progress_bar(total=self.steps, initial=self._first_step, desc=desc, disable=not ahead)
        if ahead:
            bar.smoothing = 0  # the mean since the start, as `seconds_left` has it: one training, one estimate
            bar.start_t -= (self._until or time.monotonic()) - self._since  # times and rate are those since the start
            bar.last_print_t = bar.start_t
        return bar

    def _advance(self, bar: tqdm) -> None:
        if (last := self.last) is not None:
            bar.set_postfix_str(loss_and_usage(last), refresh=False)
        bar.update(self.trainer.step - bar.n)

    # Done by the threads.

    @property
    def seconds(self) -> float:
        """Time spent on showing, since the last start."""
        return self._seconds_training + self._seconds_sending

    @property
    def _trains(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _reset(self) -> None:
        """Begin to count anew."""
        self._ended.clear()
        self._error = None
        self._seconds_training = self._seconds_sending = self._seconds_pictures = 0.0
        self.pushes = 0
        self._drawn = self._counted = -math.inf  # when reconstructions and counts were last taken
        self._since, self._until, self._first_step = time.monotonic(), None, self.trainer.step

    def _stop_and_join(self) -> None:
        if self._trains:
            self.trainer.stop()
            self._thread.join()

    def _train(self, reports: Iterator[Report]) -> None:
        """Train to the end, or until asked to stop. What there is to see is only noted down here; `_send_news` sends it."""
        sender = threading.Thread(target=self._send_news, daemon=True)
        sender.start()
        phase, message = "finished", ""
        try:
            for report in reports:
                self._note(report)
            self._until = time.monotonic()
            self._take_counts()
            self._reconstruct()
            if self.trainer.step < self.steps:
                phase = "stopped"
        except BaseException as error:  # for `wait` to raise
            self._error, phase = error, "failed"
            message = str(error) if isinstance(error, SENTENCES) else f"{type(error).__name__}: {error}"
        self._until = self._until or time.monotonic()
        self._ended.set()
        sender.join()
        with self._writing:
            self._push(phase=phase, message=message)
        if not self._waited_for:
            self._show(again=True)

    def _note(self, report: Report) -> None:
        """Take up what a report says, and, where it is time for them, counts and reconstructions."""
        begun = time.monotonic()
        with self._writing:
            self.last = dataclasses.asdict(report)
            self._history.add(self.last)
            self._news.add("curves")
        if begun - self._counted >= COUNTS_SECONDS:
            self._take_counts()
            self._counted = begun
        if begun - self._drawn >= self.images_every and self._affordable(first=self._drawn < 0):
            self._reconstruct()
            self._drawn = begun
        self._seconds_training += time.monotonic() - begun

    def _take_counts(self) -> None:
        counts = [of_codes.cpu() for of_codes in self.trainer.counts]
        if counts and counts[0].any():  # else there is no codebook, or was no report yet
            with self._writing:
                self._counts = counts
                self._news.add("counts")

    def _affordable(self, first: bool) -> bool:
        elapsed = time.monotonic() - self._since
        return first or self.seconds + self._seconds_pictures <= PICTURES_SHARE * elapsed

    @torch.no_grad()
    def _reconstruct(self) -> None:
        begun = time.monotonic()
        trainer = self.trainer
        if trainer.result_step in self._pictures:
            return
        png = strip_png(trainer.look(self.images))
        with self._writing:
            former = {step: earlier for step, earlier in self._pictures.items() if step < trainer.result_step}
            self._pictures = former | {trainer.result_step: png}  # steps of a failed part are trained anew
            if len(self._pictures) > PICTURES_KEPT:
                del self._pictures[_least_missed(list(self._pictures), self.shown_step)]
            self._news.add("pictures")
        self._seconds_pictures = time.monotonic() - begun

    def _send_news(self) -> None:
        """Send what is new until the training ends: at most one message every PUSH_SECONDS.

        Without PyTorch, whose computations would give this thread a pool of threads too (see `release_idle_threads`).
        """
        sent = time.monotonic()
        while not self._ended.wait(PUSH_SECONDS):
            begun = time.monotonic()
            with self._writing:
                if not self._news and (begun - sent < IDLE_SECONDS or self.trainer.step == self.step):
                    continue
                self._push()
            sent = time.monotonic()
            self._seconds_sending += sent - begun
        time.sleep(PUSH_SECONDS)  # the message of the end keeps its distance too

    def _push(self, **traits: str | bool) -> None:
        """Send what the page does not have yet, as one message; the caller holds the lock."""
        step, elapsed = self.trainer.step, time.monotonic() - self._since
        taken = step - self._first_step
        with self.hold_sync():
            for name, value in traits.items():
                setattr(self, name, value)
            self.step = step
            self.seconds_left = elapsed / taken * (self.steps - step) if taken else -1.0
            if self.last is not None:
                self.images_per_second = self.last["images_per_second"]
            if "curves" in self._news:
                self.series, self.curves = list(self._history.names), self._history.values().tobytes()
            if "counts" in self._news:
                self.counts = np.concatenate([of_codes.numpy() for of_codes in self._counts]).astype("<u4").tobytes()
            if "pictures" in self._news:
                self.pictured_steps = list(self._pictures)
                self.pictures_step = self.pictured_steps[-1]
                self.pictures = self._pictures[self.pictures_step]
            self.description = self._describe(step)
        self._news.clear()
        self.pushes += 1

    def _describe(self, step: int) -> str:
        sentences = [f"Training of {self.name}: step {step} of {self.steps}."]
        if (last := self.last) is not None:
            perplexity = f", perplexity {last['perplexity']:.0f}" if self.levels else ": there is no codebook to use"
            sentences.append(f"{loss_and_usage(last).capitalize()}{perplexity}.")
        if self._counts:
            codes = sum(map(len, self._counts))
            dead = codes - sum(int(np.count_nonzero(of_codes.numpy())) for of_codes in self._counts)
            sentences.append(f"{dead} of {codes} codes were chosen by no token of the last report.")
        return " ".join(sentences)


def _least_missed(steps: list[int], shown: int) -> int:
    """Return the step whose pictures are let go: its neighbours are nearest to each other, counted in doublings.

    A network changes most at first, so that pictures are to be the denser the earlier they were made.

    Args:
        steps: in rising order; the first and the last stay.
        shown: the one that somebody looks at, which stays too.
    """
    inner = [place for place in range(1, len(steps) - 1) if steps[place] != shown]
    return steps[min(inner, key=lambda place: (steps[place + 1] + 1) / (steps[place - 1] + 1))]


class _History:
    """A log, shortened: beyond POINTS points neighbours are averaged, and from then on as many reports to a point.

    Attributes:
        names: of the columns: step, usage, perplexity, then the losses as they come up.
    """

    def __init__(self) -> None:
        self.names = ["step", "usage", "perplexity"]
        self._points = np.empty((0, 3))
        self._open: list[np.ndarray] = []  # reports of the point that is not complete yet
        self._per_point = 1

    def add(self, entry: dict[str, Any]) -> None:
        """Take up a line of the log, as of `run.log()`."""
        numbers = {name: entry[name] for name in self.names[:3] if entry[name] is not None} | entry["losses"]
        if new := [name for name in numbers if name not in self.names]:  # the adversarial losses begin amid a run
            self.names += new
            self._points = _widened(self._points, len(self.names))
            self._open = [_widened(row, len(self.names)) for row in self._open]
        self._open.append(np.array([numbers.get(name, np.nan) for name in self.names]))
        if len(self._open) == self._per_point:
            self._points = np.vstack([self._points, _mean(np.array(self._open))])
            self._open = []
            if len(self._points) == POINTS:
                self._points = _mean(self._points.reshape(POINTS // 2, 2, -1).swapaxes(0, 1))
                self._per_point *= 2

    def values(self) -> np.ndarray:
        """Return float32 [points, names], the last point that of what has come so far; NaN: there was no such loss."""
        rest = [_mean(np.array(self._open))] if self._open else []
        return np.vstack([self._points, *rest]).astype("<f4")

    def entries(self) -> list[dict[str, Any]]:
        """Return the points as lines of a log."""
        lines = []
        for row in self.values().tolist():
            numbers = {name: value for name, value in zip(self.names, row, strict=True) if not math.isnan(value)}
            first = {name: numbers.pop(name, None) for name in self.names[:3]}  # None: there is no codebook
            lines.append(first | {"losses": numbers})
        return lines


def _widened(rows: np.ndarray, columns: int) -> np.ndarray:
    """Return rows with columns of NaN at their end."""
    missing = np.full((*rows.shape[:-1], columns - rows.shape[-1]), np.nan)
    return np.concatenate([rows, missing], axis=-1)


def _mean(rows: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is there."""
    there = ~np.isnan(rows)
    return np.where(there.any(0), np.where(there, rows, 0).sum(0) / np.maximum(1, there.sum(0)), np.nan)


_STARTED: "weakref.WeakSet[TrainingDashboard]" = weakref.WeakSet()


@atexit.register
def _save_at_exit() -> None:
    """Stop what still trains when the kernel is shut down: it is saved."""
    for started in list(_STARTED):
        started._waited_for = True  # no page is there to be drawn for
        started._stop_and_join()
