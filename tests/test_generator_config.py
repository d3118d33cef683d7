"""The configuration of a generator's training: what makes a run, what is refused, and that it comes back as it was written."""

import dataclasses
import json
from typing import Any

import pytest

from vistok.config import TrainConfig
from vistok.generator_config import SIZES, GeneratorConfig
from vistok.runs import config_from

CHANGED: dict[str, Any] = {
    "tokens": "elsewhere/tokens",
    "tokenizer": "runs/one",
    "by_class": True,
    "model": "masked",
    "size": "30m",
    "network_options": {"depth": 3},
    "dropout": 0.2,
    "class_dropout": 0.3,
    "batch_size": 8,
    "steps": 100,
    "optimizer": "adam",
    "lr": 0.1,
    "beta1": 0.5,
    "beta2": 0.9,
    "weight_decay": 0.0,
    "weight_decay_on": "all",
    "lr_schedule": "cosine",
    "min_lr": 1e-4,
    "warmup_steps": 5,
    "gradient_clip": None,
    "seed": 3,
    "precision": "float32",
    "compile": True,
    "deterministic": True,
    "report_every": 7,
    "checkpoint_every": 9,
    "log_with": "tensorboard",
}


def test_it_comes_back_as_it_was_written() -> None:
    config = GeneratorConfig(**CHANGED)
    assert {field.name for field in dataclasses.fields(config)} == {"kind", *CHANGED}, "a field is not covered here"
    assert all(getattr(GeneratorConfig(), name) != value for name, value in CHANGED.items())
    assert GeneratorConfig.from_json(config.to_json()) == config
    assert config_from(json.loads(config.to_json())) == config
    assert config_from(TrainConfig().to_dict()) == TrainConfig()


@pytest.mark.parametrize("name", CHANGED)
def test_what_makes_another_run(name: str) -> None:
    """Each alone, beside what lets it stand."""
    beside = {
        "class_dropout": {"by_class": True},
        "min_lr": {"lr_schedule": "cosine"},
        "optimizer": {"weight_decay": 0.0},
    }
    base = GeneratorConfig(**beside.get(name, {}))
    other = dataclasses.replace(base, **{name: CHANGED[name]})
    execution = {"tokens", "tokenizer", "deterministic", "report_every", "checkpoint_every", "log_with"}
    assert GeneratorConfig.execution_fields() == execution
    assert set(base.differences(other)) == {name} - execution
    assert (base.fingerprint == other.fingerprint) == (
        name in execution - {"tokens"}
    )  # its place makes a run of its own


def test_names_of_runs_say_what_they_are_of() -> None:
    name = GeneratorConfig(tokens="data/my tokens/", model="masked", size="10m", seed=4).run_name
    assert name.startswith("masked-10m-my-tokens-s4-")


@pytest.mark.parametrize(
    ("settings", "kind", "sentence"),
    [
        ({"stepss": 3}, ValueError, "There is no setting 'stepss'; did you mean 'steps'?"),
        ({"kind": "generater"}, ValueError, "kind is 'generater'; did you mean 'generator'?"),
        ({"kind": "generator", "size": "3M"}, ValueError, "size is '3M'; did you mean '3m'?"),
        ({"kind": "generator", "by_class": 1}, TypeError, "by_class is 1 (int), but must be of type bool."),
        ({"kind": "generator", "tokens": ""}, ValueError, "tokens is '', an empty path;"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind) as error:
        config_from(settings)
    assert str(error.value).startswith(sentence)


def test_sizes_grow() -> None:
    assert [*SIZES] == ["1m", "3m", "10m", "30m", "b", "l", "xl", "xxl"]
    weights = [12 * size["depth"] * size["hidden_dim"] ** 2 for size in SIZES.values()]
    assert weights == sorted(weights)
