"""One training loop, adversarial or not: an iterator that trains between two reports, so that a notebook draws,
interrupts and goes on.

The loop runs on Hugging Face Accelerate; one process or many is the launcher's business. What a step computes is fixed by
the configuration alone: batch k of the data is a function of (seed, k), whatever was interrupted before it.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from vistok.adversary import Adversary
from vistok.config import TrainConfig
from vistok.data import check_batch_size, open_dataset, to_float, train_batches
from vistok.metrics import CodebookUsage
from vistok.networks.blocks import recompute_activations
from vistok.objective import Objective
from vistok.optimization import build_optimizer, lr_factor
from vistok.pretrained import load_pretrained
from vistok.runs import Report, Run
from vistok.tokenizer import TokenizerOutput, VisualTokenizer


class Trainer:
    """Trains the tokenizer of a run; iterate over it.

    A run that was interrupted goes on from its last checkpoint; a finished one yields nothing. Leaving the loop early, by
    `break`, `stop()` or Ctrl-C, saves a checkpoint after the step under way; iterating again goes on.

    Attributes:
        run, config: what is trained.
        tokenizer: the model, on `device`.
        adversary: the discriminator's side, or None.
        step: optimiser steps taken.
        counts: tokens of each code over the steps of the last report, int64 [K], one a level of the quantizer; of this
            process, on `device`; zero before the first report.
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
        self.dataset = open_dataset(
            self.config.dataset,
            "train",
            self.config.image_size,
            data_root=self.config.data_root,
            crop=self.config.crop,
            test_fraction=self.config.test_fraction,
            on_bad_image=self.config.on_bad_image,
        )
        # Precision is the configuration's, whatever `accelerate config` says of mixed precision on this machine.
        self.accelerator = Accelerator(mixed_precision="no", log_with=self.config.log_with, project_dir=str(run.path))
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
        if self.config.init_from is not None and not run.checkpoints():
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
        optimizer = build_optimizer(self.config, parameters, self.config.lr)
        self._compile_settings()
        model = torch.compile(self.tokenizer) if self.config.compile else self.tokenizer
        self._model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.adversary = Adversary(self.config, self.accelerator, self.dtype) if self.config.discriminator else None
        self._average = None
        if self.config.ema_decay is not None:
            self._average = AveragedModel(self.tokenizer, multi_avg_fn=get_ema_multi_avg_fn(self.config.ema_decay))
        self._usage = [CodebookUsage(size).to(self.device) for size in self.tokenizer.quantizer.codebook_sizes]
        self.counts = [usage.counts.clone() for usage in self._usage]
        self._window: list[dict[str, Tensor]] = []  # losses of the steps since the last report, still on the device
        self.step = self._saved_step = 0
        self._stop_asked = False
        self._resume()

    @property
    def result(self) -> VisualTokenizer:
        """The tokenizer that is saved and measured: the moving average of the weights where the configuration has one."""
        return self.tokenizer if self._average is None else self._average.module

    def stop(self) -> None:
        """Ask the loop to end after the step under way, saved; from any thread. Iterating again goes on.

        A loop over several processes ends where each of them is asked, as Ctrl-C asks them all.
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
        if self.step >= self.config.steps:
            return
        self._begin()
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
            pin_memory=self.device.type == "cuda",
        )
        bar = tqdm(
            total=self.config.steps,
            initial=self.step,
            unit="step",
            desc=self.run.config.run_name,
            mininterval=0.5,
            disable=not (self.progress and self.accelerator.is_main_process),
        )
        clock, data_seconds, since = time.perf_counter(), 0.0, self.step
        with bar, self._save_on_exit(), deferred_interrupt(self.stop):
            while self.step < self.config.steps and not self._stop_asked:
                waiting = time.perf_counter()
                images = to_float(next(batches).to(self.device, non_blocking=True))  # [B, 3, H, W] in [-1, 1]
                data_seconds += time.perf_counter() - waiting
                self._window.append(self.train_step(images))
                self.step += 1
                bar.update()
                if self.device.type == "cpu":  # elsewhere it would wait for the device at every step
                    self._check_finite()
                last = self.step == self.config.steps
                if self.step % self.config.report_every == 0 or last:
                    seconds = time.perf_counter() - clock
                    report = self._report(self.step - since, seconds, data_seconds)
                    bar.set_postfix_str(f"loss {report.losses['total']:.4f}, usage {report.usage:.1%}", refresh=False)
                    if last:
                        self.save()
                    yield report
                    clock, data_seconds, since = time.perf_counter(), 0.0, self.step
                if self.step % self.config.checkpoint_every == 0 and not last:
                    self.save()
        if self.step < self.config.steps and threading.current_thread() is threading.main_thread():
            tqdm.write(self.interruption)  # in another thread its owner says so, where the reader looks

    def train_step(self, images: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step of the tokenizer and, where there is one, of the discriminator.

        Args:
            images: float32 [B, 3, H, W] in [-1, 1], on `device`.

        Returns:
            unweighted losses of the whole batch with their weighted sum as "total", detached and still on the device.
        """
        self._model.train()
        if self.config.train_parts == "decoder":
            self.tokenizer.encoder.eval()
            self.tokenizer.quantizer.eval()  # a codebook that learns inside `forward` stays as well
        self._set_lr()
        parts = images.chunk(self.config.accumulate)
        losses = [self._backward(part, 1 / len(parts), last=part is parts[-1]) for part in parts]
        if self.config.gradient_clip is not None:
            self.accelerator.clip_grad_norm_(self._model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update_parameters(self.tokenizer)
        if self._discriminator_learns:
            self.adversary.step()
        return {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}

    def _backward(self, images: Tensor, share: float, last: bool) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch, `share` of it, and return its losses, detached."""
        wait = [] if last else [self._model]  # over several processes gradients are summed once
        with self.accelerator.no_sync(*wait) if wait else contextlib.nullcontext():
            losses, output = self.objective(self._model, images)
            total = self.objective.total(losses)
            if self.adversary and self.step >= self.config.adversarial_start:
                losses["adversarial"], weight = self.adversary.tokenizer_losses(
                    output.reconstruction, self.objective.image_terms(losses), self.tokenizer.decoder.last_layer
                )
                total = total + weight * losses["adversarial"]
                losses["adversarial_weight"] = torch.as_tensor(weight, device=self.device, dtype=torch.float32)
            losses["total"] = total
            self.accelerator.backward(total * share)
            losses = {name: loss.detach() for name, loss in losses.items()}
            if self._discriminator_learns:
                losses |= self.adversary.backward(images, output.reconstruction, self.step, share)
        self._count(output)
        return losses

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
        if self.accelerator.is_main_process:
            self.result.save(self.run.tokenizer_dir)
            state = {
                "step": self.step,
                "tokenizer": self.tokenizer.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "adversary": self.adversary.state_dict() if self.adversary else None,
                "average": self._average.state_dict() if self._average else None,
                "usage": [usage.state_dict() for usage in self._usage],
                "window": self._window,
                "rng": torch.get_rng_state(),
            }
            self.run.save_checkpoint(state, self.step)
        self._saved_step = self.step
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        for usage in self._usage:
            usage.persistent(True)
        state = self.run.load_checkpoint()
        if state is None:
            return
        self.tokenizer.load_weights(state["tokenizer"], source=self.run.checkpoints()[-1])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        if self._average:
            self._average.load_state_dict(state["average"])
        for usage, saved in zip(self._usage, state["usage"], strict=True):
            usage.load_state_dict(saved)
        self._window = [{k: v.to(self.device) for k, v in losses.items()} for losses in state["window"]]
        torch.set_rng_state(state["rng"])
        self.step = self._saved_step = state["step"]

    def _begin(self) -> None:
        """Write where the run is started, and drop what the log holds beyond the checkpoint."""
        if self.accelerator.is_main_process:
            threads = self.run.provenance.get("threads")
            if threads not in (None, torch.get_num_threads()):
                tqdm.write(
                    f"This run began with {threads} threads and goes on with {torch.get_num_threads()}: sums round differently."
                )
            self.run.write_config(
                self.device,
                precision=str(self.dtype).removeprefix("torch."),
                num_processes=self.accelerator.num_processes,
                data=self.dataset.record(),
            )
            self.run.truncate_log(self.step)
        if self.config.log_with:
            self.accelerator.init_trackers("vistok", config=_flat(self.config))

    def _count(self, output: TokenizerOutput) -> None:
        levels = output.indices if isinstance(output.indices, tuple) else (output.indices,)
        for usage, indices in zip(self._usage, levels, strict=True):
            usage.update(indices)

    def _report(self, steps: int, seconds: float, data_seconds: float) -> Report:
        self._check_finite()
        # Each over the steps that have it: the adversarial ones begin amid a run.
        names = list(dict.fromkeys(name for losses in self._window for name in losses))
        means = [torch.stack([losses[name] for losses in self._window if name in losses]).mean() for name in names]
        means = self.accelerator.reduce(torch.stack(means), reduction="mean").tolist()
        self._window = []
        usages = [usage.compute() for usage in self._usage]
        self.counts = [usage.counts.clone() for usage in self._usage]
        for usage in self._usage:
            usage.reset()
        report = Report(
            step=self.step,
            losses=dict(zip(names, means, strict=True)),
            usage=sum(float(u["usage"]) for u in usages) / len(usages),
            perplexity=sum(float(u["perplexity"]) for u in usages) / len(usages),
            images_per_second=steps * self.config.batch_size / seconds,
            data_share=data_seconds / seconds,
        )
        if self.accelerator.is_main_process:
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
        files = self.run.checkpoints()
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
def deferred_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop, for instance `Trainer.stop`; a second one interrupts at once.

    Only the main thread receives signals; elsewhere the owner of the thread stops the loop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: FrameType | None) -> None:
        stop()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Return the settings as experiment trackers take them: numbers, texts and truth values."""
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in config.to_dict().items()}
