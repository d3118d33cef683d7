"""Every registered discriminator, small."""

import pytest
import torch
from torch import nn

from vistok.networks import discriminators

SMALL = {
    "patchgan": {"image_size": 32, "hidden_dim": 4},
    "patchgan-group": {"image_size": 32, "hidden_dim": 4, "norm": "group"},
    "patchgan-none": {"image_size": 32, "hidden_dim": 4, "norm": "none"},
    "stylegan2": {"image_size": 32, "channel_multiplier": 1 / 64},
    "maskbit": {"hidden_dim": 4, "num_stages": 2},
}
every_variant = pytest.mark.parametrize("variant", SMALL)


def build(variant: str) -> nn.Module:
    torch.manual_seed(0)
    return discriminators.build(variant.partition("-")[0], **SMALL[variant])
