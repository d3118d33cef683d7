"""Rate and distortion on whole photographs: what is recorded is what the files are, and what comes back."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.generators import generator, toy_tokenizer
from PIL import Image

from vistok import plots, tables
from vistok.generation.codec import Codec
from vistok.images import to_float, to_unit
from vistok.metrics import PSNR
from vistok.system.paths import runs_root
from vistok.tables import photographs
from vistok.tokens.store import describe

SIZES = {"a.png": (40, 24), "b.png": (17, 30)}  # width and height


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs of two sizes."""
    place = tmp_path / "holiday"
    place.mkdir()
    for name, size in SIZES.items():
        coarse = np.random.default_rng(len(name)).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(place / name)
    return place


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a generator and its tokenizer."""
    tokenizer, place = toy_tokenizer(), tmp_path / "drawn"
    tokenizer.save(place / "tokenizer")
    generator(tokenizer=describe(tokenizer)).save(place / "generator")
    return place


def test_what_is_recorded_is_what_files_take_and_keep(folder: Path, run: Path) -> None:
    with pytest.raises(FileNotFoundError, match="write it by python -m vistok.tables.photographs data/holiday RUN"):
        tables.photograph_points("holiday")
    assert tables.photographs_markdown("holiday") == "No photographs of holiday are recorded."
    assert photographs.main([str(folder), str(run)]) == 0
    codec, psnr, size, counts = Codec.load(run), PSNR(), 0, 0
    for name in SIZES:
        picture = torch.from_numpy(np.array(Image.open(folder / name))).permute(2, 0, 1)
        file = codec.encode(picture)
        psnr.update(*(to_unit(to_float(some[None])) for some in (picture, codec.decode(file))))
        size += len(file)
        counts = counts + torch.bincount(
            codec.tokens(file)[0].flatten(), minlength=codec.generator.layout.codebook_sizes[0]
        )
    pixels = sum(width * height for width, height in SIZES.values())
    rows, curves = tables.photograph_points("holiday")
    assert list(rows) == ["drawn"] and list(rows["drawn"]) == ["nominal", "entropy", "file"]
    assert rows["drawn"]["file"] == pytest.approx((8 * size / pixels, float(psnr.compute())))
    shares, tokens = counts / counts.sum(), int(counts.sum())
    entropy = -sum(share * math.log2(share) for share in shares.tolist() if share)
    assert rows["drawn"]["entropy"][0] == pytest.approx(tokens * entropy / pixels)
    assert rows["drawn"]["nominal"][0] == pytest.approx(tokens * math.log2(len(counts)) / pixels)
    assert set(curves) == {"JPEG", "WebP", "AVIF"} and all(len(curve) == 11 for curve in curves.values())
    names = [text.get_text() for text in plots.rate_and_distortion(rows, curves).axes[0].get_legend().get_texts()]
    assert names == ["JPEG", "WebP", "AVIF", "drawn", "nominal", "entropy", "file"]
    lines = tables.photographs_markdown("holiday").splitlines()
    assert len(lines) == 5 and lines[2].startswith("| drawn | nominal | ") and lines[4].startswith("| drawn | file | ")
    text = "<!-- photographs holiday -->\nold\n<!-- /photographs -->"
    assert tables.with_tables(text) == text.replace("old", "\n".join(lines))
    assert tables.photograph_points("holiday", "ssim")[0]["drawn"]["file"][1] <= 1
    record = json.loads((runs_root() / "photographs-holiday.json").read_bytes())
    assert (record["num_images"], record["num_pixels"]) == (2, pixels)


def test_a_codec_is_read_off_between_the_rates_that_it_was_measured_at() -> None:
    curve = [(0.25, 20.0), (1.0, 24.0), (2.0, 30.0)]
    found = [photographs._at_rate(curve, bits) for bits in (0.2, 0.25, 0.5, 1.0, 2.0, 2.1)]
    assert found == [None, 20.0, pytest.approx(22.0), 24.0, 30.0, None]


def test_what_cannot_be_measured_is_one_sentence_and_nothing_is_lost(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        with pytest.raises(SystemExit):
            photographs.main(list(arguments))
        return capsys.readouterr().err.splitlines()[-1]

    assert "There is no generator in " in refused(str(folder), str(tmp_path))
    (tmp_path / "empty").mkdir()
    assert f"There are no images in {tmp_path / 'empty'}." in refused(str(tmp_path / "empty"))
    assert f"There is no folder {tmp_path / 'nowhere'}." in refused(str(tmp_path / "nowhere"))
    assert "Several of the runs have one name" in refused(str(folder), str(run), str(run))
    assert not runs_root().exists() or not list(runs_root().glob("photographs-*"))
    assert photographs.main([str(folder)]) == 0
    written = (runs_root() / "photographs-holiday.json").read_bytes()
    assert "photographs-holiday.json is there already; --overwrite replaces it." in refused(str(folder))
    assert (runs_root() / "photographs-holiday.json").read_bytes() == written
