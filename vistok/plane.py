"""Quantizers where one can see them: points of the plane in place of an encoder's output, and codes that learn them.

Each method gets the same points, half a ring and a blob, and learns by the losses that it has, each at its default weight,
and by the squared error between a point and its code, as if the decoder were the identity. What a step changes is the codebook
alone: there is no encoder. So the rotation trick, which changes what an encoder hears, has nothing to show here, nor has
multi-scale quantization, which divides images, not points.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok import quantizers
from vistok.config import TrainConfig, nearest
from vistok.quantizers import Quantizer

EXTENT = 2.5  # the plane is drawn from -EXTENT to EXTENT in both directions
NUM_POINTS = 1024
STEPS = (0, 1, 3, 10, 30, 100, 300)  # after which the partition is taken
_LR = 0.02  # of Adam

_VQ = {"codebook_size": 16, "codebook_dim": 2}
# What a method is called to quantizer and options; 4 bits a point where two dimensions allow it.
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


@functools.cache
def learn(method: str, seed: int = 0, steps: Sequence[int] = STEPS, resolution: int = 160) -> tuple[Partition, ...]:
    """Return how a method divides the plane as it learns the points.

    Args:
        method: a key of `METHODS`.
        seed: of the codes' first values.
        steps: after which to look, growing.
        resolution: G, places of the grid along a side.

    Raises:
        ValueError: there is no such method; the sentence names the nearest.
    """
    if method not in METHODS:
        raise ValueError(f"There is no method {method!r}; {nearest(method, METHODS)}")
    name, options = METHODS[method]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        quantizer = quantizers.build(name, **options)
        parameters = list(quantizer.parameters())
        optimizer = torch.optim.Adam(parameters, lr=_LR) if parameters else None
        found = []
        for step in range(max(steps) + 1):
            if step in steps:
                found.append(_look(quantizer, step, resolution))
            _take_step(quantizer, optimizer)
    return tuple(found)


def _take_step(quantizer: Quantizer, optimizer: torch.optim.Optimizer | None) -> None:
    default = TrainConfig()
    z = points().T[None, :, None]  # [1, 2, 1, N]
    quantized = quantizer.train()(z)
    loss = F.mse_loss(quantized.codes, z)
    loss = loss + sum(getattr(default, f"{name}_weight") * part for name, part in quantized.losses.items())
    if optimizer is not None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _look(quantizer: Quantizer, step: int, resolution: int) -> Partition:
    quantizer.eval()
    axis = torch.linspace(-EXTENT, EXTENT, resolution)
    plane = torch.stack([axis.expand(resolution, -1), axis.flip(0).unsqueeze(1).expand(-1, resolution)])  # [2, G, G]
    z = points().T[None, :, None]
    quantized = quantizer(z)
    labels = _as_one(quantizer(plane[None]).indices, quantizer)[0]
    chosen = _as_one(quantized.indices, quantizer).flatten()
    num_codes = math.prod(quantizer.codebook_sizes)
    every = torch.unravel_index(torch.arange(num_codes), quantizer.codebook_sizes)
    every = tuple(indices.view(1, 1, -1) for indices in every)
    codes = quantizer.indices_to_codes(every if isinstance(quantized.indices, tuple) else every[0])  # [1, 2, 1, K]
    error = (quantized.codes - z).square().sum(1).mean().item()
    return Partition(step, labels, codes[0, :, 0].T.clone(), torch.bincount(chosen, minlength=num_codes), error)


def _as_one(indices: Tensor | tuple[Tensor, ...], quantizer: Quantizer) -> Tensor:
    """Return the indices of several codebooks as one, the first one the most significant."""
    if not isinstance(indices, tuple):
        return indices
    one = torch.zeros_like(indices[0])
    for part, size in zip(indices, quantizer.codebook_sizes, strict=True):
        one = one * size + part
    return one
