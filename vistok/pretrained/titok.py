"""TiTok of 1d-tokenizer (arXiv:2406.07550): a transformer a side, codes on the unit sphere; files `model.safetensors`, `.bin`.

Two kinds, told by the head: the first checkpoints (L-32, B-64, S-128) predict the codes of MaskGIT's VQGAN, whose decoder and
codebook lie in the file, and shuffle their latents (`legacy`); the newer ones (BL-64, BL-128, SL-256) paint pixels. Images in
[0, 1], which the network does itself. An attention head has 64 channels, in all of them.

A file of stage 1 has no pixel decoder, and is not read: no image comes of it.
"""

from typing import Any

from vistok.pretrained.formats import Format, Shapes

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


def _network_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of the network; a file without a pixel decoder is of the kind that paints."""
    width, patch = shapes.of("encoder.from_pixels.weight")[::3]
    decoder_width = shapes.of("decoder.from_codes.weight")[0]
    options = {
        "hidden_dim": width,
        "depth": shapes.count("encoder.side.blocks.{}.to_qkv.weight"),
        "decoder_hidden_dim": decoder_width,
        "decoder_depth": shapes.count("decoder.side.blocks.{}.to_qkv.weight"),
        "num_tokens": shapes.of("encoder.latent_tokens")[0],
        "patch_size": patch,
    }
    if shapes.form.file_name("decoder.head.smooth.weight", 0) in shapes.shapes:
        return options
    pixels = shapes.of("decoder.head.pixel_codebook")
    return options | {"legacy": True, "pixel_decoder": _proxies(shapes, *pixels)}


def _proxies(shapes: Shapes, codebook_size: int, codebook_dim: int) -> dict[str, Any]:
    """Return what `pixel_decoder` says of MaskGIT's VQGAN."""
    first = "decoder.head.pixel_decoder.levels.{}.block_0.conv2.weight"
    widths = [shapes.of(first.format(i))[0] for i in reversed(range(_LEVELS))]  # from the image on
    network = {
        "hidden_dim": widths[0],
        "num_res_blocks": shapes.count("decoder.head.pixel_decoder.mid.block_{}.conv1.weight"),
        "ch_mult": [width // widths[0] for width in widths],
    }
    sizes = {"codebook_size": codebook_size, "codebook_dim": codebook_dim}
    return {"network": "maskgit", "network_options": network, **sizes}


FORMAT = Format(
    "titok",
    "vq",
    _NAMES,
    "latent_tokens",
    None,
    _network_options,
    smallest={"hidden_dim": 64, "depth": 1},
    l2_norm=True,
)
