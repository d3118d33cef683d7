"""The tokenizer's side of the training loop, adversarial or not: its data, its model, its step.

Batch k of the data is a function of (seed, k), whatever was interrupted before it, and however many processes share it.

    python -m vistok.training --row celeba64/vq-d8 --scale quick
    accelerate launch --multi_gpu -m vistok.training --config runs/<run>/config.json
"""

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vistok.data import check_batch_size, check_same_images, open_training_images, to_float, train_batches
from vistok.losses import TokenizerLoss
from vistok.networks.blocks import recompute_activations
from vistok.quantizers.usage import CodebookUsage
from vistok.system.devices import in_precision
from vistok.system.processes import is_distributed, share_model
from vistok.system.threads import say_if_one_is_faster
from vistok.system.weights import is_saved, state_sha256
from vistok.tokenizer import VisualTokenizer
from vistok.training.adversary import Adversary
from vistok.training.building import LOOKS_THROUGH, build_perceptual, build_tokenizer, load_proxies
from vistok.training.loop import TrainingLoop
from vistok.training.optimization import LossScale, average_decay, build_optimizer, lr_factor, set_lr

TRIAL_IMAGES = 32  # at most, of a step that only its speed is wanted of


class Trainer(TrainingLoop):
    """Trains the tokenizer of a run; iterate over it, as `TrainingLoop` says.

    Attributes:
        tokenizer: the model, on `device`.
        loss: what it learns by.
        scale: of that loss, in float16.
        adversary: the discriminator's side, or None.
        counts: tokens of each code over the steps of the last report, int64 [K], one a level of the quantizer; of all
            processes; zero before the first report.
    """

    STATE = frozenset({"tokenizer", "optimizer", "adversary", "average", "usage", "counts"})

    def set_up(self) -> None:
        """Open the images and build the tokenizer and, where there is one, the discriminator."""
        config = self.config
        self.dataset = open_training_images(config)
        check_batch_size(self.dataset, config.batch_size, self.accelerator.num_processes * config.accumulate)
        proxies = load_proxies(config)
        self.tokenizer = build_tokenizer(config, fresh=not self.run.checkpoints.files(), proxies=proxies)
        perceptual = build_perceptual(config, proxies)
        self.loss = TokenizerLoss(config, self.tokenizer.quantizer, perceptual, self.dtype).to(self.device)
        self.tokenizer.train_only(config)
        recompute_activations(self.tokenizer, config.checkpoint_activations)
        if self.device.type != "mps":  # channels_last: convolutions without reordering, on CPUs and GPUs
            self.tokenizer.to(memory_format=torch.channels_last)
        self.optimizer = build_optimizer(config, self.tokenizer.to(self.device), config.lr)
        self.scale = LossScale(self.dtype, self.device)
        if config.compile and config.adversarial_adaptive:
            # The adaptive weight goes back through the decoder's last layer once more, so its buffers must last.
            torch._functorch.config.donated_buffer = False
        model = torch.compile(self.tokenizer) if config.compile else self.tokenizer
        self._model = share_model(model, self.device)
        self.adversary = Adversary(config, self.device, self.dtype) if config.discriminator else None
        self._average = None
        if config.ema_decay is not None:
            self._average = AveragedModel(self.tokenizer)
        self._usage = CodebookUsage(self.tokenizer.quantizer.codebook_sizes, device=self.device)
        self.counts = self._usage.summed().counts
        self._warn_of_parts()

    def _warn_of_parts(self) -> None:
        """Warn of what is trained otherwise where a batch comes in several parts."""
        config, weights = self.config, self.loss.weights
        if config.accumulate == 1 or not self.accelerator.is_main_process:
            return
        quantizer = self.tokenizer.quantizer.of_batch if config.train_parts == "all" else ()
        seen = [f"the {name} loss" if name in weights else name for name in quantizer if weights.get(name, 1)]
        if self.adversary:
            seen += self.adversary.discriminator.of_batch
            seen += ["the adaptive weight"] if config.adversarial_adaptive else []
            seen += ["LeCam's mean logits"] if config.lecam_weight and config.lecam_logits == "mean" else []
        if seen:
            warnings.warn(
                f"accumulate is {config.accumulate}: {', '.join(seen)} will see {config.batch_size // config.accumulate} "
                f"images at a time, not the batch of {config.batch_size}, which changes what is trained. The rest is as of "
                "the whole batch.",
                stacklevel=4,
            )

    @property
    def result(self) -> VisualTokenizer:
        """The tokenizer that is saved and measured: the moving average of the weights where the configuration has one."""
        return self.tokenizer if self._average is None else self._average.module

    @property
    def result_step(self) -> int:
        """Steps that `result` was trained for."""
        return self.step

    @property
    def loss_weights(self) -> dict[str, float]:
        """Loss name to weight, the adversarial one aside."""
        return self.loss.weights

    def batches(self) -> Iterator[Tensor]:
        """Yield the images of the steps from `step` on, float32 [B, 3, H, W] in [-1, 1], on `device`."""
        for images in train_batches(
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
        ):
            yield to_float(images.to(self.device, non_blocking=True))

    def take_step(self, images: Tensor) -> dict[str, Tensor]:
        """Take one optimiser step of the tokenizer and, where there is one, of the discriminator.

        Args:
            images: float32 [B, 3, H, W] in [-1, 1], on `device`.

        Returns:
            unweighted losses of the whole batch with their weighted sum as "total", detached and still on the device.
        """
        config = self.config
        self._model.train()
        if config.train_parts == "decoder":
            self.tokenizer.encoder.eval()
            self.tokenizer.quantizer.eval()  # a codebook that learns inside `forward` stays as well
        factor = lr_factor(config, self.step)
        set_lr(self.optimizer, config.lr * factor)
        self.scale.begin(self.tokenizer)
        if self._discriminator_learns:
            self.adversary.scale.begin(self.adversary.discriminator)
        parts = images.chunk(config.accumulate)
        losses = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            self.tokenizer.quantizer.set_part(first=number == 0, last=last)
            losses.append(self._backward(part, 1 / len(parts), last))
        taken = self.scale.step(self.optimizer, self._model.parameters(), config.gradient_clip)
        if taken and self._average is not None:
            decay = average_decay(config, int(self._average.n_averaged))
            self._average.multi_avg_fn = get_ema_multi_avg_fn(decay)
            self._average.update_parameters(self.tokenizer)
        if self._discriminator_learns:
            set_lr(self.adversary.optimizer, (config.discriminator_lr or config.lr) * factor)
            self.adversary.step()
        return {name: torch.stack([part[name] for part in losses]).mean() for name in losses[0]}

    def _backward(self, images: Tensor, share: float, last: bool) -> dict[str, Tensor]:
        """Add the gradients of a part of a batch, `share` of it, and return its losses, detached."""
        adversary = self.adversary if self.step >= self.config.adversarial_start else None
        waits = is_distributed() and not last  # over several processes gradients are averaged once
        with self._model.no_sync() if waits else contextlib.nullcontext():
            num_tokens = self.tokenizer.encoder.draw_num_tokens()
            with in_precision(self.dtype, self.device):
                output = self._model(images, num_tokens, self.loss.of_proxies)
            total, losses = self.loss(
                images,
                output.reconstruction,
                output.losses,
                adversary.discriminator if adversary else None,
                self.tokenizer.decoder.last_layer,
                self.scale.value,
            )
            self.scale.backward(total * share)
            losses = {name: loss.detach() for name, loss in (losses | {"total": total}).items()}
            if self._discriminator_learns:
                losses |= self.adversary.backward(images, output.reconstruction, self.step, share)
        self._usage.update(output.levels)
        return losses

    @property
    def _discriminator_learns(self) -> bool:
        return self.adversary is not None and self.step >= self.config.discriminator_start

    def measured(self) -> dict[str, float]:
        """Return usage and perplexity of the steps since the last call, where there is a codebook, and the skipped ones."""
        usage = self._usage.summed()
        self.counts = usage.counts
        self._usage.reset()
        means, skipped = usage.means(), 0
        for scale in [self.scale] + ([self.adversary.scale] if self.adversary else []):
            skipped, scale.skipped = skipped + scale.skipped, 0
        found = {name: means[name] for name in ("usage", "perplexity") if means}
        return found | ({"skipped_steps": skipped} if skipped else {})

    @functools.cached_property
    def _looks_through(self) -> dict[str, str]:
        """Digest of each frozen network that losses look through, by the name of the loss."""
        return {name: state_sha256(network.state_dict()) for name, network in self.loss.perceptual.items()}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the tokenizer, its optimiser, its average, the adversary and the counts."""
        return {
            "tokenizer": self.tokenizer.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": self.adversary.state_dict() if self.adversary else None,
            "average": self._average.state_dict() if self._average else None,
            "usage": self._usage.summed().state(),
            "counts": self.counts,
            "scale": self.scale.state_dict(),
            "looks_through": self._looks_through,
        }

    def load_state(self, state: dict[str, Any], file: Path) -> None:
        """Take over what `state` returned."""
        self.optimizer.zero_grad(set_to_none=True)  # a step that failed may have left some
        for name, digest in state.get("looks_through", self._looks_through).items():  # a run from before: not known
            if digest != self._looks_through[name]:
                option = LOOKS_THROUGH[name]
                raise ValueError(
                    f"{option} is {getattr(self.config, option)!r}, but its weights are others now than those that "
                    f"{self.run.path} was trained with so far. Put those back, or begin another run; with init_from it starts "
                    "from this one's."
                )
        self.tokenizer.load_weights(state["tokenizer"], source=file)
        self.optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.load_state_dict(state["average"])
        if self.adversary:
            self.adversary.load_state_dict(state["adversary"])
        self.scale.load_state_dict(state.get("scale"))  # of a run from before there was one: none
        self.counts = state["counts"]
        self._usage.reset()
        if self.accelerator.is_main_process:  # it is the sum over the processes
            self._usage.load_state(state["usage"])

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the tokenizer and of the discriminator, by name."""
        judging = self.adversary.discriminator.state_dict() if self.adversary else {}
        return self.tokenizer.state_dict() | {f"discriminator.{name}": value for name, value in judging.items()}

    def save_result(self) -> None:
        """Write the tokenizer."""
        self.result.save(self.run.tokenizer_dir)

    def result_is_there(self) -> bool:
        """Return whether the tokenizer lies in the run."""
        return is_saved(self.run.tokenizer_dir)

    def check_same_data(self, recorded: dict[str, Any]) -> None:
        """Raise ValueError where the run was trained on other images so far."""
        check_same_images(recorded, self.dataset)

    def begin(self) -> None:
        """Begin as every loop does, and say where one thread would train faster: nothing changes by itself."""
        super().begin()
        if self.accelerator.num_processes == 1 and self.device.type == "cpu":
            trial = copy.deepcopy(self.tokenizer).train()
            trial.quantizer.eval()  # a start by k-means may need more tokens than a few images have
            images = torch.zeros(min(self.config.batch_size, TRIAL_IMAGES), 3, *[self.config.image_size] * 2)

            def step() -> None:
                with in_precision(self.dtype, self.device):
                    output = trial(images, proxies=self.loss.of_proxies)
                total, _ = self.loss(images, output.reconstruction, output.losses)
                total.backward()

            with torch.random.fork_rng(devices=[]):  # a quantizer may draw
                say_if_one_is_faster(step, self.config.steps - self.step, len(images), "images")
