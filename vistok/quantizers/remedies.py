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

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.search import nearest_code
from vistok.system.processes import rank_and_number, sum_over_processes

_KMEANS_STEPS = 10
_EPS = 1e-6  # the smallest norm that a rotation's scale is divided by


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
