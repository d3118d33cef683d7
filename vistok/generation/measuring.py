"""Samples weighed: how near they are to real images, whether they are copies, and what the same numbers are of known sets.

    python -m vistok.generation.quality runs/my-generator

draws as many samples as half of the test images, and writes `quality.json` into the run. The measures are those of
`vistok.generation.image_sets`; none needs a trained network but the two by Inception, which are left out where its weights are
not. The test images are split in two at random: everything is compared with one half, and the other half says what the numbers
mean, as the controls

    real              as it is: no generator can be expected to do better
    reconstructions   by the tokenizer: the ceiling of whatever is drawn from its tokens
    shuffled          decoded from their own tokens, which each image has in another order: right tokens in wrong places

All sets that are compared are of one size, as each of these numbers depends on it. In pixels a blurred or flat image is nearer
to any other: so `nearer_share` is to be read beside that of the reconstructions, which copy no training image either, and
`precision` never without `recall`: shuffled images may have more of the one than real images, and have next to nothing of the
other. And all of them see no more than patches and coarse layout.
"""

import dataclasses
import datetime
import json
import math
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from vistok.data import ImageDataset, called, eval_batches, open_dataset
from vistok.generation import image_sets
from vistok.generation.generator import Generator
from vistok.generation.image_sets import Nearest, PixelSpace
from vistok.images import to_float, to_uint8, unit_to_uint8
from vistok.metrics import UNBIASED_FID_IMAGES
from vistok.networks.inception import Inception, build_inception
from vistok.quantizers.levels import as_indices
from vistok.runs import Run
from vistok.system.devices import computing, eval_view, usable_device
from vistok.system.paths import resolve_path
from vistok.system.progress import progress_bar
from vistok.system.provenance import provenance
from vistok.system.values import PositiveInt, Seed, checked, must_be
from vistok.system.weights import Unavailable
from vistok.tokenizer import VisualTokenizer

CLOSEST = 16  # samples that a record names with their nearest training images
FEWEST = image_sets.NEIGHBOURS + 1  # images of a set: each has so many neighbours
CONTROLS = ("real", "reconstructions", "shuffled")
OF_INCEPTION = ("gfid", "inception_score", "inception_score_deviation")
Sets = dict[str, Tensor]  # name of what is measured -> uint8 [N, 3, H, W]
Values = dict[str, dict[str, Any]]  # name of what is measured -> name of a value -> value
Share = Annotated[float, must_be("in (0, 1); 0.05 is usual", lambda share: 0 < share < 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """What `measure_samples` found; `to_json` is what `quality.json` holds.

    A measured set is a dict with these values; one that could not be measured is None:

        swd: sliced Wasserstein distance of patches, times 1,000, mean over the levels; swd_levels: of each, by its height.
        precision, recall: share of the images near to real ones, and of real ones near to the images, in pixels' components.
        nearest_distance: mean distance to the nearest training image, root mean squared, in grey levels of 0 to 255.
        nearer_share: share of the images that are as near to a training image as the `quantile` of the test images.
        gfid, inception_score, inception_score_deviation: by Inception.

    Attributes:
        samples: the samples, measured.
        controls: "real", "reconstructions" and "shuffled", measured; None where there is no tokenizer.
        closest: of the samples that are nearest to a training image, nearest first, `sample` and `training_image`, numbers,
            and `distance`.
        unavailable: value or control to the reason why it is None.
        notes: value to what must be said beside it.
        settings: sizes of the sets and choices that bear on the numbers; `nearer_than` is the distance at `quantile`.
        dataset: records of the "training" and "test" images; empty where tensors were measured.
        provenance: versions, commit, device, threads, day, time.
        nearest: of every sample, not part of the record.
    """

    samples: dict[str, Any]
    controls: dict[str, dict[str, Any] | None]
    closest: list[dict[str, Any]]
    unavailable: dict[str, str]
    notes: dict[str, str]
    settings: dict[str, Any]
    dataset: dict[str, Any]
    provenance: dict[str, Any]
    nearest: Nearest = dataclasses.field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the record, fit for JSON."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.compare}

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def measure_samples(
    samples: Tensor,
    training_images: Tensor,
    test_images: Tensor,
    *,
    tokenizer: VisualTokenizer | None = None,
    quantile: float = 0.05,
    seed: int = 0,
    inception: bool | str | Path = True,
    batch_size: int = 64,
    device: str | torch.device | None = None,
) -> Quality:
    """Measure generated images against real ones, beside controls.

    Args:
        samples, training_images, test_images: uint8 [N, 3, H, W], or float in [0, 1], which is rounded as a PNG file is; of one
            size. Samples beyond half of the test images count for their nearest training images only.
        tokenizer: whose tokens were generated, for the controls; None: the real images are the only one.
        quantile: of the test images' distances to their nearest training images, below which an image is "nearer", in (0, 1).
        seed: of the halves, patches, directions and shuffles.
        inception: whether to measure gFID and the inception score, which take most of the time; or torch-fidelity's weights
            file. True: already downloaded, or downloaded now (91 MB).
        batch_size: images at a time of networks; changes numbers only by rounding.
        device: of networks; None: a GPU where there is one, or else the CPU.

    Raises:
        ValueError: there are too few images, or of several sizes, or they are out of range; the tokenizer does not take them.
        TypeError: an argument is of another type.
        FileNotFoundError: there is no such weights file.
    """
    began = time.perf_counter()
    options = check_options(quantile=quantile, seed=seed, inception=inception, batch_size=batch_size)
    quantile, seed, inception, batch_size = options.values()
    given = {"samples": samples, "training_images": training_images, "test_images": test_images}
    samples, training, test = (_as_uint8(name, images) for name, images in given.items())
    check_sizes(samples, training, test)
    device, unavailable = usable_device(device), {}
    network = _network(inception, unavailable, device)
    order, number = torch.Generator().manual_seed(seed), min(len(samples), len(test) // 2)
    halves = torch.randperm(len(test), generator=order)[: 2 * number].view(2, number)
    chosen = torch.randperm(len(samples), generator=order)[:number]
    real, reference = test[halves[0]], test[halves[1]]
    sets = {"samples": samples[chosen]} | controls(tokenizer, real, seed, batch_size=batch_size, device=device)
    missing = [name for name in CONTROLS if name not in sets]
    unavailable |= dict.fromkeys(missing, "No tokenizer is given, whose they would be.")
    space = PixelSpace.fit(training, seed=seed)
    nearest, of_test = (image_sets.nearest_images(of, training, space) for of in (samples, test))
    nearer_than = float(np.quantile(of_test.distances.numpy(), quantile))
    found = {"samples": nearest, "real": Nearest(*(of[halves[0]] for of in of_test))}
    found |= {name: image_sets.nearest_images(sets[name], training, space) for name in sets.keys() - found.keys()}
    values = [
        _by_patches(sets, reference, seed, unavailable),
        _by_pixels(sets, reference, space),
        _by_training_images(found, nearer_than),
        _by_inception(network, sets, reference, unavailable, batch_size),
    ]
    measured = {name: {key: value for part in values for key, value in part[name].items()} for name in sets}
    settings = {
        **{f"num_{name}": len(of) for name, of in zip(given, (samples, training, test), strict=True)},
        "num_compared": number,
        **{"quantile": quantile, "nearer_than": nearer_than, "seed": seed},
        **_settings(space, network, test),
    }
    seconds = {"date": datetime.date.today().isoformat(), "wall_seconds": round(time.perf_counter() - began, 3)}
    return Quality(
        samples=measured["samples"],
        controls={name: measured.get(name) for name in CONTROLS},
        closest=_closest(nearest),
        unavailable=unavailable,
        notes={} if network is None else _notes(network, number),
        settings=settings,
        dataset={},
        provenance=provenance(device) | seconds,
        nearest=nearest,
    )


def check_options(
    *, quantile: float = 0.05, seed: int = 0, inception: bool | str | Path = True, batch_size: int = 64
) -> dict[str, Any]:
    """Return arguments of `measure_samples`, NumPy's numbers as Python's, checked before anything is drawn or computed.

    Args:
        quantile, seed, inception, batch_size: as of `measure_samples`.

    Returns:
        them by their names, in this order; a path as text.

    Raises:
        ValueError, TypeError, FileNotFoundError: as of `measure_samples`.
    """
    quantile, seed = checked("quantile", Share, quantile), checked("seed", Seed, seed)
    batch_size = checked("batch_size", PositiveInt, batch_size)
    inception = checked("inception", bool | str, str(inception) if isinstance(inception, Path) else inception)
    if isinstance(inception, str) and not resolve_path(inception).exists():
        raise FileNotFoundError(f"inception is {inception!r}, but there is no such file.")
    return {"quantile": quantile, "seed": seed, "inception": inception, "batch_size": batch_size}


def controls(
    tokenizer: VisualTokenizer | None,
    images: Tensor,
    seed: int = 0,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
) -> dict[str, Tensor]:
    """Return what samples are read beside: real images, their reconstructions, and these from shuffled tokens.

    Args:
        tokenizer: None: real images only.
        images: uint8 [N, 3, H, W].
        seed: of the shuffles.
        batch_size: images at a time.
        device: None: a GPU where there is one, or else the CPU.

    Returns:
        uint8 [N, 3, H, W] under "real", "reconstructions" and "shuffled". Levels on one grid are shuffled together, so that a
        place keeps what makes it up; those on other grids each for itself.

    Raises:
        ValueError: the tokenizer has no codebook, or does not take images of this size.
    """
    found = {"real": images}
    if tokenizer is None:
        return found
    view, drawn = eval_view(tokenizer, usable_device(device)), torch.Generator().manual_seed(seed)
    parts: dict[str, list[Tensor]] = {"reconstructions": [], "shuffled": []}
    device = next(view.parameters()).device
    grids = dict.fromkeys(view.token_grids(*images.shape[2:]))
    orders = {grid: torch.rand(len(images), math.prod(grid), generator=drawn).argsort(1).to(device) for grid in grids}
    with computing(device, exact=True):
        for rows in torch.arange(len(images)).split(batch_size):
            levels = view.encode_levels(to_float(images[rows].to(device)))  # [b, h_l, w_l] each
            shuffled = tuple(of.flatten(1).gather(1, orders[of.shape[1:]][rows]).view_as(of) for of in levels)
            for name, tokens in (("reconstructions", levels), ("shuffled", shuffled)):
                parts[name].append(to_uint8(view.decode(as_indices(tokens))).cpu())
    return found | {name: torch.cat(part) for name, part in parts.items()}


def _as_uint8(name: str, images: Tensor) -> Tensor:
    """Return images as uint8 [N, 3, H, W] on the CPU; ValueError where they are no images."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3:
        what = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"{name} must be uint8 [N, 3, H, W], or float in [0, 1], not {what}.")
    if images.dtype == torch.uint8:
        return images.cpu()
    if not images.is_floating_point():
        raise ValueError(f"{name} are {images.dtype}, but must be uint8, or float in [0, 1].")
    if images.numel():
        low, high = images.aminmax()
        if not (low >= 0 and high <= 1):  # so written that NaN fails
            raise ValueError(f"{name} have values from {low:.4g} to {high:.4g}, but must be in [0, 1], or uint8.")
    return unit_to_uint8(images.cpu())


def check_sizes(samples: Tensor, training: Tensor, test: Tensor) -> None:
    """Raise ValueError where sets of images are too small to be compared, or are of several sizes."""
    sets = {"samples": (samples, FEWEST), "test_images": (test, 2 * FEWEST), "training_images": (training, 2)}
    for name, (images, fewest) in sets.items():
        if len(images) < fewest:
            raise ValueError(f"{name} hold {len(images)} images, but must hold at least {fewest}.")
        if images.shape[1:] != test.shape[1:]:
            height, width = images.shape[2:]
            raise ValueError(
                f"{name} are {height}x{width} pixels, but test_images {test.shape[2]}x{test.shape[3]}: all must be of one size."
            )


def _settings(space: PixelSpace, network: Inception | None, test: Tensor) -> dict[str, Any]:
    """Return what a record says of how everything was measured."""
    return {
        "image_size": list(test.shape[2:]),
        "num_patches": image_sets.NUM_PATCHES,
        "neighbours": image_sets.NEIGHBOURS,
        "components": space.axes.shape[1],
        "explained_variance": space.explained,
        "inception_sha256": None if network is None else network.weights_sha256,
    }


def _by_patches(sets: Sets, reference: Tensor, seed: int, unavailable: dict[str, str]) -> Values:
    """Return the values by patches of each set; adds to `unavailable` where there are none."""
    smallest = min(reference.shape[2:])
    if smallest < image_sets.SMALLEST_LEVEL:
        why = f"Images are {smallest} pixels, but it needs at least {image_sets.SMALLEST_LEVEL}."
        unavailable |= {"swd": why, "swd_levels": why}
        return {name: {"swd": None, "swd_levels": None} for name in sets}
    reals, found = image_sets.descriptors(reference, seed), {}
    for name, images in sets.items():
        levels = image_sets.sliced_wasserstein(image_sets.descriptors(images, seed), reals, seed)
        by_height = {str(height): value for height, value in levels.items()}
        found[name] = {"swd": sum(levels.values()) / len(levels), "swd_levels": by_height}
    return found


def _by_pixels(sets: Sets, reference: Tensor, space: PixelSpace) -> Values:
    """Return precision and recall of each set, in the components alone."""
    reals, found = space.coordinates(reference)[:, :-1], {}
    for name, images in sets.items():
        points = space.coordinates(images)[:, :-1]
        found[name] = {
            "precision": image_sets.precision(points, reals),
            "recall": image_sets.precision(reals, points),
        }
    return found


def _by_training_images(nearest: dict[str, Nearest], nearer_than: float) -> Values:
    """Return how near each set is to the training images."""
    return {
        name: {
            "nearest_distance": float(of.distances.mean()),
            # Not below: where that many test images are copies, nothing is below 0, and a copy has to count all the same.
            "nearer_share": float((of.distances <= nearer_than).float().mean()),
        }
        for name, of in nearest.items()
    }


def _network(inception: bool | str | Path, unavailable: dict[str, str], device: torch.device) -> Inception | None:
    """Return Inception on a device; None where it is not asked for or not here, and `unavailable` says why."""
    try:
        if inception is False:
            raise Unavailable("Not asked for (inception=False).")
        return build_inception(None if inception is True else inception).to(device)
    except Unavailable as error:
        unavailable |= dict.fromkeys(OF_INCEPTION, str(error).replace("rfid_weights=FILE", "inception=FILE"))
        return None


def _by_inception(
    network: Inception | None, sets: Sets, reference: Tensor, unavailable: dict[str, str], batch_size: int
) -> Values:
    """Return the values by Inception of each set; adds to `unavailable` those for which the images are too few."""
    found: Values = {name: dict.fromkeys(OF_INCEPTION) for name in sets}
    if network is None:
        return found
    enough = len(reference) >= image_sets.NUM_SPLITS
    if not enough:
        why = f"There are {len(reference)} images, but it needs at least {image_sets.NUM_SPLITS}."
        unavailable |= dict.fromkeys(OF_INCEPTION[1:], why)
    with computing(next(network.parameters()).device, exact=True):
        reals = image_sets.inception_features(network, reference, batch_size)
        for name, images in sets.items():
            features = image_sets.inception_features(network, images, batch_size)
            score = image_sets.inception_score(features) if enough else (None, None)
            values = (image_sets.inception_distance(features, reals), *score)
            found[name] = dict(zip(OF_INCEPTION, values, strict=True))
    return found


def _notes(network: Inception, number: int) -> dict[str, str]:
    """Return what to say beside the values by Inception."""
    reasons = []
    if number < UNBIASED_FID_IMAGES:
        reasons.append(
            f"gFID of {number:,} images against as many is biased upward: it compares with the controls', and with no "
            "published one."
        )
    if not network.published:
        reasons.append("These Inception weights are not the published ones.")
    return {"gfid": " ".join(reasons)} if reasons else {}


def _closest(nearest: Nearest) -> list[dict[str, Any]]:
    order = nearest.distances.argsort(stable=True)[:CLOSEST].tolist()
    return [
        {
            "sample": number,
            "training_image": int(nearest.indices[number]),
            "distance": float(nearest.distances[number]),
        }
        for number in order
    ]


# Of a run.


def draw_samples(
    generator: Generator, tokenizer: VisualTokenizer, number: int, seed: int = 0, *, progress: bool = True, **how: Any
) -> Tensor:
    """Draw images, of the classes in turns where the generator knows classes.

    Args:
        generator: on its device.
        tokenizer: the one whose tokens it was trained on, on the same device.
        number: of images, at least 1.
        seed: of the first image; each has the next.
        progress: show a bar.
        **how: fields of `Sampling`.

    Returns:
        uint8 [N, 3, H, W], on the CPU.

    Raises:
        ValueError, TypeError: `number` is none, or as of `Generator.sample`.
    """
    seed = checked("seed", Seed, seed)
    seeds = range(seed, seed + checked("number", PositiveInt, number))
    checked("the last sample's seed", Seed, seeds[-1])  # before the first is drawn
    num_classes, parts = len(generator.classes), []
    with (
        computing(generator.device, exact=True),
        progress_bar(total=number, desc="drawing", unit=" images", disable=not progress) as bar,
    ):
        for first in range(0, number, 64):
            some = seeds[first : first + 64]
            labels = [(first + place) % num_classes for place in range(len(some))] if num_classes else None
            parts.append(to_uint8(tokenizer.decode(generator.sample(some, labels, **how))).cpu())
            bar.update(len(some))
    return torch.cat(parts)


def measure_run(
    run: Run,
    *,
    num_samples: int | None = None,
    data_root: str | Path | None = None,
    test_fraction: float | None = None,
    sampling: dict[str, Any] | None = None,
    quantile: float = 0.05,
    seed: int = 0,
    inception: bool | str | Path = True,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Quality:
    """Draw samples of a run that trained a generator, and measure them on the images that its tokens are of.

    Args:
        run: the run, which keeps its tokenizer.
        num_samples: how many; None: half of the test images.
        data_root, test_fraction: of the images, as of `open_dataset`.
        sampling: fields of `Sampling`.
        quantile, inception: as of `measure_samples`.
        seed: of the first sample, and as of `measure_samples`.
        device: None: a GPU where there is one, or else the CPU.
        progress: show a bar.

    Returns:
        The record.

    Raises:
        ValueError: the run trains no generator, is not finished, or was trained on other images than those there; or as of
            `measure_samples`.
        FileNotFoundError: the run keeps no generator or no tokenizer.
    """
    num_samples = checked("num_samples", PositiveInt | None, num_samples)
    measuring = check_options(quantile=quantile, seed=seed, inception=inception)
    run.check_kind("generator")
    run.check_finished()
    device = usable_device(device)
    generator = Generator.load(run.path, device)
    if not run.tokenizer_dir.is_dir():
        raise FileNotFoundError(f"{run.path} keeps no tokenizer, which would decode samples: train it with one.")
    tokenizer = VisualTokenizer.load(run.path, device)
    generator.check_tokenizer(tokenizer)
    generator.sampling(bool(generator.classes), **(sampling or {}))  # refused before images are read
    training, test = _images_of(run, tokenizer.image_size, data_root, test_fraction)
    number = len(test) // 2 if num_samples is None else num_samples
    if number < FEWEST or len(test) < 2 * FEWEST:
        raise ValueError(
            f"There would be {number} samples and {len(test)} test images, but there must be at least {FEWEST} and "
            f"{2 * FEWEST}."
        )
    samples = draw_samples(generator, tokenizer, number, measuring["seed"], progress=progress, **(sampling or {}))
    sets = (torch.cat([batch.contiguous() for batch in eval_batches(images, 512)]) for images in (training, test))
    found = measure_samples(samples, *sets, tokenizer=tokenizer, device=device, **measuring)
    dataset = {"training": training.record(), "test": test.record()}
    settings = found.settings | {"sampling": sampling or {}, "by_class": bool(generator.classes)}
    return dataclasses.replace(found, dataset=dataset, settings=settings)


def _images_of(
    run: Run, image_size: int, data_root: str | Path | None, test_fraction: float | None
) -> tuple[ImageDataset, ImageDataset]:
    """Return the training images that the tokens of a run are of, and the test images; ValueError where others are there."""
    record = run.provenance["data"]["images"]
    if record["split"] == "test":
        raise ValueError(f"The generator of {run.path} was trained on the test images: none are left to compare with.")
    reading = {"data_root": data_root, "test_fraction": test_fraction}
    reading["on_bad_image"] = "skip" if record["left_out"] else "raise"
    crop = "adm" if record["crop"] == "adm" else None  # the others have no choice; of all the centre is taken
    training = open_dataset(record["name"], record["split"], image_size, crop=crop, **reading)
    if training.fingerprint != record["fingerprint"]:
        raise ValueError(
            f"The {record['split']} images of {called(record['name'])} are others than those that the generator of {run.path} "
            f"was trained on (fingerprint {training.fingerprint}, then {record['fingerprint']}): give their data_root."
        )
    return training, open_dataset(record["name"], "test", image_size, **reading)
