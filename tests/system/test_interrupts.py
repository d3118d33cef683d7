"""Ctrl-C of a command: a line, not a traceback."""

import pytest

from vistok.system.interrupts import run_command


def test_an_interrupted_command_says_so_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted. What was complete is kept: give the same command again to go on.\n"


@pytest.mark.parametrize("status", [0, 1])
def test_a_command_ends_with_what_it_returns(status: int) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: status)
    assert ended.value.code == status
