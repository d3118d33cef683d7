"""The scripts of the views of tokens without a grid, beside a model without a kernel: the row, its maps, prefixes, scales.

`VISTOK_LOOK=FOLDER` keeps the photographs of them there, to be looked at by somebody.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser.fake_model import change, open_page, show
from PIL import Image

from vistok.tokenizer import VisualTokenizer
from vistok.tokens.encoded import EncodedImages
from vistok.widgets import CoarseToFine, CodebookExplorer, PlaceExplorer, TokenEditor, TryPicture

NUM_TOKENS, CELL, HIGH = 20, 44, 28
DARK = """:root { --jp-ui-font-color1: #ddd; --jp-ui-font-color2: #aaa; --jp-layout-color1: #111; --jp-layout-color2: #333;
    --jp-border-color1: #555 } body { background: #111 }"""
ROW = "canvas[data-picture=sequence]"
PIXEL = """(canvas, [x, y]) => { const ratio = canvas.width / canvas.getBoundingClientRect().width;
    return Array.from(canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data).slice(0, 3); }"""


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    torch.manual_seed(0)
    options = {"hidden_dim": 32, "depth": 1, "num_heads": 2, "num_tokens": NUM_TOKENS, "patch_size": 4}
    codes = {"codebook_size": 64, "codebook_dim": 4}
    made = VisualTokenizer(network="titok", network_options=options, quantizer_options=codes, image_size=16).eval()
    with torch.no_grad():  # so that the picture follows its tokens before any training
        made.quantizer.weight.normal_()
        made.decoder.from_codes.weight.normal_()
        made.decoder.head.to_patches.weight.normal_(std=0.2)
    return EncodedImages.open(made, "photos", max_images=4, device="cpu", progress=False)


@pytest.fixture(scope="module")
def editor(encoded: EncodedImages) -> TokenEditor:
    view = TokenEditor(encoded)
    view.select(0, 7, 1, 8)
    return view


@pytest.fixture
def new_page(browser: Any) -> Iterator[Any]:
    pages = []

    def open_view(view: Any, *, width: int = 825, dark: bool = False, **state: Any) -> Any:
        page = open_page(browser, width, 900)
        if dark:
            page.add_style_tag(content=DARK)
        show(page, view, **state)
        page.wait_for_selector(".vistok canvas")
        pages.append(page)
        return page

    yield open_view
    for page in pages:
        page.evaluate("hide()")
        assert page.evaluate("listeners()") == 0
        assert page.errors == []
        page.close()


def sent(page: Any) -> list[dict[str, Any]]:
    return page.evaluate("window.sent")


def keep(page: Any, name: str, tmp_path: Path) -> Path:
    """Photograph a page; return the file, after a look whether anything is beyond the edge."""
    folder = Path(os.environ.get("VISTOK_LOOK") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    return folder / f"{name}.png"


def middle(place: int, columns: int) -> dict[str, float]:
    return {"x": (place % columns + 0.5) * CELL, "y": (place // columns + 0.5) * HIGH}


def test_tokens_are_a_row_that_is_broken_where_the_page_ends(new_page: Any, editor: TokenEditor) -> None:
    for width, columns in ((825, 18), (400, 8)):
        page = new_page(editor, width=width)
        row = page.locator(ROW)
        assert int(row.get_attribute("data-columns")) == columns and row.get_attribute("data-number") == "20"
        row.click(position=middle(19, columns))
        assert sent(page)[-1] == {"do": "select", "top": 0, "left": 19, "bottom": 1, "right": 20}
        assert page.locator("[data-role=token]").inner_text() == f"selected: token 19: code {editor.tokens[0, 19]}"


def test_pictures_have_no_grid_and_no_token_is_clicked_there(new_page: Any, editor: TokenEditor) -> None:
    page = new_page(editor)
    face = page.locator("canvas[data-picture=decoded]")
    before = len(sent(page))
    face.click(position={"x": 50, "y": 50})
    assert len(sent(page)) == before and face.get_attribute("tabindex") == "-1"
    assert page.get_by_label("grid").count() == 0 or not page.get_by_role("checkbox", name="grid").is_visible()
    image = np.asarray(editor.decoded.permute(1, 2, 0))
    side = face.bounding_box()["width"]
    pixel = face.evaluate(PIXEL, [side * 8.02 / 16, side * 4.02 / 16])  # where a line would be, and a corner
    assert max(abs(np.subtract(pixel, image[4, 8]))) <= 1


def test_the_keyboard_goes_along_and_across_the_row(new_page: Any, editor: TokenEditor) -> None:
    page = new_page(editor, width=400)  # 8 a line
    page.locator(ROW).focus()
    steps = [("ArrowRight", 8), ("ArrowDown", 16), ("ArrowDown", 19), ("ArrowUp", 11), ("ArrowLeft", 10)]
    for number, (key, place) in enumerate(steps, 1):
        page.keyboard.press(key)
        assert sent(page)[-1]["left"] == place, key
        change(page, answered=number, selection=[0, place, 1, place + 1])
    page.keyboard.press("Shift+ArrowRight")
    assert sent(page)[-1] == {"do": "select", "top": 0, "left": 10, "bottom": 1, "right": 12}
    assert page.locator("[data-role=token]").inner_text().startswith("selected: tokens 10 to 11; first code ")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.max") == "63"  # the field of the code


def test_a_token_is_hovered_and_several_are_dragged_over(new_page: Any, editor: TokenEditor) -> None:
    page = new_page(editor)
    row = page.locator(ROW)
    row.hover(position=middle(3, 18))
    assert page.locator(".tip:visible").inner_text() == f"token 3: code {editor.tokens[0, 3]}"
    row.drag_to(row, source_position=middle(2, 18), target_position=middle(5, 18))
    assert sent(page)[-1] == {"do": "select", "top": 0, "left": 2, "bottom": 1, "right": 6}


def test_maps_show_which_pixels_follow_and_the_row_is_coloured_by_how_far(new_page: Any, editor: TokenEditor) -> None:
    page = new_page(editor)
    page.wait_for_selector("canvas[data-map=random][data-token='7']")
    values = np.frombuffer(editor.maps, "<f4").reshape(2, 16, 16)
    y, x = np.unravel_index(values.argmax() % 256, (16, 16))
    which = "random" if values.argmax() >= 256 else "nearest"
    map_ = page.locator(f"canvas[data-map={which}]")
    side = map_.bounding_box()["width"]
    assert (
        max(abs(np.subtract(map_.evaluate(PIXEL, [side * (x + 0.5) / 16, side * (y + 0.5) / 16]), [254, 232, 56]))) <= 2
    )
    followed = np.frombuffer(editor.followed, "<f4").reshape(2, NUM_TOKENS)[1]
    most, row = int(followed.argmax()), page.locator(ROW)
    corner = [most % 18 * CELL + 6, most // 18 * HIGH + 6]  # within the outline of what is selected
    assert max(abs(np.subtract(row.evaluate(PIXEL, corner), [254, 232, 56]))) <= 2
    assert "What does token 7 do?" in page.locator("[data-role=influence]").inner_text()
    unknown = np.full((2, NUM_TOKENS), np.nan, "<f4")
    change(page, followed=unknown.tobytes(), maps=b"")
    assert row.evaluate(PIXEL, corner) == [0x5B, 0x67, 0x70]
    assert not page.locator("[data-role=influence]").is_visible()
    page.get_by_role("button", name="map every token").click()
    assert sent(page)[-1] == {"do": "map_all"}


def test_the_slider_asks_for_prefixes_and_strikes_the_rest_through(new_page: Any, editor: TokenEditor) -> None:
    page = new_page(editor)
    slider = page.get_by_role("slider", name="decode the first tokens alone")
    assert slider.input_value() == "20" and page.locator("[data-role=prefix]").inner_text() == "20 of 20"
    row, corners = page.locator(ROW), [[place * CELL + 1.5, HIGH - 1.5] for place in (8, 12)]
    before = [row.evaluate(PIXEL, corner) for corner in corners]
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert sent(page)[-1] == {"do": "show_prefix", "number": 19}
    change(page, answered=1, prefix=9)
    assert slider.input_value() == "9" and page.locator("[data-role=prefix]").inner_text() == "9 of 20"
    after = [row.evaluate(PIXEL, corner) for corner in corners]
    assert after[0] == before[0] and sum(after[1]) > sum(before[1]) + 60  # a white line begins at the corner


def test_the_sequence_editor_in_both_themes_and_on_a_narrow_page(
    new_page: Any, editor: TokenEditor, tmp_path: Path
) -> None:
    looks = []
    for name, width, dark in (("light", 825, False), ("dark", 825, True), ("narrow", 420, True)):
        page = new_page(editor, width=width, dark=dark)
        page.wait_for_selector("canvas[data-map=random][data-token='7']")
        looks.append(Image.open(keep(page, f"sequence-{name}", tmp_path)).convert("RGB"))
    assert looks[0].getpixel((820, 300)) == (255, 255, 255) and looks[1].getpixel((820, 300)) == (17, 17, 17)


def test_ones_own_picture_has_a_row_below(new_page: Any, encoded: EncodedImages, tmp_path: Path) -> None:
    view = TryPicture(encoded.tokenizer, picture=Image.effect_noise((60, 40), 90).convert("RGB"))
    page = new_page(view)
    page.wait_for_selector("canvas[data-card][data-painted]")
    assert page.locator("[data-role=seen]").inner_text() == "16 × 16 pixels, a sequence of 20 tokens"
    page.locator(ROW).click(position=middle(1, 18))
    assert sent(page)[-1] == {"do": "select", "top": 0, "left": 1, "bottom": 1, "right": 2}
    keep(page, "try-sequence", tmp_path)


def test_the_codebook_and_its_places_say_what_has_no_meaning(
    new_page: Any, encoded: EncodedImages, tmp_path: Path
) -> None:
    page = new_page(CodebookExplorer(encoded), width=1100)
    page.wait_for_selector(".detail[data-code]")
    assert page.locator(".no-patches").inner_text().startswith("No patches: tokens are a sequence")
    text = page.locator(".detail").inner_text()
    assert "at which of the 20 tokens, line by line" in text and "as all tokens" in text and "outlined" not in text
    keep(page, "explorer-sequence", tmp_path)
    page = new_page(PlaceExplorer(encoded))
    page.wait_for_selector(".list strong")
    assert page.locator(".list strong").inner_text().startswith("token ")
    assert "no place of the image" in page.locator(".place-explorer").inner_text()
    keep(page, "places-sequence", tmp_path)


def test_coarse_to_fine_by_mouse_and_keyboard(new_page: Any, encoded: EncodedImages, tmp_path: Path) -> None:
    view = CoarseToFine(encoded, 1)
    page = new_page(view)
    buttons = page.get_by_role("radio")
    page.wait_for_selector("[role=radio]")
    assert buttons.count() == 6 and view.steps[-1] == "20 tokens"
    assert page.locator("[data-role=step]").inner_text().startswith("20 tokens: 20 tokens in all, PSNR ")
    buttons.nth(0).click()
    assert page.evaluate("model.get('step')") == 0 and page.evaluate("window.saved") == 1
    assert page.locator("[data-role=step]").inner_text().startswith("1 token: 1 token in all, PSNR ")
    assert not page.locator("canvas[data-picture=added]").is_visible()  # there is none before it
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('step')") == 1 and page.evaluate("document.activeElement.dataset.step") == "1"
    page.get_by_role("slider", name="part of the tokens").focus()
    page.keyboard.press("End")
    assert page.evaluate("model.get('step')") == 5
    now = page.locator("canvas[data-picture=now]")
    made = view._pictures[5].permute(1, 2, 0).numpy()
    side = now.bounding_box()["width"]
    assert max(abs(np.subtract(now.evaluate(PIXEL, [side * 5.5 / 16, side * 9.5 / 16]), made[9, 5].astype(int)))) <= 1
    image = page.get_by_label("image")
    image.first.fill("3")
    image.first.press("Enter")
    assert page.evaluate("model.get('image')") == 3
    keep(page, "coarse-to-fine", tmp_path)
