"""The convolutional encoder and decoder of VQGAN, with attention at the lowest resolution, as LlamaGen and IBQ use it too.

After VQGAN (Esser et al. 2021, arXiv:2012.09841, section 3.1 and appendix, table 7) as implemented in taming-transformers;
LlamaGen (arXiv:2406.06525) and IBQ (arXiv:2412.02692) change the codes and the widths, not the network. Things to know:

- Attention follows every residual block of the lowest level, and stands in the middle, whatever the image size. The
  original asks for a resolution (16) that its default image size of 256 makes the lowest level.
- A stride-2 convolution pads by one pixel on the right and at the bottom only.
- The 1x1 convolutions into and out of the code dimension (`quant_conv`, `post_quant_conv` of the original) belong to the
  encoder and the decoder here (`to_codes`, `from_codes`): what leaves the encoder is what the quantizer sees. VAR
  (arXiv:2404.02905) has them 3x3: `code_kernel`.
- visual-tokenizer-pytorch normalises before attention with PyTorch's default epsilon, 1e-5, and with 1e-6 elsewhere:
  `attention_eps`.
- There is no dropout; every published configuration has it at zero.

Names of the parts, in both halves and in the order in which they run: `levels.<i>.block_<j>`, `.attention_<j>`, then
`.downsample` or `.upsample`; level 0 is the first one run, the lowest of the decoder. The middle is `mid.block_0`,
`mid.attention_0`, `mid.block_1`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from vistok.networks.blocks import Block, GroupNorm, ImageEncoder

NUM_GROUPS = 32
EPS = 1e-6


def group_norm(channels: int, eps: float = EPS) -> nn.GroupNorm:
    """Return the normalisation that all networks of the VQGAN family use: 32 groups, eps 1e-6."""
    return GroupNorm(NUM_GROUPS, channels, eps=eps)


class ResidualBlock(Block):
    """x + conv3x3(swish(norm(conv3x3(swish(norm(x)))))), with a 1x1 convolution on x where the channels change."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = group_norm(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = group_norm(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def compute(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.residual(x)

    def residual(self, x: Tensor) -> Tensor:
        """Return the part that is added to the shortcut."""
        x = self.conv1(F.silu(self.norm1(x)))
        return self.conv2(F.silu(self.norm2(x)))


class Attention(Block):
    """x + proj_out(attention(norm(x))): single-head self-attention over all positions."""

    def __init__(self, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.norm = group_norm(channels, eps)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def compute(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (conv(normed).flatten(2).mT.unsqueeze(1) for conv in (self.q, self.k, self.v))  # [B, 1, H*W, C]
        attended = F.scaled_dot_product_attention(q, k, v)  # [B, 1, H*W, C]
        return x + self.proj_out(attended.squeeze(1).mT.reshape(x.shape))  # [B, C, H, W]


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2, padded on the right and at the bottom."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # [B, C, H/2, W/2]


class Upsample(nn.Module):
    """Nearest-neighbour upsampling, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # [B, C, 2H, 2W]


def residual_blocks(
    in_channels: int,
    out_channels: int,
    num_blocks: int,
    block: Callable[[int, int], nn.Module] = ResidualBlock,
    attention: Callable[[int], nn.Module] | None = None,
) -> OrderedDict[str, nn.Module]:
    """Return residual blocks by name; the first one changes the channels, attention follows each where something makes it."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(num_blocks):
        parts[f"block_{i}"] = block(in_channels if i == 0 else out_channels, out_channels)
        if attention:
            parts[f"attention_{i}"] = attention(out_channels)
    return parts


def levels_of_blocks(
    in_channels: int,
    widths: Sequence[int],
    num_blocks: int,
    resampling: tuple[str, Callable[[int], nn.Module]],
    *,
    block: Callable[[int, int], nn.Module] = ResidualBlock,
    attention_at: int | None = None,
    attention: Callable[[int], nn.Module] = Attention,
) -> nn.Sequential:
    """Return levels of residual blocks, one a width; all but the last end in a layer that changes the resolution.

    Args:
        in_channels: of the first level's input.
        widths: channels of each level, in the order in which they run.
        num_blocks: residual blocks a level.
        resampling: name of the layer that changes the resolution, and what makes it for so many channels.
        block: makes a residual block for its input's and its output's channels.
        attention_at: number of the level with attention after each block; None: no level has it.
        attention: makes it for so many channels.
    """
    levels = []
    for number, channels in enumerate(widths):
        parts = residual_blocks(in_channels, channels, num_blocks, block, attention if number == attention_at else None)
        if number < len(widths) - 1:
            parts[resampling[0]] = resampling[1](channels)
        levels.append(nn.Sequential(parts))
        in_channels = channels
    return nn.Sequential(*levels)


def _middle(channels: int, attention: Callable[[int], nn.Module]) -> nn.Sequential:
    parts = residual_blocks(channels, channels, 1, attention=attention)
    parts["block_1"] = ResidualBlock(channels, channels)
    return nn.Sequential(parts)


class _Shape(NamedTuple):
    """What both halves are built by; see `build`."""

    codebook_dim: int
    hidden_dim: int
    num_res_blocks: int
    ch_mult: tuple[int, ...]
    z_channels: int
    code_kernel: int
    attention_eps: float

    @property
    def widths(self) -> list[int]:
        """Channels of each level, from the full resolution down."""
        return [self.hidden_dim * factor for factor in self.ch_mult]

    def attention(self, channels: int) -> Attention:
        return Attention(channels, self.attention_eps)

    def code_conv(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        """Return a convolution into or out of the code dimension."""
        return nn.Conv2d(in_channels, out_channels, self.code_kernel, padding=self.code_kernel // 2)


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] to continuous codes z [B, D, H/f, W/f], f = 2^(levels - 1)."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        widths, attention = shape.widths, shape.attention
        self.downsample_factor = 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(3, shape.hidden_dim, 3, padding=1)
        options = {"attention_at": len(widths) - 1, "attention": attention}
        self.levels = levels_of_blocks(  # [B, C, H/f, W/f]
            shape.hidden_dim, widths, shape.num_res_blocks, ("downsample", Downsample), **options
        )
        self.mid = _middle(widths[-1], attention)
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], shape.z_channels, 3, padding=1)
        self.to_codes = shape.code_conv(shape.z_channels, shape.codebook_dim)  # [B, D, H/f, W/f]

    def forward(self, images: Tensor) -> Tensor:
        x = self.mid(self.levels(self.conv_in(images)))
        return self.to_codes(self.conv_out(F.silu(self.norm_out(x))))


class Decoder(nn.Module):
    """Codes [B, D, h, w] to images [B, 3, f*h, f*w], about [-1, 1]; one residual block a level more than the encoder."""

    def __init__(self, shape: _Shape) -> None:
        super().__init__()
        widths, attention = shape.widths[::-1], shape.attention
        self.from_codes = shape.code_conv(shape.codebook_dim, shape.z_channels)
        self.conv_in = nn.Conv2d(shape.z_channels, widths[0], 3, padding=1)
        self.mid = _middle(widths[0], attention)
        options = {"attention_at": 0, "attention": attention}
        self.levels = levels_of_blocks(  # [B, C, f*h, f*w]
            widths[0], widths, shape.num_res_blocks + 1, ("upsample", Upsample), **options
        )
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, where the adaptive adversarial weight compares gradients."""
        return self.conv_out.weight

    def forward(self, codes: Tensor) -> Tensor:
        x = self.levels(self.mid(self.conv_in(self.from_codes(codes))))
        return self.conv_out(F.silu(self.norm_out(x)))


def check_widths(hidden_dim: int, num_res_blocks: int, ch_mult: Sequence[int]) -> None:
    """Raise ValueError where a network of this family cannot be built of these widths; names the value and the nearest."""
    if hidden_dim < NUM_GROUPS or hidden_dim % NUM_GROUPS:
        valid = max(NUM_GROUPS, round(hidden_dim / NUM_GROUPS) * NUM_GROUPS)
        raise ValueError(
            f"hidden_dim is {hidden_dim}, but group normalisation needs a multiple of {NUM_GROUPS}: take {valid}."
        )
    if num_res_blocks < 1:
        raise ValueError(f"num_res_blocks is {num_res_blocks}, but must be at least 1.")
    if not ch_mult or min(ch_mult) < 1:
        raise ValueError(
            f"ch_mult is {list(ch_mult)}, but needs one factor of at least 1 a level; [1, 1, 2, 2, 4] is usual."
        )


def build(
    codebook_dim: int,
    hidden_dim: int = 128,
    num_res_blocks: int = 2,
    ch_mult: Sequence[int] = (1, 1, 2, 2, 4),
    z_channels: int = 256,
    code_kernel: int = 1,
    attention_eps: float = EPS,
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes.
        hidden_dim: channels at the full resolution, `ch` of the original; a multiple of 32.
        num_res_blocks: residual blocks a level of the encoder; the decoder has one more.
        ch_mult: channels of each level over `hidden_dim`, from the full resolution down; one level more than halvings.
        z_channels: channels between the 3x3 convolutions and the 1x1 convolutions into and out of the code dimension.
        code_kernel: height and width of these, an odd number.
        attention_eps: added to the variance in the normalisation before attention, above 0.

    Raises:
        ValueError: a width, or another number, is out of range.
    """
    check_widths(hidden_dim, num_res_blocks, ch_mult)
    if z_channels < 1:
        raise ValueError(f"z_channels is {z_channels}, but must be at least 1; 256 is usual.")
    if code_kernel < 1 or code_kernel % 2 == 0:
        valid = max(1, code_kernel + 1)
        raise ValueError(f"code_kernel is {code_kernel}, but must be odd and at least 1: take {valid}.")
    if not 0 < attention_eps < math.inf:
        raise ValueError(f"attention_eps is {attention_eps}, but must be above 0; {EPS:g} is usual.")
    shape = _Shape(codebook_dim, hidden_dim, num_res_blocks, tuple(ch_mult), z_channels, code_kernel, attention_eps)
    return Encoder(shape), Decoder(shape)
