"""What every view has in a page: sentences over it, keys of its own, and what it does when Python is gone; without a kernel."""

from collections.abc import Iterator
from typing import Any

import pytest
import traitlets
from browser.fake_model import change, open_page, show
from matplotlib.figure import Figure

from vistok.widgets.view import View, script

FILLER = "height:900px;width:10px"


class Toy(View):
    """A view of a few controls, the last of them far below the first."""

    _esm = (
        script()
        + f"""
export default {{ render({{ model, el }}) {{
  const [box, stop] = frame(el, model, "toy", ["own"]);
  const button = (name, act) => node("button", {{ onclick: act }}, name);
  const shown = node("output"), show = () => {{ shown.textContent = model.get("image"); }};
  const change = () => {{ model.set("image", 5); model.save_changes(); shown.textContent = 5; }};
  box.append(shown, button("first", () => model.send({{ do: "first" }})), node("div", {{ style: "{FILLER}" }}),
    button("own", () => model.set("own", 1)), button("last", change));
  show();
  const deaf = listen(model, {{ "change:image": show }});
  return () => {{ deaf(); stop(); }};
}} }};"""
    )
    image = traitlets.Int(3).tag(sync=True)
    own = traitlets.Int(0).tag(sync=True)
    large = traitlets.Bytes(b"").tag(sync=True, saved=False)

    def figure(self) -> Figure | None:
        return None


# Show the view anew with a layout as JupyterLab's, which tells whether Python is there.
LAYOUT = """alive => {
  const heard = new Set();
  window.layout = { comm_live: alive, on: (_, act) => heard.add(act), off: (_, act) => heard.delete(act),
    set(alive) { this.comm_live = alive; heard.forEach(act => act()); } };
  window.hide();
  document.body.replaceChildren();
  window.model.set("layout", window.layout);
  window.show();
}"""


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    page = open_page(browser, 700, 500)
    page.add_style_tag(content="body { margin: 0; }")
    show(page, Toy)
    page.add_style_tag(content=str(Toy._css))
    yield page
    page.evaluate("hide()")
    assert page.evaluate("listeners()") == 0 and page.errors == []
    page.close()


def height(page: Any) -> float:
    return page.locator(".vistok").bounding_box()["height"]


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name)


def gap(page: Any, name: str) -> float:
    """Return how far the sentence is from a control, in CSS pixels up or down."""
    message, control = page.get_by_role("alert").bounding_box(), button(page, name).bounding_box()
    return max(message["y"] - control["y"] - control["height"], control["y"] - message["y"] - message["height"])


def test_a_sentence_stands_where_the_reader_acted_and_moves_nothing(page: Any) -> None:
    before = height(page)
    for name in ("last", "first"):  # the last has no room below
        button(page, name).click()
        change(page, message=f"There is no {name}.")
        assert page.get_by_role("alert").inner_text() == f"There is no {name}."
        assert 0 <= gap(page, name) < 10 and height(page) == before
        change(page, message="")
        assert not page.locator(".message").is_visible() and height(page) == before
    button(page, "last").focus()
    page.keyboard.press("Space")
    change(page, message="There is no last.")
    assert 0 <= gap(page, "last") < 10


def test_what_a_cell_does_is_said_at_the_top_of_what_is_seen(page: Any) -> None:
    button(page, "first").click()
    page.evaluate("() => document.body.append(Object.assign(document.createElement('p'), { textContent: 'a cell' }))")
    page.get_by_text("a cell").click()  # scrolls down
    change(page, message="There is no code 9.")
    box = page.get_by_role("alert").bounding_box()
    assert 0 <= box["y"] < 10 and page.evaluate("scrollY") > 300


def test_a_sentence_is_dismissed_by_a_click_and_by_a_key(page: Any) -> None:
    for dismiss in (lambda: button(page, "dismiss").click(), lambda: page.keyboard.press("Escape")):
        button(page, "first").click()
        change(page, message="There is no first.")
        dismiss()
        assert not page.locator(".message").is_visible() and page.evaluate("model.get('message')") == ""
        assert page.evaluate("document.activeElement.textContent") == "first"


def test_without_python_what_needs_it_is_refused_and_drawn_as_it_was(page: Any) -> None:
    page.evaluate(LAYOUT, True)
    assert not page.locator(".gone").is_visible() and page.locator("[data-live=true]").count() == 1
    button(page, "first").click()
    assert page.evaluate("sent") == [{"do": "first"}]
    page.evaluate(
        "() => model.on('change:image', window.more = () => model.send({ do: 'more' }))"
    )  # drawing it, a view asks for more
    page.evaluate("layout.set(false)")  # the kernel is restarted
    assert page.locator(".gone").inner_text().startswith("The kernel that made this view is gone")
    for name in ("first", "last"):
        button(page, name).click()
        assert page.get_by_role("alert").inner_text() == page.locator(".gone").inner_text()
        assert gap(page, name) < 10
        button(page, "dismiss").click()
    assert page.evaluate("[sent.length, model.get('image'), document.querySelector('output').textContent]") == [
        1,
        3,
        "3",
    ]
    button(page, "own").click()
    assert page.evaluate("model.get('own')") == 1 and not page.locator(".message").is_visible()
    page.evaluate("() => model.off('change:image', more)")


def test_a_refused_view_is_its_sentence_alone(browser: Any) -> None:
    page = open_page(browser, 700, 500)
    show(
        page,
        type(
            "Empty",
            (Toy,),
            {"_esm": script() + "export default { render: ({ model, el }) => frame(el, model, 'empty')[1] };"},
        ),
        message="There are no images.",
    )
    assert page.get_by_role("alert").inner_text() == "There are no images."
    assert page.locator("button").count() == 0 and height(page) > page.get_by_role("alert").bounding_box()["height"]
    page.close()


# JupyterLab's listener, before the page and after it: of a selector with :focus it asks the target only.
LISTENER = """early => document.addEventListener("keydown", (event) => {
    if (!event.target.hasAttribute("data-lm-suppress-shortcuts")) (window.taken ??= []).push(event.key); }, early)"""


@pytest.mark.parametrize("early", [True, False])
def test_keys_are_the_views_own_whenever_the_notebook_listens(page: Any, early: bool) -> None:
    page.evaluate(LISTENER, early)
    for target in (button(page, "first"), page.locator(".vistok")):
        target.evaluate("one => one.focus()")
        for key in ("d", "ArrowDown", "Delete", "Shift+Enter", "Control+Enter", "Control+x", "Alt+Enter"):
            page.keyboard.press(key)
    taken = page.evaluate("window.taken ?? []")
    assert [key for key in taken if key not in ("Control", "Shift", "Alt")] == []
    page.keyboard.press("Control+s")
    assert page.evaluate("window.taken.at(-1)") == "s"


def test_what_is_large_and_needs_python_is_not_saved() -> None:
    assert Toy().unsaved == ["large"]
