"""A page with one widget and a model of its own: what JavaScript draws and sends, without a kernel."""

import base64
from typing import Any

STATE_LEFT_OUT = ("_esm", "_css", "layout", "tabbable", "tooltip")
# A model that keeps its state, tells its listeners, and remembers what was sent; the module comes as a Blob.
START = """async ([module, style, state]) => {
    const decode = (value) => value && typeof value === 'object' && '$bytes' in value
        ? new DataView(Uint8Array.from(atob(value.$bytes), (c) => c.charCodeAt(0)).buffer)
        : Array.isArray(value) ? value.map(decode)
        : value && typeof value === 'object'
            ? Object.fromEntries(Object.entries(value).map(([name, part]) => [name, decode(part)])) : value;
    const kept = decode(state), listeners = {};
    window.sent = [];
    window.model = {
        get: (name) => kept[name],
        set: (name, value) => { kept[name] = value; (listeners['change:' + name] || []).slice().forEach((act) => act()); },
        push: (changes) => { for (const [name, value] of Object.entries(decode(changes))) window.model.set(name, value); },
        save_changes: () => {}, send: (content) => window.sent.push(content),
        on: (event, act) => (listeners[event] ||= []).push(act),
        off: (event, act) => { listeners[event] = (listeners[event] || []).filter((other) => other !== act); },
        listening: () => Object.values(listeners).flat().length };
    document.head.append(Object.assign(document.createElement('style'), {textContent: style}));
    const loaded = await import(URL.createObjectURL(new Blob([module], {type: 'text/javascript'})));
    window.cleanup = await loaded.default.render({model: window.model, el: document.body}); }"""


def encoded(value: Any) -> Any:
    """Return a value as JSON that `START` decodes, bytes in base64."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {name: encoded(part) for name, part in value.items()}
    return [encoded(part) for part in value] if isinstance(value, list | tuple) else value


def open_widget(browser: Any, widget: Any, **state: Any) -> Any:
    """Open a page that shows a widget as it is now, some of its state replaced; `page.errors` lists what the page threw."""
    page = browser.new_page(viewport={"width": 1100, "height": 1200})
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.set_content("<body></body>")
    shown = {name: value for name, value in widget.get_state().items() if name not in STATE_LEFT_OUT} | state
    page.evaluate(START, [str(widget._esm), str(widget._css), encoded(shown)])
    return page
