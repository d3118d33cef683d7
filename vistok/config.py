"""The configuration of one training run: one frozen, typed, flat dataclass, and the tables it can be read from.

A run is fixed by its `TrainConfig`. A *row* of a results table (`tables/*.toml`) says what a run is about, a *scale* says
how long it trains, and every field can be overridden one by one.
"""

import dataclasses
import hashlib
import json
import os
import re
import typing
import warnings
from pathlib import Path
from typing import Any, Self

from vistok.recipes import read_table
from vistok.system.files import shown, strict_json
from vistok.system.paths import resolve_path, runs_root
from vistok.system.values import as_given, checked
from vistok.system.words import nearest

TRAIN_PARTS = ("all", "decoder")
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
    network: str = "simple_cnn"  # "simple_cnn", "vqgan" or "vit"
    hidden_dim: int = 256  # width: channels of simple_cnn's lowest resolution and of vqgan's highest, of vit's tokens
    num_res_blocks: int = 2  # residual blocks, of vqgan in every resolution
    network_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # as {"ch_mult": [1, 2, 2]} of vqgan
    quantizer: str = "vq"  # "vq" (codebook loss), "ema" (moving averages), "simvq", "fsq", "lfq", "bsq", "ibq", ...
    codebook_size: int = 512  # K
    codebook_dim: int = 4  # D
    l2_norm: bool = False  # codes and encoder outputs on the unit sphere
    quantizer_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # as {"init": "kmeans"} of vq

    # Where training starts from, and what it changes.
    init_from: str | None = (
        None  # a run, a saved tokenizer or an official checkpoint, to fine-tune; None: random weights
    )
    train_parts: str = "all"  # "all", or "decoder": encoder and codebook stay, so that tokens keep their meaning

    # Loss of the tokenizer: a weighted sum of reconstruction, perceptual and adversarial terms and the quantizer's own.
    reconstruction_error: str = "l2"  # "l2" or "l1", on images in [-1, 1]
    reconstruction_weight: float = 1.0  # weight of that error
    logit_laplace_weight: float = 0.0  # weight of the logit-Laplace likelihood
    lpips_weight: float = 0.0  # weight of the perceptual distance; its network is a download of 530 MB
    codebook_weight: float = 1.0  # weight of |sg[z] - e|^2
    commitment_weight: float = 0.25  # weight of |z - sg[e]|^2
    entropy_weight: float = 0.1  # weight of the entropy term, where a quantizer has one
    kl_weight: float = 5e-4  # weight of the divergence from uniform use, which gumbel has

    # The discriminator and what comes of it; None and 0: not adversarial.
    discriminator: str | None = None  # "patchgan" or "stylegan2"
    discriminator_options: dict[str, Any] = dataclasses.field(default_factory=dict)  # as {"num_layers": 2} of patchgan
    discriminator_lr: float | None = None  # None: lr
    discriminator_start: int = 0  # steps before the discriminator learns
    adversarial_loss: str = "hinge"  # "hinge", "vanilla" or "non-saturating"
    adversarial_weight: float = 0.0  # weight of what the tokenizer hears of it
    adversarial_adaptive: bool = False  # times the ratio of gradients at the decoder's last layer
    adversarial_start: int = 0  # steps before the tokenizer hears of the discriminator
    lecam_weight: float = 0.0  # weight of the LeCam regulariser
    lecam_logits: str = "each"  # penalised: "each", or the "mean" of the batch (1d-tokenizer)
    r1_weight: float = 0.0  # gamma of the R1 gradient penalty
    r1_every: int = 16  # steps from one penalty to the next

    # Optimisation.
    batch_size: int = 256  # images a step, over all processes
    accumulate: int = 1  # parts of a batch, one after the other: less memory
    steps: int = 500_000  # steps of the optimiser
    optimizer: str = "adam"  # "adam" or "adamw"
    lr: float = 4e-4  # learning rate
    beta1: float = 0.9  # decay of the mean of gradients, in [0, 1)
    beta2: float = 0.999  # decay of the mean of their squares, in [0, 1)
    weight_decay: float = 0.0  # of adamw
    lr_schedule: str = "constant"  # "constant" or "cosine" (to min_lr at the last step)
    min_lr: float = 0.0  # where the cosine ends; the discriminator's falls in the same proportion
    warmup_steps: int = 0  # steps of linear rise to lr
    gradient_clip: float | None = None  # largest norm of all gradients together
    ema_decay: float | None = None  # of the moving average of the weights, which is then saved and measured
    seed: int = 8888  # fixes weights, data order and augmentation
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


def settings_as_given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of `TrainConfig` `as_given`; names that it does not have are left for it to refuse."""
    return {name: as_given(name, _TYPES.get(name, Any), value) for name, value in settings.items()}


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
