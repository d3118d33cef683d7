"""TiTok of 1d-tokenizer (arXiv:2406.07550): an image as a sequence of tokens; files `model.safetensors`, or `.bin`.

Two kinds, told by their heads. "titok" are the first checkpoints (L-32, B-64, S-128): they predict the codes of MaskGIT's
VQGAN, whose decoder and codebook lie in the file, shuffle their latents (`legacy`), and have codes on the unit sphere.
"titok-pixels" are the newer ones (BL-64, BL-128, SL-256), which paint pixels, and whose codes are plain. Images of both are in
[0, 1], which the network sees to. An attention head has 64 channels in all of them; no tensor tells it.

A file of stage 1 has no pixel decoder, and is not read: no image comes of it. Nor are the variants without a codebook.
"""

from collections.abc import Collection
from typing import Any

from vistok.pretrained.formats import Format, Shapes

# Not "latent_tokens": this package's own files have that too, behind "encoder.".
_FIRST_TENSOR, _OF_PIXELS = "encoder.latent_token_positional_embedding", "decoder.conv_out.weight"
_LEVELS = 5  # of MaskGIT's decoder, in every file; counted from the image on there
_NAMES = (
    (r"^quantizer\.weight$", "quantize.embedding.weight"),
    (r"^encoder\.latent_tokens$", "latent_tokens"),
    (r"^encoder\.from_pixels\.", "encoder.patch_embed."),
    (r"^encoder\.to_codes\.", "encoder.conv_out."),
    (r"^decoder\.from_codes\.", "decoder.decoder_embed."),
    (r"^decoder\.head\.pixel_codebook$", "pixel_quantize.embedding.weight"),
    (r"^decoder\.head\.pixel_decoder\.from_codes\.", "pixel_decoder.conv_in."),
    *(
        (rf"^decoder\.head\.pixel_decoder\.levels\.{i}\.", f"pixel_decoder.up.{_LEVELS - 1 - i}.")
        for i in range(_LEVELS)
    ),
    (r"^decoder\.head\.pixel_decoder\.", "pixel_decoder."),
    (r"^(pixel_decoder\.up\.\d+)\.block_(\d+)\.", r"\1.block.\2."),
    (r"^(pixel_decoder\.up\.\d+)\.upsample\.conv\.", r"\1.upsample_conv."),
    (r"^pixel_decoder\.mid\.block_", "pixel_decoder.mid."),
    (r"^(pixel_decoder\..*)\.shortcut\.", r"\1.nin_shortcut."),
    (r"^decoder\.head\.predict\.", "decoder.ffn."),
    (r"^decoder\.head\.to_patches\.", "decoder.ffn.0."),
    (r"^decoder\.head\.smooth\.", "decoder.conv_out."),
    (r"\.side\.class_token$", ".class_embedding"),
    (r"\.side\.patch_positions$", ".positional_embedding"),
    (r"\.side\.latent_positions$", ".latent_token_positional_embedding"),
    (r"\.side\.norm_in\.", ".ln_pre."),
    (r"\.side\.norm\.", ".ln_post."),
    (r"\.side\.blocks\.", ".transformer."),
    (r"\.to_qkv\.", ".attn.in_proj_"),
    (r"\.to_out\.", ".attn.out_proj."),
    (r"(\.transformer\.\d+)\.norm([12])\.", r"\1.ln_\2."),
    (r"\.mlp\.0\.", ".mlp.c_fc."),
    (r"\.mlp\.2\.", ".mlp.c_proj."),
)


def _sides(shapes: Shapes) -> dict[str, Any]:
    """Return the options of both transformers.

    Raises:
        ValueError: a tensor that tells them is missing, or no weight.
    """
    width, *_, patch_size = shapes.of("encoder.from_pixels.weight")
    return {
        "hidden_dim": width,
        "depth": shapes.count("encoder.side.blocks.{}.to_qkv.weight"),
        "decoder_hidden_dim": shapes.of("decoder.from_codes.weight")[0],
        "decoder_depth": shapes.count("decoder.side.blocks.{}.to_qkv.weight"),
        "num_tokens": shapes.of("encoder.latent_tokens")[0],
        "patch_size": patch_size,
    }


def _with_proxies(shapes: Shapes) -> dict[str, Any]:
    """Return the options of both transformers, and what `pixel_decoder` says of MaskGIT's VQGAN.

    Raises:
        ValueError: as `_sides`.
    """
    codebook_size, codebook_dim, *_ = shapes.of("decoder.head.pixel_codebook")
    of_level = "decoder.head.pixel_decoder.levels.{}.block_0.conv2.weight"
    widths = [shapes.of(of_level.format(i))[0] for i in reversed(range(_LEVELS))]  # from the image on
    network = {
        "hidden_dim": widths[0],
        "num_res_blocks": shapes.count("decoder.head.pixel_decoder.mid.block_{}.conv1.weight"),
        "ch_mult": [width // widths[0] for width in widths],
    }
    sizes = {"codebook_size": codebook_size, "codebook_dim": codebook_dim}
    pixel_decoder = {"network": "maskgit", "network_options": network, **sizes}
    return _sides(shapes) | {"legacy": True, "pixel_decoder": pixel_decoder}


def _paints_pixels(names: Collection[str]) -> bool:
    return _FIRST_TENSOR in names and _OF_PIXELS in names


FORMAT = Format(
    "titok",
    "vq",
    _NAMES,
    _FIRST_TENSOR,
    None,
    _with_proxies,
    smallest={"hidden_dim": 64, "depth": 1, "legacy": True},
    l2_norm=True,
)
PIXELS = Format("titok", "vq", _NAMES, _FIRST_TENSOR, _paints_pixels, _sides, smallest={"hidden_dim": 64, "depth": 1})
