"""What one training step needs, computed without running it: memory, floating-point operations, images a second on a GPU.

The step runs on fake tensors, which have shapes but no values: seconds on any machine, for models that do not fit it. What is
counted are the bytes that autograd saves and the operations of matrix products, convolutions and attention, which are exactly
those of a real step, and the most bytes of tensors alive at once, which are within a few percent: a real kernel of the mean
squared error keeps a buffer behind its scalar, and one of batch norm keeps its statistics in float32 beside bfloat16.

The step is the trainer's, by the same losses: one forward pass of the tokenizer under autocast; `TokenizerLoss`; backward; then
`DiscriminatorLoss` on the same reconstructions, and backward, with the tokenizer's gradients still there; then both optimisers.
Of a batch in several parts it is the second one, which finds the gradients of the first. What `compile` saves is not in it.
Deviations from a GPU:

- The fake tensors are a CPU's, so kernels are chosen as on a CPU: attention that never builds tokens x tokens, and a
  nearest-code search in smaller tiles. Under autocast a GPU computes norms, powers, sums and losses in float32 where a
  CPU does not; with `device="cuda"` the step follows the GPU's rule (pytorch.org/docs/stable/amp.html).
- Workspaces inside a kernel, the CUDA context and the allocator's fragmentation are not in it: `RESERVE` is for them.

    python -m vistok.estimate imagenet256/llamagen-corrected imagenet256/vit-base --batch-size 8
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from vistok import networks
from vistok.config import TrainConfig
from vistok.estimate.gpus import GPUS, find_gpu
from vistok.estimate.meters import CudaAutocast, SavedTensors, StepMeter
from vistok.losses import DiscriminatorLoss, ProxyCrossEntropy, TokenizerLoss
from vistok.networks import discriminators
from vistok.networks.blocks import recompute_activations, recomputing_blocks
from vistok.networks.lpips import untrained_lpips
from vistok.networks.perceptual import ClassifierDistance, untrained_classifier
from vistok.quantizers import VectorQuantizer
from vistok.system.devices import in_precision
from vistok.system.words import nearest
from vistok.tokenizer import VisualTokenizer

GIB = 2**30  # bytes
RESERVE = 0.1  # share of a GPU's memory left for its context, workspaces and fragmentation
UTILISATION = 0.3  # share of the peak that a training step reaches; convolutional networks: about 0.2 to 0.4
ADAM_BYTES = 8  # a parameter: two float32 moments


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepEstimate:
    """What one training step needs.

    Attributes:
        image_size: pixels.
        batch_size: images a step on one GPU, or a part of it that is computed at once.
        dtype: "bfloat16" or "float16" (autocast), or "float32".
        recompute: whether activations of blocks are computed again in the backward pass.
        parameters: trained ones of the tokenizer.
        discriminator_parameters: trained ones of the discriminator; 0 without.
        weight_bytes: all parameters and buffers, of the frozen perceptual networks too.
        gradient_bytes: of all trained parameters.
        optimizer_bytes: Adam's two float32 moments of each trained parameter.
        ema_bytes: the moving average of the tokenizer's weights; 0 without.
        saved_bytes: what the tokenizer's forward pass and losses keep for its backward pass, parameters left out.
        discriminator_saved_bytes: the same of the discriminator's own pass.
        step_bytes: most bytes of tensors alive at once within the step: weights, gradients, images and all that is computed.
        flops: operations of matrix products, convolutions and attention; a multiplication and an addition are two.
    """

    image_size: int
    batch_size: int
    dtype: str
    recompute: bool
    parameters: int
    discriminator_parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    ema_bytes: int
    saved_bytes: int
    discriminator_saved_bytes: int
    step_bytes: int
    flops: int

    @property
    def peak_bytes(self) -> int:
        """Most bytes needed at once: of the step, Adam's moments and the moving average."""
        return self.step_bytes + self.optimizer_bytes + self.ema_bytes

    def fits(self, gpu: str) -> bool:
        """Return whether the step fits a GPU of `GPUS`, `RESERVE` of its memory left alone."""
        return self.peak_bytes <= (1 - RESERVE) * find_gpu(gpu).memory_gib * GIB

    def images_per_second(self, gpu: str, utilisation: float = UTILISATION) -> float:
        """Return the images a second on a GPU: flops / (its peak x the share of the peak that is reached).

        Args:
            gpu: a key of `GPUS`.
            utilisation: that share, in (0, 1]; an assumption, not a measurement.

        Raises:
            ValueError: the GPU is unknown, or `utilisation` out of range.
        """
        if not 0 < utilisation <= 1:
            raise ValueError(f"utilisation is {utilisation}, but must be in (0, 1]; {UTILISATION} is usual.")
        card = find_gpu(gpu)
        tflops = card.float32_tflops if self.dtype == "float32" else card.bfloat16_tflops  # of float16 the same
        return self.batch_size * utilisation * tflops * 1e12 / self.flops

    def to_markdown(self) -> str:
        """Return two tables: what the step needs, and what that means on each GPU of `GPUS`."""
        needs = [
            ("trained parameters", f"{(self.parameters + self.discriminator_parameters) / 1e6:.1f} M"),
            ("weights", _gib(self.weight_bytes)),
            ("gradients", _gib(self.gradient_bytes)),
            ("Adam's moments", _gib(self.optimizer_bytes)),
            ("moving average", _gib(self.ema_bytes)),
            ("saved for backward, tokenizer", _gib(self.saved_bytes)),
            ("saved for backward, discriminator", _gib(self.discriminator_saved_bytes)),
            ("peak", _gib(self.peak_bytes)),
            ("operations an image", f"{self.flops / self.batch_size / 1e12:.2f} TFLOP"),
        ]
        recompute = ", activations recomputed" if self.recompute else ""
        lines = [f"| {self.batch_size} images of {self.image_size} pixels, {self.dtype}{recompute} | |", "|---|---|"]
        lines += [f"| {name} | {value} |" for name, value in needs]
        lines += ["", f"| GPU | fits | images/s at {UTILISATION:.0%} of its peak |", "|---|---|---|"]
        for key, gpu in GPUS.items():
            fits = "yes" if self.fits(key) else "no"
            lines.append(f"| {gpu.name} | {fits} | {self.images_per_second(key):.0f} |")
        return "\n".join(lines)

    __str__ = to_markdown


def estimate_step(config: TrainConfig, *, step: int = 0, device: str = "cuda") -> StepEstimate:
    """Return what one training step of a configuration needs on one GPU, without running it.

    Args:
        config: of the training; operations and images are those of a part of a batch, where there are several.
        step: steps taken before this one: at 0 the discriminator is regularised by R1, where it is, which needs most memory.
        device: "cuda" or "cpu": whose autocast rules hold.

    Raises:
        ValueError: there is no such device, or what a tokenizer of this configuration is refused for.
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}; {nearest(device, ('cpu', 'cuda'))}")
    dtype = torch.bfloat16 if config.precision == "auto" else getattr(torch, config.precision)
    with FakeTensorMode():
        parts = Parts.of(config, dtype)
        _keep_channels_last(parts.tokenizer)
        images = torch.rand(config.batch_size, 3, config.image_size, config.image_size)
        with CudaAutocast() if device == "cuda" else contextlib.nullcontext():
            usage = measure_step(parts, images, step)
    return StepEstimate(
        image_size=config.image_size,
        batch_size=config.batch_size // config.accumulate,
        dtype=str(dtype).removeprefix("torch."),
        recompute=config.checkpoint_activations,
        parameters=_numel(parts.tokenizer, trained=True),
        discriminator_parameters=_numel(parts.discriminator, trained=True),
        weight_bytes=sum(_bytes(module) for module in parts.modules()),
        gradient_bytes=sum(_bytes(module, trained=True) for module in parts.trained()),
        optimizer_bytes=ADAM_BYTES * sum(_numel(module, trained=True) for module in parts.trained()),
        ema_bytes=_bytes(parts.tokenizer) if config.ema_decay is not None else 0,
        **dataclasses.asdict(usage),
    )


def rows_markdown(rows: Sequence[str], scale: str, batch_size: int | None) -> str:
    """Return a Markdown table of rows of results tables, each with activations kept and, where the network can, recomputed.

    Memory is that of the step that needs most; operations are the mean over steps, of which R1 is in some only.

    Args:
        rows: "table/row".
        scale: of each.
        batch_size: images a step; None: the row's.
    """
    header = ["row", "batch", "activations", "saved for backward", "peak", "fits 24 GB", "TFLOP an image"]
    header += [f"images/s, {GPUS[gpu].name}" for gpu in ("rtx-4090", "a100-80")]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    overrides = {} if batch_size is None else {"batch_size": batch_size}
    for row in rows:
        kept = TrainConfig.from_row(row, scale, **overrides)
        with torch.device("meta"):  # shapes only
            can_recompute = bool(recomputing_blocks(VisualTokenizer.from_config(kept)))
        for recompute in (False, True) if can_recompute else (False,):
            config = dataclasses.replace(kept, checkpoint_activations=recompute)
            estimate = estimate_step(config)
            if config.r1_weight and config.r1_every > 1:
                usual = estimate_step(config, step=1)
                flops = usual.flops + (estimate.flops - usual.flops) // config.r1_every
                estimate = dataclasses.replace(estimate, flops=flops)
            lines.append(
                [
                    row,
                    str(estimate.batch_size),
                    "recomputed" if recompute else "kept",
                    _gib(estimate.saved_bytes),
                    _gib(estimate.peak_bytes),
                    "yes" if estimate.fits("rtx-4090") else "no",
                    f"{estimate.flops / estimate.batch_size / 1e12:.2f}",
                    *(f"{estimate.images_per_second(gpu):.0f}" for gpu in ("rtx-4090", "a100-80")),
                ]
            )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclasses.dataclass(frozen=True)
class Parts:
    """What takes part in a step of a configuration."""

    config: TrainConfig
    dtype: torch.dtype
    tokenizer: VisualTokenizer
    loss: TokenizerLoss
    discriminator: nn.Module | None
    discriminator_loss: DiscriminatorLoss | None

    @classmethod
    def of(cls, config: TrainConfig, dtype: torch.dtype) -> Self:
        """Build the networks as the trainer does; perceptual ones with random weights, which cost the same."""
        tokenizer = VisualTokenizer.from_config(config).train()
        recompute_activations(tokenizer, config.checkpoint_activations)
        tokenizer.train_only(config)
        if config.train_parts == "decoder":
            tokenizer.encoder.eval()
            tokenizer.quantizer.eval()
        perceptual = {}
        if config.proxy_from is not None:
            perceptual["proxy"] = untrained_proxies(config)
        if config.lpips_weight:
            perceptual["lpips"] = untrained_lpips("vgg").eval().requires_grad_(False)
        if config.classifier_weight:
            perceptual["classifier"] = ClassifierDistance(untrained_classifier(config.classifier))
        discriminator = discriminator_loss = None
        if config.discriminator:
            discriminator = discriminators.build(
                config.discriminator, image_size=config.image_size, **config.discriminator_options
            ).train()
            discriminator_loss = DiscriminatorLoss(config, dtype)
        loss = TokenizerLoss(config, tokenizer.quantizer, perceptual, dtype)
        return cls(config, dtype, tokenizer, loss, discriminator, discriminator_loss)

    def modules(self) -> list[nn.Module]:
        """Return all networks."""
        return [*self.trained(), *self.loss.perceptual.values()]

    def trained(self) -> list[nn.Module]:
        """Return the networks that learn."""
        return [module for module in (self.tokenizer, self.discriminator) if module is not None]

    def tensors(self) -> Iterator[Tensor]:
        """Return all parameters and buffers."""
        for module in self.modules():
            yield from module.parameters()
            yield from module.buffers()


@dataclasses.dataclass(frozen=True)
class StepUsage:
    """What was counted in one step; the names are those of `StepEstimate`."""

    saved_bytes: int
    discriminator_saved_bytes: int
    step_bytes: int
    flops: int


def measure_step(parts: Parts, images: Tensor, step: int = 0) -> StepUsage:
    """Take the forward and backward passes of a step and count; the same on fake tensors and on real ones.

    Args:
        parts: the networks, without gradients.
        images: float32 [B, 3, H, W] in [-1, 1]: the step's, of which one part is computed.
        step: steps taken before this one.
    """
    images = images.contiguous(memory_format=torch.channels_last)  # as the trainer's
    learned = [p for module in parts.trained() for p in module.parameters() if p.requires_grad]
    if parts.config.accumulate > 1:  # the parts before have left theirs
        for parameter in learned:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in learned if parameter.grad is not None]
    meter = StepMeter([images, *parts.tensors(), *gradients])
    images = images[: len(images) // parts.config.accumulate]
    discriminator_saved_bytes = 0
    with meter:
        with SavedTensors(parts.tensors()) as saved:
            with in_precision(parts.dtype, images.device):
                output = parts.tokenizer(images, proxies=parts.loss.of_proxies)
            last_layer = parts.tokenizer.decoder.last_layer
            total, losses = parts.loss(images, output.reconstruction, output.losses, parts.discriminator, last_layer)
            saved_bytes = saved.bytes
        total.backward()
        if parts.discriminator is not None:
            del total, losses
            with SavedTensors(parts.tensors()) as saved:
                total, _ = parts.discriminator_loss(parts.discriminator, images, output.reconstruction, step)
                discriminator_saved_bytes = saved.bytes
            total.backward()
    return StepUsage(saved_bytes, discriminator_saved_bytes, meter.live.peak, meter.flops)


def untrained_proxies(config: TrainConfig) -> ProxyCrossEntropy:
    """Return what `proxy_from` is for, with random weights, and with plain codes whatever the quantizer."""
    described = config.network_options["pixel_decoder"]
    sizes = {name: described[name] for name in ("codebook_size", "codebook_dim")}
    options = {"codebook_dim": sizes["codebook_dim"], **(described.get("network_options") or {})}
    encoder, _ = networks.build(described["network"], image_size=config.image_size, **options)
    return ProxyCrossEntropy(encoder, VectorQuantizer(**sizes))


def _keep_channels_last(module: nn.Module) -> None:
    """Give group norms the layout that they keep on real tensors: attention after them has a kernel for that one only."""
    for norm in module.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.register_forward_hook(lambda _norm, _inputs, x: x.contiguous(memory_format=torch.channels_last))


def _numel(module: nn.Module | None, trained: bool = False) -> int:
    if module is None:
        return 0
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad or not trained)


def _bytes(module: nn.Module, trained: bool = False) -> int:
    """Bytes of all parameters and buffers, or of the trained parameters only."""
    if trained:
        return sum(parameter.nbytes for parameter in module.parameters() if parameter.requires_grad)
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB" if num_bytes >= GIB / 10 else f"{num_bytes / 2**20:.1f} MiB"
