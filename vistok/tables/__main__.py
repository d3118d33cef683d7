"""Run and show rows from the command line; `python -m vistok.tables --help` says how."""

import argparse
from collections.abc import Sequence
from typing import Any

from vistok.recipes import load_table
from vistok.system.files import replace_file, say
from vistok.system.interrupts import run_command
from vistok.system.paths import in_repository, repository_root, runs_root
from vistok.tables.arguments import add_run_arguments, settings_given

READMES = ("README.md", "notebooks/README.md", "runs/README.md", "tests/README.md", "vistok/README.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run rows of a table from the command line; returns 1 where one failed."""
    parser = _parser()
    given = parser.parse_args(arguments)
    # Not above, so that `--help` does not wait for PyTorch.
    from vistok import tables
    from vistok.notebooks.cells import notebook_path

    if given.readme:
        try:
            _renew_readmes()
        except OSError as error:
            parser.error(str(error))
        return 0
    overrides: dict[str, Any] = {"dataset": given.dataset}
    overrides |= {"data_root": given.data_root} if given.data_root is not None else {}
    more = settings_given(given.set)
    evaluation = {"rfid_weights": given.rfid_weights} if given.rfid_weights is not None else {}
    try:
        tables.check_overrides(more)
        tables.check_metrics(load_table(given.table))
        planned = tables.plan(
            given.table, given.rows, given.scale, given.seeds, evaluation=evaluation, **overrides | more
        )
        notebook_path("02_train")  # a command to print names it too
        if given.print_commands:
            say("\n".join(run.command for run in planned))
            return 0
        outcomes = tables.run_all(planned, pass_on_warnings=True)
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.error(str(error))
    say(f"\n{tables.markdown(planned).replace('<br>', ' ')}\n")
    columns = load_table(given.table).columns
    missing = [(run.metrics or {}).get("unavailable", {}) for run in planned]
    for name, reason in sorted({(name, found[name]) for found in missing for name in found if name in columns}):
        say(f"{name} was not measured: {reason}\n")
    for note in tables.notes_on_images(planned):
        say(f"{note}\n")
    for outcome in outcomes:
        say(f"{outcome.run.config.run_name}: pictures and executed notebooks in {outcome.run.run_dir}")
    return int(any(outcome.status == "failed" for outcome in outcomes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vistok.tables", description="Run rows of a results table and show it."
    )
    add_run_arguments(parser, "smoke, quick, laptop or paper", "run", "TrainConfig")
    parser.add_argument("--rfid-weights", help="local file with torch-fidelity's Inception weights")
    parser.add_argument("--print-commands", action="store_true", help="print one shell command a run, and run nothing")
    parser.add_argument("--readme", action="store_true", help="instead: make the tables in the READMEs anew")
    return parser


def _renew_readmes() -> None:
    """Make the tables in the READMEs anew, or raise OSError with a sentence."""
    from vistok.tables import with_tables

    if not in_repository():
        raise OSError("--readme makes the tables in the repository's READMEs anew: run it in a clone.")
    if runs_root() != repository_root() / "runs":  # where the records are not, tables would lose their numbers
        raise OSError(f"--readme reads the records in {repository_root() / 'runs'}, but VISTOK_RUNS is set: unset it.")
    for readme in (repository_root() / name for name in READMES):
        try:
            replace_file(readme, with_tables(readme.read_text(encoding="utf-8")).encode())
        except OSError as error:
            raise OSError(f"{readme} cannot be written ({error.strerror or error}); it is as it was.") from error


if __name__ == "__main__":
    run_command(main)
