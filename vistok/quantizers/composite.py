"""Quantizers made of quantizers: residual levels, groups of channels, and residual levels of growing grids.

Sources: residual, SoundStream (Zeghidour et al. 2021, arXiv:2107.03312), section III-C, and RQ-VAE (Lee et al. 2022,
arXiv:2203.01941), section 3.1; grouped, product quantization (Jegou et al. 2011), and with a member on the unit sphere GSQ
(Wang et al. 2024, arXiv:2412.02632); multi-scale, VAR (Tian et al. 2024, arXiv:2404.02905), algorithms 1 and 2, as in its
code. No row of a table here has published numbers. To know:

- A level quantizes z - sg[sum of the levels before], so that its commitment is RQ-VAE's |z - sg[sum up to it]|^2, that of
  every level reaches z, and no level's codes learn from another's error. Losses are means over levels, RQ-VAE's are sums.
- Straight-through goes over the whole: the gradient of the codes is the mean of those through the levels on z's own grid.
  With members that are straight-through it is the identity, and IBQ's soft assignment is still heard.
- A shared codebook chooses the codes of all levels first, changing nothing, and then quantizes the tokens of all levels
  together, so that one that moves inside `forward` moves once, and its codes are those before. A member that draws its codes
  draws them once. Its losses are means over all these tokens, of levels with grids of one size the mean over levels. One that
  starts by k-means starts from what the levels would quantize with a k-means of their own each: z, what is left of it, ...
- Residual levels want codes that shrink with what is left. Members whose codes have a fixed size (fsq, lfq, bsq, l2_norm)
  refine z down to about that size and no further; in groups they are at home.
- SoundStream's quantizer dropout is left out: an index that no level chose is not in [0, K).
- Multi-scale: VAR compares the sum so far with z on the full grid, where here a member compares its codes with the residual
  on the level's own grid, as any member can. Only the convolutions phi learn as in VAR, from the sum so far; that term is
  part of "codebook". With `losses_of_sums` both losses are VAR's, for members whose codes learn by gradient. On a grid of
  another size than the last scale all scales grow or shrink in proportion.
"""

import abc
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, Quantizer, to_grid, to_tokens

VAR_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # those of VAR's tokenizer, for a grid of 16x16
_MOST_PHIS = 4  # VAR's levels share these


class Composite(Quantizer):
    """Base of the quantizers that are made of members, each with one codebook.

    Attributes:
        members: the quantizers inside; a shared one is there once.
        build_member: makes one of its name, its options, K and D; the registry, which knows the names, hands it over.
    """

    build_member: ClassVar[Callable[[str, dict[str, Any] | None, int, int], Quantizer]]

    def __init__(self, members: Sequence[Quantizer], codebook_sizes: tuple[int, ...], codebook_dim: int) -> None:
        super().__init__(codebook_sizes, codebook_dim)
        self.members = nn.ModuleList(members)
        self.loss_names, self.of_batch = members[0].loss_names, members[0].of_batch

    @property
    def codebook(self) -> Tensor:
        """float32 [K, D], where there is one codebook; raises ValueError where there are several."""
        if len(self.codebook_sizes) != 1:
            raise ValueError(
                f"This quantizer has {len(self.codebook_sizes)} codebooks: see the codebook of each of its members."
            )
        return self.members[0].codebook

    @property
    def codebooks(self) -> tuple[Tensor, ...]:
        members = self.members if len(self.members) > 1 else [self.members[0]] * len(self.codebook_sizes)
        return tuple(member.codebook for member in members)

    def indices_to_codes(self, *levels: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Return the codes, float32 [B, D, h, w], of indices.

        Args:
            *levels: int64 [B, h_l, w_l] in [0, K_l), each an argument; or `Quantized.indices`, one tuple of them.

        Raises:
            ValueError: they are of several batches, of other grids, or too few or too many.
        """
        return self.codes_after_each(*levels)[-1]

    def codes_after_each(self, *levels: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        levels = levels[0] if isinstance(levels[0], tuple) else levels
        shapes = [tuple(level.shape) for level in levels]
        expected = [(len(levels[-1]), *grid) for grid in self.grids(*shapes[-1][1:])]
        if shapes != expected:
            given, fitting = (", ".join(str(list(shape)) for shape in of) for of in (shapes, expected))
            raise ValueError(
                f"The levels of indices are {given}, but those whose last is {list(shapes[-1])} are {fitting}."
            )
        with torch.autocast(levels[-1].device.type, enabled=False):
            return self._joined(levels)

    @abc.abstractmethod
    def _joined(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        """Return what `codes_after_each` does, of levels whose shapes are right."""


def _mean_losses(parts: Sequence[Quantized]) -> dict[str, Tensor]:
    """The mean over parts of each loss."""
    return {name: torch.stack([part.losses[name] for part in parts]).mean() for name in parts[0].losses}


def _in_one_row(grids: Sequence[Tensor]) -> Tensor:
    """Return the tokens of some grids [B, D, h_l, w_l] as one grid [1, D, 1, all tokens]."""
    return torch.cat([to_tokens(grid) for grid in grids]).T[None, :, None]


class GroupedQuantizer(Composite):
    """The channels of z in groups, each with a codebook of its own: K^num_groups codes for the price of num_groups K."""

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        member: str = "vq",
        member_options: dict[str, Any] | None = None,
        num_groups: int = 2,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K of each group, at least 1.
            codebook_dim: D of all groups together; a member has D / num_groups.
            member: the quantizer of each group, a key of `QUANTIZERS`.
            member_options: its options, sizes aside; {"l2_norm": True} of "vq" gives GSQ.
            num_groups: a divisor of `codebook_dim`.

        Raises:
            ValueError: `num_groups` does not divide `codebook_dim`, or the member or an option of it is refused.
        """
        if num_groups < 1 or codebook_dim % num_groups:
            divisors = [d for d in range(1, max(1, codebook_dim) + 1) if codebook_dim % d == 0]
            valid = min(divisors, key=lambda divisor: abs(divisor - num_groups))
            raise ValueError(
                f"num_groups is {num_groups}, but must divide codebook_dim {codebook_dim}; the nearest that does: {valid}."
            )
        members = [
            self.build_member(member, member_options, codebook_size, codebook_dim // num_groups)
            for _ in range(num_groups)
        ]
        super().__init__(members, tuple(m.codebook_size for m in members), codebook_dim)

    def quantize(self, z: Tensor) -> Quantized:
        groups = z.chunk(len(self.members), dim=1)  # [B, D / G, h, w] each
        parts = [member(group) for member, group in zip(self.members, groups, strict=True)]
        codes = torch.cat([part.codes for part in parts], dim=1)  # [B, D, h, w]
        return Quantized(codes, tuple(part.levels[0] for part in parts), _mean_losses(parts))

    def _joined(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        return [torch.cat([m.indices_to_codes(level) for m, level in zip(self.members, levels, strict=True)], dim=1)]


class _Levels(Composite):
    """Base of the quantizers whose levels each quantize what the levels before have left of z."""

    def __init__(
        self,
        num_levels: int,
        codebook_size: int,
        codebook_dim: int,
        member: str,
        member_options: dict[str, Any] | None,
        shared: bool,
    ) -> None:
        num_members = 1 if shared else num_levels
        members = [self.build_member(member, member_options, codebook_size, codebook_dim) for _ in range(num_members)]
        super().__init__(members, (members[0].codebook_size,) * num_levels, codebook_dim)
        self.shared = shared

    @abc.abstractmethod
    def _down(self, residual: Tensor, level: int) -> Tensor:
        """Return what a level quantizes, [B, D, h_l, w_l], of a residual, [B, D, h, w]."""

    @abc.abstractmethod
    def _up(self, codes: Tensor, level: int, grid: tuple[int, ...]) -> Tensor:
        """Return what the codes of a level, [B, D, h_l, w_l], add to the sum, [B, D, h, w] with `grid` = (h, w)."""

    def quantize(self, z: Tensor) -> Quantized:
        together = self.shared and len(self.codebook_sizes) > 1
        levels, losses = self._quantize_together(z) if together else self._quantize_in_turn(z)
        sums = self._sums([level.codes.detach() for level in levels])
        through = [level.codes - level.codes.detach() for level in levels if level.codes.shape == z.shape]  # all zero
        codes = sums[-1].detach() + torch.stack(through).mean(0)
        indices = tuple(level.levels[0] for level in levels)
        return Quantized(codes, indices, self._with_own_losses(losses, indices, sums, z))

    def _with_own_losses(
        self, losses: dict[str, Tensor], indices: tuple[Tensor, ...], sums: list[Tensor], z: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses of the members with what a class adds to them, of each level's indices and the sum up to it."""
        return losses

    def _quantize_in_turn(self, z: Tensor) -> tuple[list[Quantized], dict[str, Tensor]]:
        """Quantize each level with a codebook of its own."""
        residual, levels = z, []
        for level, member in enumerate(self.members):
            levels.append(member(self._down(residual, level)))
            residual = residual - self._up(levels[-1].codes, level, z.shape[2:]).detach()
        return levels, _mean_losses(levels)

    def _quantize_together(self, z: Tensor) -> tuple[list[Quantized], dict[str, Tensor]]:
        """Quantize the tokens of all levels at once with the shared codebook."""
        member = self.members[0]
        if self.training and member.unstarted:
            member.renew(_in_one_row(self._residuals(z, member.fitted)))
        inputs, indices = self._chosen(z)
        if self.training and member.renew(_in_one_row(inputs)):
            inputs, indices = self._chosen(z)
        chosen = torch.cat([level.flatten() for level in indices])
        together = member.quantize_as(_in_one_row(inputs), chosen[None, None])
        codes = to_tokens(together.codes).split([level.numel() for level in indices])
        levels = [Quantized(to_grid(c, like=part), (i,), {}) for c, i, part in zip(codes, indices, inputs, strict=True)]
        return levels, together.losses

    def _chosen(self, z: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what each level quantizes, with a gradient to z, and the indices that it chooses; changes no state."""
        member, indices = self.members[0], []

        def codes_of(part: Tensor) -> Tensor:
            indices.append(member.choose(part))
            return member.indices_to_codes(indices[-1])

        inputs = self._residuals(z, codes_of)
        return inputs, [*indices, member.choose(inputs[-1])]

    def _residuals(self, z: Tensor, codes_of: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Return what each level quantizes, [B, D, h_l, w_l] with a gradient to z, where `codes_of` gives its codes."""
        residual, inputs = z, [self._down(z, 0)]
        for level in range(len(self.codebook_sizes) - 1):
            residual = residual - self._up(codes_of(inputs[level]), level, z.shape[2:]).detach()
            inputs.append(self._down(residual, level + 1))
        return inputs

    def _sums(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Return for each level the sum of it and those before, [B, D, h, w], of the codes of all levels."""
        grid = codes[-1].shape[2:]
        return list(itertools.accumulate(self._up(part, level, grid) for level, part in enumerate(codes)))

    def _joined(self, levels: tuple[Tensor, ...]) -> list[Tensor]:
        members = [self.members[0]] * len(self.codebook_sizes) if self.shared else self.members
        return self._sums([m.indices_to_codes(level) for m, level in zip(members, levels, strict=True)])


class ResidualQuantizer(_Levels):
    """Levels on one grid, each quantizing what the ones before have left."""

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        member: str = "vq",
        member_options: dict[str, Any] | None = None,
        num_levels: int = 4,
        shared: bool = False,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K of each level, at least 1.
            codebook_dim: D, at least 1.
            member: the quantizer of each level, a key of `QUANTIZERS`.
            member_options: its options, sizes aside.
            num_levels: at least 1.
            shared: one codebook for all levels (RQ-VAE), not one each (SoundStream).

        Raises:
            ValueError: `num_levels` is below 1, or the member or an option of it is refused.
        """
        if num_levels < 1:
            raise ValueError(f"num_levels is {num_levels}, but must be at least 1; 4 is usual.")
        super().__init__(num_levels, codebook_size, codebook_dim, member, member_options, shared)

    def _down(self, residual: Tensor, level: int) -> Tensor:
        return residual

    def _up(self, codes: Tensor, level: int, grid: tuple[int, ...]) -> Tensor:
        return codes


class Phi(nn.Conv2d):
    """(1 - ratio) h + ratio conv3x3(h): repairs what enlarging has blurred (VAR, section 3.2)."""

    def __init__(self, num_channels: int, ratio: float) -> None:
        super().__init__(num_channels, num_channels, kernel_size=3, padding=1, dtype=torch.float32)
        self.ratio = ratio

    def forward(self, h: Tensor) -> Tensor:
        """Return h, float32 [B, D, h, w], after its convolution."""
        return (1 - self.ratio) * h + self.ratio * super().forward(h)


class MultiScaleQuantizer(_Levels):
    """Levels on growing grids, from the whole image to z's own grid, each quantizing what the ones before have left."""

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        member: str = "vq",
        member_options: dict[str, Any] | None = None,
        scales: Sequence[int] = VAR_SCALES,
        phi_ratio: float = 0.5,
        losses_of_sums: bool = False,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            member: the quantizer of all levels, a key of `QUANTIZERS`; they share it, as in VAR.
            member_options: its options, sizes aside.
            scales: height and width of each level's grid, growing, the last that of z. Of a z with another height or
                width only their proportions count: level l has round(h * scales[l] / scales[-1]) rows, at least 1.
            phi_ratio: share of the convolution in what a level adds, in [0, 1]; 0: no convolutions. There are as many as
                levels, but at most 4, which neighbouring levels share.
            losses_of_sums: whether "codebook" and "commitment" compare the sum up to each level with z on z's own grid, as in
                VAR, and not each level's codes with what is left for it.

        Raises:
            ValueError: `scales` do not grow from at least 1, `phi_ratio` is out of range or has one level only, the member
                has not both losses of `losses_of_sums`, or it or an option of it is refused.
        """
        scales = tuple(scales)
        if not scales or scales[0] < 1 or any(b <= a for a, b in itertools.pairwise(scales)):
            valid = sorted({max(1, scale) for scale in scales}) or [1]
            raise ValueError(f"scales is {list(scales)}, but must grow from at least 1; {valid} does.")
        if not (0 <= phi_ratio <= 1 and math.isfinite(phi_ratio)):
            raise ValueError(f"phi_ratio is {phi_ratio}, but must be in [0, 1]; 0.5 is usual.")
        if phi_ratio and len(scales) == 1:
            raise ValueError(f"phi_ratio is {phi_ratio}, but one scale is never enlarged: set phi_ratio to 0.")
        super().__init__(len(scales), codebook_size, codebook_dim, member, member_options, shared=True)
        if losses_of_sums and not {"codebook", "commitment"} <= set(self.loss_names):
            raise ValueError(
                f"losses_of_sums is true, but the codes of {member!r} do not learn from the codebook and commitment losses: "
                "take the member 'vq', or leave it out."
            )
        self.scales, self.losses_of_sums = scales, losses_of_sums
        num_phis = min(_MOST_PHIS, len(scales)) if phi_ratio else 0
        self.phis = nn.ModuleList(Phi(codebook_dim, phi_ratio) for _ in range(num_phis))
        if self.phis and "codebook" not in self.loss_names:  # the convolutions learn from it
            self.loss_names = ("codebook", *self.loss_names)

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the height and width of each level's grid for a z of that height and width."""
        last = self.scales[-1]
        return [(max(1, round(height * scale / last)), max(1, round(width * scale / last))) for scale in self.scales]

    def _down(self, residual: Tensor, level: int) -> Tensor:
        grid = self.grids(*residual.shape[2:])[level]
        return residual if grid == residual.shape[2:] else F.interpolate(residual, grid, mode="area")

    def _up(self, codes: Tensor, level: int, grid: tuple[int, ...]) -> Tensor:
        codes = codes.contiguous()  # one layout, so that the same codes always round the same
        if codes.shape[2:] != grid:
            codes = F.interpolate(codes, grid, mode="bicubic")
        return self.phis[self._phi_of(level)](codes) if self.phis else codes

    def _phi_of(self, level: int) -> int:
        """Number of the convolution of a level: the nearest, both spread evenly from 0 to 1."""
        num_phis = len(self.phis)  # halfway between two rounding decides, so the expression is that of VAR's code
        margin = 1 / (3 if num_phis == _MOST_PHIS else 2) / num_phis
        ticks = np.linspace(margin, 1 - margin, num_phis)
        return int(np.abs(ticks - level / (len(self.scales) - 1)).argmin())

    def _with_own_losses(
        self, losses: dict[str, Tensor], indices: tuple[Tensor, ...], sums: list[Tensor], z: Tensor
    ) -> dict[str, Tensor]:
        if self.losses_of_sums:  # VAR's code: mean over levels of |f_hat_l - sg[z]|^2 and of |sg[f_hat_l] - z|^2
            sums = self._sums(
                [self.members[0].indices_to_codes(level) for level in indices]
            )  # with a gradient to codes
            of_codebook = [F.mse_loss(f_hat, z.detach()) for f_hat in sums]
            commitment = [F.mse_loss(f_hat.detach(), z) for f_hat in sums]
            return losses | {"codebook": torch.stack(of_codebook).mean(), "commitment": torch.stack(commitment).mean()}
        if not self.phis:
            return losses
        errors = torch.stack([F.mse_loss(part, z.detach()) for part in sums])  # |f_hat_l - sg[z]|^2
        return losses | {"codebook": losses.get("codebook", 0) + errors.mean()}
