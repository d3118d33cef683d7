"""The search that every codebook quantizer uses: exact, and never the whole tokens x K matrix of scores.

Source: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937), equation 1. |z|^2 is the same for every code, so the arg-min of
|e_k|^2 / 2 - z . e_k is taken. Nothing is approximated: the index differs from the arg-min in float64 only where the
distances of two codes differ by less than float32 resolves; of equal scores the first is taken. To know:

- Scores are held tile by tile, tokens x codes, so that memory grows with neither. On a CPU a tile stays in the caches
  between the matrix product and the arg-min. All tiles are written to one place: fresh memory costs as much as its use.
- On a CPU each thread takes some tokens and searches alone. Shared out operation by operation, a tile would be several
  parallel loops, each of which waits for a thread that does not run where a neighbour holds a core.
- PyTorch's arg-min over codes takes about ten times as long as their minimum alone, which is vectorised over tokens. So the
  minimum of each block of codes comes first, then the arg-min over blocks, then that over the codes of the best block. At
  small D the arg-min would otherwise take longer than the product; at large D the float32 product is nearly all.
- Copies of a code have equal scores, except where a matrix product rounds otherwise at its edges: at odd D, for some BLAS.
- Products are in float32 as PyTorch is set to compute them: callers keep autocast and TF32 off, as `base.Quantizer` does
  for autocast.
- A token that is not finite gets some index in [0, K). A code that is NaN is everyone's nearest, as in `torch.argmin`.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vistok.system.threads import share_out

_BLOCK = 32  # codes whose minimum comes first: about the root of a tile's codes, so that neither arg-min is long
_TILE_BYTES = 2**21  # a tile of scores, in each thread
_TILE_TOKENS = (2**6, 2**9)  # least tokens of a tile, at small D and at large, where with fewer the product is slow
_CODES_AT_A_TIME = 2**13  # whose squares are taken
_LEAST_PARTS = 16  # few tokens are shared out too, so that every thread has some
_GPU_TILE = (2**28, 2**12)  # bytes and least tokens: enough to fill it, little beside a training step's activations


@torch.no_grad()
def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Return for each vector the index of the nearest code, k* = argmin_k |z - e_k|^2 (VQ-VAE, equation 1).

    Beside the result this holds a tile of scores and its minima, 2 MiB for each thread of a CPU and 256 MiB on a GPU, and a
    copy of the codebook (its squares before the tiles; its padding where K is not a multiple of 32). At small D a GPU's memory
    bandwidth limits it, as each score is written and read once; at large D the float32 product.

    Args:
        z: float32 [N, D], on the device of the codebook.
        codebook: float32 [K, D], K at least 1.

    Returns:
        int64 [N], in [0, K).
    """
    return _lowest(z, codebook, _half_squares(codebook))


@torch.no_grad()
def largest_dot(z: Tensor, codebook: Tensor) -> Tensor:
    """Return for each vector the index of the code with the largest dot product, k* = argmax_k z . e_k (IBQ, equation 3).

    Args:
        z: float32 [N, D], on the device of the codebook.
        codebook: float32 [K, D], K at least 1.

    Returns:
        int64 [N], in [0, K).
    """
    return _lowest(z, codebook, codebook.new_zeros(len(codebook), 1))


def _half_squares(codebook: Tensor) -> Tensor:
    """Return |e_k|^2 / 2 of each code, [K, 1]."""
    halves = codebook.new_empty(len(codebook), 1)
    num_codes = _CODES_AT_A_TIME if codebook.device.type == "cpu" else len(codebook)

    def fill(starts: Iterator[int]) -> None:
        for start in starts:
            codes = codebook[start : start + num_codes]
            halves[start : start + num_codes] = codes.square().sum(1, keepdim=True).mul_(0.5)

    share_out(range(0, len(codebook), num_codes), fill)
    return halves


def _lowest(z: Tensor, codebook: Tensor, offsets: Tensor) -> Tensor:
    """Return argmin_k (offset_k - z . e_k) of each z [N, D], with offsets [K, 1]: int64 [N]."""
    num_tokens, num_codes = _tile_shape(z, len(codebook))
    codes, offsets = _whole_blocks(codebook), _whole_blocks(offsets)
    tiles = list(zip(codes.split(num_codes), offsets.split(num_codes), strict=True))
    first = num_codes * torch.arange(len(tiles), device=z.device).unsqueeze(1)  # [tiles, 1], of each tile's codes
    starts = range(0, len(z), num_tokens)
    indices = torch.empty(len(z), dtype=torch.int64, device=z.device)
    # Memory of this thread is used again by what comes after the search; another thread would keep its own.
    num_spaces = min(torch.get_num_threads(), len(starts)) if z.device.type == "cpu" else 1
    spaces = list(z.new_empty(max(1, num_spaces), num_codes * num_tokens))

    def fill(starts: Iterator[int]) -> None:
        space = spaces.pop()
        of_tiles = z.new_empty(len(tiles), num_tokens), indices.new_empty(len(tiles), num_tokens)
        for start in starts:
            tokens = z[start : start + num_tokens].T  # [D, tile]
            lowest, places = (part[:, : tokens.shape[1]] for part in of_tiles)  # [tiles, tile]
            for tile, *found in zip(tiles, lowest, places, strict=True):
                _lowest_of_tile(tokens, *tile, space, found)
            if len(tiles) > 1:
                places = places.add_(first).gather(0, lowest.min(0, keepdim=True).indices)
            indices[start : start + num_tokens] = places[0]

    if z.device.type == "cpu":
        share_out(starts, fill)
    else:
        fill(iter(starts))
    return indices.clamp_(max=len(codebook) - 1)  # codes added at the end equal the last one


def _tile_shape(z: Tensor, codebook_size: int) -> tuple[int, int]:
    """Return how many of the tokens z [N, D], and how many codes in whole blocks, are compared at once."""
    num_bytes, least_tokens = _GPU_TILE
    most_tokens = len(z)
    if z.device.type == "cpu":
        num_bytes, (least_tokens, large) = _TILE_BYTES, _TILE_TOKENS
        most_tokens = max(least_tokens, -(-len(z) // _LEAST_PARTS))
        least_tokens = min(max(least_tokens, 2 * z.shape[1]), large, most_tokens)
    num_scores = num_bytes // z.element_size()
    num_blocks = min(num_scores // least_tokens // _BLOCK, -(-codebook_size // _BLOCK))
    num_codes = max(1, num_blocks) * _BLOCK
    return max(1, min(num_scores // num_codes, most_tokens)), num_codes


def _whole_blocks(rows: Tensor) -> Tensor:
    """Return rows [K, ...] with the last one repeated up to a whole number of blocks."""
    missing = -len(rows) % _BLOCK
    return torch.cat([rows, rows[-1:].expand(missing, -1)]) if missing else rows


def _lowest_of_tile(tokens: Tensor, codes: Tensor, offsets: Tensor, space: Tensor, found: Sequence[Tensor]) -> None:
    """Write the lowest score of each of tokens [D, tile] among codes [C, D], and the index of the first code with it.

    The scores go to the front of `space`, float32 [C x tile or more]; both results to `found`, float32 and int64 [tile].
    """
    scores = space[: len(codes) * tokens.shape[1]].view(len(codes), -1)  # [C, tile]
    torch.addmm(offsets, codes, tokens, alpha=-1, out=scores)
    scores = scores.view(-1, _BLOCK, tokens.shape[1])  # [C / 32, 32, tile]
    best = scores.amin(1).min(0).indices  # [tile], the first of the best blocks
    torch.min(scores.gather(0, best.expand(1, _BLOCK, -1))[0], 0, out=tuple(found))
    found[1].add_(best, alpha=_BLOCK)
