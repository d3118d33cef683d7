"""Bottlenecks without a codebook, beside an independent computation."""

import pytest
import torch

from vistok.quantizers.continuous import LOG_VARIANCES, KLQuantizer, NoQuantizer


def test_none_hands_z_on_with_its_gradient() -> None:
    z = torch.randn(2, 3, 4, 4, requires_grad=True)
    quantized = NoQuantizer(3).train()(z)
    assert torch.equal(quantized.codes, z) and quantized.losses == {}
    (gradient,) = torch.autograd.grad(quantized.codes.square().sum(), z)
    assert torch.equal(gradient, 2 * z)


def test_kl_is_that_of_the_gaussians_in_nats_a_token() -> None:
    torch.manual_seed(0)
    quantizer, z = KLQuantizer(3), torch.randn(2, 3, 4, 4)
    mean, log_variance = quantizer.moments(z).chunk(2, dim=1)
    gaussian = torch.distributions.Normal(mean, log_variance.exp().sqrt())
    expected = torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(quantizer.eval()(z).losses["kl"], expected)
    torch.testing.assert_close(quantizer.train()(z).losses["kl"], expected)


def test_training_draws_and_evaluation_takes_the_mean() -> None:
    torch.manual_seed(0)
    quantizer, z = KLQuantizer(2), torch.randn(1, 2, 1, 1).expand(20_000, -1, -1, -1)
    mean, log_variance = quantizer.moments(z[:1]).chunk(2, dim=1)
    assert torch.equal(quantizer.eval()(z[:1]).codes, mean)
    drawn = quantizer.train()(z).codes
    torch.testing.assert_close(drawn.mean(0, keepdim=True), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0, keepdim=True), log_variance.exp(), atol=0, rtol=0.05)


@pytest.mark.parametrize("value", LOG_VARIANCES)
def test_the_log_variance_is_clamped(value: float) -> None:
    quantizer = KLQuantizer(1).eval()
    with torch.no_grad():
        quantizer.moments.weight.zero_()
        quantizer.moments.bias.copy_(torch.tensor([0.0, 1000.0 * (1 if value > 0 else -1)]))
        kl = quantizer(torch.zeros(1, 1, 1, 1)).losses["kl"]
    expected = 0.5 * (torch.tensor(value).exp() - 1 - value)
    torch.testing.assert_close(kl, expected)
