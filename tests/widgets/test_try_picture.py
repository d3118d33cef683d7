"""Laws of `TryPicture`. (`tests/browser/test_try_picture_js.py` has its script, `test_try_picture_in_lab.py` both.)"""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vistok import widgets
from vistok.data.transforms import CenterSquare
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN
from vistok.tokenizer import VisualTokenizer
from vistok.widgets import TryPicture, pictures
from vistok.widgets.pictures import MAX_PIXELS, picture_of
from vistok.widgets.try_picture import _titles
from vistok.widgets.view import Refusal


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
    return Image.fromarray(values.squeeze(2) if len(mode) == 1 else values, mode)


def tokenizer(image_size: int = 16, **options: Any) -> VisualTokenizer:
    torch.manual_seed(image_size)
    kind = options.pop("quantizer", "vq")
    options = options or {"codebook_size": 32, "codebook_dim": 4}
    return VisualTokenizer(
        network_options={"hidden_dim": 16}, quantizer=kind, quantizer_options=options, image_size=image_size
    ).eval()


@pytest.fixture
def view() -> TryPicture:
    return TryPicture(tokenizer(16), tokenizer(32), picture=noise(70, 50))


def pixels_of(png: bytes) -> torch.Tensor:
    """Return the image of a PNG file, uint8 [3, H, W]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB"))).permute(2, 0, 1)


def test_it_begins_with_a_photograph_and_names_rows() -> None:
    view = TryPicture(EXAMPLE_RUN, COLLAPSED_RUN, device="cpu")
    assert view.message == "" and view.picture_size == [451, 300] and "chelsea.png" in view.picture_name
    assert [facts["title"] for facts in view.tokenizers] == ["ema-d4", "vq-d64"]
    assert view.tokenizers[0]["bits"] == 256 * 9 and view.tokenizers[0]["bits_per_pixel"] == 256 * 9 / 64**2
    data, metadata = view._repr_mimebundle_()
    assert "256 tokens, 2,304 bits or 0.56 a pixel" in data["text/plain"]
    assert metadata["image/png"]["alt"] == view.description
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 150  # of a palette of 256


def test_each_tokenizer_gets_the_square_of_an_evaluation_and_decodes_its_own_tokens(view: TryPicture) -> None:
    for number, (seen, made) in enumerate(zip(view.seen, view.reconstructions, strict=True)):
        own = view._trials[number].tokenizer
        expected = torch.from_numpy(CenterSquare(own.image_size).render(0, noise(70, 50)).copy()).permute(2, 0, 1)
        assert torch.equal(pixels_of(seen), expected)
        decoded = own.decode(own.encode(expected[None].float() / 127.5 - 1))[0]
        assert torch.equal(pixels_of(made), decoded.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8))
        error = (expected.double() - view.decoded[number].double()).square().mean()
        assert view.psnr[number] == pytest.approx(10 * math.log10(255**2 / error))


def test_captions_tell_tokenizers_apart() -> None:
    assert _titles(["a", "b"]) == ["a", "b"] and _titles(["tokenizer"] * 2) == ["tokenizer 1", "tokenizer 2"]
    run = "vq-laptop-photos-s0-01234567"
    assert _titles([run]) == ["vq"] and _titles([run, run]) == ["vq 1", "vq 2"]
    assert _titles([run, "vq-laptop-photos-s1-89abcdef"]) == ["vq, seed 0", "vq, seed 1"]


@pytest.mark.parametrize("size", [(2000, 1501), (1601, 3001), (64, 64), (9000, 20)])
def test_a_large_picture_is_kept_small_and_seen_the_same(size: tuple[int, int]) -> None:
    given = noise(*size)
    kept = picture_of(given, short=64)
    assert kept.size == size and kept.image.width * kept.image.height <= MAX_PIXELS and min(kept.image.size) < 128
    seen = kept.square(16).permute(1, 2, 0).numpy()
    assert np.array_equal(seen, CenterSquare(16).render(0, given))


def test_the_square_is_moved_and_stays_inside(view: TryPicture) -> None:
    before = view.seen[0]
    view.crop_to(0, 0, 32)
    assert view.crop == [0, 0, 32] and view.seen[0] != before
    corner = CenterSquare(16).render(0, noise(70, 50).crop((0, 0, 32, 32)))
    assert np.array_equal(pixels_of(view.seen[0]).permute(1, 2, 0).numpy(), corner)
    view.crop_to(1e6, -5, 1)
    assert view.crop == [70 - 16, 0, 16]
    view.crop_to(10, 0, 50)
    assert view.crop == [10, 0, 50] and view.seen[0] == before


def test_the_whole_picture_is_seen_whatever_its_shape(view: TryPicture) -> None:
    square = view.seen[0]
    view.see_whole()
    assert view.message == "" and view.whole
    sizes = [tuple(pixels_of(seen).shape[1:]) for seen in view.seen]
    assert sizes == [
        (16, 20),
        (32, 44),
    ]  # 70 x 50: the short side of the tokenizer's size, the other cut to tokens of 4 pixels
    halved = np.asarray(noise(70, 50).resize((35, 25), Image.Resampling.BOX).resize((22, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(pixels_of(view.seen[0]).permute(1, 2, 0).numpy(), halved[:, 1:21])
    assert view.grid == [4, 5]
    facts = view.tokenizers[0]
    assert (facts["size"], facts["num_tokens"], facts["bits"]) == ([16, 20], 20, 100)
    assert facts["bits_per_pixel"] == 100 / 320 and "the whole of it, as 4 x 5 tokens" in view.description
    assert view.figure() is not None
    view.select(0, 4, 1, 5)
    view.replace((int(view.tokens[0, 4]) + 1) % 32)
    assert view.decoded[0].shape == (3, 16, 20) and "1 token is not as encoded" in view.description
    view.see_whole(False)
    assert view.seen[0] == square and view.grid == [4, 4] and view.tokenizers[0]["num_tokens"] == 16
    view.see_whole()
    view.crop_to(0, 0, 32)  # who chooses a square wants one
    assert not view.whole and view.grid == [4, 4]
    view.see_whole()
    view.show(noise(40, 40))
    assert not view.whole


def test_a_picture_too_long_or_a_network_of_one_size_keeps_the_square(view: TryPicture) -> None:
    view.show(noise(500, 40))
    square = view.seen[0]
    view.see_whole()
    assert (
        "your picture has 500 x 40 pixels, and is seen whole where its longer side is at most 8 times" in view.message
    )
    assert not view.whole and view.seen[0] == square and view.decoded[1].shape == (3, 32, 32)
    options = {"hidden_dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 16, "patch_size": 4, "positions": "learned"}
    codes = {"codebook_size": 32, "codebook_dim": 4}
    fixed = VisualTokenizer(network="vit", network_options=options, quantizer_options=codes, image_size=16).eval()
    both = TryPicture(tokenizer(16), fixed, picture=noise(70, 50))
    both.see_whole()
    assert "has no learned positions" in both.message and not both.whole
    assert [tuple(made.shape) for made in both.decoded] == [(3, 16, 16)] * 2


def test_a_token_is_changed_in_the_tokenizer_that_is_chosen(view: TryPicture) -> None:
    before = list(view.reconstructions)
    view.select(1, 1, 3, 3)
    view.replace((int(view.tokens[1, 1]) + 1) % 32)
    assert view.reconstructions[0] != before[0] and view.reconstructions[1] == before[1]
    changed = view.reconstructions[0]
    view.look_at(tokenizer=1)
    assert view.active == 1 and view.grid == [8, 8] and view.selection == [0, 0, 1, 1] and not view.can_undo
    view.replace(99)
    assert view.message == "There is no code 99: codes are 0 to 31."
    view.look_at(tokenizer=0)
    assert view.can_undo and view.reconstructions[0] == changed
    view.undo()
    assert list(view.reconstructions) == before
    view.look_at(tokenizer=2)
    assert view.message == "There is no tokenizer 2: they are 0 to 1."


def test_levels_are_changed_one_by_one() -> None:
    several = tokenizer(16, quantizer="residual", codebook_size=8, codebook_dim=4, num_levels=2, member="vq")
    view = TryPicture(several, picture=noise(20, 20))
    assert view.codebook_sizes == [8, 8] and view.tokenizers[0]["bits"] == 2 * 16 * 3
    before = view.reconstructions[0]
    view.look_at(level=1)
    view.replace((int(view.tokens[0, 0]) + 1) % 8)
    assert view.reconstructions[0] != before
    view.look_at(level=2)
    assert view.message == "There is no level 2: levels are 0 to 1."


def test_the_page_sends_pixels_and_gets_its_answer(view: TryPicture) -> None:
    width, height = 40, 30
    data = noise(width, height).tobytes()
    asked = {"do": "take", "width": width, "height": height, "name": "mine.jpg", "size": [4000, 3000]}
    view._asked(view, asked, [memoryview(data)])
    assert view.answered == 1 and view.message == ""
    assert view.picture_name == "mine.jpg" and view.picture_size == [4000, 3000] and view.extent == [40, 30]
    shown = view.seen[0]
    view._asked(view, asked, [memoryview(data[:-1])])
    assert view.answered == 2 and view.seen[0] == shown
    assert view.message == "mine.jpg did not arrive whole: 3,599 bytes of 40 x 30 pixels."
    view._asked(view, {"do": "show", "picture": "/etc/hostname"}, [])  # what the page may not ask for
    assert view.answered == 3 and view.seen[0] == shown


def test_the_first_reconstruction_does_not_wait_for_the_others(
    view: TryPicture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    take = type(view._trials[1]).take

    def slow(trial: Any, picture: Any) -> None:
        if trial is view._trials[1]:
            seen.append([bool(made) for made in view.reconstructions])
        take(trial, picture)

    monkeypatch.setattr(type(view._trials[1]), "take", slow)
    sent: list[set[str]] = []
    monkeypatch.setattr(view, "send_state", lambda key=None: sent.append(set(key or [])))
    view.show(noise(33, 33))
    assert seen == [[True, False]]
    assert all(view.reconstructions) and sum("reconstructions" in names for names in sent) == 2


GIVEN = {
    "grey file": lambda folder: saved(noise(30, 20, "L"), folder / "grey.png"),
    "animation": lambda folder: saved(noise(30, 20), folder / "a.gif", save_all=True, append_images=[noise(30, 20)]),
    "Pillow, with alpha": lambda folder: noise(30, 20, "RGBA"),
    "Pillow, 16 bits": lambda folder: Image.fromarray(np.full((20, 30), 0x8080, np.uint16)),
    "Pillow, 32 bits": lambda folder: Image.fromarray(np.full((20, 30), 0x8080, np.int32)),
    "bfloat16 [3, H, W]": lambda folder: torch.full((3, 20, 30), -1, dtype=torch.bfloat16),
    "Pillow, a palette": lambda folder: noise(30, 20).convert("P"),
    "uint8 [3, H, W]": lambda folder: torch.zeros(3, 20, 30, dtype=torch.uint8),
    "uint8 [H, W, 3]": lambda folder: np.zeros((20, 30, 3), np.uint8),
    "uint8 [H, W]": lambda folder: np.zeros((20, 30), np.uint8),
    "float [1, 3, H, W]": lambda folder: torch.full((1, 3, 20, 30), -1.0, dtype=torch.float64),
    "float [H, W, 4]": lambda folder: np.zeros((20, 30, 4), np.float16),
}


def saved(image: Image.Image, path: Path, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


@pytest.mark.parametrize("kind", GIVEN)
def test_pictures_of_all_kinds_are_taken(view: TryPicture, kind: str, tmp_path: Path) -> None:
    view.show(GIVEN[kind](tmp_path))
    assert view.message == "" and view.picture_size == [30, 20]
    if "[" in kind and "4]" not in kind:
        assert pixels_of(view.seen[0]).max() == 0
    elif "bits" in kind:
        assert pixels_of(view.seen[0]).unique().tolist() == [0x80]  # as a file of them
    elif "4]" in kind:
        assert pixels_of(view.seen[0]).min() == 255  # transparent: white


def test_a_photograph_is_shown_as_the_camera_was_held(view: TryPicture, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    for name, mode in (("turned.jpg", "RGB"), ("turned.png", "RGBA"), ("turned.tif", "RGB")):
        noise(30, 20, mode).save(tmp_path / name, exif=exif)
        for given in (tmp_path / name, Image.open(tmp_path / name)):
            view.show(noise(8, 8))
            view.show(given)
            assert view.message == "" and view.picture_size == [20, 30], name
    noise(30, 20).save(tmp_path / "broken.png", exif=b"no tags at all")
    for given in (tmp_path / "broken.png", Image.open(tmp_path / "broken.png")):
        view.show(noise(8, 8))
        view.show(given)
        assert view.message == "" and view.picture_size == [30, 20]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nowhere.png", "There is no picture nowhere.png."),
        (".", ". is a folder; a picture is one file of it."),
        ("", "which is empty"),
        (3, "A picture is a file, an image of Pillow, a tensor or an array, not int."),
        (Image.new("F", (8, 8)), "floating-point pixels have no known range"),
        (torch.zeros(2, 3, 8, 8), "not float32 [2, 3, 8, 8]."),
        (torch.zeros(3, 8, 8, dtype=torch.int64), "not int64 [3, 8, 8]."),
        (torch.full((3, 8, 8), 255.0), "Floats with channels first are in [-1, 1], but these reach from 255 to 255."),
        (np.full((8, 8), np.nan), "these reach from nan to nan."),
        (np.zeros((0, 8, 3), np.uint8), "not uint8 [0, 8, 3]."),
    ],
)
def test_what_is_no_picture_is_said_and_the_former_stays(view: TryPicture, given: Any, sentence: str) -> None:
    before = view.seen[0]
    view.show(given)
    assert sentence in view.message and view.seen[0] == before
    json.dumps(view.get_state(), default=str)


def test_a_file_that_is_no_picture(view: TryPicture, tmp_path: Path) -> None:
    for name, content in (("notes.png", b"text"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        view.show(tmp_path / name)
        assert view.message.startswith(f"The image {name} cannot be decoded: ")


def test_what_cannot_be_loaded_is_left_out_with_its_reason() -> None:
    view = TryPicture(tokenizer(), "runs/nowhere", Refusal("There is no second one."), picture="nowhere.png")
    assert len(view.tokenizers) == 1 and view.picture_size == [451, 300]  # and the photograph is shown
    for part in ("There is no picture nowhere.png.", "nowhere", "There is no second one."):
        assert part in view.message
    uncoded = VisualTokenizer(quantizer="kl", quantizer_options={"codebook_dim": 4}, image_size=16)
    for first in ("runs/nowhere", Refusal("There are no images."), 3, uncoded):
        view = TryPicture(first, tokenizer())
        assert view.tokenizers == [] and view.figure() is None and view.message
        view.show(noise(9, 9))  # nothing to show it to: the reason stays
        assert view.extent == [0, 0] and view.message


def test_without_scikit_image_it_waits_for_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(split: str) -> None:
        raise ValueError("The dataset 'photos' is shipped by scikit-image, which is not installed.")

    monkeypatch.setattr(pictures, "photos", lacking)
    view = TryPicture(tokenizer())
    assert "not installed" in view.message and view.figure() is None
    view.replace(1)
    assert view.message == "There is no picture yet: drop one, paste one or choose a file."
    view.show(noise(20, 20))
    assert view.message == "" and all(view.reconstructions)


def test_an_opened_dataset_gives_its_tokenizer() -> None:
    opened = widgets.open_encoded(tokenizer(), noise_images(), device="cpu", progress=False)
    view = TryPicture(opened, picture=noise(20, 20))
    assert view._trials[0].tokenizer is opened.tokenizer


def noise_images() -> torch.Tensor:
    return torch.from_numpy(np.array(noise(16, 16))).permute(2, 0, 1)[None].contiguous()
