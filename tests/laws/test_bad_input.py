"""Bad input: each case is one sentence before anything is trained, and files that are there stay as they are."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vistok
from vistok.config import TrainConfig
from vistok.notebooks.cells import notebook_path
from vistok.notebooks.execution import execute
from vistok.runs import Run
from vistok.system.paths import runs_root
from vistok.tokenizer import VisualTokenizer
from vistok.training.trainer import Trainer

Toy = Callable[..., TrainConfig]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


@pytest.fixture
def refused(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Expect one sentence, no training, and every file of the test's folder as it was; another run is among them."""
    for report in Trainer(Run.open(None, toy(steps=2)), progress=False):
        assert report.step == 2

    @contextlib.contextmanager
    def expect(sentence: str, kind: type[Exception] = ValueError) -> Iterator[None]:
        before = contents(tmp_path)
        assert len(before) == 5, "configuration, log, checkpoint, tokenizer's weights and settings"
        with monkeypatch.context() as patched:
            patched.setattr(Trainer, "train_step", lambda *_: pytest.fail("a step was trained"))
            with pytest.raises(kind, match=re.escape(sentence)) as error:
                yield
        assert error.type is kind
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1200
        assert contents(tmp_path) == before

    return expect


def start(config: TrainConfig) -> None:
    for _ in Trainer(Run.open(None, config), progress=False):
        pass


def test_an_unknown_parameter(refused: Callable[..., Any], tmp_path: Path) -> None:
    with refused("02_train has no parameter 'codebok_size'; did you mean 'codebook_size'?"):
        execute(notebook_path("02_train"), tmp_path / "02_train.ipynb", {"codebok_size": 8})
    with refused("There is no setting 'codebok_size'; did you mean 'codebook_size'?"):
        TrainConfig.from_row("celeba64/vq-d4", "smoke", codebok_size=8)


@pytest.mark.parametrize(("name", "near"), [("celebra", "celeba"), ("imagnet", "imagenet"), ("photo", "photos")])
def test_an_unknown_dataset(refused: Callable[..., Any], toy: Toy, name: str, near: str) -> None:
    with refused(f"There is no dataset {name!r}; did you mean {near!r}?"):
        start(toy(dataset=name))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("celeba64/vq-d5", "Table 'celeba64' has no row 'vq-d5'; did you mean 'vq-d"),
        ("celeba64/emad4", "Table 'celeba64' has no row 'emad4'; did you mean 'ema-d4'?"),
        ("celeba46/vq-d4", "There is no table 'celeba46'; did you mean 'celeba64'?"),
        ("vq-d4", "There is no table 'vq-d4'"),
    ],
)
def test_an_unknown_row(refused: Callable[..., Any], row: str, sentence: str) -> None:
    with refused(sentence):
        TrainConfig.from_row(row, "smoke")


def test_an_unknown_scale(refused: Callable[..., Any]) -> None:
    with refused("There is no scale 'papr'; did you mean 'paper'?"):
        TrainConfig.from_row("celeba64/vq-d4", "papr")


@pytest.mark.parametrize(("kind", "near"), [("quantizer", "ema"), ("network", "simple_cnn")])
def test_an_unknown_part(refused: Callable[..., Any], toy: Toy, kind: str, near: str) -> None:
    with refused(f"There is no {kind} '{near}x'; did you mean {near!r}?"):
        start(toy(**{kind: f"{near}x"}))


@pytest.mark.parametrize("name", ["codebook_size", "codebook_dim"])
@pytest.mark.parametrize("value", [0, -4])
def test_k_or_d_below_one(refused: Callable[..., Any], toy: Toy, name: str, value: int) -> None:
    with refused(f"{name} is {value}, but must be at least 1."):
        start(toy(**{name: value}))


@pytest.mark.parametrize(("size", "nearest"), [(18, 16), (3, 4), (63, 64)])
def test_an_image_size_that_the_factor_does_not_divide(
    refused: Callable[..., Any], toy: Toy, size: int, nearest: int
) -> None:
    sentence = f"image_size {size} is not divisible by the downsample factor 4 of 'simple_cnn'; the nearest that is: "
    with refused(f"{sentence}{nearest}."):
        start(toy(image_size=size))
    assert not toy(image_size=size).run_dir.exists()


def test_an_odd_width(refused: Callable[..., Any], toy: Toy) -> None:
    with refused("hidden_dim is 7, but simple_cnn halves it: take 8."):
        start(toy(hidden_dim=7))


def test_a_missing_folder(refused: Callable[..., Any], toy: Toy, tmp_path: Path) -> None:
    with refused(f"Your folder, {tmp_path / 'nowhere'}, does not exist."):
        start(toy(data_root=str(tmp_path / "nowhere")))
    with refused("https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"):
        start(toy(dataset="celeba", data_root=str(tmp_path / "nowhere")))


def test_an_empty_folder(refused: Callable[..., Any], toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with refused(f"{tmp_path / 'empty'} holds no images"):
        start(toy(data_root=str(tmp_path / "empty")))


@pytest.fixture
def celeba_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    for number in range(1, 6):
        Image.fromarray(np.full((218, 178, 3), number, np.uint8)).save(root / f"img_align_celeba/{number:06}.jpg")
    lines = [f"{number:06}.jpg {0 if number < 5 else 2}" for number in range(1, 6)]
    (root / "list_eval_partition.txt").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "img_align_celeba/000003.jpg").unlink(), "1 missing, 0 not listed; for instance 000003"),
        (
            lambda root: shutil.copy(root / "img_align_celeba/000003.jpg", root / "img_align_celeba/000009.jpg"),
            "0 missing, 1 not listed; for instance 000009.jpg is not listed.",
        ),
        (
            lambda root: (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 7\n"),
            "Line 2 of ",
        ),
    ],
    ids=["an image is missing", "an image is not listed", "a split is unknown"],
)
def test_a_partition_file_that_disagrees_with_the_folder(
    refused: Callable[..., Any], toy: Toy, celeba_root: Path, change: Callable[[Path], Any], sentence: str
) -> None:
    change(celeba_root)
    before = contents(celeba_root)
    with refused(sentence):
        start(toy(dataset="celeba", data_root=str(celeba_root)))
    assert contents(celeba_root) == before


def test_a_dataset_smaller_than_a_batch(refused: Callable[..., Any], toy: Toy) -> None:
    with refused(
        "The train split of your folder has 18 images, fewer than one batch of 19; the largest batch_size is 18."
    ):
        start(toy(batch_size=19))
    start(toy(batch_size=18, steps=1))


@pytest.mark.parametrize("damage", ["cut", "flipped", "replaced"])
def test_a_corrupt_cache_is_built_again_and_nothing_is_lost(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))
    trainer = Trainer(Run.open(tmp_path / "before", toy()), progress=False)
    list(trainer)
    (file,) = (tmp_path / "cache").glob("*.pixels")
    whole = file.read_bytes()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        file.write_bytes(bytes(255 - byte for byte in whole[:100]) + whole[100:])
    else:
        file.write_bytes(b"not a cache" * 100)
    with pytest.warns(UserWarning, match=rf"The pixel cache {file.name} is built again: .*\.$"):
        again = Trainer(Run.open(tmp_path / "after", toy()), progress=False)
    list(again)
    assert file.read_bytes() == whole
    for name, value in trainer.tokenizer.state_dict().items():
        assert torch.equal(value, again.tokenizer.state_dict()[name]), name


def test_a_checkpoint_from_another_architecture(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (Run.open(None, toy(hidden_dim=width, steps=2)) for width in (8, 16))
    for run in (small, large):
        list(Trainer(run, progress=False))
    shutil.copy(large.checkpoints.files()[-1], small.checkpoints.files()[-1])
    before = contents(runs_root())
    monkeypatch.setattr(Trainer, "train_step", lambda *_: pytest.fail("a step was trained"))
    with pytest.raises(ValueError) as error:
        start(toy(hidden_dim=8, steps=2))
    assert str(error.value).startswith(f"The weights in {small.checkpoints.files()[-1]} are of another architecture: ")
    assert "encoder.down.0.weight is [8, 3, 4, 4], not [4, 3, 4, 4]" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(runs_root()) == before


def test_a_checkpoint_of_another_quantizer(toy: Toy) -> None:
    vq, ema = (Run.open(None, toy(quantizer=name, steps=2)) for name in ("vq", "ema"))
    for run in (vq, ema):
        list(Trainer(run, progress=False))
    shutil.copy(ema.checkpoints.files()[-1], vq.checkpoints.files()[-1])
    with pytest.raises(ValueError, match=r"another architecture: quantizer\.ema_\w+ is not expected"):
        start(toy(steps=2))


def test_a_tokenizer_whose_weights_are_of_another_architecture(toy: Toy) -> None:
    small, large = (Run.open(None, toy(hidden_dim=width, steps=1)) for width in (8, 16))
    for run in (small, large):
        list(Trainer(run, progress=False))
    shutil.copy(large.tokenizer_dir / "model.safetensors", small.tokenizer_dir / "model.safetensors")
    with pytest.raises(ValueError, match="are of another architecture"):
        VisualTokenizer.load(small.path)


def test_a_run_with_another_configuration(refused: Callable[..., Any], toy: Toy) -> None:
    with refused("holds a run with another configuration (lr is 0.001 there, 0.5 here)"):
        Run.open(toy(steps=2).run_dir, toy(steps=2, lr=0.5))


def test_measuring_what_was_not_trained(refused: Callable[..., Any], tmp_path: Path) -> None:
    with refused(f"There is no tokenizer in {tmp_path / 'none'}", kind=FileNotFoundError):
        vistok.VisualTokenizer.load(tmp_path / "none")
