"""Running notebooks: parameters that are known, copies that are fit to commit; and what all cells must be."""

import ast
import dataclasses
import re
import subprocess
import sys
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vistok.config import TrainConfig
from vistok.data import open_dataset
from vistok.notebooks import check_parameters, config_from
from vistok.notebooks.cells import (
    SETTINGS,
    TYPES,
    assigned_values,
    bound_names,
    notebook_path,
    parameter_types,
    parameters_source,
)
from vistok.notebooks.cleaning import WIDGET_VIEW, clean, without_paths
from vistok.notebooks.execution import execute
from vistok.notebooks.measuring import evaluation_options, remarks
from vistok.notebooks.parameters import read_parameters
from vistok.runs import Run
from vistok.system.paths import repository_root
from vistok.system.values import plain_types

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
    assert len(assigned_values(source)) == len(ast.parse(source).body)  # none twice


def test_02_train_takes_every_setting_and_its_cell_has_the_usual_ones() -> None:
    source = parameters_source(notebook_path("02_train"))
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert fields <= parameter_types(source).keys()
    cell = assigned_values(source)
    assert {"row", "scale", "dataset", "quantizer", "codebook_size", "codebook_dim", "steps", "seed"} <= cell.keys()
    assert len(cell.keys() & fields) <= 14
    assert all(cell[name] is None for name in cell.keys() & set(SETTINGS))  # as row and scale say
    for cell in nbformat.read(notebook_path("02_train"), as_version=4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            assert not bound_names(cell.source) & fields, "the first cell run again would take it for a setting"


def test_04_evaluate_and_01_data_name_parameters_as_the_configuration_does() -> None:
    own = {"run_dir", "split", "max_images", "rfid", "rfid_weights", "lpips", "overwrite"}
    for name in ("01_data", "04_evaluate"):
        others = assigned_values(parameters_source(notebook_path(name))).keys() - set(SETTINGS) - own
        assert all(other.startswith("figure_") for other in others), others


def defaults(path: Path) -> dict[str, Any]:
    return assigned_values(parameters_source(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_has_a_type_and_its_default_is_of_it(path: Path) -> None:
    assert parameter_types(parameters_source(path)).keys() <= TYPES.keys()
    assert read_parameters(defaults(path), path) == defaults(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_checked_before_anything_is_done(path: Path) -> None:
    second = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][1]
    done = [node for node in ast.parse(second.source).body if not isinstance(node, ast.Import | ast.ImportFrom)]
    assert ast.unparse(done[0]) == "check_parameters(globals())"


WRONG = {bool: "maybe", int: "many", float: "much", dict: "some", str: 2024}  # as papermill -p makes them of a text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_parameter_of_another_type_is_refused_by_name(path: Path) -> None:
    for name in parameter_types(parameters_source(path)):
        kinds = [typing.get_origin(kind) or kind for kind in plain_types(TYPES[name])]
        of_list = list in kinds
        for wrong in [[{}]] if of_list else [WRONG[kind] for kind in kinds if kind in WRONG] + [["a list"]]:
            with pytest.raises(TypeError, match=rf"^{name}(\[0\])? is .* but must be of type [^\n]*\.") as error:
                read_parameters({name: wrong}, path)
            namespace = defaults(path) | {"In": ["", *parameters_cells(path), f"# Parameters\n{name} = {wrong!r}\n"]}
            with pytest.raises(TypeError, match=re.escape(str(error.value))):
                check_parameters(namespace | {name: wrong})


def cells_run(*injected: str) -> dict[str, Any]:
    """The globals of 02_train after its parameters cell and what papermill injected."""
    (source,) = parameters_cells(notebook_path("02_train"))
    namespace: dict[str, Any] = {"In": ["", source, *injected]}
    for cell in (source, *injected):
        exec(cell, namespace)
    return namespace


def injected_cell(parameters: dict[str, Any]) -> str:
    return "# Parameters\n" + "".join(f"{name} = {value!r}\n" for name, value in parameters.items())


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


def test_a_setting_that_the_cell_does_not_name_is_taken_and_checked_as_the_others_are() -> None:
    given = cells_run('# Parameters\nbeta1 = 0.5\nflip = "false"\nlr = None\n')
    assert config_from(given) == TrainConfig.from_row("celeba64", "quick", beta1=0.5, flip=False)
    assert given["flip"] is False
    config = config_from(written("02_train", ("steps = None", "steps = None\nlr = 1e-3\nweight_decay = 0")))
    assert config == TrainConfig.from_row("celeba64", "quick", lr=1e-3, weight_decay=0.0)
    below = written("02_train", below="if codebook_dim is None:\n    precision = 'float32'")
    assert config_from(below).precision == "float32"
    with pytest.raises(TypeError, match="lecam_weight is 'much' .* but must be of type float or None"):
        config_from(cells_run("# Parameters\nlecam_weight = 'much'\n"))
    with pytest.raises(ValueError, match="no parameter 'lecam_wieght'; did you mean 'lecam_weight'?"):
        config_from(cells_run("# Parameters\nlecam_wieght = 0.1\n"))
    with pytest.raises(ValueError, match="no parameter 'lecam_wieght'; did you mean 'lecam_weight'?"):
        check_parameters(written("02_train", below="lecam_wieght = 0.1"))
    with pytest.raises(ValueError, match="04_evaluate has no parameter 'lecam_weight'"):  # it trains nothing
        read_parameters({"lecam_weight": 0.1}, notebook_path("04_evaluate"))


def test_a_setting_that_was_taken_out_of_the_cell_and_a_variable_of_its_name_are_none() -> None:
    (source,) = parameters_cells(notebook_path("02_train"))
    check, row = "check_parameters(globals())", TrainConfig.from_row("celeba64", "quick")
    longer = f"{source}\n" + "\n".join(f"{name} = None" for name in SETTINGS[-40:]) + "\nlr = 1e-3"
    namespace = defaults(notebook_path("02_train")) | {"lr": 1e-3, "network": object()}
    before = ["", "network = object()", longer, check]
    assert config_from(namespace | {"In": [*before, source, check]}) == row
    network = defaults(notebook_path("02_train")) | {"lr": 1e-3, "In": before}
    assert config_from(network) == dataclasses.replace(row, lr=1e-3)
    again = [injected_cell({"lr": 0.1}), check, injected_cell({"lr": 1e-3}), check]  # edited and run again
    assert config_from(namespace | {"In": ["", source, *again]}).lr == 1e-3


@pytest.mark.filterwarnings("ignore:.*differ from row")
@pytest.mark.parametrize(
    ("run", "row_then"),  # what its row was when it was trained, where the table says otherwise now
    [
        ("vq-d8-laptop-imagenet-sample-s0-2ee26389", {}),
        ("vq-laptop-imagenet-sample-s0-e637c27b", {"steps": 1800, "batch_size": 16}),
    ],
)
def test_the_cell_of_a_record_that_names_every_setting_is_that_of_02_train(run: str, row_then: dict[str, int]) -> None:
    executed = repository_root() / "runs" / run / "02_train.ipynb"
    cells = [cell.source for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"][:2]
    cells[1] += "".join(f"\n{name} = {value}" for name, value in row_then.items())
    namespace: dict[str, Any] = {"In": ["", *cells, "check_parameters(globals())"]}
    for cell in cells:
        exec(cell, namespace)
    assert config_from(namespace).differences(Run.open(executed.parent).config) == {}
    wrong = cells[0].replace("codebook_dim = None", "codebok_dim = None")
    with pytest.raises(ValueError, match="This notebook has no parameter 'codebok_dim'; did you mean 'codebook_dim'?"):
        check_parameters(namespace | {"In": ["", wrong, "check_parameters(globals())"]})


def test_papermills_unknown_parameter_is_refused_inside_the_notebook() -> None:
    with pytest.raises(ValueError, match="This notebook has no parameter 'codebok_dim'; did you mean 'codebook_dim'?"):
        config_from(cells_run("# Parameters\ncodebok_dim = 8\n"))


TEXTS = [  # notebook, what papermill's -p makes of the text, what it is
    ("02_train", {"start_over": "false"}, {"start_over": False}),
    ("02_train", {"flip": "no", "compile": "null"}, {"flip": False, "compile": None}),
    ("02_train", {"quantizer_options": '{"init": "kmeans"}'}, {"quantizer_options": {"init": "kmeans"}}),
    ("02_train", {"lr": "1e-3", "data_root": "null"}, {"lr": 1e-3, "data_root": None}),
    ("04_evaluate", {"overwrite": "false", "rfid": "FALSE"}, {"overwrite": False, "rfid": False}),
    ("04_evaluate", {"max_images": "10"}, {"max_images": 10}),
    ("05_table", {"rows": "vq-d4", "seeds": 0}, {"rows": ["vq-d4"], "seeds": [0]}),
    ("05_table", {"rows": "None", "seeds": "[0, 1]"}, {"rows": None, "seeds": [0, 1]}),
    ("05_table", {"print_commands": "true", "show_seeds": "2"}, {"print_commands": True, "show_seeds": [2]}),
    (
        "06_pretrained",
        {"checkpoints": "runs/x", "zoom": [0, 0, 1]},
        {"checkpoints": ["runs/x"], "zoom": [0.0, 0.0, 1.0]},
    ),
    ("07_quantizers", {"seeds": 0}, {"seeds": [0]}),
    ("08_generate", {"top_k": "5", "temperature": "1"}, {"top_k": 5, "temperature": 1.0}),
    ("08_generate", {"class_name": "null", "top_k": "null"}, {"class_name": None, "top_k": None}),
]


@pytest.mark.parametrize(("name", "given", "values"), TEXTS)
def test_what_plainly_says_a_value_is_read(name: str, given: dict[str, Any], values: dict[str, Any]) -> None:
    path = notebook_path(name)
    assert read_parameters(given, path) == values
    source = "\n".join(parameters_cells(path))
    injected = injected_cell(given)
    edited = source + "\n" + injected.partition("\n")[2]  # by a person, in the cell
    for cells in (["", source, injected], ["", edited]):
        namespace: dict[str, Any] = {"In": cells}
        exec("\n".join(cells), namespace)
        check_parameters(namespace)
        assert {name: namespace[name] for name in given} == values
        unchanged = defaults(path).keys() - given.keys()
        assert {name: namespace[name] for name in unchanged} == {name: defaults(path)[name] for name in unchanged}


def test_a_number_where_papermill_was_given_a_text_is_refused_with_what_passes_it() -> None:
    with pytest.raises(TypeError) as error:
        config_from(cells_run("# Parameters\nrun_dir = 2024\n"))
    assert str(error.value) == (
        "run_dir is 2024 (int), but must be of type str or None. papermill's -r passes a text as it is: -r run_dir 2024."
    )


def test_a_notebook_of_ones_own_has_the_types_of_its_defaults() -> None:
    source = "keep = True\nnames = ['a']\nnumber: int = 3\nfolder = None\nroot = str(5)\n"
    injected = "# Parameters\nkeep = 'false'\nnames = 'b'\nnumber = '4'\nfolder = 5\nroot = '6'\n"
    namespace: dict[str, Any] = {"In": ["", "import os", source, injected]}
    exec(source + injected, namespace)
    check_parameters(namespace)
    assert [namespace[name] for name in ("keep", "names", "number", "folder", "root")] == [False, ["b"], 4, 5, "6"]
    with pytest.raises(TypeError, match="keep is 'maybe'"):
        check_parameters(namespace | {"keep": "maybe"})
    with pytest.raises(ValueError, match="This notebook has no parameter 'kep'; did you mean 'keep'?"):
        check_parameters({"In": ["", "import os", source, "# Parameters\nkep = False\n"]})


def test_none_is_as_the_row_says_also_where_the_cell_was_edited() -> None:
    (source,) = parameters_cells(notebook_path("02_train"))
    edited = source.replace("codebook_dim = None", "codebook_dim = 8")
    namespace: dict[str, Any] = {"In": ["", edited, "# Parameters\ncodebook_dim = None\n"]}
    exec(edited + "\ncodebook_dim = None", namespace)
    assert config_from(namespace).codebook_dim == TrainConfig.from_row("celeba64", "quick").codebook_dim


INJECTED = '# Parameters\nsteps = 7\nPAPERMILL_INPUT_PATH = "in.ipynb"\nPAPERMILL_OUTPUT_PATH = "out.ipynb"\n'


@pytest.mark.parametrize(
    "order",
    [
        ["parameters", "injected"],
        ["import os", "parameters", "injected"],
        ["%load_ext autoreload", "!nvidia-smi", "parameters", "injected"],
        ["seed = 3\nnumber = 3", "parameters", "injected"],
        ["parameters", "injected", "check_parameters(globals())", "tokens = images = None"],
        ["check_parameters(globals())", "parameters", "injected"],  # run in another order in JupyterLab, and again
        ["injected", "parameters", "check_parameters(globals())"],
        ["parameters", "injected", "x = 1", "parameters", "injected", "x = 1"],
    ],
)
def test_the_parameters_cell_is_found_wherever_it_stands(order: list[str]) -> None:
    (source,) = parameters_cells(notebook_path("02_train"))
    namespace = defaults(notebook_path("02_train")) | {"steps": 7}
    for text, refused in ((INJECTED, None), (INJECTED + "stepps = 8\n", "did you mean 'steps'?")):
        cells = [{"parameters": source, "injected": text}.get(cell, cell) for cell in order]
        if refused:
            with pytest.raises(ValueError, match=re.escape(f"This notebook has no parameter 'stepps'; {refused}")):
                check_parameters({"In": ["", *cells]} | namespace)
        else:
            check_parameters({"In": ["", *cells]} | namespace)
    with pytest.raises(TypeError, match="start_over is 'maybe'"):
        check_parameters({"In": ["", *cells_of(order, source)]} | namespace | {"start_over": "maybe"})


def cells_of(order: list[str], source: str) -> list[str]:
    return [{"parameters": source, "injected": INJECTED}.get(cell, cell) for cell in order]


@pytest.mark.slow
def test_papermill_typed_by_hand_reads_refuses_and_may_tell_its_paths(tmp_path: Path) -> None:
    """The real thing: papermill's own reading of -p, its injected cell, and the kernel's list of cells."""
    cells = [
        new_code_cell("import os\nfrom vistok.notebooks import check_parameters"),
        new_code_cell("start_over = False\nseeds = [0]\nrows = None", metadata={"tags": ["parameters"]}),
        new_code_cell("check_parameters(globals())\nprint(start_over, seeds, rows)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "in.ipynb")
    command = [
        sys.executable,
        "-m",
        "papermill",
        "in.ipynb",
        "out.ipynb",
        "--inject-paths",
        "-p",
        "start_over",
        "false",
    ]
    command += ["-p", "seeds", "3", "-p", "rows", "vq-d4"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert "PAPERMILL_INPUT_PATH" in executed[2].source
    assert executed[-1].outputs[0].text == "False [3] ['vq-d4']\n"


@pytest.mark.slow
def test_papermill_passes_on_a_setting_that_the_cell_does_not_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By hand, where it warns, and from here, where it does not; the value is taken, and its name was checked."""
    cells = [
        new_code_cell('row = "celeba64"\nscale = "smoke"', metadata={"tags": ["parameters"]}),
        new_code_cell("from vistok.notebooks import config_from\nprint(config_from(globals()).lr)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source, output = tmp_path / "in.ipynb", tmp_path / "out.ipynb"
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), source)
    command = [sys.executable, "-m", "papermill", str(source), str(output), "-p", "lr"]
    result = subprocess.run([*command, "1e-5"], check=True, capture_output=True, text=True)
    assert nbformat.read(output, as_version=4).cells[-1].outputs[0].text == "1e-05\n"
    assert "Passed unknown parameter: lr" in result.stderr
    execute(source, output, {"lr": 1e-4})
    assert nbformat.read(output, as_version=4).cells[-1].outputs[0].text == "0.0001\n"
    assert "unknown parameter" not in "".join(capfd.readouterr())


def test_what_is_said_beside_numbers_is_said_once() -> None:
    images = {"name": "cifar10-images", "note": "JPEG copies."}
    first = SimpleNamespace(unavailable={"rfid": "Not asked for."}, notes={"ssim": "few"}, dataset=images)
    unavailable = {"lpips_alex": "No weights.", "rfid": "Too few."}
    second = SimpleNamespace(unavailable=unavailable, notes={}, dataset={"name": "photos"})
    lines = ["rfid was not measured: Not asked for.", "lpips_alex was not measured: No weights.", "ssim: few"]
    lines.append("cifar10-images: JPEG copies.")
    assert remarks(first, second) == lines
    assert remarks() == []


@pytest.mark.parametrize("name", ["04_evaluate", "06_pretrained"])
def test_the_options_of_an_evaluation_are_those_of_the_cell(name: str) -> None:
    namespace = defaults(notebook_path(name))
    names = ("batch_size", "max_images", "rfid", "rfid_weights", "lpips", "num_workers")
    assert evaluation_options(namespace) == {option: namespace[option] for option in names}
    with pytest.raises(ValueError, match="rfid_weights is given, but rfid is False"):
        evaluation_options(namespace | {"rfid": False, "rfid_weights": "weights.pth"})


def test_cells_that_papermill_did_not_inject_may_assign_what_they_like() -> None:
    check_parameters(cells_run("# Parameters\nsteps = 3\n", "whatever = 3"))
    check_parameters({})


def test_execute_reads_parameters_and_refuses_others_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, parameters, **__: given.append(parameters))
    output = tmp_path / "04.ipynb"
    execute(notebook_path("04_evaluate"), output, {"rfid": "false", "run_dir": Path("runs") / "x"})
    assert given == [{"rfid": False, "run_dir": "runs/x"}]
    with pytest.raises(TypeError, match="overwrite is 'maybe' .* but must be of type bool."):
        execute(notebook_path("04_evaluate"), output, {"overwrite": "maybe"})
    assert len(given) == 1


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
    """A notebook as papermill leaves it: times, paths, a bar, blank lines, a failed cell."""
    stamps = {"start_time": "2026-01-01T00:00:00", "end_time": "2026-01-01T00:00:01"}
    bar = new_output("stream", name="stderr", text="100%|####| 10/10\nwarned\n")
    shown = {"image/png": "aGVsbG8=", "text/plain": f"<at {ROOT}/runs/x>", WIDGET_VIEW: {"model_id": "1"}}
    picture = new_output("display_data", data=shown)
    printed = new_output("stream", name="stdout", text=f"in {ROOT}/runs/x\n")
    cells = [
        new_markdown_cell("# Prose"),
        new_code_cell(f'# Parameters\nrun_dir = "{ROOT}/runs/x"\n', metadata={"tags": ["injected-parameters"]}),
        new_code_cell(
            "train()",
            execution_count=3,
            metadata={"papermill": stamps, "execution": {"iopub.execute_input": "2026-01-01T00:00:00"}},
            outputs=[bar, printed, picture],
        ),
        new_code_cell(
            "fail()",
            outputs=[
                new_output("stream", name="stdout", text="\n"),
                new_output(
                    "error",
                    ename="ValueError",
                    evalue=f"no {ROOT}/data/x",
                    traceback=[f"File \x1b[32m{ROOT}/vistok/runs.py:3\x1b[39m", "Cell /tmp/ipykernel_12/345.py"],
                ),
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


def test_an_executed_notebook_has_each_stream_in_one_piece_and_a_bar_in_its_last_state(tmp_path: Path) -> None:
    said = "print(f'\\r {n}|', end='', file=sys.stderr, flush=True); print(n, flush=True); time.sleep(0.05)"
    cell = new_code_cell(f"import sys, time\nfor n in range(3):\n    {said}")
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    parameters = new_code_cell("steps = 1", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[parameters, cell], metadata={"kernelspec": kernel}), tmp_path / "in.ipynb")
    execute(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {})
    outputs = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs
    assert [(output.name, output.text) for output in outputs] == [("stdout", "0\n1\n2\n"), ("stderr", " 2|")]


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


def test_a_cleaned_notebook_keeps_what_it_says(tmp_path: Path) -> None:
    file = tmp_path / "executed.ipynb"
    nbformat.write(executed_notebook(), file)
    clean(file)
    outputs = nbformat.read(file, as_version=4).cells[2].outputs
    assert [output.get("name", output.output_type) for output in outputs] == ["stderr", "stdout", "display_data"]
    assert outputs[0].text == "100%|####| 10/10\nwarned\n"
    assert outputs[1].text == "in runs/x\n"
    assert outputs[2].data == {"image/png": "aGVsbG8=", "text/plain": "<at runs/x>"}  # a view is its picture


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


def written(notebook: str, *edits: tuple[str, str], below: str = "", above: str = "") -> dict[str, Any]:
    """The globals of a notebook whose cell of parameters a person edited, as its next cell begins."""
    (source,) = parameters_cells(notebook_path(notebook))
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    namespace: dict[str, Any] = {"In": ["", above, source, below, "check_parameters(globals())"]}
    for cell in (above, source, below):
        exec(cell, namespace)
    return namespace


MISSPELT = [
    ("02_train", ("codebook_dim = None", "codebok_dim = 8"), "'codebok_dim'; did you mean 'codebook_dim'?"),
    ("02_train", ("codebook_dim = None", "codebook_dim = None\ncodebok_dim = 8"), "'codebok_dim'; did you mean"),
    ("02_train", ("steps = None", "steps = None\nlearning_rate = 1"), "'learning_rate'; Known: "),
    ("01_data", ("image_size = 64", "imagesize = 32"), "'imagesize'; did you mean 'image_size'?"),
    ("03_codebook", ("split = ", "splitt = "), "'splitt'; did you mean 'split'?"),
    ("04_evaluate", ("rfid = True", "rfdi = True"), "'rfdi'; did you mean 'rfid'?"),
    ("05_table", ("rows = ", "codebook_dim = 3\nrows = "), "'codebook_dim'; Known: "),  # of another notebook
    ("06_pretrained", ("zoom = ", "zooom = "), "'zooom'; did you mean 'zoom'?"),
    ("07_quantizers", ("method = ", "methode = "), "'methode'; did you mean 'method'?"),
    ("08_generate", ("temperature = ", "temprature = "), "'temprature'; did you mean 'temperature'?"),
]


@pytest.mark.parametrize("in_repository", [True, False])
@pytest.mark.parametrize(("notebook", "edit", "sentence"), MISSPELT)
def test_a_parameter_that_a_person_misspelt_is_refused(
    notebook: str, edit: tuple[str, str], sentence: str, in_repository: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = written(notebook, edit)
    monkeypatch.setattr("vistok.notebooks.cells.in_repository", lambda: in_repository)
    if not in_repository and "Known" in sentence:  # no notebook says that it is none of its parameters
        check_parameters(namespace)
        return
    with pytest.raises(ValueError, match=re.escape(f"This notebook has no parameter {sentence}")):
        check_parameters(namespace)


@pytest.mark.parametrize("line", ["codebok_dim = 8", "x = 3\ncodebook_dmi: int = 8"])
def test_a_parameter_misspelt_in_the_next_cell_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="This notebook has no parameter '.*'; did you mean 'codebook_dim'\\?$"):
        check_parameters(written("02_train", below=line))


@pytest.mark.parametrize("notebook", [path.stem for path in NOTEBOOKS])
def test_what_people_write_besides_parameters_is_theirs(notebook: str) -> None:
    home = "home = 'somewhere'\n"
    check_parameters(written(notebook, below="import os\nfolder_of_mine = 3\ncodebook_dim = 8\nx = y = 2"))
    check_parameters(written(notebook, above="codebok_dim = 8"))
    if "\ndata_root = None" in parameters_cells(notebook_path(notebook))[0]:
        used = ("\ndata_root = None", f"\n{home}data_root = home + '/pictures'")
        check_parameters(written(notebook, used))


def test_a_misspelt_parameter_that_was_corrected_is_forgotten_and_a_new_one_is_seen() -> None:
    (source,) = parameters_cells(notebook_path("02_train"))
    wrong = source.replace("codebook_dim = None", "codebok_dim = 8")
    check = "check_parameters(globals())"
    right = defaults(notebook_path("02_train"))
    check_parameters(right | {"In": ["", wrong, check, source, check]})
    with pytest.raises(ValueError, match="codebok_dim"):
        check_parameters(right | {"In": ["", source, check, wrong, check]})


VALUES = [
    ("01_data", {"dataset": "photo"}, "dataset is 'photo'; did you mean 'photos'?"),
    ("01_data", {"batch_size": 0}, "batch_size is 0, but must be at least 1."),
    ("02_train", {"figure_dataset": "imagnet"}, "figure_dataset is 'imagnet'; did you mean 'imagenet'?"),
    ("02_train", {"num_processes": 0}, "num_processes is 0, but must be at least 1."),
    ("03_codebook", {"split": "tset"}, "split is 'tset'; did you mean 'test'?"),
    ("03_codebook", {"image": -1}, "image is -1, but must be at least 0."),
    ("03_codebook", {"device": "cudo"}, "'cudo'"),
    ("05_table", {"table": "celeba46"}, "There is no table 'celeba46'; did you mean 'celeba64'?"),
    ("05_table", {"show_scale": "fast"}, "show_scale is 'fast'; Known: laptop, paper, quick, smoke."),
    ("05_table", {"seeds": [0, -1]}, "seeds is [0, -1], but must be at least 0."),
    ("07_quantizers", {"method": "fqs"}, "method is 'fqs'; did you mean 'fsq'?"),
    ("07_quantizers", {"num_steps": 0}, "num_steps is 0, but must be at least 1."),
    ("07_quantizers", {"seeds": []}, "seeds is [], but must hold at least one."),
    ("06_pretrained", {"checkpoints": []}, "checkpoints is [], but must hold at least one."),
    ("08_generate", {"top_p": 2.0}, "top_p is 2.0, but must be in (0, 1]."),
    ("08_generate", {"num_samples": 0}, "num_samples is 0, but must be at least 1."),
]


@pytest.mark.parametrize(("notebook", "values", "sentence"), VALUES)
def test_a_value_that_cannot_be_is_refused(notebook: str, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_parameters(written(notebook) | values)


def test_none_written_into_the_cell_is_refused_where_the_notebook_has_a_value() -> None:
    (source,) = parameters_cells(notebook_path("01_data"))
    edited = source.replace("image_size = 64", "image_size = None")
    with pytest.raises(TypeError, match="image_size is None .* but must be of type int"):
        check_parameters(defaults(notebook_path("01_data")) | {"In": ["", edited], "image_size": None})


def test_two_parameters_on_one_line_are_both_looked_at() -> None:
    (source,) = parameters_cells(notebook_path("01_data"))
    with pytest.raises(ValueError, match="no parameter 'image_siz'; did you mean 'image_size'"):
        check_parameters(defaults(notebook_path("01_data")) | {"In": ["", f"{source}\nimage_siz, seed = 32, 1"]})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_without_the_cell_of_parameters_it_is_asked_for(path: Path) -> None:
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    with pytest.raises(ValueError, match="The cell of parameters has not been run"):
        check_parameters({"In": ["", code[1]], "vistok": None})


@pytest.mark.parametrize("crop", [None, "adm"])
def test_pictures_that_are_skipped_count_for_no_batch(tmp_path: Path, crop: str | None) -> None:
    for number in range(10):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{number}.png")
        (tmp_path / f"broken {number}.png").write_bytes(b"no picture")
    own = {"dataset": "folder", "data_root": str(tmp_path), "on_bad_image": "skip", "crop": crop, "image_size": 16}
    config = config_from(cells_run(injected_cell(own | {"scale": "smoke"})))
    train = open_dataset("folder", "train", 16, data_root=tmp_path, crop=crop, on_bad_image="skip")
    assert config.batch_size == len(train) < 10


def test_the_scales_batch_is_as_large_as_a_small_folder_allows(
    images_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"dataset": "folder", "data_root": str(images_root), "scale": "quick"}  # 18 images to train on
    assert config_from(cells_run() | own).batch_size == 18
    assert "batch_size is 18, not 32 as at this scale" in capsys.readouterr().out
    assert config_from(cells_run() | own | {"num_processes": 4}).batch_size == 16
    accumulated = injected_cell(own | {"accumulate": 2, "scale": "smoke"})
    assert config_from(cells_run(accumulated)).batch_size == 16
    capsys.readouterr()
    assert config_from(cells_run() | own | {"batch_size": 32}).batch_size == 32  # asked for: the trainer refuses it
    assert config_from(cells_run() | {"scale": "quick"}).batch_size == 32
    assert config_from(cells_run() | own | {"data_root": "nowhere"}).batch_size == 32
    assert capsys.readouterr().out == ""
