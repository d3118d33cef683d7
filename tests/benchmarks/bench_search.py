"""How fast and how lean a quantizer's forward and backward pass is, against diffusers and vector-quantize-pytorch.

    PYTHONPATH=tests python -m benchmarks.bench_search

Each case is one VQ quantizer with a learned codebook of N(0, 1) codes and as many tokens of N(0, 1), in training mode: codes,
indices and losses, then the gradients of z and of the codebook. Candidates take turns, and the fastest turn of each counts:
the speed of a shared machine drifts, its best moment less so. Ratios are to the fastest peer. Peak memory is that of a
process of its own, above what it held once everything was imported: inputs, weights and gradients count.

Then all of it once more beside a busy neighbour, a process that spins: on two cores it leaves two threads one and a half. There
medians count, since what a neighbour costs differs from turn to turn, and ours is also compared with itself on one thread.
"""

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import matplotlib.pyplot as plt
import torch
from benchmarks.harness import peak_memory_mib, print_rows, report_memory, row
from diffusers.models.autoencoders.vae import VectorQuantizer as DiffusersQuantizer
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from vistok.quantizers import BSQQuantizer, LFQQuantizer, VectorQuantizer, nearest_code

T = TypeVar("T")
NUM_TURNS, BUSY_TURNS, COMMITMENT = 10, 5, 0.25
FIGURE = "search-scaling.png"  # beside RESULTS.md
OURS, DIFFUSERS, LUCIDRAINS = "vistok", "diffusers", "vector-quantize-pytorch"
ALONE = "vistok, one thread"
BITS = {
    "lfq, 18 bits, 16,384 tokens, with entropy": LFQQuantizer,
    "bsq, 18 bits, 16,384 tokens, with entropy": BSQQuantizer,
}


class Case(NamedTuple):
    """A size, what is to be reached there, and who takes part."""

    num_tokens: int
    codebook_size: int
    codebook_dim: int
    speedup: float
    busy_speedup: float
    memory_mib: float
    candidates: tuple[str, ...] = (OURS, DIFFUSERS, LUCIDRAINS)


CASES = {
    f"{case.num_tokens:,} tokens, K {case.codebook_size:,}, D {case.codebook_dim}": case
    for case in (
        Case(16_384, 16_384, 8, speedup=4, busy_speedup=4, memory_mib=64),
        Case(4_096, 16_384, 256, speedup=1.4, busy_speedup=1, memory_mib=160),
        Case(16_384, 512, 64, speedup=1.5, busy_speedup=1.5, memory_mib=80),
        # vector-quantize-pytorch would need more than 20 GiB
        Case(4_096, 262_144, 8, speedup=3, busy_speedup=3, memory_mib=300, candidates=(OURS, DIFFUSERS)),
    )
}


def run() -> list[dict[str, Any]]:
    """Measure every candidate of every case; returns rows with case, value, unit, goal and peak_memory_mib."""
    rows = [line for name in CASES for line in _measure_case(name)]
    rows += [row(f"{name}: memory", peak_memory_mib(__file__, name) or float("nan"), "MiB", goal=-300) for name in BITS]
    with busy_neighbour():
        rows += [line for name in CASES for line in _measure_beside_neighbour(name)]
    return rows + _scaling()


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Have another process keep a core busy."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def _measure_case(name: str) -> list[dict[str, Any]]:
    case = CASES[name]
    steps = {candidate: _step(candidate, case) for candidate in case.candidates}
    seconds = dict.fromkeys(steps, float("inf"))
    chosen = {}
    for turn in _turns(list(steps)):
        for candidate in turn:
            start = time.perf_counter()
            chosen[candidate] = steps[candidate]()
            seconds[candidate] = min(seconds[candidate], time.perf_counter() - start)
    memory = {candidate: peak_memory_mib(__file__, f"{candidate}: {name}") for candidate in steps}
    differing = (chosen[OURS] != chosen[DIFFUSERS]).float().mean().item()
    fastest_peer = min(seconds[candidate] for candidate in steps if candidate != OURS)
    return [
        *(row(f"{name}: {candidate}", 1e3 * seconds[candidate], "ms", memory=memory[candidate]) for candidate in steps),
        row(f"{name}: against the fastest peer", fastest_peer / seconds[OURS], "x", goal=case.speedup),
        row(f"{name}: memory", memory[OURS] or float("nan"), "MiB", goal=-case.memory_mib),
        row(f"{name}: indices other than diffusers'", 100 * differing, "%"),
    ]


def _measure_beside_neighbour(name: str) -> list[dict[str, Any]]:
    case, num_threads = CASES[name], torch.get_num_threads()
    steps = {candidate: _step(candidate, case) for candidate in case.candidates}
    steps[ALONE] = steps[OURS]
    seconds: dict[str, list[float]] = {candidate: [] for candidate in steps}
    for turn in _turns(list(steps), BUSY_TURNS):
        for candidate in turn:
            torch.set_num_threads(1 if candidate == ALONE else num_threads)
            steps[candidate]()  # threads that it has not used for a while are woken here
            start = time.perf_counter()
            steps[candidate]()
            seconds[candidate].append(time.perf_counter() - start)
    torch.set_num_threads(num_threads)
    usual = {candidate: median(times) for candidate, times in seconds.items()}
    fastest_peer = min(usual[candidate] for candidate in case.candidates if candidate != OURS)
    beside = f"{name}, busy neighbour"
    return [
        *(row(f"{beside}: {candidate}", 1e3 * time, "ms") for candidate, time in usual.items()),
        row(f"{beside}: over the time of one thread", usual[OURS] / usual[ALONE], "x", goal=-1.5),
        row(f"{beside}: against the fastest peer", fastest_peer / usual[OURS], "x", goal=case.busy_speedup),
    ]


def _turns(names: list[T], number: int = NUM_TURNS) -> Iterator[list[T]]:
    """Yield the names once a turn, each turn in another order: what ran before leaves caches and memory in its own state."""
    shuffle = random.Random(0)
    for _ in range(number):
        yield shuffle.sample(names, len(names))


def _step(candidate: str, case: Case) -> Callable[[], Tensor]:
    """Return what takes one forward and backward pass and returns the indices, [N]."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, case.codebook_dim, 1, case.num_tokens, generator=generator).requires_grad_()
    codes = torch.randn(case.codebook_size, case.codebook_dim, generator=generator)
    quantizer = _quantizer(candidate, codes)

    def step() -> Tensor:
        z.grad = None
        quantizer.zero_grad()
        quantized = quantizer(z)
        if candidate == OURS:
            output, indices = quantized.codes, quantized.indices
            loss = quantized.losses["codebook"] + COMMITMENT * quantized.losses["commitment"]
        elif candidate == DIFFUSERS:
            output, loss, (_, _, indices) = quantized
        else:
            output, indices, loss = quantized
        (output.mean() + loss.sum()).backward()
        return indices.flatten()

    return step


def _quantizer(candidate: str, codes: Tensor) -> torch.nn.Module:
    codebook_size, codebook_dim = codes.shape
    if candidate == OURS:
        quantizer = VectorQuantizer(codebook_size, codebook_dim)
        weight = quantizer.weight
    elif candidate == DIFFUSERS:
        quantizer = DiffusersQuantizer(codebook_size, codebook_dim, beta=COMMITMENT, legacy=False)
        weight = quantizer.embedding.weight
    else:
        learned = {"learnable_codebook": True, "ema_update": False, "rotation_trick": False, "accept_image_fmap": True}
        quantizer = VectorQuantize(codebook_dim, codebook_size, commitment_weight=COMMITMENT, **learned)
        weight = quantizer._codebook.embed
    with torch.no_grad():
        weight.copy_(codes.view_as(weight))
    return quantizer


def _scaling() -> list[dict[str, Any]]:
    """The search's time for each token and code, as tokens or K grow fourfold: 1 is linear; and a picture of it."""
    generator = torch.Generator().manual_seed(0)
    series = {  # what grows to sizes, (tokens, K), growing fourfold
        "K": [(2048, 2**power) for power in range(10, 19, 2)],
        "tokens": [(2**power, 65_536) for power in range(5, 14, 2)],
    }
    sizes = [size for grown in series.values() for size in grown]
    inputs = {size: [torch.randn(n, 8, generator=generator) for n in size] for size in sizes}
    seconds = dict.fromkeys(inputs, float("inf"))
    for size in (size for turn in _turns(list(inputs)) for size in turn):
        start = time.perf_counter()
        nearest_code(*inputs[size])
        seconds[size] = min(seconds[size], time.perf_counter() - start)
    _draw_scaling(series, seconds)
    return [
        row(
            f"time as {name} grows fourfold to {sizes[-1][name == 'K']:,}, over four times the time",
            seconds[sizes[-1]] / 4 / seconds[sizes[-2]],
            "",
            goal=-1.2,
        )
        for name, sizes in series.items()
    ]


def _draw_scaling(series: dict[str, list[tuple[int, int]]], seconds: dict[tuple[int, int], float]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), dpi=80)
    for axis, (name, sizes) in zip(axes, series.items(), strict=True):
        grown = [size[name == "K"] for size in sizes]
        fixed = f"{sizes[0][0]:,} tokens" if name == "K" else f"K {sizes[0][1]:,}"
        times = [1e3 * seconds[size] for size in sizes]
        axis.loglog(grown, times, "o-", label=f"nearest code, {fixed}, D 8")
        axis.loglog(grown, [times[-1] * n / grown[-1] for n in grown], "--", color="0.5", label="linear")
        axis.set(xlabel=name, ylabel="milliseconds")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / FIGURE)


def _take_one_step(name: str) -> None:
    if name in BITS:
        z = torch.randn(1, 18, 128, 128, generator=torch.Generator().manual_seed(0)).requires_grad_()
        quantized = BITS[name](2**18)(z)
        (quantized.codes.mean() + sum(quantized.losses.values())).backward()
    else:
        candidate, _, case = name.partition(": ")
        _step(candidate, CASES[case])()


if __name__ == "__main__":
    if not report_memory(sys.argv, _take_one_step):
        print_rows(run())
