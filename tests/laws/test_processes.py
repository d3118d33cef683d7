"""Several processes train and measure what one does: two and three on the CPU, over gloo, against one."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers import process_group
from helpers.process_group import KINDS, STEPS
from helpers.weights import write_inception_weights

from vistok import Run, TrainConfig
from vistok.runs import RATES

pytestmark = pytest.mark.slow
SECONDS = 300  # after which processes are surely stuck
SCRIPT = Path(process_group.__file__)


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def run_groups(worlds: Sequence[int], folder: Path, images: Path, what: str) -> None:
    """Run the script in groups of so many processes, as a launcher would."""
    own = {"VISTOK_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(images), what, *(f"{world}:{free_port()}" for world in worlds)],
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, images_root: Path) -> Path:
    """Every kind of run in float64, by one, two and three processes; one run by two, then three."""
    folder = tmp_path_factory.mktemp("float64")
    run_groups((1, 2, 3), folder, images_root, "float64")
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, images_root: Path) -> Path:
    """First gradients and metrics in float32, by one, two and three processes."""
    folder = tmp_path_factory.mktemp("float32")
    write_inception_weights(folder / "inception.pth")
    run_groups((1, 2, 3), folder, images_root, "float32")
    return folder


def training_state(run: Path) -> dict[str, Any]:
    state, file = Run.open(run).checkpoints.load()
    assert file.name == f"step-{STEPS:09d}.pt"
    return state


def assert_same_training(run: Path, alone: Path) -> None:
    """Weights, the discriminator's too, are within 1e-9, and the logs say the same."""
    one, other = training_state(run), training_state(alone)
    parts = [(state["tokenizer"], (state["adversary"] or {}).get("discriminator", {})) for state in (one, other)]
    for ours, theirs in zip(*parts, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value.dtype in (torch.float64, torch.int64)
            torch.testing.assert_close(
                value, theirs[name], rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )
    logs = [
        [{k: v for k, v in line.items() if k not in RATES} for line in Run.open(path).log()] for path in (run, alone)
    ]
    assert [line["step"] for line in logs[0]] == [*range(5, STEPS + 1, 5)]
    for ours, theirs in zip(*logs, strict=True):
        assert ours["usage"] == theirs["usage"]
        assert ours["perplexity"] == pytest.approx(theirs["perplexity"], rel=1e-9)
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_several_processes_train_what_one_does(trained: Path, kind: str, world: int) -> None:
    assert_same_training(trained / f"{kind}-{world}", trained / f"{kind}-1")
    provenance = Run.open(trained / f"{kind}-{world}").provenance
    assert provenance["num_processes"] == world


def test_what_is_trained_differs_from_where_it_began(trained: Path) -> None:
    """The comparison can fail: kinds differ from one another by much more than 1e-9."""
    vq, ibq = (training_state(trained / f"{kind}-1")["tokenizer"]["quantizer.weight"] for kind in ("vq", "ibq"))
    assert (vq - ibq).abs().max() > 1e-4


def test_a_run_begun_by_two_processes_is_ended_by_three(trained: Path) -> None:
    assert_same_training(trained / "resumed", trained / "plain-1")


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", ["vq", "ema", "gan"])
def test_in_float32_the_first_gradients_are_those_of_one(measured: Path, kind: str, world: int) -> None:
    one, several = (torch.load(measured / f"gradients-{kind}-{number}.pt") for number in (1, world))
    assert one.keys() == several.keys() and len(one) > 15
    assert any("PatchGAN" in name for name in one) == (kind == "gan")
    for name, gradient in one.items():
        # Of the discriminator's last bias the halves of the hinge loss, 1 and -1, cancel: what is left is mostly rounding.
        size = torch.tensor(1.0) if name == "PatchGAN.main.5.bias" else gradient.norm()
        assert (several[name] - gradient).norm() < 5e-5 * size, name  # of the last weights they cancel in part: 1.5e-5


@pytest.mark.parametrize("number", [17, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_measure_what_one_does(measured: Path, number: int, world: int) -> None:
    one, several = (json.loads((measured / f"metrics-{number}-{n}.json").read_text()) for n in (1, world))
    assert one["num_images"] == several["num_images"] == number
    assert several["provenance"]["num_processes"] == world
    for name in ("psnr", "ssim", "ssim_uniform7", "rfid"):
        assert several[name] == pytest.approx(one[name], rel=1e-6), name
    assert one["usage"] > one["usage_queue"] or number == 2
    for name in ("counts", "usage", "usage_queue", "perplexity", "entropy_bits", "bits_per_pixel"):
        assert several[name] == one[name], name
    assert several["notes"] == one["notes"]


def test_processes_that_do_not_have_the_same_say_so_and_measure_what_all_can(tmp_path: Path, images_root: Path) -> None:
    write_inception_weights(tmp_path / "inception.pth")
    run_groups((2,), tmp_path, images_root, "differ")
    said = [(tmp_path / f"said-{rank}.txt").read_text() for rank in (0, 1)]
    for sentence in said:
        assert sentence.startswith("Process 1 would begin with step 0, process 0 with 5: the run directory")
    records = [json.loads((tmp_path / f"metrics-{rank}.json").read_text()) for rank in (0, 1)]
    for record in records:
        assert record["rfid"] is None and record["unavailable"]["rfid"] == "Not asked for (rfid=False)."
        assert record["psnr"] == records[0]["psnr"] and record["num_images"] == 18


def test_accelerates_choice_of_the_cpu_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make gpu-check` compares with it."""
    script = (
        "import torch; from accelerate import Accelerator, PartialState; from vistok.system.processes import process_state\n"
        "PartialState.default_device = property(lambda state: torch.device('cuda'))\n"  # as where there is a GPU
        "print(process_state().device, Accelerator(mixed_precision='no').device)"
    )
    for flag, device in (("1", "cpu"), ("0", "cuda")):
        monkeypatch.setenv("ACCELERATE_USE_CPU", flag)
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        assert done.stdout.split() == [device, device]


def children(process: subprocess.Popen) -> list[psutil.Process]:
    """The trainings under a launcher."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child for child in below if "vistok.training" in " ".join(child.cmdline())]


def test_killing_one_process_ends_the_others_and_says_so(toy: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = toy(steps=10**6, report_every=5, checkpoint_every=20)
    file, run = tmp_path / "config.json", tmp_path / "run"
    file.write_text(config.to_json())
    # What `accelerate launch --multi_gpu` calls too; that itself starts one process only where there is no GPU.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    launch += ["-m", "vistok.training", "--config", str(file), "--run-dir", str(run)]
    with subprocess.Popen(
        launch,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            end = time.monotonic() + SECONDS
            while not (run / "log.jsonl").is_file() or Run.open(run).steps_logged < 30:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.1)
            assert Run.open(run).provenance["num_processes"] == 2
            trainings = children(process)
            assert len(trainings) == 2
            trainings[1].kill()
            killed = time.monotonic()
            output, _ = process.communicate(timeout=SECONDS)
            assert time.monotonic() - killed < 30
        finally:
            for child in children(process) if process.poll() is None else []:
                child.kill()
            process.kill()
    assert process.returncode != 0
    assert re.search(r"exitcode\s*: -9|Signal 9 \(SIGKILL\)", output), output[-3000:]
    assert not any(child.is_running() for child in trainings)
    assert Run.open(run).checkpoints.load()[0]["step"] >= 20
