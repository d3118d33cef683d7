"""The script of `TryPicture` in a browser, beside a model without a kernel: what is taken, asked for, shown and said."""

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import fake_model
from browser.fake_model import change, open_page
from PIL import Image

from vistok.tokenizer import VisualTokenizer
from vistok.widgets.editor import TokenEditor
from vistok.widgets.pictures import MAX_PIXELS
from vistok.widgets.try_picture import TryPicture

# What the page sends, its bytes as their number and their mean.
SPY = """() => { window.sent = []; window.model.send = (content, callbacks, buffers) => { const data = [...buffers ?? []][0];
    const bytes = data ? new Uint8Array(data) : null;
    window.sent.push(bytes ? { ...content, bytes: bytes.length, pixel: [...bytes.slice(-3)] } : content); }; }"""
GIVE = """(box, [how, name, type, content]) => {
    const transfer = new DataTransfer();
    if (!name) type.split(',').forEach((part) => transfer.setData(part, atob(content)));
    else transfer.items.add(new File([Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0))], name, { type }));
    const event = how === 'paste' ? new ClipboardEvent(how, { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent(how, { dataTransfer: transfer, bubbles: true, cancelable: true });
    return !box.dispatchEvent(event); }"""


@pytest.fixture(scope="module")
def tried() -> TryPicture:
    """Two tokenizers of different image sizes, and a wide picture."""
    torch.manual_seed(0)
    options = {"quantizer_options": {"codebook_size": 512, "codebook_dim": 4}, "network_options": {"hidden_dim": 16}}
    both = [VisualTokenizer(image_size=size, **options).eval() for size in (32, 64)]
    return TryPicture(*both, picture=Image.effect_noise((120, 60), 90))


@pytest.fixture
def show(browser: Any, tried: TryPicture) -> Iterator[Callable[..., Any]]:
    pages = []

    def open_widget(*, width: int = 825, **state: Any) -> Any:
        page = open_page(browser, width, 1000)
        fake_model.show(page, tried, **state)
        page.evaluate(SPY)
        if tried.extent[0] and "extent" not in state:
            page.wait_for_selector("canvas[data-card][data-painted]")
            page.wait_for_selector("canvas[data-crop]")
        pages.append(page)
        return page

    yield open_widget
    for page in pages:
        page.evaluate("hide()")
        assert page.evaluate("listeners()") == 0
        assert page.errors == []
        page.close()


def encoded(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def give(page: Any, how: str, name: str, kind: str, content: str) -> bool:
    """Drop or paste something; returns whether the view took the event from the browser."""
    return page.locator(".try-picture").evaluate(GIVE, [how, name, kind, content])


def sent(page: Any) -> list[dict[str, Any]]:
    return page.evaluate("window.sent")


def taken(page: Any) -> dict[str, Any]:
    page.wait_for_function("window.sent.some(one => one.do === 'take')")
    return next(one for one in sent(page) if one["do"] == "take")


def said(page: Any) -> str:
    page.wait_for_function("document.querySelector('.message').textContent")
    return page.locator(".message").inner_text()


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_is_made_small_and_sent_and_the_reader_told_to_wait(show: Callable[..., Any], how: str) -> None:
    page = show()
    assert give(page, how, "holiday.png", "image/png", encoded(Image.new("RGB", (1600, 1200), (9, 200, 30)), "PNG"))
    asked = taken(page)
    assert asked["name"] == "holiday.png" and asked["size"] == [1600, 1200]
    assert asked["height"] == page.evaluate("model.get('short')") and asked["width"] == round(asked["height"] * 4 / 3)
    assert asked["bytes"] == 3 * asked["width"] * asked["height"] and asked["pixel"] == [9, 200, 30]
    busy = page.locator("[data-role=busy]")
    assert busy.inner_text() == "waiting for the kernel …"  # at once
    assert page.locator("[data-role=name]").inner_text() == "holiday.png"  # it is seen before the kernel has it
    assert page.locator("canvas[data-picture=whole]").get_attribute("data-crop") == "43,0,256"
    change(page, answered=1)
    assert busy.inner_text() == ""


def test_a_file_is_chosen(show: Callable[..., Any]) -> None:
    page = show()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="choose a picture").click()
    content = base64.b64decode(encoded(Image.new("L", (30, 20), 77), "JPEG", quality=95))
    chooser.value.set_files({"name": "grey.jpg", "mimeType": "image/jpeg", "buffer": content})
    asked = taken(page)
    assert (asked["width"], asked["height"], asked["pixel"]) == (30, 20, [77, 77, 77])


def turned() -> str:
    exif = Image.Exif()
    exif[0x112] = 6
    return encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)


DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="9" height="9" fill="#123456"/></svg>'
PICTURES = {  # type, content, size sent, its last pixel
    "turned by the camera": ("image/jpeg", turned(), (20, 40), [0, 0, 0]),
    "transparent": ("image/png", encoded(Image.new("RGBA", (9, 8)), "PNG"), (9, 8), [255, 255, 255]),
    "16 bits": ("image/png", encoded(Image.new("I;16", (9, 8), 0x8080), "PNG"), (9, 8), [128, 128, 128]),
    "an animation": (
        "image/gif",
        encoded(Image.new("P", (9, 8)), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 8), "white")]),
        (9, 8),
        [0, 0, 0],
    ),
    "a drawing": ("image/svg+xml", base64.b64encode(DRAWING.encode()).decode(), None, [0x12, 0x34, 0x56]),
    "a dot": ("image/png", encoded(Image.new("RGB", (1, 1), "white"), "PNG"), (1, 1), [255, 255, 255]),
    "very wide": ("image/png", encoded(Image.new("RGB", (30_000, 90), "red"), "PNG"), None, [255, 0, 0]),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_of_all_kinds_are_taken(show: Callable[..., Any], kind: str) -> None:
    page = show()
    mime, content, size, pixel = PICTURES[kind]
    give(page, "drop", "one", mime, content)
    asked = taken(page)
    assert size is None or (asked["width"], asked["height"]) == size
    assert asked["pixel"] == pixel
    assert asked["width"] * asked["height"] <= 1.01 * MAX_PIXELS  # the kernel takes them, and a message holds them
    assert page.locator(".message").inner_text() == ""


@pytest.mark.parametrize(
    ("how", "name", "kind", "content", "sentence"),
    [
        ("drop", "notes.txt", "text/plain", b"notes", "notes.txt is no picture that this browser can read"),
        ("drop", "broken.jpg", "image/jpeg", b"\xff\xd8\xff", "broken.jpg is no picture that this browser can read"),
        ("drop", "empty.png", "image/png", b"", "empty.png is empty: there is no picture in it."),
        (
            "drop",
            "IMG_1.HEIC",
            "",
            b"\0\0\0\x18ftypheic",
            "AVIF and SVG are. Make a JPEG of it first, or show(file) it",
        ),
        (
            "drop",
            "",
            "text/plain",
            b"https://example.org/cat.jpg",
            "What was dropped is text, not a picture: choose a file.",
        ),
        (
            "drop",
            "",
            "text/html",
            b"<meta><img src='https://example.org/cat.jpg'>",
            "address of a picture on example.org",
        ),
        (
            "paste",
            "",
            "text/html",
            b"<b>words</b>",
            "What was pasted is text, not a picture: copy a picture, or choose",
        ),
        ("paste", "", "text/plain", b"words", "What was pasted is text, not a picture"),
    ],
)
def test_what_is_no_picture_is_said(
    show: Callable[..., Any], how: str, name: str, kind: str, content: bytes, sentence: str
) -> None:
    page = show()
    assert give(page, how, name, kind, base64.b64encode(content).decode())
    assert sentence in said(page)
    assert sent(page) == [] and page.locator("[data-role=busy]").inner_text() == ""


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_a_picture_that_a_page_shows_is_taken(show: Callable[..., Any], how: str) -> None:
    page = show()
    source = f"data:image/png;base64,{encoded(Image.new('RGB', (9, 8), (7, 8, 9)), 'PNG')}"
    give(page, how, "", "text/html,text/plain", base64.b64encode(f'<img alt="" src="{source}">'.encode()).decode())
    asked = taken(page)
    assert (asked["name"], asked["size"], asked["pixel"]) == ("picture of the page", [9, 8], [7, 8, 9])


def test_of_several_files_the_first_picture_is_taken_and_said_to_be_one_of_them(show: Callable[..., Any]) -> None:
    page = show()
    page.locator(".try-picture").evaluate(
        """(box, content) => { const dataTransfer = new DataTransfer();
            for (const [name, type] of [["notes.txt", "text/plain"], ["a.svg", "image/svg+xml"], ["b.svg", "image/svg+xml"]])
                dataTransfer.items.add(new File([content], name, { type }));
            box.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true })); }""",
        DRAWING,
    )
    assert taken(page)["name"] == "a.svg (the first of 2 pictures)"


def test_a_folder_is_called_one(show: Callable[..., Any], tmp_path: Path) -> None:
    page = show()
    (tmp_path / "holiday").mkdir()
    box = page.locator(".try-picture").bounding_box()
    data = {"items": [], "files": [str(tmp_path / "holiday")], "dragOperationsMask": 1}
    browser = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        at = {"x": box["x"] + 20, "y": box["y"] + 20}
        browser.send("Input.dispatchDragEvent", {"type": kind, "data": data, **at})
    assert said(page) == "holiday is a folder: drop one picture of it."
    assert sent(page) == []


def test_a_picture_before_the_last_one_does_not_come_back(show: Callable[..., Any], tried: TryPicture) -> None:
    """The kernel is still at the former picture when the next one is dropped."""
    page = show()
    name = page.locator("[data-role=name]")
    for picture, request in (("first.png", 1), ("second.png", 2)):
        give(page, "drop", picture, "image/png", encoded(Image.new("RGB", (9, 8)), "PNG"))
        page.wait_for_function(f"window.sent.length === {request}")
    change(page, picture_name="first.png", preview=tried.preview, crop=[1, 0, 8], extent=[9, 8])
    page.wait_for_timeout(500)
    assert name.inner_text() == "second.png"
    change(page, answered=1)
    page.wait_for_timeout(500)
    assert name.inner_text() == "second.png"
    change(page, answered=2)  # which the kernel could not take
    page.wait_for_function("document.querySelector('[data-role=name]').textContent === 'first.png'")


def test_a_picture_of_too_many_pixels_is_refused_undecoded(show: Callable[..., Any]) -> None:
    page = show()
    page.evaluate("window.createImageBitmap = window.Worker = undefined")
    content = base64.b64decode(encoded(Image.new("1", (16_000, 12_000)), "PNG"))
    file = {"name": "wall.png", "mimeType": "image/png", "buffer": content}
    page.locator("input[type=file]").set_input_files(file)
    assert said(page).startswith("wall.png has 16,000 × 12,000 pixels, but at most 120 million are read here")
    assert sent(page) == []


def test_where_no_work_goes_on_beside_the_page_it_is_done_on_it(show: Callable[..., Any]) -> None:
    page = show()
    page.evaluate("window.Worker = undefined")
    give(page, "drop", "one.png", "image/png", encoded(Image.new("RGB", (900, 600), (1, 2, 3)), "PNG"))
    assert taken(page)["pixel"] == [1, 2, 3]


def test_of_two_pictures_the_last_counts(show: Callable[..., Any]) -> None:
    page = show()
    large, small = (encoded(Image.new("RGB", size, "red"), "PNG") for size in ((4000, 3000), (8, 8)))
    both = [["drop", "first.png", "image/png", large], ["drop", "second.png", "image/png", small]]
    page.locator(".try-picture").evaluate(f"(box, both) => both.forEach((one) => ({GIVE})(box, one))", both)  # at once
    taken(page)
    page.wait_for_timeout(1000)
    assert [one["name"] for one in sent(page) if one["do"] == "take"] == ["second.png"]


def test_text_is_pasted_into_fields(show: Callable[..., Any]) -> None:
    page = show()
    event = """field => { const clipboardData = new DataTransfer(); clipboardData.setData("text/plain", "12");
        return field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true })); }"""
    assert page.get_by_label("code", exact=True).evaluate(event)  # left to the browser
    assert page.locator(".message").inner_text() == ""


def test_without_a_camera_it_is_said(show: Callable[..., Any]) -> None:
    page = show()
    page.get_by_role("button", name="camera", exact=True).click()
    assert "camera" in said(page)  # of a page without an address nothing else can be tried


def test_a_picture_is_taken_by_the_camera(show: Callable[..., Any]) -> None:
    page = show()
    page.evaluate("""() => { const canvas = document.createElement("canvas"); [canvas.width, canvas.height] = [64, 48];
        const context = canvas.getContext("2d"); window.streams = [];
        setInterval(() => { context.fillStyle = "#fff"; context.fillRect(0, 0, 64, 48); }, 30);
        const getUserMedia = async () => { window.streams.push(canvas.captureStream(30)); return window.streams.at(-1); };
        Object.defineProperty(navigator, "mediaDevices", { value: { getUserMedia } }); }""")
    seen = "() => document.querySelector('video')?.videoWidth === 64 && document.querySelector('video').currentTime > 0"
    off = "window.streams.every((stream) => stream.getTracks().every((track) => track.readyState === 'ended'))"
    camera = page.get_by_role("button", name="camera", exact=True)
    camera.click()
    page.wait_for_function(seen)
    camera.click()  # again, and at once again: one camera is on
    camera.click()
    page.wait_for_function("window.streams.length === 3")
    page.wait_for_function(seen)
    live = "window.streams.filter((stream) => stream.getTracks().some((track) => track.readyState === 'live')).length"
    assert page.evaluate(live) == 1 and page.locator("video").count() == 1
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('video')")
    assert page.locator("video").count() == 0 and page.locator(".message").inner_text() == "" and page.evaluate(off)
    camera.click()
    page.wait_for_function(seen)
    give(page, "drop", "other.png", "image/png", encoded(Image.new("RGB", (8, 9)), "PNG"))
    assert taken(page)["name"] == "other.png"  # and the camera goes on
    page.evaluate("window.sent = []")
    page.get_by_role("button", name="take the picture").click()
    asked = taken(page)
    assert (asked["name"], asked["size"], asked["pixel"]) == ("camera picture", [64, 48], [255, 255, 255])
    assert page.locator("video").count() == 0 and page.evaluate(off)


def test_the_square_is_dragged_sized_and_moved_by_keys(show: Callable[..., Any]) -> None:
    page = show()
    canvas = page.locator("canvas[data-picture=whole]")
    box = canvas.bounding_box()
    scale = 120 / box["width"]
    assert canvas.get_attribute("data-crop") == "30,0,60"
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 15 / scale, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    left = int(canvas.get_attribute("data-crop").split(",")[0])
    assert left == pytest.approx(45, abs=1)
    first = sent(page)
    assert len(first) == 1 and first[0]["do"] == "crop_to"  # the rest waits for its answer
    change(page, answered=1)
    assert sent(page)[1:] == [{"do": "crop_to", "left": left, "top": 0, "side": 60}]
    change(page, answered=2, crop=[left, 0, 60])
    page.get_by_label("zoom").fill("1")
    assert sent(page)[-1]["side"] == 16
    change(page, answered=3, crop=[60, 20, 16])
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    assert sent(page)[-1] == {"do": "crop_to", "left": 59, "top": 20, "side": 16}
    change(page, answered=4, crop=[59, 20, 16])
    page.get_by_role("button", name="centre").click()
    assert sent(page)[-1] == {"do": "crop_to", "left": 30, "top": 0, "side": 60}


def test_tokens_are_clicked_and_changed_over_both_pictures(show: Callable[..., Any]) -> None:
    page = show()
    for number, name in enumerate(("seen", "decoded")):
        canvas = page.locator(f"canvas[data-picture={name}]")
        token = canvas.bounding_box()["width"] / 8
        canvas.click(position={"x": (3 + number + 0.5) * token, "y": 2.5 * token})
        assert sent(page)[-1] == {"do": "select", "top": 2, "left": 3 + number, "bottom": 3, "right": 4 + number}
        assert f"row 2, column {3 + number}: code" in page.locator("[data-role=token]").inner_text()
    both = page.locator("canvas[data-selection]").evaluate_all("all => all.map(one => one.dataset.selection)")
    assert both == ["2,4,3,5"] * 2
    page.locator("[aria-label='nearest codes'] button").nth(3).click()
    code = page.evaluate("model.get('near')[3]")
    assert sent(page)[-1] == {"do": "replace", "code": code}
    page.locator(".card-title button").nth(1).click()
    assert sent(page)[-1] == {"do": "look_at", "tokenizer": 1, "level": 0}


def test_a_reconstruction_that_is_still_made_is_not_that_of_the_picture_before(
    show: Callable[..., Any], tried: TryPicture
) -> None:
    page = show()
    second = page.locator("[data-card]").nth(2)
    change(page, seen=[tried.seen[0], b""], reconstructions=[tried.reconstructions[0], b""])
    page.wait_for_function("document.querySelectorAll('[data-card]')[2].style.opacity === '0.3'")
    assert page.locator("[data-role=psnr]").nth(2).inner_text() == "…"
    change(page, seen=list(tried.seen), reconstructions=list(tried.reconstructions))
    page.wait_for_function("document.querySelectorAll('[data-card]')[2].style.opacity === '1'")
    assert "dB" in page.locator("[data-role=psnr]").nth(2).inner_text() and second.is_visible()


def test_tokenizers_of_different_sizes_say_what_their_numbers_are_of(show: Callable[..., Any]) -> None:
    page = show()
    texts = page.locator(".card-text").all_inner_texts()
    assert ["of 32 × 32 pixels" in texts[1], "of 64 × 64 pixels" in texts[2]] == [True, True]


def test_error_maps_on_demand(show: Callable[..., Any]) -> None:
    page = show()
    assert page.locator("canvas.error").evaluate_all("all => all.map(one => one.offsetWidth)") == [0, 0]
    page.get_by_label("error maps").check()
    assert min(page.locator("canvas.error").evaluate_all("all => all.map(one => one.offsetWidth)")) > 100
    assert page.locator(".scale").is_visible()


def test_without_a_picture_there_is_only_the_way_to_give_one(show: Callable[..., Any]) -> None:
    page = show(extent=[0, 0], seen=[b"", b""], reconstructions=[b"", b""], preview=b"")
    assert not page.locator(".cards").is_visible()
    assert page.get_by_role("button", name="choose a picture").is_visible()
    said = page.locator("[data-role=privacy]").inner_text()
    assert "Only the notebook's own kernel gets your picture" in said and "A notebook that you save keeps it" in said


@pytest.mark.parametrize("width", [700, 825, 1300])
def test_pictures_stand_side_by_side_and_nothing_is_cut_off(show: Callable[..., Any], width: int) -> None:
    page = show(width=width)
    page.get_by_label("error maps").check()
    tops = [page.locator(f"canvas[data-picture={name}]").bounding_box()["y"] for name in ("seen", "decoded")]
    assert tops[0] == tops[1]
    cards = [canvas.bounding_box() for canvas in page.locator("canvas[data-card]").all()]
    assert len({box["y"] for box in cards}) == 1 and min(box["width"] for box in cards) > 120
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = page.locator("button, canvas, input:not([type=file]), label").evaluate_all(
        "(all, width) => all.filter(one => one.offsetWidth && one.getBoundingClientRect().right > width).length", width
    )
    assert outside == 0
    nameless = page.locator("input, select, button, canvas:not([aria-hidden])").evaluate_all(
        "all => all.filter(one => !(one.getAttribute('aria-label') || one.labels?.length || one.textContent.trim()))"
        ".map(one => one.outerHTML)"
    )
    assert nameless == []


def test_codes_are_written_where_there_is_room(show: Callable[..., Any]) -> None:
    page = show()
    white = """canvas => { const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        let sum = 0; for (let at = 0; at < data.length; at += 4) sum += data[at] > 250 && data[at + 1] > 250; return sum; }"""
    canvas = page.locator("canvas[data-picture=seen]")
    page.get_by_label("grid").uncheck()
    with_codes = canvas.evaluate(white)
    page.get_by_role("checkbox", name="codes").uncheck()
    assert with_codes > canvas.evaluate(white) + 500


def test_a_class_without_tokenizers_says_why(browser: Any) -> None:
    page = open_page(browser, 825, 500)
    fake_model.show(page, TryPicture, message="There is no tokenizer in runs/nowhere.")
    assert page.locator(".message").inner_text() == "There is no tokenizer in runs/nowhere."
    assert page.locator("canvas, button, input").count() == 0 and page.errors == []
    page.close()


def test_the_editor_takes_numbers_as_they_are_typed(browser: Any, tried: TryPicture) -> None:
    """By a pause, the enter key and the arrows of the field; once each, and not over what is being typed."""
    page = open_page(browser, 825, 900)
    state = {
        name: getattr(tried, name)
        for name in ("token_values", "edited", "grid", "near", "near_distances", "near_tiles")
    }
    picture = tried.seen[0]
    state |= dict.fromkeys(("original", "before", "decoded_png", "other_decoded"), picture)
    fake_model.show(page, TokenEditor, images=50, codebook_sizes=[512], titles=["a", "b"], **state)
    image = page.get_by_role("spinbutton", name="image", exact=True)
    image.fill("4")  # and nothing else: the field keeps the focus
    page.wait_for_function("window.sent.length === 1")
    assert sent(page) == [{"do": "choose", "image": 4, "other": 0}]
    image.press("2")
    change(page, image=4, answered=1)  # the answer to the first digit
    assert image.input_value() == "42"
    image.press("Enter")
    assert sent(page)[1:] == [{"do": "choose", "image": 42, "other": 0}]
    image.press("Tab")
    page.wait_for_timeout(600)
    assert len(sent(page)) == 2
    change(page, image=42, answered=2)
    image.focus()
    page.keyboard.press("ArrowUp")
    page.wait_for_function("window.sent.length === 3")
    assert sent(page)[2] == {"do": "choose", "image": 43, "other": 0}
    image.fill("")
    page.wait_for_timeout(600)
    assert len(sent(page)) == 3
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0 and page.errors == []
    page.close()


@pytest.mark.parametrize("width", [700, 825, 1300])
def test_the_editors_controls_stand_beside_its_picture(browser: Any, tried: TryPicture, width: int) -> None:
    page = open_page(browser, width, 900)
    state = {
        name: getattr(tried, name)
        for name in ("token_values", "edited", "grid", "near", "near_distances", "near_tiles")
    }
    state |= dict.fromkeys(("original", "before", "decoded_png", "other_decoded"), tried.seen[0])
    fake_model.show(page, TokenEditor, images=50, codebook_sizes=[512], titles=["a", "b"], **state)
    page.wait_for_selector("[aria-label='nearest codes'] button")
    picture = page.locator("canvas[data-picture=decoded]").bounding_box()
    for found in (page.get_by_label("code", exact=True), page.get_by_role("button", name="replace", exact=True),
                  page.locator("[aria-label='nearest codes']"), page.get_by_role("slider")):  # fmt: skip
        box = found.bounding_box()
        assert box["x"] >= picture["x"] + picture["width"]
        assert picture["y"] - 30 <= box["y"] and box["y"] + box["height"] <= picture["y"] + picture["height"] + 30
    small = [
        page.locator(f"canvas[data-picture={name}]").bounding_box() for name in ("original", "before", "difference")
    ]
    assert len({box["y"] for box in small}) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    page.evaluate("hide()")
    page.close()


def test_a_camera_that_is_allowed_after_the_view_is_gone_is_let_go(show: Callable[..., Any]) -> None:
    page = show()
    page.evaluate("""() => { const stream = document.createElement("canvas").captureStream(30);
        const getUserMedia = () => new Promise((done) => { window.allow = () => done(stream); });
        Object.defineProperty(navigator, "mediaDevices", { value: { getUserMedia } }); window.stream = stream; }""")
    page.get_by_role("button", name="camera", exact=True).click()
    page.evaluate("window.hide()")
    page.evaluate("window.allow()")
    page.wait_for_function("window.stream.getTracks().every((track) => track.readyState === 'ended')")
    page.evaluate("window.show()")


def test_the_whole_picture_is_asked_for_and_drawn_in_its_shape(show: Callable[..., Any]) -> None:
    page = show()
    box = page.get_by_role("checkbox", name="whole picture")
    assert not box.is_checked()
    box.focus()
    page.keyboard.press("Space")
    assert sent(page)[-1] == {"do": "see_whole", "whole": True}
    options = {"quantizer_options": {"codebook_size": 512, "codebook_dim": 4}, "network_options": {"hidden_dim": 16}}
    view = TryPicture(VisualTokenizer(image_size=32, **options).eval(), picture=Image.effect_noise((120, 60), 90))
    view.see_whole()
    state = {name: getattr(view, name) for name in ("grid", "token_values", "edited", "selection", "whole")}
    pictures = {name: [getattr(view, name)[0], b""] for name in ("seen", "reconstructions")}
    known = [view.tokenizers[0], page.evaluate("model.get('tokenizers')[1]")]
    change(page, answered=1, tokenizers=known, **state, **pictures)
    page.wait_for_function("document.querySelector('canvas[data-picture=seen]').dataset.columns === '16'")
    assert box.is_checked()
    assert page.locator("[data-role=seen]").inner_text() == "64 × 32 pixels, 16 × 8 tokens"
    page.wait_for_function(
        "(c => c.clientWidth > 1.9 * c.clientHeight)(document.querySelector('canvas[data-picture=decoded]'))"
    )
    size = page.locator("canvas[data-picture=seen]").bounding_box()
    assert size["width"] == pytest.approx(2 * size["height"], rel=0.02)
    page.locator("canvas[data-picture=seen]").click(position={"x": size["width"] - 2, "y": size["height"] - 2})
    assert sent(page)[-1] == {"do": "select", "top": 7, "left": 15, "bottom": 8, "right": 16}
    change(page, answered=2)
    page.locator("canvas[data-picture=whole]").focus()
    page.keyboard.press("ArrowRight")  # a square again
    assert sent(page)[-1]["do"] == "crop_to" and not box.is_checked()
