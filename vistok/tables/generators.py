"""Train the generators of a table from the command line.

    python -m vistok.tables.generators generation32 --scale laptop --dataset cifar10-images --seeds 0 1 2

The rows themselves are trained before, by `python -m vistok.tables` with the same arguments.
"""

import argparse
from collections.abc import Sequence

from vistok.generator_config import SIZES
from vistok.system.files import say
from vistok.system.interrupts import run_command
from vistok.tables.arguments import add_run_arguments, settings_given


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and measure generators from the command line; returns 1 where one failed."""
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tables.generators",
        description="Train the generators of a table on the tokens of its rows, weigh and measure them, and show the table.",
    )
    add_run_arguments(parser, "smoke or laptop", "generator", "GeneratorConfig")
    parser.add_argument("--sizes", nargs="+", action="extend", help=f"of {', '.join(SIZES)} (default: the table's)")
    given = vars(parser.parse_args(arguments))
    overrides = settings_given(given.pop("set"))
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok.tables import generators_markdown, plan_generators, run_generators

    try:
        planned = plan_generators(overrides=overrides, **given)
        outcomes = run_generators(planned)
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.error(str(error))
    say(f"\n{generators_markdown(planned).replace('<br>', ' ')}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


if __name__ == "__main__":
    run_command(main)
