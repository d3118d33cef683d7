"""SimVQ: a frozen random codebook seen through one learned linear map, so that every code moves with every token.

Source: SimVQ (Zhu et al. 2024, arXiv:2411.02038), as its authors implement it: codes from N(0, 1/D), which stay as
they are; the map has a bias and torch's own initial values; nearest code after the map. The original's weights are codebook 1,
commitment 0.25; it has no entropy loss.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from vistok.quantizers.base import Quantized, Quantizer, look_up, to_tokens
from vistok.quantizers.search import nearest_code


class SimVQQuantizer(Quantizer):
    """A codebook C W, of which only W is learned."""

    loss_names: ClassVar[tuple[str, ...]] = ("codebook", "commitment")

    def __init__(self, codebook_size: int, codebook_dim: int) -> None:
        """Make the quantizer.

        Args:
            codebook_size: K, at least 1.
            codebook_dim: D, at least 1.
        """
        super().__init__((codebook_size,), codebook_dim)
        codes = torch.randn(codebook_size, codebook_dim, dtype=torch.float32)
        self.register_buffer("weight", codes * codebook_dim**-0.5)  # C, frozen
        self.projection = nn.Linear(codebook_dim, codebook_dim, dtype=torch.float32)  # W

    @property
    def codebook(self) -> Tensor:
        with torch.autocast(self.weight.device.type, enabled=False):  # it is asked for outside of `forward` too
            return self.projection(self.weight)

    def quantize(self, z: Tensor) -> Quantized:
        tokens = to_tokens(z)  # [B*h*w, D]
        codebook = self.codebook
        indices = nearest_code(tokens, codebook)  # [B*h*w]
        codes, losses = look_up(z, codebook, indices)
        return Quantized(codes, (indices.view_as(z[:, 0]),), losses)
