"""Run `python -m vistok.training` in children of a process that has imported all: one starts in a tenth of a second.

Reads the arguments of one training a line, as JSON: `[arguments, file of its standard output, file of its standard error]`; the
files are null where nobody reads them. Answers with the child's process id, then with its exit status.
"""

import json
import os
import sys

import torch._dynamo  # noqa: F401  (the first optimiser imports it)

import vistok.training.trainer  # noqa: F401  (the children would import it)
from vistok.training.__main__ import main


def train(arguments: list[str], output: str | None, errors: str | None) -> int:
    """Do what the command does, up to its exit status."""
    os.dup2(2, 1)  # standard output is for the answers
    for stream, file in ((1, output), (2, errors)):
        if file is not None:
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


for line in sys.stdin:
    if (child := os.fork()) == 0:
        os._exit(train(*json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
