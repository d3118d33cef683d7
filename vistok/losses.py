"""The training losses: weighted sums of named terms, of the tokenizer and of the discriminator beside it.

`TokenizerLoss` and `DiscriminatorLoss` put the loss of a step together, once for the trainer, the estimate and the lessons.

Reconstruction: mean squared or absolute error, logit-Laplace (DALL-E, Ramesh et al. 2021, arXiv:2102.12092, appendix A.3).
Perceptual: LPIPS (`networks/lpips.py`), and the logits of a classifier (`networks/perceptual.py`), each a loss of its own.
Adversarial: hinge (Lim and Ye 2017, arXiv:1705.02894), and the two of Goodfellow et al. 2014 (arXiv:1406.2661), with the
adaptive weight of VQGAN (Esser et al. 2021, arXiv:2012.09841, equation 7); regularised by LeCam (Tseng et al. 2021,
arXiv:2104.03310) and by R1 (Mescheder et al. 2018, arXiv:1801.04406). Proxies: the cross entropy with another tokenizer's codes
that stage 1 of TiTok's training is for, instead of all of these. Deviations are stated where they are made.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.config import TrainConfig
from vistok.images import to_unit
from vistok.quantizers import Quantizer
from vistok.system.devices import in_precision
from vistok.system.processes import batch_mean, mean_over_processes
from vistok.system.values import Decay, check_known, checked

QUANTIZER_LOSSES = ("codebook", "commitment", "entropy", "kl")  # each is weighed by the setting <name>_weight
PERCEPTUAL_LOSSES = ("lpips", "classifier")  # as those, each by a frozen network of its own
ADVERSARIAL_LOSSES = ("hinge", "vanilla", "non-saturating")
LOGIT_LAPLACE_MARGIN = 0.1  # images are mapped to [0.1, 0.9], where the logit is finite


def reconstruction_loss(reconstruction: Tensor, images: Tensor, kind: str = "l2") -> Tensor:
    """Return the mean error, in float32, of a reconstruction in [-1, 1] (VQ-VAE, equation 3, first term).

    Args:
        reconstruction: float [B, 3, H, W].
        images: the same.
        kind: "l2", squared, or "l1", absolute.
    """
    errors = {"l2": F.mse_loss, "l1": F.l1_loss}
    check_known("kind is", kind, errors)
    return errors[kind](reconstruction.float(), images.float())


def logit_laplace_loss(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of a logit-Laplace distribution, its constants left out (DALL-E, A.3).

    Deviation: the scale is fixed at 1, as the decoder has three channels and not six; what is left is the absolute error
    between logits.

    Args:
        reconstruction: float [B, 3, H, W], about [-1, 1]; what lies beyond is clamped.
        images: float [B, 3, H, W] in [-1, 1].
    """

    def to_logit(x: Tensor) -> Tensor:
        return torch.logit(LOGIT_LAPLACE_MARGIN + (1 - 2 * LOGIT_LAPLACE_MARGIN) * to_unit(x))

    return (to_logit(reconstruction) - to_logit(images)).abs().mean()


class ProxyCrossEntropy(nn.Module):
    """The cross entropy of predicted codes with those that a tokenizer of a grid has for the images (TiTok, section 3.3).

    The codes are found in float32 whatever autocast is on outside, as wherever that tokenizer encodes.
    """

    def __init__(self, encoder: nn.Module, quantizer: Quantizer) -> None:
        """Take the parts of the tokenizer that encode; they are frozen."""
        super().__init__()
        self.encoder, self.quantizer = encoder, quantizer
        self.eval().requires_grad_(False)

    def forward(self, logits: Tensor, images: Tensor) -> Tensor:
        """Return the mean over all places, in nats.

        Args:
            logits: float [B, K, h, w].
            images: float32 [B, 3, H, W] in [-1, 1].
        """
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            (proxies,) = self.quantizer(self.encoder(images)).levels  # [B, h, w]
        return F.cross_entropy(logits.float(), proxies)


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
    check_known("kind is", kind, ADVERSARIAL_LOSSES)
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
    check_known("kind is", kind, ADVERSARIAL_LOSSES)
    if kind == "hinge":
        return 0.5 * (F.relu(1 - logits_real).mean() + F.relu(1 + logits_fake).mean())
    return 0.5 * (F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, loss_scale: float = 1.0) -> Tensor:
    """Return lambda = |grad of the reconstruction terms| / (|grad of the adversarial term| + 1e-4) (VQGAN, equation 7).

    Both gradients are with respect to the decoder's last layer; over several processes their means are taken first, so
    that lambda is that of the whole batch.

    Args:
        reconstruction: scalar, the weighted sum of reconstruction and perceptual terms; its graph is kept.
        adversarial: scalar; its graph is kept.
        last_layer: the weight of the decoder's last layer.
        loss_scale: what both are multiplied by on their way back, so that float16 holds their gradients.

    Returns:
        scalar in [0, 1e4], detached.
    """
    norms = [_gradient_norm(loss, last_layer, loss_scale) for loss in (reconstruction, adversarial)]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach()


def _gradient_norm(loss: Tensor, weight: Tensor, scale: float) -> Tensor:
    """Return the norm of a loss's gradient, mean over processes; where it overflows at that scale, taken at a lower one.

    The scale suits the weighted sum of all losses, of which a single one may be a thousandth. The graph is kept.
    """
    (gradient,) = torch.autograd.grad(loss * scale, weight, retain_graph=True)
    norm = (mean_over_processes(gradient) / scale).norm()
    if scale > 1 and not norm.isfinite():  # float16 only: a GPU is waited for where a value is read
        return _gradient_norm(loss, weight, max(1.0, scale / 16))
    return norm


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

        Raises:
            ValueError: one of them is another.
        """
        super().__init__()
        checked("decay", Decay, decay)
        check_known("logits is", logits, ("each", "mean"))
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


def loss_weights(config: TrainConfig, quantizer: Quantizer) -> dict[str, float]:
    """Return the weight of each loss of a tokenizer, the adversarial one aside; of a quantizer that is not trained 0.

    Raises:
        ValueError: a weight was set, but the quantizer has no such loss.
    """
    weights = {"reconstruction": config.reconstruction_weight} if config.proxy_from is None else {"proxy": 1.0}
    for name in ("logit_laplace", *PERCEPTUAL_LOSSES):
        if weight := getattr(config, f"{name}_weight"):
            weights[name] = weight
    default = TrainConfig()
    for name in QUANTIZER_LOSSES:
        weight = getattr(config, f"{name}_weight")
        if name in quantizer.loss_names:
            weights[name] = weight if config.train_parts == "all" else 0.0
        elif weight != getattr(default, f"{name}_weight"):
            raise ValueError(
                f"{name}_weight is {weight}, but quantizer {config.quantizer!r} has no such loss "
                f"(it has: {', '.join(quantizer.loss_names) or 'none'}): leave it out."
            )
    return weights


class TokenizerLoss(nn.Module):
    """What a tokenizer is trained for: images as they were, to the eye too, the quantizer's own terms, and the adversary.

    Attributes:
        weights: loss name to weight, the adversarial one aside.
        of_proxies: whether it is of predicted codes, and of no images.
    """

    def __init__(
        self,
        config: TrainConfig,
        quantizer: Quantizer,
        perceptual: Mapping[str, nn.Module] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take the weights of a configuration.

        Args:
            config: whose losses these are.
            quantizer: the tokenizer's.
            perceptual: name of a loss, of `PERCEPTUAL_LOSSES` or "proxy", to its network: (reconstruction, images) to
                distances.
            dtype: of the perceptual networks and the discriminator; losses are float32 whatever it is.

        Raises:
            ValueError: a weight was set, but the quantizer has no such loss.
        """
        super().__init__()
        self.config, self.dtype, self.perceptual = config, dtype, nn.ModuleDict(perceptual or {})
        self.weights = loss_weights(config, quantizer)
        self.of_proxies = config.proxy_from is not None

    def forward(
        self,
        images: Tensor,
        reconstruction: Tensor,
        quantizer_losses: dict[str, Tensor],
        discriminator: nn.Module | None = None,
        last_layer: Tensor | None = None,
        loss_scale: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and the unweighted losses by name.

        Args:
            images: float32 [B, 3, H, W] in [-1, 1].
            reconstruction: float [B, 3, H, W], or logits of proxies, float [B, K', h, w], with its graph.
            quantizer_losses: name to unweighted scalar.
            discriminator: images to logits, whose weights get no gradient here; None: not adversarial, or not yet.
            last_layer: the weight of the decoder's last layer, for an adaptive adversarial weight.
            loss_scale: what the sum will be multiplied by on its way back, in float16.
        """
        losses = {}
        if "reconstruction" in self.weights:
            losses["reconstruction"] = reconstruction_loss(reconstruction, images, self.config.reconstruction_error)
        if "logit_laplace" in self.weights:
            losses["logit_laplace"] = logit_laplace_loss(reconstruction, images)
        for name, network in self.perceptual.items():
            with in_precision(self.dtype, images.device):
                distances = network(reconstruction, images)
            losses[name] = distances.float().mean()
        image_terms = weighted_sum(losses, self.weights)
        losses |= quantizer_losses
        total = weighted_sum(losses, self.weights)
        if discriminator is not None:
            losses |= self._adversarial(reconstruction, image_terms, discriminator, last_layer, loss_scale)
            total = total + losses["adversarial_weight"] * losses["adversarial"]
        return total, losses

    def _adversarial(
        self,
        reconstruction: Tensor,
        image_terms: Tensor,
        discriminator: nn.Module,
        last_layer: Tensor | None,
        loss_scale: float,
    ) -> dict[str, Tensor]:
        discriminator.requires_grad_(False)  # this loss is the tokenizer's
        with in_precision(self.dtype, reconstruction.device):
            logits = discriminator(reconstruction)
        discriminator.requires_grad_(True)
        loss = generator_loss(logits.float(), self.config.adversarial_loss)
        weight = torch.full((), self.config.adversarial_weight, device=loss.device)
        if self.config.adversarial_adaptive:
            weight = weight * adaptive_weight(image_terms, loss, last_layer, loss_scale)
        return {"adversarial": loss, "adversarial_weight": weight}


class DiscriminatorLoss(nn.Module):
    """What a discriminator is trained for: to tell images from reconstructions, within the bounds of LeCam and R1.

    Attributes:
        lecam: the regulariser with its moving averages, or None.
    """

    def __init__(self, config: TrainConfig, dtype: torch.dtype = torch.float32) -> None:
        """Take the weights of a configuration that has a discriminator; convolutions are computed in `dtype`."""
        super().__init__()
        self.config, self.dtype = config, dtype
        self.lecam = LeCam(logits=config.lecam_logits) if config.lecam_weight else None
        self._mean_logits: list[Tensor] = []  # one of each part of a batch

    def forward(
        self, discriminator: nn.Module, images: Tensor, reconstruction: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and the unweighted losses and mean logits by name.

        Args:
            discriminator: images to logits.
            images: float32 [B, 3, H, W] in [-1, 1].
            reconstruction: float [B, 3, H, W]; no gradient goes back to it.
            step: steps taken before this one.
        """
        torch.clear_autocast_cache()  # with autocast on outside too it holds the weights of the step before
        with in_precision(self.dtype, images.device, cached=True):
            # Two passes: one over both halves would mix their batch statistics.
            real, fake = discriminator(images).float(), discriminator(reconstruction.detach()).float()
        losses = {"discriminator": discriminator_loss(real, fake, self.config.adversarial_loss)}
        total = losses["discriminator"]
        if self.lecam is not None:
            losses["lecam"] = self.lecam(real, fake)
            self._mean_logits.append(torch.stack([real.mean(), fake.mean()]).detach())
            total = total + self.config.lecam_weight * losses["lecam"]
        if self.config.r1_weight and step % self.config.r1_every == 0:  # lazily, StyleGAN2, appendix B
            with in_precision(torch.float32, images.device):  # gradients of gradients
                losses["r1"] = r1_penalty(discriminator, images)
            total = total + self.config.r1_weight * self.config.r1_every * losses["r1"]
        return total, losses | {"logits_real": real.mean(), "logits_fake": fake.mean()}

    def update(self) -> None:
        """Move LeCam's averages by the mean logits of the parts since the last update; after the optimiser's step."""
        if self.lecam is not None:
            self.lecam.update(torch.stack(self._mean_logits).mean(0))
        self.forget()

    def forget(self) -> None:
        """Forget the parts since the last update, where their step failed."""
        self._mean_logits = []
