"""One training loop, adversarial or not: an iterator that trains between two reports, so that a notebook draws,
interrupts and goes on.

Hugging Face Accelerate says where it runs; one process or many is the launcher's business. What a step computes is fixed by
the configuration alone: batch k of the data is a function of (seed, k), whatever was interrupted before it, and however many
processes share it.

    python -m vistok.training --row celeba64/vq-d8 --scale quick
    accelerate launch --multi_gpu -m vistok.training --config runs/<run>/config.json
"""

import contextlib
import copy
import hashlib
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vistok.config import TrainConfig
from vistok.data import called, check_batch_size, open_dataset, to_float, train_batches
from vistok.networks.blocks import recompute_activations
from vistok.pretrained import load_pretrained
from vistok.runs import Report, Run
from vistok.system.checkpoints import step_of
from vistok.system.devices import check_default_dtype, computing, get_rng_state, set_rng_state
from vistok.system.files import say
from vistok.system.processes import (
    is_distributed,
    make_accelerator,
    max_over_processes,
    mean_over_processes,
    of_all_processes,
    share_model,
)
from vistok.system.progress import progress_bar
from vistok.system.threads import slower_than_one
from vistok.tokenizer import TokenizerOutput, VisualTokenizer
from vistok.training.adversary import Adversary
from vistok.training.objective import Objective
from vistok.training.optimization import build_optimizer, lr_factor
from vistok.usage import CodebookUsage

CHECKPOINT_KEYS = {
    *("step", "seconds", "tokenizer", "optimizer", "adversary", "average", "usage", "counts"),
    *("window", "rng", "device_rng"),
}
STOP_EVERY, STOP_SECONDS = 10, 5.0  # the most between two steps at which several processes agree on stopping
TRIAL_IMAGES = 32  # at most, of a step that only its speed is wanted of
SAME_SIGNAL_SECONDS = 1.0  # a launcher passes on the Ctrl-C that the terminal has sent to all of them


class Trainer:
    """Trains the tokenizer of a run; iterate over it.

    A run that was interrupted goes on from its last checkpoint; a finished one yields nothing. Leaving the loop early, by
    `break`, `stop()` or Ctrl-C, saves a checkpoint after the step under way; iterating again goes on.

    Attributes:
        run, config: what is trained.
        tokenizer: the model, on `device`.
        adversary: the discriminator's side, or None.
        step: optimiser steps taken.
        counts: tokens of each code over the steps of the last report, int64 [K], one a level of the quantizer; of all
            processes; zero before the first report.
    """

    def __init__(self, run: Run, *, progress: bool = True) -> None:
        """Open the data, build the model, and take over the last checkpoint.

        Args:
            run: the run.
            progress: show a progress bar with rate and remaining time.

        Raises:
            ValueError: data and configuration do not fit; a setting would have no effect; the checkpoint is of another
                architecture. Before any training.
        """
        self.run, self.config, self.progress = run, run.config, progress
        with run.leaving_nothing():
            self._set_up()

    def _set_up(self) -> None:
        """Do all that can be refused, before anything is written."""
        check_default_dtype()
        self.dataset = open_dataset(
            self.config.dataset,
            "train",
            self.config.image_size,
            data_root=self.config.data_root,
            crop=self.config.crop,
            test_fraction=self.config.test_fraction,
            on_bad_image=self.config.on_bad_image,
        )
        self.accelerator = make_accelerator(log_with=self.config.log_with, project_dir=str(self.run.path))
        if self.config.log_with and not self.accelerator.log_with:  # Accelerate only drops it
            raise ValueError(
                f"log_with is {self.config.log_with!r}, but that package is not installed: pip install "
                f"{self.config.log_with}, or leave log_with out."
            )
        check_batch_size(self.dataset, self.config.batch_size, self.accelerator.num_processes * self.config.accumulate)
        self.device = self.accelerator.device
        self.dtype = resolve_precision(self.config.precision, self.device)

        set_seed(self.config.seed)
        self.tokenizer = VisualTokenizer.from_config(self.config)
        if self.config.init_from is not None and not self.run.checkpoints.files():
            start = load_pretrained(self.config.init_from)
            self.tokenizer.load_weights(start.state_dict(), source=self.config.init_from)
        self.objective = Objective(self.config, self.tokenizer, self.device, self.dtype)
        if self.config.train_parts == "decoder":
            self.tokenizer.encoder.requires_grad_(False)
            self.tokenizer.quantizer.requires_grad_(False)
        recompute_activations(self.tokenizer, self.config.checkpoint_activations)
        if self.device.type != "mps":  # channels_last: convolutions without reordering, on CPUs and GPUs
            self.tokenizer.to(memory_format=torch.channels_last)
        parameters = [p for p in self.tokenizer.to(self.device).parameters() if p.requires_grad]
        self.optimizer = build_optimizer(self.config, parameters, self.config.lr)
        self._compile_settings()
        model = torch.compile(self.tokenizer) if self.config.compile else self.tokenizer
        self._model = share_model(model, self.device)
        self.adversary = Adversary(self.config, self.device, self.dtype) if self.config.discriminator else None
        self._average = None
        if self.config.ema_decay is not None:
            self._average = AveragedModel(self.tokenizer, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay))
        self._usage = CodebookUsage(self.tokenizer.quantizer.codebook_sizes, device=self.device)
        self.counts = self._usage.summed().counts
        self._window: list[dict[str, Tensor]] = []  # losses of the steps since the last report, still on the device
        self.step = self._saved_step = 0
        self._seconds = 0.0  # of training before `_since`
        self._since: float | None = None  # when the loop began; None: it does not run
        self._checkpoint_seconds = 0.0  # since the last report
        self._stop_asked = False
        self._agree_at, self._agreed = 0, (0, 0.0)  # the next such step; the last one, and when that was
        self._failed = False  # amid a step: then only the checkpoint is in a known state
        self._resume()
        if self.config.accumulate > 1 and self.accelerator.is_main_process and (seen := self._seen_by_part()):
            size = self.config.batch_size // self.config.accumulate
            warnings.warn(
                f"accumulate is {self.config.accumulate}: {', '.join(seen)} will see {size} images at a time, not the batch "
                f"of {self.config.batch_size}, which changes what is trained. The rest is as of the whole batch.",
                stacklevel=3,
            )

    def _seen_by_part(self) -> list[str]:
        """Return what of a training is another for a batch that comes in several parts, in words."""
        quantizer = self.tokenizer.quantizer.of_batch if self.config.train_parts == "all" else ()
        seen = [name for name in quantizer if name not in self.objective.weights or self.objective.weights[name]]
        seen = [f"the {name} loss" if name in self.objective.weights else name for name in seen]
        if self.adversary:
            seen += self.adversary.discriminator.of_batch
            seen += ["the adaptive weight"] if self.config.adversarial_adaptive else []
            seen += ["LeCam's mean logits"] if self.config.lecam_weight and self.config.lecam_logits == "mean" else []
        return seen

    @property
    def result(self) -> VisualTokenizer:
        """The tokenizer that is saved and measured: the moving average of the weights where the configuration has one."""
        return self.tokenizer if self._average is None else self._average.module

    @property
    def result_step(self) -> int:
        """Steps that `result` was trained for."""
        return self.step

    def stop(self) -> None:
        """Ask the loop to end after the step under way, saved; from any thread. Iterating again goes on.

        Several processes end together within some steps, where one of them is asked.
        """
        self._stop_asked = True

    @property
    def interruption(self) -> str:
        """What a loop that was asked to stop has left behind, as a sentence."""
        return f"Interrupted: saved at step {self.step} of {self.config.steps}; the same command goes on from there."

    def __iter__(self) -> Iterator[Report]:
        self._stop_asked = False  # here, not in the loop, which may begin later and in another thread
        return self._train()

    def _train(self) -> Iterator[Report]:
        if min(of_all_processes(-1 if self._failed else self._saved_step)) >= self.config.steps:
            self._check_same_images()  # a run of other images is not what was asked for
            return
        with self._alone():
            if self.step < self.config.steps:
                self._begin()
                try:
                    yield from self._loop()
                finally:
                    self._seconds, self._since = self._wall_seconds, None
            elif self._saved_step < self.step:  # only the last checkpoint could not be written
                self.save()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes' trainings off this run, and go on from what one has added since it was opened."""
        with self.run.alone() if self.accelerator.is_main_process else contextlib.nullcontext():
            self.accelerator.wait_for_everyone()
            files = self.run.checkpoints.files()
            if self._failed or (files and step_of(files[-1]) > self._saved_step):
                self._resume()
            self._check_same_start()
            yield

    def _check_same_start(self) -> None:
        """Raise ValueError unless all processes begin at one step with one dataset: else each would train something else."""
        data = f"{self.dataset.fingerprint} {self.dataset.content or ''}".strip()
        starts = of_all_processes((self.step, data, str(self.dtype)))
        for rank, start in enumerate(starts):
            for what, here, there in zip(("step", "data", "precision"), starts[0], start, strict=True):
                if here != there:
                    raise ValueError(
                        f"Process {rank} would begin with {what} {there}, process 0 with {here}: the run directory "
                        f"{self.run.path} and the data must be the same for all, on a disk that every machine sees."
                    )

    def _loop(self) -> Iterator[Report]:
        batches = train_batches(
            self.dataset,
            self.config.batch_size,
            seed=self.config.seed,
            start_step=self.step,
            steps=self.config.steps,
            flip=self.config.flip,
            num_workers=self.config.num_workers,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
            num_parts=self.config.accumulate,
            pin_memory=self.device.type == "cuda",
        )
        bar = self._bar()
        self._agree_at, self._agreed = self.step, (self.step, 0.0)
        self._since = clock = time.perf_counter()
        data_seconds, since = 0.0, self.step
        with bar, self._save_on_exit(), deferred_interrupt(self.stop):
            while self.step < self.config.steps and not self._stops():
                waiting = time.perf_counter()
                images = to_float(next(batches).to(self.device, non_blocking=True))  # [B, 3, H, W] in [-1, 1]
                data_seconds += time.perf_counter() - waiting
                self._failed = True  # unless the step comes to its end, its report included
                self._window.append(self.train_step(images))
                self.step += 1
                bar.update()
                if self.device.type == "cpu":  # elsewhere it would wait for the device at every step
                    self._check_finite()
                last, report = self.step == self.config.steps, None
                if self.step % self.config.report_every == 0 or last:
                    report = self._report(self.step - since, time.perf_counter() - clock, data_seconds)
                self._failed = False
                if report is not None:
                    bar.set_postfix_str(f"loss {report.losses['total']:.4f}, usage {report.usage:.1%}", refresh=False)
                    if last:
                        self.save()
                    yield report
                    clock, data_seconds, since = time.perf_counter(), 0.0, self.step
                if self.step % self.config.checkpoint_every == 0 and not last:
                    self.save()
        told = self.accelerator.is_main_process and threading.current_thread() is threading.main_thread()
        if self.step < self.config.steps and told:
            say(self.interruption)  # in another thread its owner says so, where the reader looks

    def _bar(self) -> tqdm:
        return progress_bar(
            total=self.config.steps,
            initial=self.step,
            desc=self.config.run_name,
            disable=not (self.progress and self.accelerator.is_main_process),
        )

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step of the tokenizer and, where there is one, of the discriminator.

        Args:
            images: float32 [B, 3, H, W] in [-1, 1], on `device`.

        Returns:
            unweighted losses of the whole batch with their weighted sum as "total", detached and still on the device.
        """
        # Precision is the configuration's, whatever autocast is on outside, and whatever another thread looks at.
        with computing(self.device, deterministic=self.config.deterministic):
            return self._take_step(images)

    def _take_step(self, images: Tensor) -> dict[str, Tensor]:
        self._seed_process()
        self._model.train()
        if self.config.train_parts == "decoder":
            self.tokenizer.encoder.eval()
            self.tokenizer.quantizer.eval()  # a codebook that learns inside `forward` stays as well
        self._set_lr()
        parts = images.chunk(self.config.accumulate)
        losses = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            self.tokenizer.quantizer.set_part(first=number == 0, last=last)
            losses.append(self._backward(part, 1 / len(parts), last))
        if self.config.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self._model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self.tokenizer)
        if self._discriminator_learns:
            self.adversary.step()
        return {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}

    def _backward(self, images: Tensor, share: float, last: bool) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch, `share` of it, and return its losses, detached."""
        waits = is_distributed() and not last  # over several processes gradients are averaged once
        with self._model.no_sync() if waits else contextlib.nullcontext():
            losses, output = self.objective(self._model, images)
            total = self.objective.total(losses)
            if self.adversary and self.step >= self.config.adversarial_start:
                losses["adversarial"], weight = self.adversary.tokenizer_losses(
                    output.reconstruction, self.objective.image_terms(losses), self.tokenizer.decoder.last_layer
                )
                total = total + weight * losses["adversarial"]
                losses["adversarial_weight"] = (
                    weight.detach().float()
                    if isinstance(weight, Tensor)
                    else torch.full((), weight, device=self.device)
                )
            losses["total"] = total
            (total * share).backward()
            losses = {name: loss.detach() for name, loss in losses.items()}
            if self._discriminator_learns:
                losses |= self.adversary.backward(images, output.reconstruction, self.step, share)
        self._count(output)
        return losses

    def _stops(self) -> bool:
        """Return whether to end before the next step; several processes end at the same one, else the others would wait."""
        if self.accelerator.num_processes == 1:
            return self._stop_asked
        if self.step < self._agree_at:
            return False
        since, now = self._agreed, time.perf_counter()
        seconds = (now - since[1]) / (self.step - since[0]) if since[0] < self.step else STOP_SECONDS  # not known yet
        told = torch.tensor([float(self._stop_asked), seconds], device=self.device)
        asked, seconds = max_over_processes(told).tolist()  # the same in all of them, so they agree on when, too
        every = max(1, min(STOP_EVERY, int(STOP_SECONDS / seconds)))
        self._agree_at, self._agreed = self.step // every * every + every, (self.step, now)
        return asked > 0

    def _seed_process(self) -> None:
        """Give each further process random numbers of its own, a function of the step; the first one's are the run's."""
        if rank := self.accelerator.process_index:
            digest = hashlib.sha256(f"{self.config.seed} {rank} {self.step}".encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:8]))

    @property
    def _discriminator_learns(self) -> bool:
        return self.adversary is not None and self.step >= self.config.discriminator_start

    def _set_lr(self) -> None:
        factor = lr_factor(self.config, self.step)
        sides = {self.optimizer: self.config.lr}
        if self.adversary:
            sides[self.adversary.optimizer] = self.config.discriminator_lr or self.config.lr
        for optimizer, lr in sides.items():
            for group in optimizer.param_groups:
                group["lr"] = lr * factor

    def _compile_settings(self) -> None:
        if self.config.compile and self.config.adversarial_adaptive:
            # The adaptive weight goes back through the decoder's last layer once more, so its buffers must last.
            torch._functorch.config.donated_buffer = False

    def save(self) -> None:
        """Write the tokenizer and a checkpoint, on the main process; the checkpoint last, as it says that both are whole."""
        self._check_finite()
        self._check_finite_weights()
        begun = time.perf_counter()
        window = [{k: mean_over_processes(v.clone()) for k, v in losses.items()} for losses in self._window]
        usage = self._usage.summed().state()
        if self.accelerator.is_main_process:
            state = {
                "step": self.step,
                "seconds": self._wall_seconds,
                "tokenizer": self.tokenizer.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "adversary": self.adversary.state_dict() if self.adversary else None,
                "average": self._average.state_dict() if self._average else None,
                "usage": usage,
                "counts": self.counts,
                "window": window,
                "rng": torch.get_rng_state(),
                "device_rng": {self.device.type: get_rng_state(self.device)},
            }
            with self.run.writing():
                self._write_config()
                self.result.save(self.run.tokenizer_dir)
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
        for optimizer in (self.optimizer, self.adversary.optimizer) if self.adversary else (self.optimizer,):
            optimizer.zero_grad(set_to_none=True)  # of a step that failed
        state, file = found
        if missing := CHECKPOINT_KEYS - state.keys():
            raise ValueError(
                f"The checkpoint {file} is not one of this version's: it has no {', '.join(sorted(missing))}."
            )
        self._take_result(state, file)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self._usage.reset()
        if self.accelerator.is_main_process:  # it is the sum over the processes
            self._usage.load_state(state["usage"])
        self._window = [{k: v.to(self.device) for k, v in losses.items()} for losses in state["window"]]
        torch.set_rng_state(state["rng"])
        set_rng_state(self.device, state["device_rng"].get(self.device.type))
        self._seconds = state["seconds"]
        self.step = self._saved_step = state["step"]
        self._failed = False

    def _take_result(self, state: dict[str, Any], file: Path) -> None:
        """Take over from a checkpoint what there is to see: `result` and `counts`."""
        self.tokenizer.load_weights(state["tokenizer"], source=file)
        if self._average:
            self._average.load_state_dict(state["average"])
        self.counts = [of_codes.clone() for of_codes in state["counts"]]  # a mapped file need not stay for them

    def _check_same_images(self) -> None:
        """Raise ValueError where the run was trained on other images so far."""
        data, images = self.run.provenance.get("data", {}) if self.step else {}, self.dataset
        changed = [n for n in ("fingerprint", "content") if data.get(n, getattr(images, n)) != getattr(images, n)]
        if changed:
            renamed = (
                "" if changed[0] == "fingerprint" else "their names and sizes are the same, but not what is in them; "
            )
            raise ValueError(
                f"The images of {called(self.config.dataset)} are others than those this run was trained on so far "
                f"({renamed}{data['num_images']:,} then, {len(images):,} now; {changed[0]} {data[changed[0]]}, now "
                f"{getattr(images, changed[0])}). Restore them, or begin another run; with init_from it starts from this one's "
                "weights."
            )

    def _begin(self) -> None:
        """Write where the run is started, and drop what the log holds beyond the checkpoint.

        Raises:
            ValueError: the run was trained on other data so far.
        """
        self._check_same_images()
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
            if self.accelerator.num_processes == 1 and self.device.type == "cpu":
                self._look_for_busy_neighbours()
        if self.config.log_with:
            self.accelerator.init_trackers("vistok", config=_flat(self.config))

    def _look_for_busy_neighbours(self) -> None:
        """Say where something else keeps the processor so busy that one thread would train faster than several.

        Nothing changes by itself: the number of threads changes how sums round.
        """
        trial = copy.deepcopy(self.tokenizer).train()  # so that no codebook learns from it
        images = torch.zeros(min(self.config.batch_size, TRIAL_IMAGES), 3, *[self.config.image_size] * 2)

        def step() -> None:
            losses, _ = self.objective(trial, images)
            self.objective.total(losses).backward()

        with torch.random.fork_rng(devices=[]):  # what a quantizer draws
            found = slower_than_one(step, self.config.steps - self.step)
        if found is not None:
            several, alone = (len(images) / seconds for seconds in found)
            say(
                f"Something else keeps this machine busy: {torch.get_num_threads()} threads train {several:.3g} images a "
                f"second now, one thread {alone:.3g}. While that lasts one is better: set OMP_NUM_THREADS=1 before Python "
                "starts, or torch.set_num_threads(1) in a notebook before it trains. (It changes how sums round.)",
                warning=True,
            )

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

    def _count(self, output: TokenizerOutput) -> None:
        levels = output.indices if isinstance(output.indices, tuple) else (output.indices,)
        self._usage.update(levels)

    def _report(self, steps: int, seconds: float, data_seconds: float) -> Report:
        self._check_finite()
        # Each over the steps that have it: the adversarial ones begin amid a run.
        names = list(dict.fromkeys(name for losses in self._window for name in losses))
        means = [torch.stack([losses[name] for losses in self._window if name in losses]).mean() for name in names]
        means = mean_over_processes(torch.stack(means)).tolist()
        self._window = []
        usage = self._usage.summed()
        self.counts = usage.counts
        self._usage.reset()
        usages = usage.means()
        report = Report(
            step=self.step,
            losses=dict(zip(names, means, strict=True)),
            usage=usages["usage"],
            perplexity=usages["perplexity"],
            images_per_second=steps * self.config.batch_size / seconds,
            data_share=data_seconds / seconds,
            checkpoint_share=self._checkpoint_seconds / seconds,
        )
        self._checkpoint_seconds = 0.0
        if self.accelerator.is_main_process:
            with self.run.writing():
                self.run.append_log(report)
        if self.config.log_with:
            values = {f"loss/{k}": v for k, v in report.losses.items()}
            self.accelerator.log(values | {"usage": report.usage, "perplexity": report.perplexity}, step=report.step)
        return report

    def _check_finite(self) -> None:
        """Raise FloatingPointError, naming the step and the last good checkpoint, where a loss was not finite."""
        if not self._window:
            return
        totals = torch.stack([losses["total"] + losses.get("discriminator", 0.0) for losses in self._window])
        bad = (~totals.isfinite()).nonzero()
        if len(bad):
            step = self.step - len(self._window) + 1 + int(bad[0])
            values = ", ".join(f"{k} {float(v):.4g}" for k, v in self._window[int(bad[0])].items())
            self._window = []
            raise FloatingPointError(f"The loss is not finite at step {step} ({values}); {self._way_back()}")

    def _check_finite_weights(self) -> None:
        """Raise FloatingPointError where a weight is not finite: the gradient can overflow before the loss does."""
        state = self.tokenizer.state_dict()
        if self.adversary:
            state |= {
                f"discriminator.{name}": value for name, value in self.adversary.discriminator.state_dict().items()
            }
        bad = [name for name, value in state.items() if not value.isfinite().all()]
        if bad:
            raise FloatingPointError(
                f"The weights are not finite after step {self.step} ({bad[0]}); {self._way_back()}"
            )

    def _way_back(self) -> str:
        files = self.run.checkpoints.files()
        good = f"the last good checkpoint is {files[-1]}" if files else "there is no checkpoint yet"
        return f"{good}. A lower lr usually helps."

    @contextlib.contextmanager
    def _save_on_exit(self) -> Iterator[None]:
        """Save when the loop is left early, unless by an error."""
        try:
            yield
        except GeneratorExit:  # `break` in the caller's loop
            self._end()
            raise
        self._end()

    @property
    def _wall_seconds(self) -> float:
        """Seconds of training so far, those of earlier sessions included."""
        return self._seconds + (0.0 if self._since is None else time.perf_counter() - self._since)

    def _end(self) -> None:
        if self._saved_step < self.step:
            self.save()
        if self.config.log_with:
            for tracker in self.accelerator.trackers:  # not end_training(), which ends the processes' group as well
                tracker.finish()


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of the convolutions: "auto" is bfloat16 where the hardware computes in it, float32 elsewhere.

    Emulated bfloat16 (a CPU with AVX512 but without its BF16 instructions, a GPU before Ampere) is slower than float32.
    """
    if precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return torch.bfloat16 if native else torch.float32


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
        if (
            threading.current_thread() is threading.main_thread()
        ):  # a loop left by another one is closed where it is collected
            signal.signal(number, previous)


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as experiment trackers take them: numbers, texts and truth values."""
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in config.to_dict().items()}
