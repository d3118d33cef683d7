"""The scripts of the viewers in a browser, beside a model without a kernel: what is drawn, pointed at and typed.

(`tests/widgets/test_viewers.py` has the laws of the Python side.)
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from browser import fake_model
from browser.fake_model import change, open_page

from vistok.widgets.comparison import RunComparison
from vistok.widgets.editor import TokenEditor
from vistok.widgets.reconstructions import ERROR_SCALE, ReconstructionViewer
from vistok.widgets.view import View, image_png, strip_png

SIDE = 16  # pixels of the images, of 4 x 4 tokens
ENLARGED = 256 // SIDE  # CSS pixels a pixel

PIXEL = """(canvas, [x, y]) => { const ratio = canvas.width / canvas.clientWidth;
  return [...canvas.getContext("2d").getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data].slice(0, 3); }"""
# Pictures are remembered, and take `window.lag` milliseconds to decode.
SLOW_PICTURES = """() => { const decode = window.createImageBitmap; window.bitmaps = [];
  window.createImageBitmap = async (...all) => {
    await new Promise((done) => setTimeout(done, window.lag ?? 0));
    const made = await decode(...all); window.bitmaps.push(made); return made; }; }"""
SHORTCUTS = ("Control+ArrowRight", "Alt+ArrowRight", "Meta+ArrowRight")  # of the browser or JupyterLab
# Keys that reach the page with nobody having taken them.
LEFT_ALONE = """() => { window.left = 0; document.addEventListener("keydown",
  (event) => { if (!event.defaultPrevented && event.key === "ArrowRight") window.left++; event.preventDefault(); }); }"""
DARK = ":root { --jp-ui-font-color1: #fff; --jp-layout-color1: #111; --jp-layout-color2: #333; }"


def flat(*colour: int) -> torch.Tensor:
    """An image of one colour."""
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, SIDE, SIDE).contiguous()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that shows a widget in a page of its own; afterwards nothing may have gone wrong in it."""
    pages = []

    def open_widget(widget: type[View], *, dark: bool = False, width: int = 1000, **values: Any) -> Any:
        page = open_page(browser, width, 900)
        page.evaluate(SLOW_PICTURES)
        if dark:
            page.add_style_tag(content=DARK)
        fake_model.show(page, widget, **values)
        pages.append(page)
        return page

    yield open_widget
    for page in pages:
        page.evaluate("hide()")
        assert page.evaluate("window.bitmaps.every(one => one.width === 0)")  # closed: their memory is free
        assert page.evaluate("listeners()") == 0
        assert page.errors == []
        page.close()


def pixel(canvas: Any, x: float, y: float) -> list[int]:
    """Return the colour of a canvas at a place in CSS pixels."""
    return canvas.evaluate(PIXEL, [x, y])


def sent(page: Any) -> list[dict[str, Any]]:
    return page.evaluate("window.sent")


def value(page: Any, name: str) -> Any:
    return page.evaluate("name => window.model.get(name)", name)


@pytest.mark.parametrize("widget", [ReconstructionViewer, RunComparison, TokenEditor])
def test_a_refusal_is_the_only_thing_shown(show: Callable[..., Any], widget: type[View]) -> None:
    page = show(widget, message="There are no images.")
    assert page.locator(".message").inner_text() == "There are no images."
    assert page.locator("canvas, button, input, select, table").count() == 0


@pytest.mark.parametrize("name", ["canvas", "button", "wipe", "editor"])
def test_shortcuts_of_the_browser_are_left_to_it(show: Callable[..., Any], name: str) -> None:
    widget, state, selector = {
        "canvas": (ReconstructionViewer, viewer_state, "canvas[data-picture=error]"),
        "button": (ReconstructionViewer, viewer_state, "[role=radio][tabindex='0']"),
        "wipe": (RunComparison, comparison_state, "canvas[data-picture=errors]"),
        "editor": (TokenEditor, editor_state, "canvas[data-picture=decoded]"),
    }[name]
    page = show(widget, **state())
    page.wait_for_selector("canvas[data-painted]")
    page.evaluate(LEFT_ALONE)
    names = ("image", "lens", "share")
    before = [value(page, trait) for trait in names]
    page.locator(selector).focus()
    for keys in SHORTCUTS:
        page.keyboard.press(keys)
    assert page.evaluate("window.left") == len(SHORTCUTS)
    assert [value(page, trait) for trait in names] == before and sent(page) == []
    page.keyboard.press("ArrowRight")
    assert page.evaluate("window.left") == len(SHORTCUTS)


@pytest.mark.parametrize("name", ["viewer", "wipe", "editor"])
def test_on_a_narrow_page_pictures_keep_their_proportions(show: Callable[..., Any], name: str) -> None:
    widget, state = {
        "viewer": (ReconstructionViewer, viewer_state),
        "wipe": (RunComparison, comparison_state),
        "editor": (TokenEditor, editor_state),
    }[name]
    page = show(widget, width=260, **state())
    page.wait_for_selector("canvas[data-painted]")
    for canvas in page.locator("canvas[data-picture]").all():
        box = canvas.bounding_box()
        assert 80 < box["width"] <= 260 and box["height"] == pytest.approx(box["width"], abs=1)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    if widget is TokenEditor:  # and the pointer is where it is seen
        canvas = page.locator("canvas[data-picture=decoded]")
        token = canvas.bounding_box()["width"] / 4
        canvas.hover(position={"x": 3.5 * token, "y": 2.5 * token})
        assert page.locator(".tip").inner_text() == "row 2, column 3: code 111"


# ReconstructionViewer.


@pytest.mark.parametrize("width", [700, 825, 1300])
def test_the_three_pictures_stay_side_by_side(show: Callable[..., Any], width: int) -> None:
    page = show(ReconstructionViewer, width=width, **viewer_state())
    page.wait_for_selector("canvas[data-painted]")
    for kind in ("picture", "detail"):
        boxes = [canvas.bounding_box() for canvas in page.locator(f"canvas[data-{kind}]").all()]
        assert len(boxes) == 3 and len({box["y"] for box in boxes}) == 1
        assert min(box["width"] for box in boxes) > 200
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def viewer_state() -> dict[str, Any]:
    ramp = torch.arange(SIDE, dtype=torch.uint8).mul(15).expand(3, SIDE, SIDE).clone()  # brighter to the right
    ramp[2] = torch.arange(SIDE, dtype=torch.uint8)[:, None] * 15  # and bluer downwards
    worse = ramp.clone()
    worse[:, :, : SIDE // 2] += 30
    return {
        "names": ["a.png", "b.png", "c.png"],
        "psnr": np.array([30, 20, np.inf], dtype="<f4").tobytes(),
        "thumbnails": strip_png(torch.stack([flat(255, 0, 0), flat(0, 255, 0), flat(0, 0, 255)])),
        "original": image_png(ramp),
        "reconstruction": image_png(worse),
        "lens": [8.0, 8.0],
        "image": 1,
    }


def test_three_pictures_and_the_error_in_cividis(show: Callable[..., Any]) -> None:
    page = show(ReconstructionViewer, **viewer_state())
    page.wait_for_selector("canvas[data-picture=error][data-painted]")
    whole = {name: page.locator(f"canvas[data-picture={name}]") for name in ("original", "reconstruction", "error")}
    assert pixel(whole["original"], 2.5 * ENLARGED, 14.5 * ENLARGED) == [30, 30, 210]
    assert pixel(whole["reconstruction"], 2.5 * ENLARGED, 14.5 * ENLARGED) == [60, 60, 240]
    assert pixel(whole["error"], 14.5 * ENLARGED, 2.5 * ENLARGED) == [0, 34, 78]  # no error: cividis's dark end
    expected = 255 * np.array(matplotlib.colormaps["cividis"](30 / 255 / ERROR_SCALE)[:3])
    assert np.abs(pixel(whole["error"], 2.5 * ENLARGED, 2.5 * ENLARGED) - expected).max() < 6
    assert page.locator("[data-role=psnr]").inner_text() == "image 1: b.png, PSNR 20.0 dB"


def test_the_lens_shows_the_same_place_of_all_three(show: Callable[..., Any]) -> None:
    page = show(ReconstructionViewer, **viewer_state())
    page.wait_for_selector("canvas[data-picture=error][data-painted]")
    for name in ("original", "reconstruction", "error"):  # over any of them
        page.locator(f"canvas[data-picture={name}]").hover(position={"x": 4.6 * ENLARGED, "y": 12.6 * ENLARGED})
        lenses = {
            page.locator(f"canvas[data-detail={kind}]").get_attribute("data-lens")
            for kind in ("original", "reconstruction", "error")
        }
        assert lenses == {"3,11,4"}  # 4 pixels around column 4.6, row 12.6
        page.mouse.move(1, 1)
    detail = page.locator("canvas[data-detail=original]")
    assert pixel(detail, 1, 1) == [45, 45, 165] and pixel(detail, 250, 250) == [90, 90, 210]
    assert pixel(page.locator("canvas[data-detail=reconstruction]"), 1, 1) == [75, 75, 195]
    assert page.evaluate("window.saved") >= 1


def test_the_lens_moves_by_keys_and_stays_inside(show: Callable[..., Any]) -> None:
    page = show(ReconstructionViewer, **viewer_state())
    page.wait_for_selector("canvas[data-picture=error][data-painted]")
    canvas = page.locator("canvas[data-picture=reconstruction]")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert canvas.get_attribute("data-lens") == "7,7,4"
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    assert canvas.get_attribute("data-lens") == "0,7,4"
    page.keyboard.press("ArrowRight")  # at once, not after the way beyond the edge
    assert canvas.get_attribute("data-lens") == "1,7,4"
    page.get_by_label("lens").first.select_option("2")
    assert canvas.get_attribute("data-lens") == "0,5,8"
    assert page.locator("[data-role=place]").inner_text() == "lens: rows 5 to 12, columns 0 to 7"


def test_thumbnails_are_sorted_and_chosen_with_pointer_and_keys(show: Callable[..., Any]) -> None:
    page = show(ReconstructionViewer, **viewer_state())
    buttons = page.get_by_role("radio")

    def order() -> list[str]:
        return buttons.evaluate_all("all => all.map(button => button.dataset.image)")

    assert order() == ["1", "0", "2"]  # worst first; an exact one last
    page.get_by_label("images").select_option("best first")
    assert order() == ["2", "0", "1"]
    page.get_by_label("images").select_option("by number")
    assert order() == ["0", "1", "2"]
    assert buttons.nth(1).get_attribute("aria-checked") == "true"
    page.wait_for_function("document.querySelectorAll('[role=radio] canvas')[2].width >= 48")
    assert pixel(buttons.nth(2).locator("canvas"), 20, 20) == [0, 0, 255]
    buttons.nth(2).click()
    assert value(page, "image") == 2
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert value(page, "image") == 0
    assert page.evaluate("document.activeElement.dataset.image") == "0"
    assert "image 0: a.png, PSNR 30.0 dB" in page.locator("[data-role=psnr]").inner_text()


def test_the_list_shows_whole_rows_and_says_how_many_more_there_are(show: Callable[..., Any]) -> None:
    number = 40
    page = show(
        ReconstructionViewer,
        width=640,
        **viewer_state()
        | {
            "names": [f"{image}.png" for image in range(number)],
            "psnr": np.full(number, 20, dtype="<f4").tobytes(),
            "thumbnails": strip_png(torch.stack([flat(image, 0, 0) for image in range(number)])),
        },
    )
    strip, more = page.get_by_role("radiogroup"), page.locator("[data-role=more]")

    def heights() -> tuple[set[float], int]:
        """How much of the buttons is seen, as shares of their heights, and how many are not seen at all."""
        shown = strip.evaluate("""strip => { const box = strip.getBoundingClientRect();
            return [...strip.children].map(button => { const own = button.getBoundingClientRect();
                return (Math.min(box.bottom, own.bottom) - Math.max(box.top, own.top)) / own.height; }); }""")
        return {round(share, 3) for share in shown if share > 0}, sum(share <= 0 for share in shown)

    page.wait_for_function("document.querySelector('[data-role=more]').textContent")
    seen, hidden = heights()
    assert seen == {1} and 5 < hidden < number - 5
    assert more.inner_text() == f"{hidden} more: scroll"
    strip.hover()
    page.mouse.wheel(0, 60)  # less than a row
    page.wait_for_function("document.querySelector('[role=radiogroup]').scrollTop > 50")
    page.wait_for_timeout(500)  # it comes to rest
    seen, hidden = heights()
    assert seen == {1} and more.inner_text() == f"{hidden} more: scroll"
    page.set_viewport_size({"width": 1800, "height": 900})  # two rows
    page.wait_for_function("!document.querySelector('[data-role=more]').textContent")
    assert heights() == ({1}, 0)


def test_the_choice_stays_in_focus_when_the_list_is_sorted(show: Callable[..., Any]) -> None:
    page = show(ReconstructionViewer, **viewer_state())
    page.get_by_role("radio").nth(1).focus()
    page.get_by_role("radio").nth(1).click()
    change(page, order="by number")
    assert page.evaluate("document.activeElement.dataset.image") == str(value(page, "image")) == "0"


# RunComparison.


def comparison_state() -> dict[str, Any]:
    return {
        "names": ["one", "two"],
        "images": ["a.png", "b.png"],
        "table": [["", "one", "two", "difference"], ["usage", "10.0", "20.0", "+10.0"]],
        "psnr": np.array([30, 20, 31, 21], dtype="<f4").tobytes(),
        "original": image_png(flat(100, 100, 100)),
        "first": image_png(flat(200, 0, 0)),
        "second": image_png(flat(0, 0, 200)),
        "share": 0.5,
    }


def test_the_slider_wipes_between_the_two(show: Callable[..., Any]) -> None:
    page = show(RunComparison, **comparison_state())
    page.wait_for_selector("canvas[data-picture=errors][data-painted]")
    canvas = page.locator("canvas[data-picture=reconstructions]")
    assert pixel(canvas, 60, 100) == [200, 0, 0] and pixel(canvas, 200, 100) == [0, 0, 200]
    page.get_by_role("slider").fill("0.1")
    assert pixel(canvas, 60, 100) == [0, 0, 200] and pixel(canvas, 10, 100) == [200, 0, 0]
    page.get_by_role("slider").fill("0.9")
    assert pixel(canvas, 200, 100) == [200, 0, 0] and pixel(canvas, 250, 100) == [0, 0, 200]
    for name in ("reconstructions", "errors"):
        assert page.locator(f"canvas[data-picture={name}]").get_attribute("data-split") == "230"
    assert pixel(page.locator("canvas[data-picture=original]"), 5, 5) == [100, 100, 100]
    assert page.locator("td, th").all_inner_texts() == [
        "",
        "one",
        "two",
        "difference",
        "usage",
        "10.0",
        "20.0",
        "+10.0",
    ]


def test_the_line_is_dragged_and_moved_by_keys(show: Callable[..., Any]) -> None:
    page = show(RunComparison, **comparison_state())
    page.wait_for_selector("canvas[data-picture=errors][data-painted]")
    canvas = page.locator("canvas[data-picture=errors]")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 50)
    assert value(page, "share") == 0.5  # not before it is pressed
    page.mouse.down()
    page.mouse.move(box["x"] + 64, box["y"] + 90)
    page.mouse.up()
    assert value(page, "share") == pytest.approx(0.25, abs=0.01)
    assert page.evaluate("window.saved") == 1
    page.mouse.move(box["x"] + 200, box["y"] + 50)
    assert value(page, "share") == pytest.approx(0.25, abs=0.01)
    canvas.focus()
    page.keyboard.press("End")
    assert value(page, "share") == 1
    page.keyboard.press("ArrowRight")
    assert value(page, "share") == 1
    page.keyboard.press("Shift+ArrowLeft")
    assert value(page, "share") == pytest.approx(0.9)
    page.mouse.move(box["x"] + 64, box["y"] + 50)
    page.mouse.down(button="right")
    page.mouse.move(box["x"] + 80, box["y"] + 50)
    page.mouse.up(button="right")
    assert value(page, "share") == pytest.approx(0.9)


def test_on_a_narrow_page_what_the_line_divides_stays_together(show: Callable[..., Any]) -> None:
    page = show(RunComparison, width=500, **comparison_state())
    page.wait_for_selector("canvas[data-picture=errors][data-painted]")
    made, errors = (
        page.locator(f"canvas[data-picture={name}]").bounding_box() for name in ("reconstructions", "errors")
    )
    slider = page.get_by_role("slider").bounding_box()
    assert made["y"] == errors["y"] and slider["width"] == pytest.approx(
        errors["x"] + errors["width"] - made["x"], abs=1
    )
    assert page.locator(".vistok").evaluate("box => box.scrollWidth <= box.clientWidth")


def test_another_image_is_chosen(show: Callable[..., Any]) -> None:
    page = show(RunComparison, **comparison_state())
    page.wait_for_selector("canvas[data-picture=errors][data-painted]")
    assert page.locator("[data-role=psnr]").inner_text() == "PSNR: 30.0 dB (one), 31.0 dB (two)"
    page.get_by_role("combobox").select_option("1")
    assert value(page, "image") == 1 and page.evaluate("window.saved") == 1
    assert page.locator("[data-role=psnr]").inner_text() == "PSNR: 20.0 dB (one), 21.0 dB (two)"
    change(page, original=image_png(flat(1, 2, 3)))
    page.wait_for_function("""() => [...document.querySelector("canvas[data-picture=original]").getContext("2d")
        .getImageData(9, 9, 1, 1).data].join() === "1,2,3,255" """)


# TokenEditor.

TOKEN = 384 / 4  # CSS pixels


def editor_state() -> dict[str, Any]:
    edited = np.zeros((4, 4), dtype=np.uint8)
    edited[2, 1] = 1
    return {
        "images": 5,
        "codebook_sizes": [512],
        "grid": [4, 4],
        "other": 1,
        "token_values": (np.arange(16, dtype="<u4") + 100).tobytes(),
        "titles": ["a.png", "b.png"],
        "edited": edited.tobytes(),
        "near": [100, 7, 9],
        "near_distances": [0.0, 0.5, 0.75],
        "near_tiles": strip_png(torch.stack([flat(9, 9, 9), flat(50, 0, 0), flat(0, 50, 0)])[:, :, :4, :4]),
        "original": image_png(flat(10, 20, 30)),
        "before": image_png(flat(80, 80, 80)),
        "decoded_png": image_png(flat(120, 120, 120)),
        "other_decoded": image_png(flat(40, 50, 60)),
        "can_undo": True,
        "change": "1 token is not as encoded.",
    }


def editor(show: Callable[..., Any], **more: Any) -> tuple[Any, Any]:
    page = show(TokenEditor, **editor_state() | more)
    page.wait_for_selector("canvas[data-picture=decoded][data-painted]")
    return page, page.locator("canvas[data-picture=decoded]")


def test_pictures_grid_and_marks(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    assert pixel(canvas, 2.5 * TOKEN, 2.5 * TOKEN) == [120, 120, 120]
    on_the_line = pixel(canvas, 2.5 * TOKEN, 3 * TOKEN)
    assert on_the_line != [120, 120, 120]
    assert pixel(canvas, TOKEN + 8, 2 * TOKEN + 8) == [213, 94, 0]  # the edited token's mark
    assert pixel(canvas, 2 * TOKEN + 8, 2 * TOKEN + 8) == [120, 120, 120]
    page.get_by_label("grid").uncheck()
    assert pixel(canvas, 2.5 * TOKEN, 3 * TOKEN) == [120, 120, 120]
    assert pixel(page.locator("canvas[data-picture=original]"), 9, 9) == [10, 20, 30]
    assert pixel(page.locator("canvas[data-picture=other_decoded]"), 9, 9) == [40, 50, 60]
    assert pixel(page.locator("canvas[data-picture=difference]"), 9, 9) != [0, 34, 78]
    assert page.locator("[data-role=change]").inner_text() == "1 token is not as encoded."


def test_a_token_is_pointed_at_and_a_region_dragged(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    canvas.hover(position={"x": 3.5 * TOKEN, "y": 1.5 * TOKEN})
    assert page.locator(".tip").inner_text() == "row 1, column 3: code 107"
    canvas.click(position={"x": 3.5 * TOKEN, "y": 1.5 * TOKEN})
    assert sent(page) == [{"do": "select", "top": 1, "left": 3, "bottom": 2, "right": 4}]
    assert page.locator("[data-role=token]").inner_text() == "selected: row 1, column 3: code 107"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 2.5 * TOKEN, box["y"] + 2.5 * TOKEN)  # from lower right to upper left
    page.mouse.down()
    page.mouse.move(box["x"] + 1.5 * TOKEN, box["y"] + 0.5 * TOKEN, steps=4)
    assert len(sent(page)) == 1  # the kernel is asked at the end
    assert canvas.get_attribute("data-selection") == "0,1,3,3"
    page.mouse.up()
    assert sent(page)[1:] == [{"do": "select", "top": 0, "left": 1, "bottom": 3, "right": 3}]
    page.mouse.move(1, 1)
    assert not page.locator(".tip").is_visible()


def test_tokens_are_selected_by_keys(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    assert canvas.get_attribute("data-selection") == "1,0,2,1"  # stays inside
    for key in ("Shift+ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert canvas.get_attribute("data-selection") == "1,0,3,3"
    assert sent(page)[-1] == {"do": "select", "top": 1, "left": 0, "bottom": 3, "right": 3}
    assert "6 tokens" in page.locator("[data-role=token]").inner_text()
    page.keyboard.press("Enter")
    page.keyboard.type("17")
    page.keyboard.press("Enter")
    assert sent(page)[-1] == {"do": "replace", "code": 17}


def test_a_late_answer_does_not_move_the_selection_back(show: Callable[..., Any]) -> None:
    page, canvas = editor(show, answered=7)
    canvas.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    change(page, selection=[0, 1, 1, 2], answered=8)
    assert canvas.get_attribute("data-selection") == "0,3,1,4"
    change(page, selection=[0, 2, 1, 3])
    change(page, answered=9)
    page.keyboard.press("ArrowDown")
    change(page, selection=[0, 3, 1, 4])
    change(page, answered=10)
    assert canvas.get_attribute("data-selection") == "1,3,2,4"
    for _ in range(2):  # a region that grows to the left, from where it began
        page.keyboard.press("Shift+ArrowLeft")
    change(page, selection=[1, 3, 2, 4], answered=11)
    change(page, selection=[1, 2, 2, 4], answered=12)
    change(page, selection=[1, 1, 2, 4], answered=13)
    page.keyboard.press("Shift+ArrowRight")
    assert canvas.get_attribute("data-selection") == "1,2,2,4"
    change(page, answered=14)  # what the kernel says in the end counts: it refused the last one
    assert canvas.get_attribute("data-selection") == "1,1,2,4"
    change(page, selection=[0, 0, 2, 2])  # and what it says unasked
    assert canvas.get_attribute("data-selection") == "0,0,2,2"


def test_other_buttons_of_the_mouse_select_nothing(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    for button in ("right", "middle"):
        canvas.click(button=button, position={"x": 2.5 * TOKEN, "y": 2.5 * TOKEN})
    assert sent(page) == [] and canvas.get_attribute("data-selection") == "0,0,1,1"


def test_focus_stays_where_keys_are_pressed(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    page.locator("button[data-code='9']").focus()
    page.keyboard.press("Enter")
    tiles = editor_state()["near_tiles"]
    change(page, near=[9, 100, 8], near_distances=[0.0, 0.5, 0.75], near_tiles=tiles)
    page.wait_for_selector("button[data-code='8']")
    assert page.evaluate("document.activeElement.dataset.code") == "8"  # at the same place
    page.get_by_role("button", name="undo").focus()
    change(page, can_undo=False)
    assert page.evaluate("document.activeElement.dataset.picture") == "decoded"


def test_a_reader_is_told_that_the_kernel_works(show: Callable[..., Any]) -> None:
    page, _ = editor(show)
    busy = page.locator("[data-role=busy]")
    page.get_by_role("button", name="swap region").click()
    assert busy.inner_text() == ""
    page.wait_for_function("document.querySelector('[data-role=busy]').textContent === 'waiting for the kernel …'")
    change(page, answered=1)
    assert busy.inner_text() == ""


def test_a_refused_number_stays_to_be_mended(show: Callable[..., Any]) -> None:
    page, _ = editor(show)
    other = page.get_by_role("spinbutton", name="other image")
    other.fill("99")
    other.press("Tab")
    change(page, message="There is no image 99: images are 0 to 4.", answered=1)
    assert other.input_value() == "99"
    change(page, other=3)
    assert other.input_value() == "3"


def test_small_pictures_are_painted_when_there_are_new_ones(show: Callable[..., Any]) -> None:
    page, canvas = editor(show)
    difference = page.locator("canvas[data-picture=difference]")
    before, painted = pixel(difference, 9, 9), difference.get_attribute("data-painted")
    page.evaluate("window.lag = 2500")  # longer than moving the pointer takes on a busy machine
    change(page, change="2 tokens are not as encoded.", decoded_png=image_png(flat(250, 250, 250)))
    canvas.hover(position={"x": 2.5 * TOKEN, "y": 2.5 * TOKEN})  # it alone is drawn anew
    assert (pixel(difference, 9, 9), difference.get_attribute("data-painted")) == (before, painted)
    page.wait_for_selector(f"canvas[data-picture=difference]:not([data-painted='{painted}'])")
    assert pixel(difference, 9, 9) != before


def test_two_views_of_one_editor_select_the_same(show: Callable[..., Any]) -> None:
    page, first = editor(show)
    page.evaluate("""() => { const el = document.createElement("div"); document.body.append(el); const hide = window.hide;
        window.show(el); const other = window.hide; window.hide = () => { hide(); other(); }; }""")
    page.wait_for_function("document.querySelectorAll('canvas[data-picture=decoded][data-painted]').length === 2")
    canvases = page.locator("canvas[data-picture=decoded]")
    canvases.nth(1).click(position={"x": 2.5 * TOKEN, "y": 1.5 * TOKEN})
    change(page, selection=[1, 2, 2, 3])
    change(page, answered=1)
    canvases.nth(0).focus()
    page.keyboard.press("ArrowRight")
    change(page, selection=[1, 3, 2, 4])
    change(page, answered=2)
    assert canvases.evaluate_all("all => all.map(one => one.dataset.selection)") == ["1,3,2,4", "1,3,2,4"]


def test_buttons_ask_the_kernel(show: Callable[..., Any]) -> None:
    page, _ = editor(show)
    page.get_by_label("code", exact=True).fill("9999")  # it is the kernel that refuses it, in a sentence
    page.get_by_role("button", name="replace", exact=True).click()
    for name in ("swap region", "undo", "reset"):
        page.get_by_role("button", name=name).click()
    page.get_by_role("button", name=re.compile("code 9,")).click()
    page.get_by_role("spinbutton", name="other image").fill("4")
    page.get_by_role("spinbutton", name="other image").press("Tab")
    assert sent(page) == [
        {"do": "replace", "code": 9999},
        {"do": "swap"},
        {"do": "undo"},
        {"do": "reset"},
        {"do": "replace", "code": 9},
        {"do": "choose", "image": 0, "other": 4},
    ]
    tile = page.locator("button[data-code='7'] canvas")
    assert pixel(tile, 20, 20) == [50, 0, 0]
    change(page, can_undo=False)
    assert page.get_by_role("button", name="undo").is_disabled()


def test_of_the_slider_only_the_last_request_waits_for_an_answer(show: Callable[..., Any]) -> None:
    page, _ = editor(show)
    slider = page.get_by_role("slider")
    for share in ("0.1", "0.2", "0.3"):
        slider.fill(share)
    assert sent(page) == [{"do": "interpolate", "share": 0.1, "to_codes": False}]
    change(page, answered=1)
    assert sent(page)[1:] == [{"do": "interpolate", "share": 0.3, "to_codes": False}]
    change(page, share=0.3, answered=2)
    page.get_by_label("snap to codes").check()
    assert sent(page)[2:] == [{"do": "interpolate", "share": 0.3, "to_codes": True}]


def test_what_the_kernel_changes_is_drawn(show: Callable[..., Any]) -> None:
    page, canvas = editor(show, codebook_sizes=[512, 16])
    change(page, selection=[1, 2, 3, 4])
    assert canvas.get_attribute("data-selection") == "1,2,3,4"
    page.get_by_label("level").select_option("1")
    assert sent(page) == [{"do": "look_at", "level": 1}]
    change(page, level=1, decoded_png=image_png(flat(1, 2, 3)))
    page.wait_for_function("""() => [...document.querySelector("canvas[data-picture=decoded]").getContext("2d")
        .getImageData(50, 50, 1, 1).data].join() === "1,2,3,255" """)
    assert page.get_by_label("code", exact=True).get_attribute("max") == "15"
    change(page, message="There is no code 99: codes are 0 to 15.")
    assert page.get_by_role("alert").inner_text() == "There is no code 99: codes are 0 to 15."


@pytest.mark.parametrize(
    ("widget", "state"),
    [(ReconstructionViewer, viewer_state), (RunComparison, comparison_state), (TokenEditor, editor_state)],
)
def test_dark_theme_and_names_of_controls(
    show: Callable[..., Any], widget: type[View], state: Callable[[], dict[str, Any]]
) -> None:
    page = show(widget, dark=True, description="What is seen.", **state())
    colours = page.locator(".vistok").evaluate(
        "box => [getComputedStyle(box).color, getComputedStyle(box).backgroundColor]"
    )
    assert colours == ["rgb(255, 255, 255)", "rgb(17, 17, 17)"]
    assert page.locator(".description").text_content() == "What is seen."
    nameless = page.locator("input, select, button, canvas:not([aria-hidden])").evaluate_all(
        "all => all.filter(one => !(one.getAttribute('aria-label') || one.labels?.length || one.textContent.trim()))"
        ".map(one => one.outerHTML)"
    )
    assert nameless == []
