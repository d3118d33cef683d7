"""FSQ: parity with vector-quantize-pytorch and diffusers on every code, its bound's gradient, an example by hand."""

import math

import pytest
import torch
from torch import Tensor
from vector_quantize_pytorch import FSQ

from vistok import quantizers
from vistok.quantizers import FSQQuantizer

LEVELS = [[8, 8, 8], [8, 5, 5, 5], [8, 8, 8, 6, 5], [7, 5, 5, 5, 5], [3, 5, 4], [4, 4]]


def z_within_bins(quantizer: FSQQuantizer, indices: Tensor) -> Tensor:
    """Some z [1, D, 1, N] of which every channel is well inside of the bin of its level."""
    half_width = (quantizer.levels // 2).view(-1, 1, 1)
    rounded = quantizer.indices_to_codes(indices.view(1, 1, -1)) * half_width
    levels = quantizer.levels.view(-1, 1, 1)
    half_range, offset = (levels - 1) * 0.999 / 2, (levels % 2 == 0) * 0.5
    bounded = rounded + 0.8 * (torch.rand(rounded.shape, generator=torch.Generator().manual_seed(0)) - 0.5)
    squashed = ((bounded + offset) / half_range).clamp(-0.999, 0.999)
    return squashed.atanh() - (offset / half_range).atanh()


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_matches_the_installed_peer_on_every_code(levels: list[int]) -> None:
    quantizer, peer = FSQQuantizer(levels=levels), FSQ(levels)
    assert (quantizer.codebook_size, quantizer.codebook_dim) == (math.prod(levels), len(levels))
    every_index = torch.arange(quantizer.codebook_size)
    z = z_within_bins(quantizer, every_index)
    quantized, (peer_codes, peer_indices) = quantizer(z), peer(z)
    assert torch.equal(quantized.indices.flatten(), every_index)
    assert torch.equal(quantized.indices, peer_indices.long())
    torch.testing.assert_close(quantized.codes, peer_codes, atol=1e-6, rtol=0)
    torch.testing.assert_close(quantizer.codebook, peer.implicit_codebook, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_matches_the_codes_of_diffusers(levels: list[int]) -> None:
    from diffusers.models.autoencoders.autoencoder_vidtok import FSQRegularizer  # seconds to import

    quantizer, peer = FSQQuantizer(levels=levels), FSQRegularizer(levels)
    z = z_within_bins(quantizer, torch.arange(quantizer.codebook_size))
    torch.testing.assert_close(quantizer(z).codes, peer(z)[0], atol=1e-6, rtol=0)  # its indices are truncated
    torch.testing.assert_close(quantizer.codebook, peer.implicit_codebook, atol=1e-6, rtol=0)


@pytest.mark.parametrize("levels", LEVELS, ids=str)
def test_fsq_passes_the_gradient_of_its_bound(levels: list[int]) -> None:
    quantizer = FSQQuantizer(levels=levels)
    z = torch.randn(2, len(levels), 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(quantizer(z).codes.sum(), z)
    for channel, num_levels in enumerate(levels):
        half_range, offset = (num_levels - 1) * 0.999 / 2, 0.0 if num_levels % 2 else 0.5
        slope = half_range * (1 - (z[:, channel] + math.atanh(offset / half_range)).tanh() ** 2) / (num_levels // 2)
        torch.testing.assert_close(grad[:, channel], slope, atol=1e-6, rtol=1e-4)


def test_fsq_on_an_example_worked_by_hand() -> None:
    quantizer = FSQQuantizer(levels=[3, 5, 4])  # of the paper's notebook
    quantized = quantizer(torch.tensor([0.25, 0.6, -7.0]).view(1, 3, 1, 1))
    assert quantized.codes.flatten().tolist() == [0.0, 0.5, -1.0]
    assert quantized.indices.item() == 1 + 3 * 3 + 0 * 15
    assert FSQQuantizer(levels=[8, 4])(torch.zeros(1, 2, 1, 1)).codes.abs().max() == 0
    extreme = quantizer(torch.tensor([1e9, -1e9, 1e9]).view(1, 3, 1, 1))
    assert extreme.indices.item() == 2 + 0 * 3 + 3 * 15
    nothing = quantizer(torch.tensor([math.nan, 0.0, 0.0]).view(1, 3, 1, 1))  # it is the loss that ends such a training
    assert 0 <= nothing.indices.item() < 60 and nothing.codes.isnan().any()


def test_fsq_levels_follow_from_the_sizes_or_must_agree_with_them() -> None:
    assert quantizers.build("fsq", codebook_size=512, codebook_dim=3).levels.tolist() == [8, 8, 8]
    with pytest.raises(ValueError, match=r"512 codes are no grid of 4 .*usual are \[8, 8, 8\], codebook_size 512"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4)
    with pytest.raises(ValueError, match=r"levels \[8, 5, 5, 5\] give codebook_size 1000 and codebook_dim 4"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4, levels=[8, 5, 5, 5])
    with pytest.raises(ValueError, match="give codebook_size 512 and codebook_dim 3"):
        quantizers.build("fsq", codebook_size=512, codebook_dim=4, levels=[8, 8, 8])
    with pytest.raises(ValueError, match="fsq needs levels, or codebook_size and codebook_dim"):
        quantizers.build("fsq")
    for levels in ([8, 2], []):
        with pytest.raises(ValueError, match="needs integers of 3 or more"):
            quantizers.build("fsq", levels=levels)
    with pytest.raises(TypeError, match=r"levels\[1\] is 4\.0 \(float\), but must be of type int"):
        quantizers.build("fsq", levels=[8, 4.0])
    with pytest.raises(ValueError, match="16 codes are no grid of 4 equal levels of 3 or more"):
        quantizers.build("fsq", codebook_size=16, codebook_dim=4)
