"""Runs measured: on which images, and under which name their records lie beside them; `subjects` has what is no run."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any, Protocol

from vistok.config import TrainConfig
from vistok.data import called, same_images
from vistok.data.folders import DEFAULT_TEST_FRACTION
from vistok.evaluation.measuring import evaluate
from vistok.evaluation.record import Evaluation
from vistok.runs import Run
from vistok.system.files import check_writable, say
from vistok.system.processes import of_all_processes
from vistok.system.values import checked
from vistok.tokenizer import VisualTokenizer


class HasRecords(Protocol):
    """What records of evaluations lie beside: a run, or any other tokenizer that is measured by its name."""

    path: Path

    def save_metrics(self, record: dict[str, Any], name: str, *, overwrite: bool = False) -> Path | None:
        """Write a record and return its file; None where one is there already and stays."""


def evaluate_run(
    run: Run, dataset: str | None = None, data_root: str | Path | None = None, *, split: str = "test", **options: Any
) -> Evaluation:
    """Measure the tokenizer of a finished run.

    Args:
        run: the run.
        dataset: its name; None: that which the run was trained on.
        data_root: its folder; None: the run's own, or `data/<dataset>`.
        split: "train", "val" or "test", as far as the dataset has them.
        **options: further arguments of `evaluate`; they win over what the run says of its images.

    Returns:
        The record, which `save_record` writes: to `metrics.json` where it is of the whole test split of the images that the run
        was trained on, wherever they lie, or else to a file that is named after what was measured.

    Raises:
        ValueError: the run is not finished, or trains no tokenizer; or what `evaluate` raises.
        FileNotFoundError: the run has no tokenizer.
    """
    checked("dataset", str | None, dataset)
    run.check_kind("tokenizer")
    run.check_finished()
    tokenizer = VisualTokenizer.load(run.path)
    images, apart = _images(run, dataset, data_root, split)
    asked = images | options
    apart |= (
        split == "train" and asked["crop"] != images["crop"]
    )  # the other splits have one crop, whichever is asked for
    apart |= _share(asked["test_fraction"]) != _share(images["test_fraction"])
    record = evaluate(tokenizer, asked.pop("name"), **asked)
    name, which = record.dataset["name"], record.dataset["split"]
    which += f"-{record.dataset['fingerprint'][:8]}" if apart else ""
    which += record.choices(run.config.image_size)
    own = name == run.config.dataset and which == "test"
    return dataclasses.replace(
        record,
        provenance=record.provenance | {"seed": run.config.seed},
        file_name="metrics.json" if own else f"metrics-{name}-{which}.json",
    )


def _share(test_fraction: float | None) -> float:
    return DEFAULT_TEST_FRACTION if test_fraction is None else test_fraction


def images_of_run(
    run: Run, dataset: str | None = None, data_root: str | Path | None = None, split: str = "test"
) -> dict[str, Any]:
    """Return which images `evaluate_run` measures a run on, as arguments of `open_dataset`."""
    images, _ = _images(run, dataset, data_root, split)
    return images


def _images(run: Run, dataset: str | None, data_root: str | Path | None, split: str) -> tuple[dict[str, Any], bool]:
    """Return what `images_of_run` does, and whether these are other images than the run's under the name of its dataset."""
    config = run.config
    of_dataset = dataset in (None, config.dataset)
    here = config if data_root is None else dataclasses.replace(config, data_root=str(data_root))
    own = of_dataset and _are_own_images(run, here)
    images = {
        "name": config.dataset if dataset is None else dataset,
        "split": split,
        "data_root": here.data_root if of_dataset else data_root,
        "crop": config.crop if own and split == "train" else None,
        "test_fraction": config.test_fraction if own else None,
        "on_bad_image": config.on_bad_image,
    }
    return images, of_dataset and not own


def _are_own_images(run: Run, here: TrainConfig) -> bool:
    """Return whether the images that `here` names are those of the run; others in the run's own place are warned of."""
    data, in_place = run.provenance.get("data"), here.run_name == run.config.run_name
    # The place of ImageNet alone decides: its test images are files of their own, and nothing need be indexed or copied.
    if in_place and (not data or here.dataset in ("imagenet", "photos")):
        return True
    same = same_images(data, here)
    if in_place and not same:
        warnings.warn(
            f"The images of {called(here.dataset)} are others than those that {run.path} was trained on, so that some of "
            "those it is tested on may have been trained on; the record goes to a file of its own.",
            stacklevel=1,  # once, whoever asks
        )
    return same


def check_results(run: HasRecords) -> None:
    """Check, before hours of measuring, that a record can be written where it goes; of several processes call it in all.

    Raises:
        OSError: it cannot, on the machine of one of them.
    """
    reason = None
    try:
        check_writable(next(folder for folder in (run.path, *run.path.parents) if folder.is_dir()))
    except OSError as error:
        reason = (
            f"{run.path} cannot be written ({error.strerror or error}), where its record would go: make room or give the "
            "rights; or take load_pretrained and vistok.evaluate, which write nothing."
        )
    for found in of_all_processes(reason):
        if found:
            raise OSError(found)


def save_record(run: HasRecords, record: Evaluation, *, overwrite: bool = False) -> Path | None:
    """Write a record of `evaluate_run` where it goes; print it where that fails: what was measured is not lost.

    Args:
        run: the run, or the `Subject`, that it is of.
        record: the measurement.
        overwrite: replace a record that is there.

    Returns:
        its file; None where one is there already and stays.

    Raises:
        ValueError: the record is of neither.
        OSError: it cannot be written.
    """
    if not record.file_name:
        raise ValueError(
            "The record is of a tokenizer, not of a run: evaluate_run measures one, and open_subject whatever has a name."
        )
    try:
        return run.save_metrics(record.to_dict(), record.file_name, overwrite=overwrite)
    except OSError as error:
        say(record.to_json())
        raise OSError(
            f"The record could not be written into {run.path} ({error.strerror or error}); it is printed instead, as the text "
            f"of {record.file_name}."
        ) from error
