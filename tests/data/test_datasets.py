"""Datasets: what they hold, how files become squares, and what is refused."""

import gzip
import hashlib
import io
import json
import random
import re
import shutil
import struct
import tarfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.data import DATASETS, cifar, mnist, open_dataset, open_figures, to_float
from vistok.data import photos as photos_module
from vistok.data.transforms import CelebASquare, CenterSquare, PhotoSquare, adm_random_crop, check_decodes, decode
from vistok.system.paths import repository_root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth image with some noise: crops differ from place to place, and JPEG keeps it roughly."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def write_folder(folder: Path, names: list[str], width: int = 40, height: int = 30) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        file_format = "PNG" if name.endswith(".png") else "JPEG"
        picture(width, height, seed).save(folder / name, file_format)
    return folder


def write_celeba(root: Path, layout: str, counts: tuple[int, int, int] = (6, 2, 4)) -> Path:
    """The official or the mirror's layout, "-zip" for zipped images."""
    names = [f"{i:06d}.jpg" for i in range(1, sum(counts) + 1)]
    splits = [split for split, count in enumerate(counts) for _ in range(count)]
    kaggle = layout.startswith("kaggle")
    folder = root / "img_align_celeba" / ("img_align_celeba" if kaggle else "")
    write_folder(folder, names, 178, 218)
    if kaggle:
        lines = ["image_id,partition"] + [f"{n},{s}" for n, s in zip(names, splits, strict=True)]
        (root / "list_eval_partition.csv").write_text("\n".join(lines))
    else:
        lines = [f"{n} {s}" for n, s in zip(names, splits, strict=True)]
        (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    if layout.endswith("-zip"):
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.relative_to(root))
        shutil.rmtree(root / "img_align_celeba")
    return root


def everything(dataset) -> torch.Tensor:
    return dataset.images(np.arange(len(dataset)))


# Photographs.


def test_photos_are_windows_of_different_photographs(monkeypatch):
    monkeypatch.setitem(photos_module.NUM_WINDOWS, "train", 24)
    monkeypatch.setitem(photos_module.NUM_WINDOWS, "test", 6)
    train, test = (open_dataset("photos", split, 16) for split in ("train", "test"))
    assert (len(train), len(test)) == (24, 6)
    assert len(set(train.names)) == 6 and len(set(test.names)) == 2 and not set(train.names) & set(test.names)
    images = everything(train)
    assert images.shape == (24, 3, 16, 16) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert len({image.numpy().tobytes() for image in images}) == 24
    for index in range(len(train)):
        photo, (left, top, right, bottom) = train.original(index)
        assert 0 <= left < right <= photo.width and 0 <= top < bottom <= photo.height
        assert right - left == bottom - top >= 16
        window = photo.crop((left, top, right, bottom)).resize((16, 16), Image.Resampling.BICUBIC)
        difference = np.asarray(window, float) - images[index].permute(1, 2, 0).numpy()
        assert np.abs(difference).mean() < 2.5  # a window is shrunk in two steps


def test_photo_windows_fill_their_range_and_depend_on_the_index_alone():
    boxes = [PhotoSquare(64).box(index, 600, 400) for index in range(2000)]
    sides = np.array([right - left for left, _, right, _ in boxes])
    assert sides.min() < 70 and sides.max() > 395 and abs(sides.mean() - 232) < 10
    assert boxes[7] == PhotoSquare(64).box(7, 600, 400)
    assert PhotoSquare(512).box(3, 600, 400)[3] == 400  # a photograph smaller than the image is used whole


def test_a_missing_photograph_is_one_clear_error(monkeypatch):
    monkeypatch.setitem(photos_module.PHOTOS, "test", ("chelsea.png", "no-such.png"))
    with pytest.raises(ValueError, match="lacks no-such.png"):
        open_dataset("photos", "train", 16)


def test_photos_are_what_records_were_made_of():
    test = open_dataset("photos", "test", 64)
    assert test.fingerprint == "61ed4cae8a9a" and "licences" not in test.record()
    cats = test.images(np.arange(0, len(test), 2)).contiguous()  # of a PNG file: decoders of JPEG round differently
    assert hashlib.sha256(cats.numpy().tobytes()).hexdigest()[:12] == "25ae00e58494"


def test_the_first_scenes_are_whole_squares_of_different_photographs():
    scenes = open_dataset("scenes", "test", 64)
    number = len(photos_module.SCENES)
    assert number >= 14 and len(scenes) == 512
    assert list(scenes.names[:number]) == list(photos_module.SCENES) and scenes.names[number] == scenes.names[0]
    assert scenes.record()["licences"] == photos_module.SCENES
    assert scenes.record()["fingerprint"] == "054e01a18d28"  # of the same files on every machine
    for index in range(3 * number):
        photo, (left, top, right, bottom) = scenes.original(index)
        short = min(photo.size)
        assert 0 <= left < right <= photo.width and 0 <= top < bottom <= photo.height
        assert right - left == bottom - top
        assert (right - left == short) if index < number else (short // 3 <= right - left <= short)
    images = everything(scenes)
    assert len({image.numpy().tobytes() for image in images}) == 512
    assert min(image.float().std() for image in images[:number]) > 10  # something is to be seen


def test_scenes_are_not_to_train_on():
    with pytest.raises(ValueError, match='scenes are to look at, not to train on: they have one split, "test"'):
        open_dataset("scenes", "train", 16)


# CelebA.


@pytest.mark.parametrize("layout", ["official", "official-zip", "kaggle", "kaggle-zip"])
def test_celeba_layouts(tmp_path, layout):
    root = write_celeba(tmp_path / "celeba", layout)
    sizes = {split: len(open_dataset("celeba", split, 32, data_root=root)) for split in ("train", "val", "test")}
    assert sizes == {"train": 6, "val": 2, "test": 4}
    dataset = open_dataset("celeba", "val", 32, data_root=root)
    assert dataset.names == ["000007.jpg", "000008.jpg"]
    original, box = dataset.original(1)
    assert original.size == (178, 218) and box == (25, 57, 153, 185)
    expected = original.crop((25, 57, 25 + 128, 57 + 128)).resize((32, 32), Image.Resampling.BILINEAR)
    assert np.array_equal(dataset.images(np.array([1]))[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_celeba_is_the_same_in_every_layout(tmp_path):
    layouts = ("official", "official-zip", "kaggle", "kaggle-zip")
    datasets = [
        open_dataset("celeba", "train", 16, data_root=write_celeba(tmp_path / layout, layout)) for layout in layouts
    ]
    assert len({dataset.fingerprint for dataset in datasets}) == 1
    assert all(torch.equal(everything(datasets[0]), everything(dataset)) for dataset in datasets)


def test_celeba_crop_against_torchvision():
    from torchvision.transforms.functional import resized_crop

    image = picture(178, 218)
    expected = resized_crop(image, 57, 25, 128, 128, [64, 64])  # antialiased bilinear on a PIL image
    assert np.array_equal(CelebASquare(64).render(0, image), np.asarray(expected))
    # ... and against antialiased bilinear computed in floating point, up to rounding after each of the two passes.
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None, :, 57:185, 25:153].float()
    tensor = torch.nn.functional.interpolate(tensor, (64, 64), mode="bilinear", antialias=True)
    assert np.abs(tensor[0].permute(1, 2, 0).numpy() - CelebASquare(64).render(0, image)).max() <= 1.01


def test_celeba_partition_that_disagrees(tmp_path):
    root = write_celeba(tmp_path, "official")
    (root / "img_align_celeba/000003.jpg").unlink()
    with pytest.raises(ValueError, match=r"lists 12 images and .* holds 11: 1 missing, 0 .* 000003.jpg is missing"):
        open_dataset("celeba", "test", 16, data_root=root)
    write_folder(root / "img_align_celeba", ["000003.jpg", "000099.jpg"], 178, 218)
    with pytest.raises(ValueError, match=r"0 missing, 1 not listed; for instance 000099.jpg"):
        open_dataset("celeba", "test", 16, data_root=root)
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 3\n")
    with pytest.raises(ValueError, match="Line 2 of .* '000002.jpg 3'"):
        open_dataset("celeba", "test", 16, data_root=root)


def test_celeba_zip_with_foreign_entries(tmp_path):
    root = write_celeba(tmp_path, "official-zip")
    with zipfile.ZipFile(root / "img_align_celeba.zip", "a") as archive:
        archive.writestr("../../000013.jpg", b"")
    with pytest.raises(ValueError, match=r"holds '../../000013.jpg'"):
        open_dataset("celeba", "test", 16, data_root=root)
    (root / "img_align_celeba.zip").write_bytes((root / "img_align_celeba.zip").read_bytes()[:1000])
    with pytest.raises(ValueError, match="no zip file"):
        open_dataset("celeba", "test", 16, data_root=root)


def test_celeba_missing_says_how_to_get_it(tmp_path):
    for root in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ValueError, match="quota.*mmlab.ie.cuhk.edu.hk.*kaggle.com") as error:
            open_dataset("celeba", "train", 64, data_root=root)
        assert str(root) in str(error.value)
    write_celeba(tmp_path, "official")
    shutil.rmtree(tmp_path / "img_align_celeba")
    with pytest.raises(ValueError, match="neither img_align_celeba/ nor img_align_celeba.zip"):
        open_dataset("celeba", "train", 64, data_root=tmp_path)


def test_celeba_wants_aligned_images(tmp_path):
    root = write_celeba(tmp_path, "official")
    picture(178, 200).save(root / "img_align_celeba/000002.jpg")
    with pytest.raises(ValueError, match="000002.jpg has 178x200 pixels"):
        open_dataset("celeba", "train", 16, data_root=root)


# CIFAR-10 as JPEG copies.


def write_cifar_copies(root: Path, layout: str, monkeypatch) -> Path:
    """Two images a class to train on and one to test on, as a folder or packed as "<folder>.tar.gz" of a name."""
    monkeypatch.setattr(cifar, "A_CLASS", {"train": 2, "test": 1})
    names = [
        f"{split}/{kind}/{n:04d}.jpg"
        for split, count in cifar.A_CLASS.items()
        for kind in cifar.CLASSES
        for n in range(count)
    ]
    (root / "README.md").parent.mkdir(parents=True, exist_ok=True)
    write_folder(root, names, 32, 32)
    if layout != "folder":
        packed = root.with_name(f"{root.name}-packed")
        packed.mkdir()
        with tarfile.open(packed / f"{layout}.tar.gz", "w:gz") as archive:
            for part in ("train", "test"):
                archive.add(root / part, part if layout == "cifar10-images" else f"{layout}/{part}")
        return packed
    return root


@pytest.mark.parametrize("layout", ["folder", "cifar10-images", "CIFAR-10-images-master"])
def test_cifar_copies_are_whole_images_of_all_classes_in_turn(tmp_path, monkeypatch, layout):
    root = write_cifar_copies(tmp_path / "here", layout, monkeypatch)
    train, test = (open_dataset("cifar10-images", split, 32, data_root=root) for split in ("train", "test"))
    assert (len(train), len(test)) == (20, 10)
    assert test.names == [f"{kind}/0000.jpg" for kind in cifar.CLASSES]  # of every class among the last ones as well
    for index, name in enumerate(train.names):
        expected = decode((tmp_path / "here/train" / name).read_bytes(), name)
        assert np.array_equal(train.images(np.array([index]))[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    record = test.record()
    assert (record["crop"], record["preprocessing"]) == (None, "whole images of 32x32")
    assert record["note"].startswith("JPEG copies of quality 75")
    folder = open_dataset("cifar10-images", "test", 32, data_root=tmp_path / "here")
    assert folder.record() == record  # the same images, wherever they lie


def test_cifar_copies_that_are_not_whole_are_told_of(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folder test/, and no .tar.gz file of both. .*git clone .*CIFAR-10-images"):
        open_dataset("cifar10-images", "test", 32, data_root=tmp_path)
    root = write_cifar_copies(tmp_path / "here", "folder", monkeypatch)
    (root / "test/cat/0000.jpg").rename(root / "test/cat/0001.jpg")
    with pytest.raises(
        ValueError, match="hold 10 images for .* but 1 are missing and 1 .* instance cat/0000.jpg is missing"
    ):
        open_dataset("cifar10-images", "test", 32, data_root=root)
    picture(33, 32).save(root / "train/dog/0001.jpg")
    with pytest.raises(ValueError, match="dog/0001.jpg has 33x32 pixels, but an image of its dataset has 32x32"):
        open_dataset("cifar10-images", "train", 32, data_root=root)


def test_a_packed_copy_is_unpacked_once_and_again_when_it_changed(tmp_path, monkeypatch):
    root = write_cifar_copies(tmp_path / "here", "cifar10-images", monkeypatch)
    archive, cache = root / "cifar10-images.tar.gz", tmp_path / "cache"
    first = open_dataset("cifar10-images", "test", 32, data_root=root)
    (copy,) = cache.glob("unpacked-*.copy")
    before = copy.stat().st_ino
    assert open_dataset("cifar10-images", "test", 32, data_root=root).record() == first.record()
    assert copy.stat().st_ino == before and copy.stat().st_mtime_ns == archive.stat().st_mtime_ns
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive", content[:60] + b"?" * 40 + content[100:]):
        archive.write_bytes(damaged)
        with pytest.raises(
            ValueError, match="cifar10-images.tar.gz is no .gz file, is damaged, or its download was cut off"
        ):
            open_dataset("cifar10-images", "test", 32, data_root=root)
        assert not [*cache.glob(".*.part")]
    archive.write_bytes(content)
    assert torch.equal(everything(open_dataset("cifar10-images", "test", 32, data_root=root)), everything(first))
    assert len([*cache.glob("unpacked-*.copy")]) == 1
    monkeypatch.setattr(cifar, "_MOST_COPIES_BYTES", 10_000)
    archive.touch()
    with pytest.raises(ValueError, match="holds more than 10,000 bytes, so it is not what its name says"):
        open_dataset("cifar10-images", "test", 32, data_root=root)


# CIFAR-10 and MNIST in their original files.


def write_cifar(root: Path, layout: str, monkeypatch) -> dict[str, np.ndarray]:
    """Six images a file, "folder", "flat" or "packed"; returns the pixels of each split, uint8 [N, 3, 32, 32]."""
    monkeypatch.setattr(cifar, "A_BATCH", 6)
    folder = root if layout == "flat" else root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    pixels, rng = {}, np.random.default_rng(0)
    for split, names in cifar.BATCHES.items():
        pixels[split] = rng.integers(0, 256, (6 * len(names), 3, 32, 32), dtype=np.uint8)
        for name, part in zip(names, np.split(pixels[split], len(names)), strict=True):
            labels = rng.integers(0, 10, (6, 1), dtype=np.uint8)
            (folder / name).write_bytes(np.concatenate([labels, part.reshape(6, -1)], axis=1).tobytes())
    if layout == "packed":
        with tarfile.open(root / "cifar-10-binary.tar.gz", "w:gz") as archive:
            archive.add(folder, folder.name)
        shutil.rmtree(folder)
    return pixels


@pytest.mark.parametrize("layout", ["flat", "folder", "packed"])
def test_cifar_is_the_pixels_of_its_files(tmp_path, monkeypatch, layout):
    for split, pixels in write_cifar(tmp_path / "here", layout, monkeypatch).items():
        dataset = open_dataset("cifar10", split, 32, data_root=tmp_path / "here")
        assert np.array_equal(everything(dataset).numpy(), pixels)
        batch = cifar.BATCHES[split][0]
        assert dataset.names[:2] == [f"{batch}:0", f"{batch}:1"] and "note" not in dataset.record()
        other = write_cifar(tmp_path / split, "flat", monkeypatch) and open_dataset(
            "cifar10", split, 32, data_root=tmp_path / split
        )
        assert other.record() == dataset.record()


def test_cifar_files_that_are_not_whole_are_told_of(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds neither test_batch.bin .*www.cs.toronto.edu.*; pickles are not read"):
        open_dataset("cifar10", "test", 32, data_root=tmp_path)
    write_cifar(tmp_path / "here", "flat", monkeypatch)
    batch = tmp_path / "here/data_batch_3.bin"
    content = batch.read_bytes()
    batch.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="data_batch_3.bin has 18,437 bytes, but 6 images of CIFAR-10 have 18,438"):
        open_dataset("cifar10", "train", 32, data_root=tmp_path / "here")
    batch.write_bytes(content[:3073] + b"\x0a" + content[3074:])
    with pytest.raises(ValueError, match="data_batch_3.bin:1 has the label 10, but there are 10, from 0"):
        open_dataset("cifar10", "train", 32, data_root=tmp_path / "here")
    skipping = open_dataset("cifar10", "train", 32, data_root=tmp_path / "here", on_bad_image="skip")
    assert (len(skipping), skipping.left_out) == (29, ["data_batch_3.bin:1"])
    batch.unlink()
    with pytest.raises(ValueError, match="holds no data_batch_3.bin"):
        open_dataset("cifar10", "train", 32, data_root=tmp_path / "here")
    write_cifar(tmp_path / "there", "packed", monkeypatch)
    archive = tmp_path / "there/cifar-10-binary.tar.gz"
    archive.write_bytes(gzip.compress(b"no tar file" * 100))
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is no .tar.gz file, or is damaged"):
        open_dataset("cifar10", "test", 32, data_root=tmp_path / "there")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "here", "cifar-10-batches-bin")
    with pytest.raises(ValueError, match="tar.gz holds no data_batch_3.bin. Get cifar-10-binary"):
        open_dataset("cifar10", "train", 32, data_root=tmp_path / "there")


def write_mnist(root: Path, name: str, pixels: np.ndarray) -> Path:
    content = struct.pack(">4I", 0x803, *pixels.shape) + pixels.tobytes()
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return root / name


@pytest.mark.parametrize("name", ["{}-images-idx3-ubyte.gz", "{}-images-idx3-ubyte", "MNIST/raw/{}-images.idx3-ubyte"])
def test_mnist_is_shown_in_three_channels_and_padded(tmp_path, monkeypatch, name, recwarn):
    monkeypatch.setattr(mnist, "NUM_IMAGES", {"train": 7, "test": 3})
    for split, (stem, number) in {"train": ("train", 7), "test": ("t10k", 3)}.items():
        pixels = np.random.default_rng(number).integers(0, 256, (number, 28, 28), dtype=np.uint8)
        write_mnist(tmp_path, name.format(stem), pixels)
        plain, padded = (open_dataset("mnist", split, size, data_root=tmp_path) for size in (28, 32))
        colours = np.repeat(pixels[:, None], 3, axis=1)
        assert np.array_equal(everything(plain).numpy(), colours)
        assert np.array_equal(everything(padded).numpy(), np.pad(colours, [(0, 0), (0, 0), (2, 2), (2, 2)]))
        assert padded.record()["preprocessing"] == "whole images of 28x28, padded to 32x32 with black"
        assert plain.record()["preprocessing"] == "whole images of 28x28"
        assert plain.names == [f"{stem}-images-idx3-ubyte:{row}" for row in range(number)]  # in every layout
    assert not recwarn
    with pytest.warns(UserWarning, match="3 of 3 images of .* are smaller than image_size 64 and are enlarged"):
        enlarged = open_dataset("mnist", "test", 64, data_root=tmp_path)
    assert enlarged.record()["preprocessing"].endswith("padded to 32x32 with black, ADM resize to 64x64")


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_mnist_files_that_are_not_whole_are_told_of(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(mnist, "NUM_IMAGES", {"train": 7, "test": 3})
    with pytest.raises(ValueError, match="neither train-images-idx3-ubyte nor .*gz. Get .* may stay packed"):
        open_dataset("mnist", "train", 32, data_root=tmp_path)
    name = f"train-images-idx3-ubyte{packed}"
    for shape in ((6, 28, 28), (7, 28, 27)):
        write_mnist(tmp_path, name, np.zeros(shape, np.uint8))
        with pytest.raises(ValueError, match="ubyte.* has .* bytes.*begins with 00000803 .*7 images of MNIST's train"):
            open_dataset("mnist", "train", 32, data_root=tmp_path)
    content = struct.pack(">4I", 0x801, 7, 28, 28) + bytes(7 * 28 * 28)
    (tmp_path / name).write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match="begins with 00000801 .*: it was cut off, or is another file"):
        open_dataset("mnist", "train", 32, data_root=tmp_path)


# ImageNet and folders.


def test_imagenet_layouts(tmp_path):
    write_folder(tmp_path / "train", ["n01/n01_1.JPEG", "n01/n01_2.JPEG", "n02/n02_1.JPEG"])
    write_folder(tmp_path / "val", ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"])
    assert open_dataset("imagenet", "train", 16, data_root=tmp_path).names == [
        "n01/n01_1.JPEG",
        "n01/n01_2.JPEG",
        "n02/n02_1.JPEG",
    ]
    assert len(open_dataset("imagenet", "test", 16, data_root=tmp_path)) == 2
    shutil.rmtree(tmp_path / "val")
    write_folder(tmp_path / "val", ["n01/ILSVRC2012_val_00000001.JPEG", "n02/ILSVRC2012_val_00000002.JPEG"])
    assert len(open_dataset("imagenet", "test", 16, data_root=tmp_path)) == 2
    shutil.rmtree(tmp_path / "val")
    with pytest.raises(ValueError, match="There is no folder .*val"):
        open_dataset("imagenet", "test", 16, data_root=tmp_path)


def test_imagenet_sample_tests_on_every_tenth_file(tmp_path):
    names = [f"{i:02d}.JPEG" for i in range(25)]
    write_folder(tmp_path, names)
    (tmp_path / "README.md").write_text("not an image")
    (tmp_path / ".git").mkdir()
    shutil.copy(tmp_path / names[0], tmp_path / ".git/hidden.JPEG")
    test = open_dataset("imagenet-sample", "test", 16, data_root=tmp_path)
    train = open_dataset("imagenet-sample", "train", 16, data_root=tmp_path)
    assert test.names == ["00.JPEG", "10.JPEG", "20.JPEG"]
    assert sorted([*train.names, *test.names]) == names
    assert (train.crop, test.crop) == ("cached", None)


@pytest.mark.parametrize("fraction", [None, 0.25])
def test_folder_by_fraction(tmp_path, fraction):
    names = [f"{'ab'[i % 2]}/{i:03d}.jpg" for i in range(40)]
    write_folder(tmp_path, names, 20, 20)
    train, test = (open_dataset("folder", s, 16, data_root=tmp_path, test_fraction=fraction) for s in ("train", "test"))
    assert len(test) == (4 if fraction is None else 10)
    assert sorted([*train.names, *test.names]) == sorted(names)
    places = [sorted(names).index(name) for name in test.names]
    assert set(np.diff(places)) == {10 if fraction is None else 4}  # evenly spread


def test_folder_by_subfolders(tmp_path):
    write_folder(tmp_path, ["train/a.jpg", "train/deep/b.png", "val/c.jpg"])
    assert open_dataset("folder", "train", 16, data_root=tmp_path).names == ["a.jpg", "deep/b.png"]
    assert open_dataset("folder", "test", 16, data_root=tmp_path).names == ["c.jpg"]
    with pytest.raises(ValueError, match="no split 'val'; .*Known: test, train"):
        open_dataset("folder", "val", 16, data_root=tmp_path)
    with pytest.raises(ValueError, match="test_fraction is 0.2, but .* split by its subfolders"):
        open_dataset("folder", "train", 16, data_root=tmp_path, test_fraction=0.2)
    write_folder(tmp_path, ["test/d.jpg"])
    assert open_dataset("folder", "test", 16, data_root=tmp_path).names == ["d.jpg"]
    assert open_dataset("folder", "val", 16, data_root=tmp_path).names == ["c.jpg"]
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(ValueError, match="has val/ and test/ only"):
        open_dataset("folder", "train", 16, data_root=tmp_path)


def reference_center_crop(image: Image.Image, size: int) -> np.ndarray:
    """ADM's centre crop, written in another way: the number of halvings first, array slicing for the crop."""
    halvings = 0
    while min(image.size) // 2**halvings >= 2 * size:
        halvings += 1
    for _ in range(halvings):
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    factor = size / min(image.width, image.height)
    array = np.array(
        image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    )
    y, x = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[y : y + size, x : x + size]


@pytest.mark.parametrize("width,height", [(32, 32), (64, 64), (63, 130), (200, 129), (500, 375), (20, 31)])
def test_center_crop_is_adms(width, height):
    image = picture(width, height)
    assert np.array_equal(CenterSquare(32).render(0, image), reference_center_crop(image, 32))


def test_random_crop_is_adms():
    """Every (short side, top, left) of ADM's random crop occurs, and is cut out of the right resized image."""
    image = picture(100, 90)
    size = 8  # short sides 8, 9, 10
    seen = set()
    generator = random.Random(0)
    for _ in range(400):
        draws = np.array([generator.random() for _ in range(3)])
        crop = adm_random_crop(image, size, draws)
        short = 8 + int(draws[2] * 3)
        resized = image
        while min(resized.size) >= 2 * short:
            resized = resized.resize((resized.width // 2, resized.height // 2), Image.Resampling.BOX)
        factor = short / min(resized.size)
        resized = resized.resize(tuple(round(s * factor) for s in resized.size), Image.Resampling.BICUBIC)
        array = np.asarray(resized)
        windows = np.lib.stride_tricks.sliding_window_view(array, (size, size), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
        places = np.argwhere((windows == crop).all(axis=(2, 3, 4)))
        assert len(places) == 1
        seen.add((short, *places[0]))
    # The resized images have 9x8, 10x9 and 11x10 pixels: 2 x 1, 3 x 2 and 4 x 3 places of the window.
    assert len(seen) == 2 * 1 + 3 * 2 + 4 * 3


def test_cached_crops_lie_in_the_center_square(tmp_path):
    write_folder(tmp_path, [f"{i}.png" for i in range(3)], 90, 70)
    dataset = open_dataset("folder", "train", 16, data_root=tmp_path, crop="cached")
    square = reference_center_crop(dataset.original(0)[0], 18)  # 1.125 x 16
    corners = set()
    for place in range(9):
        draws = np.array([[0.9, (place // 3 + 0.5) / 3, (place % 3 + 0.5) / 3, 0.5]])
        crop = dataset.images(np.array([0]), draws)[0].permute(1, 2, 0).numpy()
        top, left = place // 3, place % 3
        assert np.array_equal(crop, square[top : top + 16, left : left + 16])
        corners.add(crop.tobytes())
        draws[0, 0] = 0.1
        assert np.array_equal(dataset.images(np.array([0]), draws)[0].permute(1, 2, 0).numpy(), crop[:, ::-1])
    assert len(corners) == 9
    assert np.array_equal(dataset.images(np.array([0]))[0].permute(1, 2, 0).numpy(), square[1:17, 1:17])


def test_adm_crop_is_not_cached_and_tests_at_the_center(tmp_path):
    write_folder(tmp_path / "data", [f"{i}.png" for i in range(12)], 60, 50)
    dataset = open_dataset("folder", "train", 16, data_root=tmp_path / "data", crop="adm")
    assert not list(tmp_path.rglob("*.pixels"))
    center = dataset.images(np.array([2]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(center, reference_center_crop(dataset.original(2)[0], 16))
    draws = np.array([[0.7, 0.3, 0.6, 0.99], [0.2, 0.3, 0.6, 0.99]])
    plain, flipped = dataset.images(np.array([2, 2]), draws)
    assert torch.equal(plain.flip(2), flipped)
    assert np.array_equal(
        plain.permute(1, 2, 0).numpy(), adm_random_crop(dataset.original(2)[0], 16, np.array([0.3, 0.6, 0.99]))
    )
    assert open_dataset("folder", "test", 16, data_root=tmp_path / "data", crop="adm").crop is None


# Decoding.


def test_every_mode_decodes_to_rgb():
    image = picture(20, 16)
    values = np.asarray(image, float)
    rgba = image.copy()
    rgba.putalpha(255)
    broken_exif = b"Exif\0\0II*\0" + struct.pack("<I", 0xFFFFFFF0) + b"\xff" * 40
    cases = {
        "cmyk": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "png": encoded(image, "PNG"),
        "broken exif": encoded(image, "JPEG", quality=95, exif=broken_exif),
        "palette": encoded(image.quantize(256), "PNG"),
        "opaque alpha": encoded(rgba, "PNG"),
        "webp": encoded(image, "WEBP", lossless=True),
    }
    for name, data in cases.items():
        decoded = decode(data, name)
        check_decodes(data, name)
        assert decoded.mode == "RGB" and decoded.size == (20, 16), name
        assert np.abs(np.asarray(decoded, float) - values).mean() < 12, name


def test_grey_sixteen_bit_and_transparency():
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    deep = np.asarray(decode(encoded(Image.fromarray(ramp), "PNG"), "deep"))
    assert np.array_equal(deep, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(grey), "PNG"), "grey"))[..., 1], grey)
    bilevel = np.asarray(decode(encoded(Image.new("1", (4, 4), 1), "PNG"), "bilevel"))
    assert (bilevel == 255).all()
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (np.asarray(decode(encoded(clear, "PNG"), "clear")) == 255).all()  # over white
    half = Image.new("LA", (4, 4), (0, 128))
    assert (np.asarray(decode(encoded(half, "PNG"), "half")) == 127).all()
    with pytest.raises(ValueError, match="no known range"):
        decode(encoded(Image.new("F", (4, 4)), "TIFF"), "float")


def png_of_16_bits(value: int) -> bytes:
    """Return a PNG file of 20x20 pixels with three channels of 16 bits, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + struct.pack(">H", value) * 60) * 20
    header = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


DEEP = {  # pixels of more than 8 bits, in a file, and what comes of them
    "12 bits in a PNG": (np.full((20, 20), 4095, np.uint16), "png", "dark: the largest value of 1.png is 4,095"),
    "8 bits in a PNG": (np.full((20, 20), 255, np.uint16), "png", "dark: the largest value of 1.png is 255"),
    "14 bits of colour in a PNG": (png_of_16_bits(16383), "png", "dark: the largest value of 1.png is 16,383"),
    "14 bits in a TIFF": (np.full((20, 20), 16383, np.uint16), "tif", "dark: the largest value of 1.tif is 16,383"),
    "8 bits in a TIFF of 32": (np.full((20, 20), 255, np.int32), "tif", "dark: the largest value of 1.tif is 255"),
    "32 bits in a TIFF": (
        np.full((20, 20), 2**30, np.int32),
        "tif",
        "white: the largest value of 1.tif is 1,073,741,824",
    ),
}


@pytest.mark.parametrize("case", DEEP)
def test_images_that_come_out_dark_or_white_are_told_of_with_their_count_and_a_name(tmp_path, case):
    pixels, suffix, sentence = DEEP[case]
    write_folder(tmp_path / "images", ["0.jpg", "3.jpg", "4.jpg", "9.jpg"])
    for number in (1, 2):
        file = tmp_path / f"images/{number}.{suffix}"
        file.write_bytes(pixels) if isinstance(pixels, bytes) else Image.fromarray(pixels).save(file)
    for _ in range(2):  # the cache is built, and found
        with pytest.warns(
            UserWarning, match=f"2 of 5 images of .*/images have more than 8 bits .* come out {sentence}, that"
        ):
            open_dataset("folder", "train", 16, data_root=tmp_path / "images")
    dataset = open_dataset("folder", "train", 16, data_root=tmp_path / "images", crop="adm")
    with pytest.warns(UserWarning, match=f"Some images of .* {sentence}") as told:
        everything(dataset), everything(dataset)
    assert len(told) == 1


def test_images_of_sixteen_bits_are_not_told_of(tmp_path):
    write_folder(tmp_path, ["0.jpg", "9.jpg"])
    Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(png_of_16_bits(16384))
    Image.fromarray(np.arange(0, 65536, 256, dtype=np.int32).reshape(16, 16)).save(tmp_path / "2.tif")
    (tmp_path / "3.pgm").write_bytes(
        b"P5 16 16 4095\n" + np.full((16, 16), 4095, ">u2").tobytes()
    )  # which says its range
    with warnings.catch_warnings(action="error"):
        assert len(open_dataset("folder", "train", 16, data_root=tmp_path)) == 5


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bomb"])
def test_damaged_files_are_named(damage, monkeypatch):
    data = encoded(picture(64, 64), "JPEG")
    if damage == "bomb":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = {"empty": b"", "text": b"not an image", "cut": data[: len(data) // 2], "bomb": data}[damage]
    for function in (decode, check_decodes):
        with pytest.raises(ValueError, match="image some/file.jpg cannot be decoded: ."):
            function(data, "some/file.jpg")


@pytest.mark.parametrize("crop", ["cached", "adm"])
def test_bad_images_are_an_error_or_left_out(tmp_path, crop):
    names = [f"{i}.jpg" for i in range(10)]
    root = write_folder(tmp_path / "data", names)
    (root / "3.jpg").write_bytes(b"nothing")
    (root / "7.jpg").write_bytes((root / "7.jpg").read_bytes()[:300])

    def open_train(on_bad_image):
        return open_dataset("folder", "train", 16, data_root=root, crop=crop, on_bad_image=on_bad_image)

    if crop == "cached":
        with pytest.raises(ValueError, match=r'/[37].jpg cannot be decoded: .*on_bad_image="skip"'):
            open_train("raise")
    else:
        with pytest.raises(ValueError, match=r"/3.jpg cannot be decoded"):
            everything(open_train("raise"))
    for _ in range(2):  # built, then found
        dataset = open_train("skip")
        assert dataset.left_out == ["3.jpg", "7.jpg"] == dataset.record()["left_out"]
        assert len(dataset) == 7 and dataset.names == [n for n in names[:9] if n not in ("3.jpg", "7.jpg")]
    whole = open_dataset("folder", "train", 16, data_root=write_folder(tmp_path / "whole", names), crop=crop)
    kept = [i for i in range(9) if i not in (3, 7)]
    assert torch.equal(everything(dataset), whole.images(np.array(kept)))
    if crop == "cached":
        with pytest.raises(ValueError, match=r'/3.jpg cannot be decoded: .*on_bad_image="skip"'):
            open_train("raise")  # the cache that was built meanwhile does not hide it


def test_nothing_but_bad_images(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="None of the 1 images can be used"):
        open_dataset("folder", "train", 16, data_root=tmp_path, on_bad_image="skip")


# Arguments and records.


def test_record_is_json_without_machine_paths(tmp_path):
    names = [f"{i}.jpg" for i in range(10)]
    first = open_dataset("folder", "train", 16, data_root=write_folder(tmp_path / "here", names))
    second = open_dataset("folder", "train", 16, data_root=write_folder(tmp_path / "there", names))
    assert first.record() == second.record()
    assert str(tmp_path) not in json.dumps(first.record())
    assert re.fullmatch("[0-9a-f]{12}", first.record()["content"])
    assert first.record() | {"fingerprint": "", "content": ""} == {
        "name": "folder",
        "split": "train",
        "num_images": 9,
        "image_size": 16,
        "crop": "cached",
        "preprocessing": "ADM centre crop to 18x18, random crops of 16x16",
        "fingerprint": "",
        "left_out": [],
        "content": "",
    }
    (tmp_path / "there/4.jpg").unlink()
    assert open_dataset("folder", "train", 16, data_root=tmp_path / "there").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(name="photo"), "no dataset 'photo'; did you mean 'photos'"),
        (dict(split="validation"), "photos has no split 'validation'; .*Known: test, train"),
        (dict(image_size=0), "image_size is 0, but must be at least 1"),
        (dict(crop="adm"), "crop is 'adm', but photos has one crop only"),
        (dict(name="celeba", crop="cached"), "crop is 'cached', but celeba"),
        (dict(name="folder", crop="amd"), "crop is 'amd'; did you mean 'adm'"),
        (dict(test_fraction=0.2), "test_fraction is 0.2, but the splits of photos are fixed"),
        (dict(on_bad_image="ignore"), "on_bad_image is 'ignore'"),
        (dict(name="scenes", split="tset"), "scenes has no split 'tset'; did you mean 'test'"),
        (dict(name="scenes", split="test", crop="adm"), "crop is 'adm', but scenes has one crop only"),
        (dict(name="scenes", split="test", data_root="x"), "data_root is 'x', but scenes come with scikit-image"),
        (dict(data_root="somewhere"), "data_root is 'somewhere', but photos come with scikit-image"),
        (dict(name="imagenet"), "folder of imagenet, .*/data/imagenet, does not exist. Get ILSVRC2012"),
        (dict(name="folder"), "Your folder, .*, does not exist"),
    ],
)
def test_refused_arguments(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr("vistok.data.registry.resolve_path", lambda path: tmp_path / path)
    arguments = dict(name="photos", split="train", image_size=16) | arguments
    with pytest.raises(ValueError, match=message):
        open_dataset(**arguments)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (dict(image_size=16.0), "image_size is 16.0 .float., but must be of type int"),
        (dict(image_size="16"), "image_size is '16' .str., but must be of type int"),
        (dict(test_fraction="0.2"), "test_fraction is '0.2' .str., but must be of type float or None"),
        (dict(data_root=5), "A path is 5 .int., but must be a text or a pathlib.Path"),
    ],
)
def test_arguments_of_another_type_are_named(arguments, message):
    with pytest.raises(TypeError, match=message):
        open_dataset(**{"name": "folder", "split": "train", "image_size": 16} | arguments)


def test_a_size_of_numpys_is_a_size(tmp_path):
    root = write_folder(tmp_path / "images", ["0.jpg", "1.jpg"])
    assert open_dataset("folder", "train", np.int64(16), data_root=root).record()["image_size"] == 16


def test_empty_folders_are_refused(tmp_path):
    for name in ("folder", "imagenet-sample"):
        with pytest.raises(ValueError, match="holds no images"):
            open_dataset(name, "train", 16, data_root=tmp_path)
    write_folder(tmp_path, ["only.jpg"])
    with pytest.raises(ValueError, match="holds 1 image, which is the one to test on; at least 2 are needed"):
        open_dataset("folder", "train", 16, data_root=tmp_path)
    assert len(open_dataset("folder", "test", 16, data_root=tmp_path)) == 1
    with pytest.raises(ValueError, match="test_fraction is 1.5"):
        open_dataset("folder", "train", 16, data_root=tmp_path, test_fraction=1.5)


def test_a_picture_to_train_on_is_left_whatever_the_fraction(tmp_path):
    write_folder(tmp_path, ["a.jpg", "b.jpg"])
    assert len(open_dataset("folder", "train", 16, data_root=tmp_path, test_fraction=0.9)) == 1


def test_a_folder_that_is_not_there_is_looked_for_as_people_write_it(tmp_path, monkeypatch):
    pictures = write_folder(tmp_path / "my pictures", ["a.jpg", "b.jpg"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERE", str(tmp_path))
    written = [f'"{pictures}"', f" {pictures} ", f"file://{pictures}", f"{tmp_path}\\my pictures", "$HERE/my pictures"]
    for given in [*written, "my pictures", str(tmp_path / "mypictures")]:
        with pytest.raises(ValueError, match=re.escape(f"Did you mean {pictures}?")):
            open_dataset("folder", "train", 16, data_root=given)
    with pytest.raises(ValueError, match=r"\(data_root is 'C:.*', counted from the repository\)\. Put images"):
        open_dataset("folder", "train", 16, data_root="C:\\Users\\me")


def test_figures_of_the_dataset_that_is_trained_on_are_of_its_folder(tmp_path):
    write_folder(tmp_path, ["a.jpg", "b.jpg"])
    usual = {"name": "folder", "split": "train", "data_root": str(tmp_path), "test_fraction": 0.5}
    shown = open_figures("folder", None, 16, usual=usual)
    assert (shown.split, list(shown.names)) == ("test", ["b.jpg"])


def test_the_usual_folder_is_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    write_folder(tmp_path / "data/imagenet-sample", [f"{i}.jpg" for i in range(3)])
    assert len(open_dataset("imagenet-sample", "train", 16)) == 2


def test_to_float():
    values = torch.tensor([0, 1, 128, 255], dtype=torch.uint8)
    result = to_float(values)
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx([-1.0, 1 / 127.5 - 1, 128 / 127.5 - 1, 1.0], abs=1e-7)
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    assert to_float(images).is_contiguous(memory_format=torch.channels_last)


def test_dataset_names():
    assert sorted(DATASETS) == [
        *("celeba", "cifar10", "cifar10-images", "folder", "imagenet", "imagenet-sample", "mnist", "photos", "scenes")
    ]


# Real photographs, where they are at hand.

SHARED = repository_root().parent / "shared" / "data"


@pytest.mark.skipif(not (SHARED / "celeba-mini").is_dir(), reason="needs ../shared/data/celeba-mini")
def test_celeba_mini():
    sizes = {s: len(open_dataset("celeba", s, 64, data_root=SHARED / "celeba-mini")) for s in ("train", "val", "test")}
    assert sizes == {"train": 1000, "val": 80, "test": 120}


@pytest.mark.skipif(not (SHARED / "cifar10-images").is_dir(), reason="needs ../shared/data/cifar10-images")
def test_cifar_copies_as_they_are_public():
    dataset = open_dataset("cifar10-images", "test", 32, data_root=SHARED / "cifar10-images")
    assert (len(dataset), dataset.fingerprint, dataset.content) == (10_000, "b4418981176a", "f7e4944fca30")


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="needs ../shared/data/imagenet-sample")
def test_imagenet_sample():
    dataset = open_dataset("imagenet-sample", "test", 64, data_root=SHARED / "imagenet-sample")
    assert len(dataset) == 100
    for index in (0, 57, 99):
        expected = reference_center_crop(dataset.original(index)[0], 64)
        assert np.array_equal(dataset.images(np.array([index]))[0].permute(1, 2, 0).numpy(), expected)
