"""Shared by the networks: where tokens lie, activations that need not be kept, and group normalisation."""

import abc
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ImageEncoder(nn.Module):
    """Base of all encoders: images [B, 3, H, W] to z [B, D, h, w]; says where tokens lie, and what can be done with them.

    Attributes:
        downsample_factor: f, pixels; the height and the width of images are multiples of it.
        is_sequence: whether z is [B, D, 1, N], tokens without a place in the image; else each is of f x f pixels.
        decodes_parts: whether the decoder takes grids of any size, so that a part alone looks about as within the whole.
        prefixes: which beginnings of a sequence training decodes; None: whole ones.
    """

    downsample_factor: int
    is_sequence = False
    decodes_parts = True
    prefixes: str | None = None

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of z for images of that height and width, in pixels, multiples of f.

        Raises:
            ValueError: images of this size cannot be encoded, though they divide into tokens.
        """
        return height // self.downsample_factor, width // self.downsample_factor

    def draw_num_tokens(self) -> int | None:
        """Return how many tokens of a sequence a step of training decodes, drawn with torch's generator; None: all."""
        return None


class Block(nn.Module, abc.ABC):
    """A part of a network that can forget what it computed and compute it again in the backward pass.

    Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): the memory of a network's activations becomes that of its
    blocks' inputs, for one more forward pass. It changes no result.
    """

    recompute = False

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.recompute and self.training:
            return checkpoint(self.compute, *inputs, use_reentrant=False)
        return self.compute(*inputs)

    @abc.abstractmethod
    def compute(self, *inputs: Tensor) -> Tensor:
        """Compute the output, keeping what the backward pass needs."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation that computes in float32 at half precision too, and under autocast on every device as CUDA's does.

    On a CPU its backward pass in bfloat16 takes three times as long, a third of a whole training step.
    """

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        weight, bias = (self.weight.to(wide), self.bias.to(wide)) if self.affine else (None, None)
        return F.group_norm(x.to(wide), self.num_groups, weight, bias, self.eps).to(x.dtype)


def recomputing_blocks(network: nn.Module) -> list[Block]:
    """Return the blocks of a network that can recompute their activations; simple_cnn has none."""
    return [module for module in network.modules() if isinstance(module, Block)]


def recompute_activations(network: nn.Module, recompute: bool = True) -> None:
    """Let all blocks of a network keep their inputs only, and recompute the rest in the backward pass.

    Raises:
        ValueError: the network has no blocks that can.
    """
    blocks = recomputing_blocks(network)
    if recompute and not blocks:
        raise ValueError(
            "This network has no blocks whose activations could be recomputed: leave checkpoint_activations out."
        )
    for block in blocks:
        block.recompute = recompute


def initialise(network: nn.Module, draw: Callable[[str, Tensor], object]) -> None:
    """Draw the first weights of linear layers and convolutions in place, by `draw(name, weight)`; their biases become 0."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            draw(name, module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_sizes(sizes: Mapping[str, int], multiples: Mapping[str, str]) -> None:
    """Raise ValueError where a size is not positive, or not a multiple of another one; the sentence names the nearest that is.

    Args:
        sizes: by their names, the first ones checked first.
        multiples: name of a size to the name of that which it must be a multiple of.
    """
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} is {value}, but must be at least 1.")
    for name, unit_name in multiples.items():
        value, unit = sizes[name], sizes[unit_name]
        if value < unit or value % unit:
            valid = max(unit, round(value / unit) * unit)
            raise ValueError(
                f"{name} is {value}, but must be a multiple of {unit_name} {unit}: the nearest is {valid}."
            )
