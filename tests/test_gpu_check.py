"""`make gpu-check`: here without a GPU, so on two trainings of the CPU, and in whole where there is one."""

from pathlib import Path

import pytest
import torch

from vistok import gpu_check

pytestmark = pytest.mark.slow
TINY = {"hidden_dim": 8, "batch_size": 4, "steps": 3}


def test_the_same_training_has_the_same_losses_and_another_one_has_not(tmp_path: Path) -> None:
    first, again = (gpu_check.train_in_float32(tmp_path / name, cpu=True, **TINY) for name in ("first", "again"))
    assert len(first) == 3
    assert gpu_check.largest_difference(first, again) == 0
    other = gpu_check.train_in_float32(tmp_path / "other", cpu=True, **TINY, seed=1)
    assert gpu_check.largest_difference(first, other) > gpu_check.LARGEST_DIFFERENCE


def test_what_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="(?s)Training in wrong failed:.*There is no dataset 'nothing'"):
        gpu_check.train_in_float32(tmp_path / "wrong", cpu=True, dataset="nothing")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_that_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main() == 1
    assert capsys.readouterr().err == "There is no CUDA device here, so there is nothing to check.\n"


@pytest.mark.cuda
def test_the_gpu_computes_what_the_cpu_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main() == 0
    assert "images/s" in capsys.readouterr().out
