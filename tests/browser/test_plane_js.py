"""The plane's script in a browser, beside a model without a kernel: regions, drags, steps, keys.

(`tests/lessons/test_plane.py` has the laws of the Python side.)
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from browser import fake_model
from browser.fake_model import change, open_page

from vistok.lessons import plane
from vistok.widgets import PlaneExplorer

PLACES = 240  # of the script
REGIONS = """canvas => { const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return [image.width, Array.from(new Uint32Array(image.data.buffer))]; }"""


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Any]]:
    """A function that shows a plane in a page of its own; afterwards nothing may have gone wrong in it."""
    pages = []

    def open_plane(explorer: PlaneExplorer, **options: Any) -> Any:
        page = open_page(browser, options.pop("width", 900), 700)
        page.emulate_media(**options)
        fake_model.show(page, explorer)
        pages.append(page)
        return page

    yield open_plane
    for page in pages:
        page.evaluate("hide()")
        assert page.evaluate("listeners()") == 0
        assert page.errors == []
        page.close()


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


def marks(page: Any) -> Any:
    return page.locator("canvas[data-layer=marks]")


def handles(page: Any) -> list[list[float]]:
    """Return where the codes are drawn, in CSS pixels of the canvas."""
    return json.loads(marks(page).get_attribute("data-handles"))


def regions(page: Any) -> np.ndarray:
    """Return the colour of each place, one number each."""
    width, colours = page.locator("canvas[data-layer=regions]").evaluate(REGIONS)
    return np.array(colours).reshape(-1, width)


def readout(page: Any, role: str) -> str:
    return page.locator(f"[data-role={role}]").inner_text()


def assert_regions(shown: np.ndarray, labels: torch.Tensor) -> None:
    """Every code has one colour and every colour one code, but for places halfway between two codes."""
    expected = labels.numpy()
    colours = {}
    for label in np.unique(expected):
        found, times = np.unique(shown[expected == label], return_counts=True)
        colours[label] = found[times.argmax()]
    assert len(set(colours.values())) == len(colours)
    by_label = np.array([colours.get(label, -1) for label in range(expected.max() + 1)])
    assert (by_label[expected] != shown).mean() < 2e-4


@pytest.mark.parametrize("method", plane.METHODS)
def test_regions_and_numbers_are_those_of_the_quantizer(show: Callable[..., Any], method: str) -> None:
    page = show(PlaneExplorer(method))
    for step in (1, 30, 300):
        change(page, step=step)
        (partition,) = plane.learn(method, steps=(step,), resolution=PLACES)
        assert_regions(regions(page), partition.labels)
        assert readout(page, "used") == f"{partition.num_used} of {len(partition.codes)}"
        assert float(readout(page, "error")) == pytest.approx(partition.error, abs=6e-4)
        shares = partition.counts[partition.counts > 0].double() / plane.NUM_POINTS
        perplexity = float((-(shares * shares.log()).sum()).exp())
        assert float(readout(page, "perplexity")) == pytest.approx(perplexity, abs=0.06)


def drag(page: Any, start: list[float], end: tuple[float, float]) -> None:
    box = marks(page).bounding_box()
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=4)
    page.mouse.up()


def places(page: Any, pixels: tuple[float, float]) -> torch.Tensor:
    """Return the place in the plane of a point of the canvas."""
    side = marks(page).bounding_box()["width"]
    across, down = (
        ((pixel / side * PLACES - 0.5) / (PLACES - 1) * 2 - 1) * plane.EXTENT * sign
        for pixel, sign in zip(pixels, (1, -1), strict=True)
    )
    return torch.tensor([across, down])


def test_a_dragged_code_takes_its_region_along_and_the_numbers_follow(show: Callable[..., Any]) -> None:
    page = show(PlaneExplorer("vq, k-means"))
    codes = plane.learn("vq, k-means")[-1].codes.clone()
    learnt, target = readout(page, "error"), (60.0, 400.0)
    assert page.get_by_role("button", name="codes as learnt").is_disabled()
    drag(page, handles(page)[5], target)
    codes[5] = places(page, target)
    axis = torch.linspace(-plane.EXTENT, plane.EXTENT, PLACES)
    plane_of = torch.stack([axis.expand(PLACES, -1), axis.flip(0)[:, None].expand(-1, PLACES)], 2)
    assert_regions(regions(page), torch.cdist(plane_of.view(-1, 2), codes).argmin(1).view(PLACES, PLACES))
    distances = torch.cdist(plane.points(), codes)
    assert float(readout(page, "error")) == pytest.approx(float(distances.min(1).values.square().mean()), abs=2e-3)
    assert readout(page, "used") == f"{len(distances.argmin(1).unique())} of 16"
    assert readout(page, "status").startswith("code 5 at (−1.8")
    page.get_by_role("button", name="codes as learnt").click()
    assert readout(page, "error") == learnt and page.evaluate("sent") == []  # nothing of it needs Python


@pytest.mark.parametrize(
    ("method", "moves"),
    [("vq, l2", 1), ("ibq", 1), ("gumbel", 1), ("grouped", 7), ("residual", 4), ("fsq", 0), ("bsq", 0)],
)
def test_what_a_drag_moves_is_what_the_quantizer_has(show: Callable[..., Any], method: str, moves: int) -> None:
    """One code; of a grouped one its row and its column; of a residual one the same in every cell; of a grid none."""
    page = show(PlaneExplorer(method))
    before, regions_before, error = handles(page), regions(page), readout(page, "error")
    code = int(plane.learn(method)[-1].counts.argmax())
    drag(page, before[code], (before[code][0] + 37, before[code][1] + 52))
    after = handles(page)
    assert sum(a != b for a, b in zip(before, after, strict=True)) == moves
    assert (readout(page, "error") != error) == (moves > 0)
    assert np.array_equal(regions(page), regions_before) == (method == "gumbel" or not moves)  # its map chooses
    if method == "vq, l2":
        assert float(places(page, after[code]).norm()) == pytest.approx(1, abs=0.02)


def test_codes_of_the_first_level_take_their_four_along(show: Callable[..., Any]) -> None:
    page = show(PlaneExplorer("residual"))
    before = np.array(handles(page))
    assert len(before) == 16 + 4
    drag(page, before[17].tolist(), (before[17][0] + 40, before[17][1] + 20))
    shifts = np.array(handles(page)) - before
    moved = [4, 5, 6, 7, 17]  # the second code of the first level, and its sums
    assert np.abs(shifts[moved] - [40, 20]).max() < 1.5 and np.abs(np.delete(shifts, moved, axis=0)).max() == 0


def test_the_slider_and_play_run_through_the_steps_without_python(show: Callable[..., Any]) -> None:
    page = show(PlaneExplorer("ema"))
    slider = page.get_by_label("step of learning")
    slider.fill("2")
    assert readout(page, "step") == "step 2" and marks(page).get_attribute("data-step") == "2"
    slider.fill(str(len(plane.FRAMES) - 4))
    page.get_by_role("button", name="play the steps of learning").click()
    expect(page.locator("[data-role=step]")).to_have_text("step 300")
    expect(page.get_by_role("button", name="play the steps of learning")).to_be_visible()  # it has come to its end
    page.get_by_role("button", name="play the steps of learning").click()
    expect(page.locator("[data-role=step]")).not_to_have_text("step 300")  # from the start again
    page.get_by_role("button", name="pause").click()
    stopped = readout(page, "step")
    page.wait_for_timeout(300)
    assert readout(page, "step") == stopped and page.evaluate("model.get('step')") == int(stopped.split()[1])


@pytest.mark.parametrize(("motion", "steps"), [("reduce", range(5, 16)), ("no-preference", [len(plane.FRAMES)])])
def test_where_motion_is_not_wanted_play_takes_few_steps(
    show: Callable[..., Any], motion: str, steps: Sequence[int]
) -> None:
    page = show(PlaneExplorer("fsq"), reduced_motion=motion)
    page.clock.install()
    page.evaluate(
        "window.steps = new Set(); model.on('change:step', window.count = () => steps.add(model.get('step')))"
    )
    page.get_by_role("button", name="play the steps of learning").click()
    page.clock.run_for(30_000)
    assert readout(page, "step") == "step 300" and page.evaluate("steps.size") in steps
    page.evaluate("model.off('change:step', count)")


def test_codes_are_chosen_and_moved_by_keys_that_nobody_else_hears(show: Callable[..., Any]) -> None:
    page = show(PlaneExplorer("vq"))
    page.evaluate(
        "window.heard = 0; document.addEventListener('keydown', (event) => { window.heard += event.key !== 'Shift'; })"
    )
    marks(page).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert marks(page).get_attribute("data-chosen") == "2" and readout(page, "status").startswith("code 2 at")
    before = handles(page)
    page.keyboard.press("Shift+ArrowUp")
    after = handles(page)
    assert [a == b for a, b in zip(before, after, strict=True)] == [k != 2 for k in range(16)]
    assert after[2][1] < before[2][1] and after[2][0] == before[2][0]
    page.keyboard.press("Escape")
    assert handles(page) == before and page.evaluate("heard") == 0


def test_a_method_that_is_not_learnt_says_that_it_is_being_learnt(show: Callable[..., Any]) -> None:
    explorer = PlaneExplorer("fsq", seed=77)
    assert list(explorer.rules) == ["fsq"]
    page = show(explorer)
    page.get_by_label("quantizer").select_option("lfq")
    assert readout(page, "status") == "learning lfq …"
    before = regions(page)
    change(page, rules=PlaneExplorer("lfq", seed=77).rules)
    assert readout(page, "status") == "" and not np.array_equal(regions(page), before)
    assert readout(page, "used").endswith("of 4") and re.match("The grid is fixed", readout(page, "hint"))
