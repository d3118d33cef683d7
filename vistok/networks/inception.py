"""The network of FID (Heusel et al. 2017, arXiv:1706.08500): torch-fidelity's InceptionV3, frozen, whose features it compares.

Deviation: weights are read with `weights_only=True`; torch-fidelity itself would unpickle any object in them.
"""

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from vistok.system.weights import file_sha256, find_weights, first_line, load_state

NUM_FEATURES = 2048  # channels of the last pooling


class Inception(nn.Module):
    """Features of images; see `build_inception`.

    Attributes:
        weights_sha256: first eight hex digits of the weights file's SHA-256, which the published file's name ends in.
        published: whether these are the published weights.
    """

    def __init__(self, network: nn.Module, weights_sha256: str, published: bool) -> None:
        """Use `build_inception`."""
        super().__init__()
        self.network, self.weights_sha256, self.published = network, weights_sha256, published

    def forward(self, images: Tensor) -> Tensor:
        """Return the features, float32 [B, 2048], of uint8 images [B, 3, H, W]."""
        (features,) = self.network(images.contiguous(memory_format=torch.channels_last))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of features, float32 [B, 1008], without their bias, as the inception score takes them."""
        return features.mm(self.network.fc.weight.T)


def build_inception(weights: str | Path | None = None) -> Inception:
    """Return the frozen network of FID; draws nothing from the random generator.

    Args:
        weights: torch-fidelity's Inception weights file; None: PyTorch's download folder, or else a download of 91 MB.

    Raises:
        Unavailable: there are no weights and they cannot be downloaded; the message says why and what helps.
        FileNotFoundError: `weights` does not exist.
        ValueError: the file is not that network's.

    Source: `torch_fidelity.feature_extractor_inceptionv3`.
    """
    # Here, for its import takes longer than PyTorch's, and most that measure do not measure this.
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    path = find_weights(weights, URL_INCEPTION_V3, "InceptionV3 (91 MB)", download=True, options="rfid_weights=FILE")
    tensors = io.BytesIO()  # torch-fidelity unpickles whatever its file holds: it is handed a copy of the tensors alone
    torch.save(load_state(path), tensors)
    tensors.seek(0)
    try:
        with torch.random.fork_rng(devices=[]):
            network = FeatureExtractorInceptionV3(
                "inception-v3-compat", [str(NUM_FEATURES)], feature_extractor_weights_path=tensors
            )
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold torch-fidelity's InceptionV3: {first_line(error)}.") from error
    sha256 = file_sha256(path)
    published = Path(URL_INCEPTION_V3).stem.endswith(sha256)
    return Inception(network.to(memory_format=torch.channels_last), sha256, published)  # 1.7 times as fast on a CPU
