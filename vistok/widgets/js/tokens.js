// Shared by the views with tokens to click and change: requests to the kernel, a grid of tokens over pictures, and the codes
// offered in place of one.

const WAITING = "waiting for the kernel …";
const NOT_DRAWN = 0xffffffff;  // in place of the code of a token that a generator has not drawn yet

// Requests of the page: {do: "replace", code: 5} and the like. Whatever comes of them comes back in the model, whose `answered`
// counts them. `busy` says so when the kernel keeps the reader waiting. `last` asks for what is dragged: one request at a time,
// and meanwhile only the last one waits.
function asking(model, busy) {
  let due = 0;  // the kernel's count of answers once the last request is dealt with
  let waiting = null;
  const behind = () => model.get("answered") < due;
  function ask(what, more = {}, data = []) {
    if (!alive(model)) { if (what !== "select") model.send({ do: what }); return due; }  // refused there; tokens are read without Python
    due = Math.max(due, model.get("answered")) + 1;
    model.send({ do: what, ...more }, undefined, data);
    setTimeout(() => { if (behind()) busy.textContent = WAITING; }, 500);
    return due;
  }
  function last(what, more) {
    if (behind()) waiting = [what, more];
    else ask(what, more);
  }
  function answered() {
    if (behind()) return;
    busy.textContent = "";
    if (waiting) { const wanted = waiting; waiting = null; ask(...wanted); }
  }
  const forget = () => { waiting = null; };
  return { ask, last, forget, behind, stop: listen(model, { "change:answered": answered }) };
}

// The text that was typed: a number where it is one, or else the text, for the kernel to refuse in a sentence.
const typed = (input) => input.value === "" || !Number.isFinite(Number(input.value)) ? input.value : Number(input.value);

// A field for a whole number: [label, input].
function numberField(label, attributes) {
  const input = node("input", { type: "number", step: 1, min: 0, style: "width:6em", ...attributes });
  return [node("label", {}, `${label} `, input), input];
}

// Take what is typed into fields as it is typed: after a short pause, at once with the enter key or when the field is left, and
// once only. An empty field is no answer yet. `pending` says whether more is typed than was taken.
function whenTyped(inputs, act, pause = 400) {
  let timer = 0, taken = null;
  const now = () => inputs.map((input) => input.value).join("|");
  const stop = () => { clearTimeout(timer); timer = 0; };
  const take = () => {
    stop();
    if (now() === taken || inputs.some((input) => input.value === "")) return;
    taken = now();
    act();
  };
  for (const input of inputs) {
    input.addEventListener("focus", () => { taken = now(); });
    input.addEventListener("input", () => { stop(); timer = setTimeout(take, pause); });
    input.addEventListener("change", take);
    input.addEventListener("keydown", (event) => { if (event.key === "Enter" && plain(event)) take(); });
  }
  return { pending: () => timer !== 0, stop };
}

// A grid of tokens over one picture or several, with one selection: a click, a drag or arrow keys select. `enter` is what the
// enter key does. Tokens of a sequence lie nowhere in a picture: they are a row of their own, `row`, which is broken where the page
// ends, and the pictures are pictures only. `shares()` gives each of them a number in [0, 1] that colours it, or null. `words` says
// what a token is, of its code and its number; `released` is called with what a click or a drag has selected.
// Returns {face, row, lines, codes, status, draw, first, stop}.
function tokenGrid(model, talk, enter, shares = () => null, { words = (code) => `code ${code}`, released = () => {} } = {}) {
  const CELL = 44, HIGH = 28;  // CSS pixels of a token of a sequence
  const sequence = () => model.get("sequence");
  const faces = [], shape = () => model.get("grid");  // rows and columns of tokens
  let selection = model.get("selection"), anchor = selection.slice(0, 2), cursor = anchor;
  let dragged = null, hovered = null, painted = 0;
  const watch = new ResizeObserver(() => draw());
  let chosen = 0;  // the kernel's count of answers once the last selection is dealt with
  const [lines, codes] = [0, 1].map(() => node("input", { type: "checkbox", checked: true, onchange: () => draw() }));
  const status = node("p", { class: "caption number", "aria-live": "polite", data: { role: "token" } });
  const token = (row, column) => u32(model.get("token_values"))[row * shape()[1] + column];
  const what = (row, column) => words(token(row, column), row * shape()[1] + column);
  const say = (row, column) => `${sequence() ? `token ${column}` : `row ${row}, column ${column}`}: ${what(row, column)}`;

  // A picture that tokens lie over, at most `side` CSS pixels wide, and enlarged by a whole number if `whole`, or else as there is
  // room; `numbers` writes the codes where they can be read.
  function face(name, label, side, { numbers = false, whole = true } = {}) {
    const canvas = node("canvas", { tabindex: 0, role: "application", data: { picture: name }, "aria-label": label,
      style: "cursor:crosshair;touch-action:none" });
    const tip = node("div", { class: "tip" }), element = node("div", { style: "position:relative" }, canvas, tip);
    const made = { canvas, tip, element, side, numbers, whole, picture: null };
    faces.push(made);
    listenTo(made);
    if (!whole) watch.observe(element);
    made.show = (picture) => { made.picture = picture; drawFace(made); };
    return made;
  }

  function describe() {
    const [top, left, bottom, right] = selection, tokens = (bottom - top) * (right - left);
    status.textContent = tokens === 1 ? `selected: ${say(top, left)}`
      : sequence() ? `selected: tokens ${left} to ${right - 1}; first ${what(top, left)}`
      : `selected: rows ${top} to ${bottom - 1}, columns ${left} to ${right - 1}, ${tokens} tokens; first ${what(top, left)}`;
  }

  const draw = () => { faces.forEach(drawFace); drawRow(); };
  function drawFace({ canvas, element, picture: now, side, numbers, whole }) {
    if (!now) return;
    const room = Math.min(side, element.clientWidth || side);
    const times = whole ? enlargement(now, side) : room / Math.max(now.width, now.height);
    const [width, height] = [now.width * times, now.height * times];
    const context = paint(canvas, now, width, height), [rows, columns] = shape(), [high, wide] = [height / rows, width / columns];
    canvas.tabIndex = sequence() ? -1 : 0;
    canvas.style.cursor = sequence() ? "" : "crosshair";
    Object.assign(canvas.dataset, { selection: selection.join(","), painted: ++painted, rows, columns });
    if (sequence()) return;
    if (lines.checked) drawLines(context, rows, columns, width, height);
    if (numbers && codes.checked) drawNumbers(context, u32(model.get("token_values")), columns, wide, high);
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
  }

  // The tokens of a sequence, in as many lines as they need; those that are not decoded are struck through.
  const strip = { tip: node("div", { class: "tip" }), canvas: node("canvas", { tabindex: 0, role: "application",
    data: { picture: "sequence" }, style: "cursor:crosshair;touch-action:none",
    "aria-label": "the tokens of the sequence; arrow keys select one, with shift several, enter goes to the code" }) };
  const row = node("div", { style: "position:relative", hidden: true });  // empty where tokens lie on a grid
  const across = () => Math.max(1, Math.min(shape()[1], Math.floor((row.clientWidth || 16 * CELL) / CELL)));  // tokens a line
  function drawRow() {
    row.hidden = !sequence();
    for (const box of [lines, codes]) box.closest("label")?.toggleAttribute("hidden", sequence());
    if (row.hidden) { row.replaceChildren(); return; }
    if (!row.firstChild) row.append(strip.canvas, strip.tip);
    const number = shape()[1], columns = across(), known = shares(), prefix = model.get("prefix") || number;
    const context = sized(strip.canvas, columns * CELL, Math.ceil(number / columns) * HIGH), edited = bytes(model.get("edited"));
    const { rule } = theme(row);
    const corner = (place) => [(place % columns) * CELL, Math.floor(place / columns) * HIGH];
    for (let place = 0; place < number; place++) {
      const [x, y] = corner(place), share = known?.[place];
      if (token(0, place) === NOT_DRAWN) {
        context.strokeStyle = rule; context.lineWidth = 1; context.strokeRect(x + 0.5, y + 0.5, CELL - 2, HIGH - 2);
        continue;
      }
      context.fillStyle = Number.isFinite(share) ? `rgb(${heat(share)})` : "#5b6770";
      context.fillRect(x, y, CELL - 1, HIGH - 1);
      if (place >= prefix) {
        context.strokeStyle = "#fff"; context.lineWidth = 1;
        context.beginPath(); context.moveTo(x, y + HIGH - 1); context.lineTo(x + CELL - 1, y); context.stroke();
      }
      if (!edited[place]) continue;
      context.fillStyle = "#fff"; context.fillRect(x + 2, y + 2, 8, 8);
      context.fillStyle = "#d55e00"; context.fillRect(x + 3, y + 3, 6, 6);
    }
    drawNumbers(context, u32(model.get("token_values")), columns, CELL, HIGH);
    if (hovered) { context.strokeStyle = "#fff"; context.lineWidth = 1; context.strokeRect(...corner(hovered[1]), CELL - 1, HIGH - 1); }
    for (let place = selection[1]; place < selection[3]; place++) {
      const [x, y] = corner(place);
      outline(context, x + 2, y + 2, CELL - 5, HIGH - 5, 2);
    }
    Object.assign(strip.canvas.dataset, { selection: selection.join(","), painted: ++painted, columns, number });
  }

  const between = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]) + 1, Math.max(a[1], b[1]) + 1];
  function select(now) { selection = now; describe(); draw(); }
  function send() {
    const [top, left, bottom, right] = selection;
    chosen = talk.ask("select", { top, left, bottom, right });
  }
  function hover(made, place) {
    if (String(place) === String(hovered)) return;
    hovered = place;
    made.tip.style.display = place ? "block" : "none";
    if (place) {
      const { canvas, tip } = made, [high, number] = shape(), columns = made === strip ? across() : number;
      const rows = made === strip ? Math.ceil(number / columns) : high;
      const [y, x] = made === strip ? [Math.floor(place[1] / columns), place[1] % columns] : place;
      tip.textContent = say(...place);
      tip.style.left = `${Math.max(0, Math.min((x + 1) / columns * canvas.clientWidth + 4, canvas.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${(y + 1) / rows * canvas.clientHeight + 4}px`;
    }
    draw();
  }

  function listenTo(made) {
    const { canvas } = made;
    const elsewhere = () => sequence() && made !== strip;
    const at = (event) => {  // the token under the pointer
      const [rows, columns] = shape(), [x, y] = pointed(canvas, event);
      if (made === strip) {
        const wide = across(), high = Math.ceil(columns / wide);
        return [0, Math.min(Math.min(Math.floor(y * high), high - 1) * wide + Math.min(Math.floor(x * wide), wide - 1), columns - 1)];
      }
      return [Math.min(Math.floor(y * rows), rows - 1), Math.min(Math.floor(x * columns), columns - 1)];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (!plain(event) || elsewhere()) return;
      canvas.setPointerCapture(event.pointerId);
      dragged = event.shiftKey ? anchor : at(event);
      anchor = dragged; cursor = at(event);
      select(between(anchor, cursor));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (elsewhere()) return;
      hover(made, at(event));
      if (dragged && String(at(event)) !== String(cursor)) { cursor = at(event); select(between(anchor, cursor)); }
    });
    canvas.addEventListener("pointerup", () => { if (dragged) { dragged = null; send(); released(selection); } });
    canvas.addEventListener("pointercancel", () => { dragged = null; selected(); });
    canvas.addEventListener("pointerleave", () => hover(made, null));
    canvas.addEventListener("keydown", (event) => {
      const line = made === strip ? [0, across()] : [1, 0];
      const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: line.map((step) => -step), ArrowDown: line }[event.key];
      if (!move && (event.key !== "Enter" || event.shiftKey) || !plain(event) || elsewhere()) return;
      keepEvent(event);
      if (!move) { enter(); return; }
      cursor = cursor.map((place, i) => Math.min(Math.max(place + move[i], 0), shape()[i] - 1));
      if (!event.shiftKey) anchor = cursor;
      select(between(anchor, cursor));
      send();
    });
  }

  // The kernel's selection; while it has not answered to the page's last one, it may be an earlier one of the page.
  const selected = () => {
    const now = model.get("selection");
    if (dragged || model.get("answered") < chosen || String(now) === String(selection)) return;
    anchor = now.slice(0, 2); cursor = [now[2] - 1, now[3] - 1];
    select(now);
  };
  const changed = () => { describe(); draw(); };
  const stop = listen(model, { "change:selection": selected, "change:answered": selected, "change:token_values": changed,
    "change:edited": changed, "change:grid": changed, "change:sequence": changed, "change:prefix": changed });
  listenTo(strip);
  const stopWidth = onWidth(row, drawRow);
  describe(); drawRow();
  const first = () => token(selection[0], selection[1]);
  return { face, row, lines, codes, status, draw, first, stop: () => { watch.disconnect(); stopWidth(); stop(); } };
}

// The borders of tokens, seen on dark and on light.
function drawLines(context, rows, columns, width, height) {
  const [high, wide] = [height / rows, width / columns];
  for (const [colour, shift] of [["rgba(0,0,0,.25)", 0.5], ["rgba(255,255,255,.35)", -0.5]]) {
    context.strokeStyle = colour; context.lineWidth = 1; context.beginPath();
    for (let i = 1; i < columns; i++) { context.moveTo(i * wide + shift, 0); context.lineTo(i * wide + shift, height); }
    for (let i = 1; i < rows; i++) { context.moveTo(0, i * high + shift); context.lineTo(width, i * high + shift); }
    context.stroke();
  }
}

// The codes of all tokens, white on dark edges; where the longest would be too small to read, none.
function drawNumbers(context, codes, columns, wide, high) {
  const longest = String(codes.reduce((a, b) => b === NOT_DRAWN ? a : Math.max(a, b), 0)), font = (size) => `${size}px Arial, Helvetica, sans-serif`;
  context.font = font(10);
  const size = Math.min(10 * 0.8 * wide / context.measureText(longest).width, high * 0.6, 12);
  if (size < 6.5) return;
  Object.assign(context, { font: font(size), textAlign: "center", textBaseline: "middle", strokeStyle: "rgba(0,0,0,.55)", fillStyle: "#fff", lineWidth: 2, lineJoin: "round" });
  codes.forEach((code, place) => {
    if (code === NOT_DRAWN) return;
    const where = [String(code), (place % columns + 0.5) * wide, (Math.floor(place / columns) + 0.5) * high + 0.5];
    context.strokeText(...where); context.fillText(...where);
  });
}

// The code of the first selected token and those nearest to it, as buttons with patches that put a code in its place. Returns
// [title, buttons, stop].
function nearCodes(model, choose) {
  const title = node("p", { class: "caption", data: { role: "near" } });
  const near = node("div", { role: "group", "aria-label": "nearest codes", class: "near" });
  async function show() {
    const codes = model.get("near"), distances = model.get("near_distances"), made = await picture(model.get("near_tiles"));
    if (!made || codes !== model.get("near")) return;
    const side = made.height;
    title.textContent = `code ${codes[0]} and those nearest to it, each decoded ${model.get("sequence") ? "as all tokens of the sequence" : "alone"}, with distances: press one to put it in the selection`;
    const focused = [...near.children].indexOf(near.querySelector(":focus"));
    near.replaceChildren(...codes.map((code, i) => {
      const tile = node("canvas", { "aria-hidden": "true" });
      paint(tile, made, 40, 40, [i * side, 0, side, side]);
      return node("button", { data: { code }, "aria-label": `replace by code ${code}, at distance ${short(distances[i])}`,
        onclick: () => choose(code) }, tile, node("div", { class: "number" }, String(code)),
      node("div", { class: "caption number" }, i ? short(distances[i]) : "itself"));
    }));
    if (focused >= 0) near.children[Math.min(focused, codes.length - 1)].focus();
  }
  const stop = listen(model, { "change:near_tiles": show, "change:near": show });
  show();
  return [title, near, stop];
}
