"""One short row on the GPU beside the same on the CPU: that the GPU path works, how fast it is, and that it computes the same.

The command `make gpu-check` runs it.
"""

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig
from vistok.system.files import say

ROW, SCALE, STEPS, COMPARED = "celeba64/ema-d4", "quick", 100, 10
LARGEST_DIFFERENCE = 1e-3  # relative, of the loss of the first steps in float32: later ones part, as rounding does


def train_in_float32(folder: Path, cpu: bool, **settings: Any) -> list[float]:
    """Train the row's first steps in float32 in a process of its own, and return the loss of each.

    Args:
        folder: for the run.
        cpu: on the CPU, even where there is a GPU.
        **settings: fields of `TrainConfig`.

    Raises:
        RuntimeError: it fails; the message is what it printed.
    """
    from vistok.runs import Run

    command = [sys.executable, "-m", "vistok.training", "--row", ROW, "--scale", SCALE, "--run-dir", str(folder)]
    for name, value in (
        {"precision": "float32", "steps": COMPARED, "report_every": 1, "dataset": "photos"} | settings
    ).items():
        command += ["-p", name, str(value)]
    # Without TF32, which rounds the factors of a convolution to 10 bits.
    environment = (
        os.environ
        | {"NVIDIA_TF32_OVERRIDE": "0", "PYTHONIOENCODING": "utf-8"}
        | ({"ACCELERATE_USE_CPU": "1"} if cpu else {})
    )
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"Training in {folder.name} failed:\n{done.stdout.decode(errors='replace')}")
    run = Run.open(folder)
    if cpu and not run.provenance["device"].startswith("cpu"):
        raise RuntimeError(f"Training on the CPU was done on {run.provenance['device']}.")
    return [line["losses"]["total"] for line in run.log()]


def largest_difference(losses: list[float], others: list[float]) -> float:
    """Return the largest relative difference of two series of losses."""
    return max(abs(one - other) / abs(other) for one, other in zip(losses, others, strict=True))


@dataclasses.dataclass(frozen=True)
class GpuCheck:
    """What was found.

    Attributes:
        device: name of the card.
        precision: of the timed training.
        images_per_second: of its second half, when kernels are chosen.
        data_share: share of that time spent waiting for data.
        memory_mib: most memory allocated, MiB.
        difference: largest relative one of the losses of `COMPARED` steps in float32 from the CPU's.
    """

    device: str
    precision: str
    images_per_second: float
    data_share: float
    memory_mib: float
    difference: float

    @property
    def same(self) -> bool:
        """Whether the GPU computes what the CPU does."""
        return self.difference <= LARGEST_DIFFERENCE


def check_gpu() -> GpuCheck:
    """Train the row on the GPU and on the CPU; raises RuntimeError where one of them fails."""
    # Not above, so that `--help` does not wait for PyTorch.
    import torch

    from vistok.runs import Run
    from vistok.training.trainer import Trainer

    device = torch.device("cuda")
    with tempfile.TemporaryDirectory() as folder:
        on_gpu, on_cpu = (train_in_float32(Path(folder) / name, cpu=name == "cpu") for name in ("gpu", "cpu"))
        torch.cuda.reset_peak_memory_stats(device)
        config = TrainConfig.from_row(ROW, SCALE, dataset="photos", steps=STEPS, report_every=STEPS // 2)
        *_, last = Trainer(Run.open(Path(folder) / "auto", config))
        return GpuCheck(
            device=torch.cuda.get_device_name(device),
            precision=Run.open(Path(folder) / "auto").provenance["precision"],
            images_per_second=last.images_per_second,
            data_share=last.data_share,
            memory_mib=torch.cuda.max_memory_allocated(device) / 2**20,
            difference=largest_difference(on_gpu, on_cpu),
        )


def main(arguments: Sequence[str] = ()) -> int:
    """Check the GPU; returns 1 where there is none, or where its losses differ from the CPU's."""
    argparse.ArgumentParser(prog="python -m vistok.gpu_check", description=__doc__).parse_args(arguments)
    import torch  # not above, so that `--help` does not wait for it

    if not torch.cuda.is_available():
        print("There is no CUDA device here, so there is nothing to check.", file=sys.stderr)
        return 1
    found = check_gpu()
    say(f"{found.device}, row {ROW} at scale {SCALE}")
    say(
        f"throughput  {found.images_per_second:,.0f} images/s in {found.precision}, {found.data_share:.1%} of the time "
        "waiting for data"
    )
    say(f"memory      {found.memory_mib:,.0f} MiB at the most")
    say(
        f"losses      of {COMPARED} steps in float32 differ from the CPU's by at most {found.difference:.1e}, relative: "
        f"{'the same' if found.same else f'more than {LARGEST_DIFFERENCE:g}, so something is wrong'}"
    )
    return 0 if found.same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
