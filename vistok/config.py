"""The configuration of one training run: one frozen, typed, flat dataclass, and the tables it can be read from.

A run is fixed by its `TrainConfig`. A *row* of a results table (`tables/*.toml`) says what a run is about, a *scale* says
how long it trains, and every field can be overridden one by one. The bottom of the package: it imports nothing of vistok.
"""

import dataclasses
import difflib
import hashlib
import inspect
import json
import math
import os
import tomllib
import types
import typing
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

T = typing.TypeVar("T")

PACKAGE = Path(__file__).resolve().parent
TABLES = PACKAGE / "tables"

# Settings of how a run is executed, not of what it computes: they may change when a run is resumed, and two configs that
# differ only in them are the same run.
EXECUTION_FIELDS = frozenset({"num_workers", "report_every", "checkpoint_every", "log_with"})


def repository_root() -> Path:
    """Return the checkout that holds `notebooks/` and `runs/`, or the working directory for an installed package."""
    return PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd()


def runs_root() -> Path:
    """Return the folder of all runs: `$VISTOK_RUNS`, or `runs/` of the repository."""
    return Path(os.environ.get("VISTOK_RUNS") or repository_root() / "runs").absolute()


def resolve_path(path: str | Path) -> Path:
    """Return `path` absolute, a relative one counted from the repository.

    Notebooks run with their own folder as working directory under JupyterLab and with the caller's under papermill; counted
    from the repository, one path means one place.
    """
    path = Path(path).expanduser()
    return path if path.is_absolute() else repository_root() / path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: to a new name beside it, synced, then renamed over the old one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of an error sentence: the known name nearest to `name`, and all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    return (f"did you mean {close[0]!r}? " if close else "") + f"Known: {', '.join(known)}."


def read_table(name: str) -> dict[str, Any]:
    """Return a results table as it stands in `tables/<name>.toml`.

    Raises:
        ValueError: there is no such table.
    """
    path = TABLES / f"{name}.toml"
    known = [p.stem for p in TABLES.glob("*.toml")]
    if name not in known:
        raise ValueError(f"There is no table {name!r}; {nearest(name, known)}")
    return tomllib.loads(path.read_text(encoding="utf-8"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that fixes one training run.

    The defaults are those of the VQ-VAE table (VQ-VAE, arXiv:1711.00937, with the widths of the SimpleCNN recipe) at paper
    scale; `from_row` sets what a table and a scale say. `None` means "the usual for what is chosen elsewhere".

    Raises:
        ValueError: a value is out of range; the sentence names it and the nearest valid one.
        TypeError: a value has another type than its field.
    """

    # What the run is called.
    row: str | None = None  # "table/row" that fixed the settings, or None
    scale: str = "custom"  # name of the scale that fixed the length

    # Data.
    dataset: str = "photos"  # photos, celeba, imagenet, imagenet-sample, folder
    data_root: str | None = None  # folder of the dataset; None: data/<dataset> of the repository
    image_size: int = 64  # pixels, height and width
    crop: str | None = None  # "cached" or "adm"; None: the usual of the dataset
    test_fraction: float | None = None  # of a folder without split subfolders; None: 0.1
    flip: bool = True  # horizontal flips of training images with probability 1/2
    on_bad_image: str = "raise"  # "raise", or "skip" files that cannot be decoded

    # Model.
    network: str = "simple_cnn"
    hidden_dim: int = 256  # channels of the encoder's output
    num_res_blocks: int = 2
    quantizer: str = "vq"
    codebook_size: int = 512  # K
    codebook_dim: int = 4  # D
    l2_norm: bool = False  # codes and encoder outputs on the unit sphere
    quantizer_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # options of one quantizer family

    # Loss: weighted sum of reconstruction (mean squared error) and whatever the quantizer returns.
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25

    # Optimisation.
    batch_size: int = 256  # images a step, over all processes
    steps: int = 500_000
    lr: float = 4e-4
    beta1: float = 0.9
    beta2: float = 0.999
    seed: int = 8888
    precision: str = "auto"  # "float32", "bfloat16", or "auto": bfloat16 where the hardware computes in it
    compile: bool = False  # torch.compile the tokenizer

    # Execution (see EXECUTION_FIELDS).
    num_workers: int = 0  # loading processes; 0: load in the training process
    report_every: int = 10  # steps between two reports and two lines of the log
    checkpoint_every: int = 500  # steps
    log_with: str | None = None  # "tensorboard" or "wandb"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field.name, _TYPES[field.name], getattr(self, field.name)))
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("seed", "num_workers", "codebook_weight", "commitment_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0.")
        if self.lr <= 0:
            raise ValueError(f"lr is {self.lr}, but must be above 0; 0.0004 is the published recipe's.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1).")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction is {self.test_fraction}, but must be between 0 and 1; 0.1 is usual.")
        if self.seed >= 2**32:
            raise ValueError(f"seed is {self.seed}, but must be below 2**32.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}; {nearest(getattr(self, name), [c for c in choices if c])}"
                )
        for name in self.quantizer_options:
            if name in _TYPES:
                raise ValueError(
                    f"quantizer_options holds {name!r}, which is a setting of its own: set {name} instead."
                )

    @classmethod
    def from_row(cls, row: str, scale: str = "quick", **overrides: Any) -> Self:
        """Return the configuration of a row of a results table at a scale.

        Args:
            row: "table/row", for instance "celeba64/vq-d8"; or a table's name alone: its recipe, nothing fixed by a row.
            scale: "smoke", "quick", "laptop" or "paper".
            **overrides: fields of `TrainConfig`; they win over the row and the scale. A run that changes what its row
                fixes is no longer that row: it is warned of, and the result's `row` is None.

        Raises:
            ValueError: the table, row, scale or a field is unknown; the sentence names the nearest known one.
        """
        table_name, _, row_name = _checked("row", str, row).partition("/")
        table = read_table(table_name)
        if scale not in table["scales"]:
            raise ValueError(f"There is no scale {scale!r}; {nearest(scale, table['scales'])}")
        fixed: dict[str, Any] = {}
        if row_name:
            rows = {r["name"]: r for r in table["rows"]}
            if row_name not in rows:
                raise ValueError(f"Table {table_name!r} has no row {row_name!r}; {nearest(row_name, rows)}")
            fixed = rows[row_name]["settings"]
        changed = sorted(k for k, v in overrides.items() if k in fixed and fixed[k] != v)
        if changed:
            warnings.warn(f"{', '.join(changed)} differ from row {row!r}: this run is not that row.", stacklevel=2)
        settings = table["recipe"] | table["scales"][scale] | fixed | {"row": None if changed or not fixed else row}
        return cls.from_dict(settings | {"scale": scale} | overrides)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """Return the configuration with these fields set and the others at their defaults.

        Raises:
            ValueError: a key is not a field; the sentence names the nearest field.
        """
        for key in settings:
            if key not in _TYPES:
                raise ValueError(f"There is no setting {key!r}; {nearest(key, _TYPES)}")
        return cls(**settings)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the configuration written by `to_json`; raises ValueError where the text is not one."""
        settings = json.loads(text)
        if not isinstance(settings, dict):
            raise ValueError("A configuration is a JSON object of settings.")
        return cls.from_dict(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return every field by name, fit for JSON."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the configuration as JSON text, one field a line."""
        return json.dumps(self.to_dict(), indent=2)

    def differences(self, other: "TrainConfig") -> dict[str, tuple[Any, Any]]:
        """Return the fields that make `other` another run, each with (own value, other's value)."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {k: (mine[k], theirs[k]) for k in mine if k not in EXECUTION_FIELDS and mine[k] != theirs[k]}

    @property
    def fingerprint(self) -> str:
        """Eight hex digits of what makes this run: a field at its default does not count, so a new one changes none."""
        default = TrainConfig()
        changed = {k: mine for k, (mine, _) in self.differences(default).items()}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def run_name(self) -> str:
        """`<row or quantizer>-<scale>-<dataset>-s<seed>-<8 hex of the config>`: two settings never share one."""
        name = self.row.rpartition("/")[2] if self.row else self.quantizer
        return f"{name}-{self.scale}-{self.dataset}-s{self.seed}-{self.fingerprint}"

    @property
    def run_dir(self) -> Path:
        """The default run directory, `<runs>/<run_name>`."""
        return runs_root() / self.run_name


_TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig)
_AT_LEAST_ONE = (
    *("image_size", "hidden_dim", "num_res_blocks", "codebook_size", "codebook_dim"),
    *("batch_size", "steps", "report_every", "checkpoint_every"),
)
_CHOICES = {
    "precision": ("auto", "float32", "bfloat16"),
    "on_bad_image": ("raise", "skip"),
    "crop": (None, "cached", "adm"),
    "log_with": (None, "tensorboard", "wandb"),
}


def _checked(name: str, annotation: Any, value: Any) -> Any:
    """Return `value` as its field's type (an int is a float, a bool is not an int), or raise TypeError."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    plain = tuple(typing.get_origin(option) or option for option in options)
    if type(value) not in plain:
        wanted = " or ".join("None" if option is types.NoneType else option.__name__ for option in plain)
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), but must be of type {wanted}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be a finite number.")
    if isinstance(value, dict):  # a copy, and the same after a round trip: a tuple is a list
        try:
            value = json.loads(json.dumps(value, allow_nan=False))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is {value!r}, but must be fit for JSON ({error}).") from error
    return value


def call_with_options(what: str, build: Callable[..., T], options: dict[str, Any]) -> T:
    """Return `build(**options)` once every option is known to be one that `build` takes.

    Raises:
        ValueError: an option is not in the signature; the sentence names `what` and the nearest option.
    """
    known = list(inspect.signature(build).parameters)
    for key in options:
        if key not in known:
            raise ValueError(f"The {what} has no option {key!r}; {nearest(key, known)}")
    return build(**options)
