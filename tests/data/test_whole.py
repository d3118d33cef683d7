"""Whole pictures, each of its own size: their pixels, batches, records, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.data import eval_batches, open_dataset
from vistok.data.registry import open_given
from vistok.data.transforms import picture_size
from vistok.data.whole import WholeImages

SIZES = [(21, 14), (22, 14), (14, 21), (40, 30), (41, 31), (42, 31), (16, 16)]  # width and height


def write(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    for number, (width, height) in enumerate(sizes):
        values = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / "test" / f"{number}.png")
    Image.new("RGB", (9, 9)).save(folder / "train" / "a.png")
    return folder


def tokenizer(factor: int = 4) -> SimpleNamespace:
    def check_size(height: int, width: int) -> None:
        assert height % factor == width % factor == 0

    return SimpleNamespace(image_size=8, downsample_factor=factor, check_size=check_size)


def measure() -> None: ...


def open_whole(root: Path, factor: int = 4, **of_dataset: object) -> WholeImages:
    given = {"data_root": root, "crop": "none"} | of_dataset
    return open_given(measure, "folder", given, "test", tokenizer(factor), whole=True)


def test_pixels_are_those_of_the_file_less_what_is_no_whole_token(tmp_path: Path) -> None:
    dataset = open_whole(write(tmp_path, SIZES))
    assert len(dataset) == 7 and dataset.image_size is None and dataset.crop == "none"
    for number, (width, height) in enumerate(SIZES):
        made = dataset.images(np.array([number]))[0].permute(1, 2, 0).numpy()
        original = np.asarray(Image.open(tmp_path / "test" / f"{number}.png"))
        top, left = height % 4 // 2, width % 4 // 2
        assert np.array_equal(made, original[top : top + height // 4 * 4, left : left + width // 4 * 4])
        assert dataset.original(number)[1][:2] == (left, top)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_ends_where_the_size_changes(tmp_path: Path, num_workers: int) -> None:
    dataset = open_whole(write(tmp_path, SIZES))
    shapes = [tuple(batch.shape) for batch in eval_batches(dataset, 2, num_workers=num_workers)]
    assert shapes == [(2, 3, 12, 20), (1, 3, 20, 12), (2, 3, 28, 40), (1, 3, 28, 40), (1, 3, 16, 16)]
    together = torch.cat([batch.flatten() for batch in eval_batches(dataset, 1)])
    assert torch.equal(together, torch.cat([batch.contiguous().flatten() for batch in eval_batches(dataset, 3)]))
    part = [len(batch) for batch in eval_batches(dataset, 8, first_image=1, end_image=5)]
    assert part == [1, 1, 2]
    with pytest.raises(ValueError, match="Whole pictures of 20x12 and 12x20 pixels are no batch"):
        dataset.images(np.array([0, 2]))


def test_sizes_are_looked_up_once_and_again_when_a_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, looked = write(tmp_path, SIZES), []

    def look(data: bytes, name: str) -> tuple[int, int]:
        looked.append(name)
        return picture_size(data, name)

    monkeypatch.setattr("vistok.data.whole.picture_size", look)
    first = open_whole(root)
    assert len(looked) == 7 and open_whole(root).different_sizes() == first.different_sizes() and len(looked) == 7
    assert first.different_sizes() == [(12, 20), (16, 16), (20, 12), (28, 40)]
    assert first.different_sizes(2) == [(12, 20)] and first.mean_pixels(3) == 240
    Image.new("RGB", (64, 64)).save(root / "test" / "3.png")
    assert (64, 64) in open_whole(root).different_sizes()


def test_its_record_says_what_was_done(tmp_path: Path) -> None:
    record = open_whole(write(tmp_path, SIZES), 8).record()
    assert (record["image_size"], record["crop"]) == (None, "none")
    assert record["preprocessing"] == "whole pictures, cut at the centre to multiples of 8 pixels"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_the_size_of_a_file_is_that_of_what_is_decoded(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side, which is ignored
    Image.new("RGB", (30, 20)).save(file, exif=exif)
    assert picture_size(file.read_bytes(), file.name) == (30, 20)


def test_unusable_files_are_an_error_or_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, [*SIZES, (30, 3)])
    (root / "test" / "1.png").write_bytes(b"nothing")
    cut = (root / "test" / "4.png").read_bytes()
    (root / "test" / "4.png").write_bytes(cut[: len(cut) // 2])  # its header is whole
    with pytest.raises(ValueError, match=r'1\.png cannot be decoded: .*on_bad_image="skip"'):
        open_whole(root)
    (root / "test" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"7\.png has 30x3 pixels, but a side must have at least 4; on_bad_image"):
        open_whole(root)
    dataset = open_whole(root, on_bad_image="skip")
    assert dataset.left_out == ["4.png", "7.png"] and len(dataset) == 5
    assert [batch.shape[2:] for batch in eval_batches(dataset, 1)][3:] == [(28, 40), (16, 16)]


def test_what_has_no_meaning_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, SIZES)
    with pytest.raises(ValueError, match="image_size is 64, but crop is 'none': pictures keep their sizes"):
        open_whole(root, image_size=64)
    with pytest.raises(ValueError, match="crop is 'none', but photos has one crop only"):
        open_given(measure, "photos", {"crop": "none"}, "test", tokenizer(), whole=True)
    with pytest.raises(ValueError, match="crop is 'none', but measure takes images of one size; leave it None"):
        open_given(measure, "folder", {"crop": "none", "data_root": root}, "test", tokenizer())
    with pytest.raises(ValueError, match="crop is 'none', but measure takes images of one size"):
        open_given(measure, open_whole(root), {}, "test", tokenizer())
    assert open_given(measure, opened := open_whole(root), {}, "test", tokenizer(), whole=True) is opened
    with pytest.raises(ValueError, match="crop is 'none'; "):
        open_dataset("folder", "test", 16, data_root=root, crop="none")
