"""The codebook explorer and the map of places, on the side of Python: what is computed, refused and shown without a kernel."""

import base64
import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vistok import VisualTokenizer
from vistok.runs import EXAMPLE_RUN
from vistok.tokens import encode_dataset
from vistok.tokens.encoded import EncodedImages
from vistok.widgets import (
    CodebookExplorer,
    CodebookSpace,
    PlaceExplorer,
    ReconstructionViewer,
    Refusal,
    RunComparison,
    TokenEditor,
    open_encoded,
)
from vistok.widgets import explorer as module


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_RUN, "photos", max_images=64, device="cpu", progress=False)


def png(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def two_levels() -> EncodedImages:
    torch.manual_seed(0)
    options = {"num_levels": 2, "codebook_size": 8, "codebook_dim": 4}
    model = VisualTokenizer(
        quantizer="residual", quantizer_options=options, network_options={"hidden_dim": 8}, image_size=16
    )
    images = torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return EncodedImages.open(model, images, device="cpu", progress=False)


def test_it_begins_with_the_most_used_code(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    counts = encoded.counts()
    assert explorer.selected == explorer.detail["code"] == int(counts.argmax())
    assert explorer.detail["rank"] == 1 and explorer.detail["count"] == int(counts.max())
    assert np.frombuffer(explorer.counts, "<u4").tolist() == counts.tolist()
    assert f"{int((counts > 0).sum())} of 512 codes are used" in repr(explorer)


def test_a_chosen_code_shows_where_it_is_used(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    code = int((encoded.counts() == 20).nonzero()[0])
    explorer.select(code)
    detail, places = explorer.detail, encoded.places(code)
    assert detail["code"] == code and detail["count"] == len(places) == 20
    assert sum(map(len, detail["image_places"])) == encoded.most_using(code, 4)[1].sum()
    shown = np.array(detail["patch_places"])
    assert all((places == place).all(1).any() for place in shown)
    strip = png(detail["patches"])
    assert strip.shape == (12, 12 * len(shown), 3)
    assert np.array_equal(strip[4:8, 4:8], encoded.patches(shown[:1], margin=0)[0].permute(1, 2, 0).numpy())
    assert explorer.decoded["code"] == code and png(explorer.decoded["patches"]).shape == strip.shape
    assert np.frombuffer(detail["grid_counts"], "<u4").sum() == 20


def test_the_sample_is_the_same_every_time(encoded: EncodedImages) -> None:
    first, second, other = (CodebookExplorer(encoded, seed=seed).detail["patch_places"] for seed in (0, 0, 1))
    assert first == second != other


def test_another_sample_is_of_the_same_code(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    before = explorer.detail
    explorer._handle_custom_msg({"do": "sample"}, [])  # what a click sends
    after = explorer.detail
    assert after["code"] == before["code"] and after["patch_places"] != before["patch_places"]
    assert after["patch_places"][: after["num_first"]] == before["patch_places"][: before["num_first"]]


def test_a_code_that_no_image_uses(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    dead = int((encoded.counts() == 0).nonzero()[0])
    explorer.select(dead)
    assert explorer.detail["count"] == 0 and explorer.detail["patches"] == b""
    assert explorer.figure() is not None


def test_a_code_that_there_is_not_is_a_sentence(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    before = explorer.detail["code"]
    explorer.select(512)
    assert explorer.message == "There is no code 512: codes are 0 to 511." and explorer.detail["code"] == before
    explorer.select(3)
    assert explorer.message == "" and explorer.detail["code"] == 3


def test_every_level_has_its_map() -> None:
    explorer = CodebookExplorer(two_levels())
    first = explorer.counts
    explorer.level = 1
    assert explorer.counts != first and explorer.detail["level"] == 1
    explorer.level = 2
    assert explorer.message == "There is no level 2: levels are 0 to 1."


def test_the_atlas_holds_every_code_at_its_index(encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    explorer.show_atlas()
    atlas, columns, side = png(explorer.atlas), explorer.columns, explorer.tile
    for code in (0, 77, 511):
        row, column = divmod(code, columns)
        cell = atlas[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert np.array_equal(cell, explorer.tiles()[code].permute(1, 2, 0).numpy())
    by_count = explorer.poster("count")
    most = int(encoded.counts().argmax())
    assert torch.equal(by_count[:4, :4], explorer.tiles()[most].permute(1, 2, 0))
    with pytest.raises(ValueError, match="order is 'size', but must be one of index, count, similarity"):
        explorer.poster("size")


def test_decoding_the_atlas_is_said_and_a_failure_too(encoded: EncodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = CodebookExplorer(encoded)
    said: list[Any] = []
    explorer.observe(lambda change: said.append(change.new), names=["message", "decoding"])

    def fail(*_given: Any, **_options: Any) -> Any:
        raise RuntimeError("CUDA out of memory.\nTried to allocate")

    with monkeypatch.context() as patched:
        patched.setattr(module, "decode_alone", fail)
        explorer._handle_custom_msg({"do": "atlas"}, [])  # what the page sends
    sentence = "The codes could not be decoded. RuntimeError: CUDA out of memory."
    assert said == ["Decoding 512 codes …", True, False, sentence] and not explorer.atlas
    explorer.show_atlas()
    assert explorer.message == "" and explorer.atlas and not explorer.decoding


def test_a_large_atlas_is_made_smaller_part_by_part(encoded: EncodedImages, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = CodebookExplorer(encoded)
    monkeypatch.setattr(module, "LARGEST_ATLAS", 2 * explorer.columns)
    alive: list[int] = []

    def parts(_tokenizer: Any, codes: Tensor, *, level: int) -> Iterator[Tensor]:
        held = []
        for code in codes.split(64):
            alive.append(sum(reference() is not None for reference in held))
            made = torch.full((len(code), 3, 4, 4), 7 * level + int(code[0]) // 64, dtype=torch.uint8)
            held.append(weakref.ref(made))
            yield made
            del made

    monkeypatch.setattr(module, "decode_alone", parts)
    explorer.show_atlas()
    assert explorer.tile == 2 and max(alive) <= 1  # at most the last one is still held
    atlas, columns = png(explorer.atlas), explorer.columns
    assert [int(atlas[2 * (code // columns), 2 * (code % columns), 0]) for code in (0, 64, 511)] == [0, 1, 7]


@pytest.mark.parametrize("widget", [CodebookExplorer, CodebookSpace, PlaceExplorer])
def test_without_a_kernel_it_is_a_picture_with_a_text(widget: Any, encoded: EncodedImages) -> None:
    shown = widget(encoded)
    data, metadata = shown._repr_mimebundle_()
    assert data["text/plain"] == repr(shown) and shown.description in repr(shown)
    assert metadata["image/png"]["alt"] == shown.description
    picture = png(base64.b64decode(data["image/png"]))
    assert min(picture.shape[:2]) > 200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("widget", [CodebookExplorer, CodebookSpace, PlaceExplorer])
def test_what_cannot_be_opened_is_a_sentence(widget: Any, tmp_path: Path) -> None:
    refused = open_encoded(tmp_path, "photos")
    assert isinstance(refused, Refusal) and "There is no tokenizer in" in repr(refused)
    shown = widget(refused)
    assert shown.message == refused.sentence and shown.figure() is None
    data, _ = shown._repr_mimebundle_()
    assert refused.sentence in data["text/plain"] and "image/png" not in data


def test_places_name_their_codes(encoded: EncodedImages) -> None:
    places = PlaceExplorer(encoded)
    codes, counts, perplexity = encoded.codes_by_place(10)
    assert places.selected == int(perplexity.argmin())
    places.selected = 37
    named = int((codes.reshape(256, -1)[37] >= 0).sum())
    assert png(places.tiles).shape == (4, 4 * named, 3)
    places.selected = 256
    assert places.message == "There is no place 256: places are 0 to 255."
    refused = PlaceExplorer(encoded, level=3)
    assert refused.message == "There is no level 3: levels are 0 to 0." and refused.figure() is None


def _tokens_of_another(folder: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    options = {"codebook_size": 1024, "codebook_dim": 4}
    other = VisualTokenizer(network_options={"hidden_dim": 8}, quantizer_options=options, image_size=64)
    encode_dataset(other, "photos", folder / "tokens", split="test", device="cpu", progress=False)
    return {"tokens": folder / "tokens"}


WRONG = {
    "a run without a tokenizer": (lambda folder: {"tokenizer": folder}, "There is no tokenizer in"),
    "images of another size": (
        lambda folder: {"dataset": torch.zeros(2, 3, 62, 62)},
        "image_size 62 is not divisible by the downsample factor 4 of 'simple_cnn'; the nearest that is: 64.",
    ),
    "another size asked for": (lambda folder: {"image_size": 70}, "image_size 70 is not divisible"),
    "no images": (lambda folder: {"dataset": torch.zeros(0, 3, 64, 64)}, "There are no images to look at"),
    "a dataset that is not there": (lambda folder: {"dataset": "celeba", "data_root": folder / "x"}, "does not exist"),
    "tokens of another codebook": (_tokens_of_another, "of another tokenizer"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_a_sentence_in_every_widget(case: str, tmp_path: Path) -> None:
    make, sentence = WRONG[case]
    given = {"tokenizer": EXAMPLE_RUN, "dataset": "photos", "device": "cpu", "progress": False} | make(tmp_path)
    refused = open_encoded(given.pop("tokenizer"), given.pop("dataset"), **given)
    assert isinstance(refused, Refusal) and sentence in refused.sentence
    for widget in (CodebookExplorer, CodebookSpace, PlaceExplorer, TokenEditor, ReconstructionViewer):
        assert widget(refused).message == refused.sentence
    assert refused.sentence in RunComparison(refused, refused).message
    editor = TokenEditor(refused)
    editor.select(0, 0, 1, 1)  # as 03_codebook does
    editor.swap()
    assert editor.message == refused.sentence
