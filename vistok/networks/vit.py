"""Encoder and decoder of ViT-VQGAN: transformers over image patches, one token a patch.

After Yu et al. 2022 (arXiv:2110.04627, section 3.1), with the choices of its open implementation (enhancing-transformers)
where the paper is silent: sine-cosine positions, queries, keys and values without bias, a layer norm at the end of each
side. Small: hidden_dim 512, depth 8, num_heads 8, mlp_dim 2048; Base: 768, 12, 12, 3072; both with patches of 8x8 pixels.
Deviations:

- Tanh stands inside the feed-forward part of every block, as in the open implementation. The paper has the usual blocks,
  then one feed-forward network of two layers with a Tanh between them.
- Pixels are one linear layer with a bias for each value of a patch; the open implementation's transposed convolution has
  the same weights but one bias for each colour. A patch is laid out as (colour, row, column), as its weights are.
- Positions that were learned know one size. `positions="interpolated"` has the same weights and takes others too, bicubic, as
  users of ViTs do (Dosovitskiy et al. 2021, arXiv:2010.11929, section 3.2); neither paper of a tokenizer measures it.
- The factorised projections, hidden_dim to D and back, belong to the encoder and the decoder here: what leaves the encoder
  is what the quantizer sees.

The residual stream stays float32 under autocast, because positions are float32 and everything is added to them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.networks.blocks import Block, ImageEncoder, check_sizes, initialise
from vistok.system.words import nearest


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into tokens, row by row.

    Args:
        images: [B, C, H, W], H and W multiples of `patch_size`.
        patch_size: p, pixels.

    Returns:
        [B, H/p * W/p, C * p * p], each token in the order (C, p, p).
    """
    batch, channels, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    grid = images.view(batch, channels, rows, patch_size, columns, patch_size)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)  # B h w C p p


def unpatchify(tokens: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Put the tokens of `patchify` back together.

    Args:
        tokens: [B, h*w, C * p * p].
        grid: (h, w).
        patch_size: p, pixels.

    Returns:
        [B, C, h*p, w*p].
    """
    height, width = grid
    batch, channels = len(tokens), tokens.shape[2] // patch_size**2
    patches = tokens.view(batch, height, width, channels, patch_size, patch_size)  # B h w C p p
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height * patch_size, width * patch_size)


def sincos_positions(grid: tuple[int, int], dim: int, device: torch.device | None = None) -> Tensor:
    """Return the two-dimensional sine-cosine code of every position of a grid.

    The first half of the channels encodes the column x, the second the row y, each as [sin(x w_i), cos(x w_i)] with
    w_i = 10000^(-4i/dim) (Attention is all you need, arXiv:1706.03762, section 3.5, once per axis as in the public MAE code).

    Args:
        grid: (h, w), tokens.
        dim: channels, a multiple of 4.
        device: where.

    Returns:
        float32 [1, h*w, dim], row by row.
    """
    frequencies = torch.exp(torch.arange(dim // 4, device=device) * (-4 * math.log(10000) / dim))  # [dim/4]
    rows, columns = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (columns, rows)]  # 2 x [h*w, dim/4]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).unsqueeze(0)


class SincosPositions(nn.Module):
    """Adds `sincos_positions`; works on any grid."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        if dim % 4:
            valid = max(4, round(dim / 4) * 4)
            raise ValueError(f"hidden_dim is {dim}, but sincos positions need a multiple of 4: the nearest is {valid}.")
        self.grid = grid
        self.register_buffer("table", sincos_positions(grid, dim), persistent=False)  # kept for the usual grid

    def check(self, grid: tuple[int, int]) -> None:
        """Raise ValueError for a grid without positions: there is none."""

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return tokens + self.table
        return tokens + sincos_positions(grid, tokens.shape[-1], tokens.device)


class LearnedPositions(nn.Module):
    """Adds one learned vector a position; knows only the grid it was made for."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.randn(1, grid[0] * grid[1], dim) * 0.02)

    def check(self, grid: tuple[int, int]) -> None:
        """Raise ValueError for a grid without positions."""
        if grid != self.grid:
            raise ValueError(
                f"A grid of {grid[0]}x{grid[1]} tokens has no learned positions, only {self.grid[0]}x{self.grid[1]} has: "
                "take images of the size trained on, or a network with positions='sincos'; positions='interpolated' takes the "
                "same weights to other sizes."
            )

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        self.check(grid)
        return tokens + self.table


class InterpolatedPositions(LearnedPositions):
    """`LearnedPositions`, which for another grid are interpolated: what a network makes of them it was not trained for."""

    def check(self, grid: tuple[int, int]) -> None:
        """Raise ValueError for a grid without positions: there is none."""

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens + interpolated_positions(self.table, self.grid, grid)


def interpolated_positions(table: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Return learned positions for another grid, bicubic over their places; on their own grid as they are.

    Args:
        table: float [1, h*w, dim], row by row.
        own: (h, w), the grid that they were learned on.
        grid: (h', w'), tokens.

    Returns:
        float [1, h'*w', dim], in the dtype of `table`.
    """
    if grid == own:
        return table
    planes = table.float().unflatten(1, own).permute(0, 3, 1, 2)  # [1, dim, h, w]
    planes = F.interpolate(planes, grid, mode="bicubic", align_corners=False)
    return planes.flatten(2).transpose(1, 2).to(table.dtype)  # [1, h'*w', dim]


POSITIONS = {"sincos": SincosPositions, "learned": LearnedPositions, "interpolated": InterpolatedPositions}


class TransformerBlock(Block):
    """x + attention(norm(x)), then x + feed-forward(norm(x)); by default with a Tanh in the latter."""

    def __init__(
        self, dim: int, num_heads: int, mlp_dim: int, activation: type[nn.Module] = nn.Tanh, qkv_bias: bool = False
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), activation(), nn.Linear(mlp_dim, dim))

    def compute(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attention(self, x: Tensor) -> Tensor:
        batch, length, dim = x.shape
        qkv = self.to_qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, dim/heads]
        x = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(x.transpose(1, 2).reshape(batch, length, dim))


class Encoder(ImageEncoder):
    """Images [B, 3, H, W] to continuous codes z [B, D, H/p, W/p]."""

    decodes_parts = False  # every token looks at all

    def __init__(self, codebook_dim: int, dim: int, patch_size: int, positions: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.downsample_factor = patch_size
        self.from_pixels = nn.Linear(3 * patch_size**2, dim)
        self.positions = positions
        self.blocks = blocks
        self.norm = nn.LayerNorm(dim)
        self.to_codes = nn.Linear(dim, codebook_dim)
        initialise(self, _xavier)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return (H/p, W/p); raises ValueError where positions were learned, for another grid than theirs."""
        grid = super().grid(height, width)
        self.positions.check(grid)
        return grid

    def forward(self, images: Tensor) -> Tensor:
        p = self.downsample_factor
        grid = (images.shape[2] // p, images.shape[3] // p)
        tokens = self.positions(self.from_pixels(patchify(images, p)), grid)  # [B, h*w, dim]
        z = self.to_codes(self.norm(self.blocks(tokens)))  # [B, h*w, D]
        return z.transpose(1, 2).unflatten(2, grid)  # [B, D, h, w]


class Decoder(nn.Module):
    """Codes [B, D, h, w] to images [B, 3, p*h, p*w], about [-1, 1] and not bounded."""

    def __init__(self, codebook_dim: int, dim: int, patch_size: int, positions: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.from_codes = nn.Linear(codebook_dim, dim)
        self.positions = positions
        self.blocks = blocks
        self.norm = nn.LayerNorm(dim)
        self.to_pixels = nn.Linear(dim, 3 * patch_size**2)
        initialise(self, _xavier)

    @property
    def last_layer(self) -> nn.Parameter:
        """Weight of the last layer, at which the adaptive weight compares gradients."""
        return self.to_pixels.weight

    def forward(self, codes: Tensor) -> Tensor:
        grid = (codes.shape[2], codes.shape[3])
        tokens = self.positions(self.from_codes(codes.flatten(2).transpose(1, 2)), grid)  # [B, h*w, dim]
        patches = self.to_pixels(self.norm(self.blocks(tokens)))  # [B, h*w, 3*p*p]
        return unpatchify(patches, grid, self.patch_size)  # [B, 3, p*h, p*w]


def _xavier(name: str, weight: Tensor) -> None:
    """Draw a weight as the original ViT code does."""
    nn.init.xavier_uniform_(weight)


def build(
    codebook_dim: int,
    hidden_dim: int = 512,
    depth: int = 8,
    num_heads: int = 8,
    mlp_dim: int = 2048,
    patch_size: int = 8,
    image_size: int = 256,
    positions: str = "sincos",
) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder.

    Args:
        codebook_dim: D, channels of z and of the codes.
        hidden_dim: channels of a token; a multiple of `num_heads`, and of 4 with sincos positions.
        depth: transformer blocks on each side.
        num_heads: of attention.
        mlp_dim: channels inside the feed-forward part of a block.
        patch_size: p, pixels a token along a side; the downsample factor.
        image_size: pixels, height and width it is trained on; a multiple of `patch_size`.
        positions: "sincos", which works for other sizes too; "learned", which does not; or "interpolated", which has the
            weights of "learned" and interpolates them for other sizes.

    Raises:
        ValueError: an option is out of range; the sentence names the nearest valid one.
    """
    sizes = {
        "hidden_dim": hidden_dim,
        "depth": depth,
        "num_heads": num_heads,
        "mlp_dim": mlp_dim,
        "patch_size": patch_size,
    }
    check_sizes(sizes | {"image_size": image_size}, {"hidden_dim": "num_heads", "image_size": "patch_size"})
    if positions not in POSITIONS:
        raise ValueError(f"positions is {positions!r}; {nearest(positions, POSITIONS)}")
    grid = (image_size // patch_size, image_size // patch_size)

    def parts() -> tuple[nn.Module, nn.Sequential]:
        blocks = [TransformerBlock(hidden_dim, num_heads, mlp_dim) for _ in range(depth)]
        return POSITIONS[positions](grid, hidden_dim), nn.Sequential(*blocks)

    return (
        Encoder(codebook_dim, hidden_dim, patch_size, *parts()),
        Decoder(codebook_dim, hidden_dim, patch_size, *parts()),
    )
