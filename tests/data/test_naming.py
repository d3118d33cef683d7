"""What people's folders and archives hold besides images, and how they are split: recognised, refused or counted."""

import io
import os
import sys
import tarfile
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vistok.data import open_dataset
from vistok.data import transforms as transforms_module
from vistok.data.celeba import celeba
from vistok.data.files import FolderFiles
from vistok.data.naming import SUFFIXES, UNREAD, split_of_file, split_of_folder
from vistok.data.transforms import decode
from vistok.system.files import readable
from vistok.system.paths import PACKAGE, resolve_path


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


def encoded(file_format: str = "PNG", value: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 24), (value, 0, 0)).save(buffer, file_format)
    return buffer.getvalue()


def write(root: Path, *names: str, content: bytes | None = None) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(value=number) if content is None else content)
    return root


def write_tar(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(names):
            info, data = tarfile.TarInfo(name), encoded(value=number)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def opened(root: Path, split: str = "train", name: str = "folder", **options):
    return open_dataset(name, split, 16, data_root=root, **options)


# Splits.


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("training", "testing"),
        ("Training", "Validation"),
        ("train", "valid"),
        ("trainset", "testset"),
        ("train_set", "dev"),
        ("train2017", "val2017"),
        ("train-images", "test-images"),
        ("TrainData", "TestData"),
        ("traindata", "testdata"),
        ("imgtrain", "imgval"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ],
)
def test_split_folders_are_recognised_as_people_write_them(tmp_path, train, test):
    root = write(tmp_path, f"{train}/a.png", f"{train}/cats/b.png", f"{test}/c.png")
    assert opened(root).names == ["a.png", "cats/b.png"] and opened(root, "test").names == ["c.png"]
    assert opened(root, name="imagenet").names == ["a.png", "cats/b.png"]


@pytest.mark.parametrize(
    "name", ["cats", "tests", "trains", "test_tube", "train station", "contest", "latest", "trainval", "trainimagery"]
)
def test_class_folders_are_no_splits(tmp_path, name):
    assert split_of_folder(name) is None
    root = write(tmp_path, *(f"{name}/{i}.png" for i in range(5)), *(f"dogs/{i}.png" for i in range(5)))
    assert len(opened(root)) == 9


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["Train/a.png", "train/b.png", "test/c.png"], "holds Train/ and train/, which both name the train split"),
        (
            ["train/a.png", "val/b.png", "valid/c.png"],
            "holds val/ and valid/, which both name the val split; merge them",
        ),
        (["train/a.png", "my_test/b.png"], "has train/ only, .* Call my_test/ train, val or test, if it is that"),
        (["train/a.png", "cats/b.png"], "has train/ only, .* give .*/train itself; if it is a class"),
        (["Test/a.png", "cats/b.png"], "has Test/ only, but a folder split by its subfolders has train and test"),
        (["train_cats/a.png", "test_cats/b.png"], "holds test_cats/ and train_cats/, which look like splits"),
        (["cats-train/a.png", "cats-val/b.png"], "holds cats-train/ and cats-val/, .* call them train/ and test/"),
        (["xray/train/a.png", "xray/test/b.png"], r"/xray holds test/ and train/, .* give .*/xray as the data_root of"),
        (["cats/Training/a.png", "cats/Testing/b.png", "dogs/c.png"], "/cats holds Testing/ and Training/"),
        (["data/train/a.png", "data/val/b.png"], "/data holds train/ and val/"),
    ],
)
def test_what_looks_like_splits_and_is_not_plain_is_refused(tmp_path, names, sentence):
    write(tmp_path, *names)
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=sentence):
            opened(tmp_path, split)


def test_a_sample_that_is_split_is_no_flat_folder(tmp_path):
    with pytest.raises(ValueError, match="holds Test/ and Train/, which look like splits, .* dataset 'folder'"):
        opened(write(tmp_path, "Train/a.png", "Test/b.png"), name="imagenet-sample")


def test_images_beside_the_splits_are_counted(tmp_path):
    write(tmp_path, "train/a.png", "test/b.png", "extra/c.png", "extra/d.png", "e.png", "papers/readme.txt")
    with pytest.warns(
        UserWarning, match=r"left out: 2 in folders that are no split \(extra/\); 1 beside the folders .* \(e.png"
    ):
        assert opened(tmp_path).names == ["a.png"]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("training", "testing"),
        ("TRAIN", "VAL"),
        ("my-trainset", "my-dev"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ],
)
def test_shards_tell_their_split_as_people_write_it(tmp_path, train, test):
    write_tar(tmp_path / f"{train}-000.tar", "a.png", "b.png")
    write_tar(tmp_path / f"{test}-000.tar", "c.png")
    assert opened(tmp_path).names == ["a.png", "b.png"] and opened(tmp_path, "test").names == ["c.png"]


def test_a_shard_that_tells_two_splits_is_refused(tmp_path):
    assert split_of_file("contest-of-trains-latest.tar") is None
    with pytest.raises(ValueError, match="name of train-test-0.tar tells the splits test and train, but must tell one"):
        opened(write_tar(tmp_path / "train-test-0.tar", "a.png").parent)


def test_splits_inside_an_archive_are_refused(tmp_path):
    write_tar(tmp_path / "all.tar", "set/Train/a.png", "set/Test/b.png")
    with pytest.raises(ValueError, match="/set holds Test/ and Train/, which look like splits"):
        opened(tmp_path)


# Masks.


@pytest.mark.parametrize("masks", ["masks", "Annotations", "labels", "SegmentationClass", "ground_truth", "gt"])
@pytest.mark.parametrize("images", ["images", "JPEGImages"])
def test_images_beside_their_masks_are_refused(tmp_path, images, masks):
    write(tmp_path / "set", f"{images}/0.png", f"{masks}/0.png")
    with pytest.raises(
        ValueError, match=rf"{images}/ and in {masks}/, which look like .* give .*/set/{images}, or move"
    ):
        opened(tmp_path)
    (tmp_path / "set" / masks / "0.png").rename(tmp_path / "set" / masks / "0.xml")
    write(tmp_path, *(f"set/{images}/{number}.png" for number in range(4)))
    assert len(opened(tmp_path)) == 3  # a folder without pictures is no trouble


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "masks_png"),
        ("images", "ground_truth_mask"),
        ("images_a", "masks_a"),
        ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno"),
    ],
)
def test_masks_are_seen_by_one_word_where_the_others_fit(tmp_path, images, masks):
    with pytest.raises(ValueError, match=rf"holds images in {images}/ and in {masks}/, which look like pictures"):
        opened(write(tmp_path, f"{images}/0.jpg", f"{masks}/0/1.png"))


@pytest.mark.parametrize("names", [("photos", "party masks"), ("mask images", "no mask images"), ("image", "no label")])
def test_classes_that_have_masks_in_their_names_are_none(tmp_path, names):
    write(tmp_path, *(f"{name}/{number}.png" for name in names for number in range(3)))
    assert len(opened(tmp_path)) == 5


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("{}.jpg", ["{}_mask.png"]),
        ("{}_sat.jpg", ["{}_mask.png"]),
        ("image_{}.jpg", ["mask_{}.png"]),
        ("a ({}).png", ["a ({})_mask.png", "a ({})_mask_1.png"]),
    ],
)
def test_masks_are_told_from_images_by_their_names(tmp_path, kind, image, masks):
    images = sorted(image.format(number) for number in range(3))
    names = ["photo_mask.jpg", *images, *(mask.format(number) for mask in masks for number in range(3))]
    write(tmp_path, *names) if kind == "folder" else write_tar(tmp_path / "0.tar", *names)
    with pytest.warns(UserWarning, match=f"left out: {3 * len(masks)} that are masks"):
        train = opened(tmp_path).names
    assert sorted([*train, *opened(tmp_path, "test").names]) == sorted([*images, "photo_mask.jpg"])


def test_every_picture_twice_is_refused(tmp_path):
    names = [f"a/{number}.{suffix}" for number in range(3) for suffix in ("jpg", "png")]
    with pytest.raises(
        ValueError, match="holds a/0.jpg and a/0.png, and so for every image: pictures and their masks, or"
    ):
        opened(write(tmp_path, *names))
    write(tmp_path, "a/3.jpg")  # then they are some that happen to have one name
    assert len(opened(tmp_path)) == 6


def test_splits_that_are_links_to_one_folder_are_refused(tmp_path):
    write(tmp_path, "all/a.png", "set/readme")
    for split in ("train", "test"):
        (tmp_path / "set" / split).symlink_to(tmp_path / "all")
    with pytest.raises(ValueError, match="holds test/ and train/, which are links to one folder"):
        opened(tmp_path / "set")
    write(tmp_path, "other/b.png")
    (tmp_path / "set" / "train").unlink()
    for split, folder in (("train", "other"), ("val", "all")):
        (tmp_path / "set" / split).symlink_to(tmp_path / folder)
    assert opened(tmp_path / "set").names == ["b.png"]  # one folder for two tests is no harm


def test_masks_beside_their_images_are_left_out_and_counted(tmp_path):
    write(tmp_path, "0.jpg", "0_mask.png", "1.jpg", "1-seg.gif", "2.jpg", "2.labels.png", "my_mask.png", "a/0_mask.png")
    with pytest.warns(
        UserWarning, match=r"left out: 3 that are masks, labels or depths of the images .* \(0_mask.png\)"
    ):
        files = FolderFiles.scan(tmp_path)
    assert files.names == ["0.jpg", "1.jpg", "2.jpg", "a/0_mask.png", "my_mask.png"]  # two are masks of nothing here


def test_one_image_of_each_sample_of_a_shard(tmp_path):
    write_tar(
        tmp_path / "0.tar",
        "0.jpg",
        "0.seg.png",
        "a/1.seg.png",
        "a/1.jpg",
        "img.v2.jpg",
        "2.cls",
        "2.rgb.png",
        "2.depth.png",
    )
    with pytest.warns(UserWarning, match=r"left out: 3 that are further images of a sample \(0.seg.png\)"):
        files = opened(tmp_path, crop="adm", test_fraction=0.2)._all_files
    assert files.names == ["0.jpg", "a/1.jpg", "img.v2.jpg"]
    assert opened(tmp_path, "test", test_fraction=0.2).names == ["2.rgb.png"]


def test_names_with_dots_are_no_samples(tmp_path):
    names = [f"ILSVRC2012.val.{number}.JPEG" for number in range(6)]
    names += [f"{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(3)]  # as Kaggle has them
    names += ["photo.1.jpg", "photo.2.jpg", "photo.jpg"]  # as wget has them
    write_tar(tmp_path / "0.tar", *names)
    with warnings.catch_warnings(action="error"):
        assert sorted([*opened(tmp_path).names, *opened(tmp_path, "test").names]) == names


def test_two_images_of_a_sample_that_cannot_be_told_apart_are_refused(tmp_path):
    write_tar(tmp_path / "0.tar", "a/0.jpg", "a/1.jpg", "a/0.png")
    with pytest.raises(ValueError, match=r"0.tar holds 'a/0.jpg' and 'a/0.png' for one sample, .* like '0.seg.png'"):
        opened(tmp_path)
    write_tar(tmp_path / "0.tar", "0.in.png", "0.out.png", "1.in.png", "1.out.png")
    with pytest.raises(ValueError, match=r"0.tar holds '0.in.png' and '0.out.png' for one sample"):
        opened(tmp_path)


# Files of the system.

SYSTEM = (
    *("@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX"),
    *(".Trash-1000", ".ipynb_checkpoints", ".git", "@Recycle", "RECYCLER"),
)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_folders_of_the_system_are_left_out_and_counted(tmp_path, kind):
    names = [f"{folder}/deep/{number}.jpg" for folder in SYSTEM for number in range(2)] + [
        "a/@eaDir/x.jpg",
        "a/._0.jpg",
    ]
    images = [f"a/{number}.jpg" for number in range(5)]
    write(tmp_path, *images, *names, "Thumbs.db") if kind == "folder" else write_tar(
        tmp_path / "0.tar", *images, *names
    )
    with pytest.warns(UserWarning, match=f"left out: {len(names)} hidden, or in folders of the system"):
        train = opened(tmp_path).names
    assert sorted([*train, *opened(tmp_path, "test").names]) == images


def test_rows_of_parquet_files_from_such_folders_are_left_out(tmp_path):
    import pyarrow
    import pyarrow.parquet

    paths = ["0.png", "__MACOSX/._0.png", "@eaDir/1.png", "1.png", "2.png"]
    rows = [{"bytes": encoded(value=number), "path": path} for number, path in enumerate(paths)]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "0.parquet")
    with pytest.warns(UserWarning, match=r"left out: 2 hidden, or in folders of the system \(__MACOSX/._0.png\)"):
        dataset = opened(tmp_path)
    assert dataset.names == ["0.png", "1.png"] and dataset.images(np.arange(2))[:, 0, 0, 0].tolist() == [0, 3]


def test_rows_of_parquet_files_that_are_masks_are_left_out(tmp_path):
    import pyarrow
    import pyarrow.parquet

    paths = ["a/0.png", "a/0_mask.png", "b/0_mask.png", "a/1.png"]
    rows = [{"bytes": encoded(value=number), "path": path} for number, path in enumerate(paths)]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "0.parquet")
    with pytest.warns(UserWarning, match=r"left out: 1 that are masks, labels or depths .* \(a/0_mask.png\)"):
        assert opened(tmp_path).names == ["a/0.png", "b/0_mask.png"]


def test_a_table_that_is_written_beside_a_shard_is_no_shard(tmp_path):
    write_tar(tmp_path / "00000.tar", "000000000.jpg", "000000001.jpg")
    (tmp_path / "00000.parquet").write_bytes(b"of img2dataset")
    assert opened(tmp_path).names == ["000000000.jpg"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_macos_files_beside_celebas_are_ignored(tmp_path, kind):
    names = [f"img_align_celeba/{number:06}.jpg" for number in (1, 2)]
    more = ["img_align_celeba/._000001.jpg", "__MACOSX/img_align_celeba/._000002.jpg"]
    write(tmp_path, *names, *more, content=encoded("JPEG"))
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg 0\n")
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
            for name in [*names, *more]:
                archive.write(tmp_path / name, name)
        (tmp_path / "img_align_celeba").rename(tmp_path / "moved")
    assert celeba(tmp_path, "train").names == ["000001.jpg", "000002.jpg"]


# Suffixes.


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [
        *((suffix, "PPM") for suffix in (".pgm", ".pbm", ".pnm", ".ppm")),
        *((suffix, "JPEG") for suffix in (".jfif", ".jpe", ".JPEG")),
        *((suffix, "JPEG2000") for suffix in (".jp2", ".j2k")),
        *((".apng", "PNG"), (".avif", "AVIF"), (".tga", "TGA"), (".dib", "DIB"), (".pcx", "PCX"), (".sgi", "SGI")),
    ],
)
def test_what_pillow_reads_is_read(tmp_path, suffix, file_format):
    if file_format == "AVIF" and ".avif" not in SUFFIXES:
        pytest.skip("this Pillow has no AVIF")
    write(tmp_path, "a.png", "b.png")
    (tmp_path / f"c{suffix}").write_bytes(encoded(file_format))
    with warnings.catch_warnings(action="error"):
        test = opened(tmp_path, "test")
    assert test.names == [f"c{suffix}"] and abs(int(test.images(np.array([0]))[0, 0, 8, 8]) - 100) < 6


def test_a_file_is_taken_for_a_tga_by_its_name_alone():
    assert decode(encoded("TGA"), "a.tga").size == (20, 24)
    with pytest.raises(ValueError, match="a.png cannot be decoded: it is none of JPEG, PNG"):
        decode(encoded("TGA"), "a.png")


def test_pictures_that_are_not_read_are_named_and_counted(tmp_path):
    write(tmp_path, "0.png", "1.png", "x.jxl", "a/y.JXL", "a/z.cr2", "notes.txt")
    with pytest.warns(
        UserWarning, match=r"left out: 2 .jxl, which is not read \(.*\); 1 .cr2, which is not read \(a/z.cr2\)"
    ):
        assert opened(tmp_path).names == ["0.png"]
    assert not SUFFIXES & UNREAD


@pytest.mark.parametrize("name", ["x.jpg?w=640", "x.jpg_large", "x.JPG~", "x.jpg.1"])
def test_images_whose_suffix_is_spoilt_are_counted(tmp_path, name):
    write(tmp_path, "0.png", "1.png")
    for other in (name, "0.png.json", "0.png.txt", "0.jpgs.md"):  # notes beside an image are no images
        (tmp_path / other).write_bytes(b"")
    with pytest.warns(UserWarning, match=r"left out: 1 whose names go on behind .jpg \(x"):
        opened(tmp_path)


@pytest.mark.skipif(".heic" in SUFFIXES, reason="pillow-heif is installed, so they are read")
def test_what_would_read_an_iphones_pictures_is_said(tmp_path):
    write(tmp_path, "0.png", "1.png", "2.heic")
    with pytest.warns(UserWarning, match=r"1 .heic, which is not read \(pip install pillow-heif\) \(2.heic\)"):
        opened(tmp_path)


def test_heif_is_decoded_where_its_package_is_installed(monkeypatch):
    registered = []
    fake = types.SimpleNamespace(register_heif_opener=lambda: registered.append(True))
    monkeypatch.setitem(sys.modules, "pillow_heif", fake)
    monkeypatch.setattr(transforms_module, "HAS_HEIF", True)
    monkeypatch.setitem(Image.OPEN, "HEIF", (Image.OPEN["PNG"][0], None))  # stands for the format that it registers
    transforms_module._register_heif.cache_clear()
    assert decode(encoded("PNG"), "a.HEIC").size == (20, 24) and registered == [True]
    transforms_module._register_heif.cache_clear()


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    write(tmp_path, "a.jxl", "b/c.jxl", "d.txt", "e")
    with (
        pytest.warns(UserWarning, match="2 .jxl"),
        pytest.raises(ValueError, match="holds no images, but 2 .jxl, 1 without a suffix, 1 .txt."),
    ):
        opened(tmp_path)


def test_a_folder_of_what_is_packed_or_lies_too_deep_says_what_helps(tmp_path):
    write(tmp_path / "packed", "a.tar.gz", "b.zip")
    with pytest.raises(ValueError, match="but 1 .gz, 1 .zip; unpack .gz and .zip first.$"):
        opened(tmp_path / "packed")
    write_tar(tmp_path / "deep" / "part-0" / "00000.TAR", "0.png", "1.png")
    with pytest.raises(ValueError, match="but 1 .tar; .tar shards must lie in the folder itself, or in its data/.$"):
        opened(tmp_path / "deep")


# Files that cannot be had, and names that are no text.


@pytest.mark.parametrize("crop", ["cached", "adm"])
def test_a_link_to_nothing_is_a_bad_image(tmp_path, crop):
    root = write(tmp_path / "images", *(f"{number}.png" for number in range(10)))
    (root / "3.png").unlink()
    (root / "3.png").symlink_to("nowhere.png")
    (root / "4.png").unlink()
    (root / "4.png").symlink_to("4.png")  # to itself
    with pytest.raises(ValueError, match=r"image .*/[34].png cannot be read: (No such file|Too many levels)"):
        dataset = opened(root, crop=crop)
        dataset.images(np.arange(len(dataset)))
    dataset = opened(root, crop=crop, on_bad_image="skip")
    assert dataset.left_out == ["3.png", "4.png"] and dataset.record()["content"]


def test_a_file_that_may_not_be_read_is_a_bad_image_and_a_disk_that_fails_is_none(tmp_path, monkeypatch):
    write(tmp_path, *(f"{number}.png" for number in range(10)))
    system_open, failure = os.open, PermissionError(13, "Permission denied")

    def closed(path, flags, *rest, **named):
        if str(path).endswith("3.png"):
            raise failure
        return system_open(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(
        ValueError, match=r"image .*/3.png cannot be read: Permission denied; on_bad_image=\"skip\" leaves"
    ):
        opened(tmp_path)
    assert opened(tmp_path, on_bad_image="skip").left_out == ["3.png"]
    failure = OSError(5, "Input/output error")
    write(tmp_path, "a.png")
    with pytest.raises(OSError, match="Input/output error"), warnings.catch_warnings(action="ignore"):
        opened(tmp_path, on_bad_image="skip")


def test_what_is_no_file_is_never_waited_for(tmp_path):
    write(tmp_path, *(f"img_align_celeba/{number:06}.jpg" for number in range(1, 4)))
    (tmp_path / "list_eval_partition.txt").write_text("".join(f"{number:06}.jpg 0\n" for number in range(1, 4)))
    for number in (1, 2):
        (tmp_path / f"img_align_celeba/{number:06}.jpg").unlink()
    os.mkfifo(tmp_path / "img_align_celeba/000001.jpg")
    (tmp_path / "img_align_celeba/000002.jpg").mkdir()
    files = celeba(tmp_path, "train")
    for index, reason in enumerate(("it is no file, but a pipe", "Is a directory")):
        with pytest.raises(ValueError, match=f"00000{index + 1}.jpg cannot be read: {reason}"):
            files.read(index)
    assert files.read(2)


def test_a_name_that_is_no_text_can_be_printed_and_found_again(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.png"  # as an old zip archive unpacks it
    write(tmp_path, "a.png")
    with open(path, "wb") as file:
        file.write(encoded())
    (name,) = opened(tmp_path, "test").names
    assert os.fsencode(name) == b"caf\xe9.png" and readable(name) == "caf\\udce9.png"
    readable(name).encode()
    assert readable("Ä/日本.png") == readable("Ä/日本.png".encode()) == "Ä/日本.png"


# Paths.


@pytest.mark.parametrize("path", ["", " ", "\t\n"])
def test_an_empty_path_is_refused(path):
    with pytest.raises(ValueError, match="A path is .*, which is empty; is a shell variable unset"):
        resolve_path(path)
    with pytest.raises(ValueError, match="A path is"):
        open_dataset("folder", "train", 16, data_root=path)


def test_a_file_is_no_folder(tmp_path):
    write(tmp_path, "a.png")
    with pytest.raises(
        ValueError, match=r"data_root is .*/a.png, a file, but must be a folder; give the one that it lies in"
    ):
        opened(tmp_path / "a.png")


@pytest.mark.parametrize("path", [".", "./", "..", "/", str(PACKAGE), "vistok"])
def test_the_folder_of_vistok_itself_is_no_dataset(path):
    with pytest.raises(ValueError, match="data_root is .*, which holds vistok itself: its own pictures would be taken"):
        open_dataset("folder", "train", 16, data_root=path)
