"""Training tokenizers of sequences: as any other, by their beginnings, and in two stages."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.trainings import assert_same_weights, opened, trained
from helpers.weights import write_backbone

from vistok import networks
from vistok.config import TrainConfig
from vistok.data import open_dataset, to_float
from vistok.evaluation import evaluate
from vistok.networks.perceptual import ClassifierDistance, untrained_classifier
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import encode_dataset
from vistok.training.trainer import Trainer

Toy = Callable[..., TrainConfig]
TITOK = {"network": "titok", "num_res_blocks": TrainConfig().num_res_blocks, "l2_norm": True}
OPTIONS = {"depth": 1, "num_heads": 2, "num_tokens": 4, "patch_size": 4}
TOY = OPTIONS | {"hidden_dim": 8}


@pytest.fixture
def titok(toy: Toy) -> Toy:
    """Make a configuration that trains a TiTok of four tokens in a blink."""

    def make(network_options: dict[str, object] | None = None, **settings: object) -> TrainConfig:
        return toy(**TITOK | {"network_options": OPTIONS | (network_options or {})} | settings)

    return make


def test_a_sequence_is_trained_saved_measured_and_encoded_as_a_grid_is(titok: Toy, tmp_path: Path) -> None:
    trainer = trained(titok(steps=40, report_every=10), tmp_path / "run")
    first, *_, last = trainer.run.log()
    assert last["losses"]["total"] < first["losses"]["total"]
    tokenizer = VisualTokenizer.load(tmp_path / "run")
    assert_same_weights(tokenizer.state_dict(), trainer.tokenizer.state_dict())
    root = trainer.config.data_root
    record = evaluate(tokenizer, "folder", data_root=root, rfid=False, lpips="off", device="cpu", progress=False)
    assert record.bits_per_pixel == 4 * 4 / 16**2 and record.psnr > 5
    options = {"data_root": root, "split": "test", "device": "cpu", "progress": False}
    file = encode_dataset(tokenizer, "folder", tmp_path / "tokens", **options)
    images = open_dataset("folder", "test", 16, data_root=root)
    assert file.tokens.shape == (len(images), 1, 4)
    assert file.decode(tokenizer, slice(0, 2)).shape == (2, 3, 16, 16)


def test_interrupted_and_resumed_is_the_same_as_uninterrupted(titok: Toy, tmp_path: Path) -> None:
    whole = trained(titok(), tmp_path / "whole")
    for _ in itertools.islice(opened(titok(), tmp_path / "parts"), 1):
        pass
    parts: Trainer = trained(titok(), tmp_path / "parts")
    assert_same_weights(parts.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert torch.equal(parts.counts[0], whole.counts[0])


def test_a_trained_beginning_is_a_picture_and_the_lengths_are_part_of_what_is_resumed(
    titok: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "vistok.training.trainer.say_if_one_is_faster", lambda *_: None
    )  # on a busy machine it decodes too
    config = titok({"prefixes": "uniform"}, steps=30, report_every=5, checkpoint_every=100)
    drawn: list[int] = []

    def watched(trainer: Trainer) -> Trainer:
        decode = trainer.tokenizer.decoder.forward
        trainer.tokenizer.decoder.forward = lambda codes: drawn.append(codes.shape[3]) or decode(codes)
        return trainer

    for _ in watched(opened(config, tmp_path / "whole")):
        pass
    lengths = list(drawn)
    assert set(lengths) == {1, 2, 3, 4} and len(lengths) == 30
    drawn.clear()
    for _ in itertools.islice(watched(opened(config, tmp_path / "parts")), 2):  # left after step 10
        pass
    resumed = watched(opened(config, tmp_path / "parts"))
    for _ in resumed:
        pass
    assert drawn == lengths
    whole = VisualTokenizer.load(tmp_path / "whole")
    assert_same_weights(resumed.tokenizer.state_dict(), whole.state_dict())


@pytest.mark.parametrize(("prefixes", "lengths"), [("uniform", {1, 2, 3, 4, 5, 6}), ("powers", {1, 2, 4, 6})])
def test_lengths_are_drawn_alike(prefixes: str, lengths: set[int]) -> None:
    encoder, _ = networks.build("titok", codebook_dim=2, image_size=16, **TOY | {"prefixes": prefixes, "num_tokens": 6})
    torch.manual_seed(0)
    drawn = [encoder.draw_num_tokens() for _ in range(600)]
    assert set(drawn) == lengths
    assert all(abs(drawn.count(n) / 600 - 1 / len(lengths)) < 0.06 for n in lengths)
    torch.manual_seed(0)
    assert [encoder.draw_num_tokens() for _ in range(600)] == drawn


# Two stages


@pytest.fixture
def grid(toy: Toy, tmp_path: Path) -> Path:
    """A trained tokenizer of a grid of 4x4 tokens."""
    trained(toy(quantizer="ema", steps=2), tmp_path / "grid")
    return tmp_path / "grid"


PROXIES = {
    "network": "simple_cnn",
    "network_options": {"hidden_dim": 8, "num_res_blocks": 1},
    "codebook_size": 16,
    "codebook_dim": 4,
}


@pytest.fixture
def stage1(titok: Toy, grid: Path) -> Toy:
    """Make a configuration of stage 1."""

    def make(network_options: dict[str, object] | None = None, **settings: object) -> TrainConfig:
        settings = {"proxy_from": str(grid)} | settings
        return titok({"pixel_decoder": PROXIES} | (network_options or {}), **settings)

    return make


def test_stage_1_learns_the_proxies_and_leaves_what_paints(stage1: Toy, grid: Path, tmp_path: Path) -> None:
    trainer = trained(stage1(steps=60, report_every=20, lr=3e-3), tmp_path / "one")
    first, *_, last = trainer.run.log()
    assert set(last["losses"]) == {"proxy", "codebook", "commitment", "total"}
    weights = TrainConfig()
    own = (
        weights.codebook_weight * last["losses"]["codebook"] + weights.commitment_weight * last["losses"]["commitment"]
    )
    assert last["losses"]["total"] == pytest.approx(last["losses"]["proxy"] + own, rel=1e-5)
    assert last["losses"]["proxy"] < first["losses"]["proxy"]
    tokenizer, proxies = VisualTokenizer.load(tmp_path / "one"), VisualTokenizer.load(grid)
    assert_same_weights(tokenizer.decoder.head.pixel_decoder.state_dict(), proxies.decoder.state_dict())
    assert torch.equal(tokenizer.decoder.head.pixel_codebook, proxies.quantizer.codebook)
    images = to_float(open_dataset("folder", "test", 16, data_root=trainer.config.data_root).images([0, 1]))
    with torch.no_grad():  # by hand
        logits = tokenizer.decoder.predict(tokenizer(images).codes)  # [2, 16, 4, 4]
        picked = logits.log_softmax(1).gather(1, proxies.encode(images)[:, None])
        loss = trainer.loss(images, tokenizer(images, proxies=True).reconstruction, {})[1]["proxy"]
    torch.testing.assert_close(loss, -picked.mean())
    assert tokenizer.decode(tokenizer.encode(images)).shape == images.shape  # what it predicts can be looked at


def test_stage_2_paints_and_leaves_the_tokens(stage1: Toy, grid: Path, tmp_path: Path) -> None:
    trained(stage1(), tmp_path / "one")
    config = stage1(
        proxy_from=None, init_from=str(tmp_path / "one"), train_parts="decoder", steps=40, report_every=10, lr=3e-3
    )
    trainer = trained(config, tmp_path / "two")
    first, *_, last = trainer.run.log()
    assert last["losses"]["reconstruction"] < first["losses"]["reconstruction"]
    before, after = (VisualTokenizer.load(tmp_path / name).state_dict() for name in ("one", "two"))
    for name, value in after.items():
        assert torch.equal(value, before[name]) != name.startswith("decoder."), name


def test_stages_are_resumed_bit_by_bit_without_their_sources(stage1: Toy, grid: Path, tmp_path: Path) -> None:
    whole = trained(stage1(), tmp_path / "whole")
    for _ in itertools.islice(opened(stage1(), tmp_path / "parts"), 1):
        pass
    parts = trained(stage1(), tmp_path / "parts")
    assert_same_weights(parts.tokenizer.state_dict(), whole.tokenizer.state_dict())
    tuned = stage1(proxy_from=None, init_from=str(tmp_path / "parts"), train_parts="decoder")
    for _ in itertools.islice(opened(tuned, tmp_path / "tuned"), 1):
        pass
    shutil.rmtree(tmp_path / "parts")
    shutil.rmtree(grid)  # a saved tokenizer has all that paints within it
    resumed = trained(tuned, tmp_path / "tuned")
    assert resumed.step == tuned.steps
    tokenizer = VisualTokenizer.load(tmp_path / "tuned")
    assert tokenizer.decode(tokenizer.encode(torch.zeros(1, 3, 16, 16))).shape == (1, 3, 16, 16)


def test_stage_1_paints_what_it_predicts_whatever_it_begins_with(stage1: Toy, toy: Toy, tmp_path: Path) -> None:
    other = tmp_path / "other"
    trained(toy(quantizer="ema", steps=2, seed=1), other)
    trained(stage1(), tmp_path / "one")
    tokenizer = trained(stage1(init_from=str(tmp_path / "one"), proxy_from=str(other)), tmp_path / "two").tokenizer
    proxies = VisualTokenizer.load(other)
    assert_same_weights(tokenizer.decoder.head.pixel_decoder.state_dict(), proxies.decoder.state_dict())
    assert torch.equal(tokenizer.decoder.head.pixel_codebook, proxies.quantizer.codebook)


def test_stage_1_does_not_go_on_with_other_proxies(stage1: Toy, grid: Path, toy: Toy, tmp_path: Path) -> None:
    for _ in itertools.islice(opened(stage1(), tmp_path / "one"), 1):
        pass
    grid.rename(tmp_path / "first")
    trained(toy(quantizer="ema", steps=2, seed=1), grid)
    with pytest.raises(
        ValueError, match="proxy_from is .*, but its weights are others now than those that .* was trained with so far"
    ) as error:
        trained(stage1(), tmp_path / "one")
    assert "\n" not in str(error.value)
    shutil.rmtree(grid)
    (tmp_path / "first").rename(grid)
    assert trained(stage1(), tmp_path / "one").step == stage1().steps


def test_what_stage_1_cannot_use_is_refused_before_anything_is_written(toy: Toy, stage1: Toy, tmp_path: Path) -> None:
    def refused(sentence: str, **settings: object) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(sentence)) as error:
            opened(stage1(**settings), tmp_path / "refused")
        assert "\n" not in str(error.value) and not (tmp_path / "refused").exists()

    small = {"hidden_dim": 8, "num_res_blocks": 1}
    others = {
        "levels": {"quantizer": "residual", "quantizer_options": {"num_levels": 3}},
        "none": {"quantizer": "none", "codebook_size": TrainConfig().codebook_size},
        "wide": {"hidden_dim": 12},
        "coarse": {"network": "vit", "network_options": {"depth": 1, "num_heads": 2, "mlp_dim": 8, "patch_size": 8}},
    }
    for name, settings in others.items():
        usual = {"num_res_blocks": TrainConfig().num_res_blocks} if name == "coarse" else {}
        VisualTokenizer.from_config(toy(**settings | usual)).save(tmp_path / name)
    refused("There is no run, tokenizer or checkpoint", proxy_from=str(tmp_path / "nowhere"))
    refused(
        "whose quantizer 'residual' has 3 codebooks, but each patch predicts one code",
        proxy_from=str(tmp_path / "levels"),
    )
    refused(
        "whose quantizer 'none' has no codebooks, but each patch predicts one code", proxy_from=str(tmp_path / "none")
    )
    refused("which makes 2x2 tokens of 16 pixels, but there are 4x4 patches", proxy_from=str(tmp_path / "coarse"))
    described = json.dumps(PROXIES | {"network_options": small | {"hidden_dim": 12}})
    refused("but network_options describe another pixel_decoder; they would be", proxy_from=str(tmp_path / "wide"))
    refused(described, proxy_from=str(tmp_path / "wide"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"reconstruction_weight": 0.5}, "reconstruction_weight is 0.5, but with proxy_from no pictures are painted"),
        ({"discriminator": "patchgan", "adversarial_weight": 0.1}, "discriminator is 'patchgan', but with proxy_from"),
        ({"network_options": {"pixel_decoder": None}}, "but nothing predicts its codes: network 'titok' does where"),
    ],
)
def test_settings_beside_proxies_that_have_no_effect_are_refused(
    stage1: Toy, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        stage1(**settings)


def test_stage_2_without_its_source_is_refused(stage1: Toy) -> None:
    with pytest.raises(
        ValueError, match="init_from is 'row:celeba64/vq-d4', a row's run, which TrainConfig.from_row finds"
    ):
        TrainConfig(init_from="row:celeba64/vq-d4")
    with pytest.raises(ValueError, match="train_parts is 'decoder', but without init_from the other parts are random"):
        stage1(proxy_from=None, train_parts="decoder")


def test_the_rows_of_two_stages_train_one_after_the_other() -> None:
    settings = {"dataset": "photos", "precision": "float32", "steps": 3, "report_every": 3}
    rows = ["maskgit-64", "titok-32-stage1", "titok-32-stage2"]
    configs = [TrainConfig.from_row(f"one_dimensional64/{row}", "smoke", **settings) for row in rows]
    with pytest.raises(FileNotFoundError, match=re.escape(str(configs[0].run_dir))):
        opened(configs[1])
    for config in configs:
        trained(config)
    grid, one, two = (VisualTokenizer.load(config.run_dir) for config in configs)
    assert two.token_grids() == [(1, 32)]
    assert_same_weights(one.decoder.head.pixel_decoder.state_dict(), grid.decoder.state_dict())
    assert_same_weights(two.encoder.state_dict(), one.encoder.state_dict())
    assert not torch.equal(two.decoder.last_layer, one.decoder.last_layer)


def digests(tokenizer: VisualTokenizer) -> dict[str, bytes]:
    """Return of each parameter what tells it from a changed one: a copy of all would not fit beside a step of the largest."""
    return {
        name: hashlib.sha256(value.detach().numpy().tobytes()).digest() for name, value in tokenizer.named_parameters()
    }


PAPER_ROWS = ["titok-one-stage"] + [
    f"titok-{size}{stage}" for size in ("s128", "b64", "l32") for stage in ("-stage1", "")
]


@pytest.mark.skipif("VISTOK_EXTENDED" not in os.environ, reason="minutes a row: VISTOK_EXTENDED=1")
@pytest.mark.parametrize("row", PAPER_ROWS)
def test_every_row_takes_a_step_at_paper_scale(
    row: str, images_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All losses (on networks of random weights) and the optimisers, at 256x256; one image instead of a batch."""
    begun = {"dataset": "folder", "data_root": str(images_root), "batch_size": 1, "steps": 1, "warmup_steps": 0}
    begun |= {"num_workers": 0}
    classifier = ClassifierDistance(untrained_classifier("convnext_s"))
    monkeypatch.setattr("vistok.training.building.build_classifier", lambda *_, **__: classifier)
    begun |= {} if row.endswith("-stage1") else {"adversarial_start": 0}
    begun |= {"lpips_weights": str(write_backbone("vgg", tmp_path))} if row == "titok-one-stage" else {}
    config = TrainConfig.from_row(f"imagenet256/{row}", "paper", **begun)
    if config.proxy_from is not None:
        described = dict(config.network_options["pixel_decoder"])
        sizes = {name: described.pop(name) for name in ("codebook_size", "codebook_dim")}
        VisualTokenizer(**described, quantizer_options=sizes, image_size=256).save(tmp_path / "source")
        config = dataclasses.replace(config, proxy_from=str(tmp_path / "source"))
    if config.init_from is not None:
        VisualTokenizer.from_config(config).save(tmp_path / "source")
        config = dataclasses.replace(config, init_from=str(tmp_path / "source"))
    trainer = opened(config, tmp_path / "run")
    before = digests(trainer.tokenizer)
    (report,) = trainer
    assert all(math.isfinite(value) for value in report.losses.values())
    of_pictures = {"reconstruction", "classifier", "adversarial", "discriminator"}
    assert {"proxy"} <= report.losses.keys() if row.endswith("-stage1") else of_pictures <= report.losses.keys()
    trained_parts = {name for name, value in trainer.tokenizer.named_parameters() if value.requires_grad}
    after = digests(trainer.tokenizer)
    assert {name for name in after if after[name] != before[name]} == trained_parts
