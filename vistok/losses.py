"""The training loss: a weighted sum of named terms, of the tokenizer and of the discriminator it plays against.

Reconstruction: mean squared or absolute error, logit-Laplace (DALL-E, Ramesh et al. 2021, arXiv:2102.12092, appendix A.3).
Adversarial: hinge (Lim and Ye 2017, arXiv:1705.02894), and the two of Goodfellow et al. 2014 (arXiv:1406.2661), with the
adaptive weight of VQGAN (Esser et al. 2021, arXiv:2012.09841, equation 7); regularised by LeCam (Tseng et al. 2021,
arXiv:2104.03310) and by R1 (Mescheder et al. 2018, arXiv:1801.04406). Deviations are stated where they are made.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.system.processes import batch_mean, mean_over_processes

LOGIT_LAPLACE_MARGIN = 0.1  # images are mapped to [0.1, 0.9], where the logit is finite


def reconstruction_loss(reconstruction: Tensor, images: Tensor, kind: str = "l2") -> Tensor:
    """Return the mean error, in float32, of a reconstruction in [-1, 1] (VQ-VAE, equation 3, first term).

    Args:
        reconstruction: float [B, 3, H, W].
        images: the same.
        kind: "l2", squared, or "l1", absolute.
    """
    error = {"l2": F.mse_loss, "l1": F.l1_loss}[kind]
    return error(reconstruction.float(), images.float())


def logit_laplace_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a logit-Laplace distribution, its constants left out (DALL-E, A.3).

    Deviation: the scale is fixed at 1, as the decoder has three channels and not six; what is left is the absolute error
    between logits.

    Args:
        reconstruction: float [B, 3, H, W], about [-1, 1]; what lies beyond is clamped.
        images: float [B, 3, H, W] in [-1, 1].
    """

    def to_logit(x: Tensor) -> Tensor:
        unit = (x.float().clamp(-1, 1) + 1) / 2
        return torch.logit(LOGIT_LAPLACE_MARGIN + (1 - 2 * LOGIT_LAPLACE_MARGIN) * unit)

    return (to_logit(reconstruction) - to_logit(images)).abs().mean()


def weighted_sum(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Return the sum of weight x loss over all losses.

    Raises:
        KeyError: a loss has no weight: a term that nobody weighs is a mistake, not a zero.
    """
    missing = [name for name in losses if name not in weights]
    if missing:
        raise KeyError(f"The losses {missing} have no weight; there are weights for {sorted(weights)}.")
    return sum(weights[name] * loss for name, loss in losses.items())


def generator_loss(logits_fake: Tensor, kind: str) -> Tensor:
    """Return what the tokenizer pays for reconstructions that the discriminator tells from images.

    Args:
        logits_fake: float, the discriminator's of reconstructions; above 0 it takes them for images.
        kind: "hinge" or "vanilla": -D; "non-saturating": -log sigmoid(D).
    """
    if kind == "non-saturating":
        return F.softplus(-logits_fake).mean()
    return -logits_fake.mean()


def discriminator_loss(logits_real: Tensor, logits_fake: Tensor, kind: str) -> Tensor:
    """Return what the discriminator pays, half for images and half for reconstructions.

    Args:
        logits_real: float, of images.
        logits_fake: float, of reconstructions.
        kind: "hinge": max(0, 1 - D(x)) and max(0, 1 + D(y)); "vanilla" or "non-saturating": -log sigmoid(D(x)) and
            -log(1 - sigmoid(D(y))).
    """
    if kind == "hinge":
        return 0.5 * (F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean())
    return 0.5 * (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """Return lambda = |grad of the reconstruction terms| / (|grad of the adversarial term| + 1e-4) (VQGAN, equation 7).

    Both gradients are with respect to the decoder's last layer; over several processes their means are taken first, so
    that lambda is that of the whole batch.

    Args:
        reconstruction: scalar, the weighted sum of reconstruction and perceptual terms; its graph is kept.
        adversarial: scalar; its graph is kept.
        last_layer: the weight of the decoder's last layer.

    Returns:
        scalar in [0, 1e4], detached.
    """
    norms = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
        norms.append(mean_over_processes(gradient).norm())
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()


class LeCam(nn.Module):
    """Regularises a discriminator towards its own moving averages: what it says of images stays near what it said of
    reconstructions, and the other way round (LeCam, equation 8).

    Deviation: the squares are one-sided, as in the authors' code and all that followed it. That code penalises every logit;
    1d-tokenizer, and visual-tokenizer-pytorch after it, only the batch's mean logit, which is far less where patches differ.

    Attributes:
        real, fake: moving averages of the discriminator's mean logits.
    """

    def __init__(self, decay: float = 0.999, logits: str = "each") -> None:
        """Make the regulariser.

        Args:
            decay: of the moving averages, in [0, 1).
            logits: that are penalised: "each", or "mean" for the mean of the batch.
        """
        super().__init__()
        self.decay, self.logits = decay, logits
        self.register_buffer("real", torch.zeros(()))
        self.register_buffer("fake", torch.zeros(()))

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """Return the penalty, unweighted, against the averages as they are.

        Args:
            logits_real: float, this process's, of images.
            logits_fake: float, of reconstructions.
        """
        if self.logits == "mean":
            logits_real, logits_fake = batch_mean(logits_real.mean()), batch_mean(logits_fake.mean())
        return F.relu(logits_real - self.fake).square().mean() + F.relu(self.real - logits_fake).square().mean()

    @torch.no_grad()
    def update(self, means: Tensor) -> None:
        """Move the averages.

        Args:
            means: float [2], the mean logit of images and that of reconstructions, of this process.
        """
        means = mean_over_processes(means.float())
        self.real.lerp_(means[0], 1 - self.decay)
        self.fake.lerp_(means[1], 1 - self.decay)


def r1_penalty(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return E |grad_x D(x)|^2 / 2 over images, unweighted (R1, equation 9).

    Args:
        discriminator: images to logits.
        images: float32 [B, 3, H, W].
    """
    images = images.detach().requires_grad_()
    logits = discriminator(images)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return 0.5 * gradient.square().sum(dim=(1, 2, 3)).mean()
