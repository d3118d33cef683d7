"""The dashboard's page without a kernel: its module in a bare page, with a model that stands in for Python."""

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser.fake_model import change, encoded, open_page, show
from PIL import Image

from vistok.widgets.dashboard import TrainingDashboard

PIXEL = """([selector, x, y]) => { const canvas = document.querySelector(selector), ratio = window.devicePixelRatio;
  return [...canvas.getContext('2d').getImageData(x * ratio, y * ratio, 1, 1).data].slice(0, 3); }"""
# Of a canvas: at which heights, in CSS pixels, a colour is seen.
HEIGHTS = """([selector, colour]) => { const canvas = document.querySelector(selector), found = new Set();
  const { data, width } = canvas.getContext('2d').getImageData(60, 0, canvas.width - 70, canvas.height);
  for (let i = 0; i < data.length; i += 4) {
    if (colour.every((value, c) => Math.abs(data[i + c] - value) < 12)) found.add(Math.floor(i / 4 / width));
  }
  return [...found]; }"""
FRAMES = "async () => { for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame); }"
SERIES = ["step", "usage", "perplexity", "reconstruction", "commitment", "total"]
VERMILLION = [213, 94, 0]  # of the second line: commitment
DEAD = [205, 205, 205]


def curves(points: int) -> bytes:
    step = np.arange(1, points + 1)
    rows = np.stack([10 * step, 0.5 + 0 * step, 8 + 0 * step, 1 / step, 0.1 / step, 1.01 / step], axis=1)
    return rows.astype("<f4").tobytes()


def counts(*levels: list[int]) -> bytes:
    return np.concatenate(levels).astype("<u4").tobytes()


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 30)).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = open_page(browser, 1200, 900)
    yield page
    assert not page.errors, page.errors
    page.close()


def render(page: Any, **changes: Any) -> None:
    state = {
        **{"description": "Training of a run.", "phase": "training", "step": 40, "steps": 200, "pictures_step": 30},
        **{"images_per_second": 128.4, "seconds_left": 150.0, "weights": {"reconstruction": 1.0, "commitment": 0.25}},
        **{"adversarial": ["adversarial"], "series": SERIES, "levels": [16]},
        **{
            "curves": curves(4),
            "counts": counts([0, 1, 2000] + 13 * [5]),
            "pictures": png(64, 32),
            "pictured_steps": [30],
        },
    }
    show(page, TrainingDashboard, **state | changes)


def text(page: Any, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_it_shows_where_the_training_is(page: Any) -> None:
    render(page)
    assert text(page, ".steps") == "step 40 of 200"
    assert text(page, ".speed") == "128 images/s · 3 min left"
    assert text(page, ".phase") == "training"
    assert page.locator("progress").evaluate("bar => [bar.value, bar.max]") == [40, 200]
    width, height = page.locator("canvas.losses").evaluate("canvas => [canvas.clientWidth, canvas.clientHeight]")
    assert 600 < width < 800 and height == 232  # eight parts of thirteen of the page
    assert page.locator(".training-dashboard").get_attribute("data-points") == "4"
    assert text(page, ".codes").endswith("chosen by none, 1 of 16.")
    assert page.locator("img").evaluate("async image => { await image.decode(); return image.naturalWidth; }") == 64
    assert page.locator("canvas.game").is_hidden()  # there is no discriminator
    assert page.locator("select").is_hidden()  # nor a second level


def test_it_follows_what_python_sends(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    render(page)
    change(page, step=1234, steps=5000, seconds_left=3.2)
    expect(page.locator(".steps")).to_have_text("step 1,234 of 5,000")
    expect(page.locator(".speed")).to_have_text("128 images/s · 3 s left")
    change(page, curves=curves(20))
    expect(page.locator(".training-dashboard")).to_have_attribute("data-points", "20")
    change(page, counts=counts(8 * [0] + 8 * [3]))
    expect(page.locator(".codes")).to_have_text(re.compile("none, 8 of 16"))
    change(page, message="The disk is full.", phase="failed")
    expect(page.locator(".message")).to_have_text("The disk is full.")
    expect(page.locator(".phase")).to_have_text("failed at step 1,234")


def test_many_messages_are_one_drawing_a_frame(page: Any) -> None:
    render(page)
    page.evaluate(FRAMES)  # it is drawn once more when it stands on the page
    before = int(page.locator(".training-dashboard").get_attribute("data-paints"))
    page.evaluate("changes => { for (let i = 0; i < 50; i++) change(changes); }", encoded({"curves": curves(9)}))
    page.evaluate(FRAMES)
    assert int(page.locator(".training-dashboard").get_attribute("data-paints")) == before + 1


def test_raw_and_weighted_losses(page: Any) -> None:
    render(page)
    raw, weighted = page.get_by_role("button", name="raw"), page.get_by_role("button", name="weighted")
    assert [raw.get_attribute("aria-pressed"), weighted.get_attribute("aria-pressed")] == ["true", "false"]
    assert page.locator(".legend").first.inner_text().split() == ["reconstruction", "commitment", "total"]
    before = page.evaluate(HEIGHTS, ["canvas.losses", VERMILLION])
    weighted.click()
    assert [raw.get_attribute("aria-pressed"), weighted.get_attribute("aria-pressed")] == ["false", "true"]
    assert page.locator("canvas.losses").get_attribute("aria-label").startswith("weighted losses")
    after = page.evaluate(HEIGHTS, ["canvas.losses", VERMILLION])
    assert before and after and after != before  # a quarter of it, over an axis that reaches lower
    assert page.evaluate("sent") == []  # the page's own business


def losses(*terms: np.ndarray | list[float]) -> bytes:
    """Return curves of SERIES with these reconstruction, commitment and total losses."""
    step = np.arange(1, len(terms[0]) + 1)
    return np.stack([10 * step, 0.5 + 0 * step, 8 + 0 * step, *terms], axis=1).astype("<f4").tobytes()


def numbers(page: Any, selector: str = "canvas.losses") -> tuple[str, str]:
    """Return the numbers at the axes of a chart: below, and at its side."""
    canvas = page.locator(selector)
    return canvas.get_attribute("data-across"), canvas.get_attribute("data-up")


def test_every_axis_has_round_numbers(page: Any) -> None:
    wide = np.geomspace(0.03, 300, 60)
    render(page, curves=losses(wide, wide, wide))
    assert numbers(page) == ("0 200 400 600", "0.1 1 10 100")
    assert numbers(page, "canvas.perplexity") == ("0 200 400 600", "0 2 4 6 8")
    assert numbers(page, "canvas.usage")[1] == "0 50 100"
    for low, high, up in [
        (0.022, 0.09, "0.04 0.06 0.08"),
        (0.018, 0.3, "0.02 0.05 0.1 0.2"),
        (300, 30_000, "1k 10k"),
        (0.5, 0.51, "0.5 0.505 0.51"),
    ]:
        within = np.linspace(low, high, 60)
        change(page, curves=losses(within, within, within))
        page.evaluate(FRAMES)
        assert numbers(page)[1] == up
    steps = np.frombuffer(curves(20), "<f4").reshape(20, -1) * np.array([1000, 1, 1, 1, 1, 1])
    change(page, curves=steps.astype("<f4").tobytes())
    page.evaluate(FRAMES)
    assert numbers(page)[0] == "0 50k 100k 150k 200k"


def test_the_last_number_of_an_axis_is_not_cut_off(page: Any) -> None:
    render(page, curves=losses(*3 * [np.linspace(1, 2, 60)]))
    edge = """() => { const canvas = document.querySelector('canvas.perplexity'), context = canvas.getContext('2d');
        return [...context.getImageData(canvas.width - 1, 0, 1, canvas.height).data].some((value) => value > 0); }"""
    assert not page.evaluate(edge)


def test_what_is_not_above_0_is_drawn_on_a_linear_axis(page: Any) -> None:
    good = np.full(9, 0.5)
    render(page, curves=losses(good, [0.2, 0.1, -0.3, -0.4, 0.0, 0.1, 0.2, 0.2, 0.2], good))
    assert numbers(page)[1] == "-0.4 -0.2 0 0.2 0.4"
    assert "linear axis" in page.locator("canvas.losses").get_attribute("aria-label")
    heights = page.evaluate(HEIGHTS, ["canvas.losses", VERMILLION])
    assert max(heights) - min(heights) > 100  # and not only what is above 0
    change(page, curves=losses(good, good / 2, good))
    page.evaluate(FRAMES)
    assert "linear axis" not in page.locator("canvas.losses").get_attribute("aria-label")


def test_a_line_is_broken_where_a_value_is_missing(page: Any) -> None:
    missing = np.where(np.isin(np.arange(30), [8, *range(10, 20)]), np.nan, 0.2)
    render(page, curves=losses(np.full(30, 0.5), missing, np.full(30, 0.9)))
    columns = """colour => { const canvas = document.querySelector('canvas.losses'), found = new Set();
        const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {
          if (colour.every((value, c) => Math.abs(data[i + c] - value) < 12)) found.add(i / 4 % width);
        }
        return [...found]; }"""
    width = page.locator("canvas.losses").evaluate("canvas => canvas.clientWidth")
    steps = (np.array(page.evaluate(columns, VERMILLION)) - 52) / (width - 60) * 300  # 52 and 8 pixels beside the axis
    assert not ((steps > 105) & (steps < 205)).any()
    assert ((steps > 95) & (steps < 105)).any()  # the step at 100 alone
    assert (steps > 215).any() and (steps < 75).any()


def test_every_line_is_seen_on_white_and_no_two_look_the_same(page: Any) -> None:
    names = [f"loss {number}" for number in range(8)]
    rows = np.tile(np.array([[10, 0.5, 8, *range(1, 9)]]), (2, 1)).astype("<f4")
    render(page, series=[*SERIES[:3], *names], curves=rows.tobytes())
    samples = page.locator(".legend").first.locator("canvas")
    assert samples.count() == 8
    row = """canvas => { const middle = Math.round(canvas.height / 2), context = canvas.getContext('2d');
        const { data } = context.getImageData(0, middle, canvas.width, 1);
        return Array.from({ length: canvas.width }, (_, x) => Array.from(data.slice(4 * x, 4 * x + 4))); }"""
    dashes = set()
    for sample in samples.all():
        drawn = np.array(sample.evaluate(row))
        dashes.add(tuple(drawn[:, 3] > 127))
        linear = (drawn[drawn[:, 3].argmax(), :3] / 255 + 0.055) / 1.055
        luminance = (linear**2.4) @ [0.2126, 0.7152, 0.0722]
        assert 1.05 / (luminance + 0.05) >= 3  # WCAG's contrast of graphics
    assert len(dashes) == 8


def test_two_views_of_a_run_show_what_is_chosen_in_one(page: Any) -> None:
    render(page, levels=[4, 9], counts=counts([1, 1, 1, 1], [0, 0, 0] + 6 * [2]), name="two views")
    page.evaluate("() => { const el = document.createElement('div'); document.body.append(el); show(el); }")
    page.get_by_role("button", name="weighted").first.click()
    pressed = page.get_by_role("button", name="weighted").evaluate_all("all => all.map(one => one.ariaPressed)")
    assert pressed == ["true", "true"]
    page.locator("select").first.select_option("level 1")
    assert page.locator("select").evaluate_all("all => all.map(one => one.value)") == ["level 1", "level 1"]
    assert [said[-7:] for said in page.locator(".codes").all_inner_texts()] == ["3 of 9.", "3 of 9."]


def test_a_discriminator_has_a_panel_and_its_weight_follows_the_steps(page: Any) -> None:
    rows = np.array([[10, 0.5, 8, 1, 1.5, np.nan, np.nan], [20, 0.5, 8, 0.9, 1.4, 0.5, 3.0]], "<f4")
    series = ["step", "usage", "perplexity", "reconstruction", "total", "adversarial", "adversarial_weight"]
    render(page, series=series, curves=rows.tobytes(), weights={"reconstruction": 1.0})
    assert page.locator("canvas.game").is_visible()
    assert page.locator(".legend").all_inner_texts()[0].split() == ["reconstruction", "total"]
    page.get_by_role("button", name="weighted").click()
    assert page.locator(".legend").all_inner_texts()[0].split() == ["reconstruction", "adversarial", "total"]


def test_codes_say_their_tokens(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    render(page)
    canvas, tip = page.locator(".column canvas[role=application]"), page.locator(".tip")
    canvas.scroll_into_view_if_needed()
    canvas.hover(position={"x": 2 * 50 + 20, "y": 20})  # 4 cells of 50 pixels a row
    expect(tip).to_have_text("code 2: 2,000 tokens")
    canvas.hover(position={"x": 20, "y": 20})
    expect(tip).to_have_text("code 0: 0 tokens, dead")
    assert page.evaluate(PIXEL, ["canvas[role=application]", 6, 6]) == DEAD
    assert page.evaluate(PIXEL, ["canvas[role=application]", 106, 6]) == [254, 232, 56]  # the most frequent
    change(page, counts=counts([7] + 15 * [1]))
    expect(tip).to_have_text("code 0: 7 tokens")  # under the pointer, without a move of it
    canvas.focus()
    page.keyboard.press("End")
    expect(tip).to_have_text("code 15: 1 token")


def test_levels_are_chosen(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    render(page, levels=[4, 9], counts=counts([1, 1, 1, 1], [0, 0, 0] + 6 * [2]))
    expect(page.locator(".codes")).to_have_text(re.compile("none, 0 of 4"))
    page.locator("select").select_option("level 1")
    expect(page.locator(".codes")).to_have_text(re.compile("none, 3 of 9"))
    change(page, counts=counts([1, 1, 1, 1], 9 * [2]))
    expect(page.locator(".codes")).to_have_text(re.compile("none, 0 of 9"))


def test_the_stop_button_speaks_once_and_says_where_it_saved(page: Any) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    render(page)
    stop = page.get_by_role("button", name="stop and save")
    stop.click()
    expect(stop).to_be_disabled()
    assert page.evaluate("sent") == [{"stop": True}]
    change(page, phase="stopping")
    expect(page.locator(".phase")).to_have_text("stopping after this step …")
    change(page, step=41, phase="stopped")
    expect(page.locator(".phase")).to_have_text("stopped: saved at step 41")
    expect(stop).to_be_hidden()
    change(page, phase="training")
    expect(stop).to_be_enabled()


def test_before_the_first_report_there_is_no_map_and_no_picture(page: Any) -> None:
    render(page, phase="ready", step=0, series=SERIES[:3], curves=b"", counts=b"", pictures=b"", images_per_second=0.0)
    assert text(page, ".phase") == "not started"
    assert text(page, ".speed") == ""
    assert page.locator(".codes").is_hidden() and page.locator("img").is_hidden()
    change(page, series=SERIES, phase="training", curves=curves(2), counts=counts(16 * [1]))
    page.locator(".codes").wait_for(state="visible")


def test_shown_anew_it_keeps_what_was_chosen(page: Any) -> None:
    render(page, name="a run")
    page.get_by_role("button", name="weighted").click()
    page.evaluate("() => { hide(); document.body.replaceChildren(); show(); }")
    assert page.get_by_role("button", name="weighted").get_attribute("aria-pressed") == "true"


def test_colours_are_those_of_a_dark_page_it_is_placed_on_later(page: Any) -> None:
    render(page)
    page.evaluate("""() => { hide(); document.body.replaceChildren();
        document.body.style.setProperty('--jp-ui-font-color1', 'rgb(250, 250, 250)');
        const el = document.createElement('div');
        show(el);
        document.body.append(el); }""")
    page.evaluate(FRAMES)
    assert page.evaluate(HEIGHTS, ["canvas.losses", [250, 250, 250]])  # the total's line


def test_without_a_codebook_a_sentence_stands_where_usage_would(page: Any) -> None:
    rows = np.frombuffer(curves(4), "<f4").reshape(4, len(SERIES)).copy()
    rows[:, 1:3] = np.nan
    render(page, levels=[], counts=b"", curves=rows.tobytes())
    assert text(page, ".without") == "There is no codebook, and so no usage."
    assert not page.locator("canvas.usage").is_visible() and not page.locator(".codes").is_visible()
    assert page.locator("canvas.losses").is_visible()


def test_with_a_codebook_nothing_is_said_to_be_missing(page: Any) -> None:
    render(page)
    assert page.locator("canvas.usage").is_visible() and not page.locator(".without").is_visible()


def test_what_is_removed_listens_no_more(page: Any) -> None:
    render(page)
    assert page.evaluate("listeners()") > 5
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0


def test_what_only_python_has_is_not_offered_once_it_is_gone(page: Any) -> None:
    render(page, pictured_steps=[10, 30])
    scrubber = page.locator(".scrubber")
    assert scrubber.is_visible()
    page.evaluate("""() => { const get = model.get;
        model.get = (name) => name === 'layout' ? { comm_live: false } : get(name);
        document.querySelector('.vistok').dispatchEvent(new Event('live')); }""")
    assert not scrubber.is_visible()
    assert text(page, ".pictured").endswith("at step 30.")
