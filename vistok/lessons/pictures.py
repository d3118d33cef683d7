"""A few photographs as the quantizers of a table make them, small files that are committed where weights are not.

    python -m vistok.lessons.pictures runs/ema-d4-laptop-* runs/fsq-888-laptop-* --dataset photos --images 0 1 5 9

writes, of each run, `runs/pictures/<row>.webp`, the reconstructions side by side without loss, and `<row>.json`: which
images, PSNR, bits, settings, versions and commit; and, once, `originals.webp`. Only photographs that anyone may show are
taken: those of the embedded datasets.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from vistok.config import TrainConfig
from vistok.system.files import make_folder, replace_file, say, strict_json
from vistok.system.interrupts import run_command
from vistok.system.paths import resolve_path, runs_root
from vistok.system.words import nearest

if TYPE_CHECKING:
    from torch import Tensor

ORIGINALS = "originals"  # the file beside those of the rows


@dataclasses.dataclass(frozen=True)
class RowPictures:
    """Reconstructions of the images by one row's tokenizer.

    Attributes:
        name: of the row.
        quantizer: key of `QUANTIZERS`.
        psnr: of each image in dB; infinite where nothing differs.
        bits: of one image's tokens.
        usage: share of the codebook that the run's test images use, in [0, 1], mean over codebooks; None: not measured.
        strip: the reconstructions side by side, a lossless WebP file.
    """

    name: str
    quantizer: str
    psnr: tuple[float, ...]
    bits: float
    usage: float | None
    strip: bytes


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images, and what the rows of a table make of them.

    Attributes:
        names: of the images.
        licences: of each image, as its dataset states it; empty: it states none.
        originals: the images side by side, a lossless WebP file; empty where there are no rows.
        rows: what there is.
        missing: rows that there are no pictures of.
    """

    names: tuple[str, ...]
    licences: tuple[str, ...]
    originals: bytes
    rows: tuple[RowPictures, ...]
    missing: tuple[str, ...]


def row_name(config: TrainConfig) -> str:
    """Return what a run's row is called in its table; of a run of no row, its quantizer."""
    return config.row.rpartition("/")[2] if config.row else config.quantizer


def usual_folder() -> Path:
    """Return where pictures are kept, beside the runs."""
    return runs_root() / "pictures"


def make(run_dir: str | Path, dataset: str, images: Sequence[int], folder: str | Path | None = None) -> Path:
    """Write what a run's tokenizer makes of some images, and return the file of its reconstructions.

    Args:
        run_dir: a finished run with its tokenizer.
        dataset: an embedded one, "photos" or "scenes"; its test split.
        images: indices, each in [0, length of the dataset), at least one.
        folder: where to; None: `usual_folder()`.

    Raises:
        ValueError: the dataset is not embedded, an image does not exist, the folder holds pictures of other images, or the run
            is not finished.
        FileNotFoundError: there is no run or no tokenizer.
    """
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.data import open_dataset
    from vistok.runs import Run
    from vistok.system.provenance import provenance
    from vistok.tokens.encoded import EncodedImages

    _check_embedded(dataset)
    run = Run.open(run_dir)
    run.check_kind("tokenizer")
    run.check_finished()
    photographs = open_dataset(dataset, "test", run.config.image_size)
    wrong = [image for image in images if not 0 <= image < len(photographs)]
    if wrong or not images:
        raise ValueError(f"images is {list(images)}, but must be indices in 0 to {len(photographs) - 1}, one or more.")
    encoded = EncodedImages.open(run.path, photographs.images(images), device="cpu", progress=False)
    names = [photographs.names[image] for image in images]
    originals = _webp(encoded.pixels(range(len(images))))
    where = usual_folder() if folder is None else resolve_path(folder)
    file, name = where / f"{ORIGINALS}.webp", row_name(run.config)
    if file.is_file() and _sha(file.read_bytes()) != _sha(originals):
        raise ValueError(
            f"{where} holds pictures of other images: give another folder, or remove it and make all anew."
        )
    make_folder(where)
    replace_file(file, originals)
    made = where / f"{name}.webp"
    replace_file(made, _webp(encoded.reconstructions(range(len(images)))))
    licences = photographs.record().get("licences", {})
    bits = zip(encoded.tokens, encoded.codebook_sizes, strict=True)
    record = {
        "row": name,
        "quantizer": run.config.quantizer,
        "dataset": dataset,
        "images": [{"index": i, "name": n, "licence": licences.get(n, "")} for i, n in zip(images, names, strict=True)],
        "originals": _sha(originals),
        "psnr": [  # null: nothing differs
            round(float(value), 4) if math.isfinite(value) else None for value in encoded.psnr(range(len(images)))
        ],
        "bits": round(sum(level[0].size * math.log2(size) for level, size in bits), 2),
        "test": {key: value for key, value in (run.metrics or {}).items() if key in ("psnr", "usage", "perplexity")},
        "config": run.config.to_dict() | {"data_root": None},
        "trained": {key: run.provenance.get(key) for key in ("commit", "dirty", "device", "precision")},
        "provenance": provenance("cpu"),
    }
    replace_file(where / f"{name}.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return made


def _check_embedded(dataset: str) -> None:
    from vistok.data import DATASETS

    embedded = [name for name, how_to_get_it in DATASETS.items() if how_to_get_it is None]
    if dataset not in embedded:
        raise ValueError(
            f"dataset is {dataset!r}, but pictures that are committed are of photographs that anyone may show: "
            f"{nearest(dataset, embedded)}"
        )


def load(rows: Sequence[str], folder: str | Path | None = None) -> Pictures:
    """Return the pictures of some rows; a row of which there are none, or of other images, is named in `missing`.

    Args:
        rows: names of rows, in the order wanted.
        folder: where they are; None: `usual_folder()`.

    Raises:
        ValueError: a record is no record, or a file of pictures cannot be read.
    """
    where = usual_folder() if folder is None else resolve_path(folder)
    file = where / f"{ORIGINALS}.webp"
    originals = file.read_bytes() if file.is_file() else b""
    size = _size(file, originals) if originals else (0, 0)
    found, missing, images = [], [], []
    for name in dict.fromkeys(rows):
        record, strip = (where / f"{name}.{kind}" for kind in ("json", "webp"))
        if not (originals and record.is_file() and strip.is_file()):
            missing.append(name)
            continue
        try:
            content = strict_json(record.read_bytes())
            if content["originals"] != _sha(originals):
                missing.append(name)
                continue
            usage = content["test"].get("usage")
            psnr = tuple(math.inf if value is None else value for value in content["psnr"])
            about = name, content["quantizer"], psnr, content["bits"], usage
            images = [(image["name"], image["licence"]) for image in content["images"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{record} is no record of pictures: {error!r}. Make it anew, or remove it.") from error
        made = strip.read_bytes()
        if _size(strip, made) != size:
            raise ValueError(f"{strip} is not of the size of {file}: make it anew, or remove it.")
        found.append(RowPictures(*about, made))
    names, licences = zip(*images, strict=True) if images else ((), ())
    return Pictures(names, licences, originals if found else b"", tuple(found), tuple(missing))


def pixels(strip: bytes, number: int) -> "Tensor":
    """Return the images of a strip, uint8 [number, 3, H, W]."""
    import torch

    whole = np.asarray(Image.open(io.BytesIO(strip)).convert("RGB"))  # [H, number W, 3]
    height, width = whole.shape[0], whole.shape[1] // number
    return torch.from_numpy(whole.reshape(height, number, width, 3).transpose(1, 3, 0, 2).copy())


def _size(file: Path, content: bytes) -> tuple[int, int]:
    """Return width and height of a picture that can be read."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture.size
    except OSError as error:  # also what Pillow says of a file that is cut short or no picture
        raise ValueError(f"{file} is no picture that can be read: make it anew, or remove it.") from error


def _webp(images: "Tensor") -> bytes:
    """Return images, uint8 [N, 3, H, W], side by side as the bytes of a lossless WebP file."""
    buffer = io.BytesIO()
    strip = images.permute(2, 0, 3, 1).flatten(1, 2)  # [H, N W, 3]
    Image.fromarray(strip.contiguous().numpy()).save(buffer, format="webp", lossless=True, quality=100, method=6)
    return buffer.getvalue()


def _sha(content: bytes) -> str:
    """Return 12 hex digits of the pixels of a WebP file, whatever version of the encoder wrote it."""
    return hashlib.sha256(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).tobytes()).hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pictures of runs from the command line; returns 1 where one was refused."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.lessons.pictures",
        description="Write what the tokenizers of finished runs make of a few photographs, as small files to commit.",
    )
    parser.add_argument("runs", nargs="+", help="run directories, with their tokenizers")
    parser.add_argument("--dataset", default="photos", help="photos or scenes (default: %(default)s)")
    parser.add_argument("--images", nargs="+", type=int, default=[0, 1, 5, 9], help="indices (default: 0 1 5 9)")
    parser.add_argument("--folder", help="where to (default: runs/pictures)")
    given = parser.parse_args(arguments)
    refused = 0
    for run in given.runs:
        try:
            say(str(make(run, given.dataset, given.images, given.folder)))
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            say(f"{run}: {error}")
    return int(refused > 0)


if __name__ == "__main__":
    run_command(main)
