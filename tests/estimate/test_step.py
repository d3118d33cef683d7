"""The estimate of a step against the same step really taken: bytes saved, bytes alive, operations, memory of the process."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vistok.config import TrainConfig
from vistok.estimate.__main__ import main
from vistok.estimate.gpus import GPUS
from vistok.estimate.meters import CudaAutocast, LiveStorages, SavedTensors, StepMeter
from vistok.estimate.step import (
    GIB,
    Parts,
    StepEstimate,
    estimate_step,
    measure_step,
)
from vistok.losses import reconstruction_loss
from vistok.networks.blocks import recompute_activations
from vistok.networks.lpips import untrained_lpips
from vistok.networks.perceptual import CLASSIFIERS, ClassifierDistance, untrained_classifier
from vistok.quantizers import QUANTIZERS, has_codebook
from vistok.runs import Run
from vistok.system.paths import repository_root
from vistok.tokenizer import VisualTokenizer
from vistok.training.trainer import Trainer

SMALL = {"image_size": 32, "hidden_dim": 16, "num_res_blocks": 1, "codebook_size": 16, "codebook_dim": 4}
VIT = {"image_size": 32, "codebook_size": 16, "codebook_dim": 4, "l2_norm": True, "network": "vit", "hidden_dim": 32}
VIT |= {"network_options": {"depth": 2, "num_heads": 4, "mlp_dim": 48, "patch_size": 4}}
GRID = {"network": "simple_cnn", "network_options": {"hidden_dim": 8}, "codebook_size": 16, "codebook_dim": 4}
SEQUENCE = {"depth": 1, "num_heads": 4, "num_tokens": 6, "patch_size": 4, "pixel_decoder": GRID}
TITOK = VIT | {"network": "titok", "network_options": SEQUENCE}
PATCHGAN = {
    "discriminator": "patchgan",
    "discriminator_options": {"hidden_dim": 8, "norm": "group"},
    "adversarial_weight": 0.5,
    "lpips_weight": 1.0,
}
STYLEGAN2 = {
    "discriminator": "stylegan2",
    "discriminator_options": {"channel_multiplier": 1 / 64},
    "adversarial_weight": 0.5,
    "lpips_weight": 1.0,
}


MASKBIT = {
    "discriminator": "maskbit",
    "discriminator_options": {"hidden_dim": 8, "num_stages": 2},
    "adversarial_weight": 0.5,
    "classifier_weight": 0.1,
}


class Perceptual(nn.Module):
    """A stand-in for LPIPS: the squared distance of frozen features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.features(x) - self.features(y)).square().mean((1, 2, 3))


def small_classifier(_name: str) -> nn.Module:
    """A stand-in for a classifier of ImageNet."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 8, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS and the classifier are small networks, where what they cost is not what is tested."""
    monkeypatch.setattr("vistok.estimate.step.untrained_lpips", lambda net: Perceptual())
    monkeypatch.setattr("vistok.estimate.step.untrained_classifier", small_classifier)
    monkeypatch.setattr(
        "vistok.training.building.build_classifier", lambda name, *_, **__: ClassifierDistance(small_classifier(name))
    )


VGG16 = [  # at 32 pixels: side of the level, channels into and out of each 3x3 convolution
    (32, [(3, 64), (64, 64)]),
    (16, [(64, 128), (128, 128)]),
    (8, [(128, 256), (256, 256), (256, 256)]),
    (4, [(256, 512), (512, 512), (512, 512)]),
    (2, [(512, 512), (512, 512), (512, 512)]),
]
STEPS: dict[str, dict[str, Any]] = {
    "vq-vae": SMALL,
    "vqgan": SMALL | PATCHGAN,
    "vqgan-adaptive": SMALL | PATCHGAN | {"adversarial_adaptive": True, "lecam_weight": 0.1},
    "vit": VIT,
    "vit-recompute": VIT | {"checkpoint_activations": True},
    "vit-vqgan": VIT | STYLEGAN2 | {"r1_weight": 1.0},
    "titok-stage-1": TITOK | {"proxy_from": "somewhere"},
    "titok-stage-2": TITOK | PATCHGAN | {"train_parts": "decoder", "init_from": "somewhere"},
    "maskbit": SMALL | MASKBIT | {"r1_weight": 1.0},
}
every_step = pytest.mark.parametrize("name", STEPS)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16], ids=["float32", "bfloat16", "float16"]
)
pytestmark = pytest.mark.usefixtures("small_networks")


def configured(name: str, dtype: torch.dtype, **settings: Any) -> TrainConfig:
    precision = str(dtype).removeprefix("torch.")
    return TrainConfig(**{"batch_size": 4, "precision": precision} | STEPS[name] | settings)


def estimated(name: str, dtype: torch.dtype, device: str = "cpu", **settings: Any) -> StepEstimate:
    return estimate_step(configured(name, dtype, **settings), device=device)


def saved_by_autograd(tokenizer: VisualTokenizer, images: Tensor, dtype: torch.dtype) -> int:
    """Bytes of what the forward pass of a tokenizer keeps, counted by address."""
    left_out = {tensor.data_ptr() for tensor in [*tokenizer.parameters(), *tokenizer.buffers()]}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            output = tokenizer(images)
        loss = reconstruction_loss(output.reconstruction, images) + sum(output.losses.values())
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in left_out)


@every_dtype
@pytest.mark.parametrize("name", ["vq-vae", "vit", "vit-recompute"])
def test_saved_bytes_are_exactly_those_of_a_real_pass(name: str, dtype: torch.dtype) -> None:
    tokenizer = VisualTokenizer.from_config(configured(name, dtype)).train()
    recompute_activations(tokenizer, name.endswith("recompute"))
    real = saved_by_autograd(tokenizer, torch.rand(4, 3, 32, 32) * 2 - 1, dtype)
    assert estimated(name, dtype).saved_bytes == real


@every_dtype
@every_step
def test_everything_counted_is_what_a_real_step_counts(name: str, dtype: torch.dtype) -> None:
    parts = Parts.of(configured(name, dtype), dtype)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    with CudaAutocast():
        real = measure_step(parts, images)
    estimate = estimated(name, dtype, device="cuda")
    for field in ("saved_bytes", "discriminator_saved_bytes", "flops"):
        assert getattr(estimate, field) == getattr(real, field), field
    # Not exact: PyTorch's mean-squared-error kernels keep a whole buffer behind the scalar, which fake tensors do not show.
    assert estimate.step_bytes == pytest.approx(real.step_bytes, rel=0.05, abs=1.01 * images.nbytes)
    assert estimate.gradient_bytes == sum(
        p.grad.nbytes for module in parts.trained() for p in module.parameters() if p.grad is not None
    )


MODEL = ("quantizer", "network", "network_options", "num_res_blocks")
GAN = {
    "discriminator": "patchgan",
    "discriminator_options": {"hidden_dim": 16, "num_layers": 2},
    "adversarial_weight": 0.5,
}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train_parts": "decoder"},
        {"quantizer": "ema", "train_parts": "decoder"},
        {"accumulate": 4},
        {"accumulate": 2, "train_parts": "decoder", **GAN},
        {"logit_laplace_weight": 0.1},
        {"reconstruction_error": "l1", "gradient_clip": 1.0, "ema_decay": 0.9, "optimizer": "adamw"},
        {**GAN, "adversarial_adaptive": True, "r1_weight": 1.0, "r1_every": 1, "lecam_weight": 0.1},
        {**GAN, "train_parts": "decoder", "adversarial_loss": "non-saturating"},
        {**GAN, "precision": "float16", "gradient_clip": 1.0, "adversarial_adaptive": True},
        {
            "optimizer": "adamw",
            "weight_decay": 0.1,
            "weight_decay_on": "kernels",
            "ema_decay": 0.9,
            "ema_warmup": "power",
        },
        {"classifier_weight": 0.1},
        {"proxy_from": "here", "network": "titok", "network_options": SEQUENCE, "num_res_blocks": 2},
        {"checkpoint_activations": True, "network": "vqgan", "network_options": {"ch_mult": [1, 2], "z_channels": 32}},
    ],
    ids=lambda settings: "-".join(settings) or "plain",
)
def test_a_configuration_is_estimated_as_the_trainer_takes_its_step(
    settings: dict[str, Any], toy: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    model = {"image_size": 32, "hidden_dim": 32, "batch_size": 16}
    model |= {key: settings[key] for key in MODEL if key in settings}
    if "train_parts" in settings:
        VisualTokenizer.from_config(toy(**model)).save(tmp_path / "start")
        settings = settings | {"init_from": str(tmp_path / "start")}
    if "proxy_from" in settings:
        options = {name: GRID[name] for name in ("codebook_size", "codebook_dim")}
        grid = VisualTokenizer(network_options=GRID["network_options"], quantizer_options=options, image_size=32)
        grid.save(tmp_path / "grid")
        settings = settings | {"proxy_from": str(tmp_path / "grid")}
    config = toy(**model | settings)
    trainer = Trainer(Run.open(config=config), progress=False)
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    trainer.train_step(images)  # Adam's moments are there, and nothing is made for the first time
    trainer.step = 1
    modules = [trainer.tokenizer, *trainer.loss.perceptual.values()]
    modules += [trainer.adversary.discriminator] if trainer.adversary else []
    tensors = [tensor for module in modules for tensor in [*module.parameters(), *module.buffers()]]
    with StepMeter([images, *tensors]) as meter:
        trainer.train_step(images)
    estimate = estimate_step(config, step=1)
    moments = [state for optimizer in optimizers(trainer) for state in optimizer.state.values()]
    assert estimate.optimizer_bytes == sum(
        state[name].nbytes for state in moments for name in ("exp_avg", "exp_avg_sq")
    )
    assert estimate.flops * config.accumulate == meter.flops
    # The buffer behind the mean squared error, as above, and what the quantizer's search holds on a CPU.
    assert estimate.step_bytes == pytest.approx(meter.live.peak, rel=0.05, abs=1.25 * images.nbytes)
    with SavedTensors(tensors) as saved:
        images = images[: 16 // config.accumulate]
        output = trainer.tokenizer(images, proxies=trainer.loss.of_proxies)
        total, _ = trainer.loss(images, output.reconstruction, output.losses)
        if not trainer.adversary:
            assert estimate.saved_bytes == saved.bytes
    del total


def optimizers(trainer: Trainer) -> list[torch.optim.Optimizer]:
    return [trainer.optimizer] + ([trainer.adversary.optimizer] if trainer.adversary else [])


def test_operations_are_those_of_the_flop_counter() -> None:
    tokenizer = VisualTokenizer.from_config(configured("vq-vae", torch.float32)).train()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    with FlopCounterMode(display=False) as counter:
        output = tokenizer(images)
        (reconstruction_loss(output.reconstruction, images) + sum(output.losses.values())).backward()
    assert estimated("vq-vae", torch.float32).flops == counter.get_total_flops()


def test_operations_of_a_transformer_by_hand() -> None:
    tokens, dim, mlp, depth, patch, codes = 64, 32, 48, 2, 48, 4
    block = 2 * tokens * dim * (3 * dim + dim + 2 * mlp) + 4 * tokens**2 * dim  # projections, and q k^T with a v
    side = depth * block + 2 * tokens * dim * (patch + codes)
    # Backward: twice the forward, but attention 2.5 times (it computes q k^T again), and nothing for the gradient of images.
    attention = 2 * depth * 4 * tokens**2 * dim
    total = 3 * 2 * side + 0.5 * attention - 2 * tokens * dim * patch
    search = 2 * tokens * codes * 32  # the search takes its 16 codes as one block of 32
    estimate = estimated("vit", torch.float32, batch_size=1)
    assert estimate.flops == total + search


PROCESS = """
import json, sys, torch
from pathlib import Path
from vistok.config import TrainConfig
from vistok.losses import reconstruction_loss
from vistok.tokenizer import VisualTokenizer

torch.set_num_threads(1)
tokenizer = VisualTokenizer.from_config(TrainConfig.from_json(sys.argv[1])).train()

def step(images):
    output = tokenizer(images)
    (reconstruction_loss(output.reconstruction, images) + sum(output.losses.values())).backward()
    tokenizer.zero_grad()

step(torch.rand(1, 3, 64, 64))  # code of the kernels is loaded
images = torch.rand(64, 3, 64, 64)
def memory(field):  # not getrusage, whose peak begins at that of the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

resident = memory("VmRSS")
step(images)
print(memory("VmHWM") - resident)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "hidden_dim", "network_options", "tolerance"),
    [
        ("vit", 64, {"depth": 2, "num_heads": 2, "mlp_dim": 256, "patch_size": 4}, 0.1),
        ("simple_cnn", 64, {}, 0.25),  # convolutions have workspaces
    ],
)
def test_the_memory_of_a_real_process_is_as_estimated(
    network: str, hidden_dim: int, network_options: dict, tolerance: float
) -> None:
    """A step of 64 images of 64 pixels, by what the process grows."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc/self/status, which is Linux's")
    config = TrainConfig(
        network=network,
        hidden_dim=hidden_dim,
        network_options=network_options,
        codebook_size=64,
        codebook_dim=4,
        batch_size=64,
        precision="float32",
    )
    estimate = estimate_step(config, device="cpu")
    expected = estimate.step_bytes - estimate.weight_bytes - 64 * 3 * 64 * 64 * 4  # those are there before the step
    output = subprocess.run(
        [sys.executable, "-c", PROCESS, config.to_json()],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back to the system at once
    ).stdout
    assert int(output) == pytest.approx(expected, rel=tolerance)


def test_the_rule_for_a_gpu_is_pytorchs_own() -> None:
    """Fake tensors of a GPU, under the autocast of a GPU, save the same bytes; no GPU is needed for the forward pass."""
    if torch.version.cuda is None:
        pytest.skip("this PyTorch was built without CUDA")

    def saved_bytes(device: str, autocast: contextlib.AbstractContextManager) -> int:
        with FakeTensorMode(), torch.device(device):
            parts = Parts.of(configured("vqgan", torch.bfloat16), torch.bfloat16)
            network = nn.Sequential(parts.tokenizer.encoder, parts.tokenizer.decoder, parts.discriminator)
            images = torch.rand(4, 3, 32, 32)
            with autocast, SavedTensors(network.parameters()) as saved:
                loss = (network(images) ** 2).sum()
                assert loss.dtype == torch.float32
                return saved.bytes

    @contextlib.contextmanager
    def gpus_autocast() -> Iterator[None]:  # torch.autocast("cuda") turns itself off where there is no GPU
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", False)

    @contextlib.contextmanager
    def rule() -> Iterator[None]:
        with CudaAutocast(), torch.autocast("cpu", torch.bfloat16):
            yield

    assert saved_bytes("cpu", rule()) == saved_bytes("cuda", gpus_autocast())


def test_recomputing_trades_memory_for_operations() -> None:
    plain, recomputed = (
        estimated("vit", torch.float32, checkpoint_activations=recompute) for recompute in (False, True)
    )
    assert recomputed.saved_bytes < 0.4 * plain.saved_bytes
    assert recomputed.step_bytes < plain.step_bytes
    assert 1.2 * plain.flops < recomputed.flops < 1.4 * plain.flops


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    one, two, four = (estimated("vqgan", torch.bfloat16, batch_size=batch_size) for batch_size in (4, 8, 16))
    assert one.weight_bytes == four.weight_bytes and one.optimizer_bytes == four.optimizer_bytes
    assert four.saved_bytes - two.saved_bytes == 2 * (two.saved_bytes - one.saved_bytes)
    assert four.flops == 4 * one.flops


def test_state_is_counted_in_float32() -> None:
    estimate = estimated("vqgan", torch.bfloat16, ema_decay=0.9)
    parts = Parts.of(configured("vqgan", torch.bfloat16), torch.bfloat16)
    trained = sum(p.numel() for p in parts.tokenizer.parameters())
    judging = sum(p.numel() for p in parts.discriminator.parameters())
    frozen = sum(p.numel() for p in Perceptual().parameters())
    assert (estimate.parameters, estimate.discriminator_parameters) == (trained, judging)
    assert estimate.gradient_bytes == 4 * (trained + judging)
    assert estimate.optimizer_bytes == 8 * (trained + judging)
    assert estimate.ema_bytes == 4 * trained
    assert estimate.weight_bytes == 4 * (trained + judging + frozen)
    assert estimate.peak_bytes == estimate.step_bytes + estimate.optimizer_bytes + estimate.ema_bytes
    assert estimated("vqgan", torch.bfloat16).ema_bytes == 0


def test_live_storages_count_a_storage_once_and_until_it_is_freed() -> None:
    live = LiveStorages()
    a = torch.empty(1000, dtype=torch.float32)
    live.add(a)
    live.add(a[10:])
    assert live.bytes == 4000
    b = torch.empty(500, dtype=torch.bfloat16)
    live.add(b)
    view = b[:1]
    del a, b
    assert (live.bytes, live.peak) == (1000, 5000)  # the view holds all of b
    del view
    assert live.bytes == 0


def test_a_gpus_autocast_computes_norms_and_powers_in_float32() -> None:
    x = torch.randn(2, 4, 8, 8)
    with CudaAutocast(), torch.autocast("cpu", torch.bfloat16):
        h = nn.Conv2d(4, 4, 3)(x)
        assert h.dtype == torch.bfloat16
        assert nn.GroupNorm(2, 4)(h).dtype == nn.LayerNorm(6)(h).dtype == torch.float32
        assert (h**2).dtype == h.sum().dtype == h.softmax(1).dtype == torch.float32
        assert nn.functional.silu(h).dtype == (h + h).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert nn.GroupNorm(2, 4).bfloat16()(h).dtype == torch.bfloat16
    assert nn.GroupNorm(2, 4).bfloat16()(h).dtype == torch.bfloat16
    cpu, cuda = (estimated("vqgan", torch.bfloat16, device=device) for device in ("cpu", "cuda"))
    assert cuda.saved_bytes > cpu.saved_bytes and cuda.flops == cpu.flops


def test_lpips_counts_two_passes_forward_and_one_back_to_the_reconstruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vistok.estimate.step.untrained_lpips", untrained_lpips)
    plain, with_lpips = (estimated("vq-vae", torch.float32, lpips_weight=weight) for weight in (0.0, 1.0))
    forward = sum(2 * 9 * a * b * side**2 for side, pairs in VGG16 for a, b in pairs)
    heads = sum(2 * channels * side**2 for side, channels in ((32, 64), (16, 128), (8, 256), (4, 512), (2, 512)))
    assert with_lpips.flops - plain.flops == 4 * (3 * forward + 2 * heads)  # 4 images
    assert with_lpips.gradient_bytes == plain.gradient_bytes
    assert with_lpips.weight_bytes - plain.weight_bytes > 4 * 14.7e6


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_counts_two_passes_forward_and_one_back_to_the_reconstruction(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.estimate.step.untrained_classifier", untrained_classifier)
    said = torchvision.models.get_model_weights(CLASSIFIERS[name][1]).IMAGENET1K_V1.meta
    settings = {"classifier": name, "classifier_weight": 0.1}
    plain, judged = (estimated("vq-vae", torch.float32, batch_size=1, **more) for more in ({}, settings))
    forward = 2 * said["_ops"] * 1e9  # of multiplications, at 224 pixels
    assert judged.flops - plain.flops == pytest.approx(3 * forward, rel=0.01)
    assert judged.weight_bytes - plain.weight_bytes == pytest.approx(4 * said["num_params"], rel=0.01)
    assert (judged.gradient_bytes, judged.optimizer_bytes) == (plain.gradient_bytes, plain.optimizer_bytes)
    assert judged.saved_bytes > plain.saved_bytes + 50e6  # activations of one of the two passes


def test_the_table_and_the_gpus() -> None:
    estimate = dataclasses.replace(
        estimated("vq-vae", torch.bfloat16), step_bytes=21 * GIB, optimizer_bytes=0, batch_size=8, flops=10**12
    )
    assert estimate.fits("rtx-4090") and estimate.fits("a100-40")
    assert not dataclasses.replace(estimate, ema_bytes=GIB).fits("rtx-4090")  # 22 of 24, of which a tenth is left alone
    assert estimate.images_per_second("a100-80", utilisation=0.5) == pytest.approx(8 * 156)
    single = dataclasses.replace(estimate, dtype="float32")
    assert single.images_per_second("a100-80", utilisation=0.5) == pytest.approx(8 * 9.75)
    text = str(estimate)
    assert "| peak | 21.00 GiB |" in text and "| RTX 4090 | yes | 396 |" in text and "at 30% of its peak" in text
    assert all(gpu.name in text for gpu in GPUS.values())
    with pytest.raises(ValueError, match="did you mean 'h100-80'"):
        estimate.fits("h100")
    with pytest.raises(ValueError, match="utilisation is 2"):
        estimate.images_per_second("h100-80", utilisation=2)


@pytest.mark.parametrize(
    ("settings", "device", "message"),
    [
        ({}, "cudo", "did you mean 'cuda'"),
        ({"checkpoint_activations": True}, "cpu", "no blocks"),
        ({"image_size": 30}, "cpu", "image_size 30 is not divisible"),
        ({"kl_weight": 1.0}, "cpu", "quantizer 'vq' has no such loss"),
    ],
)
def test_what_cannot_be_trained_is_not_estimated(settings: dict, device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_step(TrainConfig(**SMALL | settings), device=device)


@pytest.mark.parametrize("quantizer", sorted(QUANTIZERS))
def test_every_quantizer_can_be_estimated(quantizer: str) -> None:
    dim = 2 if quantizer == "fsq" else 4  # 16 codes are two channels of four levels
    sizes = {"codebook_size": 16} if has_codebook(quantizer) else {}
    config = TrainConfig(quantizer=quantizer, codebook_dim=dim, hidden_dim=8, batch_size=2, image_size=16, **sizes)
    assert estimate_step(config).flops > 0


def test_a_row_without_blocks_is_estimated_with_its_activations_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["celeba64/vq-d4", "--scale", "smoke"]) == 0
    (line,) = capsys.readouterr().out.strip().splitlines()[2:]
    assert line.startswith("| celeba64/vq-d4 | 16 | kept |")


def test_the_command_prints_what_the_readme_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vistok.estimate.step.untrained_lpips", untrained_lpips)
    readme = (repository_root() / "notebooks" / "README.md").read_text(encoding="utf-8")
    rows = ["imagenet256/llamagen-corrected"]
    assert main([*rows, "--batch-size", "8"]) == 0
    for line in capsys.readouterr().out.strip().splitlines():
        assert line in readme
    with pytest.raises(SystemExit):
        main(["imagenet256/llamagem", "--batch-size", "8"])
    assert "did you mean 'llamagen'" in capsys.readouterr().err
