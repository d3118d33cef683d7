"""What a notebook shows of an error: of refused input the sentence alone, of a fault all of it."""

import atexit
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from vistok.config import TrainConfig
from vistok.quantizers.usage import CodebookUsage
from vistok.system.sentences import REFUSALS, answer_in_sentences, is_refusal


def raised(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011
        call()
    return error.value


def test_a_refusal_is_what_the_package_raises_itself() -> None:
    assert is_refusal(raised(lambda: TrainConfig.from_row("celeba64", "fast")).__traceback__)
    assert is_refusal(raised(lambda: TrainConfig(steps="many")).__traceback__)
    assert not is_refusal(raised(lambda: int("many")).__traceback__)  # nobody's sentence
    assert not is_refusal(raised(lambda: TrainConfig(step=3)).__traceback__)  # Python's
    assert not is_refusal(
        raised(lambda: CodebookUsage([16, "many"])).__traceback__
    )  # amid the package, but of what it called
    assert not is_refusal(None)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    shell = InteractiveShell()
    monkeypatch.setattr("vistok.system.sentences.get_ipython", lambda: shell)
    yield shell
    shell.atexit_operations()
    atexit.unregister(shell.atexit_operations)  # once is enough


REFUSED = "from vistok import TrainConfig\nTrainConfig.from_row('celeba64', 'papr')"


def test_a_cell_shows_the_sentence_alone_and_tb_all_of_it(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_in_sentences()
    answer_in_sentences()  # each notebook asks, some twice
    result = shell.run_cell(REFUSED)
    assert type(result.error_in_exec) is ValueError  # the cell failed: papermill stops here
    text = capsys.readouterr().out
    assert text.strip() == "There is no scale 'papr'; did you mean 'paper'? Known: laptop, paper, quick, smoke."
    shell.run_cell("%tb")
    assert "Traceback" in (text := capsys.readouterr().out) and "from_row" in text

    for fault in ("1 / 0", "int('many')", "raise ValueError('of my own')"):
        shell.run_cell(fault)
        assert "Traceback" in capsys.readouterr().out, fault


def test_somebodys_own_handler_stays(shell: InteractiveShell) -> None:
    seen = []
    shell.set_custom_exc((ValueError,), lambda *arguments, **_: seen.append(arguments[2]))
    answer_in_sentences()
    assert shell.custom_exceptions == (ValueError,) != REFUSALS
    shell.run_cell(REFUSED)
    assert len(seen) == 1


def test_outside_of_a_notebook_nothing_happens() -> None:
    answer_in_sentences()
