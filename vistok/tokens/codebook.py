"""What one code means: how codes lie to each other, what each decodes to alone, and pictures of changed tokens.

Nothing here looks at a dataset: these are properties of a tokenizer. What images do with its codes: `encoded.py`.
"""

import importlib.util
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vistok.images import to_uint8
from vistok.system.devices import eval_view
from vistok.tokenizer import VisualTokenizer

TOKENS_AT_A_TIME = 8192  # decoded together


def principal_components(codebook: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the codes on their first two principal components, and how much of the variance each of these holds.

    Args:
        codebook: float [K, D].
        weights: each code's, at least 0, [K]; with the codes' counts the components are those of the tokens. None: all alike.

    Returns:
        float64 [K, 2] and the shares, float64 [2]; [K, 1] and [1] where D = 1.
    """
    codes = codebook.double()
    weights = torch.ones(len(codes), dtype=torch.float64) if weights is None else weights.double()
    weights = (weights / weights.sum()).to(codes.device)[:, None]
    centred = codes - (weights * codes).sum(0)
    # A D x D matrix, however many codes there are; eigenvalues ascend.
    values, directions = torch.linalg.eigh(centred.T @ (weights * centred))
    values, directions = values[-2:].flip(0), directions[:, -2:].flip(1)  # [D, 2 or 1]
    largest = directions.abs().argmax(0, keepdim=True)
    directions = directions * directions.gather(0, largest).sign()  # the sign of an eigenvector is arbitrary
    variance = (weights * centred.square()).sum()
    return centred @ directions, values.clamp(min=0) / variance.clamp(min=torch.finfo(torch.float64).tiny)


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
    plane, _ = principal_components(codebook)
    first, second = plane[:, 0], plane[:, -1]
    by_row = first.argsort(stable=True)
    return torch.cat([row[second[row].argsort(stable=True)] for row in by_row.split(columns)])


class Projection(NamedTuple):
    """A codebook as points of a plane.

    Attributes:
        points: float32 [K, 2]; NaN where a code was left out.
        axes: what lies along x and y.
        note: what one has to know of it; may be empty.
    """

    points: Tensor
    axes: tuple[str, str]
    note: str = ""


class _Method(NamedTuple):
    """A way of projecting: its name for people, and what it needs, a module and the package that pip installs it from."""

    title: str
    module: str = "torch"
    package: str = ""


PROJECTIONS = {
    "codes": _Method("PCA of the codes"),
    "tokens": _Method("PCA of the tokens"),
    "umap": _Method("UMAP", "umap", "umap-learn"),
    "tsne": _Method("t-SNE", "sklearn", "scikit-learn"),
}
MOST_EMBEDDED = 2048  # codes, of UMAP and t-SNE: about 20 s on two cores


def is_there(method: str) -> bool:
    """Return whether the package that a method of `PROJECTIONS` needs is installed."""
    return importlib.util.find_spec(PROJECTIONS[method].module) is not None


def usual_projection(codebook: Tensor, counts: Tensor) -> str:
    """Return the method to begin with: "codes", or "tokens" where codes would lie upon each other, as those of a grid do.

    The codes of a grid (FSQ, LFQ, BSQ) spread alike in all its dimensions: their principal components are two of these, any
    two, and all codes that differ in the others alone fall into one point. The tokens' components lie across the grid.
    """

    def apart(method: str) -> int:
        """Return how many points the codes are, those of one place counted once."""
        points = project(codebook, counts, method).points
        x, y = (points / points.abs().amax().clamp(min=1e-30) * 1e5).round().long().T
        return len((x * 2**20 + y).unique())

    seen = apart("codes")
    return "tokens" if seen < len(codebook) / 2 and counts.any() and apart("tokens") > seen else "codes"


def project(codebook: Tensor, counts: Tensor, method: str = "codes", *, seed: int = 0) -> Projection:
    """Lay the codes of a codebook out in a plane.

    Args:
        codebook: float [K, D].
        counts: tokens of each code, int64 [K]; they weight the components of "tokens", and UMAP and t-SNE leave the rarest
            codes out where there are more than 2,048.
        method: "codes" or "tokens", the first two principal components of either; "umap" or "tsne".
        seed: fixes UMAP and t-SNE.

    Raises:
        ValueError: there is no such method, or its package is missing.
    """
    if method not in PROJECTIONS:
        raise ValueError(f"There is no projection {method!r}: there are {', '.join(PROJECTIONS)}.")
    title, _, package = PROJECTIONS[method]
    if not is_there(method):
        raise ValueError(f"{title} needs a package that is missing: pip install {package}")
    codebook = codebook.detach().float().cpu()
    if package:
        return _embedded(codebook, counts, method, seed)
    if method == "tokens" and not counts.any():
        raise ValueError("There are no tokens, hence no principal components of them.")
    plane, shares = principal_components(codebook, counts if method == "tokens" else None)
    names = [
        f"{which} component, {share:.0%} of the {method}' variance"
        for which, share in zip(("first", "second"), shares, strict=False)
    ]
    if plane.shape[1] == 1:  # a line of codes would hide most of them
        size = len(codebook)
        spread = float(plane.max() - plane.min()) or 1.0
        plane = torch.stack([plane[:, 0], (torch.arange(size) / max(1, size - 1) - 0.5) * spread], dim=1)
        names = ["the only dimension of the codes", "index of the code"]
    return Projection(plane.float(), tuple(names))


def _embedded(codebook: Tensor, counts: Tensor, method: str, seed: int) -> Projection:
    """Return the plane of UMAP or t-SNE, which keep who is beside whom, and neither distances nor directions."""
    title, size = PROJECTIONS[method].title, len(codebook)
    shown = counts.argsort(descending=True, stable=True)[:MOST_EMBEDDED]
    if len(shown) < 4:
        raise ValueError(f"{title} needs 4 codes, but there are {len(shown)}.")
    points = torch.full((size, 2), torch.nan)
    laid = _embedding(method, codebook[shown], seed).fit_transform(codebook[shown].numpy())
    points[shown] = torch.from_numpy(laid).float()
    note = "neighbours are neighbours in the codebook; distances and directions mean nothing"
    if len(shown) < size:
        note += f"; the {len(shown):,} most frequent of {size:,} codes"
    return Projection(points, (f"{title}, first axis", f"{title}, second axis"), note)


def _embedding(method: str, codes: Tensor, seed: int) -> Any:
    """Return the object of another package that lays codes out, the same way every time."""
    size, init = len(codes), "pca" if codes.shape[1] > 1 else "random"
    if method == "umap":
        from umap import UMAP

        return UMAP(n_neighbors=min(15, size - 1), init=init, random_state=seed, n_jobs=1)
    from sklearn.manifold import TSNE

    return TSNE(perplexity=min(30, (size - 1) / 3), init=init, random_state=seed)


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


def middle_codes(tokenizer: VisualTokenizer) -> list[int]:
    """Return the code of each level that is nearest to the mean of its codebook: what stands for a token that is not known."""
    return [int((book - book.mean(0)).square().sum(1).argmin()) for book in tokenizer.quantizer.codebooks]


@torch.no_grad()
def decode_alone(tokenizer: VisualTokenizer, codes: Tensor, *, level: int = 0, context: int = 1) -> Iterator[Tensor]:
    """Decode codes on their own, many at a time.

    A code alone is a grid of `context` x `context` tokens that are all this code, and of its image the middle patch: with 1
    the patch is what the code paints beside nothing, its edges included; with 3 or more what a region of only this code
    looks like inside. A ViT decodes whole grids, so its context is the whole grid. Where the levels of a quantizer have
    grids of different sizes, or tokens are a sequence, all of which is this code, the patch is the whole image made small.
    The other levels or groups of a quantizer that has several hold their code nearest to their mean, which adds about
    nothing in a residual quantizer.

    Args:
        tokenizer: whose codes.
        codes: int64 [n] in [0, K).
        level: number of the quantizer's codebook.
        context: side of the grid, odd, at least 1.

    Yields:
        uint8 [m, 3, p, p] of the next m codes, p the downsample factor.

    Raises:
        ValueError: `context` is even or below 1, or a code is not in the codebook.
    """
    if context < 1 or context % 2 == 0:
        raise ValueError(f"context is {context}, but must be odd and at least 1; {max(1, context - 1)} is the nearest.")
    factor, grids = tokenizer.downsample_factor, tokenizer.token_grids()
    device = next(tokenizer.parameters()).device
    pyramid = len(set(grids)) > 1 or tokenizer.is_sequence
    side = context if tokenizer.encoder.decodes_parts and not pyramid else tokenizer.image_size // factor
    shapes = grids if pyramid else [(side, side)] * len(grids)
    neutral = middle_codes(tokenizer) if len(grids) > 1 else [0]
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
        share: how much of `end`, in [0, 1].
        to_codes: quantize the mixture, so that the decoder sees codes of the codebook only; False: decode it as it is, which
            lies between codes.

    Returns:
        float [B, 3, H, W] in [-1, 1].
    """
    quantizer = eval_view(tokenizer.quantizer)
    a, b = (quantizer.indices_to_codes(*tokenizer.as_levels(levels)) for levels in (start, end))  # [B, D, h, w]
    mixed = torch.lerp(a, b, share)
    return tokenizer.decode_codes(quantizer(mixed).codes if to_codes else mixed)
