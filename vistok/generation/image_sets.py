"""Two sets of images compared by their pixels, without a trained network; and by Inception's features where its weights are.

None of these numbers is an FID but `inception_distance`, and none stands for it: pixels see texture and layout, not what is
shown. Each tells something only beside what it is of real images (`measuring.py`).

- Sliced Wasserstein distance of patches of Laplacian pyramids: Karras et al. 2017, arXiv:1710.10196, section 5, as in the code
  of its authors (`metrics/sliced_wasserstein.py`). Deviation: 2^15 patches of each set and level, where they take 2^21.
- Precision and recall by nearest neighbours: Kynkaanniemi et al. 2019, arXiv:1904.06991, section 3. Deviation: in the principal
  components of pixels, where they take features of VGG16; so the numbers compare with none of theirs.
- Nearest training image of each image, by pixels: an exact search, for copies.
- Frechet distance and inception score: torch-fidelity's network and formulas.

Sets are uint8 [N, 3, H, W] on the CPU, and everything but what Inception computes is computed there.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.metrics import frechet_distance
from vistok.networks.inception import Inception

NUM_PATCHES = 2**15  # of each set and level
PATCH, SMALLEST_LEVEL = 7, 16  # pixels a side
NUM_REPEATS, NUM_DIRECTIONS = 4, 128  # directions are drawn so often, so many at once
NUM_COMPONENTS = 128  # principal components of pixels
MOST_FITTED = 4096  # images that the components are found from
NUM_ROUNDS, NUM_SPARE = 4, 32  # of the subspace iteration; directions that it has beside those that are kept
NEIGHBOURS = 3  # k of precision and recall
NUM_CANDIDATES = 32  # training images that are compared pixel by pixel, where these are enough
AT_ONCE = 512  # images that are made float together
MOST_DISTANCES = 2**24  # that are held at once, 64 MB
NUM_SPLITS = 10  # of the inception score


# Sliced Wasserstein distance.


def sliced_wasserstein(ours: dict[int, Tensor], theirs: dict[int, Tensor], seed: int = 0) -> dict[int, float]:
    """Return the sliced Wasserstein distance of two sets' patches at each level of their Laplacian pyramids, times 1,000.

    Args:
        ours, theirs: what `descriptors` returned of them.
        seed: of the directions.

    Returns:
        height of a level's images in pixels to the distance, at least 0.

    Source: arXiv:1710.10196, section 5.
    """
    drawn, found = torch.Generator().manual_seed(seed), {}
    for height in ours:
        means = []
        for _ in range(NUM_REPEATS):
            directions = F.normalize(torch.randn(NUM_DIRECTIONS, ours[height].shape[1], generator=drawn), dim=1)
            # numpy, whose sort of float32 is several times as fast as torch's
            first, second = (np.sort((directions @ of[height].T).numpy(), axis=1) for of in (ours, theirs))  # [128, P]
            means.append(np.abs(first - second).mean(dtype=np.float64))
        found[height] = 1000 * float(np.mean(means))
    return found


def descriptors(images: Tensor, seed: int = 0) -> dict[int, Tensor]:
    """Return patches of each level of a set's Laplacian pyramids, normalised by each colour's mean and deviation over the set.

    The n-th patches of sets of one size lie at one place, so that a set is at distance 0 from itself.

    Args:
        images: uint8 [N, 3, H, W], H and W at least 16.
        seed: of where patches lie.

    Returns:
        height of a level's images in pixels, halved from H as long as neither side is below 16, to float32 [P, 3 * 7 * 7].

    Source: arXiv:1710.10196, section 5.
    """
    drawn, heights, smaller = torch.Generator().manual_seed(seed), [images.shape[2]], min(images.shape[2:]) // 2
    while smaller >= SMALLEST_LEVEL:
        heights.append((heights[-1] + 1) // 2)
        smaller //= 2
    owners = torch.arange(NUM_PATCHES) * len(images) // NUM_PATCHES  # the image of each patch
    places = [torch.rand(NUM_PATCHES, 2, generator=drawn, dtype=torch.float64) for _ in heights]
    parts: list[list[Tensor]] = [[] for _ in heights]
    for first in range(0, len(images), AT_ONCE):
        mine = slice(*torch.searchsorted(owners, torch.tensor([first, first + AT_ONCE])).tolist())
        for level, band in enumerate(laplacian_pyramid(images[first : first + AT_ONCE].float(), len(heights))):
            windows = band.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # [b, 3, h - 6, w - 6, 7, 7], no copy
            top, left = (places[level][mine] * torch.tensor(windows.shape[2:4])).long().unbind(1)
            parts[level].append(windows[owners[mine] - first, :, top, left])  # [p, 3, 7, 7]
    return {height: _normalised(torch.cat(part)) for height, part in zip(heights, parts, strict=True)}


def _normalised(patches: Tensor) -> Tensor:
    """Return patches [P, 3, 7, 7] as [P, 147], each colour of mean 0 and deviation 1 over all."""
    mean = patches.mean((0, 2, 3), keepdim=True, dtype=torch.float64).float()
    patches = patches - mean
    deviation = patches.square().mean((0, 2, 3), keepdim=True, dtype=torch.float64).sqrt().float()
    return (patches / deviation.clamp(min=1e-6)).flatten(1)


def laplacian_pyramid(images: Tensor, num_levels: int) -> list[Tensor]:
    """Return the bands of images, finest first: what each level has beyond the next, and the last level itself.

    Args:
        images: float [B, 3, H, W].
        num_levels: how many.

    Returns:
        float [B, 3, h, w], each half as high and wide as the one before, rounded up.

    Source: arXiv:1710.10196, section 5, after Burt and Adelson 1983; the filter is (1, 4, 6, 4, 1) / 16 along each side.
    """
    bands = [images]
    for _ in range(1, num_levels):
        smaller = _blurred(bands[-1])[:, :, ::2, ::2]
        spread = torch.zeros_like(bands[-1])
        spread[:, :, ::2, ::2] = smaller
        bands[-1] = bands[-1] - 4 * _blurred(spread)
        bands.append(smaller)
    return bands


def _blurred(images: Tensor) -> Tensor:
    weights = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    kernel = weights.view(1, 1, 5, 1) * weights.view(1, 1, 1, 5)
    padded = F.pad(images.flatten(0, 1).unsqueeze(1), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, kernel).reshape(images.shape)


# Neighbours in pixels.


class PixelSpace(NamedTuple):
    """Principal components of the pixels of images, in [0, 1].

    Attributes:
        mean: float32 [D] of the D = 3 * H * W pixels.
        axes: float32 [D, k], orthonormal, those of most variance first.
        explained: share of the variance that lies in them, in [0, 1].
    """

    mean: Tensor
    axes: Tensor
    explained: float

    @classmethod
    def fit(cls, images: Tensor, number: int = NUM_COMPONENTS, seed: int = 0) -> "PixelSpace":
        """Find the components of at most 4,096 images of a set, drawn at random.

        By subspace iteration over batches, so that no D x D matrix is made: nearly the components of most variance, and
        orthonormal in any case.

        Args:
            images: uint8 [N, 3, H, W].
            number: of components, at most; there are no more than pixels or images.
            seed: of these images, and of the subspace that it begins with.

        Source: Halko et al. 2011, arXiv:0909.4061, algorithm 4.4.
        """
        drawn = torch.Generator().manual_seed(seed)
        chosen = images[torch.randperm(len(images), generator=drawn)[:MOST_FITTED]]  # files may lie in turns of classes
        mean = sum(rows.sum(0, dtype=torch.float64) for rows in _unit_rows(chosen)).div(len(chosen)).float()
        width = min(number + NUM_SPARE, len(mean), len(chosen))
        axes = torch.randn(len(mean), width, generator=drawn)
        for _ in range(NUM_ROUNDS):
            images_of_axes = sum((rows - mean).T @ ((rows - mean) @ axes) for rows in _unit_rows(chosen))
            axes = torch.linalg.qr(images_of_axes).Q
        projected = torch.cat([(rows - mean) @ axes for rows in _unit_rows(chosen)]).double()
        values, vectors = torch.linalg.eigh(projected.T @ projected)  # smallest first
        kept = min(number, width)
        total = sum(float((rows - mean).square().sum(dtype=torch.float64)) for rows in _unit_rows(chosen))
        explained = float(values[-kept:].sum()) / total if total else 1.0
        return cls(mean, axes @ vectors.flip(1)[:, :kept].float(), min(explained, 1.0))

    def coordinates(self, images: Tensor) -> Tensor:
        """Return where images lie, float32 [N, k + 1]; the last is the norm of what lies outside of the components.

        Two images are never farther apart in these coordinates than in their pixels: by Pythagoras in the components, and the
        rest by the triangle's inequality.

        Args:
            images: uint8 [N, 3, H, W].
        """
        parts = []
        for rows in _unit_rows(images):
            inside = (rows - self.mean) @ self.axes
            outside = (rows - self.mean).square().sum(1) - inside.square().sum(1)
            parts.append(torch.cat([inside, outside.clamp(min=0).sqrt().unsqueeze(1)], dim=1))
        return torch.cat(parts)


def _unit_rows(images: Tensor) -> Iterator[Tensor]:
    """Yield images, some at a time, as float32 [b, D] in [0, 1]."""
    for some in images.split(AT_ONCE):
        yield some.flatten(1).float().div_(255)


def precision(images: Tensor, reals: Tensor, k: int = NEIGHBOURS) -> float:
    """Return the share of points that lie on the manifold of others; with the two exchanged it is the recall.

    The manifold of a set is all that is as near to one of its points as that point's k-th neighbour in the set.

    Args:
        images: float [N, d], the points.
        reals: float [M, d], the others, M > k.
        k: neighbours.

    Returns:
        in [0, 1].

    Source: arXiv:1904.06991, equations 1 and 2.
    """
    radii = torch.cat([torch.cdist(some, reals).topk(k + 1, largest=False).values[:, k] for some in _chunks(reals)])
    inside = [(torch.cdist(some, reals) <= radii).any(1) for some in _chunks(images, len(reals))]
    return float(torch.cat(inside).float().mean())


def _chunks(points: Tensor, num_others: int | None = None) -> tuple[Tensor, ...]:
    """Return points in parts whose distances to others, or to one another, are held at once."""
    return points.split(max(1, MOST_DISTANCES // (num_others or len(points))))


class Nearest(NamedTuple):
    """The nearest of some images to each of others.

    Attributes:
        distances: float32 [N], root mean squared difference of the pixels, in grey levels of 0 to 255.
        indices: int64 [N], which one it is.
    """

    distances: Tensor
    indices: Tensor


def nearest_images(images: Tensor, training: Tensor, space: PixelSpace) -> Nearest:
    """Find the nearest training image of each image by the distance of their pixels; exact.

    The coordinates in `space` bound a distance from below: the 32 training images of the lowest bounds are compared pixel by
    pixel, and then all whose bound is below what was found.

    Args:
        images: uint8 [N, 3, H, W].
        training: uint8 [M, 3, H, W].
        space: of any images of this size.
    """
    near, places = space.coordinates(training), space.coordinates(images)
    number, pixels = min(NUM_CANDIDATES, len(training)), training[0].numel()
    together = max(1, min(MOST_DISTANCES // len(training), 2 * MOST_DISTANCES // (number * pixels)))
    largest = near.square().sum(1).max()
    rows, references, parts = images.flatten(1), training.flatten(1), []
    for some, here in zip(rows.split(together), places.split(together), strict=True):
        rounding = 1e-5 * (here.square().sum(1, keepdim=True) + largest)
        bounds = torch.cdist(here, near).square() - rounding  # [b, M], of squared distances
        lowest = bounds.topk(number, largest=False)
        squares, place = _squared(some.unsqueeze(1), references[lowest.indices]).min(1)
        indices = lowest.indices.gather(1, place.unsqueeze(1)).squeeze(1)
        for row in (lowest.values[:, -1] < squares).nonzero().flatten().tolist():  # others may be nearer
            for others in (bounds[row] < squares[row]).nonzero().flatten().split(8 * AT_ONCE):
                found, place = _squared(some[row], references[others]).min(0)
                if found < squares[row]:
                    squares[row], indices[row] = found, others[place]
        parts.append(((squares / pixels).sqrt() * 255, indices))
    distances, indices = (torch.cat(part) for part in zip(*parts, strict=True))
    return Nearest(distances, indices)


def _squared(rows: Tensor, others: Tensor) -> Tensor:
    """Return the squared distances of uint8 pixels [..., D], which broadcast, as of pixels in [0, 1]."""
    return others.float().sub_(rows.float()).square_().sum(-1) / 255**2


# By Inception's features.


class InceptionFeatures(NamedTuple):
    """What Inception makes of images.

    Attributes:
        features: float32 [N, 2048], which the Frechet distance compares.
        logits: float32 [N, 1008], without their bias, which the inception score is of.
    """

    features: Tensor
    logits: Tensor


def inception_features(network: Inception, images: Tensor, batch_size: int = 64) -> InceptionFeatures:
    """Return what Inception makes of images.

    Args:
        network: on its device.
        images: uint8 [N, 3, H, W].
        batch_size: images at a time.
    """
    device, parts = next(network.parameters()).device, []
    with torch.inference_mode():
        for some in images.split(batch_size):
            features = network(some.to(device))
            parts.append((features.cpu(), network.logits(features).cpu()))
    return InceptionFeatures(*(torch.cat(part) for part in zip(*parts, strict=True)))


def inception_distance(images: InceptionFeatures, reals: InceptionFeatures) -> float:
    """Return the Frechet distance of two sets' features: gFID where the first are samples; at least 0.

    Source: arXiv:1706.08500, equation 6.
    """
    moments = []
    for features in (images.features.double(), reals.features.double()):
        moments += [features.mean(0), features.T.cov()]
    return max(0.0, float(frechet_distance(*moments)))  # rounding


def inception_score(images: InceptionFeatures) -> tuple[float, float]:
    """Return the inception score, and its deviation over 10 parts of the images, at least 10 of which there must be.

    Source: Salimans et al. 2016, arXiv:1606.03498, section 4, as torch-fidelity computes it.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    found = isc_features_to_metric(images.logits, splits=NUM_SPLITS, shuffle=True, rng_seed=2020)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]
