"""Rate and distortion of rows and codecs, from records."""

import json
from types import SimpleNamespace

import pytest

from vistok import plots, tables
from vistok.system.paths import runs_root
from vistok.tables import codecs


def test_the_command_records_what_the_table_reads(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"write it by python -m vistok.tables.codecs photos --image-size 16"):
        tables.codec_points("photos", 16)
    runs_root().mkdir(parents=True)
    assert codecs.main(["photos", "--image-size", "16", "--per-file", "4", "--max-images", "40"]) == 0
    assert "33 points" in capsys.readouterr().out
    written = (runs_root() / "codecs-photos-16.json").read_bytes()
    for more, sentence in (
        (["--max-images", "16"], "codecs-photos-16.json is there already; --overwrite replaces it."),
    ) + ((["--overwrite", "--max-images", "-1"], "max_images is -1, but must be at least 1."),):
        with pytest.raises(SystemExit):
            codecs.main(["photos", "--image-size", "16", *more])
        assert sentence in capsys.readouterr().err
        assert (runs_root() / "codecs-photos-16.json").read_bytes() == written
    record = json.loads(written)
    assert record["num_images"] == 32 and record["per_file"] == 4 and record["dataset"]["name"] == "photos"
    for metric in ("psnr", "ssim"):
        curves = tables.codec_points("photos", 16, metric)
        assert set(curves) == {"JPEG", "WebP", "AVIF"} and all(len(curve) == 11 for curve in curves.values())
        assert all(curve == sorted(curve) for curve in curves.values())


def row_of(name: str, psnr: float, entropy: float, size: str, bits: float | None) -> SimpleNamespace:
    books = [{"entropy_bits": entropy, "codebook_size": 512}]
    metrics = {"psnr": psnr, "bits_per_pixel": 0.5625, "codebooks": books}
    tokenizer = SimpleNamespace(row=SimpleNamespace(name=name), metrics=metrics)
    rate = None if bits is None else {"bits_per_pixel": bits}
    return SimpleNamespace(tokenizer=tokenizer, config=SimpleNamespace(size=size), rate=rate)


def test_a_row_has_a_point_for_each_way_to_count_its_bits() -> None:
    runs = [row_of("a", 24.0, 4.5, "1m", 0.25), row_of("a", 26.0, 4.5, "1m", 0.27), row_of("a", 24.0, 4.5, "3m", 0.2)]
    runs += [row_of("b", 20.0, 9.0, "1m", None)]
    runs += [SimpleNamespace(tokenizer=SimpleNamespace(row=SimpleNamespace(name="c"), metrics=None))]
    points = tables.row_points(runs)
    assert list(points) == ["a", "b"] and list(points["a"]) == ["nominal", "entropy", "1m", "3m"]
    assert points["a"]["1m"] == pytest.approx((0.26, 25.0)) and points["a"]["3m"] == (0.2, 24.0)
    assert points["a"]["entropy"][0] == pytest.approx(0.28125)
    assert points["b"] == {"nominal": (0.5625, 20.0), "entropy": (0.5625, 20.0)}
    figure = plots.rate_and_distortion(points, {"JPEG": [(0.1, 18.0), (1.0, 30.0)]})
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["JPEG", "a", "b", "nominal", "entropy", "1m", "3m"]
