"""Train a tokenizer from the command line; `python -m vistok.training --help` says how."""

import argparse
from collections.abc import Sequence

from vistok.config import TrainConfig, settings_as_given
from vistok.system.interrupts import run_command
from vistok.training.command import add_arguments, read_settings, train


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
    add_arguments(parser, "TrainConfig")
    given = parser.parse_args(arguments)
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.training.trainer import Trainer

    return train(parser.prog, given, lambda: _configuration(given), Trainer)


def _configuration(given: argparse.Namespace) -> TrainConfig:
    """Return the configuration that the arguments say; ValueError, TypeError or OSError where they say none."""
    from vistok.data import with_batch_that_fits
    from vistok.system.processes import process_state

    overrides = settings_as_given(dict(given.parameter))
    if given.row is None:
        if given.scale is not None:
            raise ValueError(f"scale is {given.scale!r}, but only a row has scales; leave it out, or give --row.")
        return TrainConfig.from_dict(read_settings(given.config) | overrides)
    for name in overrides.keys() & {"row", "scale"}:
        raise ValueError(f"{name} is given with -p, but is an argument of its own: --{name} {overrides[name]}.")
    config = TrainConfig.from_row(given.row, "quick" if given.scale is None else given.scale, **overrides)
    return config if "batch_size" in overrides else with_batch_that_fits(config, process_state().num_processes)


if __name__ == "__main__":
    run_command(main)
