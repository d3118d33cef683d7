"""Refused input in a notebook: the sentence is shown alone, where a traceback would bury it.

Whatever in this package refuses something raises an error whose message is written for a reader. An error that Python or
another package raises is nobody's sentence, but a fault to be looked for: it keeps its traceback.
"""

import dis
from pathlib import Path
from types import TracebackType
from typing import Any

from IPython import get_ipython

from vistok.system.paths import PACKAGE

REFUSALS = (ValueError, TypeError, OSError, FloatingPointError, RuntimeError)  # raised by refused input


def answer_in_sentences() -> None:
    """From now on, show of what this package refuses in a notebook the sentence alone.

    The cell fails as ever, in papermill too, and what was raised stays at hand: `%tb` shows where, `sys.last_value` is it.
    Outside of IPython, and where exceptions have a handler of somebody's own, nothing changes.
    """
    shell = get_ipython()
    if shell is not None and shell.custom_exceptions in ((), REFUSALS):
        shell.set_custom_exc(REFUSALS, _answer)


def is_refusal(traceback: TracebackType | None) -> bool:
    """Return whether an error was raised by a `raise` statement of this package, and not by what it called."""
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return PACKAGE in Path(code.co_filename).parents and dis.opname[code.co_code[traceback.tb_lasti]] == "RAISE_VARARGS"


def _answer(
    shell: Any, kind: type[Exception], error: Exception, traceback: TracebackType, tb_offset: int | None = None
) -> None:
    """Show an error that ended a cell, as IPython's `set_custom_exc` has it."""
    if refused := is_refusal(traceback) and str(error):
        error._render_traceback_ = lambda: [str(error)]  # IPython asks an error for it in place of its traceback
    shell.showtraceback((kind, error, traceback), tb_offset=tb_offset, running_compiled_code=True)
    if refused:
        del error._render_traceback_  # so that %tb shows all of it
