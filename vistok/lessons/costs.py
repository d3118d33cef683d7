"""Costs of quantizers: seconds and memory of one forward and backward pass, methods side by side."""

import dataclasses
import time

import torch
from torch import Tensor

from vistok.estimate.meters import StepMeter
from vistok.quantizers import Quantizer
from vistok.system.progress import progress_bar

MIB = 2**20  # bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """Time and memory of one forward and backward pass.

    Attributes:
        milliseconds: the fastest of some turns.
        mib: MiB of tensors alive at once at most, weights and z included.
    """

    milliseconds: float
    mib: float


def measure(
    quantizers: dict[str, Quantizer], num_tokens: int = 8192, num_turns: int = 5, *, progress: bool = True
) -> dict[str, Cost]:
    """Return the cost of each quantizer in training mode on z from N(0, 1), all its losses included.

    They take turns and the fastest turn of each counts: the speed of a shared machine drifts, its best moment less so.

    Args:
        quantizers: name to quantizer; one that moves inside `forward` is moved.
        num_tokens: in grids of 16x16; a multiple of 256.
        num_turns: at least 1.
        progress: show a bar.

    Raises:
        ValueError: an argument is out of range.
    """
    if num_tokens < 256 or num_tokens % 256:
        raise ValueError(
            f"num_tokens is {num_tokens}, but must be a multiple of 256; {max(1, num_tokens // 256) * 256} is."
        )
    if num_turns < 1:
        raise ValueError(f"num_turns is {num_turns}, but must be at least 1.")
    inputs = {name: _z_for(quantizer, num_tokens) for name, quantizer in quantizers.items()}
    mib, seconds = {}, dict.fromkeys(quantizers, float("inf"))
    passes = len(quantizers) * (num_turns + 1)
    with progress_bar(total=passes, desc="measuring the quantizers", unit=" passes", disable=not progress) as bar:
        for name, quantizer in quantizers.items():
            with StepMeter([inputs[name], *quantizer.state_dict().values()]) as meter:
                _pass(quantizer, inputs[name])
            mib[name] = meter.live.peak / MIB
            bar.update()
        for name in list(quantizers) * num_turns:
            start = time.perf_counter()
            _pass(quantizers[name], inputs[name])
            seconds[name] = min(seconds[name], time.perf_counter() - start)
            bar.update()
    return {name: Cost(1e3 * seconds[name], mib[name]) for name in quantizers}


def _z_for(quantizer: Quantizer, num_tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num_tokens // 256, quantizer.codebook_dim, 16, 16, generator=generator)
    return z.contiguous(memory_format=torch.channels_last).requires_grad_()  # as the encoder leaves it


def _pass(quantizer: Quantizer, z: Tensor) -> None:
    """One forward and one backward pass in training mode; the gradients go with it."""
    quantized = quantizer.train()(z)
    total = quantized.codes.mean() + sum(quantized.losses.values())
    total.backward()
    z.grad = None
    quantizer.zero_grad()


def costs_markdown(costs: dict[str, Cost], baseline: str) -> str:
    """Return the costs as a Markdown table, times also in proportion to one of the methods."""
    lines = [["quantizer", "ms", f"against {baseline}", "MiB"], ["---", "---:", "---:", "---:"]]
    for name, cost in costs.items():
        ratio = cost.milliseconds / costs[baseline].milliseconds
        lines.append([name, f"{cost.milliseconds:.1f}", f"{ratio:.2f} x", f"{cost.mib:.0f}"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
