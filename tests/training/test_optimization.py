"""What a step is taken with, against the code of others: the average's decay, decayed weights, and float16's scaled loss."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helpers.discriminators
import pytest
import torch
from helpers.quantizers import VARIANTS, options_of
from helpers.trainings import assert_same_weights, log_without_rates, opened, trained
from torch import Tensor, nn

from vistok import networks, quantizers
from vistok.config import TrainConfig
from vistok.losses import adaptive_weight
from vistok.networks import NETWORKS
from vistok.runs import Run
from vistok.system.checkpoints import Checkpoints
from vistok.training.optimization import LEAST_SCALE, LossScale, average_decay, build_optimizer, kernels, lr_factor

Toy = Callable[..., TrainConfig]
GAN = {
    "discriminator": "maskbit",
    "discriminator_options": {"hidden_dim": 8, "num_stages": 1},
    "adversarial_weight": 0.5,
    "adversarial_adaptive": True,
    "r1_weight": 1.0,
    "r1_every": 2,
}


# Schedules


def test_the_linear_schedule_falls_to_its_floor() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, lr_schedule="linear", lr=1e-4, min_lr=2e-5)
    assert [lr_factor(config, step) for step in (0, 9, 10)] == pytest.approx([0.1, 1, 1])
    assert [lr_factor(config, step) for step in (35, 60, 110)] == pytest.approx([0.8, 0.6, 0.2])
    assert lr_factor(TrainConfig(steps=100, lr_schedule="linear"), 25) == pytest.approx(0.75)


# The average of the weights

WARMUPS = {
    "tensorflow": ({}, {}),
    "power": ({}, {"use_ema_warmup": True}),
    "power-stretched": (
        {"ema_inv_gamma": 3.0, "ema_power": 0.75},
        {"use_ema_warmup": True, "inv_gamma": 3.0, "power": 0.75},
    ),
}


def warmed_up(name: str) -> dict[str, Any]:
    return {"ema_decay": 0.8, "ema_warmup": name.partition("-")[0]} | WARMUPS[name][0]


@pytest.mark.parametrize("name", WARMUPS)
def test_decays_are_those_of_diffusers(name: str) -> None:
    from diffusers.training_utils import EMAModel  # seconds to import

    theirs, config = EMAModel([], decay=0.8, **WARMUPS[name][1]), TrainConfig(**warmed_up(name))
    decays = [average_decay(config, updates) for updates in range(1, 200)]
    assert decays == [theirs.get_decay(updates + 1) for updates in range(1, 200)]
    assert decays[0] < 0.5 and decays[-1] == 0.8


def test_decays_are_those_that_are_said() -> None:
    millions, fewer = (TrainConfig(ema_decay=0.9999, ema_warmup="power", ema_power=power) for power in (2 / 3, 3 / 4))
    assert [average_decay(millions, n) for n in (31_600, 1_000_000)] == pytest.approx([0.999, 0.9999], abs=1e-6)
    assert [average_decay(fewer, n) for n in (10_000, 215_400)] == pytest.approx([0.999, 0.9999], abs=1e-6)
    assert average_decay(TrainConfig(ema_decay=0.99, ema_warmup="tensorflow"), 8) == 0.5
    assert [average_decay(TrainConfig(ema_decay=0.99), n) for n in (0, 1, 10**6)] == [0.99] * 3


@pytest.mark.parametrize("name", WARMUPS)
def test_the_average_of_a_training_is_that_of_diffusers(toy: Toy, name: str) -> None:
    from diffusers.training_utils import EMAModel

    trainer = opened(toy(steps=6, report_every=1, **warmed_up(name)))
    theirs = EMAModel(trainer.tokenizer.parameters(), decay=0.8, **WARMUPS[name][1])
    for _ in trainer:
        theirs.step(trainer.tokenizer.parameters())
    plain = list(trainer.tokenizer.parameters())
    for ours, expected, last in zip(trainer.result.parameters(), theirs.shadow_params, plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
        assert not torch.equal(ours, last)


# Weight decay

SIZES = {
    "simple_cnn": {},
    "vit": {"hidden_dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 8, "positions": "learned"},
    "titok": {"hidden_dim": 8, "depth": 1, "num_heads": 2},
}


def modules() -> dict[str, Callable[[], nn.Module]]:
    def network(name: str) -> nn.Module:
        options = SIZES.get(name, {"hidden_dim": 32, "num_res_blocks": 1})
        return nn.ModuleList(networks.build(name, codebook_dim=4, image_size=16, **options))

    found = {name: lambda name=name: network(name) for name in NETWORKS}
    for variant in VARIANTS:
        found[variant] = lambda v=variant: quantizers.build(v.partition("-")[0], **options_of(v))
    return found | {v: lambda v=v: helpers.discriminators.build(v) for v in helpers.discriminators.SMALL}


@pytest.mark.parametrize("name", modules())
def test_kernels_are_all_that_is_neither_norm_bias_embedding_nor_codebook(name: str) -> None:
    """By another rule: of each parameter's name and shape. A new kind of layer is to be decided on."""
    module = modules()[name]()
    decayed = {id(kernel) for kernel in kernels(module)}
    for where, parameter in module.named_parameters():
        is_codebook = isinstance(module, quantizers.Quantizer) and parameter.ndim == 2
        is_codebook &= where != "projection.weight" or name.startswith("simvq")  # to the logits of Gumbel-softmax
        is_kernel = where.endswith("weight") and parameter.ndim >= 2 and not is_codebook
        assert (id(parameter) in decayed) == is_kernel, where


def test_only_kernels_decay_where_so_set() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2), nn.Embedding(4, 2))
    before = {name: value.clone() for name, value in module.named_parameters()}
    module[0].bias.requires_grad_(False)
    for weight_decay_on, decayed in (("all", before.keys() - {"0.bias"}), ("kernels", {"0.weight", "3.weight"})):
        module.load_state_dict(before)
        config = TrainConfig(optimizer="adamw", weight_decay=0.5, weight_decay_on=weight_decay_on)
        optimizer = build_optimizer(config, module, lr=0.1)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before) - 1
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, value in module.named_parameters():
            expected = before[name] * (1 - 0.1 * 0.5) if name in decayed else before[name]
            torch.testing.assert_close(value.detach(), expected, msg=name)


# Float16


def by_hand(trainer: Any, batches: list[Tensor]) -> tuple[list[bool], float]:
    """Train as PyTorch's notes on automatic mixed precision do, and return which steps were taken, and the scale at the end."""
    model, config, scaler, taken = trainer.tokenizer.train(), trainer.config, torch.amp.GradScaler("cpu"), []
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    for images in batches:
        for part in images.chunk(config.accumulate):
            with torch.autocast("cpu", torch.float16):
                output = model(part)
            loss = config.reconstruction_weight * (output.reconstruction.float() - part).square().mean()
            loss = loss + output.losses["codebook"] + 0.25 * output.losses["commitment"]
            scaler.scale(loss / config.accumulate).backward()
        scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        taken.append(bool(norm.isfinite()))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return taken, scaler.get_scale()


def test_float16_is_trained_as_pytorchs_notes_say(toy: Toy, tmp_path: Path) -> None:
    """Scaled, unscaled before clipping, and the steps that overflow left out, by the parts of a batch together."""
    settings = {"gradient_clip": 0.1, "accumulate": 2, "steps": 8, "report_every": 1, "reconstruction_weight": 300.0}
    config = toy(precision="float16", **settings)
    ours, theirs = opened(config, tmp_path / "ours"), opened(config, tmp_path / "theirs")
    skipped = [report.skipped_steps for report in ours]
    taken, scale = by_hand(theirs, list(theirs.batches()))
    assert [not step for step in taken] == [bool(step) for step in skipped]
    assert 0 < sum(skipped) < 8 and ours.scale.value == scale == 2.0 ** (16 - sum(skipped))
    for (name, one), other in zip(ours.tokenizer.named_parameters(), theirs.tokenizer.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_float16_learns_what_float32_does(toy: Toy, tmp_path: Path) -> None:
    settings = {"hidden_dim": 16, "steps": 30, "report_every": 10, "ema_decay": 0.9, "adversarial_start": 5} | GAN
    logs = {p: trained(toy(precision=p, **settings), tmp_path / p).run.log() for p in ("float32", "float16")}
    for name in ("reconstruction", "adversarial_weight", "discriminator", "r1", "total"):
        one, other = ([entry["losses"][name] for entry in log[1:]] for log in logs.values())
        assert other == pytest.approx(one, rel=0.1, abs=0.02), name


def state_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [value.clone() for state in optimizer.state.values() for value in state.values()]


def with_options(quantizer: str, **options: Any) -> dict[str, Any]:
    return {"quantizer": quantizer, "quantizer_options": options}


@pytest.mark.parametrize(
    "settings",
    [
        {"discriminator": "maskbit"},
        {"discriminator": "patchgan"} | with_options("ema", revive_after=1),
        {"discriminator": "patchgan"} | with_options("vq", revive_after=1),
        {"discriminator": "patchgan"} | with_options("gumbel", final_temperature=0.5, anneal_steps=9),
        {"discriminator": "patchgan"}
        | with_options("residual", member="ema", member_options={"revive_after": 1}, num_levels=2),
    ],
    ids=["maskbit", "ema", "vq", "gumbel", "residual"],
)
def test_a_step_that_overflows_changes_nothing_and_is_counted(
    toy: Toy, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Not what a pass moves by itself either: batch norm's statistics, moving averages, revived codes, counts of steps."""
    options = (
        GAN["discriminator_options"] if settings["discriminator"] == "maskbit" else {"hidden_dim": 4, "num_layers": 1}
    )
    settings = GAN | settings | {"discriminator_options": options}
    trainer = opened(toy(precision="float16", ema_decay=0.9, lecam_weight=0.1, **settings), tmp_path)
    batches = trainer.batches()
    trainer.train_step(next(batches))
    sides = [
        (trainer.tokenizer, trainer.optimizer, trainer.scale),
        (trainer.adversary.discriminator, trainer.adversary.optimizer, trainer.adversary.scale),
    ]
    kept = [
        ({k: v.clone() for k, v in model.state_dict().items()}, state_of(optimizer)) for model, optimizer, _ in sides
    ]
    others = [*trainer._average.state_dict().values(), *trainer.adversary.loss.lecam.state_dict().values()]
    others_kept = [value.clone() for value in others]
    scales = [scale.value for *_, scale in sides]
    for *_, scale in sides:
        scale.backward = lambda loss, scale=scale: LossScale.backward(scale, loss * 1e30)
    trainer.train_step(next(batches))
    for (model, optimizer, scale), (weights, moments), before in zip(sides, kept, scales, strict=True):
        assert_same_weights(model.state_dict(), weights)
        assert all(map(torch.equal, state_of(optimizer), moments))
        assert all(parameter.grad is None for parameter in model.parameters())
        assert (scale.skipped, scale.value) == (1, before / 2)
    assert all(map(torch.equal, others, others_kept))
    assert trainer.measured()["skipped_steps"] == 2
    for *_, scale in sides:
        del scale.backward
    trainer.train_step(next(batches))
    assert "skipped_steps" not in trainer.measured()
    assert not any(
        torch.equal(*pair) for pair in zip(trainer._average.module.parameters(), others_kept[1:], strict=False)
    )


@pytest.mark.parametrize("quantizer", ["vq", "ema"])
def test_a_codebook_starts_at_the_first_step_that_is_taken(toy: Toy, tmp_path: Path, quantizer: str) -> None:
    trainer = opened(toy(precision="float16", **with_options(quantizer, init="kmeans")), tmp_path)
    quantizer, batches = trainer.tokenizer.quantizer, trainer.batches()
    random = quantizer.weight.detach().clone()
    trainer.scale.backward = lambda loss: LossScale.backward(trainer.scale, loss * 1e30)
    trainer.train_step(next(batches))
    assert torch.equal(quantizer.weight, random) and not quantizer.initialized
    del trainer.scale.backward
    while trainer.scale.skipped:
        trainer.scale.skipped = 0
        trainer.train_step(next(batches))
    assert quantizer.initialized and (quantizer.weight - random).abs().mean() > 3 * random.abs().mean()


def test_skipped_steps_stand_in_the_log_where_there_are_some(toy: Toy, tmp_path: Path) -> None:
    settings = {"precision": "float16", "report_every": 2}
    some, none = (trained(toy(reconstruction_weight=w, **settings), tmp_path / str(w)) for w in (1000.0, 0.01))
    assert some.run.log()[0]["skipped_steps"] == 2 and "skipped_steps" not in none.run.log()[-1]
    assert "skipped_steps" not in trained(toy(), tmp_path / "float32").run.log()[0]


def test_gradients_that_overflow_at_every_scale_end_the_training_in_a_sentence() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimizer, scale = torch.optim.SGD([weight], lr=1.0), LossScale(torch.float16, torch.device("cpu"))
    with pytest.raises(
        FloatingPointError, match=r"overflow float16 even with the loss times 0\.00012.*bfloat16"
    ) as error:
        for _ in range(100):
            scale.backward(weight.sum() * math.inf)
            assert not scale.step(optimizer, [weight], 1.0)
    assert "\n" not in str(error.value) and scale.value < LEAST_SCALE and torch.equal(weight, torch.ones(1))


def test_other_precisions_have_no_scale() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        scale = LossScale(dtype, torch.device("cpu"))
        weight = nn.Parameter(torch.full((1,), 2.0))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        scale.backward(weight.sum() * math.inf)
        assert torch.isinf(weight.grad) and scale.step(optimizer, [weight], None)
        assert torch.isinf(weight) and (scale.value, scale.skipped) == (1.0, 0)


def test_the_adaptive_weight_is_the_same_at_every_scale() -> None:
    """Where the gradient of one loss overflows it is taken at a lower scale; where none is, in float16 it would be lost."""
    torch.manual_seed(0)
    layer, x = nn.Conv2d(8, 3, 3, padding=1), torch.randn(2, 8, 16, 16)
    judge = nn.Conv2d(3, 1, 4, stride=2)

    def ratio(dtype: torch.dtype, loss_scale: float, much: float) -> float:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            images = layer(x)
            logits = judge(images)
        return adaptive_weight(
            1e-6 * images.float().square().mean(), much * logits.float().mean(), layer.weight, loss_scale
        ).item()

    for much in (0.1, 1000.0):
        exact = ratio(torch.float32, 1.0, much)
        assert ratio(torch.float16, 65536.0, much) == pytest.approx(exact, rel=0.01)
    assert ratio(torch.float16, 1.0, 0.1) != pytest.approx(ratio(torch.float32, 1.0, 0.1), rel=0.05)


def test_a_checkpoint_from_before_there_was_a_scale_is_gone_on_from(toy: Toy, tmp_path: Path) -> None:
    settings = {"steps": 8, "ema_decay": 0.9} | GAN
    whole = trained(toy(**settings), tmp_path / "whole")
    for report in opened(toy(**settings), tmp_path / "parts"):
        if report.step == 4:
            break
    checkpoints = Run.open(tmp_path / "parts").checkpoints
    state, file = checkpoints.load()
    del state["scale"], state["adversary"]["scale"]
    file.unlink()
    Checkpoints(file.parent).save(state, 4)
    second = trained(toy(**settings), tmp_path / "parts")
    assert_same_weights(second.result.state_dict(), whole.result.state_dict())
    assert log_without_rates(second.run) == log_without_rates(whole.run)
