"""Laws of the viewers: reconstructions, comparison, token editor. (`tests/browser/test_viewers_js.py` has their scripts.)"""

import base64
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vistok.runs import EXAMPLE_RUN
from vistok.system import progress
from vistok.tokenizer import VisualTokenizer
from vistok.tokens.codebook import nearest_codes
from vistok.tokens.encoded import EncodedImages
from vistok.widgets import CodebookExplorer, CodebookSpace, TryPicture, reconstructions, show_maps
from vistok.widgets.comparison import RunComparison
from vistok.widgets.editor import NEAREST, TokenEditor
from vistok.widgets.reconstructions import THUMBNAIL, ReconstructionViewer, error_map
from vistok.widgets.view import Refusal, View

REACH = 4  # tokens: 3 of the decoder's 3 x 3 convolutions before it enlarges, and less than 1 after


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    return EncodedImages.open(str(EXAMPLE_RUN), "photos", max_images=16, device="cpu", progress=False)


@pytest.fixture
def editor(encoded: EncodedImages) -> TokenEditor:
    return TokenEditor(encoded, 2, 5)


def small(quantizer: str, options: dict, *, number: int = 3) -> EncodedImages:
    """Random images of 16 x 16 pixels by a tokenizer with random weights."""
    torch.manual_seed(0)
    tokenizer = VisualTokenizer(
        network_options={"hidden_dim": 16}, quantizer=quantizer, quantizer_options=options, image_size=16
    )
    images = torch.randint(0, 256, (number, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return EncodedImages.open(tokenizer, images, device="cpu", progress=False)


def pixels_of(png: bytes) -> torch.Tensor:
    """Return the image of a PNG file, uint8 [3, H, W]."""
    return torch.from_numpy(np.array(Image.open(io.BytesIO(png)).convert("RGB"))).permute(2, 0, 1)


MAKERS: list[Callable[[EncodedImages | Refusal], View]] = [
    ReconstructionViewer,
    lambda encoded: RunComparison(encoded, encoded),
    TokenEditor,
]


@pytest.mark.parametrize("make", MAKERS)
def test_without_a_kernel_there_are_numbers_and_a_picture(encoded: EncodedImages, make: Callable) -> None:
    widget = make(encoded)
    assert widget.message == ""
    data, metadata = widget._repr_mimebundle_()
    assert "16 x 16 tokens" in data["text/plain"] or "dB" in data["text/plain"]
    assert data["text/plain"].endswith(widget.description) and metadata["image/png"]["alt"] == widget.description
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGBA")
    assert picture.width >= 1200 and picture.width == 2 * metadata["image/png"]["width"]  # sharp on dense screens
    assert len(picture.getcolors(1 << 24)) > 150


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [(16, 48), (96, 16)])
def test_pictures_that_are_no_squares_are_shown_as_they_are(make: Callable, size: tuple[int, int]) -> None:
    tokenizer = small("vq", {"codebook_size": 512, "codebook_dim": 4}).tokenizer
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    widget = make(EncodedImages.open(tokenizer, images, device="cpu", progress=False))
    assert widget.message == "" and "image/png" in widget._repr_mimebundle_()[0]
    assert torch.equal(pixels_of(widget.original), images[widget.image])
    if isinstance(widget, TokenEditor):
        widget.select(1, 2, 3, 4)
        assert widget.grid == [size[0] // 4, size[1] // 4] and widget.selection == [1, 2, 3, 4]
        widget.replace((int(widget.tokens[1, 2]) + 1) % 512)
        assert widget.change.startswith("4 tokens are not as encoded.")
    if isinstance(widget, ReconstructionViewer):
        high, wide = pixels_of(widget.thumbnails).shape[1:]
        assert (high, wide / 2) == tuple(side * min(1, THUMBNAIL / max(size)) for side in size)


def test_tokenizers_of_any_name_are_shown() -> None:
    few = small("vq", {"codebook_size": 8, "codebook_dim": 4})
    named = EncodedImages(few.tokenizer, few.pixels(range(3)), few.indices(range(3)), name="$x_$")
    makers = [*MAKERS, CodebookExplorer, CodebookSpace, lambda encoded: TryPicture(encoded, picture=few.pixels([0])[0])]
    for make in makers:
        assert "image/png" in make(named)._repr_mimebundle_()[0]
    show_maps(named, few)


@pytest.mark.parametrize("make", MAKERS)
def test_images_of_any_name_are_shown(make: Callable, tmp_path: Path) -> None:
    for name in (b"caf\xe9.png", b"$x_$y_$.png", b"$\\frac$.png", "日本 $1$.png".encode()):
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            Image.effect_noise((24, 24), 90).save(file, "PNG")
    tokenizer = small("vq", {"codebook_size": 8, "codebook_dim": 4}).tokenizer
    encoded = EncodedImages.open(
        tokenizer, "folder", data_root=tmp_path, test_fraction=0.9, device="cpu", progress=False
    )
    widget = make(encoded)
    for image in range(len(encoded)):
        widget.image = image
        data, _ = widget._repr_mimebundle_()
        json.dumps(widget.get_state(), default=str, ensure_ascii=False).encode()
        data["text/plain"].encode()
        assert "image/png" in data


@pytest.mark.parametrize("make", MAKERS)
def test_a_refusal_is_said_and_nothing_shown(make: Callable) -> None:
    widget = make(Refusal("There are no images."))
    assert widget.message == "There are no images." and widget.figure() is None
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"].endswith(": There are no images.") and "image/png" not in data


# ReconstructionViewer.


def test_the_worst_image_is_shown_first(encoded: EncodedImages) -> None:
    viewer = ReconstructionViewer(encoded)
    psnr = encoded.psnr(range(16))
    assert viewer.image == psnr.argmin() and f"{psnr.min():.1f} dB" in viewer.description
    assert np.allclose(np.frombuffer(viewer.psnr, "<f4"), psnr)
    assert torch.equal(pixels_of(viewer.original), encoded.pixels([viewer.image])[0])
    assert torch.equal(pixels_of(viewer.reconstruction), encoded.reconstructions([viewer.image])[0])
    assert pixels_of(viewer.thumbnails).shape == (3, THUMBNAIL, 16 * THUMBNAIL)


def test_another_image_is_shown(encoded: EncodedImages) -> None:
    viewer = ReconstructionViewer(encoded, max_images=5)
    assert len(viewer.names) == 5
    viewer.image = 3
    assert torch.equal(pixels_of(viewer.reconstruction), encoded.reconstructions([3])[0])
    assert "Image 3 of 5" in viewer.description
    viewer.image = 5
    assert viewer.message == "There is no image 5: images are 0 to 4." and viewer.image == 3
    viewer.image = 0
    assert viewer.message == ""
    assert ReconstructionViewer(encoded, max_images=0).message == "max_images is 0, but must be at least 1."


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_lens_that_is_nowhere_is_refused(encoded: EncodedImages, wrong: float) -> None:
    viewer = ReconstructionViewer(encoded, max_images=2)
    viewer.lens = [wrong, 0]
    assert viewer.message == f"lens is [{wrong:g}, 0], but must be two numbers: row and column of its centre in pixels."
    assert viewer.lens == [32, 32] and viewer.figure() is not None
    viewer.lens = [-1e9, 1e9]  # beyond the edge is the edge
    assert viewer.message == "" and viewer.figure() is not None


@pytest.mark.parametrize("make", [ReconstructionViewer, lambda encoded: RunComparison(encoded, encoded)])
def test_a_bar_is_shown_while_many_images_are_decoded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, make: Callable
) -> None:
    images = small("fsq", {"levels": [5, 5, 5]}, number=9)
    make(images)
    assert capsys.readouterr().err == ""  # in no time
    monkeypatch.setattr(reconstructions, "PATIENCE_SECONDS", 0)
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0)
    monkeypatch.setattr(progress, "UPDATE_SECONDS", 0)
    widget = make(images)
    assert "decoding: 4 of 9 images" in capsys.readouterr().err
    assert np.array_equal(np.frombuffer(widget.psnr, "<f4")[:9], images.psnr(range(9)).astype("<f4"))


def test_the_error_is_the_mean_over_channels() -> None:
    black, colour = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8)
    colour[0], colour[1, 0, 0] = 51, 102
    assert error_map(black, colour) == pytest.approx(np.array([[0.2, 1 / 15], [1 / 15, 1 / 15]]))
    assert np.array_equal(error_map(black, colour), error_map(colour, black))


# RunComparison.


def test_the_table_has_the_numbers_of_both(encoded: EncodedImages) -> None:
    levels = torch.from_numpy(encoded.tokens[0].astype(np.int64))
    other = EncodedImages(encoded.tokenizer, encoded._images, levels % 8, name="eight codes")
    comparison = RunComparison(encoded, other)
    assert comparison.message == ""
    rows = {row[0]: row[1:] for row in comparison.table}
    assert rows[""] == ["ema-d4", "eight codes", "difference"]  # a run by its row, without the digits of its settings
    usage = encoded.usage()
    share = 100 * usage["usage"]
    assert rows["usage, % of codes"] == [f"{share:.1f}", "1.6", f"{100 * 8 / 512 - share:+.1f}"]
    assert rows["perplexity, codes"][0] == f"{usage['perplexity']:.1f}"
    means = [float(each.psnr(range(16)).mean()) for each in (encoded, other)]
    assert rows["mean PSNR of 16 images, dB"] == [f"{means[0]:.2f}", f"{means[1]:.2f}", f"{means[1] - means[0]:+.2f}"]
    comparison.image = 7
    assert torch.equal(pixels_of(comparison.first), encoded.reconstructions([7])[0])
    assert torch.equal(pixels_of(comparison.second), other.reconstructions([7])[0])
    assert f"{encoded.psnr([7])[0]:.1f} dB and {other.psnr([7])[0]:.1f} dB" in comparison.description
    comparison.image = 99
    assert comparison.message == "There is no image 99: images are 0 to 15." and comparison.image == 7
    comparison.share = 1.5
    assert comparison.message == "share is 1.5, but must be in 0 to 1." and comparison.share == 0.5
    comparison.share = 0.25
    assert comparison.message == "" and comparison.share == 0.25


def test_other_images_are_refused(encoded: EncodedImages) -> None:
    fewer = EncodedImages(encoded.tokenizer, encoded._images, encoded.indices(range(4)), name="fewer")
    comparison = RunComparison(encoded, fewer)
    assert comparison.figure() is None
    assert "has 16 images of photos test of 64 x 64 pixels, but fewer has 4 images" in comparison.message
    smaller = small("vq", {"codebook_size": 8, "codebook_dim": 4})
    assert "3 images of images of 16 x 16 pixels" in RunComparison(encoded, smaller).message
    moved = EncodedImages(encoded.tokenizer, encoded.pixels(range(16)).flip(0), encoded.indices(range(16)))
    said = RunComparison(encoded, moved).message
    assert said.startswith(
        "The images are not the same: as many and as large, but 16 of the 16 differ, the first is image 0."
    )
    both = RunComparison(Refusal("One."), Refusal("Two."))
    assert both.message == "One. Two."


def test_codebooks_of_several_levels_are_compared(encoded: EncodedImages) -> None:
    one = small("vq", {"codebook_size": 8, "codebook_dim": 4})
    three = small("residual", {"codebook_size": 8, "codebook_dim": 4, "num_levels": 3})
    comparison = RunComparison(one, three)
    rows = {row[0]: row[1:] for row in comparison.table}
    assert rows["codes"][:2] == ["8", "8 + 8 + 8"]
    mean = np.mean([three.usage(level)["perplexity"] for level in range(3)])
    assert rows["perplexity, codes (mean of codebooks)"][1] == f"{mean:.1f}"
    assert comparison.names == ["tokenizer (first)", "tokenizer (second)"]


# TokenEditor.


def test_a_replaced_token_changes_the_picture_there_and_nowhere_far(
    encoded: EncodedImages, editor: TokenEditor
) -> None:
    before = editor.decoded
    assert torch.equal(before, encoded.reconstructions([2])[0])
    code = (int(editor.tokens[8, 3]) + 100) % 512
    editor.select(8, 3, 9, 4)
    editor.replace(code)
    assert editor.message == ""
    expected = encoded.indices([2])[0][0].numpy()
    expected[8, 3] = code
    assert np.array_equal(editor.tokens, expected) and editor.tokens.dtype == np.int64
    difference = editor.difference.amax(0)
    assert difference[32:36, 12:16].max() > 1
    rows, columns = difference.nonzero(as_tuple=True)
    factor = 4
    assert (8 - REACH) * factor <= rows.min() and rows.max() < (9 + REACH) * factor
    assert columns.max() < (4 + REACH) * factor
    assert torch.equal(pixels_of(editor.decoded_png), editor.decoded)
    assert torch.equal(pixels_of(editor.before), before)
    assert np.frombuffer(editor.edited, np.uint8).reshape(16, 16).nonzero() == (np.array([8]), np.array([3]))
    assert np.array_equal(np.frombuffer(editor.token_values, "<u4").reshape(16, 16), expected)


def test_the_change_in_words_is_right(editor: TokenEditor) -> None:
    assert editor.change == "All tokens are as encoded. No pixel differs from the image decoded before any edit."
    editor.select(0, 0, 2, 2)
    editor.replace(int(editor.tokens[15, 15]))
    editor.select(14, 14, 15, 15)
    editor.replace((int(editor.tokens[14, 14]) + 9) % 512)
    difference = editor.difference.amax(0).numpy()
    changed = difference > 1
    tokens = int((editor.tokens != editor._edits.first.mine[0][0].numpy()).sum())
    assert f"{tokens} tokens are not as encoded." in editor.change
    assert (
        f"{changed.sum():,} of 4,096 pixels changed by more than 1/255, at most by {difference.max()}/255."
        in editor.change
    )
    farthest = 0
    edited = np.argwhere(editor._edited_pixels())
    for place in np.argwhere(changed):
        farthest = max(farthest, np.abs(edited - place).max(1).min())
    assert f"lies {farthest / 4:.2f} tokens" in editor.change
    assert editor.change in editor.description


def test_undo_and_reset(editor: TokenEditor) -> None:
    before, tokens = editor.decoded, editor.tokens
    assert not editor.can_undo
    editor.undo()
    assert editor.message == "There is nothing to undo."
    editor.replace(1)
    after_one = editor.decoded
    editor.select(4, 4, 8, 8)
    editor.replace(2)
    editor.undo()
    assert torch.equal(editor.decoded, after_one) and editor.message == ""
    editor.swap()
    editor.interpolate(0.3)
    editor.interpolate(0.6)
    editor.undo()  # the slider's way is one change
    assert editor.share == 0
    editor.undo()
    editor.undo()
    assert torch.equal(editor.decoded, before) and np.array_equal(editor.tokens, tokens) and not editor.can_undo
    editor.replace(3)
    editor.swap()
    editor.reset()
    assert torch.equal(editor.decoded, before) and np.array_equal(editor.tokens, tokens) and not editor.can_undo


def test_swapping_twice_is_nothing(encoded: EncodedImages, editor: TokenEditor) -> None:
    mine, theirs, before = editor.tokens, editor.other_tokens, editor.decoded
    editor.select(2, 3, 7, 9)
    editor.swap()
    assert np.array_equal(editor.tokens[2:7, 3:9], theirs[2:7, 3:9])
    assert np.array_equal(editor.other_tokens[2:7, 3:9], mine[2:7, 3:9])
    outside = np.ones((16, 16), dtype=bool)
    outside[2:7, 3:9] = False
    assert np.array_equal(editor.tokens[outside], mine[outside])
    assert not torch.equal(editor.decoded, before)
    assert not torch.equal(pixels_of(editor.other_decoded), encoded.reconstructions([5])[0])
    editor.swap()
    assert np.array_equal(editor.tokens, mine) and np.array_equal(editor.other_tokens, theirs)
    assert torch.equal(editor.decoded, before)
    editor.select(0, 0, 16, 16)
    editor.swap()
    assert torch.equal(editor.decoded, encoded.reconstructions([5])[0])


def test_regions_of_two_other_images_are_swapped_in(encoded: EncodedImages, editor: TokenEditor) -> None:
    before = editor.tokens
    five, seven = (encoded.indices([row])[0][0].numpy() for row in (5, 7))
    editor.select(0, 0, 4, 4)
    editor.swap()
    after_one = editor.tokens
    editor.choose(2, 7)
    assert editor.other == 7 and editor.titles[1] == encoded.image_names[7] and editor.can_undo
    assert editor.selection == [0, 0, 4, 4] and np.array_equal(editor.tokens, after_one)
    assert np.array_equal(editor.other_tokens, seven)
    assert torch.equal(pixels_of(editor.other_decoded), encoded.reconstructions([7])[0])
    editor.select(8, 8, 12, 12)
    editor.swap()
    assert np.array_equal(editor.tokens[:4, :4], five[:4, :4])
    assert np.array_equal(editor.tokens[8:12, 8:12], seven[8:12, 8:12])
    editor.undo()
    assert np.array_equal(editor.tokens, after_one) and np.array_equal(editor.other_tokens, seven)
    editor.undo()
    assert np.array_equal(editor.tokens, before) and np.array_equal(editor.other_tokens, seven)
    assert not editor.can_undo
    editor.swap()
    editor.reset()
    assert np.array_equal(editor.other_tokens, seven)
    editor.swap()
    editor.choose(3, 7)  # another image to edit is a fresh start
    assert np.array_equal(editor.other_tokens, seven) and not editor.can_undo


@pytest.mark.parametrize("to_codes", [False, True])
def test_a_mixture_ends_at_both_images(encoded: EncodedImages, editor: TokenEditor, to_codes: bool) -> None:
    editor.interpolate(1, to_codes)
    assert torch.equal(editor.decoded, encoded.reconstructions([5])[0])
    for share in (0.001, 0.999):  # without a jump at the ends
        editor.interpolate(share, to_codes)
        end = encoded.reconstructions([2 if share < 0.5 else 5])[0]
        assert (editor.decoded.int() - end.int()).abs().max() <= (0 if to_codes else 3)
    editor.interpolate(0.5, to_codes)
    middle = editor.decoded
    assert not torch.equal(middle, encoded.reconstructions([2])[0]) and "a share of 0.50" in editor.change
    editor.interpolate(0.5, not to_codes)
    assert not torch.equal(editor.decoded, middle)
    editor.interpolate(0, to_codes)
    assert torch.equal(editor.decoded, encoded.reconstructions([2])[0])


def test_what_cannot_be_done_is_said_and_nothing_changed(encoded: EncodedImages, editor: TokenEditor) -> None:
    before = editor.decoded
    for act, sentence in (
        (lambda: editor.replace(512), "There is no code 512: codes are 0 to 511."),
        (lambda: editor.replace(-1), "There is no code -1: codes are 0 to 511."),
        (lambda: editor.replace(1.5), "Code 1.5 is not a whole number: codes are 0 to 511."),
        (lambda: editor.replace(""), "Code '' is not a whole number: codes are 0 to 511."),
        (lambda: editor.interpolate(2), "share is 2, but must be in 0 to 1."),
        (lambda: editor.choose(16, 0), "There is no image 16: images are 0 to 15."),
        (lambda: editor.choose(0, ""), "There is no image '': images are 0 to 15."),
        (lambda: editor.look_at(1), "There is no level 1: levels are 0 to 0."),
    ):
        act()
        assert editor.message == sentence
        assert torch.equal(editor.decoded, before) and not editor.can_undo and (editor.image, editor.other) == (2, 5)
    editor.select(3, 3, 3, 5)
    assert "rows 3 to 3 and columns 3 to 5" in editor.message and "0 to 16" in editor.message
    assert editor.selection == [0, 0, 1, 1]
    wrong = TokenEditor(encoded, 99)
    assert wrong.message == "There is no image 99: images are 0 to 15." and wrong.image == 0 and wrong.original


def test_the_page_asks_by_messages(encoded: EncodedImages, editor: TokenEditor) -> None:
    def told(**content: object) -> None:
        editor._handle_custom_msg(content, [])

    told(do="select", top=1, left=2, bottom=3, right=4)
    told(do="replace", code=17)
    assert (editor.tokens[1:3, 2:4] == 17).all() and editor.answered == 2
    told(do="replace", code=9999)
    assert editor.message == "There is no code 9999: codes are 0 to 511." and editor.answered == 3
    told(do="interpolate", share=0.25, to_codes=True)
    assert (editor.share, editor.to_codes) == (0.25, True)
    told(do="close")  # only what the buttons do
    assert editor.answered == 5 and editor.comm is not None
    told(do="choose", image=4, other=4)
    assert torch.equal(editor.decoded, encoded.reconstructions([4])[0]) and not editor.can_undo


def test_the_page_gets_its_answer_when_something_breaks(editor: TokenEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(editor, "_decode", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        editor._asked(editor, {"do": "replace", "code": 17}, [])
    assert editor.answered == 1


def test_requests_of_two_threads_wait_for_each_other(editor: TokenEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, waiting, tell = threading.Event(), threading.Event(), editor._tell_tokens

    class Turn:
        """The widget's lock; it tells that somebody has to wait."""

        lock = editor._turn

        def __enter__(self) -> None:
            if not self.lock.acquire(blocking=False):
                waiting.set()
                self.lock.acquire()

        def __exit__(self, *raised: object) -> None:
            self.lock.release()

    def slowly() -> None:
        begun.set()
        waiting.wait(10)
        tell()

    monkeypatch.setattr(editor, "_turn", Turn())
    monkeypatch.setattr(editor, "_tell_tokens", slowly)
    first = threading.Thread(target=editor._handle_custom_msg, args=({"do": "look_at", "level": 0}, []))
    first.start()
    begun.wait(10)
    # JupyterLab sends it to another thread of the kernel.
    editor._handle_custom_msg({"do": "replace", "code": 9999}, [])
    assert waiting.is_set()
    first.join()
    assert editor.message == "There is no code 9999: codes are 0 to 511." and editor.answered == 2


def test_the_nearest_codes_are_offered(encoded: EncodedImages, editor: TokenEditor) -> None:
    editor.select(5, 6, 7, 8)
    code = int(editor.tokens[5, 6])
    found, distances = nearest_codes(encoded.tokenizer.quantizer.codebook, code, NEAREST)
    assert editor.near == [code, *found.tolist()]
    assert editor.near_distances == pytest.approx([0, *distances.tolist()])
    assert pixels_of(editor.near_tiles).shape == (3, 4, 4 * (NEAREST + 1))
    tiles = pixels_of(editor.near_tiles)
    editor.replace(editor.near[1])
    assert editor.near[0] == found[0] and torch.equal(pixels_of(editor.near_tiles)[:, :, :4], tiles[:, :, 4:8])


@pytest.mark.parametrize(
    ("quantizer", "options"),
    [
        ("residual", {"codebook_size": 8, "codebook_dim": 4, "num_levels": 3}),
        ("multiscale", {"codebook_size": 8, "codebook_dim": 4, "scales": [1, 2, 4]}),
    ],
)
def test_levels_are_edited_one_by_one(quantizer: str, options: dict) -> None:
    encoded = small(quantizer, options)
    editor = TokenEditor(encoded, level=1)
    levels = [level[0].astype(np.int64) for level in encoded.tokens]
    assert editor.grid == list(levels[1].shape) and np.array_equal(editor.tokens, levels[1])
    editor.select(0, 0, *editor.grid)
    editor.swap()
    assert np.array_equal(editor.tokens, encoded.tokens[1][1])
    editor.look_at(2)
    assert np.array_equal(editor.tokens, levels[2]) and editor.grid == list(levels[2].shape)
    editor.replace((int(levels[2][0, 0]) + 1) % 8)
    editor.interpolate(0.5, True)
    assert editor.message == "" and editor.figure() is not None
    editor.undo()
    editor.undo()
    editor.undo()
    assert torch.equal(editor.decoded, encoded.reconstructions([0])[0])


def test_one_image_is_its_own_other() -> None:
    editor = TokenEditor(small("fsq", {"levels": [5, 5, 5]}, number=1))
    assert editor.message == "" and editor.other == 0
    before = editor.decoded
    editor.swap()
    assert torch.equal(editor.decoded, before)
