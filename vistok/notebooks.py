"""Running notebooks through papermill: parameters that are known, copies that are fit to commit.

papermill only warns of a parameter that a notebook does not have, so that a misspelt one trains something else than was
asked for; here it is refused, both by `execute` and, for `papermill` typed by hand, inside the notebook by `config_from`.
"""

import ast
import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nbformat
import papermill

from vistok.config import TrainConfig, nearest, repository_root, runs_root

SETTINGS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("row", "scale"))


def notebook_path(name: str) -> Path:
    """Return the file of a notebook of this repository, for instance of "02_train"."""
    return repository_root() / "notebooks" / f"{name}.ipynb"


def parameter_names(notebook: Path) -> list[str]:
    """Return the parameters that a notebook takes: what the cell tagged `parameters` assigns."""
    cells = nbformat.read(notebook, as_version=4).cells
    sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    return [name for source in sources for name in _assigned(source)]


def execute(notebook: Path, output: Path, parameters: dict[str, Any], *, pass_on_bars: bool = False) -> None:
    """Execute a notebook with parameters and keep the executed copy, also of one that fails.

    Args:
        notebook: what to run; it is not written to.
        output: where the executed copy goes.
        parameters: name to literal, for the notebook's `parameters` cell.
        pass_on_bars: show the notebook's own progress bars, as they move.

    Raises:
        ValueError: the notebook has no such parameter; the sentence names the nearest one.
        papermill.PapermillExecutionError: a cell failed.
    """
    check_names(parameters, parameter_names(notebook), what=notebook.stem)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(
            str(notebook),
            str(output),
            parameters=parameters,
            progress_bar=False,
            stderr_file=sys.stderr if pass_on_bars else None,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],  # the kernel's own notices would end up between the bars
        )
    finally:
        if output.is_file():
            clean(output)


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ValueError for the first name that is not known, with the nearest one that is."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"{what} has no parameter {name!r}; {nearest(name, known)}")


def config_from(namespace: dict[str, Any], model: dict[str, Any] | None = None) -> TrainConfig:
    """Return the configuration that a notebook's parameters describe; None there means "as the row and scale say".

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
    return TrainConfig.from_row(namespace["row"], namespace["scale"], **settings)


def check_parameters(namespace: dict[str, Any]) -> None:
    """Raise ValueError where papermill injected a parameter that the notebook, by its `globals()`, does not have."""
    cells = [cell for cell in namespace.get("In", []) if cell]
    for cell in cells:
        if cell.startswith("# Parameters\n"):  # papermill's own first line
            check_names(_assigned(cell), _assigned(cells[0]), what="This notebook")


def clean(path: Path) -> None:
    """Make an executed notebook fit to commit, in place.

    Timestamps, papermill's metadata and paths go; of a progress bar the last state stays; pictures stay.
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
            cell.outputs = _merge_streams(cell.outputs)
            for output in cell.outputs:
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


def _assigned(source: str) -> list[str]:
    targets = [node.targets for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return [target.id for group in targets for target in group if isinstance(target, ast.Name)]
