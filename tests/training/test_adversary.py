"""The one loop with a discriminator, and with all that large tokenizers need: what a step computes, resume, refusals."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden import put_official
from helpers.trainings import assert_same_weights, crash_at, log_without_rates, opened, trained
from helpers.weights import write_backbone

from vistok.config import TrainConfig
from vistok.networks.perceptual import ClassifierDistance
from vistok.pretrained import load_pretrained
from vistok.runs import Run
from vistok.system.paths import repository_root
from vistok.system.weights import Unavailable
from vistok.tokenizer import VisualTokenizer
from vistok.training.optimization import lr_factor

Toy = Callable[..., TrainConfig]
GAN = {
    "discriminator": "patchgan",
    "discriminator_options": {"hidden_dim": 4, "num_layers": 1, "norm": "none"},
    "adversarial_weight": 0.5,
}
EVERYTHING = GAN | {
    "discriminator_options": {"hidden_dim": 4, "num_layers": 1},  # with batch norm, whose statistics are state too
    "discriminator_start": 2,
    "adversarial_start": 4,
    "adversarial_adaptive": True,
    "lecam_weight": 0.1,
    "r1_weight": 1.0,
    "r1_every": 2,
    "ema_decay": 0.9,
    "gradient_clip": 1.0,
    "warmup_steps": 3,
    "lr_schedule": "cosine",
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "accumulate": 2,
    "steps": 11,
}
OF_PUBLISHED_RECIPES = EVERYTHING | {"lr_schedule": "linear", "weight_decay_on": "kernels", "ema_warmup": "power"}


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        EVERYTHING | {"quantizer": "ema"},
        OF_PUBLISHED_RECIPES,
        OF_PUBLISHED_RECIPES | {"precision": "float16", "reconstruction_weight": 30.0},
    ],
    ids=["vq", "ema", "published", "float16"],
)
@pytest.mark.parametrize("leave", ["break", "crash"])
def test_interrupted_and_resumed_is_the_same_as_uninterrupted(
    toy: Toy, tmp_path: Path, settings: dict[str, Any], leave: str
) -> None:
    config = toy(checkpoint_every=4, **settings)
    whole = trained(config, tmp_path / "whole")
    first = opened(config, tmp_path / "parts")
    if leave == "break":
        for report in first:
            if report.step >= 6:
                break
    else:
        crash_at(first, 10)
        with pytest.raises(RuntimeError, match="crashed"):
            list(first)
    second = trained(config, tmp_path / "parts")
    assert_same_weights(second.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert_same_weights(second.result.state_dict(), whole.result.state_dict())
    assert_same_weights(second.adversary.discriminator.state_dict(), whole.adversary.discriminator.state_dict())
    assert_same_weights(second.adversary.loss.lecam.state_dict(), whole.adversary.loss.lecam.state_dict())
    if config.precision == "float16":  # of which some steps were left out, and not all
        skipped = [line.get("skipped_steps", 0) for line in whole.run.log()]
        assert sum(skipped[:2]) and sum(skipped) < config.steps and whole._average.n_averaged > 0, skipped
    assert second.scale.state_dict() == whole.scale.state_dict()
    assert second.adversary.scale.state_dict() == whole.adversary.scale.state_dict()
    assert log_without_rates(second.run) == log_without_rates(whole.run)


SCRIPT = """
import os, signal, sys
from vistok import Run, TrainConfig, Trainer
config, path, kill_at = TrainConfig.from_json(sys.argv[1]), sys.argv[2], int(sys.argv[3])
trainer = Trainer(Run.open(path, config), progress=False)
take = trainer.train_step
def step(images):
    if trainer.step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(images)
trainer.train_step = step
for report in trainer:
    pass
"""


@pytest.mark.slow
def test_killed_amid_the_adversarial_part_and_resumed(toy: Toy, tmp_path: Path) -> None:
    config = toy(checkpoint_every=3, **EVERYTHING)
    whole = trained(config, tmp_path / "whole")
    codes = []
    for kill_at in (8, 1000):
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, config.to_json(), str(tmp_path / "parts"), str(kill_at)],
            cwd=repository_root(),
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
            capture_output=True,
            text=True,
            timeout=300,
        )
        codes.append(process.returncode)
    assert codes == [-signal.SIGKILL, 0], process.stderr
    resumed, uninterrupted = (
        torch.load(r.checkpoints.files()[-1], weights_only=True) for r in (Run.open(tmp_path / "parts"), whole.run)
    )
    assert resumed["step"] == uninterrupted["step"] == 11
    for part in ("tokenizer", "average"):
        assert_same_weights(resumed[part], uninterrupted[part])
    assert_same_weights(resumed["adversary"]["discriminator"], uninterrupted["adversary"]["discriminator"])
    assert log_without_rates(Run.open(tmp_path / "parts")) == log_without_rates(whole.run)


def test_reports_name_both_sides_from_the_step_they_begin(toy: Toy) -> None:
    reports = {r.step: r.losses for r in opened(toy(report_every=1, **EVERYTHING))}
    own = {"reconstruction", "codebook", "commitment", "total"}
    assert reports[2].keys() == own
    assert reports[3].keys() == own | {"discriminator", "lecam", "r1", "logits_real", "logits_fake"}
    assert reports[4].keys() == own | {"discriminator", "lecam", "logits_real", "logits_fake"}  # R1 is lazy
    assert reports[5].keys() == reports[3].keys() | {"adversarial", "adversarial_weight"}
    r = reports[5]
    expected = r["reconstruction"] + r["codebook"] + 0.25 * r["commitment"]
    assert r["total"] == pytest.approx(expected + r["adversarial_weight"] * r["adversarial"], abs=0.05)
    assert abs(r["total"] - expected) > 1e-4


def test_the_discriminator_learns_what_the_tokenizer_then_hears(toy: Toy) -> None:
    """Before its start the discriminator stays; the tokenizer's own step does not change it."""
    trainer = opened(toy(steps=6, report_every=1, discriminator_start=3, adversarial_start=4, **GAN))
    before = {k: v.clone() for k, v in trainer.adversary.discriminator.state_dict().items()}
    for report in trainer:
        state = trainer.adversary.discriminator.state_dict()
        same = all(torch.equal(before[name], state[name]) for name in before)
        assert same == (report.step <= 3)
        assert all(p.requires_grad for p in trainer.adversary.discriminator.parameters())


def test_an_adversarial_term_changes_the_tokenizer(toy: Toy, tmp_path: Path) -> None:
    plain = trained(toy(steps=4), tmp_path / "plain")
    late = trained(toy(steps=4, adversarial_start=3, **GAN), tmp_path / "late")
    early = trained(toy(steps=4, **GAN), tmp_path / "early")
    states = [t.tokenizer.state_dict()["decoder.up.1.weight"] for t in (plain, late, early)]
    assert not torch.equal(states[0], states[1])
    assert not torch.equal(states[1], states[2])


def test_the_seed_of_the_tokenizer_does_not_depend_on_the_discriminator(toy: Toy, tmp_path: Path) -> None:
    plain, gan = opened(toy(), tmp_path / "plain"), opened(toy(**GAN), tmp_path / "gan")
    assert_same_weights(plain.tokenizer.state_dict(), gan.tokenizer.state_dict())


@pytest.mark.parametrize("settings", [{}, GAN, GAN | {"lecam_weight": 0.1, "r1_weight": 1.0}])
def test_accumulated_parts_are_the_whole_batch(toy: Toy, tmp_path: Path, settings: dict[str, Any]) -> None:
    whole, parts = (trained(toy(steps=1, accumulate=n, **settings), tmp_path / str(n)) for n in (1, 4))
    for name, value in whole.tokenizer.state_dict().items():
        assert torch.allclose(parts.tokenizer.state_dict()[name], value, rtol=1e-4, atol=2e-5), name
    first, second = (t.run.log()[-1]["losses"] for t in (whole, parts))
    assert first.keys() == second.keys()
    assert second == pytest.approx(first, rel=1e-4, abs=1e-5)


def test_accumulated_gradients_are_the_whole_batchs(toy: Toy, tmp_path: Path) -> None:
    """Adam's step hides a gradient's scale: compare the gradients, by their norm before a clip that bites."""
    runs = [trained(toy(steps=1, accumulate=n, gradient_clip=1e-3, lr=1e-2), tmp_path / str(n)) for n in (1, 2)]
    moments = [torch.load(t.run.checkpoints.files()[-1], weights_only=True)["optimizer"]["state"] for t in runs]
    for index in moments[0]:
        assert torch.allclose(moments[0][index]["exp_avg"], moments[1][index]["exp_avg"], rtol=1e-3, atol=1e-9)
    norm = sum(state["exp_avg"].div(0.1).square().sum() for state in moments[0].values()).sqrt()
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


BATCH_NORM = GAN | {"discriminator_options": {"hidden_dim": 4, "num_layers": 1}}
STYLEGAN2 = GAN | {"discriminator": "stylegan2", "discriminator_options": {"channel_multiplier": 1 / 64}}
ENTROPY = {"quantizer_options": {"entropy_temperature": 0.1}}


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({"quantizer": "lfq", "codebook_size": 16}, "the entropy loss"),
        ({"quantizer": "ibq"}, "the entropy loss"),
        (ENTROPY, "the entropy loss"),
        ({"quantizer": "residual", "quantizer_options": {"member": "bsq", "num_levels": 2}}, "the entropy loss"),
        (
            {"quantizer": "ema", "quantizer_options": {"init": "kmeans"}},
            "the moving average of codes, the start by k-means",
        ),
        (BATCH_NORM | {"adversarial_adaptive": True}, "batch norm, the adaptive weight"),
        (STYLEGAN2, "the minibatch standard deviation"),
        (GAN | {"lecam_weight": 0.1, "lecam_logits": "mean"}, "LeCam's mean logits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_of_a_batch_in_parts_is_another_is_said_before_training(
    toy: Toy, settings: dict[str, Any], seen: str
) -> None:
    said = f"accumulate is 2: {seen} will see 2 images at a time, not the batch of 4, which changes what is trained"
    with pytest.warns(UserWarning, match=re.escape(said)):
        opened(toy(accumulate=2, **settings))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings", [{}, GAN, {"entropy_weight": 0.0, **ENTROPY}, {"quantizer": "lfq", "accumulate": 1}]
)
def test_nothing_is_said_where_parts_are_the_whole_batch(toy: Toy, settings: dict[str, Any]) -> None:
    opened(toy(**{"accumulate": 2, **settings}))


def test_annealing_counts_the_steps_of_a_batch_in_parts(toy: Toy, tmp_path: Path) -> None:
    options = {"final_temperature": 0.5, "anneal_steps": 100}
    gumbel = {"quantizer": "gumbel", "quantizer_options": options}
    inside = {"quantizer": "grouped", "quantizer_options": {"member": "gumbel", "member_options": options}}
    for number, settings in enumerate((gumbel, inside)):
        state = trained(toy(accumulate=4, **settings), tmp_path / str(number)).tokenizer.quantizer.state_dict()
        assert {int(value) for name, value in state.items() if name.endswith("step")} == {6}


def test_the_saved_tokenizer_is_the_moving_average(toy: Toy) -> None:
    trainer = opened(toy(steps=5, report_every=1, ema_decay=0.5))
    history = []
    for _ in trainer:
        history.append({k: v.clone() for k, v in trainer.tokenizer.state_dict().items()})
    expected = history[0]
    for state in history[1:]:
        expected = {k: torch.lerp(expected[k], state[k], 0.5) for k in expected}
    saved = VisualTokenizer.load(trainer.run.path).state_dict()
    for name in expected:
        assert torch.allclose(saved[name], expected[name], rtol=1e-5, atol=1e-7), name
    assert not torch.equal(saved["decoder.up.1.weight"], trainer.tokenizer.state_dict()["decoder.up.1.weight"])


def test_learning_rates() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, lr_schedule="cosine")
    factors = [lr_factor(config, step) for step in range(110)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[85] == pytest.approx(0.5 * (1 + math.cos(0.75 * math.pi)))
    assert 0 < factors[109] < 1e-3
    assert [lr_factor(TrainConfig(), step) for step in (0, 10**5)] == [1, 1]
    floored = TrainConfig(steps=110, warmup_steps=10, lr_schedule="cosine", lr=1e-4, min_lr=5e-5)
    assert [lr_factor(floored, step) for step in (0, 9, 10)] == pytest.approx([0.1, 1, 1])
    assert [lr_factor(floored, step) for step in (60, 110)] == pytest.approx([0.75, 0.5])
    assert all(0.5 < lr_factor(floored, step) <= 1 for step in range(10, 110))


def test_recomputed_activations_change_nothing(tmp_path: Path) -> None:
    settings = {"scale": "smoke", "dataset": "photos", "steps": 3, "adversarial_start": 1, "precision": "float32"}
    kept, recomputed = (
        trained(TrainConfig.from_row("imagenet256/taming", checkpoint_activations=on, **settings), tmp_path / str(on))
        for on in (False, True)
    )
    assert_same_weights(kept.tokenizer.state_dict(), recomputed.tokenizer.state_dict())
    assert kept.config.fingerprint == recomputed.config.fingerprint


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_fine_tuning_the_decoder_leaves_encoder_and_codebook(toy: Toy, tmp_path: Path, quantizer: str) -> None:
    start = trained(toy(quantizer=quantizer), tmp_path / "start")
    tuned = trained(
        toy(quantizer=quantizer, init_from=str(start.run.path), train_parts="decoder", seed=3), tmp_path / "tuned"
    )
    before, after = start.result.state_dict(), tuned.result.state_dict()
    for name in before:
        assert torch.equal(before[name], after[name]) != name.startswith("decoder."), name


def test_weights_that_are_taken_over_under_other_settings_are_said_so(
    toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = trained(toy(), tmp_path / "start")
    opened(toy(init_from=str(start.run.path), seed=3, quantizer_options={"revive_after": None}), tmp_path / "alike")
    assert "other settings" not in capsys.readouterr().out
    opened(toy(init_from=str(start.run.path), seed=3, l2_norm=True), tmp_path / "other")
    assert "other settings: quantizer_options.l2_norm is False there, True here." in capsys.readouterr().out


def test_fine_tuning_begins_at_the_given_weights_and_resumes_at_its_own(toy: Toy, tmp_path: Path) -> None:
    start = trained(toy(), tmp_path / "start")
    config = toy(init_from=str(start.run.path), seed=3, steps=4, checkpoint_every=2, ema_decay=0.9)
    tuning = opened(config, tmp_path / "tuned")
    for tokenizer in (tuning.tokenizer, tuning.result):  # the average begins there too
        assert_same_weights(tokenizer.state_dict(), start.tokenizer.state_dict())
    assert len(list(tuning)) == 2
    again = opened(config, tmp_path / "tuned")
    assert again.step == 4
    assert_same_weights(again.tokenizer.state_dict(), tuning.tokenizer.state_dict())


def test_fine_tuning_another_architecture_is_refused(toy: Toy, tmp_path: Path) -> None:
    start = trained(toy(), tmp_path / "start")
    with pytest.raises(ValueError, match="of another architecture: .*codebook|quantizer.weight is"):
        opened(toy(init_from=str(start.run.path), codebook_dim=8), tmp_path / "tuned")


def test_fine_tuning_begins_at_an_official_checkpoint_by_its_name(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    put_official(monkeypatch)
    start = load_pretrained("llamagen-ds16")
    model = start.config_settings() | {"image_size": 16}
    tuning = opened(toy(**model, init_from="llamagen-ds16", train_parts="decoder"), tmp_path / "tuned")
    assert_same_weights(tuning.tokenizer.state_dict(), start.state_dict())

    with pytest.raises(FileNotFoundError, match="llamagen-ds61. Did you mean 'llamagen-ds16'"):
        opened(toy(**model, init_from="llamagen-ds61"), tmp_path / "misspelt")
    assert not (tmp_path / "misspelt").exists()  # refused before anything is written


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"adversarial_weight": 0.5}, "adversarial_weight is 0.5, but there is no discriminator"),
        ({"lecam_weight": 0.1}, "lecam_weight is 0.1, but there is no discriminator"),
        ({"adversarial_loss": "vanilla"}, "adversarial_loss is 'vanilla', but there is no discriminator"),
        ({"r1_every": 4}, "r1_every is 4, but there is no discriminator"),
        (GAN | {"r1_every": 4}, "r1_every is 4, but r1_weight is 0; 10 is usual."),
        ({"discriminator": "patchgan"}, "but adversarial_weight is 0"),
        (GAN | {"discriminator": "patchgann"}, "There is no discriminator 'patchgann'; did you mean 'patchgan'?"),
        (GAN | {"discriminator_options": {"widht": 3}}, "has no option 'widht'"),
        (GAN | {"adversarial_start": 6}, "the run has only 6 steps"),
        (GAN | {"adversarial_start": 1, "discriminator_start": 2}, "before discriminator_start 2"),
        ({"adversarial_loss": "hing"}, "did you mean 'hinge'"),
        ({"weight_decay": 0.1}, "only optimizer 'adamw' decays weights"),
        ({"accumulate": 3}, "accumulate is 3, but must divide batch_size 4"),
        ({"train_parts": "decoder"}, "without init_from"),
        ({"ema_decay": 1.0}, r"ema_decay is 1.0, but must be in \[0, 1\)"),
        ({"gradient_clip": 0.0}, "gradient_clip is 0.0, but must be above 0"),
        ({"warmup_steps": 6, "lr_schedule": "cosine"}, "warmup_steps is 6"),
        ({"warmup_steps": 6, "lr_schedule": "linear"}, "warmup_steps is 6"),
        ({"min_lr": 1e-5}, "min_lr is 1e-05, but only lr_schedule 'cosine' and 'linear' fall to it"),
        ({"lr_schedule": "lineal"}, "did you mean 'linear'"),
        ({"weight_decay_on": "kernels"}, "weight_decay_on is 'kernels', but weight_decay is 0; 0.0001 is usual"),
        ({"ema_warmup": "power"}, "ema_warmup is 'power', but ema_decay is None"),
        ({"ema_decay": 0.9, "ema_power": 0.75}, "ema_power is 0.75, but ema_warmup is None: only 'power' has it"),
        (
            {"ema_decay": 0.9, "ema_warmup": "tensorflow", "ema_inv_gamma": 2.0},
            "ema_inv_gamma is 2.0, but ema_warmup is",
        ),
        ({"classifier": "resnet50"}, "classifier is 'resnet50', but classifier_weight is 0; 0.1 is usual"),
        ({"classifier": "resnet-50", "classifier_weight": 0.1}, "did you mean 'resnet50'"),
        (
            {"discriminator": "maskbit", "adversarial_weight": 1.0, "discriminator_options": {"num_stages": 0}},
            "num_stages is 0",
        ),
        ({"min_lr": 1e-3, "lr_schedule": "cosine"}, "min_lr is 0.001, but must be below lr 0.001"),
        (GAN | {"lecam_logits": "mean"}, "lecam_logits is 'mean', but lecam_weight is 0"),
        ({"lecam_logits": "mean"}, "lecam_logits is 'mean', but there is no discriminator"),
        (GAN | {"lecam_weight": 0.1, "lecam_logits": "means"}, "did you mean 'mean'"),
        ({"network_options": {"hidden_dim": 3}}, "which is a setting of its own"),
        (
            GAN | {"discriminator_options": {"image_size": 16}},
            "discriminator_options holds 'image_size', which is a setting",
        ),
        ({"checkpoint_activations": True}, "no blocks whose activations could be recomputed"),
        ({"network": "vit", "num_res_blocks": 5}, "has no option 'num_res_blocks'"),
    ],
)
def test_settings_without_effect_are_refused_before_training(toy: Toy, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        opened(toy(**settings))


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"lpips_weight": 1.0}, ("VGG16 (530 MB)", "/vgg16-397923af.pth", "lpips_weights=FILE")),
        (
            {"classifier_weight": 0.1},
            ("ConvNeXt-S (192 MB)", "/convnext_small-0c510722.pth", "classifier_weights=FILE"),
        ),
        (
            {"classifier_weight": 0.1, "classifier": "resnet50"},
            ("ResNet-50 (98 MB)", "/resnet50-0676ba61.pth", "classifier_weights=FILE"),
        ),
    ],
    ids=["lpips", "convnext_s", "resnet50"],
)
def test_a_perceptual_loss_without_its_network_fails_before_the_first_step(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], parts: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(Unavailable) as error:
        opened(toy(**settings), tmp_path / "run")
    message = str(error.value)
    assert "\n" not in message
    for part in ("https://download.pytorch.org/models/", "hub", *parts):
        assert part in message
    assert not (tmp_path / "run").exists()


def test_a_training_does_not_go_on_through_another_network(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_network(seed: int) -> None:
        torch.manual_seed(seed)
        made = ClassifierDistance(torch.nn.Sequential(torch.nn.Conv2d(3, 5, 32, 32), torch.nn.Flatten()))
        monkeypatch.setattr("vistok.training.building.build_classifier", lambda *_, **__: made)

    config = toy(classifier="resnet50", classifier_weight=0.5, classifier_weights="file.pth", report_every=1)
    give_network(0)
    next(iter(opened(config, tmp_path)))
    give_network(1)
    sentence = (
        "classifier_weights is 'file.pth', but its weights are others now than those that .* was trained with so far"
    )
    with pytest.raises(ValueError, match=sentence):
        trained(config, tmp_path)
    give_network(0)
    assert trained(config, tmp_path).step == config.steps


def test_a_classifier_s_loss_is_weighed_beside_the_others(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def build(*given: object, **options: object) -> ClassifierDistance:
        asked.append((*given, *options.values()))
        torch.manual_seed(7)
        return ClassifierDistance(torch.nn.Sequential(torch.nn.Conv2d(3, 5, 32, 32), torch.nn.Flatten()))

    monkeypatch.setattr("vistok.training.building.build_classifier", build)
    settings = {"classifier": "resnet50", "classifier_weight": 0.5, "report_every": 1, "accumulate": 2}
    trainer = opened(toy(**settings, classifier_weights="file.pth"), tmp_path)
    assert asked == [("resnet50", "file.pth", True, "classifier_weights=FILE")]
    assert trainer.loss_weights["classifier"] == 0.5
    images = next(trainer.batches())
    with torch.no_grad():
        outputs = [trainer.tokenizer.train()(part) for part in images.chunk(2)]
        reconstruction = torch.cat([output.reconstruction for output in outputs])
        expected = trainer.loss.perceptual["classifier"](images, reconstruction).mean()
    losses = next(iter(trainer)).losses
    assert losses["classifier"] == pytest.approx(expected.item(), rel=1e-4) and losses["classifier"] > 0
    terms = losses["reconstruction"] + losses["codebook"] + 0.25 * losses["commitment"] + 0.5 * losses["classifier"]
    assert losses["total"] == pytest.approx(terms, rel=1e-5)


ROWS = ["taming", "taming-corrected", "llamagen", "llamagen-corrected", "vit-small", "vit-base"]


@pytest.mark.skipif("VISTOK_EXTENDED" not in os.environ, reason="a minute a row: VISTOK_EXTENDED=1")
@pytest.mark.parametrize("row", ROWS)
def test_every_row_takes_a_step_at_paper_scale(row: str, images_root: Path, tmp_path: Path) -> None:
    """Both sides, LPIPS (on a backbone of random weights) and the optimisers, at 256x256; two images instead of a batch."""
    config = TrainConfig.from_row(
        f"imagenet256/{row}",
        "paper",
        dataset="folder",
        data_root=str(images_root),
        batch_size=2,
        steps=1,
        adversarial_start=0,
        discriminator_start=0,
        warmup_steps=0,
        num_workers=0,
        lpips_weights=str(write_backbone("vgg", tmp_path)),
    )
    trainer = opened(config, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.tokenizer.named_parameters()}
    (report,) = trainer
    assert {"lpips", "adversarial", "discriminator"} <= report.losses.keys()
    assert all(math.isfinite(value) for value in report.losses.values())
    still = [name for name, value in trainer.tokenizer.named_parameters() if torch.equal(value, before[name])]
    assert still == []


@pytest.mark.parametrize("row", ROWS)
def test_every_row_trains_at_smoke_scale(row: str, tmp_path: Path) -> None:
    config = TrainConfig.from_row(f"imagenet256/{row}", "smoke", dataset="photos", steps=3, adversarial_start=1)
    trainer = trained(config, tmp_path / "run")
    losses = trainer.run.log()[-1]["losses"]
    assert {"adversarial", "discriminator"} <= losses.keys()
    assert all(math.isfinite(value) for value in losses.values())
