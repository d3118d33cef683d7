"""The pixel cache: built once, found again, built anew when something changed or broke, safe with two builders."""

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from PIL import Image

from vistok.data import files as files_module
from vistok.data import open_dataset
from vistok.data.cache import cache_folder, open_pixel_cache, remembered
from vistok.data.files import FolderFiles


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))


def square(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def build(render=square, key="key", num_images=200, **options):
    return open_pixel_cache("toy", key, num_images, 8, render, keep_going=False, **options)


def never(index: int):
    raise AssertionError("the cache was built a second time")


def toy_path():
    return cache_folder() / "toy.pixels"


def test_pixels_are_those_rendered_and_found_again():
    expected = np.stack([square(i) for i in range(200)])
    for num_threads in (1, 3):
        cache = build(key=f"{num_threads} threads", num_threads=num_threads)
        assert cache.pixels.shape == (200, 8, 8, 3) and cache.pixels.dtype == np.uint8
        assert np.array_equal(cache.pixels, expected)
    assert not cache.pixels.flags.writeable
    assert np.array_equal(build(never, key="3 threads").pixels, expected)
    assert sorted(path.name for path in cache_folder().iterdir()) == ["toy.lock", "toy.pixels"]


def test_another_key_builds_anew():
    build()
    with pytest.warns(UserWarning, match="toy.pixels is built again: the files or the settings changed"):
        cache = build(lambda index: 255 - square(index), key="another")
    assert np.array_equal(cache.pixels[5], 255 - square(5))


def flip_byte(path, place: int) -> None:
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x55]))


@pytest.mark.parametrize(
    "damage",
    {
        "empty": lambda path: path.write_bytes(b""),
        "cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
        "pixels missing": lambda path: path.write_bytes(path.read_bytes()[192:]),
        "foreign": lambda path: path.write_bytes(b"something else entirely" * 100),
        "description": lambda path: flip_byte(path, -60),
        "trailer": lambda path: flip_byte(path, -1),
        "pixels": lambda path: flip_byte(path, 7),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_cache_is_built_again(damage):
    build()
    damage[1](toy_path())
    with pytest.warns(UserWarning, match="built again"):
        cache = build()
    assert np.array_equal(cache.pixels, np.stack([square(i) for i in range(200)]))
    build(never)


def test_a_failed_build_leaves_nothing():
    def fails(index: int):
        if index == 150:
            raise ValueError("image 150 is bad")
        return square(index)

    with pytest.raises(ValueError, match="image 150 is bad"):
        build(fails)
    assert [path.name for path in cache_folder().iterdir()] == ["toy.lock"]


def test_an_interrupted_build_stops_and_is_cleaned_up():
    rendered = []

    def interrupted(index: int):
        rendered.append(index)
        if index == 70:
            raise KeyboardInterrupt
        return square(index)

    with pytest.raises(KeyboardInterrupt):
        build(interrupted, num_images=100_000, num_threads=2)
    assert len(rendered) < 10_000
    assert [path.name for path in cache_folder().iterdir()] == ["toy.lock"]
    (cache_folder() / "toy.killed.tmp").write_bytes(b"left by a build that was killed")
    build()
    assert sorted(path.name for path in cache_folder().iterdir()) == ["toy.lock", "toy.pixels"]


def test_unreadable_images_are_listed():
    def some(index: int):
        if index % 50 == 3:
            raise ValueError(f"image {index} is bad")
        return square(index)

    cache = open_pixel_cache("toy", "key", 200, 8, some, keep_going=True)
    assert cache.unreadable == [(i, f"image {i} is bad") for i in (3, 53, 103, 153)]
    assert build(never).unreadable == cache.unreadable
    only_list = open_pixel_cache(
        "list", "key", 200, 0, lambda i: some(i) and None if i % 50 == 3 else None, keep_going=True
    )
    assert [index for index, _ in only_list.unreadable] == [3, 53, 103, 153]


def test_two_threads_build_once():
    count = []

    def counted(index: int):
        count.append(index)
        return square(index)

    threads = [threading.Thread(target=build, args=(counted,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(count) == list(range(200))


def _build_in_process(start) -> None:
    start.wait()
    assert np.array_equal(build().pixels[199], square(199))


def test_two_processes_agree():
    context = multiprocessing.get_context("fork")
    start = context.Event()
    processes = [context.Process(target=_build_in_process, args=(start,)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    build(never)


def test_a_pickled_cache_is_small_and_opens_again():
    cache = build()
    data = pickle.dumps(cache)
    assert len(data) < 2000
    assert np.array_equal(pickle.loads(data).pixels, cache.pixels)


def test_places_that_cannot_hold_a_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="cannot be made .*set VISTOK_CACHE"):
        build()
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OSError, match=r"needs \d+\.\d GB, but .* GB free"):
        build(never, num_images=10**13)


def test_a_dataset_follows_its_files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()

    def write(name: str, value: int) -> None:
        Image.new("RGB", (20, 20), (value, value, value)).save(folder / name)

    def values() -> list[int]:
        dataset = open_dataset("folder", "train", 16, data_root=folder)
        return dataset.images(np.arange(len(dataset)))[:, 0, 0, 0].tolist()

    for i in range(4):
        write(f"{i}.bmp", 10 * i)
    assert values() == [0, 10, 20]  # 3.bmp is the test split
    write("1.bmp", 99)  # the same size: only the time tells
    os.utime(folder / "1.bmp", ns=(1, 1))
    with pytest.warns(UserWarning, match="built again"):
        assert values() == [0, 99, 20]
    write("0b.bmp", 55)
    with pytest.warns(UserWarning, match="built again"):
        assert values() == [0, 55, 99, 20]
    (folder / "0.bmp").unlink()
    with pytest.warns(UserWarning, match="built again"):
        assert values() == [55, 99, 20]


def test_sizes_do_not_share_a_cache(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(3):
        Image.new("RGB", (40, 40), (i, i, i)).save(folder / f"{i}.png")
    for size in (8, 16, 8):
        assert open_dataset("folder", "train", size, data_root=folder).images(np.array([0])).shape[-1] == size
    assert len(list(cache_folder().glob("*.pixels"))) == 2


def test_a_text_is_computed_once_for_each_key_wherever_it_can_be_kept(monkeypatch):
    computed = []

    def ask(key: str) -> str:
        return remembered("text", key, lambda: computed.append(key) or f"of {key}")

    assert [ask(key) for key in "aabb"] == ["of a", "of a", "of b", "of b"] and computed == ["a", "b"]
    (cache_folder() / "text.json").write_text("{")
    assert [ask(key) for key in "bb"] == ["of b", "of b"] and computed == ["a", "b", "b"]
    monkeypatch.setattr(os, "access", lambda *_: False)  # a folder of others, who have made the caches in it
    assert [ask(key) for key in "bcc"] == ["of b", "of c", "of c"] and computed == ["a", "b", "b", "c", "c"]


def test_the_content_of_files_is_read_once_and_again_when_a_time_changed(tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (20, 20), (i, i, i)).save(folder / f"{i}.bmp")
    read = []
    original = FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda self, index: read.append(index) or original(self, index))

    def content() -> str:
        read.clear()
        return open_dataset("folder", "train", 16, data_root=folder, crop="adm").content

    first = content()
    assert len(read) == 3 and content() == first and not read
    os.utime(folder / "1.bmp", ns=(1, 1))
    assert content() == first and len(read) == 3
    Image.new("RGB", (20, 20), "red").save(folder / "1.bmp")
    assert content() != first


def test_of_a_large_dataset_a_spread_of_files_is_read_for_its_content(tmp_path, monkeypatch):
    for i in range(40):
        (tmp_path / f"{i:02}.jpg").write_bytes(bytes([i]))
    whole = FolderFiles.scan(tmp_path).content()
    monkeypatch.setattr(files_module, "_WHOLE_BYTES", 39)
    monkeypatch.setattr(files_module, "_SPREAD", 5)
    read = []
    original = FolderFiles.read
    monkeypatch.setattr(FolderFiles, "read", lambda self, index: read.append(index) or original(self, index))
    assert FolderFiles.scan(tmp_path).content() != whole and sorted(read) == [0, 9, 19, 29, 39]
