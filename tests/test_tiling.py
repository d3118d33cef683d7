"""Pictures in overlapping tiles: how they are laid and mixed, what they share with the whole picture, what seams cost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from vistok.runs import EXAMPLE_RUN
from vistok.tiling import in_tiles
from vistok.tokenizer import VisualTokenizer

QUANTIZERS: dict[str, dict[str, Any]] = {
    "vq": {"codebook_size": 16, "codebook_dim": 4},
    "grouped": {"codebook_size": 8, "codebook_dim": 4},
    "residual": {"codebook_size": 8, "codebook_dim": 4, "num_levels": 2},
    "multiscale": {"codebook_size": 8, "codebook_dim": 4, "scales": [1, 2, 4]},
}


def tokenizer(quantizer: str = "vq", **options: Any) -> VisualTokenizer:
    torch.manual_seed(0)
    options = {"network_options": {"hidden_dim": 8, "num_res_blocks": 1}} | options
    return VisualTokenizer(
        quantizer=quantizer, quantizer_options=QUANTIZERS[quantizer], image_size=16, **options
    ).eval()


def images_of(height: int, width: int, number: int = 2) -> torch.Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (40, 28), (12, 64), (4, 4)])
@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (16, 4), (16, 12), (4, 0)])
def test_what_sees_single_pixels_makes_of_tiles_what_it_makes_of_the_whole(
    size: tuple[int, int], tile: int, overlap: int
) -> None:
    images, seen = images_of(*size), []

    def smaller(part: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(part.shape[2:]))
        return F.avg_pool2d(part, 4)

    made = in_tiles(smaller, images, tile, overlap, lambda length: length // 4)
    torch.testing.assert_close(made, F.avg_pool2d(images, 4))
    assert set(seen) == {(min(tile, size[0]), min(tile, size[1]))}
    larger = in_tiles(
        lambda part: F.interpolate(part, scale_factor=2), images, tile, overlap, lambda length: length * 2
    )
    torch.testing.assert_close(larger, F.interpolate(images, scale_factor=2))


def test_overlaps_are_mixed_in_a_straight_line() -> None:
    """Each tile gives its number. Along a row of three tiles of 8 with overlaps of 4 the numbers rise from one to the next."""
    numbers = iter(range(3))
    whole = torch.zeros(1, 1, 8, 16)
    made = in_tiles(lambda part: part + next(numbers), whole, 8, 4, lambda length: length)[0, 0]
    rise = (np.arange(4) + 0.5) / 4
    expected = np.concatenate([[0] * 4, rise, 1 + rise, [2] * 4])
    np.testing.assert_allclose(made.numpy(), np.tile(expected, (8, 1)), atol=1e-6)


def test_the_last_tile_ends_where_the_picture_does() -> None:
    places = torch.arange(22.0).expand(1, 1, 8, 22)
    seen = []

    def look(part: torch.Tensor) -> torch.Tensor:
        seen.append((int(part[0, 0, 0, 0]), part.shape[3]))
        return part

    in_tiles(look, places, 8, 2, lambda length: length)
    assert seen == [(0, 8), (6, 8), (12, 8), (14, 8)]


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_one_tile_is_the_whole_picture(quantizer: str) -> None:
    own, images = tokenizer(quantizer), images_of(16, 12)
    whole, tiled = own.encode(images), own.encode_tiled(images)
    for one, other in zip(*(given if isinstance(given, tuple) else (given,) for given in (whole, tiled)), strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(own.decode_tiled(tiled), own.decode(whole))


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_a_large_picture_has_one_grid_of_tokens_of_every_level(quantizer: str) -> None:
    own, images = tokenizer(quantizer).train(), images_of(40, 24)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    whole, tiled = own.encode(images), own.encode_tiled(images, tile=16, overlap=8)
    shapes = [[part.shape for part in (g if isinstance(g, tuple) else (g,))] for g in (whole, tiled)]
    assert shapes[0] == shapes[1]
    made = own.decode_tiled(tiled, tile=16, overlap=4)
    assert made.shape == images.shape and made.abs().max() <= 1
    assert own.training and all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_tokens_far_from_every_edge_of_a_tile_are_those_of_the_whole_picture() -> None:
    """A network of convolutions sees no farther than its receptive field: inside of a tile it does not know of the tile."""
    own, images = tokenizer(), images_of(160, 160, 1)
    view_z = in_tiles(own.encoder, images, 128, 32, lambda length: length // 4)
    z = own.encoder(images)
    reach = 6  # tokens: of all convolutions at both resolutions
    inside = slice(8 + reach, 8 + 16 - reach) if reach < 8 else None  # of the overlap: tokens 8 to 32
    corner = slice(0, 24 - reach - 16)  # seen by the first tile alone
    torch.testing.assert_close(view_z[..., corner, corner], z[..., corner, corner], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(view_z[..., inside, inside], z[..., inside, inside], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(view_z, z, atol=1e-4)


def test_learned_positions_take_large_pictures_in_tiles() -> None:
    options = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16, "patch_size": 4, "positions": "learned"}
    own, images = tokenizer(network="vit", network_options=options), images_of(32, 40)
    with pytest.raises(ValueError, match="has no learned positions"):
        own.encode(images)
    indices = own.encode_tiled(images)
    assert indices.shape == (2, 8, 10) and own.decode_tiled(indices).shape == images.shape


def test_tokens_without_a_grid_are_refused() -> None:
    options = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "num_tokens": 5, "patch_size": 4}
    own = tokenizer(network="titok", network_options=options)
    for act, given in (
        (own.encode_tiled, images_of(32, 32)),
        (own.decode_tiled, torch.zeros(1, 1, 5, dtype=torch.int64)),
    ):
        with pytest.raises(ValueError, match="Tokens of this tokenizer are a sequence, .* resize the picture to 16x16"):
            act(given)
    with pytest.raises(ValueError, match="Of a tile the network makes 1x5, not 4x4"):
        in_tiles(lambda part: part.new_zeros(len(part), 4, 1, 5), images_of(32, 32), 16, 4, lambda length: length // 4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"tile": 8, "overlap": 12},
            "tile is 8 pixels, but must be larger than the overlap of 12; the largest overlap is 4.",
        ),
        ({"overlap": 16}, "tile is 16 pixels, but must be larger than the overlap of 16; the largest overlap is 12."),
        ({"overlap": 7}, "overlap is 7 pixels, but must be a multiple of the downsample factor 4; the nearest is 8."),
        ({"overlap": -4}, "overlap is -4 pixels, but must be a multiple of the downsample factor 4; the nearest is 0."),
        ({"tile": 18}, "tile is 18 pixels, but must be a multiple of the downsample factor 4; the nearest is 16."),
        ({"tile": 0}, "tile is 0 pixels, but must be a multiple of the downsample factor 4; the nearest is 4."),
    ],
)
def test_tiles_that_cannot_be_laid_are_refused_before_any_is_computed(
    options: dict[str, int], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tokenizer()
    indices = own.encode(images_of(16, 16))
    monkeypatch.setattr("vistok.tiling.in_tiles", lambda *_: pytest.fail("a tile was computed"))
    for act, given in ((own.encode_tiled, images_of(16, 16)), (own.decode_tiled, indices)):
        with pytest.raises(ValueError) as error:
            act(given, **options)
        assert str(error.value) == sentence


def test_seams_of_a_real_photograph(shared: Path) -> None:
    """The trained example on a whole photograph: tiles of the size it was trained on, beside one pass.

    Measured in two bands of pixels: within 4 of a border of a tile, and all others. Overlapping tiles lose nothing at their
    seams; without an overlap the seams show.
    """
    own = VisualTokenizer.load(EXAMPLE_RUN)
    pixels = np.asarray(Image.open(shared / "data/kodak/23.png").convert("RGB"))
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert images.shape[2:] == (512, 768)

    def decibels(made: torch.Tensor, where: torch.Tensor) -> float:
        return float(-10 * ((images - made) / 2).square().mean(1)[0][where].mean().log10())

    def measured(overlap: int) -> tuple[float, float, float, float]:
        """Return the share of equal tokens, PSNR at seams, there in one pass, and how much less than in one pass elsewhere."""
        indices = own.encode_tiled(images, 64, overlap)
        made, step = own.decode_tiled(indices, 64, overlap), 64 - overlap
        seams = torch.zeros(512, 768, dtype=torch.bool)
        for border in (edge for start in range(0, 768, step) for edge in (start, start + 64)):
            near = slice(max(0, border - 4), border + 4)
            if 0 < border < 768:
                seams[:, near] = True
            if 0 < border < 512:
                seams[near] = True
        share = float((indices == whole_indices).double().mean())
        lost = decibels(whole, ~seams) - decibels(made, ~seams)
        return share, decibels(made, seams), decibels(whole, seams), lost

    whole_indices = own.encode(images)
    whole = own.decode(whole_indices)
    share, seams, in_one_pass, lost = measured(16)
    assert share > 0.9 and seams > in_one_pass - 0.1 and abs(lost) < 0.02
    share, seams, in_one_pass, lost = measured(0)
    assert 0.7 < share < 0.85 and seams < in_one_pass - 0.5 and abs(lost) < 0.1
