"""The parameters of a notebook: names and types are checked, and one sentence answers.

papermill only warns of a parameter that a notebook does not have, so that a misspelt one trains something else than was
asked for; and its `-p` makes a text of `false`, which is true. So both are checked by `execution.execute` and, for `papermill`
typed by hand and for values that a person writes into the cell, inside the notebook by `check_parameters`.

A notebook with a row and a scale takes every setting of `TrainConfig`, whether its cell of parameters names it or not:
papermill puts all of them into its injected cell.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vistok.config import TrainConfig
from vistok.data import with_batch_that_fits
from vistok.notebooks.cells import (
    SETTINGS,
    TYPES,
    assigned_values,
    bound_names,
    cells_below,
    cells_since,
    is_injected,
    original_of,
    parameter_names,
    parameter_types,
    parameters_cell,
    parameters_source,
    syntax_nodes,
)
from vistok.recipes import load_table
from vistok.system.devices import usable_device
from vistok.system.files import say
from vistok.system.sentences import answer_in_sentences
from vistok.system.values import as_given, check_known
from vistok.system.words import misspelt, nearest, slips_between


def read_parameters(parameters: Mapping[str, Any], notebook: Path) -> dict[str, Any]:
    """Return parameters for a notebook in the types that they have there, read as people and shells give them.

    Args:
        parameters: name to value.
        notebook: its file.

    Raises:
        ValueError: the notebook has no such parameter; the sentence names the nearest one.
        TypeError: a value is of another type than its parameter.
    """
    types = parameter_types(parameters_source(notebook))
    check_names(parameters, types, what=notebook.stem)
    return {name: _read_parameter(name, types[name], value) for name, value in parameters.items()}


def _read_parameter(name: str, annotation: Any, value: Any) -> Any:
    try:
        return as_given(name, annotation, value)
    except TypeError as error:
        # papermill's -p has made a number of a text, and 007 is 7: what was typed is not known any more.
        number = type(value) in (int, float) and "of type str" in str(error)
        hint = f" papermill's -r passes a text as it is: -r {name} {value}." if number else ""
        raise TypeError(f"{error}{hint}") from None


def check_names(names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ValueError for the first name that is not known, with the nearest one that is."""
    known = list(known)
    for name in names:
        check_known(f"{what} has no parameter", name, known)


def config_from(namespace: dict[str, Any], model: dict[str, Any] | None = None) -> TrainConfig:
    """Return the configuration that a notebook's parameters describe; None there means "as the row and scale say".

    A batch that is the scale's and not asked for is as large as a small folder allows, which is said in a line.

    Args:
        namespace: the notebook's `globals()`, with `row`, `scale` and any of `SETTINGS`. In a kernel those count that the cell
            of parameters, or one that was run after it, gives a value: another variable may have a setting's name.
        model: `config_settings()` of the tokenizer to fine-tune, which then are the configuration's; None: as the row says.

    Raises:
        ValueError: papermill was given a parameter that the notebook does not have, a value is out of range, or one that
            `model` fixes was given as well.
    """
    check_parameters(namespace)
    given = _given(namespace)
    settings = {name: namespace[name] for name in SETTINGS if name in given and namespace[name] is not None}
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
    source = parameters_cell(cells)
    types = parameter_types(source)
    for cell in cells:
        if is_injected(cell) and source:
            # Beside the parameters stands what --inject-paths adds.
            injected = [name for name in assigned_values(cell) if not name.startswith("PAPERMILL_")]
            check_names(injected, types, what="This notebook")
    _check_written(source, cells)
    # The cell that checks is under way and has assigned nothing: what is there comes from the cell of parameters.
    if cells and not assigned_values(source).keys() & namespace.keys():
        raise ValueError("The cell of parameters has not been run in this kernel: run it first, or all cells.")
    given = _given(namespace)
    for name, annotation in types.items():
        if name in given:
            namespace[name] = _read_parameter(name, annotation, namespace[name])
            if name == "device" and namespace[name] is not None:
                usable_device(namespace[name])
    _check_table(namespace)


def _given(namespace: dict[str, Any]) -> set[str]:
    """Return the names in a notebook's `globals()` whose values count, where a parameter has that name.

    They got their value from the cell of parameters or after its last run: a line that was taken out of that cell leaves its
    value in the kernel. Where no cells are recorded, all names count.
    """
    cells = [cell for cell in namespace.get("In", []) if cell]
    if not cells:
        return set(namespace)
    source = parameters_cell(cells)
    return namespace.keys() & set().union(*map(bound_names, [source, *cells_since(source, cells)]))


def _check_written(source: str, cells: list[str]) -> None:
    """Raise ValueError for a misspelt parameter that a person wrote into the cell of parameters, or below it."""
    assigned, known = set(parameter_names(assigned_values(source))), _own_names(source)
    read = {node.id for node in syntax_nodes(source) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    for name in assigned_values(source):
        if name not in known | read and not name.startswith("_"):
            own = "" if misspelt(name, known) else " A variable of your own belongs into another cell."
            raise ValueError(f"This notebook has no parameter {name!r}; {nearest(name, known)}{own}")
    for cell in cells_below(source, cells):
        for name in assigned_values(cell):
            if name not in assigned and (meant := _slip_of(name, assigned)):
                raise ValueError(f"This notebook has no parameter {name!r}; did you mean {meant!r}?")


def _own_names(source: str) -> set[str]:
    """Return the parameters of the notebook whose cell of parameters this is: of ours, what its file has.

    A notebook is copied and renamed, so it is known by its names. One that is not ours has what its cell assigns; but beside an
    installed package, which brings no notebooks, ours are not known: there no slip of a name of ours is a parameter.
    """
    names = set(assigned_values(source))
    if ours := original_of(source):
        return set(parameter_names(ours))
    if len(names & TYPES.keys()) < len(names) / 2:
        return names
    return names - {name for name in names - TYPES.keys() if _slip_of(name, TYPES)} | TYPES.keys()


def _slip_of(name: str, known: Iterable[str]) -> str | None:
    """Return the parameter that a variable's name is surely a slip of: people also have variables of their own."""
    near = misspelt(name, known)
    return near if near and len(name) > 3 and slips_between(name, near) <= 1 + len(name) // 8 else None


def _check_table(namespace: dict[str, Any]) -> None:
    """Raise ValueError where there is no such table, or it has no such scale or row; these parameters name parts of one."""
    name = namespace.get("table")
    if not isinstance(name, str):
        return
    scales = load_table(name).scales
    for parameter in ("scale", "show_scale"):
        if namespace.get(parameter) is not None:
            check_known(f"{parameter} is", namespace[parameter], scales)
