"""Files nobody vouches for: whatever their bytes say, nothing runs, nothing leaves its folder, nothing grows without bounds.

Each property is tried on a few hundred cases; with VISTOK_EXTENDED=1 on more than ten thousand in all.
"""

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import subprocess
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from vistok.config import TrainConfig
from vistok.data import transforms
from vistok.data.cache import PixelCache, open_pixel_cache
from vistok.data.celeba import celeba
from vistok.data.transforms import CenterSquare, PhotoSquare, adm_random_crop, check_decodes, decode
from vistok.generation.generator import Autoregressive, Generator
from vistok.pretrained import load_pretrained
from vistok.recipes import TABLES, load_table
from vistok.runs import Run
from vistok.system.paths import runs_root
from vistok.system.weights import load_state
from vistok.tokenizer import VisualTokenizer
from vistok.tokens import TokenFile

EXTENDED = os.environ.get("VISTOK_EXTENDED") == "1"


def cases(usual: int) -> settings:
    """The settings of a property: every run of the usual profile tries the same cases."""
    return settings(
        max_examples=usual * (20 if EXTENDED else 1),
        derandomize=not EXTENDED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def check_sentence(error: BaseException) -> None:
    text = str(error)
    assert 10 < len(text) < 3000 and "\n" not in text, text
    assert re.search(r"\w+ \w+", text), text


@contextlib.contextmanager
def refusal(*kinds: type[Exception]) -> Iterator[None]:
    """Let through what is refused in one sentence, and nothing else."""
    try:
        yield
    except kinds as error:
        check_sentence(error)


# What files may say.

NASTY_NAMES = [
    "..",
    ".",
    "",
    "/",
    "../..",
    "/etc/passwd",
    "a/b",
    "a/../b",
    "a\\b",
    "a b",
    "a\0b",
    "ä",
    "a\n",
    "~",
    "x" * 300,
]
DIGITS, DEPTH = "<digits>", "<depth>"  # stand for what Hypothesis could not show: `dump` writes them out
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**64), 10**400]),
    st.sampled_from([DIGITS, DEPTH]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(NASTY_NAMES),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=8,
)


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ODD = st.one_of(VALUES, st.sampled_from([nested(20), nested(40), nested(300)]))


def dump(value: Any) -> str:
    """JSON text of any value, with numbers and depths that Python's own writer does not write."""
    text = json.dumps(value)
    return text.replace(json.dumps(DIGITS), "9" * 6000).replace(json.dumps(DEPTH), "[" * 10_000 + "]" * 10_000)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes of a file with some cut off, overwritten, left out, doubled or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "write", "remove", "insert", "double"]))
        length = draw(st.integers(1, 64))
        if kind == "cut":
            del data[place:]
        elif kind == "flip" and data:
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            new = draw(st.binary(min_size=1, max_size=8))
            data[place : place + len(new)] = new
        elif kind == "remove":
            del data[place : place + length]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=16))
        else:
            data[place:place] = data[place : place + length]
    return bytes(data)


# Configurations.

SETTINGS = TrainConfig().to_dict()
VALID = st.fixed_dictionaries(
    {},
    optional={
        "row": st.none() | st.from_regex(r"[a-z0-9]{1,8}/[A-Za-z0-9_+-]{1,8}", fullmatch=True),
        "scale": st.from_regex(r"[A-Za-z0-9_.+-]{0,8}[a-z]", fullmatch=True),
        "dataset": st.sampled_from(["photos", "folder", "celeba"]),
        "data_root": st.none() | st.text().filter(str.strip),
        "image_size": st.integers(1, 2**40),
        "test_fraction": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
        "flip": st.booleans(),
        "network": st.text(),
        "network_options": st.dictionaries(st.text(min_size=30), st.integers() | st.text() | st.lists(st.booleans())),
        "quantizer": st.sampled_from(["vq", "ema", "made-up"]),
        "quantizer_options": st.dictionaries(st.text(min_size=30), st.floats(allow_nan=False, allow_infinity=False)),
        "codebook_size": st.integers(1, 2**62),
        "lr": st.floats(0, 1e300, exclude_min=True) | st.integers(1, 2**62),
        "beta1": st.floats(0, 1, exclude_max=True),
        "seed": st.integers(0, 2**32 - 1),
        "precision": st.sampled_from(["auto", "float32", "bfloat16", "float16"]),
    },
)


def check_config(config: TrainConfig) -> None:
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.run_dir.parent == runs_root()
    assert Path(os.path.normpath(config.run_dir)) == config.run_dir
    assert len(config.run_name) < 250


@cases(30)
@given(VALID)
def test_a_configuration_that_is_valid_is_the_same_after_json(fields: dict[str, Any]) -> None:
    check_config(TrainConfig(**fields))


@cases(60)
@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)) | st.text(max_size=8), ODD, max_size=3) | ODD)
def test_settings_of_any_kind_are_taken_or_refused(fields: Any) -> None:
    for read, argument in ((TrainConfig.from_dict, fields), (TrainConfig.from_json, dump(fields))):
        with refusal(ValueError, TypeError):
            check_config(read(argument))


@cases(60)
@given(st.dictionaries(st.sampled_from(sorted(SETTINGS)), ODD, min_size=1, max_size=2), VALID)
def test_one_wrong_setting_among_valid_ones_is_taken_or_refused(wrong: dict[str, Any], fields: dict[str, Any]) -> None:
    text = dump(SETTINGS | fields | wrong)
    with refusal(ValueError, TypeError):
        check_config(TrainConfig.from_json(text))


@cases(40)
@given(damaged(TrainConfig().to_json().encode()) | st.binary(max_size=60) | st.text(max_size=60))
def test_any_text_is_a_configuration_or_refused(text: bytes | str) -> None:
    with refusal(ValueError, TypeError):
        check_config(TrainConfig.from_json(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 100_000, "nested deeper than 32"),
        ('{"quantizer_options": {"a": ' + "[" * 40 + "]" * 40 + "}}", "nested deeper than 32"),
        ('{"quantizer_options": {"a": ' + "[" * 500 + "]" * 500 + "}}", "nested deeper than 32"),
        ('{"lr": NaN}', "NaN is no number of JSON"),
        ('{"lr": -Infinity}', "-Infinity is no number of JSON"),
        ('{"lr": 1e999}', "lr is inf, but must be a finite number"),
        ('{"lr": 1' + "0" * 400 + "}", "lr is 1000"),
        ('{"steps": 9223372036854775808}', "steps is 9223372036854775808, but must be within 64 bits"),
        ('{"steps": ' + "9" * 5000 + "}", "this text is not: "),
        ('{"lr": 1e-3, "lr": 1e-4}', "the key 'lr' stands there twice"),
        ('{"quantizer_options": {"a": 1, "a": 1}}', "the key 'a' stands there twice"),
        (b'{"dataset": "\xff"}', "this text is not: "),
        ("[]", "a JSON object"),
        ("null", "a JSON object"),
        ("", "this text is not: "),
    ],
)
def test_hostile_json_is_one_sentence(text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        TrainConfig.from_json(text)
    check_sentence(error.value)


def test_a_long_value_is_cut_in_the_sentence() -> None:
    for fields in ({"precision": "x" * 10**6}, {"x" * 10**6: 1}, {"lr": "x" * 10**6}, {"row": "/" * 10**6}):
        with pytest.raises((ValueError, TypeError)) as error:
            TrainConfig.from_dict(fields)
        check_sentence(error.value)


FOLDER_NAMES = ["row", "scale", "dataset", "quantizer"]


@pytest.mark.parametrize("name", FOLDER_NAMES)
@pytest.mark.parametrize(
    "value", [v for v in NASTY_NAMES if v != "a/b"] + ["a/b/c", "..\\..", "x/..", "../x", "/x", "x/"]
)
def test_no_setting_leads_out_of_the_runs_folder(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is .* letters, digits and any of _ \. - \+") as error:
        TrainConfig(**{name: value})
    check_sentence(error.value)
    near = re.search(r"; ('.*') can be\.$", str(error.value))[1].strip("'")
    assert getattr(TrainConfig(**{name: near}), name) == near, "what the sentence proposes is taken"


def test_a_row_may_have_one_slash_and_nothing_else_may() -> None:
    assert TrainConfig(row="table/row").run_name.startswith("row-custom-photos-")
    assert TrainConfig(row="a.b/c_d+e-f").run_dir.parent == runs_root()
    for name in FOLDER_NAMES[1:]:
        with pytest.raises(ValueError, match="names a folder"):
            TrainConfig(**{name: "table/row"})


@cases(60)
@given(st.sampled_from(FOLDER_NAMES), st.text(alphabet="ab./\\:~ \0-", max_size=6) | st.text(max_size=80))
def test_a_run_lies_in_the_runs_folder_whatever_its_names_are(name: str, value: str) -> None:
    with refusal(ValueError):
        check_config(TrainConfig(**{name: value}))


# Tables.


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tables, for as long as a test takes: with the package's own and whatever the test puts there."""
    folder = tmp_path / "inner" / "tables"
    shutil.copytree(TABLES, folder)
    monkeypatch.setattr("vistok.recipes.TABLES", folder)
    return folder


SMALL_TABLE = """\
title = "A table"
source = "somewhere"
note = "none"
columns = ["psnr"]

[recipe]
network = "simple_cnn"

[scales.smoke]
steps = 40
lr = 1e-3

[families.wide.smoke]
hidden_dim = 32

[[rows]]
name = "first"
family = "wide"
settings = { quantizer = "vq", codebook_dim = 4 }
published = { psnr = 32.0 }

[rows.at.smoke]
steps = 20

[[rows]]
same_as = "celeba64/vq-d4"
"""
BASED_ON = re.sub(r"\[recipe\].*?(?=\[\[rows)", 'based_on = "celeba64"\n\n', SMALL_TABLE, count=1, flags=re.S)
BASED_ON = BASED_ON.replace('family = "wide"\n', "")
TOML_VALUES = [
    *(
        "1",
        "-1",
        "0.5",
        "nan",
        "inf",
        "true",
        '"x"',
        '"../x"',
        '"mutant"',
        '"mutant/first"',
        '"celeba64"',
        "[]",
        "{}",
        "[1]",
    ),
    *(
        '"celeba64/none"',
        "{ a = 1 }",
        "1979-05-27",
        "07:32:00",
        "9" * 5000,
        "[" * 5000 + "]" * 5000,
        '["a", 1]',
        "[[]]",
    ),
]


@st.composite
def table_texts(draw: st.DrawFn) -> bytes:
    """The text of a table: a valid one with values replaced and lines left out, doubled, moved or put in; or any text."""
    kind = draw(st.sampled_from(["values", "lines", "bytes", "anything"]))
    text = draw(st.sampled_from([SMALL_TABLE, BASED_ON]))
    lines = text.splitlines()
    if kind == "bytes":
        return draw(damaged(text.encode()))
    if kind == "anything":
        return draw(st.binary(max_size=60) | st.text(alphabet='abc[]{}="\n.#0', max_size=40).map(str.encode))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(lines) - 1))
        if kind == "values":
            key, equals, _ = lines[place].partition(" = ")
            if equals:
                lines[place] = f"{key} = {draw(st.sampled_from(TOML_VALUES))}"
            continue
        other = draw(st.integers(0, len(lines) - 1))
        change = draw(st.sampled_from(["remove", "move", "key"]))
        if change == "key":
            key = draw(
                st.sampled_from(
                    ["rows", "scales", "families", "recipe", "at", "same_as", "based_on", "name", "scales.smoke"]
                )
            )
            lines.insert(place, f"{key} = {draw(st.sampled_from(TOML_VALUES))}")
        else:
            line = lines.pop(place)
            if change == "move":
                lines.insert(other, line)
        lines = lines or [""]
    return "\n".join(lines).encode()


@cases(120)
@given(table_texts())
@example(SMALL_TABLE.encode())
@example(BASED_ON.encode())
def test_a_table_file_of_any_text_is_a_table_or_refused(tables: Path, text: bytes) -> None:
    (tables / "mutant.toml").write_bytes(text)
    with refusal(ValueError):
        table = load_table("mutant")
        assert all(type(text) is str for text in (table.title, table.source, table.note))
        for row in table.rows:
            for scale in table.scales:
                with refusal(ValueError, TypeError):
                    check_config(TrainConfig.from_row(f"mutant/{row}", scale))


def test_tables_that_are_as_they_should_be_are_read(tables: Path) -> None:
    for text in (SMALL_TABLE, BASED_ON):
        (tables / "mutant.toml").write_text(text)
        assert list(load_table("mutant").rows) == ["first", "vq-d4"]
        assert TrainConfig.from_row("mutant/vq-d4", "smoke").row == "celeba64/vq-d4"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("rows", "row"), "The table 'mutant' has no part 'row'; did you mean 'rows'?"),
        (("rows", "conclusions"), "There is no 'rows' in table 'mutant': it must be there, a list"),
        (('[[rows]]\nname = "first"', '[[rows]]\ntitle = "first"'), "There is no 'name' in a row of table 'mutant'"),
        (('"celeba64/vq-d4"', '"celeba64/vq-d5"'), "Table 'celeba64' has no row 'vq-d5'; did you mean 'vq-d"),
        (('"celeba64/vq-d4"', '"mutant/first"'), "The table 'mutant' refers to itself, by mutant -> mutant"),
        (('"celeba64/vq-d4"', '"../secret/row"'), "There is no table '..'"),
        (('family = "wide"', 'family = "wid"'), "has family 'wid'; did you mean 'wide'?"),
        (("[families.wide.smoke]", "[families.wide.quick]"), "There is no 'smoke' in family 'wide' of table 'mutant'"),
        (("steps = 40", "steps = "), "The table 'mutant' is not TOML that can be read: "),
        (("steps = 40", "steps = " + "[" * 5000), "nested deeper than 32"),
        (
            ("[rows.at.smoke]", "[rows.at.smok]"),
            "of table 'mutant' says what it is at scale 'smok'; did you mean 'smoke'?",
        ),
        (
            ("[rows.at.smoke]\nsteps = 20", "[rows.at]\nsmoke = 20"),
            "'smoke' of what row 'first' of table 'mutant' is at each scale",
        ),
        (("[scales.smoke]", "[scale.smoke]"), "The table 'mutant' has no part 'scale'; did you mean 'scales'?"),
        (('name = "first"', 'name = "vq-d4"'), "stands there twice"),
        (('name = "first"', 'name = ""'), "'name' of a row of table 'mutant' is '', but must be a name."),
        (
            ('family = "wide"', 'familly = "wide"'),
            "row 'first' of table 'mutant' has no part 'familly'; did you mean 'family'",
        ),
        (
            ("psnr = 32.0", "psnr = nan"),
            "'psnr' of published of row 'first' of table 'mutant' is nan, but must be a finite number",
        ),
        (
            ("psnr = 32.0", 'psnr = "30"'),
            "'psnr' of published of row 'first' of table 'mutant' is '30' (str), but must be",
        ),
        (
            ('same_as = "celeba64/vq-d4"', 'same_as = "celeba64/vq-d4"\npaper = {}'),
            "The row 1 of table 'mutant', which is the same as another, has no part 'paper'",
        ),
    ],
)
def test_a_wrong_table_is_one_sentence(tables: Path, change: tuple[str, str], says: str) -> None:
    (tables / "mutant.toml").write_text(SMALL_TABLE.replace(*change))
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        load_table("mutant")
    check_sentence(error.value)


def test_a_setting_of_a_table_that_is_no_number_is_named(tables: Path) -> None:
    (tables / "mutant.toml").write_text(SMALL_TABLE.replace("lr = 1e-3", "lr = nan"))
    with pytest.raises(ValueError, match=r"^lr is nan, but must be a finite number\.$"):
        TrainConfig.from_row("mutant/first", "smoke")


def test_what_lies_beside_a_table_does_not_hide_it(tables: Path) -> None:
    (tables / ".#celeba64.toml").symlink_to("somebody@machine.1234")  # an editor's lock
    (tables / "._celeba64.toml").write_bytes(b"\xff")
    (tables / "folder.toml").mkdir()
    assert TrainConfig.from_row("celeba64/vq-d4").row == "celeba64/vq-d4"
    with pytest.raises(ValueError, match="There is no table 'x'; Known: celeba64, ") as error:
        load_table("x")
    assert not re.search(r"folder|#|\._", str(error.value))


def test_a_table_that_was_changed_in_memory_is_nobody_elses() -> None:
    row = load_table("celeba64").rows["vq-d4"]
    row.settings["codebook_dim"] = row.at_scale["smoke"]["codebook_dim"] = 5
    assert TrainConfig.from_row("celeba64/vq-d4", "smoke").codebook_dim == 4


def test_only_tables_of_the_folder_are_read(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tables.parent / "secret.toml"
    secret.write_text(SMALL_TABLE)
    (tables / "inner").mkdir()
    (tables / "inner" / "secret.toml").write_text(SMALL_TABLE)
    monkeypatch.setattr(Path, "open", lambda path, *_, **__: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))
    names = [
        "../secret",
        str(secret.with_suffix("")),
        "inner/secret",
        "./celeba64",
        "celeba64.toml",
        "",
        "*",
        "..",
        3,
        None,
    ]
    for name in names:
        with pytest.raises(ValueError, match="There is no table ") as error:
            load_table(name)
        check_sentence(error.value)


# Pixel caches.

PIXELS = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3)
DESCRIPTION = {
    "key": "key",
    "shape": [5, 4, 4, 3],
    "unreadable": [[1, "the image 1 is damaged"]],
    "checksums": [zlib.crc32(row) for row in PIXELS],
}


def cache_bytes(pixels: bytes, description: str) -> bytes:
    """A file of pixels whose description has the right length and checksum, whatever it says."""
    text = description.encode()
    return pixels + text + struct.pack("<8sQ32s", b"vistokpx", len(text), hashlib.sha256(text).digest())


WHOLE_CACHE = cache_bytes(PIXELS.tobytes(), json.dumps(DESCRIPTION))
SHAPES = st.lists(st.sampled_from([0, 1, 3, 4, 5, -1, -4, 2**31, 2**61, 2**62, 2**64, 4.0, "4", None, [4]]), max_size=6)
DESCRIPTIONS = st.one_of(
    VALUES,
    st.builds(
        lambda part: DESCRIPTION | part,
        st.fixed_dictionaries(
            {},
            optional={
                "key": ODD,
                "shape": SHAPES | ODD,
                "unreadable": st.lists(
                    st.lists(LEAVES, max_size=3) | st.tuples(st.integers(-1, 6), st.text()).map(list)
                )
                | ODD,
                "checksums": st.lists(LEAVES, max_size=6) | ODD,
            },
        ),
    ),
    st.sampled_from([{k: v for k, v in DESCRIPTION.items() if k != left_out} for left_out in DESCRIPTION]),
)
CACHES = st.one_of(
    st.binary(max_size=400),
    damaged(WHOLE_CACHE),
    st.builds(cache_bytes, st.sampled_from([b"", PIXELS.tobytes()]), DESCRIPTIONS.map(dump)),
    st.builds(
        cache_bytes, st.sampled_from([b"", PIXELS.tobytes()]), damaged(json.dumps(DESCRIPTION).encode()).map(repr)
    ),
)


@cases(150)
@given(CACHES)
@example(WHOLE_CACHE)
@example(cache_bytes(b"", json.dumps(DESCRIPTION | {"shape": [2**61, 0, 0, 3]})))
@example(cache_bytes(b"", json.dumps(DESCRIPTION | {"shape": [2**32, 2**16, 2**16, 3]})))
def test_a_pixel_cache_of_any_bytes_is_pixels_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "toy.pixels"
    path.write_bytes(data)
    try:
        cache = PixelCache(path, "key")
    except ValueError as error:
        assert str(error)
        return
    assert cache.pixels.dtype == np.uint8 and cache.pixels.ndim == 4 and cache.pixels.nbytes <= len(data)
    assert all(type(i) is int and 0 <= i < len(cache.pixels) and type(why) is str for i, why in cache.unreadable)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 48,
        b"vistokpx" + b"\xff" * 40,
        cache_bytes(PIXELS.tobytes(), "[" * 100_000),
        cache_bytes(PIXELS.tobytes(), "[]"),
        cache_bytes(PIXELS.tobytes(), json.dumps(DESCRIPTION | {"shape": ["5", 4, 4, 3]})),
        cache_bytes(PIXELS.tobytes(), json.dumps(DESCRIPTION | {"unreadable": 3})),
        cache_bytes(PIXELS.tobytes(), json.dumps({"key": "key"})),
    ],
    ids=["empty", "noise", "length", "nesting", "list", "texts", "number", "entries"],
)
def test_a_hostile_pixel_cache_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setenv("VISTOK_CACHE", str(tmp_path))
    (tmp_path / "toy.pixels").write_bytes(data)
    with pytest.warns(UserWarning, match="toy.pixels is built again"):
        cache = open_pixel_cache("toy", "key", 5, 4, lambda index: PIXELS[index], keep_going=False)
    assert np.array_equal(cache.pixels, PIXELS)


# Files of tokens.

HEADER = {
    "format": "vistok tokens 1",
    "shape": [6, 2, 3],
    "dtype": "uint16",
    "codebook_sizes": [16],
    "level_shapes": [[2, 3]],
    "image_size": 8,
    "flips": False,
    "tokenizer": {"settings": {"network": "simple_cnn"}, "weights_sha256": "0" * 64},
    "dataset": {"name": "folder", "num_images": 6},
    "num_images_done": 6,
}


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


TOKENS = npy(np.arange(36, dtype=np.uint16).reshape(6, 2, 3))
NUMBERS = st.sampled_from([0, 1, 2, 3, 6, 16, -1, 6.0, 2**40, 2**62, 2**64, 10**400, True, "6", None, [6]])
HEADERS = st.one_of(
    VALUES,
    st.builds(
        lambda part: HEADER | part,
        st.fixed_dictionaries(
            {},
            optional={
                "format": ODD,
                "shape": st.lists(NUMBERS, max_size=4),
                "dtype": st.sampled_from(["uint16", "uint32", "object"]) | ODD,
                "codebook_sizes": st.lists(NUMBERS, max_size=2) | ODD,
                "level_shapes": st.lists(st.lists(NUMBERS, max_size=3), max_size=2) | ODD,
                "flips": st.sampled_from([True, 0, 1, "no", -1]),
                "tokenizer": ODD,
                "dataset": st.fixed_dictionaries({"num_images": NUMBERS}) | ODD,
                "num_images_done": NUMBERS,
            },
        ),
    ),
)


def check_tokens(folder: Path) -> None:
    file = TokenFile.open(folder)
    assert file.tokens.dtype in (np.uint16, np.uint32)
    assert file.tokens.nbytes <= (folder / "tokens.npy").stat().st_size
    assert file.tokens.flags.c_contiguous
    counts = [file.header["shape"], file.header["codebook_sizes"], *file.header["level_shapes"]]
    assert all(type(count) is int for part in counts for count in part)
    if len(file):
        assert isinstance(file[0], torch.Tensor | tuple)
    file.indices()


@cases(120)
@given(
    HEADERS.map(lambda header: dump(header).encode()) | damaged(json.dumps(HEADER).encode()) | st.binary(max_size=60)
)
@example(json.dumps(HEADER).encode())
@example(json.dumps(HEADER | {"codebook_sizes": [16.5]}).encode())
@example(json.dumps(HEADER | {"level_shapes": [[2.0, 3.0]]}).encode())
@example(json.dumps(HEADER | {"shape": [6, 0, 3], "level_shapes": [[0, 3]]}).encode())
def test_tokens_with_any_header_are_tokens_or_refused(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "tokens.npy").write_bytes(TOKENS)
    (tmp_path / "tokens.json").write_bytes(header)
    with refusal(ValueError):
        check_tokens(tmp_path)


@cases(80)
@given(damaged(TOKENS) | damaged(TOKENS[:128]).map(lambda head: head + TOKENS[128:]) | st.binary(max_size=200))
@example(TOKENS.replace(b"<u2", b">u2"))
@example(TOKENS.replace(b"'fortran_order': False,", b"'fortran_order': True, "))
def test_tokens_of_any_bytes_are_tokens_or_refused(tmp_path: Path, array: bytes) -> None:
    (tmp_path / "tokens.npy").write_bytes(array)
    (tmp_path / "tokens.json").write_text(json.dumps(HEADER))
    with warnings.catch_warnings(), refusal(ValueError):
        warnings.simplefilter("ignore")  # of numpy, that the header is one of Python 2
        check_tokens(tmp_path)


def test_a_pickle_in_an_array_of_tokens_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "tokens.npy").write_bytes(npy(np.array([Runs(marker)] * 6, object)))
    (tmp_path / "tokens.json").write_text(json.dumps(HEADER))
    with pytest.raises(ValueError, match="Python objects"):
        TokenFile.open(tmp_path)
    assert not marker.exists()


# Images.


def encode(mode: str, size: tuple[int, int], file_format: str, **options: Any) -> bytes:
    """An image file of that mode, of a gradient and some noise; several pictures where `frames` asks for them."""
    width, height = size
    frames = options.pop("frames", 1)
    ramp = np.add.outer(np.arange(height) * 7, np.arange(width) * 3)
    pictures = []
    for frame in range(frames):
        if mode in ("I;16", "I"):
            image = Image.fromarray(((ramp * 97 + frame) % 65536).astype(np.uint16 if mode == "I;16" else np.int32))
        else:
            color = np.stack([ramp + frame, ramp * 2, 255 - ramp], axis=-1)
            image = Image.fromarray((color % 256).astype(np.uint8))
            if mode in ("LA", "RGBA"):
                image.putalpha(Image.fromarray((ramp % 256).astype(np.uint8)))
            image = image.convert(mode) if image.mode != mode else image
        pictures.append(image)
    if frames > 1:
        options |= {"save_all": True, "append_images": pictures[1:]}
    buffer = io.BytesIO()
    pictures[0].save(buffer, file_format, **options)
    return buffer.getvalue()


def turned(tag: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif


FILES: list[tuple[str, str, dict[str, Any]]] = [  # mode, format, options of saving
    *[(mode, "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    ("P", "PNG", {"transparency": 3}),
    ("RGB", "PNG", {"frames": 3}),
    ("RGB", "PNG", {"exif": turned(6)}),
    *[(mode, "JPEG", {}) for mode in ("L", "RGB", "CMYK")],
    ("RGB", "JPEG", {"progressive": True}),
    ("RGB", "JPEG", {"exif": turned(6)}),
    ("RGB", "MPO", {"frames": 2}),
    ("RGB", "WEBP", {}),
    ("RGBA", "WEBP", {"lossless": True}),
    ("RGB", "WEBP", {"frames": 2}),
    *[(mode, "GIF", {}) for mode in ("1", "L", "P")],
    ("P", "GIF", {"frames": 3}),
    ("P", "GIF", {"transparency": 1, "frames": 2}),
    *[(mode, "TIFF", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I")],
    *[("RGB", "TIFF", {"compression": packing}) for packing in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")],
    ("RGB", "TIFF", {"frames": 2}),
    ("RGB", "TIFF", {"exif": turned(6)}),
    ("L", "TIFF", {"exif": turned(5), "compression": "tiff_lzw"}),
    *[(mode, "BMP", {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
    *[(mode, "PPM", {}) for mode in ("1", "L", "RGB", "I")],
    *[(mode, "JPEG2000", {}) for mode in ("L", "LA", "RGB", "RGBA")],
    *[(mode, "PCX", {}) for mode in ("1", "L", "P", "RGB")],
    *[(mode, "SGI", {}) for mode in ("L", "RGB", "RGBA")],
    *[("RGB", file_format, {}) for file_format in ("DIB", "QOI", *(("AVIF",) if "AVIF" in transforms.FORMATS else ()))],
]
WIDEST = {"WEBP": 16383}


def size_in(file_format: str, width: int, height: int) -> tuple[int, int]:
    largest = WIDEST.get(file_format, 20_000)
    return min(width, largest), min(height, largest)


def name_of(case: tuple[str, str, dict[str, Any]]) -> str:
    mode, file_format, options = case
    return " ".join([file_format, mode, *(str(key) for key in options)])


def rgb_without_warnings(data: bytes) -> Image.Image | None:
    """The image, or None where it is refused as it should be; nothing else may come of it."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        before = warnings.filters[:]
        image = None
        try:
            image = decode(data, "some/file")
            check_decodes(data, "some/file")
        except ValueError as error:
            assert str(error).startswith("The image some/file cannot be decoded: ")
            check_sentence(error)
        with contextlib.suppress(ValueError):
            check_decodes(data, "some/file")
        assert warnings.filters == before
    assert not seen, [str(warning.message) for warning in seen]
    if image is not None:
        assert image.mode == "RGB" and min(image.size) > 0 and image.width * image.height <= transforms.MAX_PIXELS
        assert np.asarray(image).shape == (image.height, image.width, 3)
    return image


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (20_000, 20)], ids=["1x1", "7x5", "20000x20"])
@pytest.mark.parametrize("case", FILES, ids=name_of)
def test_a_whole_file_of_every_kind_is_rgb_of_its_size(
    case: tuple[str, str, dict[str, Any]], size: tuple[int, int]
) -> None:
    mode, file_format, options = case
    size = size_in(file_format, *size)
    image = rgb_without_warnings(encode(mode, size, file_format, **options))
    assert image is not None and image.size == size


@st.composite
def image_files(draw: st.DrawFn) -> bytes:
    mode, file_format, options = draw(st.sampled_from(FILES))
    small = st.integers(1, 40)
    wide = st.tuples(st.just(20_000), st.integers(1, 3))
    width, height = draw(st.tuples(small, small) | st.tuples(small, small) | wide | wide.map(lambda size: size[::-1]))
    return encode(mode, size_in(file_format, width, height), file_format, **options)


@cases(150)
@given(st.data())
def test_damaged_images_are_rgb_or_refused(monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setattr(transforms, "MAX_PIXELS", 10**6)  # sizes that a changed bit declares take memory and time
    whole = data.draw(image_files())
    head = min(len(whole), 200)  # most of what a decoder can stumble over
    rgb_without_warnings(data.draw(damaged(whole) | damaged(whole[:head]).map(lambda start: start + whole[head:])))


@cases(30)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6 "]),
)
def test_bytes_of_no_image_are_refused(monkeypatch: pytest.MonkeyPatch, rest: bytes, start: bytes) -> None:
    monkeypatch.setattr(transforms, "MAX_PIXELS", 10**6)
    rgb_without_warnings(start + rest)


@pytest.mark.parametrize("pillows_limit", [None, Image.MAX_IMAGE_PIXELS])
@pytest.mark.parametrize("function", [decode, check_decodes])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, function: Callable[[bytes, str], Any], pillows_limit: int | None
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(transforms, "MAX_PIXELS", 1599)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels were decoded"))
    for mode, file_format, options in FILES:
        with pytest.raises(ValueError) as error:
            function(encode(mode, (40, 40), file_format, **options), "some/file")
        assert str(error.value) == (
            "The image some/file cannot be decoded: it has 40x40 pixels, but at most 1,599 are decoded"
        ), file_format


def test_the_limit_is_pillows_own_and_does_not_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transforms.MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        bomb += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ValueError, match=r"it has 20000x20000 pixels, but at most 178,956,970 are decoded$"):
        decode(bomb, "bomb.png")


@pytest.mark.parametrize("action", ["always", "error"])
def test_an_image_above_half_of_pillows_limit_is_decoded_without_its_warning(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter(action)
        for mode, file_format, options in FILES:
            data = encode(mode, (40, 40), file_format, **options)
            assert decode(data, file_format).size == (40, 40)
            check_decodes(data, file_format)
    assert not seen


def test_a_tile_larger_than_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # Width, height, bits, deflate, grey, bands; width and height, place and length of the only tile.
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40_000, 323: 40_000, 324: 200, 325: 40}
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    file = b"II*\0" + struct.pack("<I", 8) + directory + bytes(400)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("pixels were decoded"))
    with pytest.raises(ValueError, match="it has 40000x40000 pixels"):
        decode(file, "tiles.tif")


def test_threads_that_decode_together_leave_the_warnings_as_they_were() -> None:
    data = [encode(mode, (40, 40), file_format, **options) for mode, file_format, options in FILES]
    before = warnings.filters[:]
    threads = [threading.Thread(target=lambda: [decode(file, "file") for file in data]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "file_format", "options"),
    [
        *[("RGB", file_format, {}) for file_format in ("PNG", "JPEG", "WEBP", "TIFF")],
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("I;16", "TIFF", {}),
        ("RGBA", "TIFF", {}),
    ],
)
def test_an_orientation_tag_turns_nothing(mode: str, file_format: str, options: dict[str, Any], tag: int) -> None:
    plain = decode(encode(mode, (9, 6), file_format, **options), "plain")
    tagged = decode(encode(mode, (9, 6), file_format, exif=turned(tag), **options), "tagged")
    assert tagged.size == (9, 6)
    assert np.array_equal(np.asarray(tagged), np.asarray(plain))


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *[("RGB", file_format) for file_format in ("PNG", "JPEG", "WEBP", "TIFF")],
        *[(mode, "PNG") for mode in ("RGBA", "P", "I;16")],
        *[("CMYK", "JPEG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("I;16", "TIFF")],
    ],
)
def test_a_readers_own_picture_is_turned_as_the_camera_was_held(mode: str, file_format: str, tag: int) -> None:
    expected = decode(encode(mode, (9, 6), file_format), "plain")
    expected.getexif()[0x0112] = tag
    expected = ImageOps.exif_transpose(expected)
    upright = decode(encode(mode, (9, 6), file_format, exif=turned(tag)), "tagged", is_upright=True)
    assert upright.size == expected.size and (upright.size == (9, 6)) == (tag < 5)
    assert np.array_equal(np.asarray(upright), np.asarray(expected))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_tags_that_cannot_be_read_turn_nothing(file_format: str) -> None:
    data = encode("RGB", (9, 6), file_format, exif=b"Exif\0\0no tags at all")
    assert np.array_equal(np.asarray(decode(data, "own", is_upright=True)), np.asarray(decode(data, "own")))


def test_the_first_picture_of_several_is_the_image() -> None:
    for mode, file_format, options in FILES:
        if options.get("frames", 1) > 1 and "transparency" not in options:
            single = {key: value for key, value in options.items() if key != "frames"}
            of_many = decode(encode(mode, (12, 8), file_format, **options), "many")
            assert of_many.size == (12, 8)
            of_one = decode(encode(mode, (12, 8), "JPEG" if file_format == "MPO" else file_format, **single), "one")
            assert np.abs(np.asarray(of_many, int) - np.asarray(of_one, int)).max() <= (
                4 if file_format == "WEBP" else 1
            ), file_format


def test_no_other_program_decodes_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Popen", "run", "call", "check_call", "check_output"):
        monkeypatch.setattr(subprocess, name, lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=r"photo\.jpg cannot be decoded: it is none of JPEG, PNG, "):
        decode(encode("RGB", (8, 8), "EPS"), "photo.jpg")  # Pillow has Ghostscript draw these


@pytest.mark.parametrize("width,height", [(1, 1), (20_000, 20), (20, 20_000), (60_000, 1), (1, 60_000), (2, 3)])
def test_an_image_of_any_shape_is_a_square(width: int, height: int) -> None:
    image = Image.effect_noise((width, height), 50).convert("RGB")
    squares = [
        CenterSquare(128).render(0, image),
        PhotoSquare(128).render(3, image),
        adm_random_crop(image, 128, np.array([0.0, 0.999, 0.5])),
        adm_random_crop(image, 128, np.array([0.999, 0.0, 0.999])),
    ]
    assert all(square.shape == (128, 128, 3) and square.dtype == np.uint8 for square in squares)


@pytest.mark.parametrize("size", [(300, 40), (40, 300), (33, 32), (1, 1), (97, 100)])
def test_a_window_is_the_same_without_the_whole(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    image = Image.effect_noise(size, 50).convert("RGB")
    draws = np.array([0.3, 0.7, 0.9])
    whole = [CenterSquare(32).render(0, image), adm_random_crop(image, 32, draws)]
    resize = Image.Image.resize

    def only_the_window(image: Image.Image, size: tuple[int, int], *more: Any, **options: Any) -> Image.Image:
        assert size == (32, 32) or more == (Image.Resampling.BOX,), "the whole image was resized"
        return resize(image, size, *more, **options)

    monkeypatch.setattr(Image.Image, "resize", only_the_window)
    monkeypatch.setattr(transforms, "MAX_PIXELS", 0)
    for expected, window in zip(
        whole, (CenterSquare(32).render(0, image), adm_random_crop(image, 32, draws)), strict=True
    ):
        assert np.abs(expected.astype(int) - window.astype(int)).max() <= 1


# CelebA's archive.

JPEGS = {f"img_align_celeba/{number:06}.jpg": encode("RGB", (178, 218), "JPEG", quality=5) for number in range(1, 4)}
PARTITION = "".join(f"{number:06}.jpg {number - 1}\n" for number in range(1, 4))


def archive(entries: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def patched(data: bytes, place: int, value: bytes, *, of_every: bytes) -> bytes:
    """An archive with a field of each entry of its directory overwritten."""
    changed = bytearray(data)
    start = changed.find(of_every)
    while start >= 0:
        changed[start + place : start + place + len(value)] = value
        start = changed.find(of_every, start + 1)
    return bytes(changed)


ENTRY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"  # how an entry of the directory begins, and the one before its content
WHOLE_ZIP = archive(JPEGS)
DEFLATED = archive(JPEGS, compression=zipfile.ZIP_DEFLATED)


def write_celeba(root: Path, data: bytes, partition: bytes = PARTITION.encode()) -> Path:
    root.mkdir(exist_ok=True)
    (root / "list_eval_partition.txt").write_bytes(partition)
    (root / "img_align_celeba.zip").write_bytes(data)
    return root


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (archive(JPEGS | {"../../000004.jpg": b""}), "holds '../../000004.jpg' (0 bytes)"),
        (archive(JPEGS | {"/tmp/000004.jpg": b""}), "holds '/tmp/000004.jpg'"),
        (archive(JPEGS | {"img_align_celeba/../000004.jpg": b""}), "holds 'img_align_celeba/../000004.jpg'"),
        (archive(JPEGS | {"000001.jpg": b""}), "each once"),
        (archive(JPEGS | {"img_align_celeba/000004.jpg": bytes(2**21)}), "(2097152 bytes)"),
        (patched(WHOLE_ZIP, 24, b"\xff\xff\xff\x7f", of_every=ENTRY), "(2147483647 bytes)"),
        (patched(WHOLE_ZIP, 20, b"\xff\xff\xff\x7f", of_every=ENTRY), "(2147483647 bytes)"),
        (patched(WHOLE_ZIP, 8, b"\x01", of_every=ENTRY), "encrypted or packed in an unusual way"),
        (archive(JPEGS, compression=zipfile.ZIP_LZMA), "packed in an unusual way (14)"),
        (
            patched(WHOLE_ZIP, 6, b"\xff\xff", of_every=ENTRY),
            "is no zip file, or its download was cut off: zip file version",
        ),
        (WHOLE_ZIP[:-30], "is no zip file"),
        (WHOLE_ZIP[:100], "is no zip file"),
        (b"", "is no zip file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "zip",  # bytes of an archive tell the time it was made at
)
def test_a_hostile_archive_is_refused_and_nothing_is_unpacked(tmp_path: Path, data: bytes, says: str) -> None:
    root = write_celeba(tmp_path / "celeba", data)
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        celeba(root, "train")
    check_sentence(error.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "celeba",
        "img_align_celeba.zip",
        "list_eval_partition.txt",
    ]


def test_entries_that_are_no_images_are_ignored(tmp_path: Path) -> None:
    root = write_celeba(tmp_path / "celeba", archive(JPEGS | {"../../evil.py": b"1", "__MACOSX/._a": b"", "a/": b""}))
    files = celeba(root, "train")
    assert list(files.names) == ["000001.jpg"] and files.read(0) == JPEGS["img_align_celeba/000001.jpg"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "celeba",
        "img_align_celeba.zip",
        "list_eval_partition.txt",
    ]


@cases(60)
@given(damaged(WHOLE_ZIP) | damaged(DEFLATED) | damaged(WHOLE_ZIP[-400:]).map(lambda end: WHOLE_ZIP[:-400] + end))
@example(WHOLE_ZIP)
def test_a_damaged_archive_gives_images_or_is_refused(tmp_path: Path, data: bytes) -> None:
    with refusal(ValueError):
        assert set(celeba(write_celeba(tmp_path / "celeba", data), "train").names) == {"000001.jpg"}


@cases(60)
@given(damaged(DEFLATED) | damaged(DEFLATED[-400:]).map(lambda end: DEFLATED[:-400] + end))
def test_a_damaged_entry_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    with refusal(ValueError):
        assert len(celeba(write_celeba(tmp_path / "celeba", data), "train").read(0)) <= 2**20


@cases(60)
@given(
    damaged(PARTITION.encode())
    | st.binary(max_size=60)
    | st.text(alphabet="0123.jpg /\n,", max_size=60).map(str.encode)
)
@example(b"../000001.jpg 0\n")
@example(b"\xff\xfe")
def test_a_partition_file_of_any_bytes_is_one_or_refused(tmp_path: Path, partition: bytes) -> None:
    with refusal(ValueError):
        files = celeba(write_celeba(tmp_path / "celeba", WHOLE_ZIP, partition), "train")
        assert all(re.fullmatch(r"[0-9]+\.jpg", name) for name in files.names)


# Weights, checkpoints and tokenizers.


class Runs:
    """Unpickled by a reader that executes what it reads, makes the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.marker}",)


def hostile_files(marker: Path) -> dict[str, bytes]:
    """Files that run a command where they are unpickled: as PyTorch writes them now, as before 1.6, and a bare pickle."""
    files = {"pickle": pickle.dumps({"weight": Runs(marker)}), "old pickle": pickle.dumps(Runs(marker), protocol=0)}
    for name, new in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"weight": torch.zeros(2), "more": Runs(marker)}, buffer, _use_new_zipfile_serialization=new)
        files[name] = buffer.getvalue()
    return files


HOSTILE = ["pickle", "old pickle", "zip", "legacy"]


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_run_does_run_where_it_is_trusted(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    torch_file = kind in ("zip", "legacy")
    data = io.BytesIO(hostile_files(marker)[kind])
    torch.load(data, weights_only=False) if torch_file else pickle.load(data)
    assert marker.exists(), "the tests below would show nothing"


@pytest.mark.parametrize("signed", [False, True], ids=["as it is", "with its checksum"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_runs_is_no_training_state(
    tmp_path: Path, toy: Callable[..., TrainConfig], kind: str, signed: bool
) -> None:
    marker = tmp_path / "marker"
    run = Run.open(tmp_path / "run", toy())
    (run.path / "checkpoint").mkdir()
    content = hostile_files(marker)[kind]
    if signed:
        content = content[:-2] + b"G\0sha256:" + hashlib.sha256(content[:-2] + b"\0\0").hexdigest().encode()
    (run.path / "checkpoint" / "step-000000002.pt").write_bytes(content)
    reason = "cannot be read" if signed else "is cut off or no checkpoint"
    with warnings.catch_warnings(), pytest.raises(ValueError, match=reason) as error:
        warnings.simplefilter("ignore")
        run.checkpoints.load()
    check_sentence(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_runs_is_no_weights_file(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "vgg16.pth"
    path.write_bytes(hostile_files(marker)[kind])
    with warnings.catch_warnings(), pytest.raises(ValueError) as error:
        warnings.simplefilter("ignore")  # of PyTorch, that the pickle is newer than its own
        load_state(path)
    check_sentence(error.value)
    assert not marker.exists()


@cases(40)
@given(st.data(), st.booleans())
def test_a_damaged_weights_file_is_weights_or_refused(tmp_path: Path, data: st.DataObject, zipped: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3), "bias": torch.ones(2, 2)}, buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "weights.pth"
    path.write_bytes(data.draw(damaged(buffer.getvalue())))
    with warnings.catch_warnings(), refusal(ValueError):
        warnings.simplefilter("ignore")
        load_state(path)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_runs_is_no_official_checkpoint(tmp_path: Path, kind: str) -> None:
    marker, path = tmp_path / "marker", tmp_path / "last.ckpt"
    path.write_bytes(hostile_files(marker)[kind])
    with pytest.raises(ValueError) as error:
        load_pretrained(path)
    check_sentence(error.value)
    assert not marker.exists()


TOKENIZER = {
    "network": "simple_cnn",
    "network_options": {"hidden_dim": 8, "num_res_blocks": 1},
    "quantizer": "vq",
    "quantizer_options": {"codebook_size": 16, "codebook_dim": 4},
    "image_size": 16,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a small tokenizer."""
    folder = tmp_path_factory.mktemp("tokenizer")
    VisualTokenizer(**TOKENIZER).save(folder)
    return (folder / "model.safetensors").read_bytes()


def write_tokenizer(folder: Path, config: bytes, weights: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize("load", [VisualTokenizer.load, load_pretrained])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_runs_is_no_tokenizer(tmp_path: Path, kind: str, load: Callable[[Path], Any]) -> None:
    marker = tmp_path / "marker"
    folder = write_tokenizer(tmp_path / "tokenizer", json.dumps(TOKENIZER).encode(), hostile_files(marker)[kind])
    with pytest.raises(ValueError):
        load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"3",
        b"[" * 10_000,
        json.dumps(TOKENIZER | {"network": "os.system"}).encode(),
        json.dumps(TOKENIZER | {"network": ["simple_cnn"]}).encode(),
        json.dumps(TOKENIZER | {"network_options": "x"}).encode(),
        json.dumps(TOKENIZER | {"network_options": {"hidden_dim": "8"}}).encode(),
        json.dumps(TOKENIZER | {"quantizer": "../vq"}).encode(),
        json.dumps(TOKENIZER | {"quantizer_options": {"codebook_size": -1, "codebook_dim": 4}}).encode(),
        json.dumps(TOKENIZER | {"quantizer_options": {"codebook_size": "16", "codebook_dim": 4}}).encode(),
        json.dumps(TOKENIZER | {"quantizer_options": {"__class__": "x"}}).encode(),
        json.dumps(TOKENIZER | {"image_size": -16}).encode(),
        json.dumps(TOKENIZER | {"image_size": "16"}).encode(),
        json.dumps(TOKENIZER | {"self": 1}).encode(),
        json.dumps(TOKENIZER | {"device": "cuda"}).encode(),
    ],
)
def test_a_hostile_description_of_a_tokenizer_is_refused(tmp_path: Path, weights: bytes, config: bytes) -> None:
    folder = write_tokenizer(tmp_path / "tokenizer", config, weights)
    with pytest.raises((ValueError, TypeError)):
        VisualTokenizer.load(folder)


@cases(25)
@given(st.data())
def test_damaged_weights_of_a_tokenizer_are_weights_or_refused(
    tmp_path: Path, weights: bytes, data: st.DataObject
) -> None:
    config = json.dumps(TOKENIZER).encode()
    changed = data.draw(damaged(weights) | damaged(weights[:600]).map(lambda head: head + weights[600:]))
    with refusal(ValueError):
        VisualTokenizer.load(write_tokenizer(tmp_path / "tokenizer", config, changed))


GENERATOR = {
    "model": "autoregressive",
    "codebook_sizes": [16],
    "level_shapes": [[4, 4]],
    "image_size": 16,
    "classes": ["a", "b"],
    "class_dropout": 0.1,
    "tokenizer": None,
    **{"hidden_dim": 16, "depth": 1, "num_heads": 2, "dropout": 0.0},
}


@pytest.fixture(scope="module")
def generator_weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a small generator."""
    folder = tmp_path_factory.mktemp("generator")
    Autoregressive(**{name: value for name, value in GENERATOR.items() if name != "model"}).save(folder)
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_runs_is_no_generator(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    folder = write_tokenizer(tmp_path / "generator", json.dumps(GENERATOR).encode(), hostile_files(marker)[kind])
    with pytest.raises(ValueError):
        Generator.load(folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"[" * 10_000,
        *(
            json.dumps(GENERATOR | {name: value}).encode()
            for name, values in {
                "model": ["os.system", None, [], {}],
                "codebook_sizes": [[], [-1], ["16"], 16, [2**62], [1.5], [16] * 1000],
                "level_shapes": [
                    [],
                    [4, 4],
                    [[4]],
                    [[4, 4, 4]],
                    [[-4, -4]],
                    [[0, 4]],
                    [[2**20, 2**20]],
                    [["4", "4"]],
                    None,
                ],
                "classes": ["ab", [1, 2], {"a": 1}],
                "hidden_dim": [-16, 2**40, 15, "16", None],
                "depth": [10**9, -1],
                "num_heads": [0, 2**30],
                "dropout": [2.0, "x"],
                "forward": ["x"],
            }.items()
            for value in values
        ),
    ],
)
def test_a_hostile_description_of_a_generator_is_refused(
    tmp_path: Path, generator_weights: bytes, config: bytes
) -> None:
    folder = write_tokenizer(tmp_path / "generator", config, generator_weights)
    with pytest.raises((ValueError, TypeError)):
        Generator.load(folder)


@cases(25)
@given(st.data())
def test_damaged_weights_of_a_generator_are_weights_or_refused(
    tmp_path: Path, generator_weights: bytes, data: st.DataObject
) -> None:
    whole, config = generator_weights, json.dumps(GENERATOR).encode()
    changed = data.draw(damaged(whole) | damaged(whole[:600]).map(lambda head: head + whole[600:]))
    with refusal(ValueError):
        Generator.load(write_tokenizer(tmp_path / "generator", config, changed))
