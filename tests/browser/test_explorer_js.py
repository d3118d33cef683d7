"""The JavaScript of the map of codes and of the explorer, without a kernel: what is drawn, hit, said and sent."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser.fake_model import change, open_page, show

from vistok.encoded import EncodedImages
from vistok.runs import EXAMPLE_RUN
from vistok.widgets.explorer import CodebookExplorer
from vistok.widgets.places import PlaceExplorer

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
    code = int(np.flatnonzero(counts > 50)[3])
    page.locator("canvas.map").hover(position=middle(page, code))
    rank = int((counts > counts[code]).sum()) + 1
    tip = page.locator(".tip").first.inner_text()
    assert tip.startswith(f"code {code}: {counts[code]} tokens, ") and tip.endswith(" of 512")
    said = int(tip.rpartition("rank ")[2].split()[0])
    assert rank <= said < rank + int((counts == counts[code]).sum())  # equals stand in the order of their index
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


def test_the_chosen_code_shows_its_images_patches_and_neighbours(page: Any, explorer: CodebookExplorer) -> None:
    detail = explorer.detail
    assert page.locator(".detail .head").inner_text().startswith(f"code {detail['code']}: ")
    assert page.locator(".detail canvas.image").count() == len(detail["image_names"]) == 4
    pairs = page.locator(".detail .pair")
    assert pairs.count() == len(detail["patch_places"])
    expect(page)(pairs.first.locator("canvas")).to_have_count(2)  # and as decoded
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
    text = page.locator(".list").inner_text()
    assert f"row 9, column 5: perplexity {perplexity[9, 5]:.1f}" in text
    assert f"code {codes[9, 5, 0]}" in text and f"{counts[9, 5, 0]} images" in text
    assert not page.errors, page.errors
    page.close()
