"""Encoders and decoders by name. Each module's `build` takes `codebook_dim` and its own options."""

from torch import nn

from vistok.config import call_with_options, nearest
from vistok.networks import simple_cnn

NETWORKS = {"simple_cnn": simple_cnn.build}


def build(name: str, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return the encoder and the decoder of a network.

    Args:
        name: a key of `NETWORKS`.
        **options: arguments of that network's `build`.

    Returns:
        encoder (with an int attribute `downsample_factor`) and decoder.

    Raises:
        ValueError: the network, or an option of it, is unknown; the sentence names the nearest known one.
    """
    if name not in NETWORKS:
        raise ValueError(f"There is no network {name!r}; {nearest(name, NETWORKS)}")
    return call_with_options(f"network {name!r}", NETWORKS[name], options)
