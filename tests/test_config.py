"""The configuration: what it accepts, what it refuses and how, and what makes two runs the same."""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vistok import networks, quantizers
from vistok.config import EXECUTION_FIELDS, TrainConfig
from vistok.data import DATASETS
from vistok.data.cache import cache_folder
from vistok.networks import NETWORKS, discriminators
from vistok.quantizers import QUANTIZERS
from vistok.recipes import load_table
from vistok.system.paths import repository_root, resolve_path, runs_root
from vistok.system.values import as_given, checked, literal
from vistok.system.words import misspelt, nearest, slips_between

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
    "classifier_weight": 0.1,
    "classifier": "resnet50",
    "classifier_weights": "resnet50.pth",
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
    "lecam_logits": "mean",
    "r1_weight": 10.0,
    "r1_every": 4,
    "accumulate": 2,
    "optimizer": "adamw",
    "weight_decay": 0.05,
    "weight_decay_on": "kernels",
    "lr_schedule": "cosine",
    "min_lr": 1e-5,
    "warmup_steps": 1,
    "gradient_clip": 1.0,
    "ema_decay": 0.999,
    "ema_warmup": "power",
    "ema_inv_gamma": 2.0,
    "ema_power": 0.75,
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
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields == {*CHANGED, "proxy_from"}, "a field is not covered here"
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
        ("precision", "float6", "did you mean 'float16'?"),
        ("ema_power", 0.0, "above 0"),
        ("ema_inv_gamma", -1.0, "above 0"),
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


def test_a_run_to_begin_with_may_be_that_of_a_row() -> None:
    given = {"dataset": "folder", "data_root": "somewhere", "seed": 3}
    config = TrainConfig.from_row("celeba64/vq-d8", "smoke", init_from="row:celeba64/ema-d4", steps=7, **given)
    source = TrainConfig.from_row("celeba64/ema-d4", "smoke", steps=7, **given)
    assert resolve_path(config.init_from) == source.run_dir and config.row == "celeba64/vq-d8"
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ValueError, match="There is no table 'celeba46'; did you mean 'celeba64'"):
        TrainConfig.from_row("celeba64/vq-d8", "smoke", init_from="row:celeba46/ema-d4")


def test_a_row_that_begins_with_its_own_run_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    circle = {"a/b": "row:c/d", "c/d": "row:a/b"}
    monkeypatch.setattr("vistok.config.row_settings", lambda row, scale: ({"row": row, "init_from": circle[row]}, {}))
    with pytest.raises(ValueError, match="A row begins with its own run, by a/b -> c/d -> a/b: name another."):
        TrainConfig.from_row("a/b")


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
        "classifier_weights",
    }
    assert set(EXECUTION_FIELDS) == execution
    # One in which every setting alone may change: none of them is refused as having no effect.
    adversarial = {"discriminator": "stylegan2", "adversarial_weight": 0.5, "adversarial_start": 3, "lecam_weight": 0.2}
    base = TrainConfig(**adversarial, optimizer="adamw", init_from="elsewhere", lr_schedule="cosine")
    needs = {"weight_decay_on": {"weight_decay": 0.1}, "classifier": {"classifier_weight": 0.1}}
    needs |= {"ema_warmup": {"ema_decay": 0.9}, "r1_every": {"r1_weight": 1.0}}
    needs |= dict.fromkeys(("ema_inv_gamma", "ema_power"), {"ema_decay": 0.9, "ema_warmup": "power"})
    plain = base
    for name, value in (CHANGED | {"optimizer": "adam", "lr_schedule": "constant"}).items():
        base = dataclasses.replace(plain, **needs.get(name, {}))
        config = dataclasses.replace(base, **{name: value})
        same = name in EXECUTION_FIELDS
        if name != "data_root":  # no difference, but a new run on other data has a name of its own
            assert (config.fingerprint == base.fingerprint) == same, name
        assert (config.differences(base) == {}) == same, name
        if not same:
            assert config.differences(base) == {name: (value, getattr(base, name))}


@pytest.mark.parametrize("name", ["data_root", "init_from", "proxy_from", "lpips_weights", "classifier_weights"])
def test_an_empty_path_is_refused(name: str) -> None:
    for empty in ("", " "):
        with pytest.raises(ValueError, match=f"{name} is '{empty}', an empty path; is a shell variable unset"):
            TrainConfig(**{name: empty})


def test_fingerprints_stay_what_they_were() -> None:
    assert TrainConfig().fingerprint == "44136fa3"
    config = TrainConfig.from_row("celeba64/vq-d4", "laptop", dataset="imagenet-sample", seed=0)
    assert config.run_name == "vq-d4-laptop-imagenet-sample-s0-93b36fcc"


def test_the_usual_weight_of_kl_is_that_of_its_quantizer() -> None:
    assert TrainConfig(quantizer="kl") == TrainConfig(quantizer="kl", kl_weight=1e-6)
    assert TrainConfig(quantizer="gumbel") == TrainConfig(quantizer="gumbel", kl_weight=5e-4)
    row = TrainConfig.from_row("quantizers64/kl", "laptop", dataset="imagenet-sample", seed=0)
    assert row.kl_weight == 1e-6 and TrainConfig.from_dict(row.to_dict()) == row
    assert TrainConfig.from_dict(row.to_dict() | {"kl_weight": 5e-4}).kl_weight == 5e-4, "as a record may say"


def test_a_run_is_named_by_what_makes_it() -> None:
    config = TrainConfig.from_row("celeba64/ema-d4", "smoke", seed=3)
    assert re.fullmatch(r"ema-d4-smoke-photos-s3-[0-9a-f]{8}", config.run_name)
    assert config.run_name.endswith(config.fingerprint)
    assert re.fullmatch(r"vq-custom-photos-s8888-[0-9a-f]{8}", TrainConfig().run_name)
    assert config.run_dir == runs_root() / config.run_name


@pytest.mark.parametrize("name", ["init_from", "proxy_from"])
def test_a_run_to_begin_with_is_told_by_its_name_wherever_runs_lie(name: str) -> None:
    needs = (
        {"network": "titok", "network_options": {"pixel_decoder": {"network": "maskgit"}}}
        if name == "proxy_from"
        else {}
    )
    grid = "maskgit-64-laptop-imagenet-sample-s0-092b642f"
    places = [f"runs/{grid}", f"/data/runs/{grid}", f"../elsewhere/{grid}/"]
    one, *others = (TrainConfig(**needs, **{name: place}) for place in places)
    for other in others:
        assert one.differences(other) == {} and other.run_name == one.run_name
    another = TrainConfig(**needs, **{name: places[1].replace("s0", "s1")})
    assert list(one.differences(another)) == [name] and another.run_name != one.run_name
    elsewhere = [TrainConfig(**needs, **{name: place}) for place in ("here/my-run", "there/my-run")]
    assert list(elsewhere[0].differences(elsewhere[1])) == [name], "a name that says nothing of its settings"


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


@pytest.mark.parametrize(("variable", "folder"), [("VISTOK_RUNS", runs_root), ("VISTOK_CACHE", cache_folder)])
def test_a_folder_of_the_environment_is_one_place_wherever_one_stands(
    variable: str,
    folder: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for given, place in {
        "~/some": tmp_path / "home" / "some",
        "$HOME/some": tmp_path / "home" / "some",
        "${HOME}/some": tmp_path / "home" / "some",
        "some/folder": repository_root() / "some" / "folder",
        "some/folder/": repository_root() / "some" / "folder",
        str(tmp_path / "some"): tmp_path / "some",
    }.items():
        monkeypatch.setenv(variable, given)
        assert folder() == place
    monkeypatch.delenv(variable)
    usual = folder()
    monkeypatch.setenv(variable, "")
    assert folder() == usual
    monkeypatch.setenv(variable, "~nobody-of-that-name/some")
    with pytest.raises(ValueError) as error:
        folder()
    assert str(error.value) == (
        "'~nobody-of-that-name/some' begins with a home folder that is not known here: give the whole path. "
        f"Or set {variable} to another folder."
    )


@pytest.mark.parametrize(
    ("annotation", "given", "value"),
    [
        (bool, "false", False),
        (bool, "False", False),
        (bool, "no", False),
        (bool, "true", True),
        (bool | None, "null", None),
        (int, "10", 10),
        (int, np.int64(10), 10),
        (int | None, "None", None),
        (float, "1e-3", 1e-3),
        (float, "2", 2.0),
        (float, 2, 2.0),
        (float | None, "0.1", 0.1),
        (str, "2024", "2024"),
        (str, "false", "false"),
        (str | None, "None", None),
        (str | None, Path("some") / "folder", os.path.join("some", "folder")),
        (dict[str, Any], '{"l2_norm": true, "levels": [8, 5]}', {"l2_norm": True, "levels": [8, 5]}),
        (dict[str, Any], "{init: kmeans}", {"init": "kmeans"}),
        (list[str] | None, "vq-d4", ["vq-d4"]),
        (list[str] | None, "2024", ["2024"]),
        (list[str] | None, "[vq-d4, vq-d8]", ["vq-d4", "vq-d8"]),
        (list[str] | None, ("vq-d4", "vq-d8"), ["vq-d4", "vq-d8"]),
        (list[str] | None, Path("some"), ["some"]),
        (list[str] | None, "null", None),
        (list[int], 0, [0]),
        (list[int], "0", [0]),
        (list[int], "[0, 1]", [0, 1]),
        (list[int], range(3), [0, 1, 2]),
        (list[float], [1, 0.5], [1.0, 0.5]),
    ],
)
def test_what_plainly_says_a_value_of_its_type_is_that_value(annotation: Any, given: object, value: object) -> None:
    read = as_given("it", annotation, given)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("annotation", "given", "sentence"),
    [
        (bool, "maybe", "it is 'maybe' (str), but must be of type bool."),
        (bool, "", "it is '' (str), but must be of type bool."),
        (bool, 1, "it is 1 (int), but must be of type bool."),
        (bool, "null", "it is 'null' (str), but must be of type bool."),
        (int, "010", "it is '010' (str), but must be of type int."),
        (int, "ten", "it is 'ten' (str), but must be of type int."),
        (int | None, "", "it is '' (str), but must be of type int or None."),
        (int, "false", "it is False (bool), but must be of type int."),
        (float, "{" * 3000, "(str), but must be of type float."),
        (str | None, 2024, "it is 2024 (int), but must be of type str or None."),
        (dict[str, Any], "kmeans", "it is 'kmeans' (str), but must be of type dict."),
        (list[str] | None, 2024, "it is 2024 (int), but must be of type str."),
        (list[int], "[0, x]", "it[1] is 'x' (str), but must be of type int."),
        (list[int], None, "it is None (NoneType), but must be of type list of int."),
    ],
)
def test_what_says_none_of_its_type_is_refused(annotation: Any, given: object, sentence: str) -> None:
    with pytest.raises(TypeError) as error:
        as_given("it", annotation, given)
    assert str(error.value).endswith(sentence)
    assert one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("None", None),
        ("(1, 2)", (1, 2)),
        ("off", False),
        ("[a]", ["a"]),
        ("{[]: 1}", "{[]: 1}"),
        ("2024-01-01",) * 2,
    ]
    + [(text, text) for text in ("", "~", "vq-d4", "1:30", "a: [", "007", "nan")],
)
def test_a_text_is_a_literal_or_itself(text: str, value: object) -> None:
    assert literal(text) == value


def test_a_sequence_is_checked_one_by_one_and_other_annotations_are_not() -> None:
    assert checked("it", Sequence[int], (1, 2)) == (1, 2)
    assert checked("it", Sequence[int] | None, [1, 2]) == [1, 2]
    with pytest.raises(TypeError, match=re.escape("it[1] is '2' (str), but must be of type int.")):
        checked("it", Sequence[int], [1, "2"])
    with pytest.raises(TypeError, match=re.escape("it is 2 (int), but must be of type list of int or None.")):
        checked("it", Sequence[int] | None, 2)
    assert checked("it", Path, 2) == 2


@pytest.mark.parametrize(
    ("build", "name", "options", "sentence"),
    [
        (quantizers.build, "vq", {"codebook_dim": "8"}, "quantizer 'vq': codebook_dim is '8' (str), but must be"),
        (quantizers.build, "vq", {"revive_after": "50"}, "is '50' (str), but must be of type int or None."),
        (
            quantizers.build,
            "ema",
            {"decay": "0.9"},
            "quantizer 'ema': decay is '0.9' (str), but must be of type fl",
        ),
        (quantizers.build, "fsq", {"levels": "8,8,8"}, "is '8,8,8' (str), but must be of type list of int or None."),
        (
            quantizers.build,
            "fsq",
            {"levels": [8, "8", 8]},
            "quantizer 'fsq': levels[1] is '8' (str), but must be",
        ),
        (
            quantizers.build,
            "residual",
            {"num_levels": 2.0},
            "quantizer 'residual': num_levels is 2.0 (float), but",
        ),
        (quantizers.build, "residual", {"shared": "false"}, "is 'false' (str), but must be of type bool."),
        (quantizers.build, "residual", {"member_options": "vq"}, "is 'vq' (str), but must be of type dict or None."),
        (
            quantizers.build,
            "grouped",
            {"member_options": {"init": 3}},
            "quantizer 'vq': init is 3 (int), but must",
        ),
        (
            networks.build,
            "vqgan",
            {"ch_mult": 2},
            "network 'vqgan': ch_mult is 2 (int), but must be of type list",
        ),
        (
            networks.build,
            "vit",
            {"depth": None},
            "network 'vit': depth is None (NoneType), but must be of type int.",
        ),
        (
            discriminators.build,
            "patchgan",
            {"num_layers": "2"},
            "discriminator 'patchgan': num_layers is '2' (str)",
        ),
    ],
)
def test_an_option_of_another_type_is_refused_in_one_sentence(
    build: Callable[..., object], name: str, options: dict[str, Any], sentence: str
) -> None:
    sizes = {} if build is discriminators.build else {"codebook_dim": 4}
    sizes |= {"codebook_size": 16} if build is quantizers.build and name != "fsq" else {}
    sizes = {} if name == "fsq" else sizes
    with pytest.raises(TypeError) as error:
        build(name, **sizes | options)
    assert sentence in str(error.value)
    assert one_sentence(str(error.value))


SCALES = load_table("celeba64").scales
SETTINGS = [field.name for field in dataclasses.fields(TrainConfig)]


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("fqs", QUANTIZERS, "fsq"),
        ("lfk", QUANTIZERS, "lfq"),
        ("emma", QUANTIZERS, "ema"),
        ("multi-scale", QUANTIZERS, "multiscale"),
        ("gumble", QUANTIZERS, "gumbel"),
        ("FSQ", QUANTIZERS, "fsq"),
        ("xyz", QUANTIZERS, None),
        ("fast", SCALES, None),
        ("full", SCALES, None),
        ("labtop", SCALES, "laptop"),
        ("quik", SCALES, "quick"),
        ("photo", DATASETS, "photos"),
        ("image-net", DATASETS, "imagenet"),
        ("sample", DATASETS, "imagenet-sample"),
        ("lsun", DATASETS, None),
        ("vqagn", NETWORKS, "vqgan"),
        ("resnet", NETWORKS, None),
        ("codebok_dim", SETTINGS, "codebook_dim"),
        ("batchsize", SETTINGS, "batch_size"),
        ("workers", SETTINGS, "num_workers"),
        ("learning_rate", SETTINGS, None),
        ("epochs", SETTINGS, None),
    ],
)
def test_a_slip_is_recognised_and_nothing_far_is_suggested(wrong: str, known: Iterable[str], near: str | None) -> None:
    assert misspelt(wrong, known) == near
    sentence = nearest(wrong, known)
    assert sentence.startswith(f"did you mean {near!r}?" if near else "Known: ")
    assert (f"Known: {', '.join(sorted(known))}." in sentence) == (near is None or len(list(known)) <= 12)


@pytest.mark.parametrize("known", [QUANTIZERS, NETWORKS, DATASETS, SCALES, SETTINGS], ids=len)
def test_one_slip_in_any_name_is_recognised(known: Iterable[str]) -> None:
    """A letter left out, doubled, or exchanged with its neighbour leads to the name, or to another that is as near."""
    for name in (name for name in known if len(name) > 3):
        for place in range(len(name) - 1):
            left_out = name[:place] + name[place + 1 :]
            doubled = name[: place + 1] + name[place:]
            exchanged = name[:place] + name[place + 1] + name[place] + name[place + 2 :]
            for wrong in {left_out, doubled, exchanged} - set(known):
                found = misspelt(wrong, known)
                assert found is not None and slips_between(wrong, found) <= 1, (wrong, found)
