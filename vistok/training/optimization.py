"""Optimisers, learning rates, the decay of the weights' average and the scale of losses, as the configuration says."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.networks.discriminators import EqualizedConv2d, EqualizedLinear
from vistok.quantizers import Quantizer, SimVQQuantizer

KERNELS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, EqualizedConv2d, EqualizedLinear)
LEAST_SCALE = 1e-4  # of a loss, as in fairseq: a gradient that overflows below it is not one that is only large


def build_optimizer(config: TrainConfig, module: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Return the configuration's optimiser for what of a module is trained; fused, where the device has that."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    options = {"lr": lr, "betas": (config.beta1, config.beta2), "fused": trained[0].device.type in ("cpu", "cuda")}
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, **options)
    groups = [{"params": trained}]
    if config.weight_decay_on == "kernels":
        decayed = {id(kernel) for kernel in kernels(module)}
        groups = [{"params": [p for p in trained if id(p) in decayed]}]
        groups += [{"params": [p for p in trained if id(p) not in decayed], "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], weight_decay=config.weight_decay, **options
    )


def kernels(module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a module's linear layers and convolutions, a codebook's aside (SimVQ's is a linear layer's).

    What is left are norms, biases, positions and other embeddings, and codebooks: decay would draw these to zero to no
    purpose. The same are left out by 1d-tokenizer (`utils/train_utils.py`), by their names, and by minGPT, by their modules.
    """
    codebooks = [part.projection for part in module.modules() if isinstance(part, SimVQQuantizer)]
    return [part.weight for part in module.modules() if isinstance(part, KERNELS) and part not in codebooks]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the step that comes."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def lr_factor(config: TrainConfig, step: int) -> float:
    """Return what the learning rate is multiplied by: a linear rise over `warmup_steps`, then the schedule.

    Args:
        config: its `lr_schedule` is "constant"; or "cosine" or "linear", from `lr` to `min_lr` at the end of the run;
            another side's learning rate falls in the same proportion.
        step: steps taken before this one.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return 1.0
    progress = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
    left = 1 - progress if config.lr_schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    floor = config.min_lr / config.lr
    return floor + (1 - floor) * left


def average_decay(config: TrainConfig, updates: int) -> float:
    """Return the decay of the weights' moving average at its next update; the first one copies the weights, whatever it is.

    Without a warm-up the average still holds the weights of the first steps after 1 / (1 - ema_decay) updates. "tensorflow":
    at most (1 + n) / (10 + n), as in tf.train.ExponentialMovingAverage and, unless `use_ema_warmup` is set, in the EMAModel
    of diffusers, MaskBit and 1d-tokenizer. "power": at most 1 - (1 + n / inv_gamma)^-power, theirs with `use_ema_warmup`,
    k-diffusion's and ema-pytorch's; with 1 and 2/3 it reaches 0.999 after 31,600 updates, with 1 and 3/4 after 10,000.

    Deviation: n is 0 at the update that copies, as in diffusers; visual-tokenizer-pytorch, which calls the two
    "tensorflow-like" and "crowsonkb", begins at the random weights with n = 1.

    Args:
        config: its `ema_decay` is not None.
        updates: n, updates of the average before this one.
    """
    rising = {
        None: 1.0,
        "tensorflow": (1 + updates) / (10 + updates),
        "power": 1 - (1 + updates / config.ema_inv_gamma) ** -config.ema_power,
    }
    return min(config.ema_decay, rising[config.ema_warmup])


class LossScale:
    """Keeps gradients in float16's range (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2), by `torch.amp.GradScaler`.

    What goes backward is multiplied by the scale, and gradients are divided by it before they are clipped. A step whose
    gradients overflowed all the same leaves everything as it was, and halves the scale; after 2,000 steps that did not it
    doubles. Of other precisions the scale is 1, and nothing is done or read.

    Attributes:
        value: the scale.
        skipped: steps left out since this was last set to 0.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        """Begin at 65,536, of float16; of another dtype at 1, where it stays."""
        self._enabled, self._device = dtype == torch.float16, device.type
        self._begin()

    def _begin(self) -> None:
        self._scaler = torch.amp.GradScaler(self._device, enabled=self._enabled)
        self.value, self.skipped = self._scaler.get_scale(), 0
        self._before: tuple[nn.Module, dict[str, Tensor]] | None = None

    def begin(self, module: nn.Module) -> None:
        """Keep what the passes of the coming step move in a module by themselves, so that `step` can put it back.

        That is batch norm's statistics, an EMA codebook's sums, counts of steps, and codes that start or revive.
        """
        if self._enabled:
            moved = _moved_by_passes(module)
            state = {name: value.clone() for name, value in module.state_dict().items() if name in moved}
            self._before = module, state

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss, times the scale."""
        self._scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float | None) -> bool:
        """Take an optimiser's step, and leave no gradients; return False where they overflowed, so that it was left out.

        Args:
            optimizer: of the parameters.
            parameters: whose gradients `backward` added.
            clip: largest norm of all gradients together; None: any.

        Where it is left out, what passes have moved since `begin` is as it was then.

        Raises:
            FloatingPointError: gradients overflow at every scale.
        """
        self._scaler.unscale_(optimizer)
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        self._scaler.step(optimizer)
        optimizer.zero_grad(set_to_none=True)
        if not self._enabled:
            return True
        self._scaler.update()
        before, self.value = self.value, self._scaler.get_scale()  # a GPU is waited for, once a step
        taken = self.value >= before
        self.skipped += not taken
        if self._before is not None and not taken:
            module, state = self._before
            module.load_state_dict(state, strict=False)
        self._before = None
        if self.value < LEAST_SCALE:
            raise FloatingPointError(
                f"Gradients overflow float16 even with the loss times {before:.2g}: they are not finite, whatever its scale. "
                "A lower lr, gradient_clip or precision='bfloat16' usually helps."
            )
        return taken

    def state_dict(self) -> dict[str, Any]:
        """Return all that a checkpoint needs."""
        return {"scaler": self._scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Take over what `state_dict` returned, also amid a step that failed; None: of a run that had no scale yet."""
        self._begin()
        if state and self._enabled:
            self._scaler.load_state_dict(state["scaler"])
            self.value, self.skipped = self._scaler.get_scale(), state["skipped"]


def _moved_by_passes(module: nn.Module) -> set[str]:
    """Return the names of what `forward` may move in a module while training: its buffers, and a quantizer's codes."""
    names = {name for name, _ in module.named_buffers()}
    for where, part in module.named_modules():
        if isinstance(part, Quantizer):
            names |= {name for name, _ in part.named_parameters(prefix=where)}
    return names
