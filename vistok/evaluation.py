"""A tokenizer and a dataset to a record of metrics, in one streaming pass.

The protocol: the test images in their order, without augmentation; reconstructions clamped to [-1, 1]; both mapped to
[0, 1]; everything in float32 (no autocast, no TF32), sums in float64. A metric that cannot be measured is None in the
record, with the reason beside it, and the others are measured all the same.

Several processes share the images, each once, and all come to the record of one:

    python -m vistok.evaluation runs/<run>
    accelerate launch --multi_gpu -m vistok.evaluation runs/<run>
"""

import argparse
import dataclasses
import datetime
import functools
import json
import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vistok.config import TrainConfig
from vistok.data import DATASETS, called, eval_batches, open_dataset, same_images, share, to_float
from vistok.metrics import LPIPS, PSNR, RFID, SSIM, SSIMUniform7
from vistok.runs import Run
from vistok.system.devices import check_default_dtype, eval_view, exact_float32, usable_device
from vistok.system.files import check_writable, say
from vistok.system.paths import resolve_path
from vistok.system.processes import of_all_processes, process_state, rank_and_number
from vistok.system.progress import progress_bar
from vistok.system.provenance import provenance
from vistok.system.values import checked
from vistok.system.weights import Unavailable
from vistok.system.words import misspelt
from vistok.tokenizer import VisualTokenizer
from vistok.usage import CodebookUsage

LPIPS_CHOICES = ("if-present", "download", "off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found; `record["psnr"]` is `record.psnr`, and `to_json` is what `metrics.json` holds.

    Attributes:
        psnr: dB, mean over images.
        ssim: mean over images, 11x11 Gaussian window.
        ssim_uniform7: mean over images, 7x7 uniform window (scikit-image's default).
        lpips_alex, lpips_vgg: mean over images.
        rfid: Frechet distance between images and reconstructions.
        usage, usage_queue: fractions of the codebook, over all indices and over the last 65,536; mean over codebooks.
        perplexity: exp of the entropy of the codes; mean over codebooks.
        entropy_bits: bits a token; mean over codebooks.
        bits_per_pixel: sum over codebooks of tokens x log2 K, over pixels.
        num_images: that were measured.
        images_per_second: over the pass and the metrics, loading of weights aside.
        unavailable: metric to the reason why it is None.
        notes: metric to what must be said beside it, such as rFID's bias at few images.
        codebooks: for each codebook its size, usage, usage_queue, perplexity and entropy_bits.
        dataset: what was measured on.
        settings: the choices made in calling `evaluate` that bear on the numbers.
        seconds: of "network" (tokenizer, Inception, LPIPS), "data", "metrics" (the rest of them) and "total".
        provenance: versions, commit, device, threads, day, processes, the data, time; of a run its seed.
        counts: for each codebook the tokens that chose each code, int64 [K]; for figures, not part of the record.
    """

    psnr: float | None
    ssim: float | None
    ssim_uniform7: float | None
    lpips_alex: float | None
    lpips_vgg: float | None
    rfid: float | None
    usage: float
    usage_queue: float
    perplexity: float
    entropy_bits: float
    bits_per_pixel: float
    num_images: int
    images_per_second: float
    unavailable: dict[str, str]
    notes: dict[str, str]
    codebooks: list[dict[str, float]]
    dataset: dict[str, Any]
    settings: dict[str, Any]
    seconds: dict[str, float]
    provenance: dict[str, Any]
    counts: list[Tensor] = dataclasses.field(repr=False, compare=False)

    def __getitem__(self, key: str) -> Any:
        """Return a value by its name; raises KeyError where there is none of that name."""
        if key not in self.keys():
            raise KeyError(f"An evaluation has no {key!r}; it has {', '.join(self.keys())}.")
        return getattr(self, key)

    def keys(self) -> list[str]:
        """Return the names of all values, in the order of the record."""
        return [field.name for field in dataclasses.fields(self) if field.name != "counts"]

    def to_dict(self) -> dict[str, Any]:
        """Return every value by name, fit for JSON."""
        return {key: self[key] for key in self.keys()}

    def to_json(self) -> str:
        """Return the record as JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)


def evaluate(
    tokenizer: VisualTokenizer,
    dataset: str = "photos",
    *,
    data_root: str | Path | None = None,
    split: str = "test",
    image_size: int | None = None,
    crop: str | None = None,
    test_fraction: float | None = None,
    on_bad_image: str = "raise",
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    max_images: int | None = None,
    rfid: bool = True,
    rfid_weights: str | Path | None = None,
    lpips: str | Path = "if-present",
    progress: bool = True,
) -> Evaluation:
    """Measure a tokenizer on a split of a dataset.

    The tokenizer is evaluated as in eval mode, and left as it is. In a run of several
    processes call this in all of them, each with a device of its own.

    Args:
        tokenizer: what to measure.
        dataset, data_root, split, crop, test_fraction, on_bad_image: as in `open_dataset`.
        image_size: pixels, height and width; None: the tokenizer's.
        batch_size: images a batch; changes speed and memory, and numbers only by rounding.
        device: None: a GPU (CUDA, then Apple's) where there is one, or else the CPU.
        num_workers: loading processes; 0: load in this one.
        max_images: measure the first so many images only; None: all. The record says so.
        rfid: whether to measure rFID, which takes most of the time.
        rfid_weights: torch-fidelity's Inception weights file; None: already downloaded, or downloaded now (91 MB).
        lpips: "if-present": where the backbones' weights are already downloaded; "download": download what is not;
            "off"; or a folder that holds torchvision's weights files.
        progress: show a bar with rate and remaining time.

    Returns:
        The record. A metric without weights or on too small images is None, the reason under `unavailable`.

    Raises:
        ValueError: an argument is out of range, or what `open_dataset` raises; before any image is read.
        TypeError: a number or `rfid` is of another type.
        FileNotFoundError: `rfid_weights` or the folder `lpips` does not exist.
    """
    check_default_dtype()
    size = tokenizer.image_size if image_size is None else image_size
    if checked("image_size", int, size) < 1:
        raise ValueError(f"image_size is {size}, but must be at least 1.")
    check_options(
        batch_size=batch_size,
        max_images=max_images,
        rfid=rfid,
        rfid_weights=rfid_weights,
        lpips=lpips,
        num_workers=num_workers,
    )
    if size % tokenizer.downsample_factor:
        nearest_size = max(1, round(size / tokenizer.downsample_factor)) * tokenizer.downsample_factor
        raise ValueError(
            f"image_size is {size}, but must be a multiple of the tokenizer's downsample factor "
            f"{tokenizer.downsample_factor}; {nearest_size} is the nearest."
        )
    device = usable_device(device)
    opened = open_dataset(
        dataset,
        split,
        size,
        data_root=data_root,
        crop=crop,
        test_fraction=test_fraction,
        on_bad_image=on_bad_image,
    )
    num_images = len(opened) if max_images is None else min(max_images, len(opened))
    metrics, unavailable = _image_metrics(size, num_images, rfid, rfid_weights, lpips)
    for missing in of_all_processes(unavailable):  # what one machine lacks none can measure
        metrics = {name: metric for name, metric in metrics.items() if name not in missing}
        unavailable = missing | unavailable
    codebook_sizes = tokenizer.quantizer.codebook_sizes
    usage = CodebookUsage(codebook_sizes, device=device if device.type != "mps" else "cpu")
    rank, num_processes = rank_and_number()
    mine = share(range(num_images), rank, num_processes)
    for metric in metrics.values():
        _move(metric, device)
    tokenizer = eval_view(tokenizer, device)
    others = {str(weight.dtype).removeprefix("torch.") for weight in tokenizer.parameters()} - {"float32"}
    networks = [tokenizer, *(network for metric in metrics.values() for network in metric.children())]

    start = time.perf_counter()
    data_seconds = 0.0
    with (
        exact_float32(device),
        torch.inference_mode(),
        _Stopwatch(networks, device) as stopwatch,
        progress_bar(
            total=len(mine), desc=f"evaluating on {called(dataset)}", unit=" images", disable=not progress or rank > 0
        ) as bar,
    ):
        batches = eval_batches(
            opened, batch_size, end_image=num_images, num_workers=num_workers, rank=rank, num_processes=num_processes
        )
        num_done = 0
        while num_done < len(mine):
            waiting_since = time.perf_counter()
            images = to_float(next(batches).to(device, non_blocking=True))
            images = images.contiguous(memory_format=torch.channels_last)  # [B, 3, H, W] in [-1, 1]
            data_seconds += time.perf_counter() - waiting_since
            output = tokenizer(images)
            levels = output.indices if isinstance(output.indices, tuple) else (output.indices,)
            usage.update(levels, images_before=mine.start + num_done)
            images, reconstructions = _to_unit(images), _to_unit(output.reconstruction)
            for metric in metrics.values():
                metric.update(images, reconstructions)
            num_done += len(images)
            bar.update(len(images))
    for metric in metrics.values():
        metric.sync()  # from here on its sums are over all processes, until it is computed
    usage = usage.summed()
    counts = [of_codes.cpu() for of_codes in usage.counts]
    values, notes = _computed(metrics, unavailable)
    codebooks = [
        {"codebook_size": codebook_size} | level
        for codebook_size, level in zip(codebook_sizes, usage.compute(), strict=True)
    ]
    bits = sum(
        int(of_codes.sum()) // num_images * math.log2(codebook_size)
        for of_codes, codebook_size in zip(counts, codebook_sizes, strict=True)
    )
    total_seconds = time.perf_counter() - start
    seconds = {
        "network": stopwatch.seconds,
        "data": data_seconds,
        "metrics": total_seconds - stopwatch.seconds - data_seconds,
        "total": total_seconds,
    }
    return Evaluation(
        **values,
        **usage.means(),
        bits_per_pixel=bits / size**2,
        num_images=num_images,
        images_per_second=num_images / total_seconds,
        unavailable=unavailable,
        notes=notes,
        codebooks=codebooks,
        dataset=opened.record(),
        settings={
            "batch_size": batch_size,
            "max_images": max_images,
            "rfid": rfid,
            "lpips": lpips if lpips in LPIPS_CHOICES else "folder",  # a record names no machine's folders
            "weights_sha256": {n: m.weights_sha256 for n, m in metrics.items() if isinstance(m, LPIPS | RFID)},
        }
        | ({"dtype": ", ".join(sorted(others))} if others else {}),  # of networks that are not in float32
        seconds={name: round(value, 3) for name, value in seconds.items()},
        provenance=provenance(device)
        | {
            "date": datetime.date.today().isoformat(),
            "num_processes": num_processes,
            "data_fingerprint": opened.fingerprint,
            "wall_seconds": round(total_seconds, 3),
            "images_per_second": round(num_images / total_seconds, 2),
        },
        counts=counts,
    )


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
    checked("rfid", bool, rfid)
    for name, value in (("batch_size", batch_size), ("max_images", max_images)):
        if checked(name, int | None, value) is not None and value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1.")
    if checked("num_workers", int, num_workers) < 0:
        raise ValueError(f"num_workers is {num_workers}, but must be at least 0.")
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
    return metrics, unavailable


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


def _to_unit(images: Tensor) -> Tensor:
    """Return float32 images in [0, 1] of images in [-1, 1], those beyond clamped."""
    return images.float().clamp(-1, 1).add_(1).div_(2)


def _move(metric: Metric, device: torch.device) -> None:
    """Move a metric, its sums too unless the device has no float64."""
    if device.type != "mps":
        metric.to(device)
    for network in metric.children():
        network.to(device)


class _Stopwatch:
    """Adds up the seconds spent in the forward passes of some networks while it is entered."""

    def __init__(self, networks: list[nn.Module], device: torch.device) -> None:
        self.seconds = 0.0
        self._networks = networks
        self._device = device

    def __enter__(self) -> Self:
        self._handles = [network.register_forward_pre_hook(self._begin) for network in self._networks]
        self._handles += [network.register_forward_hook(self._end) for network in self._networks]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, *_: object) -> None:
        self._started = self._now()

    def _end(self, *_: object) -> None:
        self.seconds += self._now() - self._started

    def _now(self) -> float:
        """Return the time at which the device is done with what it was given."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


def evaluate_run(
    run: Run, dataset: str | None = None, data_root: str | Path | None = None, *, split: str = "test", **options: Any
) -> tuple[Evaluation, bool]:
    """Measure the tokenizer of a finished run.

    Args:
        run: the run.
        dataset: None: that which the run was trained on.
        data_root: its folder; None: the run's own, or `data/<dataset>`.
        split: "train", "val" or "test", as far as the dataset has them.
        **options: of `evaluate`.

    Returns:
        the record, and whether it is of the images that the run was trained on, wherever they lie, or of another dataset:
        what `Run.save_metrics` is told as `own_folder`.

    Raises:
        ValueError: the run is not finished; or what `evaluate` raises.
        FileNotFoundError: the run has no tokenizer.
    """
    run.check_finished()
    tokenizer = VisualTokenizer.load(run.path)
    images, own_folder = images_of_run(run, dataset, data_root, split)
    record = evaluate(tokenizer, images.pop("name"), **images, **options)
    record = dataclasses.replace(record, provenance=record.provenance | {"seed": run.config.seed})
    return record, own_folder


def images_of_run(
    run: Run, dataset: str | None = None, data_root: str | Path | None = None, split: str = "test"
) -> tuple[dict[str, Any], bool]:
    """Return which images `evaluate_run` measures a run on, as arguments of `open_dataset`, and its second result."""
    config = run.config
    of_dataset = dataset in (None, config.dataset)
    here = config if data_root is None else dataclasses.replace(config, data_root=str(data_root))
    own = of_dataset and _are_own_images(run, here)
    images = {
        "name": config.dataset if dataset is None else dataset,
        "split": split,
        "data_root": here.data_root if of_dataset else data_root,
        "crop": config.crop if own and split == "train" else None,
        "test_fraction": config.test_fraction if own else None,
        "on_bad_image": config.on_bad_image,
    }
    return images, own or not of_dataset


def _are_own_images(run: Run, here: TrainConfig) -> bool:
    """Return whether the images that `here` names are those of the run; others in the run's own place are warned of."""
    data, in_place = run.provenance.get("data"), here.run_name == run.config.run_name
    # Of ImageNet the place alone decides: its test images are files of their own, and nothing need be indexed or copied.
    if in_place and (not data or here.dataset in ("imagenet", "photos")):
        return True
    same = same_images(data, here)
    if in_place and not same:
        warnings.warn(
            f"The images of {called(here.dataset)} are others than those that {run.path} was trained on, so that some of "
            "those it is tested on may have been trained on; the record goes to a file of its own.",
            stacklevel=1,  # once, whoever asks
        )
    return same


def check_results(run: Run) -> None:
    """Check, before hours of measuring, that a record can be written beside a run; of several processes call it in all.

    Raises:
        OSError: it cannot, on the machine of one of them.
    """
    reason = None
    try:
        check_writable(run.path)
    except OSError as error:
        reason = (
            f"{run.path} cannot be written ({error.strerror or error}), where metrics.json would go: make room or give the "
            "rights; or take VisualTokenizer.load and vistok.evaluate, which write nothing."
        )
    for found in of_all_processes(reason):
        if found:
            raise OSError(found)


def save_record(run: Run, record: Evaluation, *, own_folder: bool = True, overwrite: bool = False) -> Path | None:
    """Write a record beside its run as `Run.save_metrics` does; print it where that fails: what was measured is not lost.

    Raises:
        OSError: it cannot be written.
    """
    try:
        return run.save_metrics(record.to_dict(), own_folder=own_folder, overwrite=overwrite)
    except OSError as error:
        say(record.to_json())
        raise OSError(
            f"The record could not be written into {run.path} ({error.strerror or error}); it is printed instead, as the text "
            "of metrics.json."
        ) from error


# The command line.


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a run from the command line, and write its record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.evaluation",
        description="Measure the tokenizer of a finished run, and write metrics.json beside it.",
    )
    parser.add_argument("run", help="a run directory")
    parser.add_argument("--dataset", help=f"one of {', '.join(DATASETS)} (default: the run's own)")
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the dataset (default: the run's, or data/<dataset>)"
    )
    parser.add_argument("--split", default="test", help="train, test or val (default: %(default)s)")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="IMAGES", help="of a process (default: %(default)s)"
    )
    parser.add_argument("--max-images", type=int, metavar="N", help="measure the first so many only")
    parser.add_argument("--no-rfid", dest="rfid", action="store_false", help="leave out rFID, which takes longest")
    parser.add_argument("--rfid-weights", metavar="FILE", help="torch-fidelity's Inception weights")
    parser.add_argument(
        "--lpips", default="if-present", help="if-present, download, off or a folder (default: %(default)s)"
    )
    parser.add_argument("--num-workers", type=int, default=0, help="loading processes (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace an evaluation that is there")
    given = vars(parser.parse_args(arguments))
    path, overwrite = given.pop("run"), given.pop("overwrite")
    try:
        processes = process_state()
        run = Run.open(path)
        check_results(run)
        record, own_folder = evaluate_run(
            run, given.pop("dataset"), given.pop("data_root"), device=processes.device, **given
        )
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if processes.is_main_process:
        try:
            saved = save_record(run, record, own_folder=own_folder, overwrite=overwrite)
        except OSError as error:
            print(f"{parser.prog}: {error}", file=sys.stderr)
            return 1
        say(record.to_json())
        print(
            f"written to {saved}" if saved else "an evaluation is already recorded, and stays; --overwrite replaces it",
            file=sys.stderr,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
