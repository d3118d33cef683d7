"""The nearest-code search against float64: any shape and scale, ties, what is not finite, fake tensors, memory."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from vistok.estimate.meters import LiveStorages
from vistok.quantizers import search
from vistok.quantizers.search import largest_dot, nearest_code

EPS = torch.finfo(torch.float32).eps
MIB = 2**20
SHAPES = [  # tokens, codes, dim: none, one, fewer codes than a block, no multiple of it, several tiles of each
    (0, 5, 3),
    (1, 1, 1),
    (7, 31, 2),
    (300, 33, 5),
    (70, 2049, 8),
    (513, 4100, 3),
    (5, 1000, 256),
    (20_000, 40, 4),
]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distances(z: Tensor, codebook: Tensor) -> Tensor:
    """|z - e_k|^2 in float64, from differences: [N, K]."""
    return torch.cdist(z.double(), codebook.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


def assert_lowest(found: Tensor, scores: Tensor, rounding: Tensor) -> None:
    """Check that each index is the arg-min of scores, float64 [N, K], or within rounding [N] of the least."""
    num_tokens, num_codes = scores.shape
    assert found.shape == (num_tokens,) and found.dtype == torch.int64
    if num_tokens:
        assert found.min() >= 0 and found.max() < num_codes
        chosen = scores.gather(1, found.unsqueeze(1)).squeeze(1)
        assert (chosen - scores.min(1).values <= rounding).all()


def rounding_of(z: Tensor, codebook: Tensor) -> Tensor:
    """How far |e|^2 - 2 z . e can be off in float32: gamma_D (|z| |e| + |e|^2) at both of two codes, gamma_D = (D + 2) eps."""
    longest = codebook.double().norm(dim=1).max()
    return 2 * (z.shape[1] + 2) * EPS * (z.double().norm(dim=1) * longest + longest**2)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 codes and at least 16 tokens, so that a toy has many."""
    monkeypatch.setattr(search, "_TILE_BYTES", 4 * 64 * 16)
    monkeypatch.setattr(search, "_TILE_TOKENS", (16, 16))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_float64_arg_min_of_any_shape_and_scale(shape: tuple[int, int, int], scale: float) -> None:
    num_tokens, num_codes, dim = shape
    z, codebook = scale * randn(num_tokens, dim), scale * randn(num_codes, dim, seed=1)
    assert_lowest(nearest_code(z, codebook), distances(z, codebook), rounding_of(z, codebook))


@pytest.mark.parametrize(("z_scale", "code_scale"), [(1.0, 1e-5), (1e6, 1e-6), (1e-6, 1e6)])
def test_z_and_codes_may_differ_in_scale(z_scale: float, code_scale: float) -> None:
    z, codebook = z_scale * randn(100, 8), code_scale * randn(300, 8, seed=1)
    assert_lowest(nearest_code(z, codebook), distances(z, codebook), rounding_of(z, codebook))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_float64_arg_min_at_random(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    num_tokens, num_codes, dim = (int(torch.randint(1, most, (), generator=generator)) for most in (200, 400, 40))
    z, codebook = (torch.randn(n, dim, generator=generator) for n in (num_tokens, num_codes))
    scores = distances(z, codebook)
    assert_lowest(nearest_code(z, codebook), scores, rounding_of(z, codebook))
    clear = scores.topk(min(2, num_codes), largest=False).values.diff().squeeze(1) > rounding_of(z, codebook)
    assert num_codes < 2 or clear.float().mean() > 0.9  # so that nearly all of these are checked index by index
    if num_codes > 1:
        assert torch.equal(nearest_code(z, codebook)[clear], scores.argmin(1)[clear])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("num_codes", [1, 5, 32, 50, 129])
@pytest.mark.parametrize("dim", [1, 8, 64])
def test_of_equal_codes_the_first_is_taken(num_codes: int, dim: int) -> None:
    codebook = torch.randint(-8, 9, (num_codes, dim), generator=torch.Generator().manual_seed(0)).float()
    repeated = codebook.repeat(3, 1)  # in other blocks, and in other tiles; integers, so that no sum rounds
    z = codebook.repeat_interleave(2, 0)
    expected = distances(z, repeated).argmin(1)
    assert expected.max() < num_codes
    assert torch.equal(nearest_code(z, repeated), expected)
    zeros = torch.zeros(70, dim)
    assert torch.equal(nearest_code(zeros, torch.zeros(200, dim)), torch.zeros(70, dtype=torch.int64))


def test_a_collapsed_codebook_still_gives_the_nearest() -> None:
    """All codes within 1e-3 of each other and far from the origin: the scores nearly cancel."""
    z, codebook = 10 + randn(64, 16), 10 + 1e-3 * randn(500, 16, seed=1)
    assert_lowest(nearest_code(z, codebook), distances(z, codebook), rounding_of(z, codebook))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("num_codes", [1, 31, 100])
def test_tokens_that_are_not_finite_get_an_index_and_disturb_no_other(value: float, num_codes: int) -> None:
    z, codebook = randn(40, 4), randn(num_codes, 4, seed=1)
    expected = nearest_code(z, codebook)
    broken = z.clone()
    broken[3, 1] = broken[17] = value
    found = nearest_code(broken, codebook)
    assert found.min() >= 0 and found.max() < num_codes
    kept = torch.ones(40, dtype=torch.bool)
    kept[[3, 17]] = False
    assert torch.equal(found[kept], expected[kept])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("broken", [0, 40, 99])
def test_a_code_that_is_nan_is_taken_by_all(broken: int) -> None:
    z, codebook = randn(40, 4), randn(100, 4, seed=1)
    codebook[broken, 2] = float("nan")
    assert torch.equal(nearest_code(z, codebook), torch.full((40,), broken))  # as `torch.argmin` has it: seen at once


@pytest.mark.usefixtures("small_tiles")
def test_codes_whose_squares_overflow_are_not_taken() -> None:
    z, codebook = randn(40, 4), randn(100, 4, seed=1)
    far = codebook.clone()
    far[::2] = 1e25
    assert torch.equal(nearest_code(z, far), 2 * distances(z, codebook[1::2]).argmin(1) + 1)


@pytest.mark.usefixtures("small_tiles")
def test_views_give_what_contiguous_tensors_give() -> None:
    z, codebook = randn(8, 6, 5, 7), randn(12, 300, seed=1)
    tokens = z.permute(0, 2, 3, 1).flatten(0, 2)
    columns = randn(16, 100).T  # [100, 16]
    for rows, codes in [(tokens, codebook[::2].T), (columns[:, ::2], codebook[:8].T), (tokens[::3], codebook[:6].T)]:
        assert not (rows.is_contiguous() and codes.is_contiguous())
        assert torch.equal(nearest_code(rows, codes), nearest_code(rows.contiguous(), codes.contiguous()))


@pytest.mark.parametrize("dim", [40, 256])
@pytest.mark.parametrize("num_tokens", [1280, 2000])
def test_tiles_are_whole_blocks_of_codes_whatever_tokens_go_into_one(num_tokens: int, dim: int) -> None:
    """Of 80 tokens, say, not as many codes fit into a tile as is a multiple of 32."""
    z, codebook = randn(num_tokens, dim), randn(6600, dim, seed=1)
    tokens, codes = search._tile_shape(z, len(codebook))
    assert codes % search._BLOCK == 0 and 4 * tokens * codes <= search._TILE_BYTES
    assert_lowest(nearest_code(z, codebook), distances(z, codebook), rounding_of(z, codebook))


def test_the_tile_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    z, codebook = randn(400, 8), randn(700, 8, seed=1)
    expected = distances(z, codebook).argmin(1)
    for num_bytes, least_tokens in [(4 * 32, 1), (4 * 64 * 16, 16), (4 * 4096, 128), (2**28, 2**12)]:
        monkeypatch.setattr(search, "_TILE_BYTES", num_bytes)
        monkeypatch.setattr(search, "_TILE_TOKENS", (least_tokens, least_tokens))
        assert torch.equal(nearest_code(z, codebook), expected)


@pytest.mark.usefixtures("small_tiles")
def test_the_largest_dot_is_that_of_float64() -> None:
    z, codebook = randn(200, 16), randn(333, 16, seed=1)
    assert_lowest(largest_dot(z, codebook), -(z.double() @ codebook.double().T), rounding_of(z, codebook))
    longest = codebook.clone()
    longest[7] = 100 * codebook[7]  # far away, and yet of the largest product with half of all tokens
    towards = (z @ codebook[7] > 0.5).nonzero().flatten()
    assert len(towards) > 50 and (largest_dot(z[towards], longest) == 7).all()
    assert (nearest_code(z[towards], longest) != 7).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_no_graph_is_kept_in_any_grad_mode(mode: Callable[[], Any]) -> None:
    z, codebook = randn(50, 4).requires_grad_(), torch.nn.Parameter(randn(40, 4, seed=1))
    expected = distances(z.detach(), codebook.detach()).argmin(1)
    with mode():
        found = nearest_code(z, codebook)
    assert torch.equal(found, expected) and not found.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fake_and_meta_tensors_give_the_shape(dtype: torch.dtype) -> None:
    with FakeTensorMode():
        found = nearest_code(torch.randn(3000, 4, dtype=dtype), torch.randn(2**12 + 1, 4, dtype=dtype))
    on_meta = nearest_code(torch.empty(3000, 4, device="meta"), torch.empty(100, 4, device="meta"))
    for indices in (found, on_meta):
        assert indices.shape == (3000,) and indices.dtype == torch.int64


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_number_of_threads_changes_no_index(shape: tuple[int, int, int]) -> None:
    num_tokens, num_codes, dim = shape
    z, codebook = randn(num_tokens, dim), randn(num_codes, dim, seed=1)
    found = []
    for num_threads in (1, 2, 5):
        torch.set_num_threads(num_threads)
        found.append(nearest_code(z, codebook))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_of_several_threads_each_searches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared out operation by operation a search would be parallel loops by the hundred, each waiting for the last thread."""
    seen: set[tuple[str, int]] = set()
    lowest_of_tile = search._lowest_of_tile

    def watched(*arguments: Any) -> tuple[Tensor, Tensor]:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        time.sleep(0.01)  # so that one thread is not done with all before another begins
        return lowest_of_tile(*arguments)

    monkeypatch.setattr(search, "_lowest_of_tile", watched)
    torch.set_num_threads(2)
    nearest_code(randn(2048, 8), randn(64, 8, seed=1))
    assert len(seen) == 1 and seen == {("vistok-part", 1)} and torch.get_num_threads() == 2


class PeakBytes(TorchDispatchMode):
    """Tracks the bytes of all tensors that operations inside make, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.live = LiveStorages()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self.live.add(tensor)
        return made


def peak_bytes(num_tokens: int, num_codes: int, dim: int = 2) -> int:
    z, codebook = torch.randn(num_tokens, dim), torch.randn(num_codes, dim)
    with PeakBytes() as peak:
        nearest_code(z, codebook)
    views_of_inputs = 4 * dim * (num_tokens + num_codes)
    return peak.live.peak - views_of_inputs


def test_memory_is_a_tile_for_each_thread_and_does_not_grow_with_tokens_times_codes() -> None:
    torch.set_num_threads(1)
    base = peak_bytes(2**11, 2**13)
    assert 2 * MIB <= base < 4 * MIB  # all scores would be 64 MiB
    assert peak_bytes(2**13, 2**13) - base < 4 * 2**13 * 8  # 256 MiB of scores; int64 indices and no more
    assert peak_bytes(2**11, 2**16) - base < 4 * 2**16 * 4  # 512 MiB of scores; the codes' norms and no more
