"""The JavaScript of the codebook as a space, without a kernel: what is drawn, hit, selected and asked for."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser.fake_model import change, open_page, show

from vistok.runs import EXAMPLE_RUN
from vistok.tokens.encoded import Choice, EncodedImages
from vistok.widgets import CodebookExplorer, CodebookSpace, PlaceExplorer

PIXEL = """(canvas, [x, y]) => { const ratio = canvas.width / canvas.getBoundingClientRect().width;
    return Array.from(canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data).slice(0, 3); }"""
SENT = "wanted => window.sent.filter((content) => content.do === wanted)"


@pytest.fixture(scope="module")
def encoded() -> EncodedImages:
    return EncodedImages.open(EXAMPLE_RUN, "photos", max_images=64, device="cpu", progress=False)


@pytest.fixture
def space(encoded: EncodedImages) -> CodebookSpace:
    encoded.choice = Choice(encoded.codebook_sizes)
    return CodebookSpace(encoded)


@pytest.fixture
def page(browser: Any, space: CodebookSpace) -> Iterator[Any]:
    page = open_page(browser, 825, 700)
    show(page, space)
    page.wait_for_selector(".chosen-patch[data-code]:not([data-code='-1'])")
    yield page
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0
    assert not page.errors, page.errors
    page.close()


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def points(space: CodebookSpace) -> np.ndarray:
    return np.frombuffer(space.points, "<f4").reshape(-1, 2).astype(float)


def place(page: Any, point: np.ndarray) -> dict[str, float]:
    """Return where a point of the plane lies on the canvas, in CSS pixels."""
    canvas = page.locator("canvas.scatter")
    (x, y), scale = map(float, canvas.get_attribute("data-origin").split()), float(canvas.get_attribute("data-scale"))
    return {"x": x + point[0] * scale, "y": y - point[1] * scale}


def drag(page: Any, start: dict[str, float], end: dict[str, float]) -> None:
    box = page.locator("canvas.scatter").bounding_box()
    page.mouse.move(box["x"] + start["x"], box["y"] + start["y"])
    page.mouse.down()
    for share in (0.5, 1):
        at = {name: start[name] + share * (end[name] - start[name]) for name in start}
        page.mouse.move(box["x"] + at["x"], box["y"] + at["y"])
    page.mouse.up()


def alone(space: CodebookSpace) -> np.ndarray:
    """Return the codes, those that lie farthest from all others first."""
    apart = np.linalg.norm(points(space)[:, None] - points(space)[None], axis=-1)
    return (apart + 99 * np.eye(len(apart))).min(1).argsort()[::-1]


def test_points_are_coloured_by_count_and_dead_ones_are_crosses(page: Any, space: CodebookSpace) -> None:
    canvas, counts = page.locator("canvas.scatter"), np.frombuffer(space.counts, "<u4")
    assert canvas.get_attribute("data-seen") == "512"
    lonely = [code for code in alone(space)[:60] if code != space.selected]

    def colour(code: int, right: float = 0) -> list[int]:
        at = place(page, points(space)[code])
        return canvas.evaluate(PIXEL, [at["x"] + right, at["y"]])

    living = sorted((code for code in lonely if counts[code]), key=lambda code: counts[code])
    assert sum(colour(living[0])) < sum(colour(living[-1]))  # brighter with more tokens
    dead = next(code for code in lonely if not counts[code])
    assert colour(dead) != [255, 255, 255] and colour(dead, right=2.5) == [255, 255, 255]  # its arms run aslant
    expect(page.locator(".reading")).to_contain_text("crosses: never chosen")
    assert page.evaluate("document.documentElement.scrollWidth <= 825")


def test_a_box_is_marked_at_once_and_sent_in_units_of_the_plane(page: Any, space: CodebookSpace) -> None:
    corner, right = place(page, np.array([0.3, 0.3])), place(page, points(space).max(0))
    drag(page, corner, {"x": right["x"] + 3, "y": right["y"] - 3})
    (sent,) = page.evaluate(SENT, "box")
    x, y = points(space).T
    inside = (x >= sent["left"]) & (x <= sent["right"]) & (y >= sent["low"]) & (y <= sent["high"])
    assert sent["left"] == pytest.approx(0.3, abs=0.02) and inside.sum() > 5
    assert page.locator("canvas.scatter").get_attribute("data-marked") == str(inside.sum())
    page.get_by_role("button", name="clear selection").click(force=True)  # still disabled: Python has not answered
    change(page, marked=np.flatnonzero(inside).astype("<u4").tobytes())
    expect(page.locator(".group")).to_contain_text(f"{inside.sum()} codes selected")
    assert page.locator("button.listed").count() == min(60, inside.sum())
    page.locator("button.listed").nth(1).click()
    assert inside[page.evaluate("model.get('selected')")]
    page.get_by_role("button", name="clear selection").click()
    assert page.evaluate(SENT, "codes") == [{"do": "codes", "codes": []}]
    assert page.locator("canvas.scatter").get_attribute("data-marked") == "0"


def test_the_keyboard_goes_from_code_to_code_and_selects(page: Any, space: CodebookSpace) -> None:
    canvas, x = page.locator("canvas.scatter"), points(space)[:, 0]
    canvas.focus()
    said = page.locator(".codebook-space [aria-live=polite].hidden-text").first
    page.keyboard.press("ArrowRight")
    first = int(said.inner_text().split(":")[0].removeprefix("code "))
    assert x[first] > x[space.selected]
    page.keyboard.press("Enter")
    assert page.evaluate("model.get('selected')") == first
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    last = int(said.inner_text().split(":")[0].removeprefix("code "))
    sent = page.evaluate(SENT, "box")[-1]
    for code in (first, last):  # both ends are within
        assert sent["left"] <= x[code] <= sent["right"] and sent["low"] <= points(space)[code, 1] <= sent["high"]
    page.keyboard.press("Escape")
    assert page.evaluate(SENT, "codes") == [{"do": "codes", "codes": []}]
    page.keyboard.press("+")
    assert float(canvas.get_attribute("data-zoom")) == 2
    page.keyboard.press("0")
    assert float(canvas.get_attribute("data-zoom")) == 1


def test_dragging_moves_where_that_is_asked_for(page: Any) -> None:
    canvas = page.locator("canvas.scatter")
    page.locator("button.zoom-in").click()
    before = canvas.get_attribute("data-origin")
    page.get_by_role("button", name="move", exact=True).click()
    drag(page, {"x": 200, "y": 200}, {"x": 240, "y": 230})
    moved = np.subtract(
        *(np.array(list(map(float, text.split()))) for text in (canvas.get_attribute("data-origin"), before))
    )
    assert moved == pytest.approx([40, 30], abs=1) and page.evaluate(SENT, "box") == []
    page.get_by_role("button", name="move", exact=True).click()
    page.keyboard.down("Shift")
    drag(page, {"x": 240, "y": 230}, {"x": 200, "y": 200})
    page.keyboard.up("Shift")
    assert canvas.get_attribute("data-origin").split()[0][:6] == before.split()[0][:6]


def test_points_are_drawn_as_patches(page: Any, space: CodebookSpace) -> None:
    code = next(code for code in alone(space) if code != space.selected and np.frombuffer(space.counts, "<u4")[code])
    page.locator("select.shown").select_option("patches")
    expect(page.locator("canvas.scatter")).to_have_attribute("data-drawn", "patches")
    tile = CodebookExplorer(space.encoded).tiles()[code].permute(1, 2, 0).numpy()
    at = place(page, points(space)[code])
    side = 11 / 4  # CSS pixels of a pixel of the patch
    seen = page.locator("canvas.scatter").evaluate(PIXEL, [round(at["x"] + 1.5 * side), round(at["y"] + 1.5 * side)])
    assert np.abs(np.subtract(seen, tile[3, 3].astype(int))).max() <= 2


def test_what_is_missing_is_named_with_its_package(browser: Any, space: CodebookSpace) -> None:
    page = open_page(browser, 825, 700)
    methods = [["codes", "PCA of the codes", ""], ["umap", "UMAP", "umap-learn"]]
    show(page, space, methods=methods)
    option = page.locator("select.projection option").nth(1)
    assert option.inner_text() == "UMAP (pip install umap-learn)" and option.is_disabled()
    page.close()


def large(browser: Any, space: CodebookSpace, size: int) -> Any:
    """Return the page of a codebook of many codes, those in one corner never chosen, without patches."""
    rng = np.random.default_rng(0)
    points, counts = rng.normal(size=(size, 2)).astype("<f4"), rng.poisson(3, size).astype("<u4")
    counts[points[:, 0] > 1] = 0
    page = open_page(browser, 825, 700)
    state = {"sizes": [size], "columns": 512, "counts": counts.tobytes(), "points": points.tobytes(), "patches": {}}
    show(page, space, **state, similar=np.arange(size, dtype="<u4").tobytes(), selected=0)
    return page, points, counts


def test_262144_codes_are_drawn_together_until_there_is_room(browser: Any, space: CodebookSpace) -> None:
    page, _, counts = large(browser, space, 2**18)
    canvas, reading = page.locator("canvas.scatter"), page.locator(".reading")
    assert canvas.get_attribute("data-drawn") == "squares"
    expect(reading).to_contain_text("each square stands for all codes there")
    middle = place(page, np.zeros(2))
    canvas.hover(position=middle)
    tip = page.locator(".tip").first
    expect(tip).to_contain_text("codes here: ")
    expect(tip).to_contain_text("zoom in to see each")
    assert canvas.evaluate(PIXEL, [place(page, np.array([2.0, 0]))["x"], middle["y"]]) == [205, 205, 205]
    drag(page, middle, {"x": middle["x"] + 50, "y": middle["y"] + 50})
    assert int(canvas.get_attribute("data-marked")) > 1000
    for _ in range(7):
        page.locator("button.zoom-in").click()
    assert canvas.get_attribute("data-drawn") == "dots"
    assert page.evaluate(SENT, "patches")[0]["codes"] == [0]  # the chosen one
    assert not page.errors, page.errors
    page.close()


def test_patches_are_asked_for_when_they_are_looked_at(browser: Any, space: CodebookSpace) -> None:
    page, found, _ = large(browser, space, 600)
    asked = page.evaluate(SENT, "patches")
    assert [content["codes"] for content in asked] == [[0]]
    code = int(found[:, 0].argmax())
    page.locator("canvas.scatter").hover(position=place(page, found[code].astype(float)))
    assert len(page.evaluate(SENT, "patches")) == 1  # one request at a time
    space.show_patches([0])
    change(page, patches=space.patches)
    page.wait_for_function("sent.filter((content) => content.do === 'patches').length === 2")
    assert page.evaluate(SENT, "patches")[1]["codes"] == [code]  # what the pointer is on
    assert page.locator(".tip .patch").get_attribute("data-code") == "-1"
    space.show_patches([code % 512])
    change(page, patches=space.patches | {"codes": np.array([code], "<u4").tobytes()})
    expect(page.locator(".tip .patch")).to_have_attribute("data-code", str(code))
    page.close()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "where in the 16x16 grid: nowhere"), (2, "where in the 16x16 grid: 2 everywhere")]
)
def test_where_a_code_is_has_no_scale_of_one_number(
    browser: Any, encoded: EncodedImages, count: int, text: str
) -> None:
    explorer = CodebookExplorer(encoded)
    explorer.select(int((encoded.counts() == 0).nonzero()[0]))
    detail = explorer.detail | {"grid_counts": np.full(256, count, "<u4").tobytes()}
    page = open_page(browser, 825, 700)
    show(page, explorer, detail=detail)
    expect(page.locator(".first .caption", has_text="where in the")).to_have_text(text)
    page.close()


def test_places_of_one_image_have_no_scale_of_one_number(browser: Any, encoded: EncodedImages) -> None:
    one = EncodedImages.open(encoded.tokenizer, encoded.pixels([0]), progress=False)
    page = open_page(browser, 825, 700)
    show(page, PlaceExplorer(one))
    expect(page.locator(".caption:not(.gone)").first).to_have_text(
        "perplexity of the codes at each place: 1 everywhere"
    )
    page.close()


def test_a_click_says_its_code_before_python_answers(browser: Any, encoded: EncodedImages) -> None:
    explorer = CodebookExplorer(encoded)
    page = open_page(browser, 825, 700)
    show(page, explorer)
    page.wait_for_selector(".detail[data-code]")
    page.locator("canvas.map").click(position={"x": 200, "y": 200})
    code = page.evaluate("model.get('selected')")
    assert code != explorer.selected and page.locator(".head").inner_text().startswith(f"code {code}: ")
    assert page.locator(".detail.stale").count() == 1  # the pictures are still the former code's, and pale
    explorer.select(code)
    change(page, detail=explorer.detail, decoded=explorer.decoded)
    page.wait_for_selector(f".detail[data-code='{code}']:not(.stale)")
    page.close()


def test_the_rest_of_the_map_steps_back_behind_selected_codes(browser: Any, encoded: EncodedImages) -> None:
    page = open_page(browser, 825, 700)
    show(page, CodebookExplorer(encoded, selected=3), marked=np.array([30, 400], "<u4").tobytes())
    canvas = page.locator("canvas.map")
    size = canvas.bounding_box()["width"] / 23

    def brightness(code: int) -> int:
        return max(canvas.evaluate(PIXEL, [(code % 23 + 0.3) * size, (code // 23 + 0.3) * size]))

    others = [brightness(code) for code in (31, 50, 399, 420)]
    assert min(others) >= 204 > max(brightness(30), brightness(400))
    expect(page.locator(".number.caption").first).to_contain_text("bright: the 2 codes that are selected")
    change(page, marked=b"")
    assert min(brightness(code) for code in (31, 50, 399)) < 204
    page.close()
