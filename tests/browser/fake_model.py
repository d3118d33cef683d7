"""A page with one widget and a model that stands in for Python: what JavaScript draws and sends, without a kernel."""

import base64
from typing import Any

STATE_LEFT_OUT = ("_esm", "_css", "layout", "tabbable", "tooltip")
# The model keeps its state, tells its listeners of what is new, and remembers what was sent; it answers nothing. Bytes come as
# DataViews at an odd offset, as they may from the wire; the module comes as a Blob.
START = """async ([module, style, state]) => {
  const bytes = (text) => {
    const content = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), whole = new Uint8Array(content.length + 1);
    whole.set(content, 1);
    return new DataView(whole.buffer, 1);
  };
  const decoded = (value) => value === null || typeof value !== 'object' ? value
    : Array.isArray(value) ? value.map(decoded)
    : '$bytes' in value ? bytes(value.$bytes)
    : Object.fromEntries(Object.entries(value).map(([name, part]) => [name, decoded(part)]));
  const values = decoded(state), heard = {};
  const update = (changes) => {
    const changed = Object.keys(changes).filter((name) => values[name] !== changes[name]);
    Object.assign(values, changes);
    for (const name of changed) [...(heard[`change:${name}`] ?? [])].forEach((act) => act());
  };
  const model = {
    get: (name) => values[name],
    set: (name, value) => update({ [name]: value }),
    save_changes: () => { window.saved++; },
    send: (content) => window.sent.push(content),
    on: (event, act) => (heard[event] ??= new Set()).add(act),
    off: (event, act) => heard[event]?.delete(act),
  };
  Object.assign(window, { model, sent: [], saved: 0, change: (changes) => update(decoded(changes)),
    hear: (content, buffers) => [...(heard['msg:custom'] ?? [])].forEach((act) => act(content, buffers.map(bytes))),
    listeners: () => Object.values(heard).reduce((sum, acts) => sum + acts.size, 0) });
  document.head.append(Object.assign(document.createElement('style'), { textContent: style }));
  const loaded = await import(URL.createObjectURL(new Blob([module], { type: 'text/javascript' })));
  window.show = (el = document.body) => { window.hide = loaded.default.render({ model, el }); };
  window.show();
}"""


def encoded(value: Any) -> Any:
    """Return a value as JSON that the page decodes, bytes in base64."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: encoded(part) for name, part in value.items()}
    return [encoded(part) for part in value] if isinstance(value, list | tuple) else value


def open_page(browser: Any, width: int, height: int) -> Any:
    """Open an empty page; `page.errors` lists what it throws or prints as an error."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda said: page.errors.append(said.text) if said.type == "error" else None)
    page.set_content("<body></body>")
    return page


def show(page: Any, widget: Any, **state: Any) -> None:
    """Show a widget as it is now, or a class of widgets as it is at first, some of its state replaced."""
    if isinstance(widget, type):
        shown = {name: trait.default() for name, trait in widget.class_traits(sync=True).items() if name[0] != "_"}
    else:
        shown = widget.get_state()
    shown = {name: value for name, value in (shown | state).items() if name not in STATE_LEFT_OUT}
    page.evaluate(START, [str(widget._esm), str(widget._css), encoded(shown)])


def change(page: Any, **state: Any) -> None:
    """Let Python change some of the state, in one message."""
    page.evaluate("change", encoded(state))
