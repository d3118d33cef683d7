"""The contract of every quantizer: z in, straight-through codes, indices and unweighted losses out.

A model never branches on its quantizer. Quantizers work in float32 whatever autocast is on outside and whatever precision the
networks around them are put into, change state only inside `forward` and only while training, and compute no metrics.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from vistok.quantizers.levels import as_indices
from vistok.system.devices import eval_view

MOST_BITS = 30  # a codebook has at most 2**30 codes


@dataclasses.dataclass
class Quantized:
    """What a quantizer returns.

    Attributes:
        codes: float32 [B, D, h, w], the codes with the straight-through gradient.
        levels: int64 [B, h_l, w_l] of each level or group, a tuple also where there is one; empty without a codebook.
        losses: name to unweighted scalar.
    """

    codes: Tensor
    levels: tuple[Tensor, ...]
    losses: dict[str, Tensor]

    @property
    def indices(self) -> Tensor | tuple[Tensor, ...]:
        """The one tensor where there is one level, else all of them."""
        return as_indices(self.levels)


class Quantizer(nn.Module, abc.ABC):
    """Base of all quantizers.

    Attributes:
        codebook_sizes: (K,), or one K for each level or group; empty where there is no codebook.
        codebook_dim: D, channels of z.
        loss_names: keys of `Quantized.losses`, so that a weight without a loss can be refused before training.
        of_batch: what is not a mean over tokens, so that of a batch in several parts it is another: losses by their names, and
            what else `forward` does while training, in words.
        unstarted: whether the codes wait for a first batch that they start from.
        first_part, last_part: whether what comes next begins, or ends, the batch of a training step. What is counted in
            steps is counted once a step, whatever the parts.
    """

    loss_names: tuple[str, ...] = ()
    of_batch: tuple[str, ...] = ()
    unstarted = False
    first_part = last_part = True

    def __init__(self, codebook_sizes: tuple[int, ...], codebook_dim: int) -> None:
        super().__init__()
        for size in codebook_sizes:
            if size < 1:
                raise ValueError(f"codebook_size is {size}, but must be at least 1.")
            if size > 2**MOST_BITS:
                raise ValueError(
                    f"codebook_size is {size}, {math.log2(size):.4g} bits a token, but must be at most {2**MOST_BITS}, "
                    f"{MOST_BITS} bits: codes are counted one by one. More bits are for several codebooks: residual, grouped."
                )
        if codebook_dim < 1:
            raise ValueError(f"codebook_dim is {codebook_dim}, but must be at least 1.")
        self.codebook_sizes = codebook_sizes
        self.codebook_dim = codebook_dim

    def set_part(self, first: bool, last: bool) -> None:
        """Tell it and the quantizers inside whether the part that comes next is the first, or the last, of a step's batch."""
        for module in self.modules():
            if isinstance(module, Quantizer):
                module.first_part, module.last_part = first, last

    @property
    def codebook_size(self) -> int:
        """K, where there is one codebook; raises ValueError where there are several, or none."""
        self.check_codebook()
        if len(self.codebook_sizes) != 1:
            raise ValueError(f"This quantizer has {len(self.codebook_sizes)} codebooks; see codebook_sizes.")
        return self.codebook_sizes[0]

    def check_codebook(self) -> None:
        """Raise ValueError where there is no codebook, and so nothing that an index could be of."""
        if not self.codebook_sizes:
            raise ValueError(
                f"{type(self).__name__} has no codebook, and so there are no tokens: its codes are vectors, in "
                "`tokenizer(images).codes`, and `decode_codes` makes images of them."
            )

    def forward(self, z: Tensor) -> Quantized:
        """Quantize z, float [B, D, h, w], an encoder's output; raises ValueError where it has not D channels."""
        if z.ndim != 4 or z.shape[1] != self.codebook_dim:
            raise ValueError(f"z has shape {tuple(z.shape)}, but must be [B, {self.codebook_dim}, h, w].")
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            if self.training:
                self.renew(z)
            return self.quantize(z)

    @abc.abstractmethod
    def quantize(self, z: Tensor) -> Quantized:
        """Quantize z, float32 [B, D, h, w], outside of autocast; what a quantizer is."""

    def renew(self, z: Tensor) -> bool:
        """Start or revive codes from z, float32 [B, D, h, w], before a search while training; return whether any changed."""
        return False

    @torch.no_grad()
    def choose(self, z: Tensor) -> Tensor:
        """Return the indices, int64 [B, h, w], for `quantize_as`; changes no state, in training neither."""
        self.check_codebook()
        return eval_view(self).quantize(z).levels[0]

    def quantize_as(self, z: Tensor, indices: Tensor) -> Quantized:
        """Quantize z with the codes that `choose` has chosen for it: where nothing is drawn, those that `quantize` finds."""
        return self.quantize(z)

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """Return the codes, float32 [B, D, h, w], of indices, int64 [B, h, w] in [0, K), an argument for each level."""
        return F.embedding(indices, self.codebook).permute(0, 3, 1, 2)

    def codes_after_each(self, *levels: Tensor) -> list[Tensor]:
        """Return the codes, float32 [B, D, h, w], after each level of those that add up, of indices as of `indices_to_codes`.

        The last are those of all levels; where nothing adds up there are these alone.
        """
        return [self.indices_to_codes(*levels)]

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the height and width of each level's grid for a z of that height and width."""
        return [(height, width)] * len(self.codebook_sizes)

    @property
    @abc.abstractmethod
    def codebook(self) -> Tensor:
        """float32 [K, D]: the codes as the decoder sees them."""

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        """The codebook, float32 [K, D], of each level or group."""
        return (self.codebook,)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to a device, but never out of float32: codes and moving sums in bfloat16 would stand still or jump."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            wrong = tensor.is_floating_point() and moved.dtype != torch.float32
            return tensor.to(moved.device, torch.float32) if wrong else moved

        return super()._apply(move, recurse)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, codes: Tensor) -> Tensor:
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(z: Tensor, codes: Tensor) -> Tensor:
    """Return exactly `codes`, with the gradient of the identity with respect to z (VQ-VAE, section 3.2).

    The usual z + (codes - z).detach() rounds, and takes two passes over memory.
    """
    return _StraightThrough.apply(z, codes.detach())


class _LookUp(torch.autograd.Function):
    """Codes and both losses from one difference: where K is small, passes over memory cost as much as the search.

    Once differentiable, since a second derivative through the saved difference would be silently wrong.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor, codebook: Tensor, indices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes = to_grid(F.embedding(indices, codebook), like=z)
        difference = codes - z  # [B, D, h, w], laid out as codes are, token by token
        ctx.save_for_backward(difference, indices)
        ctx.codebook_size = len(codebook)
        error = torch.linalg.vector_norm(difference).square() / z.numel()
        return codes, error, error.clone()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: FunctionCtx, of_codes: Tensor, of_codebook: Tensor, of_commitment: Tensor
    ) -> tuple[Tensor, Tensor | None, None]:
        difference, indices = ctx.saved_tensors
        scale = 2 / difference.numel()
        to_z = torch.addcmul(of_codes, difference, of_commitment, value=-scale)
        if not ctx.needs_input_grad[1]:
            return to_z, None, None
        rows = to_tokens(difference)  # [B*h*w, D]
        sums = rows.new_zeros(ctx.codebook_size, rows.shape[1]).index_add_(0, indices, rows)
        return to_z, sums.mul_(scale * of_codebook), None


def look_up(z: Tensor, codebook: Tensor, indices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the codes of indices with the gradient of the identity, and the losses that pull codes and z together.

    Args:
        z: float32 [B, D, h, w].
        codebook: float32 [K, D].
        indices: int64 [B*h*w], a code for each vector of z.

    Returns:
        codes: float32 [B, D, h, w], exactly those of the codebook, straight-through (VQ-VAE, section 3.2).
        losses: "codebook", mean of (sg[z] - e)^2, and "commitment", mean of (z - sg[e])^2 (VQ-VAE, equation 3).
    """
    codes, of_codebook, commitment = _LookUp.apply(z, codebook, indices)
    return codes, {"codebook": of_codebook, "commitment": commitment}


def to_tokens(z: Tensor) -> Tensor:
    """Return z [B, D, h, w] as one row a token, [B*h*w, D], contiguous."""
    return z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])


def to_grid(tokens: Tensor, like: Tensor) -> Tensor:
    """Return tokens [B*h*w, D] as [B, D, h, w] with the batch and grid of `like` [B, *, h, w]."""
    batch, _, height, width = like.shape
    return tokens.view(batch, height, width, tokens.shape[1]).permute(0, 3, 1, 2)
