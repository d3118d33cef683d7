"""Several processes that a notebook starts and follows: on the CPU, two."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from vistok import Run, TrainConfig, Trainer, VisualTokenizer
from vistok.runs import Report
from vistok.training.launching import LaunchedTrainer
from vistok.widgets import TrainingDashboard

pytestmark = pytest.mark.slow
Toy = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_reports_are_those_of_the_log_and_stopping_saves_and_goes_on(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=3000, report_every=10, checkpoint_every=3000)
    trainer = LaunchedTrainer(Run.open(tmp_path / "run", config), 2, progress=False)
    seen: list[Report] = []
    for report in trainer:
        assert trainer.result_step == 0 or len(seen) >= 3  # no checkpoint is due before it is stopped
        seen.append(report)
        if len(seen) == 3:
            trainer.stop()
    assert 30 <= trainer.step == trainer.result_step < 3000
    assert [report.step for report in seen] == [line["step"] for line in trainer.run.log()]
    assert trainer.step == trainer.run.checkpoints.load()[0]["step"]
    assert trainer.run.provenance["num_processes"] == 2
    weights = VisualTokenizer.load(tmp_path / "run").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in trainer.result.state_dict().items())

    stopped = trainer.step
    for report in trainer:  # and left by `break`
        assert report.step > stopped
        break
    assert trainer.step > stopped
    assert trainer.run.checkpoints.load()[0]["step"] == trainer.step
    steps = [line["step"] for line in trainer.run.log()]
    assert steps == [*range(10, trainer.step + 1, 10)]


def test_left_while_the_processes_start_it_ends_them(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Their launcher runs a helper first (PyTorch asks ldconfig for libraries), which is no training and may last.
    helper = (
        "import subprocess, sys\nif 'torch.distributed.run' in sys.orig_argv:\n    subprocess.Popen(['sleep', '3'])\n"
    )
    (tmp_path / "sitecustomize.py").write_text(helper)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    trainer = LaunchedTrainer(Run.open(tmp_path / "run", toy(steps=1500, report_every=1500)), 2, progress=False)
    reports = iter(trainer)
    interrupted = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupted.start()
    with pytest.raises(KeyboardInterrupt):
        next(reports)
    assert trainer.step < 1500
    with trainer.run.alone():  # no process trains it
        pass


def test_a_failure_to_save_what_was_stopped_is_said(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=10**6, report_every=1, checkpoint_every=10**6)  # nothing is saved before it is stopped
    trainer = LaunchedTrainer(Run.open(tmp_path / "run", config), 2, progress=False)
    folder = trainer.run.path / "checkpoint"
    with pytest.raises(RuntimeError, match="Of 2 processes one failed: The run .* cannot be written"):
        for _ in trainer:
            if folder.is_dir():
                folder.rmdir()
            folder.write_text("in the way")
            trainer.stop()


@pytest.mark.parametrize("entry", ["counts", "step"])
def test_a_checkpoint_without_an_entry_is_refused_by_a_sentence(toy: Toy, tmp_path: Path, entry: str) -> None:
    run = Run.open(tmp_path / "run", toy(steps=2))
    list(Trainer(run, progress=False))
    state, file = run.checkpoints.load()
    del state[entry]
    run.checkpoints.save(state, 2)
    for make in (Trainer, lambda run: LaunchedTrainer(run, 2)):
        with pytest.raises(ValueError, match=f"{file.name} is not one of this version's: it has no {entry}"):
            make(run)


def test_a_damaged_checkpoint_is_passed_over_once(toy: Toy, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run", toy(steps=20, checkpoint_every=10))
    list(Trainer(run, progress=False))
    newest = run.checkpoints.files()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="going on from step-000000010") as warned:
        trainer = LaunchedTrainer(run, 2, progress=False)
        assert [report.step for report in trainer][-1] == 20
    assert len(warned) == 1
    assert (trainer.step, trainer.result_step) == (20, 20)


def test_the_dashboard_shows_a_run_of_several_processes(toy: Toy, tmp_path: Path) -> None:
    trainer = LaunchedTrainer(Run.open(tmp_path / "run", toy(steps=40, report_every=5)), 2, progress=False)
    dashboard = TrainingDashboard(trainer, torch.zeros(2, 3, 16, 16))
    dashboard.start()
    dashboard.wait()
    assert (dashboard.phase, dashboard.step, dashboard.pictures_step) == ("finished", 40, 40)
    assert dashboard.last["step"] == 40
    assert dashboard.pictures
    assert trainer.counts[0].sum() == 5 * 4 * 4 * 4  # steps of the last report, images, and a grid of 4x4
    assert np.frombuffer(dashboard.counts, "<u4").tolist() == trainer.counts[0].tolist()
    trainer.run.check_finished()
    assert list(trainer) == []


def test_what_fails_in_the_processes_is_said_here(toy: Toy, tmp_path: Path) -> None:
    trainer = LaunchedTrainer(Run.open(tmp_path / "run", toy(lr=1e30, steps=100)), 2, progress=False)
    with pytest.raises(RuntimeError, match=r"Of 2 processes one failed: The (loss is|weights are) not finite"):
        list(trainer)


@pytest.mark.parametrize(
    ("number", "sentence"), [(0, "num_processes is 0, but must be"), (3, "cannot be shared evenly by 3")]
)
def test_a_number_that_does_not_fit_is_refused_before_anything_starts(
    toy: Toy, tmp_path: Path, number: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        LaunchedTrainer(Run.open(tmp_path / "run", toy()), number)
