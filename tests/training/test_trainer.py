"""Training: what a step computes depends on the configuration alone, and what goes wrong is said and loses nothing."""

import errno
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from helpers.trainings import assert_same_weights, crash_at, log_without_rates, opened, trained
from PIL import Image
from torch import Tensor

from vistok.config import TrainConfig
from vistok.evaluation.__main__ import main as evaluation_main
from vistok.quantizers import VectorQuantizer
from vistok.runs import Run
from vistok.system.checkpoints import Checkpoints
from vistok.system.paths import repository_root
from vistok.tokenizer import VisualTokenizer
from vistok.training.__main__ import main
from vistok.training.trainer import Trainer

Toy = Callable[..., TrainConfig]


ADVERSARIAL = {"discriminator": "patchgan", "adversarial_weight": 0.5, "image_size": 32, "hidden_dim": 8}


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "quantizer": "gumbel", "logit_laplace_weight": 1.0, "accumulate": 2},
        {"precision": "bfloat16", "lecam_weight": 0.1, "adversarial_adaptive": True} | ADVERSARIAL,
        {"precision": "float32", "r1_weight": 1.0, "gradient_clip": 1.0} | ADVERSARIAL,
    ],
    ids=str,
)
def test_autocast_outside_changes_nothing_that_is_trained(toy: Toy, tmp_path: Path, settings: dict[str, Any]) -> None:
    settings |= {"steps": 3, "report_every": 1}
    plain = trained(toy(**settings), tmp_path / "plain")
    with torch.autocast("cpu", torch.bfloat16):  # whose cache of weights lasts as long
        inside = trained(toy(**settings), tmp_path / "inside")
    assert_same_weights(inside.tokenizer.state_dict(), plain.tokenizer.state_dict())
    if plain.adversary:
        assert_same_weights(inside.adversary.discriminator.state_dict(), plain.adversary.discriminator.state_dict())
    assert log_without_rates(inside.run) == log_without_rates(plain.run)


def test_another_default_dtype_is_refused_before_training(toy: Toy) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(
            ValueError, match=r"default dtype is torch\.float64, but .*set_default_dtype\(torch\.float32\)"
        ):
            opened(toy())
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_the_loss_falls(toy: Toy, quantizer: str) -> None:
    config = toy(quantizer=quantizer, hidden_dim=32, batch_size=16, lr=3e-3, steps=60, report_every=10)
    losses = [report.losses["reconstruction"] for report in opened(config)]
    assert len(losses) == 6
    assert losses[-1] < 0.9 * losses[0]


def test_reports_are_what_was_trained(toy: Toy) -> None:
    trainer = opened(toy(steps=7, report_every=3))
    reports = list(trainer)
    assert [r.step for r in reports] == [3, 6, 7]
    for r in reports:
        losses = r.losses
        assert losses.keys() == {"reconstruction", "codebook", "commitment", "total"}
        total = losses["reconstruction"] + losses["codebook"] + 0.25 * losses["commitment"]
        assert losses["total"] == pytest.approx(total, rel=1e-5)
        assert 1 / 16 <= r.usage <= 1
        assert 1 <= r.perplexity <= 16 * r.usage + 1e-4
        assert r.images_per_second > 0
        assert 0 <= r.data_share <= 1
    assert [line["step"] for line in trainer.run.log()] == [3, 6, 7]


def test_a_finished_run_yields_nothing_and_is_not_touched(toy: Toy) -> None:
    run = trained(toy()).run
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    assert list(opened(toy())) == []
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_finished_run_whose_result_was_lost_writes_it_again(toy: Toy, tmp_path: Path) -> None:
    trained(toy(), tmp_path)
    file = tmp_path / "tokenizer/model.safetensors"
    before = file.read_bytes()
    file.unlink()
    assert list(opened(toy(), tmp_path)) == []
    assert file.read_bytes() == before


def test_the_saved_tokenizer_is_the_trained_one(toy: Toy) -> None:
    trainer = trained(toy())
    loaded = VisualTokenizer.load(trainer.run.path)
    assert_same_weights(loaded.state_dict(), trainer.tokenizer.state_dict())
    assert [path.name for path in trainer.run.checkpoints.files()] == ["step-000000004.pt", "step-000000006.pt"]
    trainer.run.check_finished()


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
@pytest.mark.parametrize(("report_every", "checkpoint_every"), [(2, 4), (3, 4), (2, 5)])
@pytest.mark.parametrize("leave", ["break", "crash"])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(
    toy: Toy, tmp_path: Path, quantizer: str, report_every: int, checkpoint_every: int, leave: str
) -> None:
    config = toy(quantizer=quantizer, steps=11, report_every=report_every, checkpoint_every=checkpoint_every)
    whole = trained(config, tmp_path / "whole")
    first = opened(config, tmp_path / "parts")
    if leave == "break":
        for report in first:
            if report.step >= 5:
                break
        resumed_from = report.step
    else:
        crash_at(first, 9)
        with pytest.raises(RuntimeError, match="crashed"):
            list(first)
        resumed_from = 8 if checkpoint_every == 4 else 5
    second = opened(config, tmp_path / "parts")
    assert second.step == resumed_from
    list(second)
    assert_same_weights(second.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(second.run) == log_without_rates(whole.run)
    moments = [
        torch.load(t.run.checkpoints.files()[-1], weights_only=True)["optimizer"]["state"] for t in (second, whole)
    ]
    assert_same_weights(*({f"{p}.{k}": v for p, s in m.items() for k, v in s.items()} for m in moments))


def test_leaving_and_going_on_with_the_same_trainer(toy: Toy, tmp_path: Path) -> None:
    whole = trained(toy(steps=9), tmp_path / "whole")
    trainer = opened(toy(steps=9), tmp_path / "parts")
    for _ in range(3):
        for _report in trainer:
            break
    assert trainer.step == 6
    assert [r.step for r in trainer] == [8, 9]
    assert_same_weights(trainer.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(trainer.run) == log_without_rates(whole.run)


def test_other_seeds_are_other_runs(toy: Toy) -> None:
    one, other = trained(toy(seed=0)), trained(toy(seed=1))
    assert one.run.path != other.run.path
    assert not torch.equal(one.tokenizer.quantizer.codebook, other.tokenizer.quantizer.codebook)


def test_deterministic_mode_changes_nothing_on_a_cpu(toy: Toy, tmp_path: Path) -> None:
    plain, asked = (trained(toy(deterministic=on), tmp_path / str(on)) for on in (False, True))
    assert plain.run.config.run_name == asked.run.config.run_name
    assert_same_weights(plain.tokenizer.state_dict(), asked.tokenizer.state_dict())


def test_each_further_process_draws_numbers_of_its_own_at_every_step(toy: Toy) -> None:
    trainer = opened(toy())
    trainer.take_step = lambda _: torch.rand(4)
    state = torch.get_rng_state()
    drawn = {}
    for rank, step in itertools.product((0, 1, 2), (3, 4, 3)):
        torch.set_rng_state(state)
        trainer.accelerator = SimpleNamespace(process_index=rank)
        trainer.step = step
        draw = tuple(trainer.train_step(None).tolist())
        assert drawn.setdefault((rank, step), draw) == draw  # the same once more
    torch.set_rng_state(state)
    assert drawn[0, 3] == drawn[0, 4] == tuple(torch.rand(4).tolist())  # the first goes on with the run's own
    assert len(set(drawn.values())) == 5


def test_workers_change_nothing(toy: Toy, tmp_path: Path) -> None:
    alone, helped = (trained(toy(num_workers=n), tmp_path / str(n)) for n in (0, 2))
    assert_same_weights(alone.tokenizer.state_dict(), helped.tokenizer.state_dict())
    assert log_without_rates(alone.run) == log_without_rates(helped.run)


SCRIPT = """
import sys, time
from vistok import Run, TrainConfig, Trainer
config = TrainConfig.from_json(sys.argv[1])
for report in Trainer(Run.open(sys.argv[2], config), progress=False):
    print(report.step, flush=True)
    time.sleep(0.05)
print("left", flush=True)
"""


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = toy(steps=30, report_every=2, checkpoint_every=1000)
    whole = trained(config, tmp_path / "whole")
    arguments = [config.to_json(), str(tmp_path / "parts")]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=repository_root(),
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # the caller may ignore it
    )
    assert process.stdout.readline() == "2\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output.endswith("left\n")
    assert "Traceback" not in errors
    said = re.search(r"Interrupted: saved at step (\d+) of 30; the same command goes on from there\.", output + errors)
    (checkpoint,) = Run.open(tmp_path / "parts").checkpoints.files()
    assert 2 <= int(said[1]) < 30
    assert checkpoint.name == f"step-{int(said[1]):09d}.pt"

    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(compile(SCRIPT, "the same command", "exec"), {})
    assert capsys.readouterr().out.startswith(f"{int(said[1]) // 2 * 2 + 2}\n")
    resumed = VisualTokenizer.load(tmp_path / "parts")
    assert_same_weights(resumed.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(Run.open(tmp_path / "parts")) == log_without_rates(whole.run)


def test_of_a_damaged_checkpoint_is_told_once(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=6, checkpoint_every=2)
    file = trained(config, tmp_path / "run").run.checkpoints.files()[-1]
    file.write_bytes(file.read_bytes()[:-1])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        trained(config, tmp_path / "run")  # looks when it is opened, and again when it has the run to itself
    assert len([warning for warning in told if file.name in str(warning.message)]) == 1


def test_after_a_failure_amid_a_step_it_goes_on_from_the_checkpoint(toy: Toy, tmp_path: Path) -> None:
    config = toy(quantizer="ema", steps=6, checkpoint_every=2)
    whole = trained(config, tmp_path / "whole")
    trainer = opened(config, tmp_path / "hurt")
    take, failures = trainer.optimizer.step, [KeyboardInterrupt]

    def step() -> None:  # gradients and the codebook's sums are already those of this step
        if trainer.step == 3 and failures:
            raise failures.pop()
        take()

    trainer.optimizer.step = step
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    list(trainer)
    assert_same_weights(trainer.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(trainer.run) == log_without_rates(whole.run)

    trainer = opened(config, tmp_path / "unsaved")  # what fails between two steps costs none
    write, failures = trainer.save, [OSError("The disk is full.")]

    def save() -> None:
        if trainer.step == 4 and failures:
            raise failures.pop()
        write()

    trainer.save = save
    with pytest.raises(OSError, match="The disk is full"):
        list(trainer)
    assert [report.step for report in trainer] == [6]
    assert_same_weights(trainer.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(trainer.run) == log_without_rates(whole.run)

    for name, method in (("unwritten", "save"), ("unreported", "_report")):  # at the very end
        trainer = opened(config, tmp_path / name)
        call, failures = getattr(trainer, method), [OSError("The disk is full.")]

        def failing(*given: Any, trainer: Trainer = trainer, call: Any = call, failures: list = failures) -> Any:
            if trainer.step == 6 and failures:
                raise failures.pop()
            return call(*given)

        setattr(trainer, method, failing)
        with pytest.raises(OSError, match="The disk is full"):
            list(trainer)
        list(trainer)
        assert trainer.run.checkpoints.load()[0]["step"] == 6
        assert log_without_rates(trainer.run) == log_without_rates(whole.run)

    trainer = opened(config, tmp_path / "early")
    trainer.optimizer.step = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(trainer)
    with pytest.raises(ValueError, match="failed before its first checkpoint: begin it again with a new Trainer"):
        list(trainer)


def test_after_a_failure_the_discriminators_side_is_that_of_the_checkpoint(toy: Toy, tmp_path: Path) -> None:
    adversarial = {"discriminator": "patchgan", "discriminator_options": {"hidden_dim": 8, "num_layers": 1}}
    config = toy(**adversarial, adversarial_weight=0.5, lecam_weight=0.1, accumulate=2, steps=6, checkpoint_every=2)
    whole = trained(config, tmp_path / "whole").adversary
    trainer = opened(config, tmp_path / "hurt")
    backward, failures = trainer.adversary.backward, [RuntimeError("out of memory")]

    def failing(*given: Any) -> Any:
        losses = backward(*given)
        if trainer.step == 4 and failures:  # after the first part of the batch
            trainer.adversary.discriminator.requires_grad_(False)
            raise failures.pop()
        return losses

    trainer.adversary.backward = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        list(trainer)
    list(trainer)
    assert_same_weights(trainer.adversary.discriminator.state_dict(), whole.discriminator.state_dict())
    assert_same_weights(trainer.adversary.loss.lecam.state_dict(), whole.loss.lecam.state_dict())


def test_a_run_does_not_go_on_with_other_images(toy: Toy, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(toy().data_root, root)
    config = toy(data_root=str(root), steps=6)
    stopped = opened(config, tmp_path / "run")
    for _ in stopped:
        break
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    kept = next(iter(root.rglob("*.png")))
    kept.rename(other := kept.with_name("other.png"))
    with pytest.raises(
        ValueError, match=r"others than those this run was trained on so far \(18 then, 18 now; fingerprint"
    ):
        list(opened(config, tmp_path / "run"))
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    other.rename(kept)
    list(opened(config, tmp_path / "run"))
    kept.rename(other)
    with pytest.raises(ValueError, match="others than those this run was trained on so far"):
        list(opened(config, tmp_path / "run"))  # finished: it is not the run of these images


@pytest.mark.parametrize("crop", ["cached", "adm"])
def test_a_run_does_not_go_on_with_other_images_of_the_same_names_and_sizes(
    toy: Toy, tmp_path: Path, crop: str
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for number in range(20):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(root / f"{number:02}.bmp")
    config = toy(data_root=str(root), crop=crop)
    for _ in opened(config, tmp_path / "run"):
        break
    before = (root / "03.bmp").read_bytes()
    Image.new("RGB", (20, 20), "blue").save(root / "03.bmp")
    with (
        pytest.raises(
            ValueError, match=r"sizes are the same, but not what is in them; 18 then, 18 now; content [0-9a-f]"
        ),
        warnings.catch_warnings(action="ignore"),  # the pixel cache is built again
    ):
        list(opened(config, tmp_path / "run"))
    (root / "03.bmp").write_bytes(before)  # another time, the same bytes
    record = json.loads((tmp_path / "run/config.json").read_text())
    with warnings.catch_warnings(action="ignore"):
        for _ in opened(config, tmp_path / "run"):
            break
    del record["provenance"]["data"]["content"]  # of before it was recorded
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    list(opened(config, tmp_path / "run"))
    assert json.loads((tmp_path / "run/config.json").read_text())["provenance"]["data"]["content"]


def test_a_loop_that_another_thread_closes_is_saved(toy: Toy, tmp_path: Path) -> None:
    trainer = opened(toy(steps=6, checkpoint_every=1000), tmp_path / "run")
    loop = iter(trainer)
    next(loop)
    closing = threading.Thread(target=loop.close)
    closing.start()
    closing.join()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the other thread could not
    assert trainer.run.checkpoints.load()[0]["step"] == 2


def test_the_first_ctrl_c_waits_for_the_step_and_the_handler_comes_back(toy: Toy) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = opened(toy(steps=20, checkpoint_every=1000))
    take = trainer.train_step

    def interrupted(images: Tensor) -> Any:
        if trainer.step == 4:
            signal.raise_signal(signal.SIGINT)
        return take(images)

    trainer.train_step = interrupted  # type: ignore[method-assign]
    assert [r.step for r in trainer] == [2, 4]
    assert trainer.step == 5
    assert trainer.run.checkpoints.load()[0]["step"] == 5
    assert signal.getsignal(signal.SIGINT) is before


def test_training_works_in_a_thread(toy: Toy, tmp_path: Path) -> None:
    there: list[Trainer] = []
    thread = threading.Thread(target=lambda: there.append(trained(toy(), tmp_path / "thread")))
    thread.start()
    thread.join(60)
    here = trained(toy(), tmp_path / "main")
    assert_same_weights(there[0].tokenizer.state_dict(), here.tokenizer.state_dict())


def test_a_huge_learning_rate_names_the_step_and_the_last_checkpoint(toy: Toy) -> None:
    trainer = opened(toy(lr=1e18, checkpoint_every=1, report_every=100))
    with pytest.raises(FloatingPointError) as error:
        list(trainer)
    (checkpoint,) = trainer.run.checkpoints.files()
    assert checkpoint.name == "step-000000001.pt"
    assert "The loss is not finite at step 2 (reconstruction" in str(error.value)
    assert f"the last good checkpoint is {checkpoint}." in str(error.value)
    assert "\n" not in str(error.value)
    assert all(value.isfinite().all() for value in trainer.run.checkpoints.load()[0]["tokenizer"].values())


def test_without_a_checkpoint_there_is_none_to_name(toy: Toy) -> None:
    trainer = opened(toy(checkpoint_every=100))
    with torch.no_grad():
        trainer.tokenizer.encoder.to_codes.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="at step 1 .*; there is no checkpoint yet"):
        list(trainer)
    assert trainer.run.checkpoints.files() == []
    assert trainer.run.log() == []
    assert not trainer.run.tokenizer_dir.exists()


def test_what_was_saved_before_a_non_finite_loss_is_still_good(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=8, checkpoint_every=4, report_every=3)
    whole = trained(config, tmp_path / "whole")
    trainer = opened(config, tmp_path / "poisoned")
    take = trainer.train_step

    def poisoned(images: Tensor) -> Any:
        if trainer.step == 5:
            with torch.no_grad():
                trainer.tokenizer.decoder.from_codes.weight.fill_(math.nan)
        return take(images)

    trainer.train_step = poisoned  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"not finite at step 6 .*step-000000004\.pt"):
        list(trainer)
    assert [path.name for path in trainer.run.checkpoints.files()] == ["step-000000004.pt"]
    again = trained(config, tmp_path / "poisoned")
    assert_same_weights(again.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert log_without_rates(again.run) == log_without_rates(whole.run)


def test_weights_that_overflowed_after_a_finite_loss_are_not_saved(toy: Toy) -> None:
    trainer = opened(toy(checkpoint_every=2, report_every=100))
    take = trainer.train_step

    def overflowing(images: Tensor) -> Any:
        result = take(images)
        if trainer.step == 3:
            with torch.no_grad():
                trainer.tokenizer.decoder.from_codes.weight.fill_(math.inf)
        return result

    trainer.train_step = overflowing  # type: ignore[method-assign]
    with pytest.raises(FloatingPointError, match=r"weights are not finite after step 4 .*step-000000002\.pt"):
        list(trainer)
    assert [path.name for path in trainer.run.checkpoints.files()] == ["step-000000002.pt"]
    assert all(value.isfinite().all() for value in VisualTokenizer.load(trainer.run.path).state_dict().values())


def test_a_crash_while_saving_leaves_no_run_that_passes_for_finished(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = opened(toy(steps=6, checkpoint_every=4))
    save = Checkpoints.save

    def full(self: Checkpoints, state: dict[str, Any], step: int) -> Path:
        if step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(self, state, step)

    monkeypatch.setattr(Checkpoints, "save", full)
    reason = re.escape(os.strerror(errno.ENOSPC))  # in the system's words
    sentence = rf"cannot be written \({reason}\)\. Its last whole checkpoint is step-000000004\.pt: make room"
    with pytest.raises(OSError, match=sentence):
        list(trainer)
    with pytest.raises(ValueError, match="has taken 4 of 6 steps"):
        trainer.run.check_finished()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"quantizer": "ema", "codebook_weight": 0.5},
            "codebook_weight is 0.5, but quantizer 'ema' has no such loss (it has: commitment): leave it out.",
        ),
        ({"quantizer": "ema", "l2_norm": True}, "The quantizer 'ema' has no option 'l2_norm'"),
        ({"quantizer_options": {"decay": 0.9}}, "The quantizer 'vq' has no option 'decay'"),
        ({"quantizer": "ema", "quantizer_options": {"decy": 0.9}}, "did you mean 'decay'?"),
        ({"dataset": "photos", "data_root": None, "crop": "adm"}, "crop is 'adm', but photos has one crop only"),
        ({"dataset": "photos"}, "but photos come with scikit-image; leave it None"),
        ({"dataset": "photos", "data_root": None, "test_fraction": 0.2}, "the splits of photos are fixed"),
    ],
)
def test_settings_without_effect_are_refused(toy: Toy, settings: dict[str, Any], sentence: str) -> None:
    config = toy(**settings)
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        opened(config)
    assert "\n" not in str(error.value)
    assert not config.run_dir.exists() or list(config.run_dir.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(ValueError, match="log_with is 'wandb', but that package is not installed"):
        opened(toy(log_with="wandb"))


def test_tensorboard_gets_every_report(toy: Toy) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = opened(toy(log_with="tensorboard"))
    for report in trainer:
        if report.step == 2:
            break
    trained(toy(log_with="tensorboard"))
    found: dict[int, float] = {}
    for file in trainer.run.path.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        if "loss/total" in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars("loss/total")}
    assert found == pytest.approx({line["step"]: line["losses"]["total"] for line in trainer.run.log()})
    assert sorted(found) == [2, 4, 6]


class ThreeLosses(VectorQuantizer):
    """A quantizer with a loss that nobody weighs."""

    def quantize(self, z: Tensor) -> Any:
        quantized = super().quantize(z)
        quantized.losses["entropy"] = z.mean()
        return quantized


def test_a_loss_without_a_weight_is_an_error(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules["vistok.quantizers"].QUANTIZERS, "three", ThreeLosses)
    trainer = opened(toy(quantizer="three"))
    with pytest.raises(KeyError, match="entropy.*have no weight"):
        list(trainer)
    assert trainer.run.checkpoints.files() == []


def test_weights_of_losses_are_used(toy: Toy, tmp_path: Path) -> None:
    plain = trained(toy(), tmp_path / "plain")
    heavy = trained(toy(commitment_weight=10.0), tmp_path / "heavy")
    first = [t.run.log()[0]["losses"] for t in (plain, heavy)]
    assert first[1]["total"] > first[0]["total"]
    assert not torch.equal(plain.tokenizer.encoder.to_codes.weight, heavy.tokenizer.encoder.to_codes.weight)


def test_precision_is_that_of_the_configuration(toy: Toy) -> None:
    seen: dict[str, torch.dtype] = {}
    losses = {}
    for precision in ("float32", "bfloat16"):
        trainer = opened(toy(precision=precision))
        trainer.tokenizer.decoder.from_codes.register_forward_hook(
            lambda _module, _inputs, output, name=precision: seen.__setitem__(name, output.dtype)
        )
        losses[precision] = [report.losses["total"] for report in trainer]
        assert json.loads((trainer.run.path / "config.json").read_text())["provenance"]["precision"] == precision
        assert {value.dtype for value in trainer.tokenizer.state_dict().values()} == {torch.float32}
    assert seen == {"float32": torch.float32, "bfloat16": torch.bfloat16}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerate")
def test_precision_is_not_that_of_accelerates_own_configuration(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    seen: set[torch.dtype] = set()
    trainer = opened(toy(precision="float32", steps=1))
    trainer.tokenizer.decoder.from_codes.register_forward_hook(lambda _module, _inputs, out: seen.add(out.dtype))
    list(trainer)
    assert seen == {torch.float32}


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(
    "left",
    [
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4", "ACCELERATE_GRADIENT_CLIPPING": "1e-6"},
        {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "auto", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
        {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DOWNCAST_BF16": "true"},
        {"ACCELERATE_MIXED_PRECISION": "fp8", "ACCELERATE_FP8_BACKEND": "TE", "ACCELERATE_FP8_FORMAT": "E4M3"},
        {"ACCELERATE_FP8_BACKEND": "MSAMP", "ACCELERATE_FP8_OPT_LEVEL": "O2"},
        {"ACCELERATE_FP8_BACKEND": "AO"},
        {"ACCELERATE_DYNAMO_BACKEND": "AOT_EAGER", "ACCELERATE_DYNAMO_USE_DYNAMIC": "true"},
        {"ACCELERATE_USE_FSDP": "false", "FSDP_VERSION": "2", "FSDP_ACTIVATION_CHECKPOINTING": "true"},
    ],
    ids=lambda left: next(iter(left)),
)
def test_what_accelerate_config_of_another_project_left_changes_no_number(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: dict[str, str]
) -> None:
    adversarial = {"discriminator": "patchgan", "discriminator_options": {"hidden_dim": 4, "num_layers": 1}}
    config = toy(**adversarial, adversarial_weight=0.5, gradient_clip=10.0, accumulate=2, steps=4)
    plain = trained(config, tmp_path / "plain")
    AcceleratorState._reset_state(reset_partial_state=True)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    compiled: list[str] = []
    monkeypatch.setattr(torch, "compile", lambda model, **_: compiled.append(type(model).__name__) or model)
    other = trained(config, tmp_path / "other")
    assert_same_weights(other.tokenizer.state_dict(), plain.tokenizer.state_dict())
    assert_same_weights(other.adversary.discriminator.state_dict(), plain.adversary.discriminator.state_dict())
    assert log_without_rates(other.run) == log_without_rates(plain.run)
    assert compiled == []


@pytest.mark.usefixtures("fresh_accelerate")
def test_another_accelerator_of_the_same_kernel_changes_no_number(toy: Toy, tmp_path: Path) -> None:
    plain, beside = trained(toy(), tmp_path / "plain"), opened(toy(), tmp_path / "beside")
    Accelerator(gradient_accumulation_steps=4).gradient_state._set_sync_gradients(False)  # all of them share this state
    try:
        list(beside)
    finally:
        beside.accelerator.gradient_state._set_sync_gradients(True)
    assert_same_weights(beside.tokenizer.state_dict(), plain.tokenizer.state_dict())


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "without DeepSpeed: unset it"),
        ("ACCELERATE_USE_FSDP", "True", "without FSDP: unset it"),
        ("ACCELERATE_USE_MEGATRON_LM", "1", "without Megatron-LM: unset it"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "without tensor or context parallelism: unset it"),
        ("ACCELERATE_USE_CPU", "maybe", "must be true or false"),
        ("ACCELERATE_DEBUG_MODE", "2", "must be true or false"),
        ("ACCELERATE_CPU_AFFINITY", "all", "must be true or false"),
        ("ACCELERATE_TORCH_DEVICE", "gpu", "is no device here"),
        ("ACCELERATE_TORCH_DEVICE", "meta", "is no device here"),
    ],
)
def test_what_accelerates_environment_cannot_mean_here_is_refused(
    toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} is {value!r}, but .*{says}"):
        opened(toy())
    file = tmp_path / "config.json"
    file.write_text(toy().to_json())
    assert main(["--config", str(file)]) == 1
    assert evaluation_main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.count(f"{name} is {value!r}, but ") == 2


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_machine_that_accelerate_would_train_on_by_torch_xla_is_refused(toy: Toy) -> None:
    PartialState().distributed_type = DistributedType.XLA  # which all of them share, until the fixture forgets it
    with pytest.raises(ValueError, match="set USE_TORCH_XLA=0"):
        opened(toy())


def test_another_thread_count_is_said_on_resuming(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    for _ in opened(toy()):
        break
    torch.set_num_threads(2)
    trained(toy())
    assert "This run goes on with threads 2, after 1: sums round differently." in capsys.readouterr().out


@pytest.mark.skipif(os.environ.get("VISTOK_EXTENDED") != "1", reason="compiles for minutes: VISTOK_EXTENDED=1")
def test_compiled_training_is_close_to_eager(toy: Toy) -> None:
    eager, compiled = (opened(toy(compile=compile)) for compile in (False, True))
    losses = [[report.losses["total"] for report in trainer] for trainer in (eager, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    loaded = VisualTokenizer.load(compiled.run.path)
    assert_same_weights(loaded.state_dict(), compiled.tokenizer.state_dict())


@pytest.mark.parametrize(
    "settings",
    [
        {"quantizer": "ema", "quantizer_options": {"init": "kmeans", "revive_after": 1}},
        {"quantizer": "gumbel"},
    ],
    ids=["ema", "gumbel"],
)
def test_a_busy_neighbour_is_told_of_and_trying_it_out_trains_nothing(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, settings: dict[str, Any]
) -> None:
    """The trial takes whole steps, of a quantizer that learns inside `forward` or draws, and nothing of the run moves."""
    torch.set_num_threads(2)
    states = []
    for found in (None, (0.5, 0.25)):

        def trial(
            step: Callable[[], object], num_steps: int, found: tuple[float, float] | None = found
        ) -> tuple[float, float] | None:
            if found is not None:
                step()
                step()
            return found

        monkeypatch.setattr("vistok.system.threads.slower_than_one", trial)
        states.append(trained(toy(**settings), tmp_path / str(len(states))).tokenizer.state_dict())
    assert_same_weights(*states)
    said = capsys.readouterr().err  # beside the bars, which a table's run passes on to the terminal
    assert said.count("busy") == 1
    assert "2 threads train 8 images a second now, one thread 16" in said and "OMP_NUM_THREADS=1" in said


def test_a_few_images_are_enough_to_try_out_what_a_whole_batch_starts_by_kmeans(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.training.trainer.TRIAL_IMAGES", 1)  # 16 tokens
    torch.set_num_threads(2)
    start = {"quantizer_options": {"init": "kmeans"}, "codebook_size": 17, "steps": 1}
    assert trained(toy(**start), tmp_path).tokenizer.quantizer.initialized


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_the_command_line_ends_well_where_neither_output_nor_locale_is_utf8(
    encoding: str, toy: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(toy(steps=2).to_json(), encoding="utf-8")
    plain = {"PYTHONIOENCODING": encoding, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "vistok.training", "--config", str(tmp_path / "config.json")]
    command += ["--run-dir", f"{tmp_path}/Läufe 数"]
    done = subprocess.run(command, env=os.environ | plain, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert done.stdout.startswith(b"step 2 of 2, loss ") and rb"L\udcc3\udca4ufe" in done.stdout
    assert Run.open(tmp_path / "Läufe 数").steps_logged == 2


def test_the_command_line_reads_settings_by_their_type(
    toy: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(toy().to_json(), encoding="utf-8")
    command = ["--config", str(tmp_path / "config.json"), "--run-dir"]
    given = ["-p", "steps", "1", "-p", "flip", "false", "-p", "lr", "1e-3", "-p", "ema_decay", "null"]
    assert main([*command, str(tmp_path / "run"), *given]) == 0
    config = Run.open(tmp_path / "run").config
    assert (config.steps, config.flip, config.lr, config.ema_decay) == (1, False, 1e-3, None)
    capsys.readouterr()
    for wrong, sentence in {
        ("flip", "maybe"): "flip is 'maybe' (str), but must be of type bool.",
        (
            "quantizer_options",
            "{revive_after: '50'}",
        ): "quantizer 'vq': revive_after is '50' (str), but must be of type",
    }.items():
        assert main([*command, str(tmp_path / "none"), "-p", *wrong]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["--row", "celeba64", "-p", "scale", "smoke"]) == 1
    assert "scale is given with -p, but is an argument of its own: --scale smoke." in capsys.readouterr().err
    (tmp_path / "notes.md").write_text("# Notes")
    for wrong, sentence in (
        (["--row", "celeba64", "--scale", ""], "There is no scale ''"),  # an unset variable of the shell
        (["--config", str(tmp_path / "notes.md")], "notes.md is damaged, or no JSON"),
    ):
        assert main([*wrong, "-p", "steps", "1", "--run-dir", str(tmp_path / "none")]) == 1
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
