"""`EncodedImages`: images beside the tokens that a tokenizer makes of them, and what can be asked about both."""

import functools
import math
import operator
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import traitlets
from torch import Tensor

from vistok.data import ImageDataset, also_trained_on, check_loading, eval_batches, open_given
from vistok.images import as_images, begin_range_check, end_range_check, psnr, to_float, to_uint8
from vistok.pretrained import load_pretrained
from vistok.quantizers.usage import CodebookUsage
from vistok.runs import short_names
from vistok.system.devices import computing, eval_view, usable_device
from vistok.system.files import readable, strict_json
from vistok.system.paths import resolve_path
from vistok.system.progress import progress_bar
from vistok.system.weights import check_finite
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import TokenFile

QUEUE_SIZE = 65_536  # tokens, of the published usage
CACHED_RECONSTRUCTIONS = 256  # images
DECODED_TOGETHER = 32  # images
TRAINED_ON = " (trained on)"  # ends the name of an image that the tokenizer saw in training
NO_IMAGES = "There are no images to look at: give a dataset that has some."


class UsageCurve(NamedTuple):
    """How many codes have been seen after so many tokens.

    Attributes:
        tokens: int64 [P], numbers of tokens, rising.
        seen: int64 [P], distinct codes among the first so many, in the order of the images.
        expected: float64 [P], distinct codes to be expected among so many tokens drawn at random from all.
        in_queue: int64 [P], distinct codes among the last 65,536 of the first so many.
    """

    tokens: np.ndarray
    seen: np.ndarray
    expected: np.ndarray
    in_queue: np.ndarray


class Chosen(NamedTuple):
    """What is chosen of a codebook.

    Attributes:
        level: number of the codebook.
        code: the one; -1: none.
        codes: several, rising, each once; empty: none.
    """

    level: int = 0
    code: int = -1
    codes: tuple[int, ...] = ()


class Choice(traitlets.HasTraits):
    """What is chosen of some images' codes, one choice for all views of them; they listen to `chosen`, and `choose`.

    Attributes:
        chosen: level, code and codes.
        turn: held by whoever acts on the views, for a choice in one acts on all.
    """

    chosen = traitlets.Instance(Chosen, args=())

    def __init__(self, codebook_sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = codebook_sizes
        self.turn = threading.RLock()

    def choose(self, code: int | None = None, *, codes: Sequence[int] | None = None, level: int | None = None) -> None:
        """Choose a code, several codes, a level; what is not given stays, except codes of another level or beside a new code.

        Raises:
            ValueError: there is no such code or level, or it is no whole number.
        """
        now = self.chosen
        level = now.level if level is None else _whole("level", level)
        if not 0 <= level < len(self._sizes):
            raise ValueError(f"There is no level {level}: levels are 0 to {len(self._sizes) - 1}.")
        if level != now.level:
            now = Chosen(level)
        size = self._sizes[level]
        if codes is None:  # one goes through the codes of a selection, and leaves it with a code that is not in it
            codes = now.codes if code is None or code in now.codes else ()
        code = now.code if code is None else _whole("code", code)
        several = tuple(sorted({_whole("one of codes", one) for one in codes}))
        for one in (code if code != -1 else 0, *several[:1], *several[-1:]):  # -1 is none
            if not 0 <= one < size:
                raise ValueError(f"There is no code {one}: codes are 0 to {size - 1}.")
        with self.turn:
            self.chosen = Chosen(level, code, several)


def _whole(name: str, value: Any) -> int:
    """Return a whole number of any kind as int; 1.5 would be cut to another code than was meant."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"{name} is {value!r}, but must be a whole number.") from error


class EncodedImages:
    """Images and their tokens.

    Attributes:
        tokenizer: the one that encoded them.
        name: what it is called in captions.
        images_name: what the images are called in captions.
        tokens: int32 [N, h, w], one array a level.
        image_names: each image's, for captions.
        choice: the codes that are chosen in all views of these images.
    """

    def __init__(
        self,
        tokenizer: VisualTokenizer,
        images: ImageDataset | Tensor,
        indices: Tensor | tuple[Tensor, ...],
        *,
        name: str = "tokenizer",
        trained_on: Collection[str] = (),
    ) -> None:
        """Put images and their indices together.

        Args:
            tokenizer: the one that encoded them.
            images: a dataset, or uint8 [N, 3, H, W].
            indices: those of the first images, as `VisualTokenizer.decode` takes them.
            name: what to call the tokenizer.
            trained_on: names of images of a dataset that it was trained on; their captions say so.

        Raises:
            ValueError: there are no images; their size does not fit; the indices are of another K, number or grid, or are
                refused by `VisualTokenizer.decode`.
        """
        self.tokenizer, self.name, self._images = tokenizer, name, images
        if len(images) == 0:
            raise ValueError(NO_IMAGES)
        levels = tokenizer.as_levels(indices)
        if len(levels[0]) > len(images):
            raise ValueError(f"There are indices of {len(levels[0])} images, but only {len(images)} images.")
        self.tokens = [level.to(torch.int32).cpu().numpy() for level in levels]
        height, width = self.pixels([0]).shape[2:]
        rows, columns = tokenizer.token_grids(height, width)[-1]  # where levels have grids of several sizes, the finest
        if tuple(levels[-1].shape[1:]) != (rows, columns):
            raise ValueError(
                f"Images of {height}x{width} pixels have a grid of {rows}x{columns} tokens here, but the indices are of a grid "
                f"of {levels[-1].shape[1]}x{levels[-1].shape[2]}: of other images or another tokenizer."
            )
        if isinstance(images, ImageDataset):
            of_folder = images.name == "folder"
            self.images_name = f"your folder's {images.split} split" if of_folder else f"{images.name} {images.split}"
            self.image_names = [
                readable(name) + (TRAINED_ON if name in trained_on else "") for name in images.names[: len(self)]
            ]
        else:
            self.images_name, self.image_names = "images", [f"image {number}" for number in range(len(self))]
        self._decoded: dict[int, Tensor] = {}  # reconstructions, the newest last
        self.choice = Choice(self.codebook_sizes)

    @classmethod
    def open(
        cls,
        tokenizer: str | Path | VisualTokenizer,
        dataset: str | ImageDataset | Tensor | np.ndarray = "photos",
        *,
        max_images: int | None = None,
        tokens: str | Path | None = None,
        batch_size: int = 32,
        device: str | torch.device | None = None,
        progress: bool = True,
        **of_dataset: Any,
    ) -> Self:
        """Load a tokenizer and encode images with it, or take their tokens from a file.

        Args:
            tokenizer: a run directory, a saved tokenizer, an official checkpoint (its file or its name), or a tokenizer.
            dataset: its name, or one that is open; or images, float in [-1, 1] or uint8 [N, 3, H, W], a tensor or an array.
            max_images: the first so many only; None: all.
            tokens: folder of a file of tokens (`vistok.tokens`) of this tokenizer and this dataset, of which mirror images are
                left out; None: encode now.
            batch_size: images at a time.
            device: None: a GPU where there is one, or else the CPU; of a tokenizer, where it is.
            progress: show a bar.
            **of_dataset: `split` ("test"), `image_size` (the tokenizer's), `data_root`, `crop`, `test_fraction` and
                `on_bad_image`, as of `open_dataset`. With crop "none" whole pictures, cut at their edges to multiples of the
                downsample factor; they must be of one size.

        Raises:
            FileNotFoundError: there is no tokenizer, or there are no tokens.
            ValueError: as `open_dataset`, `load_pretrained` and `EncodedImages` say; weights are not finite; whole pictures
                are of several sizes; or `tokens` are of another tokenizer, or of other images.
        """
        check_loading(batch_size, max_images=max_images)
        name, trained = "tokenizer", ""
        if not isinstance(tokenizer, VisualTokenizer):
            name, trained = Path(tokenizer).name, _dataset_of_run(tokenizer)
            tokenizer = load_pretrained(tokenizer).to(usable_device(device))
        elif device is not None:  # a view, since somebody may train it: its mode and its place stay
            tokenizer = eval_view(tokenizer, usable_device(device))
        tokenizer.quantizer.check_codebook()
        check_finite(tokenizer.state_dict(), name)
        if isinstance(dataset, str | ImageDataset):
            images: ImageDataset | Tensor = open_given(cls.open, dataset, of_dataset, "test", tokenizer, whole=True)
        elif given := [name for name, value in of_dataset.items() if value is not None]:
            raise ValueError(f"{given[0]} is given, but the images are given as they are: leave it out.")
        else:
            images = _as_uint8(tokenizer, dataset)[:max_images]
        number = min(len(images), max_images or len(images))
        if isinstance(images, ImageDataset):
            _check_one_size(images, number)
        if tokens is not None:
            file = TokenFile.open(tokens)
            file.check_tokenizer(tokenizer)
            if isinstance(images, ImageDataset):
                file.check_images(images)
            indices = file.of_images(number)
        else:
            indices = _encode(tokenizer, images, number, batch_size, progress)
        return cls(tokenizer, images, indices, name=name, trained_on=also_trained_on(trained))

    def __len__(self) -> int:
        return len(self.tokens[0])

    def __repr__(self) -> str:
        books = " + ".join(f"{size:,}" for size in self.codebook_sizes)
        tokens = sum(level.size for level in self.tokens)
        images = "1 image" if len(self) == 1 else f"{len(self):,} images"
        return f"{images} of {self.images_name} as {tokens:,} tokens of {books} codes ({self.title})"

    @property
    def title(self) -> str:
        """What captions call the tokenizer; a run goes by its row."""
        return short_names([self.name])[0]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """K of each level."""
        return self.tokenizer.quantizer.codebook_sizes

    # Images.

    def pixels(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return some images, uint8 [n, 3, H, W]."""
        rows = np.asarray(rows, dtype=np.int64)
        if isinstance(self._images, Tensor):
            return self._images[torch.from_numpy(rows)]
        return self._images.images(rows)

    def reconstructions(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """Return what some images' tokens decode to, uint8 [n, 3, H, W]; the last ones are kept."""
        rows = [int(row) for row in rows]
        missing = [row for row in dict.fromkeys(rows) if row not in self._decoded]
        found = {row: self._decoded[row] for row in rows if row not in missing}
        for start in range(0, len(missing), DECODED_TOGETHER):
            part = missing[start : start + DECODED_TOGETHER]
            found |= zip(part, to_uint8(self.decode(self.indices(part))), strict=True)
        for row, image in found.items():
            self._decoded.pop(row, None)
            self._decoded[row] = image  # the newest last
        for row in list(self._decoded)[:-CACHED_RECONSTRUCTIONS]:
            del self._decoded[row]
        return torch.stack([found[row] for row in rows])

    def indices(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the tokens of some images, int64 [n, h, w] of each level."""
        return tuple(torch.from_numpy(level[list(rows)].astype(np.int64)) for level in self.tokens)

    def decode(self, indices: tuple[Tensor, ...]) -> Tensor:
        """Return the images of tokens, float [n, 3, H, W] in [-1, 1], on the CPU."""
        return self.tokenizer.decode(indices).cpu()

    def psnr(self, rows: Sequence[int]) -> np.ndarray:
        """Return the PSNR of some reconstructions in dB, float64 [n]; infinite where nothing differs."""
        return psnr(self.pixels(rows), self.reconstructions(rows)).numpy()

    # Codes.

    def counts(self, level: int = 0) -> Tensor:
        """Return how many tokens are each code, int64 [K]."""
        return torch.from_numpy(self._by_code[level][1])

    @functools.cached_property
    def _by_code(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each level the places of all tokens sorted by code, the codes' counts, and where each code's places begin."""
        found = []
        for tokens, size in zip(self.tokens, self.codebook_sizes, strict=True):
            flat = tokens.ravel()
            counts = np.bincount(flat, minlength=size)
            starts = np.concatenate([[0], counts.cumsum()])
            found.append((flat.argsort(kind="stable"), counts, starts))
        return found

    def places(self, code: int, level: int = 0) -> np.ndarray:
        """Return where a code is: int64 [n, 3] of image, row and column, in the order of the images.

        Raises:
            ValueError: there is no such code.
        """
        size = self.codebook_sizes[level]
        if not 0 <= code < size:
            raise ValueError(f"There is no code {code}: codes are 0 to {size - 1}.")
        order, _, starts = self._by_code[level]
        return np.stack(np.unravel_index(order[starts[code] : starts[code + 1]], self.tokens[level].shape), axis=1)

    def most_using(self, code: int, number: int, level: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Return the images with the most tokens of a code and how many they have, int64 [n] each, most first."""
        images, counts = np.unique(self.places(code, level)[:, 0], return_counts=True)
        most = (-counts).argsort(kind="stable")[:number]
        return images[most], counts[most]

    def patches(self, places: np.ndarray, level: int = 0, *, margin: int = 1, decoded: bool = False) -> Tensor:
        """Return what lies at some tokens, with tokens around them; grey beyond the image.

        Args:
            places: int64 [n, 3] of image, row and column.
            level: whose grid rows and columns are of.
            margin: tokens shown on each side of it.
            decoded: cut them from the reconstructions instead of the images.

        Returns:
            uint8 [n, 3, p, p], p = (2 margin + 1) times the pixels a token along its longer side, a part of a pixel counted as
            one: grids of several scales do not all divide the image.

        Raises:
            ValueError: tokens are a sequence, and lie nowhere in the image.
        """
        if self.tokenizer.is_sequence:
            raise ValueError(
                f"Tokens of {self.title} are a sequence and lie nowhere in the image: there are no patches."
            )
        shown = list(dict.fromkeys(places[:, 0].tolist()))
        pictures = self.reconstructions(shown) if decoded else self.pixels(shown)
        sides, grid = pictures.shape[2:], self.tokens[level].shape[1:]
        f = max(math.ceil(size / tokens) for size, tokens in zip(sides, grid, strict=True))  # pixels a token
        around = torch.nn.functional.pad(pictures, [margin * f] * 4, value=128)
        side = (2 * margin + 1) * f
        found = []
        for image, *place in places.tolist():
            top, left = (
                max(0, min(round(number * size / tokens), size - f))
                for number, size, tokens in zip(place, sides, grid, strict=True)
            )
            found.append(around[shown.index(image), :, top : top + side, left : left + side])
        return torch.stack(found) if found else pictures.new_empty(0, 3, side, side)

    def grid_counts(self, codes: int | Sequence[int], level: int = 0) -> np.ndarray:
        """Return how many images have a code, or one of several, at each place of the grid, int64 [h, w]."""
        if isinstance(codes, int | np.integer):
            grid = np.zeros(self.tokens[level].shape[1:], dtype=np.int64)
            np.add.at(grid, tuple(self.places(codes, level)[:, 1:].T), 1)
            return grid
        wanted = np.zeros(self.codebook_sizes[level], dtype=bool)
        wanted[list(codes)] = True
        return wanted[self.tokens[level]].sum(0)

    def codes_by_place(self, number: int, level: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return which codes there are at each place of the grid.

        Args:
            number: how many codes to name for each place.
            level: number of the codebook.

        Returns:
            codes and their counts, int64 [h, w, number], most frequent first, -1 and 0 where there are fewer; and the
            perplexity of each place, float64 [h, w]: how many equally frequent codes would carry as much.
        """
        tokens = self.tokens[level]
        height, width = tokens.shape[1:]
        codes = np.full((height, width, number), -1, dtype=np.int64)
        counts = np.zeros_like(codes)
        perplexity = np.empty((height, width))
        for row, column in np.ndindex(height, width):
            here, times = np.unique(tokens[:, row, column], return_counts=True)
            most = (-times).argsort(kind="stable")[:number]
            codes[row, column, : len(most)], counts[row, column, : len(most)] = here[most], times[most]
            shares = times / times.sum()
            perplexity[row, column] = np.exp(-(shares * np.log(shares)).sum())
        return codes, counts, perplexity

    def usage(self, level: int = 0) -> dict[str, float]:
        """Return usage, usage_queue, perplexity and entropy_bits, as `evaluate` does."""
        usage = CodebookUsage([self.codebook_sizes[level]])
        usage.update([torch.from_numpy(self.tokens[level].astype(np.int64))])
        return usage.compute()[0]

    def usage_curve(self, level: int = 0, points: int = 120) -> UsageCurve:
        """Return how many codes have been seen after so many tokens, at `points` numbers of tokens evenly spaced in the log.

        The expectation is that of drawing without replacement: a code with n of N tokens is not among m of them with
        probability C(N - n, m) / C(N, m). (Ecologists call the curve rarefaction: Hurlbert 1971, "The nonconcept of species
        diversity".)
        """
        flat = self.tokens[level].ravel()
        total = flat.size
        tokens = np.unique(np.geomspace(1, total, points).round().astype(np.int64))
        order, counts, starts = self._by_code[level]
        first = np.sort(order[starts[:-1][counts > 0]])  # where each code is seen for the first time
        seen = np.searchsorted(first, tokens)
        in_queue = seen.copy()
        for place in np.flatnonzero(tokens > QUEUE_SIZE):
            in_queue[place] = np.unique(flat[tokens[place] - QUEUE_SIZE : tokens[place]]).size
        frequencies, codes = np.unique(counts[counts > 0], return_counts=True)
        log_factorial = torch.arange(total + 1, dtype=torch.float64).add_(1).lgamma_().numpy()
        expected = np.empty(len(tokens))
        for place, m in enumerate(tokens):
            possible = frequencies <= total - m  # more frequent ones are surely among m
            rest = total - frequencies[possible]
            missed = np.exp(
                log_factorial[rest] - log_factorial[rest - m] - log_factorial[total] + log_factorial[total - m]
            )
            expected[place] = codes.sum() - (codes[possible] * missed).sum()
        return UsageCurve(tokens, seen, expected, in_queue)


def _as_uint8(tokenizer: VisualTokenizer, images: Tensor | np.ndarray) -> Tensor:
    """Return images that are given as they are, float in [-1, 1] or uint8, as uint8 [N, 3, H, W].

    Raises:
        ValueError: they have another shape or dtype, or are clearly out of range.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        images = torch.from_numpy(images.copy())
    if isinstance(images, Tensor) and images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3:
        tokenizer.check_size(*images.shape[2:])
        return images
    images = as_images(images)
    tokenizer.check_size(*images.shape[2:])
    end_range_check(begin_range_check(images))
    return to_uint8(images).cpu()


def _check_one_size(images: ImageDataset, number: int) -> None:
    """Refuse whole pictures of several sizes: what is counted by place needs one grid."""
    sizes = images.different_sizes(number)
    if len(sizes) > 1:
        shown = " and ".join(f"{width}x{height}" for height, width in sizes[:2])
        raise ValueError(
            f"The {number} whole pictures have {len(sizes)} sizes, {shown} pixels among them, and so no grid in common; "
            "give a folder or a max_images of one size, or leave crop out: centre squares have one."
        )


def _dataset_of_run(path: str | Path) -> str:
    """Return the name of the dataset that a run was trained on; empty where it is no run, of which nothing is known."""
    try:
        return str(strict_json((resolve_path(path) / "config.json").read_bytes())["config"]["dataset"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _encode(
    tokenizer: VisualTokenizer, images: ImageDataset | Tensor, number: int, batch_size: int, progress: bool
) -> tuple[Tensor, ...]:
    """Return the indices of the first `number` images, one tensor a level, on the CPU."""
    device = next(tokenizer.parameters()).device
    if number == 0:
        raise ValueError(NO_IMAGES)
    if isinstance(images, Tensor):
        batches: Any = images.split(batch_size)
    else:
        batches = eval_batches(images, batch_size)
    parts: list[tuple[Tensor, ...]] = []
    done = 0
    # The bar comes only where it takes long, and goes: what is shown then is the view.
    bar = progress_bar(total=number, desc="encoding", unit=" images", delay=2, leave=False, disable=not progress)
    with computing(device, exact=True), bar:
        for batch in batches:
            batch = to_float(batch[: number - done].to(device))
            levels = tokenizer.encode_levels(batch.contiguous(memory_format=torch.channels_last))
            parts.append(tuple(level.cpu() for level in levels))
            done += len(batch)
            bar.update(len(batch))
            if done == number:
                break
    return tuple(torch.cat(level) for level in zip(*parts, strict=True))
