"""Encoders and decoders by name. Each module's `build` takes `codebook_dim` and its own options."""

import inspect

from torch import nn

from vistok.networks import magvit2, maskgit, simple_cnn, titok, vit, vqgan
from vistok.system.values import call_with_options
from vistok.system.words import nearest

NETWORKS = {
    "simple_cnn": simple_cnn.build,
    "vqgan": vqgan.build,
    "maskgit": maskgit.build,
    "magvit2": magvit2.build,
    "vit": vit.build,
    "titok": titok.build,
}
WITH_RES_BLOCKS = [name for name, make in NETWORKS.items() if "num_res_blocks" in inspect.signature(make).parameters]


def build(name: str, *, image_size: int = 256, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return the encoder and the decoder of a network.

    Args:
        name: a key of `NETWORKS`.
        image_size: pixels, height and width, for one that depends on it.
        **options: arguments of that network's `build`.

    Returns:
        encoder, a `blocks.ImageEncoder`, and decoder.

    Raises:
        ValueError: the network, or an option of it, is unknown; the sentence names the nearest known one.
    """
    if name not in NETWORKS:
        raise ValueError(f"There is no network {name!r}; {nearest(name, NETWORKS)}")
    return call_with_options(f"network {name!r}", NETWORKS[name], options, image_size=image_size)


titok.ProxyHead.build_network = staticmethod(build)
