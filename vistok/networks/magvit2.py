"""The convolutional encoder and decoder of Open-MAGVIT2: no attention, codes modulate every level of the decoder.

After MAGVIT-v2 (Yu et al. 2023, arXiv:2310.05737, section 3.2 and appendix, "Model setup"), its image model, as implemented
in Open-MAGVIT2 (SEED-Voken; arXiv:2409.04410). Things to know:

- A stride-2 convolution pads by one pixel on all sides, unlike that of `vqgan`.
- Depth-to-space reads the channels as (row, column, channel), unlike `torch.pixel_shuffle`, which reads (channel, row,
  column).
- There are no 1x1 convolutions into and out of the code dimension: the encoder's last and the decoder's first convolution
  do it, `to_codes` and `from_codes` here.

The parts are named as in `vqgan`; the blocks of the middle are `mid.block_<j>`, the adaptive normalisations `norms.<i>`,
where `i` counts the levels in the order in which they run.
"""

import functools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.networks.blocks import GroupNorm, ImageEncoder
from vistok.networks.vqgan import NUM_GROUPS, ResidualBlock, check_widths, group_norm, levels_of_blocks, residual_blocks

EPS = 1e-6

_block = functools.partial(ResidualBlock, bias=False)


class AdaptiveGroupNorm(nn.Module):
    """gamma(std of the codes) * norm(x) + beta(mean of the codes), with one gain and one bias a channel and image."""

    def __init__(self, codebook_dim: int, channels: int) -> None:
        super().__init__()
        self.norm = GroupNorm(NUM_GROUPS, channels, eps=EPS, affine=False)
        self.gamma = nn.Linear(codebook_dim, channels)
        self.beta = nn.Linear(codebook_dim, channels)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        codes = codes.flatten(2)  # [B, D, h*w]
        unbiased = min(1, codes.shape[2] - 1)  # a single token has no sample variance: 0 rather than not a number
        std = (codes.var(2, correction=unbiased) + EPS).sqrt()  # [B, D]
        gain, bias = (y[:, :, None, None] for y in (self.gamma(std), self.beta(codes.mean(2))))  # [B, C, 1, 1]
        return gain * self.norm(x) + bias


class DepthToSpace(nn.Module):
    """A 3x3 convolution to four times the channels, which become 2x2 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).unflatten(1, (2, 2, -1))  # [B, row, column, C, H, W]
        return x.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)  # [B, C, 2H, 2W]


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] to continuous codes z [B, D, H/f, W/f], f = 2^(levels - 1)."""

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        self.downsample_factor = 2 ** (len(ch_mult) - 1)
        self.conv_in = nn.Conv2d(3, hidden_dim, 3, padding=1, bias=False)
        widths, channels = [hidden_dim * factor for factor in ch_mult], hidden_dim * ch_mult[-1]
        halving = ("downsample", lambda channels: nn.Conv2d(channels, channels, 3, stride=2, padding=1))
        self.levels = levels_of_blocks(hidden_dim, widths, num_res_blocks, halving, block=_block)  # [B, C, H/f, W/f]
        self.mid = nn.Sequential(residual_blocks(channels, channels, num_res_blocks, _block))
        self.norm_out = group_norm(channels)
        self.to_codes = nn.Conv2d(channels, codebook_dim, 1)  # [B, D, H/f, W/f]

    def forward(self, images: Tensor) -> Tensor:
        x = self.mid(self.levels(self.conv_in(images)))
        return self.to_codes(F.silu(self.norm_out(x)))


class Decoder(nn.Module):
    """Codes [B, D, h, w] to images [B, 3, f*h, f*w], about [-1, 1]."""

    def __init__(self, codebook_dim: int, hidden_dim: int, num_res_blocks: int, ch_mult: Sequence[int]) -> None:
        super().__init__()
        channels = hidden_dim * ch_mult[-1]
        self.from_codes = nn.Conv2d(codebook_dim, channels, 3, padding=1)
        self.mid = nn.Sequential(residual_blocks(channels, channels, num_res_blocks, _block))
        self.norms, self.levels = nn.ModuleList(), nn.ModuleList()
        for i, factor in enumerate(reversed(ch_mult)):
            self.norms.append(AdaptiveGroupNorm(codebook_dim, channels))
            parts = residual_blocks(channels, hidden_dim * factor, num_res_blocks, _block)
            channels = hidden_dim * factor
            if i < len(ch_mult) - 1:
                parts["upsample"] = DepthToSpace(channels)
            self.levels.append(nn.Sequential(parts))
        self.norm_out = group_norm(channels)
        self.conv_out = nn.Conv2d(channels, 3, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, where the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight

    def forward(self, codes: Tensor) -> Tensor:
        x = self.mid(self.from_codes(codes))
        for norm, level in zip(self.norms, self.levels, strict=True):
            x = level(norm(x, codes))
        return self.conv_out(F.silu(self.norm_out(x)))


def build(
    codebook_dim: int, hidden_dim: int = 128, num_res_blocks: int = 4, ch_mult: Sequence[int] = (1, 1, 2, 2, 4)
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes; bits of a token with the quantizer "lfq".
        hidden_dim: channels at the full resolution; a multiple of 32.
        num_res_blocks: residual blocks a level, on either side.
        ch_mult: channels of each level over `hidden_dim`, from the full resolution down; one level more than halvings.

    Raises:
        ValueError: a width is out of range.
    """
    check_widths(hidden_dim, num_res_blocks, ch_mult)
    options = (codebook_dim, hidden_dim, num_res_blocks, tuple(ch_mult))
    return Encoder(*options), Decoder(*options)
