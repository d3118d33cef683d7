"""The metrics of the protocol, each a `torchmetrics.Metric`: `update` with batches, `compute` at the end.

Every sum is float64 (counts are int64) and adds up over processes, so a metric over many batches, or over many
processes, is the metric over all images at once; nothing is kept per image. Image metrics take float images in [0, 1].

Sources: SSIM, Wang et al. 2004 (IEEE TIP 13(4)); LPIPS, Zhang et al., arXiv:1801.03924, in torchmetrics' implementation;
FID, Heusel et al., arXiv:1706.08500, in torch-fidelity's, on pairs of an image and its reconstruction (rFID).

Deviation: the Frechet distance takes tr sqrt(S1 S2) from a symmetric matrix of full rank, not from the complex eigenvalues of
S1 S2: the same number, and stable where there are fewer images than features.
"""

import abc
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from vistok.images import check_unit_pair, from_unit, psnr, unit_to_uint8
from vistok.networks.inception import NUM_FEATURES, build_inception
from vistok.networks.lpips import build_lpips

UNBIASED_FID_IMAGES = 10_000  # below this FID's bias, which falls as 1/N, is larger than differences people report


class ImageMetric(Metric):
    """Base of the metrics that are a mean over images of a value of each, which `per_image` returns.

    Attributes:
        smallest: pixels, the least height and width of an image.
    """

    full_state_update = False
    smallest: int

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    @abc.abstractmethod
    def per_image(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Return the value of each image, float [B].

        Args:
            images, reconstructions: float32 [B, 3, H, W] in [0, 1], height and width of at least `smallest` pixels.
        """

    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add a batch.

        Args:
            images, reconstructions: float [B, 3, H, W] in [0, 1], height and width of at least `smallest` pixels.

        Raises:
            ValueError: shape, type or range are others.
        """
        check_unit_pair(images, reconstructions, self.smallest)
        values = self.per_image(images.float(), reconstructions.float())
        self.total += values.to(self.total.device).double().sum()  # moved first: Apple's GPUs have no float64
        self.num_images += len(values)

    def compute(self) -> Tensor:
        """Return the mean over all images, float64.

        Raises:
            ValueError: no image was given.
        """
        if self.num_images == 0:
            raise ValueError(f"{type(self).__name__} needs at least one image, but was given none.")
        return self.total / self.num_images


class PSNR(ImageMetric):
    """Mean over images of each image's peak signal-to-noise ratio in dB, data range 1: -10 log10 MSE.

    An image equal to its reconstruction has an infinite ratio, and so has then the mean.
    """

    higher_is_better = True
    smallest = 1

    def per_image(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return psnr(images, reconstructions, data_range=1)


class SSIM(ImageMetric):
    """Mean over images of the structural similarity: 11x11 Gaussian window of sigma 1.5, K1 .01, K2 .03, data range 1.

    Only where the whole window lies in the image (valid region), mean over channels. As `piqa.SSIM`, and as
    scikit-image with `gaussian_weights=True, use_sample_covariance=False`.

    Source: Wang et al. 2004, equation 13.
    """

    higher_is_better = True
    smallest = 11

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        offsets = torch.arange(-5, 6, dtype=torch.float64)
        window = torch.exp(-offsets.square() / (2 * 1.5**2))
        self._window = (window / window.sum()).tolist()

    def per_image(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return _ssim(images, reconstructions, self._window)


class SSIMUniform7(ImageMetric):
    """Mean over images of the structural similarity as scikit-image computes it by default, for tables that used that.

    7x7 uniform window, sample covariance (N/(N-1)), K1 .01, K2 .03, data range 1, valid region, mean over channels.
    """

    higher_is_better = True
    smallest = 7

    def per_image(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return _ssim(images, reconstructions, [1 / 7] * 7, covariance_scale=49 / 48)


class LPIPS(ImageMetric):
    """Mean over images of the learned perceptual distance, lin heads v0.1, images mapped to [-1, 1].

    Args:
        net, weights, download: as of `build_lpips`, which raises what it says.

    Attributes:
        smallest: pixels, the least height and width of an image: 31 (AlexNet) or 16 (VGG16).
        weights_sha256: first eight hex digits of the weights file's SHA-256, which a published file's name ends in.

    Source: arXiv:1801.03924, section 3; `vistok.networks.lpips`.
    """

    higher_is_better = False

    def __init__(
        self, net: str = "alex", weights: str | Path | None = None, download: bool = False, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.network = build_lpips(net, weights, download, options="lpips='download' or lpips=FOLDER")
        self.smallest = self.network.smallest
        self.weights_sha256 = self.network.weights_sha256

    def per_image(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        return self.network(from_unit(images), from_unit(reconstructions))


class ImageStatistics(NamedTuple):
    """Features of images, summed: float64 [2048], and their outer products, float64 [2048, 2048]; over how many images."""

    sums: Tensor
    outer_sums: Tensor
    num_images: int


class RFID(Metric):
    """Frechet distance between images and their reconstructions in torch-fidelity's InceptionV3 (2048 features).

    Images become 8-bit as torchvision's `save_image` rounds them, so the distance is that of
    `torch_fidelity.calculate_metrics(fid=True)` on the same images saved as PNG. Sums and outer products of features
    are kept, not the features. FID is biased at small N, upward: `compute` warns below 10,000 images.

    Args:
        weights: as of `build_inception`, which raises what it says.

    Attributes:
        weights_sha256: first eight hex digits of the weights file's SHA-256, which the published file's name ends in.
        given: statistics of the images, set before the first of them: they are not looked at then, only reconstructions.
        found: statistics of the images, of all processes, after `compute`.

    Source: arXiv:1706.08500, equation 6; `torch_fidelity.metric_fid`.
    """

    higher_is_better = False
    full_state_update = False
    smallest = 1  # pixels, height and width of an image

    def __init__(self, weights: str | Path | None = None, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.network = build_inception(weights)
        self.weights_sha256 = self.network.weights_sha256
        self._published = self.network.published
        self.given: ImageStatistics | None = None
        self.found: ImageStatistics | None = None
        # Row 0 is of the images, row 1 of the reconstructions.
        self.add_state("sums", torch.zeros(2, NUM_FEATURES, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state(
            "outer_sums",
            torch.zeros(2, NUM_FEATURES, NUM_FEATURES, dtype=torch.float64),
            dist_reduce_fx="sum",
        )
        self.add_state("num_images", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, images: Tensor, reconstructions: Tensor) -> None:
        """Add a batch, float [B, 3, H, W] in [0, 1]; raises ValueError where shape, type or range are others."""
        check_unit_pair(images, reconstructions, self.smallest)
        for side, batch in enumerate((images, reconstructions)):
            if side == 0 and self.given is not None:
                continue
            features = self.network(unit_to_uint8(batch)).to(self.sums.device).double()  # [B, 2048]
            self.sums[side] += features.sum(dim=0)
            self.outer_sums[side].addmm_(features.T, features)
        self.num_images += len(images)

    def compute(self) -> Tensor:
        """Return the distance, float64, at least 0.

        Raises:
            ValueError: fewer than two images were given: they have no covariance; or not those whose statistics are `given`.
        """
        num_images = int(self.num_images)
        if num_images < 2:
            raise ValueError(f"rFID needs at least 2 images, but was given {num_images}.")
        if self.note:
            warnings.warn(self.note, stacklevel=2)
        sums, outer_sums = self.sums, self.outer_sums
        if self.given is not None:
            if self.given.num_images != num_images:
                raise ValueError(
                    f"rFID was given statistics of {self.given.num_images} images, but {num_images} images."
                )
            sums = torch.stack([self.given.sums.to(sums.device), sums[1]])
            outer_sums = torch.stack([self.given.outer_sums.to(sums.device), outer_sums[1]])
        self.found = ImageStatistics(sums[0].clone(), outer_sums[0].clone(), num_images)
        means = sums / num_images  # [2, 2048]
        outer_means = means.unsqueeze(2) * means.unsqueeze(1)  # [2, 2048, 2048]
        covariances = (outer_sums - num_images * outer_means) / (num_images - 1)
        return frechet_distance(means[0], covariances[0], means[1], covariances[1]).clamp(min=0)  # rounding

    @property
    def note(self) -> str | None:
        """What to print beside the number: why it does not compare with published ones, or None where it does."""
        num_images, reasons = int(self.num_images), []
        if num_images < UNBIASED_FID_IMAGES:
            reasons.append(
                f"rFID over {num_images:,} images is biased upward: it compares only with rFID over the same images, "
                f"and published numbers use at least {UNBIASED_FID_IMAGES:,}."
            )
        if not self._published:
            reasons.append("These Inception weights are not the published ones: it compares with no published rFID.")
        return " ".join(reasons) or None


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """Return the Frechet distance of two Gaussians: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    With S = R R^T, the eigenvalues of S1 S2 are the squared singular values of R1^T R2; so the trace of the root is the
    sum of these. R has as many columns as S has directions with variance: the others add no square roots of rounding
    errors, and a few images cost little. Computed on the CPU.

    Args:
        mean1, mean2: float64 [D].
        covariance1, covariance2: float64 [D, D].

    Returns:
        float64, at least 0 up to rounding.

    Source: arXiv:1706.08500, equation 6.
    """
    mean1, covariance1, mean2, covariance2 = (t.cpu() for t in (mean1, covariance1, mean2, covariance2))
    product = _root(covariance1).T @ _root(covariance2)  # [rank 1, rank 2]
    gram = product @ product.T if product.shape[0] < product.shape[1] else product.T @ product
    trace_of_root = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum()  # svdvals would be four times as slow
    return (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_of_root


def _ssim(images: Tensor, reconstructions: Tensor, window: list[float], covariance_scale: float = 1.0) -> Tensor:
    """Return each image's structural similarity, float32 [B].

    The window is separable, so a local mean is a weighted sum of shifted rows, then of shifted columns. Plain sums keep
    float32 exact to rounding on every device, where convolutions and matrix products may drop to fewer bits.

    Args:
        images, reconstructions: float32 [B, C, H, W] in [0, 1].
        window: weights along one axis, sum 1.
        covariance_scale: factor on local variances and covariances.

    Source: Wang et al. 2004, equation 13.
    """
    # On a CPU a few images at a time, so that their maps stay in the cache: twice as fast.
    num_together = max(1, 2**16 // images[0, 0].numel()) if images.device.type == "cpu" else len(images)
    chunks = zip(images.split(num_together), reconstructions.split(num_together), strict=True)
    return torch.cat([_ssim_together(x, y, window, covariance_scale) for x, y in chunks])


def _ssim_together(images: Tensor, reconstructions: Tensor, window: list[float], covariance_scale: float) -> Tensor:
    """Return what `_ssim` does, all images in one go."""
    c1, c2 = 0.01**2, 0.03**2
    # Variances do not depend on the origin, and rounding is least with the origin amid the values.
    x, y, difference = images - 0.5, reconstructions - 0.5, images - reconstructions
    maps = torch.stack([x, difference, x * x + y * y, difference.square()])  # [4, B, C, H, W]
    mean_x, mean_difference, squares, errors = _local_means(_local_means(maps, window, dim=-2), window, dim=-1)
    mean_y = mean_x - mean_difference
    # Written with what differs, 2 cov = var x + var y - var(x - y) and of the means alike, each factor is 1 less something that
    # is not below 0, and nothing large cancels where the images are nearly equal.
    variances = (squares - mean_x.square() - mean_y.square()).mul_(covariance_scale).clamp_(min=0)
    of_difference = (errors - mean_difference.square()).mul_(covariance_scale).clamp_(min=0)
    similarity = 1 - mean_difference.square() / ((mean_x + 0.5).square() + (mean_y + 0.5).square() + c1)
    similarity *= 1 - of_difference / (variances + c2)
    return similarity.mean(dim=(1, 2, 3)).clamp(max=1)  # [B, C, H - n + 1, W - n + 1] -> [B]


def _local_means(maps: Tensor, window: list[float], dim: int) -> Tensor:
    """Return means weighted by `window` along `dim`, where the whole window fits: n weights leave n - 1 places less."""
    length = maps.shape[dim] - len(window) + 1
    means = maps.narrow(dim, 0, length) * window[0]
    for offset, weight in enumerate(window[1:], start=1):
        means.add_(maps.narrow(dim, offset, length), alpha=weight)
    return means


def _root(covariance: Tensor) -> Tensor:
    """Return R [D, rank] with R R^T the covariance [D, D]: a pivoted Cholesky factorisation, stopped at the rank."""
    from scipy.linalg.lapack import dpstrf

    factor, pivots, rank, _ = dpstrf(covariance.cpu().numpy(), lower=1)
    root = np.empty((len(factor), rank))
    root[pivots - 1] = np.tril(factor)[:, :rank]  # LAPACK counts from 1
    return torch.from_numpy(root)
