"""Quantizers where one can see them: points of the plane in place of an encoder's output, and codes that learn them.

Each method gets the same points, half a ring and a blob, and learns by the losses that it has, each at its default weight,
and by the squared error between a point and its code, as if the decoder were the identity. What a step changes is the codebook
alone: there is no encoder. So the rotation trick, which changes what an encoder hears, has nothing to show here, nor has
multi-scale quantization, which divides images, not points.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vistok import quantizers
from vistok.config import TrainConfig
from vistok.losses import TokenizerLoss
from vistok.quantizers import Quantizer
from vistok.system.words import nearest

EXTENT = 2.5  # the plane is drawn from -EXTENT to EXTENT in both directions
NUM_POINTS = 1024
STEPS = (0, 1, 3, 10, 30, 100, 300)  # after which one looks by default
# Steps of learning that are kept: at first, when most happens, every one.
FRAMES = (*range(21), *range(22, 61, 2), *range(65, STEPS[-1] + 1, 5))
RESOLUTION = 160  # places along a side of the grid
_LR = 0.02  # Adam's

_VQ = {"codebook_size": 16, "codebook_dim": 2}
# Name of a method to quantizer and options; 4 bits a point where two dimensions allow it.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "vq": ("vq", _VQ),
    "vq, l2": ("vq", _VQ | {"l2_norm": True}),
    "vq, entropy": ("vq", _VQ | {"entropy_temperature": 0.1}),
    "vq, k-means": ("vq", _VQ | {"init": "kmeans"}),
    "vq, revival": ("vq", _VQ | {"revive_after": 10}),
    "ema": ("ema", _VQ),
    "simvq": ("simvq", _VQ),
    "ibq": ("ibq", _VQ),
    "gumbel": ("gumbel", _VQ | {"temperature": 1.0, "final_temperature": 0.1, "anneal_steps": 200}),
    "fsq": ("fsq", {"levels": [4, 4]}),
    "lfq": ("lfq", {"codebook_size": 4}),
    "bsq": ("bsq", {"codebook_size": 4}),
    "residual": ("residual", {"codebook_size": 4, "codebook_dim": 2, "member": "ema", "num_levels": 2}),
    "grouped": ("grouped", {"codebook_size": 4, "codebook_dim": 2, "member": "ema", "num_groups": 2}),
}


@dataclasses.dataclass(frozen=True)
class Partition:
    """How a quantizer divides the plane after some steps.

    Attributes:
        step: of training.
        labels: int64 [G, G], the code of each place of a square grid, first row at the top; of several codebooks their
            indices as one number.
        codes: float32 [K, 2].
        counts: int64 [K], points that chose each code.
        error: mean squared distance from a point to its code.
    """

    step: int
    labels: Tensor
    codes: Tensor
    counts: Tensor
    error: float

    @property
    def num_used(self) -> int:
        """Codes that a point chose."""
        return int((self.counts > 0).sum())

    def __str__(self) -> str:
        return f"step {self.step}: {self.num_used} of {len(self.codes)} codes used, mean squared error {self.error:.3f}"


@functools.cache
def points() -> Tensor:
    """Return the points, float32 [NUM_POINTS, 2]: three in four on half a ring, the others in a blob before it."""
    generator = torch.Generator().manual_seed(0)
    num_ring = 3 * NUM_POINTS // 4
    angle = math.pi * (torch.rand(num_ring, generator=generator) - 0.25)
    radius = 1.6 + 0.12 * torch.randn(num_ring, generator=generator)
    ring = radius.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], dim=1)
    blob = torch.tensor([0.5, 0.4]) + 0.2 * torch.randn(NUM_POINTS - num_ring, 2, generator=generator)
    return torch.cat([ring, blob])


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a method chooses codes, in numbers from which its partition can be computed anywhere, at each of `FRAMES`.

    Attributes:
        kind: what is chosen of a point z: the "nearest" code; "direction", the nearest to z on the circle; "dot", the largest
            dot product; "map", the largest of learned linear functions of z; "grid", by borders along each axis; "residual",
            the nearest code and then the nearest to what that leaves; "grouped", the nearest of each coordinate.
        sizes: K of each codebook; their indices are one number as in `Partition`.
        books: float32 [F, P], the codes of all codebooks one after the other; those of "grouped" have one coordinate.
        maps: float32 [F, 3 K], weights and bias of each linear function; F = 0 unless `kind` is "map".
        borders: along each axis, rising; the cell of an index is counted along the first axis first. Empty unless `kind` is
            "grid".
    """

    kind: str
    sizes: tuple[int, ...]
    books: Tensor
    maps: Tensor
    borders: tuple[tuple[float, ...], ...]


def check_method(method: str) -> None:
    """Raise ValueError where there is no such method; the sentence names the nearest."""
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; {nearest(method, METHODS)}")


@functools.cache
def learn(
    method: str, seed: int = 0, steps: Sequence[int] = STEPS, resolution: int = RESOLUTION
) -> tuple[Partition, ...]:
    """Return how a method divides the plane as it learns the points.

    Args:
        method: a key of `METHODS`.
        seed: of the codes' first values.
        steps: after which to look, growing; of `FRAMES`.
        resolution: G, places of the grid along a side.

    Raises:
        ValueError: there is no such method, or a step was not kept; the sentence names the nearest.
    """
    for step in steps:
        check_step(step)
    quantizers_then = _learnt(method, seed)
    return tuple(_look(quantizers_then[step], step, resolution) for step in steps)


def check_step(step: int) -> None:
    """Raise ValueError where a step is not one of `FRAMES`; the sentence names the nearest."""
    if step not in FRAMES:
        found = min(FRAMES, key=lambda kept: abs(kept - step))
        raise ValueError(f"step is {step}, but that was not kept; the nearest that was: {found}.")


def rule(method: str, seed: int = 0) -> Rule:
    """Return how a method chooses codes as it learns the points; arguments and refusals are those of `learn`."""
    quantizers_then = _learnt(method, seed).values()
    last = _learnt(method, seed)[FRAMES[-1]]
    books = torch.stack([torch.cat([book.flatten() for book in q.codebooks]) for q in quantizers_then]).detach()
    kind, maps = _kind(method), torch.empty(0, 3 * last.codebook_sizes[0])
    if kind == "map":
        of_each = (torch.cat([q.projection.weight, q.projection.bias[:, None]], 1) for q in quantizers_then)
        maps = torch.stack([weights.flatten() for weights in of_each]).detach()
    borders = _borders(last) if kind == "grid" else ()
    return Rule(kind, last.codebook_sizes, books, maps, borders)


def _kind(method: str) -> str:
    name, options = METHODS[method]
    if options.get("l2_norm"):
        return "direction"
    special = {"ibq": "dot", "gumbel": "map", "fsq": "grid", "lfq": "grid", "bsq": "grid"}
    return special.get(name, name if name in ("residual", "grouped") else "nearest")


@torch.no_grad()
def _borders(quantizer: Quantizer) -> tuple[tuple[float, ...], ...]:
    """Return where the index of a grid changes along each axis: it is looked up at many places."""
    places = torch.linspace(-EXTENT, EXTENT, 200_000)
    found = []
    for axis in range(2):
        z = torch.zeros(1, 2, 1, len(places))
        z[0, axis, 0] = places
        changes = quantizer(z).indices.flatten().diff().nonzero().flatten()
        found.append(tuple(((places[changes] + places[changes + 1]) / 2).tolist()))
    return tuple(found)


def is_learnt(method: str, seed: int = 0) -> bool:
    """Return whether a method has learned the points already, so that what is asked of it is there at once."""
    return (method, seed) in _LEARNT


_LEARNT: dict[tuple[str, int], dict[int, Quantizer]] = {}


def _learnt(method: str, seed: int) -> dict[int, Quantizer]:
    """Return a method's quantizer as it was at each of `FRAMES`, not training."""
    check_method(method)
    if is_learnt(method, seed):
        return _LEARNT[method, seed]
    name, options = METHODS[method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantizer = quantizers.build(name, **options)
        parameters = list(quantizer.parameters())
        optimizer = torch.optim.Adam(parameters, lr=_LR) if parameters else None
        found = {}
        loss = TokenizerLoss(TrainConfig(), quantizer)
        for step in range(FRAMES[-1] + 1):
            if step in FRAMES:
                found[step] = copy.deepcopy(quantizer).eval().requires_grad_(False)
            _take_step(quantizer, loss, optimizer)
    return _LEARNT.setdefault((method, seed), found)


def _take_step(quantizer: Quantizer, loss: TokenizerLoss, optimizer: torch.optim.Optimizer | None) -> None:
    z = points().T[None, :, None]  # [1, 2, 1, N]
    quantized = quantizer.train()(z)
    total, _ = loss(z, quantized.codes, quantized.losses)
    if optimizer is not None:
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


@torch.no_grad()
def _look(quantizer: Quantizer, step: int, resolution: int) -> Partition:
    axis = torch.linspace(-EXTENT, EXTENT, resolution)
    plane = torch.stack([axis.expand(resolution, -1), axis.flip(0).unsqueeze(1).expand(-1, resolution)])  # [2, G, G]
    z = points().T[None, :, None]
    quantized = quantizer(z)
    labels = _as_one(quantizer(plane[None]).levels, quantizer)[0]
    chosen = _as_one(quantized.levels, quantizer).flatten()
    num_codes = math.prod(quantizer.codebook_sizes)
    every = torch.unravel_index(torch.arange(num_codes), quantizer.codebook_sizes)
    every = tuple(indices.view(1, 1, -1) for indices in every)
    codes = quantizer.indices_to_codes(*every)  # [1, 2, 1, K]
    error = (quantized.codes - z).square().sum(1).mean().item()
    return Partition(step, labels, codes[0, :, 0].T.clone(), torch.bincount(chosen, minlength=num_codes), error)


def _as_one(levels: tuple[Tensor, ...], quantizer: Quantizer) -> Tensor:
    """Return the indices of several codebooks as one, the first one the most significant."""
    one = torch.zeros_like(levels[0])
    for level, size in zip(levels, quantizer.codebook_sizes, strict=True):
        one = one * size + level
    return one
