"""Vector quantization with a learned codebook: by gradient (VQ-VAE), on the unit sphere (ViT-VQGAN), or by moving average.

Sources: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937), equations 1 to 3 and appendix A.1; l2-normalised codes:
ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627), section 3.2, and LlamaGen (arXiv:2406.06525). Deviations:

- l2: z and codes are normalised before the distance, in the losses and in the straight-through step, as in ViT-VQGAN and
  LlamaGen. With `l2_search_only` losses and straight-through step see z as it is, as in the code behind the published CelebA
  rows: there the commitment loss pulls z to the sphere.
- EMA: no Laplace smoothing of the counts, and a code that no token of the batch chose keeps its value exactly, as in the
  code behind the published rows; the paper's appendix has neither.

What later work added against unused codes is in `remedies`, off by default: `init`, `revive_after`, `gradient` and
`entropy_temperature`. Codes start and revive before the search, so that the batch which they come from uses them already.
An optimizer's moments of a revived code stay as they were; those of a code without gradient have decayed.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, look_up, straight_through, to_grid, to_tokens
from vistok.quantizers.entropy import entropy_of_distances
from vistok.quantizers.remedies import VectorCodebook, count_and_sum
from vistok.quantizers.search import nearest_code


def _uniform_codebook(codebook_size: int, codebook_dim: int) -> Tensor:
    """Codes uniform in (-1/K, 1/K): far smaller than any encoder output, so the first batches pull all of them."""
    codes = torch.empty(codebook_size, codebook_dim, dtype=torch.float32)
    return codes.uniform_(-1 / codebook_size, 1 / codebook_size)


class VectorQuantizer(VectorCodebook):
    """A codebook learned by the codebook loss |sg[z] - e|^2 (VQ-VAE, equation 3, second term)."""

    loss_names: ClassVar[tuple[str, ...]] = ("codebook", "commitment")

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        l2_norm: bool = False,
        l2_search_only: bool = False,
        init: str = "uniform",
        revive_after: int | None = None,
        gradient: str = "straight-through",
        entropy_temperature: float | None = None,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            l2_norm: put z and the codes on the unit sphere.
            l2_search_only: put z there for the search only, and not for the losses and the straight-through step.
            init: "uniform", codes in (-1/K, 1/K), or "kmeans" of the first training batch, of K tokens or more.
            revive_after: training steps without a token after which a code becomes a random one, at least 1; None: never.
            gradient: "straight-through", or "rotation" for the rotation trick.
            entropy_temperature: of the entropy loss, above 0, 0.01 in the original; None: there is no such loss.

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__(codebook_size, codebook_dim, init, revive_after, gradient)
        if l2_search_only and not l2_norm:
            raise ValueError(
                "l2_search_only is true, but l2_norm is not: l2_norm=True puts the codes on the unit sphere."
            )
        self.l2_norm, self.l2_search_only = l2_norm, l2_search_only
        if entropy_temperature is not None:
            if not 0 < entropy_temperature < math.inf:
                raise ValueError(f"entropy_temperature is {entropy_temperature}, but must be above 0; 0.01 is usual.")
            self.loss_names, self.of_batch = (*self.loss_names, "entropy"), (*self.of_batch, "entropy")
        self.entropy_temperature = entropy_temperature
        self.weight = nn.Parameter(_uniform_codebook(codebook_size, codebook_dim))

    def quantize(self, z: Tensor) -> Quantized:
        if self.l2_norm and not self.l2_search_only:
            z = F.normalize(z, dim=1)
        tokens = self._tokens(z) if self.l2_search_only else to_tokens(z)  # [B*h*w, D]
        codebook = self.codebook
        indices = nearest_code(tokens, codebook)  # [B*h*w]
        codes, losses = look_up(z, codebook, indices)
        if self.training:
            self._count_unused(indices)
        if self.entropy_temperature is not None:
            losses["entropy"] = entropy_of_distances(tokens, codebook, self.entropy_temperature)
        return Quantized(self._with_gradient(z, codes), (indices.view_as(z[:, 0]),), losses)


class EMAQuantizer(VectorCodebook):
    """A codebook that follows the mean of the tokens that chose each code (VQ-VAE, appendix A.1)."""

    loss_names: ClassVar[tuple[str, ...]] = ("commitment",)
    of_batch = ("the moving average of codes",)

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        decay: float = 0.99,
        init: str = "uniform",
        revive_after: int | None = None,
        gradient: str = "straight-through",
    ) -> None:
        """Make the quantizer.

        The sums start at the codebook and the counts at 0: the first update multiplies a code by 99/n at decay 0.99 and n
        tokens, which is harmless only because the initial codes are tiny. Where a code is a token or a mean of some, its
        count starts at 1.

        Args:
            codebook_size, codebook_dim, init, revive_after, gradient: as of `VectorQuantizer`.
            decay: gamma of equation 7, in [0, 1).

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__(codebook_size, codebook_dim, init, revive_after, gradient)
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}, but must be in [0, 1); 0.99 is usual.")
        self.decay = decay
        self.register_buffer("weight", _uniform_codebook(codebook_size, codebook_dim))
        self.register_buffer("ema_sum", self.weight.clone())  # m_k
        self.register_buffer("ema_count", torch.zeros(codebook_size, dtype=torch.float32))  # N_k

    def quantize(self, z: Tensor) -> Quantized:
        tokens = to_tokens(z)
        indices = nearest_code(tokens, self.weight)
        codes = to_grid(F.embedding(indices, self.weight), like=z)  # before the update: the codes this batch chose
        if self.training:
            self._count_unused(indices)
            self._update(tokens.detach(), indices)
        losses = {"commitment": F.mse_loss(z, codes)}
        codes = self._with_gradient(z, straight_through(z, codes))
        return Quantized(codes, (indices.view_as(z[:, 0]),), losses)

    @torch.no_grad()
    def _update(self, tokens: Tensor, indices: Tensor) -> None:
        """Move sums, counts and the chosen codes (equations 6 to 8), over the tokens of all processes."""
        counts, sums = count_and_sum(tokens, indices, self.codebook_size)
        self.ema_count.lerp_(counts, 1 - self.decay)
        self.ema_sum.lerp_(sums, 1 - self.decay)
        chosen = (counts > 0).unsqueeze(1)
        self.weight.copy_(torch.where(chosen, self.ema_sum / self.ema_count.unsqueeze(1), self.weight))

    def _place(self, codes: Tensor, where: Tensor) -> None:
        super()._place(codes, where)
        self.ema_sum[where] = codes
        self.ema_count[where] = 1
