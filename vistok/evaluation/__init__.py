"""A tokenizer and a dataset to a record of metrics: measured in one pass, recorded, and filed beside a run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vistok.evaluation.measuring import check_options, evaluate
    from vistok.evaluation.record import Evaluation
    from vistok.evaluation.run_records import check_results, evaluate_run, images_of_run, save_record

__all__ = ["Evaluation", "check_options", "check_results", "evaluate", "evaluate_run", "images_of_run", "save_record"]
_PLACES = {"Evaluation": "record", "check_options": "measuring", "evaluate": "measuring"}  # the others: run_records


def __getattr__(name: str) -> Any:  # so that `python -m vistok.evaluation --help` does not wait for PyTorch
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"vistok.evaluation.{_PLACES.get(name, 'run_records')}"), name)
