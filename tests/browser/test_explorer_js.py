"""The JavaScript of the map of codes and of the explorer, without a kernel: what is drawn, hit, said and sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browser.fake_model import change, open_page, show

from vistok import VisualTokenizer
from vistok.runs import EXAMPLE_RUN
from vistok.tokens.encoded import EncodedImages
from vistok.widgets.explorer import CodebookExplorer
from vistok.widgets.places import PlaceExplorer
from vistok.widgets.space import CodebookSpace

PIXEL = """(canvas, [x, y]) => { const ratio = canvas.width / canvas.getBoundingClientRect().width;
    return Array.from(canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data).slice(0, 3); }"""


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_RUN, "photos", max_images=64, device="cpu", progress=False)


@pytest.fixture(scope="module")
def explorer(encoded: EncodedImages) -> CodebookExplorer:
    return CodebookExplorer(encoded)


@pytest.fixture
def page(browser: Any, explorer: CodebookExplorer) -> Iterator[Any]:
    page = open_page(browser, 1100, 1200)
    show(page, explorer)
    page.wait_for_selector(".detail[data-code]")
    yield page
    assert not page.errors, page.errors
    page.close()


def expect(page: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect


def middle(page: Any, cell: int) -> dict[str, float]:
    """Return the middle of a cell of the whole map, in CSS pixels of the canvas."""
    columns = int(page.locator("canvas.map").get_attribute("data-columns"))
    size = page.locator("canvas.map").bounding_box()["width"] / columns
    return {"x": (cell % columns + 0.5) * size, "y": (cell // columns + 0.5) * size}


def test_all_codes_are_drawn_and_the_scale_of_colours_is_logarithmic(page: Any, encoded: EncodedImages) -> None:
    counts = encoded.counts().numpy()
    canvas = page.locator("canvas.map")
    assert canvas.get_attribute("data-total") == str(counts.sum())
    assert canvas.get_attribute("data-cells") == "512"

    def colour(code: int) -> list[int]:
        place = middle(page, code)
        return canvas.evaluate(PIXEL, [place["x"] - 6, place["y"]])  # beside a cross

    most, dead = int(counts.argmax()), int((counts == 0).argmax())
    assert colour(dead) == [205, 205, 205]
    assert max(np.abs(np.subtract(colour(most), [254, 232, 56]))) <= 2
    ones = np.flatnonzero(counts == 1)
    assert max(np.abs(np.subtract(colour(int(ones[0])), [0, 34, 78]))) <= 2
    middling = int(np.abs(np.log(np.maximum(counts, 0.1)) - np.log(counts.max()) / 2).argmin())
    brightness = [sum(colour(code)) for code in (int(ones[0]), middling, most)]
    assert brightness == sorted(brightness) and len(set(brightness)) == 3
    cross = canvas.evaluate(PIXEL, [middle(page, dead)["x"], middle(page, dead)["y"]])
    assert cross != [205, 205, 205]  # not by colour alone


def test_hovering_says_code_count_share_and_rank(page: Any, encoded: EncodedImages) -> None:
    counts = encoded.counts().numpy()
    code = int(np.flatnonzero(counts == 20)[1])  # not the only one
    page.locator("canvas.map").hover(position=middle(page, code))
    rank = int((counts > counts[code]).sum()) + 1
    tip = page.locator(".tip").first.inner_text()
    assert tip.startswith(f"code {code}: {counts[code]} tokens, ") and tip.endswith(" of 512")
    assert int(tip.rpartition("rank ")[2].split()[0]) == rank  # which equals share, as in Python
    share = float(tip.split(", ")[1].removesuffix(" %"))
    assert share == pytest.approx(100 * counts[code] / counts.sum(), rel=0.05)


def test_a_click_chooses_the_code_under_it_in_every_order(page: Any, encoded: EncodedImages) -> None:
    counts = encoded.counts().numpy()
    canvas = page.locator("canvas.map")
    canvas.click(position=middle(page, 101))
    assert page.evaluate("model.get('selected')") == 101
    page.locator("select.sort").select_option("count")
    canvas.click(position=middle(page, 0))
    assert counts[page.evaluate("model.get('selected')")] == counts.max()
    page.locator("select.sort").select_option("similarity")
    canvas.click(position=middle(page, 25))
    similar = page.evaluate("Array.from(new Uint32Array(model.get('similar').buffer.slice(1)))")
    assert sorted(similar) == list(range(512))
    assert page.evaluate("model.get('selected')") == similar[25]


def test_zooming_draws_the_code_larger_and_still_hits_it(page: Any) -> None:
    canvas = page.locator("canvas.map")
    page.locator("button.zoom-in").click()
    assert float(canvas.get_attribute("data-zoom")) == 2
    box = canvas.bounding_box()
    columns = int(canvas.get_attribute("data-columns"))
    size = box["width"] / columns * 2
    left, top = columns / 2 - box["width"] / size / 2, columns / 2 - box["width"] / size / 2
    x, y = 3.5, 5.5
    canvas.click(position={"x": x * size, "y": y * size})
    expected = int(top + y) * columns + int(left + x)
    assert page.evaluate("model.get('selected')") == expected


def test_the_keyboard_does_what_the_mouse_does(page: Any) -> None:
    canvas = page.locator("canvas.map")
    canvas.focus()
    columns = int(canvas.get_attribute("data-columns"))
    page.keyboard.press("Home")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(page)(page.locator("[aria-live=polite].hidden-text").first).to_contain_text(f"code {columns + 2}")
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('selected')") == columns + 2
    page.keyboard.press("+")
    assert float(canvas.get_attribute("data-zoom")) == 2
    page.keyboard.press("0")
    assert float(canvas.get_attribute("data-zoom")) == 1


def test_a_code_that_there_is_not_is_a_sentence(page: Any) -> None:
    page.locator("input.go").fill("600")
    page.keyboard.press("Enter")
    expect(page)(page.locator(".message")).to_have_text("There is no code 600: codes are 0 to 511.")
    page.locator("input.go").fill("44")
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('selected')") == 44
    page.locator("input.go").fill("600")
    page.keyboard.press("Enter")
    page.locator("input.go").fill("44")  # the one that is chosen already
    page.keyboard.press("Enter")
    expect(page)(page.locator(".message")).to_have_text("")
    page.locator("input.go").fill("")
    page.keyboard.press("Enter")  # nothing is asked for
    assert page.evaluate("model.get('selected')") == 44


def test_the_chosen_code_shows_its_images_patches_and_neighbours(page: Any, explorer: CodebookExplorer) -> None:
    detail = explorer.detail
    assert page.locator(".detail .head").inner_text().startswith(f"code {detail['code']}: ")
    assert page.locator(".detail canvas.image").count() == len(detail["image_names"]) == 4
    pairs = page.locator(".detail .pair")
    assert pairs.count() == len(detail["patch_places"])
    expect(page)(pairs.first.locator("canvas")).to_have_count(2)  # and as decoded
    assert page.locator("button.nearest").nth(2).inner_text().split() == [
        str(detail["nearest"][2]),
        f"{detail['distances'][2]:.3g}",
    ]
    grid = np.frombuffer(detail["grid_counts"], "<u4")
    caption = page.locator(".detail .caption", has_text="where in the")
    expect(page)(caption).to_have_text(f"where in the 16x16 grid: {grid.min()} (dark) to {grid.max()} (bright)")
    page.locator("button.sample").click()
    assert page.evaluate("sent") == [{"do": "sample"}]
    page.locator("button.nearest").nth(2).click()
    assert page.evaluate("model.get('selected')") == detail["nearest"][2]


def test_the_atlas_is_asked_for_and_drawn(page: Any, explorer: CodebookExplorer) -> None:
    canvas = page.locator("canvas.map")
    before = canvas.evaluate(PIXEL, [200, 200])
    page.locator("select.cells").select_option("patch")
    assert page.evaluate("window.sent") == [{"do": "atlas"}]
    explorer.show_atlas()
    change(page, tile=explorer.tile, atlas=explorer.atlas)
    page.wait_for_function(
        "before => String(Array.from(document.querySelector('canvas.map').getContext('2d')"
        ".getImageData(200, 200, 1, 1).data).slice(0, 3)) !== String(before)",
        arg=before,
    )
    expect(page)(page.locator("canvas.scale")).to_be_hidden()
    expect(page)(page.locator(".number.caption").first).to_have_text("each code decoded alone; crossed: never chosen")


def test_262144_codes_are_drawn_in_blocks_until_there_is_room(browser: Any, explorer: CodebookExplorer) -> None:
    size = 2**18
    counts = np.random.default_rng(0).poisson(0.7, size).astype("<u4")
    state = {
        "sizes": [size],
        "columns": 512,
        "counts": counts.tobytes(),
        "similar": np.arange(size, dtype="<u4").tobytes(),
        "detail": {},
        "selected": -1,
    }
    page = open_page(browser, 1100, 1200)
    show(page, explorer, **state)
    canvas = page.locator("canvas.map")
    assert canvas.get_attribute("data-block") == "4"  # 512 cells in 420 pixels, at least 2 pixels a block
    canvas.hover(position={"x": 100, "y": 100})
    assert page.locator(".tip").first.inner_text().startswith("16 codes here: ")
    for _ in range(3):
        page.locator("button.zoom-in").click()
    assert canvas.get_attribute("data-block") == "1"
    canvas.hover(position={"x": 100, "y": 100})
    tip = page.locator(".tip").first.inner_text()
    code = int(tip.split(":")[0].removeprefix("code "))
    assert f"{counts[code]} tokens" in tip if counts[code] else "never chosen" in tip
    assert not page.errors, page.errors
    page.close()


def large(browser: Any, explorer: CodebookExplorer, counts: np.ndarray, width: int = 1100) -> Any:
    """Return the page of a codebook of 512x512 codes."""
    page = open_page(browser, width, 1200)
    similar = np.arange(counts.size, dtype="<u4").tobytes()
    state = {"sizes": [counts.size], "columns": 512, "counts": counts.astype("<u4").tobytes(), "similar": similar}
    show(page, explorer, **state, detail={}, selected=-1)
    return page


def test_the_more_of_a_block_is_dead_the_greyer_it_is(browser: Any, explorer: CodebookExplorer) -> None:
    counts = np.full((512, 512), 8)
    counts[:256, np.arange(512) % 4 > 0] = 0  # of the blocks above one code in four is alive
    counts[:4, :4] = 0
    page = large(browser, explorer, counts)
    canvas, scale = page.locator("canvas.map"), page.locator(".number.caption").first
    expect(page)(canvas).to_have_attribute("data-block", "4")
    assert canvas.evaluate(PIXEL, [200, 300]) == [254, 232, 56]
    assert canvas.evaluate(PIXEL, [200, 100]) == [217, 212, 168]  # three parts of grey (205, 205, 205)
    assert canvas.evaluate(PIXEL, [1, 1]) == [205, 205, 205]
    mean = "each square is the mean of 4x4 codes, the greyer the more of them never chosen"
    expect(page)(scale).to_have_text(f"1 token to 8 tokens, on a log scale; {mean}")
    for text in ("mean of 2x2 codes", "; grey: never chosen", "; grey and crossed: never chosen"):
        page.locator("button.zoom-in").click()
        expect(page)(scale).to_contain_text(text)
    assert not page.errors, page.errors
    page.close()


def test_on_a_narrow_page_the_code_under_the_pointer_is_the_one_that_is_seen(
    browser: Any, explorer: CodebookExplorer
) -> None:
    page = open_page(browser, 330, 900)
    show(page, explorer)
    page.wait_for_selector(".detail[data-code]")
    canvas, tip = page.locator("canvas.map"), page.locator(".tip").first
    assert canvas.bounding_box()["width"] < 320
    for code in (22, 23 * 21 + 3):
        canvas.hover(position=middle(page, code))
        assert tip.inner_text().startswith(f"code {code}: ")
        canvas.click(position=middle(page, code))
        assert page.evaluate("model.get('selected')") == code
        seen, cell = tip.bounding_box(), canvas.bounding_box()["width"] / 23
        assert seen["x"] >= 0 and seen["x"] + seen["width"] <= 330
        assert seen["y"] == pytest.approx(canvas.bounding_box()["y"] + (code // 23 + 1) * cell + 6, abs=1)
    distorted = """canvases => canvases.filter(canvas => canvas.clientWidth
        && Math.abs(canvas.clientHeight - canvas.clientWidth * canvas.height / canvas.width) > 1).length"""
    assert page.locator("canvas").evaluate_all(distorted) == 0
    assert not page.errors, page.errors
    page.close()


def test_the_wheel_zooms_as_far_as_it_is_turned_and_lets_the_page_scroll(
    browser: Any, explorer: CodebookExplorer
) -> None:
    page = open_page(browser, 1100, 500)
    show(page, explorer)
    page.wait_for_selector(".detail[data-code]")
    canvas = page.locator("canvas.map")
    canvas.click(position={"x": 200, "y": 200})

    def turn(x: float, y: float) -> tuple[float, bool]:
        """Return the zoom after a turn of the wheel, and whether the page was kept from scrolling."""
        event = "{ deltaX: x, deltaY: y, clientX: 200, clientY: 200, bubbles: true, cancelable: true }"
        kept = canvas.evaluate(f"(canvas, [x, y]) => !canvas.dispatchEvent(new WheelEvent('wheel', {event}))", [x, y])
        return float(canvas.get_attribute("data-zoom")), kept

    assert turn(0, 100) == (1, False)  # the whole map already
    assert turn(0, -2) == (pytest.approx(np.exp(0.004)), True)
    assert turn(40, 0) == (pytest.approx(np.exp(0.004)), False)
    assert turn(0, -10_000) == (pytest.approx(1.25 * np.exp(0.004)), True)
    assert turn(0, 10_000) == (pytest.approx(np.exp(0.004)), True)
    page.close()


def test_keys_of_the_page_are_left_to_it(page: Any) -> None:
    canvas = page.locator("canvas.map")
    canvas.focus()
    press = "(canvas, key) => canvas.dispatchEvent(new KeyboardEvent('keydown', { ...key, bubbles: true, cancelable: true }))"
    for key in ("+", "-", "0", "Enter", "ArrowLeft"):
        for modifier in ("ctrlKey", "metaKey", "altKey"):
            assert canvas.evaluate(press, {"key": key, modifier: True})  # not prevented
    assert canvas.evaluate(press, {"key": "Enter", "shiftKey": True})
    assert not canvas.evaluate(press, {"key": "+", "shiftKey": True})  # as many keyboards make a plus
    assert float(canvas.get_attribute("data-zoom")) == 2


def test_the_tip_goes_with_the_focus(page: Any) -> None:
    page.locator("canvas.map").focus()
    page.keyboard.press("Home")
    assert page.locator(".tip").first.is_visible()
    page.keyboard.press("Tab")
    assert page.locator(".tip").first.is_hidden()


def test_a_finger_moves_the_map_where_there_is_more_of_it(page: Any) -> None:
    canvas = page.locator("canvas.map")
    touches = "canvas => getComputedStyle(canvas).touchAction"
    assert canvas.evaluate(touches) == "auto"  # the page scrolls
    page.locator("button.zoom-in").click()
    assert canvas.evaluate(touches) == "none"
    canvas.hover(position={"x": 100, "y": 100})
    before = page.locator(".tip").first.inner_text()
    touch = page.context.new_cdp_session(page)
    box = canvas.bounding_box()
    for kind, at in (("touchStart", 300), ("touchMove", 250), ("touchMove", 200), ("touchEnd", None)):
        points = [] if at is None else [{"x": box["x"] + at, "y": box["y"] + at}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    canvas.hover(position={"x": 101, "y": 101})
    assert page.locator(".tip").first.inner_text() != before


def test_the_focus_stays_where_it_was_when_a_nearest_code_is_chosen(page: Any, encoded: EncodedImages) -> None:
    other = CodebookExplorer(encoded)
    page.locator("button.nearest").nth(1).focus()
    page.keyboard.press("Enter")
    other.select(page.evaluate("model.get('selected')"))
    change(page, detail=other.detail, decoded=other.decoded)
    page.wait_for_selector(f".detail[data-code='{other.selected}']")
    assert page.evaluate("[...document.querySelectorAll('button.nearest')].indexOf(document.activeElement)") == 1


def test_an_atlas_that_cannot_be_made_is_waited_for_no_more(page: Any, explorer: CodebookExplorer) -> None:
    cells = page.locator("select.cells")
    page.evaluate("change({ atlas: new DataView(new ArrayBuffer(0)) })")
    cells.select_option("patch")
    change(page, decoding=True, message="Decoding 512 codes …")
    expect(page)(page.locator(".message")).to_have_text("Decoding 512 codes …")
    change(page, decoding=False, message="The codes could not be decoded.")
    expect(page)(cells).to_have_value("count")
    assert page.locator("[data-waiting]").count() == 0


def test_pictures_that_are_drawn_or_replaced_are_let_go(page: Any, encoded: EncodedImages) -> None:
    expect(page)(page.locator(".pair").first.locator("canvas")).to_have_count(2)  # all are drawn
    page.evaluate("""() => { const make = window.createImageBitmap, close = ImageBitmap.prototype.close;
        window.held = 0;
        window.createImageBitmap = async (...given) => { const made = await make(...given); window.held++; return made; };
        ImageBitmap.prototype.close = function () { window.held--; close.call(this); }; }""")
    other = CodebookExplorer(encoded)
    other.show_atlas()
    for code in (5, 6, 7):
        other.select(code)
        change(page, detail=other.detail, decoded=other.decoded)
        page.wait_for_selector(f".detail[data-code='{code}']")
    expect(page)(page.locator(".pair").first.locator("canvas")).to_have_count(2)
    page.wait_for_function("held === 0")
    for _ in range(3):
        page.locator("select.cells").select_option("count")
        change(page, tile=other.tile, atlas=other.atlas)
        page.locator("select.cells").select_option("patch")
        page.wait_for_selector("canvas.map[data-drawn=tiles]")
    page.wait_for_function("held === 1")
    page.evaluate("hide()")
    assert page.evaluate("held") == 0


@pytest.mark.parametrize("widget", [CodebookExplorer, CodebookSpace, PlaceExplorer])
def test_its_colours_follow_a_page_it_is_placed_on_later_and_its_theme(
    browser: Any, encoded: EncodedImages, widget: Any
) -> None:
    picture = "() => document.querySelector('canvas[role=application]').toDataURL()"
    paint = "colour => document.body.style.setProperty('--jp-layout-color1', colour)"
    page = open_page(browser, 1100, 900)
    page.evaluate(paint, "rgb(17, 17, 17)")
    show(page, widget(encoded))
    page.wait_for_selector(".head")
    dark = page.evaluate(picture)
    page.evaluate("""() => { hide(); document.body.replaceChildren();
        const el = document.createElement('div');
        show(el); setTimeout(() => document.body.append(el), 150); }""")
    page.wait_for_selector(".head")
    page.wait_for_function(f"dark => ({picture})() === dark", arg=dark, timeout=10_000)
    for number, (element, attribute) in enumerate(
        [("body", "class"), ("documentElement", "class"), ("body", "data-vscode-theme-kind")]
    ):
        before = page.evaluate(picture)
        page.evaluate(paint, f"rgb(90, 40, {50 * number})")
        page.evaluate("([element, name]) => document[element].setAttribute(name, 'other')", [element, attribute])
        page.wait_for_function(f"before => ({picture})() !== before", arg=before, timeout=10_000)
    assert not page.errors, page.errors
    page.close()


def test_it_stops_listening_when_it_is_closed(page: Any) -> None:
    assert page.evaluate("listeners()") > 5
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0


def test_a_place_names_its_codes(browser: Any, encoded: EncodedImages) -> None:
    places = PlaceExplorer(encoded)
    page = open_page(browser, 1100, 1200)
    show(page, places)
    canvas = page.locator("canvas").first
    size = canvas.bounding_box()["width"] / 16
    canvas.click(position={"x": 5.5 * size, "y": 9.5 * size})
    assert page.evaluate("model.get('selected')") == 9 * 16 + 5
    codes, counts, perplexity = encoded.codes_by_place(10)
    expect(page)(page.locator(".list")).to_contain_text(f"row 9, column 5: perplexity {perplexity[9, 5]:.1f}")
    text = page.locator(".list").inner_text()
    assert f"code {codes[9, 5, 0]}" in text and f"{counts[9, 5, 0]} images" in text
    change(page, selected=9999, message="There is no place 9999: places are 0 to 255.")
    expect(page)(page.locator(".message")).to_contain_text("There is no place 9999")
    assert not page.errors, page.errors
    page.close()


def test_images_that_are_no_squares_are_shown_whole_and_undistorted(browser: Any) -> None:
    tokenizer = VisualTokenizer(quantizer_options={"codebook_size": 1, "codebook_dim": 2}, image_size=32)
    shades = torch.tensor([[40, 200], [90, 250]], dtype=torch.uint8)  # of the left and the right half of each image
    images = shades[:, None, None, :].repeat_interleave(24, 3).expand(-1, 3, 32, -1).contiguous()
    page = open_page(browser, 825, 900)
    show(page, CodebookExplorer(EncodedImages.open(tokenizer, images, device="cpu", progress=False)))
    expect(page)(page.locator("canvas.image")).to_have_count(2)
    for canvas, expected in zip(page.locator("canvas.image").all(), shades.tolist(), strict=True):
        box = canvas.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(48 / 32, abs=0.01)
        step = box["width"] / 12  # of a token: its middle is not outlined
        assert [canvas.evaluate(PIXEL, [(column + 0.5) * step, 3.5 * step])[0] for column in (2, 9)] == expected
    assert not page.errors, page.errors
    page.close()
