"""A whole dataset as tokens: one array of indices in a file, mapped into memory. What training a generator begins with.

A folder holds two files, and a third where the dataset has folders for classes:

    tokens.npy     the indices, an array that any numpy maps: numpy.load("tokens.npy", mmap_mode="r"); uint16 where every
                   codebook has at most 65,536 codes, else uint32; [N, h, w], or [N, total] where a tokenizer has several
                   levels or groups: each level row by row, one level after the other
    tokens.json    what they are: shape and dtype, size of each codebook, grid [h, w] of each level, image size, the
                   tokenizer (settings, SHA-256 of its weights), the dataset (its record), how many images are done, and
                   of the last encoding that wrote them where and how fast it was; names of the classes
    labels.npy     number of the class of each image, uint16 or uint32 [images]

Row i is image i of the dataset; with flips, row 2i is image i and row 2i + 1 its mirror image. Images are not augmented
otherwise, and are encoded in plain float32, as an evaluation does.

The data is synced to the disk before tokens.json says that it is there, so encoding that was stopped, however, goes on where
it was; on the same device and with the same batch size the tokens are in the end those of an encoding that was not stopped.

    python -m vistok.tokens runs/my-run --dataset photos --split train --out data/photos-tokens
"""

import io
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vistok.data import ImageDataset, check_loading, eval_batches, open_given
from vistok.images import to_float
from vistok.quantizers.levels import as_indices
from vistok.system.devices import computing, eval_view, usable_device
from vistok.system.files import make_folder, replace_file, shown, strict_json
from vistok.system.locks import only_process
from vistok.system.paths import beside_caller, resolve_path
from vistok.system.progress import progress_bar
from vistok.system.provenance import provenance
from vistok.system.values import checked
from vistok.system.weights import check_finite, first_line, state_sha256
from vistok.system.words import differences_between
from vistok.tokenizer import VisualTokenizer

ARRAY, HEADER, LABELS = "tokens.npy", "tokens.json", "labels.npy"
FORMAT = "vistok tokens 1"
MAX_HEADER_BYTES = 2**28  # most of it the names of images that were left out; a million of them take 50 MB
SECONDS_BETWEEN_RECORDS = 5.0  # as much work is lost where encoding is stopped


class TokenFile(Dataset):
    """The tokens of a dataset, read as they are asked for; a `torch.utils.data.Dataset` of the rows.

    Attributes:
        path: the folder.
        header: what tokens.json holds.
        tokens: uint16 or uint32 [N, h, w] or [N, total], mapped into memory, read-only.
        classes: names of the images' classes; empty where they have none.
        labels: int64 [N], the class of each row; None where there are none.
    """

    def __init__(
        self, path: Path, header: dict[str, Any], tokens: np.ndarray, of_images: np.ndarray | None = None
    ) -> None:
        """Use `TokenFile.open`."""
        self.path, self.header, self.tokens = path, header, tokens
        self.classes: list[str] = header.get("classes", [])
        self.labels = None
        if of_images is not None:
            self.labels = torch.from_numpy(of_images.astype(np.int64).repeat(_rows_per_image(header)))

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the tokens that `encode_dataset` wrote.

        Args:
            path: their folder, a relative one counted from the repository.

        Raises:
            FileNotFoundError: there are no tokens in `path`.
            ValueError: not every image is encoded, or a file is damaged or not what the other one says.
        """
        given, path = path, resolve_path(path)
        if not (path / HEADER).is_file():
            raise FileNotFoundError(
                f"There are no tokens in {path}: {HEADER} and {ARRAY} are expected there.{beside_caller(given)}"
            )
        header = _read_header(path)
        num_done, num_images = header["num_images_done"], header["dataset"]["num_images"]
        if num_done < num_images:
            raise ValueError(
                f"{path} holds {num_done} of {num_images} images: encode the dataset again with the same arguments, and it "
                "goes on where it stopped."
            )
        return cls(path, header, _map_array(path, header), _read_labels(path, header))

    def __reduce__(self) -> tuple:
        return type(self).open, (self.path,)  # a mapped array would travel as its whole content

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, ...]:
        """Return one row: int64 [h, w], or a tuple of one per level or group; ValueError where it has codes that are none."""
        return self._to_indices(self.tokens[index])

    def indices(self, rows: slice | int | Sequence[int] = slice(None)) -> Tensor | tuple[Tensor, ...]:
        """Return some rows as `VisualTokenizer.decode` takes them.

        Args:
            rows: a slice or numbers of rows; one number is a batch of one.

        Returns:
            int64 [n, h, w], or a tuple of one per level or group.

        Raises:
            ValueError: the file is damaged: a row has codes that its codebook has not.
        """
        return self._to_indices(self.tokens[[rows] if isinstance(rows, int | np.integer) else rows])

    def decode(self, tokenizer: VisualTokenizer, rows: slice | int | Sequence[int] = slice(None)) -> Tensor:
        """Return the images of some rows, on the device of the tokenizer.

        Args:
            tokenizer: the one that encoded them.
            rows: as in `indices`.

        Returns:
            float [n, 3, H, W] in [-1, 1].

        Raises:
            ValueError: `tokenizer` is another; the sentence says in what.
        """
        self.check_tokenizer(tokenizer)
        return tokenizer.decode(self.indices(rows))

    def check_tokenizer(self, tokenizer: VisualTokenizer) -> None:
        """Raise ValueError unless these are tokens of `tokenizer`: of its settings and its very weights."""
        if differences := differences_between(self.header["tokenizer"], describe(tokenizer)):
            raise ValueError(
                f"The tokens in {self.path} are of another tokenizer ({differences}): decode them with the one that "
                "encoded them."
            )

    def of_images(self, number: int) -> Tensor | tuple[Tensor, ...]:
        """Return the tokens of the first so many images as `indices` does, without those of their mirror images."""
        step = _rows_per_image(self.header)
        return self.indices(slice(0, number * step, step))

    def check_images(self, images: ImageDataset) -> None:
        """Raise ValueError unless these are tokens of `images`: of the same files, cropped alike."""
        there = self.header["dataset"]
        if differences := differences_between(there, _record_beside(there, images.record())):
            raise ValueError(
                f"The tokens in {self.path} are of other images ({differences}): give the dataset and the split that they are "
                "of, or encode these."
            )

    def rows(self, numbers: np.ndarray) -> Tensor:
        """Return some rows, int64 [n, tokens of all levels], level after level; ValueError where a code is none."""
        rows = torch.from_numpy(self.tokens[numbers].astype(np.int64)).flatten(1)
        self._levels_of(rows)
        return rows

    def _levels_of(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the tokens of each level, [..., tokens], of rows, [..., tokens of all levels]; checks that they are codes."""
        shapes, sizes = self.header["level_shapes"], self.header["codebook_sizes"]
        parts = rows.split([math.prod(shape) for shape in shapes], dim=-1)
        for part, size in zip(parts, sizes, strict=True):
            if part.numel() and part.max() >= size:  # as they are read: a whole file of ImageNet would take a second
                raise ValueError(
                    f"{self.path / ARRAY} is damaged: it holds the code {part.max()}, but {HEADER} says that there are {size}, "
                    f"from 0 on. Delete {self.path} and encode again."
                )
        return parts

    def _to_indices(self, tokens: np.ndarray) -> Tensor | tuple[Tensor, ...]:
        """Return rows, [..., h, w] or [..., total], as int64 in the shape of the quantizer's indices."""
        rows = torch.from_numpy(tokens.astype(np.int64))
        parts = self._levels_of(rows.flatten(-2) if self.tokens.ndim == 3 else rows)
        shapes = self.header["level_shapes"]
        return as_indices(tuple(part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)))


def encode_dataset(
    tokenizer: VisualTokenizer,
    dataset: str | ImageDataset,
    path: str | Path,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
    num_workers: int = 0,
    flips: bool = False,
    progress: bool = True,
    **of_dataset: Any,
) -> TokenFile:
    """Encode a split of a dataset into a file of tokens, or go on where that was stopped.

    The tokenizer encodes as in eval mode, and is left as it is: a training may go on meanwhile. In a run of several processes
    call this in one of them.

    Args:
        tokenizer: the one that encodes.
        dataset: its name, or a dataset that is open.
        path: the folder to write, a relative one counted from the repository.
        batch_size: images at a time; changes speed and memory, and indices only where rounding decides.
        device: None: a GPU (CUDA, then Apple's) where there is one, or else the CPU.
        num_workers: loading processes; 0: load in this one.
        flips: encode the mirror image of each image too.
        progress: show a bar with rate and remaining time.
        **of_dataset: `split` ("train"), `image_size` (the tokenizer's), `data_root`, `crop`, `test_fraction` and
            `on_bad_image`, as of `open_dataset`. The crop "adm" gives training images ADM's centre crop, while the centre of a
            cached square, "cached" or None, leaves out another ninth of their height and width.

    Returns:
        The tokens. A file that is complete is not encoded again.

    Raises:
        ValueError: an argument is unknown or out of range, or what `open_dataset` raises; weights are not finite; `path` holds
            tokens of another tokenizer, dataset or setting (the sentence lists what differs), labels of others, a damaged
            file, or another process writes there.
        TypeError: a number or `flips` is of another type.
    """
    check_loading(batch_size, num_workers)
    checked("flips", bool, flips)
    path = resolve_path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file, but tokens go into a folder.")
    tokenizer.quantizer.check_codebook()
    check_finite(tokenizer.state_dict(), "the tokenizer")
    device = usable_device(device)
    images = open_given(encode_dataset, dataset, of_dataset, "train", tokenizer)
    tokenizer = eval_view(tokenizer, device)
    with computing(device, exact=True):
        classes, labels = images.classes() or ([], None)
        header = _new_header(tokenizer, images, flips) | ({"classes": classes} if classes else {})
        make_folder(path)
        busy = f"Tokens are being written into {path}"
        with only_process(path / ".tokens.lock", busy, "wait for it, or give another folder."):
            header = _begin_or_resume(path, header, labels)
            if header["num_images_done"] < len(images):
                _encode_rest(tokenizer, images, path, header, batch_size, num_workers, progress)
    return TokenFile.open(path)


def _encode_rest(
    tokenizer: VisualTokenizer,
    dataset: ImageDataset,
    path: Path,
    header: dict[str, Any],
    batch_size: int,
    num_workers: int,
    progress: bool,
) -> None:
    """Encode the images that `header` does not call done."""
    device = next(tokenizer.parameters()).device
    array = _map_array(path, header)
    num_done = first_image = header["num_images_done"]
    rows_done = num_done * _rows_per_image(header)
    where = provenance(device) | {"batch_size": batch_size, "first_image": first_image}
    begun = recorded_at = time.perf_counter()
    with (
        (path / ARRAY).open("r+b") as file,
        progress_bar(
            total=len(dataset),
            initial=num_done,
            desc=f"encoding {dataset.name}",
            unit=" images",
            disable=not progress,
        ) as bar,
    ):
        # Plain writes: on a full disk they raise, where a mapped array ends the process.
        file.seek(array.offset + rows_done * array[0].nbytes)
        for batch in eval_batches(dataset, batch_size, num_workers=num_workers, first_image=num_done):
            images = to_float(batch.to(device, non_blocking=True))  # [b, 3, H, W]
            if header["flips"]:
                images = torch.stack([images, images.flip(3)], dim=1).flatten(0, 1)  # [2b, 3, H, W], in turns
            levels = tokenizer.encode_levels(images.contiguous(memory_format=torch.channels_last))
            rows = torch.cat([level.flatten(1) for level in levels], dim=1)  # [b or 2b, total]
            file.write(rows.cpu().numpy().astype(array.dtype).tobytes())
            num_done += len(batch)
            bar.update(len(batch))
            if num_done == len(dataset) or time.perf_counter() - recorded_at >= SECONDS_BETWEEN_RECORDS:
                recorded_at = time.perf_counter()
                seconds = recorded_at - begun
                rate = {
                    "wall_seconds": round(seconds, 3),
                    "images_per_second": round((num_done - first_image) / seconds, 2),
                }
                file.flush()
                os.fsync(file.fileno())  # images that the header calls done are on the disk
                _write_header(path, header | {"num_images_done": num_done, "provenance": where | rate})


def _begin_or_resume(path: Path, header: dict[str, Any], labels: np.ndarray | None) -> dict[str, Any]:
    """Return the header of what is in the folder, which is begun where there is nothing.

    Tokens from before classes were kept get theirs.

    Raises:
        ValueError: there is something else; the sentence lists what differs.
    """
    if (path / HEADER).is_file():
        there = _read_header(path)
        header = header | {"dataset": _record_beside(there["dataset"], header["dataset"])}
        done = {name: there[name] for name in ("num_images_done", "provenance") if name in there}
        known = {"classes": header["classes"]} | there if labels is not None else there
        if differences := differences_between(known, header | done):
            raise ValueError(f"{path} holds other tokens ({differences}): delete them, or give another folder.")
        header = known
        if known.keys() != there.keys():
            _write_labels(path, header, labels)
            _write_header(path, header)
    elif (path / ARRAY).exists():
        raise ValueError(
            f"{path} holds {ARRAY} without {HEADER}, which would say whose tokens they are: delete it, or give another "
            "folder."
        )
    else:
        if labels is not None:
            _write_labels(path, header, labels)
        _write_header(path, header)
    if header["num_images_done"] == 0:
        np.lib.format.open_memmap(path / ARRAY, mode="w+", dtype=header["dtype"], shape=tuple(header["shape"]))
    return header


def _new_header(tokenizer: VisualTokenizer, dataset: ImageDataset, flips: bool) -> dict[str, Any]:
    """Return what tokens.json says before the first image; with `flips` each image is followed by its mirror image."""
    device = next(tokenizer.parameters()).device
    blank = tokenizer.encode_levels(torch.zeros(1, 3, dataset.image_size, dataset.image_size, device=device))
    shapes = [list(level.shape[1:]) for level in blank]
    row = [sum(math.prod(shape) for shape in shapes)] if len(shapes) > 1 else shapes[0]
    header = {
        "format": FORMAT,
        "shape": [0, *row],
        "dtype": _dtype(tokenizer.quantizer.codebook_sizes),
        "codebook_sizes": tokenizer.quantizer.codebook_sizes,
        "level_shapes": shapes,
        "image_size": dataset.image_size,
        "flips": flips,
        "tokenizer": describe(tokenizer),
        "dataset": dataset.record(),
        "num_images_done": 0,
    }
    header["shape"][0] = len(dataset) * _rows_per_image(header)
    return json.loads(json.dumps(header))  # as it is read again: a tuple is a list


def _record_beside(there: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
    """Return a dataset's record as it would stand in a file: as JSON, and without `content` where that was not recorded yet."""
    here = json.loads(json.dumps(here))
    return here if "content" in there else {name: value for name, value in here.items() if name != "content"}


def describe(tokenizer: VisualTokenizer) -> dict[str, Any]:
    """Return what tells a tokenizer from others, as it is read from JSON."""
    settings = json.loads(json.dumps(tokenizer.settings))
    return {"settings": settings, "weights_sha256": state_sha256(tokenizer.state_dict())}


def _read_header(path: Path) -> dict[str, Any]:
    """Return what tokens.json says, once it is known not to contradict itself."""
    file = path / HEADER
    if (num_bytes := file.stat().st_size) > MAX_HEADER_BYTES:
        raise ValueError(
            f"{file} does not describe tokens: it has {num_bytes:,} bytes, more than {MAX_HEADER_BYTES:,}."
        )
    try:
        header = strict_json(file.read_bytes())
        _check_header(header)
    except (ValueError, TypeError, AttributeError, LookupError) as error:  # wrong values, types, missing entries
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{file} does not describe tokens: {reason}.") from error
    return header


def _check_header(header: dict[str, Any]) -> None:
    """Raise ValueError where a header contradicts itself, or what Python raises where it is something else."""
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {shown(header['format'])}, not {FORMAT!r}")
    num_images, num_done = header["dataset"]["num_images"], header["num_images_done"]
    shapes, sizes, shape = header["level_shapes"], header["codebook_sizes"], header["shape"]
    lengths = {"shape": shape, "codebook_sizes": sizes, "level_shapes": [n for level in shapes for n in level]}
    for name, values in lengths.items():
        if type(values) is not list or not all(_is_count(n, 1 if name != "shape" else 0) for n in values):
            raise ValueError(f"its {name} is {shown(header[name])}, but must hold whole numbers like those of [[4, 4]]")
    for name, value in {"num_images": num_images, "num_images_done": num_done}.items():
        if not _is_count(value, 0):
            raise ValueError(f"its {name} is {shown(value)}, but must be a whole number like 18")
    if type(header["flips"]) is not bool:
        raise ValueError(f"its flips is {shown(header['flips'])}, but must be true or false")
    num_rows = num_images * _rows_per_image(header)
    fitting = [[num_rows, sum(math.prod(level) for level in shapes)]]
    fitting += [[num_rows, *shapes[0]]] if len(shapes) == 1 else []
    if shape not in fitting:
        raise ValueError(
            f"its shape is {shown(shape)}, but {num_images} images with levels {shown(shapes)} make {shown(fitting[-1])}"
        )
    if len(sizes) != len(shapes):
        raise ValueError(f"it has {len(sizes)} codebook_sizes, but {len(shapes)} level_shapes")
    if header["dtype"] != _dtype(sizes):
        raise ValueError(
            f"its dtype is {shown(header['dtype'])}, but codebooks of {shown(sizes)} codes take {_dtype(sizes)!r}"
        )
    if num_done > num_images:
        raise ValueError(f"num_images_done is {num_done}, but there are {num_images} images")
    classes = header.get("classes", [""])
    if type(classes) is not list or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"its classes is {shown(classes)}, but must hold names")
    if not {"settings", "weights_sha256"} <= header["tokenizer"].keys():
        raise ValueError("its tokenizer has no settings or no weights_sha256")


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value < 2**62


def _map_array(path: Path, header: dict[str, Any]) -> np.memmap:
    """Map tokens.npy, read-only; raises ValueError where it is not what the header says."""
    file = path / ARRAY
    try:
        array = np.lib.format.open_memmap(file, mode="r")
    except Exception as error:  # there is none, or numpy raises whatever its header spells
        raise ValueError(
            f"{file} is missing, cut off or no array ({first_line(error)}): delete {path} and encode again."
        ) from error
    if list(array.shape) != header["shape"] or array.dtype != np.dtype(header["dtype"]):  # the order of bytes, too
        raise ValueError(
            f"{file} holds {array.dtype} {list(array.shape)}, but {HEADER} says {header['dtype']} {header['shape']}."
        )
    if not array.flags.c_contiguous:
        raise ValueError(f"{file} holds its tokens column by column, but they lie row by row: encode again.")
    num_bytes = file.stat().st_size
    if num_bytes != array.offset + array.nbytes:
        raise ValueError(f"{file} has {num_bytes} bytes, but its array ends after {array.offset + array.nbytes}.")
    return array


def _write_labels(path: Path, header: dict[str, Any], labels: np.ndarray) -> None:
    """Write labels.npy; ValueError where there is another one, which may be somebody's own."""
    content, file = io.BytesIO(), path / LABELS
    np.save(content, labels.astype(_dtype([len(header["classes"])])))
    if file.exists() and file.read_bytes() != content.getvalue():
        raise ValueError(f"{file} holds other labels than those of these images: move it away, or give another folder.")
    replace_file(file, content.getvalue())


def _read_labels(path: Path, header: dict[str, Any]) -> np.ndarray | None:
    """Return the class of each image, None where there are no classes; ValueError where labels.npy is another file."""
    if "classes" not in header:
        return None
    file, number = path / LABELS, len(header["classes"])
    try:
        labels = np.load(file, allow_pickle=False)
    except Exception as error:  # there is none, or numpy raises whatever its header spells
        raise ValueError(
            f"{file} is missing, cut off or no array ({first_line(error)}): delete {path} and encode again."
        ) from error
    expected = [header["dataset"]["num_images"]]
    if not isinstance(labels, np.ndarray) or labels.dtype != np.dtype(_dtype([number])) or [*labels.shape] != expected:
        raise ValueError(f"{file} must hold {_dtype([number])} {expected}, one label for each image, but holds others.")
    if len(labels) and labels.max() >= number:
        raise ValueError(f"{file} holds the label {labels.max()}, but {HEADER} names {number} classes.")
    return labels


def _write_header(path: Path, header: dict[str, Any]) -> None:
    replace_file(path / HEADER, json.dumps(header, indent=2).encode())


def _dtype(codebook_sizes: Sequence[int]) -> str:
    return "uint16" if max(codebook_sizes) <= 2**16 else "uint32"


def _rows_per_image(header: dict[str, Any]) -> int:
    return 2 if header["flips"] else 1
