// TokenEditor: the tokens of an image over what they decode to; replaced, swapped with another image's, or mixed with them.
// The page only asks: {do: "replace", code: 5} and the like. Whatever comes of it comes back in the model.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "token-editor");
  if (!model.get("images")) return stop;
  const scale = model.get("error_scale"), levels = model.get("codebook_sizes");
  const SIDE = 384, SMALL = 192;
  let shown = {}, tiles = null, painted = 0, asked = 0, dragged = null, hovered = null;
  let selection = model.get("selection"), anchor = selection.slice(0, 2), cursor = anchor;
  let due = 0, chosen = 0;  // what the kernel's count of answers comes to with the last request, and with the last selection
  let waiting = null;  // of the interpolation: one request at a time, and the last one asked meanwhile

  const middle = { style: "display:inline-flex;align-items:center;gap:4px" };
  const behind = () => model.get("answered") < due;
  function ask(what, more = {}) {
    if (!alive(model)) { if (what !== "select") model.send({ do: what }); return; }  // refused there; tokens are read without Python
    due = Math.max(due, model.get("answered")) + 1;
    model.send({ do: what, ...more });
    setTimeout(() => { if (behind()) busy.textContent = "waiting for the kernel …"; }, 500);
  }
  const number = (label, attributes) => {
    const input = node("input", { type: "number", step: 1, min: 0, style: "width:6em", ...attributes });
    return [node("label", {}, `${label} `, input), input];
  };
  const choose = () => ask("choose", { image: value(image), other: value(other) });
  const value = (input) => input.value === "" || !Number.isFinite(Number(input.value)) ? input.value : Number(input.value);
  const [imageLabel, image] = number("image", { max: model.get("images") - 1, onchange: choose });
  const [otherLabel, other] = number("other image", { max: model.get("images") - 1, onchange: choose });
  const level = node("select", { onchange: () => ask("look_at", { level: Number(level.value) }) },
    ...levels.map((size, i) => node("option", { value: i }, `${i} (${count(size)} codes)`)));
  const busy = node("span", { class: "caption", role: "status", data: { role: "busy" } });
  const grid = node("input", { type: "checkbox", checked: true, onchange: () => draw() });
  const canvas = node("canvas", { tabindex: 0, role: "application", data: { picture: "decoded" }, style: "cursor:crosshair;touch-action:none",
    "aria-label": "tokens over what they decode to; arrow keys select a token, with shift a region, enter goes to the code" });
  const tip = node("div", { class: "tip" });
  const status = node("p", { class: "caption number", "aria-live": "polite", data: { role: "token" } });
  const [codeLabel, code] = number("code", { onkeydown: (event) => { if (event.key === "Enter" && plain(event)) replace(); } });
  const replace = () => ask("replace", { code: value(code) });
  const button = (text, act, title) => node("button", { onclick: act, title }, text);
  const swap = button("swap region", () => ask("swap"), "exchange the selected tokens with the other image's");
  const undo = button("undo", () => ask("undo"), "take the last change back");
  const reset = button("reset", () => ask("reset"), "both images as they were encoded");
  const share = node("input", { type: "range", min: 0, max: 1, step: 0.01, oninput: () => mix() });
  const shareText = node("span", { class: "number caption", data: { role: "share" } });
  const snap = node("input", { type: "checkbox", onchange: () => mix() });
  const near = node("div", { class: "bar", role: "group", "aria-label": "nearest codes", style: "gap:4px;align-items:flex-start" });
  const nearTitle = node("p", { class: "caption", data: { role: "near" } });
  const change = node("p", { class: "number", "aria-live": "polite", data: { role: "change" }, style: "margin:4px 0;max-width:62em" });
  const kinds = { original: "original", before: "decoded before any edit", difference: "difference from before", other_decoded: "other image, decoded now" };
  const small = Object.fromEntries(Object.entries(kinds).map(([kind, text]) => [kind, node("canvas", { role: "img", "aria-label": text, data: { picture: kind } })]));
  const titles = Object.fromEntries(Object.entries(kinds).map(([kind, text]) => [kind, node("p", { class: "caption" }, text)]));
  box.append(
    node("div", { class: "bar" }, imageLabel, otherLabel, levels.length > 1 ? node("label", {}, "level ", level) : "", node("label", middle, grid, "grid"), busy),
    node("div", { class: "row" },
      node("div", { class: "column" }, node("p", { class: "caption" }, "decoded now"), node("div", { style: "position:relative" }, canvas, tip), status),
      node("div", { style: "display:grid;grid-template-columns:auto auto;gap:6px 12px" }, ...Object.keys(kinds).map((kind) =>
        node("div", { class: "column" }, titles[kind], small[kind])))),
    change, errorBar(scale, "difference"),
    node("div", { class: "bar", style: "margin-top:8px" }, codeLabel, button("replace", replace, "give all selected tokens this code"), swap, undo, reset),
    node("div", { class: "bar" }, node("label", middle, "interpolate", share), shareText, node("label", middle, snap, "snap to codes")),
    nearTitle, near);

  function mix() {
    const wanted = { share: Number(share.value), to_codes: snap.checked };
    shareText.textContent = wanted.share.toFixed(2);
    if (behind()) waiting = wanted;
    else ask("interpolate", wanted);
  }
  function answered() {
    selected();
    if (behind()) return;
    busy.textContent = "";
    if (waiting) { const wanted = waiting; waiting = null; ask("interpolate", wanted); }
    else slide();
  }
  function slide() {
    share.value = model.get("share"); shareText.textContent = model.get("share").toFixed(2); snap.checked = model.get("to_codes");
  }

  // A number that the kernel refused stays to be mended; it is overwritten only when the kernel's own changes.
  function controls() {
    image.value = model.get("image"); other.value = model.get("other"); level.value = model.get("level");
    code.max = levels[model.get("level")] - 1;
    const [first, second] = model.get("titles");
    titles.original.textContent = `original: ${first}`; titles.other_decoded.textContent = `other image, now: ${second}`;
    const focused = box.querySelector(":focus");
    undo.disabled = reset.disabled = !model.get("can_undo");
    if (focused?.disabled) canvas.focus({ preventScroll: true });  // it would be lost with the button
    if (!behind()) slide();
    change.textContent = model.get("change");
  }

  const shape = () => model.get("grid");  // rows and columns of tokens
  const token = (row, column) => u32(model.get("token_values"))[row * shape()[1] + column];
  const say = (row, column) => `row ${row}, column ${column}: code ${token(row, column)}`;
  function describe() {
    const [top, left, bottom, right] = selection, tokens = (bottom - top) * (right - left);
    code.placeholder = token(top, left);
    status.textContent = tokens === 1 ? `selected: ${say(top, left)}`
      : `selected: rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1}, ${tokens} tokens; first code ${token(top, left)}`;
  }

  function draw() {
    if (!shown.decoded) return;
    const now = shown.decoded, times = enlargement(now, SIDE), [width, height] = [now.width * times, now.height * times];
    const context = paint(canvas, now, width, height), [rows, columns] = shape(), [high, wide] = [height / rows, width / columns];
    if (grid.checked) {
      for (const [colour, shift] of [["rgba(0,0,0,.25)", 0.5], ["rgba(255,255,255,.35)", -0.5]]) {  // seen on dark and on light
        context.strokeStyle = colour; context.lineWidth = 1; context.beginPath();
        for (let i = 1; i < columns; i++) { context.moveTo(i * wide + shift, 0); context.lineTo(i * wide + shift, height); }
        for (let i = 1; i < rows; i++) { context.moveTo(0, i * high + shift); context.lineTo(width, i * high + shift); }
        context.stroke();
      }
    }
    const mark = Math.max(3, Math.min(wide, high) / 5);
    bytes(model.get("edited")).forEach((edited, place) => {  // a square in the corner of each token that is not the encoder's
      if (!edited) return;
      const [x, y] = [(place % columns) * wide + 2, Math.floor(place / columns) * high + 2];
      context.fillStyle = "#fff"; context.fillRect(x, y, mark + 2, mark + 2);
      context.fillStyle = "#d55e00"; context.fillRect(x + 1, y + 1, mark, mark);
    });
    if (hovered) { context.strokeStyle = "#fff"; context.lineWidth = 1; context.strokeRect(hovered[1] * wide, hovered[0] * high, wide, high); }
    const [top, left, bottom, right] = selection;
    outline(context, left * wide, top * high, (right - left) * wide, (bottom - top) * high, 2);
    Object.assign(canvas.dataset, { selection: selection.join(","), painted: ++painted, rows, columns });
  }

  async function load() {
    const number = ++asked, kinds = ["original", "decoded_png", "before", "other_decoded"];
    const [original, decoded, before, other_decoded] = await Promise.all(kinds.map((kind) => picture(model.get(kind))));
    if (number !== asked || !decoded || !before) return;  // something newer came meanwhile
    shown = { original, decoded, before, other_decoded, difference: errorMap(decoded, before, scale) };
    draw();
    for (const [kind, made] of Object.entries(small)) {
      if (!shown[kind]) continue;
      const times = enlargement(shown[kind], SMALL);
      paint(made, shown[kind], shown[kind].width * times, shown[kind].height * times);
      made.dataset.painted = number;  // it rises with a new picture only
    }
  }

  async function neighbours() {
    const codes = model.get("near"), distances = model.get("near_distances"), made = await picture(model.get("near_tiles"));
    if (!made || codes !== model.get("near")) return;
    const side = made.height;
    nearTitle.textContent = `code ${codes[0]} and the codes nearest to it, each decoded alone, with distances: press one to put it in the selection`;
    const focused = [...near.children].indexOf(near.querySelector(":focus"));
    near.replaceChildren(...codes.map((code, i) => {
      const tile = node("canvas", { "aria-hidden": "true" });
      paint(tile, made, 40, 40, [i * side, 0, side, side]);
      return node("button", { style: "padding:3px", data: { code }, "aria-label": `replace by code ${code}, at distance ${short(distances[i])}`,
        onclick: () => ask("replace", { code }) }, tile, node("div", { class: "number" }, String(code)),
      node("div", { class: "caption number" }, i ? short(distances[i]) : "itself"));
    }));
    if (focused >= 0) near.children[Math.min(focused, codes.length - 1)].focus();
  }

  // The token under the pointer.
  const at = (event) => {
    const [rows, columns] = shape(), [x, y] = pointed(canvas, event);
    return [Math.min(Math.floor(y * rows), rows - 1), Math.min(Math.floor(x * columns), columns - 1)];
  };
  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]) + 1, Math.max(a[1], b[1]) + 1];
  function select(now) { selection = now; describe(); draw(); }
  function send() {
    const [top, left, bottom, right] = selection;
    ask("select", { top, left, bottom, right });
    chosen = due;
  }
  function hover(place) {
    if (String(place) === String(hovered)) return;
    hovered = place;
    tip.style.display = place ? "block" : "none";
    if (place) {
      const [rows, columns] = shape();
      tip.textContent = say(...place);
      tip.style.left = `${Math.min((place[1] + 1) / columns * canvas.clientWidth + 4, canvas.clientWidth - tip.offsetWidth)}px`;
      tip.style.top = `${(place[0] + 1) / rows * canvas.clientHeight + 4}px`;
    }
    draw();
  }
  canvas.addEventListener("pointerdown", (event) => {
    if (!plain(event)) return;
    canvas.setPointerCapture(event.pointerId);
    dragged = event.shiftKey ? anchor : at(event);
    anchor = dragged; cursor = at(event);
    select(between(anchor, cursor));
  });
  canvas.addEventListener("pointermove", (event) => {
    hover(at(event));
    if (dragged && String(at(event)) !== String(cursor)) { cursor = at(event); select(between(anchor, cursor)); }
  });
  canvas.addEventListener("pointerup", () => { if (dragged) { dragged = null; send(); } });
  canvas.addEventListener("pointercancel", () => { dragged = null; selected(); });
  canvas.addEventListener("pointerleave", () => hover(null));
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move && (event.key !== "Enter" || event.shiftKey) || !plain(event)) return;
    event.preventDefault(); event.stopPropagation();  // JupyterLab has its own use for these keys
    if (!move) { code.focus(); code.select(); return; }
    cursor = cursor.map((place, i) => Math.min(Math.max(place + move[i], 0), shape()[i] - 1));
    if (!event.shiftKey) anchor = cursor;
    select(between(anchor, cursor));
    send();
  });

  // The kernel's selection; while it has not answered to the page's last one, it may be an earlier one of the page.
  const selected = () => {
    const now = model.get("selection");
    if (dragged || model.get("answered") < chosen || String(now) === String(selection)) return;
    anchor = now.slice(0, 2); cursor = [now[2] - 1, now[3] - 1];
    select(now);
  };
  const changed = () => { controls(); describe(); draw(); };
  const offer = () => {  // the code that was chosen in another view is at hand to paint with
    if (model.get("offered") >= 0 && document.activeElement !== code) code.value = model.get("offered");
  };
  const handlers = { "change:selection": selected, "change:near_tiles": neighbours, "change:near": neighbours, "change:answered": answered, "change:offered": offer };
  for (const name of ["original", "decoded_png", "before", "other_decoded"]) handlers[`change:${name}`] = load;
  for (const name of ["image", "other", "titles", "level", "share", "to_codes", "can_undo", "change", "token_values", "edited", "grid"]) handlers[`change:${name}`] = changed;
  const deaf = listen(model, handlers);
  controls(); describe(); load(); neighbours(); offer();
  return () => { asked++; deaf(); stop(); };
}
export default { render };
