"""One GPU, in ten minutes: its tests, `gpu_check`, six paper rows beside their estimates, rows of celeba64 while there is time.

The command `make gpu-table` runs it. What it finds is a record, `gpu-<card>.json` in the folder of runs, and each trained row
is a run beside it. A part that the time does not reach, or that fails, stands in the record with its reason.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig
from vistok.gpu_check import check_gpu
from vistok.recipes import load_table
from vistok.system.files import json_object, make_folder, replace_file, say
from vistok.system.interrupts import run_command
from vistok.system.paths import in_repository, repository_root, runs_root

PAPER_ROWS = (
    "celeba64/vq-d64",
    "imagenet64/fsq-88865",
    "imagenet256/taming-corrected",
    "imagenet256/llamagen-corrected",
    "imagenet256/vit-small",
    "imagenet256/vit-base",
)
STEPS = 30  # of each paper row, the last third of them timed
TABLE = "celeba64"  # whose rows are trained in the end
LEAST_SECONDS = 20  # nothing is begun with less than that left


def run_cuda_tests(seconds: float) -> dict[str, Any]:
    """Run the tests that skip where there is no CUDA device; return how many passed, failed and were skipped, and which failed.

    Args:
        seconds: they may take.

    Raises:
        RuntimeError: they cannot be run here, or take longer.
    """
    if not in_repository():
        raise RuntimeError("the tests lie in a clone of the repository")
    command = [sys.executable, "-m", "pytest", "tests", "-m", "cuda", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            command, cwd=repository_root(), capture_output=True, encoding="utf-8", errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the tests took longer than {seconds:.0f} s") from error
    last = (done.stdout.strip().splitlines() or ["pytest said nothing"])[-1]
    if done.returncode not in (0, 1):
        raise RuntimeError(f"the tests did not run: {last.strip('= ')}")
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    return counts | {"failures": re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)}


def measure_row(row: str, scale: str = "paper", **settings: Any) -> dict[str, Any]:
    """Train some steps of a row, its adversary from the first one on, and return what it needed beside what was estimated.

    Frozen perceptual networks have random weights, which cost what theirs do. Where the estimate says that a batch does not fit
    the card it is halved until it does.

    Args:
        row: "table/row".
        scale: of it.
        **settings: further fields of `TrainConfig`.

    Returns:
        the batch; images a second and the share of time waiting for data; peak memory in GiB, measured (None on a CPU) and
        estimated; and the share of the peak operations a second that were reached, where the card is one of `estimate.GPUS`.
    """
    import torch

    from vistok.estimate.step import GIB, RESERVE, estimate_step
    from vistok.networks.lpips import untrained_lpips
    from vistok.runs import Run
    from vistok.training.trainer import Trainer

    given = {"dataset": "photos", "steps": STEPS, "report_every": STEPS // 3, "warmup_steps": 0} | settings
    config = TrainConfig.from_row(row, scale, **given, **_from_the_start(row, scale))
    cuda = torch.cuda.is_available()
    memory = torch.cuda.get_device_properties(0).total_memory if cuda else float("inf")
    while (estimate := estimate_step(config)).peak_bytes > (1 - RESERVE) * memory and config.batch_size > 1:
        config = TrainConfig.from_dict(config.to_dict() | {"batch_size": config.batch_size // 2})
    with tempfile.TemporaryDirectory() as folder:
        if config.lpips_weight:
            file = Path(folder) / "random-vgg16.pth"
            names = untrained_lpips("vgg").net.state_dict()
            torch.save({f"features.{name.partition('.')[2]}": value for name, value in names.items()}, file)
            config = TrainConfig.from_dict(config.to_dict() | {"lpips_weights": str(file)})
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        *_, last = Trainer(Run.open(Path(folder) / "run", config), progress=False)
    peak = torch.cuda.max_memory_allocated() / GIB if cuda else None
    return {
        "batch_size": config.batch_size,
        "images_per_second": round(last.images_per_second, 2),
        "data_share": round(last.data_share, 4),
        "peak_gib": peak and round(peak, 3),
        "estimated_peak_gib": round(estimate.peak_bytes / GIB, 3),
        "tflops": round(estimate.flops / estimate.batch_size * last.images_per_second / 1e12, 3),
    }


def _from_the_start(row: str, scale: str) -> dict[str, Any]:
    """Return settings by which an adversarial row's discriminator is heard from the first step on."""
    config = TrainConfig.from_row(row, scale)
    return {"discriminator_start": 0, "adversarial_start": 0} if config.discriminator else {}


def train_row(row: str, seconds: float, scale: str, dataset: str, data_root: str | None) -> dict[str, Any]:
    """Train and evaluate one row through the notebooks, and return its run's name and what was measured.

    Args:
        row: of `TABLE`.
        seconds: it may take; what it has by then it goes on from the next time.
        scale: of it.
        dataset: to train and test on.
        data_root: folder of the dataset; None: the usual one.

    Raises:
        RuntimeError: it fails, or takes longer.
    """
    from vistok.data import find_run_dir

    run_dir = find_run_dir(_config(row, scale, dataset, data_root))
    command = [sys.executable, "-m", "vistok.tables", TABLE, "--rows", row, "--scale", scale, "--dataset", dataset]
    command += [] if data_root is None else ["--data-root", data_root]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError("the time was over; the same command goes on with it") from error
    if done.returncode:
        raise RuntimeError((done.stdout.strip() or done.stderr.strip()).splitlines()[-1])
    measured = json_object(run_dir / "metrics.json")
    names = ["psnr", "ssim", "usage", "num_images", *(["rfid"] if measured["rfid"] is not None else [])]
    return {"run": run_dir.name} | {name: measured[name] for name in names}


def _config(row: str, scale: str, dataset: str, data_root: str | None) -> TrainConfig:
    """Return the configuration that `vistok.tables` trains a row of `TABLE` with; ValueError where there is none."""
    from vistok.data import with_batch_that_fits

    return with_batch_that_fits(TrainConfig.from_row(f"{TABLE}/{row}", scale, dataset=dataset, data_root=data_root))


class Parts:
    """Does one part after the other while there is time; what came of each is said, and written, at once.

    Attributes:
        record: that is written; its "found" has the name of a part to what it found, or to {"missing": why there is nothing}.
    """

    def __init__(self, minutes: float, file: Path, record: dict[str, Any]) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.file, self.record = file, record | {"minutes": minutes, "found": {}}

    @property
    def seconds_left(self) -> float:
        """Until the time is over, s."""
        return self.end - time.monotonic()

    def do(self, name: str, part: Callable[[], dict[str, Any]]) -> None:
        """Do a part, unless the time is over; a failure is that part's own."""
        begun = time.monotonic()
        if self.seconds_left < LEAST_SECONDS:
            found = {"missing": "the time was over"}
        else:
            try:
                found = part() | {"seconds": round(time.monotonic() - begun, 1)}
            except Exception as error:  # whatever it is, the record says it, and the next part has its turn
                found = {"missing": str(error) or type(error).__name__}
        if not self.record["found"]:
            _set_aside(self.file)
        self.record["found"][name] = found
        replace_file(self.file, (json.dumps(self.record, indent=2) + "\n").encode())
        say(f"{name}: {json.dumps(found)}")


def _set_aside(file: Path) -> None:
    """Give the record of an earlier time, if there is one, another name."""
    number = 1
    while (aside := file.with_name(f"{file.stem}.before-{number}.json")).exists():
        number += 1
    if file.exists():
        file.rename(aside)


def gpu_table(
    minutes: float,
    *,
    dataset: str = "photos",
    data_root: str | None = None,
    scale: str = "laptop",
    paper_scale: str = "paper",
    paper_rows: Sequence[str] = PAPER_ROWS,
    rows: Sequence[str] | None = None,
) -> Path:
    """Measure everything that the time allows, on a GPU or, as a trial of the command, on a CPU.

    Args:
        minutes: for all of it.
        dataset: of the rows that are trained in the end.
        data_root: its folder; None: the usual one.
        scale: of those rows.
        paper_scale: of the rows that are timed.
        paper_rows: these, "table/row".
        rows: of `TABLE`, to train in the end; None: all.

    Returns:
        the file of the record, `gpu-<card>.json` in the folder of runs; one that was there is now `gpu-<card>.before-1.json`.
    """
    import torch

    from vistok.system.provenance import provenance

    cuda = torch.cuda.is_available()
    where = provenance("cuda" if cuda else "cpu")
    card = re.sub(r"[^a-z0-9]+", "-", where["device"].lower()).strip("-")
    file = runs_root() / f"gpu-{card}.json"
    make_folder(file.parent)
    parts = Parts(minutes, file, {"provenance": where})
    if cuda:
        parts.do("tests", lambda: run_cuda_tests(parts.seconds_left))
        parts.do("gpu_check", lambda: vars(check_gpu()))
    for row in paper_rows:
        parts.do(row, lambda row=row: measure_row(row, paper_scale))
    for row in load_table(TABLE).rows if rows is None else rows:
        name = f"{TABLE}/{row} at scale {scale}, trained"
        parts.do(name, lambda row=row: train_row(row, parts.seconds_left, scale, dataset, data_root))
    return file


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the record; returns 1 where there is no GPU and no trial was asked for, or a test failed."""
    parser = argparse.ArgumentParser(prog="python -m vistok.tables.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it (default: %(default)g)")
    parser.add_argument(
        "--dataset", help="of the rows that are trained (default: celeba where data/celeba is, else photos)"
    )
    parser.add_argument("--data-root", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument("--scale", default="laptop", help="of the rows that are trained (default: %(default)s)")
    parser.add_argument("--on-cpu", action="store_true", help="a trial of the command where there is no GPU")
    given = parser.parse_args(arguments)
    if not given.minutes > 0:
        parser.error(f"--minutes is {given.minutes:g}, but must be above 0; 10 is usual.")
    import torch  # not above, so that `--help` does not wait for it

    dataset = given.dataset or ("celeba" if (repository_root() / "data/celeba").is_dir() else "photos")
    try:
        _config(next(iter(load_table(TABLE).rows)), given.scale, dataset, given.data_root)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if not torch.cuda.is_available() and not given.on_cpu:
        print("There is no CUDA device here; --on-cpu tries the command without one.", file=sys.stderr)
        return 1
    paper_scale = "paper" if torch.cuda.is_available() else "smoke"
    file = gpu_table(
        given.minutes, dataset=dataset, data_root=given.data_root, scale=given.scale, paper_scale=paper_scale
    )
    say(f"The record is {file}; it belongs beside the runs that it names.")
    return int(bool(json.loads(file.read_bytes())["found"].get("tests", {}).get("failures")))


if __name__ == "__main__":
    run_command(main)
