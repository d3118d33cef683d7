// PlaneExplorer: regions of codes in the plane, which learn step by step and can be dragged.

// Linear functions [weight of x, of y, offset] of the codes of a book, of which the lowest offset - weights . z is chosen.
// `size` is of a code: 2 coordinates, or 1 along `axis`.
function linear(book, size, axis, far) {
  const lines = new Float64Array(book.length / size * 3);
  for (let k = 0; k < book.length / size; k++) {
    const code = size === 2 ? [book[2 * k], book[2 * k + 1]] : axis ? [0, book[k]] : [book[k], 0];
    lines.set([...code, far ? (code[0] ** 2 + code[1] ** 2) / 2 : 0], 3 * k);
  }
  return lines;
}

function lowest(lines, x, y) {
  let best = 0, least = Infinity;
  for (let k = 0; k < lines.length; k += 3) {
    const score = lines[k + 2] - lines[k] * x - lines[k + 1] * y;
    if (score < least) { least = score; best = k / 3; }
  }
  return best;
}

// Return the function of x and y that chooses the code of a place. `books` are the codes of each codebook.
function chooser({ kind, sizes, borders }, books, map) {
  if (kind === "grid") {
    const [first, second] = borders, cell = (axis, at) => axis.reduce((sum, border) => sum + (at > border), 0);
    return (x, y) => cell(first, x) + (first.length + 1) * cell(second, y);
  }
  if (kind === "map") {
    const lines = Float64Array.from(map, (weight, i) => i % 3 === 2 ? -weight : weight);
    return (x, y) => lowest(lines, x, y);
  }
  if (kind === "grouped") {
    const [first, second] = books.map((book, axis) => linear(book, 1, axis, true));
    return (x, y) => lowest(first, x, y) * sizes[1] + lowest(second, x, y);
  }
  const [first, second] = books.map((book) => linear(book, 2, 0, kind !== "dot" && kind !== "direction"));
  if (kind !== "residual") return (x, y) => lowest(first, x, y);
  return (x, y) => {
    const k = lowest(first, x, y);
    return k * sizes[1] + lowest(second, x - first[3 * k], y - first[3 * k + 1]);
  };
}

// The codes as places [x, y], in the order of the indices.
function codesOf({ kind, sizes }, books) {
  const pair = (book, k) => [book[2 * k], book[2 * k + 1]];
  if (kind === "grouped") return Array.from({ length: sizes[0] * sizes[1] }, (_, k) => [books[0][Math.floor(k / sizes[1])], books[1][k % sizes[1]]]);
  if (kind !== "residual") return Array.from({ length: sizes[0] }, (_, k) => pair(books[0], k));
  return Array.from({ length: sizes[0] * sizes[1] }, (_, k) => {
    const [a, b] = [pair(books[0], Math.floor(k / sizes[1])), pair(books[1], k % sizes[1])];
    return [a[0] + b[0], a[1] + b[1]];
  });
}

// Change the codes as a drag of a handle does: handles are the codes, and then, of "residual", the codes of its first level.
function move({ kind, sizes }, books, handle, [x, y]) {
  if (kind === "grouped") { books[0][Math.floor(handle / sizes[1])] = x; books[1][handle % sizes[1]] = y; return; }
  if (kind === "direction") { const length = Math.hypot(x, y) || 1; books[0].set([x / length, y / length], 2 * handle); return; }
  if (kind !== "residual") { books[0].set([x, y], 2 * handle); return; }
  const codes = sizes[0] * sizes[1];
  if (handle >= codes) { books[0].set([x, y], 2 * (handle - codes)); return; }
  const first = 2 * Math.floor(handle / sizes[1]);
  books[1].set([x - books[0][first], y - books[0][first + 1]], 2 * (handle % sizes[1]));
}

const HINTS = {
  nearest: "Drag a code: it owns what is nearest to it.",
  direction: "Codes lie on the circle, and own directions: drag one around it.",
  dot: "Drag a code: the farther out it is, the more it owns.",
  map: "A learned map chooses, whatever the codes are: drag one, and its region stays, but the error changes.",
  grid: "The grid is fixed: there is nothing to drag. It is the encoder's business to fill it.",
  residual: "Drag a diamond, a code of the first level, with its four; or a dot: the second level's pattern, in every cell.",
  grouped: "Drag a code: its column and its row go along, for each axis has its own four codes.",
};
const TAB20 = ["1f77b4", "aec7e8", "ff7f0e", "ffbb78", "2ca02c", "98df8a", "d62728", "ff9896", "9467bd", "c5b0d5", "8c564b", "c49c94",
  "e377c2", "f7b6d2", "7f7f7f", "c7c7c7", "bcbd22", "dbdb8d", "17becf", "9edae5"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const PLACES = 240, SIDE = 460;  // places of the regions along a side; CSS pixels
const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

function render({ model, el }) {
  const all = (model.get("methods") ?? []).every((name) => name in model.get("rules"));  // else Python is asked for another one
  const [box, stop] = frame(el, model, "plane-explorer", all ? true : ["step"]);
  const frames = model.get("frames");
  if (!frames.length) return stop;
  const extent = model.get("extent"), points = f32(model.get("points")), learnt = {};
  let rule, books, map, chosen = -1, dragged = false, timer = null, shownStep = null, asked = null;

  const method = node("select", { onchange: () => { pause(); save(model, { method: method.value }); } },
    ...model.get("methods").map((name) => node("option", { value: name }, name)));
  const play = node("button", { type: "button", data: { role: "play" }, onclick: () => timer ? pause() : start() });
  const slider = node("input", { type: "range", min: 0, max: frames.length - 1, step: 1, style: "flex:1;min-width:120px", "aria-label": "step of learning",
    oninput: () => { pause(); at(frames[Number(slider.value)]); }, onchange: () => model.save_changes() });
  const step = node("span", { class: "number", style: "min-width:5em", data: { role: "step" } });
  const value = (role) => node("div", { class: "number", style: "font-size:18px;white-space:nowrap", data: { role } });
  const shown = Object.fromEntries(["error", "used", "perplexity"].map((role) => [role, value(role)]));
  const readout = (text, made) => node("div", {}, node("div", { class: "caption" }, text), made);
  const hint = node("p", { style: "margin:0", data: { role: "hint" } });
  const status = node("p", { class: "caption", style: "min-height:1.4em", "aria-live": "polite", data: { role: "status" } });
  const back = node("button", { type: "button", data: { role: "back" }, onclick: () => { at(model.get("step")); canvas.focus(); } }, "codes as learnt");
  const regions = node("canvas", { width: PLACES, height: PLACES, "aria-hidden": "true", data: { layer: "regions" },
    style: "position:absolute;inset:0;width:100%;height:100%" });
  const canvas = node("canvas", { tabindex: 0, role: "application", data: { layer: "marks" }, style: "position:relative;touch-action:none",
    "aria-label": "the plane: arrow keys choose a code, shift and an arrow key move it, Escape takes it back" });
  const few = (context) => { context.fillStyle = theme(box).faint; for (const [x, y] of [[3, 9], [7, 4], [10, 8]]) context.fillRect(x, y, 2, 2); };
  const key = (draw, text) => {
    const sample = node("canvas", { "aria-hidden": "true", style: "display:inline-block;vertical-align:middle;margin-right:4px" });
    draw(sized(sample, 14, 14));
    return node("span", {}, sample, text);
  };
  const legendRow = node("div", { class: "bar caption", style: "gap:4px 14px;margin:8px 0 0" });
  const curve = node("canvas", { role: "img", "aria-label": "mean squared error of each step, as learnt", data: { role: "curve" } });
  box.append(node("div", { class: "row", style: "gap:24px" },
    node("div", { style: `position:relative;flex:0 1 ${SIDE}px;min-width:min(280px, 100%)` }, regions, canvas),
    node("div", { class: "column", style: "flex:1 1 260px;gap:12px;max-width:420px" },
      node("label", {}, "quantizer ", method),
      node("div", { class: "bar", style: "margin:0;flex-wrap:nowrap" }, play, slider, step),
      node("div", { class: "row", style: "justify-content:space-between;gap:4px 16px" }, readout("mean squared error", shown.error),
        readout("codes in use", shown.used), readout("perplexity", shown.perplexity)),
      curve, node("div", { class: "column", style: "gap:6px;align-items:flex-start" }, hint, back), status)),
    legendRow);

  const place = (x, y) => [((x + extent) / (2 * extent) * (PLACES - 1) + 0.5) / PLACES * SIDE, ((extent - y) / (2 * extent) * (PLACES - 1) + 0.5) / PLACES * SIDE];
  const unplace = ([across, down]) => [across, down].map((share, i) => {
    const at = (share * PLACES - 0.5) / (PLACES - 1) * 2 * extent - extent;
    return Math.min(Math.max(i ? -at : at, -extent), extent);
  });
  const handles = () => {
    const found = codesOf(rule, books);
    if (rule.kind === "residual") for (let k = 0; k < rule.sizes[0]; k++) found.push([books[0][2 * k], books[0][2 * k + 1]]);
    return found;
  };

  // Regions are painted at low resolution; the browser enlarges them.
  function paintRegions(choose) {
    const colours = theme(box), dark = luminance(colours.paper) < 0.5, ground = dark ? 20 : 255, share = dark ? 0.42 : 0.45;
    const palette = TAB20.map((colour) => colour.map((part) => Math.round(share * part + (1 - share) * ground)));
    const made = new ImageData(PLACES, PLACES), data = made.data;
    for (let down = 0, at = 0; down < PLACES; down++) {
      const y = extent - 2 * extent * down / (PLACES - 1);
      for (let across = 0; across < PLACES; across++, at += 4) {
        const colour = palette[choose(2 * extent * across / (PLACES - 1) - extent, y) % 20];
        data[at] = colour[0]; data[at + 1] = colour[1]; data[at + 2] = colour[2]; data[at + 3] = 255;
      }
    }
    regions.getContext("2d").putImageData(made, 0, 0);
  }
  function luminance(colour) {
    const context = node("canvas").getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
    return (0.3 * r + 0.6 * g + 0.1 * b) / 255;
  }

  // How many points chose each code, and the mean squared distance from a point to its code.
  function measure(choose, codes) {
    const counts = new Uint32Array(codes.length);
    let error = 0;
    for (let i = 0; i < points.length; i += 2) {
      const label = choose(points[i], points[i + 1]);
      counts[label]++;
      error += (codes[label][0] - points[i]) ** 2 + (codes[label][1] - points[i + 1]) ** 2;
    }
    return [counts, error / (points.length / 2)];
  }

  function drawMarks(counts) {
    const context = sized(canvas, SIDE, SIDE), all = handles();
    context.fillStyle = theme(box).ink; context.globalAlpha = 0.38;
    for (let i = 0; i < points.length; i += 2) {
      const [x, y] = place(points[i], points[i + 1]);
      context.fillRect(x - 1, y - 1, 2, 2);
    }
    context.globalAlpha = 1;
    all.forEach((code, k) => (k >= counts.length ? diamond : counts[k] ? dot : cross)(context, ...place(...code)));
    if (chosen >= 0) ring(context, ...place(...all[chosen]));
    const rounded = all.map((code) => place(...code).map((at) => +at.toFixed(2)));
    Object.assign(canvas.dataset, { step: shownStep, handles: JSON.stringify(rounded), chosen });
  }

  function draw() {
    if (!rule) return;
    const choose = chooser(rule, books, map), [counts, error] = measure(choose, codesOf(rule, books)), total = points.length / 2;
    paintRegions(choose);
    drawMarks(counts);
    const entropy = counts.reduce((sum, n) => n ? sum - n / total * Math.log(n / total) : sum, 0);
    shown.error.textContent = error.toFixed(3);
    shown.used.textContent = `${counts.filter(Boolean).length} of ${counts.length}`;
    shown.perplexity.textContent = Math.exp(entropy).toFixed(1);
    back.disabled = !dragged;
    linePlot(curve, [{ x: frames, y: rule.errors }], { width: 360, height: 130, xlabel: "step", ylabel: "mean squared error, as learnt",
      yrange: [0, Math.max(...rule.errors) * 1.05], marks: [{ x: shownStep, label: "" }] });
    return counts;
  }

  // The codes of each codebook at a frame, and the learned map that chooses, if any.
  function learntAt(frame) {
    let from = frame * rule.width;
    const length = (size) => size * (rule.kind === "grouped" ? 1 : 2);
    return [rule.sizes.map((size) => Float64Array.from(rule.all.subarray(from, from += length(size)))),
      rule.maps.subarray(frame * 3 * rule.sizes[0], (frame + 1) * 3 * rule.sizes[0])];
  }

  // Show the codes of a step as they were learnt.
  function at(number) {
    shownStep = number;
    if (number !== model.get("step")) model.set("step", number);
    const now = frames.indexOf(number);
    slider.value = now;
    slider.setAttribute("aria-valuetext", `step ${number}`);
    step.textContent = `step ${number}`;
    dragged = false;
    if (rule) [books, map] = learntAt(now);
    draw();
  }

  function start() {
    let now = model.get("step") === frames.at(-1) ? 0 : frames.indexOf(model.get("step"));
    const few = calm(), every = few ? 1200 : 90, last = frames.length - 1;
    const next = () => {  // where motion is not wanted, in a few long steps
      at(frames[now]);
      if (now === last) { pause(); return; }
      now = few ? Math.min(last, now < 3 ? now + 1 : Math.ceil(now * 1.5)) : now + 1;
      timer = setTimeout(next, every);
    };
    timer = setTimeout(next, 0);
    name();
  }
  function pause() {
    if (timer) { clearTimeout(timer); model.save_changes(); }
    timer = null;
    name();
  }
  function name() { play.textContent = timer ? "❚❚ pause" : "▶ play"; play.setAttribute("aria-label", timer ? "pause" : "play the steps of learning"); }

  // Where a method is not learnt yet, the one that is shown stays until Python has learnt it.
  function choose() {
    const wanted = model.get("method"), there = model.get("rules")[wanted];
    method.value = wanted;
    if (!there) { asked = wanted; status.textContent = `learning ${wanted} …`; return; }
    if (asked === wanted) { status.textContent = ""; asked = null; }
    if (rule && rule === learnt[wanted]) return;
    rule = learnt[wanted] ??= { ...there, all: f32(there.books), maps: f32(there.maps), width: f32(there.books).length / frames.length };
    rule.errors ??= frames.map((_, frame) => {
      const [books, map] = learntAt(frame);
      return measure(chooser(rule, books, map), codesOf(rule, books))[1];
    });
    chosen = -1;
    status.textContent = "";
    hint.textContent = HINTS[rule.kind];
    const marks = [[dot, "a code that some point chose"], [cross, "one that none did"], ...(rule.kind === "residual" ? [[diamond, "a code of the first level"]] : [])];
    legendRow.replaceChildren(...marks.map(([mark, text]) => key((context) => mark(context, 7, 7), text)), key(few, "points"));
    back.style.visibility = rule.kind === "grid" ? "hidden" : "visible";
    at(model.get("step"));
  }

  function moved(to) {
    if (timer) pause();
    move(rule, books, chosen, to);
    dragged = true;
    say(draw());
  }
  function say(counts) {
    const all = handles();
    if (chosen < 0 || !all[chosen]) { status.textContent = ""; return; }
    const [x, y] = all[chosen].map((coordinate) => coordinate.toFixed(2).replace("-", "−"));
    status.textContent = chosen < counts.length ? `code ${chosen} at (${x}, ${y}): ${counts[chosen]} of ${points.length / 2} points`
      : `first-level code ${chosen - counts.length} at (${x}, ${y})`;
  }
  function select(handle) {
    chosen = handle;
    say(draw());
  }

  let holding = false;
  const under = (event) => {
    const [x, y] = pointed(canvas, event).map((share) => share * SIDE);
    const far = handles().map((code) => Math.hypot(place(...code)[0] - x, place(...code)[1] - y));
    let best = -1;  // the last of several at one place, which is drawn on top
    far.forEach((distance, k) => { if (distance < 14 && (best < 0 || distance <= far[best])) best = k; });
    return best;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!rule || event.button) return;
    const found = under(event);
    select(found);
    holding = found >= 0 && rule.kind !== "grid";
    if (holding) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!rule) return;
    if (holding && event.buttons & 1) moved(unplace(pointed(canvas, event)));
    else canvas.style.cursor = rule.kind !== "grid" && under(event) >= 0 ? "grab" : "default";
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { holding = false; });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!rule || !plain(event) || !(way || event.key === "Escape")) return;
    keepEvent(event);
    const all = handles();
    if (!way) at(model.get("step"));
    else if (!event.shiftKey || chosen < 0) select(chosen < 0 ? 0 : (chosen + way[0] - way[1] + all.length) % all.length);  // right and down: the next
    else if (rule.kind !== "grid") moved(all[chosen].map((coordinate, i) => Math.min(Math.max(coordinate + 0.1 * way[i], -extent), extent)));
  });

  name();
  const stopListening = listen(model, { "change:rules": choose, "change:method": choose, "change:step": () => { if (model.get("step") !== shownStep) at(model.get("step")); } });
  choose();
  const calmTheme = onTheme(box, draw);
  return () => { clearTimeout(timer); stopListening(); calmTheme(); stop(); };
}

// Marks of the codes: seen on every region.
function dot(context, x, y) {
  context.beginPath(); context.arc(x, y, 5, 0, 7);
  context.fillStyle = "#000"; context.fill();
  context.strokeStyle = "#fff"; context.lineWidth = 1.5; context.stroke();
}
function cross(context, x, y) {
  strokeTwice(context, "#b2182b", 2.2, () => traceCross(context, x, y, 4), 4.5);
}
function diamond(context, x, y) {
  context.beginPath(); context.moveTo(x, y - 7); context.lineTo(x + 7, y); context.lineTo(x, y + 7); context.lineTo(x - 7, y); context.closePath();
  context.fillStyle = "#0072b2"; context.fill();
  context.strokeStyle = "#fff"; context.lineWidth = 1.5; context.stroke();
}
function ring(context, x, y) {
  strokeTwice(context, "#000", 2, () => context.arc(x, y, 10, 0, 7));
}
export default { initialize, render };
