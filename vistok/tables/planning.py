"""Which runs a table, a scale, datasets and seeds make."""

import dataclasses
import functools
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from vistok.config import TrainConfig, settings_as_given
from vistok.data import DATASETS, find_run_dir, with_batch_that_fits
from vistok.notebooks.cells import notebook_path
from vistok.notebooks.parameters import read_parameters
from vistok.quantizers import Quantizer
from vistok.recipes import Row, Table, load_table
from vistok.system.files import json_object
from vistok.system.paths import repository_root, resolve_path
from vistok.system.values import as_given, check_known
from vistok.tokenizer import VisualTokenizer

# Settings asked for beside the overrides of a plan.
OWN_ARGUMENTS = {
    **{name: name for name in ("table", "rows", "scale", "seeds", "dataset", "data_root", "evaluation")},
    "row": "rows",
}
# Datasets whose pictures the figures of a row show. Records are committed, and pictures of the others may not be.
OWN_PICTURES = ("photos", "folder")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One row with one seed: its configuration, and the notebook parameters that lead to it."""

    row: Row
    config: TrainConfig
    quantizer: Quantizer  # its sizes and losses; it has no weights
    train_parameters: dict[str, Any]
    evaluate_parameters: dict[str, Any]

    @functools.cached_property
    def run_dir(self) -> Path:
        """Where it runs."""
        return find_run_dir(self.config)

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What was measured, or None while the run is not complete; raises ValueError where its `metrics.json` is damaged."""
        file = self.run_dir / "metrics.json"
        return json_object(file) if file.is_file() else None

    def steps(self, run_dir: Path) -> dict[str, dict[str, Any]]:
        """Return the notebooks that train and evaluate it in a directory, each with its parameters."""
        return {
            "02_train": self.train_parameters,
            "04_evaluate": self.evaluate_parameters | {"run_dir": str(run_dir)},
        }

    @property
    def command(self) -> str:
        """The shell command, from the repository root, that trains and evaluates it: one job of a cluster's job array."""
        run_dir = self.run_dir
        if run_dir.is_relative_to(repository_root()):
            run_dir = run_dir.relative_to(repository_root())
        commands = [f"mkdir -p {shlex.quote(str(run_dir))}"]
        for notebook, parameters in self.steps(run_dir).items():
            given = " ".join(_argument(name, value) for name, value in parameters.items())
            commands.append(
                f"papermill notebooks/{notebook}.ipynb {shlex.quote(f'{run_dir}/{notebook}.ipynb')} {given}"
            )
        return " && ".join(commands)


def _argument(name: str, value: Any) -> str:
    """Return a parameter for papermill's command line; its -p makes numbers of texts and texts of lists and tables."""
    if isinstance(value, str):
        return f"-r {name} {shlex.quote(value)}"
    if isinstance(value, list | tuple | dict):
        text = yaml.safe_dump({name: value}, default_flow_style=True, width=10**6)
        return f"-y {shlex.quote(text.strip())}"
    return f"-p {name} {value}"


def plan(
    table: str,
    rows: Sequence[str] | str | None = None,
    scale: str = "smoke",
    seeds: Sequence[int] | int | None = None,
    *,
    evaluation: dict[str, Any] | None = None,
    **overrides: Any,
) -> list[PlannedRun]:
    """Return the runs of some rows of a table, every configuration checked before any of them starts.

    Args:
        table: name of the table.
        rows: names of rows, or one name; None: all.
        scale: one of the table's scales.
        seeds: one run each, or one seed; None: the scale's own seed.
        evaluation: further parameters of 04_evaluate, for instance `rfid_weights`.
        **overrides: fields of `TrainConfig`, the same for every row.

    Raises:
        ValueError: a row, scale, setting or parameter is unknown or out of range.
        TypeError: one has another type.
        FileNotFoundError: there is `evaluation`, but no 04_evaluate.
    """
    known = load_table(table)
    rows, seeds = as_given("rows", list[str] | None, rows), as_given("seeds", list[int] | None, seeds)
    overrides = settings_as_given(overrides)
    if seeds is not None and "seed" in overrides:
        raise ValueError(f"seed is {overrides['seed']}, but seeds is {seeds}: leave one of them out.")
    for name in rows or ():
        check_known(f"Table {table!r} has no row", name, known.rows)
    evaluation = read_parameters(evaluation, notebook_path("04_evaluate")) if evaluation else {}
    for name in ("run_dir", "dataset", "split"):
        if name in evaluation:
            raise ValueError(f"evaluation holds {name!r}, but a row is measured on the test split of its own dataset.")
    for name in ("rfid_weights", "lpips"):
        if isinstance(evaluation.get(name), str):
            resolve_path(evaluation[name])  # an empty one is refused before the training, not after it
    planned = []
    # Each once: a seed that is named twice would count twice in a mean.
    for name in known.rows if rows is None else dict.fromkeys(rows):
        for seed in [None] if seeds is None else dict.fromkeys(seeds):
            settings = overrides | ({} if seed is None else {"seed": seed})
            config = TrainConfig.from_row(f"{table}/{name}", scale, **settings)
            if "batch_size" not in settings:  # as 02_train does
                config = with_batch_that_fits(config)
            check_known("There is no dataset", config.dataset, DATASETS)
            with torch.device("meta"):  # shapes only
                quantizer = VisualTokenizer.from_config(config).quantizer
            figures = {} if config.dataset in OWN_PICTURES else {"figure_dataset": "photos"}
            train_parameters = {"row": f"{table}/{name}", "scale": scale} | settings | figures
            planned.append(PlannedRun(known.rows[name], config, quantizer, train_parameters, figures | evaluation))
    return planned


def check_overrides(names: Iterable[str]) -> None:
    """Raise ValueError for one of `plan`'s overrides that has a place of its own, where it would say something else."""
    for name in names:
        if name in OWN_ARGUMENTS:
            raise ValueError(f"{name!r} is no override: {OWN_ARGUMENTS[name]} says it.")


def table_of(planned: Sequence[PlannedRun]) -> Table:
    """Return the table that planned runs are rows of; raises ValueError where there are none."""
    if not planned:
        raise ValueError(
            "There are no runs to show: rows or seeds is [], but must hold at least one; None is all of them."
        )
    return load_table(planned[0].train_parameters["row"].partition("/")[0])
