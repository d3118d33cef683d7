// Shared by all widgets: bytes, elements, colours, pictures, line plots. anywidget loads one module: files are joined.

// What travels as bytes may lie unaligned in a larger buffer: it is copied before it is read as numbers.
const bytes = (view) => view ? new Uint8Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)) : new Uint8Array();
const u32 = (view) => new Uint32Array(bytes(view).buffer);
const f32 = (view) => new Float32Array(bytes(view).buffer);
const count = (number) => number.toLocaleString("en-US");
const percent = (share) => `${(100 * share).toPrecision(share >= 0.1 ? 3 : 2)} %`;

// Make an element. Properties that begin with "on" are listeners, "data" holds data-*; others are attributes.
function node(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Listen to a model; returns what stops listening.
function listen(model, handlers) {
  for (const [event, act] of Object.entries(handlers)) model.on(event, act);
  return () => { for (const [event, act] of Object.entries(handlers)) model.off(event, act); };
}

// The frame of a widget: the sentence of `message`, and `description` as the text alternative. Returns [box, stop].
function frame(el, model, name) {
  const message = node("p", { class: "message", role: "alert" });
  const text = node("p", { class: "hidden-text description" });
  const box = node("div", { class: `vistok ${name}`, role: "group", "aria-label": name.replaceAll("-", " ") }, message, text);
  const say = () => {
    message.textContent = model.get("message") ?? "";
    text.textContent = model.get("description") ?? "";
  };
  say();
  el.append(box);
  return [box, listen(model, { "change:message": say, "change:description": say })];
}

// Draw anew when JupyterLab changes between light and dark, for canvases do not follow the style sheet; and once in the next
// frame, for a widget's colours are known only when it stands on the page. Returns what stops it.
function onTheme(redraw) {
  const observer = new MutationObserver(redraw);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });
  const soon = requestAnimationFrame(redraw);
  return () => { observer.disconnect(); cancelAnimationFrame(soon); };
}

const theme = (element) => {
  const style = getComputedStyle(element.closest(".vistok") ?? element);
  const colour = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  return { ink: colour("--ink", "#222"), faint: colour("--faint", "#666"), paper: colour("--paper", "#fff"),
    rule: colour("--rule", "#bbb"), accent: colour("--accent", "#1976d2") };
};

// Okabe and Ito's colours, told apart by colour-blind readers too; lines also differ in their dashes.
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a900"];
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [], [6, 3], [2, 2], [8, 3, 2, 3]];

// matplotlib's cividis, made for colour-blind readers: brightness rises all along.
const CIVIDIS = [[0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115], [138, 134, 120], [165, 156, 116],
  [195, 179, 105], [225, 204, 85], [254, 232, 56]];
function heat(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1), low = Math.min(Math.floor(place), CIVIDIS.length - 2);
  return CIVIDIS[low].map((value, channel) => Math.round(value + (place - low) * (CIVIDIS[low + 1][channel] - value)));
}

// Put the bytes of a PNG file into an <img>, whose former picture is let go.
function setPicture(image, view, alt) {
  const old = image.src;
  const data = bytes(view);
  if (data.length) image.src = URL.createObjectURL(new Blob([data], { type: "image/png" }));
  else image.removeAttribute("src");
  if (alt !== undefined) image.alt = alt;
  if (old.startsWith("blob:")) URL.revokeObjectURL(old);
  return image;
}

// Decode the bytes of a PNG file into something that a canvas draws.
const bitmap = (view) => createImageBitmap(new Blob([bytes(view)], { type: "image/png" }));

// Size a canvas in CSS pixels, sharp on every screen, and return its context.
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

const short = (value) => value === 0 ? "0" : Math.abs(value) >= 10000 || Math.abs(value) < 0.001 ? value.toExponential(0)
  : String(+value.toPrecision(3));

// Draw lines. series: [{name, x, y, color, dash, points}]; options: width, height, xlog, ylog, xlabel, ylabel, yrange,
// marks: [{x, label}], vertical lines. What has no place on a log axis is left out.
function linePlot(canvas, series, options = {}) {
  const { width = 300, height = 150, xlog, ylog, xlabel = "", ylabel = "", marks = [] } = options;
  const context = sized(canvas, width, height), colours = theme(canvas);
  const [left, right, top, bottom] = [52, 8, 16, 32];
  const shown = series.map((line) => {
    const pairs = Array.from(line.x, (x, i) => [x, line.y[i]]);
    return pairs.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y) && !(xlog && x <= 0) && !(ylog && y <= 0));
  });
  const extent = (values, log, given) => {
    let [low, high] = given ?? values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    if (!Number.isFinite(low)) [low, high] = [1, 10];
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    return log ? [Math.log10(low), Math.log10(high)] : [low, high];
  };
  const all = shown.flat(), markX = marks.map((mark) => mark.x);
  const [x0, x1] = extent(all.map((p) => p[0]).concat(all.length ? markX : []), xlog, options.xrange);
  const [y0, y1] = extent(all.map((p) => p[1]), ylog, options.yrange);
  const px = (x) => left + ((xlog ? Math.log10(x) : x) - x0) / (x1 - x0) * (width - left - right);
  const py = (y) => height - bottom - ((ylog ? Math.log10(y) : y) - y0) / (y1 - y0) * (height - top - bottom);
  context.clearRect(0, 0, width, height);
  context.font = "11px sans-serif";
  context.strokeStyle = colours.rule; context.fillStyle = colours.faint; context.lineWidth = 1;
  context.strokeRect(left + 0.5, top + 0.5, width - left - right, height - top - bottom);
  const ticks = (low, high, log) => log
    ? Array.from({ length: Math.floor(high + 1e-9) - Math.ceil(low - 1e-9) + 1 }, (_, i) => 10 ** (Math.ceil(low - 1e-9) + i))
    : [low, (low + high) / 2, high];
  context.textAlign = "center";
  const across = ticks(x0, x1, xlog);
  across.forEach((x, i) => {
    if (across.length >= 7 && i % 2) return;
    context.textAlign = px(x) > width - 20 ? "right" : "center";  // or its end would be cut off
    context.fillText(short(x), Math.min(px(x), width - 1), height - bottom + 12);
  });
  context.textAlign = "center";
  context.fillText(xlabel, left + (width - left - right) / 2, height - 4);
  context.textAlign = "right";
  const up = ticks(y0, y1, ylog);
  up.forEach((y, i) => { if (up.length < 6 || i % 2 === 0) context.fillText(short(y), left - 4, py(y) + 4); });
  context.textAlign = "left"; context.fillText(ylabel, 2, 10);
  for (const mark of marks) {
    if ((xlog && mark.x <= 0) || px(mark.x) > width - right + 1 || px(mark.x) < left) continue;
    context.setLineDash([3, 3]); context.beginPath(); context.moveTo(px(mark.x), top); context.lineTo(px(mark.x), height - bottom);
    context.stroke(); context.setLineDash([]);
    const end = px(mark.x) > width / 2;
    context.textAlign = end ? "right" : "left"; context.fillText(mark.label, px(mark.x) + (end ? -3 : 3), top + 10);
  }
  shown.forEach((pairs, number) => {
    const line = series[number];
    context.strokeStyle = line.color ?? LINES[number % LINES.length]; context.lineWidth = 1.8;
    context.setLineDash(line.dash ?? DASHES[number % DASHES.length]);
    context.beginPath();
    pairs.forEach(([x, y], i) => { i ? context.lineTo(px(x), py(y)) : context.moveTo(px(x), py(y)); });
    context.stroke(); context.setLineDash([]);
    if (pairs.length === 1) context.fillRect(px(pairs[0][0]) - 2, py(pairs[0][1]) - 2, 4, 4);
  });
  canvas.dataset.points = all.length;
}

// A legend beside a plot, in text: not by colour alone.
function legend(names, colours = LINES) {
  return node("div", { class: "bar caption legend" }, ...names.map((name, number) => {
    const sample = node("canvas", { "aria-hidden": "true", style: "display:inline-block;vertical-align:middle;margin-right:4px" });
    const context = sized(sample, 24, 8);
    context.strokeStyle = colours[number % colours.length]; context.lineWidth = 2;
    context.setLineDash(DASHES[number % DASHES.length]);
    context.beginPath(); context.moveTo(0, 4); context.lineTo(24, 4); context.stroke();
    return node("span", {}, sample, name);
  }));
}
