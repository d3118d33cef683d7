"""The command and its two functions: an image as a file, and the file as an image."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import generator, toy_tokenizer
from helpers.golden import put_official
from PIL import Image

from vistok.compress import compress, decompress, main
from vistok.generation.__main__ import main as train_generator
from vistok.generation.codec import Codec
from vistok.generation.generator import Generator
from vistok.system.files import replace_file
from vistok.tokens import TokenFile
from vistok.tokens.__main__ import main as encode
from vistok.tokens.store import describe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a generator, its tokenizer and a photograph."""
    folder, tokenizer = tmp_path_factory.mktemp("run"), toy_tokenizer()
    tokenizer.save(folder / "tokenizer")
    generator(classes=["cat", "dog"], class_dropout=0.1, tokenizer=describe(tokenizer)).save(folder / "generator")
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    coarse.resize((50, 37), Image.Resampling.BICUBIC).save(folder / "photo.jpg")
    return folder


def test_an_image_becomes_a_file_and_an_image_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, back = tmp_path / "photo.vtk", tmp_path / "photo.png"
    assert main([str(run / "photo.jpg"), str(file), "--generator", str(run), "--label", "dog"]) == 0
    assert capsys.readouterr().out.strip() == f"{file.stat().st_size:,} bytes in {file}"
    assert main(["--decode", str(file), str(back), "--generator", str(run)]) == 0
    codec, pixels = Codec.load(run), torch.from_numpy(np.array(Image.open(run / "photo.jpg"))).permute(2, 0, 1)
    assert file.read_bytes() == codec.encode(pixels, 1)
    shown = torch.from_numpy(np.array(Image.open(back))).permute(2, 0, 1)
    assert torch.equal(shown, codec.decode(file.read_bytes())) and shown.shape == (3, 37, 50)
    # The functions do what the command does.
    assert compress(run / "photo.jpg", tmp_path / "own.vtk", run, run / "tokenizer", "dog") == file.stat().st_size
    decompress(tmp_path / "own.vtk", tmp_path / "own.webp", run)
    assert Image.open(tmp_path / "own.webp").format == "WEBP"


def test_a_generator_is_trained_on_an_official_checkpoint_and_compresses_with_it_by_its_name(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.system.paths.repository_root", lambda: tmp_path)
    put_official(monkeypatch)
    images, photo = tmp_path / "images", run / "photo.jpg"
    images.mkdir()
    for number in range(4):
        Image.open(photo).rotate(90 * number).resize((16, 16)).save(images / f"{number}.png")
    dataset = ["--dataset", "folder", "--data-root", str(images), "--image-size", "16", "--test-fraction", "0.5"]
    assert encode(["llamagen-ds16", *dataset, "--out", str(tmp_path / "tokens")]) == 0
    sizes = [
        "-p",
        "network_options",
        '{"hidden_dim": 8, "depth": 1, "num_heads": 1}',
        "-p",
        "batch_size",
        "2",
        "-p",
        "steps",
        "2",
    ]
    training = ["--tokens", str(tmp_path / "tokens"), *sizes]
    assert train_generator([*training, "--run-dir", str(tmp_path / "made"), "--tokenizer", "llamagen-ds16"]) == 0
    assert train_generator([*training, "--run-dir", str(tmp_path / "without")]) == 0
    written = []
    for made, tokenizer in (
        ("made", []),
        ("made", ["--tokenizer", "llamagen-ds16"]),
        ("without", ["--tokenizer", "llamagen-ds16"]),
    ):
        codec = ["--generator", str(tmp_path / made), *tokenizer]
        assert main([str(photo), str(tmp_path / "file.vtk"), *codec, "--overwrite"]) == 0
        assert main(["--decode", str(tmp_path / "file.vtk"), str(tmp_path / "back.png"), *codec, "--overwrite"]) == 0
        written.append((tmp_path / "back.png").read_bytes())
    assert len(set(written)) == 1
    capsys.readouterr()
    assert train_generator([*training, "--run-dir", str(tmp_path / "other"), "--tokenizer", "llamagen-ds61"]) == 1
    assert "Did you mean 'llamagen-ds16'?" in capsys.readouterr().err


def test_a_path_of_the_caller_s_folder_is_told_from_one_of_the_repository(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.jpg").write_bytes((run / "photo.jpg").read_bytes())
    (tmp_path / "own.vtk").write_bytes(b"any")
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    for refused, name in (
        (lambda: compress("own.jpg", tmp_path / "a.vtk", run), "own.jpg"),
        (lambda: decompress("own.vtk", tmp_path / "a.png", run), "own.vtk"),
        (lambda: TokenFile.open("own"), "own"),
        (lambda: Generator.load("own"), "own"),
    ):
        with pytest.raises(FileNotFoundError) as error:
            refused()
        assert str(error.value).endswith(
            f" A relative path counts from the repository: did you mean {str(tmp_path / name)!r}?"
        )


def test_nothing_that_is_there_is_lost(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, file = tmp_path / "photo.png", tmp_path / "photo.vtk"
    Image.open(run / "photo.jpg").save(photo)
    before = photo.read_bytes()

    def said(*arguments: str | Path) -> str:
        assert main([*map(str, arguments), "--generator", str(run)]) == 1
        return capsys.readouterr().err

    for more in ([], ["--overwrite"]):
        assert f"{photo} is what is to be read: give what is written another name." in said(photo, photo, *more)
    compress(photo, file, run)
    assert f"{photo} is there already; --overwrite replaces it." in said("--decode", file, photo)
    written = file.read_bytes()
    assert f"{file} is there already; --overwrite replaces it." in said(photo, file, "--label", "cat")
    assert photo.read_bytes() == before and file.read_bytes() == written
    assert main([str(photo), str(file), "--generator", str(run), "--label", "cat", "--overwrite"]) == 0
    assert main(["--decode", str(file), str(photo), "--generator", str(run), "--overwrite"]) == 0
    assert file.read_bytes() != written and photo.read_bytes() != before


def test_a_file_where_a_folder_would_have_to_be_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert main([str(run / "photo.jpg"), str(file / "deep" / "photo.vtk"), "--generator", str(run)]) == 1
    assert f"{file} is a file, and no folder in which anything could be written." in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_device_a_pipe_or_a_link_is_not_replaced(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    assert main([str(run / "photo.jpg"), str(pipe), "--generator", str(run), "--overwrite"]) == 1
    assert f"{pipe} is a device or a pipe: name the file that is to be written." in capsys.readouterr().err
    with pytest.raises(OSError, match="is a device or a pipe, and no file that could be replaced"):
        replace_file(pipe, b"")
    link.symlink_to(tmp_path / "not there")
    assert main([str(run / "photo.jpg"), str(link), "--generator", str(run)]) == 1
    assert "is there already" in capsys.readouterr().err
    assert pipe.is_fifo() and link.is_symlink()


def test_of_an_image_that_comes_out_dark_it_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_12_bits = np.asarray(Image.open(run / "photo.jpg").convert("L")).astype(np.uint16) * 16
    Image.fromarray(of_12_bits).save(tmp_path / "raw.png")
    compress(tmp_path / "raw.png", tmp_path / "raw.vtk", run)
    said = capsys.readouterr().err
    assert f"{tmp_path / 'raw.png'} has more than 8 bits a pixel" in said and "come out dark: the largest value" in said
    compress(run / "photo.jpg", tmp_path / "photo.vtk", run)
    assert not capsys.readouterr().err


def test_a_picture_too_large_for_its_format_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(run / "photo.jpg", tmp_path / "photo.vtk", run)
    monkeypatch.setattr(Codec, "decode", lambda *_: torch.zeros(3, 1, 16_400, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"of 16400x1 pixels cannot be written as WEBP: call it own\.png\."):
        decompress(tmp_path / "photo.vtk", tmp_path / "own.webp", run)
    assert not (tmp_path / "own.webp").exists()


def test_a_photograph_is_taken_as_the_camera_was_held_and_folders_are_made(run: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(run / "photo.jpg").save(tmp_path / "turned.png", exif=exif)
    compress(tmp_path / "turned.png", tmp_path / "new" / "files" / "turned.vtk", run)
    decompress(tmp_path / "new" / "files" / "turned.vtk", tmp_path / "new" / "images" / "turned.png", run)
    assert Image.open(tmp_path / "new" / "images" / "turned.png").size == (37, 50)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}/none.jpg", "{out}/a.vtk"], "There is no image "),
        (["{run}/generator/config.json", "{out}/a.vtk"], "cannot be decoded"),
        (["{run}/photo.jpg", "{out}/a.vtk", "--label", "dogs"], "There is no class 'dogs'; did you mean 'dog'?"),
        (["{run}/photo.jpg", "{out}/a.vtk", "--tokenizer", "{out}"], "There is no tokenizer in "),
        (["--decode", "{out}/a.vtk", "{out}/a.png"], "There is no file "),
        (["--decode", "{run}/photo.jpg", "{out}/a.png"], "is no file that `python -m vistok.compress` wrote"),
        (["--decode", "{run}/photo.jpg", "{out}/a"], "has no suffix of an image: call it a.png."),
        (
            ["--decode", "{run}/photo.jpg", "{out}/a.ico"],
            "has no suffix of an image: call it a.png.",
        ),  # 256 pixels at most
        (["--decode", "{run}/photo.jpg", "{out}/a.pdf"], "has no suffix of an image: call it a.png."),
        (["{run}/photo.jpg", "{out}/a.PNG"], "has the suffix of an image, which it would not be: call it a.vtk."),
        (["{run}/photo.jpg", "{out}"], "is a folder: name the file that is to be written there."),
        (
            ["--decode", "{run}/photo.jpg", "{out}/a.png", "--label", "dog"],
            "a file says its class itself: leave it out.",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_written(
    arguments: list[str], sentence: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{run}", str(run)).replace("{out}", str(tmp_path)) for argument in arguments]
    assert main([*given, "--generator", str(run)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m vistok.compress: ") and sentence in line
    assert not [path for path in tmp_path.iterdir() if path.is_file()]
