"""The configuration: what it accepts, what it refuses and how, and what makes two runs the same."""

import dataclasses
import json
import re
from typing import Any

import pytest

from vistok.config import EXECUTION_FIELDS, TrainConfig, nearest, repository_root, resolve_path, runs_root

CHANGED: dict[str, Any] = {
    "row": "celeba64/vq-d4",
    "scale": "smoke",
    "dataset": "folder",
    "data_root": "somewhere",
    "image_size": 32,
    "crop": "adm",
    "test_fraction": 0.25,
    "flip": False,
    "on_bad_image": "skip",
    "network": "other",
    "hidden_dim": 8,
    "num_res_blocks": 1,
    "network_options": {"z_channels": 8},
    "init_from": "somewhere",
    "train_parts": "decoder",
    "reconstruction_error": "l1",
    "reconstruction_weight": 2.0,
    "logit_laplace_weight": 0.1,
    "lpips_weight": 1.0,
    "lpips_weights": "vgg16.pth",
    "entropy_weight": 0.2,
    "kl_weight": 0.01,
    "discriminator": "patchgan",
    "discriminator_options": {"num_layers": 2},
    "discriminator_lr": 1e-4,
    "discriminator_start": 1,
    "adversarial_loss": "vanilla",
    "adversarial_weight": 0.8,
    "adversarial_adaptive": True,
    "adversarial_start": 2,
    "lecam_weight": 0.1,
    "r1_weight": 10.0,
    "r1_every": 4,
    "accumulate": 2,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "lr_schedule": "cosine",
    "warmup_steps": 1,
    "gradient_clip": 1.0,
    "ema_decay": 0.999,
    "checkpoint_activations": True,
    "quantizer": "ema",
    "codebook_size": 16,
    "codebook_dim": 8,
    "l2_norm": True,
    "quantizer_options": {"decay": 0.9},
    "codebook_weight": 0.5,
    "commitment_weight": 1.0,
    "batch_size": 4,
    "steps": 6,
    "lr": 1e-3,
    "beta1": 0.5,
    "beta2": 0.99,
    "seed": 1,
    "precision": "float32",
    "compile": True,
    "num_workers": 2,
    "deterministic": True,
    "report_every": 3,
    "checkpoint_every": 7,
    "log_with": "tensorboard",
}


def one_sentence(text: str) -> bool:
    return "\n" not in text and 10 < len(text) < 1500


def test_json_gives_back_every_field() -> None:
    config = TrainConfig(**CHANGED)
    assert TrainConfig.from_json(config.to_json()) == config
    assert {field.name for field in dataclasses.fields(TrainConfig)} == set(CHANGED), "a field is not covered here"
    assert all(value != getattr(TrainConfig(), name) for name, value in CHANGED.items())


def test_json_gives_back_the_same_run_whatever_sequence_an_option_was() -> None:
    config = TrainConfig(quantizer_options={"levels": (8, 5)})
    assert TrainConfig.from_json(config.to_json()).differences(config) == {}


@pytest.mark.parametrize("text", ["[1]", "{", '"vq"', "null"])
def test_text_that_is_no_configuration_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        TrainConfig.from_json(text)


def test_a_configuration_is_frozen_and_has_its_own_options() -> None:
    options = {"decay": 0.9}
    config = TrainConfig(quantizer="ema", quantizer_options=options)
    options["decay"] = 0.5
    assert config.quantizer_options == {"decay": 0.9}
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "near"), [("codebok_size", "codebook_size"), ("learning_rate", "lr"), ("batchsize", "batch_size")]
)
def test_an_unknown_key_is_refused_with_the_known_ones(key: str, near: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"There is no setting {key!r}")) as error:
        TrainConfig.from_dict({key: 1})
    assert near in str(error.value)
    assert one_sentence(str(error.value))


def test_the_nearest_name_is_named_first() -> None:
    assert nearest("codebok_dim", ["lr", "codebook_dim", "steps"]).startswith("did you mean 'codebook_dim'? Known: ")
    assert nearest("xyz", ["lr", "steps"]) == "Known: lr, steps."


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("codebook_size", 512.0, "int"),
        ("codebook_size", "512", "int"),
        ("codebook_size", True, "int"),
        ("lr", True, "float"),
        ("lr", "1e-3", "float"),
        ("lr", None, "float"),
        ("l2_norm", 1, "bool"),
        ("crop", 3, "str or None"),
        ("test_fraction", "0.1", "float or None"),
        ("quantizer_options", [1], "dict"),
    ],
)
def test_a_wrong_type_is_refused(name: str, value: object, wanted: str) -> None:
    sentence = f"{name} is {value!r} ({type(value).__name__}), but must be of type {wanted}."
    with pytest.raises(TypeError) as error:
        TrainConfig(**{name: value})
    assert str(error.value) == sentence


def test_an_int_is_a_float() -> None:
    config = TrainConfig(lr=1, test_fraction=None)
    assert type(config.lr) is float
    assert config.fingerprint == TrainConfig(lr=1.0).fingerprint


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("codebook_size", 0, "at least 1"),
        ("codebook_dim", -1, "at least 1"),
        ("image_size", 0, "at least 1"),
        ("hidden_dim", 0, "at least 1"),
        ("num_res_blocks", 0, "at least 1"),
        ("batch_size", 0, "at least 1"),
        ("steps", 0, "at least 1"),
        ("report_every", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**32, "below 2**32"),
        ("num_workers", -1, "at least 0"),
        ("codebook_weight", -0.1, "at least 0"),
        ("commitment_weight", -1.0, "at least 0"),
        ("lr", 0.0, "above 0"),
        ("lr", float("nan"), "finite"),
        ("lr", float("inf"), "finite"),
        ("beta1", 1.0, "[0, 1)"),
        ("beta2", -0.1, "[0, 1)"),
        ("test_fraction", 0.0, "between 0 and 1"),
        ("test_fraction", 1.0, "between 0 and 1"),
        ("precision", "bfloat", "did you mean 'bfloat16'?"),
        ("on_bad_image", "skp", "did you mean 'skip'?"),
        ("crop", "cache", "did you mean 'cached'?"),
        ("log_with", "tensorbord", "did you mean 'tensorboard'?"),
        ("quantizer_options", {"codebook_dim": 8}, "set codebook_dim instead"),
        ("quantizer_options", {"decay": float("nan")}, "fit for JSON"),
        ("quantizer_options", {"decay": {1}}, "fit for JSON"),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        TrainConfig(**{name: value})
    assert name in str(error.value)
    assert one_sentence(str(error.value))


def test_an_override_wins_over_the_row_and_the_row_over_the_scale() -> None:
    config = TrainConfig.from_row("celeba64/vq-d8", "smoke")
    assert (config.row, config.scale) == ("celeba64/vq-d8", "smoke")
    assert (config.codebook_dim, config.quantizer) == (8, "vq")  # the row
    assert (config.steps, config.hidden_dim, config.seed) == (40, 16, 0)  # the scale
    assert config.beta2 == 0.999  # the recipe
    assert TrainConfig.from_row("celeba64/vq-d8", "smoke", steps=3).steps == 3


def test_the_paper_scale_is_the_published_recipe() -> None:
    config = TrainConfig.from_row("celeba64/vq-d4", "paper", dataset="celeba")
    assert (config.steps, config.batch_size, config.lr, config.hidden_dim) == (500_000, 256, 4e-4, 256)
    assert (config.num_res_blocks, config.commitment_weight, config.image_size) == (2, 0.25, 64)


def test_a_run_that_contradicts_its_row_is_not_that_row() -> None:
    with pytest.warns(UserWarning, match=r"codebook_dim differ from row 'celeba64/vq-d8': this run is not that row"):
        config = TrainConfig.from_row("celeba64/vq-d8", "smoke", codebook_dim=16)
    assert (config.row, config.codebook_dim) == (None, 16)


@pytest.mark.filterwarnings("error")
def test_an_override_that_agrees_with_the_row_or_that_no_row_fixes_keeps_it() -> None:
    config = TrainConfig.from_row("celeba64/vq-d8", "smoke", codebook_dim=8, lr=1e-2)
    assert config.row == "celeba64/vq-d8"


def test_a_table_alone_is_its_recipe_and_no_row() -> None:
    config = TrainConfig.from_row("celeba64", "smoke", quantizer="ema")
    assert (config.row, config.quantizer, config.steps) == (None, "ema", 40)


def test_execution_does_not_make_another_run_and_everything_else_does() -> None:
    execution = {
        "data_root",
        "num_workers",
        "report_every",
        "deterministic",
        "checkpoint_every",
        "log_with",
        "checkpoint_activations",
        "lpips_weights",
    }
    assert set(EXECUTION_FIELDS) == execution
    # One in which every setting alone may change: none of them is refused as having no effect.
    base = TrainConfig(
        discriminator="stylegan2", adversarial_weight=0.5, adversarial_start=3, optimizer="adamw", init_from="elsewhere"
    )
    for name, value in (CHANGED | {"optimizer": "adam"}).items():
        config = dataclasses.replace(base, **{name: value})
        same = name in EXECUTION_FIELDS
        if name != "data_root":  # no difference, but a new run on other data has a name of its own
            assert (config.fingerprint == base.fingerprint) == same, name
        assert (config.differences(base) == {}) == same, name
        if not same:
            assert config.differences(base) == {name: (value, getattr(base, name))}


@pytest.mark.parametrize("name", ["data_root", "init_from", "lpips_weights"])
def test_an_empty_path_is_refused(name: str) -> None:
    for empty in ("", " "):
        with pytest.raises(ValueError, match=f"{name} is '{empty}', an empty path; is a shell variable unset"):
            TrainConfig(**{name: empty})


def test_fingerprints_stay_what_they_were() -> None:
    assert TrainConfig().fingerprint == "44136fa3"
    config = TrainConfig.from_row("celeba64/vq-d4", "laptop", dataset="imagenet-sample", seed=0)
    assert config.run_name == "vq-d4-laptop-imagenet-sample-s0-93b36fcc"


def test_a_run_is_named_by_what_makes_it() -> None:
    config = TrainConfig.from_row("celeba64/ema-d4", "smoke", seed=3)
    assert re.fullmatch(r"ema-d4-smoke-photos-s3-[0-9a-f]{8}", config.run_name)
    assert config.run_name.endswith(config.fingerprint)
    assert re.fullmatch(r"vq-custom-photos-s8888-[0-9a-f]{8}", TrainConfig().run_name)
    assert config.run_dir == runs_root() / config.run_name


def test_fingerprints_do_not_depend_on_how_a_configuration_was_made() -> None:
    config = TrainConfig.from_row("celeba64/vq-d8", "smoke")
    assert TrainConfig.from_dict(json.loads(config.to_json())).fingerprint == config.fingerprint


def test_relative_paths_count_from_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    assert resolve_path("runs/x") == repository_root() / "runs" / "x"
    assert resolve_path(elsewhere) == elsewhere
    monkeypatch.delenv("VISTOK_RUNS")
    assert runs_root() == repository_root() / "runs"
