"""The configuration of one training run: one frozen, typed, flat dataclass, and the tables it can be read from.

A run is fixed by its `TrainConfig`. A *row* of a results table (`tables/*.toml`) says what a run is about, a *scale* says
how long it trains, and every field can be overridden one by one.
"""

import ast
import dataclasses
import hashlib
import inspect
import json
import math
import numbers
import os
import re
import tomllib
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from vistok.system.files import TOO_DEEP, check_nesting, shown, strict_json

T = typing.TypeVar("T")

PACKAGE = Path(__file__).resolve().parent
TABLES = PACKAGE / "tables"
TRAIN_PARTS = ("all", "decoder")
FEW = 12  # names, that a sentence lists beside the one it suggests
MAX_NAME = 64  # characters of a setting that is part of a run's folder name, which may have 255

# Settings of how a run is executed, not of what it computes: they may change when a run is resumed, and two configs that
# differ only in them are the same run. Of the place of the data it is the data that decides: `vistok.data.identity`.
EXECUTION_FIELDS = frozenset(
    {
        "data_root",
        "num_workers",
        "report_every",
        "checkpoint_every",
        "log_with",
        "checkpoint_activations",
        "lpips_weights",
        "deterministic",
    }
)


def in_repository() -> bool:
    """Return whether this package lies in its checkout, and not where a package is installed without one."""
    return (PACKAGE.parent / "pyproject.toml").is_file()


def repository_root() -> Path:
    """Return the checkout that holds `notebooks/` and `runs/`, or the working directory for an installed package."""
    return PACKAGE.parent if in_repository() else Path.cwd()


def runs_root() -> Path:
    """Return the folder of all runs: `$VISTOK_RUNS`, or `runs/` of the repository."""
    return path_from_environment("VISTOK_RUNS", "runs")


def path_from_environment(variable: str, usual: str) -> Path:
    """Return the path that an environment variable names, or the usual one where it is unset or empty: see `resolve_path`.

    Variables in it are expanded: no shell does that for a container's or a notebook's.
    """
    try:
        return resolve_path(os.path.expandvars(os.environ.get(variable) or usual))
    except ValueError as error:
        raise ValueError(f"{error} Or set {variable} to another folder.") from error


def resolve_path(path: str | Path) -> Path:
    """Return `path` absolute, `~` expanded and a relative one counted from the repository.

    Notebooks run with their own folder as working directory under JupyterLab and with the caller's under papermill; counted
    from the repository, one path means one place.

    Raises:
        ValueError: it is empty, or begins with a home folder that is not known here.
    """
    if not str(path).strip():  # counted from the repository it would be all of that
        raise ValueError(
            f"A path is {str(path)!r}, which is empty; is a shell variable unset? Give the path, or leave it out."
        )
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:  # no such user; or, in a container, a user without a home folder
        raise ValueError(
            f"{str(path)!r} begins with a home folder that is not known here: give the whole path."
        ) from error
    return expanded if expanded.is_absolute() else repository_root() / expanded


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of an error sentence: the known name that `name` misspells, if it does one, and what may be chosen.

    All known names are listed where they are few, or where none is near.
    """
    known = sorted(known)
    near = misspelt(name, known)
    listed = f"Known: {', '.join(known)}." if near is None or len(known) <= FEW else ""
    return " ".join(part for part in ("" if near is None else f"did you mean {near!r}?", listed) if part)


def misspelt(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is a slip of, or its beginning or one of its words; None: none is near enough.

    A slip is at most one letter in three left out, added or replaced, or two neighbours exchanged.
    """
    wrong, candidates = _plain(name), sorted(known)
    slips = [(slips_between(wrong, _plain(right)), right) for right in candidates]
    slips = [(count, right) for count, right in slips if count <= max(len(wrong), len(right)) // 3]
    if slips:
        return min(slips)[1]
    part_of = [right for right in candidates if len(wrong) > 2 and _is_word_of(wrong, _plain(right))]
    return min(part_of, key=len, default=None)


def slips_between(wrong: str, right: str) -> int:
    """Return how many letters were left out, added, replaced or exchanged with their neighbour.

    The optimal string alignment distance (Damerau 1964): unlike Levenshtein's, "fqs" is one slip away from "fsq".
    """
    above: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(wrong, 1):
        before, above, row = above, row, [i]
        for j, other in enumerate(right, 1):
            count = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (letter != other))
            if i > 1 and j > 1 and (wrong[i - 2], letter) == (other, right[j - 2]):
                count = min(count, before[j - 2] + 1)
            row.append(count)
    return row[-1]


def _plain(name: object) -> str:
    return str(name).casefold().replace("-", "_")[:MAX_NAME]


def _is_word_of(part: str, whole: str) -> bool:
    return f"_{part}_" in f"_{whole}_" or whole.startswith(part)


def read_table(name: str) -> dict[str, Any]:
    """Return a results table, `tables/<name>.toml`, complete.

    A table that is `based_on` another has its recipe and scales; a row that is the `same_as` one of another table, named
    "table/row", has all of that row.

    Raises:
        ValueError: there is no such table, or its file does not hold one.
    """
    return _read_table(name, ())


def _read_table(name: str, readers: tuple[str, ...]) -> dict[str, Any]:
    """Return a table that the tables `readers` refer to, one after the other."""
    known = [p.stem for p in TABLES.glob("*.toml")]
    if name not in known:  # so that no name leads out of the folder
        raise ValueError(f"There is no table {shown(name)}; {nearest(name, known)}")
    if name in readers:
        raise ValueError(
            f"The table {name!r} refers to itself, by {' -> '.join((*readers, name))}: name one row there."
        )
    readers = (*readers, name)
    try:
        table = tomllib.loads((TABLES / f"{name}.toml").read_bytes().decode())
        check_nesting(table)
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML; nested deeper than the parser can call itself
        reason = TOO_DEEP if isinstance(error, RecursionError) else str(error)
        raise ValueError(f"The table {name!r} is not TOML that can be read: {reason}.") from error
    if "based_on" in table:
        base = _read_table(table["based_on"], readers)
        table |= {"recipe": base["recipe"], "scales": base["scales"]}
    rows = _part(table, "rows", list, f"table {name!r}")
    for number, row in enumerate(rows):
        if type(row) is not dict:
            raise ValueError(f"Row {number} of table {name!r} is {shown(row)}, but must be a table: [[rows]].")
        if "same_as" in row:
            same_as = _part(row, "same_as", str, f"row {number} of table {name!r}")
            other_table, _, other_name = same_as.partition("/")
            others = {r["name"]: r for r in _read_table(other_table, readers)["rows"]}
            if other_name not in others:
                raise ValueError(f"Table {other_table!r} has no row {shown(other_name)}; {nearest(other_name, others)}")
            row |= others[other_name]
    _check_table(name, table)
    return table


def _check_table(name: str, table: dict[str, Any]) -> None:
    """Raise ValueError where a part of a table that `TrainConfig.from_row` needs is missing or of another kind."""
    what = f"table {name!r}"
    for text in ("title", "source", "note"):
        _part(table, text, str, what)
    _part(table, "recipe", dict, what)
    scales = _part(table, "scales", dict, what)
    families = _part(table, "families", dict, what) if "families" in table else {}
    by_scale = {f"scales of {what}": scales}
    for family in families:
        by_scale[f"family {shown(family)} of {what}"] = _part(families, family, dict, f"families of {what}")
    for part_of, part in by_scale.items():
        for scale in scales:
            _part(part, scale, dict, part_of)
    names = [_part(row, "name", str, f"a row of {what}") for row in table["rows"]]
    for number, row in enumerate(table["rows"]):
        row_of = f"row {shown(names[number])} of {what}"
        if names.index(names[number]) < number:
            raise ValueError(f"The {row_of} stands there twice; every row has a name of its own.")
        for part in ("settings", "published", *(part for part in ("recipe", "paper") if part in row)):
            _part(row, part, dict, row_of)
        if "family" in row and _part(row, "family", str, row_of) not in families:
            raise ValueError(f"The {row_of} has family {shown(row['family'])}; {nearest(row['family'], families)}")


def _part(table: dict[str, Any], key: str, kind: type[T], what: str) -> T:
    """Return `table[key]`, or raise ValueError where it is missing or not of this kind; `what` names the table."""
    if key not in table:
        raise ValueError(f"There is no {key!r} in {what}: it must be there, a {kind.__name__}.")
    if type(table[key]) is not kind:
        raise ValueError(f"{key!r} of {what} is {shown(table[key])}, but must be a {kind.__name__}.")
    return table[key]


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
    hidden_dim: int = 256  # width: channels of simple_cnn's lowest resolution and of vqgan's highest, of vit's tokens
    num_res_blocks: int = 2  # residual blocks, of vqgan in every resolution
    network_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # options of one network
    quantizer: str = "vq"
    codebook_size: int = 512  # K
    codebook_dim: int = 4  # D
    l2_norm: bool = False  # codes and encoder outputs on the unit sphere
    quantizer_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # options of one quantizer family

    # Where training starts from, and what it changes.
    init_from: str | None = (
        None  # a run, a saved tokenizer or an official checkpoint, to fine-tune; None: random weights
    )
    train_parts: str = "all"  # "all", or "decoder": encoder and codebook stay, so that tokens keep their meaning

    # Loss of the tokenizer: a weighted sum of reconstruction, perceptual and adversarial terms and the quantizer's own.
    reconstruction_error: str = "l2"  # "l2" or "l1", on images in [-1, 1]
    reconstruction_weight: float = 1.0
    logit_laplace_weight: float = 0.0
    lpips_weight: float = 0.0
    codebook_weight: float = 1.0
    commitment_weight: float = 0.25
    entropy_weight: float = 0.1
    kl_weight: float = 5e-4

    # The discriminator and what comes of it; None and 0: not adversarial.
    discriminator: str | None = None  # "patchgan" or "stylegan2"
    discriminator_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    discriminator_lr: float | None = None  # None: lr
    discriminator_start: int = 0  # steps before the discriminator learns
    adversarial_loss: str = "hinge"  # "hinge", "vanilla" or "non-saturating"
    adversarial_weight: float = 0.0
    adversarial_adaptive: bool = False  # times the ratio of gradients at the decoder's last layer
    adversarial_start: int = 0  # steps before the tokenizer hears of the discriminator
    lecam_weight: float = 0.0
    lecam_logits: str = "each"  # penalised: "each", or the "mean" of the batch (1d-tokenizer)
    r1_weight: float = 0.0  # gamma
    r1_every: int = 16  # steps from one gradient penalty to the next

    # Optimisation.
    batch_size: int = 256  # images a step, over all processes
    accumulate: int = 1  # parts of a batch, one after the other: less memory
    steps: int = 500_000
    optimizer: str = "adam"  # "adam" or "adamw"
    lr: float = 4e-4
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0  # of adamw
    lr_schedule: str = "constant"  # "constant" or "cosine" (to min_lr at the last step)
    min_lr: float = 0.0  # where the cosine ends; the discriminator's falls in the same proportion
    warmup_steps: int = 0  # steps of linear rise to lr
    gradient_clip: float | None = None  # largest norm of all gradients together
    ema_decay: float | None = None  # of the moving average of the weights, which is then saved and measured
    seed: int = 8888
    precision: str = "auto"  # "float32", "bfloat16", or "auto": bfloat16 where the hardware computes in it
    compile: bool = False  # torch.compile the tokenizer

    # Execution (see EXECUTION_FIELDS).
    checkpoint_activations: bool = False  # recompute them in the backward pass: less memory, one more forward pass
    lpips_weights: str | None = None  # VGG16's weights file; None: PyTorch's download folder, or a download
    deterministic: bool = False  # on a GPU too: the same numbers at every time, slower
    num_workers: int = 0  # loading processes; 0: load in the training process
    report_every: int = 10  # steps between two reports and two lines of the log
    checkpoint_every: int = 500  # steps
    log_with: str | None = None  # "tensorboard" or "wandb"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, checked(field.name, _TYPES[field.name], getattr(self, field.name)))
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in _AT_LEAST_ZERO:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 0.")
        for name, usual in _ABOVE_ZERO.items():
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0; {usual} is usual.")
        for name in ("beta1", "beta2", "ema_decay"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be in [0, 1).")
        if self.test_fraction is not None and not 0 < self.test_fraction < 1:
            raise ValueError(f"test_fraction is {self.test_fraction}, but must be between 0 and 1; 0.1 is usual.")
        if self.seed >= 2**32:
            raise ValueError(f"seed is {self.seed}, but must be below 2**32.")
        for name in _PATHS:
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, an empty path; is a shell variable unset? Give the path, or leave "
                    "it None."
                )
        for name in _IN_FOLDER_NAMES:
            _check_folder_name(name, getattr(self, name))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {shown(getattr(self, name))}; {nearest(getattr(self, name), [c for c in choices if c])}"
                )
        for options in ("quantizer_options", "network_options"):
            for name in getattr(self, options):
                if name in _TYPES:
                    raise ValueError(f"{options} holds {name!r}, which is a setting of its own: set {name} instead.")
        self._refuse_without_effect()

    def _refuse_without_effect(self) -> None:
        """Raise ValueError for a setting that was made, but that another one makes idle."""
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate is {self.accumulate}, but must divide batch_size {self.batch_size}.")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay is {self.weight_decay}, but only optimizer 'adamw' decays weights.")
        if self.train_parts != "all" and self.init_from is None:
            raise ValueError(f"train_parts is {self.train_parts!r}, but without init_from the other parts are random.")
        if self.lr_schedule == "cosine" and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, but the run has only {self.steps} steps.")
        if self.min_lr and self.lr_schedule != "cosine":
            raise ValueError(f"min_lr is {self.min_lr}, but only lr_schedule 'cosine' falls to it; leave it 0.")
        if self.min_lr >= self.lr:
            raise ValueError(f"min_lr is {self.min_lr}, but must be below lr {self.lr}, from which the cosine falls.")
        if self.discriminator is None:
            default = {field.name: field.default for field in dataclasses.fields(self)}
            made = [n for n in _ADVERSARIAL if getattr(self, n) and getattr(self, n) != default[n]]
            if made:
                raise ValueError(
                    f"{made[0]} is {getattr(self, made[0])!r}, but there is no discriminator; 'patchgan' is usual."
                )
            return
        if self.adversarial_weight == 0:
            raise ValueError(
                f"discriminator is {self.discriminator!r}, but adversarial_weight is 0: the tokenizer would never hear "
                "of it. Usual are 0.5 and 0.8."
            )
        if self.lecam_logits != "each" and not self.lecam_weight:
            raise ValueError(f"lecam_logits is {self.lecam_logits!r}, but lecam_weight is 0; 0.001 is usual.")
        if self.adversarial_start < self.discriminator_start:
            raise ValueError(
                f"adversarial_start is {self.adversarial_start}, before discriminator_start "
                f"{self.discriminator_start}: the tokenizer would follow an untrained discriminator."
            )
        if self.adversarial_start >= self.steps:
            raise ValueError(
                f"adversarial_start is {self.adversarial_start}, but the run has only {self.steps} steps: the "
                f"adversarial term would never count. Half of them is {self.steps // 2}."
            )

    @classmethod
    def from_row(cls, row: str, scale: str = "quick", **overrides: Any) -> Self:
        """Return the configuration of a row of a results table at a scale.

        Args:
            row: "table/row", for instance "celeba64/vq-d8"; or a table's name alone: its recipe, nothing fixed by a row.
            scale: "smoke", "quick", "laptop" or "paper".
            **overrides: fields of `TrainConfig`; they win over the row and the scale. A run that changes what its row
                fixes is no longer that row: it is warned of, and the result's `row` is None.

        Returns:
            the configuration; of a row that stands in a second table its `row` names the first.

        Raises:
            ValueError: the table, row, scale or a field is unknown; the sentence names the nearest known one.
        """
        table_name, _, row_name = checked("row", str, row).partition("/")
        table = read_table(table_name)
        if scale not in table["scales"]:
            raise ValueError(f"There is no scale {scale!r}; {nearest(scale, table['scales'])}")
        fixed: dict[str, Any] = {}
        of_scale = table["scales"][scale]
        if row_name:
            rows = {r["name"]: r for r in table["rows"]}
            if row_name not in rows:
                raise ValueError(f"Table {table_name!r} has no row {row_name!r}; {nearest(row_name, rows)}")
            found = rows[row_name]
            if "same_as" in found:  # one run, whichever table asks for it
                return cls.from_row(found["same_as"], scale, **overrides)
            fixed = found["settings"]
            if "family" in found:
                of_scale = of_scale | table["families"][found["family"]][scale]
            if scale == "paper":
                of_scale = of_scale | found.get("recipe", {})
        changed = sorted(k for k, v in overrides.items() if k in fixed and fixed[k] != v)
        if changed:
            warnings.warn(f"{', '.join(changed)} differ from row {row!r}: this run is not that row.", stacklevel=2)
        settings = table["recipe"] | of_scale | fixed | {"row": None if changed or not fixed else row}
        return cls.from_dict(settings | {"scale": scale} | overrides)

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
            if key not in _TYPES:
                raise ValueError(f"There is no setting {shown(key)}; {nearest(key, _TYPES)}")
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
        """Eight hex digits of what makes this run: a field at its default does not count, so a new one changes none.

        The place of the data counts, however it is spelled, so that a new run on other data has a name of its own.
        """
        default = TrainConfig()
        changed = {k: mine for k, (mine, _) in self.differences(default).items()}
        if (place := self._data_place) is not None:
            changed["data_root"] = place
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def _data_place(self) -> str | None:
        """The folder of the data, absolute and without links; None: the usual one of the dataset."""
        if self.data_root is None:
            return None
        try:
            place = os.path.realpath(resolve_path(self.data_root))
        except (ValueError, RuntimeError, OSError):  # no path of this machine; whoever opens it says so
            return self.data_root
        return None if place == os.path.realpath(resolve_path(f"data/{self.dataset}")) else place

    @property
    def run_name(self) -> str:
        """`<row or quantizer>-<scale>-<dataset>-s<seed>-<8 hex of the config>`: two settings never share one."""
        name = self.row.rpartition("/")[2] if self.row else self.quantizer
        return f"{name}-{self.scale}-{self.dataset}-s{self.seed}-{self.fingerprint}"

    @property
    def run_dir(self) -> Path:
        """The directory of a new run, `<runs>/<run_name>`; `vistok.data.find_run_dir` finds one that is there."""
        return runs_root() / self.run_name


_TYPES: dict[str, Any] = typing.get_type_hints(TrainConfig)
_AT_LEAST_ONE = (
    *("image_size", "hidden_dim", "num_res_blocks", "codebook_size", "codebook_dim"),
    *("batch_size", "accumulate", "steps", "r1_every", "report_every", "checkpoint_every"),
)
_AT_LEAST_ZERO = (
    *("seed", "num_workers", "warmup_steps", "discriminator_start", "adversarial_start", "weight_decay"),
    *("reconstruction_weight", "logit_laplace_weight", "lpips_weight", "codebook_weight", "commitment_weight"),
    *("entropy_weight", "kl_weight", "adversarial_weight", "lecam_weight", "r1_weight", "min_lr"),
)
_PATHS = ("data_root", "init_from", "lpips_weights")
_IN_FOLDER_NAMES = ("row", "scale", "dataset", "quantizer")  # see TrainConfig.run_name
_FOLDER_NAME = re.compile(rf"[A-Za-z0-9_.+-]{{1,{MAX_NAME}}}")
_ABOVE_ZERO = {"lr": 0.0004, "discriminator_lr": 0.0001, "gradient_clip": 1.0}  # name to what is usual
_ADVERSARIAL = (
    *("discriminator_options", "discriminator_lr", "discriminator_start", "adversarial_weight"),
    *("adversarial_adaptive", "adversarial_start", "lecam_weight", "lecam_logits", "r1_weight"),
)
_CHOICES = {
    "train_parts": TRAIN_PARTS,
    "reconstruction_error": ("l2", "l1"),
    "adversarial_loss": ("hinge", "vanilla", "non-saturating"),
    "optimizer": ("adam", "adamw"),
    "lr_schedule": ("constant", "cosine"),
    "lecam_logits": ("each", "mean"),
    "precision": ("auto", "float32", "bfloat16"),
    "on_bad_image": ("raise", "skip"),
    "crop": (None, "cached", "adm"),
    "log_with": (None, "tensorboard", "wandb"),
}


_SEQUENCES = (list, tuple, Sequence)
_PLAIN = (bool, int, float, str, dict, types.NoneType, *_SEQUENCES)


def checked(name: str, annotation: Any, value: Any) -> Any:
    """Return a setting as the type of its annotation: an int is a float, NumPy's numbers are Python's, a bool is no int.

    Args:
        name: of the setting, for the error.
        annotation: plain types, None, dicts, and sequences of one type, or a union of them; anything else is not checked.
        value: of the setting.

    Raises:
        TypeError: it has another type.
        ValueError: a number is not finite or beyond 64 bits, or a dict is not fit for JSON.
    """
    options = _options(annotation)
    plain = tuple(typing.get_origin(option) or option for option in options)
    if not set(plain) <= set(_PLAIN):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        value = int(value)
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"{name} is {shown(value)}, but must be within 64 bits, at most 2**63 - 1.")
    if float in options and isinstance(value, numbers.Real) and not isinstance(value, bool):
        value = float(value)
    of_sequence = [option for option, kind in zip(options, plain, strict=True) if kind in _SEQUENCES]
    if of_sequence and isinstance(value, list | tuple):
        (of_one, *_) = (*typing.get_args(of_sequence[0]), Any)
        return type(value)(checked(f"{name}[{place}]", of_one, one) for place, one in enumerate(value))
    if type(value) not in plain:
        wanted = " or ".join(map(_type_name, options))
        raise TypeError(f"{name} is {shown(value)} ({type(value).__name__}), but must be of type {wanted}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, but must be a finite number.")
    if isinstance(value, dict):  # a copy, and the same after a round trip: a tuple is a list
        try:
            check_nesting(value)
            value = json.loads(json.dumps(value, allow_nan=False))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{name} is {shown(value)}, but must be fit for JSON ({error}).") from error
    return value


def as_given(name: str, annotation: Any, value: Any) -> Any:
    """Return a setting as people and shells give it: like `checked`, but what plainly says a value of that type is that value.

    A text where no text is expected is read (`literal`), "none" and "null" are None where that may be, a path is a text,
    and one value where a list is expected is the list of that one.
    """
    options = _options(annotation)
    if isinstance(value, os.PathLike) and str in options:
        value = os.fspath(value)
    if isinstance(value, str) and types.NoneType in options and value.lower() in ("none", "null"):
        return None
    of_list = [option for option in options if typing.get_origin(option) is list]
    if of_list and value is not None:
        read = literal(value) if isinstance(value, str) else value
        several = isinstance(read, Iterable) and not isinstance(read, str | dict | os.PathLike)
        (of_one,) = typing.get_args(of_list[0])
        each = list(read) if several else [value]
        value = [as_given(f"{name}[{place}]" if several else name, of_one, one) for place, one in enumerate(each)]
    elif isinstance(value, str) and str not in options and Any not in options:
        value = literal(value)
    return checked(name, annotation, value)


def literal(text: str) -> Any:
    """Return what a text says: a Python literal, or YAML's words for truth, lists and tables; else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        read = _yaml(text)  # whose numbers are left: there 010 is 8, and 1:30 is 90
        return read if isinstance(read, bool | list | dict) else text


def _yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def settings_as_given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of `TrainConfig` `as_given`; names that it does not have are left for it to refuse."""
    return {name: as_given(name, _TYPES.get(name, Any), value) for name, value in settings.items()}


def _options(annotation: Any) -> tuple[Any, ...]:
    return typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _type_name(option: Any) -> str:
    kind = typing.get_origin(option) or option
    if kind in _SEQUENCES:
        return " of ".join(["list", *(_type_name(of_one) for of_one in typing.get_args(option)[:1])])
    return "None" if kind is types.NoneType else kind.__name__


def _check_folder_name(name: str, value: str | None) -> None:
    """Raise ValueError where a setting would make the folder name of a run more than one name; a row is "table/row"."""
    parts = [] if value is None else value.split("/") if name == "row" else [value]
    if len(parts) <= 2 and all(_FOLDER_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
        return
    near = re.sub(r"[^A-Za-z0-9_.+-]+", "-", parts[-1][:MAX_NAME]).strip("-.") or name
    slash = ', and one "/" as in "table/row"' if name == "row" else ""
    raise ValueError(
        f"{name} is {shown(value)}, but names a folder: it must be letters, digits and any of _ . - +{slash}, at most "
        f"{MAX_NAME} of them and not only dots; {near!r} can be."
    )


def call_with_options(what: str, build: Callable[..., T], options: dict[str, Any], **known_anyway: Any) -> T:
    """Return `build(**options)` once every option is known to be one that `build` takes, of the type that it names.

    Args:
        what: what is built, for the error.
        build: a class or function.
        options: arguments of it.
        **known_anyway: further arguments, for those that take them.

    Raises:
        ValueError: an option is not in the signature; the sentence names `what` and the nearest option.
        TypeError: an option has another type than its annotation.
    """
    known = inspect.signature(build).parameters
    for key in options:
        if key not in known:
            raise ValueError(f"The {what} has no option {key!r}; {nearest(key, known)}")
    given = {key: checked(f"{what}: {key}", known[key].annotation, value) for key, value in options.items()}
    return build(**{key: value for key, value in known_anyway.items() if key in known} | given)
