"""Shared by the blocks of the large networks: activations that need not be kept, and group normalisation."""

import abc

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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
