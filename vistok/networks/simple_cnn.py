"""The small convolutional autoencoder of the VQ-VAE table: downsample factor 4, residual blocks at the lowest resolution.

After VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1) as implemented in visual-tokenizer-pytorch, whose
published rows use it with 256 channels and 2 residual blocks. Two things to know when comparing with the paper's text:

- The first ReLU of a residual block works in place in the original, so that its skip connection carries ReLU(x), not x.
  It is kept, and written out, because the published weights and numbers hold only with it.
- The 1x1 convolutions into and out of the code dimension belong to the encoder and the decoder here: what leaves the
  encoder is what the quantizer sees.

`norm_out` is not in the original: group normalisation and swish before the last convolution of the encoder, as VQGAN and
MAGVIT-v2 have them. Quantizers whose codes have a fixed size (LFQ, BSQ) rely on it.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.networks.blocks import GroupNorm, ImageEncoder

DOWNSAMPLE_FACTOR = 4


class ResidualBlock(nn.Module):
    """ReLU(x) + conv1x1(ReLU(conv3x3(ReLU(x)))), both convolutions without bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return x + self.conv2(F.relu(self.conv1(x)))


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] to continuous codes z [B, D, H/4, W/4]."""

    downsample_factor = DOWNSAMPLE_FACTOR

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int, norm_out: bool) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv2d(3, hidden_dim // 2, 4, stride=2, padding=1),  # [B, h/2, H/2, W/2]
            nn.LeakyReLU(0.01),
            nn.Conv2d(hidden_dim // 2, hidden_dim, 4, stride=2, padding=1),  # [B, h, H/4, W/4]
            nn.LeakyReLU(0.01),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1),
        )
        self.res_blocks = nn.Sequential(*[ResidualBlock(hidden_dim) for _ in range(num_res_blocks)])
        self.norm_out = nn.Sequential()
        if norm_out:
            self.norm_out.extend([GroupNorm(math.gcd(32, hidden_dim), hidden_dim), nn.SiLU()])
        self.to_codes = nn.Conv2d(hidden_dim, codebook_dim, 1)  # [B, D, H/4, W/4]

    def forward(self, images: Tensor) -> Tensor:
        return self.to_codes(self.norm_out(self.res_blocks(self.down(images))))


class Decoder(nn.Module):
    """Codes [B, D, h, w] to images [B, 3, 4h, 4w] in [-1, 1]."""

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int) -> None:
        super().__init__()
        self.from_codes = nn.Conv2d(codebook_dim, hidden_dim, 1)
        self.res_blocks = nn.Sequential(*[ResidualBlock(hidden_dim) for _ in range(num_res_blocks)])
        self.up = nn.Sequential(
            nn.LeakyReLU(0.01),
            nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1),
            nn.LeakyReLU(0.01),
            nn.ConvTranspose2d(hidden_dim, hidden_dim // 2, 4, stride=2, padding=1),  # [B, h/2, 2h, 2w]
            nn.LeakyReLU(0.01),
            nn.ConvTranspose2d(hidden_dim // 2, 3, 4, stride=2, padding=1),  # [B, 3, 4h, 4w]
            nn.Tanh(),
        )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, at which adversarial and reconstruction gradients are weighed."""
        return self.up[-2].weight

    def forward(self, codes: Tensor) -> Tensor:
        return self.up(self.res_blocks(self.from_codes(codes)))


def build(
    codebook_dim: int, hidden_dim: int = 256, num_res_blocks: int = 2, norm_out: bool = False
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes.
        hidden_dim: h, channels at the lowest resolution; even.
        num_res_blocks: residual blocks on each side.
        norm_out: normalise the encoder's last features.

    Raises:
        ValueError: `hidden_dim` is odd.
    """
    if hidden_dim % 2:
        raise ValueError(f"hidden_dim is {hidden_dim}, but simple_cnn halves it: take {hidden_dim + 1}.")
    encoder = Encoder(codebook_dim, hidden_dim, num_res_blocks, norm_out)
    return encoder, Decoder(codebook_dim, hidden_dim, num_res_blocks)
