// Lines over an axis: drawn, smoothed, thinned to what a screen shows, and read point by point with pointer or keyboard.

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

// A number as one reads it at a point: four digits.
const precise = (value) => !Number.isFinite(value) ? "–" : Number.isInteger(value) || Math.abs(value) >= 1e4 ? count(Math.round(value))
  : Math.abs(value) < 1e-4 ? value.toExponential(2) : value.toPrecision(4);

// Draw at the next frame, once, however often it is asked for.
function later(draw) {
  let asked = 0;
  return () => { asked ||= requestAnimationFrame(() => { asked = 0; draw(); }); };
}

// The exponential moving average as TensorBoard draws it: divided by the weight that the values so far have, so that it does not
// begin at 0. What is no number stays, and counts for nothing.
function smoothed(values, weight) {
  let mean = 0, seen = 0;
  return Float64Array.from(values, (value) => {
    if (!Number.isFinite(value)) return value;
    mean = weight * mean + (1 - weight) * value;
    return mean / (1 - weight ** ++seen);
  });
}

// A line smoothed; its values as they were lie faint behind it.
const smooth = (line, weight) => weight > 0 ? { ...line, y: smoothed(line.y, weight), raw: line.y } : line;

// Points in pixels, null where the line is broken; of more than `most`, of every column of pixels the first, lowest, highest and
// last stay: drawn, it is the same picture.
function thinned(points, most) {
  if (points.length <= most) return points;
  const kept = [];
  for (let from = 0, to; from < points.length; from = to) {
    to = from + 1;
    if (!points[from]) { if (kept.length && kept.at(-1)) kept.push(null); continue; }
    const column = Math.floor(points[from][0]);
    let [low, high] = [from, from];
    for (; to < points.length && points[to] && Math.floor(points[to][0]) === column; to++) {
      if (points[to][1] < points[low][1]) low = to;
      if (points[to][1] > points[high][1]) high = to;
    }
    for (const place of new Set([from, Math.min(low, high), Math.max(low, high), to - 1])) kept.push(points[place]);
  }
  return kept;
}

// The place of the number nearest to `value` in numbers that rise.
function nearestPlace(numbers, value) {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) { const middle = (low + high) >> 1; if (numbers[middle] < value) low = middle + 1; else high = middle; }
  return low > 0 && value - numbers[low - 1] <= numbers[low] - value ? low - 1 : low;
}

// Find lines that are the same all along, in groups of their numbers: of two that lie on each other one sees one.
function same(series) {
  const equal = (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b)) || Math.abs(a - b) <= 1e-6 * Math.abs(a);
  const alike = (a, b) => a.y && b.y && a.y.length > 0 && a.y.length === b.y.length
    && a.y.every((value, i) => equal(value, b.y[i]) && a.x[i] === b.x[i]);
  const groups = [];
  series.forEach((line, number) => {
    const found = groups.find(([first]) => alike(series[first], line));
    if (found) found.push(number); else groups.push([number]);
  });
  return groups;
}

// How each line is drawn. Of more lines than colours the next ones have other dashes. Lines that are the same take turns, a dash each.
function lineStyles(series) {
  const styles = series.map((line, number) => ({ color: line.color ?? LINES[number % LINES.length], width: line.width ?? 1.8,
    dash: line.dash ?? DASHES[(number + Math.floor(number / LINES.length)) % DASHES.length], offset: 0 }));
  for (const group of same(series).filter((one) => one.length > 1)) {
    group.forEach((number, turn) => Object.assign(styles[number], { dash: [6, 6 * (group.length - 1)], offset: -6 * turn }));
  }
  return styles;
}

function stroke(context, style, trace) {
  context.strokeStyle = context.fillStyle = style.color; context.lineWidth = style.width;
  context.setLineDash(style.dash); context.lineDashOffset = style.offset;
  context.beginPath(); trace(context); context.stroke();
  context.setLineDash([]); context.lineDashOffset = 0;
}

const PLOTS = new WeakMap();  // canvas to its lines, where they lie, and the point that is read

// Draw lines. series: [{name, x, y, raw, color, dash, width}], x rising, raw faint behind; options: width, height, xlog, ylog,
// xlabel, ylabel, xrange, yrange, marks: [{x, label}], vertical lines. What has no place on an axis is left out, and the line is
// broken there. Pointer and arrow keys read the values of all lines at one x.
function linePlot(canvas, series, options = {}) {
  if (!PLOTS.has(canvas)) { PLOTS.set(canvas, { at: null }); listenToReader(canvas); }
  const plot = PLOTS.get(canvas);
  Object.assign(plot, { series, options, stops: null }, layOut(series, options));
  canvas.tabIndex = plot.points ? 0 : -1;
  if (plot.points) canvas.setAttribute("role", "slider"); else canvas.setAttribute("role", "img");
  drawPlot(canvas);
  read(canvas, plot.points ? plot.at : null);
}

// Where everything lies, in CSS pixels.
function layOut(series, options) {
  const { width = 300, height = 150, xlog, ylog, marks = [] } = options;
  const [left, right, top, bottom] = [52, 8, 20, 32];
  const place = (x, y) => {
    const point = [xlog ? Math.log10(x) : x, ylog ? Math.log10(y) : y];
    return point.every(Number.isFinite) ? point : null;
  };
  const traced = series.map((line) => [line.y, line.raw ?? []].map((values) => Array.from(values, (y, i) => place(line.x[i], y))));
  const shown = traced.map(([line]) => line), all = shown.flat().filter(Boolean);
  const extent = (points, axis, log, given, margin, more = []) => {
    let [low, high] = given?.map((end) => log ? Math.log10(end) : end) ?? [Infinity, -Infinity];
    if (!given) {
      for (const point of points) { low = Math.min(low, point[axis]); high = Math.max(high, point[axis]); }
      for (const value of more) { low = Math.min(low, value); high = Math.max(high, value); }
    }
    if (!Number.isFinite(low)) [low, high] = log ? [0, 1] : [1, 10];
    if (low === high) [low, high] = [low - 0.3, high + 0.3];
    return given ? [low, high] : [low - margin * (high - low), high + margin * (high - low)];
  };
  const markX = marks.map((mark) => xlog ? Math.log10(mark.x) : mark.x);
  const [x0, x1] = extent(all, 0, xlog, options.xrange, 0, all.length ? markX : []);
  const [y0, y1] = extent(traced.flat(2).filter(Boolean), 1, ylog, options.yrange, 0.04);  // a line at the very edge is hardly seen
  const px = (x) => left + (x - x0) / (x1 - x0) * (width - left - right), py = (y) => height - bottom - (y - y0) / (y1 - y0) * (height - top - bottom);
  const lines = traced.map((parts) => parts.map((points) => points.map((point) => point && [px(point[0]), py(point[1])])));
  const styles = lineStyles(series), turns = same(series);
  lines.forEach(([line], number) => {  // a line that later ones cover is drawn wider: both are seen
    const twins = turns.find((group) => group.includes(number));
    const over = lines.slice(number + 1).filter(([other], i) => !twins.includes(number + 1 + i) && covers(other, line));
    if (over.length) styles[number].width += 2;
  });
  const unlog = (value) => xlog ? 10 ** value : value;
  return { width, height, box: [left, right, top, bottom], range: [x0, x1, y0, y1], px, py, markX, styles, points: all.length,
    lines: lines.map((parts) => parts.map((points) => thinned(points, 4 * width))),
    toPixel: (x) => px(xlog ? Math.log10(x) : x), toValue: (pixel) => unlog(x0 + (pixel - left) / (width - left - right) * (x1 - x0)) };
}

// Whether a line lies on another one, in most of its points.
function covers(over, under) {
  if (over.length !== under.length) return false;
  const near = under.filter((point, i) => point && over[i] && Math.abs(point[0] - over[i][0]) < 1 && Math.abs(point[1] - over[i][1]) < 1.5).length;
  return near > 0 && near >= under.filter(Boolean).length / 2;
}

function drawPlot(canvas) {
  const { options, width, height, box: [left, right, top, bottom], range: [x0, x1, y0, y1], px, py, markX, lines, styles, points } = PLOTS.get(canvas);
  const { xlog, ylog, xlabel = "", ylabel = "", marks = [] } = options;
  const context = sized(canvas, width, height), colours = theme(canvas);
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
  const vertical = (x) => { context.beginPath(); context.moveTo(x, top); context.lineTo(x, height - bottom); context.stroke(); };
  context.setLineDash([3, 3]);
  for (const x of marked) if (x !== null) vertical(x);
  context.setLineDash([]);
  const trace = (points) => (pen) => points.forEach((point, i) => {
    if (!point) return;
    if (points[i - 1]) pen.lineTo(...point); else pen.moveTo(...point);
    if (!points[i - 1] && !points[i + 1]) pen.fillRect(point[0] - 2, point[1] - 2, 4, 4);  // alone: no line would show it
  });
  context.save();  // values beyond a given range are not drawn over the axes' numbers
  context.beginPath(); context.rect(left, top - 2, width - left - right + 2, height - top - bottom + 4); context.clip();
  context.globalAlpha = 0.3;
  lines.forEach(([, raw], number) => stroke(context, { ...styles[number], width: 1, dash: [] }, trace(raw)));
  context.globalAlpha = 1;
  lines.forEach(([line], number) => stroke(context, styles[number], trace(line)));
  context.restore();
  context.strokeStyle = colours.paper; context.lineWidth = 4; context.fillStyle = colours.faint;
  marked.forEach((x, number) => {  // at the foot and over the lines, on a ground of its own
    if (x === null) return;
    const label = [marks[number].label, x + (x > width / 2 ? -4 : 4), height - bottom - 5];
    context.textAlign = x > width / 2 ? "right" : "left"; context.strokeText(...label); context.fillText(...label);
  });
  Object.assign(canvas.dataset, { points, across: across.map(short).join(" "), up: up.map(short).join(" ") });
}

// The x of all points, each once, rising.
function stopsOf(plot) {
  if (!plot.stops) {
    const [x0, x1] = plot.range.map((end) => plot.options.xlog ? 10 ** end : end), slack = 1e-6 * (x1 - x0);
    const within = plot.series.flatMap((line) => Array.from(line.x).filter((x, i) => x >= x0 - slack && x <= x1 + slack && Number.isFinite(line.y[i])));
    plot.stops = Float64Array.from(new Set(within)).sort();
  }
  return plot.stops;
}

// The value of each line at an x: its own nearest point, and where that is; nothing before its first and after its last one.
function valuesAt(series, x) {
  return series.map((line) => {
    if (!line.x.length || x < line.x[0] || x > line.x[line.x.length - 1]) return { value: NaN, x };
    const place = nearestPlace(line.x, x);
    return { value: line.y[place], raw: line.raw?.[place], x: line.x[place] };
  });
}

// Read the values at an x: a crosshair, a table beside it, and the same in words; null: none.
function read(canvas, at) {
  const plot = PLOTS.get(canvas);
  plot.at = at;
  if (at === null || !stopsOf(plot).length) {
    plot.readout?.remove();
    for (const name of ["aria-valuenow", "aria-valuetext", "aria-valuemin", "aria-valuemax"]) canvas.removeAttribute(name);
    if (plot.points) Object.entries({ "aria-valuenow": 0, "aria-valuetext": "arrow keys read the values" }).forEach((pair) => canvas.setAttribute(...pair));
    return;
  }
  const x = plot.stops[nearestPlace(plot.stops, at)], found = valuesAt(plot.series, x);
  const axis = plot.options.xlabel || "x", name = (line) => line.name ?? plot.options.ylabel ?? "";
  const readings = found.map(({ value, raw, x: own }) => `${precise(value)}${raw !== undefined && Number.isFinite(raw) ? ` (raw ${precise(raw)})` : ""}`
    + (own === x || !Number.isFinite(value) ? "" : ` at ${count(own)}`));
  const words = `${axis} ${count(x)}: ${plot.series.map((line, i) => `${name(line)} ${readings[i]}`.trim()).join(", ")}`;
  for (const [key, value] of Object.entries({ valuemin: plot.stops[0], valuemax: plot.stops.at(-1), valuenow: x, valuetext: words })) canvas.setAttribute(`aria-${key}`, value);
  const groups = same(plot.series);
  const readout = node("div", { class: "readout number", "aria-hidden": "true", data: { x } }, node("strong", {}, `${axis} ${count(x)}`),
    ...groups.flatMap((group) => [sample(group.map((i) => plot.styles[i])), node("span", {}, group.map((i) => name(plot.series[i])).join(" = ")), node("span", {}, readings[group[0]])]));
  crosshair(canvas, plot, x, found);
  plot.readout?.remove();
  plot.readout = readout;
  const frame = canvas.closest(".vistok");
  if (!frame) return;
  frame.append(readout);
  const [outer, inner] = [frame, canvas].map((element) => element.getBoundingClientRect()), scale = inner.width / plot.width || 1;
  const middle = inner.left - outer.left + plot.toPixel(x) * scale, wide = readout.offsetWidth;
  const left = plot.toPixel(x) > plot.width / 2 ? middle - wide - 12 : middle + 12;  // on the side where there is more room
  Object.assign(readout.style, { left: `${Math.max(0, Math.min(left, outer.width - wide - 2))}px`, top: `${inner.top - outer.top + plot.box[2] * scale + 4}px` });
}

function crosshair(canvas, plot, x, found) {
  drawPlot(canvas);
  const context = canvas.getContext("2d"), colours = theme(canvas), [, , top, bottom] = plot.box, at = plot.toPixel(x);
  context.strokeStyle = colours.ink; context.lineWidth = 1;
  context.beginPath(); context.moveTo(at, top); context.lineTo(at, plot.height - bottom); context.stroke();
  found.forEach(({ value, x: own }, i) => {
    const [cx, cy] = [plot.toPixel(own), plot.py(plot.options.ylog ? Math.log10(value) : value)];
    if (!Number.isFinite(cx) || !Number.isFinite(cy) || cy < top - 2 || cy > plot.height - bottom + 2) return;
    context.beginPath(); context.arc(cx, cy, 3.5, 0, 7);
    context.fillStyle = plot.styles[i].color; context.fill(); context.strokeStyle = colours.paper; context.stroke();
  });
}

function listenToReader(canvas) {
  const plot = PLOTS.get(canvas);
  const leave = () => { if (plot.at !== null) { read(canvas, null); drawPlot(canvas); } };
  const point = (event) => {
    if (!plot.points) return;
    const rect = canvas.getBoundingClientRect();
    read(canvas, plot.toValue((event.clientX - rect.left) / rect.width * plot.width));
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("keydown", (event) => {
    if (!plain(event) || !plot.points) return;
    if (event.key === "Escape") return leave();
    const stops = stopsOf(plot), last = stops.length - 1, here = plot.at === null ? last + 1 : nearestPlace(stops, plot.at);
    const to = { Home: 0, End: last, ArrowLeft: onwards(plot, here, -1), ArrowRight: onwards(plot, here, 1),
      PageUp: onwards(plot, here, -10), PageDown: onwards(plot, here, 10) }[event.key];
    if (to === undefined) return;
    keepEvent(event);
    read(canvas, stops[Math.min(last, Math.max(0, to))]);
  });
}

// The next point so many points on, at least a pixel away: of 100,000 points one could not walk through all.
function onwards(plot, here, by) {
  const stops = plot.stops, last = stops.length - 1, from = plot.toPixel(stops[Math.min(here, last)]);
  let to = here + by;
  while (to > 0 && to < last && here <= last && Math.abs(plot.toPixel(stops[to]) - from) < 1) to += Math.sign(by);
  return to;
}

// A piece of lines as they are drawn, those that are the same on one another.
function sample(styles, width = 24) {
  const canvas = node("canvas", { "aria-hidden": "true", class: "sample" }), context = sized(canvas, width, 8);
  for (const style of styles) stroke(context, { ...style, width: Math.max(2, style.width) }, (pen) => { pen.moveTo(0, 4); pen.lineTo(width, 4); });
  return canvas;
}

// A legend of lines, in text: not by colour alone. Lines that are the same stand together: "codebook = commitment".
function legendOf(series) {
  const styles = lineStyles(series).map((style) => ({ ...style, width: 2 }));
  return node("div", { class: "bar caption legend" }, ...same(series).map((group) =>
    node("span", {}, sample(group.map((number) => styles[number])), group.map((number) => series[number].name).join(" = "))));
}

// A legend of names alone.
const legend = (names, colours = LINES) => legendOf(names.map((name, number) => ({ name, color: colours[number % colours.length] })));

// Buttons of which one is pressed. Returns [element, show(name)].
function choice(label, names, choose, caption = label) {
  const buttons = names.map((name) => node("button", { onclick: () => choose(name) }, name));
  const show = (chosen) => buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(names[i] === chosen)));
  return [node("div", { class: "bar choice", role: "group", "aria-label": label }, caption, ...buttons), show];
}

// A slider of the smoothing's weight. Returns [element, show(weight)].
function smoothingSlider(choose) {
  const slider = node("input", { type: "range", min: 0, max: 0.99, step: 0.01, class: "smoothing", style: "width:90px", oninput: () => choose(slider.valueAsNumber) });
  const readings = node("span", { class: "number", style: "display:inline-block;width:2.2em" });
  const show = (weight) => { if (slider.valueAsNumber !== weight) slider.value = weight; readings.textContent = weight ? weight.toFixed(2) : "none"; };
  return [node("label", { class: "bar choice", title: "exponential moving average, as TensorBoard's" }, "smoothing", slider, readings), show];
}
