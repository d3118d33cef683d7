"""Running notebooks through papermill."""

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import papermill

from vistok.notebooks.cleaning import clean
from vistok.notebooks.parameters import read_parameters
from vistok.system.files import make_folder


def execute(notebook: Path, output: Path, parameters: dict[str, Any], *, pass_on_warnings: bool = False) -> None:
    """Execute a notebook with parameters and keep the executed copy, also of one that fails.

    Args:
        notebook: what to run; it is not written to.
        output: where the executed copy goes.
        parameters: name to literal: what the notebook's `parameters` cell names, and beside a row any setting of a run.
        pass_on_warnings: what it says on standard error is said here too.

    Raises:
        ValueError: the notebook has no such parameter; the sentence names the nearest one.
        TypeError: a value is of another type than its parameter.
        papermill.PapermillExecutionError: a cell failed.
    """
    parameters = read_parameters(parameters, notebook)
    make_folder(output.parent)
    try:
        with _names_are_checked():
            papermill.execute_notebook(
                str(notebook),
                str(output),
                parameters=parameters,
                progress_bar=False,
                stderr_file=sys.stderr if pass_on_warnings else None,
                kernel_name="python3",
                coalesce_streams=True,  # a cell's standard output in one piece, and each bar in its last state
                # Its own notices would end up between the bars, and at its end it calls the interrupt of its shutdown an error.
                extra_arguments=["--log-level=CRITICAL"],
            )
    finally:
        if output.is_file() and output.stat().st_size:  # empty: papermill could not write it, and says why
            clean(output)


@contextlib.contextmanager
def _names_are_checked() -> Iterator[None]:
    """Leave out papermill's warning of parameters that the cell does not name: here they are known to be taken."""
    log = logging.getLogger("papermill")

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Passed unknown parameter")

    log.addFilter(keep)
    try:
        yield
    finally:
        log.removeFilter(keep)
