"""How many bits an image takes under a generator: the cross entropy of tokens that it was not trained on.

An ideal entropy coder needs so many, and `vistok.compress` comes within a percent of it. Bits per token do not compare between
tokenizers, as tokens are not alike; bits per image do, beside what the reconstruction is worth.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vistok.generation.generator import Autoregressive, Generator
from vistok.system.devices import computing, eval_view, usable_device
from vistok.system.values import PositiveInt, checked
from vistok.tokens import TokenFile


@dataclasses.dataclass(frozen=True)
class Rate:
    """Bits of images under a generator.

    Attributes:
        bits: float64 [N], the cross entropy of each image's tokens, in bits.
        num_tokens: of an image.
        nominal_bits: of an image, sum of log2 K over its tokens: what it takes without a generator.
        num_pixels: of an image.
    """

    bits: Tensor
    num_tokens: int
    nominal_bits: float
    num_pixels: int

    @property
    def bits_per_image(self) -> float:
        """Mean over the images."""
        return float(self.bits.mean())

    @property
    def bits_per_pixel(self) -> float:
        """Mean over the images; a pixel has all three colours."""
        return self.bits_per_image / self.num_pixels

    @property
    def bits_per_token(self) -> float:
        """Mean over tokens and images."""
        return self.bits_per_image / self.num_tokens

    def to_dict(self) -> dict[str, Any]:
        """Return the record, fit for JSON: means over the images, whose number it says, and what they are of."""
        names = ("bits_per_image", "bits_per_pixel", "bits_per_token", "nominal_bits", "num_tokens", "num_pixels")
        spread = float(self.bits.std(correction=0))
        return {name: getattr(self, name) for name in names} | {"deviation": spread, "num_images": len(self.bits)}


@torch.no_grad()
def measure_rate(
    generator: Generator,
    tokens: TokenFile | str | Path,
    *,
    batch_size: int = 64,
    device: str | torch.device | None = None,
) -> Rate:
    """Measure the bits of the images in a file of tokens, given their classes where the generator knows classes.

    Args:
        generator: an autoregressive one.
        tokens: the file, or its folder; for a held-out rate of the test split.
        batch_size: images at a time.
        device: None: a GPU where there is one, or else the CPU.

    Raises:
        ValueError: the generator is masked, was trained on tokens of another tokenizer or of other classes; or the
            file is damaged.
    """
    checked("batch_size", PositiveInt, batch_size)
    tokens = tokens if isinstance(tokens, TokenFile) else TokenFile.open(tokens)
    check_orders(generator)
    check_tokens(generator, tokens)
    view = eval_view(generator, usable_device(device))
    bits = []
    with computing(view.device, exact=True):
        for rows in torch.arange(len(tokens)).split(batch_size):
            places = view.layout.to_places(tokens.rows(rows.numpy())).to(view.device)
            labels = tokens.labels[rows].to(view.device) if view.classes else None
            bits.append(view.token_losses(places, labels).cpu().double().sum((1, 2)) / math.log(2))
    layout = generator.layout
    nominal = sum(math.log2(size) for size in layout.sizes) * layout.num_places
    return Rate(torch.cat(bits), layout.num_places * len(layout.sizes), nominal, generator.image_size**2)


def check_orders(generator: Generator) -> None:
    """Raise ValueError where a generator does not give each token a probability given those before it."""
    if not isinstance(generator, Autoregressive):
        raise ValueError(
            f"The generator is {generator.MODEL}: it has no order of tokens in which each has a probability, so that there "
            "is no rate; take an autoregressive one."
        )


def check_tokens(generator: Generator, tokens: TokenFile) -> None:
    """Raise ValueError unless tokens are those of the generator's tokenizer, at its size and of its classes."""
    header, settings = tokens.header, generator.settings
    for name in ("level_shapes", "codebook_sizes", "tokenizer"):
        if header[name] != settings[name]:
            raise ValueError(
                f"The tokens in {tokens.path} have another {name} than those this generator was trained on."
            )
    if generator.classes and tokens.classes != generator.classes:
        raise ValueError(
            f"The tokens in {tokens.path} have the classes {tokens.classes[:4]}, but this generator was trained on "
            f"{generator.classes[:4]}: take tokens of the same dataset."
        )
