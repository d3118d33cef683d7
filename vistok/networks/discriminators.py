"""Discriminators by name: PatchGAN and MaskBit's, which judge patches, and StyleGAN2's, which judges the whole image.

Sources and deviations:

- PatchGAN: pix2pix (Isola et al. 2017, arXiv:1611.07004, section 3.2.2 and appendix 6.1.2), in the form of
  taming-transformers' `NLayerDiscriminator`: 64 channels, 3 strided layers, batch norm (with the 70x70 receptive field of
  pix2pix). Parameter names are taming's, so that its weights load unchanged. Convolutions start at N(0, 0.02) and norm
  weights at N(1, 0.02), as in pix2pix, taming and LlamaGen; `init="default"` keeps PyTorch's initialisation, which the code
  behind the published VQGAN rows has. Deviation: the norm is an option, since batch statistics make the logit of one
  image depend on its neighbours: R1 is then not a gradient per image, and several processes are not one large batch.
- StyleGAN2: Karras et al. 2020, arXiv:1912.04958, figure 7 and appendix B (residual discriminator, configuration F's
  channels), with equalised learning rate and minibatch standard deviation from Progressive GAN (arXiv:1710.10196, sections
  3 and 4.1). Deviations: blur and stride are plain convolutions, not a compiled kernel; a batch that 4 does not divide
  computes its standard deviations over groups of the largest divisor below 4; `channel_multiplier` scales all widths. The
  discriminator of enhancing-transformers (an open ViT-VQGAN) is a lighter relative of it: no minibatch standard
  deviation, and no blur in the skip connection.
- MaskBit (Weber et al. 2024, arXiv:2409.16211), as `NLayerDiscriminatorv2` of its code, and in 1d-tokenizer and
  visual-tokenizer-pytorch: a blur of stride 2 after each convolution, group norm, 16x16 logits of any image. Names of weights
  are theirs. MaskBit has 4 stages, the other two 3. Deviations: it is given images in [-1, 1], as in
  visual-tokenizer-pytorch, not in [0, 1]; average pooling in place of the blur, other blurs and SiLU are left out, as no
  published configuration has them; of widths that 32 does not divide there are fewer groups.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.system.values import call_with_options
from vistok.system.words import nearest

LEAK = 0.2  # slope of every leaky ReLU here but MaskBit's
MASKBIT_LEAK = 0.1
INIT_STD = 0.02  # standard deviation of pix2pix's first weights


class PatchGAN(nn.Module):
    """Images [B, 3, H, W] to one logit for each of many overlapping patches, [B, 1, h, w].

    Attributes:
        of_batch: what makes an image's logits depend on the others, in words.
    """

    norms: ClassVar[tuple[str, ...]] = ("batch", "group", "none")
    inits: ClassVar[tuple[str, ...]] = ("normal", "default")

    def __init__(
        self,
        image_size: int = 256,
        hidden_dim: int = 64,
        num_layers: int = 3,
        norm: str = "batch",
        init: str = "normal",
    ) -> None:
        """Make the discriminator.

        Args:
            image_size: pixels, the smallest height or width it will judge; at least 3 * 2^num_layers.
            hidden_dim: channels after the first convolution; they double with each layer, up to eight times as many.
            num_layers: convolutions of stride 2, at least 1; 3 give patches of 70x70 pixels.
            norm: "batch", "group" (32 groups where they divide the channels) or "none".
            init: "normal", convolutions from N(0, 0.02) and norm weights from N(1, 0.02), or "default", PyTorch's own.

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__()
        for name, value, choices in (("norm", norm, self.norms), ("init", init, self.inits)):
            if value not in choices:
                raise ValueError(f"{name} is {value!r}; {nearest(value, choices)}")
        for name, value in (("hidden_dim", hidden_dim), ("num_layers", num_layers)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        smallest = 3 * 2**num_layers  # pixels: the last two convolutions take one row each off what is left
        if image_size < smallest:
            raise ValueError(
                f"image_size is {image_size}, but a patchgan of {num_layers} layers needs {smallest} or more: "
                "take fewer num_layers."
            )
        widths = [hidden_dim * min(2**layer, 8) for layer in range(num_layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        for layer in range(1, num_layers + 1):
            stride = 2 if layer < num_layers else 1
            layers += [
                nn.Conv2d(widths[layer - 1], widths[layer], 4, stride=stride, padding=1, bias=norm == "none"),
                _norm_layer(norm, widths[layer]),
                nn.LeakyReLU(LEAK),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.main = nn.Sequential(*layers)
        self.of_batch = ("batch norm",) if norm == "batch" else ()
        if init == "normal":
            self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of patches, positive where they look real.

        Args:
            images: float [B, 3, H, W], about [-1, 1], H and W at least `image_size`.
        """
        return self.main(images)  # [B, 1, H/2^n - 2, W/2^n - 2] for n = num_layers

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, INIT_STD)
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.normal_(module.weight, 1.0, INIT_STD)


def _norm_layer(norm: str, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return nn.Identity()  # holds the place: names of parameters are the same with any norm


def scaled_leaky_relu(x: Tensor) -> Tensor:
    """Return sqrt(2) x leaky ReLU, which keeps the variance of a normal input about the same (arXiv:1912.04958)."""
    return F.leaky_relu(x, LEAK) * math.sqrt(2)


class Blur(nn.Module):
    """Low-pass filter [1, 3, 3, 1] / 8 along both sides, each channel for itself (arXiv:1912.04958, appendix B).

    It comes before every stride of 2, so that no pattern finer than the result is folded into it.
    """

    def __init__(self, padding: int, stride: int = 1) -> None:
        super().__init__()
        self.padding = padding
        self.stride = stride
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8  # products are exact in bfloat16 too
        self.register_buffer("kernel", torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.expand(channels, 1, 4, 4)
        return F.conv2d(x, kernel, stride=self.stride, padding=self.padding, groups=channels)


def minibatch_std(x: Tensor, group_size: int = 4) -> Tensor:
    """Return x with one more channel: how much the images of a group differ (arXiv:1710.10196, section 3).

    Args:
        x: float [B, C, H, W]; image n belongs to group n mod B/G.
        group_size: images a group at most; G is the largest divisor of B that is no larger.

    Returns:
        float [B, C + 1, H, W]; the new channel is constant within an image.
    """
    batch, _, height, width = x.shape
    size = max(divisor for divisor in range(1, min(group_size, batch) + 1) if batch % divisor == 0)  # G
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # squares of bfloat16 lose too much
    groups = wide.reshape(size, batch // size, -1)  # [G, B/G, C*H*W]
    deviation = (groups.var(0, correction=0) + 1e-8).sqrt().mean(1)  # [B/G]
    channel = deviation.repeat(size).view(batch, 1, 1, 1).expand(-1, -1, height, width)
    return torch.cat([x, channel.to(x.dtype)], dim=1)


class EqualizedConv2d(nn.Module):
    """A convolution whose weights are N(0, 1) and scaled by 1/sqrt(fan in) when used (arXiv:1710.10196, section 4.1).

    Adam's step is the same for every weight; the scale makes it the same relative to every weight's range.
    """

    def __init__(
        self, in_dim: int, out_dim: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_dim)) if bias else None
        self.scale = 1 / math.sqrt(in_dim * kernel_size**2)
        self.stride = stride
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualizedLinear(nn.Module):
    """A linear layer under the same rule as `EqualizedConv2d`."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim))
        self.bias = nn.Parameter(torch.zeros(out_dim))
        self.scale = 1 / math.sqrt(in_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias)


class DownBlock(nn.Module):
    """Half the size: (two 3x3 convolutions + blurred 1x1 skip) / sqrt(2) (arXiv:1912.04958, figure 7c)."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv2d(in_dim, in_dim, 3, padding=1)
        self.blur = Blur(padding=2)
        self.conv2 = EqualizedConv2d(in_dim, out_dim, 3, stride=2)
        self.skip = nn.Sequential(Blur(padding=1, stride=2), EqualizedConv2d(in_dim, out_dim, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:  # [B, C, H, W]
        skip = self.skip(x)  # [B, C', H/2, W/2]
        x = scaled_leaky_relu(self.conv1(x))
        x = scaled_leaky_relu(self.conv2(self.blur(x)))  # the blur gives H + 1, the convolution H/2
        return (x + skip) / math.sqrt(2)


class StyleGAN2Discriminator(nn.Module):
    """Images [B, 3, image_size, image_size] to one logit each, [B, 1].

    Attributes:
        of_batch: what makes an image's logit depend on the others, in words.
    """

    of_batch = ("the minibatch standard deviation",)

    def __init__(self, image_size: int = 256, channel_multiplier: float = 1.0) -> None:
        """Make the discriminator.

        Args:
            image_size: pixels, height and width; a power of two, at least 8.
            channel_multiplier: of the widths, which are min(512, 32768 / size) at each size (1: configuration F).

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            valid = max(8, 2 ** round(math.log2(max(image_size, 1))))
            raise ValueError(f"image_size is {image_size}, but stylegan2 halves it down to 4: the nearest is {valid}.")
        if channel_multiplier <= 0:
            raise ValueError(f"channel_multiplier is {channel_multiplier}, but must be above 0; 1.0 is the paper's.")
        self.image_size = image_size
        sizes = [image_size >> level for level in range(int(math.log2(image_size)) - 1)]  # image_size, ..., 8, 4
        widths = [max(1, round(min(512, 32768 // size) * channel_multiplier)) for size in sizes]
        self.from_rgb = EqualizedConv2d(3, widths[0], 1)
        self.blocks = nn.Sequential(*[DownBlock(*pair) for pair in zip(widths, widths[1:], strict=False)])
        self.conv = EqualizedConv2d(widths[-1] + 1, widths[-1], 3, padding=1)
        self.linear = EqualizedLinear(widths[-1] * 4 * 4, widths[-1])
        self.to_logit = EqualizedLinear(widths[-1], 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return one logit an image, positive where it looks real.

        Args:
            images: float [B, 3, image_size, image_size], about [-1, 1].

        Raises:
            ValueError: the images have another size.
        """
        if images.shape[2:] != (self.image_size, self.image_size):
            height, width = images.shape[2:]
            raise ValueError(
                f"This stylegan2 discriminator judges images of {self.image_size}x{self.image_size} pixels, "
                f"not {height}x{width}: build it with image_size={height}."
            )
        x = scaled_leaky_relu(self.from_rgb(images))  # [B, C, image_size, image_size]
        x = minibatch_std(self.blocks(x))  # [B, C + 1, 4, 4]
        x = scaled_leaky_relu(self.conv(x)).flatten(1)  # [B, 16C]
        return self.to_logit(scaled_leaky_relu(self.linear(x)))  # [B, 1]


def halve(in_dim: int, out_dim: int) -> nn.Sequential:
    """Return a stage of MaskBit's discriminator, [B, C, H, W] to [B, C', H/2, W/2], odd sides rounded up."""
    return nn.Sequential(
        nn.Conv2d(in_dim, out_dim, 3, padding=1),
        SameBlur(padding=1, stride=2),
        nn.GroupNorm(math.gcd(32, out_dim), out_dim),
        nn.LeakyReLU(MASKBIT_LEAK),
    )


class SameBlur(Blur):
    """A blur of stride 2 that pads as TensorFlow's SAME does: of an odd side the last row is the one that has more to pad."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x)


class MaskBitDiscriminator(nn.Module):
    """Images [B, 3, H, W] to logits of 16x16 patches, [B, 1, 16, 16].

    Attributes:
        of_batch: what makes an image's logits depend on the others, in words.
    """

    of_batch: tuple[str, ...] = ()

    def __init__(self, hidden_dim: int = 128, num_stages: int = 4) -> None:
        """Make the discriminator.

        Args:
            hidden_dim: channels of the first two convolutions; they double with each stage after the first.
            num_stages: blurs of stride 2, at least 1; images of 2^num_stages x 16 pixels have 16x16 patches as they come, of
                others the maximum is taken, or patches are repeated.

        Raises:
            ValueError: an option is out of range.
        """
        super().__init__()
        for name, value in (("hidden_dim", hidden_dim), ("num_stages", num_stages)):
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        widths = [hidden_dim] + [hidden_dim * 2**stage for stage in range(num_stages)]
        self.block_in = nn.Sequential(nn.Conv2d(3, hidden_dim, 5, padding=2), nn.LeakyReLU(MASKBIT_LEAK))
        self.blocks = nn.Sequential(*[halve(*pair) for pair in zip(widths, widths[1:], strict=False)])
        self.to_logits = nn.Sequential(
            nn.Conv2d(widths[-1], widths[-1], 1), nn.LeakyReLU(MASKBIT_LEAK), nn.Conv2d(widths[-1], 1, 5, padding=2)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of patches, positive where they look real.

        Args:
            images: float [B, 3, H, W], about [-1, 1].
        """
        x = self.blocks(self.block_in(images))  # [B, C, H/2^n, W/2^n]
        return self.to_logits(F.adaptive_max_pool2d(x, 16))  # [B, 1, 16, 16]


DISCRIMINATORS = {"patchgan": PatchGAN, "stylegan2": StyleGAN2Discriminator, "maskbit": MaskBitDiscriminator}


def build(name: str, *, image_size: int = 256, **options: object) -> nn.Module:
    """Return a new discriminator.

    Args:
        name: a key of `DISCRIMINATORS`.
        image_size: pixels, height and width, for one that depends on it.
        **options: arguments of that class.

    Raises:
        ValueError: the discriminator, or an option of it, is unknown; the sentence names the nearest known one.
    """
    if name not in DISCRIMINATORS:
        raise ValueError(f"There is no discriminator {name!r}; {nearest(name, DISCRIMINATORS)}")
    return call_with_options(f"discriminator {name!r}", DISCRIMINATORS[name], options, image_size=image_size)
