"""What rows of tables need, from the command line; `python -m vistok.estimate --help` says how."""

import argparse
from collections.abc import Sequence

from vistok.system.files import say
from vistok.system.interrupts import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a training step of some rows needs."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.estimate", description="What one training step needs, without running it."
    )
    parser.add_argument("rows", nargs="+", help="table/row, for instance imagenet256/llamagen-corrected")
    parser.add_argument("--scale", default="paper", help="smoke, quick, laptop or paper (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="images a step on one GPU (default: the row's)")
    given = parser.parse_args(arguments)
    from vistok.estimate.step import rows_markdown  # not above, so that `--help` does not wait for PyTorch

    try:
        table = rows_markdown(given.rows, given.scale, given.batch_size)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    say(table)
    return 0


if __name__ == "__main__":
    run_command(main)
