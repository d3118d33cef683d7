"""The generator's side of the training loop: rows of tokens, a generator, its step.

Batch k of the tokens is a function of (seed, k), whatever was interrupted before it, and however many processes share it.

    python -m vistok.tokens runs/my-run --dataset cifar10-images --out data/my-tokens
    python -m vistok.generation --tokens data/my-tokens --tokenizer runs/my-run -p size 1m
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from torch import Tensor

from vistok.data import check_batch_size, train_batches
from vistok.generation.generator import GENERATORS, Generator
from vistok.generator_config import SIZES, GeneratorConfig
from vistok.images import to_uint8
from vistok.pretrained.loading import load_pretrained
from vistok.system.devices import computing, in_precision
from vistok.system.processes import share_model
from vistok.system.values import Seed, call_with_options, checked
from vistok.system.weights import is_saved
from vistok.system.words import differences_between
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import TokenFile
from vistok.tokens.store import describe
from vistok.training.loop import TrainingLoop
from vistok.training.optimization import LossScale, build_optimizer, lr_factor, set_lr

NAMES = (
    "codebook_sizes",
    "level_shapes",
    "image_size",
    "flips",
    "tokenizer",
)  # what tokens.json says that makes its tokens


class TokenRows:
    """A file of tokens as the loop takes a dataset.

    Attributes:
        tokens: the file.
        name, split: of the dataset whose images they are.
        fingerprint: 12 hex digits of what makes the tokens, the same wherever they lie.
        content: 12 hex digits of what is in the images' files, or None.
    """

    def __init__(self, tokens: TokenFile) -> None:
        self.tokens = tokens
        images = tokens.header["dataset"]
        self.name, self.split, self.content = images["name"], images["split"], images.get("content")
        made_by = [tokens.header[name] for name in NAMES] + [images["fingerprint"], len(tokens)]
        self.fingerprint = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.tokens)

    def record(self) -> dict[str, Any]:
        """Return what a run's record says of its tokens; no path of the machine is in it."""
        header = self.tokens.header
        made_by = {name: header[name] for name in NAMES}
        record = {"num_rows": len(self), "fingerprint": self.fingerprint, **made_by, "images": header["dataset"]}
        return record if self.content is None else record | {"content": self.content}

    def images(self, indices: np.ndarray, draws: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Return some rows as `train_batches` asks for them, int64 [b, tokens of all levels], and their classes, int64 [b]."""
        rows = self.tokens.rows(indices)
        labels = self.tokens.labels
        return rows, torch.zeros(len(rows), dtype=torch.int64) if labels is None else labels[torch.from_numpy(indices)]


class GeneratorTrainer(TrainingLoop):
    """Trains the generator of a run; iterate over it, as `TrainingLoop` says.

    Attributes:
        generator: the model, on `device`.
        tokenizer: the one whose tokens they are, or None.
        scale: of the loss, in float16.
    """

    trains = "generator"
    pictured = "samples of one seed each"
    STATE = frozenset({"generator", "optimizer", "scale"})
    counts: tuple[Tensor, ...] = ()  # no codebook learns here

    def set_up(self) -> None:
        """Open the tokens and build the generator."""
        config = self.config
        tokens = TokenFile.open(config.tokens)
        self.dataset = TokenRows(tokens)
        check_batch_size(self.dataset, config.batch_size, self.accelerator.num_processes)
        self.tokenizer = None
        if config.tokenizer is not None:
            self.tokenizer = load_pretrained(config.tokenizer)
            tokens.check_tokenizer(self.tokenizer)
        kept = self.run.tokenizer_dir
        found = describe(VisualTokenizer.load(kept)) if is_saved(kept) else tokens.header["tokenizer"]
        if differences := differences_between(tokens.header["tokenizer"], found):
            raise ValueError(
                f"{kept} is another tokenizer than that of the tokens in {tokens.path} ({differences}): take another folder "
                "for the run."
            )
        set_seed(config.seed)
        self.generator = build_generator(config, tokens).to(self.device)
        self.optimizer = build_optimizer(config, self.generator, config.lr)
        self.scale = LossScale(self.dtype, self.device)
        self._model = share_model(torch.compile(self.generator) if config.compile else self.generator, self.device)

    @property
    def result(self) -> Generator:
        """The generator that is saved."""
        return self.generator

    @property
    def result_step(self) -> int:
        """Steps that `result` was trained for."""
        return self.step

    @property
    def loss_weights(self) -> dict[str, float]:
        """Loss name to weight."""
        return {"cross_entropy": 1.0}

    def check_shown(self, shown: Sequence[int]) -> list[int]:
        """Return the seeds of the samples that `look` shows; ValueError where nothing decodes them."""
        if self.tokenizer is None:
            raise ValueError(
                "This run keeps no tokenizer that would decode samples: set tokenizer to that of its tokens."
            )
        return [checked("seed", Seed, seed) for seed in shown]

    def look(self, shown: Sequence[int]) -> Tensor:
        """Return samples of these seeds, uint8 [N, 3, H, W], of the classes in turns where it knows classes."""
        number = len(self.generator.classes)
        labels = [place % number for place in range(len(shown))] if number else None
        with computing(self.device):
            return to_uint8(self.tokenizer.decode(self.generator.sample(shown, labels)))

    def batches(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the tokens of the steps from `step` on, int64 [B, S, L], and their classes, int64 [B], on `device`."""
        for rows, labels in train_batches(
            self.dataset,
            self.config.batch_size,
            seed=self.config.seed,
            start_step=self.step,
            steps=self.config.steps,
            flip=False,
            rank=self.accelerator.process_index,
            num_processes=self.accelerator.num_processes,
        ):
            labels = labels.to(self.device) if self.config.by_class else None
            yield self.generator.layout.to_places(rows.to(self.device)), labels

    def take_step(self, batch: tuple[Tensor, Tensor | None]) -> dict[str, Tensor]:
        """Take one optimiser step.

        Args:
            batch: int64 [B, S, L] and classes, int64 [B], or None, on `device`.

        Returns:
            the cross entropy in nats a token, and as "total", detached and still on the device.
        """
        self._model.train()
        set_lr(self.optimizer, self.config.lr * lr_factor(self.config, self.step))
        with in_precision(self.dtype, self.device):
            loss = self._model(*batch)
        self.scale.backward(loss)
        self.scale.step(self.optimizer, self._model.parameters(), self.config.gradient_clip)
        return {"cross_entropy": loss.detach(), "total": loss.detach()}

    def measured(self) -> dict[str, float]:
        """Return the skipped steps since the last call, where there are some."""
        skipped, self.scale.skipped = self.scale.skipped, 0
        return {"skipped_steps": skipped} if skipped else {}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the generator and its optimiser."""
        return {
            "generator": self.generator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scale.state_dict(),
        }

    def load_state(self, state: dict[str, Any], file: Path) -> None:
        """Take over what `state` returned."""
        self.optimizer.zero_grad(set_to_none=True)  # a step that failed may have left some
        self.generator.load_weights(state["generator"], source=file)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scale.load_state_dict(state["scale"])

    def weights(self) -> dict[str, Tensor]:
        """Return the weights of the generator, by name."""
        return self.generator.state_dict()

    def save_result(self) -> None:
        """Write the generator and, once, the tokenizer that decodes its tokens."""
        self.generator.save(self.run.generator_dir)
        if self.tokenizer is not None and not is_saved(self.run.tokenizer_dir):
            self.tokenizer.save(self.run.tokenizer_dir)

    def result_is_there(self) -> bool:
        """Return whether the generator lies in the run, and the tokenizer where one is to be kept."""
        return is_saved(self.run.generator_dir) and (self.tokenizer is None or is_saved(self.run.tokenizer_dir))

    def check_same_data(self, recorded: dict[str, Any]) -> None:
        """Raise ValueError where the run was trained on other tokens so far."""
        if recorded.get("fingerprint", self.dataset.fingerprint) != self.dataset.fingerprint:
            raise ValueError(
                f"The tokens in {self.dataset.tokens.path} are others than those this run was trained on so far (fingerprint "
                f"{recorded['fingerprint']}, now {self.dataset.fingerprint}). Restore them, or begin another run."
            )


def build_generator(config: GeneratorConfig, tokens: TokenFile) -> Generator:
    """Return the generator of a configuration for the tokens in a file, with random weights.

    Raises:
        ValueError: it should learn classes that the tokens do not have, or an option is refused.
    """
    header = tokens.header
    if config.by_class and not tokens.classes:
        raise ValueError(
            f"by_class is True, but the tokens in {tokens.path} have no classes: {header['dataset']['name']} has no folders "
            "for them, or was encoded before they were kept; encode it again into the same folder, which adds them."
        )
    options = {
        "codebook_sizes": header["codebook_sizes"],
        "level_shapes": header["level_shapes"],
        "image_size": header["image_size"],
        "tokenizer": header["tokenizer"],
        "dropout": config.dropout,
    }
    if config.by_class:
        options |= {"classes": tokens.classes, "class_dropout": config.class_dropout}
    for name in (options.keys() | {"classes", "class_dropout"}) & config.network_options.keys():
        raise ValueError(f"network_options holds {name!r}, which the tokens or another setting say: leave it out.")
    sizes = SIZES[config.size] | config.network_options
    return call_with_options(f"{config.model} generator", GENERATORS[config.model], options | sizes)
