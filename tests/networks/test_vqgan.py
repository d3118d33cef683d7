"""The convolutional networks of the VQGAN family. Their parity with the originals is in tests/pretrained/."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok import networks
from vistok.networks.blocks import recompute_activations
from vistok.networks.magvit2 import AdaptiveGroupNorm, DepthToSpace
from vistok.networks.maskgit import MaskGITBlock
from vistok.networks.vqgan import Attention, Downsample
from vistok.tokenizer import VisualTokenizer

D = 4
TOY = {"hidden_dim": 32, "num_res_blocks": 1, "ch_mult": (1, 2)}
NAMES = ("vqgan", "maskgit", "magvit2")
every_network = pytest.mark.parametrize("name", NAMES)


def build(name: str, **options: object) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return networks.build(name, codebook_dim=D, **(TOY | options))


def images() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


@every_network
@pytest.mark.parametrize(("ch_mult", "factor"), [((1,), 1), ((1, 2), 2), ([2, 1, 1], 4)])
def test_shapes_and_downsample_factor(name: str, ch_mult: list[int] | tuple[int, ...], factor: int) -> None:
    encoder, decoder = build(name, ch_mult=ch_mult)
    z = encoder(images())
    assert encoder.downsample_factor == factor
    assert z.shape == (2, D, 16 // factor, 24 // factor)
    assert decoder(z).shape == (2, 3, 16, 24)


@every_network
def test_last_layer_is_the_last_weight_between_codes_and_image(name: str) -> None:
    _, decoder = build(name)
    assert any(decoder.last_layer is parameter for parameter in decoder.parameters())
    reconstruction = decoder(torch.randn(1, D, 4, 4))
    (gradient,) = torch.autograd.grad(reconstruction.sum(), decoder.last_layer)
    assert decoder.last_layer.shape == (3, 32, 3, 3) and gradient.abs().sum() > 0


@every_network
def test_every_parameter_gets_a_gradient(name: str) -> None:
    encoder, decoder = build(name)
    F.mse_loss(decoder(encoder(images())), images()).backward()
    # A bias of the keys shifts all scores of a query alike, which the softmax does not see.
    silent = [
        n for part in (encoder, decoder) for n, p in part.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert [n for n in silent if not n.endswith(".k.bias")] == []


@every_network
def test_recomputing_activations_changes_no_gradient_and_keeps_less(name: str) -> None:
    gradients, kept = [], []
    for recompute in (False, True):
        encoder, decoder = build(name)
        recompute_activations(encoder, recompute)
        recompute_activations(decoder, recompute)
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = F.mse_loss(decoder(encoder(images())), images())
        kept.append(sum(sizes.values()))
        loss.backward()
        gradients.append([p.grad for part in (encoder, decoder) for p in part.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)
    assert kept[1] < 0.8 * kept[0]


@every_network
def test_channels_last_and_bfloat16_autocast(name: str) -> None:
    encoder, decoder = (part.eval() for part in build(name))
    plain = decoder(encoder(images()))
    for part in (encoder, decoder):
        part.to(memory_format=torch.channels_last)
    torch.testing.assert_close(
        decoder(encoder(images().to(memory_format=torch.channels_last))), plain, atol=1e-4, rtol=1e-4
    )
    with torch.autocast("cpu", torch.bfloat16):
        reduced = decoder(encoder(images()))
    assert (reduced.float() - plain).abs().mean() < 0.05 * plain.abs().mean()


@every_network
def test_a_tokenizer_of_it_survives_saving(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantizer = {"codebook_size": 2**D, "codebook_dim": D}
    tokenizer = VisualTokenizer(
        network=name, network_options=TOY, quantizer="lfq", quantizer_options=quantizer, image_size=16
    )
    tokenizer.save(tmp_path)
    loaded = VisualTokenizer.load(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["network_options"]["ch_mult"] == [1, 2]
    assert torch.equal(loaded.encode(images()), tokenizer.encode(images()))
    assert torch.equal(loaded.decode(loaded.encode(images())), tokenizer.decode(tokenizer.encode(images())))


@every_network
def test_bad_widths_are_refused(name: str) -> None:
    for hidden_dim, valid in ((100, 96), (1, 32)):
        with pytest.raises(ValueError, match=f"hidden_dim is {hidden_dim}, but .* take {valid}"):
            build(name, hidden_dim=hidden_dim)
    with pytest.raises(ValueError, match="num_res_blocks is 0, but must be at least 1"):
        build(name, num_res_blocks=0)
    with pytest.raises(ValueError, match=r"ch_mult is \[\], but needs one factor"):
        build(name, ch_mult=())
    with pytest.raises(ValueError, match=r"ch_mult is \[1, 0\], but needs one factor of at least 1"):
        build(name, ch_mult=(1, 0))


def test_attention_stands_at_the_lowest_level_and_in_the_middle_alone() -> None:
    encoder, decoder = build("vqgan", num_res_blocks=2, ch_mult=(1, 1, 2))
    found = [[n for n, module in part.named_modules() if isinstance(module, Attention)] for part in (encoder, decoder)]
    assert found[0] == ["levels.2.attention_0", "levels.2.attention_1", "mid.attention_0"]
    assert found[1] == ["mid.attention_0", *(f"levels.0.attention_{i}" for i in range(3))]


def test_attention_equals_the_softmax_over_positions() -> None:
    torch.manual_seed(0)
    attention, x = Attention(64), torch.randn(2, 64, 3, 5)
    q, k, v = (conv(attention.norm(x)).flatten(2) for conv in (attention.q, attention.k, attention.v))  # [B, C, 15]
    weights = torch.einsum("bci,bcj->bij", q, k).div(8).softmax(2)
    expected = x + attention.proj_out(torch.einsum("bij,bcj->bci", weights, v).view_as(x))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_downsampling_pads_on_the_right_and_at_the_bottom() -> None:
    down, x = Downsample(1), torch.zeros(1, 1, 4, 4)
    nn.init.ones_(down.conv.weight)
    nn.init.zeros_(down.conv.bias)
    x[0, 0, 0, 0] = x[0, 0, 3, 3] = 1  # the first pixel is under the first window, the last under the last alone
    assert down(x).tolist() == [[[[1, 0], [0, 1]]]]


def test_depth_to_space_reads_rows_then_columns_then_channels() -> None:
    up = DepthToSpace(2)
    x = torch.randn(1, 2, 3, 4)
    wide, narrow = up.conv(x), up(x)
    assert narrow.shape == (1, 2, 6, 8)
    for row in range(2):
        for column in range(2):
            for channel in range(2):
                assert torch.equal(narrow[0, channel, row::2, column::2], wide[0, (row * 2 + column) * 2 + channel])


def test_adaptive_norm_uses_the_mean_and_deviation_of_the_codes_of_each_image() -> None:
    torch.manual_seed(0)
    norm, x, codes = AdaptiveGroupNorm(D, 32), torch.randn(2, 32, 6, 6), torch.randn(2, D, 3, 3)
    expected = norm(x, codes)
    torch.testing.assert_close(norm(x[1:], codes[1:]), expected[1:])
    flat = codes[0].flatten(1)
    deviation = ((flat - flat.mean(1, keepdim=True)).square().sum(1) / 8 + 1e-6).sqrt()  # of 9 tokens
    groups = x[0].view(32, 1, 36)  # 32 channels in 32 groups
    normed = (groups - groups.mean((1, 2), keepdim=True)) / groups.std((1, 2), keepdim=True, correction=0)
    by_hand = norm.gamma(deviation).view(32, 1, 1) * normed.view(32, 6, 6) + norm.beta(flat.mean(1)).view(32, 1, 1)
    torch.testing.assert_close(expected[0], by_hand, atol=1e-4, rtol=1e-4)
    assert norm(x, codes[:, :, :1, :1]).isfinite().all()  # a single token


def test_a_maskgit_block_that_changes_channels_has_no_skip_connection() -> None:
    torch.manual_seed(0)
    block, x = MaskGITBlock(32, 64), torch.randn(1, 32, 4, 4)
    nn.init.zeros_(block.conv2.weight)
    assert not block(x).any()
    same = MaskGITBlock(32, 32)
    nn.init.zeros_(same.conv2.weight)
    assert torch.equal(same(x), x)


def test_maskgit_clamps_in_evaluation_only() -> None:
    _, decoder = build("maskgit")
    nn.init.constant_(decoder.conv_out.bias, 3.0)
    codes = torch.randn(1, D, 4, 4)
    assert decoder(codes).max() > 1
    assert decoder.eval()(codes).max() == 1


# What other projects change of these networks.


def num_parameters(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def test_convolutions_around_the_codes_may_look_at_neighbours() -> None:
    for code_kernel, neighbours in ((1, 0), (3, 1)):
        encoder, decoder = build("vqgan", code_kernel=code_kernel, z_channels=8)
        point = torch.zeros(1, 8, 5, 5, requires_grad=True)
        (gradient,) = torch.autograd.grad(encoder.to_codes(point)[0, :, 2, 2].sum(), point)
        seen = gradient[0].abs().sum(0).nonzero()
        assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == ([2 - neighbours] * 2, [2 + neighbours] * 2)
        assert decoder(encoder(images())).shape == images().shape
    with pytest.raises(ValueError, match="code_kernel is 2, but must be odd and at least 1: take 3"):
        build("vqgan", code_kernel=2)
    with pytest.raises(ValueError, match="code_kernel is -1, but must be odd and at least 1: take 1"):
        build("vqgan", code_kernel=-1)


def test_the_epsilon_of_attention_is_that_of_its_normalisation_alone() -> None:
    parts = build("vqgan", attention_eps=1e-3)
    of_attention = {m.norm.eps for part in parts for m in part.modules() if isinstance(m, Attention)}
    others = {m.eps for part in parts for m in part.modules() if isinstance(m, nn.GroupNorm)} - of_attention
    assert (of_attention, others) == ({1e-3}, {1e-6})
    with pytest.raises(ValueError, match="attention_eps is 0.0, but must be above 0; 1e-06 is usual"):
        build("vqgan", attention_eps=0)


def test_vqgan_plus_halves_by_convolutions_padded_as_tensorflow_s_same() -> None:
    plain, strided = (build("maskgit", strided=strided)[0] for strided in (False, True))
    assert num_parameters(strided) - num_parameters(plain) == 32 * 32 * 9 + 32
    halving = strided.levels[0].downsample
    x = torch.randn(1, 32, 6, 8)
    # "SAME" of stride 2 and a kernel of 3 on even sizes: one pixel in all, the smaller half of it, none, in front.
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), halving.conv.weight, halving.conv.bias, stride=2)
    torch.testing.assert_close(halving(x), expected)


def test_levels_of_magvit2_may_take_no_notice_of_the_codes() -> None:
    (_, adaptive), (_, plain) = build("magvit2"), build("magvit2", adaptive=False)
    assert [name for name, _ in adaptive.named_parameters() if "norms." not in name] == [
        name for name, _ in plain.named_parameters()
    ]
    adaptive.norms = nn.ModuleList(Unchanged() for _ in adaptive.norms)
    plain.load_state_dict(adaptive.state_dict())
    codes = torch.randn(2, D, 4, 4)
    assert torch.equal(plain(codes), adaptive(codes))


class Unchanged(nn.Module):
    """Stands for a normalisation that takes no notice of the codes."""

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        return x
