"""The scripts of the gallery and of tables in a browser, without a kernel: what is painted, ordered, wiped and sorted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import fake_model
from browser.fake_model import change, open_page

from vistok.lessons import pictures
from vistok.runs import COLLAPSED_RUN, EXAMPLE_RUN
from vistok.widgets import QuantizerGallery, SortableTable

PIXEL = """(canvas, [x, y]) => { const ratio = canvas.width / canvas.clientWidth;
  return [...canvas.getContext("2d").getImageData(Math.floor(x * ratio), Math.floor(y * ratio), 1, 1).data].slice(0, 3); }"""
TABLE = """| row | K | PSNR ↑ | seconds | rFID ↓ |
| --- | --- | ---: | ---: | ---: |
| b-2 | 512 | 24.61<br>(24.5 to 24.7) | 1,200 | – |
| a-10 | 3 x 8 | 9.5 | 30 | 12.9 |
| a-9 | 8 + 16 | – | 4e-3 | 102.1 |
| c | 1,024 | +31.0 | −2 | 9 |"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page; afterwards nothing may have gone wrong in it."""
    page = open_page(browser, 900, 900)
    yield page
    assert page.errors == []
    page.close()


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> QuantizerGallery:
    """The two tokenizers that come with the repository, on three images."""
    folder: Path = tmp_path_factory.mktemp("pictures")
    for run in (EXAMPLE_RUN, COLLAPSED_RUN):
        pictures.make(run, "photos", [0, 1, 2], folder)
    return QuantizerGallery(["vq-d64", "ema-d4"], folder=folder)


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def test_tiles_show_what_each_made_of_the_photograph_that_is_chosen(page: Any, gallery: QuantizerGallery) -> None:
    fake_model.show(page, gallery)
    originals, made = (pictures.pixels(strip, 3) for strip in (gallery.originals, gallery.tiles[0]["strip"]))
    for image in (0, 2):
        change(page, image=image)
        expect(page.locator("[data-painted]")).to_have_attribute("data-painted", f"{image} false null")
        for name, expected in (("original", originals), ("vq-d64", made)):
            canvas = page.locator(f"[data-row={name}] canvas")
            for x, y in ((3, 5), (40, 61)):
                assert canvas.evaluate(PIXEL, [2 * x + 1, 2 * y + 1]) == expected[image, :, y, x].tolist()
        name, quality, bits, _ = page.locator("[data-row=vq-d64]").inner_text().split("\n")
        assert float(quality.removesuffix(" dB")) == pytest.approx(gallery.tiles[0]["psnr"][image], abs=0.051)
        assert (name, bits) == ("vq-d64", "vq · 2,304 bits")
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0


def test_an_enlarged_tile_is_wiped_by_keys_and_closed(page: Any, gallery: QuantizerGallery) -> None:
    fake_model.show(page, gallery)
    expect(page.locator("[data-painted]")).to_have_attribute("data-painted", "0 false null")
    page.get_by_role("button", name="vq-d64").press("Enter")
    canvas = page.locator("[data-row=vq-d64] canvas")
    canvas.focus()
    originals, made = (pictures.pixels(strip, 3)[0] for strip in (gallery.originals, gallery.tiles[0]["strip"]))

    def shown(x: int, y: int) -> list[int]:
        return canvas.evaluate(PIXEL, [(x + 0.5) * 268 / 64, (y + 0.5) * 268 / 64])

    assert shown(10, 30) == originals[:, 30, 10].tolist() and shown(50, 30) == made[:, 30, 50].tolist()
    page.evaluate("window.heard = 0; document.addEventListener('keydown', () => window.heard++)")
    page.keyboard.press("Home")
    assert canvas.get_attribute("aria-valuenow") == "0" and shown(10, 30) == made[:, 30, 10].tolist()
    page.keyboard.press("ArrowRight")
    assert canvas.get_attribute("data-split") == "0.02"
    page.keyboard.press("Escape")
    assert canvas.get_attribute("data-split") == "" and page.evaluate("heard") == 0


@pytest.mark.parametrize(
    ("heading", "once"),
    [
        ("row", ["a-9", "a-10", "b-2", "c"]),
        ("K", ["a-9", "b-2", "a-10", "c"]),  # 8 x 16, then 512 and 8 x 8 x 8 in their order
        ("PSNR ↑", ["c", "b-2", "a-10", "a-9"]),
        ("seconds", ["c", "a-9", "a-10", "b-2"]),
        ("rFID ↓", ["c", "a-10", "a-9", "b-2"]),
    ],
)
def test_a_heading_sorts_numbers_as_numbers_and_what_is_missing_last(page: Any, heading: str, once: list[str]) -> None:
    page.set_content(SortableTable(TABLE)._repr_mimebundle_()["text/html"])
    first = page.locator("tbody th")
    head = page.get_by_role("columnheader", name=heading)
    button = page.get_by_role("button", name=heading, exact=True)
    button.click()
    assert first.all_inner_texts() == once
    up = "descending" if "↑" in heading else "ascending"
    assert head.get_attribute("aria-sort") == up
    button.press("Enter")
    missing = {"PSNR ↑": "a-9", "rFID ↓": "b-2"}.get(heading)
    there = [name for name in once if name != missing]
    if heading != "K":  # equal ones stay in their order
        assert first.all_inner_texts() == there[::-1] + ([missing] if missing else [])
    button.press("Space")
    assert first.all_inner_texts() == ["b-2", "a-10", "a-9", "c"] and head.get_attribute("aria-sort") is None


def test_only_one_heading_sorts(page: Any) -> None:
    page.set_content(SortableTable(TABLE)._repr_mimebundle_()["text/html"])
    for heading in ("row", "PSNR ↑"):
        page.get_by_role("button", name=heading, exact=True).click()
    assert page.locator("[aria-sort]").all_inner_texts() == ["PSNR ↑"]


@pytest.mark.parametrize(
    ("cells", "up"),
    [
        (["24.6", "nan", "9.5", "—", "NaN", "-", "n/a"], [2, 0, 1, 3, 4, 5, 6]),
        (["1.2 M", "900 k", "3 G", "45.5 kB", "7"], [4, 3, 1, 0, 2]),
        (["inf", "-inf", "5", "∞"], [1, 2, 0, 3]),
        (["none", "l2 10", "l2 9", "ä", "z"], [3, 2, 1, 0, 4]),
        (["3 Models", "20", "1"], [2, 0, 1]),
    ],
)
def test_a_column_of_any_cells_is_sorted_as_people_read_it(page: Any, cells: list[str], up: list[int]) -> None:
    rows = "\n".join(f"| {number} | {cell} |" for number, cell in enumerate(cells))
    page.set_content(SortableTable(f"| row | value |\n|---|---|\n{rows}")._repr_mimebundle_()["text/html"])
    page.get_by_role("button", name="value").click()
    assert page.locator("tbody th").all_inner_texts() == [str(number) for number in up]
