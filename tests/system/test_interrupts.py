"""Ctrl-C of a command: a line, not a traceback."""

import subprocess
import sys

import pytest

from vistok.system.interrupts import run_command


def test_an_interrupted_command_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted. What was complete is kept: give the same command again to go on.\n"


LEAVES_A_TASK = """
import asyncio
from vistok.system.interrupts import run_command

async def dies():
    raise RuntimeError("Kernel died")

def main():
    loop = asyncio.new_event_loop()
    task = loop.create_task(dies())
    loop.run_until_complete(asyncio.sleep(0))
    raise KeyboardInterrupt

run_command(main)
"""


def test_nor_of_what_it_no_longer_waits_for() -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVES_A_TASK], capture_output=True, text=True)
    assert ended.returncode == 130 and ended.stderr.startswith("Interrupted.") and "Traceback" not in ended.stderr


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_ends_with_what_it_returns(status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: status)
    assert ended.value.code == status
