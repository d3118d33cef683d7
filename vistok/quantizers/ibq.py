"""Index backpropagation quantization: the code with the largest dot product, and a gradient to all codes.

Source: IBQ (Shi et al. 2024, arXiv:2412.02692), section 3.2 and algorithm 1, as implemented in SEED-Voken. The index is the
arg-max of z . e_k, not the nearest code. The codes are those chosen; their gradient with respect to z is that of the mean
code under softmax_k(z . e_k), so that every code learns from every token. To know:

- That gradient is all the encoder hears of the decoder, and it vanishes with the codes: a mean diagonal of dz_q/dz of about
  0.2 with codes from N(0, 1), the original's, and of 1e-6 with uniform ones at K = 512. `init` keeps both, for comparison.
- The original's weights are commitment 1.0, codebook 0.25, entropy 0.05, at a learning rate of 1e-4, beside L1, LPIPS and a
  discriminator. Beside a mean squared error of 0.02 they are all that is learned: row `ibq-d16` has 0.05, 0.05 and 0.003.
- Its three squared errors are two here: `commitment` holds those that reach z, its "double quantization" term among them.
- The softmax is never built: the mean code is attention with the codebook as keys and as values, whose fused kernels keep
  memory from growing with tokens x K (where PyTorch has one for the device and D; its fallback does build it). The entropy
  loss goes over tiles of tokens, and over them again in the backward pass.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vistok.quantizers.base import Quantized, Quantizer, to_grid, to_tokens
from vistok.quantizers.search import largest_dot
from vistok.system.processes import batch_mean

_TILE_SCORES = {"cpu": 2**20}  # scores held at once: 4 MiB of float32
_TILE_SCORES_ELSEWHERE = 2**26
_LEAST_LOG_P = -80.0  # below it exp gives subnormal numbers, which take a CPU ten times as long, and add nothing
_EPS = 1e-5  # inside the logarithm of the batch's entropy, as in the original: not negligible for K near 1/eps


def _tile_of(tokens: Tensor, codebook: Tensor) -> int:
    """Tokens whose scores against all codes are held at once."""
    return max(1, _TILE_SCORES.get(tokens.device.type, _TILE_SCORES_ELSEWHERE) // len(codebook))


def mean_code(tokens: Tensor, codebook: Tensor) -> Tensor:
    """Return sum_k softmax_k(z . e_k) sg[e_k], float32 [N, D]: the soft assignment, without its N x K weights."""
    keys, values = (x[None, None] for x in (codebook, codebook.detach()))  # [1, 1, K, D]
    return F.scaled_dot_product_attention(tokens[None, None], keys, values, scale=1.0)[0, 0]


def entropy_loss(tokens: Tensor, codebook: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return E[H(p)] - diversity x H(E[p]), p = softmax_k(z . e_k / temperature), expectations over tokens.

    Low where each token is sure of its code and the batch uses all of them (MAGVIT-v2, arXiv:2310.05737, equation 4).

    Args:
        tokens: float32 [N, D].
        codebook: float32 [K, D].
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    total, sums = tokens.new_zeros(()), tokens.new_zeros(len(codebook))
    for tile in tokens.split(_tile_of(tokens, codebook)):
        entropy, probabilities = checkpoint(
            _tile_entropy, tile, codebook, temperature, use_reentrant=False, preserve_rng_state=False
        )
        total, sums = total + entropy, sums + probabilities
    mean = batch_mean(sums / len(tokens))  # [K]
    return total / len(tokens) + diversity * (mean * (mean + _EPS).log()).sum()


def _tile_entropy(tokens: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The sum of entropies over tokens, and that of probabilities, [K]."""
    log_p = F.log_softmax(tokens @ codebook.T / temperature, dim=1)  # [tile, K]
    p = log_p.clamp(min=_LEAST_LOG_P).exp()
    return -(p * log_p).sum(), p.sum(0)


class IBQQuantizer(Quantizer):
    """A codebook all of whose codes learn from every token."""

    loss_names: ClassVar[tuple[str, ...]] = ("codebook", "commitment", "entropy")
    of_batch = ("entropy",)

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        init: str = "normal",
        temperature: float = 0.01,
        diversity: float = 1.0,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            init: "normal", codes from N(0, 1), or "uniform", in (-1/K, 1/K).
            temperature: of the entropy loss, above 0.
            diversity: weight of the batch's entropy against the tokens', at least 0.
        """
        super().__init__((codebook_size,), codebook_dim)
        if init not in ("normal", "uniform"):
            raise ValueError(f"init is {init!r}, but must be 'normal' or 'uniform'.")
        check_entropy_options(temperature, diversity)
        self.temperature = temperature
        self.diversity = diversity
        codes = torch.empty(codebook_size, codebook_dim, dtype=torch.float32)
        bound = 1 / codebook_size
        self.weight = nn.Parameter(codes.normal_() if init == "normal" else codes.uniform_(-bound, bound))

    @property
    def codebook(self) -> Tensor:
        return self.weight

    def quantize(self, z: Tensor) -> Quantized:
        tokens = to_tokens(z)  # [B*h*w, D]
        indices = largest_dot(tokens, self.weight)  # [B*h*w]
        chosen = F.embedding(indices, self.weight)
        soft = mean_code(tokens, self.weight)
        codes = chosen + (soft - soft.detach())  # exactly `chosen`, with the gradients of both
        losses = {
            "codebook": F.mse_loss(chosen, tokens.detach()),
            "commitment": F.mse_loss(tokens, chosen.detach()) + F.mse_loss(tokens, codes),
            "entropy": entropy_loss(tokens, self.weight, self.temperature, self.diversity),
        }
        return Quantized(to_grid(codes, like=z), indices.view(z.shape[0], *z.shape[2:]), losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.weight).permute(0, 3, 1, 2)  # [B, D, h, w]


def check_entropy_options(temperature: float, diversity: float) -> None:
    """Raise ValueError where an option of the entropy loss is out of range; the sentence names it."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}, but must be above 0; 0.01 is usual.")
    if not 0 <= diversity < math.inf:
        raise ValueError(f"diversity is {diversity}, but must be at least 0; 1 is usual.")
