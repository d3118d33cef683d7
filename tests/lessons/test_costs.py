"""Costs of quantizers: bytes that are there, milliseconds that pass."""

import pytest
import torch
from torch import Tensor

from vistok import quantizers
from vistok.lessons import costs
from vistok.quantizers import Quantized, Quantizer


class Hungry(Quantizer):
    """Holds so many MiB for a moment."""

    def __init__(self, mib: int) -> None:
        super().__init__((1,), 1)
        self.mib = mib

    @property
    def codebook(self) -> Tensor:
        return torch.zeros(1, 1)

    def quantize(self, z: Tensor) -> Quantized:
        torch.ones(self.mib * 2**18)
        return Quantized(z * 1, (torch.zeros_like(z[:, 0], dtype=torch.int64),), {})

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        return torch.zeros_like(indices, dtype=torch.float32).unsqueeze(1)


def test_memory_is_the_most_that_is_alive_at_once() -> None:
    found = costs.measure({"a": Hungry(8), "b": Hungry(24)}, num_tokens=256, num_turns=1)
    assert found["a"].mib == pytest.approx(8, abs=0.1) and found["b"].mib == pytest.approx(24, abs=0.1)


def test_what_looks_at_every_code_costs_more_than_a_grid() -> None:
    made = {
        "fsq": quantizers.build("fsq", levels=[8, 8, 8]),
        "gumbel": quantizers.build("gumbel", codebook_size=512, codebook_dim=8),
    }
    found = costs.measure(made, num_tokens=1024, num_turns=2)
    assert found["gumbel"].mib > 1024 * 512 * 4 / 2**20  # tokens x K, which it keeps
    assert found["gumbel"].milliseconds > found["fsq"].milliseconds > 0
    assert found["gumbel"].mib > 4 * found["fsq"].mib > 0
    header, rule, *rows = costs.costs_markdown(found, "fsq").splitlines()
    assert header == "| quantizer | ms | against fsq | MiB |" and len(rows) == 2
    assert rows[0].split(" | ")[2] == "1.00 x" and rows[1].startswith("| gumbel | ")


def test_gradients_do_not_stay() -> None:
    quantizer = quantizers.build("vq", codebook_size=8, codebook_dim=2)
    costs.measure({"vq": quantizer}, num_tokens=256, num_turns=1)
    assert quantizer.weight.grad is None


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_tokens is 300, but must be a multiple of 256; 256 is"):
        costs.measure({}, num_tokens=300)
    with pytest.raises(ValueError, match="num_turns is 0, but must be at least 1"):
        costs.measure({}, num_turns=0)
