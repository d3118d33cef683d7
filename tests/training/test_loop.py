"""The training loop without images: something else fits into it, and is interrupted, resumed and refused as a tokenizer is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vistok.config import TrainConfig
from vistok.runs import Run
from vistok.training.loop import TrainingLoop

Toy = Callable[..., TrainConfig]
TOKENS = (torch.arange(64).unsqueeze(1) + torch.arange(5)) % 8  # of 64 images; each token has one that follows it


class Bigrams(TrainingLoop):
    """A generator in one matrix: the next token from the one before."""

    STATE = frozenset({"model", "optimizer"})

    def set_up(self) -> None:
        self.dataset = SimpleNamespace(fingerprint="tokens", content=None, record=lambda: {"num_rows": len(TOKENS)})
        torch.manual_seed(self.config.seed)
        self.model = nn.Embedding(8, 8).to(self.device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.config.lr)

    def batches(self) -> Iterator[Tensor]:
        for step in range(self.step, self.config.steps):
            generator = torch.Generator().manual_seed(step)
            yield TOKENS[torch.randint(len(TOKENS), (self.config.batch_size,), generator=generator)]

    def take_step(self, batch: Tensor) -> dict[str, Tensor]:
        loss = F.cross_entropy(self.model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {"likelihood": loss.detach(), "total": loss.detach()}

    def measured(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any], file: Path) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()

    def save_result(self) -> None:
        (self.run.path / "bigrams.txt").write_text(f"{self.step}", encoding="utf-8")

    def check_same_data(self, recorded: dict[str, Any]) -> None:
        if recorded.get("num_rows") != len(TOKENS):
            raise ValueError("These are other tokens.")


def opened(config: TrainConfig, path: Path) -> Bigrams:
    return Bigrams(Run.open(path, config), progress=False)


def test_a_generator_is_interrupted_and_resumed_as_one_that_was_not(toy: Toy, tmp_path: Path) -> None:
    config = toy(steps=12, report_every=3, lr=0.5)
    whole = opened(config, tmp_path / "whole")
    assert [report.step for report in whole] == [3, 6, 9, 12]
    first = opened(config, tmp_path / "parts")
    for report in first:
        if report.step == 6:
            break
    assert (tmp_path / "parts" / "bigrams.txt").read_text() == "6"
    second = opened(config, tmp_path / "parts")
    assert [report.step for report in second] == [9, 12]
    assert torch.equal(second.model.weight, whole.model.weight)
    entries = [run.log() for run in (whole.run, second.run)]
    assert [entry["losses"] for entry in entries[0]] == [entry["losses"] for entry in entries[1]]
    assert entries[0][-1]["losses"]["likelihood"] < entries[0][0]["losses"]["likelihood"]
    assert entries[0][0]["usage"] is None  # there is no codebook
    assert list(opened(config, tmp_path / "whole")) == []


def test_it_is_refused_where_the_data_or_the_checkpoint_are_others(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(steps=6)
    for report in opened(config, tmp_path / "run"):
        if report.step == 4:
            break
    with monkeypatch.context() as changed:
        changed.setattr(f"{__name__}.TOKENS", TOKENS[:32])
        with pytest.raises(ValueError, match="other tokens"):
            list(opened(config, tmp_path / "run"))
    monkeypatch.setattr(Bigrams, "STATE", Bigrams.STATE | {"average"})
    with pytest.raises(ValueError, match="not one of this version's: it has no average"):
        opened(config, tmp_path / "run")


def test_a_loss_that_is_not_finite_ends_it_and_says_what_helps(toy: Toy, tmp_path: Path) -> None:
    training = opened(toy(steps=6), tmp_path / "run")
    training.model.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"not finite at step 1 \(likelihood .*no checkpoint yet. A lower lr"):
        list(training)
