"""Training tokenizers of sequences: as any other, by their beginnings, and in two stages."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.trainings import assert_same_weights, opened, trained

from vistok.config import TrainConfig
from vistok.data import open_dataset
from vistok.evaluation import evaluate
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import encode_dataset
from vistok.training.trainer import Trainer

Toy = Callable[..., TrainConfig]
TITOK = {"network": "titok", "num_res_blocks": TrainConfig().num_res_blocks, "l2_norm": True}
OPTIONS = {"depth": 1, "num_heads": 2, "num_tokens": 4, "patch_size": 4}


@pytest.fixture
def titok(toy: Toy) -> Toy:
    """Make a configuration that trains a TiTok of four tokens in a blink."""

    def make(network_options: dict[str, object] | None = None, **settings: object) -> TrainConfig:
        return toy(**TITOK | {"network_options": OPTIONS | (network_options or {})} | settings)

    return make


def test_a_sequence_is_trained_saved_measured_and_encoded_as_a_grid_is(titok: Toy, tmp_path: Path) -> None:
    trainer = trained(titok(steps=40, report_every=10), tmp_path / "run")
    first, *_, last = trainer.run.log()
    assert last["losses"]["total"] < first["losses"]["total"]
    tokenizer = VisualTokenizer.load(tmp_path / "run")
    assert_same_weights(tokenizer.state_dict(), trainer.tokenizer.state_dict())
    root = trainer.config.data_root
    record = evaluate(tokenizer, "folder", data_root=root, rfid=False, lpips="off", device="cpu", progress=False)
    assert record.bits_per_pixel == 4 * 4 / 16**2 and record.psnr > 5
    options = {"data_root": root, "split": "test", "device": "cpu", "progress": False}
    file = encode_dataset(tokenizer, "folder", tmp_path / "tokens", **options)
    images = open_dataset("folder", "test", 16, data_root=root)
    assert file.tokens.shape == (len(images), 1, 4)
    assert file.decode(tokenizer, slice(0, 2)).shape == (2, 3, 16, 16)


def test_interrupted_and_resumed_is_the_same_as_uninterrupted(titok: Toy, tmp_path: Path) -> None:
    whole = trained(titok(), tmp_path / "whole")
    for _ in itertools.islice(opened(titok(), tmp_path / "parts"), 1):
        pass
    parts: Trainer = trained(titok(), tmp_path / "parts")
    assert_same_weights(parts.tokenizer.state_dict(), whole.tokenizer.state_dict())
    assert torch.equal(parts.counts[0], whole.counts[0])
