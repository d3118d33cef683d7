"""The JavaScript of curves: what a smoothed, a thinned and a pointed-at line is, against independent computations."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser.fake_model import change, encoded, open_page, show
from PIL import Image
from scipy.signal import lfilter

from vistok import TrainConfig
from vistok.runs import Report, Run
from vistok.widgets import RunCurves
from vistok.widgets import curves as module
from vistok.widgets.dashboard import TrainingDashboard
from vistok.widgets.view import script

SERIES = ["step", "usage", "perplexity", "reconstruction", "codebook", "commitment", "total"]
FRAMES = "async () => { for (let i = 0; i < 5; i++) await new Promise(requestAnimationFrame); }"
BLUE, VERMILLION, GREEN = [0, 114, 178], [213, 94, 0], [0, 158, 115]
# How many pixels of a canvas have a colour.
NUMBER = """([selector, colour]) => { const canvas = document.querySelector(selector);
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let found = 0;
  for (let i = 0; i < data.length; i += 4) found += colour.every((value, c) => Math.abs(data[i + c] - value) < 12);
  return found; }"""
# All there is to call of the shared scripts.
CALL = """async ([source, expression, given]) => {
  const text = `${source}\\nexport const call = (given) => (${expression});`;
  const loaded = await import(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })));
  return loaded.call(given); }"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = open_page(browser, 760, 900)
    yield page
    assert not page.errors, page.errors
    page.close()


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def call(page: Any, expression: str, given: Any) -> Any:
    """Return what an expression of the shared scripts comes to, `given` in it."""
    return page.evaluate(CALL, [script("curves"), expression, given])


def logged(folder: Path, losses: np.ndarray, every: int = 10, steps: int | None = None, **settings: Any) -> Run:
    """Return a run whose log holds these reconstruction losses."""
    steps = steps or max(1, every * len(losses))
    run = Run.open(folder, TrainConfig(steps=steps, batch_size=32, **settings))
    run.write_config("cpu")
    for number, loss in enumerate(losses, start=1):
        values = {"reconstruction": float(loss), "total": 2 * float(loss)}
        run.append_log(
            Report(every * number, values, usage=0.5, perplexity=8.0, images_per_second=100.0, data_share=0.0)
        )
    return run


def hover(page: Any, selector: str, share: float) -> Any:
    """Point at a share of a plot's width, and return what is read there."""
    box = page.locator(selector).bounding_box()
    page.locator(selector).hover(position={"x": 52 + share * (box["width"] - 60), "y": box["height"] / 2})
    return page.locator(".readout")


def test_smoothing_is_the_debiased_exponential_mean(page: Any) -> None:
    values = np.random.default_rng(0).normal(3, 1, 50)
    weight = 0.9
    # The recursion as a filter, and the weight that a constant 1 would have by then.
    expected = lfilter([1 - weight], [1, -weight], values) / lfilter([1 - weight], [1, -weight], np.ones(50))
    found = call(page, "Array.from(smoothed(given[0], given[1]))", [values.tolist(), weight])
    assert found == pytest.approx(expected.tolist(), rel=1e-12)
    assert found[0] == pytest.approx(values[0])  # it does not begin at 0
    assert module.smoothed(values, weight) == pytest.approx(expected, rel=1e-12)
    assert module.smoothed(values, 0.0) == pytest.approx(values)


def test_what_is_no_number_stays_and_counts_for_nothing(page: Any) -> None:
    values = np.random.default_rng(1).normal(3, 1, 20)
    without = call(page, "Array.from(smoothed(given, 0.8))", values.tolist())
    gap = "Array.from(smoothed([...given.slice(0, 7), NaN, NaN, ...given.slice(7)], 0.8), (x) => Number.isNaN(x) ? null : x)"
    found = call(page, gap, values.tolist())
    assert found[7:9] == [None, None] and found[:7] + found[9:] == pytest.approx(without)
    broken = np.concatenate([values[:7], [np.nan, np.nan], values[7:]])
    assert module.smoothed(broken, 0.8)[[*range(7), *range(9, 22)]] == pytest.approx(without)


def test_of_many_points_every_column_keeps_its_lowest_and_its_highest(page: Any) -> None:
    x = np.linspace(0, 299.99, 100_000)
    y = np.random.default_rng(2).normal(0, 1, len(x)).round(6)
    points = np.stack([x, y], 1).tolist()
    found = np.array(call(page, "thinned(given, 1200)", points))
    assert 600 <= len(found) <= 1200
    for column in range(300):
        here, there = y[x.astype(int) == column], found[found[:, 0].astype(int) == column, 1]
        assert (there.min(), there.max()) == (here.min(), here.max())
        assert (there[0], there[-1]) == (here[0], here[-1])  # where the line comes in and goes out
    assert (np.diff(found[:, 0]) >= 0).all()
    assert call(page, "thinned(given, 10)", points[:10]) == points[:10]
    gap = [*points[:500], *50 * [None], *points[50_000:50_500]]
    thin = call(page, "thinned(given, 10)", gap)
    assert thin.count(None) == 1  # a line that is broken stays so


def test_python_sends_rows_with_the_extremes_of_every_column() -> None:
    rows = np.random.default_rng(3).normal(0, 1, (100_000, 6))
    rows[:, 0] = np.arange(len(rows))
    rows[5_000:60_000, 4] = np.nan
    found = module.thinned(rows, 2_000)
    assert 500 < len(found) <= 2_000
    assert (found[0] == rows[0]).all() and (found[-1] == rows[-1]).all() and (np.diff(found[:, 0]) > 0).all()
    assert np.nanmin(found, 0).tolist() == np.nanmin(rows, 0).tolist()
    assert np.nanmax(found, 0).tolist() == np.nanmax(rows, 0).tolist()
    assert module.thinned(rows[:2_000], 2_000) is not None and len(module.thinned(rows[:2_000], 2_000)) == 2_000


def test_pointing_reads_all_lines_at_one_step(page: Any, tmp_path: Path) -> None:
    losses = np.random.default_rng(4).uniform(0.1, 0.9, 40)
    dense = logged(tmp_path / "dense", losses, every=10)
    sparse = logged(tmp_path / "sparse", losses[:10] / 2, every=40, seed=1)
    show(page, RunCurves([dense, sparse]))
    readout = hover(page, "canvas.curves", 0.5)
    step = int(readout.get_attribute("data-x"))
    assert abs(step - 200) <= 10 and readout.locator("strong").inner_text() == f"step {step}"
    ours, theirs = readout.locator("span").all_inner_texts()[1::2]
    assert ours == f"{np.float32(losses[step // 10 - 1]):#.4g}"
    near = int(np.abs(40 * np.arange(1, 11) - step).argmin())
    at = "" if 40 * (near + 1) == step else f" at {40 * (near + 1)}"
    assert theirs == f"{np.float32(losses[near] / 2):#.4g}{at}"  # of its own reports the nearest, and where that is
    hover(page, "canvas.curves", 0.01)
    assert readout.locator("span").all_inner_texts()[1::2][1] == "–"  # before its first report
    page.mouse.move(5, 5)
    expect(readout).to_have_count(0)


def test_the_keyboard_reads_what_the_pointer_reads(page: Any, tmp_path: Path) -> None:
    losses = np.random.default_rng(5).uniform(0.1, 0.9, 12)
    show(page, RunCurves(logged(tmp_path / "run", losses)))
    canvas = page.locator("canvas.curves")
    reached = page.evaluate(
        "() => { window.reached = []; document.addEventListener('keydown', (e) => reached.push(e.key)); return true; }"
    )
    assert reached and canvas.get_attribute("role") == "slider" and canvas.get_attribute("tabindex") == "0"
    canvas.focus()
    for key, place in [("End", 11), ("ArrowLeft", 10), ("Home", 0), ("ArrowRight", 1), ("PageDown", 11), ("PageUp", 1)]:
        page.keyboard.press(key)
        said = f"step {10 * (place + 1)}: vq, custom {np.float32(losses[place]):#.4g}".replace("vq, custom", "vq")
        assert canvas.get_attribute("aria-valuetext") == said
        assert canvas.get_attribute("aria-valuenow") == str(10 * (place + 1))
    page.keyboard.press("Escape")
    expect(page.locator(".readout")).to_have_count(0)
    assert page.evaluate("reached") == []  # JupyterLab never hears them


def test_smoothed_lines_say_both_values(page: Any, tmp_path: Path) -> None:
    losses = np.random.default_rng(6).uniform(0.1, 0.9, 30)
    show(page, RunCurves(logged(tmp_path / "run", losses)))
    page.locator("input.smoothing").evaluate(
        "(slider) => { slider.value = 0.8; slider.dispatchEvent(new Event('input')); }"
    )
    page.evaluate(FRAMES)
    assert page.evaluate("model.get('smoothing')") == 0.8
    canvas = page.locator("canvas.curves")
    canvas.focus()
    page.keyboard.press("End")
    expected = lfilter([0.2], [1, -0.8], losses.astype("<f4"))[-1] / (1 - 0.8**30)
    assert canvas.get_attribute("aria-valuetext").endswith(f"{expected:#.4g} (raw {np.float32(losses[-1]):#.4g})")


def dashboard(page: Any, rows: np.ndarray, **state: Any) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 32), (10, 200, 30)).save(picture, format="png")
    first = {
        "name": "coinciding",
        "phase": "training",
        "steps": 200,
        "series": SERIES,
        "curves": rows.astype("<f4").tobytes(),
    }
    first |= {"weights": {}, "levels": [4], "pictures": picture.getvalue(), "pictures_step": 30, "pictured_steps": [30]}
    show(page, TrainingDashboard, **first | state)


def rows(*losses: np.ndarray) -> np.ndarray:
    step = np.arange(1, len(losses[0]) + 1)
    return np.stack([10 * step, 0.5 + 0 * step, 8 + 0 * step, *losses], 1)


def test_losses_that_coincide_are_both_seen_and_named_together(page: Any) -> None:
    wave = 0.5 + 0.3 * np.sin(np.arange(60))
    dashboard(page, rows(np.full(60, 0.05), wave, wave, np.full(60, 2.0)))
    legend = page.locator(".legend").first.locator(":scope > span")
    assert legend.all_inner_texts() == ["reconstruction", "codebook = commitment", "total"]
    seen = [page.evaluate(NUMBER, ["canvas.losses", colour]) for colour in (VERMILLION, GREEN)]
    assert min(seen) > 0.8 * max(seen) and min(seen) > 200  # each has its half, in its own colour
    hover(page, "canvas.losses", 0.5)
    assert page.locator(".readout span").all_inner_texts()[2] == "codebook = commitment"
    change(page, curves=rows(np.full(60, 0.05), wave, 1.2 * wave, np.full(60, 2.0)).astype("<f4").tobytes())
    page.evaluate(FRAMES)
    assert legend.all_inner_texts() == ["reconstruction", "codebook", "commitment", "total"]


def test_a_total_over_its_only_large_term_leaves_it_seen(page: Any) -> None:
    falling = 1 / np.arange(1, 61)
    dashboard(page, rows(falling, 0.001 * falling, 0.0005 * falling, 1.0015 * falling))
    alone = rows(falling, 0.001 * falling, 0.0005 * falling, 3 * falling)
    covered = page.evaluate(NUMBER, ["canvas.losses", BLUE])
    change(page, curves=alone.astype("<f4").tobytes())
    page.evaluate(FRAMES)
    assert covered > 0.5 * page.evaluate(NUMBER, ["canvas.losses", BLUE])


@pytest.mark.parametrize("width", [740, 1000, 1300])
@pytest.mark.parametrize("played", [False, True])
def test_pictures_stand_beside_what_belongs_to_them(browser: Any, width: int, played: bool) -> None:
    page = open_page(browser, width, 900)
    falling = 1 / np.arange(1, 61)
    table = np.concatenate([rows(falling, falling, falling, falling), np.ones((60, 2))], 1)
    names = [*SERIES, "adversarial", "a_player_with_a_name_that_is_far_longer_than_its_plot_is_wide_on_such_a_page"]
    state = {"series": names, "adversarial": names[-2:]} if played else {}
    counts = np.arange(4, dtype="<u4").tobytes()
    dashboard(page, table if played else table[:, :7], counts=counts, **state)
    page.evaluate(FRAMES)
    boxes = {name: page.locator(name).bounding_box() for name in ("canvas.losses", "canvas.usage", "canvas.perplexity")}
    boxes |= {name: page.locator(name).bounding_box() for name in ("canvas[role=application]", "img")}
    map_box, picture = boxes["canvas[role=application]"], boxes["img"]
    assert picture["y"] == pytest.approx(map_box["y"], abs=2)
    assert picture["x"] >= map_box["x"] + map_box["width"]
    if played:
        game = page.locator("canvas.game").bounding_box()
        assert game["y"] == boxes["canvas.losses"]["y"] and game["width"] > 250  # no legend widens a column
    else:
        assert boxes["canvas.usage"]["y"] == boxes["canvas.losses"]["y"]
    assert page.locator(".training-dashboard").bounding_box()["height"] < 780  # of a screen, all of it
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert not page.errors
    page.close()


def test_reconstructions_are_scrubbed_by_step(page: Any) -> None:
    def png(colour: tuple[int, int, int]) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 32), colour).save(buffer, format="png")
        return buffer.getvalue()

    falling = 1 / np.arange(1, 61)
    dashboard(
        page, rows(falling, falling, falling, falling), pictures=png((10, 0, 0)), pictures_step=10, pictured_steps=[10]
    )
    scrubber, said, latest = page.locator(".scrubber"), page.locator(".pictured"), page.locator("button.latest")
    assert scrubber.is_hidden()  # there is nothing to go back to
    for step in (20, 30):
        change(page, pictures=png((step, 0, 0)), pictures_step=step, pictured_steps=list(range(10, step + 1, 10)))
        expect(said).to_contain_text(f"at step {step}.")  # the latest is followed
    scrubber.focus()
    page.keyboard.press("ArrowLeft")
    expect(said).to_contain_text("at step 20.")
    assert page.evaluate("[model.get('shown_step'), sent.length]") == [20, 0]  # the page has it
    red = """async () => { const image = document.querySelector('img'), canvas = document.createElement('canvas');
        await image.decode(); canvas.getContext('2d').drawImage(image, 0, 0);
        return canvas.getContext('2d').getImageData(0, 0, 1, 1).data[0]; }"""
    assert page.evaluate(red) == 20
    change(page, pictures=png((40, 0, 0)), pictures_step=40, pictured_steps=[5, 10, 20, 30, 40])
    page.evaluate(FRAMES)
    assert "at step 20." in said.inner_text() and page.evaluate(red) == 20  # whoever went back stays there
    page.keyboard.press("Home")
    expect(said).to_contain_text("at step 5: asking Python")
    assert page.evaluate("sent") == [{"pictures": 5}]
    page.evaluate("([content, picture]) => hear(content, [picture.$bytes])", [{"pictures": 5}, encoded(png((5, 0, 0)))])
    expect(said).to_contain_text("at step 5.")
    assert page.evaluate(red) == 5
    latest.click()
    expect(said).to_contain_text("at step 40.")
    assert page.evaluate("model.get('shown_step')") == -1 and latest.is_disabled()


def test_runs_are_chosen_by_quantity_axis_and_images(page: Any, tmp_path: Path) -> None:
    short = logged(tmp_path / "short", np.full(5, 0.4), every=10, steps=70)
    show(page, RunCurves([short, logged(tmp_path / "none", np.zeros(0), steps=70, seed=1)]))
    canvas = page.locator("canvas.curves")
    assert page.locator(".legend > span").all_inner_texts() == ["seed 8888 (at step 50 of 70)", "seed 1 (no log yet)"]
    page.locator("select.quantity").select_option("usage")
    page.locator("select.against").select_option("images")
    page.evaluate(FRAMES)
    assert canvas.get_attribute("aria-label") == "codes in use, % over images seen: seed 8888, seed 1"
    canvas.focus()
    page.keyboard.press("End")
    assert canvas.get_attribute("aria-valuetext") == f"images seen {50 * 32:,}: seed 8888 50, seed 1 –"
    assert page.get_by_role("button", name="linear").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="read the logs again").click()
    assert page.evaluate("sent") == [{"do": "refresh"}]


def test_one_point_none_and_a_hundred_thousand_are_drawn(page: Any, tmp_path: Path) -> None:
    show(page, RunCurves(logged(tmp_path / "one", np.full(1, 0.4))))
    assert page.locator("canvas.curves").get_attribute("data-points") == "1"
    assert page.evaluate(NUMBER, ["canvas.curves", BLUE]) >= 9  # a dot
    spiky = np.full(100_000, 0.5)
    spiky[[12_345, 77_777]] = 0.9, 0.1
    table = np.stack([np.arange(1, 100_001), spiky], 1)
    state = {
        "columns": [["step", "reconstruction"]],
        "curves": [module.thinned(table, module.ROWS_SENT).astype("<f4").tobytes()],
    }
    change(page, **state)
    page.evaluate(FRAMES)
    canvas = page.locator("canvas.curves")
    rows_seen = """() => { const canvas = document.querySelector('canvas.curves'), found = new Set();
        const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        for (let i = 0; i < data.length; i += 4) {
          if (data[i] < 12 && Math.abs(data[i + 1] - 114) < 12) found.add(Math.floor(i / 4 / width));
        }
        return [Math.min(...found), Math.max(...found)]; }"""
    high, low = page.evaluate(rows_seen)
    assert high < 40 and low > 240  # both spikes are there, over nearly the whole height
    canvas.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    moved = 100_000 - int(canvas.get_attribute("aria-valuenow"))
    assert moved > 50  # a pixel at least: nobody walks through all
    change(page, columns=[["step"]], curves=[b""])
    page.evaluate(FRAMES)
    assert canvas.get_attribute("tabindex") == "-1"  # nothing to read


def test_what_is_removed_listens_no_more(page: Any, tmp_path: Path) -> None:
    show(page, RunCurves(logged(tmp_path / "run", np.full(4, 0.4))))
    assert page.evaluate("listeners()") > 5
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0


def test_no_two_of_many_lines_look_alike_and_one_that_diverged_is_named(page: Any, tmp_path: Path) -> None:
    styles = call(page, "lineStyles(Array.from({ length: 20 }, (_, n) => ({ x: [1], y: [n] })))", None)
    assert len({(style["color"], tuple(style["dash"])) for style in styles}) == 20
    diverged = np.array([0.5, 0.25, np.nan, np.nan])
    runs = [
        logged(tmp_path / str(seed), losses, seed=seed) for seed, losses in enumerate((diverged, diverged * np.nan))
    ]
    show(page, RunCurves([*runs, logged(tmp_path / "fine", np.array([np.nan, 0.5, 0.5, 0.5]), seed=2)]))
    entries = page.locator(".legend span").all_inner_texts()
    assert entries == ["seed 0 (not finite after 20)", "seed 1 (no finite values)", "seed 2"]
