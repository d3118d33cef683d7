"""What one code means: how codes lie to each other, what each decodes to alone, and pictures of changed tokens.

Nothing here looks at a dataset: these are properties of a tokenizer. What images do with its codes is in `vistok.encoded`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from vistok.devices import eval_view
from vistok.tokenizer import VisualTokenizer

TOKENS_AT_A_TIME = 8192  # decoded together


def to_uint8(images: Tensor) -> Tensor:
    """Map float images in [-1, 1] of any shape to uint8, those beyond clamped."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def similarity_order(codebook: Tensor, columns: int) -> Tensor:
    """Return the codes in an order that, written in rows of `columns`, puts similar codes side by side.

    The codes' first two principal components make a plane; the first decides on the row, the second on the place in it. So
    every cell of the grid holds exactly one code, where a scatter of the plane would pile them up.

    Args:
        codebook: float [K, D].
        columns: cells a row, at least 1.

    Returns:
        int64 [K], a permutation of the codes.
    """
    centred = codebook.double() - codebook.double().mean(0)
    # Of D x D, however many codes there are; eigenvalues ascend.
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -2:].flip(1)  # [D, 2 or 1]
    largest = directions.abs().argmax(0, keepdim=True)
    plane = centred @ (directions * directions.gather(0, largest).sign())  # the sign of an eigenvector is arbitrary
    first, second = plane[:, 0], plane[:, -1]
    by_row = first.argsort(stable=True)
    return torch.cat([row[second[row].argsort(stable=True)] for row in by_row.split(columns)])


def nearest_codes(codebook: Tensor, code: int, number: int) -> tuple[Tensor, Tensor]:
    """Return the codes nearest to a code, itself left out, and their Euclidean distances, nearest first.

    Args:
        codebook: float [K, D].
        code: in [0, K).
        number: how many; fewer where the codebook is smaller.

    Returns:
        int64 [n] and float [n].
    """
    distances = (codebook - codebook[code]).square().sum(1).sqrt()
    distances[code] = torch.inf
    found = distances.topk(min(number, len(codebook) - 1), largest=False)
    return found.indices, found.values


@torch.no_grad()
def decode_alone(tokenizer: VisualTokenizer, codes: Tensor, *, level: int = 0, context: int = 1) -> Iterator[Tensor]:
    """Decode codes on their own, many at a time.

    A code alone is a grid of `context` x `context` tokens that are all this code, and of its image the middle patch: with 1
    the patch is what the code paints beside nothing, its edges included; with 3 or more what a region of only this code
    looks like inside. A ViT decodes whole grids, so its context is the whole grid, and where the levels of a quantizer
    have grids of different sizes, the patch is the whole image made small. The other levels or groups of a quantizer that
    has several hold their code nearest to their mean: of a residual quantizer that is about nothing added.

    Args:
        tokenizer: whose codes.
        codes: int64 [n] in [0, K).
        level: of the quantizer's codebooks.
        context: side of the grid, odd, at least 1.

    Yields:
        uint8 [m, 3, p, p] of the next m codes, p the downsample factor.

    Raises:
        ValueError: `context` is even or below 1, or a code is not in the codebook.
    """
    if context < 1 or context % 2 == 0:
        raise ValueError(f"context is {context}, but must be odd and at least 1; {max(1, context - 1)} is the nearest.")
    factor, whole = tokenizer.downsample_factor, tokenizer.image_size // tokenizer.downsample_factor
    device = next(tokenizer.parameters()).device
    grids = token_grids(tokenizer)
    pyramid = len(set(grids)) > 1
    side = whole if pyramid or tokenizer.settings["network"] == "vit" else context
    shapes = grids if pyramid else [(side, side)] * len(grids)
    neutral = [0]
    if len(grids) > 1:
        neutral = [int((book - book.mean(0)).square().sum(1).argmin()) for book in tokenizer.quantizer.codebooks]
    for part in codes.split(max(1, TOKENS_AT_A_TIME // side**2)):
        filled = [torch.full((len(part), *shape), n, device=device) for n, shape in zip(neutral, shapes, strict=True)]
        filled[level] = part.to(device)[:, None, None].expand(-1, *shapes[level])
        images = tokenizer.decode(tuple(filled))  # [m, 3, f*side, f*side]
        if pyramid:
            images = F.interpolate(images, (factor, factor), mode="area")
        else:
            first = (side - 1) // 2 * factor
            images = images[:, :, first : first + factor, first : first + factor]
        yield to_uint8(images).cpu()


def token_grids(tokenizer: VisualTokenizer) -> list[tuple[int, int]]:
    """Return the height and width, in tokens, of each level's grid, for images of the tokenizer's size."""
    side = tokenizer.image_size // tokenizer.downsample_factor
    return tokenizer.quantizer.grids(side, side)


def poster(tiles: Tensor, columns: int, order: Tensor | None = None, gap: int = 0) -> Tensor:
    """Lay out the patches of all codes as one picture.

    Args:
        tiles: uint8 [K, 3, p, p], one a code.
        columns: patches a row.
        order: int64 [K], the code of each place; None: by index.
        gap: white pixels between two patches.

    Returns:
        uint8 [H, W, 3].
    """
    if order is not None:
        tiles = tiles[order]
    rows = -(-len(tiles) // columns)
    cells = tiles.new_full((rows * columns, 3, tiles.shape[2] + gap, tiles.shape[3] + gap), 255)
    cells[: len(tiles), :, : tiles.shape[2], : tiles.shape[3]] = tiles
    height, width = cells.shape[2:]
    picture = cells.view(rows, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(rows * height, -1, 3)
    return picture[: len(picture) - gap, : picture.shape[1] - gap]


@torch.no_grad()
def interpolate(
    tokenizer: VisualTokenizer,
    start: tuple[Tensor, ...],
    end: tuple[Tensor, ...],
    share: float,
    *,
    to_codes: bool = False,
) -> Tensor:
    """Decode a mixture of two images' codes.

    Args:
        tokenizer: whose tokens they are.
        start, end: int64 [B, h, w] of each level.
        share: of `end`, in [0, 1].
        to_codes: quantize the mixture, so that the decoder sees codes of the codebook only; False: decode it as it is, which
            lies between codes.

    Returns:
        float [B, 3, H, W] in [-1, 1].
    """
    quantizer = eval_view(tokenizer.quantizer)
    a, b = (quantizer.levels_to_codes(tokenizer.as_levels(levels)) for levels in (start, end))  # [B, D, h, w]
    mixed = torch.lerp(a, b, share)
    return tokenizer.decode_codes(quantizer(mixed).codes if to_codes else mixed)
