"""Losses against what their papers write, computed another way."""

import math

import pytest
import torch
from torch import nn

from vistok import losses


def test_reconstruction_losses() -> None:
    x, y = torch.tensor([[[[0.5, -0.5]]]]), torch.tensor([[[[0.25, 0.5]]]])
    assert losses.reconstruction_loss(y, x).item() == pytest.approx((0.25**2 + 1) / 2)
    assert losses.reconstruction_loss(y, x, "l1").item() == pytest.approx((0.25 + 1) / 2)


def test_logit_laplace_is_the_likelihood_up_to_a_constant_of_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y1, y2 = (torch.rand(3, 3, 5, 5, generator=generator, dtype=torch.float64) * 2 - 1 for _ in range(3))

    def negative_log_likelihood(image: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        p, m = (0.1 + 0.8 * (t + 1) / 2 for t in (image, mean))
        logit_p, logit_m = torch.log(p / (1 - p)), torch.log(m / (1 - m))
        return -(torch.exp(-(logit_p - logit_m).abs()) / (2 * p * (1 - p))).log().mean()

    ours = losses.logit_laplace_loss(y1, x) - losses.logit_laplace_loss(y2, x)
    expected = negative_log_likelihood(x, y1) - negative_log_likelihood(x, y2)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    assert losses.logit_laplace_loss(x * 3, x.sign()).isfinite()


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def test_adversarial_losses() -> None:
    real, fake = torch.tensor([0.3, 2.0]), torch.tensor([-0.4, -3.0])
    assert losses.discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.5 * (0.7 / 2 + 0.6 / 2))
    cross_entropy = -sum(math.log(sigmoid(t)) for t in (0.3, 2.0)) / 2
    cross_entropy -= sum(math.log(1 - sigmoid(t)) for t in (-0.4, -3)) / 2
    for kind in ("vanilla", "non-saturating"):
        assert losses.discriminator_loss(real, fake, kind).item() == pytest.approx(0.5 * cross_entropy, rel=1e-5)
    for kind in ("hinge", "vanilla"):
        assert losses.generator_loss(fake, kind).item() == pytest.approx(1.7)
    saturating = -sum(math.log(sigmoid(t)) for t in (-0.4, -3)) / 2
    assert losses.generator_loss(fake, "non-saturating").item() == pytest.approx(saturating, rel=1e-5)


def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    output = layer(x)
    weight = losses.adaptive_weight(output.square().mean(), 7 * output.sum(), layer.weight)
    first = torch.autograd.grad(layer(x).square().mean(), layer.weight)[0]
    second = torch.autograd.grad(7 * layer(x).sum(), layer.weight)[0]
    assert weight.item() == pytest.approx((first.norm() / (second.norm() + 1e-4)).item(), rel=1e-6)
    assert not weight.requires_grad
    output.sum().backward()  # its graph is still there
    nothing = losses.adaptive_weight(layer(x).sum(), 0 * layer(x).sum(), layer.weight)
    assert nothing.item() == 1e4


def test_lecam_pulls_towards_the_other_sides_average() -> None:
    lecam = losses.LeCam(decay=0.9)
    real, fake = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 0.5])
    assert lecam(real, fake).item() == pytest.approx((1 + 4) / 2 + 1 / 2)  # averages are 0
    means = torch.stack([real.mean(), fake.mean()])
    lecam.update(means)
    assert (lecam.real.item(), lecam.fake.item()) == pytest.approx((0.15, -0.025))
    lecam.update(means)
    assert lecam.real.item() == pytest.approx(0.15 * 0.9 + 0.15)
    penalty = ((real - lecam.fake).clamp(min=0) ** 2).mean() + ((lecam.real - fake).clamp(min=0) ** 2).mean()
    assert lecam(real, fake).item() == pytest.approx(penalty.item())


def test_lecam_of_mean_logits_is_that_of_the_batchs_mean() -> None:
    """As 1d-tokenizer has it: patches that differ around a mean of about the average cost next to nothing."""
    generator = torch.Generator().manual_seed(0)
    real, fake = (2 * torch.randn(4, 1, 14, 14, generator=generator) + shift for shift in (0.3, -0.3))
    each, mean = losses.LeCam(), losses.LeCam(logits="mean")
    expected = real.mean().clamp(min=0) ** 2 + (-fake.mean()).clamp(min=0) ** 2  # averages are 0
    assert mean(real, fake).item() == pytest.approx(expected.item(), rel=1e-5)
    assert each(real, fake) > 10 * mean(real, fake)
    real.requires_grad_()
    (gradient,) = torch.autograd.grad(mean(real, fake), real)
    assert torch.allclose(gradient, torch.full_like(real, 2 * real.mean().item() / real.numel()))


def test_r1_of_a_linear_discriminator_is_half_its_squared_norm() -> None:
    weight = torch.randn(3 * 4 * 4, generator=torch.Generator().manual_seed(0))
    discriminator = nn.Sequential(nn.Flatten(), nn.Linear(48, 1))
    with torch.no_grad():
        discriminator[1].weight.copy_(weight)
    penalty = losses.r1_penalty(discriminator, torch.randn(6, 3, 4, 4))
    assert penalty.item() == pytest.approx(0.5 * weight.square().sum().item(), rel=1e-5)
    penalty.backward()
    assert torch.allclose(discriminator[1].weight.grad, weight[None], rtol=1e-5)


def test_a_misspelt_kind_is_refused_and_no_other_is_taken_for_it() -> None:
    logits = torch.zeros(2)
    for call in (
        lambda: losses.generator_loss(logits, "hing"),
        lambda: losses.discriminator_loss(logits, logits, "hing"),
    ):
        with pytest.raises(ValueError, match="kind is 'hing'; did you mean 'hinge'"):
            call()
    with pytest.raises(ValueError, match="logits is 'meen'; did you mean 'mean'"):
        losses.LeCam(logits="meen")
    with pytest.raises(ValueError, match=r"decay is 1.0, but must be in \[0, 1\)"):
        losses.LeCam(decay=1.0)
    with pytest.raises(ValueError, match="kind is 'l3'"):
        losses.reconstruction_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), "l3")


def test_a_loss_without_a_weight_is_a_mistake() -> None:
    with pytest.raises(KeyError, match="entropy"):
        losses.weighted_sum({"entropy": torch.ones(())}, {"commitment": 1.0})
