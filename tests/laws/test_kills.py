"""Runs that are killed, and whose folders fill up, are locked or may not be written: real processes, and nothing is lost."""

import contextlib
import errno
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor

from vistok import Run, TrainConfig, VisualTokenizer, evaluate
from vistok.runs import RATES
from vistok.system.paths import repository_root

pytestmark = pytest.mark.slow
Toy = Callable[..., TrainConfig]
EXTENDED = os.environ.get("VISTOK_EXTENDED") == "1"
KILLS = 20 if EXTENDED else 3  # of each kind of run
SECONDS = 120  # after which a process is surely stuck
SMALL = {"steps": 150, "report_every": 7, "checkpoint_every": 3}
KINDS: dict[str, dict[str, Any]] = {
    "vq": {"num_workers": 1},
    "ema": {"quantizer": "ema", "quantizer_options": {"init": "kmeans", "revive_after": 2}},
    "gan": {
        "quantizer": "gumbel",  # its noise is the generator's, whose state must come back
        "ema_decay": 0.9,
        "discriminator": "patchgan",
        "discriminator_options": {"hidden_dim": 8, "num_layers": 1},
        "adversarial_weight": 0.5,
        "adversarial_adaptive": True,
        "adversarial_start": 40,
        "lecam_weight": 0.01,
        "r1_weight": 0.1,
        "r1_every": 4,
        "accumulate": 2,
    },
}


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def write_config(config: TrainConfig, folder: Path) -> Path:
    file = folder / "config.json"
    file.write_text(config.to_json())
    return file


def command(config_file: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "vistok.training", "--config", str(config_file), "--run-dir", str(run)]


@contextlib.contextmanager
def started(config_file: Path, run: Path) -> Iterator[subprocess.Popen]:
    """A training in the background, once its log has two lines; killed at the end, if it still runs."""
    with subprocess.Popen(
        command(config_file, run),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            end = time.monotonic() + SECONDS
            while not (run / "log.jsonl").is_file() or (run / "log.jsonl").read_text().count("\n") < 2:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def wait_for_checkpoint(run: Path) -> None:
    """Until the run has one: reports come before it, and on a fast machine a kill would too."""
    end = time.monotonic() + SECONDS
    while Run.open(run).checkpoints.load() is None:
        assert time.monotonic() < end
        time.sleep(0.02)


def finish(config_file: Path, run: Path) -> subprocess.CompletedProcess:
    return subprocess.run(command(config_file, run), env=environment(), capture_output=True, text=True, timeout=SECONDS)


def parts(run: Path) -> list[str]:
    """Checkpoints that are being written, or were when the writer was killed."""
    folder = run / "checkpoint"
    return [name for name in os.listdir(folder) if name.endswith(".part")] if folder.is_dir() else []


class Forks:
    """Trainings as children of one process that has imported all they need."""

    def __init__(self, errors: Path, cache: Path) -> None:
        script = repository_root() / "tests" / "helpers" / "forked_training.py"
        with errors.open("w") as file:
            self.server = subprocess.Popen(
                [sys.executable, str(script)],
                env=environment() | {"VISTOK_CACHE": str(cache)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def train(self, config_file: Path, run: Path, kill_after: float | None = None, amid_writing: bool = False) -> int:
        """Train, and return the exit status.

        `kill_after`: send SIGKILL after so many seconds, if it still trains then; `amid_writing`: then as soon as a checkpoint
        is being written.
        """
        child = self._start(config_file, run)
        if kill_after is not None:
            time.sleep(kill_after)
            end = time.monotonic() + SECONDS
            while amid_writing and psutil.pid_exists(child) and not parts(run):
                assert time.monotonic() < end
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(child, signal.SIGKILL)
        return int(self.server.stdout.readline())

    def finish(self, config_file: Path, run: Path) -> subprocess.CompletedProcess:
        """Train to the end, and return what `finish` does of the command."""
        output, errors = (config_file.with_suffix(suffix) for suffix in (".output", ".errors"))
        self._start(config_file, run, output, errors)
        status = int(self.server.stdout.readline())
        return subprocess.CompletedProcess([], status, output.read_text(), errors.read_text())

    def _start(self, config_file: Path, run: Path, output: Path | None = None, errors: Path | None = None) -> int:
        """Start a training, and return its process id."""
        arguments = ["--config", str(config_file), "--run-dir", str(run)]
        line = json.dumps([arguments, *(file and str(file) for file in (output, errors))])
        self.server.stdin.write(f"{line}\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Iterator[Forks]:
    forks = Forks(tmp_path_factory.mktemp("forks") / "errors.txt", cache_folder)
    yield forks
    forks.server.stdin.close()
    assert forks.server.wait(timeout=SECONDS) == 0


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Everything in a training state by its name, but the seconds it took."""
    entries = (
        state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else None
    )
    if entries is None:
        return {name: state}
    return {k: v for key, value in entries if key != "seconds" for k, v in flat(value, f"{name}/{key}").items()}


def assert_same_run(one: Path, other: Path, data_root: str) -> None:
    """Weights, training state, log and metrics of two runs are the same to the last bit."""
    runs = [Run.open(path) for path in (one, other)]
    states = [flat(run.checkpoints.load()[0]) for run in runs]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        same = torch.equal(value, states[1][name]) if isinstance(value, Tensor) else value == states[1][name]
        assert same, name
    weights = [(path / "tokenizer" / "model.safetensors").read_bytes() for path in (one, other)]
    assert weights[0] == weights[1]
    logs = [[{k: v for k, v in line.items() if k not in RATES} for line in run.log()] for run in runs]
    assert logs[0] == logs[1]
    steps, every = runs[0].config.steps, runs[0].config.report_every
    assert [line["step"] for line in logs[0]] == [*range(every, steps, every), steps]  # each once
    measured = [
        evaluate(VisualTokenizer.load(path), "folder", data_root=data_root, rfid=False, lpips="off", progress=False)
        for path in (one, other)
    ]
    for name in ("psnr", "ssim", "ssim_uniform7", "usage", "usage_queue", "perplexity"):
        assert measured[0][name] == measured[1][name], name


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(
    kind: str, toy: Toy, tmp_path: Path, forks: Forks
) -> None:
    config = toy(**SMALL, **KINDS[kind])
    file = write_config(config, tmp_path)
    assert forks.train(file, tmp_path / "first") == 0  # builds the pixel cache, which the others find
    begun = time.monotonic()
    assert forks.train(file, tmp_path / "whole") == 0
    whole_seconds = time.monotonic() - begun
    rng = random.Random(kind)
    runs = (tmp_path / f"killed-{number}" for number in range(10 * KILLS))  # no more of them than that
    run, kills, steps, amid_writing = next(runs), 0, set(), 0
    while kills < KILLS:
        # Up to a third of the whole: a run is killed a few times on its way, some while it starts.
        moment = rng.uniform(0.02, whole_seconds / 3)
        status = forks.train(file, run, kill_after=moment, amid_writing=bool(kills % 2))
        assert status in (0, -signal.SIGKILL)
        if status == 0:  # too late: a further run is killed
            assert_same_run(run, tmp_path / "whole", config.data_root)
            run = next(runs)
            continue
        kills += 1
        amid_writing += bool(parts(run))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a damaged checkpoint would be warned of
            found = Run.open(run, config).checkpoints.load()
        steps.add(found[0]["step"] if found else 0)
    assert forks.train(file, run) == 0
    assert_same_run(run, tmp_path / "whole", config.data_root)
    assert not [*run.rglob(".*.part")]
    assert len(steps) > 1, "killed at different moments"
    assert amid_writing > 0
    print(f"{kind}: {kills} kills, {amid_writing} of them while a checkpoint was written, at steps {sorted(steps)}")


def test_the_command_killed_and_given_again_goes_on(toy: Toy, tmp_path: Path) -> None:
    config = toy(**SMALL)
    file = write_config(config, tmp_path)
    with started(file, tmp_path / "killed") as process:
        wait_for_checkpoint(tmp_path / "killed")
        process.send_signal(signal.SIGKILL)
    stopped = Run.open(tmp_path / "killed").checkpoints.load()[0]["step"]
    assert 0 < stopped < config.steps
    again, whole = finish(file, tmp_path / "killed"), finish(file, tmp_path / "whole")
    assert again.returncode == whole.returncode == 0, again.stderr
    assert again.stdout.startswith("step 150 of 150, loss ")
    assert_same_run(tmp_path / "killed", tmp_path / "whole", config.data_root)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_it_saves_says_so_and_goes_on(toy: Toy, tmp_path: Path, number: int) -> None:
    file = write_config(toy(steps=10**6, report_every=5, checkpoint_every=10**6), tmp_path)
    with started(file, tmp_path / "run") as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    said = re.search(r"Interrupted: saved at step (\d+) of 1000000; the same command goes on from there\.", output)
    assert said and "Traceback" not in errors
    (checkpoint,) = Run.open(tmp_path / "run").checkpoints.files()
    assert int(checkpoint.stem[5:]) == int(said[1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_where_its_loading_processes_are_asked_as_well_it_saves(toy: Toy, tmp_path: Path, number: int) -> None:
    """A terminal, JupyterLab, a launcher and Slurm tell all processes of a group to end."""
    large = tmp_path / "images"
    large.mkdir()
    for index in range(20):  # slow to read, so that the training waits for data when it is told
        Image.effect_noise((400, 400), 60).convert("RGB").save(large / f"{index:02}.png")
    slow = {"data_root": str(large), "crop": "adm", "num_workers": 2, "batch_size": 16}
    file = write_config(toy(steps=10**6, report_every=2, checkpoint_every=10**6, **slow), tmp_path)
    with started(file, tmp_path / "run") as process:
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, errors
    assert "Interrupted: saved at step" in output and "Traceback" not in errors
    assert len(Run.open(tmp_path / "run").checkpoints.files()) == 1


def test_a_failure_beside_loading_processes_ends_the_command(toy: Toy, tmp_path: Path) -> None:
    """The traceback keeps them alive, and they are deaf to the signal that Python's exit sends and then waits for."""
    file = write_config(toy(steps=10, num_workers=1), tmp_path)
    script = (
        "from vistok.training import __main__ as command, trainer\n"
        "def fail(self, images): raise RuntimeError('out of memory')\n"
        "trainer.Trainer.train_step = fail\n"
        f"command.main(['--config', {str(file)!r}, '--run-dir', {str(tmp_path / 'run')!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), stderr=subprocess.PIPE, text=True, timeout=SECONDS
    )
    assert done.returncode == 1 and "RuntimeError: out of memory" in done.stderr


def test_stopped_before_its_first_report_it_says_so(toy: Toy, tmp_path: Path) -> None:
    file, run = write_config(toy(steps=10**6, report_every=10**6, checkpoint_every=10**6), tmp_path), tmp_path / "run"
    with subprocess.Popen(command(file, run), env=environment(), stdout=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + SECONDS
        while not (run / "log.jsonl").is_file():  # made as the training begins
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert re.search(rf"\nstep \d+ of 1000000: {run}\n$", output)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_second_process_is_told_who_trains_the_run_and_may_once_that_one_is_gone(
    toy: Toy, tmp_path: Path, num_workers: int, forks: Forks
) -> None:
    config = toy(steps=10**6, report_every=1, checkpoint_every=2, num_workers=num_workers)
    file, run = write_config(config, tmp_path), tmp_path / "run"
    with started(file, run) as process:
        second = forks.finish(file, run)
        assert second.returncode == 1
        (sentence,) = [line for line in second.stderr.splitlines() if "vistok.training:" in line]
        assert re.search(
            rf"{run} is being trained by process {process.pid} on \S+ since .*: wait for it or stop it", sentence
        )
        assert "Traceback" not in second.stderr
        assert process.poll() is None  # the first has not noticed
        wait_for_checkpoint(run)
        process.send_signal(signal.SIGKILL)
    last = Run.open(run).checkpoints.load()[0]["step"]
    with started(file, run) as third:  # though the killed one's workers may have held on to the lock for some seconds
        end = time.monotonic() + SECONDS
        while Run.open(run).steps_logged <= last:
            assert third.poll() is None and time.monotonic() < end
            time.sleep(0.1)


def mounted(folder: Path, options: str) -> None:
    """Mount a small disk in memory, or skip the test where that is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    mounted(folder, "size=1m")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_last_checkpoint_stays_whole_and_goes_on_once_there_is_room(
    toy: Toy, tmp_path: Path, small_disk: Path, forks: Forks
) -> None:
    config = toy(steps=12, report_every=2, checkpoint_every=3)
    file = write_config(config, tmp_path)
    assert forks.finish(file, tmp_path / "whole").returncode == 0
    size = max(path.stat().st_size for path in (tmp_path / "whole" / "checkpoint").iterdir())
    filled = small_disk / "filled"
    filled.write_bytes(bytes(2**20 - int(2.5 * size)))  # room for two checkpoints, and no third beside them
    failed = forks.finish(file, small_disk / "run")
    assert failed.returncode == 1, failed.stderr
    (sentence,) = [line for line in failed.stderr.splitlines() if "vistok.training:" in line]
    reason = re.escape(os.strerror(errno.ENOSPC))
    said = re.search(rf"cannot be written \({reason}\)\. Its last whole checkpoint is step-(\d+)\.pt", sentence)
    assert said and "Traceback" not in failed.stderr, failed.stderr
    assert Run.open(small_disk / "run").checkpoints.load()[0]["step"] == int(said[1])
    assert not [*(small_disk / "run").rglob(".*.part")]
    filled.unlink()
    again = forks.finish(file, small_disk / "run")
    assert again.returncode == 0, again.stderr
    assert_same_run(small_disk / "run", tmp_path / "whole", config.data_root)


def test_a_folder_that_may_not_be_written_is_one_sentence(
    toy: Toy, tmp_path: Path, small_disk: Path, forks: Forks
) -> None:
    file = write_config(toy(), tmp_path)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    failed = forks.finish(file, small_disk / "run")
    assert failed.returncode == 1
    (sentence,) = [line for line in failed.stderr.splitlines() if "vistok.training:" in line]
    assert f"cannot be written ({os.strerror(errno.EROFS)})" in sentence and "give another run_dir" in sentence
    assert "Traceback" not in failed.stderr


def test_a_run_whose_folder_became_read_only_says_so_and_stays_whole(
    toy: Toy, tmp_path: Path, small_disk: Path, forks: Forks
) -> None:
    file, run = write_config(toy(), tmp_path), small_disk / "run"
    assert forks.finish(file, run).returncode == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    longer = write_config(toy(), tmp_path)
    for path in (run / "checkpoint").glob("*6.pt"):
        path.unlink()  # so that there is something to train
    before = {path: content for path, content in before.items() if path.exists()}
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    failed = forks.finish(longer, run)
    assert failed.returncode == 1
    assert os.strerror(errno.EROFS) in failed.stderr and "Traceback" not in failed.stderr
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--row", "celeba64/vq-d5"], "has no row 'vq-d5'; did you mean 'vq-d"),
        (["--row", "celeba64/vq-d4", "-p", "stepss", "4"], "There is no setting 'stepss'; did you mean 'steps'?"),
        (["--row", "celeba64/vq-d4", "-p", "steps", "many"], "steps is 'many' (str), but must be of type int."),
        (["--config", "nowhere.json"], "There is no configuration "),
        (["--config", "{file}", "--scale", "quick"], "only a row has scales"),
    ],
)
def test_a_command_that_is_wrong_is_one_sentence(
    arguments: list[str], sentence: str, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vistok.training.__main__ import main

    file = write_config(toy(), tmp_path)
    assert main([argument.replace("{file}", str(file)) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m vistok.training: ") and sentence in line


def test_the_record_says_on_what_and_how_long_it_was_trained(toy: Toy, tmp_path: Path, forks: Forks) -> None:
    file = write_config(toy(deterministic=True), tmp_path)
    assert forks.finish(file, tmp_path / "run").returncode == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())["provenance"]
    assert {"versions", "commit", "dirty", "device", "threads"} <= record.keys()
    assert (record["seed"], record["deterministic"], record["num_processes"]) == (0, True, 1)
    assert re.fullmatch("[0-9a-f]{12}", record["data"]["fingerprint"])
    assert 0 < record["wall_seconds"] < SECONDS
    # Two roundings of one measured time: to a thousandth of a second, and of the rate to two decimals.
    seconds = 6 * 4 / record["images_per_second"]
    assert record["wall_seconds"] == pytest.approx(seconds, rel=0.01, abs=0.001)
