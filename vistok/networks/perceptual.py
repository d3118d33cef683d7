"""A perceptual loss on the logits of a classifier of ImageNet: ConvNeXt-S as in TiTok, ResNet-50 as in MaskBit; frozen.

After `PerceptualLoss` in the code of MaskBit (Weber et al. 2024, arXiv:2409.16211), which takes ResNet-50, of 1d-tokenizer
(TiTok, Yu et al. 2024, arXiv:2406.07550) and of visual-tokenizer-pytorch, which take ConvNeXt-S: images in [0, 1] are resized
to 224 pixels (bilinear, antialiased) whatever their size, normalised by ImageNet's mean and deviation, and the mean squared
error is taken between the 1,000 logits, with weight 0.1 in all three. Weights are torchvision's IMAGENET1K_V1.

Deviation: resizing and the error are in float32 whatever precision the network computes in.
"""

from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vistok.images import to_unit
from vistok.system.values import check_known
from vistok.system.weights import find_weights, torchvision_network

# Each classifier's name, torchvision's function that builds it, and its weights.
CLASSIFIERS = {
    "convnext_s": (
        "ConvNeXt-S (192 MB)",
        "convnext_small",
        "https://download.pytorch.org/models/convnext_small-0c510722.pth",
    ),
    "resnet50": ("ResNet-50 (98 MB)", "resnet50", "https://download.pytorch.org/models/resnet50-0676ba61.pth"),
}
SIZE = 224  # pixels, in which the classifiers were trained
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's training images in [0, 1], by colour


class ClassifierDistance(nn.Module):
    """The mean squared error between a classifier's logits of each image of a batch and of its counterpart.

    Frozen: no weight takes a gradient, and `train()` leaves it in evaluation mode. A gradient reaches both batches of images.
    """

    def __init__(self, network: nn.Module) -> None:
        """Take a classifier, images [B, 3, 224, 224] to logits [B, classes]; see `build_classifier`."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> "ClassifierDistance":
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Return the distances.

        Args:
            images: float [B, 3, H, W] in [-1, 1]; those beyond are not clamped.
            reconstructions: the same.

        Returns:
            float32 [B], at least 0.
        """
        return (self._logits(images) - self._logits(reconstructions)).square().mean(1)

    def _logits(self, images: Tensor) -> Tensor:
        unit = F.interpolate(to_unit(images, clamp=False), size=SIZE, mode="bilinear", antialias=True)
        x = (unit - self.mean) / self.std  # [B, 3, 224, 224]
        return self.network(x.contiguous(memory_format=torch.channels_last)).float()  # [B, 1000]


def untrained_classifier(name: str) -> nn.Module:
    """Return a classifier of `CLASSIFIERS` with random weights, which cost what the published ones do."""
    # Imported here: whoever trains without it does not wait for it.
    from torchvision import models

    # A truncated normal distribution looks at what it has drawn, which fake tensors, on which steps are estimated, have not.
    with mock.patch.object(nn.init, "trunc_normal_", nn.init.normal_):
        return getattr(models, CLASSIFIERS[name][1])(weights=None)


def build_classifier(
    name: str,
    weights: str | Path | None = None,
    download: bool = False,
    *,
    options: str = "download=True or weights=FOLDER",
) -> ClassifierDistance:
    """Return the frozen distance of a classifier's logits; draws nothing from the random generator.

    Args:
        name: "convnext_s" or "resnet50".
        weights: torchvision's weights file of it, or a folder that holds it; None: PyTorch's download folder.
        download: download the weights where they are not in PyTorch's download folder.
        options: how the reader of a message asks for the weights.

    Raises:
        Unavailable: there are no weights; the message says what, how large, from where and where to put it.
        FileNotFoundError: `weights` does not exist.
        ValueError: `name` is another one, or the file is not that classifier's.
    """
    check_known("classifier is", name, CLASSIFIERS)
    title, _, url = CLASSIFIERS[name]
    path = find_weights(weights, url, title, download, options)
    network = torchvision_network(path, title, lambda: untrained_classifier(name), nn.Module.load_state_dict)
    return ClassifierDistance(network.to(memory_format=torch.channels_last))
