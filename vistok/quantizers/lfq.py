"""Lookup-free quantization: each channel of z is one bit, its sign.

Source: MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737), section 3.1, equations 2 to 5, as implemented in Open-MAGVIT2. To know:

- Bit i of an index is channel i > 0 (little-endian); zero counts as negative, where a sign would give a third level.
- The encoder's output must be of unit size: LFQ counts on a normalisation before its last convolution, which `magvit2` has
  and `simple_cnn` has not. The original's weights are entropy 0.1, commitment 0.25, beside L1, LPIPS and a discriminator;
  beside a mean squared error alone the entropy loss outweighs everything else: row `lfq-9` has 0.003 and 0.02, at a
  temperature of 0.1, where the original's 0.01 lets only channels within 0.01 of zero be heard.
- The entropy loss is exact, and never builds tokens x K. The softmax over all 2^D codes is a product over bits, so that a
  token's entropy is the sum over bits; the batch's mean distribution is not such a product, but it is one matrix product of
  the tokens' distributions over the first and over the second half of the bits. Memory grows with tokens x 2^(D/2).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vistok.quantizers.base import Quantized, Quantizer, straight_through, to_tokens
from vistok.quantizers.ibq import check_entropy_options
from vistok.system.processes import batch_mean

_EPS = 1e-5  # inside the logarithm of the batch's entropy, as in the original: not negligible for K near 1/eps


def bits_of(indices: Tensor, num_bits: int) -> Tensor:
    """Return the codes in {-1, 1}, float32 [..., num_bits], of indices, int64 [...]; the least significant bit first."""
    places = torch.arange(num_bits, device=indices.device)
    return (indices.unsqueeze(-1) >> places & 1).float() * 2 - 1


def nearest_num_bits(codebook_size: int) -> int:
    """Return the fewest bits, at least 1, that give so many codes."""
    return max(1, (max(1, codebook_size) - 1).bit_length())


def check_one_bit_a_channel(name: str, codebook_size: int, codebook_dim: int) -> None:
    """Raise ValueError, naming sizes that fit, unless K = 2^D."""
    if codebook_size != 2**codebook_dim:
        num_bits = nearest_num_bits(codebook_size)
        raise ValueError(
            f"codebook_size is {codebook_size} and codebook_dim {codebook_dim}, but {name} has one bit a channel: "
            f"take codebook_size {2**codebook_dim}, or {2**num_bits} and codebook_dim {num_bits}."
        )


def entropy_loss(tokens: Tensor, temperature: float, diversity: float) -> Tensor:
    """Return E[H(p)] - diversity x H(E[p]), p = softmax_k(2 z . e_k / temperature) (MAGVIT-v2, equation 4).

    Args:
        tokens: float32 [N, D].
        temperature: above 0.
        diversity: gamma, at least 0.
    """
    logits = 4 / temperature * tokens  # of each bit being 1: e_k differs by 2 in it, and so 2 z . e_k by 4 z
    token_entropy = -(logits.sigmoid() * F.logsigmoid(logits) + (-logits).sigmoid() * F.logsigmoid(-logits)).sum(1)
    low, high = (_distribution(half, temperature) for half in tokens.tensor_split([tokens.shape[1] // 2], dim=1))
    mean = batch_mean(low.T @ high / len(tokens))  # [2^(D/2), 2^(D - D/2)], E[p]
    return token_entropy.mean() + diversity * (mean * (mean + _EPS).log()).sum()


def _distribution(tokens: Tensor, temperature: float) -> Tensor:
    """softmax_k(2 z . e_k / temperature) over the codes of these bits alone, [N, 2^bits]."""
    num_bits = tokens.shape[1]
    codes = bits_of(torch.arange(2**num_bits, device=tokens.device), num_bits)  # [2^bits, bits]
    return (2 / temperature * tokens @ codes.T).softmax(1)


class LFQQuantizer(Quantizer):
    """The signs of z, as many bits as z has channels; nothing is learned."""

    loss_names: ClassVar[tuple[str, ...]] = ("commitment", "entropy")
    of_batch = ("entropy",)

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
        super().__init__((codebook_size,), nearest_num_bits(codebook_size) if codebook_dim is None else codebook_dim)
        check_one_bit_a_channel("lfq", codebook_size, self.codebook_dim)
        check_entropy_options(temperature, diversity)
        self.temperature = temperature
        self.diversity = diversity
        self.register_buffer("places", 2 ** torch.arange(self.codebook_dim), persistent=False)  # [D]

    @property
    def codebook(self) -> Tensor:
        return bits_of(torch.arange(self.codebook_size, device=self.places.device), self.codebook_dim)

    def quantize(self, z: Tensor) -> Quantized:
        positive = z > 0  # [B, D, h, w]
        indices = (positive * self.places.view(-1, 1, 1)).sum(1)  # [B, h, w]
        codes = positive.float() * 2 - 1
        losses = {
            "commitment": F.mse_loss(z, codes),
            "entropy": entropy_loss(to_tokens(z), self.temperature, self.diversity),
        }
        return Quantized(straight_through(z, codes), indices, losses)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return bits_of(indices, self.codebook_dim).permute(0, 3, 1, 2)  # [B, D, h, w]
