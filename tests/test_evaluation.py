"""The record of an evaluation: its numbers against separate computations, and what it says where it cannot measure."""

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import signal
import urllib.error
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.io
import skimage.metrics
import torch
from helpers.inception import rfid_of_torch_fidelity
from helpers.processes import run_two
from helpers.weights import write_backbone, write_inception_weights
from PIL import Image

import vistok.evaluation.measuring
import vistok.evaluation.run_records
import vistok.evaluation.statistics
from vistok.config import TrainConfig
from vistok.data import eval_batches, open_dataset, to_float
from vistok.evaluation import Evaluation, evaluate, evaluate_run, save_record
from vistok.evaluation.__main__ import main
from vistok.images import to_unit, unit_to_uint8
from vistok.runs import Run
from vistok.tables import beside_published, comparison_markdown
from vistok.tokenizer import TokenizerOutput, VisualTokenizer
from vistok.training.trainer import Trainer

KEYS = """psnr ssim ssim_uniform7 lpips_alex lpips_vgg rfid usage usage_queue perplexity entropy_bits bits_per_pixel
num_images images_per_second unavailable dataset provenance"""


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty download and cache folders, and no network."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder dataset: 20 test images of 16x16 pixels."""
    folder = tmp_path / "images" / "test"
    folder.mkdir(parents=True)
    (tmp_path / "images" / "train").mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        pixels = torch.randint(0, 256, (4, 4, 3), generator=generator, dtype=torch.uint8)
        pixels = pixels.repeat_interleave(4, 0).repeat_interleave(4, 1)
        skimage.io.imsave(folder / f"{number:02d}.png", pixels.numpy(), check_contrast=False)
        skimage.io.imsave(tmp_path / "images" / "train" / f"{number:02d}.png", pixels.numpy(), check_contrast=False)
    return tmp_path / "images"


def toy(image_size: int = 16) -> VisualTokenizer:
    torch.manual_seed(0)
    return VisualTokenizer(
        network_options={"hidden_dim": 8, "num_res_blocks": 1},
        quantizer_options={"codebook_size": 16, "codebook_dim": 4},
        image_size=image_size,
    )


class Levels(torch.nn.Module):
    """A stand-in for a tokenizer of two codebooks, which reconstructs beyond [-1, 1]."""

    class Quantizer(torch.nn.Module):
        codebook_sizes = (4, 16)

    image_size, downsample_factor = 16, 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.5))
        self.quantizer = self.Quantizer()

    def check_size(self, height: int, width: int) -> None:
        assert (height, width) == (16, 16)

    def forward(self, images: torch.Tensor) -> TokenizerOutput:
        first = torch.arange(len(images) * 4).reshape(-1, 2, 2) % 2
        second = torch.arange(len(images) * 16).reshape(-1, 4, 4) % 16
        return TokenizerOutput(images * self.scale, (first, second), images, images, {})


def test_the_record_holds_what_was_measured(photographs: Path) -> None:
    tokenizer = toy().train()
    record = evaluate(tokenizer, "folder", data_root=photographs, batch_size=8, device="cpu", progress=False)
    assert all(module.training for module in tokenizer.modules())

    tokenizer.eval()
    dataset = open_dataset("folder", "test", 16, data_root=photographs)
    with torch.no_grad():
        images = torch.cat([to_float(batch) for batch in eval_batches(dataset, 5)])
        output = tokenizer(images)
    mse = ((images - output.reconstruction.clamp(-1, 1)) / 2).square().mean((1, 2, 3))
    counts = torch.bincount(output.indices.flatten(), minlength=16).double()
    shares = counts[counts > 0] / counts.sum()
    assert record.psnr == pytest.approx(float((-10 * mse.log10()).mean()), abs=1e-4)
    assert record.usage == len(shares) / 16 == record.usage_queue
    assert record.perplexity == pytest.approx(float((-shares * shares.log()).sum().exp()))
    assert record.bits_per_pixel == 16 * 4 / 256
    assert record.num_images == 20
    assert record["psnr"] == record.psnr
    with pytest.raises(KeyError, match="no 'fid'"):
        record["fid"]

    read = json.loads(record.to_json())
    assert set(KEYS.split()) <= set(read)
    assert read["dataset"]["name"] == "folder"
    assert read["provenance"]["versions"]["torch-fidelity"]
    assert str(photographs) not in record.to_json()
    seconds = record.seconds
    assert seconds["network"] > 0
    assert sum(seconds[part] for part in ("network", "data", "metrics")) == pytest.approx(seconds["total"], abs=0.01)


def write_pictures(root: Path, sizes: list[tuple[int, int]]) -> list[torch.Tensor]:
    """Write a folder dataset of test pictures of these heights and widths; return them, uint8 [3, H, W]."""
    (root / "train").mkdir(parents=True)
    (root / "test").mkdir()
    Image.new("RGB", (9, 9)).save(root / "train" / "0.png")
    pictures = []
    for number, size in enumerate(sizes):
        values = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        skimage.io.imsave(root / "test" / f"{number:02d}.png", values, check_contrast=False)
        pictures.append(torch.from_numpy(values).permute(2, 0, 1))
    return pictures


def test_whole_pictures_of_any_size_are_measured_one_by_one(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "images", [(16, 24), (16, 24), (29, 18), (12, 40)])
    tokenizer, options = toy().eval(), {"lpips": "off", "rfid": False, "device": "cpu", "progress": False}
    record = evaluate(
        tokenizer, "folder", data_root=tmp_path / "images", crop="none", save_images=tmp_path / "saved", **options
    )
    psnr, ssim, codes, pixels = [], [], [], 0
    for number, picture in enumerate(pictures):
        height, width = (side // 4 * 4 for side in picture.shape[1:])
        top, left = ((side % 4) // 2 for side in picture.shape[1:])
        seen = to_float(picture[None, :, top : top + height, left : left + width])
        with torch.no_grad():
            output = tokenizer(seen)
        original, made = (
            to_unit(given)[0].permute(1, 2, 0).double().numpy() for given in (seen, output.reconstruction)
        )
        psnr.append(skimage.metrics.peak_signal_noise_ratio(original, made, data_range=1))
        ssim.append(skimage.metrics.structural_similarity(original, made, win_size=7, channel_axis=2, data_range=1))
        codes.append(output.indices.flatten())
        pixels += height * width
        assert skimage.io.imread(tmp_path / "saved" / "originals" / f"{number:06d}.png").shape == (height, width, 3)
    assert record.psnr == pytest.approx(np.mean(psnr), abs=1e-3)
    assert record.ssim_uniform7 == pytest.approx(np.mean(ssim), abs=1e-4)
    assert torch.equal(record.counts[0], torch.bincount(torch.cat(codes), minlength=16))
    assert record.bits_per_pixel == pytest.approx(4 * len(torch.cat(codes)) / pixels)
    assert record.dataset["image_size"] is None and record.num_images == 4
    again = evaluate(tokenizer, "folder", data_root=tmp_path / "images", crop="none", batch_size=1, **options)
    assert again.psnr == pytest.approx(record.psnr, abs=1e-4) and torch.equal(again.counts[0], record.counts[0])


def test_whole_pictures_too_small_for_a_metric_leave_it_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", [(16, 24), (8, 24)])
    options = {"lpips": "off", "rfid": False, "device": "cpu", "progress": False}
    record = evaluate(toy(), "folder", data_root=tmp_path / "images", crop="none", **options)
    assert record.ssim is None and record.unavailable["ssim"] == "Images are 8 pixels, but it needs at least 11."
    assert record.ssim_uniform7 is not None


def test_a_dataset_that_is_open_is_measured_as_one_by_its_name(photographs: Path) -> None:
    options = {"rfid": False, "lpips": "off", "device": "cpu", "progress": False}
    dataset = open_dataset("folder", "test", 16, data_root=photographs)
    opened, named = (evaluate(toy(), dataset, **options), evaluate(toy(), "folder", data_root=photographs, **options))
    for key in ("psnr", "ssim", "usage", "bits_per_pixel", "dataset", "settings"):
        assert opened[key] == named[key]
    with pytest.raises(ValueError, match="split is given, but the dataset is open already"):
        evaluate(toy(), dataset, split="train", **options)
    with pytest.raises(ValueError, match="image_size 18 is not divisible"):
        evaluate(toy(), open_dataset("folder", "test", 18, data_root=photographs), **options)


def test_what_cannot_be_measured_is_null_with_the_reason(photographs: Path) -> None:
    record = json.loads(evaluate(toy(), "folder", data_root=photographs, progress=False).to_json())
    assert record["rfid"] is None
    assert record["lpips_alex"] is None
    assert "no network in this test" in record["unavailable"]["rfid"]
    assert "rfid_weights=FILE" in record["unavailable"]["rfid"]
    assert "AlexNet (230 MB)" in record["unavailable"]["lpips_alex"]
    assert "VGG16 (530 MB)" in record["unavailable"]["lpips_vgg"]
    assert set(record["unavailable"]) == {"rfid", "lpips_alex", "lpips_vgg"}
    assert record["ssim"] is not None


def test_choices_are_recorded(photographs: Path) -> None:
    record = evaluate(
        toy(), "folder", data_root=photographs, max_images=3, batch_size=2, rfid=False, lpips="off", progress=False
    )
    assert record.num_images == 3
    assert record.settings["max_images"] == 3
    assert record.dataset["num_images"] == 20
    assert record.unavailable["rfid"] == "Not asked for (rfid=False)."
    assert record.unavailable["lpips_vgg"] == "Not asked for (lpips='off')."
    one = evaluate(toy(), "folder", data_root=photographs, max_images=1, lpips="off", progress=False)
    assert "at least 2" in one.unavailable["rfid"]


def test_rfid_and_lpips_with_weights(photographs: Path, tmp_path: Path) -> None:
    weights = write_inception_weights(tmp_path / "inception.pth")
    write_backbone("alex", tmp_path)
    with pytest.warns(UserWarning, match="biased upward"):
        record = evaluate(
            toy(32), "folder", data_root=photographs, rfid_weights=weights, lpips=tmp_path, max_images=4, progress=False
        )
    assert record.rfid > 0
    assert record.lpips_alex > 0
    assert set(record.unavailable) == {"lpips_vgg"}
    assert "4 images is biased upward" in record.notes["rfid"]
    assert set(record.settings["weights_sha256"]) == {"lpips_alex", "rfid"}
    assert str(tmp_path) not in record.to_json()


class Projection(torch.nn.Module):
    """Stands in for Inception where it would take minutes: 8-bit images to 2048 features, and counts the images."""

    weights_sha256, published, num_seen = "01234567", False, 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        type(self).num_seen += len(images)
        pixels = images.flatten(1).float() / 255
        return pixels @ torch.randn(pixels.shape[1], 2048, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def measured(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Evaluation, int]]:
    """Returns a function that measures rFID on the photographs, and returns the record and how many images were seen."""
    monkeypatch.setattr("vistok.metrics.build_inception", lambda _: Projection())

    def measure(tokenizer: torch.nn.Module | None = None, **options: object) -> tuple[Evaluation, int]:
        before = Projection.num_seen
        options = {
            "data_root": photographs,
            "batch_size": 8,
            "device": "cpu",
            "lpips": "off",
            "progress": False,
        } | options
        record = evaluate(toy() if tokenizer is None else tokenizer, "folder", **options)
        return record, Projection.num_seen - before

    return measure


def values(record: Evaluation) -> dict[str, object]:
    """The parts of a record that are the same whenever the same is measured."""
    apart = ("images_per_second", "seconds", "provenance")
    return {key: value for key, value in record.to_dict().items() if key not in apart}


@pytest.mark.filterwarnings("ignore:rFID over")
def test_statistics_of_the_images_are_kept_and_change_no_bit(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path
) -> None:
    first, num_seen = measured()
    assert num_seen == 40 and first.rfid > 0 and "kept_statistics" not in first.provenance
    again, num_seen = measured()
    assert num_seen == 20 and again.provenance["kept_statistics"] == ["rfid"]
    assert values(again) == values(first)
    torch.manual_seed(1)
    other = VisualTokenizer(
        network_options={"hidden_dim": 8}, quantizer_options={"codebook_size": 8, "codebook_dim": 2}, image_size=16
    )
    with_kept, num_seen = measured(other)  # another row of a table
    assert num_seen == 20
    for file in (photographs.parent / "cache").glob("rfid-*.npz"):
        file.unlink()
    alone, num_seen = measured(other)
    assert num_seen == 40 and values(alone) == values(with_kept)
    # Other images, or computed in another way: their statistics are others.
    for options in ({"max_images": 7}, {"batch_size": 5}, {"split": "train"}, {"image_size": 12}):
        assert measured(**options)[1] == 2 * (options.get("max_images") or 20)
    file = photographs / "test/03.png"
    file.write_bytes((photographs / "test/04.png").read_bytes())
    assert measured()[1] == 40


@pytest.mark.filterwarnings("ignore:rFID over")
def test_of_statistics_those_used_last_are_kept(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.evaluation.statistics.MOST_FILES", 2)
    measured(max_images=4)
    measured(max_images=5)
    assert measured(max_images=4)[1] == 4  # and so used after the other
    measured(max_images=6)
    assert len([*(photographs.parent / "cache").glob("rfid-*.npz")]) == 2
    assert measured(max_images=4)[1] == 4 and measured(max_images=6)[1] == 6
    assert measured(max_images=5)[1] == 10


@pytest.mark.filterwarnings("ignore:rFID over")
def test_damaged_statistics_are_computed_again(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path
) -> None:
    first, _ = measured()
    (file,) = (photographs.parent / "cache").glob("rfid-folder-test-16-*.npz")
    content, zeros = file.read_bytes(), {"sums": np.zeros(2048), "outer_sums": np.zeros((2048, 2048)), "num_images": 20}
    middle = len(content) // 2
    damages = [content[:middle], content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :], b""]
    damages += [
        zeros | wrong for wrong in ({"num_images": 19}, {"outer_sums": np.zeros(2048)}, {"sums": np.array([print])})
    ]
    damages += [zeros | {"outer_sums": np.zeros((2048, 2048), np.float32)}]
    for damage in damages:
        if isinstance(damage, bytes):
            file.write_bytes(damage)
        else:
            np.savez(file, **damage)
        with pytest.warns(
            UserWarning, match=r"The statistics of the images, rfid-folder-.*, are computed again: their file"
        ):
            again, num_seen = measured()
        assert num_seen == 40 and values(again) == values(first)
        assert file.read_bytes() == content


@pytest.mark.filterwarnings("ignore:rFID over")
def test_statistics_that_cannot_be_kept_lose_no_record(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(rfid=False)  # makes the pixel cache

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vistok.evaluation.statistics.np.savez", full)
    with pytest.warns(UserWarning, match="are not kept, and the next evaluation computes them again: .*No space left"):
        record, _ = measured()
    assert record.rfid > 0
    assert not [*(photographs.parent / "cache").glob("*rfid-*")]
    monkeypatch.undo()


def test_a_killed_writer_leaves_nothing_that_is_read(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path
) -> None:
    """A process ends in the middle of writing; the next one computes again, and tidies up."""
    cache = photographs.parent / "cache"
    child = os.fork()
    if child == 0:
        vistok.evaluation.statistics.np.savez = lambda file, **_: (
            file.write(b"half"),
            os.kill(os.getpid(), signal.SIGKILL),
        )
        measured()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [*cache.glob(".rfid-*.part")] and not [*cache.glob("rfid-*.npz")]
    with pytest.warns(UserWarning, match="biased upward"):
        assert measured()[1] == 40
    assert not [*cache.glob(".rfid-*.part")] and len([*cache.glob("rfid-*.npz")]) == 1


def test_two_processes_that_keep_statistics_at_once_keep_the_same(
    measured: Callable[..., tuple[Evaluation, int]], photographs: Path
) -> None:
    torch.set_num_threads(1)  # a forked process has none of OpenMP's threads, and would wait for them
    cache = photographs.parent / "cache"
    measured(rfid=False)
    children = []
    for _ in range(2):
        if (child := os.fork()) == 0:
            status = 1
            with contextlib.suppress(BaseException):
                warnings.simplefilter("ignore")
                record, _ = measured()
                (cache / f"{os.getpid()}.json").write_text(json.dumps(values(record)))
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    with pytest.warns(UserWarning, match="biased upward"):
        record, num_seen = measured()
    assert num_seen == 20
    for child in children:
        assert json.loads((cache / f"{child}.json").read_text()) == json.loads(json.dumps(values(record)))


TWO_PROCESSES = """
import json, os, sys, warnings
from pathlib import Path
import torch
import torch.distributed as dist
import vistok.metrics
from vistok import evaluate
sys.path[:0] = ["tests"]
import test_evaluation as here

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
warnings.simplefilter("ignore")
os.environ["VISTOK_CACHE"] = str(folder / f"cache-{rank}")  # a disk of its own
vistok.metrics.build_inception = lambda _: here.Projection()
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
options = dict(data_root=folder / "images", batch_size=4, device="cpu", lpips="off", progress=False)
records = []
for seen in (20, 10):  # of originals and reconstructions, half of them in each process
    before = here.Projection.num_seen
    records.append(evaluate(here.toy(), "folder", save_images=folder / "saved", **options))
    assert here.Projection.num_seen - before == seen, here.Projection.num_seen
assert here.values(records[0]) == here.values(records[1])
assert len([*(folder / f"cache-{rank}").glob("rfid-*.npz")]) == (rank == 0)
if rank == 1:  # what one refuses, both do
    (folder / "saved/originals/mine.png").write_bytes(b"mine")
dist.barrier()
try:
    evaluate(here.toy(), "folder", save_images=folder / "saved", **options)
    sys.exit("it was not refused")
except ValueError as error:
    assert "mine.png" in str(error)
dist.destroy_process_group()
"""


def test_two_processes_use_what_the_first_has_kept_and_save_every_image_once(photographs: Path) -> None:
    run_two(TWO_PROCESSES, photographs.parent)
    for name in ("originals", "reconstructions"):
        files = sorted(file.name for file in (photographs.parent / "saved" / name).glob("0*"))
        assert files == [f"{number:06d}.png" for number in range(20)]


# Images saved for other programs.


def pixels_in(folder: Path) -> dict[str, np.ndarray]:
    return {file.name: np.asarray(Image.open(file)) for file in sorted(folder.iterdir())}


def test_images_are_saved_as_rfid_rounds_them(photographs: Path, tmp_path: Path) -> None:
    options = {"data_root": photographs, "device": "cpu", "lpips": "off", "rfid": False, "progress": False}
    tokenizer = toy()
    evaluate(tokenizer, "folder", save_images=tmp_path / "saved", batch_size=8, **options)
    originals, reconstructions = (pixels_in(tmp_path / "saved" / name) for name in ("originals", "reconstructions"))
    assert list(originals) == list(reconstructions) == [f"{number:06d}.png" for number in range(20)]
    images = open_dataset("folder", "test", 16, data_root=photographs).images(np.arange(20))
    assert np.array_equal(np.stack([*originals.values()]), images.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        expected = unit_to_uint8(to_unit(tokenizer.eval()(to_float(images)).reconstruction))
    difference = np.stack([*reconstructions.values()]).astype(int) - expected.permute(0, 2, 3, 1).numpy()
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3  # batches of another size round otherwise
    description = json.loads((tmp_path / "saved/images.json").read_text())
    assert description["num_images"] == 20 and str(tmp_path) not in json.dumps(description)


def test_saving_goes_on_where_it_was_stopped_and_loses_nothing(photographs: Path, tmp_path: Path) -> None:
    options = {"data_root": photographs, "device": "cpu", "lpips": "off", "rfid": False, "progress": False}
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "notes.txt").write_text("mine")
    evaluate(toy(), "folder", save_images=saved, **options)
    whole = [pixels_in(saved / name) for name in ("originals", "reconstructions")]
    (saved / "originals/000003.png").unlink()  # stopped before this one, and in the middle of writing the next
    (saved / f"reconstructions/.000004.png.{platform.node()}.999999999.part").write_bytes(b"half")
    for _ in range(2):
        evaluate(toy(), "folder", save_images=saved, **options)
        again = [pixels_in(saved / name) for name in ("originals", "reconstructions")]
        assert all(np.array_equal(a[n], b[n]) for a, b in zip(whole, again, strict=True) for n in a | b)
    assert (saved / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_images_is_refused_before_anything_is_measured(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"data_root": photographs, "device": "cpu", "lpips": "off", "rfid": False, "progress": False}
    saved, foreign = tmp_path / "saved", tmp_path / "foreign"
    evaluate(toy(), "folder", save_images=saved, **options)
    (foreign / "originals").mkdir(parents=True)
    (foreign / "originals/000000.png").write_bytes(b"mine")
    monkeypatch.setattr(vistok.evaluation.measuring, "eval_batches", lambda *_, **__: pytest.fail("images were read"))

    def refused(sentence: str, path: Path, tokenizer: VisualTokenizer | None = None, **more: object) -> None:
        before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
        with pytest.raises((ValueError, OSError), match=sentence):
            evaluate(toy() if tokenizer is None else tokenizer, "folder", save_images=path, **options | more)
        assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before

    other = toy()
    with torch.no_grad():
        other.quantizer.weight.add_(1)
    refused("saved holds images of another evaluation", saved, other)
    refused("saved holds images of another evaluation", saved, max_images=3)
    refused("saved holds images of another evaluation", saved, split="train")
    refused("originals holds files that are none of this tokenizer's", foreign)
    refused("among the images of folder, and would be taken for them", photographs / "test/saved")
    (saved / "originals/more.png").write_bytes(b"mine")
    refused("originals holds 'more.png', which is none of these images", saved)
    (tmp_path / "file").write_text("mine")
    refused("file is a file, and no folder in which anything could be written", tmp_path / "file")
    monkeypatch.setattr("vistok.evaluation.saving.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    refused("save_images needs up to 0.0 GB, but .* has 0.0 GB free", tmp_path / "new")


@pytest.mark.slow
def test_torch_fidelity_finds_our_rfid_on_the_saved_images(photographs: Path, tmp_path: Path) -> None:
    weights = write_inception_weights(tmp_path / "inception.pth")
    saved = tmp_path / "saved"
    with pytest.warns(UserWarning, match="biased upward"):
        record = evaluate(
            toy(), "folder", data_root=photographs, rfid_weights=weights, lpips="off", save_images=saved, progress=False
        )
    expected = rfid_of_torch_fidelity(saved / "originals", saved / "reconstructions", weights)
    assert expected > 1 and record.rfid == pytest.approx(expected, rel=1e-3)


def test_several_codebooks_are_reported_each_and_as_their_mean(photographs: Path) -> None:
    record = evaluate(Levels(), "folder", data_root=photographs, device="cpu", lpips="off", rfid=False, progress=False)
    assert [codebook["usage"] for codebook in record.codebooks] == [0.5, 1]
    assert [codebook["codebook_size"] for codebook in record.codebooks] == [4, 16]
    assert record.usage == 0.75
    assert record.perplexity == pytest.approx((2 + 16) / 2)
    assert record.bits_per_pixel == (4 * 2 + 16 * 4) / 256
    assert record.psnr > 10  # clamped


def test_a_perfect_reconstruction_is_no_number_for_json(photographs: Path) -> None:
    tokenizer = Levels()
    with torch.no_grad():
        tokenizer.scale.fill_(1)
    record = evaluate(tokenizer, "folder", data_root=photographs, device="cpu", lpips="off", rfid=False, progress=False)
    assert record.psnr is None
    assert "equals its reconstruction" in record.unavailable["psnr"]
    assert record.ssim == pytest.approx(1)
    assert json.loads(record.to_json())["psnr"] is None


def test_small_images_leave_out_what_needs_larger_ones(photographs: Path) -> None:
    tokenizer = toy(8)
    record = evaluate(tokenizer, "folder", data_root=photographs, lpips="off", rfid=False, progress=False)
    assert record.ssim is None
    assert record.unavailable["ssim"] == "Images are 8 pixels, but it needs at least 11."
    assert record.ssim_uniform7 is not None


def test_the_record_says_where_networks_are_not_in_float32(photographs: Path) -> None:
    options = {"data_root": photographs, "device": "cpu", "lpips": "off", "rfid": False, "progress": False}
    assert evaluate(toy().bfloat16(), "folder", **options).settings["dtype"] == "bfloat16"
    assert "dtype" not in evaluate(toy(), "folder", **options).settings
    torch.set_default_dtype(torch.bfloat16)  # in which the windows of SSIM would be computed
    try:
        with pytest.raises(ValueError, match=r"default dtype is torch\.bfloat16, but"):
            evaluate(toy(), "folder", **options)
    finally:
        torch.set_default_dtype(torch.float32)


def test_it_computes_in_float32_whatever_is_on_outside(photographs: Path) -> None:
    options = {"data_root": photographs, "device": "cpu", "lpips": "off", "rfid": False, "progress": False}
    expected = evaluate(toy(), "folder", **options)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert evaluate(toy(), "folder", **options).psnr == expected.psnr
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"image_size": 18},
            "image_size 18 is not divisible by the downsample factor 4 .* nearest that is: 16",
        ),
        ({"image_size": 0}, "image_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_images": 0}, "max_images is 0"),
        ({"num_workers": -1}, "num_workers is -1, but must be at least 0."),
        ({"lpips": "if-presnt"}, "lpips is 'if-presnt', but must be 'if-present', 'download', 'off' or a folder"),
        ({"rfid": False, "rfid_weights": "some.pth"}, "rfid_weights is given, but rfid is False"),
        ({"split": "tset"}, "tset"),
        ({"batchsize": 4}, "evaluate has no option 'batchsize'; did you mean 'batch_size'"),
        ({"data_rot": "images"}, "evaluate has no option 'data_rot'; did you mean 'data_root'"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_read(
    options: dict, sentence: str, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vistok.evaluation.measuring, "eval_batches", lambda *_, **__: pytest.fail("images were read"))
    with pytest.raises(ValueError, match=sentence):
        evaluate(toy(), "folder", **({"data_root": photographs} | options))
    with pytest.raises(FileNotFoundError, match="rfid_weights is 'nothing.pth', but there is no such file"):
        evaluate(toy(), "folder", data_root=photographs, rfid_weights="nothing.pth")
    with pytest.raises(TypeError, match="lpips is False, but must be 'if-present', 'download', 'off' or a folder"):
        evaluate(toy(), "folder", data_root=photographs, lpips=False)
    tokenizer = toy()
    next(tokenizer.encoder.parameters()).data.view(-1)[0] = torch.inf
    with pytest.raises(ValueError, match="Not all weights of the tokenizer are finite .of encoder"):
        evaluate(tokenizer, "folder", data_root=photographs)


def titok() -> VisualTokenizer:
    torch.manual_seed(0)
    options = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "num_tokens": 6, "patch_size": 4}
    codes = {"codebook_size": 16, "codebook_dim": 4}
    return VisualTokenizer(network="titok", network_options=options, quantizer_options=codes, image_size=16).eval()


def test_the_first_tokens_of_a_sequence_are_measured_alone(photographs: Path, tmp_path: Path) -> None:
    tokenizer, options = titok(), {"data_root": photographs, "rfid": False, "lpips": "off", "progress": False}
    whole, all_of_it, part = (evaluate(tokenizer, "folder", num_tokens=n, **options) for n in (None, 6, 2))
    assert all_of_it.psnr == whole.psnr and "num_tokens" not in whole.settings and part.settings["num_tokens"] == 2
    images = to_float(open_dataset("folder", "test", 16, data_root=photographs).images(list(range(20))))
    with torch.no_grad():
        indices = tokenizer.encode(images)[..., :2]
        mse = ((images - tokenizer.decode(indices)) / 2).square().mean((1, 2, 3))
    assert part.psnr == pytest.approx(float((-10 * mse.log10()).mean()), abs=1e-4) and part.psnr != whole.psnr
    assert part.usage == len(indices.unique()) / 16 and part.bits_per_pixel == 2 * 4 / 256
    evaluate(tokenizer, "folder", save_images=tmp_path / "saved", **options)
    with pytest.raises(ValueError, match="holds images of another evaluation"):
        evaluate(tokenizer, "folder", save_images=tmp_path / "saved", num_tokens=2, **options)
    with pytest.raises(ValueError, match="num_tokens is 7, but an image is 6 tokens: the most is 6"):
        evaluate(tokenizer, "nothing", num_tokens=7)
    with pytest.raises(ValueError, match="num_tokens is 3, but tokens of 'simple_cnn' lie on a grid"):
        evaluate(toy(), "nothing", num_tokens=3)


def test_the_command_files_a_beginning_apart(
    toy: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"num_res_blocks": TrainConfig().num_res_blocks}
    options = {"depth": 1, "num_heads": 2, "num_tokens": 6, "patch_size": 4, "prefixes": "powers"}
    run = Run.open(None, toy(network="titok", network_options=options, **usual))
    for _ in Trainer(run, progress=False):
        pass
    command = [str(run.path), "--no-rfid", "--lpips", "off"]
    assert main(command) == 0 and main([*command, "--num-tokens", "2"]) == 0
    assert json.loads((run.path / "metrics-folder-test-2tokens.json").read_bytes())["settings"]["num_tokens"] == 2
    assert "num_tokens" not in run.metrics["settings"]
    capsys.readouterr()
    assert main([*command, "--num-tokens", "9"]) == 1
    assert "num_tokens is 9, but an image is 6 tokens: the most is 6." in capsys.readouterr().err


def test_the_command_measures_a_finished_run_and_keeps_what_is_recorded(
    toy: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(None, toy())
    command = [str(run.path), "--no-rfid", "--lpips", "off", "--batch-size", "3"]
    assert main(command) == 1
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if "vistok.evaluation:" in line]
    assert "There is no run in" in sentence
    for report in Trainer(run, progress=False):
        if report.step == 2:
            break
    assert main(command) == 1
    assert "has taken 2 of 6 steps" in capsys.readouterr().err
    for _ in Trainer(run, progress=False):
        pass
    assert main(command) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == run.metrics
    assert printed["dataset"]["split"] == "test" and printed["psnr"] > 0
    origin = printed["provenance"]
    assert {"versions", "commit", "dirty", "device", "threads", "date"} <= origin.keys()
    assert (origin["seed"], origin["num_processes"]) == (0, 1)
    assert origin["data_fingerprint"] == printed["dataset"]["fingerprint"] and origin["wall_seconds"] >= 0
    assert main(command) == 0
    assert "already recorded, and stays" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_measured(
    toy: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(None, toy())
    for _ in Trainer(run, progress=False):
        pass
    before = sorted(run.path.iterdir())

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vistok.system.files.os.fsync", full)  # root may write wherever there is room
    monkeypatch.setattr(vistok.evaluation.run_records, "evaluate", lambda *_, **__: pytest.fail("it was measured"))
    assert main([str(run.path), "--no-rfid"]) == 1
    assert re.search(
        r"\S+ cannot be written \(No space left on device\), where its record would go", capsys.readouterr().err
    )
    assert sorted(run.path.iterdir()) == before


def test_a_record_that_cannot_be_written_after_all_is_printed(
    toy: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.open(None, toy())
    for _ in Trainer(run, progress=False):
        pass
    measure = vistok.evaluation.evaluate

    def then_a_folder_is_in_the_way(*arguments: object, **options: object) -> object:
        record = measure(*arguments, **options)
        (run.path / "metrics-folder-test-part.json").mkdir()
        return record

    monkeypatch.setattr(vistok.evaluation.run_records, "evaluate", then_a_folder_is_in_the_way)
    assert main([str(run.path), "--no-rfid", "--lpips", "off", "--max-images", "2", "--overwrite"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["psnr"] > 0
    assert "could not be written into" in printed.err
    assert "printed instead, as the text of metrics-folder-test-part.json." in printed.err


def test_whole_pictures_are_asked_for_on_the_command_line_and_filed_apart(
    toy: Callable[..., TrainConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(None, toy())
    for _ in Trainer(run, progress=False):
        pass
    write_pictures(tmp_path / "pictures", [(16, 24), (20, 16)])
    options = ["--data-root", str(tmp_path / "pictures"), "--crop", "none", "--no-rfid", "--lpips", "off"]
    assert main([str(run.path), *options]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["dataset"]["crop"] == "none" and record["dataset"]["image_size"] is None
    (file,) = [path.name for path in run.path.glob("metrics*.json")]
    assert file.startswith("metrics-folder-test-") and file.endswith("-whole.json")


def test_one_code_is_measured(photographs: Path) -> None:
    tokenizer = VisualTokenizer(quantizer_options={"codebook_size": 1, "codebook_dim": 2}, image_size=16)
    record = evaluate(tokenizer, "folder", data_root=photographs, lpips="off", rfid=False, progress=False)
    assert (record.bits_per_pixel, record.usage, record.perplexity, record.entropy_bits) == (0, 1, 1, 0)


@pytest.mark.parametrize("quantizer", ["none", "kl"])
def test_without_a_codebook_usage_is_not_applicable_and_the_images_are_measured(
    quantizer: str, photographs: Path
) -> None:
    tokenizer = VisualTokenizer(quantizer=quantizer, quantizer_options={"codebook_dim": 2}, image_size=16)
    record = evaluate(tokenizer, "folder", data_root=photographs, lpips="off", rfid=False, progress=False)
    assert record.psnr > 0 and record.codebooks == record.counts == []
    for name in ("usage", "usage_queue", "perplexity", "entropy_bits", "bits_per_pixel"):
        assert record[name] is None and record.unavailable[name] == "Not applicable: there is no codebook."
    assert json.loads(record.to_json())["usage"] is None
    assert "| usage | – |" in beside_published(record.to_dict(), None)
    assert (
        comparison_markdown({"a": record.to_dict()}, {})
        .splitlines()[2]
        .startswith("| a | here: folder, 20 images | – | – | – |")
    )


def test_a_run_measured_elsewhere_is_filed_apart(
    toy: Callable[..., TrainConfig], images_root: Path, tmp_path: Path
) -> None:
    run = Run.open(None, toy())
    for _ in Trainer(run, progress=False):
        pass
    options = {"rfid": False, "lpips": "off", "progress": False}

    def name(*dataset: str, **more: object) -> str:
        return evaluate_run(run, *dataset, **options, **more).file_name

    assert name() == "metrics.json"
    assert name(max_images=2) == "metrics-folder-test-part.json"
    assert name(split="train") == "metrics-folder-train.json"
    assert name(image_size=32) == "metrics-folder-test-32px.json"  # it was trained on images of 16 pixels
    assert re.fullmatch(r"metrics-folder-test-[0-9a-f]{8}\.json", name(test_fraction=0.2, on_bad_image="skip"))
    assert re.fullmatch(r"metrics-folder-train-[0-9a-f]{8}\.json", name(split="train", crop="adm"))
    assert name(crop="adm") == name(test_fraction=0.1) == "metrics.json"  # a test split has one crop; 0.1 is the usual
    assert name("photos", max_images=2) == "metrics-photos-test-part.json"  # another dataset: filed by its name
    with pytest.raises(TypeError, match="^dataset is .*, but must be of type str or None"):
        evaluate_run(run, open_dataset("photos", "test", 16), **options)
    shutil.copytree(images_root, tmp_path / "copy", copy_function=shutil.copyfile)
    for same in (f"{images_root}/", tmp_path / "copy"):  # the data decides, not its place
        assert name(data_root=same) == "metrics.json"
    Image.new("RGB", (24, 24), "red").save(tmp_path / "copy" / "more.png")
    record = evaluate_run(run, data_root=tmp_path / "copy", **options)  # its dataset, but other images
    file = save_record(run, record)
    assert file.name == record.file_name == f"metrics-folder-test-{record.dataset['fingerprint'][:8]}.json"
    assert json.loads(file.read_text()) == record.to_dict() and "file_name" not in record.to_dict()
    assert run.metrics is None
    alone = evaluate(VisualTokenizer.load(run.path), "folder", data_root=images_root, **options)
    with pytest.raises(ValueError, match="The record is of a tokenizer, not of a run"):
        save_record(run, alone)


def test_a_run_measured_on_what_has_become_of_its_images_is_filed_apart(
    toy: Callable[..., TrainConfig], images_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(images_root, root)
    run = Run.open(None, toy(data_root=str(root)))
    for _ in Trainer(run, progress=False):
        pass
    options = {"rfid": False, "lpips": "off", "progress": False}
    assert evaluate_run(run, **options).file_name == "metrics.json"
    next(iter(sorted(root.rglob("*.png")))).unlink()  # now other images are every tenth
    with pytest.warns(
        UserWarning, match="are others than those that .* was trained on, so that some of those it is tested"
    ):
        assert evaluate_run(run, **options).file_name.startswith("metrics-folder-test-")
