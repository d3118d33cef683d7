"""Vector quantization with a learned codebook: by gradient (VQ-VAE), on the unit sphere (ViT-VQGAN), or by moving average.

Sources: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937), equations 1 to 3 and appendix A.1; l2-normalised codes:
ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627), section 3.2, and LlamaGen (arXiv:2406.06525). Deviations:

- l2: z and codes are normalised before the distance, in the losses and in the straight-through step, as in ViT-VQGAN and
  LlamaGen. The code behind the published CelebA rows normalised for the distance only.
- EMA: no Laplace smoothing of the counts, and a code that no token of the batch chose keeps its value exactly, as in the
  code behind the published rows; the paper's appendix has neither.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.processes import sum_over_processes
from vistok.quantizers.base import Quantized, Quantizer, straight_through, to_grid, to_tokens
from vistok.quantizers.search import nearest_code


def _uniform_codebook(codebook_size: int, codebook_dim: int) -> Tensor:
    """Codes uniform in (-1/K, 1/K): far smaller than any encoder output, so the first batches pull all of them."""
    return torch.empty(codebook_size, codebook_dim).uniform_(-1 / codebook_size, 1 / codebook_size)


class VectorQuantizer(Quantizer):
    """A codebook learned by the codebook loss |sg[z] - e|^2 (VQ-VAE, equation 3, second term)."""

    loss_names: ClassVar[tuple[str, ...]] = ("codebook", "commitment")

    def __init__(self, codebook_size: int, codebook_dim: int, l2_norm: bool = False) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            l2_norm: put z and the codes on the unit sphere.
        """
        super().__init__((codebook_size,), codebook_dim)
        self.l2_norm = l2_norm
        self.weight = nn.Parameter(_uniform_codebook(codebook_size, codebook_dim))

    @property
    def codebook(self) -> Tensor:
        return F.normalize(self.weight, dim=1) if self.l2_norm else self.weight

    def quantize(self, z: Tensor) -> Quantized:
        if self.l2_norm:
            z = F.normalize(z, dim=1)
        tokens = to_tokens(z)  # [B*h*w, D]
        codebook = self.codebook
        indices = nearest_code(tokens, codebook)  # [B*h*w]
        codes = to_grid(F.embedding(indices, codebook), like=z)  # [B, D, h, w]
        losses = {
            "codebook": F.mse_loss(codes, z.detach()),
            "commitment": F.mse_loss(z, codes.detach()),
        }
        return Quantized(straight_through(z, codes), indices.view(z.shape[0], *z.shape[2:]), losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)  # [B, D, h, w]


class EMAQuantizer(Quantizer):
    """A codebook that follows the mean of the tokens that chose each code (VQ-VAE, appendix A.1)."""

    loss_names: ClassVar[tuple[str, ...]] = ("commitment",)

    def __init__(self, codebook_size: int, codebook_dim: int, decay: float = 0.99) -> None:
        """Make the quantizer.

        The sums start at the codebook and the counts at 0: the first update multiplies a code by 99/n at decay 0.99 and n
        tokens, which is harmless only because the initial codes are tiny.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            decay: gamma of equation 7, in [0, 1).
        """
        super().__init__((codebook_size,), codebook_dim)
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, but must be in [0, 1); 0.99 is usual.")
        self.decay = decay
        self.register_buffer("weight", _uniform_codebook(codebook_size, codebook_dim))
        self.register_buffer("ema_sum", self.weight.clone())  # m_k
        self.register_buffer("ema_count", torch.zeros(codebook_size))  # N_k

    @property
    def codebook(self) -> Tensor:
        return self.weight

    def quantize(self, z: Tensor) -> Quantized:
        tokens = to_tokens(z)
        indices = nearest_code(tokens, self.weight)
        codes = to_grid(F.embedding(indices, self.weight), like=z)  # before the update: the codes this batch chose
        if self.training:
            self._update(tokens.detach(), indices)
        losses = {"commitment": F.mse_loss(z, codes)}
        return Quantized(straight_through(z, codes), indices.view(z.shape[0], *z.shape[2:]), losses)

    @torch.no_grad()
    def _update(self, tokens: Tensor, indices: Tensor) -> None:
        """Move sums, counts and the chosen codes (equations 6 to 8), over the tokens of all processes."""
        counts = torch.zeros_like(self.ema_count).index_add_(0, indices, torch.ones_like(tokens[:, 0]))  # [K]
        sums = torch.zeros_like(self.ema_sum).index_add_(0, indices, tokens)  # [K, D]
        sum_over_processes(counts)
        sum_over_processes(sums)
        self.ema_count.lerp_(counts, 1 - self.decay)
        self.ema_sum.lerp_(sums, 1 - self.decay)
        chosen = (counts > 0).unsqueeze(1)
        self.weight.copy_(torch.where(chosen, self.ema_sum / self.ema_count.unsqueeze(1), self.weight))

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.weight).permute(0, 3, 1, 2)  # [B, D, h, w]
