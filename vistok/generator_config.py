"""The configuration of a generator's training: what is trained on the tokens of images, one frozen, typed, flat dataclass."""

import dataclasses
from os.path import dirname
from typing import Annotated, Any, Literal

from vistok.system.paths import real_place
from vistok.system.settings import Settings, refuse_idle_schedule, setting
from vistok.system.values import (
    Decay,
    FilePath,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Seed,
    above_zero,
    one_of,
    refuse_settings_among,
)

# Name -> options of the transformer. Names in millions count parameters without embeddings, and are for a CPU; the others are
# LlamaGen's (arXiv:2406.06525, table 1), of 111, 343, 775 and 1,400 million.
SIZES: dict[str, dict[str, int]] = {
    "1m": {"hidden_dim": 128, "depth": 5, "num_heads": 4},
    "3m": {"hidden_dim": 192, "depth": 7, "num_heads": 6},
    "10m": {"hidden_dim": 320, "depth": 8, "num_heads": 5},
    "30m": {"hidden_dim": 512, "depth": 10, "num_heads": 8},
    "b": {"hidden_dim": 768, "depth": 12, "num_heads": 12},
    "l": {"hidden_dim": 1024, "depth": 24, "num_heads": 16},
    "xl": {"hidden_dim": 1280, "depth": 36, "num_heads": 20},
    "xxl": {"hidden_dim": 1536, "depth": 48, "num_heads": 24},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeneratorConfig(Settings):
    """Everything that fixes one training of a generator.

    The defaults are for a CPU; beta2, weight decay, dropout and the largest norm of gradients are those of LlamaGen
    (arXiv:2406.06525, section 3.1).

    Raises:
        ValueError: a value is out of range; the sentence names it and the nearest valid one.
        TypeError: a value has another type than its field.
    """

    kind: Literal["generator"] = "generator"  # tells it from a tokenizer's configuration, in a run's record

    # Data.
    tokens: FilePath = setting("data/tokens", execution=True)  # folder that `python -m vistok.tokens` wrote
    tokenizer: FilePath | None = setting(None, execution=True)  # theirs, which the run then keeps; None: it keeps none
    by_class: bool = False  # learn each class by itself, of tokens that have classes

    # Model.
    model: Literal["autoregressive", "masked"] = "autoregressive"  # as GPT, or as MaskGIT
    size: Annotated[str, one_of(SIZES)] = "3m"  # a key of SIZES
    network_options: dict[str, Any] = setting({})  # as {"depth": 4}, beside or in place of those of the size
    dropout: Decay = 0.1  # of embeddings, attention's and feed-forward outputs, in [0, 1)
    class_dropout: Decay = 0.1  # share of images trained without their class, which guidance needs

    # Optimisation.
    batch_size: PositiveInt = 64  # images a step, over all processes
    steps: PositiveInt = 20_000  # steps of the optimiser
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: Annotated[float, above_zero(usual=0.001)] = 1e-3  # learning rate
    beta1: Decay = 0.9  # decay of the mean of gradients, in [0, 1)
    beta2: Decay = 0.95  # decay of the mean of their squares, in [0, 1)
    weight_decay: NonNegativeFloat = 0.05  # decoupled, as only adamw has it
    weight_decay_on: Literal["all", "kernels"] = "kernels"  # kernels: neither norms nor embeddings
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"  # two fall to min_lr until the end
    min_lr: NonNegativeFloat = 0.0  # where the schedule ends
    warmup_steps: NonNegativeInt = 0  # steps of linear rise to lr
    gradient_clip: Annotated[float, above_zero(usual=1.0)] | None = 1.0  # largest norm of all gradients together
    seed: Seed = 8888  # fixes weights, data order and what is drawn
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # bfloat16 where the hardware computes in it
    compile: bool = False  # torch.compile the transformer

    # Execution: how a run is executed may change when it is resumed.
    deterministic: bool = setting(False, execution=True)  # on a GPU too: the same numbers at every time, slower
    report_every: PositiveInt = setting(10, execution=True)  # steps between two reports and two lines of the log
    checkpoint_every: PositiveInt = setting(500, execution=True)  # steps
    log_with: Literal["tensorboard", "wandb"] | None = setting(None, execution=True)  # a tracker, beside log.jsonl

    def refuse_without_effect(self) -> None:
        """Raise ValueError for a setting that was made, but that another one makes idle."""
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        if not self.by_class and self.class_dropout != usual["class_dropout"]:
            raise ValueError(f"class_dropout is {self.class_dropout}, but by_class is False; leave class_dropout out.")
        refuse_settings_among("network_options", self.network_options, ("dropout",))
        if self.optimizer != "adamw" and self.weight_decay:
            raise ValueError(
                f"weight_decay is {self.weight_decay}, but only optimizer 'adamw' decays weights; set it 0."
            )
        refuse_idle_schedule(self)

    @property
    def data_places(self) -> dict[str, tuple[str | None, str]]:
        usual = "data/tokens"
        # A folder right in the usual one is told from others by its name, which the run's name has, on any machine.
        return {} if dirname(real_place(self.tokens)) == real_place(usual) else {"tokens": (self.tokens, usual)}

    @property
    def run_name(self) -> str:
        """`<model>-<size>-<folder of the tokens>-s<seed>-<8 hex of the config>`: two settings never share one."""
        folder = "".join(letter if letter.isalnum() else "-" for letter in self.tokens.rstrip("/").rpartition("/")[2])
        return f"{self.subject}-{folder[:64]}-s{self.seed}-{self.fingerprint}"

    @property
    def subject(self) -> str:
        return f"{self.model}-{self.size}"
