"""Files of tokens: what they hold, that a killed encoding goes on to the same bytes, and what is refused."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from helpers.golden import put_official
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import vistok.tokens.store
from vistok.data import eval_batches, open_dataset, to_float
from vistok.pretrained import load_pretrained
from vistok.quantizers import EMAQuantizer, Quantized, Quantizer
from vistok.quantizers.base import straight_through
from vistok.system.paths import repository_root
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.__main__ import main
from vistok.tokens.store import TokenFile, encode_dataset

NUM_TRAIN = 18  # images in the train split of `images_root`


def toy(quantizer: str = "vq", seed: int = 0, codebook_size: int = 16, image_size: int = 16) -> VisualTokenizer:
    """A tokenizer with codes spread like z, so that many of them are chosen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = VisualTokenizer(
            quantizer=quantizer,
            network_options={"hidden_dim": 8, "num_res_blocks": 1},
            quantizer_options={"codebook_size": codebook_size, "codebook_dim": 2},
            image_size=image_size,
        )
        with torch.no_grad():
            tokenizer.quantizer.weight.copy_(spread_like_z(tokenizer, codebook_size))
    return tokenizer.eval()


def spread_like_z(tokenizer: VisualTokenizer, num_codes: int) -> Tensor:
    """Codes [K, D] with the mean and the spread of what the encoder makes of random images."""
    z = tokenizer.encoder(torch.rand(8, 3, 8, 8).mul(2).sub(1).repeat_interleave(2, 2).repeat_interleave(2, 3))
    return z.mean((0, 2, 3)) + z.std((0, 2, 3)) * torch.randn(num_codes, z.shape[1])


class TwoLevels(Quantizer):
    """A coarse grid of 2x2 codes, and what is left of z on the fine one; indices are a tuple."""

    def __init__(self, coarse: Tensor, fine: Tensor) -> None:
        super().__init__((4, 16), 2)
        self.coarse, self.fine = EMAQuantizer(4, 2), EMAQuantizer(16, 2)
        self.coarse.weight.copy_(coarse)
        self.fine.weight.copy_(fine)

    @property
    def codebook(self) -> Tensor:
        return self.fine.weight

    def quantize(self, z: Tensor) -> Quantized:
        coarse = self.coarse(torch.nn.functional.adaptive_avg_pool2d(z, (2, 2))).indices
        fine = self.fine(z - self._enlarged(coarse, z.shape[2])).indices
        return Quantized(straight_through(z, self.indices_to_codes(coarse, fine)), (coarse, fine), {})

    def indices_to_codes(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self._enlarged(coarse, fine.shape[1]) + self.fine.indices_to_codes(fine)

    def _enlarged(self, coarse: Tensor, size: int) -> Tensor:
        return torch.nn.functional.interpolate(self.coarse.indices_to_codes(coarse), (size, size))


def two_levels() -> VisualTokenizer:
    tokenizer = toy()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        coarse, fine = spread_like_z(tokenizer, 4), spread_like_z(tokenizer, 16)
        tokenizer.quantizer = TwoLevels(coarse, fine - fine.mean(0))
    return tokenizer.eval()


@pytest.fixture
def encode(images_root: Path, tmp_path: Path) -> Callable[..., TokenFile]:
    """Encode the training images of the toy folder, on the CPU, in batches of 4."""

    def make(tokenizer: VisualTokenizer, path: Path = tmp_path / "tokens", **options: object) -> TokenFile:
        usual = {"data_root": images_root, "batch_size": 4, "device": "cpu", "progress": False}
        return encode_dataset(tokenizer, "folder", path, **(usual | options))

    return make


def training_images(root: Path, size: int = 16) -> Tensor:
    dataset = open_dataset("folder", "train", size, data_root=root)
    return torch.cat([to_float(batch) for batch in eval_batches(dataset, 4)])


def test_rows_are_the_indices_of_the_images_in_their_order(encode: Callable[..., TokenFile], images_root: Path) -> None:
    tokenizer = toy()
    images = training_images(images_root)
    expected = torch.cat([tokenizer.encode(batch) for batch in images.split(4)])
    file = encode(tokenizer)

    assert len(expected.unique()) > 4 and len(expected.flatten(1).unique(dim=0)) > 10
    assert file.tokens.shape == (NUM_TRAIN, 4, 4) and file.tokens.dtype == np.uint16
    assert len(file) == NUM_TRAIN
    assert torch.equal(file.indices(), expected) and file.indices().dtype == torch.int64
    assert torch.equal(file[5], expected[5]) and torch.equal(file[-1], expected[-1])
    assert torch.equal(file.indices([7, 2]), expected[[7, 2]])
    assert torch.equal(file.indices(3), expected[3:4])
    plain = np.load(file.path / "tokens.npy", mmap_mode="r")
    assert np.array_equal(plain, expected.numpy())
    with pytest.raises(IndexError, match="18"):
        file[18]


def test_decoding_is_the_tokenizers(encode: Callable[..., TokenFile]) -> None:
    tokenizer = toy()
    file = encode(tokenizer)
    decoded = file.decode(tokenizer, slice(3, 6))
    assert torch.equal(decoded, tokenizer.decode(file.indices(slice(3, 6))))
    assert decoded.shape == (3, 3, 16, 16)
    torch.testing.assert_close(file.decode(tokenizer, 4), decoded[1:2])


def test_with_flips_each_image_is_followed_by_its_mirror_image(
    encode: Callable[..., TokenFile], images_root: Path
) -> None:
    tokenizer = toy()
    images = training_images(images_root)
    file = encode(tokenizer, flips=True)
    assert len(file) == 2 * NUM_TRAIN
    assert torch.equal(file.indices(slice(0, None, 2)), tokenizer.encode(images))
    assert torch.equal(file.indices(slice(1, None, 2)), tokenizer.encode(images.flip(3)))
    assert not torch.equal(file[0], file[1])


def test_several_levels_lie_one_after_the_other(encode: Callable[..., TokenFile], images_root: Path) -> None:
    tokenizer = two_levels()
    coarse, fine = tokenizer.encode(training_images(images_root))
    assert len(coarse.unique()) > 2 and len(fine.unique()) > 4
    file = encode(tokenizer)
    assert file.tokens.shape == (NUM_TRAIN, 4 + 16)
    assert file.header["level_shapes"] == [[2, 2], [4, 4]] and file.header["codebook_sizes"] == [4, 16]
    assert np.array_equal(file.tokens, torch.cat([coarse.flatten(1), fine.flatten(1)], 1).numpy())
    assert all(torch.equal(*pair) for pair in zip(file.indices(slice(2, 5)), (coarse[2:5], fine[2:5]), strict=True))
    assert all(torch.equal(*pair) for pair in zip(file[2], (coarse[2], fine[2]), strict=True))
    assert torch.equal(file.decode(tokenizer, slice(2, 5)), tokenizer.decode((coarse[2:5], fine[2:5])))


@pytest.mark.parametrize(("codebook_size", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_the_last_code_of_a_large_codebook_fits(
    codebook_size: int, dtype: type, encode: Callable[..., TokenFile]
) -> None:
    tokenizer = toy(codebook_size=codebook_size)
    with torch.no_grad():  # the last code is the nearest one for all
        tokenizer.quantizer.weight.fill_(1e3)
        tokenizer.quantizer.weight[-1] = 0
    file = encode(tokenizer, split="test")
    assert file.tokens.dtype == dtype
    assert bool((file.indices() == codebook_size - 1).all())


def test_the_header_says_what_the_tokens_are_and_names_no_machine(
    encode: Callable[..., TokenFile], images_root: Path, tmp_path: Path
) -> None:
    tokenizer = toy(image_size=32)
    file = encode(tokenizer, image_size=16, split="test")
    text = (file.path / "tokens.json").read_text()
    header = json.loads(text)
    assert header == file.header
    assert header["shape"] == [2, 4, 4] and header["dtype"] == "uint16" and header["image_size"] == 16
    assert header["tokenizer"]["settings"] == tokenizer.settings
    dataset = open_dataset("folder", "test", 16, data_root=images_root)
    assert header["dataset"] == dataset.record()
    assert header["num_images_done"] == 2
    origin = header["provenance"]
    assert {"versions", "commit", "dirty", "device", "threads", "wall_seconds"} <= origin.keys()
    assert (origin["batch_size"], origin["first_image"]) == (4, 0) and origin["images_per_second"] > 0
    assert str(images_root) not in text and str(tmp_path) not in text
    assert sorted(p.name for p in file.path.iterdir() if not p.name.startswith(".")) == ["tokens.json", "tokens.npy"]


def test_loading_processes_change_nothing(encode: Callable[..., TokenFile]) -> None:
    file = encode(toy())
    loaded_elsewhere = encode(toy(), file.path.with_name("elsewhere"), num_workers=1)
    assert np.array_equal(loaded_elsewhere.tokens, file.tokens)


# Classes.


@pytest.fixture(scope="module")
def classes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four training images and two for testing, of two classes that lie in folders, one of them in a further folder."""
    root = tmp_path_factory.mktemp("classes")
    for number, name in enumerate(("train/b/0", "train/a/9", "train/b/x/1", "train/a/2", "test/b/0", "test/a/1")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (40 * number, 9, 9)).save(root / f"{name}.png")
    return root


def test_classes_are_the_folders(encode: Callable[..., TokenFile], classes_root: Path, tmp_path: Path) -> None:
    file = encode(toy(), data_root=classes_root)
    assert file.classes == ["a", "b"] and file.labels.tolist() == [0, 0, 1, 1] and file.labels.dtype == torch.int64
    assert np.load(file.path / "labels.npy").dtype == np.uint16
    both = encode(toy(), tmp_path / "both", data_root=classes_root, flips=True)
    assert both.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert encode(toy(), tmp_path / "test", data_root=classes_root, split="test").labels.tolist() == [0, 1]
    assert pickle.loads(pickle.dumps(file)).labels.tolist() == [0, 0, 1, 1]


def test_labels_of_somebodys_own_are_not_replaced(
    encode: Callable[..., TokenFile], classes_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    np.save(folder / "labels.npy", np.arange(7))
    with pytest.raises(ValueError, match="labels.npy holds other labels than those of these images: move it away"):
        encode(toy(), folder, data_root=classes_root)
    assert np.load(folder / "labels.npy").tolist() == list(range(7)) and [*folder.glob("tokens.*")] == []


def test_weights_that_are_not_finite_are_refused(encode: Callable[..., TokenFile], tmp_path: Path) -> None:
    tokenizer = toy()
    next(tokenizer.encoder.parameters()).data.view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match="Not all weights of the tokenizer are finite .* diverged"):
        encode(tokenizer)
    assert not [*tmp_path.glob("**/tokens.json")]


def test_images_that_lie_in_no_folders_have_none(
    encode: Callable[..., TokenFile], classes_root: Path, tmp_path: Path
) -> None:
    one_folder = encode(toy(), tmp_path / "one", data_root=classes_root / "train" / "a")
    for file in (encode(toy()), one_folder):
        assert file.classes == [] and file.labels is None and not (file.path / "labels.npy").exists()


def test_tokens_from_before_classes_were_kept_get_theirs(
    encode: Callable[..., TokenFile], classes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode(toy(), data_root=classes_root)
    header = json.loads((file.path / "tokens.json").read_text())
    del header["classes"]
    (file.path / "tokens.json").write_text(json.dumps(header))
    (file.path / "labels.npy").unlink()
    assert TokenFile.open(file.path).labels is None
    monkeypatch.setattr(vistok.tokens.store, "_encode_rest", lambda *_: pytest.fail("it is encoded already"))
    again = encode(toy(), data_root=classes_root)
    assert again.classes == ["a", "b"] and again.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(again.tokens, file.tokens)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "labels.npy is missing, cut off or no array"),
        (np.zeros(3, np.uint16), r"labels.npy must hold uint16 \[4\], one label for each image"),
        (np.zeros(4, np.int64), "must hold uint16"),
        (np.array([0, 1, 2, 0], np.uint16), "labels.npy holds the label 2, but tokens.json names 2 classes."),
    ],
)
def test_labels_that_do_not_fit(
    labels: np.ndarray | None, sentence: str, encode: Callable[..., TokenFile], classes_root: Path
) -> None:
    file = encode(toy(), data_root=classes_root)
    (file.path / "labels.npy").write_bytes(b"nothing")
    if labels is not None:
        np.save(file.path / "labels.npy", labels)
    with pytest.raises(ValueError, match=sentence):
        TokenFile.open(file.path)


@pytest.mark.parametrize("classes", [[], "ab", [1, 2]])
def test_names_of_classes_that_are_none(classes: object, encode: Callable[..., TokenFile], classes_root: Path) -> None:
    file = encode(toy(), data_root=classes_root)
    (file.path / "tokens.json").write_text(json.dumps(file.header | {"classes": classes}))
    with pytest.raises(ValueError, match="does not describe tokens: its classes is"):
        TokenFile.open(file.path)


# Stopped and gone on.

KILLED = """
import os, signal, sys
import vistok.tokens.store
from vistok.tokenizer import VisualTokenizer

weights, data_root, out, name, calls = sys.argv[1:]
original, remaining = getattr(vistok.tokens.store, name), int(calls)

def deadly(*arguments, **options):
    global remaining
    remaining -= 1
    if remaining < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)

setattr(vistok.tokens.store, name, deadly)
vistok.tokens.store.SECONDS_BETWEEN_RECORDS = 0
tokenizer = VisualTokenizer.load(weights)
vistok.tokens.store.encode_dataset(
    tokenizer, "folder", out, data_root=data_root, batch_size=4, device="cpu", flips=True, progress=False
)
"""


@pytest.mark.slow
# Before the first batch; while the third one is read; with a batch on the disk that the header does not know of.
@pytest.mark.parametrize(
    ("name", "calls", "num_done"), [("_map_array", 0, 0), ("to_float", 2, 8), ("replace_file", 3, 8)]
)
def test_a_killed_encoding_goes_on_to_the_same_bytes(
    name: str,
    calls: int,
    num_done: int,
    encode: Callable[..., TokenFile],
    images_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = toy()
    tokenizer.save(tmp_path / "weights")
    whole = encode(tokenizer, tmp_path / "whole", flips=True).path
    stopped = tmp_path / "stopped"
    arguments = [tmp_path / "weights", images_root, stopped, name, calls]
    process = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, arguments)],
        cwd=repository_root(),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert process.returncode == -9, process.stderr
    assert json.loads((stopped / "tokens.json").read_text())["num_images_done"] == num_done
    with pytest.raises(ValueError, match=f"holds {num_done} of 18 images: encode the dataset again"):
        TokenFile.open(stopped)

    encoded = []
    to_float_ = vistok.tokens.store.to_float
    monkeypatch.setattr(
        vistok.tokens.store, "to_float", lambda batch: (encoded.append(len(batch)), to_float_(batch))[1]
    )
    encode(tokenizer, stopped, flips=True)
    assert sum(encoded) == NUM_TRAIN - num_done
    assert (stopped / "tokens.npy").read_bytes() == (whole / "tokens.npy").read_bytes()
    headers = [json.loads((path / "tokens.json").read_text()) for path in (stopped, whole)]
    assert [header.pop("provenance")["first_image"] for header in headers] == [num_done, 0]
    assert headers[0] == headers[1]


def test_what_is_complete_is_not_encoded_again(
    encode: Callable[..., TokenFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = encode(toy())
    monkeypatch.setattr(vistok.tokens.store, "eval_batches", lambda *_, **__: pytest.fail("images were read"))
    assert np.array_equal(encode(toy()).tokens, file.tokens)


@pytest.mark.parametrize(
    ("tokenizer", "options", "sentence"),
    [
        ({"seed": 1}, {}, r"\(tokenizer\.weights_sha256 is '.*' there, '.*' here\)"),
        ({"quantizer": "ema"}, {}, "tokenizer.settings.quantizer is 'vq' there, 'ema' here"),
        ({}, {"split": "test"}, "dataset.split is 'train' there, 'test' here"),
        ({}, {"crop": "adm"}, "dataset.crop is 'cached' there, 'adm' here"),
        ({}, {"test_fraction": 0.5}, "dataset.num_images is 18 there, 10 here"),
        ({}, {"image_size": 20}, "image_size is 16 there, 20 here"),
        ({}, {"flips": True}, "flips is False there, True here"),
    ],
)
def test_other_tokens_are_not_gone_on_with(
    tokenizer: dict, options: dict, sentence: str, encode: Callable[..., TokenFile]
) -> None:
    file = encode(toy())
    before = [(file.path / name).read_bytes() for name in ("tokens.npy", "tokens.json")]
    with pytest.raises(ValueError, match=f"holds other tokens .*{sentence}"):
        encode(toy(**tokenizer), **options)
    assert [(file.path / name).read_bytes() for name in ("tokens.npy", "tokens.json")] == before


def test_tokens_of_replaced_images_are_not_gone_on_with(encode: Callable[..., TokenFile], tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for number in range(20):
        Image.new("RGB", (20, 20), (number, 0, 0)).save(root / f"{number:02}.bmp")
    file = encode(toy(), data_root=root)
    Image.new("RGB", (20, 20), "blue").save(root / "03.bmp")  # of the same size
    with (
        pytest.raises(ValueError, match="holds other tokens .*dataset.content is '.*' there, '.*' here"),
        pytest.warns(UserWarning, match="built again"),
    ):
        encode(toy(), data_root=root)
    header = json.loads((file.path / "tokens.json").read_text())
    del header["dataset"]["content"]  # of before it was recorded
    (file.path / "tokens.json").write_text(json.dumps(header))
    assert len(encode(toy(), data_root=root)) == 18


def test_two_processes_do_not_write_into_one_folder(encode: Callable[..., TokenFile], tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    with (
        filelock.FileLock(tmp_path / "tokens" / ".tokens.lock"),
        pytest.raises(ValueError, match="Tokens are being written into .* by another process: wait"),
    ):
        encode(toy())


# The tokenizer is left as it was.


def test_the_tokenizer_keeps_mode_and_state_and_the_indices_are_exact(encode: Callable[..., TokenFile]) -> None:
    tokenizer = toy("ema").train()
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = encode(tokenizer)
    assert tokenizer.training
    assert all(torch.equal(value, before[name]) for name, value in tokenizer.state_dict().items())
    plain = encode(tokenizer.eval(), under_autocast.path.with_name("plain"))
    assert np.array_equal(under_autocast.tokens, plain.tokens)


def test_another_tokenizer_does_not_decode(encode: Callable[..., TokenFile]) -> None:
    file = encode(toy())
    with pytest.raises(ValueError, match=r"are of another tokenizer \(weights_sha256 is .* there, .* here\)"):
        file.decode(toy(seed=1))
    with pytest.raises(ValueError, match=r"another tokenizer \(settings\.quantizer is 'vq' there, 'ema' here"):
        file.decode(toy("ema"))


# As a dataset.


@pytest.mark.parametrize("make", [toy, two_levels])
def test_it_is_a_torch_dataset_whose_copies_map_the_same_file(
    make: Callable[[], VisualTokenizer], encode: Callable[..., TokenFile]
) -> None:
    file = encode(make())
    pickled = pickle.dumps(file)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    batches = list(DataLoader(copy, batch_size=5, num_workers=0))
    for number, batch in enumerate(batches):
        expected = file.indices(slice(5 * number, 5 * number + 5))
        pairs = zip(batch, expected, strict=True) if isinstance(expected, tuple) else [(batch, expected)]
        assert all(torch.equal(*pair) for pair in pairs)
    assert len(batches) == 4


# Bad input.


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"num_workers": -1}, "num_workers is -1, but must be at least 0"),
        ({"image_size": 0}, "image_size is 0, but must be at least 1"),
        ({"image_size": 18}, "image_size 18 is not divisible by the downsample factor 4 .* nearest that is: 16"),
        ({"split": "tset"}, "folder has no split 'tset'; did you mean 'test'"),
        ({"device": "cuda:77"}, "device is 'cuda:77', but there is no such one here: "),
        ({"device": "gpu"}, "device is 'gpu', but there is no such one here: "),
        ({"data_root": "nowhere"}, "nowhere, does not exist"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_nothing(
    options: dict, sentence: str, encode: Callable[..., TokenFile], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence):
        encode(toy(), **options)
    assert not (tmp_path / "tokens").exists()


def test_folders_that_hold_something_else_are_refused(encode: Callable[..., TokenFile], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is a file, but tokens go into a folder"):
        encode(toy(), tmp_path / "file")
    (tmp_path / "tokens").mkdir()
    np.save(tmp_path / "tokens" / "tokens.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"holds tokens\.npy without tokens\.json"):
        encode(toy())
    assert np.array_equal(np.load(tmp_path / "tokens" / "tokens.npy"), np.zeros(3))
    with pytest.raises(FileNotFoundError, match=r"There are no tokens in .*nothing: tokens\.json and tokens\.npy"):
        TokenFile.open(tmp_path / "nothing")


def test_damaged_arrays_are_refused(encode: Callable[..., TokenFile]) -> None:
    file = encode(toy())
    array = file.path / "tokens.npy"
    content = array.read_bytes()
    for damaged in (content[:-1], content[:50], b"", b"<html>not found</html>"):
        array.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"tokens\.npy is missing, cut off or no array \(.*\): delete .* encode again"
        ):
            TokenFile.open(file.path)
    array.write_bytes(content + b"more")
    with pytest.raises(ValueError, match=f"has {len(content) + 4} bytes, but its array ends after {len(content)}"):
        TokenFile.open(file.path)
    np.save(array, np.zeros((NUM_TRAIN, 4, 4), np.float32))
    with pytest.raises(ValueError, match=r"holds float32 \[18, 4, 4\], but tokens\.json says uint16 \[18, 4, 4\]"):
        TokenFile.open(file.path)
    beyond = np.zeros((NUM_TRAIN, 4, 4), np.uint16)
    beyond[3, 1, 2] = 16
    np.save(array, beyond)
    opened = TokenFile.open(file.path)
    assert opened.indices([0, 2]).max() == 0
    assert opened.rows(np.array([0, 2])).tolist() == [[0] * 16] * 2
    for read in (lambda: opened[3], opened.indices, lambda: opened.of_images(4), lambda: opened.rows(np.array([2, 3]))):
        with pytest.raises(
            ValueError, match=r"tokens\.npy is damaged: it holds the code 16, .* there are 16, from 0 on"
        ):
            read()
    array.unlink()
    with pytest.raises(ValueError, match="missing, cut off or no array"):
        TokenFile.open(file.path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": [18, 4, 5]}, r"its shape is \[18, 4, 5\], but 18 images with levels \[\[4, 4\]\] make \[18, 4, 4\]"),
        ({"level_shapes": [[4, 4], [2, 2]]}, r"levels \[\[4, 4\], \[2, 2\]\] make \[18, 20\]"),
        ({"flips": True}, r"make \[36, 4, 4\]"),
        ({"dtype": "uint32"}, r"its dtype is 'uint32', but codebooks of \[16\] codes take 'uint16'"),
        ({"codebook_sizes": [16, 16]}, "2 codebook_sizes, but 1 level_shapes"),
        ({"num_images_done": 19}, "num_images_done is 19, but there are 18 images"),
        ({"format": "tokens of others"}, "its format is 'tokens of others', not 'vistok tokens 1'"),
        ({"tokenizer": {}}, "its tokenizer has no settings or no weights_sha256"),
        ({"tokenizer": None}, r"tokens\.json does not describe tokens: "),
        ({"dataset": {}}, "it has no 'num_images'"),
        (
            {"shape": [10, 4, 4], "dataset": {"num_images": 10}, "num_images_done": 10},
            r"tokens\.json says .* \[10, 4, 4\]",
        ),
    ],
)
def test_headers_that_lie_are_refused(change: dict, sentence: str, encode: Callable[..., TokenFile]) -> None:
    file = encode(toy())
    (file.path / "tokens.json").write_text(json.dumps(file.header | change))
    with pytest.raises(ValueError, match=sentence):
        TokenFile.open(file.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"shape": [1]}'])
def test_headers_that_are_none_are_refused(text: str, encode: Callable[..., TokenFile]) -> None:
    file = encode(toy())
    (file.path / "tokens.json").write_text(text)
    with pytest.raises(ValueError, match=r"tokens\.json does not describe tokens: "):
        TokenFile.open(file.path)


# The command line.


def test_the_command_line_encodes_a_saved_tokenizer(
    images_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy().save(tmp_path / "run" / "tokenizer")
    arguments = ["--dataset", "folder", "--data-root", str(images_root), "--batch-size", "4", "--device", "cpu"]
    assert main([str(tmp_path / "run"), *arguments, "--flips", "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr()
    assert output.out == f"36x4x4 tokens (uint16, 0.0 MB) in {tmp_path / 'out'}\n"
    assert output.err == ""  # over before a line of progress is due
    assert len(TokenFile.open(tmp_path / "out")) == 36


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--batch-size", "0"], "batch_size is 0, but must be at least 1."),
        (["--split", "tset"], "folder has no split 'tset'"),
        (["--crop", "admm"], "crop is 'admm'; did you mean 'adm'"),
    ],
)
def test_the_command_line_ends_with_one_sentence(
    arguments: list[str], sentence: str, images_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy().save(tmp_path / "saved")
    usual = [
        str(tmp_path / "saved"),
        "--dataset",
        "folder",
        "--data-root",
        str(images_root),
        "--out",
        str(tmp_path / "o"),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*usual, *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing"), *usual[1:]])
    assert "There is no run, tokenizer or checkpoint" in capsys.readouterr().err


def test_the_command_line_encodes_with_an_official_checkpoint_by_its_name(
    images_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    put_official(monkeypatch)
    usual = [
        "--dataset",
        "folder",
        "--data-root",
        str(images_root),
        "--image-size",
        "16",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(["llamagen-ds16", *usual]) == 0
    tokens = TokenFile.open(tmp_path / "out")
    tokenizer = load_pretrained("llamagen-ds16")
    with torch.no_grad():
        images = to_float(open_dataset("folder", "train", 16, data_root=images_root).images([0, 1]))
        assert torch.equal(tokens.indices([0, 1]), tokenizer.encode(images))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["llamagen-ds61", *usual])
    assert capsys.readouterr().err.splitlines()[-1].endswith("llamagen-ds61. Did you mean 'llamagen-ds16'?")
