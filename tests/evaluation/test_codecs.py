"""Codecs: bits are those of the files, images that share a file are measured one by one."""

import io

import pytest
import torch
from PIL import Image

from vistok.evaluation import measure_codec
from vistok.evaluation.codecs import CODECS, _cut, _sheet


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((9, 3, 4, 4), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bicubic").clamp(0, 1)
    return (255 * smooth).to(torch.uint8)


@pytest.mark.parametrize("codec", CODECS)
def test_more_quality_costs_more_and_keeps_more(codec: str, images: torch.Tensor) -> None:
    low, high = measure_codec(images, codec, (10, 90), progress=False)
    assert low.bits_per_pixel < high.bits_per_pixel and low.psnr < high.psnr and low.ssim < high.ssim <= 1
    assert (low.codec, low.quality, high.quality) == (codec, 10, 90)


def test_bits_are_those_of_the_files(images: torch.Tensor) -> None:
    (point,) = measure_codec(images[:2], "JPEG", [50], progress=False)
    size = 0
    for image in images[:2]:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=50, optimize=True)
        size += len(file.getvalue())
    assert point.bits_per_pixel == 8 * size / (2 * 32 * 32)


def test_images_that_share_a_file_share_its_header_and_are_cut_out_again(images: torch.Tensor) -> None:
    sheet = _sheet(images, 3)
    assert torch.equal(sheet[:, 32:64, 64:96], images[5]) and torch.equal(_cut(sheet, 3), images)
    (alone,), (together,) = (measure_codec(images, "JPEG", [50], per_file=side, progress=False) for side in (1, 3))
    assert together.bits_per_pixel < 0.5 * alone.bits_per_pixel and together.psnr == pytest.approx(alone.psnr, abs=3)


def test_what_cannot_be_measured_is_one_sentence(images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="There is no codec 'PNG'"):
        measure_codec(images, "PNG")
    with pytest.raises(ValueError, match="quality is 101, but must be between 0 and 100"):
        measure_codec(images, "JPEG", [101])
    with pytest.raises(ValueError, match="There are 9 images, but a file takes 4x4"):
        measure_codec(images, "JPEG", per_file=4)
    monkeypatch.setattr("vistok.evaluation.codecs.features.check", lambda name: name != "avif")
    with pytest.raises(ValueError, match="This Pillow was built without AVIF"):
        measure_codec(images, "AVIF")
