"""What is seen of outputs and codes while a training begins."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from vistok import Run, TrainConfig, Trainer, VisualTokenizer, plots
from vistok.lessons.collapse import CollapseWatch

Toy = Callable[..., TrainConfig]
IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tokenizer_with_outputs(toy: Toy, outputs: torch.Tensor) -> VisualTokenizer:
    """A tokenizer whose encoder gives [3, D, 4, 4] as it is told."""
    tokenizer = VisualTokenizer.from_config(toy())
    tokenizer.encoder.forward = lambda images: outputs
    return tokenizer


def test_a_moment_says_where_outputs_and_codes_are(toy: Toy) -> None:
    outputs = torch.zeros(3, 4, 4, 4)
    outputs[0, 0], outputs[1, 0] = 3.0, -3.0  # on a line
    tokenizer = tokenizer_with_outputs(toy, outputs)
    with torch.no_grad():
        tokenizer.quantizer.weight.zero_()
        tokenizer.quantizer.weight[:, 1] = 50.0
        tokenizer.quantizer.weight[5] = torch.tensor([2.0, 0, 0, 0])
        tokenizer.quantizer.weight[6] = torch.tensor([-2.0, 0, 0, 0])
    tokenizer.train()
    watch = CollapseWatch(tokenizer, IMAGES)
    (moment,) = watch.moments
    assert tokenizer.training
    assert moment.outputs == pytest.approx((2 * 9 / 3) ** 0.5)
    assert moment.dimensions == pytest.approx(1.0)
    assert moment.brightness < 0.2  # the images are noise
    assert (moment.codes, moment.chosen, moment.moved) == (pytest.approx(2.0), 2, 0)

    outputs[2, 1] = 3.0  # as far, in another direction
    with torch.no_grad():
        tokenizer.quantizer.weight[7] += 1
    moment = watch.look(10)
    assert watch.moments[1] is moment and moment.step == 10
    assert moment.outputs == pytest.approx(3.0) and 1.2 < moment.dimensions < 2.0
    assert moment.moved == 1


def test_outputs_that_are_the_brightness_of_their_patches_are_known(toy: Toy) -> None:
    light = torch.nn.functional.avg_pool2d(IMAGES.mean(1, keepdim=True), 4)  # [3, 1, 4, 4]
    tokenizer = tokenizer_with_outputs(toy, torch.cat([-2 * light, light, 0 * light, 1 + 0 * light], dim=1))
    (moment,) = CollapseWatch(tokenizer, IMAGES).moments
    assert moment.brightness == pytest.approx(1.0, abs=1e-4) and moment.dimensions == pytest.approx(1.0, abs=1e-4)


def test_watching_changes_nothing_that_is_trained(toy: Toy, tmp_path: Path) -> None:
    trainers = [
        Trainer(Run.open(tmp_path / name, toy(quantizer="ema")), progress=False) for name in ("watched", "alone")
    ]
    watch = CollapseWatch(trainers[0].tokenizer, IMAGES)
    for report in trainers[0]:
        watch.look(report.step)
    list(trainers[1])
    watched, alone = (trainer.tokenizer.state_dict() for trainer in trainers)
    assert all(torch.equal(value, alone[name]) for name, value in watched.items())
    assert [moment.step for moment in watch.moments] == [0, 2, 4, 6]
    assert watch.moments[-1].moved > 0

    figure = plots.collapse({"toy": watch.moments, "again": watch.moments})
    labels = [axis.get_ylabel() for axis in figure.axes]
    assert labels == ["distance from the origin", "spread of the encoder outputs", "codes"]
    assert [len(axis.lines) for axis in figure.axes] == [4, 4, 4]
    plt.close(figure)


def test_several_codebooks_are_refused(toy: Toy) -> None:
    tokenizer = VisualTokenizer.from_config(toy(quantizer="residual", quantizer_options={"num_levels": 2}))
    with pytest.raises(ValueError, match="has 2 codebooks, but only one can be watched"):
        CollapseWatch(tokenizer, IMAGES)
