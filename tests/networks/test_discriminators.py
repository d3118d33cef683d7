"""Discriminators: parity with PatchGAN's and MaskBit's originals, parts of StyleGAN2's against formulas, double backward."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from helpers.discriminators import SMALL, build, every_variant
from helpers.golden import GOLDEN
from safetensors.torch import load_file
from torch import nn

from vistok.networks import discriminators
from vistok.networks.discriminators import DISCRIMINATORS, Blur, EqualizedConv2d, EqualizedLinear, minibatch_std


def images_of(size: int, batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_patchgan_matches_the_original_in_training_mode() -> None:
    golden = load_file(GOLDEN / "discriminator_patchgan.safetensors")
    discriminator = discriminators.build("patchgan", image_size=64, hidden_dim=16).train()
    expected = {name.removeprefix("state."): value for name, value in golden.items() if name.startswith("state.")}
    weights = {name: value for name, value in expected.items() if "running" not in name and "tracked" not in name}
    missing = discriminator.load_state_dict(weights, strict=False)
    assert missing.unexpected_keys == [] and all("running" in k or "tracked" in k for k in missing.missing_keys)

    torch.testing.assert_close(discriminator(golden["x"]), golden["logits"], atol=1e-5, rtol=0)
    state = discriminator.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, atol=1e-5, rtol=0)


def test_maskbits_discriminator_matches_the_original() -> None:
    golden = load_file(GOLDEN / "discriminator_maskbit.safetensors")
    discriminator = discriminators.build("maskbit", hidden_dim=32, num_stages=3).train()
    weights = {name.removeprefix("state."): value for name, value in golden.items() if name.startswith("state.")}
    kernels = [weights.pop(f"blocks.{stage}.1.kernel") for stage in range(3)]  # a constant here
    discriminator.load_state_dict(weights)
    assert all(
        torch.equal(kernel[0, 0], block[1].kernel) for kernel, block in zip(kernels, discriminator.blocks, strict=True)
    )
    images = golden["x"].clone().requires_grad_()
    logits = discriminator(images)
    other_processors = {"atol": 1e-6, "rtol": 2e-5}  # one with AVX2 alone rounds logits otherwise, by 7e-6 of them
    torch.testing.assert_close(logits, golden["logits"], **other_processors)
    logits.sum().backward()
    torch.testing.assert_close(images.grad, golden["grad.x"], **other_processors)


@pytest.mark.parametrize("size", [16, 21, 22, 37])
def test_maskbits_blur_pads_as_same_does(size: int) -> None:
    """As `Conv2dSame` of MaskBit's code and TensorFlow: ceil(H/2) rows, of what is padded the smaller half above."""
    x = torch.randn(2, 3, size, size + 1)
    padded = x
    for side in (size + 1, size):  # the last side first, as `pad` counts
        more = max((math.ceil(side / 2) - 1) * 2 + 4 - side, 0)
        padded = F.pad(padded.transpose(2, 3) if side == size else padded, (more // 2, more - more // 2))
    expected = Blur(padding=0, stride=2)(padded.transpose(2, 3))
    blurred = discriminators.SameBlur(padding=1, stride=2)(x)
    assert blurred.shape[2:] == (math.ceil(size / 2), math.ceil((size + 1) / 2))
    torch.testing.assert_close(blurred, expected)


def test_maskbits_discriminator_has_the_widths_of_both_projects() -> None:
    with torch.device("meta"):
        maskbit, titok = (discriminators.build("maskbit", num_stages=stages) for stages in (4, 3))
    for discriminator, widths in ((maskbit, [128, 256, 512, 1024]), (titok, [128, 256, 512])):
        assert [block[0].out_channels for block in discriminator.blocks] == widths
        assert {block[2].num_groups for block in discriminator.blocks} == {32}


def test_patchgan_starts_as_pix2pix_does_or_as_pytorch_does() -> None:
    torch.manual_seed(0)
    discriminator = discriminators.build("patchgan", hidden_dim=32)
    for module in discriminator.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.02)
        if isinstance(module, nn.BatchNorm2d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)
            assert 0.01 < module.weight.std().item() < 0.03
            assert module.bias.abs().max() == 0
    plain = discriminators.build("patchgan", hidden_dim=32, init="default")
    bound = 1 / math.sqrt(128 * 16)  # PyTorch: uniform in +-1/sqrt(fan in)
    assert plain.main[8].weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_patchgan_judges_70_pixels_at_once() -> None:
    discriminator = discriminators.build("patchgan", hidden_dim=2, norm="none")
    images = images_of(128, 1).requires_grad_()
    logits = discriminator(images)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    touched = (images.grad.abs().sum((0, 1)) > 0).nonzero()
    assert (touched.max(0).values - touched.min(0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize(
    ("variant", "independent"),
    [("patchgan", False), ("patchgan-group", True), ("patchgan-none", True), ("maskbit", True)],
)
def test_only_batch_norm_makes_the_logits_of_an_image_depend_on_the_batch(variant: str, independent: bool) -> None:
    discriminator = build(variant).train()
    images = images_of(32)
    assert torch.allclose(discriminator(images)[:1], discriminator(images[:1]), atol=1e-6) is independent
    assert (discriminator.of_batch == ()) is independent


def test_stylegan2s_logits_depend_on_the_batch_and_say_so() -> None:
    discriminator, images = build("stylegan2").train(), images_of(32)
    assert not torch.allclose(discriminator(images)[:1], discriminator(images[:1]), atol=1e-6)
    assert discriminator.of_batch == ("the minibatch standard deviation",)


@pytest.mark.parametrize(("num_layers", "smallest"), [(1, 6), (2, 12), (3, 24)])
def test_patchgan_takes_images_down_to_its_smallest(num_layers: int, smallest: int) -> None:
    options = {"num_layers": num_layers, "hidden_dim": 2, "norm": "none"}
    assert discriminators.build("patchgan", image_size=smallest, **options)(images_of(smallest)).shape == (4, 1, 1, 1)
    with pytest.raises(ValueError, match=f"image_size is {smallest - 1}.*needs {smallest}"):
        discriminators.build("patchgan", image_size=smallest - 1, **options)


def test_blur_is_the_binomial_filter_and_keeps_constants() -> None:
    x = torch.randn(1, 1, 1, 8, dtype=torch.float64).expand(1, 1, 8, 8).clone()
    row = x[0, 0, 0]
    inner = [(row[i] + 3 * row[i + 1] + 3 * row[i + 2] + row[i + 3]) / 8 for i in range(5)]
    blurred = Blur(padding=0).double()(x)
    torch.testing.assert_close(blurred[0, 0], torch.stack(inner).expand(5, 5))
    torch.testing.assert_close(Blur(padding=1, stride=2).double()(x), Blur(padding=1).double()(x)[..., ::2, ::2])
    torch.testing.assert_close(Blur(padding=0)(torch.full((1, 3, 6, 6), 2.5)), torch.full((1, 3, 3, 3), 2.5))


@pytest.mark.parametrize(("batch", "size"), [(4, 4), (8, 4), (6, 3), (2, 2), (7, 1)])
def test_minibatch_std_against_a_loop(batch: int, size: int) -> None:
    x = torch.randn(batch, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    out = minibatch_std(x)
    assert torch.equal(out[:, :3], x)
    for n in range(batch):
        group = x[n % (batch // size) :: batch // size].double()
        assert len(group) == size
        expected = ((group - group.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(out[n, 3], torch.full((4, 4), expected.item()))


def test_equalized_layers_scale_weights_when_used() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    conv, linear = EqualizedConv2d(8, 6, 3, padding=1), EqualizedLinear(8, 6)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=1) / math.sqrt(72))
    torch.testing.assert_close(linear(x[..., 0, 0]), x[..., 0, 0] @ linear.weight.T / math.sqrt(8))


def test_stylegan2_keeps_the_scale_of_its_activations() -> None:
    torch.manual_seed(0)
    discriminator = discriminators.build("stylegan2", image_size=64, channel_multiplier=1 / 8)
    features = discriminator.from_rgb(torch.randn(16, 3, 1, 1).expand(-1, -1, 64, 64))  # nothing for the blur to remove
    for block in discriminator.blocks:
        features = block(features)
        assert 0.4 < features.square().mean().item() < 2


def test_stylegan2_has_the_widths_of_configuration_f() -> None:
    with torch.device("meta"):
        small, large = (discriminators.build("stylegan2", image_size=size) for size in (256, 1024))
    assert [block.conv1.weight.shape[0] for block in small.blocks] == [128, 256, 512, 512, 512, 512]
    assert sum(p.numel() for p in large.parameters()) == 29_012_513  # as the original code prints it


@every_variant
def test_shapes_and_double_backward(variant: str) -> None:
    discriminator = build(variant).train()
    images = images_of(32).requires_grad_()
    logits = discriminator(images)
    assert logits.shape == {"stylegan2": (4, 1), "maskbit": (4, 1, 16, 16)}.get(variant, (4, 1, 2, 2))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in discriminator.parameters() if p.grad is not None)
    assert sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in discriminator.parameters()) >= 4


def test_the_gradient_of_r1_of_stylegan2_matches_finite_differences() -> None:
    torch.manual_seed(0)
    discriminator = discriminators.build("stylegan2", image_size=8, channel_multiplier=1 / 128).double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    weight = discriminator.blocks[0].conv1.weight

    def penalty() -> torch.Tensor:
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(leaf).sum(), leaf, create_graph=True)
        return gradient.square().sum()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight += step * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2 * step * direction
    below = penalty().item()
    assert (above - below) / (2 * step) == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


@every_variant
def test_bfloat16_autocast_is_close_to_float32(variant: str) -> None:
    discriminator = build(variant).train()
    images = images_of(32)
    expected = discriminator(images)
    with torch.autocast("cpu", torch.bfloat16):
        logits = discriminator(images)
    assert logits.dtype == torch.bfloat16
    logits.float().sum().backward()
    assert (logits.float() - expected).norm() < 0.1 * expected.norm() + 0.05


@every_variant
def test_channels_last_and_json_options_change_nothing(variant: str) -> None:
    discriminator = build(variant).train()
    expected = discriminator(images_of(32))
    assert json.loads(json.dumps(SMALL[variant])) == SMALL[variant]
    other = build(variant).train().to(memory_format=torch.channels_last)
    actual = other(images_of(32).contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def test_every_discriminator_is_tested() -> None:
    assert {variant.partition("-")[0] for variant in SMALL} == set(DISCRIMINATORS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("patchgn", {}, "did you mean 'patchgan'"),
        ("patchgan", {"hiden_dim": 8}, "did you mean 'hidden_dim'"),
        ("patchgan", {"norm": "bath"}, "did you mean 'batch'"),
        ("patchgan", {"init": "defalt"}, "did you mean 'default'"),
        ("patchgan", {"num_layers": 0}, "num_layers is 0"),
        ("stylegan2", {"image_size": 100}, "image_size is 100.*nearest is 128"),
        ("stylegan2", {"image_size": 4}, "image_size is 4.*nearest is 8"),
        ("stylegan2", {"channel_multiplier": 0}, "channel_multiplier is 0"),
        ("maskbit", {"num_stages": 0}, "num_stages is 0"),
        ("maskbit", {"num_layers": 3}, "has no option 'num_layers'"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest_valid_one(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        discriminators.build(name, **options)


def test_stylegan2_refuses_images_of_another_size() -> None:
    with pytest.raises(ValueError, match="32x32 pixels, not 16x16"):
        build("stylegan2")(images_of(16))
