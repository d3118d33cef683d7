"""What a tokenizer's training begins with: the tokenizer, of new or given weights, and the frozen networks of its losses."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn

from vistok.config import TrainConfig
from vistok.losses import ProxyCrossEntropy
from vistok.networks import NETWORKS
from vistok.networks.lpips import build_lpips
from vistok.networks.perceptual import build_classifier
from vistok.pretrained import load_pretrained
from vistok.quantizers import QUANTIZERS
from vistok.system.files import say
from vistok.system.words import differences_between
from vistok.tokenizer import VisualTokenizer

# Loss to the setting that says which frozen network it looks through.
LOOKS_THROUGH = {"proxy": "proxy_from", "lpips": "lpips_weights", "classifier": "classifier_weights"}


def build_tokenizer(config: TrainConfig, fresh: bool = True, proxies: VisualTokenizer | None = None) -> VisualTokenizer:
    """Return the tokenizer that a training begins with, on the CPU; torch's random numbers begin anew at the seed.

    Args:
        config: of the training.
        fresh: with the weights of `init_from`, where there is one; else they will be loaded. Which settings these had
            otherwise is said: no tensor tells heads of attention, or whether codes have one length.
        proxies: what `load_proxies` returns, and what paints is taken of; None: a fresh tokenizer asks it.

    Raises:
        ValueError, FileNotFoundError: these weights are of another architecture, or not there.
    """
    proxies = load_proxies(config) if proxies is None and fresh else proxies
    set_seed(config.seed)
    tokenizer = VisualTokenizer.from_config(config)
    if config.init_from is not None and fresh:
        source = load_pretrained(config.init_from)
        tokenizer.load_weights(source.state_dict(), source=config.init_from)
        if differ := differences_between(_all_settings(source), _all_settings(tokenizer)):
            say(f"The weights of {config.init_from} are taken over by a tokenizer of other settings: {differ}.")
    if proxies is not None:  # over `init_from`'s too: another decoder would paint other codes than are predicted
        tokenizer.decoder.take_painting(proxies.quantizer.codebook, proxies.decoder)
    return tokenizer


def load_proxies(config: TrainConfig) -> VisualTokenizer | None:
    """Return the tokenizer of `proxy_from`, whose codes are predicted, on the CPU; None where there is none.

    Raises:
        ValueError, FileNotFoundError: it is not there, or not as the network's `pixel_decoder` describes it, or it has no
            codebook, or several.
    """
    if config.proxy_from is None:
        return None
    proxies, named = load_pretrained(config.proxy_from), f"proxy_from is {config.proxy_from!r}"
    if (number := len(proxies.quantizer.codebook_sizes)) != 1:
        raise ValueError(
            f"{named}, whose quantizer {proxies.settings['quantizer']!r} has {number or 'no'} codebooks, but each patch "
            "predicts one code: take a tokenizer with one codebook."
        )
    with torch.device("meta"):  # shapes only
        expected = VisualTokenizer.from_config(config).decoder.grid
    if (found := proxies.token_grids(config.image_size, config.image_size)[0]) != expected:
        raise ValueError(
            f"{named}, which makes {found[0]}x{found[1]} tokens of {config.image_size} pixels, but there are {expected[0]}x"
            f"{expected[1]} patches: take a tokenizer with a grid of that size, or another patch_size."
        )
    described, own = config.network_options["pixel_decoder"], _described(proxies)
    if _with_defaults(described) != _with_defaults(own):
        options = json.dumps(config.network_options | {"pixel_decoder": own})
        raise ValueError(f"{named}, but network_options describe another pixel_decoder; they would be {options}.")
    return proxies


def _described(proxies: VisualTokenizer) -> dict[str, Any]:
    """Return what `pixel_decoder` says of a tokenizer."""
    network = {name: proxies.settings[name] for name in ("network", "network_options")}
    return network | {"codebook_size": proxies.quantizer.codebook_size, "codebook_dim": proxies.quantizer.codebook_dim}


def _with_defaults(described: dict[str, Any]) -> dict[str, Any]:
    """Return a description with all options of its network, those at their defaults too, as it is read from JSON."""
    usual = _defaults(NETWORKS[described["network"]]) | {"image_size": None}
    network_options = usual | (described.get("network_options") or {})
    return json.loads(json.dumps(described | {"network_options": network_options}))


def _all_settings(tokenizer: VisualTokenizer) -> dict[str, Any]:
    """Return the settings of a tokenizer, those at their defaults too."""
    settings = tokenizer.settings
    options = _defaults(QUANTIZERS[settings["quantizer"]]) | settings["quantizer_options"]
    return _with_defaults(settings | {"quantizer_options": options})


def _defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments of a function that have a default, each with it."""
    options = inspect.signature(make).parameters
    return {name: option.default for name, option in options.items() if option.default is not option.empty}


def build_perceptual(config: TrainConfig, proxies: VisualTokenizer | None = None) -> dict[str, nn.Module]:
    """Return the frozen networks that a training looks through, by the name of their loss.

    Args:
        config: of the training.
        proxies: what `load_proxies` returns.

    Raises:
        Unavailable: the weights of one are not here and cannot be downloaded.
        FileNotFoundError, ValueError: a file that was given is not there, or not that network's.
    """
    found: dict[str, nn.Module] = {}
    if proxies is not None:
        found["proxy"] = ProxyCrossEntropy(proxies.encoder, proxies.quantizer)
    if config.lpips_weight:
        found["lpips"] = build_lpips("vgg", config.lpips_weights, download=True, options="lpips_weights=FILE")
    if config.classifier_weight:
        options = "classifier_weights=FILE"
        found["classifier"] = build_classifier(config.classifier, config.classifier_weights, True, options=options)
    return found
