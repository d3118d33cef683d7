"""What every configuration is: one frozen, typed, flat dataclass, checked when it is made, read from JSON and written as such.

Two configurations that differ only in how a run is executed are the same run.
"""

import abc
import dataclasses
import functools
import hashlib
import json
import typing
from pathlib import Path
from typing import Any, Self

from vistok.system.files import shown, strict_json
from vistok.system.paths import RUN_NAME, real_place, runs_root
from vistok.system.values import as_given, check_known, checked


def setting(default: Any, **about: bool) -> Any:
    """Return a field; `execution`: how a run is executed, which may change when it is resumed; `names_run`: it names another
    run's folder, which may be moved; a class may know more."""
    kind = {"default_factory": dict} if default == {} else {"default": default}
    return dataclasses.field(**kind, metadata=about)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(abc.ABC):
    """Base of all configurations: a subclass is a frozen dataclass of keyword-only fields, each annotated with its bounds.

    Raises:
        ValueError: a value is out of range; the sentence names it and the nearest valid one.
        TypeError: a value has another type than its field.
    """

    scale: typing.ClassVar[str] = "custom"  # a subclass may have fields of these names
    row: typing.ClassVar[str | None] = None

    def __post_init__(self) -> None:
        for name, annotation in self.types().items():
            object.__setattr__(self, name, checked(name, annotation, getattr(self, name)))
        self.refuse_without_effect()

    @classmethod
    @functools.cache
    def types(cls) -> dict[str, Any]:
        """Return the annotation of each field, with its bounds."""
        hints = typing.get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name] for field in dataclasses.fields(cls)}

    @classmethod
    @functools.cache
    def execution_fields(cls) -> frozenset[str]:
        """Return the fields that may change when a run is resumed."""
        return frozenset(field.name for field in dataclasses.fields(cls) if "execution" in field.metadata)

    @abc.abstractmethod
    def refuse_without_effect(self) -> None:
        """Raise ValueError for a setting that was made, but that another one makes idle."""

    @property
    @abc.abstractmethod
    def run_name(self) -> str:
        """Name of the run's directory: two settings never share one."""

    @property
    @abc.abstractmethod
    def subject(self) -> str:
        """What a run is called by, in short, where it stands beside others."""

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """Return the configuration with these fields set and the others at their defaults.

        Raises:
            ValueError: a key is not a field; the sentence names the nearest field.
            TypeError: `settings` is no dict.
        """
        if not isinstance(settings, dict):
            raise TypeError(f"A configuration is a dict of settings, not {shown(settings)}.")
        for key in settings:
            check_known("There is no setting", key, cls.types())
        return cls(**settings)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Return the configuration written by `to_json`; raises ValueError or TypeError where the text is not one."""
        try:
            settings = strict_json(text)
        except ValueError as error:
            raise ValueError(f"A configuration is a JSON object of settings, but this text is not: {error}.") from error
        if not isinstance(settings, dict):
            raise ValueError("A configuration is a JSON object of settings.")
        return cls.from_dict(settings)

    @classmethod
    def as_given(cls, settings: dict[str, Any]) -> dict[str, Any]:
        """Return settings `as_given` by people and shells; names that are no fields are left for the class to refuse."""
        return {name: as_given(name, cls.types().get(name, Any), value) for name, value in settings.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name, fit for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the configuration as JSON text, one field a line."""
        return json.dumps(self.to_dict(), indent=2)

    def differences(self, other: "Settings") -> dict[str, tuple[Any, Any]]:
        """Return the fields that make `other` another run, each with (own value, other's value); None: it has no such field."""
        mine, theirs = self.to_dict(), other.to_dict()
        decide = [name for name in mine | theirs if name not in self.execution_fields() | other.execution_fields()]
        pairs = {name: (mine.get(name), theirs.get(name)) for name in decide}
        return {name: pair for name, pair in pairs.items() if self._told(name, pair[0]) != self._told(name, pair[1])}

    @classmethod
    def _told(cls, name: str, value: Any) -> Any:
        """Return what tells a value of a field from others: a run is told by its name, wherever the runs lie."""
        field = cls.__dataclass_fields__.get(name)
        named = field is not None and "names_run" in field.metadata and value is not None
        return f"runs/{Path(value).name}" if named and RUN_NAME.fullmatch(Path(value).name) else value

    @property
    def data_places(self) -> dict[str, tuple[str | None, str]]:
        """Fields that say where data lies: the path given, and the usual one, which does not count."""
        return {}

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of what makes this run: a field at its default does not count, so a new one changes none.

        The place of the data counts, however it is spelled, so that a new run on other data has a name of its own.
        """
        changed = {k: self._told(k, mine) for k, (mine, _) in self.differences(type(self)()).items()}
        for name, (path, usual) in self.data_places.items():
            place = None if path is None else real_place(path)
            if place not in (None, real_place(usual)):
                changed[name] = place
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_dir(self) -> Path:
        """The directory of a new run, `<runs>/<run_name>`; `vistok.data.find_run_dir` finds one that is there."""
        return runs_root() / self.run_name


def refuse_idle_schedule(config: Any) -> None:
    """Raise ValueError where a schedule of the learning rate, of a tokenizer's configuration or another's, has no effect."""
    needed = config.warmup_steps + (config.lr_schedule != "constant")  # a schedule needs a step to fall in
    if config.warmup_steps and needed > config.steps:
        raise ValueError(f"warmup_steps is {config.warmup_steps}, but the run has only {config.steps} steps.")
    if config.min_lr and config.lr_schedule == "constant":
        raise ValueError(
            f"min_lr is {config.min_lr}, but only lr_schedule 'cosine' and 'linear' fall to it; leave it 0."
        )
    if config.min_lr >= config.lr:
        raise ValueError(f"min_lr is {config.min_lr}, but must be below lr {config.lr}, from which the schedule falls.")
