// Shared by all widgets: bytes, elements, colours, pictures. anywidget loads one module: files are joined.

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
