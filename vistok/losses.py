"""The training loss: a weighted sum of named terms."""

import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean squared error, in float32, of a reconstruction in [-1, 1] (VQ-VAE, equation 3, first term)."""
    return F.mse_loss(reconstruction.float(), images.float())


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Return the sum of weight x loss over all losses.

    Raises:
        KeyError: a loss has no weight: a term that nobody weighs is a mistake, not a zero.
    """
    missing = [name for name in losses if name not in weights]
    if missing:
        raise KeyError(f"The losses {missing} have no weight; there are weights for {sorted(weights)}.")
    return sum(weights[name] * loss for name, loss in losses.items())
