"""Train from the command line; `python -m vistok.training --help` says how."""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig, settings_as_given
from vistok.system.files import say, strict_json
from vistok.system.paths import resolve_path


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; returns 130 where the training was stopped before its end, and saved."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.training",
        description="Train a tokenizer. Run the same command again to go on where it was stopped. On several GPUs: "
        "accelerate launch --multi_gpu -m vistok.training ...",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", help="a configuration as JSON, or the config.json of a run")
    what.add_argument("--row", help='"table/row" of a results table, or a table, for instance celeba64/vq-d8')
    parser.add_argument("--scale", help="of a row: smoke, quick, laptop or paper (default: quick)")
    parser.add_argument("--run-dir", metavar="DIR", help="(default: the configuration's own in runs/)")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a field of TrainConfig",
    )
    parser.add_argument("--start-over", action="store_true", help="set the run that is there aside, and begin again")
    parser.add_argument("--stop-file", metavar="FILE", help="end, saved, once there is such a file")
    given = parser.parse_args(arguments)
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.data import with_batch_that_fits
    from vistok.runs import Run, loss_and_usage
    from vistok.system.interrupts import deferred_interrupt
    from vistok.system.processes import process_state
    from vistok.system.weights import Unavailable
    from vistok.training.trainer import Trainer

    try:
        overrides = settings_as_given(dict(given.parameter))
        if given.row is not None:
            for name in overrides.keys() & {"row", "scale"}:
                raise ValueError(f"{name} is given with -p, but is an argument of its own: --{name} {overrides[name]}.")
            config = TrainConfig.from_row(given.row, "quick" if given.scale is None else given.scale, **overrides)
            if "batch_size" not in overrides:
                config = with_batch_that_fits(config, process_state().num_processes)
        else:
            if given.scale is not None:
                raise ValueError(f"scale is {given.scale!r}, but only a row has scales; leave it out, or give --row.")
            config = read_config(given.config, **overrides)
        with process_state().main_process_first():  # one of several processes begins the run, or sets it aside
            start_over = given.start_over and process_state().is_main_process
            run = Run.open(given.run_dir, config, start_over=start_over)
        trainer = Trainer(run)
        # Amid an exchange with other processes nobody would listen to SIGTERM: their launcher's ends them at once.
        alone = process_state().num_processes == 1
        with deferred_interrupt(trainer.stop, signal.SIGTERM) if alone else contextlib.nullcontext():
            reports = iter(trainer)
            if given.stop_file is not None:
                threading.Thread(target=_stop_once_there, args=(given.stop_file, trainer.stop), daemon=True).start()
            for _ in reports:
                pass
    except (ValueError, TypeError, OSError, FloatingPointError, Unavailable) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if process_state().is_main_process:
        said = [f"step {trainer.step} of {config.steps}"]
        for last in run.log()[-1:]:  # there is none where it was stopped before the first report
            said.append(loss_and_usage(last))
        say(f"{', '.join(said)}: {run.path}")
    # A launcher of processes would call that a failure.
    launched = process_state().num_processes > 1 or given.stop_file is not None
    return 0 if trainer.step == config.steps or launched else 130


def _stop_once_there(file: str, stop: Callable[[], None]) -> None:
    """Wait for a file, and stop. A signal can be lost while a process starts, and be taken by one that is none of ours."""
    while not Path(file).exists():
        time.sleep(0.1)
    stop()


def read_config(file: str | Path, **overrides: Any) -> TrainConfig:
    """Return the configuration in a JSON file, or in a run's `config.json`, with some fields set anew.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no configuration, or an override names no field.
    """
    path = resolve_path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration {path}.")
    try:
        settings = strict_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} holds no configuration, which is a JSON object of settings: {error}.") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds no configuration, which is a JSON object of settings.")
    return TrainConfig.from_dict(settings.get("config", settings) | overrides)


if __name__ == "__main__":
    sys.exit(main())
