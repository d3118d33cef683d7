"""A tokenizer and a dataset to a record of metrics, in one streaming pass.

The protocol: the test images in their order, without augmentation; reconstructions clamped to [-1, 1]; both mapped to
[0, 1]; everything in float32 (no autocast, no TF32), sums in float64. A metric that cannot be measured is None in the
record, with the reason beside it, and the others are measured all the same.

Several processes share the images, each once, and all come to the record of one:

    python -m vistok.evaluation runs/<run>
    accelerate launch --multi_gpu -m vistok.evaluation runs/<run>
"""

import contextlib
import dataclasses
import datetime
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torchmetrics import Metric

from vistok.data import ImageDataset, called, check_loading, eval_batches, open_given, share
from vistok.evaluation.record import Evaluation
from vistok.evaluation.saving import SavedImages
from vistok.evaluation.statistics import kept_statistics
from vistok.images import to_float, to_unit
from vistok.metrics import LPIPS, PSNR, RFID, SSIM, SSIMUniform7
from vistok.quantizers.usage import USAGES, CodebookUsage
from vistok.system.devices import check_default_dtype, computing, eval_view, usable_device
from vistok.system.files import shown
from vistok.system.paths import resolve_path
from vistok.system.processes import of_all_processes, rank_and_number
from vistok.system.progress import progress_bar
from vistok.system.provenance import provenance
from vistok.system.values import checked
from vistok.system.weights import Unavailable, check_finite
from vistok.system.words import misspelt
from vistok.tokenizer import VisualTokenizer

OF_CODES = (*USAGES, "bits_per_pixel")  # what is not applicable where there is no codebook
LPIPS_CHOICES = ("if-present", "download", "off")


def evaluate(
    tokenizer: VisualTokenizer,
    dataset: str | ImageDataset = "photos",
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    max_images: int | None = None,
    rfid: bool = True,
    rfid_weights: str | Path | None = None,
    lpips: str | Path = "if-present",
    save_images: str | Path | None = None,
    num_tokens: int | None = None,
    progress: bool = True,
    **of_dataset: Any,
) -> Evaluation:
    """Measure a tokenizer on a split of a dataset, as in eval mode; it is left as it is.

    In a run of several processes call this in all of them, each with a device of its own.

    Args:
        tokenizer: what to measure.
        dataset: its name, or a dataset that is open.
        batch_size: images a batch; changes speed and memory, and numbers only by rounding.
        device: None: a GPU (CUDA, then Apple's) where there is one, or else the CPU.
        num_workers: loading processes; 0: load in this one.
        max_images: measure the first so many images only; None: all. The record says so.
        rfid: whether to measure rFID, which takes most of the time.
        rfid_weights: torch-fidelity's Inception weights file; None: already downloaded, or downloaded now (91 MB).
        lpips: "if-present": where the backbones' weights are already downloaded; "download": download what is not;
            "off"; or a folder that holds torchvision's weights files.
        save_images: folder that gets originals and reconstructions as PNG files, rounded as rFID rounds them, for other
            programs; None: they are not saved.
        num_tokens: decode the first so many tokens of a sequence, which alone count as used and as bits; None: all. The record
            says so.
        progress: show a bar with rate and remaining time.
        **of_dataset: `split` ("test"), `image_size` (the tokenizer's), `data_root`, `crop`, `test_fraction` and `on_bad_image`,
            as of `open_dataset`. With crop "none" whole pictures are measured, each as large as its file has it, cut at its
            edges to multiples of the downsample factor; a batch ends where their size changes, and bits are over all pixels.

    Returns:
        The record. A metric without weights or on too small images is None, the reason under `unavailable`. rFID's statistics
        of the images are kept beside the pixel caches (34 MB each, the 32 used last), so that another tokenizer is measured on
        them in half of the time.

    Raises:
        ValueError: an argument is unknown or out of range, weights are not finite, or what `open_dataset` raises; before any
            image is read.
        TypeError: a number, `rfid`, `lpips` or a path is of another type.
        FileNotFoundError: `rfid_weights` or the folder `lpips` does not exist.
        OSError: the images cannot be saved.
    """
    check_default_dtype()
    options = {"rfid": rfid, "rfid_weights": rfid_weights, "lpips": lpips}
    check_options(batch_size=batch_size, max_images=max_images, num_workers=num_workers, **options)
    if num_tokens is not None:
        tokenizer.check_num_tokens(num_tokens)
    check_finite(tokenizer.state_dict(), "the tokenizer")
    device = usable_device(device)
    images = open_given(evaluate, dataset, of_dataset, "test", tokenizer, whole=True)
    num_images = min(len(images), max_images or len(images))
    smallest = min(min(size) for size in images.different_sizes(num_images))
    metrics, unavailable = _image_metrics(smallest, num_images, **options)
    for metric in metrics.values():
        _move(metric, device)
    view = eval_view(tokenizer, device)
    reading = {"batch_size": batch_size, "num_workers": num_workers}
    part = {} if num_tokens is None else {"num_tokens": num_tokens}
    saved = None if save_images is None else SavedImages(save_images, tokenizer, images, num_images, **part)
    with kept_statistics(metrics.get("rfid"), images, num_images, batch_size, device) as were_kept:
        found = _measure(view, images, num_images, metrics, unavailable, progress, saved, part, **reading)
    settings = {
        "batch_size": batch_size,
        "max_images": max_images,
        "rfid": rfid,
        "lpips": lpips if lpips in LPIPS_CHOICES else "folder",  # a record names no machine's folders
        **part,
    }
    record = _record(found, images, num_images, unavailable, settings | _settings_of(view, metrics), device)
    kept = {"kept_statistics": ["rfid"]} if were_kept else {}
    return dataclasses.replace(record, provenance=record.provenance | kept)


def check_options(
    *,
    batch_size: int,
    max_images: int | None,
    rfid: bool,
    rfid_weights: str | Path | None,
    lpips: str | Path,
    num_workers: int,
) -> None:
    """Check arguments of `evaluate` of the same names, before anything is loaded.

    Raises:
        ValueError, TypeError, FileNotFoundError: as of `evaluate`.
    """
    check_loading(batch_size, num_workers, max_images)
    checked("rfid", bool, rfid)
    if not isinstance(lpips, str | Path):
        raise TypeError(f"lpips is {shown(lpips)}, but must be {', '.join(map(repr, LPIPS_CHOICES))} or a folder.")
    if lpips not in LPIPS_CHOICES and not resolve_path(lpips).is_dir():
        near = misspelt(lpips, LPIPS_CHOICES)
        raise ValueError(
            f"lpips is {str(lpips)!r}, but must be {', '.join(map(repr, LPIPS_CHOICES))} or a folder that exists."
            + (f" Did you mean {near!r}?" if near else "")
        )
    if rfid_weights is not None and not rfid:
        raise ValueError("rfid_weights is given, but rfid is False; leave one of them out.")
    if rfid_weights is not None and not resolve_path(rfid_weights).exists():
        raise FileNotFoundError(f"rfid_weights is {str(rfid_weights)!r}, but there is no such file.")


def _image_metrics(
    size: int, num_images: int, rfid: bool, rfid_weights: str | Path | None, lpips: str | Path
) -> tuple[dict[str, Metric], dict[str, str]]:
    """Return the metrics of images that can be measured, and why the others cannot."""
    lpips_options = {"download": lpips == "download", "weights": None if lpips in LPIPS_CHOICES else lpips}
    makers = {
        "psnr": PSNR,
        "ssim": SSIM,
        "ssim_uniform7": SSIMUniform7,
        "lpips_alex": functools.partial(LPIPS, "alex", **lpips_options),
        "lpips_vgg": functools.partial(LPIPS, "vgg", **lpips_options),
        "rfid": functools.partial(RFID, rfid_weights),
    }
    unavailable = {}
    if lpips == "off":
        unavailable |= dict.fromkeys(("lpips_alex", "lpips_vgg"), "Not asked for (lpips='off').")
    if not rfid:
        unavailable["rfid"] = "Not asked for (rfid=False)."
    elif num_images < 2:
        unavailable["rfid"] = "One image has no covariance: rFID needs at least 2."
    metrics = {}
    for name in [name for name in makers if name not in unavailable]:
        try:
            metric = makers[name](sync_on_compute=False)
        except Unavailable as error:
            unavailable[name] = str(error)
            continue
        if size < metric.smallest:
            unavailable[name] = f"Images are {size} pixels, but it needs at least {metric.smallest}."
        else:
            metrics[name] = metric
    for missing in of_all_processes(unavailable):  # a metric that one machine lacks none can measure
        metrics = {name: metric for name, metric in metrics.items() if name not in missing}
        unavailable = missing | unavailable
    return metrics, unavailable


class _Found(NamedTuple):
    """What a pass over the images came to, over all processes."""

    values: dict[str, float | None]  # metric of images to its mean; None: it was not measured
    notes: dict[str, str]  # metric to what must be said beside it
    usage: CodebookUsage
    seconds: dict[str, float]  # spent in "network", "data" and "metrics", and "total"


def _measure(
    tokenizer: VisualTokenizer,
    images: ImageDataset,
    num_images: int,
    metrics: dict[str, Metric],
    unavailable: dict[str, str],
    progress: bool,
    saved: SavedImages | None,
    part: dict[str, int],
    **reading: int,
) -> _Found:
    """Pass over the first `num_images` images; adds to `unavailable` what no number came of.

    `part` holds the `num_tokens` that are decoded, where it is not all of them.
    """
    device = next(tokenizer.parameters()).device
    usage = CodebookUsage(tokenizer.quantizer.codebook_sizes, device=device if device.type != "mps" else "cpu")
    networks = [tokenizer, *(network for metric in metrics.values() for network in metric.children())]
    rank, num_processes = rank_and_number()
    mine = share(range(num_images), rank, num_processes)
    text = f"evaluating on {called(images.name)}"
    start, data_seconds, num_done = time.perf_counter(), 0.0, 0
    with (
        computing(device, exact=True),
        torch.inference_mode(),
        _timed(networks, device) as network_seconds,
        progress_bar(total=len(mine), desc=text, unit=" images", disable=not progress or rank > 0) as bar,
    ):
        batches = eval_batches(images, end_image=num_images, rank=rank, num_processes=num_processes, **reading)
        while num_done < len(mine):
            waiting_since = time.perf_counter()
            batch = to_float(next(batches).to(device, non_blocking=True))
            batch = batch.contiguous(memory_format=torch.channels_last)  # [B, 3, H, W] in [-1, 1]
            data_seconds += time.perf_counter() - waiting_since
            output = tokenizer(batch, **part)
            levels = [level[..., : part.get("num_tokens")] for level in output.levels]
            # Images of several sizes have no number of tokens in common to count places by: their order here is taken.
            usage.update(levels, None if images.image_size is None else mine.start + num_done)
            originals, reconstructions = to_unit(batch), to_unit(output.reconstruction)
            for metric in metrics.values():
                metric.update(originals, reconstructions)
            if saved is not None:
                saved.write(mine.start + num_done, originals, reconstructions)
            num_done += len(batch)
            bar.update(len(batch))
    for metric in metrics.values():
        metric.sync()  # from here on its sums are over all processes, until it is computed
    usage = usage.summed()
    values, notes = _computed(metrics, unavailable)
    total = time.perf_counter() - start
    seconds = {"network": sum(network_seconds), "data": data_seconds}
    return _Found(values, notes, usage, seconds | {"metrics": total - sum(seconds.values()), "total": total})


def _computed(
    metrics: dict[str, Metric], unavailable: dict[str, str]
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Return the value of each metric of images, None for one that is in `unavailable`, and what to say beside some."""
    values: dict[str, float | None] = dict.fromkeys(unavailable)
    notes = {}
    for name, metric in metrics.items():
        if isinstance(metric, RFID) and metric.note:
            notes[name] = metric.note
        values[name] = float(metric.compute())
        if not math.isfinite(values[name]):  # JSON has no infinity
            unavailable[name] = f"The mean is {values[name]}: an image equals its reconstruction."
            values[name] = None
    return values, notes


def _move(metric: Metric, device: torch.device) -> None:
    """Move a metric, its sums too unless the device has no float64."""
    if device.type != "mps":
        metric.to(device)
    for network in metric.children():
        network.to(device)


def _settings_of(tokenizer: nn.Module, metrics: dict[str, Metric]) -> dict[str, Any]:
    """Return what a record says of the networks: the weights' digests, and the dtype where it is not float32."""
    weights = {name: metric.weights_sha256 for name, metric in metrics.items() if isinstance(metric, LPIPS | RFID)}
    others = {str(weight.dtype).removeprefix("torch.") for weight in tokenizer.parameters()} - {"float32"}
    return {"weights_sha256": weights} | ({"dtype": ", ".join(sorted(others))} if others else {})


def _record(
    found: _Found,
    images: ImageDataset,
    num_images: int,
    unavailable: dict[str, str],
    settings: dict[str, Any],
    device: torch.device,
) -> Evaluation:
    """Return the record of a pass."""
    counts = [of_codes.cpu() for of_codes in found.usage.counts]
    sizes, total = found.usage.codebook_sizes, found.seconds["total"]
    bits = sum(int(of_codes.sum()) / num_images * math.log2(size) for of_codes, size in zip(counts, sizes, strict=True))
    of_codes = found.usage.means() | {"bits_per_pixel": bits / images.mean_pixels(num_images)}
    if not sizes:
        of_codes = dict.fromkeys(OF_CODES)
        unavailable = unavailable | dict.fromkeys(OF_CODES, "Not applicable: there is no codebook.")
    return Evaluation(
        **found.values,
        **of_codes,
        num_images=num_images,
        images_per_second=num_images / total,
        unavailable=unavailable,
        notes=found.notes,
        codebooks=[{"codebook_size": size} | level for size, level in zip(sizes, found.usage.compute(), strict=True)],
        dataset=images.record(),
        settings=settings,
        seconds={name: round(value, 3) for name, value in found.seconds.items()},
        provenance=provenance(device)
        | {
            "date": datetime.date.today().isoformat(),
            "num_processes": rank_and_number()[1],
            "data_fingerprint": images.fingerprint,
            "wall_seconds": round(total, 3),
            "images_per_second": round(num_images / total, 2),
        },
        counts=counts,
    )


@contextlib.contextmanager
def _timed(networks: list[nn.Module], device: torch.device) -> Iterator[list[float]]:
    """Yield a list that the seconds of each forward pass of some networks are added to, until it ends."""
    began: list[float] = []
    seconds: list[float] = []

    def now() -> float:
        """Return the time at which the device is done with what it was given."""
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter()

    with contextlib.ExitStack() as hooks:
        for network in networks:
            hooks.enter_context(network.register_forward_pre_hook(lambda *_: began.append(now())))
            hooks.enter_context(network.register_forward_hook(lambda *_: seconds.append(now() - began.pop())))
        yield seconds
