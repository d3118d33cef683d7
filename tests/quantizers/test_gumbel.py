"""Gumbel-softmax: against PyTorch's own and the direct divergence, drawing, annealing."""

import math

import pytest
import torch
import torch.nn.functional as F

from vistok import quantizers
from vistok.quantizers import GumbelQuantizer


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_gumbel_matches_torch_and_the_direct_divergence(temperature: float) -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4, temperature=temperature).train()
    z = torch.randn(2, 4, 5, 5, requires_grad=True)
    cotangent = torch.randn(2, 4, 5, 5)
    torch.manual_seed(1)
    quantized = quantizer(z)
    ours = torch.autograd.grad((quantized.codes * cotangent).sum(), [z, *quantizer.parameters()])

    logits = quantizer.projection(z.movedim(1, -1))  # [B, h, w, K]
    torch.manual_seed(1)
    one_hot = F.gumbel_softmax(logits, tau=temperature, hard=True)
    codes = (one_hot @ quantizer.weight).movedim(-1, 1)
    expected = torch.autograd.grad((codes * cotangent).sum(), [z, *quantizer.parameters()])
    assert torch.equal(quantized.indices, one_hot.argmax(-1))
    torch.testing.assert_close(quantized.codes, codes)
    for grad, direct in zip(ours, expected, strict=True):
        torch.testing.assert_close(grad, direct, atol=1e-5, rtol=1e-4)
    p = torch.distributions.Categorical(logits=logits)
    uniform = torch.distributions.Categorical(logits=torch.zeros(16))
    divergence = torch.distributions.kl_divergence(p, uniform).mean()
    torch.testing.assert_close(quantized.losses["kl"], divergence, atol=1e-6, rtol=1e-5)


def test_gumbel_draws_in_training_and_takes_the_arg_max_in_eval() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(16, 4)
    z = torch.randn(1, 4, 1, 1)
    p = quantizer.projection(z.view(1, 4)).softmax(1).squeeze(0)
    drawn = quantizer.train()(z.expand(1, 4, 100, 100)).indices.flatten().bincount(minlength=16) / 10_000
    torch.testing.assert_close(drawn, p, atol=0.02, rtol=0)  # four standard deviations or more
    quantizer.eval()
    assert (quantizer(z.expand(1, 4, 10, 10)).indices == p.argmax()).all()


def test_gumbel_anneals_with_the_forward_passes_of_training_and_keeps_its_place() -> None:
    options = {"temperature": 1.0, "final_temperature": 0.0625, "anneal_steps": 4}
    quantizer, z = GumbelQuantizer(16, 4, **options), torch.randn(1, 4, 2, 2)
    found = []
    for _ in range(6):
        found.append(float(quantizer.current_temperature()))
        quantizer.train()(z)
        quantizer.eval()(z)
    cosine = [0.0625 + 0.9375 * (1 + math.cos(math.pi * min(step / 4, 1))) / 2 for step in range(6)]
    assert found == pytest.approx(cosine)
    other = GumbelQuantizer(16, 4, **options)
    other.load_state_dict(quantizer.state_dict())
    assert other.current_temperature() == quantizer.current_temperature()
    assert "step" not in GumbelQuantizer(16, 4).state_dict()


def test_bad_options_are_refused() -> None:
    def build(**options: object) -> None:
        quantizers.build("gumbel", codebook_size=16, codebook_dim=4, **options)

    with pytest.raises(ValueError, match=r"temperature is 0(\.0)?, but must be above 0"):
        build(temperature=0)
    with pytest.raises(ValueError, match="anneal_steps None, but annealing needs both"):
        build(final_temperature=0.1)
    with pytest.raises(ValueError, match="final_temperature is None and anneal_steps 10"):
        build(anneal_steps=10)
    with pytest.raises(ValueError, match="final_temperature is 2.0, but must be above 0 and at most temperature 1.0"):
        build(final_temperature=2, anneal_steps=10)
    with pytest.raises(ValueError, match="anneal_steps is 0, but must be at least 1"):
        build(final_temperature=0.1, anneal_steps=0)
