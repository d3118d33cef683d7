// Shared by all widgets: bytes, elements, colours, pictures. anywidget loads one module: files are joined.

// Bytes may arrive unaligned in a larger buffer: they are copied before they are read as numbers.
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

// Set traits and tell Python.
function save(model, changes) {
  for (const [name, value] of Object.entries(changes)) model.set(name, value);
  model.save_changes();
}

// Whether a key or a button of the mouse is meant for a widget: with ctrl, alt or meta a key is the browser's or JupyterLab's,
// and so is every button but the first.
const plain = (event) => !(event.ctrlKey || event.altKey || event.metaKey || event.button);

// Keep an event from the notebook and the browser, which have their own use for it.
function keepEvent(event) { event.preventDefault(); event.stopPropagation(); }

// Listen to a model; returns a function that stops listening.
function listen(model, handlers) {
  for (const [event, act] of Object.entries(handlers)) model.on(event, act);
  return () => { for (const [event, act] of Object.entries(handlers)) model.off(event, act); };
}

// Draw anew when the page changes between light and dark, for canvases do not follow the style sheet: JupyterLab and VS Code
// say so at the body, others at the whole document. And draw anew once the widget stands on the page, for its colours are not
// known before. Returns a function that stops it.
function onTheme(box, redraw) {
  const themes = new MutationObserver(redraw);
  for (const element of [document.documentElement, document.body]) {
    themes.observe(element, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-jp-theme-name", "data-vscode-theme-kind"] });
  }
  const placed = new ResizeObserver(() => { if (box.offsetWidth) { placed.disconnect(); redraw(); } });
  placed.observe(box);
  return () => { themes.disconnect(); placed.disconnect(); };
}

// Act when a box on the page has another width. Returns a function that stops it.
function onWidth(box, act) {
  let width = 0;
  const sizes = new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== width) { width = box.clientWidth; act(); } });
  sizes.observe(box);
  return () => sizes.disconnect();
}

// Change the children of an element whose buttons are pressed; the focus stays with the button at the same place.
function replaceButtons(element, ...children) {
  const place = [...element.querySelectorAll("button")].indexOf(element.querySelector("button:focus"));
  element.replaceChildren(...children);
  if (place >= 0) element.querySelectorAll("button")[place]?.focus({ preventScroll: true });
}

// The entries of a selection of one level of several.
const levelOptions = (sizes, chosen) => sizes.map((size, number) => node("option", { value: number, selected: number === chosen }, `level ${number}: ${count(size)} codes`));

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

// Draw all colours in a row over a canvas of a size in CSS pixels.
function drawColours(canvas, width, height) {
  const context = sized(canvas, width, height);
  for (let x = 0; x < width; x++) { context.fillStyle = `rgb(${heat(x / (width - 1))})`; context.fillRect(x, 0, 1, height); }
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

// Draw a square [bitmap, x, y, side] of a picture, or nothing, over a square canvas of so many CSS pixels.
function drawSquare(canvas, found, side) {
  const context = sized(canvas, side, side);
  context.imageSmoothingEnabled = false;
  if (found) context.drawImage(found[0], found[1], found[2], found[3], found[3], 0, 0, side, side);
}

// Add a cross to the path of a canvas.
function traceCross(context, x, y, arm) {
  context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm);
  context.moveTo(x + arm, y - arm); context.lineTo(x - arm, y + arm);
}
// Stroke a path over a wider white one, so that it is seen on any ground.
function strokeTwice(context, colour, thick, trace, ground = thick + 2) {
  for (const [ink, width] of [["#fff", ground], [colour, thick]]) {
    context.strokeStyle = ink; context.lineWidth = width;
    context.beginPath(); trace(); context.stroke();
  }
}

// A number of an axis: 0.0001, 0.5, 20, 3k, 10k, 2M.
const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 3 });
const short = (value) => value === 0 ? "0" : Math.abs(value) < 1e-5 ? value.toExponential(0)
  : Math.abs(value) < 1000 ? String(+value.toPrecision(3)) : COMPACT.format(value).replace("K", "k");
