// The frame of a view: the sentence of `message` where the reader acted, `description` as the text alternative, its keys, and a
// line where Python is gone. ownTraits: names of the traits that need no Python when they are changed here, or true: nothing does.
// Where Python goes, the box gets the event "live". Returns [box, stop].
function frame(el, model, name, ownTraits = []) {
  const text = node("p", { class: "hidden-text description" }), gone = node("p", { class: "caption gone" }, GONE);
  const box = node("div", { class: `vistok ${name}`, role: "group", tabindex: -1, "aria-label": name.replaceAll("-", " ") }, text, gone);
  const describe = () => { text.textContent = model.get("description") ?? ""; };
  const connected = () => {
    gone.hidden = ownTraits === true || alive(model);
    box.dataset.live = alive(model);
    box.dispatchEvent(new Event("live"));
  };
  refuseWithoutPython(model, ownTraits, () => model.set("message", GONE));
  saveWithNotebook(model.widget_manager);
  describe(); connected();
  el.append(box);
  const layout = model.get("layout");
  layout?.on?.("comm_live_update", connected);
  const stops = [keepKeys(box), showMessages(box, model), listen(model, { "change:description": describe }),
    () => layout?.off?.("comm_live_update", connected)];
  return [box, () => stops.forEach((stop) => stop())];
}

// Keep the keys that are pressed in a view from the notebook around it, where `d d` deletes the cell. JupyterLab looks for an
// attribute of the element that has the focus, by version before or after the page gets the key; others listen further out. What
// saves, searches and shows JupyterLab's own panels goes on to it, and whatever has Ctrl, Cmd or Alt to the browser.
function keepKeys(box) {
  const modified = (event) => event.ctrlKey || event.metaKey || event.altKey;
  const passes = (event) => (event.ctrlKey || event.metaKey) && !event.altKey && /^([sfb]|shift c)$/.test((event.shiftKey ? "shift " : "") + event.key.toLowerCase());
  const mark = (event) => { if (box.contains(event.target)) event.target.toggleAttribute("data-lm-suppress-shortcuts", !passes(event)); };
  const keep = (event) => { if (!modified(event)) event.stopPropagation(); };
  for (const kind of ["keydown", "keypress", "keyup"]) box.addEventListener(kind, keep);
  window.addEventListener("keydown", mark, true);
  return () => window.removeEventListener("keydown", mark, true);
}

// Show the sentence of `message` over the view, so that nothing moves: beside the control that was used last, or, where the reader
// did something else meanwhile, run a cell perhaps, at the top of what is seen of the view. A view that has nothing else to show
// is its sentence. Returns what stops it.
function showMessages(box, model) {
  const words = node("span"), close = node("button", { class: "dismiss", "aria-label": "dismiss", title: "dismiss", onclick: dismiss });
  const message = node("div", { class: "message", role: "alert" }, words), others = [...box.children];
  let used = null;
  box.prepend(message);

  function dismiss() {
    const held = message.contains(document.activeElement);  // the focus, which goes back to where it was
    model.set("message", ""); model.save_changes();
    if (held) (used?.control ?? box).focus({ preventScroll: true });
  }
  function notice(event) {
    if (message.contains(event.target)) return;
    const control = box.contains(event.target) && event.target.closest("[tabindex], button, select, input, textarea");
    if (!control) { used = null; return; }
    let { left, top, bottom } = control.getBoundingClientRect();
    if (bottom - top > 60) [left, top, bottom] = event.type === "pointerdown" ? [event.clientX, event.clientY, event.clientY] : [left, top, top];
    const from = box.getBoundingClientRect();
    used = { control, left: left - from.left, top: top - from.top, bottom: bottom - from.top };
  }
  function say() {
    words.textContent = model.get("message") ?? "";
    message.hidden = !words.textContent;
    if (message.hidden) return;
    const alone = [...box.children].every((child) => child === message || child.hidden || others.includes(child));
    message.classList.toggle("alone", alone);
    if (alone) close.remove(); else message.append(close);
    const [low, high] = seen(box), { offsetWidth: width, offsetHeight: height } = message;
    const below = used && used.bottom + 4 + height <= high;
    const top = used ? (below ? used.bottom + 4 : used.top - 4 - height) : low + 4;
    message.style.top = `${Math.max(low, Math.min(top, high - height))}px`;
    message.style.left = `${Math.max(4, Math.min(used?.left ?? 4, box.clientWidth - width - 4))}px`;
  }
  queueMicrotask(say);  // once the view has its content
  box.addEventListener("keydown", (event) => { if (event.key === "Escape" && !message.hidden) dismiss(); });
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, notice, true);
  const stopListening = listen(model, { "change:message": say });
  return () => { stopListening(); for (const kind of ["pointerdown", "keydown"]) document.removeEventListener(kind, notice, true); };
}

// From where to where an element is seen, in pixels from its top; all of it where nothing is.
function seen(element) {
  const whole = element.getBoundingClientRect();
  let [top, bottom] = [Math.max(0, whole.top), Math.min(window.innerHeight, whole.bottom)];
  for (let outer = element.parentElement; outer; outer = outer.parentElement) {
    if (getComputedStyle(outer).overflowY === "visible") continue;
    const part = outer.getBoundingClientRect();
    [top, bottom] = [Math.max(top, part.top), Math.min(bottom, part.bottom)];
  }
  return top < bottom ? [top - whole.top, bottom - whole.top] : [0, whole.height];
}
