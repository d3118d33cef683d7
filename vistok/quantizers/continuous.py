"""Bottlenecks without a codebook: what quantizing itself costs is the distance to a tokenizer that does not quantize.

`none` hands z on; `kl` is the Gaussian bottleneck of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.1 and
appendix G; `AutoencoderKL` and `DiagonalGaussianDistribution` of its code). They are ceilings to stand beside quantizers of the
same width, under the contract as far as it goes: no levels, no indices, no codebook, and so no usage. To know:

- Mean and log variance are a learned 1x1 convolution of z, as the `quant_conv` of latent diffusion, whose encoder ends in twice
  the channels (`double_z`); here it ends in D, as for every quantizer. A convolution after the bottleneck (`post_quant_conv`)
  is the decoder's own.
- Training draws, evaluation takes the mean. Latent diffusion's own reconstructions are drawn too.
- `kl` is in nats a token, a mean over tokens, as that of `gumbel`. Latent diffusion's weight of 1e-6 is for the sum over an
  image beside the sum of its pixels' errors: beside a mean error ours is 3 f^2 times as heavy, 48 at f = 4, and still next to
  nothing.
"""

from typing import ClassVar, NoReturn

import torch
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, Quantizer

LOG_VARIANCES = (-30.0, 20.0)  # what latent diffusion clamps them to


class Continuous(Quantizer):
    """Base of both: D channels in, D channels out, and nothing between them that could be counted."""

    def __init__(self, codebook_dim: int) -> None:
        super().__init__((), codebook_dim)

    @property
    def codebook(self) -> NoReturn:
        """There is none: raises ValueError."""
        self.check_codebook()

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        return ()


class NoQuantizer(Continuous):
    """The encoder's output as it is: the autoencoder alone."""

    def __init__(self, codebook_dim: int) -> None:
        """Make the bottleneck.

        Args:
            codebook_dim: D, channels of z, at least 1.
        """
        super().__init__(codebook_dim)

    def quantize(self, z: Tensor) -> Quantized:
        return Quantized(z, (), {})


class KLQuantizer(Continuous):
    """A diagonal Gaussian for each token, near N(0, I), and a draw from it."""

    loss_names: ClassVar[tuple[str, ...]] = ("kl",)

    def __init__(self, codebook_dim: int) -> None:
        """Make the bottleneck.

        Args:
            codebook_dim: D, channels of z and of the draw, at least 1.
        """
        super().__init__(codebook_dim)
        self.moments = nn.Conv2d(codebook_dim, 2 * codebook_dim, 1, dtype=torch.float32)

    def quantize(self, z: Tensor) -> Quantized:
        mean, log_variance = self.moments(z).chunk(2, dim=1)  # [B, D, h, w] each
        log_variance = log_variance.clamp(*LOG_VARIANCES)
        of_each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)  # KL(N(mean, variance) || N(0, 1))
        codes = mean
        if self.training:
            codes = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        return Quantized(codes, (), {"kl": of_each.sum(1).mean()})
