"""The run directory: what one training run leaves behind, and how it is found again.

    config.json       the configuration, and where it was run (versions, device, seed, commit)
    log.jsonl         one line a report: step, losses, usage, rate
    checkpoint/       the training state of the last two checkpoints; not committed
    tokenizer/        the tokenizer as of the last checkpoint, or that of a generator's tokens; not committed
    generator/        of a generator's run: the generator as of the last checkpoint; not committed
    metrics.json      the evaluation, once there is one
    quality.json      of a generator's run: its samples measured, once they are
    *.ipynb, *.png    executed notebooks and figures

Every file is replaced whole or not at all. Checkpoints hold tensors and plain containers only and are read as such. Of several
processes one trains a run; `.lock` is its lock.
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch

from vistok.config import TrainConfig
from vistok.data import find_run_dir
from vistok.generator_config import GeneratorConfig
from vistok.system.checkpoints import Checkpoints, step_of
from vistok.system.files import json_object, left_behind, make_folder, readable, replace_file, shown
from vistok.system.locks import only_process
from vistok.system.paths import RUN_NAME, resolve_path
from vistok.system.provenance import provenance
from vistok.system.settings import Settings
from vistok.system.values import checked
from vistok.system.words import misspelt, nearest
from vistok.tokenizer import VisualTokenizer

EXAMPLE_RUN = "runs/ema-d4-laptop-imagenet-sample-s0-754f9643"  # a record that is committed with its weights
COLLAPSED_RUN = "runs/vq-d64-laptop-imagenet-sample-s0-9168796a"  # the other one: an eighth of its codes is used
EXAMPLE_SEQUENCE = (
    "runs/titok-64-prefixes-laptop-imagenet-sample-s0-09668d65"  # 64 tokens without a grid, any first of them a picture
)
EXAMPLE_GENERATOR = "runs/autoregressive-320k-cifar10-images-s0"  # a small generator by class, beside its tokenizer

# Files that may lie in a run's folder before its config.json does: an executed notebook, a job's script, settings and logs.
BESIDE_A_RUN = (
    *(".ipynb", ".log", ".txt", ".out", ".err", ".json", ".jsonl"),
    *(".sh", ".sbatch", ".py", ".yaml", ".yml", ".toml", ".md"),
)


class Kind(NamedTuple):
    """What a run may train.

    Attributes:
        config: the class of its configuration.
        find: the directory of the run of a configuration, a new one or one that is there.
        check: raises ValueError for a configuration of an impossible model, before anything is written; called where tensors
            are shapes only.
    """

    config: type[Settings]
    find: Callable[[Any], Path]
    check: Callable[[Any], object]


# By the name of the folder that holds what is trained, which a configuration names as its `kind`, a tokenizer's aside.
KINDS = {
    "tokenizer": Kind(TrainConfig, find_run_dir, VisualTokenizer.from_config),
    "generator": Kind(GeneratorConfig, lambda config: config.run_dir, lambda config: None),  # its shape is the tokens'
}


def kind_of(config: Settings) -> str:
    """Return what a configuration trains, a key of `KINDS`."""
    return config.to_dict().get("kind", "tokenizer")


def config_from(settings: dict[str, Any]) -> Settings:
    """Return the configuration that settings, as `to_dict` returns them, are of; raises what its `from_dict` does."""
    kind = settings.get("kind", "tokenizer") if isinstance(settings, dict) else "tokenizer"
    if kind not in KINDS:
        raise ValueError(f"kind is {shown(kind)}; {nearest(str(kind), KINDS)}")
    return KINDS[kind].config.from_dict(settings)


RATES = ("images_per_second", "data_share", "checkpoint_share")  # times of a report; the rest is the run's own


def short_names(names: Sequence[str]) -> list[str]:
    """Return what to call runs that are seen side by side: the row, and of scale, dataset and seed what differs.

    Args:
        names: of run directories, as `TrainConfig.run_name` makes them; others stay as they are.

    Returns:
        one for each name; two that differ in neither end in the digits of their settings.
    """
    found = [RUN_NAME.fullmatch(name) for name in names]
    parts = [match.groupdict() for match in found if match]
    differ = [key for key in ("scale", "dataset", "seed") if len({part[key] for part in parts}) > 1]

    def shortened(match: re.Match[str] | None, name: str, keys: Sequence[str]) -> str:
        if match is None:
            return name
        more = [f"seed {match['seed']}" if key == "seed" else match[key] for key in keys]
        return ", ".join([match["row"], *more])

    short = [shortened(match, name, differ) for match, name in zip(found, names, strict=True)]
    return [
        shortened(match, name, [*differ, "settings"]) if short.count(one) > 1 else one
        for match, name, one in zip(found, names, short, strict=True)
    ]


def numbered(names: Sequence[str]) -> list[str]:
    """Return names, those that stand there several times numbered from 1."""
    return [f"{name} {names[: i + 1].count(name)}" if names.count(name) > 1 else name for i, name in enumerate(names)]


@dataclasses.dataclass(frozen=True)
class Report:
    """Means and rates of the steps since the last report.

    Attributes:
        step: optimiser steps taken, from 1.
        losses: name to unweighted mean over the steps since the last report; "total" is the weighted sum.
        usage: share of the codebook that the training tokens since the last report chose, in [0, 1]; mean over levels. None
            where what is trained has no codebook.
        perplexity: exp of the entropy of those tokens' histogram, in [1, K]; mean over levels; or None.
        images_per_second: images trained on a second since the last report.
        data_share: share of that time spent waiting for data, in [0, 1].
        checkpoint_share: seconds spent writing checkpoints since the last report, over that time.
        skipped_steps: optimiser steps since the last report, of all sides, that were left out as gradients overflowed float16.
    """

    step: int
    losses: dict[str, float]
    usage: float | None
    perplexity: float | None
    images_per_second: float
    data_share: float
    checkpoint_share: float = 0.0
    skipped_steps: int = 0

    def __str__(self) -> str:
        return loss_and_usage(dataclasses.asdict(self))


def loss_and_usage(entry: dict[str, Any]) -> str:
    """Return a line of a log in a few words: the loss and, where there is a codebook, its usage."""
    usage = "" if entry["usage"] is None else f", usage {entry['usage']:.1%}"
    skipped = f", {entry['skipped_steps']} steps skipped" if entry.get("skipped_steps") else ""
    return f"loss {entry['losses']['total']:.4f}{usage}{skipped}"


class Run:
    """One run directory, and the configuration that owns it.

    Attributes:
        path: the directory.
        config: the configuration.
        checkpoints: the training states in it.
    """

    def __init__(self, path: Path, config: Settings) -> None:
        """Use `Run.open`."""
        self.path = path
        self.config = config
        self.checkpoints = Checkpoints(path / "checkpoint")

    @classmethod
    def open(cls, path: str | Path | None = None, config: Settings | None = None, *, start_over: bool = False) -> Self:
        """Open a run: a new one, or the one that is there if its configuration is the same.

        Args:
            path: the directory, relative ones counted from the repository; None: the configuration's own, which is that of
                the same settings and the same images, wherever these lie (`vistok.data.find_run_dir`).
            config: the configuration, a tokenizer's or a generator's; None: of the run that is there.
            start_over: set the log, checkpoints, tokenizer and metrics of a run with this configuration aside (into a
                folder beside it) and begin again.

        Raises:
            FileNotFoundError: there is no run in `path`, and no configuration to begin one with.
            ValueError: the run there has another configuration (the sentence lists the fields that differ), is a record
                without weights, or the configuration describes no tokenizer; to start over, another process trains it; to
                begin a run, the folder holds what is no run's.
            TypeError: `start_over` is no bool: any other text, "false" too, is true.
            OSError: the directory cannot be written.
        """
        checked("start_over", bool, start_over)
        if path is None and config is None:
            raise ValueError("Run.open needs a path, a configuration, or both.")
        path = resolve_path(path) if path is not None else KINDS[kind_of(config)].find(config)
        existing = cls._read_config(path)
        if config is None:
            if existing is None:
                near = misspelt(path.name, (file.parent.name for file in path.parent.glob("*/config.json")))
                hint = "" if near is None else f" Did you mean {near!r}, which is beside it?"
                raise FileNotFoundError(f"There is no run in {path}: it has no config.json.{hint}")
            return cls(path, existing)
        if existing is not None and (differences := existing.differences(config)):
            pairs = differences.items()
            listed = "; ".join(f"{name} is {theirs!r} there, {mine!r} here" for name, (theirs, mine) in pairs)
            raise ValueError(
                f"{path} holds a run with another configuration ({listed}). Give another run_dir, or no run_dir: then "
                "every configuration has its own."
            )
        with torch.device("meta"):  # shapes only: an impossible model is refused before anything is written
            KINDS[kind_of(config)].check(config)
        if existing is None:
            _check_own_folder(path)
        run = cls(path, config)
        if start_over and existing is not None:
            run._set_aside()
            existing = None
        if existing is not None and run._lacks_weights(first_checkpoint=min(existing.checkpoint_every, config.steps)):
            raise ValueError(
                f"{path} is a record without weights: it can be read, but not resumed. To train it again, set "
                "start_over (what is there is set aside, not deleted), or give another run_dir."
            )
        with run.writing():
            make_folder(path)
        return run

    def _lacks_weights(self, first_checkpoint: int) -> bool:
        """Return whether steps are logged that no checkpoint holds, though one was due; only then is there something to lose.

        A run that ended in writing its first one has logged that very step, and has the folder, which records have not.
        """
        if self.checkpoints.files():
            return False
        logged = self.steps_logged
        return logged > first_checkpoint or (logged == first_checkpoint and not self.checkpoints.folder.is_dir())

    @staticmethod
    def _read_config(path: Path) -> Settings | None:
        file = path / "config.json"
        if not file.is_file():
            return None
        try:
            if "config" not in (entries := json_object(file)):
                raise ValueError("it has no entry 'config', as a run's has.")
            return config_from(entries["config"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file} is not a configuration that this version can read: {error}") from error

    def _set_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.before-{number}")).exists():
            number += 1
        with self.alone(), self.writing():
            self.path.rename(aside)
            for lock in aside.glob(".lock*"):
                lock.unlink()

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Return what keeps other processes from training this run while it is entered; ValueError where one does."""
        return only_process(
            self.path / ".lock",
            f"The run {self.path} is being trained",
            "wait for it or stop it, or give another run_dir.",
        )

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say of a file that cannot be written what is still there and what helps, as one sentence."""
        try:
            yield
        except OSError as error:
            files = self.checkpoints.files()
            raise OSError(
                f"The run {self.path} cannot be written ({error.strerror or error}). Its last whole checkpoint is "
                f"{files[-1].name if files else 'none'}: make room or give the rights, and the same command goes on from "
                "there; or give another run_dir, or set VISTOK_RUNS."
            ) from error

    @contextlib.contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """Leave no empty folder behind where the training of a new run is refused."""
        try:
            yield
        except Exception:
            with contextlib.suppress(OSError):  # there is something in it: it stays
                self.path.rmdir()
            raise

    def begin(self) -> None:
        """Make the folder of checkpoints, and clear away what writers that were killed have left behind."""
        self.checkpoints.folder.mkdir(exist_ok=True)
        for left in [*self.path.glob(".*.part"), *self.path.glob("*/.*.part")]:
            if left_behind(left):  # an evaluation may be writing beside the training
                left.unlink(missing_ok=True)

    def write_config(self, device: torch.device | str, **more: Any) -> None:
        """Write `config.json`: the configuration and where it is run.

        Args:
            device: device of the training.
            **more: further entries of the provenance, fit for JSON.
        """
        record = {"config": self.config.to_dict(), "provenance": provenance(device) | more}
        replace_file(self.path / "config.json", json.dumps(record, indent=2).encode())

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run was last started; empty before it was."""
        file = self.path / "config.json"
        return json.loads(file.read_bytes()).get("provenance", {}) if file.is_file() else {}

    # The log.

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of the log, oldest first; a last line cut short by a crash is left out.

        Raises:
            ValueError: a whole line is no report.
        """
        file = self.path / "log.jsonl"
        if not file.is_file():
            return []
        complete = file.read_text(encoding="utf-8").split("\n")[:-1]  # every whole line ends in a newline
        try:
            entries = [json.loads(line) for line in complete if line]
        except ValueError as error:
            raise ValueError(f"{file} holds a line that is no report: {error}") from error
        for entry in entries:
            if not isinstance(entry, dict) or not isinstance(entry.get("losses"), dict) or "step" not in entry:
                raise ValueError(f"{file} holds a line that is no report: {json.dumps(entry)[:60]}")
        return entries

    @property
    def steps_logged(self) -> int:
        """Steps taken as of the last line of the log; 0 before there is one."""
        log = self.log()
        return log[-1]["step"] if log else 0

    def append_log(self, report: Report) -> None:
        """Append one line to the log."""
        with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
            entry = dataclasses.asdict(report)
            if not report.skipped_steps:  # as of any precision but float16
                del entry["skipped_steps"]
            file.write(json.dumps(entry) + "\n")

    def sync_log(self) -> None:
        """Wait until the log is on the disk; a checkpoint must not be there before the lines up to its step."""
        if (file := self.path / "log.jsonl").is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())

    def truncate_log(self, step: int) -> None:
        """Drop the lines after `step`: a resumed run writes them again."""
        kept = [json.dumps(entry) + "\n" for entry in self.log() if entry["step"] <= step]
        replace_file(self.path / "log.jsonl", "".join(kept).encode())

    # Results.

    @property
    def tokenizer_dir(self) -> Path:
        """Where the tokenizer is saved."""
        return self.path / "tokenizer"

    @property
    def generator_dir(self) -> Path:
        """Where the generator is saved, of a run that trains one."""
        return self.path / "generator"

    def check_kind(self, kind: str) -> None:
        """Raise ValueError unless the run trains this, a key of `KINDS`."""
        if (trains := kind_of(self.config)) != kind:
            raise ValueError(f"The run {self.path} trains a {trains}, but here it must be one that trains a {kind}.")

    def check_finished(self) -> None:
        """Raise ValueError unless every step was taken: numbers of half a run would pass for the run's."""
        step = self.steps_logged
        if checkpoints := self.checkpoints.files():
            step = min(step, step_of(checkpoints[-1]))  # whose tokenizer it is, wherever the log ends
        if step < self.config.steps:
            by = {"tokenizer": "02_train", "generator": "python -m vistok.generation"}[kind_of(self.config)]
            raise ValueError(
                f"{self.path} has taken {step} of {self.config.steps} steps. Train it to the end first: running "
                f"{by} with the same parameters goes on where it stopped."
            )

    def save_metrics(
        self, record: dict[str, Any], name: str = "metrics.json", *, overwrite: bool = False
    ) -> Path | None:
        """Write an evaluation, and return its file; None where one is there already and stays.

        Args:
            record: `Evaluation.to_dict()`.
            name: of the file, which `evaluate_run` says: `metrics.json` holds the whole of the run's own test split.
            overwrite: replace an evaluation that is there.

        Raises:
            TypeError: `overwrite` is no bool: any other text, "false" too, is true.
        """
        checked("overwrite", bool, overwrite)
        file = self.path / name
        if file.exists() and not overwrite:
            return None
        replace_file(file, json.dumps(record, indent=2).encode())
        return file

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The evaluation on the run's own test split, or None before there is one; raises ValueError where it is damaged."""
        file = self.path / "metrics.json"
        return json_object(file) if file.is_file() else None


def _check_own_folder(path: Path) -> None:
    """Raise ValueError where a new run would go among other things, which `start_over` would then set aside with it.

    Notebooks and logs of whoever starts the run are there before it, and hidden files are nobody's.
    """
    if path.is_file():
        raise ValueError(f"run_dir is {path}, a file, but must be a folder; None makes one for every configuration.")
    held = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    for name in held:
        of_a_run = name in ("checkpoint", *KINDS) or Path(name).suffix in BESIDE_A_RUN
        if not of_a_run and not name.startswith("."):
            raise ValueError(
                f"run_dir is {path}, which holds {readable(name)}, but no run: a run has a folder of its own. Give a new one, "
                f"for instance {path / 'my-run'}, or none: then every configuration has its own."
            )


def run_labels(runs: Sequence[Run]) -> list[str]:
    """Return what to call runs that stand side by side: by what differs between their settings, no two alike.

    Args:
        runs: any; rows are named where these differ, within a row scales, and within a scale the settings.
    """
    settings = [_flat(run.config) for run in runs]
    labels = []
    for mine in settings:
        same_row = [other for other in settings if other["row"] == mine["row"]]
        same_scale = [other for other in same_row if other["scale"] == mine["scale"]]
        parts = [mine["row"]] if len(same_row) < len(settings) or len(settings) == 1 else []
        parts += [mine["scale"]] if len(same_scale) < len(same_row) else []
        names = dict.fromkeys(name for other in same_scale for name in other)
        differing = [name for name in names if any(other.get(name) != mine.get(name) for other in same_scale)]
        labels.append(", ".join(parts + [_in_words(name, mine.get(name)) for name in differing]))
    labels = [label or run.path.name for label, run in zip(labels, runs, strict=True)]
    for label in {label for label in labels if labels.count(label) > 1}:  # the same settings in several directories
        places = [place for place, other in enumerate(labels) if other == label]
        folders = [runs[place].path.name for place in places]
        for number, (place, folder) in enumerate(zip(places, folders, strict=True), start=1):
            labels[place] = f"{label}, {folder}" if folders.count(folder) == 1 else f"{label} ({number})"
    return labels


def _flat(config: Settings) -> dict[str, Any]:
    """Return what makes a run, options of networks and quantizers among the other settings, its row by its short name."""
    flat: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        if name not in config.execution_fields():
            flat |= value if isinstance(value, dict) else {name: value}
    return flat | {"row": config.subject, "scale": config.scale}


def _in_words(name: str, value: Any) -> str:
    if value is None or value is False:
        return f"no {name}"
    return name if value is True else f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
