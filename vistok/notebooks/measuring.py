"""What the notebooks that measure share: the options of their cells of parameters, and what is said beside the numbers."""

import inspect
from typing import Any

from vistok.evaluation import Evaluation, check_options


def evaluation_options(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a notebook that are options of `vistok.evaluate`, checked before anything is loaded.

    Args:
        namespace: the notebook's `globals()`, with every argument of `check_options`.

    Raises:
        ValueError, TypeError, FileNotFoundError: as of `check_options`.
    """
    options = {name: namespace[name] for name in inspect.signature(check_options).parameters}
    check_options(**options)
    return options


def remarks(*records: Evaluation) -> list[str]:
    """Return a line for each metric that was not measured, with the reason, then one for each with a note, and for the images.

    Args:
        records: of the same images; what two of them say of a metric is said once, as the first has it.
    """
    unavailable: dict[str, str] = {}
    notes: dict[str, str] = {}
    for record in records:
        unavailable |= {name: reason for name, reason in record.unavailable.items() if name not in unavailable}
        notes |= {name: note for name, note in record.notes.items() if name not in notes}
    missing = [f"{name} was not measured: {reason}" for name, reason in unavailable.items()]
    of_images = {record.dataset["name"]: record.dataset["note"] for record in records if "note" in record.dataset}
    return missing + [f"{name}: {note}" for name, note in (notes | of_images).items()]
