"""What is measured by its name: a run, or any other tokenizer; on which images, and where its records lie.

A run's records lie in its directory, and that of its own test images is `metrics.json` (`run_records`). Any other tokenizer has
no images of its own, so that all its records are named after what was measured, `metrics-<dataset>-<split>-<fingerprint of the
images>.json`, with other choices (`Evaluation.choices`) behind these: in the directory of a saved tokenizer; beside a weights
file, after its name; and where an official checkpoint or one of the Hub is given by its name, in `checkpoints/<name>/` of the
repository.
"""

import abc
import dataclasses
import json
from pathlib import Path
from typing import Any

from vistok.data import DATASETS
from vistok.evaluation.measuring import evaluate
from vistok.evaluation.record import Evaluation
from vistok.evaluation.run_records import evaluate_run, images_of_run
from vistok.pretrained import Place, find_tokenizer, load_pretrained
from vistok.runs import Run
from vistok.system.files import make_folder, replace_file
from vistok.system.values import check_known, checked
from vistok.tokenizer import VisualTokenizer


class Subject(abc.ABC):
    """A tokenizer that is measured; `check_results` and `save_record` take it as they take a run.

    Attributes:
        path: folder of its records.
        prefix: what the names of its records, and of figures beside them, begin with.
        row: of a table, whose published numbers stand beside its own; None: none.
    """

    path: Path
    prefix: str = ""
    row: str | None = None

    @abc.abstractmethod
    def load(self) -> VisualTokenizer:
        """Return the tokenizer, on the CPU; raises what `load_pretrained` raises."""

    @abc.abstractmethod
    def images(self, dataset: str | None, data_root: str | Path | None, split: str) -> dict[str, Any]:
        """Return which images it is measured on, as arguments of `open_dataset`; raises ValueError where none are named."""

    @abc.abstractmethod
    def evaluate(
        self, dataset: str | None = None, data_root: str | Path | None = None, *, split: str = "test", **options: Any
    ) -> Evaluation:
        """Measure it, as `evaluate_run` measures a run; raises what that does."""

    @abc.abstractmethod
    def save_metrics(self, record: dict[str, Any], name: str, *, overwrite: bool = False) -> Path | None:
        """Write a record and return its file; None where one is there already and stays."""


class RunSubject(Subject):
    """A finished run."""

    def __init__(self, run: Run) -> None:
        """Take a run; raises ValueError where it is not finished."""
        run.check_finished()
        self.run, self.path, self.row = run, run.path, run.config.row

    def load(self) -> VisualTokenizer:
        return VisualTokenizer.load(self.run.path)

    def images(self, dataset: str | None, data_root: str | Path | None, split: str) -> dict[str, Any]:
        return images_of_run(self.run, dataset, data_root, split)

    def evaluate(
        self, dataset: str | None = None, data_root: str | Path | None = None, *, split: str = "test", **options: Any
    ) -> Evaluation:
        return evaluate_run(self.run, dataset, data_root, split=split, **options)

    def save_metrics(self, record: dict[str, Any], name: str, *, overwrite: bool = False) -> Path | None:
        return self.run.save_metrics(record, name, overwrite=overwrite)


class CheckpointSubject(Subject):
    """Any other tokenizer: a saved one, a file, or one that is given by name."""

    def __init__(self, given: str | Path, place: Place) -> None:
        """Take what was asked for, and where `find_tokenizer` found it."""
        self.given, self.path, self.prefix = given, place.results, place.prefix
        self.name = str(given) if place.address else Path(given).name  # a record names no machine's folders
        self._tokenizer: VisualTokenizer | None = None

    def load(self) -> VisualTokenizer:
        if self._tokenizer is None:
            self._tokenizer = load_pretrained(self.given)
        return self._tokenizer

    def images(self, dataset: str | None, data_root: str | Path | None, split: str) -> dict[str, Any]:
        checked("dataset", str | None, dataset)
        if dataset is None:
            raise ValueError(
                f"{self.name} is no run, which would say which images are its own: give a dataset, one of "
                f"{', '.join(DATASETS)}."
            )
        check_known("There is no dataset", dataset, DATASETS)
        return {"name": dataset, "split": split, "data_root": data_root}

    def evaluate(
        self, dataset: str | None = None, data_root: str | Path | None = None, *, split: str = "test", **options: Any
    ) -> Evaluation:
        images = self.images(dataset, data_root, split)
        tokenizer = self.load()
        record = evaluate(tokenizer, images.pop("name"), **images | options)
        of = record.dataset
        which = f"{of['name']}-{of['split']}-{of['fingerprint'][:8]}{record.choices(tokenizer.image_size)}"
        return dataclasses.replace(
            record,
            provenance=record.provenance | {"checkpoint": self.name},
            file_name=f"{self.prefix}metrics-{which}.json",
        )

    def save_metrics(self, record: dict[str, Any], name: str, *, overwrite: bool = False) -> Path | None:
        file = self.path / name
        if file.exists() and not checked("overwrite", bool, overwrite):
            return None
        make_folder(self.path)
        replace_file(file, json.dumps(record, indent=2).encode())
        return file


def open_subject(given: str | Path) -> Subject:
    """Return what is to be measured, found by whatever it is called; nothing is loaded or downloaded.

    Args:
        given: as of `vistok.pretrained.find_tokenizer`.

    Raises:
        FileNotFoundError: there is nothing of that name; the sentence says what is nearest.
        ValueError: it is a run that is not finished.
    """
    place = find_tokenizer(given)
    is_saved = place.path is None or not place.path.is_dir() or (place.path / "model.safetensors").is_file()
    return CheckpointSubject(given, place) if is_saved else RunSubject(Run.open(place.path))
