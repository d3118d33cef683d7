"""Rate and distortion: the rows of a table at three rates, beside the codecs that everybody has.

    python -m vistok.tables.codecs cifar10-images --image-size 32 --per-file 10

writes what JPEG, WebP and AVIF make of the test images of a dataset to `codecs-<dataset>-<size>.json` among the runs.
"""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vistok.system.files import make_folder, replace_file, say
from vistok.system.interrupts import run_command
from vistok.system.paths import runs_root

if TYPE_CHECKING:
    from torch import Tensor

    from vistok.tables.generating import PlannedGenerator

Points = dict[str, list[tuple[float, float]]]  # name to (bits a pixel, dB or SSIM), by rising bits


def codec_points(dataset: str, image_size: int, metric: str = "psnr") -> Points:
    """Return codec to its curve, as recorded among the runs.

    Args:
        dataset: name of the dataset whose test images were measured.
        image_size: of the images, in pixels.
        metric: "psnr", in dB, or "ssim".

    Raises:
        FileNotFoundError: there is no such record.
    """
    file = runs_root() / f"codecs-{dataset}-{image_size}.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"There is no {file}: write it by python -m vistok.tables.codecs {dataset} --image-size {image_size}."
        )
    return curves(json.loads(file.read_bytes()), metric)


def curves(record: dict[str, Any], metric: str) -> Points:
    """Return codec to its curve, of what `measured_points` returned."""
    points: Points = {}
    for point in record["points"]:
        points.setdefault(point["codec"], []).append((point["bits_per_pixel"], point[metric]))
    return {codec: sorted(curve) for codec, curve in points.items()}


def row_points(
    planned: "Sequence[PlannedGenerator]", metric: str = "psnr"
) -> dict[str, dict[str, tuple[float, float]]]:
    """Return row name to what its tokens cost to (bits a pixel, dB or SSIM), means over the seeds that are complete.

    What they cost is "nominal", log2 K a token; "entropy", that of the codes as frequent as they are; and the name of each
    size of generator, its cross entropy: what a file of them takes. Rows without any complete run are left out.
    """
    from vistok.tables.showing import share_in_use  # not above, so that `--help` does not wait for PyTorch

    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for run in planned:
        if (metrics := run.tokenizer.metrics) is None:
            continue
        row = found.setdefault(run.tokenizer.row.name, {})
        quality, bits = metrics[metric], metrics["bits_per_pixel"]
        row.setdefault("nominal", []).append((bits, quality))
        row.setdefault("entropy", []).append((bits * share_in_use(metrics["codebooks"]), quality))
        if (rate := run.rate) is not None:
            row.setdefault(run.config.size, []).append((rate["bits_per_pixel"], quality))
    return {name: {rate: _mean(points) for rate, points in row.items()} for name, row in found.items()}


def _mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    bits, quality = zip(*points, strict=True)
    return sum(bits) / len(bits), sum(quality) / len(quality)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure codecs on a dataset's test images from the command line, and write the record."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tables.codecs", description="Measure JPEG, WebP and AVIF on a dataset's test images."
    )
    parser.add_argument("dataset", help="photos, celeba, cifar10-images, folder, ...")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument("--image-size", type=int, required=True, metavar="PIXELS", help="of the squares")
    parser.add_argument("--per-file", type=int, default=1, metavar="N", help="N x N images in each file (default: 1)")
    parser.add_argument("--max-images", type=int, metavar="N", help="take the first so many only")
    parser.add_argument("--overwrite", action="store_true", help="replace a record that is there")
    given = parser.parse_args(arguments)
    file = runs_root() / f"codecs-{given.dataset}-{given.image_size}.json"
    try:
        if file.exists() and not given.overwrite:
            raise ValueError(f"{file} is there already; --overwrite replaces it.")
        record = _measured(given)
    except (ValueError, TypeError, OSError) as error:
        parser.error(str(error))
    make_folder(file.parent)
    replace_file(file, json.dumps(record, indent=2).encode())
    say(f"{len(record['points'])} points: {file}")
    return 0


def measured_points(images: "Tensor | Sequence[Tensor]", per_file: int = 1) -> dict[str, Any]:
    """Return what every codec makes of images, and what it was made by; arguments as of `measure_codec`."""
    import dataclasses

    from PIL import features

    from vistok.evaluation.codecs import CODECS, measure_codec
    from vistok.system.provenance import provenance

    points = [point for codec in CODECS for point in measure_codec(images, codec, per_file=per_file)]
    versions = {name: features.version("jpg" if name == "JPEG" else name.lower()) for name in CODECS}
    return {
        "points": [dataclasses.asdict(point) for point in points],
        "provenance": provenance("cpu") | {"codecs": versions},
    }


def _measured(given: argparse.Namespace) -> dict[str, Any]:
    import torch

    from vistok.data import eval_batches, open_dataset
    from vistok.system.values import PositiveInt, checked

    checked("max_images", PositiveInt | None, given.max_images)
    dataset = open_dataset(given.dataset, "test", given.image_size, data_root=given.data_root)
    images = torch.cat([batch.contiguous() for batch in eval_batches(dataset, 256)])[: given.max_images]
    return measured_points(images, given.per_file) | {
        "num_images": len(images) // given.per_file**2 * given.per_file**2,
        "per_file": given.per_file,
        "dataset": dataset.record(),
    }


if __name__ == "__main__":
    run_command(main)
