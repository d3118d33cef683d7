"""The entropy loss, E[H(p)] - diversity x H(E[p]): low where each token is sure of its code and the batch uses all codes.

Source: MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737), equation 4; expectations are over the tokens of all processes, p is a
token's distribution over the K codes. Each quantizer has its own p, and none builds tokens x K:

- dot products: IBQ (Shi et al. 2024, arXiv:2412.02692), as in SEED-Voken; over tiles of tokens, and over them again in the
  backward pass.
- squared distances: as LlamaGen (arXiv:2406.06525) and MaskGIT implement it; its weight there is 0.1.
- signs: MAGVIT-v2, as in Open-MAGVIT2. The softmax over all 2^D codes is a product over bits, so that a token's entropy is the
  sum over bits; the batch's mean distribution is not such a product, but it is one matrix product of the tokens'
  distributions over the first and over the second half of the bits. Memory grows with tokens x 2^(D/2).
- independent signs: BSQ (Zhao et al. 2024, arXiv:2406.07548). The entropy of the batch's mean distribution is taken as if its
  bits were independent, an upper bound of the exact one, in memory of tokens x D whatever K. Its code can group bits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vistok.system.processes import batch_mean

_TILE_SCORES = {"cpu": 2**20}  # scores held at once: 4 MiB of float32
_TILE_SCORES_ELSEWHERE = 2**26
_LEAST_LOG_P = -80.0  # below it exp gives subnormal numbers, which take a CPU ten times as long, and add nothing
_EPS = 1e-5  # inside the logarithm of the batch's entropy, as in the originals: not negligible for K near 1/eps
_EPS_OF_A_BIT = 1e-8  # the same in BSQ's


def check_entropy_options(temperature: float, diversity: float) -> None:
    """Raise ValueError where an option of the entropy loss is out of range; the sentence names it."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}, but must be above 0; 0.01 is usual.")
    if not 0 <= diversity < math.inf:
        raise ValueError(f"diversity is {diversity}, but must be at least 0; 1 is usual.")


def entropy_of_dot_products(tokens: Tensor, codebook: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return the entropy loss of p = softmax_k(z . e_k / temperature).

    Args:
        tokens: float32 [N, D].
        codebook: float32 [K, D].
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    tile_size = max(1, _TILE_SCORES.get(tokens.device.type, _TILE_SCORES_ELSEWHERE) // len(codebook))
    total, sums = tokens.new_zeros(()), tokens.new_zeros(len(codebook))
    for tile in tokens.split(tile_size):
        entropy, probabilities = checkpoint(
            _tile_entropy, tile, codebook, temperature, use_reentrant=False, preserve_rng_state=False
        )
        total, sums = total + entropy, sums + probabilities
    return total / len(tokens) + diversity * _negative_entropy(batch_mean(sums / len(tokens)), _EPS)


def _tile_entropy(tokens: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the sum of entropies over tokens, and that of probabilities, [K]."""
    log_p = F.log_softmax(tokens @ codebook.T / temperature, dim=1)  # [tile, K]
    p = log_p.clamp(min=_LEAST_LOG_P).exp()
    return -(p * log_p).sum(), p.sum(0)


def entropy_of_distances(tokens: Tensor, codebook: Tensor, temperature: float) -> Tensor:
    """Return the entropy loss of p = softmax_k(-|z - e_k|^2 / temperature), at diversity 1.

    |z|^2 is the same for every code, and what is left of the distance is a dot product of [z, 1] and [2 e_k, -|e_k|^2].

    Args:
        tokens: float32 [N, D].
        codebook: float32 [K, D].
        temperature: above 0.
    """
    keys = torch.cat([2 * codebook, -codebook.square().sum(1, keepdim=True)], dim=1)  # [K, D + 1]
    return entropy_of_dot_products(F.pad(tokens, (0, 1), value=1.0), keys, temperature, diversity=1.0)


def entropy_of_signs(tokens: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return the entropy loss of p = softmax_k(2 z . e_k / temperature) over all codes in {-1, 1}^D.

    Args:
        tokens: float32 [N, D].
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    logits = 4 / temperature * tokens  # logits of each bit being 1: e_k differs by 2 in it, and so 2 z . e_k by 4 z
    token_entropy = -(logits.sigmoid() * F.logsigmoid(logits) + (-logits).sigmoid() * F.logsigmoid(-logits)).sum(1)
    low, high = (_distribution(half, temperature) for half in tokens.tensor_split([tokens.shape[1] // 2], dim=1))
    mean = batch_mean(low.T @ high / len(tokens))  # [2^(D/2), 2^(D - D/2)], E[p]
    return token_entropy.mean() + diversity * _negative_entropy(mean, _EPS)


def _distribution(tokens: Tensor, temperature: float) -> Tensor:
    """Return softmax_k(2 z . e_k / temperature) over the codes of these bits alone, [N, 2^bits]."""
    num_bits = tokens.shape[1]
    codes = bits_of(torch.arange(2**num_bits, device=tokens.device), num_bits)  # [2^bits, bits]
    return (2 / temperature * tokens @ codes.T).softmax(1)


def bits_of(indices: Tensor, num_bits: int) -> Tensor:
    """Return the codes in {-1, 1}, float32 [..., num_bits], of indices, int64 [...]; the least significant bit first."""
    places = torch.arange(num_bits, device=indices.device)
    return (indices.unsqueeze(-1) >> places & 1).float() * 2 - 1


def entropy_of_independent_signs(tokens: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return the entropy loss of p = softmax_k(2 z . e_k / temperature), codes in {-1, 1}^D / sqrt(D), with sum_i H(E[p_i]).

    Args:
        tokens: float32 [N, D], on the unit sphere.
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    logits = 4 / temperature * tokens / tokens.shape[1] ** 0.5  # the same: e_k differs by 2/sqrt(D) in it
    one, zero = logits.sigmoid(), (-logits).sigmoid()  # [N, D]
    token_entropy = -(one * F.logsigmoid(logits) + zero * F.logsigmoid(-logits)).sum(1).mean()
    means = map(batch_mean, (one.mean(0), zero.mean(0)))
    return token_entropy + diversity * sum(_negative_entropy(mean, _EPS_OF_A_BIT) for mean in means)


def _negative_entropy(mean: Tensor, eps: float) -> Tensor:
    """Return -H(E[p]) of a mean distribution."""
    return (mean * (mean + eps).log()).sum()
