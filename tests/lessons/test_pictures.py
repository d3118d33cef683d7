"""Pictures of what rows make of photographs: made of runs, kept as files, shown as tiles."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.data import open_dataset
from vistok.lessons import pictures
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN
from vistok.system.paths import repository_root
from vistok.tokens.encoded import EncodedImages
from vistok.widgets import QuantizerGallery

IMAGES = [0, 1, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the two tokenizers that come with the repository."""
    where = tmp_path_factory.mktemp("pictures")
    for run in (EXAMPLE_RUN, COLLAPSED_RUN):
        pictures.make(run, "photos", IMAGES, where)
    return where


def test_pictures_are_what_the_tokenizer_makes_of_the_images(folder: Path) -> None:
    found = pictures.load(["ema-d4", "vq-d64", "fsq-888"], folder)
    assert found.missing == ("fsq-888",) and [row.name for row in found.rows] == ["ema-d4", "vq-d64"]
    photographs = open_dataset("photos", "test", 64)
    originals = photographs.images(IMAGES)
    assert torch.equal(pictures.pixels(found.originals, 3), originals)
    assert found.names == tuple(photographs.names[:3])
    encoded = EncodedImages.open(EXAMPLE_RUN, originals, device="cpu", progress=False)
    row = found.rows[0]
    assert torch.equal(pictures.pixels(row.strip, 3), encoded.reconstructions(IMAGES))
    assert row.psnr == pytest.approx(encoded.psnr(IMAGES), abs=1e-4)
    assert (row.quantizer, row.bits) == ("ema", 256 * 9)
    assert row.usage == json.loads((repository_root() / EXAMPLE_RUN / "metrics.json").read_bytes())["usage"]


def test_making_them_again_gives_the_same_files_and_no_path_of_the_machine(folder: Path, tmp_path: Path) -> None:
    pictures.make(EXAMPLE_RUN, "photos", IMAGES, tmp_path)
    assert (tmp_path / "ema-d4.webp").read_bytes() == (folder / "ema-d4.webp").read_bytes()
    text = (tmp_path / "ema-d4.json").read_text(encoding="utf-8")
    assert json.loads(text) == json.loads((folder / "ema-d4.json").read_bytes())
    assert str(repository_root()) not in text and json.loads(text)["trained"]["commit"]


def test_rows_of_other_images_are_kept_apart(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds pictures of other images: give another folder"):
        pictures.make(EXAMPLE_RUN, "photos", [5], folder)
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    record = json.loads((mixed / "vq-d64.json").read_bytes())
    (mixed / "vq-d64.json").write_text(json.dumps(record | {"originals": "0" * 12}))
    assert pictures.load(["ema-d4", "vq-d64"], mixed).missing == ("vq-d64",)
    (mixed / "vq-d64.json").write_text("{}")
    with pytest.raises(ValueError, match="is no record of pictures"):
        pictures.load(["vq-d64"], mixed)


def test_only_photographs_that_may_be_shown_are_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dataset is 'imagenet-sample', but pictures that are committed"):
        pictures.make(EXAMPLE_RUN, "imagenet-sample", [0], tmp_path)
    for wrong in ([], [512], [-1]):
        with pytest.raises(ValueError, match="must be indices in 0 to 511"):
            pictures.make(EXAMPLE_RUN, "photos", wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_goes_on_after_a_run_without_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (record,) = (repository_root() / "runs").glob("vq-d8-laptop-*")
    assert pictures.main([str(record), EXAMPLE_RUN, "--images", "3", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "There is no tokenizer in" in said and str(tmp_path / "ema-d4.webp") in said


def test_the_gallery_orders_rows_and_names_those_without_pictures(folder: Path) -> None:
    gallery = QuantizerGallery(["vq-d64", "ema-d4", "gumbel"], folder=folder)
    assert [row.name for row in gallery.ordered()] == ["ema-d4", "vq-d64"] and gallery.missing == ["gumbel"]
    gallery.order = "as in the table"
    assert [row.name for row in gallery.ordered()] == ["vq-d64", "ema-d4"]
    gallery.order, gallery.image = "worst first", 1
    assert gallery.images == ["chelsea 1", "rocket", "chelsea 2"]
    assert gallery.description.startswith("rocket as 2 quantizers make it, worst first: vq-d64 ")
    assert gallery.description.endswith("There are no pictures of gumbel.")
    gallery.image = 3
    assert gallery.image == 1 and gallery.message == "There is no image 3: images are 0 to 2."


def test_without_a_kernel_the_gallery_is_a_picture(folder: Path) -> None:
    gallery = QuantizerGallery(["vq-d64", "ema-d4"], folder=folder)
    bundle, _ = gallery._repr_mimebundle_()
    assert len(base64.b64decode(bundle["image/png"])) > 10_000
    axes = gallery.figure().axes
    assert [axis.get_title().split("\n")[0] for axis in axes] == ["original", "ema-d4", "vq-d64"]
    before = axes[1].images[0].get_array()
    gallery.errors = True
    assert not np.array_equal(gallery.figure().axes[1].images[0].get_array(), before)


def test_where_there_are_no_pictures_the_gallery_says_so(tmp_path: Path) -> None:
    gallery = QuantizerGallery(["fsq-888", "ema-d4"], folder=tmp_path)
    assert (
        gallery.message
        == "There are no pictures of fsq-888, ema-d4: python -m vistok.lessons.pictures makes them of runs."
    )
    assert gallery.figure() is None and gallery.message in repr(gallery)
    assert QuantizerGallery([]).message == "There are no rows to show: `rows` is empty."


def test_one_row_may_be_named_alone(folder: Path) -> None:
    assert [tile["name"] for tile in QuantizerGallery("vq-d64", folder=folder).tiles] == ["vq-d64"]


@pytest.mark.parametrize("damaged", ["vq-d64.webp", f"{pictures.ORIGINALS}.webp"])
@pytest.mark.parametrize("content", ["no picture", "half", "another size"])
def test_a_damaged_file_of_pictures_is_a_sentence(folder: Path, tmp_path: Path, damaged: str, content: str) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / damaged
    if content == "another size":
        Image.new("RGB", (3, 4)).save(file)
    else:
        file.write_bytes(b"no picture" if content == "no picture" else file.read_bytes()[:1000])
    gallery = QuantizerGallery(["vq-d64"], folder=tmp_path / "copy")
    assert gallery.figure() is None
    if content != "another size" or damaged == "vq-d64.webp":  # other originals: the pictures are of other images
        assert str(file) in gallery.message and "make it anew, or remove it" in gallery.message
