"""A generator at work in a real JupyterLab: tokens come while a cell runs, a click begins there, a drag draws a region anew.

And what is left of it without its kernel, in both themes. `VISTOK_SCREENSHOTS=1` makes the picture of the READMEs anew.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from browser.lab import Lab, NotebookPage, eventually, keep_screenshot, opened_notebooks, pixels, write_notebook

from vistok.data import open_dataset, to_float
from vistok.generation.generator import load_with_tokenizer
from vistok.runs import EXAMPLE_GENERATOR

SECONDS = 300
CELLS = (
    "from vistok.data import open_dataset\nfrom vistok.runs import EXAMPLE_GENERATOR\nfrom vistok.widgets import Sampler\n"
    "photo = open_dataset('photos', 'test', 32).images([24])[0]\n"
    "view = Sampler(EXAMPLE_GENERATOR, picture=photo, device='cpu', label='ship', guidance=1.5)\nview",
    "import time\nwhile not (view.phase == 'stopped' and view.settings['seed'] == 8): time.sleep(0.05)\nprint('over')",
    "print(view.tokens.flatten().tolist())",
)


def expect(target: Any) -> Any:
    return pytest.importorskip("playwright.sync_api").expect(target)


@pytest.fixture(scope="module")
def notebook(lab: Lab, browser: Any) -> Iterator[NotebookPage]:
    """The view, run."""
    write_notebook(lab, "sampler", *CELLS)
    with opened_notebooks(lab, browser) as open_copy:
        opened = open_copy("sampler")
        opened.start_cell(0)
        assert opened.finish(SECONDS) is True, opened.failures()
        yield opened


def number_drawn(view: Any) -> int:
    return int(view.get_attribute("data-drawn"))


def finished(view: Any) -> None:
    expect(view).to_have_attribute("data-phase", "finished")
    expect(view).to_have_attribute("data-drawn", "64")


def tokens(notebook: NotebookPage) -> torch.Tensor:
    """The tokens that Python has, int64 [1, 8, 8]."""
    notebook.start_cell(2)
    assert notebook.finish(SECONDS) is True, notebook.failures()
    (output,) = notebook.cells()[2]["outputs"]
    return torch.tensor(eval("".join(output["text"]))).view(1, 8, 8)


def is_drawn(canvas: Any) -> np.ndarray:
    """Which of the 8 x 8 places of the picture show something, bool: an empty one shows the page's own ground."""
    ground = re.findall(r"\d+", canvas.evaluate("one => getComputedStyle(one.closest('.vistok')).backgroundColor"))[:3]
    shown, inside = pixels(canvas).astype(int), np.linspace(0.15, 0.85, 24)
    at = ((np.arange(8)[:, None] + inside) / 8 * len(shown)).astype(int)  # [8, 24], whatever the size of a place
    cells = shown[at][:, :, at].swapaxes(1, 2)  # [8, 8, 24, 24, 3]
    alike = np.abs(cells - np.array(ground, int)).sum(-1) < 12
    return alike.mean((2, 3)) < 0.75


def test_tokens_come_while_a_cell_runs_and_stop(notebook: NotebookPage) -> None:
    page, view = notebook.page, notebook.page.locator(".vistok.sampler")
    finished(view)  # never empty
    notebook.start_cell(1)  # which waits for what is clicked below
    view.get_by_label("seed", exact=True).fill("7")
    view.get_by_label("pace").select_option("5")
    view.get_by_role("button", name="sample").click()
    button = view.get_by_role("button", name="■ stop")
    expect(view).to_have_attribute("data-phase", "drawing")
    counts = []
    for wanted in (3, 6, 9):
        page.wait_for_function(
            "wanted => Number(document.querySelector('.vistok.sampler').dataset.drawn) >= wanted", arg=wanted
        )
        counts.append(number_drawn(view))
    assert counts == sorted(counts) and counts[-1] < 64
    expect(view.locator("[data-role=drawn]")).to_have_text(re.compile(r"\d+ of 64 tokens$"))
    assert button.evaluate("one => one === document.activeElement"), "the focus stays on the one button"
    button.click()
    expect(view.locator("[data-role=drawn]")).to_have_text(re.compile(r"\d+ of 64 tokens, stopped"))
    assert notebook.finish(SECONDS) is True, "the cell saw it stop"
    assert number_drawn(view) < 64 and view.get_by_label("seed", exact=True).input_value() == "8"

    number = number_drawn(view)

    def empty_from_there_on() -> None:
        assert is_drawn(view.locator("canvas[data-picture=drawn]")).ravel().tolist() == [
            place < number for place in range(64)
        ]

    eventually(empty_from_there_on)
    made = tokens(notebook).flatten()
    generator, _ = load_with_tokenizer(EXAMPLE_GENERATOR)
    expected = generator.sample([7], generator.label_of("ship"), guidance=1.5).flatten()
    assert torch.equal(made[:number], expected[:number]) and (made[number:] == -1).all()
    assert not notebook.errors, notebook.errors


def test_a_click_begins_there_a_drag_draws_a_region_and_a_photograph_is_completed(notebook: NotebookPage) -> None:
    page, view = notebook.page, notebook.page.locator(".vistok.sampler")
    generator, tokenizer = load_with_tokenizer(EXAMPLE_GENERATOR)
    ship, layout = generator.label_of("ship"), generator.layout
    view.get_by_label("pace").select_option("0")
    view.get_by_role("button", name="show the photograph").click()
    expect(view.locator("[data-role=title]")).to_contain_text("decoded from its tokens")
    finished(view)
    photo = tokenizer.encode(to_float(open_dataset("photos", "test", 32).images([24])))
    assert torch.equal(tokens(notebook), photo)

    canvas = view.locator("canvas[data-picture=drawn]")
    canvas.scroll_into_view_if_needed()
    side = canvas.bounding_box()["width"] / 8
    view.get_by_label("seed", exact=True).fill("30")
    canvas.click(position={"x": 0.5 * side, "y": 4.5 * side})
    expect(view.locator("[data-role=title]")).to_have_text("seed 30, ship, guidance 1.5, from place 32 on")
    finished(view)
    completed = tokens(notebook)
    known = layout.first(32)
    assert torch.equal(completed, generator.sample([30], ship, guidance=1.5, given=photo, known=known))
    assert torch.equal(completed[known], photo[known]) and not torch.equal(completed, photo)

    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 2.5 * side, box["y"] + 1.5 * side)
    page.mouse.down()
    page.mouse.move(box["x"] + 4.5 * side, box["y"] + 3.5 * side, steps=4)
    page.mouse.up()
    expect(view.locator("[data-role=title]")).to_contain_text("9 places of it")
    finished(view)
    outside = torch.ones(1, 8, 8, dtype=torch.bool)
    outside[:, 1:4, 2:5] = False
    assert torch.equal(tokens(notebook), generator.sample([31], ship, guidance=1.5, given=completed, known=outside))

    # The keyboard is enough: arrows choose a token, and enter begins there.
    before = tokens(notebook)
    canvas.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(view.locator("[data-role=token]")).to_contain_text("selected: row 3, column 7")
    page.keyboard.press("Enter")
    expect(view.locator("[data-role=title]")).to_contain_text("from place 31 on")
    finished(view)
    made = tokens(notebook)
    assert torch.equal(made.flatten()[:31], before.flatten()[:31]) and not torch.equal(made, before)
    assert len(view.locator(".likely .code").all()) == 8
    view.get_by_label("top-p").fill("2")
    view.get_by_role("button", name="sample").click()
    expect(view.locator(".message")).to_contain_text("top_p is 2.0, but must be in (0, 1]")
    assert torch.equal(tokens(notebook), made)
    view.get_by_label("top-p").fill("1")
    page.keyboard.press("Escape")
    assert not notebook.errors, notebook.errors


def test_it_is_drawn_in_both_themes_narrow_and_wide(notebook: NotebookPage, tmp_path: Any) -> None:
    view = notebook.page.locator(".vistok.sampler")
    view.get_by_label("seed", exact=True).fill("7")
    view.get_by_label("pace").select_option("20")
    view.get_by_role("button", name="sample").click()
    expect(view).to_have_attribute("data-phase", "drawing")
    notebook.page.wait_for_function("Number(document.querySelector('.vistok.sampler').dataset.drawn) >= 36")
    view.get_by_role("button", name="■ stop").click()
    expect(view).to_have_attribute("data-phase", "stopped")
    grounds = []
    for theme, width in (("dark", 825), ("light", 825), ("light", 500)):
        notebook.set_theme(theme)
        notebook.set_column(width)
        canvas = view.locator("canvas[data-picture=drawn]")
        eventually(lambda canvas=canvas: _last_is_empty(canvas))
        grounds.append(pixels(canvas)[-8, -16].mean())  # of a place that is not drawn
        view.screenshot(path=tmp_path / f"{theme}-{width}.png")
        assert view.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert grounds[0] < 60 and min(grounds[1:]) > 220, "empty places have the page's own ground"
    notebook.set_column(825)
    keep_screenshot(view, "sampler")
    assert not notebook.errors, notebook.errors


def _last_is_empty(canvas: Any) -> None:
    drawn = is_drawn(canvas)
    assert drawn[0].all() and not drawn[-1].any()


def test_without_its_kernel_it_shows_what_was_drawn(
    lab: Lab, notebook: NotebookPage, open_notebook: Callable[..., NotebookPage]
) -> None:
    view = notebook.page.locator(".vistok.sampler")
    before = is_drawn(view.locator("canvas[data-picture=drawn]"))
    notebook.save()
    notebook.page.context.close()
    lab.shut_down_kernels()
    again = open_notebook("sampler", again=True)
    view = again.page.locator(".vistok.sampler[data-live=false]")
    expect(view).to_have_count(1)
    expect(view.locator(".gone:not([hidden])")).to_have_count(1)
    expect(view.locator("[data-role=drawn]")).to_contain_text("of 64 tokens, stopped")

    def as_it_was() -> None:
        assert np.array_equal(is_drawn(view.locator("canvas[data-picture=drawn]")), before)

    eventually(as_it_was)
    view.get_by_role("button", name="sample").click()
    expect(view.locator(".message")).to_contain_text("The kernel that made this view is gone")
    assert not again.errors, again.errors
