"""What is to be said of a family of checkpoints: how its files name the tensors of a tokenizer, and what these tell."""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any


class Shapes:
    """The shapes of a file's tensors, asked for by our names.

    Args:
        form: how the file names them.
        shapes: the shape of each tensor, by its name in the file.
        path: the file, for messages.
    """

    def __init__(self, form: "Format", shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
        self.form, self.shapes, self.path = form, shapes, path

    def has(self, ours: str) -> bool:
        """Return whether the file has our tensor `ours`."""
        return self.form.file_name(ours, 0) in self.shapes

    def of(self, ours: str) -> tuple[int, ...]:
        """Return the shape of our tensor `ours`, the weight of a convolution or a codebook.

        Args:
            ours: a name that does not depend on the number of levels.

        Raises:
            ValueError: the file has no such tensor, or its shape is no weight's.
        """
        if (name := self.form.file_name(ours, 0)) not in self.shapes:
            raise ValueError(f"The tensor {name} is missing in {self.path}: it tells the size of the network.")
        if len(dims := self.shapes[name]) < 2 or 0 in dims:
            raise ValueError(f"The tensor {name} of {self.path} is {list(dims)}: no network has that.")
        return dims

    def count(self, ours: str) -> int:
        """Return how many tensors there are of names such as "encoder.levels.{}.block_0.conv1.weight", counted from 0.

        Raises:
            ValueError: as `of`, for the first of them.
        """
        self.of(ours.format(0))
        i = 1
        while self.form.file_name(ours.format(i), 0) in self.shapes:
            i += 1
        return i


@dataclasses.dataclass(frozen=True)
class Several:
    """What tells the quantizer of a file, in a family that has several.

    Attributes:
        possible: of the names of a file's tensors, of what is said, of the number of channels of a code and of the file's
            path: the quantizers that it may have, the likeliest first, and why, to end a sentence. Raises ValueError where
            nothing tells.
        said_beside: of the file's path: what a file beside it says, as `quantizer`, `levels` and `l2_norm`; empty where there
            is none. Raises ValueError where several contradict each other.
        unsaid: what a reader is told where nothing is said and the likeliest was taken.
    """

    possible: Callable[[Collection[str], Mapping[str, Any], int, Path], tuple[list[str], str]]
    said_beside: Callable[[Path], dict[str, Any]]
    unsaid: str


@dataclasses.dataclass(frozen=True)
class Format:
    """How a project names the tensors of a tokenizer, and what its files tell.

    Attributes:
        network: a key of `networks.NETWORKS`.
        quantizer: a key of `quantizers.QUANTIZERS`; where there are several, the likeliest.
        names: patterns of our names and what stands for them in the file, applied one after the other. Of several that become
            one name, the file has one tensor: they lie in it one after the other, along its first dimension.
        first_tensor: a name that is in every file, and in none twice; what stands before it stands before all tensors.
        found_in: whether a file with tensors of these names is of this format, if it is of none further down in `FORMATS`;
            None: where it has `first_tensor`.
        network_options: reads the options of the network off the shapes.
        smallest: options of the smallest such network, which files of no format are compared with.
        decoder_from_image: whether the file counts the decoder's levels from the image on; ours counts from the codes on.
        numbered_parts: whether the file numbers the parts of a level in the order in which they run; ours have names.
        codebook: our name of the tensor that has a row for each code; there is none with `lfq` and `fsq`.
        quantizer_options: further options of the quantizer, of the shapes and of what is said beside them.
        l2_norm: whether codes and encoder outputs are on the unit sphere, which no tensor tells.
        l2_search_only: where they are, whether encoder outputs are so for the search only.
        image_size: pixels, of its training; or what tells them by the other settings of the tokenizer.
        frozen: names in the file of tensors that its training leaves as they are, so that a moving average has none of them.
        ignored: patterns of further names in such files that are not of the tokenizer.
        several: of a family whose files may have one of several quantizers, what tells it.
    """

    network: str
    quantizer: str
    names: tuple[tuple[str, str], ...]
    first_tensor: str
    found_in: Callable[[Collection[str]], bool] | None
    network_options: Callable[[Shapes], dict[str, Any]]
    smallest: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"ch_mult": [1, 2]})
    decoder_from_image: bool = False
    numbered_parts: bool = False
    codebook: str = "quantizer.weight"
    quantizer_options: Callable[[Shapes, Mapping[str, Any]], dict[str, Any]] = lambda shapes, said: {}
    l2_norm: bool = False
    l2_search_only: bool = False
    image_size: int | Callable[[dict[str, Any]], int] = 256
    frozen: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    several: Several | None = None

    def has(self, names: Collection[str]) -> bool:
        """Return whether a file with tensors of these names may be of this format."""
        return self.first_tensor in names if self.found_in is None else self.found_in(names)

    def file_name(self, name: str, num_levels: int, names: Collection[str] = ()) -> str:
        """Return what the file calls our tensor `name`.

        Args:
            name: ours.
            num_levels: of the network.
            names: all of ours, in their order, which tells the numbers of a level's parts; without them a block's is its own.
        """
        if self.numbered_parts:
            name = re.sub(r"^((?:en|de)coder\.levels\.\d+\.)(\w+)", lambda m: _numbered(m, names), name)
        if self.decoder_from_image:
            name = re.sub(r"(?<=^decoder\.)(levels|norms)\.(\d+)", lambda m: _mirrored(m, num_levels), name)
        for pattern, replacement in self.names:
            name = re.sub(pattern, replacement, name)
        return name


def _numbered(match: re.Match[str], names: Collection[str]) -> str:
    level, part = match.groups()
    parts = list(dict.fromkeys(name[len(level) :].partition(".")[0] for name in names if name.startswith(level)))
    return f"{level}{parts.index(part) if parts else part.rpartition('_')[2]}"


def _mirrored(match: re.Match[str], num_levels: int) -> str:
    return f"{match[1]}.{num_levels - 1 - int(match[2])}"
