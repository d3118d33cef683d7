"""Weights of the networks that metrics and losses look through, seeded: none is downloaded."""

from pathlib import Path
from unittest import mock

import torch
import torchvision
from torch_fidelity import feature_extractor_inceptionv3 as inception

from vistok.networks.lpips import BACKBONES


def write_inception_weights(path: Path) -> Path:
    """Write seeded, He-initialised Inception weights; torch's default initialisation makes every FID about 1e-14."""
    extractor = inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(inception, "load_state_dict_from_url", return_value={}),
        mock.patch.object(extractor, "load_state_dict"),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(0)
        network = extractor("inception-v3-compat", ["2048"])
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    torch.save(network.state_dict(), path)
    return path


def write_backbone(net: str, folder: Path) -> Path:
    """Write a seeded backbone under torchvision's file name; of VGG16 the convolutions only: LPIPS uses no others."""
    name = BACKBONES[net][1].rpartition("/")[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if net == "alex":
            state = torchvision.models.alexnet(weights=None).state_dict()
        else:
            layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
            state = {f"features.{name}": tensor for name, tensor in layers.state_dict().items()}
    torch.save(state, folder / name)
    return folder / name
