"""What families share: most name their tensors nearly as taming-transformers does."""

from typing import Any

from vistok.pretrained.formats import Shapes

FIRST_TENSOR = "encoder.down.0.block.0.conv1.weight"
LEVELS = (
    (r"^encoder\.levels\.", "encoder.down."),
    (r"^decoder\.levels\.", "decoder.up."),
    (r"\.(down|up)\.(\d+)\.block_(\d+)\.", r".\1.\2.block.\3."),
)
QUANT_CONVS = (
    (r"^quantizer\.weight$", "quantize.embedding.weight"),
    (r"^encoder\.to_codes\.", "quant_conv."),
    (r"^decoder\.from_codes\.", "post_quant_conv."),
    (r"\.shortcut\.", ".nin_shortcut."),
)
NO_QUANT_CONVS = (
    (r"^quantizer\.weight$", "quantize.embedding.weight"),
    (r"^encoder\.to_codes\.", "encoder.conv_out."),
    (r"^decoder\.from_codes\.", "decoder.conv_in."),
    (r"\.shortcut\.", ".nin_shortcut."),
)


def levels_of_blocks(shapes: Shapes) -> dict[str, Any]:
    """Return the options of a network of levels of residual blocks, each level a multiple of the first one's width.

    Raises:
        ValueError: a tensor that tells them is missing, or no weight.
    """
    width = shapes.of("encoder.conv_in.weight")[0]
    levels = range(shapes.count("encoder.levels.{}.block_0.conv1.weight"))
    return {
        "hidden_dim": width,
        "num_res_blocks": shapes.count("encoder.levels.0.block_{}.conv1.weight"),
        "ch_mult": [shapes.of(f"encoder.levels.{i}.block_0.conv1.weight")[0] // width for i in levels],
    }


def vqgan_options(shapes: Shapes) -> dict[str, Any]:
    """Return the options of a VQGAN: `levels_of_blocks`, and the channels before the convolution to the codes.

    Raises:
        ValueError: as `levels_of_blocks`.
    """
    return levels_of_blocks(shapes) | {"z_channels": shapes.of("encoder.conv_out.weight")[0]}
