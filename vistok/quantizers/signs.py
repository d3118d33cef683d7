"""Quantizers that keep the sign of each channel of z: lookup-free (LFQ), and on the unit sphere (BSQ); nothing is learned.

Sources: LFQ, MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737), section 3.1, equations 2 to 5, as implemented in Open-MAGVIT2;
BSQ (Zhao et al. 2024, arXiv:2406.07548), and its authors' code: LFQ with the bound on z that LFQ takes for granted, and with an
entropy loss whose two terms are both sums over bits. The entropy losses are in `entropy`. To know:

- Bit i of an index is channel i > 0 (little-endian; BSQ's original is big-endian); zero counts as negative, where a sign would
  give a third level.
- LFQ: the encoder's output must be of unit size. LFQ counts on a normalisation before its last convolution, which `magvit2`
  has and `simple_cnn` has not. The original's weights are entropy 0.1, commitment 0.25, beside L1, LPIPS and a discriminator;
  beside a mean squared error alone the entropy loss outweighs everything else: row `lfq-9` has 0.003 and 0.02, at a
  temperature of 0.1, where the original's 0.01 lets only channels within 0.01 of zero be heard.
- BSQ: the original divides its entropy loss by 1/temperature, so that a weight of its own is 1/temperature of ours, and sums
  the commitment loss over channels where ours is a mean.
- BSQ: codes and z are on one sphere here, and the gradient of the codes is that of the identity. The original rounds z to +-1
  and scales after the straight-through step, so that the decoder's gradient reaches z as 1/sqrt(D) of ours. Beside it the
  quantizer's own losses weigh sqrt(D) times as much: `gradient="scaled"` is that, or multiply their weights by sqrt(D).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.base import Quantized, Quantizer, straight_through, to_tokens
from vistok.quantizers.entropy import bits_of, check_entropy_options, entropy_of_independent_signs, entropy_of_signs


class _SignQuantizer(Quantizer):
    """Base of both: one bit a channel, codes in {-scale, scale}^D."""

    loss_names: ClassVar[tuple[str, ...]] = ("commitment", "entropy")
    of_batch = ("entropy",)
    name: ClassVar[str]  # in the registry
    scale = 1.0

    def __init__(self, codebook_size: int, codebook_dim: int | None, temperature: float, diversity: float) -> None:
        num_bits = max(1, (max(1, codebook_size) - 1).bit_length())  # the fewest that give so many codes
        super().__init__((codebook_size,), num_bits if codebook_dim is None else codebook_dim)
        if codebook_size != 2**self.codebook_dim:
            raise ValueError(
                f"codebook_size is {codebook_size} and codebook_dim {self.codebook_dim}, but {self.name} has one bit a "
                f"channel: take codebook_size {2**self.codebook_dim}, or {2**num_bits} and codebook_dim {num_bits}."
            )
        check_entropy_options(temperature, diversity)
        self.temperature, self.diversity = temperature, diversity
        self.register_buffer("places", 2 ** torch.arange(self.codebook_dim), persistent=False)  # [D]

    @property
    def codebook(self) -> Tensor:
        indices = torch.arange(self.codebook_size, device=self.places.device)
        return bits_of(indices, self.codebook_dim) * self.scale

    def signs(self, z: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        """Return the signs of z, float32 [B, D, h, w] in {-1, 1}, and the indices, int64 [B, h, w], as the one level."""
        positive = z > 0
        return positive.float() * 2 - 1, ((positive * self.places.view(-1, 1, 1)).sum(1),)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return (bits_of(indices, self.codebook_dim) * self.scale).permute(0, 3, 1, 2)  # [B, D, h, w]


class LFQQuantizer(_SignQuantizer):
    """The signs of z, as many bits as z has channels."""

    name = "lfq"

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int | None = None,
        temperature: float = 0.01,
        diversity: float = 1.0,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, a power of 2, at least 2.
            codebook_dim: D = log2 K; None: that.
            temperature: of the entropy loss, above 0.
            diversity: gamma, weight of the batch's entropy against the tokens', at least 0.

        Raises:
            ValueError: `codebook_size` is not 2 to the power of `codebook_dim`, or an option is out of range.
        """
        super().__init__(codebook_size, codebook_dim, temperature, diversity)

    def quantize(self, z: Tensor) -> Quantized:
        codes, levels = self.signs(z)
        losses = {
            "commitment": F.mse_loss(z, codes),
            "entropy": entropy_of_signs(to_tokens(z), self.temperature, self.diversity),
        }
        return Quantized(straight_through(z, codes), levels, losses)


class BSQQuantizer(_SignQuantizer):
    """The signs of z on the unit sphere, as many bits as z has channels; codes in {-1, 1}^D / sqrt(D)."""

    name = "bsq"

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int | None = None,
        temperature: float = 0.01,
        diversity: float = 1.0,
        gradient: str = "straight-through",
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size, codebook_dim, temperature, diversity: as of `LFQQuantizer`.
            gradient: of the codes with respect to z on the sphere: "straight-through", the identity, or "scaled", 1/sqrt(D)
                of it, as in the original.

        Raises:
            ValueError: as of `LFQQuantizer`.
        """
        if gradient not in ("straight-through", "scaled"):
            raise ValueError(f"gradient is {gradient!r}, but must be 'straight-through' or 'scaled'.")
        super().__init__(codebook_size, codebook_dim, temperature, diversity)
        self.gradient = gradient
        self.scale = self.codebook_dim**-0.5

    def quantize(self, z: Tensor) -> Quantized:
        z = F.normalize(z, dim=1)
        signs, levels = self.signs(z)
        codes = signs * self.scale
        losses = {
            "commitment": F.mse_loss(z, codes),
            "entropy": entropy_of_independent_signs(to_tokens(z), self.temperature, self.diversity),
        }
        through = straight_through(z, signs) * self.scale if self.gradient == "scaled" else straight_through(z, codes)
        return Quantized(through, levels, losses)
