"""The training loop, of whatever is trained: steps, reports, checkpoints and stopping.

An iterator that trains between two reports, so that a notebook draws, interrupts and goes on. What a step computes is the
business of a subclass (`trainer`: a tokenizer); where it runs, of Hugging Face Accelerate; how many processes, of the launcher.
"""

import abc
import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from vistok.runs import Report, Run
from vistok.system.checkpoints import step_of
from vistok.system.devices import (
    check_default_dtype,
    computing,
    get_rng_state,
    resolve_precision,
    set_rng_state,
)
from vistok.system.files import say
from vistok.system.interrupts import deferred_interrupt
from vistok.system.processes import make_accelerator, mean_over_processes, of_all_processes
from vistok.system.progress import progress_bar
from vistok.training.checks import check_entries, check_finite_losses, check_finite_weights, check_same_start
from vistok.training.stopping import SharedStop, Stoppable


class TrainingLoop(Stoppable):
    """Trains what a run is about; iterate over it.

    A run that was interrupted goes on from its last checkpoint; a finished one yields nothing. Leaving the loop early, by
    `break`, `stop()` or Ctrl-C, saves a checkpoint after the step under way; iterating again goes on.

    A subclass says what is trained, by the methods that are abstract here and the two attributes that it sets.

    Attributes:
        device, dtype: where, and in what precision convolutions and matrix products are computed.
        dataset: what it is trained on, with `fingerprint`, `content` and `record()`; the subclass's.
        STATE: names of the subclass's entries in a checkpoint.
    """

    STATE: ClassVar[frozenset[str]]
    dataset: Any

    def __init__(self, run: Run, *, progress: bool = True) -> None:
        """Open the data, build the model, and take over the last checkpoint.

        Args:
            run: the run.
            progress: show a progress bar with rate and remaining time.

        Raises:
            ValueError: data and configuration do not fit; a setting would have no effect; the checkpoint is of another
                architecture. Before any training.
        """
        super().__init__(run, progress)
        with run.leaving_nothing():  # all that can be refused is refused before anything is written
            check_default_dtype()
            self.accelerator = make_accelerator(log_with=self.config.log_with, project_dir=str(run.path))
            if self.config.log_with and not self.accelerator.log_with:  # Accelerate only drops it
                raise ValueError(
                    f"log_with is {self.config.log_with!r}, but that package is not installed: pip install "
                    f"{self.config.log_with}, or leave log_with out."
                )
            self.device = self.accelerator.device
            self.dtype = resolve_precision(self.config.precision, self.device)
            self._saved_step = 0
            self._window: list[dict[str, Tensor]] = []  # losses of the steps since the last report, still on the device
            self._seconds = 0.0  # trained before `_since`
            self._since: float | None = None  # when the loop began; None: it does not run
            self._checkpoint_seconds = 0.0  # since the last report
            self._failed = False  # amid a step: then only the checkpoint is in a known state
            self.set_up()
            self._resume()

    # The subclass says what is trained.

    @abc.abstractmethod
    def set_up(self) -> None:
        """Open the data and build the model, on `device`; write nothing."""

    @abc.abstractmethod
    def batches(self) -> Iterator[Any]:
        """Yield the batches of the steps from `step` on, on `device`: each a function of the seed and the step alone."""

    @abc.abstractmethod
    def take_step(self, batch: Any) -> dict[str, Tensor]:
        """Take one optimiser step; return unweighted losses, scalars, and their weighted sum as "total", detached."""

    @abc.abstractmethod
    def measured(self) -> dict[str, float]:
        """Return what a `Report` says of the steps since the last one besides losses and rates; every process calls it."""

    @abc.abstractmethod
    def state(self) -> dict[str, Any]:
        """Return the entries of a checkpoint that `STATE` names; every process calls it."""

    @abc.abstractmethod
    def load_state(self, state: dict[str, Any], file: Path) -> None:
        """Take over the entries of a checkpoint, also after a step that failed; ValueError where they do not fit."""

    @abc.abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return the weights that are trained, by name."""

    @abc.abstractmethod
    def save_result(self) -> None:
        """Write what is trained into the run, for whoever uses it; only on the main process."""

    def result_is_there(self) -> bool:
        """Return whether all that `save_result` writes lies in the run; where it does not, a finished run writes it again."""
        return True

    @abc.abstractmethod
    def check_same_data(self, recorded: dict[str, Any]) -> None:
        """Raise ValueError where the run was trained on other data so far than `dataset`, as its record says."""

    # The loop.

    def train_step(self, batch: Any) -> dict[str, Tensor]:
        """Take one step as the loop does; arguments and returns are those of `take_step`."""
        if rank := self.accelerator.process_index:  # random numbers of its own, a function of the step
            digest = hashlib.sha256(f"{self.config.seed} {rank} {self.step}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8]))
        # Precision is the configuration's, whatever autocast is on outside, and whatever another thread looks at.
        with computing(self.device, deterministic=self.config.deterministic):
            return self.take_step(batch)

    def _train(self) -> Iterator[Report]:
        is_saved = min(of_all_processes(-1 if self._failed else self._saved_step)) >= self.config.steps
        if is_saved:
            self._check_same_data()  # a run of other data is not what was asked for
            if self.result_is_there():
                return
        with self._only_training():
            if self.step < self.config.steps:
                self.begin()
                try:
                    yield from self._loop()
                finally:
                    self._seconds, self._since = self._wall_seconds, None
            elif is_saved or self._saved_step < self.step:  # what was trained is lost, or could not be written
                self.save()

    def _loop(self) -> Iterator[Report]:
        batches = self.batches()
        bar = progress_bar(
            total=self.config.steps,
            initial=self.step,
            desc=self.config.run_name,
            disable=not (self.progress and self.accelerator.is_main_process),
        )
        shared = SharedStop(self.step, self.device) if self.accelerator.num_processes > 1 else None
        self._since = clock = time.perf_counter()
        data_seconds, reported = 0.0, self.step
        with bar, self._save_on_exit(), deferred_interrupt(self.stop):
            while self.step < self.config.steps and not self._stops(shared):
                waiting = time.perf_counter()
                batch = next(batches)
                data_seconds += time.perf_counter() - waiting
                self._failed = True  # unless the step comes to its end, its report included
                self._window.append(self.train_step(batch))
                self.step += 1
                bar.update()
                if self.device.type == "cpu":  # elsewhere it would wait for the device at every step
                    self._check_losses()
                last, report = self.step == self.config.steps, None
                if self.step % self.config.report_every == 0 or last:
                    report = self._report(self.step - reported, time.perf_counter() - clock, data_seconds)
                self._failed = False
                if report is not None:
                    bar.set_postfix_str(str(report), refresh=False)
                    if last:
                        self.save()
                    yield report
                    clock, data_seconds, reported = time.perf_counter(), 0.0, self.step
                if self.step % self.config.checkpoint_every == 0 and not last:
                    self.save()
        main = self.accelerator.is_main_process and threading.current_thread() is threading.main_thread()
        if self.step < self.config.steps and main:
            say(self.interruption)  # in another thread its owner says so, where the reader looks

    def _stops(self, shared: SharedStop | None) -> bool:
        return self._stop_asked if shared is None else shared.asked(self._stop_asked, self.step)

    @contextlib.contextmanager
    def _only_training(self) -> Iterator[None]:
        """Keep other processes' trainings off this run, and go on from what one has added since it was opened."""
        with self.run.alone() if self.accelerator.is_main_process else contextlib.nullcontext():
            self.accelerator.wait_for_everyone()
            files = self.run.checkpoints.files()
            if self._failed or (files and step_of(files[-1]) > self._saved_step):
                self._resume()
            data = f"{self.dataset.fingerprint} {self.dataset.content or ''}".strip()
            check_same_start({"step": self.step, "data": data, "precision": str(self.dtype)}, self.run.path)
            yield

    def _check_same_data(self) -> None:
        if self.step:
            self.check_same_data(self.run.provenance.get("data", {}))

    def begin(self) -> None:
        """Write where the run is started, and drop what the log holds beyond the checkpoint.

        Raises:
            ValueError: the run was trained on other data so far.
        """
        self._check_same_data()
        before = self.run.provenance if self.step else {}
        if self.accelerator.is_main_process:
            now = {"threads": torch.get_num_threads(), "precision": str(self.dtype).removeprefix("torch.")}
            for name, value in now.items():
                if before.get(name, value) != value:
                    say(f"This run goes on with {name} {value}, after {before[name]}: sums round differently.")
            with self.run.writing():
                self.run.begin()
                self._write_config()
                self.run.truncate_log(self.step)
        if self.config.log_with:
            self.accelerator.init_trackers("vistok", config=_flat(self.config.to_dict()))

    def _check_losses(self) -> None:
        check_finite_losses(self._window, self.step, self.run.checkpoints)

    def _report(self, steps: int, seconds: float, data_seconds: float) -> Report:
        self._check_losses()
        # Each over the steps that have it: the adversarial ones begin amid a run.
        names = list(dict.fromkeys(name for losses in self._window for name in losses))
        means = [torch.stack([losses[name] for losses in self._window if name in losses]).mean() for name in names]
        means = mean_over_processes(torch.stack(means)).tolist()
        self._window, measured = [], self.measured()
        report = Report(
            step=self.step,
            losses=dict(zip(names, means, strict=True)),
            usage=measured.get("usage"),
            perplexity=measured.get("perplexity"),
            images_per_second=steps * self.config.batch_size / seconds,
            data_share=data_seconds / seconds,
            checkpoint_share=self._checkpoint_seconds / seconds,
            skipped_steps=measured.get("skipped_steps", 0),
        )
        self._checkpoint_seconds = 0.0
        if self.accelerator.is_main_process:
            with self.run.writing():
                self.run.append_log(report)
        if self.config.log_with:
            values = {f"loss/{name}": value for name, value in report.losses.items()}
            self.accelerator.log(values | measured, step=report.step)
        return report

    # Checkpoints.

    def save(self) -> None:
        """Write what is trained and a checkpoint, on the main process; the checkpoint last, as it says that both are whole."""
        self._check_losses()
        check_finite_weights(self.weights(), self.step, self.run.checkpoints)
        begun = time.perf_counter()
        state = self.state() | {
            "step": self.step,
            "seconds": self._wall_seconds,
            "window": [{k: mean_over_processes(v.clone()) for k, v in losses.items()} for losses in self._window],
            "rng": torch.get_rng_state(),
            "device_rng": {self.device.type: get_rng_state(self.device)},
        }
        if self.accelerator.is_main_process:
            with self.run.writing():
                self._write_config()
                self.save_result()
                self.run.sync_log()
                self.run.checkpoints.save(state, self.step)
        self._saved_step = self.step
        self.accelerator.wait_for_everyone()
        self._checkpoint_seconds += time.perf_counter() - begun

    def _resume(self) -> None:
        """Take over the newest checkpoint, if there is one.

        Raises:
            ValueError: it cannot be used, or there is none to go back to after a failure.
        """
        found = self.run.checkpoints.load()
        if found is None and self._failed:
            raise ValueError("The training failed before its first checkpoint: begin it again with a new Trainer.")
        if found is None:
            return
        state, file = found
        check_entries(state, self.STATE | {"step", "seconds", "window", "rng", "device_rng"}, file)
        self.load_state(state, file)
        self._window = [{k: v.to(self.device) for k, v in losses.items()} for losses in state["window"]]
        torch.set_rng_state(state["rng"])
        set_rng_state(self.device, state["device_rng"].get(self.device.type))
        self._seconds = state["seconds"]
        self.step = self._saved_step = state["step"]
        self._failed = False

    def _write_config(self) -> None:
        """Write the configuration and where, on what and how long it was trained; rates are those of the whole run."""
        seconds = self._wall_seconds
        self.run.write_config(
            self.device,
            seed=self.config.seed,
            precision=str(self.dtype).removeprefix("torch."),
            deterministic=self.config.deterministic,
            num_processes=self.accelerator.num_processes,
            data=self.dataset.record(),
            wall_seconds=round(seconds, 3),
            images_per_second=round(self.step * self.config.batch_size / seconds, 2) if seconds else None,
        )

    @contextlib.contextmanager
    def _save_on_exit(self) -> Iterator[None]:
        """Save when the loop is left early, unless by an error."""
        try:
            yield
        except GeneratorExit:  # `break` in the caller's loop
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        if self._saved_step < self.step:
            self.save()
        if self.config.log_with:
            for tracker in self.accelerator.trackers:  # not end_training(), which ends the processes' group as well
                tracker.finish()

    @property
    def _wall_seconds(self) -> float:
        """Seconds of training so far, those of earlier sessions included."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as experiment trackers take them: numbers, texts and truth values."""
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in settings.items()}
