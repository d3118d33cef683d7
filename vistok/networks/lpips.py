"""The network of LPIPS (Zhang et al. 2018, arXiv:1801.03924, section 3), frozen: for the metric and for the training loss.

torchmetrics' implementation and its lin heads v0.1; torchvision's weights of the backbone, which are large, so they are
downloaded only where asked for.

Deviation: a feature vector f is divided by sqrt(|f|^2 + 1e-8), as torchmetrics does; the authors divide by |f| + 1e-10, whose
gradient is not a number where f is zero.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from vistok.system.weights import file_sha256, find_weights, torchvision_network

# Each backbone's name, torchvision's weights, and the smallest image that its pooling leaves something of.
BACKBONES = {
    "alex": ("AlexNet (230 MB)", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", 31),
    "vgg": ("VGG16 (530 MB)", "https://download.pytorch.org/models/vgg16-397923af.pth", 16),
}


class LPIPSNetwork(nn.Module):
    """The learned perceptual distance of each image of a batch to its counterpart; see `build_lpips`.

    Frozen: no weight takes a gradient, and `train()` leaves it in evaluation mode. A gradient reaches both batches of images.

    Attributes:
        smallest: pixels, the least height and width of an image.
        weights_sha256: first eight hex digits of the weights file's SHA-256, which a published file's name ends in.
    """

    def __init__(self, network: nn.Module, smallest: int, weights_sha256: str) -> None:
        """Use `build_lpips`."""
        super().__init__()
        self.network = network
        self.smallest = smallest
        self.weights_sha256 = weights_sha256

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Return the distances.

        Args:
            images: float [B, 3, H, W] in [-1, 1], height and width of at least `smallest` pixels.
            reconstructions: the same.

        Returns:
            float [B], at least 0.
        """
        return self.network(images, reconstructions).flatten()  # [B, 1, 1, 1] -> [B]


def untrained_lpips(net: str) -> nn.Module:
    """Return LPIPS's network with random weights of the backbone, which cost what the published ones do.

    Args:
        net: "alex" or "vgg".
    """
    # Imported here: whoever trains without it does not wait for it.
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    return _NoTrainLpips(net=net, pnet_rand=True)


def build_lpips(
    net: str,
    weights: str | Path | None = None,
    download: bool = False,
    *,
    options: str = "download=True or weights=FOLDER",
) -> LPIPSNetwork:
    """Return the frozen network of LPIPS; draws nothing from the random generator.

    Args:
        net: "alex" (AlexNet; the usual metric) or "vgg" (VGG16; the usual training loss).
        weights: torchvision's weights file of the backbone, or a folder that holds it; None: PyTorch's download folder.
        download: download the weights where they are not in PyTorch's download folder.
        options: how the reader of a message asks for the weights.

    Raises:
        Unavailable: there are no weights; the message says what, how large, from where and where to put it.
        FileNotFoundError: `weights` does not exist.
        ValueError: `net` is another name, or the file is not that backbone's.

    Source: arXiv:1801.03924, section 3; `torchmetrics.functional.image.lpips`.
    """
    if net not in BACKBONES:
        raise ValueError(f"net is {net!r}, but must be 'alex' or 'vgg'.")
    title, url, smallest = BACKBONES[net]
    path = find_weights(weights, url, title, download, options)
    sha256 = file_sha256(path)
    network = torchvision_network(path, title, lambda: untrained_lpips(net), _fill_backbone)
    return LPIPSNetwork(network.to(memory_format=torch.channels_last), smallest, sha256)


def _fill_backbone(network: nn.Module, state: dict[str, Tensor]) -> None:
    # torchmetrics cuts torchvision's `features` into slices, and keeps their numbers: slice1.0 is features.0.
    network.net.load_state_dict(
        {name: state["features." + name.partition(".")[2]] for name in network.net.state_dict()}
    )
