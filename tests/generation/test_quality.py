"""Samples measured: controls in their order, copies found, halves and seeds, bad input, and the record of a run."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.generators import SMALL, class_images, generator, pictures, toy_tokenizer, toy_tokens
from torch import Tensor

from vistok.data import open_dataset
from vistok.generation import image_sets, measuring
from vistok.generation.generator import Generator
from vistok.generation.measuring import OF_INCEPTION
from vistok.generation.quality import CONTROLS, Quality, controls, draw_samples, main, measure_run, measure_samples
from vistok.generation.trainer import GeneratorTrainer
from vistok.generator_config import GeneratorConfig
from vistok.images import to_float, to_uint8
from vistok.networks.inception import Inception
from vistok.runs import EXAMPLE_RUN, Run
from vistok.system.paths import repository_root
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.store import describe


@pytest.fixture(autouse=True)
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "NUM_PATCHES", 2**12)


def measured(samples: Tensor, training: Tensor, test: Tensor, **options: Any) -> Quality:
    return measure_samples(samples, training, test, **({"inception": False, "device": "cpu"} | options))


def test_a_shuffle_is_worse_than_a_reconstruction_and_that_than_what_is_real() -> None:
    tokenizer = VisualTokenizer.load(repository_root() / EXAMPLE_RUN)
    photos = open_dataset("photos", "test", 64)
    test, training = (photos.images(range(first, 512, 4)) for first in (0, 2))
    found = measured(training, training, test, tokenizer=tokenizer)
    real, reconstructions, shuffled = (found.controls[name] for name in CONTROLS)
    assert real["swd"] < reconstructions["swd"] < shuffled["swd"]
    assert min(real["recall"], reconstructions["recall"]) > shuffled["recall"] + 0.5
    assert min(real["precision"], reconstructions["precision"]) > 0.8
    assert shuffled["nearest_distance"] > real["nearest_distance"] > reconstructions["nearest_distance"]
    assert found.samples["nearer_share"] == 1 and found.samples["nearest_distance"] == 0


def test_controls_are_decoded_from_the_same_tokens() -> None:
    tokenizer = toy_tokenizer()
    images = pictures(10, 16)
    sets = controls(tokenizer, images, seed=1, batch_size=4, device="cpu")
    assert [*sets] == [*CONTROLS] and sets["real"] is images
    indices = tokenizer.encode(to_float(images))
    assert torch.equal(sets["reconstructions"], to_uint8(tokenizer.decode(indices)))
    assert not torch.equal(sets["shuffled"], sets["reconstructions"])
    again, other = (controls(tokenizer, images, seed=seed, batch_size=3, device="cpu") for seed in (1, 2))
    assert torch.equal(again["shuffled"], sets["shuffled"]), "whatever the batches"
    assert not torch.equal(other["shuffled"], sets["shuffled"])


@pytest.mark.parametrize("quantizer", ["vq", "residual", "multiscale"])
def test_a_shuffle_keeps_the_tokens_of_each_image_and_level(quantizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"vq": {}, "residual": {"num_levels": 2}, "multiscale": {"scales": [1, 2, 4]}}[quantizer]
    tokenizer, decoded = toy_tokenizer(quantizer=quantizer, **options), []

    def decode(_: object, indices: Tensor | tuple[Tensor, ...]) -> Tensor:
        decoded.append(indices if isinstance(indices, tuple) else (indices,))
        return torch.zeros(len(decoded[-1][0]), 3, 16, 16)

    monkeypatch.setattr(VisualTokenizer, "decode", decode)
    controls(tokenizer, pictures(6, 16), batch_size=6, device="cpu")
    (levels, shuffled), moved = decoded, 0
    assert len(levels) == len(shuffled) == {"vq": 1, "residual": 2, "multiscale": 3}[quantizer]
    for level, other in zip(levels, shuffled, strict=True):
        assert level.shape == other.shape
        assert torch.equal(level.flatten(1).sort(1).values, other.flatten(1).sort(1).values)
        moved += int((level != other).sum())
    assert moved > 0
    if quantizer == "residual":  # a place keeps both of its tokens
        pairs = [
            [sorted(map(tuple, torch.stack(of, -1)[i].flatten(0, 1).tolist())) for i in range(6)] for of in decoded
        ]
        assert pairs[0] == pairs[1]


def test_copies_of_training_images_are_found_and_others_are_not() -> None:
    training, test, fresh = pictures(300, 16), pictures(200, 16, seed=1), pictures(100, 16, seed=2)
    copies = torch.cat([fresh[:97], training[[5, 250, 17]]])
    found = measured(copies, training, test, quantile=0.02)
    top = [(entry["sample"], entry["training_image"], entry["distance"]) for entry in found.closest[:3]]
    assert sorted(top) == [(97, 5, 0), (98, 250, 0), (99, 17, 0)]
    assert found.nearest.indices[97:].tolist() == [5, 250, 17] and len(found.nearest.distances) == 100
    assert 0.03 <= found.samples["nearer_share"] < 0.12
    assert measured(training[:100], training, test).samples["nearer_share"] == 1
    ordinary = measured(fresh, training, test, quantile=0.2)
    assert ordinary.samples["nearer_share"] == pytest.approx(0.2, abs=0.15)
    assert ordinary.controls["real"]["nearer_share"] == pytest.approx(0.2, abs=0.1)
    assert ordinary.samples["precision"] == pytest.approx(ordinary.controls["real"]["precision"], abs=0.2)


def test_a_copy_counts_where_test_images_are_copies_too() -> None:
    training, fresh = pictures(40, 16), pictures(20, 16, seed=1)
    test = torch.cat([training[:4], fresh])
    found = measured(training[:12], training, test, quantile=0.1)
    assert found.settings["nearer_than"] == 0 and found.samples["nearer_share"] == 1
    assert measured(fresh[:12], training, test, quantile=0.1).samples["nearer_share"] == 0


@pytest.mark.parametrize(("number", "bound"), [(0, "at least 1"), (-2, "at least 1"), (2.5, "of type int")])
def test_how_many_samples_is_a_number_of_some(number: float, bound: str) -> None:
    tokenizer = toy_tokenizer()
    with pytest.raises((ValueError, TypeError), match=f"number is {number}.*, but must be {bound}"):
        draw_samples(generator(tokenizer=describe(tokenizer)), tokenizer, number, progress=False)


def test_samples_without_a_seed_of_their_own_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = toy_tokenizer()
    made = generator(tokenizer=describe(tokenizer))
    monkeypatch.setattr(Generator, "sample", lambda *_, **__: pytest.fail("it began to draw"))
    with pytest.raises(ValueError, match=r"the last sample's seed is 4294967298, but must be below 2\*\*32"):
        draw_samples(made, tokenizer, 100, 2**32 - 97, progress=False)


def test_the_record_is_json_and_says_what_is_missing() -> None:
    found = measured(pictures(12, 16), pictures(20, 16, seed=1), pictures(30, 16, seed=2))
    assert json.loads(found.to_json()) == found.to_dict()
    assert found.controls["real"] is not None and found.controls["shuffled"] is None
    assert found.unavailable["shuffled"] == "No tokenizer is given, whose they would be."
    assert {*found.unavailable} == {"reconstructions", "shuffled", *OF_INCEPTION}
    assert found.unavailable["gfid"] == "Not asked for (inception=False)." and found.samples["gfid"] is None
    assert found.settings["num_compared"] == 12 and found.settings["num_samples"] == 12
    small = measured(*(pictures(9, 12, seed) for seed in range(3)))
    assert (
        small.samples["swd"] is None and small.unavailable["swd"] == "Images are 12 pixels, but it needs at least 16."
    )
    assert small.samples["precision"] is not None


def test_it_is_a_function_of_the_seed_and_not_of_the_type() -> None:
    sets = [pictures(24, 16, seed) for seed in range(3)]
    found = measured(*sets, seed=5)
    again, other = measured(*sets, seed=5), measured(*sets, seed=6)
    assert (again.samples, again.controls) == (found.samples, found.controls)
    assert other.samples["swd"] != found.samples["swd"]
    of_float = measured(*(images.float() / 255 for images in sets), seed=5)
    assert (of_float.samples, of_float.controls) == (found.samples, found.controls)
    of_numpy = measured(*sets, seed=np.int64(5), quantile=np.float32(0.25))
    assert of_numpy.samples["swd"] == found.samples["swd"] and json.loads(of_numpy.to_json()) == of_numpy.to_dict()


class Features(torch.nn.Module):
    """Stands in for Inception, which is slow: a few pixels as features."""

    class Output(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.eye(10, 48))

    def __init__(self) -> None:
        super().__init__()
        self.fc = self.Output()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (images[:, :, ::4, ::4].flatten(1).float() / 255,)


def test_values_by_inception(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [pictures(24, 16, seed) for seed in range(3)]
    monkeypatch.setattr(measuring, "build_inception", lambda weights: Inception(Features(), "0123abcd", False))
    found = measured(*sets, inception=True)
    assert found.samples["gfid"] > 0 and found.samples["inception_score"] > 1
    assert found.settings["inception_sha256"] == "0123abcd" and not {*OF_INCEPTION} & {*found.unavailable}
    assert found.notes["gfid"].startswith("gFID of 12 images against as many is biased upward")
    assert "not the published ones" in found.notes["gfid"]
    few = measured(sets[0][:8], *sets[1:], inception=True)
    assert few.samples["gfid"] > 0 and few.samples["inception_score"] is None
    assert few.unavailable["inception_score"] == "There are 8 images, but it needs at least 10."


def test_without_weights_it_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    found = measured(*(pictures(9, 16, seed) for seed in range(3)), inception=True)
    for name in OF_INCEPTION:
        assert re.search(
            "could not be downloaded .no network in this test.*or use inception=FILE", found.unavailable[name]
        )
        assert found.samples[name] is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"samples": pictures(3, 16)}, "samples hold 3 images, but must hold at least 4."),
        ({"test_images": pictures(7, 16)}, "test_images hold 7 images, but must hold at least 8."),
        ({"training_images": pictures(1, 16)}, "training_images hold 1 images, but must hold at least 2."),
        ({"samples": pictures(9, 24)}, "samples are 24x24 pixels, but test_images 16x16: all must be of one size."),
        (
            {"samples": pictures(9, 16)[:, 0]},
            r"samples must be uint8 \[N, 3, H, W\], .*, not torch.uint8 \[9, 16, 16\].",
        ),
        ({"samples": [1, 2]}, "samples must be uint8 .*, not list."),
        ({"samples": pictures(9, 16).int()}, "samples are torch.int32, but must be uint8, or float in"),
        ({"samples": pictures(9, 16).float()}, r"samples have values from .* but must be in \[0, 1\], or uint8."),
        ({"samples": torch.full((9, 3, 16, 16), math.nan)}, "samples have values from nan"),
        ({"quantile": 1.0}, r"quantile is 1.0, but must be in \(0, 1\); 0.05 is usual."),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1."),
        ({"inception": "none.pth"}, "inception is 'none.pth', but there is no such file."),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, Any], sentence: str) -> None:
    given = {name: pictures(9, 16) for name in ("samples", "training_images", "test_images")} | {"inception": False}
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as error:
        measure_samples(**(given | change))
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of two classes, and a run that trained a toy generator by class on their tokens."""
    folder = tmp_path_factory.mktemp("trained")
    tokenizer = toy_tokenizer()
    tokenizer.save(folder / "tokenizer")
    toy_tokens(tokenizer, class_images(folder / "images"), folder / "tokens")
    config = GeneratorConfig(
        tokens=str(folder / "tokens"),
        tokenizer=str(folder / "tokenizer"),
        by_class=True,
        **{"size": "1m", "network_options": SMALL, "batch_size": 8, "steps": 3, "precision": "float32"},
    )
    for _ in GeneratorTrainer(Run.open(folder / "run", config), progress=False):
        pass
    return folder


def test_the_command_measures_a_run_and_keeps_its_record(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--data-root", str(trained / "images"), "--no-inception", "--device", "cpu"]
    assert main([*arguments, "-p", "top_p", "0.9", "-p", "top_k", "none"]) == 0
    printed = json.loads(capsys.readouterr().out)
    kept = json.loads((tmp_path / "run" / "quality.json").read_bytes())
    assert printed == kept
    assert kept["settings"]["num_samples"] == 16 and kept["settings"]["sampling"] == {"top_p": 0.9, "top_k": None}
    assert kept["settings"]["by_class"] is True
    assert kept["dataset"]["test"]["split"] == "test" and kept["dataset"]["training"]["num_images"] == 32
    assert all(kept["controls"][name]["swd"] >= 0 for name in CONTROLS)
    assert str(tmp_path) not in json.dumps(kept) and str(trained) not in json.dumps(kept)
    assert main(arguments) == 1 and "is there already; --overwrite replaces it." in capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "quality.json").read_bytes()) == kept
    assert main([*arguments, "--overwrite", "--samples", "20", "--seed", "3"]) == 0
    kept = json.loads((tmp_path / "run" / "quality.json").read_bytes())
    assert kept["settings"]["num_samples"] == 20 and kept["settings"]["num_compared"] == 16
    assert main([*arguments, "--overwrite", "-p", "top_k", "0"]) == 1
    assert "top_k is 0, but must be at least 1." in capsys.readouterr().err


def test_what_is_measured_of_a_run_are_its_samples_by_class(trained: Path) -> None:
    run = Run.open(trained / "run")
    found = measure_run(
        run, data_root=trained / "images", inception=False, device="cpu", seed=7, sampling={"temperature": 0.5}
    )
    generator, tokenizer = Generator.load(run.path), VisualTokenizer.load(run.path)
    samples = to_uint8(tokenizer.decode(generator.sample(range(7, 23), [0, 1] * 8, temperature=0.5)))
    assert torch.equal(draw_samples(generator, tokenizer, 16, 7, progress=False, temperature=0.5), samples)
    training, test = (
        open_dataset("folder", split, 16, data_root=trained / "images").images(range(32)) for split in ("train", "test")
    )
    expected = measured(samples, training, test, tokenizer=tokenizer, seed=7)
    assert (found.samples, found.controls) == (expected.samples, expected.controls)


def test_runs_that_cannot_be_measured(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    run, images = Run.open(tmp_path / "run"), trained / "images"
    others = class_images(tmp_path / "others", 12)
    with pytest.raises(ValueError, match="The train images of your folder are others than those that the generator of"):
        measure_run(run, data_root=others, inception=False)
    with pytest.raises(ValueError, match="There would be 3 samples and 32 test images, but there must be at least 4"):
        measure_run(run, data_root=images, inception=False, num_samples=3)
    with pytest.raises(ValueError, match="quantile is 0"):
        measure_run(run, data_root=images, quantile=0.0)
    with pytest.raises(ValueError, match="sampling: top_p is 2.0"):  # before images are looked for
        measure_run(run, data_root=tmp_path / "none", inception=False, sampling={"top_p": 2})
    with pytest.raises(
        ValueError, match=r"has taken 3 of 9 steps.* running python -m vistok\.generation with the same"
    ):
        measure_run(Run(run.path, dataclasses.replace(run.config, steps=9)), data_root=images)
    shutil.rmtree(run.path / "tokenizer")
    with pytest.raises(FileNotFoundError, match="keeps no tokenizer, which would decode samples"):
        measure_run(run, data_root=images, inception=False)
    with pytest.raises(ValueError, match="trains a tokenizer, but here it must be one that trains a generator"):
        measure_run(Run.open(repository_root() / EXAMPLE_RUN), inception=False)
