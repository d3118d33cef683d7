"""Running notebooks through papermill: parameters that are known, copies that are fit to commit.

papermill only warns of a parameter that a notebook does not have, so that a misspelt one trains something else than was
asked for; and its `-p` makes a text of `false`, which is true. So names and types are checked, both by `execute` and, for
`papermill` typed by hand and for values that a person writes into the cell, inside the notebook by `check_parameters`.
"""

import ast
import dataclasses
import json
import re
import sys
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill

from vistok.config import TrainConfig
from vistok.data import DATASETS, with_batch_that_fits
from vistok.lessons.plane import METHODS
from vistok.recipes import read_table
from vistok.system.devices import usable_device
from vistok.system.files import say, shown
from vistok.system.paths import in_repository, repository_root, runs_root
from vistok.system.progress import MARK
from vistok.system.sentences import answer_in_sentences
from vistok.system.values import as_given
from vistok.system.words import misspelt, nearest, slips_between

SETTINGS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("row", "scale"))
# What each parameter of a notebook may be; one whose default is None may be None too.
TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig) | {
    "checkpoints": list[str] | None,
    "compare_runs": list[str],
    "compare_with": str | None,
    "device": str | None,
    "evaluation": dict[str, Any],
    "figure_data_root": str | None,
    "figure_dataset": str | None,
    "figure_index": int,
    "image": int,
    "lpips": str,
    "max_images": int | None,
    "method": str,
    "num_processes": int,
    "num_steps": int,
    "num_tokens": int,
    "num_turns": int,
    "other_image": int,
    "overrides": dict[str, Any],
    "overwrite": bool,
    "picture": str | None,
    "print_commands": bool,
    "rfid": bool,
    "rfid_weights": str | None,
    "rows": list[str] | None,
    "run_dir": str | None,
    "seeds": list[int] | None,
    "show_dataset": str,
    "show_scale": str,
    "show_seeds": list[int],
    "split": str,
    "start_over": bool,
    "table": str,
    "tokens": str | None,
    "zoom": list[float],
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# What parameters may be beyond their types; other values are for those to check whose arguments they are.
CHOICES: dict[str, Iterable[str]] = {
    "dataset": DATASETS,
    "figure_dataset": DATASETS,
    "method": METHODS,
    "on_bad_image": ("raise", "skip"),
    "show_dataset": DATASETS,
    "split": ("train", "val", "test"),
}
AT_LEAST = {
    **dict.fromkeys(
        ("batch_size", "image_size", "max_images", "num_processes", "num_steps", "num_tokens", "num_turns"), 1
    ),
    **dict.fromkeys(("figure_index", "image", "num_workers", "other_image", "seed", "seeds", "show_seeds"), 0),
}
NOT_EMPTY = ("checkpoints", "seeds", "show_seeds")  # lists
NOT_LITERAL = object()  # a default that is computed, as people write one into the cell
SAME = 2 / 3  # of the names that two cells of parameters have together: then one is the other, edited


def notebook_path(name: str) -> Path:
    """Return the file of a notebook of this repository, for instance of "02_train".

    Raises:
        FileNotFoundError: it is not there, as beside an installed package.
    """
    path = repository_root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}: rows run through the notebooks of the repository, "
            + ("which this checkout lacks." if in_repository() else "which an installed package does not bring.")
            + " Run this in a clone of it; or train with python -m vistok.training and measure with python -m "
            "vistok.evaluation, which need no notebook."
        )
    return path


def parameter_names(notebook: Path) -> list[str]:
    """Return the parameters that a notebook takes: what the cell tagged `parameters` assigns."""
    return list(_assigned(_parameters_source(notebook)))


def read_parameters(parameters: Mapping[str, Any], notebook: Path) -> dict[str, Any]:
    """Return parameters for a notebook in the types that they have there, read as people and shells give them.

    Args:
        parameters: name to value.
        notebook: its file.

    Raises:
        ValueError: the notebook has no such parameter; the sentence names the nearest one.
        TypeError: a value is of another type than its parameter.
    """
    source = _parameters_source(notebook)
    check_names(parameters, _assigned(source), what=notebook.stem)
    types = _parameter_types(source)
    return {name: _read_parameter(name, types[name], value) for name, value in parameters.items()}


def _parameters_source(notebook: Path) -> str:
    # Unlike nbformat's reader this one takes no time: all notebooks of ours are asked at each start.
    cells = json.loads(notebook.read_bytes())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return "\n".join(sources)


def _parameter_types(source: str) -> dict[str, Any]:
    """Return the type of each parameter of a cell: that of its name, or, where a notebook has its own, of its default.

    The default is that of the notebook's file, where it is one of ours: the cell may be edited.
    """
    edited, types = _assigned(source), {}
    defaults = edited | {name: default for name, default in _original(source).items() if name in edited}
    for name, default in defaults.items():
        annotation = TYPES.get(name, _type_of(default))
        # Beside a row None means "as the row and the scale say", also where the cell has a value of somebody's own.
        optional = default is None or ("row" in defaults and name in SETTINGS)
        types[name] = annotation | None if optional else annotation
    return types


def _type_of(default: Any) -> Any:
    if default is None or default is NOT_LITERAL:
        return Any
    if isinstance(default, list):
        kinds = {type(one) for one in default}
        return list[kinds.pop() if len(kinds) == 1 else Any]
    return type(default)


def _read_parameter(name: str, annotation: Any, value: Any) -> Any:
    try:
        return as_given(name, annotation, value)
    except TypeError as error:
        # papermill's -p has made a number of a text, and 007 is 7: what was typed is not known any more.
        number = type(value) in (int, float) and "of type str" in str(error)
        hint = f" papermill's -r passes a text as it is: -r {name} {value}." if number else ""
        raise TypeError(f"{error}{hint}") from None


def execute(notebook: Path, output: Path, parameters: dict[str, Any], *, pass_on_warnings: bool = False) -> None:
    """Execute a notebook with parameters and keep the executed copy, also of one that fails.

    Args:
        notebook: what to run; it is not written to.
        output: where the executed copy goes.
        parameters: name to literal, for the notebook's `parameters` cell.
        pass_on_warnings: what it says on standard error is said here too.

    Raises:
        ValueError: the notebook has no such parameter; the sentence names the nearest one.
        TypeError: a value is of another type than its parameter.
        papermill.PapermillExecutionError: a cell failed.
    """
    parameters = read_parameters(parameters, notebook)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            progress_bar=False,
            stderr_file=sys.stderr if pass_on_warnings else None,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],  # its own notices would end up between the bars
        )
    finally:
        if output.is_file() and output.stat().st_size:  # empty: papermill could not write it, and says why
            clean(output)


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ValueError for the first name that is not known, with the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{what} has no parameter {name!r}; {nearest(name, known)}")


def config_from(namespace: dict[str, Any], model: dict[str, Any] | None = None) -> TrainConfig:
    """Return the configuration that a notebook's parameters describe; None there means "as the row and scale say".

    A batch that is the scale's and not asked for is as large as a small folder allows, which is said in a line.

    Args:
        namespace: the notebook's `globals()`, with `row`, `scale` and any of `SETTINGS`.
        model: `config_settings()` of the tokenizer to fine-tune, which then are the configuration's; None: as the row says.

    Raises:
        ValueError: papermill was given a parameter that the notebook does not have, a value is out of range, or one that
            `model` fixes was given as well.
    """
    check_parameters(namespace)
    settings = {name: namespace[name] for name in SETTINGS if namespace.get(name) is not None}
    if model is not None:
        for name in settings.keys() & (model.keys() - {"image_size"}):  # other sizes are for the network to refuse
            if settings[name] != model[name]:
                raise ValueError(
                    f"{name} is {settings[name]!r}, but the tokenizer to fine-tune has {model[name]!r}: leave it out."
                )
        settings = model | settings
    config = TrainConfig.from_row(namespace["row"], namespace["scale"], **settings)
    if "batch_size" in settings:
        return config
    fits = with_batch_that_fits(config, namespace.get("num_processes", 1))
    if fits.batch_size != config.batch_size:
        say(
            f"batch_size is {fits.batch_size}, not {config.batch_size} as at this scale: there are no more training images."
        )
    return fits


def check_parameters(namespace: dict[str, Any]) -> None:
    """Refuse parameters that a notebook does not have, or of another type or value; others are read as `as_given` has it.

    From here on the notebook shows of whatever the package refuses the sentence alone (`vistok.system.sentences`).

    Args:
        namespace: the notebook's `globals()`, in which a parameter that was given as a text, say, gets its value.

    Raises:
        ValueError: the notebook has no parameter that papermill injected or a person wrote, or a value cannot be; the sentence
            names the nearest one.
        TypeError: a value is of another type than its parameter.
    """
    answer_in_sentences()
    cells = [cell for cell in namespace.get("In", []) if cell]
    source = _parameters_cell(cells)
    for cell in cells:
        if _is_injected(cell) and source:
            injected = [name for name in _assigned(cell) if not name.startswith("PAPERMILL_")]  # its --inject-paths
            check_names(injected, _assigned(source), what="This notebook")
    _check_written(source, cells)
    if cells and not _assigned(source).keys() & namespace.keys():  # what the cell that checks assigns is not there yet
        raise ValueError("The cell of parameters has not been run in this kernel: run it first, or all cells.")
    for name, annotation in _parameter_types(source).items():
        if name in namespace:
            namespace[name] = _read_parameter(name, annotation, namespace[name])
            _check_value(name, namespace[name])
    _check_table(namespace)


def _check_written(source: str, cells: list[str]) -> None:
    """Raise ValueError for a misspelt parameter that a person wrote into the cell of parameters, or below it."""
    assigned, known = set(_assigned(source)), _own_names(source)
    read = {node.id for node in _nodes(source) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name in _assigned(source):
        if name not in known | read and not name.startswith("_"):
            own = "" if misspelt(name, known) else " A variable of your own belongs into another cell."
            raise ValueError(f"This notebook has no parameter {name!r}; {nearest(name, known)}{own}")
    for cell in _cells_below(source, cells):
        for name in _assigned(cell):
            if name not in assigned and (meant := _slip_of(name, assigned)):
                raise ValueError(f"This notebook has no parameter {name!r}; did you mean {meant!r}?")


def _own_names(source: str) -> set[str]:
    """Return the parameters of the notebook whose cell of parameters this is: of ours, what its file has.

    A notebook is copied and renamed, so it is known by its names. One that is not ours has what its cell assigns; but beside an
    installed package, which brings no notebooks, ours are not known: there no slip of a name of ours is a parameter.
    """
    names = set(_assigned(source))
    if ours := set(_original(source)):
        return ours
    if len(names & TYPES.keys()) < len(names) / 2:
        return names
    return names - {name for name in names - TYPES.keys() if _slip_of(name, TYPES)} | TYPES.keys()


def _original(source: str) -> dict[str, Any]:
    """Return the parameters of the notebook of ours whose cell this was, with their defaults; empty: of none."""
    names = set(_assigned(source))
    notebooks = (repository_root() / "notebooks").glob("*.ipynb") if in_repository() else []
    ours = [_assigned(_parameters_source(path)) for path in sorted(notebooks)]
    best = max(ours, key=lambda own: _overlap(set(own), names), default={})
    return best if _overlap(set(best), names) >= SAME else {}


def _slip_of(name: str, known: Iterable[str]) -> str | None:
    """Return the parameter that a variable's name is surely a slip of: people also have variables of their own."""
    near = misspelt(name, known)
    return near if near and len(name) > 3 and slips_between(name, near) <= 1 + len(name) // 8 else None


def _overlap(some: set[str], others: set[str]) -> float:
    return len(some & others) / max(1, len(some | others))


def _cells_below(source: str, cells: list[str]) -> list[str]:
    """Return the cells that were run between the cell of parameters and the one that checks them."""
    if source not in cells:
        return []
    below = cells[len(cells) - cells[::-1].index(source) :]  # after its last run
    checks = [place for place, cell in enumerate(below) if "check_parameters" in cell or "config_from" in cell]
    return [cell for cell in below[: min(checks, default=len(below))] if not _is_injected(cell)]


def _check_value(name: str, value: Any) -> None:
    """Raise ValueError for a value that the parameter of this name can never have; None is left to its type."""
    if value is None:
        return
    if name == "device":
        usable_device(value)
    if name in CHOICES and value not in CHOICES[name]:
        raise ValueError(f"{name} is {shown(value)}; {nearest(value, CHOICES[name])}")
    if name in NOT_EMPTY and value == []:
        raise ValueError(f"{name} is [], but must hold at least one.")
    if name in AT_LEAST:
        for one in value if isinstance(value, list) else [value]:
            if one < AT_LEAST[name]:
                raise ValueError(f"{name} is {shown(value)}, but must be at least {AT_LEAST[name]}.")


def _check_table(namespace: dict[str, Any]) -> None:
    """Raise ValueError where there is no such table, or it has no such scale or row; these parameters name parts of one."""
    name = namespace.get("table")
    if not isinstance(name, str):
        return
    table = read_table(name)
    for parameter in ("scale", "show_scale"):
        if namespace.get(parameter) is not None and namespace[parameter] not in table["scales"]:
            raise ValueError(
                f"{parameter} is {shown(namespace[parameter])}; {nearest(namespace[parameter], table['scales'])}"
            )


def _parameters_cell(cells: list[str]) -> str:
    """Return which of the cells that were run holds the parameters: it assigns most names that parameters have.

    Tags are not known in the kernel, and neither its place nor its number says which it is: cells are added before it, and
    run again. In a notebook whose names are its own, it is the cell before what papermill injected.
    """
    injected = [place for place, cell in enumerate(cells) if _is_injected(cell)]
    before = cells[: injected[0]] if injected else cells
    others = before or [cell for cell in cells if not _is_injected(cell) and _assigned(cell).keys() & TYPES.keys()]
    # The last of the best: of a cell that was edited and run again, what it says now.
    best = max(reversed(others), key=lambda cell: len(_assigned(cell).keys() & TYPES.keys()), default="")
    names = set(_assigned(best))
    later = [cell for cell in cells if not _is_injected(cell) and _overlap(set(_assigned(cell)), names) >= SAME]
    return later[-1] if names and later else best


def _is_injected(cell: str) -> bool:
    return cell.startswith("# Parameters\n")  # papermill's own first line


def clean(path: Path) -> None:
    """Make an executed notebook fit to commit, in place.

    Timestamps, papermill's metadata, paths and what a progress bar has left go; of a bar that is not ours the last state
    stays. Pictures stay, also those of widgets, which without their state would be an error in JupyterLab in their place.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = without_paths(cell.source)
        if "outputs" in cell:
            kept = [output for output in cell.outputs if not MARK.items() <= output.get("metadata", {}).items()]
            cell.outputs = _merge_streams(kept)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
                _remove_paths(output)
    nbformat.write(notebook, path)


def _merge_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs with all pieces of one stream in one, as a terminal would show it at the end."""
    merged: list[nbformat.NotebookNode] = []
    streams: dict[str, nbformat.NotebookNode] = {}
    for output in outputs:
        if output.output_type != "stream":
            merged.append(output)
        elif output.name in streams:
            streams[output.name].text += output.text
        else:
            streams[output.name] = output
            merged.append(output)
    for stream in streams.values():
        stream.text = without_paths(_last_states(stream.text))
    return [output for output in merged if output.output_type != "stream" or output.text.strip()]


def without_paths(text: str) -> str:
    """Return a text with the absolute paths of the repository and of the folder of runs, and the kernel's files, taken out."""
    text = text.replace(f"{repository_root()}/", "").replace(f"{runs_root()}/", "runs/")
    return re.sub(r"/\S*/ipykernel_\d+/\d+\.py", "<cell>", text)


def _remove_paths(output: nbformat.NotebookNode) -> None:
    """Take the machine's paths out of an error or of shown text, in place."""
    if output.output_type == "error":
        output.evalue = without_paths(output.evalue)
        output.traceback = [without_paths(line) for line in output.traceback]
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("text/") and isinstance(data[kind], str):
            data[kind] = without_paths(data[kind])


def _last_states(text: str) -> str:
    """Return what a terminal would show: after a carriage return the line is written anew, and a bar stands once."""
    lines = [line.strip("\r").rpartition("\r")[2] for line in text.split("\n")]
    bars = [number for number, line in enumerate(lines) if re.search(r"\d+%\|", line)]
    if not bars:  # the notebook's own lines, blank ones included, are compared when it is run again
        return "\n".join(lines)
    kept = [line for number, line in enumerate(lines) if number not in bars[:-1] and line.strip()]
    return "\n".join(kept) + "\n"


def _nodes(source: str) -> list[ast.AST]:
    """Return everything that a cell says; of one that is no Python (a magic), nothing."""
    try:
        return list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []


def _assigned(source: str) -> dict[str, Any]:
    """Return the names that a cell assigns, each with its literal; a cell that is no Python (a magic) assigns none."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return {}
    assigned = {}
    for node in body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            try:
                value = ast.literal_eval(node.value) if isinstance(target, ast.Name) else NOT_LITERAL
            except (ValueError, TypeError):
                value = NOT_LITERAL
            names = [
                name for name in ast.walk(target) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            ]
            assigned |= {name.id: value for name in names}
    return assigned
