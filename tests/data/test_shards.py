"""Shards: what .tar and .parquet files hold is read as the same images in a folder are, and nothing else of them is."""

import builtins
import concurrent.futures
import functools
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from vistok.data import eval_batches, open_dataset, train_batches
from vistok.data import files as files_module
from vistok.data import shards as shards_module
from vistok.data.cache import cache_folder
from vistok.data.draws import permutation
from vistok.data.parquet import ParquetFiles
from vistok.data.shards import TarFiles, index_path, open_shards
from vistok.data.tar import scan_tar
from vistok.system.paths import repository_root

NUM_IMAGES, BATCH = 23, 6
NAMES = [f"n{number // 8:02}/{number:02}.png" for number in range(NUM_IMAGES)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


def png(number: int) -> bytes:
    """A small picture with a gradient that is its number's own."""
    pixels = np.zeros((24, 20, 3), np.uint8)
    pixels[..., 0] = 10 * number
    pixels[..., 1] = 10 * np.arange(20)
    pixels[..., 2] = 10 * np.arange(24)[:, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {name: png(number) for number, name in enumerate(NAMES)}


def write_folder(folder: Path, images: dict[str, bytes] = IMAGES) -> Path:
    for name, data in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, members: dict[str, bytes], file_format: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=file_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_tars(folder: Path, pattern: str = "{}.tar", images: dict[str, bytes] = IMAGES) -> Path:
    """Three shards as WebDataset has them: beside each image a class and a description."""
    names = list(images)
    for shard in range(3):
        members = {}
        for name in names[shard * 8 : shard * 8 + 8]:
            stem = name.removesuffix(".png")
            members |= {f"{stem}.cls": b"7", f"{stem}.json": b"{}", name: images[name]}
        write_tar(folder / pattern.format(shard), members)
    return folder


def write_parquet(path: Path, images: list[dict | None], column: str = "image") -> Path:
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    table = pyarrow.table({"label": list(range(len(images))), column: pyarrow.array(images, kind)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=5)
    return path


def write_parquets(folder: Path, pattern: str = "{}.parquet", images: dict[str, bytes] = IMAGES) -> Path:
    rows = [{"bytes": data, "path": name} for name, data in images.items()]
    for shard in range(3):
        write_parquet(folder / pattern.format(shard), rows[shard * 8 : shard * 8 + 8])
    return folder


WRITERS: dict[str, Callable[..., Path]] = {"tar": write_tars, "parquet": write_parquets}
KINDS = pytest.mark.parametrize("kind", ["tar", "parquet"])


def stream(dataset, **options) -> torch.Tensor:
    return torch.cat(list(train_batches(dataset, BATCH, **{"seed": 3, "steps": 9} | options)))


# The same stream.


@KINDS
@pytest.mark.parametrize("crop", ["cached", "adm"])
def test_shards_give_the_same_batches_as_a_folder_however_they_are_loaded(tmp_path, kind, crop):
    write_folder(tmp_path / "plain" / "train")
    WRITERS[kind](tmp_path / "packed" / "train")
    plain, packed = (
        open_dataset("imagenet", "train", 16, data_root=tmp_path / r, crop=crop) for r in ("plain", "packed")
    )
    assert packed.names == NAMES and packed.record() == plain.record()
    whole = stream(plain)
    for num_processes in (1, 2, 3):
        for num_workers in (0, 2):
            shares = [
                list(
                    train_batches(
                        packed,
                        BATCH,
                        seed=3,
                        steps=9,
                        num_workers=num_workers,
                        rank=rank,
                        num_processes=num_processes,
                    )
                )
                for rank in range(num_processes)
            ]
            assert torch.equal(whole, torch.cat([torch.cat(step) for step in zip(*shares, strict=True)]))
    assert torch.equal(whole[5 * BATCH :], stream(packed, start_step=5))


@KINDS
def test_each_process_reads_only_its_own_share_of_the_images(tmp_path, kind, monkeypatch):
    WRITERS[kind](tmp_path / "train")
    dataset = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")
    read = []
    files = type(dataset._files)
    original = files.read
    monkeypatch.setattr(files, "read", lambda self, index: read.append(int(index)) or original(self, index))
    for num_processes in (1, 2, 3):
        share = BATCH // num_processes
        for rank in range(num_processes):
            read.clear()
            list(train_batches(dataset, BATCH, seed=3, steps=3, rank=rank, num_processes=num_processes))
            order = permutation(3, 0, NUM_IMAGES)
            assert read == [order[6 * step + share * rank + j] for step in range(3) for j in range(share)]
        parts = []
        for rank in range(num_processes):
            read.clear()
            list(eval_batches(dataset, 4, rank=rank, num_processes=num_processes))
            parts += read
        assert parts == list(range(NUM_IMAGES))


@KINDS
def test_bytes_are_those_that_were_packed_and_survive_pickling(tmp_path, kind):
    folder = WRITERS[kind](tmp_path / "train")
    files = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")._files
    assert isinstance(files, {"tar": TarFiles, "parquet": ParquetFiles}[kind])
    assert [files.read(index) for index in range(NUM_IMAGES)] == list(IMAGES.values())
    assert files.num_bytes.tolist() == [len(data) for data in IMAGES.values()]
    part = pickle.loads(pickle.dumps(files.select([20, 3])))
    assert (
        part.names == [NAMES[20], NAMES[3]] and part.read(0) == IMAGES[NAMES[20]] and part.read(1) == IMAGES[NAMES[3]]
    )
    assert str(folder) in str(part.path(1)) and str(part.path(1)).endswith(NAMES[3])


def _read_in_process(files, number: int) -> bool:
    return files.read(number) == IMAGES[NAMES[number]]


@KINDS
def test_forked_processes_read_at_once(tmp_path, kind):
    WRITERS[kind](tmp_path / "train")
    files = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")._files
    files.read(0)  # a descriptor is open when the processes start
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(pool.starmap(_read_in_process, [(files, number) for number in range(NUM_IMAGES)] * 9, chunksize=1))


@KINDS
def test_a_bad_image_in_a_shard_is_an_error_or_left_out(tmp_path, kind):
    WRITERS[kind](tmp_path / "train", images=IMAGES | {NAMES[5]: b"nothing"})
    with pytest.raises(ValueError, match=r"n00/05.png cannot be decoded"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)
    for crop in ("cached", "adm"):
        dataset = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop=crop, on_bad_image="skip")
        assert dataset.left_out == [NAMES[5]] and dataset.names == [name for name in NAMES if name != NAMES[5]]
        whole = dataset.images(np.arange(len(dataset)))
        assert whole[:, 0, 0, 0].tolist() == [10 * number for number in range(NUM_IMAGES) if number != 5]


@KINDS
def test_an_image_of_a_shard_too_large_is_refused_before_it_is_read(tmp_path, kind, monkeypatch):
    WRITERS[kind](tmp_path / "train", images=IMAGES | {NAMES[5]: IMAGES[NAMES[5]] + b"\0" * 5000})
    files = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")._files
    size = len(IMAGES[NAMES[5]]) + 5000
    monkeypatch.setattr(files_module, "MAX_IMAGE_BYTES", size - 1)
    if kind == "tar":
        monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("it was read"))
    else:
        files._column = None
    with pytest.raises(ValueError, match=rf"n00/05.png has {size} bytes, but an image file may have {size - 1}"):
        files.read(5)


# Where shards are looked for.


@KINDS
@pytest.mark.parametrize("place", ["", "data"])
def test_shards_of_imagenet_as_the_hub_names_them(tmp_path, kind, place):
    train, val = dict(list(IMAGES.items())[:16]), dict(list(IMAGES.items())[16:])
    WRITERS[kind](tmp_path / place, "imagenet1k-train-{:04}." + kind, train)
    WRITERS[kind](tmp_path / place, "validation-{:05}-of-00003." + kind, val)
    WRITERS[kind](tmp_path / place, "test-{:05}-of-00003." + kind)  # ImageNet's own test images have no labels
    assert open_dataset("imagenet", "train", 16, data_root=tmp_path).names == NAMES[:16]
    assert open_dataset("imagenet", "test", 16, data_root=tmp_path).names == NAMES[16:]
    for path in (tmp_path / place).glob("validation*"):
        path.unlink()
    with pytest.raises(
        ValueError, match=r"no folder .*/val, and no .tar or .parquet file with 'validation' in its name"
    ):
        open_dataset("imagenet", "test", 16, data_root=tmp_path)


@KINDS
def test_split_folders_of_shards(tmp_path, kind):
    write_folder(tmp_path / "train")
    WRITERS[kind](tmp_path / "val")
    for name in ("imagenet", "folder"):
        sizes = [len(open_dataset(name, split, 16, data_root=tmp_path)) for split in ("train", "test")]
        assert sizes == [NUM_IMAGES, NUM_IMAGES]
    (tmp_path / "val").rename(tmp_path / "validation")
    assert len(open_dataset("imagenet", "test", 16, data_root=tmp_path)) == NUM_IMAGES


@KINDS
@pytest.mark.parametrize("fraction", [None, 0.25])
def test_a_fraction_divides_shards_as_it_divides_files(tmp_path, kind, fraction):
    write_folder(tmp_path / "plain")
    WRITERS[kind](tmp_path / "packed")
    for split in ("train", "test"):
        plain, packed = (
            open_dataset("folder", split, 16, data_root=tmp_path / root, test_fraction=fraction)
            for root in ("plain", "packed")
        )
        assert packed.record() == plain.record()
        assert torch.equal(*(d.images(np.arange(len(d))) for d in (plain, packed)))


@KINDS
def test_shards_of_a_folder_with_splits_in_their_names(tmp_path, kind):
    WRITERS[kind](tmp_path, "train-{}." + kind)
    assert len(open_dataset("folder", "test", 16, data_root=tmp_path)) == 2  # one split alone is divided
    WRITERS[kind](tmp_path, "valid-{}." + kind, dict(list(IMAGES.items())[:4]))
    sizes = {s: len(open_dataset("folder", s, 16, data_root=tmp_path)) for s in ("train", "test")}
    assert sizes == {"train": NUM_IMAGES, "test": 4}
    with pytest.raises(
        ValueError, match="test_fraction is 0.2, but .* is split by its shards train, val; leave it None"
    ):
        open_dataset("folder", "train", 16, data_root=tmp_path, test_fraction=0.2)
    WRITERS[kind](tmp_path, "test-{}." + kind, dict(list(IMAGES.items())[:5]))
    assert [len(open_dataset("folder", s, 16, data_root=tmp_path)) for s in ("val", "test")] == [4, 5]
    WRITERS[kind](tmp_path, "more-{}." + kind)
    with pytest.raises(ValueError, match=rf"holds train-0.{kind} and more-0.{kind}: either all shards"):
        open_dataset("folder", "train", 16, data_root=tmp_path)
    for path in [*tmp_path.glob("more-*"), *tmp_path.glob("train-*")]:
        path.unlink()
    with pytest.raises(
        ValueError, match=rf"has valid-0.{kind} and test-0.{kind} only, but a folder split by its shards"
    ):
        open_dataset("folder", "train", 16, data_root=tmp_path)


def test_images_beside_shards_are_refused(tmp_path):
    for number, folder in enumerate(("imagenet/train", "folder", "folder-named", "imagenet-sample")):
        write_tars(tmp_path / folder, "train-{}.tar" if number == 2 else "{}.tar")
        if number == 2:
            write_tars(tmp_path / folder, "test-{}.tar")
        write_folder(tmp_path / folder, {"n07/x.png": png(0)})
        name = folder.split("/")[0].removesuffix("-named")
        with pytest.raises(
            ValueError, match=r"holds images \(n07/x.png\) and shards \((train-)?0.tar\), but must hold one"
        ):
            open_dataset(name, "train", 16, data_root=tmp_path / folder.split("/")[0])
    write_tars(tmp_path / "named", "train-{}.tar")
    write_folder(tmp_path / "named" / "val")  # another split may be in a folder
    assert len(open_dataset("imagenet", "train", 16, data_root=tmp_path / "named")) == NUM_IMAGES
    write_folder(tmp_path / "named", {"x.png": png(0)})
    with pytest.raises(ValueError, match=r"holds images \(x.png\) and shards \(train-0.tar\)"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path / "named")


def test_tar_and_parquet_in_one_folder_are_refused(tmp_path):
    write_tars(tmp_path / "train")
    write_parquet(tmp_path / "train" / "9.parquet", [])
    with pytest.raises(ValueError, match="holds 2.tar and 9.parquet, but must hold .tar or .parquet files, not both"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


@KINDS
def test_shards_without_images_are_refused(tmp_path, kind):
    if kind == "tar":
        write_tar(tmp_path / "train/0.tar", {"a.cls": b"1", "a.txt": b"text"})
    else:
        write_parquet(tmp_path / "train/0.parquet", [])
    with pytest.raises(ValueError, match="train holds no images"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


# Tar files.

LONG = "long-" + "ab/" * 25 + "c" * 90 + ".jpg"  # 174 characters: a prefix in USTAR, an extended header elsewhere


@pytest.mark.parametrize("file_format", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_every_format_is_indexed_as_the_standard_library_reads_it(tmp_path, file_format):
    names = [
        "a.jpg",
        LONG,
        "./b.PNG",
        "b/./c.jpg",
        "c/d.webp",
        "Ä/ö日本.gif",
        "no-image.txt",
        "._a.jpg",
        "__MACOSX/a.jpg",
        "e.jpg",
    ]
    if file_format != tarfile.USTAR_FORMAT:
        names.append("x" * 300 + "/" + "y" * 240 + ".jpg")
    members = {name: os.urandom(number * 400) for number, name in enumerate(names)}
    path = write_tar(tmp_path / "0.tar", members, file_format)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.size, m.offset_data) for m in tar if m.name in names and not m.name.endswith(".txt")]
    expected = [(name.removeprefix("./"), *rest) for name, *rest in expected if "._a" not in name and "__" not in name]
    found = scan_tar(path)
    assert list(zip(found.names, found.num_bytes.tolist(), found.offsets.tolist(), strict=True)) == expected
    files = open_shards(tmp_path, ["0.tar"])
    assert {name: files.read(index) for index, name in enumerate(files.names)} == {
        name.removeprefix("./"): members[name] for name in members if name.removeprefix("./") in files.names
    }
    assert len(files) == len(names) - 3


def test_the_system_s_own_tar_is_read(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("there is no tar command")
    write_folder(tmp_path / "images", IMAGES | {LONG: png(3)})
    for file_format in ("ustar", "gnu", "posix", "v7", "oldgnu"):
        if file_format == "v7":  # has no room for long names
            shutil.rmtree(tmp_path / "images" / "long-ab")
        command = [
            "tar",
            f"--format={file_format}",
            "-cf",
            tmp_path / f"{file_format}.tar",
            "-C",
            tmp_path / "images",
            ".",
        ]
        subprocess.run(command, check=True)
        files = open_shards(tmp_path, [f"{file_format}.tar"])
        expected = IMAGES | ({LONG: png(3)} if (tmp_path / "images/long-ab").is_dir() else {})
        assert {name: files.read(index) for index, name in enumerate(files.names)} == expected


def test_the_system_s_tar_in_pax_format_holds_sizes_beyond_eight_gibibytes(tmp_path):
    """A size in an extended header counts, not that of the plain header, which cannot say it."""
    info = tarfile.TarInfo("large.jpg")
    info.size = 9 * 2**30
    for file_format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        header = info.tobuf(file_format)
        last = tarfile.TarInfo("last.jpg").tobuf()
        path = tmp_path / f"{file_format}.tar"
        path.write_bytes(header)
        with open(path, "r+b") as file:
            file.seek(len(header) + info.size)  # a hole: the file takes no room on the disk
            file.write(last + bytes(1024))
        found = scan_tar(path)
        assert found.names == ["large.jpg", "last.jpg"] and found.num_bytes.tolist() == [9 * 2**30, 0]
        with pytest.raises(ValueError, match="large.jpg has 9663676416 bytes, but an image file may have 268435456"):
            open_shards(tmp_path, [path.name]).read(0)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(content: bytes, size: int | None = None) -> bytes:
    header = member("PaxHeader", tarfile.XHDTYPE, size=len(content) if size is None else size)
    return header + content + bytes(-len(content) % 512)


END = bytes(1024)
REFUSED = {
    "symlink": (member("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "holds 'a.jpg' as a link; pack it with --dereference"),
    "hard link": (member("a.jpg", tarfile.LNKTYPE, "b.jpg"), "holds 'a.jpg' as a link"),
    "device": (member("a.jpg", tarfile.CHRTYPE), "holds 'a.jpg' as no regular file"),
    "pipe": (member("a.jpg", tarfile.FIFOTYPE), "holds 'a.jpg' as no regular file"),
    "parent": (member("../a.jpg"), r"holds '../a.jpg', but a member's name is relative and without '..'"),
    "inner parent": (member("b/../../a.jpg"), "holds 'b/../../a.jpg', but"),
    "absolute": (member("/etc/a.jpg"), "holds '/etc/a.jpg', but"),
    "absolute in an extended header": (pax(b"15 path=/a.jpg\n") + member("b.jpg"), "holds '/a.jpg', but"),
    "sparse": (member("a.jpg", tarfile.GNUTYPE_SPARSE), "holds 'a.jpg' as a sparse file"),
    "sparse in an extended header": (pax(b"22 GNU.sparse.major=1\n") + member("a.jpg"), "as a sparse file"),
    "no tar": (b"This is a text that goes on and on. " * 40, "is no uncompressed tar file, or is damaged at byte 0"),
    "compressed": (b"\x1f\x8b" + os.urandom(2000), "is no uncompressed tar file"),
    "damaged later": (member("a.jpg") + b"x" * 512, "is damaged at byte 512"),
    "negative size": (member("a.txt", size=-512), "the member at byte 0 has -512 bytes"),
    "size beyond any file": (member("a.jpg", size=2**80), "is cut off"),
    "size beyond any file of no image": (member("a.txt", size=2**80), "is cut off"),
    "huge header": (pax(b"", 2**40) + member("a.jpg"), "its header at byte 0 has 1099511627776 bytes"),
    "record of no length": (pax(b"0 path=a.jpg\n") + member("a.jpg"), "extended header at byte 0"),
    "record too long": (pax(b"9999 path=a.jpg\n") + member("a.jpg"), "extended header at byte 0 has no records"),
    "record without end": (pax(b"path") + member("a.jpg"), "extended header at byte 0 says"),
    "size that is no number": (pax(b"12 size=-99\n") + member("a.jpg"), "extended header at byte .* says b'-99'"),
    "size of too many digits": (
        pax(b"34 size=" + b"9" * 25 + b"\n") + member("a.jpg"),
        "extended header at byte .* says",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_shards_are_one_sentence_that_names_them(tmp_path, case):
    content, message = REFUSED[case]
    (tmp_path / "train").mkdir()
    (tmp_path / "train/7.tar").write_bytes(content + END)
    with pytest.raises(ValueError, match=f"The shard .*/train/7.tar .*{message}"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)
    assert not list(cache_folder().glob("*.index"))


def test_what_is_no_image_is_ignored_and_not_looked_at(tmp_path):
    content = b"".join(
        [
            member("../evil.txt"),
            member("/etc/passwd"),
            member("link.cls", tarfile.SYMTYPE, "/etc/passwd"),
            member("folder.jpg.d", tarfile.DIRTYPE),
            member("hard.cls", tarfile.LNKTYPE, "a", size=10**6),  # a link has no data, whatever its size says
            pax(b"14 path=b.txt\n") + member("a.jpg"),  # the extended name counts
            pax(b"14 path=c.jpg\n") + member("c.txt", size=3) + b"abc" + bytes(509),
            member("global", tarfile.XGLTYPE, size=11) + b"11 a=bcdef\n" + bytes(501),
            member("d.jpg"),
        ]
    )
    (tmp_path / "0.tar").write_bytes(content + END)
    files = open_shards(tmp_path, ["0.tar"])
    assert files.names == ["c.jpg", "d.jpg"] and files.read(0) == b"abc"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "cache"]  # nothing is extracted


def test_a_tar_of_tars_is_read_as_imagenet_is_downloaded(tmp_path):
    """ILSVRC2012_img_train.tar holds one tar file for each class: the images are those of the folders of these names."""
    classes = {folder: {n: d for n, d in IMAGES.items() if n.startswith(folder)} for folder in ("n00", "n01", "n02")}
    inner = {}
    for folder, images in classes.items():
        path = write_tar(tmp_path / "one.tar", {name.partition("/")[2]: data for name, data in images.items()})
        inner[f"{folder}.tar"] = path.read_bytes()
        path.unlink()
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", inner | {"readme.txt": b"text"})
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {f"{number}.png": png(number) for number in range(3)})
    dataset = open_dataset("imagenet", "train", 16, data_root=tmp_path)
    plain = open_dataset("imagenet", "train", 16, data_root=write_folder(tmp_path / "plain/train").parent)
    assert dataset.record() == plain.record()
    assert torch.equal(*(each.images(np.arange(NUM_IMAGES)) for each in (dataset, plain)))
    assert open_dataset("imagenet", "test", 16, data_root=tmp_path).names == ["0.png", "1.png", "2.png"]


def test_a_tar_in_a_shard_of_images_is_not_looked_into(tmp_path):
    write_tar(tmp_path / "0.tar", {"0.png": png(0), "0.tar": b"nothing", "../1.tar": b""})
    assert scan_tar(tmp_path / "0.tar").names == ["0.png"]


@pytest.mark.parametrize(
    ("inner", "sentence"),
    [
        ({"a.tar": b"nothing"}, "0.tar/a.tar is cut off"),
        ({"a.tar": b"x" * 2048}, "0.tar/a.tar is no uncompressed tar file"),
        ({"../a.tar": END}, "holds '../a.tar', but a member's name is relative"),
        ({"a.tar": member("../b.jpg") + END}, "0.tar/a.tar holds '../b.jpg', but"),
        ({"a.tar": member("b.jpg", size=10**6) + END}, "0.tar/a.tar is cut off"),
    ],
)
def test_a_damaged_tar_in_a_tar_is_one_sentence(tmp_path, inner, sentence):
    write_tar(tmp_path / "0.tar", inner | {"z.txt": bytes(10**6)})
    with pytest.raises(ValueError, match=f"The shard .*{sentence}"):
        scan_tar(tmp_path / "0.tar")


def test_a_shard_cut_off_anywhere_is_one_sentence(tmp_path):
    path = write_tar(tmp_path / "whole.tar", {f"{number}.png": png(number) for number in range(4)})
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        end = max(m.offset_data + m.size for m in tar)
    for length in [0, 100, *range(512, end + 512, 300), -(-end // 512) * 512]:
        (tmp_path / "cut.tar").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"The shard .*cut.tar is cut off"):
            scan_tar(tmp_path / "cut.tar")


def test_a_damaged_shard_is_refused_or_read_but_never_anything_else(tmp_path):
    """Bytes are changed at random; what comes of it is an index within the file or a sentence."""
    content = write_tar(
        tmp_path / "a.tar", {f"{n}.png": png(n) for n in range(3)} | {LONG: b"x", "日.jpg": b"y"}
    ).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    for _ in range(1500):
        changed = bytearray(content)
        start = int(rng.integers(0, len(content) // 512)) * 512 + int(rng.choice([0, 124, 148, 156, 257, 345, 500]))
        for place in range(start, min(start + int(rng.integers(1, 9)), len(content))):
            changed[place] = rng.integers(0, 256)
        header = start // 512 * 512  # with a checksum that fits, damage gets further
        block = changed[header : header + 512]
        block[148:156] = b" " * 8
        changed[header + 148 : header + 156] = b"%06o\0 " % sum(block)
        (tmp_path / "b.tar").write_bytes(changed)
        try:
            found = scan_tar(tmp_path / "b.tar")
        except ValueError as error:
            assert str(error).startswith("The shard ")
            outcomes.add("refused")
        else:
            assert ((found.offsets >= 512) & (found.offsets + found.num_bytes <= len(content))).all()
            outcomes.add("read")
    assert outcomes == {"refused", "read"}


# The index.


def never(*_):
    raise AssertionError("the shards were read a second time")


def test_the_index_is_made_once_and_again_when_a_shard_changed(tmp_path, monkeypatch):
    write_tars(tmp_path / "train")
    names = ["0.tar", "1.tar", "2.tar"]

    def open_files():
        return open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")._files

    first = open_files()
    assert sorted(path.suffix for path in cache_folder().iterdir()) == [".index", ".lock"]
    with monkeypatch.context() as patch:
        patch.setattr(shards_module, "scan_tar", never)
        second = open_files()
        assert second.names == first.names and second.content_key() == first.content_key()
    os.utime(tmp_path / "train/1.tar", ns=(1, 1))
    with pytest.warns(UserWarning, match="index .* is made again: the shards changed since"):
        third = open_files()
    assert third.fingerprint() == first.fingerprint() and third.content_key() != first.content_key()
    write_tar(tmp_path / "train/1.tar", {"new.png": png(1)})
    with pytest.warns(UserWarning, match="made again"):
        assert "new.png" in open_files().names
    assert index_path(tmp_path / "train", names).is_file() and len(list(cache_folder().glob("*.index"))) == 1


@pytest.mark.parametrize(
    "damage",
    {
        "empty": lambda data: b"",
        "cut off": lambda data: data[: len(data) // 2],
        "foreign": lambda data: b"something else entirely" * 100,
        "a byte": lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:],
        "the end": lambda data: data[:-30] + bytes(30),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_index_is_made_again_with_a_warning(tmp_path, damage, monkeypatch):
    write_tars(tmp_path)
    names = ["0.tar", "1.tar", "2.tar"]
    open_shards(tmp_path, names)
    path = index_path(tmp_path, names)
    path.write_bytes(damage[1](path.read_bytes()))
    with pytest.warns(UserWarning, match="of shards is made again: .+"):
        files = open_shards(tmp_path, names)
    assert files.names == NAMES and files.read(9) == IMAGES[NAMES[9]]
    monkeypatch.setattr(shards_module, "scan_tar", never)
    open_shards(tmp_path, names)


def test_an_index_that_cannot_be_finished_leaves_nothing(tmp_path, monkeypatch):
    write_tars(tmp_path)

    def fails(*_args, **_kwargs):
        raise OSError("No space left on device")

    (cache_folder()).mkdir()
    leftover = cache_folder() / f".{index_path(tmp_path, ['0.tar']).name}.99.part"
    leftover.write_bytes(b"of a process that was killed")
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fails)
        with pytest.raises(OSError, match="No space left"):
            open_shards(tmp_path, ["0.tar"])
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]
    assert len(open_shards(tmp_path, ["0.tar"])) == 8


def test_places_that_cannot_hold_an_index(tmp_path, monkeypatch):
    write_tars(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="cannot be made .*set VISTOK_CACHE"):
        open_shards(tmp_path, ["0.tar"])
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OSError, match="cannot be written; set VISTOK_CACHE"):
        open_shards(tmp_path, ["0.tar"])


def test_only_a_few_shards_are_open_at_a_time_and_threads_may_read_them_all(tmp_path, monkeypatch):
    for number, name in enumerate(NAMES):
        write_tar(tmp_path / f"{number:02}.tar", {name: IMAGES[name]})
    files = open_shards(tmp_path, [f"{number:02}.tar" for number in range(NUM_IMAGES)])
    few = functools.lru_cache(maxsize=2)(shards_module._opened.__wrapped__)
    monkeypatch.setattr(shards_module, "_opened", few)

    def open_shard_files() -> int:
        links = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
        return sum(link.startswith(str(tmp_path)) for link in links)

    order = np.random.default_rng(0).integers(0, NUM_IMAGES, 3000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        read = list(pool.map(files.read, order))
    assert all(data == IMAGES[NAMES[index]] for data, index in zip(read, order, strict=True))
    if Path("/proc/self/fd").is_dir():
        assert open_shard_files() == 2
        few.cache_clear()
        assert open_shard_files() == 0


def test_a_shard_that_changes_under_an_open_dataset_is_an_error_and_no_bad_image(tmp_path):
    write_tars(tmp_path)
    files = open_shards(tmp_path, ["0.tar", "1.tar", "2.tar"])
    files.read(0)
    os.truncate(tmp_path / "0.tar", 2000)
    with pytest.raises(OSError, match=r"shard of .*0.tar/n00/07.png was cut off since its dataset was opened"):
        files.read(7)
    write_tar(tmp_path / "1.tar", {"x.png": png(0)})
    with pytest.raises(OSError, match=r"shard .*1.tar changed since its dataset was opened; open it again"):
        files.read(8)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
def test_an_index_of_1_280_000_images_takes_less_than_200_megabytes(tmp_path):
    """Opened as any dataset is, in a process of its own: by what the process grows, and by what Python and numpy ask for."""
    script = f"""
import json, tracemalloc
from pathlib import Path
from benchmarks.harness import _memory_mib
from benchmarks.bench_index import generate_index
from vistok.data import open_dataset, train_batches
from vistok.data.draws import permutation
root = Path({str(tmp_path)!r})
import os
if os.fork() == 0:  # what generating takes is the child's
    generate_index(root)
    os._exit(0)
assert os.wait()[1] == 0
before = _memory_mib("VmRSS")
tracemalloc.start()
dataset = open_dataset("imagenet", "train", 256, data_root=root, crop="adm")
grown, traced = _memory_mib("VmHWM") - before, tracemalloc.get_traced_memory()[1] / 2**20
print(json.dumps([len(dataset), dataset.names[-1], dataset.fingerprint, grown, traced]))
"""
    environment = os.environ | {"PYTHONPATH": str(repository_root() / "tests")}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    num_images, last, fingerprint, grown, traced = json.loads(found.stdout)
    assert num_images == 1_280_000 and last == "n00000984/n00000984_00799.JPEG" and len(fingerprint) == 12
    assert 60 < traced < 200 and grown < 200  # below 60 the names would not be in memory at all


# Parquet files.


def test_rows_without_a_path_are_named_by_file_and_row(tmp_path):
    write_parquet(tmp_path / "train/a.parquet", [{"bytes": png(n), "path": None} for n in range(3)])
    write_parquet(
        tmp_path / "train/b.parquet", [{"bytes": png(3), "path": "../../x.png"}, {"bytes": png(4), "path": ""}]
    )
    dataset = open_dataset("imagenet", "train", 16, data_root=tmp_path)
    assert dataset.names == ["a.parquet:0", "a.parquet:1", "a.parquet:2", "../../x.png", "b.parquet:1"]
    assert dataset.images(np.arange(5))[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("row", [{"bytes": None, "path": "/etc/passwd"}, {"bytes": None, "path": "real.png"}, None])
def test_a_row_with_a_path_only_is_refused_and_the_path_never_opened(tmp_path, row, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/real.png.bin").write_bytes(png(0))
    rows = [{"bytes": png(n), "path": f"{n}.png"} for n in range(6)]
    write_parquet(tmp_path / "train/a.parquet", [*rows, row])
    opened = []
    plain_open = builtins.open
    monkeypatch.setattr(
        builtins, "open", lambda path, *rest, **named: opened.append(str(path)) or plain_open(path, *rest, **named)
    )
    path = None if row is None else row["path"]
    with pytest.raises(ValueError, match=f"Row 6 of the Parquet files in .* has no bytes, only the path {path!r}"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)
    assert not [name for name in opened if name.endswith(("passwd", "real.png"))]


def test_a_file_with_other_columns_is_refused(tmp_path):
    write_parquet(tmp_path / "train/a.parquet", [{"bytes": png(0), "path": None}], column="img")
    with pytest.raises(ValueError, match=r"a.parquet has no column 'image', but \['label', 'img'\]; rename"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"image": [1, 2]}), tmp_path / "train/a.parquet")
    with pytest.raises(
        ValueError, match="The column 'image' of .*a.parquet is 'int64', but must have the fields bytes and path"
    ):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


@pytest.mark.parametrize("damage", ["empty", "cut off", "foreign", "footer", "page"])
def test_a_damaged_parquet_file_is_one_sentence(tmp_path, damage):
    path = write_parquet(
        tmp_path / "train/a.parquet", [{"bytes": os.urandom(5000), "path": f"{n}.png"} for n in range(20)]
    )
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut off": data[: len(data) // 2],
            "foreign": b"something else" * 50,
            "footer": data[:-300] + bytes(250) + data[-50:],
            "page": data[:4] + b"\xff" * 300 + data[304:],
        }[damage]
    )
    with pytest.raises(ValueError, match=r"The shards? .*a.parquet .*damaged"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


def test_the_copy_of_parquet_files_is_made_once_and_again_when_a_file_changed(tmp_path):
    def copies() -> list[tuple[str, int]]:
        return [(path.parent.name, path.stat().st_mtime_ns) for path in cache_folder().rglob("*.arrow")]

    write_parquets(tmp_path / "train")
    open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")
    made = copies()
    open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")
    assert len(made) == 1 and copies() == made
    write_parquet(tmp_path / "train/0.parquet", [{"bytes": png(22), "path": "new.png"}])
    dataset = open_dataset("imagenet", "train", 16, data_root=tmp_path, crop="adm")
    assert dataset.names == ["new.png", *NAMES[8:]] and dataset.images(np.array([0]))[0, 0, 0, 0] == 220
    assert len(copies()) == 1 and copies() != made  # the old one is gone


def test_a_disk_too_small_for_the_copy_is_one_sentence(tmp_path, monkeypatch):
    write_parquets(tmp_path / "train")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OSError, match=r"needs a copy of \d+\.\d GB, but .* has 0.0 GB free; set VISTOK_CACHE"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


def test_a_missing_package_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    write_parquets(tmp_path / "train")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"needs the package datasets, .*: pip install 'vistok\[parquet\]'"):
        open_dataset("imagenet", "train", 16, data_root=tmp_path)


def test_folders_with_the_signs_of_patterns_in_their_names(tmp_path):
    for kind in WRITERS:
        root = tmp_path / f"{kind} [a-c]*?"
        WRITERS[kind](root / "train")
        assert open_dataset("imagenet", "train", 16, data_root=root).names == NAMES
