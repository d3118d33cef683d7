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

// Draw anew when the page changes between light and dark, for canvases do not follow the style sheet: JupyterLab and VS Code
// say so at the body, others at the whole document. And draw anew once the widget stands on the page, for its colours are not
// known before. Returns what stops it.
function onTheme(box, redraw) {
  const themes = new MutationObserver(redraw);
  for (const element of [document.documentElement, document.body]) {
    themes.observe(element, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"] });
  }
  const placed = new ResizeObserver(() => { if (box.offsetWidth) { placed.disconnect(); redraw(); } });
  placed.observe(box);
  return () => { themes.disconnect(); placed.disconnect(); };
}

const theme = (element) => {
  const style = getComputedStyle(element.closest(".vistok") ?? element);
  const colour = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
  return { ink: colour("--ink", "#222"), faint: colour("--faint", "#666"), paper: colour("--paper", "#fff"),
    rule: colour("--rule", "#bbb"), accent: colour("--accent", "#1976d2") };
};

// Okabe and Ito's hues, told apart by colour-blind readers too, and darkened where they would be faint on white (contrast
// below 3:1). Lines also differ in their dashes: lengths of stroke and gap in CSS pixels.
const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b87f00", "#1f8fd0", "#767676", "#8f8400"];
const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 4], [1, 3], [8, 2, 2, 2, 2, 2]];

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

// Size a canvas in CSS pixels, sharp on every screen, and return its context. On a narrow page it is shown smaller, and keeps
// its proportions.
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  Object.assign(canvas.style, { width: `${width}px`, height: "auto", aspectRatio: `${width} / ${height}` });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// A number of an axis: 0.0001, 0.5, 20, 3k, 10k, 2M.
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const short = (value) => value === 0 ? "0" : Math.abs(value) < 1e-5 ? value.toExponential(0)
  : Math.abs(value) < 1000 ? String(+value.toPrecision(3)) : COMPACT.format(value).replace("K", "k");

// The round numbers between the ends of an axis, at least two. On a log axis, whose ends are exponents, the powers of ten; where
// these are fewer, 2 and 5 times them as well; where this is not enough either, those of a linear axis.
function ticks(low, high, log) {
  const within = (numbers, place) => numbers.filter((number) => place(number) >= low - 1e-9 && place(number) <= high + 1e-9);
  if (!log) {
    const rough = (high - low) / 5, unit = 10 ** Math.floor(Math.log10(rough)), step = unit * [1, 2, 5, 10].find((times) => times * unit >= 0.999 * rough);
    const first = Math.ceil(low / step - 1e-9);
    return within(Array.from({ length: 7 }, (_, i) => +((first + i) * step).toPrecision(12)), (number) => number);
  }
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => 10 ** (Math.floor(low) + i));
  for (const times of [[1], [1, 2, 5]]) {
    const found = within(powers.flatMap((power) => times.map((factor) => factor * power)), Math.log10);
    if (found.length > 1) return found.length < 7 ? found : found.filter((_, i) => i % 2 === 0);
  }
  return ticks(10 ** low, 10 ** high);
}

// Draw lines. series: [{name, x, y, color, dash, width}]; options: width, height, xlog, ylog, xlabel, ylabel, xrange, yrange,
// marks: [{x, label}], vertical lines. What has no place on an axis is left out, and the line is broken there.
function linePlot(canvas, series, options = {}) {
  const { width = 300, height = 150, xlog, ylog, xlabel = "", ylabel = "", marks = [] } = options;
  const context = sized(canvas, width, height), colours = theme(canvas);
  const [left, right, top, bottom] = [52, 8, 20, 32];
  const shown = series.map((line) => Array.from(line.x, (x, i) => {
    const point = [xlog ? Math.log10(x) : x, ylog ? Math.log10(line.y[i]) : line.y[i]];
    return point.every(Number.isFinite) ? point : null;
  }));
  const all = shown.flat().filter(Boolean);
  const extent = (values, log, given, margin) => {
    let [low, high] = given?.map((end) => log ? Math.log10(end) : end) ?? values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
    if (!Number.isFinite(low)) [low, high] = log ? [0, 1] : [1, 10];
    if (low === high) [low, high] = [low - 0.3, high + 0.3];
    return given ? [low, high] : [low - margin * (high - low), high + margin * (high - low)];
  };
  const markX = marks.map((mark) => xlog ? Math.log10(mark.x) : mark.x);
  const [x0, x1] = extent(all.map((p) => p[0]).concat(all.length ? markX : []), xlog, options.xrange, 0);
  const [y0, y1] = extent(all.map((p) => p[1]), ylog, options.yrange, 0.04);  // a line at the very edge is hardly seen
  const px = (x) => left + (x - x0) / (x1 - x0) * (width - left - right), py = (y) => height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom);
  context.clearRect(0, 0, width, height);
  context.font = "11px sans-serif";
  context.strokeStyle = colours.rule; context.fillStyle = colours.faint; context.lineWidth = 1;
  context.strokeRect(left + 0.5, top + 0.5, width - left - right, height - top - bottom);
  const [across, up] = [ticks(x0, x1, xlog), ticks(y0, y1, ylog)];
  context.textAlign = "center";
  for (const x of across) {
    const half = context.measureText(short(x)).width / 2;  // the last one would be cut off at the edge
    context.fillText(short(x), Math.min(px(xlog ? Math.log10(x) : x), width - 1 - half), height - bottom + 12);
  }
  context.fillText(xlabel, left + (width - left - right) / 2, height - 4);
  context.textAlign = "right";
  for (const y of up) context.fillText(short(y), left - 4, py(ylog ? Math.log10(y) : y) + 4);
  context.textAlign = "left"; context.fillText(ylabel, 2, 10);
  const marked = markX.map((x) => px(x)).map((x) => x >= left && x <= width - right + 1 ? x : null);
  context.setLineDash([3, 3]);
  for (const x of marked) if (x !== null) { context.beginPath(); context.moveTo(x, top); context.lineTo(x, height - bottom); context.stroke(); }
  shown.forEach((points, number) => {
    const line = series[number];
    context.strokeStyle = context.fillStyle = line.color ?? LINES[number % LINES.length]; context.lineWidth = line.width ?? 1.8;
    context.setLineDash(line.dash ?? DASHES[number % DASHES.length]);
    context.beginPath();
    points.forEach((point, i) => {
      if (!point) return;
      const [x, y] = [px(point[0]), py(point[1])];
      if (points[i - 1]) context.lineTo(x, y); else context.moveTo(x, y);
      if (!points[i - 1] && !points[i + 1]) context.fillRect(x - 2, y - 2, 4, 4);  // alone: no line would show it
    });
    context.stroke();
  });
  context.setLineDash([]);
  context.strokeStyle = colours.paper; context.lineWidth = 4; context.fillStyle = colours.faint;
  marked.forEach((x, number) => {  // at the foot and over the lines, on a ground of its own
    if (x === null) return;
    const label = [marks[number].label, x + (x > width / 2 ? -4 : 4), height - bottom - 5];
    context.textAlign = x > width / 2 ? "right" : "left"; context.strokeText(...label); context.fillText(...label);
  });
  Object.assign(canvas.dataset, { points: all.length, across: across.map(short).join(" "), up: up.map(short).join(" ") });
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
