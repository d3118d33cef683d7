"""ViT-VQGAN's networks: positions, patches, gradients, and a transformer block against PyTorch's own."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from vistok.networks import vit
from vistok.networks.blocks import recompute_activations
from vistok.networks.vit import TransformerBlock, interpolated_positions, patchify, sincos_positions, unpatchify

SMALL = {"hidden_dim": 32, "depth": 2, "num_heads": 4, "mlp_dim": 48, "patch_size": 4, "image_size": 16}


def build(**options: object) -> tuple[vit.Encoder, vit.Decoder]:
    torch.manual_seed(0)
    return vit.build(codebook_dim=6, **SMALL | options)


def images_of(height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_sincos_positions_against_a_loop() -> None:
    height, width, dim = 3, 5, 24
    expected = np.zeros((height * width, dim))
    for row in range(height):
        for column in range(width):
            for i in range(dim // 4):
                omega = 1 / 10000 ** (i / (dim / 4))
                code = expected[row * width + column]
                code[i], code[dim // 4 + i] = math.sin(column * omega), math.cos(column * omega)
                code[dim // 2 + i], code[3 * dim // 4 + i] = math.sin(row * omega), math.cos(row * omega)
    positions = sincos_positions((height, width), dim)
    assert positions.shape == (1, height * width, dim) and positions.dtype == torch.float32
    np.testing.assert_allclose(positions[0].numpy(), expected, atol=1e-5)


def test_sincos_positions_tell_every_place_of_a_large_grid_apart() -> None:
    positions = sincos_positions((32, 32), 64)[0]
    distances = torch.cdist(positions, positions) + 10 * torch.eye(1024)
    assert distances.min() > 0.1


def test_unpatchify_undoes_patchify_and_a_patch_is_a_square_of_the_image() -> None:
    images = images_of(12, 20)
    tokens = patchify(images, 4)
    assert tokens.shape == (2, 15, 48)
    assert torch.equal(tokens[1, 5 + 2].view(3, 4, 4), images[1, :, 4:8, 8:12])  # second row, third column
    assert torch.equal(unpatchify(tokens, (3, 5), 4), images)


def test_the_linear_patch_embedding_is_the_convolution_of_the_open_implementation() -> None:
    encoder, _ = build()
    images = images_of()
    conv = nn.functional.conv2d(
        images, encoder.from_pixels.weight.view(32, 3, 4, 4), encoder.from_pixels.bias, stride=4
    )
    torch.testing.assert_close(encoder.from_pixels(patchify(images, 4)), conv.flatten(2).mT, atol=1e-5, rtol=0)


def test_the_linear_layer_to_pixels_is_the_transposed_convolution_of_the_open_implementation() -> None:
    _, decoder = build()
    tokens = torch.randn(2, 16, 32)
    weight = decoder.last_layer.T.view(32, 3, 4, 4)
    expected = nn.functional.conv_transpose2d(tokens.mT.reshape(2, 32, 4, 4), weight, stride=4)
    torch.testing.assert_close(unpatchify(decoder.to_pixels(tokens), (4, 4), 4), expected, atol=1e-5, rtol=0)


def test_a_block_matches_pytorchs_encoder_layer_with_tanh() -> None:
    torch.manual_seed(0)
    block = TransformerBlock(32, num_heads=4, mlp_dim=48)
    layer = nn.TransformerEncoderLayer(32, 4, 48, dropout=0.0, activation=torch.tanh, batch_first=True, norm_first=True)
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.to_qkv.weight)
        layer.self_attn.in_proj_bias.zero_()
        layer.self_attn.out_proj.load_state_dict(block.to_out.state_dict())
        layer.linear1.load_state_dict(block.mlp[0].state_dict())
        layer.linear2.load_state_dict(block.mlp[2].state_dict())
        for ours, theirs in ((block.norm1, layer.norm1), (block.norm2, layer.norm2)):
            ours.weight.normal_(1, 0.1)
            theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 10, 32)
    torch.testing.assert_close(block(x), layer(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["sincos", "learned", "interpolated"])
def test_shapes_and_gradients_reach_every_parameter(positions: str) -> None:
    encoder, decoder = build(positions=positions)
    assert encoder.downsample_factor == 4
    z = encoder(images_of())
    assert z.shape == (2, 6, 4, 4)
    images = decoder(z)
    assert images.shape == (2, 3, 16, 16)
    images.square().mean().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert decoder.last_layer is decoder.to_pixels.weight


def test_a_token_of_z_stands_where_its_patch_stands() -> None:
    encoder, decoder = build(depth=1)
    for network in (encoder, decoder):
        nn.init.zeros_(network.blocks[0].to_out.weight)  # no attention: a token sees its own patch alone
    images = images_of().requires_grad_()
    encoder(images)[0, :, 1, 2].sum().backward()
    assert images.grad[0, :, 4:8, 8:12].abs().sum() > 0
    images.grad[0, :, 4:8, 8:12] = 0
    assert images.grad.abs().sum() == 0
    z = torch.randn(1, 6, 4, 4, requires_grad=True)
    decoder(z)[0, :, 4:8, 8:12].sum().backward()
    assert z.grad[0, :, 1, 2].abs().sum() > 0
    z.grad[0, :, 1, 2] = 0
    assert z.grad.abs().sum() == 0


def test_sincos_positions_work_for_other_sizes() -> None:
    encoder, decoder = build()
    z = encoder(images_of(24, 8))
    assert z.shape == (2, 6, 6, 2)
    assert decoder(z).shape == (2, 3, 24, 8)
    made_for_it, _ = build(image_size=24)
    made_for_it.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(made_for_it(images_of(24, 24)), encoder(images_of(24, 24)))


def test_learned_positions_refuse_other_sizes() -> None:
    encoder, decoder = build(positions="learned")
    assert encoder.grid(16, 16) == (4, 4)
    with pytest.raises(ValueError, match="6x4 tokens has no learned positions, only 4x4"):
        encoder.grid(24, 16)  # asked before any image is read
    assert all(build(positions=other)[0].grid(24, 16) == (6, 4) for other in ("sincos", "interpolated"))
    with pytest.raises(ValueError, match="6x4 tokens has no learned positions, only 4x4"):
        encoder(images_of(24, 16))
    with pytest.raises(ValueError, match="positions='sincos'; positions='interpolated' takes the same weights"):
        decoder(torch.randn(1, 6, 2, 4))


def test_interpolated_positions_have_the_weights_of_learned_ones_and_take_other_sizes() -> None:
    learned, interpolated = build(positions="learned"), build(positions="interpolated")
    for one, other in zip(learned, interpolated, strict=True):
        other.load_state_dict(one.state_dict())
    assert torch.equal(learned[0](images_of()), interpolated[0](images_of()))
    z = interpolated[0](images_of(24, 8))
    assert z.shape == (2, 6, 6, 2) and interpolated[1](z).shape == (2, 3, 24, 8)


@pytest.mark.parametrize("grid", [(6, 5), (4, 9), (2, 3), (4, 4)])
def test_positions_are_interpolated_against_an_independent_bicubic(grid: tuple[int, int]) -> None:
    """Each place takes the 4x4 nearest of the learned grid, by Keys' cubic with a = -0.75, the borders repeated."""

    def weights(size: int, own: int) -> np.ndarray:
        made, a = np.zeros((size, own)), -0.75
        for place in range(size):
            centre = (place + 0.5) * own / size - 0.5
            for near in range(math.floor(centre) - 1, math.floor(centre) + 3):
                x = abs(centre - near)
                inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
                outer = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
                made[place, min(max(near, 0), own - 1)] += inner if x <= 1 else outer
        return made

    table = torch.randn(1, 16, 3)
    rows, columns = weights(grid[0], 4), weights(grid[1], 4)
    expected = np.einsum("yi,xj,ijd->yxd", rows, columns, table[0].reshape(4, 4, 3).double().numpy())
    made = interpolated_positions(table, (4, 4), grid)
    assert made.shape == (1, grid[0] * grid[1], 3)
    np.testing.assert_allclose(made[0].numpy(), expected.reshape(-1, 3), atol=1e-5)


def test_recomputed_activations_change_no_gradient() -> None:
    gradients = []
    for recompute in (False, True):
        encoder, decoder = build()
        networks = nn.ModuleList([encoder, decoder]).train()
        recompute_activations(networks, recompute)
        decoder(encoder(images_of())).square().mean().backward()
        gradients.append([p.grad for p in networks.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_autocast_is_close_and_keeps_the_residual_stream_in_float32() -> None:
    encoder, decoder = build()
    expected = decoder(encoder(images_of()))
    seen = []
    encoder.blocks[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        actual = decoder(encoder(images_of()))
    assert seen == [torch.float32]
    assert (actual.float() - expected).norm() < 0.05 * expected.norm()


def test_positions_are_no_part_of_the_saved_state() -> None:
    assert not any("positions" in name for network in build() for name in network.state_dict())
    assert all("positions.table" in network.state_dict() for network in build(positions="learned"))


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "mlp"), [(512, 8, 8, 2048), (768, 12, 12, 3072)], ids=["small", "base"]
)
def test_the_number_of_parameters_of_the_published_sizes(dim: int, depth: int, heads: int, mlp: int) -> None:
    options = {"hidden_dim": dim, "depth": depth, "num_heads": heads, "mlp_dim": mlp}
    with torch.device("meta"):
        networks = vit.build(codebook_dim=32, **json.loads(json.dumps(options)))
    block = 3 * dim * dim + (dim + 1) * dim + 2 * dim * mlp + mlp + dim + 2 * 2 * dim
    edges = (
        192 * dim + dim + 2 * dim + dim * 32 + 32,
        32 * dim + dim + 2 * dim + dim * 192 + 192,
    )  # patches, norm, codes
    expected = [depth * block + edge for edge in edges]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_dim": 30}, "hidden_dim is 30, but must be a multiple of num_heads 4: the nearest is 32"),
        ({"hidden_dim": 33, "num_heads": 3}, "sincos positions need a multiple of 4: the nearest is 32"),
        ({"image_size": 18}, "image_size is 18, but must be a multiple of patch_size 4: the nearest is 16"),
        ({"positions": "lerned"}, "did you mean 'learned'"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest_valid_one(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)
