"""The cell of parameters: where it stands in a notebook, what it assigns, and what each may be."""

import ast
import dataclasses
import json
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from vistok.config import TrainConfig
from vistok.data import DATASETS
from vistok.generation.sampling import Guidance, Temperature, TopP
from vistok.lessons.plane import METHODS
from vistok.system.paths import in_repository, repository_root
from vistok.system.values import NonNegativeInt, PositiveInt, at_least, not_empty, one_of

SETTINGS = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name not in ("row", "scale"))
ROW_AND_SCALE = {"row", "scale"}  # where a notebook has both, every field of `TrainConfig` is a parameter of it

Dataset = Annotated[str, one_of(DATASETS)]
Seeds = Annotated[list[int], at_least(0), not_empty]

# The kinds that each parameter of a notebook may have; one whose default is None may be None too. Whoever it is an argument of
# checks further bounds.
TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig, include_extras=True) | {
    "checkpoints": Annotated[list[str], not_empty] | None,
    "class_name": str | None,
    "compare_runs": list[str],
    "compare_with": str | None,
    "completed_as": str | None,
    "dataset": Dataset,
    "device": str | None,
    "evaluation": dict[str, Any],
    "figure_data_root": str | None,
    "figure_dataset": Dataset | None,
    "figure_index": NonNegativeInt,
    "guidance": Guidance,
    "image": NonNegativeInt,
    "lpips": str,
    "max_images": PositiveInt | None,
    "method": Annotated[str, one_of(METHODS)],
    "num_processes": PositiveInt,
    "num_samples": PositiveInt,
    "num_steps": PositiveInt,
    "num_tokens": PositiveInt,
    "num_turns": PositiveInt,
    "other_image": NonNegativeInt,
    "overrides": dict[str, Any],
    "overwrite": bool,
    "photograph": NonNegativeInt,
    "picture": str | None,
    "print_commands": bool,
    "rfid": bool,
    "photographs": str | None,
    "rfid_weights": str | None,
    "rows": list[str] | None,
    "run_dir": str | None,
    "seeds": Seeds | None,
    "show_dataset": Dataset,
    "show_scale": str,
    "show_seeds": Seeds,
    "split": Literal["train", "val", "test"],
    "start_over": bool,
    "table": str,
    "temperature": Temperature,
    "tokens": str | None,
    "top_k": PositiveInt | None,
    "top_p": TopP,
    "without_grid": str | None,
    "zoom": list[float],
}


NOT_LITERAL = object()  # a default that is computed, as people write one into the cell
SAME = 2 / 3  # the share of the names that two cells of parameters have together: then one is the other, edited


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


def parameter_names(cell: Iterable[str]) -> list[str]:
    """Return the parameters that a notebook takes.

    Args:
        cell: the names that its cell of parameters assigns. Beside a row and a scale every setting of a run is a parameter too,
            of which the cell has the usual ones only.
    """
    names = dict.fromkeys(cell)
    return list(names | dict.fromkeys(SETTINGS if names.keys() >= ROW_AND_SCALE else ()))


def parameters_source(notebook: Path) -> str:
    """Return the source of a notebook's cell of parameters."""
    # Unlike nbformat's reader this one takes no time: all notebooks of ours are asked at each start.
    cells = json.loads(notebook.read_bytes())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return "\n".join(sources)


def parameter_types(source: str) -> dict[str, Any]:
    """Return the type of each parameter that a notebook takes: that of its name, or, where it has its own, of its default.

    The default is that of the notebook's file, where it is one of ours: the cell may be edited.
    """
    edited, types = assigned_values(source), {}
    defaults = edited | {name: default for name, default in original_of(source).items() if name in edited}
    for name in parameter_names(edited):
        default = defaults.get(name)
        annotation = TYPES.get(name, _type_of(default))
        # Beside a row None means "as the row and the scale say", also where the cell has a value of somebody's own.
        optional = default is None or (edited.keys() >= ROW_AND_SCALE and name in SETTINGS)
        types[name] = annotation | None if optional else annotation
    return types


def _type_of(default: Any) -> Any:
    if default is None or default is NOT_LITERAL:
        return Any
    if isinstance(default, list):
        kinds = {type(one) for one in default}
        return list[kinds.pop() if len(kinds) == 1 else Any]
    return type(default)


def original_of(source: str) -> dict[str, Any]:
    """Return the parameters of the notebook of ours whose cell this was, with their defaults; empty: of none."""
    names = set(assigned_values(source))
    notebooks = (repository_root() / "notebooks").glob("*.ipynb") if in_repository() else []
    ours = [assigned_values(parameters_source(path)) for path in sorted(notebooks)]
    best = max(ours, key=lambda own: overlap_of(set(own), names), default={})
    return best if overlap_of(set(best), names) >= SAME else {}


def overlap_of(some: set[str], others: set[str]) -> float:
    """Return how many of the names of two cells of parameters are in both, as a share of all of them.

    Settings that any notebook with a row takes say nothing about which one it is: those that only one cell has do not count.
    """
    names = some | others
    if some & others >= ROW_AND_SCALE:
        names -= (some ^ others) & set(SETTINGS)
    return len(some & others) / max(1, len(names))


def cells_since(source: str, cells: list[str]) -> list[str]:
    """Return the cells that were run after the last run of the cell of parameters; all where it was not run."""
    return cells[len(cells) - cells[::-1].index(source) :] if source in cells else cells


def cells_below(source: str, cells: list[str]) -> list[str]:
    """Return the cells that were run between the cell of parameters and the one that checks them."""
    if source not in cells:
        return []
    below = cells_since(source, cells)
    checks = [place for place, cell in enumerate(below) if "check_parameters" in cell or "config_from" in cell]
    return [cell for cell in below[: min(checks, default=len(below))] if not is_injected(cell)]


def parameters_cell(cells: list[str]) -> str:
    """Return which of the cells that were run holds the parameters: it assigns most names that parameters have.

    Tags are not known in the kernel, and neither its place nor its number says which it is: cells are added before it, and
    run again. In a notebook whose names are its own, it is the cell before what papermill injected.
    """
    injected = [place for place, cell in enumerate(cells) if is_injected(cell)]
    before = cells[: injected[0]] if injected else cells
    others = before or [cell for cell in cells if not is_injected(cell) and assigned_values(cell).keys() & TYPES.keys()]
    # The last of the best: of a cell that was edited and run again, what it says now.
    best = max(reversed(others), key=lambda cell: len(assigned_values(cell).keys() & TYPES.keys()), default="")
    names = set(assigned_values(best))
    later = [cell for cell in cells if not is_injected(cell) and overlap_of(set(assigned_values(cell)), names) >= SAME]
    return later[-1] if names and later else best


def is_injected(cell: str) -> bool:
    """Return whether papermill has put a cell there."""
    return cell.startswith("# Parameters\n")  # papermill's own first line


def bound_names(source: str) -> set[str]:
    """Return every name that a cell gives a value, in a branch or a loop too."""
    return {n.id for n in syntax_nodes(source) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def syntax_nodes(source: str) -> list[ast.AST]:
    """Return everything that a cell says; of one that is no Python (a magic), nothing."""
    try:
        return list(ast.walk(ast.parse(source)))
    except SyntaxError:
        return []


def assigned_values(source: str) -> dict[str, Any]:
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
