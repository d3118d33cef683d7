"""Every metric against an independent computation: scikit-image, piqa, torchmetrics, torch-fidelity, numpy."""

import os
import pickle
import urllib.error
from pathlib import Path
from unittest import mock

import lpips
import numpy as np
import piqa
import pytest
import skimage.io
import skimage.metrics
import torch
import torchmetrics.functional.image.lpips as torchmetrics_lpips
import torchvision
from helpers.inception import rfid_of_torch_fidelity
from helpers.processes import run_two
from helpers.weights import write_backbone, write_inception_weights
from torch import Tensor

from vistok.images import psnr, unit_to_uint8
from vistok.metrics import LPIPS, PSNR, RFID, SSIM, SSIMUniform7, frechet_distance
from vistok.networks.lpips import build_lpips
from vistok.system.weights import Unavailable


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inception_weights(tmp_path_factory.mktemp("weights") / "inception.pth")


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty PyTorch download folder, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return tmp_path / "torch" / "hub" / "checkpoints"


def pictures(num_images: int, size: int, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return smooth random images in [0, 1], some flat and some saturated, and noisy copies."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num_images, 3, 5, 5, generator=generator) * 1.4 - 0.2
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return images, (images + noise * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def channels_last_numpy(images: Tensor) -> list[np.ndarray]:
    return list(images.permute(0, 2, 3, 1).double().numpy())


def fed(metric: torch.nn.Module, images: Tensor, reconstructions: Tensor, batch_size: int = 3) -> Tensor:
    for x, y in zip(images.split(batch_size), reconstructions.split(batch_size), strict=True):
        metric.update(x, y)
    return metric.compute()


def ssim_in_float64(x: Tensor, y: Tensor, window: Tensor, scale: float) -> Tensor:
    """Wang's equation 13 as it stands, each image's mean."""
    x, y, window = x.double(), y.double(), window.double()
    kernel = (window[:, None] * window)[None, None]

    def local(values: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(values.flatten(0, 1).unsqueeze(1), kernel).unflatten(0, values.shape[:2])

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = scale * (local(x * x) - mean_x**2), scale * (local(y * y) - mean_y**2)
    covariance = scale * (local(x * y) - mean_x * mean_y)
    above = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    return (above / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))).flatten(2).mean((1, 2))


@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 0.77, 0.999, 1.0])
@pytest.mark.parametrize("change", ["offset", "noise", "none"])
def test_ssim_of_nearly_equal_images_is_exact_and_not_above_one(value: float, change: str) -> None:
    flat = torch.full((1, 3, 32, 32), value)
    halves = flat.clone()
    halves[..., 16:] = 1 - value
    images = torch.cat([flat, halves])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    changed = {"offset": images + 0.003, "noise": images + 1e-4 * noise, "none": images.clone()}[change].clamp(0, 1)
    gaussian = torch.exp(-torch.arange(-5, 6).double().square() / (2 * 1.5**2))
    for metric, window, scale in (
        (SSIM(), gaussian / gaussian.sum(), 1.0),
        (SSIMUniform7(), torch.full((7,), 1 / 7), 49 / 48),
    ):
        measured = metric.per_image(images, changed)
        assert (measured <= 1).all()
        expected = ssim_in_float64(images, changed, window, scale)
        torch.testing.assert_close(measured.double(), expected, atol=2e-6, rtol=0)


def test_psnr_is_that_of_scikit_image() -> None:
    images, reconstructions = pictures(7, 24)
    pairs = zip(channels_last_numpy(images), channels_last_numpy(reconstructions), strict=True)
    expected = np.mean([skimage.metrics.peak_signal_noise_ratio(x, y, data_range=1) for x, y in pairs])
    measured = fed(PSNR(), images, reconstructions)
    assert measured.dtype == torch.float64
    assert float(measured) == pytest.approx(expected, abs=1e-5)
    assert fed(PSNR(), images, images) == float("inf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_psnr_of_half_precision_is_that_of_its_values(dtype: torch.dtype) -> None:
    images, _ = pictures(3, 16)
    half, other = images.to(dtype), (images + 1e-3).to(dtype)  # the square of that difference, float16 holds coarsely
    assert torch.equal(psnr(half, other, 1), psnr(half.float(), other.float(), 1))


def test_psnr_of_what_cannot_be_compared_is_refused() -> None:
    images, reconstructions = pictures(2, 16)
    with pytest.raises(
        ValueError, match=r"\[2, 3, 16, 16\] and torch.float32 \[1, 3, 16, 16\], but must be of one shape"
    ):
        psnr(images, reconstructions[:1])
    with pytest.raises(ValueError, match="both uint8 or both float"):
        psnr(unit_to_uint8(images), reconstructions)


def scikit_ssim(images: Tensor, reconstructions: Tensor, **options: object) -> float:
    pairs = zip(channels_last_numpy(images), channels_last_numpy(reconstructions), strict=True)
    similarity = skimage.metrics.structural_similarity
    return float(np.mean([similarity(x, y, channel_axis=2, data_range=1, **options) for x, y in pairs]))


GAUSSIAN = {"win_size": 11, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}


# 300 pixels: each image computed alone, for the cache.
@pytest.mark.parametrize("size", [11, 32, 64, 300])
def test_ssim_is_that_of_scikit_image_and_piqa(size: int) -> None:
    images, reconstructions = pictures(3, size)
    measured = float(fed(SSIM(), images, reconstructions, batch_size=2))
    assert measured == pytest.approx(scikit_ssim(images, reconstructions, **GAUSSIAN), abs=1e-6)
    # piqa's window, in float32, has a sum of 1 - 3e-8, which alone is some 5e-6 here.
    assert measured == pytest.approx(float(piqa.SSIM()(images, reconstructions)), abs=2e-5)
    assert float(fed(SSIM(), images, images)) == pytest.approx(1, abs=1e-6)


def test_ssim_uniform7_is_scikit_images_default() -> None:
    images, reconstructions = pictures(7, 24)
    measured = float(fed(SSIMUniform7(), images, reconstructions))
    assert measured == pytest.approx(scikit_ssim(images, reconstructions), abs=1e-6)
    assert measured != pytest.approx(float(fed(SSIM(), images, reconstructions)), abs=1e-3)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_that_of_torchmetrics(net: str, tmp_path: Path) -> None:
    images, reconstructions = pictures(4, 40)
    file = write_backbone(net, tmp_path)
    before = torch.random.get_rng_state()
    metric = LPIPS(net, weights=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)

    # The oracle is torchmetrics' own network as it builds it, given the same backbone by torchvision's name.
    state = torch.load(file, weights_only=True)
    layers = (
        torchvision.models.alexnet().features
        if net == "alex"
        else torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"])
    )
    layers.load_state_dict({name[9:]: tensor for name, tensor in state.items() if name.startswith("features.")})
    with mock.patch.object(torchmetrics_lpips, "_get_tv_model_features", return_value=layers):
        expected = torchmetrics_lpips.learned_perceptual_image_patch_similarity(
            images, reconstructions, net_type=net, normalize=True
        )
    assert float(fed(metric, images, reconstructions)) == pytest.approx(float(expected), rel=1e-4)
    assert float(expected) > 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning:torchvision")  # of how that package asks for a backbone
@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_and_its_gradient_are_those_of_the_authors_package(net: str, tmp_path: Path) -> None:
    images, reconstructions = (batch * 2 - 1 for batch in pictures(3, 40))
    file = write_backbone(net, tmp_path)
    authors = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # their heads, in evaluation mode
    state = torch.load(file, weights_only=True)
    slices = authors.net.state_dict()
    authors.net.load_state_dict({name: state["features." + name.partition(".")[2]] for name in slices})
    values, gradients = [], []
    for network in (build_lpips(net, tmp_path), authors):
        inputs = reconstructions.clone().requires_grad_()
        values.append(network(images, inputs).flatten())
        values[-1].mean().backward()
        gradients.append(inputs.grad)
    assert values[1].min() > 1e-3
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=0)
    assert (gradients[0] - gradients[1]).norm() < 1e-3 * gradients[1].norm()


def test_the_network_of_lpips_is_frozen_but_passes_gradients_to_both_images(tmp_path: Path) -> None:
    write_backbone("vgg", tmp_path)
    before = torch.random.get_rng_state()
    network = build_lpips("vgg", tmp_path)
    assert torch.equal(torch.random.get_rng_state(), before)
    loss = torch.nn.ModuleList([network]).train()[0]
    images, reconstructions = (batch.requires_grad_() for batch in pictures(2, network.smallest))
    first, second = (loss(images * 2 - 1, reconstructions * 2 - 1) for _ in range(2))
    assert torch.equal(first, second)  # no dropout
    assert first.shape == (2,)
    first.sum().backward()
    assert images.grad.abs().sum() > 0 and reconstructions.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in network.parameters())
    same = loss(images, images.detach())
    same.sum().backward()
    assert not same.any() and images.grad.isfinite().all()


def test_the_network_of_lpips_says_what_helps(no_downloads: Path) -> None:
    with pytest.raises(ValueError, match="net is 'squeeze', but must be 'alex' or 'vgg'"):
        build_lpips("squeeze")
    with pytest.raises(Unavailable, match=r"VGG16 \(530 MB\) are not here, .* or use lpips_weights=FILE\."):
        build_lpips("vgg", options="lpips_weights=FILE")


def save_pngs(images: Tensor, folder: Path) -> str:
    folder.mkdir()
    for number, image in enumerate(images):
        torchvision.utils.save_image(image, folder / f"{number:04d}.png")
    return str(folder)


@pytest.mark.slow
def test_rfid_is_that_of_torch_fidelity_on_pngs(inception_weights: Path, tmp_path: Path) -> None:
    images, reconstructions = pictures(24, 32)
    folders = save_pngs(images, tmp_path / "images"), save_pngs(reconstructions, tmp_path / "reconstructions")
    expected = rfid_of_torch_fidelity(*folders, inception_weights)
    metric = RFID(inception_weights)
    with pytest.warns(UserWarning, match="24 images is biased upward"):
        measured = fed(metric, images, reconstructions, batch_size=16)
    assert expected > 1
    assert float(measured) == pytest.approx(expected, rel=1e-3)
    assert "not the published ones" in metric.note


class Projection(torch.nn.Module):
    """Stands in for Inception where it is too slow: 8-bit images to 2048 features."""

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1).float() / 255
        weights = torch.randn(pixels.shape[1], 2048, generator=torch.Generator().manual_seed(0))
        return pixels @ weights


def test_rfid_streams_merges_and_needs_two_images(inception_weights: Path) -> None:
    images, reconstructions = pictures(12, 8)
    metric = RFID(inception_weights)
    metric.network = Projection()
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="at least 2 images"):
        metric.compute()
    metric.update(images[:5], reconstructions[:5])
    states = {name: getattr(metric, name).clone() for name in ("sums", "outer_sums", "num_images")}
    metric.reset()
    metric.update(images[5:], reconstructions[5:])
    metric.merge_state(states)
    statistics = []
    for batch in (images, reconstructions):
        features = Projection()(unit_to_uint8(batch)).double()
        statistics += [features.mean(0), features.T.cov()]
    with pytest.warns(UserWarning):
        assert float(metric.compute()) == pytest.approx(float(frechet_distance(*statistics)), rel=1e-6)
    # The 8-bit rounding counts: truncated pixels give another distance.
    metric.reset()
    with pytest.warns(UserWarning):
        truncated = fed(metric, images, reconstructions.mul(255).floor().div(255))
    assert float(truncated) != pytest.approx(float(frechet_distance(*statistics)), rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rFID over")
def test_rfid_of_equal_images_is_not_below_zero(inception_weights: Path) -> None:
    metric = RFID(inception_weights)
    metric.network = Projection()
    for seed in range(3):
        for number in (2, 9, 40):
            metric.reset()
            images, _ = pictures(number, 8, seed=seed)
            metric.update(images, images)
            assert 0 <= float(metric.compute()) < 1e-4
    metric.reset()
    flat = torch.full((4, 3, 8, 8), 0.5)
    metric.update(flat, flat)
    assert float(metric.compute()) == 0


def test_8_bit_images_are_those_that_save_image_writes(tmp_path: Path) -> None:
    images = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    torchvision.utils.save_image(images[0], tmp_path / "image.png")
    written = skimage.io.imread(tmp_path / "image.png")
    assert torch.equal(unit_to_uint8(images)[0], torch.from_numpy(written).permute(2, 0, 1))
    exact = torch.arange(256, dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 16, 16)
    assert torch.equal(unit_to_uint8((exact / 127.5 - 1 + 1) / 2), exact)


@pytest.mark.parametrize(("num_samples", "num_features"), [(200, 30), (10, 30)])
def test_frechet_distance_is_that_of_matrix_square_roots(num_samples: int, num_features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_samples, num_features, dtype=torch.float64, generator=generator)
    y = 1.3 * x + 0.2 + torch.randn(x.shape, dtype=torch.float64, generator=generator)
    mean1, mean2, covariance1, covariance2 = x.mean(0), y.mean(0), x.T.cov(), y.T.cov()
    values, vectors = np.linalg.eigh(covariance1.numpy())
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    trace_of_root = np.sqrt(np.linalg.eigvalsh(root @ covariance2.numpy() @ root).clip(0)).sum()
    expected = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_of_root
    measured = frechet_distance(mean1, covariance1, mean2, covariance2)
    assert float(measured) == pytest.approx(float(expected), rel=1e-6)
    assert float(frechet_distance(mean1, covariance1, mean1, covariance1)) == pytest.approx(0, abs=1e-6)
    nothing = torch.zeros_like(covariance1)
    assert float(frechet_distance(mean1, nothing, mean1 + 1, nothing)) == pytest.approx(num_features)


def test_states_of_two_metrics_add_up() -> None:
    images, reconstructions = pictures(6, 16)
    for make in (PSNR, SSIM, SSIMUniform7):
        whole, first, second = make(), make(), make()
        whole.update(images, reconstructions)
        first.update(images[:2], reconstructions[:2])
        second.update(images[2:], reconstructions[2:])
        first.merge_state(second)
        assert float(first.compute()) == pytest.approx(float(whole.compute()), rel=1e-7)


TWO_PROCESSES = """
import sys, torch
from vistok.images import unit_to_uint8
from vistok.metrics import PSNR
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
images, reconstructions = torch.rand(2, 8, 3, 16, 16, generator=generator)
psnr, alone = PSNR(), PSNR(sync_on_compute=False)
for start in (0, 4):  # batches of four, two a process
    mine = slice(start + 2 * rank, start + 2 * rank + 2)
    psnr.update(images[mine], reconstructions[mine])
alone.update(images, reconstructions)
assert torch.allclose(psnr.compute(), alone.compute()), (psnr.compute(), alone.compute())
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    run_two(TWO_PROCESSES, tmp_path / "store")


def test_metrics_work_in_and_out_of_inference_mode() -> None:
    images, reconstructions = pictures(2, 16)
    metric = SSIM()
    with torch.inference_mode():
        metric.update(images, reconstructions)
    metric.update(images, reconstructions)
    assert metric.num_images == 4


@pytest.mark.parametrize(
    ("images", "reconstructions", "sentence"),
    [
        (torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 8), "must have one shape"),
        (torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16), r"must be float \[B, 3, H, W\]"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.uint8), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(2, 3, 16, 16) * 2 - 1, torch.rand(2, 3, 16, 16), r"Images have values from -.* in \[0, 1\]"),
        (torch.rand(2, 3, 16, 16), torch.full((2, 3, 16, 16), torch.nan), "Reconstructions have values from nan"),
        (torch.rand(2, 3, 9, 16), torch.rand(2, 3, 9, 16), "9x16 pixels, but must be at least 11x11"),
    ],
)
def test_wrong_images_are_refused(images: Tensor, reconstructions: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        SSIM().update(images, reconstructions)


def test_metrics_without_weights_say_what_helps(no_downloads: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"InceptionV3 \(91 MB\) could not be .*no network in this test.*rfid_weights="
    ):
        RFID()
    with pytest.raises(Unavailable, match=r"AlexNet \(230 MB\) are not here, .*not asked for: .*lpips='download'"):
        LPIPS("alex")
    with pytest.raises(Unavailable, match=r"VGG16 \(530 MB\) could not be downloaded \(no network in this test\)"):
        LPIPS("vgg", download=True)
    assert not no_downloads.exists()


def test_weights_given_or_downloaded_before_are_found(no_downloads: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no weights file"):
        RFID(tmp_path / "nothing.pth")
    with pytest.raises(Unavailable, match=r"AlexNet \(230 MB\) are not in the given folder"):
        LPIPS("alex", weights=tmp_path)
    no_downloads.mkdir(parents=True)
    write_backbone("alex", no_downloads)
    assert LPIPS("alex").weights_sha256 != "7be5be79"


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, file)
    with pytest.raises(ValueError, match="does not hold torchvision's AlexNet"):
        LPIPS("alex", weights=file)
    with pytest.raises(ValueError, match="does not hold torch-fidelity's InceptionV3"):
        RFID(file)
    torch.save(torch.zeros(3), file)
    with pytest.raises(ValueError, match="is not a PyTorch weights file"):
        RFID(file)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is not a PyTorch weights file"):
        RFID(file)


class Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("pwned",))


@pytest.mark.parametrize("save", [torch.save, lambda thing, file: file.write_bytes(pickle.dumps(thing))])
def test_weights_files_execute_nothing(save: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Evil(), tmp_path / "evil.pth")
    for make in (RFID, lambda file: LPIPS("alex", file)):
        with pytest.raises(ValueError, match="is not a PyTorch weights file"):
            make(tmp_path / "evil.pth")
    assert not (tmp_path / "pwned").exists()


def test_metrics_without_images_say_so() -> None:
    with (
        pytest.warns(UserWarning, match="before the ``update``"),
        pytest.raises(ValueError, match="at least one image"),
    ):
        PSNR().compute()
