"""Remedies against codes that nobody uses, for quantizers with a codebook of vectors: options of `vq` and of `ema`.

- A start by k-means on the first batch, and revival: a code unused for some steps becomes a random token of the batch.
  Sources: SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), section III-C; Jukebox (Dhariwal et al. 2020,
  arXiv:2005.00341), "random restarts". Both replace by a threshold on the moving average of usage; ours counts steps, which
  a codebook learned by gradient has too. k-means starts from tokens drawn at random, not from k-means++, whose K draws come
  one after the other.
- The rotation trick (Fifty et al. 2024, arXiv:2410.06424), section 4: the gradient reaches z through the rotation and
  scaling that take z onto its code, where straight-through copies it.
- The entropy loss of squared distances is in `entropy`.

All of it is over the tokens of all processes, and gives every process the same codes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.base import Quantizer, straight_through, to_grid, to_tokens
from vistok.quantizers.search import nearest_code
from vistok.system.processes import rank_and_number, sum_over_processes

_KMEANS_STEPS = 10
_EPS = 1e-6  # the smallest norm that a rotation's scale is divided by


class VectorCodebook(Quantizer):
    """Base of `vq` and `ema`: a codebook of vectors, how its codes start and revive, and the gradient that z gets.

    Its arguments are those of `VectorQuantizer`.
    """

    weight: Tensor  # float32 [K, D]
    l2_norm = False

    def __init__(
        self, codebook_size: int, codebook_dim: int, init: str, revive_after: int | None, gradient: str
    ) -> None:
        super().__init__((codebook_size,), codebook_dim)
        for name, value, choices in (
            ("init", init, ("uniform", "kmeans")),
            ("gradient", gradient, ("straight-through", "rotation")),
        ):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}, but must be {choices[0]!r} or {choices[1]!r}.")
        if revive_after is not None and revive_after < 1:
            raise ValueError(f"revive_after is {revive_after}, but must be at least 1 step; 100 is usual.")
        self.init, self.revive_after, self.gradient = init, revive_after, gradient
        self._may_start = init == "kmeans"  # to ask `initialized` is to wait for a GPU: not at every step
        if init == "kmeans":
            self.of_batch = (*self.of_batch, "the start by k-means")
            self.register_buffer("initialized", torch.tensor(False))
        if revive_after is not None:
            self.register_buffer("unused_steps", torch.zeros(codebook_size, dtype=torch.int64))  # since last chosen

    @property
    def codebook(self) -> Tensor:
        return F.normalize(self.weight, dim=1) if self.l2_norm else self.weight

    def _place(self, codes: Tensor, where: Tensor) -> None:
        """Put codes, float32 [n, D], at the n places where `where`, bool [K], is true."""
        self.weight[where] = codes

    @property
    def unstarted(self) -> bool:
        return self._may_start and not self.initialized

    @torch.no_grad()
    def renew(self, z: Tensor) -> bool:
        """Start the codebook on the first batch, and revive dead codes, at most once a step; before the search."""
        renewed = False
        if self._may_start:
            if not self.initialized:
                codes = kmeans(self._tokens(z), self.codebook_size, self.l2_norm)
                self._place(codes, torch.ones(len(codes), dtype=torch.bool, device=codes.device))
                self.initialized.fill_(True)
                renewed = True
            self._may_start = False
        if self.revive_after is not None and self.first_part:
            dead = self.unused_steps >= self.revive_after
            if dead.any():
                self._place(draw_tokens(self._tokens(z), int(dead.sum())), dead)
                self.unused_steps.masked_fill_(dead, 0)
                renewed = True
        return renewed

    @torch.no_grad()
    def fitted(self, z: Tensor) -> Tensor:
        """Return the codes, [B, D, h, w], that z gets from a k-means of its own, of K codes or as many as there are tokens."""
        tokens = self._tokens(z)
        codes = kmeans(tokens, self.codebook_size, self.l2_norm, enough=False)
        return to_grid(codes[nearest_code(tokens, codes)], like=z)

    def _tokens(self, z: Tensor) -> Tensor:
        """Return the tokens of z, float32 [B*h*w, D], as they are compared with codes."""
        return to_tokens(F.normalize(z, dim=1) if self.l2_norm else z)

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._may_start = self.init == "kmeans"  # the state may be of a codebook that had not started

    @torch.no_grad()
    def _count_unused(self, indices: Tensor) -> None:
        """Count the steps since each code was chosen, in whatever process; after the search."""
        if self.revive_after is not None:
            chosen = torch.zeros_like(self.unused_steps).index_fill_(0, indices, 1)
            self.unused_steps.add_(int(self.first_part)).masked_fill_(sum_over_processes(chosen) > 0, 0)

    def _with_gradient(self, z: Tensor, codes: Tensor) -> Tensor:
        """Return codes, which are straight-through, as they are, or with the gradient of a rotation instead."""
        return straight_through(rotated(z, codes), codes) if self.gradient == "rotation" else codes


@torch.no_grad()
def draw_tokens(tokens: Tensor, num_tokens: int) -> Tensor:
    """Return tokens drawn at random from those of all processes, each process in turn giving one; the same in every process.

    Args:
        tokens: float32 [N, D], this process's.
        num_tokens: how many to draw; without replacement while they last.

    Returns:
        float32 [num_tokens, D].
    """
    rank, num_processes = rank_and_number()
    drawn = tokens.new_zeros(num_tokens, tokens.shape[1])
    mine = drawn[rank::num_processes]
    order = torch.randperm(len(tokens), device=tokens.device)
    mine.copy_(tokens[order[torch.arange(len(mine), device=tokens.device) % len(tokens)]])
    return sum_over_processes(drawn)


@torch.no_grad()
def count_and_sum(tokens: Tensor, indices: Tensor, codebook_size: int) -> tuple[Tensor, Tensor]:
    """Return how many tokens of all processes chose each code, float32 [K], and their sum, [K, D].

    Args:
        tokens: float32 [N, D], this process's.
        indices: int64 [N] in [0, K).
        codebook_size: K.
    """
    counts = tokens.new_zeros(codebook_size).index_add_(0, indices, torch.ones_like(tokens[:, 0]))
    sums = tokens.new_zeros(codebook_size, tokens.shape[1]).index_add_(0, indices, tokens)
    return sum_over_processes(counts), sum_over_processes(sums)


@torch.no_grad()
def kmeans(tokens: Tensor, codebook_size: int, l2_norm: bool, enough: bool = True) -> Tensor:
    """Return the codes of k-means on the tokens of all processes, from tokens drawn at random; a few of Lloyd's steps.

    Args:
        tokens: float32 [N, D], this process's.
        codebook_size: K.
        l2_norm: keep the codes on the unit sphere.
        enough: refuse fewer tokens than codes; False: return as many codes as there are tokens then.

    Returns:
        float32 [K, D], the same in every process.

    Raises:
        ValueError: there are fewer tokens than codes, and `enough` is asked for.
    """
    num_tokens = int(sum_over_processes(torch.tensor(len(tokens), device=tokens.device)))
    if not enough:
        codebook_size = min(codebook_size, num_tokens)
    if num_tokens < codebook_size:
        raise ValueError(
            f"init is 'kmeans', but the first batch has {num_tokens} tokens for {codebook_size} codes: take a larger "
            "batch, or init 'uniform'."
        )
    codes = draw_tokens(tokens, codebook_size)
    for _ in range(_KMEANS_STEPS):
        counts, sums = count_and_sum(tokens, nearest_code(tokens, codes), codebook_size)
        codes = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), codes)
        if l2_norm:
            codes = F.normalize(codes, dim=1)
    return codes


def rotated(z: Tensor, codes: Tensor) -> Tensor:
    """Return z under the rotation and scaling that take it onto its code, held constant in the backward pass.

    R = I - 2 r r^T + 2 q e^T with e and q the directions of z and of the code, r that of e + q (section 4.2).

    Args:
        z: float32 [B, D, h, w].
        codes: float32 [B, D, h, w].

    Returns:
        float32 [B, D, h, w], `codes` up to rounding, with the gradient of |code| / |z| R.
    """
    with torch.no_grad():
        e, q = F.normalize(z, dim=1), F.normalize(codes, dim=1)
        r = F.normalize(e + q, dim=1)
        scale = codes.norm(dim=1, keepdim=True) / z.norm(dim=1, keepdim=True).clamp(min=_EPS)
    reflected = z - 2 * (z * r).sum(1, keepdim=True) * r
    return scale * (reflected + 2 * (z * e).sum(1, keepdim=True) * q)
