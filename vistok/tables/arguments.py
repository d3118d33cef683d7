"""Arguments of a command line that name runs of a table."""

import argparse


def add_run_arguments(parser: argparse.ArgumentParser, scales: str, one_each: str, settings: str) -> None:
    """Add the table, its rows, a scale, seeds, a dataset and any setting.

    Args:
        parser: to add them to.
        scales: their names, for the help.
        one_each: what a seed is one of, for the help.
        settings: name of the class whose fields `--set` takes.
    """
    parser.add_argument("table", help="name of a table in vistok/tables, for instance celeba64")
    parser.add_argument("--rows", nargs="+", action="extend", help="names of rows (default: all)")
    parser.add_argument("--scale", default="smoke", help=f"{scales} (default: %(default)s)")
    parser.add_argument(
        "--seeds", nargs="+", action="extend", type=int, help=f"one {one_each} each (default: the scale's seed)"
    )
    parser.add_argument("--dataset", default="photos", help="of the rows (default: %(default)s)")
    parser.add_argument("--data-root", help="folder of the dataset (default: data/<dataset>)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=f"any other field of {settings}"
    )


def settings_given(items: list[str]) -> dict[str, str]:
    """Return name to value of what follows `--set`."""
    return {name: value for name, _, value in (item.partition("=") for item in items)}
