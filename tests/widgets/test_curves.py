"""Laws of `RunCurves` and of the names of runs. (`tests/browser/test_curves_js.py` has its script.)"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vistok import TrainConfig
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN, Report, Run, run_labels
from vistok.widgets import RunCurves
from vistok.widgets.curves import FIRST_COLUMNS

Logged = Callable[..., Run]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    """A function that makes a run whose log holds these losses."""

    def make(name: str, losses: list[float], every: int = 10, **settings: Any) -> Run:
        run = Run.open(tmp_path / name, TrainConfig(**{"steps": 100, "batch_size": 32} | settings))
        run.write_config("cpu")
        for number, loss in enumerate(losses, start=1):
            run.append_log(Report(every * number, {"reconstruction": loss, "total": 2 * loss}, 0.5, 8.0, 100.0, 0.0))
        return run

    return make


def values(view: RunCurves, run: int, name: str) -> list[float]:
    columns = view.columns[run]
    return np.frombuffer(view.curves[run], "<f4").reshape(-1, len(columns))[:, columns.index(name)].tolist()


def test_runs_are_called_by_what_differs_between_them(logged: Logged) -> None:
    def labels(*settings: dict[str, Any]) -> list[str]:
        case = next(cases)
        return run_labels([logged(f"{case}{number}", [], **one) for number, one in enumerate(settings)])

    cases = iter("abc")

    assert labels({"seed": 1}, {"seed": 2}) == ["seed 1", "seed 2"]
    assert labels({"lr": 0.001}, {"lr": 0.0004, "l2_norm": True}) == [
        "no l2_norm, lr 0.001",
        "l2_norm, lr 0.0004",
    ]
    assert labels({}, {"quantizer_options": {"revive_after": 50}}, {"report_every": 1}) == [
        "no revive_after, c0",
        "revive_after 50",
        "no revive_after, c2",  # the same settings: only their folders differ
    ]
    rows = [
        logged(name, [], row=name, **more) for name, more in {"a/vq": {}, "a/ema": {"seed": 1}, "b/ema": {}}.items()
    ]
    assert run_labels(rows) == ["vq", "ema, seed 1", "ema, seed 8888"]
    assert run_labels(rows[:1]) == ["vq"] and run_labels([]) == []
    assert run_labels([rows[0], rows[0]]) == ["vq (1)", "vq (2)"]


def test_records_are_called_by_row_and_seed() -> None:
    view = RunCurves([EXAMPLE_RUN, "runs/ema-d4-laptop-imagenet-sample-s1-666f2556", COLLAPSED_RUN])
    assert [label.split(",")[0] for label in view.labels] == ["ema-d4", "ema-d4", "vq-d64"]
    assert "seed 0" in view.labels[0] and "seed 1" in view.labels[1]
    assert not view.message and view.figure() is not None
    assert "codebook" in view.quantities and view.quantity == "reconstruction"
    assert repr(view).startswith("RunCurves: reconstruction of 3 runs over steps. ema-d4")


def test_what_is_sent_is_what_was_logged(logged: Logged) -> None:
    view = RunCurves([logged("first", [0.5, float("nan"), 0.25]), logged("second", [], seed=1)])
    assert view.columns[0] == [*FIRST_COLUMNS, "reconstruction", "total"]
    assert values(view, 0, "step") == [10, 20, 30] and values(view, 0, "total")[::2] == [1.0, 0.5]
    assert np.isnan(values(view, 0, "reconstruction")[1])
    assert view.notes == ["at step 30 of 100", "no log yet"] and view.curves[1] == b""
    assert view.figure() is not None
    assert "seed 1: no log yet" in view.description and "seed 8888: 0.25 at step 30" in view.description


def test_a_run_that_is_being_trained_is_read_again(logged: Logged) -> None:
    run = logged("run", [0.5])
    view = RunCurves(run.path)
    assert values(view, 0, "step") == [10]
    run.append_log(Report(20, {"reconstruction": 0.25, "codebook": 0.1}, 0.5, 8.0, 100.0, 0.0))
    with (run.path / "log.jsonl").open("a") as file:
        file.write('{"step": 30, "losses"')  # a line that another process is about to write
    view.quantity = "total"
    view._heard(view, {"do": "refresh"}, [])
    assert values(view, 0, "step") == [10, 20] and np.isnan(values(view, 0, "total")[1])
    assert view.quantity == "total" and "codebook" in view.quantities


def test_what_is_missing_is_said_and_the_others_are_shown(logged: Logged, tmp_path: Path) -> None:
    run = logged("my-run", [0.5])
    view = RunCurves([run, tmp_path / "my-rum", 7])
    assert len(view.labels) == 1
    assert f"There is no run in {tmp_path / 'my-rum'}" in view.message and "Did you mean 'my-run'" in view.message
    assert "runs holds 7, but must hold run directories or runs." in view.message
    view.smoothing = 0.5  # what is right does not take the sentence away
    assert "my-rum" in view.message
    logged("my-rum", [0.25], seed=1)
    view.refresh()
    assert view.labels == ["seed 8888", "seed 1"] and "my-rum" not in view.message
    for nothing in ([], [tmp_path / "elsewhere"]):
        view = RunCurves(nothing)
        assert view.message and view.figure() is None and repr(view) == f"RunCurves: {view.message}"
    assert RunCurves([]).message == "There are no runs to show: `runs` is empty."


@pytest.mark.parametrize("line", ["no log", "7", "{}", '{"step": 10}', '{"step": 10, "losses": [1]}'])
def test_a_log_that_is_none_is_a_sentence(logged: Logged, line: str) -> None:
    run = logged("run", [0.5])
    (run.path / "log.jsonl").write_text(f"{line}\n")
    message = RunCurves(run).message
    assert str(run.path) in message and "holds a line that is no report" in message


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("quantity", "usge", "quantity is 'usge', but must be one of reconstruction, total, usage"),
        ("against", "images seen", "against is 'images seen', but must be one of step, images"),
        ("axis", "logarithmic", "axis is 'logarithmic', but must be one of log, linear"),
        ("smoothing", 1.0, "smoothing is 1.0, but must be in [0, 1): 0 is none"),
    ],
)
def test_a_wrong_choice_is_a_sentence_and_the_former_stays(
    logged: Logged, name: str, wrong: Any, sentence: str
) -> None:
    view = RunCurves(logged("run", [0.5]))
    former = getattr(view, name)
    setattr(view, name, wrong)
    assert sentence in view.message and getattr(view, name) == former
    setattr(view, name, former)
    view.quantity = "usage"
    assert view.message == "" and "codes in use" in view.description


def test_the_figure_has_a_line_a_run_over_what_was_chosen(logged: Logged) -> None:
    view = RunCurves([logged("one", [0.5, 0.25]), logged("two", [0.4], seed=1)], quantity="usage")
    view.against, view.axis = "images", "linear"
    (axis,) = view.figure().axes
    lines = [line.get_xydata().tolist() for line in axis.get_lines()]
    assert lines == [[[320.0, 50.0], [640.0, 50.0]], [[320.0, 50.0]]]
    assert axis.get_xlabel() == "images seen" and axis.get_ylabel() == "codes in use, %"
    assert ": 50 at step" in view.description  # per cent there too


def test_what_is_not_above_0_is_seen_in_the_figure_though_the_axis_is_log(logged: Logged) -> None:
    for losses in ([-0.5, -0.25], [0.0, 0.0], [0.5, -0.25]):
        view = RunCurves(logged(f"run{losses}", losses))
        assert view.axis == "log"
        (axis,) = view.figure().axes
        low, high = axis.get_ylim()
        assert axis.get_yscale() == "linear" and all(low < loss < high for loss in losses)
        assert "linear axis: some are not above 0" in axis.get_ylabel()


def test_runs_of_any_name_are_shown(logged: Logged) -> None:
    folder = logged("$x_$", [0.5, 0.25])
    view = RunCurves([folder, folder])
    assert all("$x_$" in label for label in view.labels)
    assert "image/png" in view._repr_mimebundle_()[0]


def test_no_two_of_many_runs_look_alike_in_the_figure(logged: Logged) -> None:
    view = RunCurves([logged(f"run{seed}", [0.5, 0.25 + seed], seed=seed) for seed in range(12)])
    (axis,) = view.figure().axes
    assert len({(line.get_color(), line.get_linestyle()) for line in axis.get_lines()}) == 12


def test_a_run_without_a_codebook_has_no_usage_and_the_others_have(logged: Logged, tmp_path: Path) -> None:
    bare = logged("bare", [], quantizer="none", steps=10)
    bare.append_log(Report(10, {"reconstruction": 0.5, "total": 0.5}, None, None, 100.0, 0.0))
    view = RunCurves([bare])
    assert view.columns == [["step", "images_per_second", "reconstruction", "total"]]
    assert view.quantities == ["reconstruction", "total", "images_per_second"]
    both = RunCurves([bare, logged("coded", [0.5])], quantity="usage")
    assert both.quantities[-3:] == ["usage", "perplexity", "images_per_second"]
    assert "no usage" in both.description and both.figure() is not None


def test_a_run_that_diverged_says_so_in_the_legend(logged: Logged) -> None:
    nan = float("nan")
    losses = {"went": [0.5, 0.25, nan, float("inf")], "never": [nan, nan], "fine": [nan, 0.5]}
    runs = [
        logged(name, values, seed=seed, steps=10 * len(values)) for seed, (name, values) in enumerate(losses.items())
    ]
    (legend,) = RunCurves(runs).figure().legends
    went, never, fine = [text.get_text() for text in legend.get_texts()]
    assert went.endswith("(not finite after step 20)") and never.endswith("(no finite values)") and "finite" not in fine
