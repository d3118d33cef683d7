"""Run `python -m vistok.training` in children of a process that has imported all: one starts in a tenth of a second.

Reads the arguments of one training a line, and answers with the child's process id, then with its exit status.
"""

import os
import sys

import torch._dynamo  # noqa: F401  (the first optimiser imports it)

import vistok.training.trainer  # noqa: F401  (the children would import it)
from vistok.training.__main__ import main

for line in sys.stdin:
    if (child := os.fork()) == 0:
        os.dup2(2, 1)  # standard output is for the answers
        os._exit(main(line.split()))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
