"""A transformer over the places of an image's tokens, of LlamaGen's shape: RMS norms, SwiGLU, rotary positions in a plane.

After LlamaGen (Sun et al. 2024, arXiv:2406.06525, section 3.1, and its code), which is Llama (arXiv:2302.13971) with a token of
the class in front. Causal it is a decoder; with every place seeing every other it is what MaskGIT (arXiv:2202.04200) trains. To
know:

- Rotary positions in a plane turn the first half of a head's channels by the row, the second by the column (LlamaGen's
  `precompute_freqs_cis_2d`). Sequences have learned positions instead.
- The class has position 0 in its own right, an angle of zero; LlamaGen's code makes its queries and keys zero.
- Neighbouring channels are a pair that is turned together, as in LlamaGen and in Llama's own code.
- A place of several levels (residual and grouped codes) is embedded as the sum of its tokens' embeddings, as in RQ-Transformer
  (arXiv:2203.01941, section 3.2). In place of its second transformer a small feed-forward head a level predicts each token from
  those before it at the place.
- The residual stream is float32 under autocast.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.generation.layout import Layout

INITIAL_STD = 0.02  # of all weights, as in LlamaGen and GPT-2
ROTARY_BASE = 10_000.0
MOST_BLOCKS = 1024


class RMSNorm(nn.RMSNorm):
    """Norm by the root of the mean square, in float32 whatever autocast is on outside."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


class SwiGLU(nn.Module):
    """Feed-forward part: W2 (silu(W1 x) * W3 x), without biases (Shazeer 2020, arXiv:2002.05202); W1 and W3 are one matrix."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.w13 = nn.Linear(dim, 2 * hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w13(x).chunk(2, dim=-1)
        return self.w2(F.silu(gate) * value)


def swiglu_dim(dim: int) -> int:
    """Return the width inside a feed-forward part: 8/3 of the model's, up to a multiple of 32 (LlamaGen: of 256)."""
    return -(-8 * dim // 3 // 32) * 32


def rotary_angles(grid: tuple[int, int], head_dim: int) -> Tensor:
    """Return the angle by which each pair of a head's channels is turned at each place of a grid.

    Args:
        grid: height and width, places.
        head_dim: channels of a head, a multiple of 4.

    Returns:
        float64 [h*w, head_dim / 2], row by row: the first half for the row, the second for the column.
    """
    frequencies = ROTARY_BASE ** (-torch.arange(0, head_dim // 2, 2, dtype=torch.float64) / (head_dim // 2))  # [d/4]
    rows, columns = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    return torch.cat([axis.reshape(-1, 1) * frequencies for axis in (rows, columns)], dim=1)


def turns(grid: tuple[int, int], head_dim: int) -> Tensor:
    """Return cosine and sine, float32 [2, 1 + h*w, head_dim / 2], of the class's angles, which are zero, and each place's."""
    angles = rotary_angles(grid, head_dim)
    angles = torch.cat([angles.new_zeros(1, angles.shape[1]), angles])
    return torch.stack([angles.cos(), angles.sin()]).float()


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by an angle.

    Args:
        x: [..., T, d].
        turn: [2, T, d / 2], cosine and sine of the angles, in the dtype to compute in.
    """
    pairs = x.to(turn.dtype).unflatten(-1, (-1, 2))  # [..., T, d/2, 2]
    if torch.compiler.is_compiling():  # it makes kernels of real numbers only
        (first, second), (cos, sin) = pairs.unbind(-1), turn
        turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    else:  # as complex numbers in one pass
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(*turn))
    return turned.flatten(-2).to(x.dtype)


class Cache:
    """Keys and values of the places so far, of every block.

    Attributes:
        length: places in it, the class among them.
    """

    def __init__(self, blocks: int, shape: tuple[int, ...], like: Tensor) -> None:
        """Make room.

        Args:
            blocks: how many.
            shape: [B, heads, T, d] of the keys of all places.
            like: device and dtype.
        """
        self.length = 0
        self.keys = [like.new_zeros(shape) for _ in range(blocks)]
        self.values = [like.new_zeros(shape) for _ in range(blocks)]

    def extended(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values, [B, heads, t, d], of the places that come next, and return those of all so far."""
        end = self.length + key.shape[2]
        self.keys[block][:, :, self.length : end], self.values[block][:, :, self.length : end] = key, value
        return self.keys[block][:, :, :end], self.values[block][:, :, :end]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)
        self.wqkv = nn.Linear(dim, 3 * dim, bias=False)
        self.wo = nn.Linear(dim, dim, bias=False)
        self.feed_forward = SwiGLU(dim, swiglu_dim(dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, turn: Tensor | None, causal: bool, cache: Cache | None, number: int) -> Tensor:
        """Return [B, T, dim] of x, [B, T, dim]; `turn` as of `rotate`; `number`: of this block in the cache."""
        x = x + self.dropout(self._attention(self.attention_norm(x), turn, causal, cache, number))
        return x + self.dropout(self.feed_forward(self.ffn_norm(x)))

    def _attention(self, x: Tensor, turn: Tensor | None, causal: bool, cache: Cache | None, number: int) -> Tensor:
        qkv = self.wqkv(x).unflatten(2, (3, self.num_heads, -1))  # [B, T, 3, heads, d]
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # each [B, heads, T, d]
        if turn is not None:
            query, key = rotate(query, turn), rotate(key, turn)
        if cache is not None:
            key, value = cache.extended(number, key, value)
            causal = causal and query.shape[2] > 1  # one place may see all that came before it
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.wo(mixed.transpose(1, 2).flatten(2))


class LevelHeads(nn.Module):
    """What predicts the tokens of a place, each from the transformer's output and the tokens before it at the place."""

    def __init__(self, dim: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.outputs = nn.ModuleList(nn.Linear(dim, size, bias=False) for size in sizes)
        self.embeddings = nn.ModuleList(nn.Embedding(size, dim) for size in sizes[:-1])
        self.norms = nn.ModuleList(RMSNorm(dim) for _ in sizes[1:])
        self.steps = nn.ModuleList(SwiGLU(dim, dim) for _ in sizes[1:])

    def next_state(self, state: Tensor, level: int, tokens: Tensor) -> Tensor:
        """Return what level + 1 is predicted from, [..., dim], given that of a level and its tokens, int64 [...]."""
        state = state + self.embeddings[level](tokens)
        return state + self.steps[level](self.norms[level](state))

    def forward(self, state: Tensor, tokens: Tensor) -> list[Tensor]:
        """Return the logits, [..., K_l], of each level, given the outputs, [..., dim], and all tokens, int64 [..., L]."""
        logits = [self.outputs[0](state)]
        for level in range(len(self.outputs) - 1):
            state = self.next_state(state, level, tokens[..., level])
            logits.append(self.outputs[level + 1](state))
        return logits


@dataclasses.dataclass(frozen=True)
class Shape:
    """Widths of a transformer; raises ValueError where they do not fit each other.

    Attributes:
        hidden_dim: channels of a place.
        depth: blocks.
        num_heads: of attention; a divisor of hidden_dim, with a multiple of 4 channels each.
    """

    hidden_dim: int
    depth: int
    num_heads: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")
        if self.depth > MOST_BLOCKS:
            raise ValueError(f"depth is {self.depth}, but must be at most {MOST_BLOCKS}.")
        unit = 4 * self.num_heads
        if self.hidden_dim % unit:
            valid = max(unit, round(self.hidden_dim / unit) * unit)
            raise ValueError(
                f"hidden_dim is {self.hidden_dim}, but must be a multiple of 4 for each of num_heads {self.num_heads}: the "
                f"nearest is {valid}."
            )


class Transformer(nn.Module):
    """The class and the places of an image to the logits of its tokens.

    Attributes:
        layout: of the places.
        num_classes: classes; the embedding after theirs stands for none.
    """

    def __init__(
        self, layout: Layout, num_classes: int, shape: Shape, *, dropout: float, causal: bool, with_mask: bool
    ) -> None:
        """Make a transformer with random weights.

        Args:
            layout: of the places.
            num_classes: C; 0: unconditional.
            shape: widths.
            dropout: of embeddings and of what is added to the residual stream, in [0, 1).
            causal: a place sees those before it; else all.
            with_mask: one more token a level, K_l, which stands for a token that is not known.
        """
        super().__init__()
        self.layout, self.num_classes, self.causal = layout, num_classes, causal
        dim, self.num_heads = shape.hidden_dim, shape.num_heads
        self.classes = nn.Embedding(num_classes + 1, dim)
        self.tokens = nn.ModuleList(nn.Embedding(size + with_mask, dim) for size in layout.sizes)
        self.positions = None if layout.grid else nn.Parameter(torch.empty(layout.num_places + 1, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, shape.num_heads, dropout) for _ in range(shape.depth))
        self.norm = RMSNorm(dim)
        self.heads = LevelHeads(dim, layout.sizes)
        turn = turns(layout.grid, dim // shape.num_heads) if layout.grid else None
        self.register_buffer("turn", turn, persistent=False)  # [2, 1 + S, d/2]
        self._initialise(shape.depth)

    def _initialise(self, depth: int) -> None:
        """Draw all weights from N(0, 0.02), those that end a residual branch smaller with the depth (GPT-2, section 2.3)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                last = name.endswith(("wo.weight", "w2.weight"))
                nn.init.normal_(parameter, std=INITIAL_STD / math.sqrt(2 * depth) if last else INITIAL_STD)

    def embed(self, places: Tensor) -> Tensor:
        """Return the embeddings, float [B, T, dim], of places, int64 [B, T, L]: sums over their levels."""
        levels = (embedding(places[..., level]) for level, embedding in enumerate(self.tokens))
        return functools.reduce(torch.add, levels)

    def forward(
        self, classes: Tensor | None, places: Tensor | None, cache: Cache | None = None, first: int = 0
    ) -> Tensor:
        """Return the outputs of the class and of places, to which `heads` gives logits.

        Args:
            classes: int64 [B], num_classes for none; None where the cache has it.
            places: int64 [B, T, L] from place `first` on; None: no place.
            cache: of what came before, and goes on with what comes now; None: nothing came before.
            first: number of the first place.

        Returns:
            float [B, 1 + T, dim], or [B, T, dim] without `classes`. Causal, output t sees the class and places before t.
        """
        parts = ([] if classes is None else [self.classes(classes)[:, None]]) + (
            [] if places is None else [self.embed(places)]
        )
        x = torch.cat(parts, dim=1)  # [B, T, dim]
        begin = first + (classes is None)  # the class stands at 0, place i at i + 1
        if self.positions is not None:
            x = x + self.positions[begin : begin + x.shape[1]]
        x = self.dropout(x)
        turn = None if self.turn is None else self.turn[:, begin : begin + x.shape[1]]
        for number, block in enumerate(self.blocks):
            x = block(x, turn, self.causal, cache, number)
        if cache is not None:
            cache.length += x.shape[1]
        return self.norm(x)

    def new_cache(self, batch: int) -> Cache:
        """Return an empty cache for a batch of images."""
        weight = self.classes.weight
        shape = (batch, self.num_heads, self.layout.num_places + 1, weight.shape[1] // self.num_heads)
        return Cache(len(self.blocks), shape, weight.detach())
