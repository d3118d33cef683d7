"""Golden files: what the original implementations computed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vistok.pretrained import official_file, reference_checkpoints
from vistok.system.paths import repository_root

GOLDEN = repository_root() / "tests" / "golden"


def relative_error(value: Tensor, expected: Tensor) -> float:
    return ((value - expected).norm() / expected.norm()).item()


def put_official(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a toy where the file of `llamagen-ds16` is expected, and make it the one that is known by that name."""
    golden = load_file(GOLDEN / "model_vqgan_llamagen.safetensors")
    file = official_file("llamagen-ds16")
    file.parent.mkdir(parents=True)
    torch.save({n.removeprefix("state."): t for n, t in golden.items() if n.startswith("state.")}, file)
    know_toy(monkeypatch)
    return file


def know_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sizes of LlamaGen's toy those that are known of `llamagen-ds16`."""
    known = reference_checkpoints()
    known["llamagen-ds16"] |= {"codebook_size": 128, "downsample_factor": 4}
    monkeypatch.setattr("vistok.pretrained.official.reference_checkpoints", lambda: known)
