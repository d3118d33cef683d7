"""A training over several processes of this machine, started and watched from a notebook.

Accelerate's `notebook_launcher` forks the kernel, which must not have used the GPU before, and on a CPU it starts one process
only. Here the processes are started as a shell would start them, and the notebook follows the run's log.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from vistok.data import check_batch_size, open_training_images
from vistok.losses import loss_weights
from vistok.runs import Report, Run
from vistok.system.devices import resolve_precision, usable_device
from vistok.system.interrupts import deferred_interrupt
from vistok.system.progress import progress_bar
from vistok.system.values import checked
from vistok.tokenizer import VisualTokenizer
from vistok.training.building import build_tokenizer
from vistok.training.checks import check_entries
from vistok.training.stopping import Stoppable

LOOK_SECONDS = 0.2  # between two looks at the log
SHOWN_LINES = 60  # the last that the processes printed, where they fail without a sentence of ours


class LaunchedTrainer(Stoppable):
    """Trains as `Trainer` does, in several processes of this machine; iterate over it, `stop()` it, iterate again.

    Here no model is trained, nor built before one asks for `result`. What is refused of a model is refused by the processes.

    Attributes:
        dataset: what it is trained on.
        counts, result_step: as of `Trainer`, of the last checkpoint.
        device, dtype: where `result` is put, and in what precision to look at it.
        loss_weights: loss name to weight, the adversarial one aside.
    """

    def __init__(self, run: Run, num_processes: int, *, progress: bool = True) -> None:
        """Open the run, and start nothing yet.

        Args:
            run: the run.
            num_processes: at least 1, and on a machine with GPUs at most as many.
            progress: show a progress bar.

        Raises:
            ValueError: there are fewer GPUs, or the batch cannot be shared evenly; data and configuration do not fit.
        """
        num_gpus = torch.cuda.device_count()
        if checked("num_processes", int, num_processes) < 1 or (num_gpus and num_processes > num_gpus):
            most = f"at most {num_gpus}, one for each GPU" if num_gpus else "at least 1"
            raise ValueError(f"num_processes is {num_processes}, but must be {most}.")
        super().__init__(run, progress)
        self.num_processes, self.result_step = num_processes, 0
        with run.leaving_nothing():
            self.dataset = open_training_images(self.config)
            check_batch_size(self.dataset, self.config.batch_size, num_processes * self.config.accumulate)
            self.device = usable_device()
            self.dtype = resolve_precision(self.config.precision, self.device)
            with torch.device("meta"):  # shapes only
                quantizer = VisualTokenizer.from_config(self.config).quantizer
            self.loss_weights = loss_weights(self.config, quantizer)
            self.counts = [torch.zeros(size, dtype=torch.int64) for size in quantizer.codebook_sizes]
            self._result: tuple[int, VisualTokenizer] | None = None  # and the step that it was loaded at
            self._newest: list[tuple[int, int]] = []  # the checkpoint that was looked at last
            self._take_checkpoint()
            self.step = self.result_step

    @property
    def result(self) -> VisualTokenizer:
        """The tokenizer as of the last checkpoint, or as the training begins."""
        if self._result is None or self._result[0] != self.result_step:
            with torch.random.fork_rng():
                saved = VisualTokenizer.load(self.run.path) if self.result_step else build_tokenizer(self.config)
            self._result = self.result_step, saved.to(self.device)
        return self._result[1]

    def _train(self) -> Iterator[Report]:
        self._take_checkpoint()
        self.step = self.result_step
        if self.step >= self.config.steps:
            return
        bar = progress_bar(
            total=self.config.steps, initial=self.step, desc=self.config.run_name, disable=not self.progress
        )
        with bar, tempfile.TemporaryDirectory() as folder, open(Path(folder) / "output.txt", "w+b") as output:
            config = Path(folder) / "config.json"
            config.write_text(self.config.to_json(), encoding="utf-8")
            stop_file = Path(folder) / "stop"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(self.num_processes), "-m", "vistok.training"]
            command += ["--config", str(config), "--run-dir", str(self.run.path), "--stop-file", str(stop_file)]
            environment = os.environ | {"PYTHONIOENCODING": "utf-8"}  # whatever this process writes in
            with deferred_interrupt(self.stop):  # else processes could begin that nobody ends
                process = subprocess.Popen(
                    command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
                )
            try:
                for report in self._reports(process, stop_file):
                    self.step = report.step
                    bar.update(self.step - bar.n)
                    yield report
            finally:  # the processes of an abandoned loop save and end too
                asked = self._stop_asked or process.poll() is None
                stop_file.touch()
                _wait(process)
                reported = self.step
                self._take_checkpoint()
                self.step = self.result_step
                # Once all is saved nothing is lost where one process closes the connection to another that is ending too.
                asked = asked or self.step >= self.config.steps
                if process.returncode and not (asked and 0 < reported <= self.step):
                    output.seek(0)
                    reason = _reason(output.read().decode(errors="replace"))
                    raise RuntimeError(f"Of {self.num_processes} processes one failed: {reason}")

    def _reports(self, process: subprocess.Popen, stop_file: Path) -> Iterator[Report]:
        """Follow the log until the processes end; of the lines that are there only those to come are taken."""
        file, alive = self.run.path / "log.jsonl", True
        number, place = _inode_and_size(file)
        while alive:
            alive = process.poll() is None  # looked up first: what is logged before the end is read after it
            time.sleep(LOOK_SECONDS if alive else 0)
            if self._stop_asked:
                stop_file.touch()
            self._take_checkpoint()
            if not file.is_file():
                continue
            if _inode_and_size(file)[0] != number:  # it was cut to the checkpoint that they begin from
                number, place = _inode_and_size(file)[0], 0
            with file.open("rb") as log:
                log.seek(place)
                new = log.read()
            whole = new[: new.rfind(b"\n") + 1]
            place += len(whole)
            for line in whole.splitlines():
                report = Report(**json.loads(line))
                if report.step > self.step:
                    yield report

    def _take_checkpoint(self) -> None:
        """Take over `counts` of the newest checkpoint, where there is another one than before."""
        # By inode: where a damaged one is replaced, its name comes again.
        newest = [_inode_and_size(file) for file in self.run.checkpoints.files()[-1:]]
        if newest == self._newest:
            return
        with contextlib.suppress(FileNotFoundError):  # replaced meanwhile: there is a newer one at the next look
            state, file = self.run.checkpoints.load(mapped=True)
            check_entries(state, {"counts", "step"}, file)
            self.counts = [of_codes.clone() for of_codes in state["counts"]]  # a mapped file need not stay for them
            self.result_step, self._newest = state["step"], newest


def _wait(process: subprocess.Popen) -> None:
    """Wait until the processes have ended that were asked to; a second Ctrl-C ends them at once."""
    try:
        process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise


def _reason(output: str) -> str:
    """Return the sentence that a process ended with, or else the last lines of what they printed."""
    sentence = re.search(r"python -m vistok\.training: (.*)", output)
    return sentence[1] if sentence else "\n" + "\n".join(output.splitlines()[-SHOWN_LINES:])


def _inode_and_size(file: Path) -> tuple[int, int]:
    """Return what tells a replaced file from the one before, and how long it is; zeros where there is none."""
    if not file.is_file():
        return 0, 0
    status = file.stat()
    return status.st_ino, status.st_size
