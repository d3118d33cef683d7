"""The loss on a classifier's logits, on random weights, against what the originals compute with torchvision alone."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from vistok.networks import perceptual
from vistok.networks.perceptual import CLASSIFIERS, SIZE, ClassifierDistance, build_classifier
from vistok.system.weights import Unavailable

every_classifier = pytest.mark.parametrize("name", CLASSIFIERS)


def pictures(batch: int, size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, 3, size, size, generator=generator) * 2 - 1
    return images, images + 0.3 * torch.randn(images.shape, generator=generator)  # some of them beyond [-1, 1]


def small_classifier(_name: str = "") -> nn.Module:
    """A stand-in that has what a classifier has two modes for."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 7, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    ).append(nn.Dropout(0.5))


def written(name: str, folder: Path) -> tuple[nn.Module, Path]:
    """Return a classifier of random weights that are in a file of torchvision's name."""
    _, maker, url = CLASSIFIERS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = getattr(torchvision.models, maker)(weights=None)
    torch.save(network.state_dict(), folder / url.rpartition("/")[2])
    return network.eval(), folder / url.rpartition("/")[2]


@every_classifier
def test_distances_and_gradients_are_those_of_the_originals(name: str, tmp_path: Path) -> None:
    """MaskBit's and 1d-tokenizer's: images in [0, 1], not clamped, resized to 224, normalised; the error of the logits."""
    network, file = written(name, tmp_path)
    images, reconstructions = pictures(1, 40)
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    values, gradients = [], []

    def originals(images: Tensor, reconstructions: Tensor) -> Tensor:
        unit = ((batch + 1) / 2 for batch in (images, reconstructions))
        sized = (F.interpolate(x, size=224, mode="bilinear", align_corners=False, antialias=True) for x in unit)
        return F.mse_loss(*(network(normalise(x)) for x in sized))

    for loss in (build_classifier(name, file), originals):
        inputs = reconstructions.clone().requires_grad_()
        values.append(loss(inputs, images).mean())
        values[-1].backward()
        gradients.append(inputs.grad)
    assert values[1] > 1e-6
    torch.testing.assert_close(values[0], values[1], rtol=1e-3, atol=0)
    assert (gradients[0] - gradients[1]).norm() < 1e-2 * gradients[1].norm()


@every_classifier
def test_weights_are_torchvisions(name: str) -> None:
    title, maker, url = CLASSIFIERS[name]
    weights = torchvision.models.get_model_weights(maker).IMAGENET1K_V1
    assert weights.url == url and f"({weights.meta['_file_size']:.0f} MB)" in title


def test_the_classifier_is_frozen_but_passes_gradients_to_both_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(perceptual, "untrained_classifier", small_classifier)
    torch.save(small_classifier().state_dict(), tmp_path / "weights.pth")
    before = torch.random.get_rng_state()
    distance = build_classifier("resnet50", tmp_path / "weights.pth")
    assert torch.equal(torch.random.get_rng_state(), before)
    distance = nn.ModuleList([distance]).train()[0]
    state = {name: value.clone() for name, value in distance.state_dict().items()}
    images, reconstructions = (batch.requires_grad_() for batch in pictures(3, 16))
    first, second = (distance(images, reconstructions) for _ in range(2))
    assert torch.equal(first, second) and first.shape == (3,) and first.dtype == torch.float32  # no dropout
    first.sum().backward()
    assert images.grad.abs().sum() > 0 and reconstructions.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    assert all(torch.equal(value, state[name]) for name, value in distance.state_dict().items())  # no batch statistics
    assert torch.equal(distance(images[1:2], reconstructions[1:2])[0], first[1]) or torch.allclose(
        distance(images[1:2], reconstructions[1:2])[0], first[1], rtol=1e-4
    )
    assert not distance(images, images).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_close_and_the_error_is_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    distance, (images, reconstructions) = ClassifierDistance(small_classifier()), pictures(2, 16)
    expected = distance(images, reconstructions)
    with torch.autocast("cpu", dtype):
        found = distance(images, reconstructions.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.2, atol=1e-3)


def test_what_the_classifier_sees_has_the_size_it_was_trained_in() -> None:
    seen: list[torch.Size] = []
    network = small_classifier()
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape))
    for size in (8, 300):
        ClassifierDistance(network)(*pictures(1, size))
    assert set(seen) == {torch.Size([1, 3, SIZE, SIZE])}


def test_a_classifier_says_what_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(perceptual, "untrained_classifier", small_classifier)
    with pytest.raises(ValueError, match="classifier is 'resnet-50'; did you mean 'resnet50'"):
        build_classifier("resnet-50")
    with pytest.raises(Unavailable, match=r"ConvNeXt-S \(192 MB\) are not here, .* or use classifier_weights=FILE\."):
        build_classifier("convnext_s", options="classifier_weights=FILE")
    with pytest.raises(FileNotFoundError, match=r"no weights file .*resnet50-0676ba61\.pth"):
        build_classifier("resnet50", tmp_path / "nowhere.pth")
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth does not hold torchvision's ResNet-50 \(98 MB\)"):
        build_classifier("resnet50", tmp_path / "other.pth")
