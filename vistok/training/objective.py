"""What a tokenizer is trained for: reconstruction, perceptual and the quantizer's own losses, and their weights."""

import torch
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.losses import logit_laplace_loss, reconstruction_loss, weighted_sum
from vistok.networks.lpips import build_lpips
from vistok.tokenizer import TokenizerOutput, VisualTokenizer

IMAGE_LOSSES = ("reconstruction", "logit_laplace", "lpips")  # what an adaptive adversarial weight is in proportion to
QUANTIZER_LOSSES = ("codebook", "commitment", "entropy", "kl")


class Objective:
    """The losses of a configuration, the adversarial one aside.

    Attributes:
        weights: loss name to weight.
        dtype: of the convolutions under autocast; losses and quantizer are float32 whatever it is.
    """

    def __init__(
        self, config: TrainConfig, tokenizer: VisualTokenizer, device: torch.device, dtype: torch.dtype
    ) -> None:
        """Take the weights of a configuration, and load LPIPS where it has one.

        Raises:
            ValueError: a weight was set, but the quantizer has no such loss.
            Unavailable: LPIPS has a weight, but its network's weights are not here and cannot be downloaded.
        """
        self.config, self.dtype = config, dtype
        self.weights = {"reconstruction": config.reconstruction_weight}
        if config.logit_laplace_weight:
            self.weights["logit_laplace"] = config.logit_laplace_weight
        self.perceptual = None
        if config.lpips_weight:
            self.weights["lpips"] = config.lpips_weight
            self.perceptual = build_lpips("vgg", config.lpips_weights, download=True, options="lpips_weights=FILE").to(
                device
            )
        self.weights |= quantizer_weights(config, tokenizer)

    def __call__(self, model: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], TokenizerOutput]:
        """Run a tokenizer and return its unweighted losses, and its output.

        Args:
            model: a `VisualTokenizer`, wrapped or not.
            images: float32 [B, 3, H, W] in [-1, 1].
        """
        # Without autocast's cache of weights: where autocast is on outside too, it outlasts the step that moves them, and it is
        # one for all threads, of which another may look at the tokenizer.
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False):
            output = model(images)
            perceptual = self.perceptual(output.reconstruction, images) if self.perceptual else None
        losses = {
            "reconstruction": reconstruction_loss(output.reconstruction, images, self.config.reconstruction_error)
        }
        if "logit_laplace" in self.weights:
            losses["logit_laplace"] = logit_laplace_loss(output.reconstruction, images)
        if perceptual is not None:
            losses["lpips"] = perceptual.float().mean()
        return losses | output.losses, output

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of all losses."""
        return weighted_sum(losses, self.weights)

    def image_terms(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses that compare images."""
        return weighted_sum({name: losses[name] for name in IMAGE_LOSSES if name in losses}, self.weights)


def quantizer_weights(config: TrainConfig, tokenizer: VisualTokenizer) -> dict[str, float]:
    """Return the weight of each loss of the quantizer; 0 where it is not trained.

    Raises:
        ValueError: a weight was set, but the quantizer has no such loss.
    """
    default, weights = TrainConfig(), {}
    for name in QUANTIZER_LOSSES:
        weight = getattr(config, f"{name}_weight")
        if name in tokenizer.quantizer.loss_names:
            weights[name] = weight if config.train_parts == "all" else 0.0
        elif weight != getattr(default, f"{name}_weight"):
            raise ValueError(
                f"{name}_weight is {weight}, but quantizer {config.quantizer!r} has no such loss "
                f"(it has: {', '.join(tokenizer.quantizer.loss_names) or 'none'}): leave it out."
            )
    return weights
