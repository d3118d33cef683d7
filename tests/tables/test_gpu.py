"""`make gpu-table`: here without a GPU, so the trial of the command, on toys."""

import json
import time
from pathlib import Path

import pytest
import torch

from vistok.system.paths import runs_root
from vistok.tables import gpu

pytestmark = pytest.mark.slow


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "STEPS", 3)
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 0)


def test_a_row_is_measured_beside_its_estimate(short: None) -> None:
    row = gpu.measure_row("imagenet256/llamagen-corrected", "smoke", batch_size=2, report_every=1)
    assert row["batch_size"] == 2 and row["images_per_second"] > 0 and 0 <= row["data_share"] <= 1
    assert row["estimated_peak_gib"] > 0
    assert (row["peak_gib"] is None) == (not torch.cuda.is_available())


def test_the_frozen_networks_of_a_paper_row_are_there_without_a_download(short: None) -> None:
    row = gpu.measure_row("imagenet256/taming-corrected", "smoke", batch_size=2, report_every=1, lpips_weight=1.0)
    without = gpu.measure_row("imagenet256/taming-corrected", "smoke", batch_size=2, report_every=1)
    assert row["estimated_peak_gib"] > without["estimated_peak_gib"]  # VGG16 is in it


def test_the_record_holds_every_part_and_one_that_fails_ends_no_other(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "train_row", lambda row, *_: {"run": row})
    file = gpu.gpu_table(
        5, paper_scale="smoke", paper_rows=["celeba64/vq-d5", "celeba64/vq-d4"], rows=["ema-d4"], scale="smoke"
    )
    assert file.parent == runs_root() and file.name.startswith("gpu-")
    record = json.loads(file.read_text())
    assert record["minutes"] == 5 and record["provenance"]["versions"]["torch"]
    wrong, measured, trained = [record["found"][name] for name in list(record["found"])[-3:]]
    assert "vq-d5" in wrong["missing"] and "vq-d4" in wrong["missing"]  # and the nearest that there is
    assert measured["images_per_second"] > 0
    assert trained["run"] == "ema-d4"


def test_what_the_time_does_not_reach_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = gpu.Parts(0.001, tmp_path / "record.json", {})
    time.sleep(0.1)
    parts.do("late", lambda: pytest.fail("begun"))
    assert json.loads((tmp_path / "record.json").read_text())["found"] == {"late": {"missing": "the time was over"}}


def test_an_earlier_record_is_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "gpu-card.json"
    for number in range(3):
        parts = gpu.Parts(1, file, {})
        for name in "ab":
            parts.do(name, lambda number=number: {"number": number})
    names = ["gpu-card.json", "gpu-card.before-2.json", "gpu-card.before-1.json"]
    assert [json.loads((tmp_path / name).read_bytes())["found"]["b"]["number"] for name in names] == [2, 1, 0]


def test_a_row_is_trained_through_the_notebooks() -> None:
    trained = gpu.train_row("vq-d4", 300, "smoke", "photos", None)
    assert trained["run"].startswith("vq-d4-smoke-photos-s") and trained["psnr"] > 0
    assert (runs_root() / trained["run"] / "metrics.json").is_file()


def test_a_row_that_takes_too_long_says_so() -> None:
    with pytest.raises(RuntimeError, match="the time was over"):
        gpu.train_row("vq-d4", 0.5, "smoke", "photos", None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_that_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == "There is no CUDA device here; --on-cpu tries the command without one.\n"


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--minutes", "0"], "above 0"), (["--on-cpu", "--scale", "laptp"], "laptop")]
)
def test_what_cannot_be_is_refused_before_work(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert said in capsys.readouterr().err
