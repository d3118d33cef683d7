"""Lists of files: compact, sorted, hashed as ever, and nothing read that is too large for an image."""

import hashlib
import os
import pickle
import random
import string
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vistok.data import files as files_module
from vistok.data import open_dataset
from vistok.data.files import FolderFiles, ZipFiles, scan_images
from vistok.data.names import Names
from vistok.data.naming import SUFFIXES
from vistok.system.paths import repository_root

SHARED = repository_root().parent / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


def write(folder: Path, names: list[str]) -> Path:
    """Files of different sizes and times; their content is no image."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * number)
        os.utime(path, ns=(0, 10**18 + number))
    return folder


# Names.

SOME = ["a.jpg", "", "Ä/ö.jpg", "日本/1.png", "a.jpg", "line\nbreak.jpg", "bad-\udcff.jpg"]


def test_names_read_as_a_list_of_str():
    names = Names.of(SOME)
    assert list(names) == SOME and len(names) == 7 and names == SOME and names == tuple(SOME)
    assert names[2] == "Ä/ö.jpg" and names[-1] == SOME[-1] and names[np.int64(3)] == SOME[3]
    assert list(names[1:6:2]) == SOME[1:6:2] and names[:3] == SOME[:3]
    assert names[np.array([5, 0, 0])] == [SOME[5], SOME[0], SOME[0]]
    assert SOME[3] in names and "b.jpg" not in names and names.index("Ä/ö.jpg") == 2
    assert names != SOME[:6] and names != [*SOME[:6], "other"] and Names.of(["a", "b"]) != "ab"
    assert len(Names.of([])) == 0 and list(Names.of([])) == []
    with pytest.raises(IndexError):
        names[7]
    assert pickle.loads(pickle.dumps(names)) == SOME


def test_parts_of_names_share_their_bytes():
    names = Names.of(f"{number:08}.jpg" for number in range(1000))
    assert np.shares_memory(names.blob, names[np.arange(500)].blob)
    assert np.shares_memory(names.blob, names[10:20].blob)


# Fingerprints: the formulas as they were when names were a list of str.


def old_fingerprint(names, sizes, *settings) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for name, num_bytes in zip(names, sizes, strict=True):
        digest.update(f"\n{name} {num_bytes}".encode())
    return digest.hexdigest()[:12]


def old_content_key(names, sizes, stamps, *settings) -> str:
    digest = hashlib.sha256(old_fingerprint(names, sizes, *settings).encode())
    for stamp in stamps:
        digest.update(f"{stamp} ".encode())
    return digest.hexdigest()[:32]


@pytest.mark.parametrize("chunk", [3, 8192])
def test_fingerprint_and_content_key_are_what_they_always_were(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(files_module, "_CHUNK", chunk)
    names = sorted(["a/1.jpg", "a/2.JPEG", "b.png", "c/Ä ö.webp", "c/日本.jpg", "d.gif", "e.tif"])
    files = FolderFiles.scan(write(tmp_path, names))
    sizes = [os.stat(tmp_path / name).st_size for name in names]
    stamps = [os.stat(tmp_path / name).st_mtime_ns for name in names]
    assert len(set(sizes)) == len(set(stamps)) == 7
    for settings in ((), ("folder", "train"), ("ADM centre crop to 18x18", 1)):
        assert files.fingerprint(*settings) == old_fingerprint(names, sizes, *settings)
        assert files.content_key(*settings) == old_content_key(names, sizes, stamps, *settings)
    places = [5, 0, 0, 3]
    part = files.select(places)
    chosen = [[values[place] for place in places] for values in (names, sizes, stamps)]
    assert part.names == chosen[0] and part.num_bytes.tolist() == chosen[1] and part.stamps.tolist() == chosen[2]
    assert part.content_key("x") == old_content_key(*chosen, "x")
    assert len(files.select([])) == 0 and files.select([]).fingerprint() == old_fingerprint([], [])
    named = FolderFiles(tmp_path, names)
    assert named.names == files.names and named.content_key("x") == files.content_key("x")


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="needs ../shared/data/imagenet-sample")
def test_the_fingerprints_in_the_records_of_runs_are_still_those_of_the_files():
    for split, fingerprint in {"train": "770645e02566", "test": "e31cc9e848df"}.items():
        dataset = open_dataset("imagenet-sample", split, 16, data_root=SHARED / "imagenet-sample")
        assert dataset.fingerprint == fingerprint


# Listing.


def old_listing(folder: Path) -> list[str]:
    names = []
    for path, folders, found in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        prefix = Path(path).relative_to(folder).as_posix()
        prefix = "" if prefix == "." else prefix + "/"
        names += [prefix + f for f in found if not f.startswith(".") and os.path.splitext(f)[1].lower() in SUFFIXES]
    return sorted(names)


def test_listing_is_sorted_by_whole_paths_and_leaves_out_what_is_hidden(tmp_path):
    tricky = [
        "a-b.jpg",
        "a.jpg",
        "a/z.jpg",
        "a/b/c.png",
        "a b/1.jpg",
        "a0/1.jpg",
        "A/1.JPG",
        "a.jpg.d/x.gif",
        "ü/1.jpg",
    ]
    ignored = [
        ".hidden.jpg",
        ".git/x.jpg",
        "__MACOSX/x.jpg",
        "a/._z.jpg",
        "notes.txt",
        "jpg",
        "a/x.jpg.txt",
        "nosuffix.",
    ]
    chance, more = random.Random(0), []
    for _ in range(200):
        parts = ["".join(chance.choices("ab-~0 !", k=chance.randint(1, 3))) for _ in range(chance.randint(1, 4))]
        more.append("/".join([*(f"{part}d" for part in parts[:-1]), f"{parts[-1]}.{chance.choice(string.digits)}.png"]))
    root = write(tmp_path, [*tricky, *ignored, *sorted(set(more))])
    assert FolderFiles.scan(root).names == old_listing(root)
    assert set(tricky) <= set(old_listing(root)) and not set(ignored) & set(FolderFiles.scan(root).names)


def test_links_to_folders_are_followed_once_and_pipes_are_no_images(tmp_path):
    root = write(tmp_path / "root", ["a/1.jpg", "b/2.jpg"])
    outside = write(tmp_path / "outside", ["3.jpg"])
    os.symlink(root, root / "a" / "loop")
    os.symlink(root / "a", root / "c")
    os.symlink(outside, root / "d")
    os.symlink(root / "a/1.jpg", root / "link.jpg")
    os.mkfifo(root / "pipe.jpg")
    assert FolderFiles.scan(root).names == ["a/1.jpg", "b/2.jpg", "d/3.jpg", "link.jpg"]


def test_a_folder_that_may_not_be_read_is_left_out_with_a_warning(tmp_path, monkeypatch):
    root = write(tmp_path, ["a/1.jpg", "closed/2.jpg"])
    scandir = os.scandir

    def closed(path):
        if path.endswith(b"closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.warns(UserWarning, match="Images in .*/closed are left out: Permission denied"):
        assert FolderFiles.scan(root).names == ["a/1.jpg"]


def test_the_first_image_is_found_without_listing_all(tmp_path, monkeypatch):
    root = write(tmp_path, [f"{folder}/{file}.jpg" for folder in range(5) for file in range(3)])
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scandir(path))
    assert next(scan_images(root)).names == [b"0/0.jpg", b"0/1.jpg", b"0/2.jpg"]
    assert len(scanned) == 2


# Files too large.


def test_a_file_too_large_for_an_image_is_refused_before_it_is_read(tmp_path, monkeypatch):
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    (tmp_path / "large.png").touch()
    os.truncate(tmp_path / "large.png", 2**40)  # a terabyte of nothing: reading it would end the test
    message = r"image .*/large.png has 1099511627776 bytes, but an image file may have 268435456"
    for crop in ("cached", "adm"):
        with pytest.raises(ValueError, match=message):
            dataset = open_dataset("folder", "train", 16, data_root=tmp_path, crop=crop)
            dataset.images(np.arange(len(dataset)))
    skipping = open_dataset("folder", "train", 16, data_root=tmp_path, on_bad_image="skip")
    assert skipping.left_out == ["large.png"] and skipping.names == ["small.png"]

    grown = FolderFiles(tmp_path, ["tiny.png"])
    os.truncate(tmp_path / "tiny.png", 2**40)  # after it was listed
    with pytest.raises(ValueError, match=r"tiny.png has 1099511627776 bytes"):
        grown.read(0)

    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        archive.writestr("1.jpg", b"x" * 101)
        archive.writestr("2.jpg", b"x" * 100)
    monkeypatch.setattr(files_module, "MAX_IMAGE_BYTES", 100)
    zipped = ZipFiles(tmp_path / "some.zip", zipfile.ZipFile(tmp_path / "some.zip").infolist())
    assert zipped.read(1) == b"x" * 100
    with pytest.raises(ValueError, match="has 101 bytes, but an image file may have 100"):
        zipped.read(0)


def test_files_of_a_zip_are_selected_and_pickled_as_others_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for number in range(5):
            archive.writestr(f"folder/{number}.jpg", bytes([number]) * number)
    files = ZipFiles(tmp_path / "some.zip", zipfile.ZipFile(tmp_path / "some.zip").infolist())
    part = pickle.loads(pickle.dumps(files.select([4, 2])))
    assert part.names == ["4.jpg", "2.jpg"] and part.num_bytes.tolist() == [4, 2]
    assert [part.read(0), part.read(1)] == [b"\4" * 4, b"\2" * 2]


@pytest.mark.parametrize("place", [-1, 4])  # the deflated bytes' end, their beginning
def test_a_damaged_entry_of_a_zip_is_one_sentence(tmp_path, place):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", os.urandom(2000))
    entries = zipfile.ZipFile(path).infolist()
    first = entries[0].header_offset + 30 + len("1.jpg")
    data = bytearray(path.read_bytes())
    data[first + place if place > 0 else first + entries[0].compress_size - 20] ^= 0xFF
    data[first] ^= 0xFF if place > 0 else 0  # a block of an unknown kind: zlib's own error
    path.write_bytes(data)
    with pytest.raises(ValueError, match="1.jpg cannot be read from .*some.zip: .+"):
        ZipFiles(path, entries).read(0)


def test_a_reason_that_quotes_a_damaged_zip_is_cut(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.jpg", os.urandom(4000))
    entries = zipfile.ZipFile(path).infolist()
    data = bytearray(path.read_bytes())
    data[27] = 8  # the name is said to be 2 kB long, so the error quotes as much of the image
    path.write_bytes(data)
    with pytest.raises(ValueError, match="1.jpg cannot be read from .*some.zip: .+") as error:
        ZipFiles(path, entries).read(0)
    assert len(str(error.value)) < 1500
