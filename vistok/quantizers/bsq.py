"""Binary spherical quantization: z on the unit sphere, and each of its channels one bit, +-1/sqrt(D).

Source: BSQ (Zhao et al. 2024, arXiv:2406.07548), and its authors' code: LFQ with the bound on z that LFQ takes for granted,
and with an entropy loss whose two terms are both sums over bits. To know:

- Bit i of an index is channel i > 0 (little-endian, as in `lfq`; the original is big-endian); zero counts as negative.
- The entropy of the batch's mean distribution is taken as if its bits were independent, as in the paper: an upper bound of
  the exact one (that of `lfq`), in memory of tokens x D whatever K. Its code can group bits.
- The original divides its entropy loss by 1/temperature, so that a weight of its own is 1/temperature of ours, and sums the
  commitment loss over channels where ours is a mean.
- Codes and z are on one sphere here, and the gradient of the codes is that of the identity. The original rounds z to +-1 and
  scales after the straight-through step, so that the decoder's gradient reaches z as 1/sqrt(D) of ours. Beside it the
  quantizer's own losses weigh sqrt(D) times as much: `gradient="scaled"` is that, or multiply their weights by sqrt(D).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.base import Quantized, Quantizer, straight_through, to_tokens
from vistok.quantizers.ibq import check_entropy_options
from vistok.quantizers.lfq import bits_of, check_one_bit_a_channel, nearest_num_bits
from vistok.system.processes import batch_mean

_EPS = 1e-8  # inside the logarithm of the batch's entropy, as in the original


def entropy_loss(tokens: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return E[H(p)] - diversity x sum_i H(E[p_i]), p = softmax_k(2 z . e_k / temperature), p_i its i-th bit.

    Args:
        tokens: float32 [N, D], on the unit sphere.
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    logits = 4 / temperature * tokens / tokens.shape[1] ** 0.5  # of each bit: e_k differs by 2/sqrt(D) in it
    one, zero = logits.sigmoid(), (-logits).sigmoid()  # [N, D]
    token_entropy = -(one * F.logsigmoid(logits) + zero * F.logsigmoid(-logits)).sum(1).mean()
    negative_batch_entropy = sum(
        (mean * (mean + _EPS).log()).sum() for mean in map(batch_mean, (one.mean(0), zero.mean(0)))
    )
    return token_entropy + diversity * negative_batch_entropy


class BSQQuantizer(Quantizer):
    """The signs of z on the unit sphere, as many bits as z has channels; nothing is learned."""

    loss_names: ClassVar[tuple[str, ...]] = ("commitment", "entropy")
    of_batch = ("entropy",)

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
            codebook_size: K, a power of 2, at least 2.
            codebook_dim: D = log2 K; None: that.
            temperature: of the entropy loss, above 0.
            diversity: gamma, weight of the batch's entropy against the tokens', at least 0.
            gradient: of the codes with respect to z on the sphere: "straight-through", the identity, or "scaled", 1/sqrt(D)
                of it, as in the original.

        Raises:
            ValueError: `codebook_size` is not 2 to the power of `codebook_dim`, or an option is out of range.
        """
        if gradient not in ("straight-through", "scaled"):
            raise ValueError(f"gradient is {gradient!r}, but must be 'straight-through' or 'scaled'.")
        super().__init__((codebook_size,), nearest_num_bits(codebook_size) if codebook_dim is None else codebook_dim)
        check_one_bit_a_channel("bsq", codebook_size, self.codebook_dim)
        check_entropy_options(temperature, diversity)
        self.temperature = temperature
        self.diversity = diversity
        self.gradient = gradient
        self.scale = self.codebook_dim**-0.5
        self.register_buffer("places", 2 ** torch.arange(self.codebook_dim), persistent=False)  # [D]

    @property
    def codebook(self) -> Tensor:
        indices = torch.arange(self.codebook_size, device=self.places.device)
        return bits_of(indices, self.codebook_dim) * self.scale

    def quantize(self, z: Tensor) -> Quantized:
        z = F.normalize(z, dim=1)
        positive = z > 0  # [B, D, h, w]
        indices = (positive * self.places.view(-1, 1, 1)).sum(1)  # [B, h, w]
        signs = positive.float() * 2 - 1
        codes = signs * self.scale
        losses = {
            "commitment": F.mse_loss(z, codes),
            "entropy": entropy_loss(to_tokens(z), self.temperature, self.diversity),
        }
        through = straight_through(z, signs) * self.scale if self.gradient == "scaled" else straight_through(z, codes)
        return Quantized(through, indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return (bits_of(indices, self.codebook_dim) * self.scale).permute(0, 3, 1, 2)  # [B, D, h, w]
