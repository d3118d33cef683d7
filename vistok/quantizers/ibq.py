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
  loss is in `entropy`.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, Quantizer, to_grid, to_tokens
from vistok.quantizers.entropy import check_entropy_options, entropy_of_dot_products
from vistok.quantizers.search import largest_dot


def mean_code(tokens: Tensor, codebook: Tensor) -> Tensor:
    """Return sum_k softmax_k(z . e_k) sg[e_k], float32 [N, D]: the soft assignment, without its N x K weights."""
    keys, values = (x[None, None] for x in (codebook, codebook.detach()))  # [1, 1, K, D]
    return F.scaled_dot_product_attention(tokens[None, None], keys, values, scale=1.0)[0, 0]


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
            "entropy": entropy_of_dot_products(tokens, self.weight, self.temperature, self.diversity),
        }
        return Quantized(to_grid(codes, like=z), (indices.view_as(z[:, 0]),), losses)
