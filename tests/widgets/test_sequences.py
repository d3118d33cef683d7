"""Views of tokens without a grid: the row of tokens, influence, prefixes, scales, and what the other views say of them.

`tests/browser/test_sequences_js.py` has their scripts; the numbers behind them are `tests/tokens/test_parts.py`'s.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.images import psnr, to_uint8
from vistok.runs import EXAMPLE_SEQUENCE
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.encoded import EncodedImages
from vistok.tokens.parts import coarse_to_fine, influence
from vistok.widgets import (
    CoarseToFine,
    CodebookExplorer,
    CodebookSpace,
    PlaceExplorer,
    RunComparison,
    TokenEditor,
    TryPicture,
)
from vistok.widgets.view import Refusal

NUM_TOKENS = 12


def sequence(codebook_size: int = 32) -> VisualTokenizer:
    torch.manual_seed(0)
    options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": NUM_TOKENS, "patch_size": 4}
    codes = {"codebook_size": codebook_size, "codebook_dim": 4}
    made = VisualTokenizer(network="titok", network_options=options, quantizer_options=codes, image_size=16)
    with torch.no_grad():  # so that the picture follows its tokens before any training
        made.quantizer.weight.normal_()
        made.decoder.from_codes.weight.normal_()
        made.decoder.head.to_patches.weight.normal_(std=0.2)
        made.decoder.head.smooth.weight.normal_(std=0.2)
    return made.eval()


def encode(tokenizer: VisualTokenizer, number: int = 3) -> EncodedImages:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (number, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return EncodedImages.open(tokenizer, images, device="cpu", progress=False)


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    return encode(sequence())


@pytest.fixture
def editor(encoded: EncodedImages) -> TokenEditor:
    return TokenEditor(encoded)


def floats(data: bytes, *shape: int) -> np.ndarray:
    return np.frombuffer(data, "<f4").reshape(shape)


def test_the_editor_maps_what_each_token_does(editor: TokenEditor, encoded: EncodedImages) -> None:
    expected = influence(encoded.tokenizer, encoded.indices([0]))
    assert editor.sequence and editor.grid == [1, NUM_TOKENS] and editor.message == ""
    means = [expected.nearest.mean((1, 2)), expected.random.mean((1, 2))]
    np.testing.assert_allclose(floats(editor.followed, 2, NUM_TOKENS), torch.stack(means), atol=1e-6)
    editor.select(0, 7, 1, 9)
    np.testing.assert_allclose(floats(editor.maps, 2, 16, 16)[1], expected.random[7], atol=1e-6)
    assert (
        editor.description.count("tokens 7 to 8") == 1 and "As encoded, token 7 moves a pixel by" in editor.description
    )
    assert "rows" not in editor.description and "sequence of 12 tokens" in editor.description
    assert expected.random[7].max() > 0.001, "or nothing was looked at"


def test_a_sequence_of_one_code_alone_is_shown_without_influence() -> None:
    editor = TokenEditor(encode(sequence(codebook_size=1), 1))
    assert editor.message == "" and editor.maps == b"" and np.isnan(floats(editor.followed, 2, NUM_TOKENS)).all()
    editor.select(0, 3, 1, 4)
    assert editor.message == "" and "image/png" in editor._repr_mimebundle_()[0]
    editor.map_all()
    assert editor.message == "There is one code only: no token can be another."


def test_half_of_the_influence_falls_on_so_many_pixels(editor: TokenEditor) -> None:
    editor.select(0, 4, 1, 5)
    values = np.sort(floats(editor.maps, 2, 256)[1])[::-1].astype(float)
    half = next(number for number in range(1, 257) if values[:number].sum() >= values.sum() / 2)
    assert f"half of that falls on {half / 256:.0%} of the pixels" in editor.description


def test_a_token_is_replaced_swapped_and_mixed_as_on_a_grid(editor: TokenEditor, encoded: EncodedImages) -> None:
    before = editor.followed
    editor.select(0, 2, 1, 5)
    editor.replace((int(editor.tokens[0, 2]) + 1) % 32)
    assert len(set(editor.tokens[0, 2:5])) == 1
    expected = encoded.tokenizer.decode(torch.from_numpy(editor.tokens)[None])
    assert torch.equal(editor.decoded, to_uint8(expected)[0])
    assert editor.change.startswith("3 tokens are not as encoded.") and "farthest" not in editor.change
    assert editor.followed == before  # of the image as encoded
    editor.undo()
    editor.swap()
    assert editor.tokens[0, 2:5].tolist() == encoded.tokens[0][1, 0, 2:5].tolist()
    editor.interpolate(1.0)
    assert editor.message == "" and editor.change.count("share of 1.00") == 1


def test_a_prefix_is_decoded_and_can_be_undone(editor: TokenEditor, encoded: EncodedImages) -> None:
    whole = editor.decoded
    editor.show_prefix(5)
    assert editor.prefix == 5 and "Decoded are the first 5 of 12 tokens." in editor.change
    assert torch.equal(editor.decoded, to_uint8(encoded.tokenizer.decode(encoded.indices([0])[0][..., :5]))[0])
    editor.interpolate(0.5)
    assert editor.prefix == 5 and editor.message == ""
    for whole_again in (NUM_TOKENS, None):  # None is all of them, as wherever num_tokens is
        editor.show_prefix(whole_again)
        assert editor.prefix == 0
    for _ in range(3):
        editor.undo()
    assert torch.equal(editor.decoded, whole) and not editor.can_undo
    editor.show_prefix(13)
    assert editor.message == "num_tokens is 13, but an image is 12 tokens: the most is 12." and editor.prefix == 0
    editor.show_prefix(0)
    assert "num_tokens" in editor.message


def test_influence_is_mapped_where_it_is_asked_for(encoded: EncodedImages) -> None:
    view = TokenEditor(encoded, map_influence=False)
    assert np.isfinite(floats(view.followed, 2, NUM_TOKENS)).all(0).tolist() == [True] + [False] * 11
    view.select(0, 3, 1, 4)
    assert np.flatnonzero(np.isfinite(floats(view.followed, 2, NUM_TOKENS)[0])).tolist() == [0, 3]
    view.map_all()
    assert view.followed == TokenEditor(encoded).followed
    view.choose(1, 0)
    assert np.isfinite(floats(view.followed, 2, NUM_TOKENS)).sum() == 2
    grid = TokenEditor(
        encode(VisualTokenizer(quantizer_options={"codebook_size": 32, "codebook_dim": 4}, image_size=16))
    )
    assert not grid.sequence and grid.maps == grid.followed == b""
    grid.map_all()
    assert grid.message.startswith("Tokens of a grid lie where they act")
    grid.show_prefix(3)
    assert "num_tokens is 3, but tokens of 'simple_cnn' lie on a grid" in grid.message and grid.prefix == 0


def test_of_a_large_decoder_on_a_cpu_only_the_selected_token_is_mapped(
    encoded: EncodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vistok.widgets.editor.MAPPED_AT_ONCE", 1000)
    assert np.isfinite(floats(TokenEditor(encoded).followed, 2, NUM_TOKENS)).sum() == 2
    assert np.isfinite(floats(TokenEditor(encoded, map_influence=True).followed, 2, NUM_TOKENS)).all()


def test_its_figure_has_a_map_of_every_token(editor: TokenEditor) -> None:
    titles = [axis.get_title() for axis in editor.figure().findobj(lambda found: hasattr(found, "get_title"))]
    assert {str(token) for token in range(NUM_TOKENS)} <= set(titles)


def test_the_codebooks_views_say_what_has_no_meaning(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    assert explorer.message == "" and explorer.sequence
    assert (
        "Tokens are a sequence of 12 and lie nowhere in the image, so that a code has no patch." in explorer.description
    )
    assert explorer.detail["patches"] == b"" and explorer.decoded == {}
    explorer.another_sample()
    explorer.show_atlas()
    assert explorer.message == "" and explorer.figure() is not None
    places = PlaceExplorer(encoded)
    assert "none of them is a place of the image" in places.description and "row" not in places.description
    assert places.figure().axes[0].get_xlabel() == "token of the sequence"
    with pytest.raises(ValueError, match="are a sequence and lie nowhere in the image: there are no patches"):
        encoded.patches(np.array([[0, 0, 1]]))
    assert CodebookSpace(encoded).message == ""


def test_a_picture_of_ones_own_has_a_row_of_tokens() -> None:
    view = TryPicture(sequence(), picture=Image.effect_noise((40, 30), 90).convert("RGB"))
    assert view.sequence and view.grid == [1, NUM_TOKENS] and view.tokenizers[0]["num_tokens"] == NUM_TOKENS
    before = view.decoded[0]
    view.select(0, 0, 1, NUM_TOKENS)
    view.replace(3)
    assert view.tokens.tolist() == [[3] * NUM_TOKENS] and not torch.equal(view.decoded[0], before)
    assert view.figure() is not None
    view.see_whole()
    assert "have no learned positions" in view.message and not view.whole


def test_an_image_from_more_and_more_of_its_tokens(encoded: EncodedImages) -> None:
    view = CoarseToFine(encoded, 1)
    assert view.message == "" and view.num_tokens == [1, 2, 4, 8, 12] and view.step == 4
    original = encoded.pixels([1])[0].double()
    for number, value in zip(view.num_tokens, view.psnr, strict=True):
        made = to_uint8(encoded.tokenizer.decode(encoded.indices([1])[0][..., :number]))[0].double()
        assert value == pytest.approx(10 * math.log10(255**2 / float((original - made).square().mean())))
    assert "2 tokens (2 in all): " in view.description and view.figure() is not None
    view.step, view.image = 2, 0
    assert view.step == 2 and view.description.startswith("Image 0")
    view.step = 5
    assert view.message == "There is no step 5: steps are 0 to 4." and view.step == 2
    view.image = 3
    assert view.message == "There is no image 3: images are 0 to 2." and view.image == 0


def test_scales_one_after_the_other_and_a_grid_has_none() -> None:
    options = {"codebook_size": 32, "codebook_dim": 4}
    torch.manual_seed(0)
    scales = VisualTokenizer(quantizer="multiscale", quantizer_options=options | {"scales": [1, 2, 4]}, image_size=16)
    view = CoarseToFine(encode(scales.eval()))
    assert view.steps == ["level 0, 1x1", "level 1, 2x2", "level 2, 4x4"] and view.num_tokens == [1, 5, 21]
    plain_tokenizer = VisualTokenizer(quantizer_options=options, image_size=16)
    plain = CoarseToFine(encode(plain_tokenizer))
    assert plain.message.startswith("No part of these tokens is a coarser image") and plain.figure() is None
    assert CoarseToFine(Refusal("There is nothing.")).message == "There is nothing."
    by_name = "looks at images that a tokenizer has encoded, not at 'runs/x': open_encoded(run, dataset) returns them."
    assert CoarseToFine("runs/x").message == f"CoarseToFine {by_name}"
    assert RunComparison(encode(plain_tokenizer), "runs/x").message == f"RunComparison {by_name}"
    beyond = CoarseToFine(encode(scales), 9)
    assert beyond.message == "There is no image 9: images are 0 to 2." and beyond.image == 0 and beyond.steps


# What 03_codebook says of the tokenizer without a grid that comes with the repository.


@pytest.fixture(scope="module")
def scenes() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_SEQUENCE, "scenes", max_images=14, device="cpu", progress=False)


def test_each_doubling_of_the_tokens_adds_less_than_the_last(scenes: EncodedImages) -> None:
    assert sum(parameter.numel() for parameter in scenes.tokenizer.parameters()) == pytest.approx(250_000, rel=0.02)
    quality = []
    for image in range(14):
        steps = coarse_to_fine(scenes.tokenizer, scenes.indices([image]))
        pictures = to_uint8(torch.stack([step.image for step in steps]))
        quality.append(psnr(scenes.pixels([image]).expand_as(pictures), pictures))
    mean = torch.stack(quality).mean(0)  # of 1, 2, 4, ... 64 tokens
    assert [round(float(mean[number]), 1) for number in (0, 3, 6)] == [16.1, 17.9, 18.9]
    assert (mean.diff() > 0).all() and mean.diff()[0] == mean.diff().max() and mean.diff()[-1] == mean.diff().min()


def test_half_of_the_tokens_have_found_a_place_and_the_last_do_least(scenes: EncodedImages) -> None:
    maps = influence(scenes.tokenizer, scenes.indices([3])).random  # [64, 64, 64]
    strength = maps.mean((1, 2))
    assert strength[:16].mean() > 4 * strength[-16:].mean()
    falling = (maps.flatten(1) / maps.sum((1, 2))[:, None]).sort(dim=1, descending=True).values
    in_a_sixteenth = falling[:, : falling.shape[1] // 16].sum(1)
    assert 28 <= (in_a_sixteenth > 0.5).sum() <= 36  # of 64
