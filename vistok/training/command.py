"""What the commands that train have in common: their arguments, a run opened and trained, and how it ended."""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vistok.system.files import json_object, say
from vistok.system.paths import resolve_path
from vistok.system.settings import Settings

if TYPE_CHECKING:
    from vistok.runs import Run
    from vistok.training.loop import TrainingLoop


def add_arguments(parser: argparse.ArgumentParser, fields_of: str) -> None:
    """Add the arguments of every command that trains; `fields_of`: name of the configuration's class."""
    parser.add_argument("--run-dir", metavar="DIR", help="(default: the configuration's own in runs/)")
    parser.add_argument(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help=f"a field of {fields_of}",
    )
    parser.add_argument("--start-over", action="store_true", help="set the run that is there aside, and begin again")
    parser.add_argument("--stop-file", metavar="FILE", help="end, saved, once there is such a file")


def train(
    prog: str,
    given: argparse.Namespace,
    configuration: Callable[[], Settings],
    trainer_of: Callable[["Run"], "TrainingLoop"],
) -> int:
    """Train as the arguments say; return 130 where that was stopped before its end, and saved, and 1 where it was refused.

    Args:
        prog: name of the command, for sentences.
        given: arguments as of `add_arguments`.
        configuration: returns the configuration, or raises what refuses it.
        trainer_of: makes what trains a run.
    """
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.runs import Run, loss_and_usage
    from vistok.system.interrupts import deferred_interrupt
    from vistok.system.processes import leave_processes, process_state
    from vistok.system.weights import Unavailable

    try:
        config = configuration()
        with process_state().main_process_first():  # one of several processes begins the run, or sets it aside
            start_over = given.start_over and process_state().is_main_process
            run = Run.open(given.run_dir, config, start_over=start_over)
        trainer = trainer_of(run)
        # Amid an exchange with other processes nobody would listen to SIGTERM: their launcher's ends them at once.
        alone = process_state().num_processes == 1
        with deferred_interrupt(trainer.stop, signal.SIGTERM) if alone else contextlib.nullcontext():
            reports = iter(trainer)
            if given.stop_file is not None:
                threading.Thread(target=_stop_once_there, args=(given.stop_file, trainer.stop), daemon=True).start()
            for _ in reports:
                pass
    except (ValueError, TypeError, OSError, FloatingPointError, Unavailable) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    if process_state().is_main_process:
        said = [f"step {trainer.step} of {config.steps}"]
        for last in run.log()[-1:]:  # there is none where it was stopped before the first report
            said.append(loss_and_usage(last))
        say(f"{', '.join(said)}: {run.path}")
    # A launcher of processes would call that a failure.
    launched = process_state().num_processes > 1 or given.stop_file is not None
    leave_processes()
    return 0 if trainer.step == config.steps or launched else 130


def _stop_once_there(file: str, stop: Callable[[], None]) -> None:
    """Wait for a file, and stop. A signal can be lost while a process starts, and be taken by one that is none of ours."""
    while not Path(file).exists():
        time.sleep(0.1)
    stop()


def read_settings(file: str | Path) -> dict[str, Any]:
    """Return the settings in a JSON file, or in a run's `config.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no JSON object of settings.
    """
    path = resolve_path(file)
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration {path}.")
    settings = json_object(path)
    return settings.get("config", settings)
