"""Codebook usage against numpy: batches, queue, levels, processes, bounds, and what was saved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import run_two

from vistok.quantizers.usage import CodebookUsage


def usage_by_numpy(indices: np.ndarray, codebook_size: int, queue_size: int) -> dict[str, float]:
    _, counts = np.unique(indices, return_counts=True)
    shares = counts / counts.sum()
    return {
        "usage": len(counts) / codebook_size,
        "usage_queue": len(np.unique(indices[-queue_size:])) / codebook_size,
        "perplexity": np.exp(-(shares * np.log(shares)).sum()),
        "entropy_bits": -(shares * np.log2(shares)).sum(),
    }


def only(usage: CodebookUsage) -> dict[str, float]:
    (numbers,) = usage.compute()
    return numbers


@pytest.mark.parametrize("num_batches", [1, 3, 4, 9])
def test_it_is_that_of_numpy(num_batches: int) -> None:
    rng = np.random.default_rng(num_batches)
    # Batches of 32 tokens and a queue of 100: longer, then shorter, than what was seen, and it cuts through a batch.
    batches = [rng.geometric(0.05, size=(2, 4, 4)).clip(max=50) - 1 for _ in range(num_batches)]
    usage = CodebookUsage([60], queue_size=100)
    for batch in batches:
        usage.update([torch.from_numpy(batch)])
    assert only(usage) == pytest.approx(usage_by_numpy(np.concatenate([b.ravel() for b in batches]), 60, 100))
    assert usage.counts[0].sum() == 32 * num_batches


def test_levels_are_counted_alone_and_their_means_are_over_them() -> None:
    usage, first, second = CodebookUsage([8, 3], 5), CodebookUsage([8], 5), CodebookUsage([3], 5)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        fine = torch.randint(0, 8, (2, 4, 4), generator=generator)
        coarse = torch.randint(0, 3, (2, 1, 2), generator=generator)
        usage.update((fine, coarse), images_before=2 * seed)
        first.update([fine])
        second.update([coarse])
    assert usage.compute() == [only(first), only(second)]
    assert usage.means() == {name: (only(first)[name] + only(second)[name]) / 2 for name in only(first)}


def test_the_queue_holds_exactly_the_last_indices() -> None:
    usage = CodebookUsage([4])
    usage.update([torch.tensor([3])])
    usage.update([torch.zeros(65_535, dtype=torch.int64)])
    assert only(usage)["usage_queue"] == 0.5
    usage.update([torch.tensor([0])])
    assert only(usage)["usage_queue"] == 0.25
    assert only(usage)["usage"] == 0.5


@pytest.mark.parametrize("codebook_size", [1, 2, 5, 9, 13, 19, 27, 512, 1000])
def test_it_stays_within_its_bounds(codebook_size: int) -> None:
    usage = CodebookUsage([codebook_size])
    usage.update([torch.arange(codebook_size).repeat(3)])
    even = only(usage)
    assert even["usage"] == even["usage_queue"] == 1
    assert even["perplexity"] <= codebook_size and even["entropy_bits"] <= np.log2(codebook_size)
    assert even["perplexity"] == pytest.approx(codebook_size)
    usage.reset()
    usage.update([torch.zeros(7, dtype=torch.int64)])
    one = only(usage)
    assert one["perplexity"] == 1 and str(one["entropy_bits"]) == "0.0"  # not -0.0
    usage.reset()
    with pytest.raises(ValueError, match="at least one index"):
        usage.compute()


def test_parts_with_their_places_are_the_whole() -> None:
    indices = torch.randint(0, 40, (200, 1, 1), generator=torch.Generator().manual_seed(0))
    whole, parts = CodebookUsage([50], queue_size=30), CodebookUsage([50], queue_size=30)
    whole.update([indices])
    for first, end in ((170, 200), (0, 90), (90, 170)):
        parts.update([indices[first:end]], images_before=first)
    assert only(parts) == only(whole)
    assert only(whole)["usage_queue"] < only(whole)["usage"]


TWO_PROCESSES = """
import sys, torch
from vistok.quantizers.usage import CodebookUsage
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
indices = torch.randint(0, 40, (8, 4, 4), generator=torch.Generator().manual_seed(0))
usage, alone = CodebookUsage([50], queue_size=64), CodebookUsage([50], queue_size=64)
for start in (0, 4):  # batches of four, two a process
    usage.update([indices[start + 2 * rank:start + 2 * rank + 2]])
alone.update([indices])
before = usage.counts[0].clone()
assert usage.summed().compute() == alone.compute() != usage.compute(), (usage.summed().compute(), alone.compute())
assert torch.equal(usage.counts[0], before)  # its own are as they were
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_count_what_one_does(tmp_path: Path) -> None:
    run_two(TWO_PROCESSES, tmp_path / "store")


def test_it_counts_in_and_out_of_inference_mode() -> None:
    usage = CodebookUsage([4])
    with torch.inference_mode():
        usage.update([torch.tensor([0, 1])])
    usage.update([torch.tensor([1])])
    assert only(usage)["usage"] == 0.5


@pytest.mark.parametrize("index", [-1, 5])
def test_wrong_indices_are_refused(index: int) -> None:
    usage = CodebookUsage([5])
    with pytest.raises(ValueError, match=f"Index {index} is outside the codebook of 5 codes; indices are 0 to 4"):
        usage.update([torch.tensor([[0, index]])])
    with pytest.raises(ValueError, match=r"torch\.int32, but must be torch\.int64"):
        usage.update([torch.tensor([0], dtype=torch.int32)])
    with pytest.raises(ValueError, match="codebook_size is 0"):
        CodebookUsage([4, 0])
    with pytest.raises(ValueError, match="queue_size is 0"):
        CodebookUsage([4], queue_size=0)


def test_levels_are_as_many_as_codebooks_and_a_batch_may_be_empty() -> None:
    usage, level = CodebookUsage([4, 4]), torch.zeros(1, 2, 2, dtype=torch.int64)
    for wrong in ([level], [level] * 3):
        with pytest.raises(ValueError, match=f"There are {len(wrong)} levels of indices, but 2 codebooks to count"):
            usage.update(wrong)
    usage.update([level[:0]] * 2, images_before=3)
    usage.update([level] * 2, images_before=3)
    assert [counts.tolist() for counts in usage.counts] == [[4, 0, 0, 0]] * 2


def test_what_was_saved_elsewhere_is_counted_on_where_it_is_loaded() -> None:
    saved = CodebookUsage([4, 2])
    saved.update([torch.tensor([1, 1, 3]), torch.tensor([0])])
    usage = CodebookUsage([4, 2], device="meta")  # stands for a GPU; checkpoints are loaded to the CPU
    usage.load_state(saved.state())
    assert {value.device.type for level in usage.state() for value in level.values()} == {"meta"}
    usage.reset()
    assert usage.counts[0].device.type == "meta"
    here = CodebookUsage([4, 2])
    here.load_state(saved.state())
    assert here.compute() == saved.compute()
    saved.update([torch.tensor([0]), torch.tensor([1])])
    assert [counts.tolist() for counts in here.counts] == [[0, 2, 0, 1], [1, 0]]  # a copy
