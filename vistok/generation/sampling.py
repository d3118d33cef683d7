"""What is drawn from a generator's logits: temperature, top-k, top-p, guidance, and random numbers that are an image's own."""

import dataclasses
import math
import operator
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from vistok.system.values import PositiveInt, at_least, checked, must_be

Temperature = Annotated[float, at_least(0)]
TopP = Annotated[float, must_be("in (0, 1]", lambda share: 0 < share <= 1)]
# Beyond the largest, logits in float32 would overflow; long before it a token is as good as certain.
Guidance = Annotated[float, must_be("in [0, 1,000,000]; 1 is none", lambda scale: 0 <= scale <= 1e6)]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: logits are divided by it; 1: as learned; 0: the likeliest token.
        top_k: only so many of the likeliest tokens are drawn; None: any.
        top_p: only the fewest likeliest tokens that together are at least so likely (nucleus sampling, Holtzman et al. 2019,
            arXiv:1904.09751, section 3.1); 1: any.
        guidance: s of logits_none + s (logits_class - logits_none) (Ho and Salimans 2022, arXiv:2207.12598, equation 6 with
            s = 1 + w); 1: the class alone.
        num_steps: of a masked generator, in which an image is drawn.
        noise: of a masked generator, temperature of the noise on what it is sure of, which falls to 0 (MaskGIT's code: 4.5).

    Raises:
        ValueError, TypeError: a value is out of range or of another type; the sentence names it.
    """

    temperature: Temperature = 1.0
    top_k: PositiveInt | None = None
    top_p: TopP = 1.0
    guidance: Guidance = 1.0
    num_steps: PositiveInt = 12
    noise: Temperature = 4.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field.name, field.type, getattr(self, field.name)))

    @property
    def guided(self) -> bool:
        """Whether logits without the class are asked for too."""
        return self.guidance != 1.0


def guide(logits: Tensor, scale: float) -> Tensor:
    """Return guided logits, [B, ...], of those of the class and then those of none, [2B, ...]."""
    of_class, of_none = logits.chunk(2)
    return of_none + scale * (of_class - of_none)


def probabilities(logits: Tensor, how: Sampling) -> Tensor:
    """Return what tokens are drawn with.

    Args:
        logits: float [..., K].
        how: temperature, top-k and top-p, in this order.

    Returns:
        float64 (float32 on Apple's GPU, which has no other) [..., K], which sum to one; 0: such a token is never drawn.
    """
    logits = logits.to(torch.float32 if logits.device.type == "mps" else torch.float64)
    if how.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
    # The largest is 0, so that a temperature near 0 makes the others -inf, and no infinity less another.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(how.temperature, torch.finfo(logits.dtype).tiny)
    if how.top_k is not None and how.top_k < logits.shape[-1]:
        kept = logits.topk(how.top_k, dim=-1).indices
        logits = torch.full_like(logits, -math.inf).scatter(-1, kept, logits.gather(-1, kept))
    shares = logits.softmax(-1)
    if how.top_p < 1:
        falling, order = shares.sort(dim=-1, descending=True, stable=True)
        before = falling.cumsum(-1) - falling  # how likely those before are together
        falling = falling.masked_fill((before >= how.top_p) & (before > 0), 0)
        shares = torch.zeros_like(shares).scatter(-1, order, falling)
        shares = shares / shares.sum(-1, keepdim=True)
    return shares


def draw(shares: Tensor, uniform: Tensor) -> Tensor:
    """Return the tokens, int64 [...], of probabilities, float [..., K], for uniform numbers in [0, 1), [...].

    A token is where the sum of the probabilities up to it passes the number, so it is a function of these two alone.
    """
    sums = shares.cumsum(-1)
    sums = sums / sums[..., -1:]  # the last is 1, above every number
    return torch.searchsorted(sums, uniform.to(sums.dtype).unsqueeze(-1), right=True).squeeze(-1)


def uniform_numbers(seeds: Sequence[int], shape: Sequence[int], device: torch.device) -> Tensor:
    """Return uniform numbers in [0, 1), [B, *shape], those of each image a function of its seed, the same on every device."""
    drawn = [torch.rand(*shape, generator=torch.Generator().manual_seed(operator.index(seed))) for seed in seeds]
    return torch.stack(drawn).to(device)
