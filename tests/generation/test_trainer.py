"""A generator trains as everything does: it learns, is interrupted, killed and resumed, refused, and lies in its run."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import SMALL, class_images, toy_tokenizer, toy_tokens
from helpers.trainings import assert_same_weights, log_without_rates

from vistok.config import TrainConfig
from vistok.evaluation.run_records import evaluate_run
from vistok.generation.__main__ import main
from vistok.generation.generator import Autoregressive, Generator, Masked
from vistok.generation.trainer import GeneratorTrainer
from vistok.generator_config import SIZES, GeneratorConfig
from vistok.runs import Run
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import TokenFile
from vistok.training.launching import LaunchedTrainer
from vistok.training.trainer import Trainer
from vistok.widgets.curves import RunCurves

Toy = Callable[..., GeneratorConfig]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer, and the tokens of 32 images of two classes."""
    folder = tmp_path_factory.mktemp("data")
    tokenizer = toy_tokenizer()
    tokenizer.save(folder / "tokenizer")
    toy_tokens(tokenizer, class_images(folder / "images"), folder / "tokens")
    return folder


@pytest.fixture
def toy(data: Path) -> Toy:
    """Make a configuration that trains in a blink."""

    def make(**settings: Any) -> GeneratorConfig:
        small = {
            "tokens": str(data / "tokens"),
            "size": "1m",
            "network_options": SMALL,
            "batch_size": 8,
            "steps": 12,
            "lr": 3e-3,
            "precision": "float32",
            "report_every": 3,
            "checkpoint_every": 5,
            "seed": 0,
        }
        return GeneratorConfig(**(small | settings))

    return make


def opened(config: GeneratorConfig, path: Path | None = None) -> GeneratorTrainer:
    return GeneratorTrainer(Run.open(path, config), progress=False)


def trained(config: GeneratorConfig, path: Path | None = None) -> GeneratorTrainer:
    trainer = opened(config, path)
    list(trainer)
    return trainer


@pytest.mark.parametrize(("model", "kind"), [("autoregressive", Autoregressive), ("masked", Masked)])
def test_it_learns_and_lies_in_its_run(model: str, kind: type, toy: Toy, data: Path) -> None:
    config = toy(model=model, steps=150, report_every=50, checkpoint_every=150, by_class=True, dropout=0.0)
    config = dataclasses.replace(config, tokenizer=str(data / "tokenizer"))
    trainer = trained(config)
    losses = [line["losses"]["cross_entropy"] for line in trainer.run.log()]
    assert losses[0] > losses[1] > losses[2]
    assert trainer.run.log()[0]["usage"] is None
    assert sorted(path.name for path in trainer.run.path.iterdir() if path.name[0] != ".") == [
        *("checkpoint", "config.json", "generator", "log.jsonl", "tokenizer"),
    ]
    loaded = Generator.load(trainer.run.path)
    assert type(loaded) is kind and loaded.classes == ["dark", "light"] and loaded.class_dropout == 0.1
    assert_same_weights(loaded.state_dict(), trainer.generator.state_dict())
    loaded.check_tokenizer(VisualTokenizer.load(trainer.run.path))
    tokens = TokenFile.open(data / "tokens")
    of_class = [tokens.indices()[tokens.labels == label].flatten().bincount(minlength=16) / 256 for label in (0, 1)]
    for label in (0, 1):
        drawn = loaded.sample(range(24), label).flatten().bincount(minlength=16) / (24 * 16)
        near, far = ((drawn - of_class[which]).abs().sum() for which in (label, 1 - label))
        assert near < 0.6 * far, "a class is what its images are"


@pytest.mark.parametrize("model", ["autoregressive", "masked"])
def test_interrupted_it_goes_on_as_if_it_had_not_been(model: str, toy: Toy, tmp_path: Path) -> None:
    config = toy(model=model, by_class=True)  # dropout, classes and masks are drawn
    whole = trained(config, tmp_path / "whole")
    for report in opened(config, tmp_path / "parts"):
        if report.step == 6:
            break
    second = trained(config, tmp_path / "parts")
    assert_same_weights(second.generator.state_dict(), whole.generator.state_dict())
    assert log_without_rates(second.run) == log_without_rates(whole.run)
    weights = [(path / "generator" / "model.safetensors").read_bytes() for path in (whole.run.path, second.run.path)]
    assert weights[0] == weights[1]
    assert list(opened(config, tmp_path / "whole")) == []


def test_a_run_is_opened_by_its_path_alone_and_has_a_name_of_its_own(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=1)
    run = trained(config).run
    assert run.path == config.run_dir and run.path.name.startswith("autoregressive-1m-tokens-s0-")
    assert Run.open(run.path).config == config
    names = {toy(steps=1, **more).run_name for more in ({}, {"seed": 1}, {"lr": 1e-3}, {"tokens": str(tmp_path)})}
    assert len(names) == 4
    assert toy(report_every=7, checkpoint_every=9).run_name == toy().run_name
    with pytest.raises(ValueError, match="another configuration .lr is 0.003 there, 0.5 here"):
        Run.open(run.path, toy(steps=1, lr=0.5))


def test_a_run_of_the_other_kind_is_refused(toy: Toy, data: Path, tmp_path: Path) -> None:
    trained(toy(steps=1), tmp_path / "run")
    with pytest.raises(ValueError, match=r"another configuration \(.*kind is 'generator' there, None here"):
        Run.open(tmp_path / "run", TrainConfig())
    run, of_images = Run.open(tmp_path / "run"), Run.open(tmp_path / "new", TrainConfig())
    for refused in (lambda: Trainer(run), lambda: evaluate_run(run), lambda: LaunchedTrainer(run, 1)):
        with pytest.raises(ValueError, match="trains a generator, but here it must be one that trains a tokenizer"):
            refused()
    with pytest.raises(ValueError, match="trains a tokenizer, but here it must be one that trains a generator"):
        GeneratorTrainer(of_images)
    (line,) = RunCurves([run]).labels  # which draws the log of either
    assert line == "autoregressive-1m" and RunCurves([run]).message == ""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": "2m"}, "size is '2m'; "),
        ({"model": "causal"}, "model is 'causal'; "),
        ({"class_dropout": 0.2}, "class_dropout is 0.2, but by_class is False; leave class_dropout out."),
        ({"warmup_steps": 12, "lr_schedule": "cosine"}, "warmup_steps is 12, but the run has only 12 steps."),
        ({"warmup_steps": 13}, "warmup_steps is 13, but the run has only 12 steps."),
        ({"optimizer": "adam"}, "weight_decay is 0.05, but only optimizer 'adamw' decays weights; set it 0."),
        ({"network_options": {"dropout": 0.2}}, "network_options holds 'dropout', which is a setting of its own"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], sentence: str, toy: Toy) -> None:
    with pytest.raises(ValueError) as error:
        toy(**settings)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"batch_size": 33}, "has 32 images, fewer than one batch of 33"),
        (
            {"network_options": {"depht": 2}},
            "The autoregressive generator has no option 'depht'; did you mean 'depth'?",
        ),
        ({"network_options": {"image_size": 2}}, "network_options holds 'image_size', which the tokens or another"),
        ({"network_options": {"classes": ["a"]}}, "network_options holds 'classes', which the tokens or another"),
        ({"network_options": {"hidden_dim": 20}}, "hidden_dim is 20, but must be a multiple of 4"),
    ],
)
def test_what_is_refused_before_anything_is_written(settings: dict[str, Any], sentence: str, toy: Toy) -> None:
    config = toy(**settings)
    with pytest.raises(ValueError, match=sentence.replace("?", r"\?")):
        opened(config)
    assert not config.run_dir.exists()


def test_another_tokenizer_and_tokens_without_classes(toy: Toy, data: Path, tmp_path: Path) -> None:
    toy_tokenizer(seed=1).save(tmp_path / "other")
    with pytest.raises(ValueError, match="are of another tokenizer"):
        opened(toy(tokenizer=str(tmp_path / "other")))
    flat = toy_tokens(toy_tokenizer(), data / "images" / "train" / "dark", tmp_path / "flat")
    assert flat.labels is None
    with pytest.raises(
        ValueError, match="by_class is True, but the tokens in .* have no classes: folder has no folders"
    ):
        opened(toy(tokens=str(flat.path), by_class=True))


def test_a_run_takes_up_its_tokenizer_and_what_was_lost_of_its_result(toy: Toy, data: Path, tmp_path: Path) -> None:
    plain, kept = toy(steps=10), toy(steps=10, tokenizer=str(data / "tokenizer"))
    trained(plain, tmp_path)
    before = (tmp_path / "generator/model.safetensors").read_bytes()
    assert not (tmp_path / "tokenizer").exists()
    trained(kept, tmp_path)  # complete, but for the tokenizer that is named now
    assert_same_weights(
        VisualTokenizer.load(tmp_path).state_dict(), VisualTokenizer.load(data / "tokenizer").state_dict()
    )
    (tmp_path / "tokenizer/model.safetensors").unlink()
    (tmp_path / "generator/model.safetensors").unlink()
    trained(kept, tmp_path)
    VisualTokenizer.load(tmp_path)
    assert (tmp_path / "generator/model.safetensors").read_bytes() == before
    VisualTokenizer(network="simple_cnn", quantizer_options={"codebook_size": 16, "codebook_dim": 2}).save(
        tmp_path / "tokenizer"
    )
    for config in (plain, kept):
        with pytest.raises(ValueError, match="tokenizer is another tokenizer than that of the tokens in "):
            opened(config, tmp_path)


def test_other_tokens_are_refused(toy: Toy, data: Path, tmp_path: Path) -> None:
    for report in opened(toy(), tmp_path / "run"):
        if report.step == 6:
            break
    toy_tokens(toy_tokenizer(seed=1), data / "images", tmp_path / "others")
    with pytest.raises(ValueError, match="are others than those this run was trained on so far"):
        list(opened(toy(tokens=str(tmp_path / "others")), tmp_path / "run"))


def test_a_batch_is_the_tokens_of_its_images(toy: Toy, data: Path) -> None:
    trainer, tokens = opened(toy(by_class=True, steps=4)), TokenFile.open(data / "tokens")
    seen = [(places.flatten(1), labels) for places, labels in trainer.batches()]
    every = torch.cat([places for places, _ in seen])
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, tokens.tokens.reshape(32, 16).tolist())), "an epoch"
    for places, labels in seen:
        for row, label in zip(places.tolist(), labels.tolist(), strict=True):
            of_row = {int(tokens.labels[n]) for n in range(32) if tokens.tokens[n].reshape(-1).tolist() == row}
            assert label in of_row


def test_every_size_has_the_parameters_that_its_name_says() -> None:
    for name, widths in SIZES.items():
        with torch.device("meta"):
            made = Autoregressive(codebook_sizes=[16], level_shapes=[[2, 2]], image_size=16, **widths)
        number = sum(p.numel() for p in made.transformer.blocks.parameters())
        said = {"b": 111e6, "l": 343e6, "xl": 775e6, "xxl": 1.4e9}.get(name) or float(name.rstrip("m")) * 1e6
        assert 0.75 < number / said < 1.1, (name, number)


def test_the_command_trains_and_answers_what_is_wrong_in_a_sentence(
    toy: Toy, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(toy(steps=2).to_json())
    arguments = ["--config", str(config), "--run-dir", str(tmp_path / "run"), "--tokenizer", str(data / "tokenizer")]
    assert main([*arguments, "--by-class", "-p", "steps", "3"]) == 0
    assert "step 3 of 3, loss " in capsys.readouterr().out
    assert Run.open(tmp_path / "run").config.by_class
    for wrong, sentence in [
        ([], "tokens is not given: a generator is trained on a folder"),
        (["--tokens", str(tmp_path / "none")], "There are no tokens in "),
        (["--config", str(config), "-p", "stepss", "2"], "There is no setting 'stepss'; did you mean 'steps'?"),
        (["--tokens", "a", "-p", "tokens", "b"], "tokens is given twice"),
    ]:
        assert main([*wrong, "--run-dir", str(tmp_path / "new")]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("python -m vistok.generation: ") and sentence in line
        assert not (tmp_path / "new").exists()


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def command(toy: Toy, tmp_path: Path) -> Iterator[Callable[[Path], list[str]]]:
    config = tmp_path / "config.json"
    config.write_text(toy(steps=400, checkpoint_every=3, report_every=7, model="masked", by_class=True).to_json())
    yield lambda run: [sys.executable, "-m", "vistok.generation", "--config", str(config), "--run-dir", str(run)]


@pytest.mark.slow
def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(
    command: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    kills = 50 if os.environ.get("VISTOK_EXTENDED") == "1" else 3
    whole, run, rng, steps = tmp_path / "whole", tmp_path / "killed", random.Random(0), set()
    subprocess.run(command(whole), env=environment(), check=True, capture_output=True, timeout=120)
    for number in range(kills):
        with subprocess.Popen(command(run), env=environment(), stdout=-3, stderr=-3, start_new_session=True) as process:
            end, begun = time.monotonic() + 120, len(Run.open(run).checkpoints.files()) if number else 0
            while not begun and not [*run.glob("checkpoint/step-*.pt")]:
                assert process.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5) if not begun else rng.uniform(2, 5))
            process.send_signal(signal.SIGKILL)
        found = Run.open(run).checkpoints.load()
        steps.add(found[0]["step"])
    assert min(steps) < 400
    subprocess.run(command(run), env=environment(), check=True, capture_output=True, timeout=120)
    runs = [Run.open(path) for path in (whole, run)]
    assert log_without_rates(runs[0]) == log_without_rates(runs[1])
    weights = [(path / "generator" / "model.safetensors").read_bytes() for path in (whole, run)]
    assert weights[0] == weights[1]
    print(f"{kills} kills, at steps {sorted(steps)}")


@pytest.mark.slow
def test_two_processes_train_what_one_does(toy: Toy, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(toy(steps=4, dropout=0.0, checkpoint_every=2).to_json())
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    launch += ["-m", "vistok.generation", "--config", str(config), "--run-dir", str(tmp_path / "two")]
    subprocess.run(launch, env=environment(), check=True, capture_output=True, timeout=300)
    one = trained(toy(steps=4, dropout=0.0, checkpoint_every=2), tmp_path / "one")
    two = Run.open(tmp_path / "two")
    assert two.provenance["num_processes"] == 2
    losses = [[line["losses"]["total"] for line in run.log()] for run in (one.run, two)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    loaded = Generator.load(two.path).state_dict()
    for name, value in one.generator.state_dict().items():
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=1e-4)
