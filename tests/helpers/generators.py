"""Toy generators, toy images, and files of their toy tokens."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vistok.generation.generator import GENERATORS, Generator
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import TokenFile, encode_dataset

SMALL = {"hidden_dim": 16, "depth": 2, "num_heads": 2}
GRIDS: dict[str, dict[str, Any]] = {  # layouts of every kind
    "plane": {"codebook_sizes": [16], "level_shapes": [[4, 4]]},
    "sequence": {"codebook_sizes": [16], "level_shapes": [[1, 12]]},
    "levels": {"codebook_sizes": [16, 8, 4], "level_shapes": [[3, 4]] * 3},
    "scales": {"codebook_sizes": [16] * 3, "level_shapes": [[1, 1], [2, 2], [3, 3]]},
}


def generator(kind: str = "autoregressive", grid: str = "plane", *, seed: int = 0, **options: Any) -> Generator:
    """A toy in eval mode whose weights are large enough that what it sees matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = GENERATORS[kind](**(GRIDS[grid] | {"image_size": 16} | SMALL | options))
        with torch.no_grad():
            for parameter in made.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(10)
    return made.eval()


def places_of(made: Generator, batch: int = 3, seed: int = 0) -> torch.Tensor:
    """Random tokens, int64 [B, S, L]."""
    drawn = torch.Generator().manual_seed(seed)
    shape = (batch, made.layout.num_places)
    return torch.stack([torch.randint(size, shape, generator=drawn) for size in made.layout.sizes], dim=-1)


def toy_tokenizer(seed: int = 0, quantizer: str = "vq", **options: Any) -> VisualTokenizer:
    """Of 16x16 images, with 16 tokens of 16 codes, which are spread like z."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = VisualTokenizer(
            network_options={"hidden_dim": 8, "num_res_blocks": 1},
            quantizer=quantizer,
            quantizer_options={"codebook_size": 16, "codebook_dim": 2} | options,
            image_size=16,
        )
        with torch.no_grad():
            z = made.encoder(torch.rand(8, 3, 8, 8).mul(2).sub(1).repeat_interleave(2, 2).repeat_interleave(2, 3))
            for book in made.quantizer.modules():
                if isinstance(getattr(book, "weight", None), torch.Tensor) and book.weight.shape == (16, 2):
                    book.weight.copy_(z.mean((0, 2, 3)) + z.std((0, 2, 3)) * torch.randn(16, 2))
    return made.eval()


def pictures(number: int, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Coarse random colours with fine noise, uint8 [N, 3, size, size]."""
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 3, 5, 5, generator=drawn)
    images = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic", antialias=True)
    return ((images + 0.1 * torch.randn(images.shape, generator=drawn)).clamp(0, 1) * 255).round().to(torch.uint8)


def class_images(folder: Path, number: int = 16) -> Path:
    """Write train/ and test/ of two classes: images that are dark, and images that are light."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind, lowest in (("dark", 0), ("light", 128)):
            (folder / split / kind).mkdir(parents=True)
            for place in range(number):
                coarse = Image.fromarray(rng.integers(lowest, lowest + 128, (4, 4, 3), dtype=np.uint8))
                coarse.resize((16, 16), Image.Resampling.BICUBIC).save(folder / split / kind / f"{place:02}.png")
    return folder


def toy_tokens(tokenizer: VisualTokenizer, images: Path, out: Path, split: str = "train") -> TokenFile:
    """Encode images of `class_images`."""
    return encode_dataset(
        tokenizer, "folder", out, data_root=images, split=split, device="cpu", progress=False, batch_size=8
    )
