"""Measures of sets of images: against the papers' formulas written again, brute force, and sets whose answer is known."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
import torchvision
from helpers.generators import pictures
from helpers.inception import measured_by_torch_fidelity
from helpers.weights import write_inception_weights
from torch import Tensor

from vistok.generation import image_sets
from vistok.generation.image_sets import (
    PixelSpace,
    descriptors,
    inception_distance,
    inception_features,
    inception_score,
    laplacian_pyramid,
    nearest_images,
    precision,
    sliced_wasserstein,
)
from vistok.images import image_png
from vistok.networks.inception import build_inception


def blurred(images: Tensor, sigma: float) -> Tensor:
    return torchvision.transforms.functional.gaussian_blur(images, 9, sigma)


def swd(images: Tensor, others: Tensor, seed: int = 0) -> dict[int, float]:
    return sliced_wasserstein(descriptors(images, seed), descriptors(others, seed), seed)


FILTER = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def pyramid_of_the_paper(images: np.ndarray, num_levels: int) -> list[np.ndarray]:
    """As `generate_laplacian_pyramid` of Karras et al., for sizes that are even."""
    bands = [images]
    for _ in range(1, num_levels):
        smaller = scipy.ndimage.convolve(bands[-1], FILTER[None, None], mode="mirror")[:, :, ::2, ::2]
        spread = np.zeros_like(bands[-1])
        spread[:, :, ::2, ::2] = smaller
        bands[-1] = bands[-1] - scipy.ndimage.convolve(spread, 4 * FILTER[None, None], mode="mirror")
        bands.append(smaller)
    return bands


def distance_of_the_paper(images: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> float:
    """Of one level, with random patches and directions of its own: 32 patches an image."""

    def patches(of: np.ndarray) -> np.ndarray:
        cut = []
        for image in of:
            for _ in range(32):
                top, left = rng.integers(0, image.shape[1] - 6), rng.integers(0, image.shape[2] - 6)
                cut.append(image[:, top : top + 7, left : left + 7])
        found = np.stack(cut) - np.stack(cut).mean(axis=(0, 2, 3), keepdims=True)
        return (found / found.std(axis=(0, 2, 3), keepdims=True)).reshape(len(found), -1)

    first, second = patches(images), patches(others)
    directions = rng.normal(size=(147, 512))
    directions /= np.linalg.norm(directions, axis=0)
    return 1000 * np.abs(np.sort(first @ directions, axis=0) - np.sort(second @ directions, axis=0)).mean()


@pytest.fixture
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "NUM_PATCHES", 2**12)


@pytest.mark.parametrize(("size", "num_levels"), [(32, 2), (64, 3)])
def test_the_pyramid_is_that_of_the_paper(size: int, num_levels: int) -> None:
    images = pictures(3, size).float()
    bands = laplacian_pyramid(images, num_levels)
    for band, expected in zip(bands, pyramid_of_the_paper(images.double().numpy(), num_levels), strict=True):
        torch.testing.assert_close(band.double(), torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_odd_sizes_have_a_pyramid_that_adds_up(few_patches: None) -> None:
    flat = torch.full((1, 3, 33, 47), 100.0)
    fine, coarse = laplacian_pyramid(flat, 2)
    assert fine.shape == flat.shape and coarse.shape == (1, 3, 17, 24)
    assert fine.abs().max() < 1e-3 and (coarse - 100).abs().max() < 1e-3
    images = torch.randint(0, 256, (8, 3, 33, 47), dtype=torch.uint8)
    assert swd(images, images) == {33: 0, 17: 0}


def test_sliced_wasserstein_is_that_of_the_paper(few_patches: None) -> None:
    images, others = pictures(128), blurred(pictures(128, seed=1), 0.7)
    found = swd(images, others)
    assert [*found] == [32, 16]
    bands = (pyramid_of_the_paper(of.double().numpy(), 2) for of in (images, others))
    for (size, value), ours, theirs in zip(found.items(), *bands, strict=True):
        expected = distance_of_the_paper(ours, theirs, np.random.default_rng(0))
        assert value == pytest.approx(expected, rel=0.15), size
    assert found[32] > 1.5 * found[16], "what is blurred is fine"


def test_sliced_wasserstein_of_a_set_and_itself_is_0_and_grows_with_blur(few_patches: None) -> None:
    images, others = pictures(128), pictures(128, seed=1)
    assert set(swd(images, images).values()) == {0}
    by_blur = [swd(images, others)]
    by_blur += [swd(images, blurred(others, sigma)) for sigma in (0.4, 0.6, 1.0)]
    fine = [levels[32] for levels in by_blur]
    assert fine == sorted(fine) and fine[0] > 0 and fine[-1] > 2 * fine[0]


def test_sliced_wasserstein_by_seed_batches_and_sizes(few_patches: None, monkeypatch: pytest.MonkeyPatch) -> None:
    images, others = pictures(50), pictures(70, seed=1)
    found = swd(images, others, seed=3)
    assert swd(images, others, seed=3) == found != swd(images, others, seed=4)
    assert swd(others, images, seed=3) == found
    monkeypatch.setattr(image_sets, "AT_ONCE", 7)
    for size, value in swd(images, others, seed=3).items():
        assert value == pytest.approx(found[size], rel=1e-4)
    flat = torch.full((4, 3, 16, 16), 7, dtype=torch.uint8)
    assert np.isfinite(swd(flat, pictures(4, 16))[16])


def by_brute_force(points: np.ndarray, reals: np.ndarray, k: int) -> float:
    inside = 0
    for point in points:
        for real in reals:
            to_others = sorted(np.linalg.norm(real - other) for other in reals)  # the first is the point itself
            if np.linalg.norm(point - real) <= to_others[k]:
                inside += 1
                break
    return inside / len(points)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_is_that_of_the_paper(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = torch.Generator().manual_seed(0)
    points, reals = torch.randn(40, 4, generator=drawn) + 0.7, torch.randn(50, 4, generator=drawn)
    expected = by_brute_force(points.double().numpy(), reals.double().numpy(), k)
    assert 0.1 < expected < 0.9
    assert precision(points, reals, k) == pytest.approx(expected)
    monkeypatch.setattr(image_sets, "MOST_DISTANCES", 120)  # two points at once
    assert precision(points, reals, k) == pytest.approx(expected)


def test_precision_and_recall_of_clouds() -> None:
    drawn = torch.Generator().manual_seed(0)
    cloud, same = torch.randn(2, 600, 4, generator=drawn)
    assert precision(cloud, cloud) == 1
    assert precision(same, cloud) > 0.8 and precision(cloud, same) > 0.8
    narrow = 0.3 * same  # some of what there is, well: precise, with little recall
    assert precision(narrow, cloud) > 0.97 and precision(cloud, narrow) < 0.3
    wide = 3 * same
    assert precision(wide, cloud) < 0.4 and precision(cloud, wide) > 0.9
    assert precision(cloud + 20, cloud) == 0 == precision(cloud, cloud + 20)


def test_components_are_those_of_the_singular_values() -> None:
    drawn = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(768, 5, generator=drawn)).Q
    weights = torch.randn(300, 5, generator=drawn) * torch.tensor([900.0, 700, 500, 300, 200])
    images = (128 + weights @ directions.T).clamp(0, 255).round().to(torch.uint8).view(-1, 3, 16, 16)
    space = PixelSpace.fit(images, number=5)
    torch.testing.assert_close(space.axes.T @ space.axes, torch.eye(5), rtol=0, atol=1e-5)
    centred = images.flatten(1).double() / 255
    centred = centred - centred.mean(0)
    _, values, of_svd = torch.linalg.svd(centred, full_matrices=False)
    assert space.explained == pytest.approx(float(values[:5].square().sum() / values.square().sum()), rel=1e-4)
    for axis, expected in zip(space.axes.T, of_svd[:5], strict=True):
        assert abs(float(axis.double() @ expected)) == pytest.approx(1, abs=1e-3)
    assert torch.equal(PixelSpace.fit(images, number=5).axes, space.axes)


def test_coordinates_bound_distances_from_below() -> None:
    images = pictures(60)
    places = PixelSpace.fit(pictures(100, seed=1), number=6).coordinates(images)
    assert places.shape == (60, 7)
    pixels = torch.cdist(images.flatten(1).double(), images.flatten(1).double()) / 255
    bounds = torch.cdist(places.double(), places.double())
    assert (bounds <= pixels + 1e-4).all() and bounds.mean() > 0.2 * pixels.mean()


@pytest.mark.parametrize("candidates", [1, 4, 32])
@pytest.mark.parametrize("kind", ["pictures", "noise"])
def test_the_nearest_image_is_the_nearest(kind: str, candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "NUM_CANDIDATES", candidates)
    monkeypatch.setattr(image_sets, "AT_ONCE", 50)
    monkeypatch.setattr(image_sets, "MOST_DISTANCES", 2**12)  # a few at once
    if kind == "pictures":
        images, training = pictures(40, 16), pictures(150, 16, seed=1)
    else:  # components tell next to nothing of these
        images, training = torch.randint(0, 256, (190, 3, 16, 16), dtype=torch.uint8).split([40, 150])
    found = nearest_images(images, training, PixelSpace.fit(training, number=8))
    apart = (images.flatten(1).double().unsqueeze(1) - training.flatten(1).double()).square().mean(2).sqrt()
    expected, indices = apart.min(1)
    assert torch.equal(found.indices, indices)
    torch.testing.assert_close(found.distances.double(), expected, rtol=1e-4, atol=1e-4)


def test_a_copy_is_found_at_distance_0() -> None:
    training = pictures(300, 16)
    images = torch.cat([training[[7, 299]], pictures(2, 16, seed=1), (training[:1].int() + 2).clamp(max=255).byte()])
    found = nearest_images(images, training, PixelSpace.fit(training))
    assert found.indices[:2].tolist() == [7, 299] and found.distances[:2].tolist() == [0, 0]
    assert (found.distances[2:4] > 10).all()
    assert found.indices[4] == 0 and 1.8 < float(found.distances[4]) <= 2, "two grey levels"


@pytest.mark.slow
def test_inception_gives_what_torch_fidelity_gives(tmp_path: Path) -> None:
    weights = write_inception_weights(tmp_path / "inception.pth")
    images, others = pictures(12), blurred(pictures(12, seed=1), 1)
    for name, some in (("images", images), ("others", others)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(some):
            (tmp_path / name / f"{number:04}.png").write_bytes(image_png(image))
    expected = measured_by_torch_fidelity(tmp_path / "images", tmp_path / "others", weights, "fid", "isc")
    network = build_inception(weights)
    ours, theirs = (inception_features(network, of, batch_size=8) for of in (images, others))
    assert inception_distance(ours, theirs) == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert inception_distance(ours, ours) == pytest.approx(0, abs=1e-3 * expected["frechet_inception_distance"])
    mean, deviation = inception_score(ours)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-3) and mean > 1
    assert deviation == pytest.approx(expected["inception_score_std"], rel=1e-2)
