"""Gumbel-softmax quantization: a code is drawn from softmax(logits), with the gradient of its relaxation.

Sources: Gumbel-softmax (Jang et al. 2016, arXiv:1611.01144), sections 2.1 and 2.2; the discrete VAE of DALL-E (Ramesh et al.
2021, arXiv:2102.12092), section 2.1 and appendix A.2; the layer is that of taming-transformers. To know:

- D is free: a learned linear map takes z to the K logits, where dVAE's encoder ends in K channels itself.
- Training draws one code a token and passes the relaxation's gradient (straight-through, section 2.2 of Jang et al.); dVAE
  decodes the relaxed mixture, which has no index. Evaluation takes the arg-max of the logits, without noise.
- `kl` is the divergence of softmax(logits) from the uniform distribution, in nats a token. taming's weight is 5e-4.
- Annealing is dVAE's: a cosine from the first temperature to the last, in training steps; its own goes from 1 to 1/16 in
  150,000.
- Memory grows with tokens x K, alone among the quantizers: every token has a gradient to every logit.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, Quantizer, to_grid, to_tokens


class GumbelQuantizer(Quantizer):
    """A codebook whose codes are drawn, not searched; it needs no commitment and no codebook loss."""

    loss_names: ClassVar[tuple[str, ...]] = ("kl",)

    def __init__(
        self,
        codebook_size: int,
        codebook_dim: int,
        temperature: float = 1.0,
        final_temperature: float | None = None,
        anneal_steps: int | None = None,
    ) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
            temperature: tau, above 0.
            final_temperature: tau after `anneal_steps`, above 0 and at most `temperature`; None: it stays.
            anneal_steps: training steps, at least 1; None: no annealing.

        Raises:
            ValueError: an option is out of range, or only one of the last two is set.
        """
        super().__init__((codebook_size,), codebook_dim)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}, but must be above 0; 1 is usual.")
        if (final_temperature is None) != (anneal_steps is None):
            raise ValueError(
                f"final_temperature is {final_temperature} and anneal_steps {anneal_steps}, but annealing needs both; "
                "usual are 0.0625 and 150000."
            )
        if final_temperature is not None and not 0 < final_temperature <= temperature:
            raise ValueError(
                f"final_temperature is {final_temperature}, but must be above 0 and at most temperature {temperature}; "
                "0.0625 is usual."
            )
        if anneal_steps is not None and anneal_steps < 1:
            raise ValueError(f"anneal_steps is {anneal_steps}, but must be at least 1; 150000 is usual.")
        self.temperature, self.final_temperature, self.anneal_steps = temperature, final_temperature, anneal_steps
        self.weight = nn.Parameter(torch.randn(codebook_size, codebook_dim, dtype=torch.float32))
        self.projection = nn.Linear(codebook_dim, codebook_size, dtype=torch.float32)
        if anneal_steps is not None:
            self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def codebook(self) -> Tensor:
        return self.weight

    def current_temperature(self) -> Tensor | float:
        """Return tau, a scalar, after the training steps so far (dVAE, appendix A.2)."""
        if self.anneal_steps is None:
            return self.temperature
        progress = (self.step.float() / self.anneal_steps).clamp(max=1)
        return (
            self.final_temperature + (self.temperature - self.final_temperature) * (1 + (math.pi * progress).cos()) / 2
        )

    def quantize(self, z: Tensor) -> Quantized:
        return self.quantize_as(z, None)

    @torch.no_grad()
    def choose(self, z: Tensor) -> Tensor:
        logits = self.projection(to_tokens(z))
        return (_with_noise(logits) if self.training else logits).argmax(1).view(z.shape[0], *z.shape[2:])

    def quantize_as(self, z: Tensor, indices: Tensor | None) -> Quantized:
        """Quantize z, with the codes of indices, int64 [B, h, w], that `choose` has drawn, or None: with what is drawn here."""
        logits = self.projection(to_tokens(z))  # [B*h*w, K]
        log_p = logits.log_softmax(1)
        losses = {"kl": (log_p.exp() * (log_p + math.log(self.codebook_size))).sum(1).mean()}
        if self.training:
            logits = _with_noise(logits) if indices is None else _with_noise_of(logits, indices.flatten())
        indices = logits.argmax(1) if indices is None else indices.flatten()  # [B*h*w]
        soft = (logits / self.current_temperature()).softmax(1) @ self.weight.detach()  # [B*h*w, D]
        codes = F.embedding(indices, self.weight) + (soft - soft.detach())  # exactly those chosen, with both gradients
        if self.training and self.anneal_steps is not None and self.last_part:
            self.step += 1
        return Quantized(to_grid(codes, like=z), (indices.view_as(z[:, 0]),), losses)


def _with_noise(logits: Tensor) -> Tensor:
    """Return logits [N, K] with Gumbel noise: the largest one's place is a draw from their softmax."""
    return logits - torch.empty_like(logits).exponential_().log()  # Gumbel(0, 1) = -log Exponential(1)


def _with_noise_of(logits: Tensor, indices: Tensor) -> Tensor:
    """Return logits [N, K] with Gumbel noise of which is known that it made indices [N] the places of the largest.

    Whichever place it is, the largest is a Gumbel variable about the logits' log-sum-exp, and the others are those that stay
    below it (Maddison et al. 2014, arXiv:1411.0030, section 2, "top-down construction").
    """
    noisy, chosen = _with_noise(logits), indices.unsqueeze(1)
    largest = (noisy - logits).gather(1, chosen) + logits.logsumexp(1, keepdim=True)  # [N, 1]
    return (-torch.logaddexp(-noisy, -largest)).scatter(1, chosen, largest)
