"""The convolutional encoder and decoder of MaskGIT's VQGAN: no attention, average pooling, images in [0, 1].

After MaskGIT (Chang et al. 2022, arXiv:2202.04200, section 3.1) as implemented in 1d-tokenizer, whose published weights
TiTok and others build on. Things to know:

- Where a block changes the channels, its 1x1 convolution sees the block's *output*, not its input: there is no skip
  connection then. It is kept because the published weights hold only with it.
- There are no 1x1 convolutions into and out of the code dimension: the encoder's last and the decoder's first convolution
  do it, `to_codes` and `from_codes` here.
- The original works on images in [0, 1] and clamps there when it decodes. Encoder and decoder map from and to [-1, 1]
  here; the clamp is applied in eval mode only, as a gradient does not pass it.

The parts are named as in `vqgan`; the blocks of the middle are `mid.block_<j>`.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.networks.blocks import ImageEncoder
from vistok.networks.vqgan import ResidualBlock, Upsample, check_widths, group_norm, levels_of_blocks, residual_blocks


class MaskGITBlock(ResidualBlock):
    """x + r(x), with r of `ResidualBlock` without bias; conv1x1(r(x)) + r(x) where the channels change."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, bias=False)
        self.changes_channels = in_channels != out_channels
        if self.changes_channels:
            self.shortcut = nn.Conv2d(out_channels, out_channels, 1, bias=False)

    def compute(self, x: Tensor) -> Tensor:
        residual = self.residual(x)
        return self.shortcut(residual if self.changes_channels else x) + residual


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] in [-1, 1] to continuous codes z [B, D, H/f, W/f], f = 2^(levels - 1)."""

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        self.downsample_factor = 2 ** (len(ch_mult) - 1)
        self.conv_in = nn.Conv2d(3, hidden_dim, 3, padding=1, bias=False)
        widths, channels = [hidden_dim * factor for factor in ch_mult], hidden_dim * ch_mult[-1]
        halving = ("downsample", lambda channels: nn.AvgPool2d(2))
        self.levels = levels_of_blocks(
            hidden_dim, widths, num_res_blocks, halving, block=MaskGITBlock
        )  # [B, C, H/f, W/f]
        self.mid = nn.Sequential(residual_blocks(channels, channels, num_res_blocks, MaskGITBlock))
        self.norm_out = group_norm(channels)
        self.to_codes = nn.Conv2d(channels, codebook_dim, 1)  # [B, D, H/f, W/f]

    def forward(self, images: Tensor) -> Tensor:
        x = self.mid(self.levels(self.conv_in((images + 1) / 2)))
        return self.to_codes(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Codes [B, D, h, w] to images [B, 3, f*h, f*w], about [-1, 1]; within in eval mode."""

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        widths, channels = [hidden_dim * factor for factor in reversed(ch_mult)], hidden_dim * ch_mult[-1]
        self.from_codes = nn.Conv2d(codebook_dim, channels, 3, padding=1)
        self.mid = nn.Sequential(residual_blocks(channels, channels, num_res_blocks, MaskGITBlock))
        doubling = ("upsample", Upsample)
        self.levels = levels_of_blocks(
            channels, widths, num_res_blocks, doubling, block=MaskGITBlock
        )  # [B, C, f*h, f*w]
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, where the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight

    def forward(self, codes: Tensor) -> Tensor:
        x = self.levels(self.mid(self.from_codes(codes)))
        images = self.conv_out(F.silu(self.norm_out(x)))  # about [0, 1]
        return 2 * (images if self.training else images.clamp(0, 1)) - 1


def build(
    codebook_dim: int, hidden_dim: int = 128, num_res_blocks: int = 2, ch_mult: Sequence[int] = (1, 1, 2, 2, 4)
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes.
        hidden_dim: channels at the full resolution; a multiple of 32.
        num_res_blocks: residual blocks a level, on either side.
        ch_mult: channels of each level over `hidden_dim`, from the full resolution down; one level more than halvings.

    Raises:
        ValueError: a width is out of range.
    """
    check_widths(hidden_dim, num_res_blocks, ch_mult)
    options = (codebook_dim, hidden_dim, num_res_blocks, tuple(ch_mult))
    return Encoder(*options), Decoder(*options)
