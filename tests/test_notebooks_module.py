"""Running notebooks: parameters that are known, copies that are fit to commit; and what all cells must be."""

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from vistok.config import TrainConfig, repository_root
from vistok.notebooks import (
    SETTINGS,
    check_parameters,
    clean,
    config_from,
    execute,
    notebook_path,
    parameter_names,
    without_paths,
)

NOTEBOOKS = sorted((repository_root() / "notebooks").glob("*.ipynb"))
ROOT = str(repository_root())


def parameters_cells(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]


def test_the_notebooks_of_the_main_job_are_there() -> None:
    assert {"01_data", "02_train", "04_evaluate", "05_table"} <= {path.stem for path in NOTEBOOKS}
    assert notebook_path("02_train") in NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_prose(path: Path) -> None:
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_one_cell_of_parameters_each_a_literal_with_a_comment(path: Path) -> None:
    (source,) = parameters_cells(path)
    first_code = next(c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code")
    assert first_code.source == source
    for node in ast.parse(source).body:
        assert isinstance(node, ast.Assign), ast.unparse(node)
        assert len(node.targets) == 1
        ast.literal_eval(node.value)
        line = source.splitlines()[node.end_lineno - 1]
        assert re.search(r"  # \S", line[node.end_col_offset :]), f"no comment: {line}"
    names = parameter_names(path)
    assert len(names) == len(set(names)) == len(ast.parse(source).body)


def test_02_train_has_every_setting_and_none_means_as_row_and_scale_say() -> None:
    (source,) = parameters_cells(notebook_path("02_train"))
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    assert {field.name for field in dataclasses.fields(TrainConfig)} <= set(parameter_names(notebook_path("02_train")))
    assert all(namespace[name] is None for name in SETTINGS)


def test_04_evaluate_and_01_data_name_parameters_as_the_configuration_does() -> None:
    own = {"run_dir", "split", "max_images", "rfid", "rfid_weights", "lpips", "overwrite"}
    for name in ("01_data", "04_evaluate"):
        others = set(parameter_names(notebook_path(name))) - set(SETTINGS) - own
        assert all(other.startswith("figure_") for other in others), others


def cells_run(*injected: str) -> dict[str, Any]:
    """The globals of 02_train after its parameters cell and what papermill injected."""
    (source,) = parameters_cells(notebook_path("02_train"))
    namespace: dict[str, Any] = {"In": ["", source, *injected]}
    for cell in (source, *injected):
        exec(cell, namespace)
    return namespace


def test_the_defaults_of_02_train_are_its_row_and_scale() -> None:
    assert config_from(cells_run()) == TrainConfig.from_row("celeba64", "quick")


def test_injected_parameters_win_and_none_is_as_the_row_says() -> None:
    config = config_from(cells_run('# Parameters\nrow = "celeba64/vq-d8"\nscale = "smoke"\nsteps = 7\nlr = None\n'))
    assert config == TrainConfig.from_row("celeba64/vq-d8", "smoke", steps=7)


def test_fine_tuning_takes_the_model_from_the_checkpoint() -> None:
    model = {"network": "simple_cnn", "hidden_dim": 24, "codebook_size": 32, "image_size": 32}
    config = config_from(cells_run('# Parameters\ninit_from = "somewhere"\nhidden_dim = 24\nimage_size = 64\n'), model)
    assert (config.hidden_dim, config.codebook_size, config.image_size) == (24, 32, 64)
    assert config.steps == TrainConfig.from_row("celeba64", "quick").steps
    with pytest.raises(ValueError, match="codebook_size is 64, but the tokenizer to fine-tune has 32: leave it out"):
        config_from(cells_run("# Parameters\ncodebook_size = 64\n"), model)


def test_false_and_zero_are_values() -> None:
    config = config_from(cells_run("# Parameters\nflip = False\ncommitment_weight = 0.0\nseed = 0\n"))
    assert (config.flip, config.commitment_weight, config.seed) == (False, 0.0, 0)


def test_papermills_unknown_parameter_is_refused_inside_the_notebook() -> None:
    with pytest.raises(ValueError, match="This notebook has no parameter 'codebok_dim'; did you mean 'codebook_dim'?"):
        config_from(cells_run("# Parameters\ncodebok_dim = 8\n"))


def test_cells_that_papermill_did_not_inject_may_assign_what_they_like() -> None:
    check_parameters(cells_run("# Parameters\nsteps = 3\n", "whatever = 3"))
    check_parameters({})


@pytest.mark.parametrize("row", [None, 8])
def test_a_row_that_is_no_text_is_refused(row: object) -> None:
    with pytest.raises(TypeError, match=f"row is {row}"):
        config_from(cells_run(f"# Parameters\nrow = {row}\n"))


def test_execute_refuses_an_unknown_parameter_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(ValueError) as error:
        execute(notebook_path("02_train"), tmp_path / "out" / "02.ipynb", {"codebok_dim": 8})
    assert str(error.value).startswith("02_train has no parameter 'codebok_dim'; did you mean 'codebook_dim'?")
    assert list(tmp_path.iterdir()) == []


def test_execute_keeps_a_clean_copy_of_a_notebook_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = notebook_path("02_train"), tmp_path / "out" / "02.ipynb"
    before = source.read_bytes()

    def fail(_source: str, output: str, **_: Any) -> None:
        nbformat.write(executed_notebook(), output)
        raise RuntimeError("a cell failed")

    monkeypatch.setattr("papermill.execute_notebook", fail)
    with pytest.raises(RuntimeError, match="a cell failed"):
        execute(source, output, {"steps": 3})
    assert "papermill" not in nbformat.read(output, as_version=4).metadata
    assert ROOT not in output.read_text()
    assert source.read_bytes() == before


def executed_notebook() -> nbformat.NotebookNode:
    """A notebook as papermill leaves it: times, paths, a bar in pieces, a failed cell."""
    stamps = {"start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:00:01"}
    bars = [
        new_output("stream", name="stderr", text=text)
        for text in ("\r 10%|#   | 1/10 [00:01<00:09]", "\r 50%|##  | 5/10", "\r100%|####| 10/10\n", "warned\n")
    ]
    picture = new_output("display_data", data={"image/png": "aGVsbG8=", "text/plain": f"<at {ROOT}/runs/x>"})
    printed = new_output("stream", name="stdout", text=f"in {ROOT}/runs/x\n")
    cells = [
        new_markdown_cell("# Prose"),
        new_code_cell(f'# Parameters\nrun_dir = "{ROOT}/runs/x"\n', metadata={"tags": ["injected-parameters"]}),
        new_code_cell(
            "train()",
            execution_count=3,
            metadata={"papermill": stamps, "execution": {"iopub.execute_input": "2026-01-01T00:00:00"}},
            outputs=[bars[0], printed, *bars[1:3], picture, bars[3]],
        ),
        new_code_cell(
            "fail()",
            outputs=[
                new_output(
                    "error",
                    ename="ValueError",
                    evalue=f"no {ROOT}/data/x",
                    traceback=[f"File \x1b[32m{ROOT}/vistok/runs.py:3\x1b[39m", "Cell /tmp/ipykernel_12/345.py"],
                )
            ],
        ),
    ]
    metadata = {
        "papermill": stamps | {"output_path": f"{ROOT}/runs/x/02.ipynb"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {}},
        "language_info": {"name": "python", "version": "3.11.9"},
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    }
    return new_notebook(cells=cells, metadata=metadata)


def test_a_cleaned_notebook_tells_no_time_and_no_place(tmp_path: Path) -> None:
    file = tmp_path / "executed.ipynb"
    nbformat.write(executed_notebook(), file)
    clean(file)
    text = file.read_text()
    for trace in (ROOT, "2026-01-01", '"papermill"', '"widgets"', '"execution"', "3.11.9", "ipykernel_"):
        assert trace not in text, trace
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[1].source == '# Parameters\nrun_dir = "runs/x"\n'
    error = notebook.cells[3].outputs[0]
    assert error.evalue == "no data/x"
    assert error.traceback == ["File \x1b[32mvistok/runs.py:3\x1b[39m", "Cell <cell>"]


def test_a_cleaned_notebook_keeps_what_it_says_and_one_state_of_a_bar(tmp_path: Path) -> None:
    file = tmp_path / "executed.ipynb"
    nbformat.write(executed_notebook(), file)
    clean(file)
    outputs = nbformat.read(file, as_version=4).cells[2].outputs
    assert [output.get("name", output.output_type) for output in outputs] == ["stderr", "stdout", "display_data"]
    assert outputs[0].text == "100%|####| 10/10\nwarned\n"
    assert outputs[1].text == "in runs/x\n"
    assert outputs[2].data["image/png"] == "aGVsbG8="


def test_cleaning_twice_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "executed.ipynb"
    nbformat.write(executed_notebook(), file)
    clean(file)
    once = file.read_bytes()
    clean(file)
    assert file.read_bytes() == once


def test_other_paths_and_addresses_stay() -> None:
    text = "https://arxiv.org/abs/1711.00937 and data/celeba"
    assert without_paths(text) == text


def test_runs_that_lie_elsewhere_are_named_as_if_they_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISTOK_RUNS", "/scratch/somebody/runs")
    assert without_paths('run_dir = "/scratch/somebody/runs/vq-d4-smoke"') == 'run_dir = "runs/vq-d4-smoke"'
