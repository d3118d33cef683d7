"""The configuration of one training run: one frozen, typed, flat dataclass.

A run is fixed by its `TrainConfig`. A *row* of a results table (`tables/*.toml`) says what a run is about, a *scale* says
how long it trains, and every field can be overridden one by one.
"""

import dataclasses
import warnings
from typing import Annotated, Any, Literal, Self

from vistok.recipes import row_settings
from vistok.system.paths import repository_root
from vistok.system.settings import Settings, refuse_idle_schedule, setting
from vistok.system.values import (
    Decay,
    FilePath,
    FolderName,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    RowName,
    Seed,
    above_zero,
    checked,
    must_be,
    refuse_settings_among,
)

Share = Annotated[float, must_be("between 0 and 1; 0.1 is usual", lambda share: 0 < share < 1)]
TrainParts = Literal["all", "decoder"]
KL_WEIGHT = 5e-4  # the usual one, taming-transformers' of a Gumbel-softmax; also where there is no such loss
OTHER_KL_WEIGHTS = {"kl": 1e-6}  # by quantizer; latent diffusion's


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that fixes one training run.

    The defaults are those of the VQ-VAE table (VQ-VAE, arXiv:1711.00937, with the widths of the SimpleCNN recipe) at paper
    scale; `from_row` sets what a table and a scale say. `None` means "the usual for what is chosen elsewhere".

    Raises:
        ValueError: a value is out of range; the sentence names it and the nearest valid one.
        TypeError: a value has another type than its field.
    """

    # The name of the run.
    row: RowName | None = None  # "table/row" that fixed the settings, or None
    scale: FolderName = "custom"  # name of the scale that fixed the length

    # Data.
    dataset: FolderName = "photos"  # photos, celeba, cifar10, cifar10-images, mnist, imagenet, imagenet-sample, folder
    data_root: FilePath | None = setting(
        None, execution=True
    )  # folder of the dataset; None: data/<dataset> of the repository
    image_size: PositiveInt = 64  # pixels, height and width
    crop: Literal["cached", "adm"] | None = None  # None: the usual of the dataset
    test_fraction: Share | None = None  # test split of a folder without subfolders for splits; None: 0.1
    flip: bool = True  # horizontal flips of training images with probability 1/2
    on_bad_image: Literal["raise", "skip"] = "raise"  # or leave out what cannot be decoded

    # Model.
    network: str = "simple_cnn"  # "simple_cnn", "vqgan", "vit", or "titok", whose tokens are a sequence
    hidden_dim: PositiveInt = (
        256  # width: channels of simple_cnn's lowest resolution, vqgan's highest, a transformer's tokens
    )
    num_res_blocks: PositiveInt = 2  # residual blocks, of vqgan in every resolution
    network_options: dict[str, Any] = setting({})  # as {"ch_mult": [1, 2, 2]} of vqgan
    quantizer: FolderName = "vq"  # "vq" (codebook loss), "ema" (moving averages), "simvq", "fsq", "lfq", "bsq", ...
    codebook_size: PositiveInt = 512  # K
    codebook_dim: PositiveInt = 4  # D
    l2_norm: bool = False  # codes and encoder outputs on the unit sphere
    quantizer_options: dict[str, Any] = setting({})  # as {"init": "kmeans"} of vq

    # Where training starts from, and what it changes.
    init_from: FilePath | None = setting(None, names_run=True)  # a run or checkpoint to fine-tune; None: random weights
    train_parts: TrainParts = "all"  # decoder: the rest stays, so that tokens keep their meaning
    proxy_from: FilePath | None = setting(None, names_run=True)  # one of a grid, whose codes titok's decoder predicts

    # Loss of the tokenizer: a weighted sum of reconstruction, perceptual and adversarial terms and the quantizer's own.
    reconstruction_error: Literal["l2", "l1"] = setting("l2", of_pictures=True)  # on images in [-1, 1]
    reconstruction_weight: NonNegativeFloat = setting(1.0, of_pictures=True)  # weight of that error
    logit_laplace_weight: NonNegativeFloat = setting(0.0, of_pictures=True)  # weight of the logit-Laplace likelihood
    lpips_weight: NonNegativeFloat = setting(
        0.0, of_pictures=True
    )  # weight of the perceptual distance; its network is a download of 530 MB
    classifier_weight: NonNegativeFloat = setting(
        0.0, of_pictures=True
    )  # weight of the squared error between logits of a classifier of ImageNet
    classifier: Literal["convnext_s", "resnet50"] = "convnext_s"  # that network; a download of 192 or 98 MB
    codebook_weight: NonNegativeFloat = 1.0  # weight of |sg[z] - e|^2
    commitment_weight: NonNegativeFloat = 0.25  # weight of |z - sg[e]|^2
    entropy_weight: NonNegativeFloat = 0.1  # weight of the entropy term, where a quantizer has one
    kl_weight: NonNegativeFloat | None = None  # weight of the divergence from uniform use (gumbel; None: 5e-4), or from
    # N(0, 1) (kl; None: 1e-6)

    # The discriminator and what comes of it; None and 0: not adversarial.
    discriminator: str | None = setting(None, of_pictures=True)  # "patchgan", "stylegan2" or "maskbit"
    discriminator_options: dict[str, Any] = setting({}, adversarial=True)  # as {"num_layers": 2} of patchgan
    discriminator_lr: Annotated[float, above_zero(usual=0.0001)] | None = setting(None, adversarial=True)  # None: lr
    discriminator_start: NonNegativeInt = setting(0, adversarial=True)  # steps before the discriminator learns
    adversarial_loss: Literal["hinge", "vanilla", "non-saturating"] = setting(
        "hinge", adversarial=True
    )  # of both sides
    adversarial_weight: NonNegativeFloat = setting(0.0, adversarial=True)  # weight of what the tokenizer hears of it
    adversarial_adaptive: bool = setting(
        False, adversarial=True
    )  # times the ratio of gradients at the decoder's last layer
    adversarial_start: NonNegativeInt = setting(
        0, adversarial=True
    )  # steps before the tokenizer hears of the discriminator
    lecam_weight: NonNegativeFloat = setting(0.0, adversarial=True)  # weight of the LeCam regulariser
    lecam_logits: Literal["each", "mean"] = setting(
        "each", adversarial=True
    )  # penalised; 1d-tokenizer: the mean of the batch
    r1_weight: NonNegativeFloat = setting(0.0, adversarial=True)  # gamma of the R1 gradient penalty
    r1_every: PositiveInt = setting(16, adversarial=True)  # steps from one penalty to the next

    # Optimisation.
    batch_size: PositiveInt = 256  # images a step, over all processes
    accumulate: PositiveInt = 1  # parts of a batch, one after the other: less memory
    steps: PositiveInt = 500_000  # steps of the optimiser
    optimizer: Literal["adam", "adamw"] = "adam"  # steps tokenizer and discriminator
    lr: Annotated[float, above_zero(usual=0.0004)] = 4e-4  # learning rate
    beta1: Decay = 0.9  # decay of the mean of gradients, in [0, 1)
    beta2: Decay = 0.999  # decay of the mean of their squares, in [0, 1)
    weight_decay: NonNegativeFloat = 0.0  # decoupled, as only adamw has it
    weight_decay_on: Literal["all", "kernels"] = "all"  # kernels: neither norms, biases, embeddings nor codebooks
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"  # two fall to min_lr until the end
    min_lr: NonNegativeFloat = 0.0  # where the schedule ends; the discriminator's falls in the same proportion
    warmup_steps: NonNegativeInt = 0  # steps of linear rise to lr
    gradient_clip: Annotated[float, above_zero(usual=1.0)] | None = None  # largest norm of all gradients together
    ema_decay: Decay | None = None  # moving average of the weights, which is then saved and measured; None: none
    ema_warmup: Literal["tensorflow", "power"] | None = None  # lets the decay rise to ema_decay: `average_decay`
    ema_inv_gamma: Annotated[float, above_zero(usual=1.0)] = 1.0  # of ema_warmup "power": updates it is stretched by
    ema_power: Annotated[float, above_zero(usual=0.75)] = 2 / 3  # of ema_warmup "power": the larger, the sooner
    seed: Seed = 8888  # fixes weights, data order and augmentation
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # bfloat16 where the hardware computes in it
    compile: bool = False  # torch.compile the tokenizer

    # Execution (see EXECUTION_FIELDS).
    checkpoint_activations: bool = setting(False, execution=True)  # recompute in the backward pass: less memory
    lpips_weights: FilePath | None = setting(None, execution=True)  # VGG16's file; None: PyTorch's, or a download
    classifier_weights: FilePath | None = setting(None, execution=True)  # the classifier's file; None: the same
    deterministic: bool = setting(False, execution=True)  # on a GPU too: the same numbers at every time, slower
    num_workers: NonNegativeInt = setting(0, execution=True)  # loading processes; 0: load in the training process
    report_every: PositiveInt = setting(10, execution=True)  # steps between two reports and two lines of the log
    checkpoint_every: PositiveInt = setting(500, execution=True)  # steps
    log_with: Literal["tensorboard", "wandb"] | None = setting(None, execution=True)  # a tracker, beside log.jsonl

    def __post_init__(self) -> None:
        if self.kl_weight is None:
            object.__setattr__(self, "kl_weight", OTHER_KL_WEIGHTS.get(self.quantizer, KL_WEIGHT))
        super().__post_init__()

    def refuse_without_effect(self) -> None:
        """Raise ValueError for a setting that was made, but that another one makes idle."""
        for options in ("quantizer_options", "network_options"):
            refuse_settings_among(options, getattr(self, options), self.types())
        refuse_settings_among("discriminator_options", self.discriminator_options, ("image_size",))
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate is {self.accumulate}, but must divide batch_size {self.batch_size}.")
        if self.weight_decay and self.optimizer != "adamw":
            raise ValueError(f"weight_decay is {self.weight_decay}, but only optimizer 'adamw' decays weights.")
        if self.weight_decay_on != "all" and not self.weight_decay:
            raise ValueError(f"weight_decay_on is {self.weight_decay_on!r}, but weight_decay is 0; 0.0001 is usual.")
        if self.classifier != "convnext_s" and not self.classifier_weight:
            raise ValueError(f"classifier is {self.classifier!r}, but classifier_weight is 0; 0.1 is usual.")
        for name in SOURCES:
            if str(getattr(self, name)).startswith(OF_ROW):
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, a row's run, which TrainConfig.from_row finds: give its folder here."
                )
        if self.train_parts != "all" and self.init_from is None:
            raise ValueError(f"train_parts is {self.train_parts!r}, but without init_from the other parts are random.")
        self._refuse_pictures_without_effect()
        self._refuse_schedules_without_effect()
        self._refuse_adversary_without_effect()

    def _refuse_pictures_without_effect(self) -> None:
        if self.proxy_from is None:
            return
        if not self.network_options.get("pixel_decoder"):
            raise ValueError(
                f"proxy_from is {self.proxy_from!r}, but nothing predicts its codes: network 'titok' does where its "
                "network_options have a pixel_decoder, which describes that tokenizer."
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if "of_pictures" in field.metadata and value != field.default:
                raise ValueError(
                    f"{field.name} is {value!r}, but with proxy_from no pictures are painted: leave it out."
                )

    def _refuse_schedules_without_effect(self) -> None:
        refuse_idle_schedule(self)
        if self.ema_warmup and not self.ema_decay:
            raise ValueError(
                f"ema_warmup is {self.ema_warmup!r}, but ema_decay is {self.ema_decay}, so that nothing would rise; 0.999 "
                "is usual."
            )
        for name in ("ema_inv_gamma", "ema_power"):
            if self.ema_warmup != "power" and getattr(self, name) != _DEFAULTS[name]:
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but ema_warmup is {self.ema_warmup!r}: only 'power' has it."
                )

    def _refuse_adversary_without_effect(self) -> None:
        if self.discriminator is None:
            for field in dataclasses.fields(self):
                value = getattr(self, field.name)
                if "adversarial" in field.metadata and value and value != field.default:
                    raise ValueError(f"{field.name} is {value!r}, but there is no discriminator; 'patchgan' is usual.")
            return
        if self.adversarial_weight == 0:
            raise ValueError(
                f"discriminator is {self.discriminator!r}, but adversarial_weight is 0: the tokenizer would never hear "
                "of it. Usual are 0.5 and 0.8."
            )
        if self.lecam_logits != "each" and not self.lecam_weight:
            raise ValueError(f"lecam_logits is {self.lecam_logits!r}, but lecam_weight is 0; 0.001 is usual.")
        if self.r1_every != _DEFAULTS["r1_every"] and not self.r1_weight:
            raise ValueError(f"r1_every is {self.r1_every}, but r1_weight is 0; 10 is usual.")
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
                fixes is no longer that row: it is warned of, and the result's `row` is None. Where the row, or one of them,
                has "row:table/row" for `init_from` or `proxy_from`, that row's own run is meant, at the same scale and with
                the same overrides, as where rows of a table are run together.

        Returns:
            the configuration; of a row that stands in a second table its `row` names the first.

        Raises:
            ValueError: the table, row, scale or a field is unknown; the sentence names the nearest known one.
        """
        return cls._from_row(row, scale, overrides, ())

    @classmethod
    def _from_row(cls, row: str, scale: str, overrides: dict[str, Any], readers: tuple[str, ...]) -> Self:
        """Return what `from_row` does, of a row whose run the rows `readers` begin with, one after the other."""
        settings, fixed = row_settings(checked("row", str, row), checked("scale", str | None, scale))
        changed = sorted(k for k, v in overrides.items() if k in fixed and not _holds(fixed[k], v))
        if changed:
            warnings.warn(f"{', '.join(changed)} differ from row {row!r}: this run is not that row.", stacklevel=3)
            settings["row"] = None
        settings |= overrides
        for name in SOURCES:
            if str(settings.get(name)).startswith(OF_ROW):
                label, chain = settings[name].removeprefix(OF_ROW), (*readers, row)
                if label in chain:
                    raise ValueError(f"A row begins with its own run, by {' -> '.join((*chain, label))}: name another.")
                shared = {key: value for key, value in overrides.items() if key not in OF_ONE_STAGE}
                source, root = cls._from_row(label, scale, shared, chain).run_dir, repository_root()
                settings[name] = str(source.relative_to(root) if source.is_relative_to(root) else source)
        return cls.from_dict(settings)

    @property
    def data_places(self) -> dict[str, tuple[str | None, str]]:
        return {"data_root": (self.data_root, f"data/{self.dataset}")}

    @property
    def run_name(self) -> str:
        """`<row or quantizer>-<scale>-<dataset>-s<seed>-<8 hex of the config>`: two settings never share one."""
        return f"{self.subject}-{self.scale}-{self.dataset}-s{self.seed}-{self.fingerprint}"

    @property
    def subject(self) -> str:
        return (self.row or self.quantizer).rpartition("/")[2]


def _holds(fixed: Any, value: Any) -> bool:
    """Return whether a value is what a row fixes, or, of options, has all that it fixes."""
    if isinstance(fixed, dict) and isinstance(value, dict):
        return all(name in value and value[name] == option for name, option in fixed.items())
    return fixed == value


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
OF_ROW = "row:"  # before a row's label, where a run to begin with is meant
SOURCES = ("init_from", "proxy_from")
OF_ONE_STAGE = (*SOURCES, "train_parts")  # what is overridden for a row alone, and not for the one that it begins with
# How a run is executed may change when it is resumed, and two configurations that differ only in that are the same run. Of the
# place of the data it is the data that decides: `vistok.data.identity`.
EXECUTION_FIELDS = TrainConfig.execution_fields()


def settings_as_given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of `TrainConfig` `as_given`; names that it does not have are left for it to refuse."""
    return TrainConfig.as_given(settings)
