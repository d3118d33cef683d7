"""The training dashboard: it changes nothing that is trained, saves whenever it stops, and stays cheap in a long run."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import SMALL, class_images, toy_tokenizer, toy_tokens
from torch import Tensor

from vistok.config import TrainConfig
from vistok.generation.trainer import GeneratorTrainer
from vistok.generator_config import GeneratorConfig
from vistok.images import to_uint8
from vistok.runs import RATES, Report, Run
from vistok.system import progress
from vistok.system.paths import repository_root
from vistok.tokens.encoded import EncodedImages
from vistok.training.__main__ import main
from vistok.training.trainer import Trainer
from vistok.widgets import dashboard as module
from vistok.widgets.dashboard import TrainingDashboard

Toy = Callable[..., TrainConfig]
IMAGES = torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


def opened(config: TrainConfig, path: Path | None = None) -> Trainer:
    return Trainer(Run.open(path, config), progress=False)


def shown(config: TrainConfig, path: Path | None = None, **options: Any) -> TrainingDashboard:
    """Return the dashboard of a run that was trained with it."""
    dashboard = TrainingDashboard(opened(config, path), IMAGES, **options)
    dashboard.start()
    dashboard.wait()
    return dashboard


def log_without_rates(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key not in RATES} for line in run.log()]


def slow(trainer: Trainer, seconds: float) -> None:
    """Make a step take longer, so that a test can act amid it."""
    take = trainer.train_step

    def slower(images: Tensor) -> Any:
        time.sleep(seconds)
        return take(images)

    trainer.train_step = slower  # type: ignore[method-assign]


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def curves(dashboard: TrainingDashboard) -> np.ndarray:
    return np.frombuffer(dashboard.curves, "<f4").reshape(-1, len(dashboard.series))


ROWS: list[dict[str, Any]] = [
    {},
    {"quantizer": "ema", "ema_decay": 0.9},
    {"quantizer": "gumbel"},
    {"quantizer_options": {"revive_after": 2}},
    {"quantizer": "kl", "codebook_size": 512},
]


@pytest.mark.parametrize("settings", ROWS, ids=lambda settings: "-".join(map(str, settings.values())) or "vq")
def test_what_is_trained_is_the_same_bit_for_bit(toy: Toy, tmp_path: Path, settings: dict[str, Any]) -> None:
    config = toy(**settings)
    plain = opened(config, tmp_path / "plain")
    list(plain)
    watched = shown(config, tmp_path / "watched", images_every=0.0)  # reconstructions as often as can be
    ours, theirs = watched.trainer.result.state_dict(), plain.result.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert log_without_rates(watched.trainer.run) == log_without_rates(plain.run)
    states = [torch.load(t.run.checkpoints.files()[-1], weights_only=True) for t in (watched.trainer, plain)]
    assert torch.equal(states[0]["rng"], states[1]["rng"])


def test_what_others_look_at_in_the_meantime_changes_nothing_that_is_trained(toy: Toy, tmp_path: Path) -> None:
    settings = {"quantizer": "ema", "quantizer_options": {"revive_after": 2}, "steps": 12}
    alone = opened(toy(**settings), tmp_path / "alone")
    for _ in alone:
        pass
    dashboard = TrainingDashboard(opened(toy(**settings), tmp_path / "looked-at"), IMAGES)
    tokenizer = dashboard.trainer.tokenizer
    looked = 0
    slow(dashboard.trainer, 0.01)
    dashboard.start()
    while dashboard._trains:
        EncodedImages.open(tokenizer, IMAGES, progress=False).reconstructions([0])
        looked += 1
    dashboard.wait()
    assert looked
    for name, value in alone.tokenizer.state_dict().items():
        assert torch.equal(value, tokenizer.state_dict()[name]), name


def test_images_that_do_not_fit_are_refused(toy: Toy) -> None:
    trainer = opened(toy())
    with pytest.raises(ValueError, match=r"images / 127\.5 - 1 maps \[0, 255\] there"):
        TrainingDashboard(trainer, torch.full((2, 3, 16, 16), 200.0))
    with pytest.raises(ValueError, match="to_float converts uint8"):
        TrainingDashboard(trainer, torch.zeros(2, 3, 16, 16, dtype=torch.uint8))


def test_the_counts_are_those_of_the_last_report(toy: Toy) -> None:
    trainer = opened(toy())
    assert trainer.counts[0].dtype == torch.int64 and not trainer.counts[0].any()
    for report in trainer:
        (counts,) = trainer.counts
        assert counts.sum() == 2 * 4 * 4 * 4  # steps, images, and a grid of 4x4
        assert (counts > 0).sum() == round(report.usage * 16)


def test_it_shows_what_the_log_says(toy: Toy) -> None:
    dashboard = shown(toy())
    log = dashboard.trainer.run.log()
    assert dashboard.phase == "finished" and dashboard.step == dashboard.steps == 6
    assert dashboard.series[:4] == ["step", "usage", "perplexity", "reconstruction"]
    assert curves(dashboard)[:, 0].tolist() == [2, 4, 6]
    total = curves(dashboard)[:, dashboard.series.index("total")]
    assert total == pytest.approx([line["losses"]["total"] for line in log], rel=1e-6)
    assert np.frombuffer(dashboard.counts, "<u4").tolist() == dashboard.trainer.counts[0].tolist()
    assert dashboard.levels == [16] and dashboard.pictures_step == 6
    assert dashboard.weights == dashboard.trainer.loss_weights
    dead = int((dashboard.trainer.counts[0] == 0).sum())
    assert "step 6 of 6" in dashboard.description and f"{dead} of 16 codes were chosen by no token" in repr(dashboard)
    data, metadata = dashboard._repr_mimebundle_()
    assert data.keys() >= {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert metadata["image/png"]["alt"] == dashboard.description


def test_several_levels_travel_one_after_the_other(toy: Toy) -> None:
    dashboard = shown(toy(quantizer="residual", quantizer_options={"num_levels": 2}))
    assert dashboard.levels == [16, 16]
    sent = np.frombuffer(dashboard.counts, "<u4")
    assert sent.tolist() == torch.cat(dashboard.trainer.counts).tolist()
    assert dashboard.figure() is not None


def test_without_a_codebook_it_says_so(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    dashboard = shown(toy(quantizer="none", codebook_size=512, report_every=2))
    assert dashboard.phase == "finished" and not dashboard.message
    assert dashboard.levels == [] and not dashboard.counts
    assert np.isnan(curves(dashboard)[:, 1:3]).all() and np.isfinite(curves(dashboard)[:, 3:]).all()
    assert dashboard.description.endswith(": there is no codebook to use.")
    texts = [text.get_text() for axis in dashboard.figure().axes for text in axis.texts]
    assert texts == ["no codebook, and so no usage"]
    assert "usage" not in str(dashboard.trainer.run.log()[-1]["losses"])
    assert main(["--config", str(dashboard.trainer.run.path / "config.json")]) == 0
    (said,) = re.findall("step 6 of 6, .*", "".join(capsys.readouterr()))
    assert re.match(r"step 6 of 6, loss \d+\.\d+: ", said)


def test_a_stop_saves_and_starting_again_goes_on(toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = toy(steps=30, checkpoint_every=1000)
    plain = opened(config, tmp_path / "plain")
    list(plain)
    dashboard = TrainingDashboard(opened(config, tmp_path / "parts"), IMAGES)
    slow(dashboard.trainer, 0.05)
    dashboard.start()
    wait_until(lambda: dashboard.trainer.step >= 5)
    dashboard._heard(dashboard, {"stop": True}, [])  # what a click sends
    assert dashboard.phase in ("stopping", "stopped")
    dashboard.wait()
    step = dashboard.trainer.step
    assert 5 <= step < 30 and dashboard.phase == "stopped" and dashboard.step == step
    assert f"Interrupted: saved at step {step} of 30; the same command goes on from there." in capsys.readouterr().out
    assert dashboard.trainer.run.checkpoints.files()[-1].name == f"step-{step:09d}.pt"

    dashboard.start()  # with the same trainer
    wait_until(lambda: dashboard.trainer.step >= step + 3)
    dashboard.stop()
    dashboard.wait()
    again = shown(config, tmp_path / "parts")  # with another, of the checkpoint
    assert again._first_step == dashboard.trainer.step > step
    assert curves(again)[:, 0].tolist() == list(range(2, 31, 2))  # earlier starts are shown too
    ours, theirs = again.trainer.tokenizer.state_dict(), plain.tokenizer.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert log_without_rates(again.trainer.run) == log_without_rates(plain.run)


def test_a_stop_before_the_first_step_is_heard(toy: Toy) -> None:
    dashboard = TrainingDashboard(opened(toy(steps=1000)), IMAGES)
    dashboard.start()
    dashboard.stop()
    dashboard.wait()
    assert dashboard.trainer.step < 1000


def test_a_second_dashboard_of_a_run_takes_over(toy: Toy) -> None:
    first = TrainingDashboard(opened(toy(steps=100)), IMAGES)
    slow(first.trainer, 0.02)
    first.start()
    wait_until(lambda: first.trainer.step >= 3)
    second = TrainingDashboard(first.trainer, IMAGES)
    second.start()
    assert first.phase == "stopped" and not first._trains
    second.stop()
    second.wait()
    assert second.trainer.step >= first.step


def fail_at(trainer: Trainer, step: int, error: Exception) -> None:
    take = trainer.train_step

    def failing(images: Tensor) -> Any:
        if trainer.step + 1 == step:
            raise error
        return take(images)

    trainer.train_step = failing  # type: ignore[method-assign]


def test_an_error_is_raised_where_somebody_waits_and_said_where_nobody_does(toy: Toy) -> None:
    dashboard = TrainingDashboard(opened(toy()), IMAGES)
    fail_at(dashboard.trainer, 4, RuntimeError("the disk is full"))
    dashboard.start()
    dashboard._thread.join(60)
    assert dashboard.phase == "failed" and dashboard.message == "RuntimeError: the disk is full"
    with pytest.raises(RuntimeError, match="the disk is full"):
        dashboard.wait()
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        TrainingDashboard(opened(toy()), IMAGES).wait()


def test_a_finished_run_is_shown_and_not_touched(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    run = shown(toy()).trainer.run
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    capsys.readouterr()
    dashboard = shown(toy())
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert dashboard.phase == "finished" and len(curves(dashboard)) == 3 and dashboard.pictures
    assert (
        np.frombuffer(dashboard.counts, "<u4").sum() == 2 * 4 * 4 * 4
    )  # those of the last report, from the checkpoint
    assert dashboard.figure() is not None
    assert "of 6 steps" not in capsys.readouterr().err


def test_the_bar_is_the_trainers(toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.0)
    dashboard = shown(toy())
    name, last = dashboard.trainer.config.run_name, dashboard.trainer.run.log()[-1]
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"{name}: 6 of 6 steps in ")
    assert line.endswith(f" s · loss {last['losses']['total']:.4f}, usage {last['usage']:.1%}")


def test_the_bar_and_the_dashboard_have_one_estimate(toy: Toy) -> None:
    """A slow first step and fast ones after it: a bar that forgets, as tqdm's does, would say less than the dashboard."""
    dashboard = TrainingDashboard(opened(toy(steps=1000)), IMAGES)
    bar = dashboard._bar()
    for seconds, step in ((60.0, 1), (61.0, 2), (62.0, 3), (63.0, 4)):
        bar._time = lambda seconds=seconds: bar.start_t + seconds
        dashboard.trainer.step = step
        dashboard._advance(bar)
        dashboard._since = module.time.monotonic() - seconds
        dashboard._push()
    assert f"· {progress.span(dashboard.seconds_left)} left" in progress.sentence(bar.format_dict)
    assert dashboard.seconds_left == pytest.approx(63 / 4 * 996, rel=0.01)


@pytest.mark.parametrize("reports", [1, 599, 600, 601, 5000])
def test_curves_stay_short_and_their_means_true(reports: int) -> None:
    history = module._History()
    values = np.random.default_rng(0).random(reports)
    for number in range(reports):
        losses = {"total": values[number]} | ({"adversarial": 2.0} if number >= reports // 2 else {})
        history.add({"step": number + 1, "usage": 0.5, "perplexity": 3.0, "losses": losses})
    found = history.values()
    assert min(reports, module.POINTS // 2) <= len(found) <= module.POINTS and found.dtype == np.float32
    assert history.names == ["step", "usage", "perplexity", "total", "adversarial"]
    sizes = np.full(len(found), history._per_point)
    sizes[-1] = len(history._open) or history._per_point
    assert sizes.sum() == reports
    assert (found[:, 3] * sizes).sum() / reports == pytest.approx(values.mean(), rel=1e-5)
    assert (np.diff(found[:, 0]) > 0).all()
    assert set(found[~np.isnan(found[:, 4]), 4]) == {2.0}
    assert len(history.entries()) == len(found)


class Clock:
    """A time that passes only while somebody waits, so that a law of seconds holds on a busy machine too."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self.now, self._end, self._act = 0.0, seconds, act

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self, seconds: float) -> bool:
        """Let the training go on, a step each 64th of a second, until the time is over or the training is."""
        until = min(self.now + seconds, self._end)
        while self.now < until:
            self.now += 1 / 64  # sums of it are exact
            self._act()
        return self.now >= self._end


@pytest.mark.parametrize("reporting", [True, False])
def test_two_messages_a_second_and_steps_between_reports(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, reporting: bool
) -> None:
    dashboard = TrainingDashboard(opened(toy(steps=10_000)), IMAGES, images_every=5.0)
    trainer = dashboard.trainer
    sent: list[tuple[float, set[str]]] = []

    def send_state(self: TrainingDashboard, key: Any = None) -> None:
        if key:
            sent.append((clock.now, {key} if isinstance(key, str) else set(key)))

    def step() -> None:
        trainer.step += 1
        trainer.counts = [torch.randint(1, 9, (16,))]
        if reporting:
            losses = {"reconstruction": 1 / trainer.step, "total": 1 / trainer.step}
            dashboard._note(Report(trainer.step, losses, 0.5, 3.0, 100.0, 0.0))

    clock = Clock(20.0, step)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(TrainingDashboard, "send_state", send_state)
    dashboard._reset()
    dashboard._ended = clock  # type: ignore[assignment]  # what the sender waits for
    dashboard._send_news()
    assert trainer.step == 20 * 64
    times = np.array([at for at, _ in sent])
    assert len(times) == 39 and np.diff(times).min() >= module.PUSH_SECONDS
    told = {
        name: np.array([at for at, keys in sent if name in keys])
        for name in ("step", "curves", "counts", "pictures_step")
    }
    assert len(told["step"]) == 39
    if reporting:
        assert len(told["curves"]) == 39
        assert 15 <= len(told["counts"]) <= 20 and np.diff(told["counts"]).min() >= module.COUNTS_SECONDS
        assert 3 <= len(told["pictures_step"]) <= 4 and np.diff(told["pictures_step"]).min() >= 4.5
    else:
        assert not any(len(told[name]) for name in ("curves", "counts", "pictures_step"))


def test_reconstructions_wait_where_they_cost_too_much(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    reconstruct = TrainingDashboard._reconstruct

    def slower(self: TrainingDashboard) -> None:
        made.append(self.trainer.step)
        reconstruct(self)
        self._seconds_pictures = 10.0

    monkeypatch.setattr(TrainingDashboard, "_reconstruct", slower)
    shown(toy(steps=20), images_every=0.0)
    assert made == [2, 20]  # the first and the last


def test_former_reconstructions_are_kept_a_limited_number_denser_at_first(toy: Toy) -> None:
    dashboard = TrainingDashboard(opened(toy()), IMAGES)
    trainer = dashboard.trainer
    for step in range(5, 2505, 5):
        trainer.step = step
        dashboard._reconstruct()
        assert len(dashboard._pictures) <= module.PICTURES_KEPT
    dashboard._push()
    steps = dashboard.pictured_steps
    assert len(steps) == module.PICTURES_KEPT and steps == sorted(steps) and (steps[0], steps[-1]) == (5, 2500)
    assert steps[1] == 10 and max(later / step for step, later in pairwise(steps)) <= 2  # doublings at most
    assert dashboard.pictures_step == 2500 and dashboard.pictures == dashboard._pictures[2500]

    trainer.step = 1200  # a part that failed is trained anew
    dashboard._reconstruct()
    assert max(dashboard._pictures) == 1200


@pytest.mark.parametrize("model", ["autoregressive", "masked"])
def test_a_generator_is_watched_by_its_samples_and_trains_what_it_trains_alone(model: str, tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.save(tmp_path / "tokenizer")
    toy_tokens(tokenizer, class_images(tmp_path / "images", 4), tmp_path / "tokens")
    config = GeneratorConfig(
        tokens=str(tmp_path / "tokens"),
        tokenizer=str(tmp_path / "tokenizer"),
        **{"model": model, "network_options": SMALL, "by_class": True, "batch_size": 4, "steps": 4, "report_every": 2},
    )
    alone = GeneratorTrainer(Run.open(tmp_path / "alone", config), progress=False)
    list(alone)
    trainer = GeneratorTrainer(Run.open(tmp_path / "watched", config), progress=False)
    dashboard = TrainingDashboard(trainer, range(3), images_every=0.0)
    dashboard.start()
    dashboard.wait()
    for name, value in alone.generator.state_dict().items():
        assert torch.equal(value, trainer.generator.state_dict()[name]), name
    assert log_without_rates(trainer.run) == log_without_rates(alone.run)
    assert dashboard.series == ["step", "usage", "perplexity", "cross_entropy", "total"] and dashboard.levels == []
    assert dashboard.pictured == "samples of one seed each" and dashboard.pictures_step == 4
    samples = to_uint8(tokenizer.decode(trainer.generator.sample(range(3), [0, 1, 0])))
    assert torch.equal(dashboard._unpacked(dashboard.pictures), samples)
    assert dashboard.figure() is not None
    with pytest.raises(ValueError, match="keeps no tokenizer that would decode samples"):
        bare = GeneratorConfig(tokens=config.tokens, network_options=SMALL, batch_size=4, steps=4)
        TrainingDashboard(GeneratorTrainer(Run.open(tmp_path / "bare", bare), progress=False), range(3))


def test_reconstructions_of_a_step_are_chosen_here_too(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    dashboard = shown(toy(), images_every=0.0)
    monkeypatch.setattr(module, "PICTURES_SHARE", 1e9)
    first, last = dashboard.pictured_steps[0], dashboard.pictured_steps[-1]
    assert (first, last) == (2, 6)
    drawn: list[Tensor] = []
    monkeypatch.setattr(module.plots, "dashboard", lambda *parts: drawn.append(parts[-2]))
    dashboard.figure()
    dashboard.shown_step = first
    dashboard.figure()
    assert drawn[0].shape == drawn[1].shape == (2, 3, 32, 16)
    assert torch.equal(drawn[0][:, :, :16], drawn[1][:, :, :16]) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0][:, :, :16], to_uint8(IMAGES))
    dashboard.shown_step = 3
    assert dashboard.shown_step == first
    assert dashboard.message == f"There are no pictures of step 3; the nearest are those of step {first}."
    dashboard.shown_step = -1
    assert dashboard.message == ""

    sent: list[Any] = []
    monkeypatch.setattr(dashboard, "send", lambda content, buffers: sent.append((content, buffers)))
    dashboard._heard(dashboard, {"pictures": first}, [])
    dashboard._heard(dashboard, {"pictures": 3}, [])
    assert sent == [({"pictures": first}, [dashboard._pictures[first]])]


def test_who_is_looked_at_stays(toy: Toy) -> None:
    steps = [1, 2, 3, 4, 100]
    assert module._least_missed(steps, shown=-1) == 3
    assert module._least_missed(steps, shown=3) == 2


SCRIPT = """
import sys, threading, time, _thread, signal
import torch
from vistok import Run, TrainConfig, Trainer
from vistok.widgets.dashboard import TrainingDashboard
trainer = Trainer(Run.open(sys.argv[2], TrainConfig.from_json(sys.argv[1])), progress=False)
dashboard = TrainingDashboard(trainer, torch.zeros(1, 3, 16, 16))
dashboard.start()
def at_step(step, act):
    while trainer.step < step:
        time.sleep(0.01)
    act()
if sys.argv[3] == "wait":
    threading.Thread(target=at_step, args=(5, _thread.interrupt_main)).start()
    dashboard.wait()
    print("returned", dashboard.phase, trainer.step, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
else:
    at_step(5, lambda: print("leaves", flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["wait", "exit"])
def test_interrupting_wait_and_leaving_python_both_save(toy: Toy, tmp_path: Path, way: str) -> None:
    config = toy(steps=1_000_000, checkpoint_every=1_000_000)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, config.to_json(), str(tmp_path / "run"), way],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=repository_root(),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the caller may ignore it
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints.files()
    step = int(checkpoint.stem.removeprefix("step-"))
    assert 5 <= step < 1_000_000
    if way == "wait":
        assert f"Interrupted: saved at step {step} of 1000000" in result.stdout
        assert f"returned stopped {step} True" in result.stdout
    else:
        assert "leaves" in result.stdout


def test_waiting_works_in_a_thread(toy: Toy) -> None:
    dashboard = TrainingDashboard(opened(toy()), IMAGES)
    dashboard.start()
    thread = threading.Thread(target=dashboard.wait)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and dashboard.phase == "finished"
