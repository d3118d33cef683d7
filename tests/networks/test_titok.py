"""TiTok's networks: parity with both originals, a sequence without places, prefixes, heads, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.golden import GOLDEN
from safetensors.torch import load_file
from torch import Tensor, nn

from vistok.networks import titok
from vistok.networks.vit import interpolated_positions
from vistok.pretrained import FORMATS
from vistok.tokenizer import VisualTokenizer

NARROW = {"hidden_dim": 64, "depth": 2, "num_heads": 4, "num_tokens": 8, "patch_size": 16}  # of the golden files
CODES = {"codebook_size": 64, "codebook_dim": 12, "l2_norm": True}
MASKGIT = {"network": "maskgit", "network_options": {"hidden_dim": 32, "num_res_blocks": 1, "ch_mult": [1] * 5}}
PROXIES = MASKGIT | {"codebook_size": 1024, "codebook_dim": 256}
OF_VISUAL_TOKENIZER_PYTORCH = (
    (r"^quantizer\.weight$", "quantizer.codebook.weight"),
    (r"^encoder\.to_codes\.", "enc2code."),
    (r"^decoder\.from_codes\.", "code2dec."),
    (r"^encoder\.from_pixels\.", "encoder.patch_embed."),
    (r"^encoder\.latent_tokens$", "encoder.latent_token_embed"),
    (r"^encoder\.side\.patch_positions$", "encoder.patch_pos_embed"),
    (r"^decoder\.side\.patch_positions$", "decoder.mask_pos_embed"),
    (r"^decoder\.side\.latent_positions$", "decoder.pos_embed"),
    (r"^decoder\.mask_token$", "decoder.mask_embed"),
    (r"\.head\.to_patches\.", ".out.0."),
    (r"\.head\.smooth\.", ".out.2."),
    (r"\.side\.norm_in\.", ".ln_pre."),
    (r"\.side\.norm\.", ".ln_post."),
    (r"\.side\.blocks\.", ".blocks."),
    (r"\.to_qkv\.", ".attn.qkv."),
    (r"\.to_out\.", ".attn.out."),
    (r"\.norm([12])\.", r".ln\1."),
)
TOY = {"hidden_dim": 16, "depth": 1, "num_heads": 2, "num_tokens": 5, "patch_size": 8, "image_size": 32}
TOY_PROXIES = {"network": "simple_cnn", "network_options": {"hidden_dim": 8}, "codebook_size": 7, "codebook_dim": 3}


def file_name(variant: str, name: str) -> str:
    if variant == "paper":
        return FORMATS["titok"].file_name(name, 0)
    for pattern, replacement in OF_VISUAL_TOKENIZER_PYTORCH:
        name = re.sub(pattern, replacement, name)
    return name


def original(name: str, **options: Any) -> tuple[VisualTokenizer, dict[str, Tensor]]:
    """A tokenizer with all weights of a golden file, and the file."""
    golden = load_file(GOLDEN / f"model_{name}.safetensors")
    options = NARROW | options
    codes = CODES | {"l2_search_only": name == "seed_titok"}
    tokenizer = VisualTokenizer(network="titok", network_options=options, quantizer_options=codes, image_size=64)
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    own = {k: file_name(options.get("variant", "paper"), k) for k in tokenizer.state_dict()}
    beside = {k for k in own if "pixel_" in k} if "pixel_quantize.embedding.weight" not in state else set()
    assert set(state) == {theirs for ours, theirs in own.items() if ours not in beside}
    weights = tokenizer.state_dict()
    weights |= {ours: state[theirs].view(weights[ours].shape) for ours, theirs in own.items() if ours not in beside}
    tokenizer.load_state_dict(weights)
    return tokenizer.eval(), golden


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("titok_stage1", {"legacy": True, "pixel_decoder": PROXIES}),
        ("titok_stage2", {"legacy": True, "pixel_decoder": PROXIES}),
        ("titok_pixels", {}),
    ],
)
@torch.no_grad()
def test_the_paper_s_network_matches_the_original(name: str, options: dict[str, Any]) -> None:
    tokenizer, golden = original(name, **options)
    output = tokenizer(golden["x"] * 2 - 1)  # the original's images are in [0, 1]
    torch.testing.assert_close(output.z, golden["z"], atol=1e-4, rtol=0)
    assert torch.equal(output.indices, golden["indices"])
    torch.testing.assert_close(output.codes, golden["codes"], atol=1e-6, rtol=0)
    if name == "titok_stage1":
        torch.testing.assert_close(tokenizer.decoder.predict(output.codes), golden["reconstruction"], atol=1e-4, rtol=0)
        return
    if name == "titok_stage2":
        torch.testing.assert_close(tokenizer.decoder.predict(output.codes), golden["logits"], atol=1e-4, rtol=0)
    painted = tokenizer.decoder.train()(output.codes)  # MaskGIT's decoder clamps in eval mode
    torch.testing.assert_close((painted + 1) / 2, golden["reconstruction"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_network_of_visual_tokenizer_pytorch_matches_the_original() -> None:
    tokenizer, golden = original("seed_titok", variant="visual-tokenizer-pytorch")
    output = tokenizer(golden["x"])
    assert torch.equal(output.indices.flatten(), golden["indices"])
    torch.testing.assert_close(output.reconstruction, golden["reconstruction"], atol=1e-4, rtol=0)
    torch.testing.assert_close(output.losses["codebook"], golden["loss_vq"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output.losses["commitment"], golden["loss_commit"], atol=1e-6, rtol=1e-5)


def build(**options: Any) -> tuple[titok.Encoder, titok.Decoder]:
    torch.manual_seed(0)
    return titok.build(codebook_dim=3, **TOY | options)


def images_of(size: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


VARIANTS = {
    "paper": {},
    "legacy": {"legacy": True},
    "visual-tokenizer-pytorch": {"variant": "visual-tokenizer-pytorch"},
    "another decoder": {"decoder_hidden_dim": 24, "decoder_depth": 2, "decoder_num_heads": 3},
    "proxies": {"patch_size": 4, "pixel_decoder": TOY_PROXIES},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_gradients_reach_every_parameter(variant: str) -> None:
    encoder, decoder = build(**VARIANTS[variant])
    assert encoder.grid(32, 32) == (1, 5) and encoder.is_sequence
    z = encoder(images_of())
    assert z.shape == (2, 3, 1, 5)
    images = decoder(z)
    assert images.shape == (2, 3, 32, 32)
    images.square().mean().backward()
    for network in (encoder, decoder):
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert any(decoder.last_layer is parameter for parameter in decoder.parameters())


def test_every_token_sees_the_whole_image_and_every_pixel_all_tokens() -> None:
    encoder, decoder = build()
    images = images_of().requires_grad_()
    encoder(images)[0, :, 0, 2].sum().backward()
    assert (images.grad[0].abs().amax(0).view(4, 8, 4, 8).amax((1, 3)) > 0).all() and not images.grad[1].any()
    codes = torch.randn(1, 3, 1, 5).requires_grad_()
    decoder(codes)[0, :, 17, 20].sum().backward()
    assert (codes.grad.abs().amax(1) > 0).all()


def test_legacy_reads_the_latents_the_other_way_round() -> None:
    plain, legacy = build()[0], build(legacy=True)[0]
    plain.to_codes = legacy.to_codes = nn.Identity()
    z, shuffled = plain(images_of()), legacy(images_of())  # [B, 16, 1, 5]
    assert torch.equal(shuffled.flatten(1), z.squeeze(2).transpose(1, 2).flatten(1)) and not torch.equal(shuffled, z)


def test_the_decoder_takes_the_beginning_of_a_sequence() -> None:
    _, decoder = build()
    codes = torch.randn(2, 3, 1, 5)
    whole, part = decoder(codes), decoder(codes[..., :2])
    assert part.shape == whole.shape and not torch.allclose(part, whole)
    with torch.no_grad():
        decoder.side.latent_positions[2:] = 9  # of tokens that are not there
    assert torch.equal(decoder(codes[..., :2]), part) and not torch.equal(decoder(codes), whole)


def test_probabilities_near_one_put_codes_into_the_pixel_decoder() -> None:
    _, decoder = build(**VARIANTS["proxies"])
    head, proxies = decoder.head, torch.arange(64).view(1, 8, 8) % 7
    certain = nn.functional.one_hot(proxies, 7).permute(0, 3, 1, 2) * 1000.0
    head.predict = nn.Identity()
    codes = head.pixel_codebook[proxies].permute(0, 3, 1, 2)
    torch.testing.assert_close(head(certain), head.pixel_decoder(codes), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "heads"), [("small", 8), ("base", 12), ("large", 16)])
def test_sizes_of_the_paper_have_heads_of_64_channels(name: str, heads: int) -> None:
    size = titok.SIZES[name]
    with torch.device("meta"):
        encoder, decoder = titok.build(12, hidden_dim=size.hidden_dim, depth=size.depth)
        _, of_base = titok.build(12, decoder_hidden_dim=768, decoder_depth=12)
    assert size.num_heads == heads == encoder.side.blocks[0].num_heads == decoder.side.blocks[0].num_heads
    assert (len(encoder.side.blocks), len(of_base.side.blocks), of_base.side.blocks[0].num_heads) == (
        size.depth,
        12,
        12,
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"hidden_dim": 15}, "hidden_dim is 15, but must be a multiple of num_heads 2: the nearest is 16."),
        ({"num_tokens": 0}, "num_tokens is 0, but must be at least 1."),
        ({"num_heads": 0}, "num_heads is 0, but must be at least 1."),
        ({"decoder_depth": 0}, "decoder_depth is 0, but must be at least 1."),
        ({"image_size": 36}, "image_size is 36, but must be a multiple of patch_size 8: the nearest is 32."),
        ({"variant": "papre"}, "variant is 'papre'; did you mean 'paper'?"),
        ({"pixel_decoder": {"network": "simple_cnn"}}, "pixel_decoder has no 'codebook_size'"),
        ({"pixel_decoder": TOY_PROXIES | {"codebok": 3}}, "The pixel_decoder has no option 'codebok'"),
        (
            {"pixel_decoder": TOY_PROXIES | {"codebook_dim": 0}},
            "pixel_decoder: codebook_dim is 0, but must be at least 1.",
        ),
        ({"pixel_decoder": TOY_PROXIES | {"network": "simple_cn"}}, "There is no network 'simple_cn'; did you mean"),
        (
            {"pixel_decoder": TOY_PROXIES | {"network_options": {"hidden_dim": 8, "image_size": 64}}},
            "network_options of pixel_decoder holds 'image_size', which is a setting of its own",
        ),
        (
            {"pixel_decoder": TOY_PROXIES | {"network_options": {"hidden_dim": 8, "codebook_dim": 9}}},
            "network_options of pixel_decoder holds 'codebook_dim', which is a setting of its own",
        ),
        ({"positions_size": 20}, "positions_size is 20, but must be a multiple of patch_size 8: the nearest is 16."),
        ({"positions_size": 0}, "positions_size is 0, but must be at least 1."),
        (
            {"pixel_decoder": TOY_PROXIES},
            "pixel_decoder 'simple_cnn' has 8x8 tokens for images of 32 pixels, but there are 4x4 patches: a tokenizer with a "
            "grid of that size is needed, or patch_size 4.",
        ),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        build(**options)


def test_images_of_another_size_and_codes_of_another_length_are_refused() -> None:
    encoder, decoder = build()
    with pytest.raises(ValueError, match="Images of 40x40 pixels have no learned positions, only 32x32 have"):
        encoder(images_of(40))
    for shape in ((1, 6), (1, 0), (2, 2)):
        with pytest.raises(
            ValueError, match=f"Codes of {shape[0]}x{shape[1]} tokens are no sequence .*: 1x1 to 1x5 are"
        ):
            decoder(torch.randn(1, 3, *shape))


@pytest.mark.parametrize("variant", titok.VARIANTS)
def test_learned_positions_are_interpolated_for_another_size_where_that_is_asked_for(variant: str) -> None:
    learned, larger = build(variant=variant), build(variant=variant, image_size=48, positions_size=32)
    first = int(variant == "paper")  # the class token's position lies at no place of a picture
    for one, other in zip(learned, larger, strict=True):
        other.load_state_dict(one.state_dict())
        made, own = other.side.positions(), one.side.positions()
        assert torch.equal(made[:first], own[:first]) and torch.equal(own, one.side.patch_positions)
        torch.testing.assert_close(made[first:], interpolated_positions(own[None, first:], (4, 4), (6, 6))[0])
    encoder, decoder = larger
    assert encoder.grid(48, 48) == (1, 5)
    z = encoder(images_of(48))
    assert z.shape == (2, 3, 1, 5) and decoder(z).shape == (2, 3, 48, 48)
    decoder(z).sum().backward()
    assert encoder.side.patch_positions.grad.abs().min() > 0  # every learned place has a part in it
    with pytest.raises(ValueError, match="only 48x48 have: .* network of another image_size with positions_size 32"):
        encoder.grid(32, 32)


def test_a_trained_tokenizer_goes_on_at_another_size(tmp_path: Path) -> None:
    options = {key: value for key, value in TOY.items() if key != "image_size"}
    settings = {"network": "titok", "quantizer_options": CODES}
    trained = VisualTokenizer(network_options=options, image_size=32, **settings)
    larger = VisualTokenizer(network_options=options | {"positions_size": 32}, image_size=64, **settings)
    with pytest.raises(ValueError, match="patch_positions is .* They are of another size .* of titok positions_size"):
        VisualTokenizer(network_options=options, image_size=64, **settings).load_weights(trained.state_dict(), "a run")
    larger.load_weights(trained.state_dict(), source="a run")
    larger.save(tmp_path)
    again = VisualTokenizer.load(tmp_path)
    images = images_of(64)
    indices = larger.eval().encode(images)
    assert torch.equal(again.encode(images), indices) and again.decode(indices).shape == (2, 3, 64, 64)
