// Scatter: a canvas of codes as points, coloured by count on a log scale; dead ones are crosses. One drags a box to select,
// clicks to choose, zooms and moves; the keyboard does the same. Too many points to tell apart are drawn together in squares.
//
// options: width, height in CSS pixels; label, the accessible name; describe(code) and describeMany(codes, where), texts of the
// tip; picture(code), [bitmap, x, y, side] of its patch or null; onSelect(code), onBox(codes, box), onDraw().
// set({points, counts, axes, units, selected, marked, shown}): points Float32Array [2 K], NaN where there is none; counts
// Uint32Array; axes, two names; units, whether distances mean something; marked, Uint8Array [K] or null; shown "dots" or "patches".
class Scatter {
  constructor({ width = 470, height = 440, label, describe, describeMany, picture, onSelect, onBox, onDraw = () => {} }) {
    Object.assign(this, { width, height, describe, describeMany, picture, onSelect, onBox, onDraw });
    this.canvas = node("canvas", { role: "application", "aria-label": label, tabindex: 0, class: "scatter", style: "cursor:crosshair;touch-action:none" });
    this.patch = node("canvas", { "aria-hidden": "true", class: "patch" });
    this.words = node("span");
    this.tip = node("div", { class: "tip", style: "display:none;align-items:center;gap:8px" }, this.patch, this.words);
    this.status = node("p", { class: "hidden-text", "aria-live": "polite" });
    this.element = node("div", { style: "position:relative" }, this.canvas, this.tip, this.status);
    Object.assign(this, { points: new Float32Array(), counts: new Uint32Array(), axes: ["", ""], units: true, shown: "dots",
      selected: -1, marked: null, cursor: -1, anchor: -1, moving: false, box: null, paints: 0, view: { x: 0, y: 0, zoom: 1 } });
    this.#listen();
  }

  set(changes) {
    Object.assign(this, changes);
    this.layer = null;
    if ("marked" in changes) this.numMarked = this.marked ? this.marked.reduce((sum, value) => sum + value, 0) : 0;
    if ("points" in changes) this.#fit();
    if ("counts" in changes) {
      this.most = this.counts.reduce((most, value) => Math.max(most, value), 1);
      this.order = Uint32Array.from(this.counts.keys()).sort((a, b) => this.counts[a] - this.counts[b]);  // the most frequent on top
    }
    this.draw();
  }

  #fit() {
    const ends = [Infinity, Infinity, -Infinity, -Infinity];
    this.points.forEach((value, i) => {
      if (Number.isNaN(value)) return;
      ends[i % 2] = Math.min(ends[i % 2], value); ends[2 + i % 2] = Math.max(ends[2 + i % 2], value);
    });
    const [x0, y0, x1, y1] = ends.every(Number.isFinite) ? ends : [0, 0, 1, 1];
    this.middle = [(x0 + x1) / 2, (y0 + y1) / 2];
    const [left, right, top, bottom] = Scatter.MARGIN;
    this.inner = [this.width - left - right, this.height - top - bottom];
    this.fit = 0.94 * Math.min(this.inner[0] / (x1 - x0 || y1 - y0 || 1), this.inner[1] / (y1 - y0 || x1 - x0 || 1));
    this.extent = [x0, x1, y0, y1];
    this.cursor = this.anchor = -1;
    this.view = { x: this.middle[0], y: this.middle[1], zoom: 1 };
  }

  get scale() { return this.fit * this.view.zoom; }  // CSS pixels a unit
  get origin() {
    const [left, , top] = Scatter.MARGIN;
    return [left + this.inner[0] / 2 - this.view.x * this.scale, top + this.inner[1] / 2 + this.view.y * this.scale];
  }
  get radius() { return Math.min(9, (this.counts.length > 2000 ? 2.5 : 3.5) * Math.sqrt(this.view.zoom)); }
  get side() { return Math.min(48, 11 * Math.sqrt(this.view.zoom) * (this.counts.length > 1000 ? 0.7 : 1)); }  // of a patch
  within(x, y) {
    const [left, , top] = Scatter.MARGIN;
    return x >= left && x <= left + this.inner[0] && y >= top && y <= top + this.inner[1];
  }

  // The place of a code on the canvas, as it was drawn last.
  place(code) { return [this.at[2 * code], this.at[2 * code + 1]]; }

  // Where all codes lie now, and those in view, the least frequent first.
  #lay() {
    const [x0, y0] = this.origin, { scale, points } = this;
    this.at = Float64Array.from(points, (value, i) => i % 2 ? y0 - value * scale : x0 + value * scale);
    this.seen = this.order.filter((code) => this.within(this.at[2 * code], this.at[2 * code + 1]));
    this.together = this.seen.length > Scatter.SINGLE;
  }

  colour(share) { return `rgb(${heat(share)})`; }
  share(value) { return this.most > 1 ? Math.log(value) / Math.log(this.most) : 1; }

  // Points and axes are drawn once a view, and what moves with the pointer over them.
  draw() {
    const context = sized(this.canvas, this.width, this.height), colours = theme(this.canvas), [left, , top] = Scatter.MARGIN;
    if (!this.points.length || !this.order) return;
    const drawn = JSON.stringify([this.view, colours]);
    if (!this.layer || this.layer.dataset.drawn !== drawn) this.#paint(colours, drawn);
    context.drawImage(this.layer, 0, 0, this.width, this.height);
    context.save();
    context.beginPath(); context.rect(left, top, ...this.inner); context.clip();
    const ring = (code, colour, thick) => {
      if (code < 0 || code >= this.counts.length || Number.isNaN(this.points[2 * code])) return;
      const [x, y] = this.place(code), radius = Math.max(this.radius, this.shown === "patches" ? this.side * 0.7 : 0) + 3;
      strokeTwice(context, colour, thick, () => context.arc(x, y, radius, 0, 7));
    };
    ring(this.cursor, "#000", 1);
    ring(this.selected, "#d55e00", 2);
    if (this.box) {
      const [x0, y0, x1, y1] = this.box;
      context.fillStyle = colours.accent; context.globalAlpha = 0.12; context.fillRect(x0, y0, x1 - x0, y1 - y0); context.globalAlpha = 1;
      context.strokeStyle = colours.accent; context.lineWidth = 1; context.setLineDash([4, 3]); context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.restore();
    Object.assign(this.canvas.dataset, { paints: ++this.paints, seen: this.seen.length, drawn: this.together ? "squares" : this.shown, selected: this.selected,
      zoom: this.view.zoom, marked: this.numMarked ?? 0, origin: this.origin.join(" "), scale: this.scale });
    this.onDraw();
  }

  #paint(colours, drawn) {
    this.layer = document.createElement("canvas");
    const context = sized(this.layer, this.width, this.height), [left, , top] = Scatter.MARGIN;
    context.fillStyle = colours.paper; context.fillRect(0, 0, this.width, this.height);
    this.#axes(context, colours);
    this.#lay();
    context.beginPath(); context.rect(left, top, ...this.inner); context.clip();
    if (this.together) this.#squares(context);
    else if (this.shown === "patches" && this.seen.length <= Scatter.PATCHES) this.#patches(context);
    else this.#dots(context);
    this.layer.dataset.drawn = drawn;
  }

  #axes(context, colours) {
    const [left, , top, bottom] = Scatter.MARGIN, [width, height] = this.inner, [x0, y0] = this.origin;
    context.strokeStyle = colours.rule; context.lineWidth = 1; context.strokeRect(left + 0.5, top + 0.5, width, height);
    context.fillStyle = colours.faint; context.font = "11px sans-serif"; context.textAlign = "center";
    context.fillText(this.axes[0], left + width / 2, this.height - 5);
    context.save(); context.translate(11, top + height / 2); context.rotate(-Math.PI / 2); context.fillText(this.axes[1], 0, 0); context.restore();
    if (!this.units) return;
    const ends = (side, from) => [-(from - side[0]) / this.scale, (side[1] - from) / this.scale];
    for (const value of ticks(...ends([left, left + width], x0))) context.fillText(short(value), x0 + value * this.scale, top + height + 13);
    context.textAlign = "right";
    const [low, high] = ends([top, top + height], y0);
    for (const value of ticks(-high, -low)) context.fillText(short(value), left - 4, y0 - value * this.scale + 4);
  }

  // Where codes are selected, the others step back.
  #fade(context, code) { context.globalAlpha = this.marked && !this.marked[code] ? 0.13 : 1; }

  #dots(context) {
    const radius = this.radius, arm = radius * 0.8;
    for (const code of this.seen) {
      const [x, y] = this.place(code);
      this.#fade(context, code);
      if (!this.counts[code]) {
        context.strokeStyle = CellMap.CROSS; context.lineWidth = 1.3; context.beginPath();
        traceCross(context, x, y, arm);
        context.stroke();
        continue;
      }
      context.fillStyle = this.colour(this.share(this.counts[code]));
      context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill();
      context.strokeStyle = "rgba(128,128,128,.8)"; context.lineWidth = 0.6; context.stroke();
    }
    context.globalAlpha = 1;
  }

  #patches(context) {
    context.imageSmoothingEnabled = false;
    for (const code of this.seen) {
      const [x, y] = this.place(code), side = this.side, found = this.picture(code);
      this.#fade(context, code);
      if (found) context.drawImage(found[0], found[1], found[2], found[3], found[3], x - side / 2, y - side / 2, side, side);
      else { context.strokeStyle = "rgba(128,128,128,.8)"; context.strokeRect(x - side / 2, y - side / 2, side, side); }
      if (!this.counts[code]) { context.strokeStyle = CellMap.CROSS; context.lineWidth = 1.3; context.strokeRect(x - side / 2, y - side / 2, side, side); }
    }
    context.globalAlpha = 1;
  }

  // Squares of a few pixels, each of all codes there: the more tokens these have, the brighter; grey: all are dead.
  #squares(context) {
    const side = Scatter.SQUARE, across = Math.ceil(this.width / side), cells = across * Math.ceil(this.height / side);
    const tokens = new Float64Array(cells), codes = new Uint32Array(cells), selected = new Uint32Array(cells);
    for (const code of this.seen) {
      const cell = this.#square(...this.place(code));
      tokens[cell] += this.counts[code]; codes[cell]++; selected[cell] += this.marked?.[code] ?? 0;
    }
    const most = Math.log(Math.max(2, tokens.reduce((a, b) => Math.max(a, b), 1)));
    for (let cell = 0; cell < cells; cell++) {
      if (!codes[cell]) continue;
      context.globalAlpha = this.marked && !selected[cell] ? 0.2 : 1;
      context.fillStyle = tokens[cell] ? this.colour(Math.log(tokens[cell]) / most) : `rgb(${CellMap.DEAD})`;
      context.fillRect(cell % across * side, Math.floor(cell / across) * side, side, side);
    }
    context.globalAlpha = 1;
  }
  #square(x, y) { return Math.floor(y / Scatter.SQUARE) * Math.ceil(this.width / Scatter.SQUARE) + Math.floor(x / Scatter.SQUARE); }

  // How codes are drawn, for a caption.
  reading() {
    if (this.together) return `each square stands for all codes there, brighter with more tokens of theirs, grey: all never chosen; zoom in until ${count(Scatter.SINGLE)} codes are in view`;
    if (this.shown === "patches" && this.seen?.length > Scatter.PATCHES) return `patches are drawn where at most ${count(Scatter.PATCHES)} codes are in view: zoom in`;
    return this.shown === "patches" ? "each code decoded alone; framed: never chosen" : `1 token to ${count(this.most)}, on a log scale; crosses: never chosen`;
  }

  // The point of the canvas under the pointer; on a narrow page it is shown smaller than it is drawn.
  point({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [(clientX - box.left) * this.width / box.width, (clientY - box.top) * this.height / box.height];
  }

  // The code nearest to a point of the canvas, or -1 where none is near.
  near(x, y) {
    let best = -1, least = (this.shown === "patches" ? Math.max(12, this.side) : 12) ** 2;
    for (const code of this.seen ?? []) {
      const [px, py] = this.place(code), distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= least) [best, least] = [code, distance];
    }
    return best;
  }

  // The codes that are drawn where this one is.
  beside(code) {
    const [x, y] = this.place(code);
    if (this.together) { const cell = this.#square(x, y); return this.seen.filter((other) => this.#square(...this.place(other)) === cell); }
    return this.seen.filter((other) => { const [px, py] = this.place(other); return (px - x) ** 2 + (py - y) ** 2 <= 9; });
  }

  hover(code, speak) {
    this.cursor = code;
    this.tip.style.display = code < 0 ? "none" : "flex";
    if (code >= 0) {
      const [x, y] = this.place(code), shown = this.canvas.clientWidth / this.width;
      this.tell(code, speak);
      Object.assign(this.tip.style, { left: "0", top: `${(y + 12) * shown}px` });  // at the left it takes its full width
      this.tip.style.left = `${Math.max(0, Math.min((x + 12) * shown, this.canvas.clientWidth - this.tip.offsetWidth))}px`;
    }
    this.draw();
  }

  // The tip: words, and the patch as soon as it is there.
  tell(code, speak) {
    const here = this.beside(code), together = this.together && here.length > 1, text = together ? this.describeMany(here) : this.describe(code, here.length - 1);
    this.words.textContent = text;
    if (speak) this.status.textContent = text;
    const found = together ? null : this.picture(code, true);
    this.patch.hidden = !found;
    Object.assign(this.patch.dataset, { code: found ? code : -1 });
    if (!found) return;
    drawSquare(this.patch, found, 48);
  }

  choose(code) { if (code >= 0) this.onSelect(code); }

  zoom(factor, [x, y] = [this.width / 2, this.height / 2]) {
    const [x0, y0] = this.origin, at = [(x - x0) / this.scale, (y0 - y) / this.scale], before = this.scale;
    this.view.zoom = Math.min(Math.max(this.view.zoom * factor, 1), 4096);
    const keep = before / this.scale;
    this.view.x = at[0] + (this.view.x - at[0]) * keep; this.view.y = at[1] + (this.view.y - at[1]) * keep;
    this.#stay(); this.draw();
  }
  reset() { this.view = { x: this.middle[0], y: this.middle[1], zoom: 1 }; this.draw(); }
  #stay() {
    const [x0, x1, y0, y1] = this.extent;
    if (this.view.zoom === 1) [this.view.x, this.view.y] = this.middle;
    this.view.x = Math.max(x0, Math.min(x1, this.view.x)); this.view.y = Math.max(y0, Math.min(y1, this.view.y));
  }

  // Bring a code into view.
  show(code) {
    if (Number.isNaN(this.points[2 * code]) || this.within(...this.place(code))) return;
    [this.view.x, this.view.y] = [this.points[2 * code], this.points[2 * code + 1]];
    this.draw();
  }

  // Select what lies in a box of the canvas, [x0, y0, x1, y1].
  #select([x0, y0, x1, y1]) {
    const [ox, oy] = this.origin, [left, right] = [x0, x1].sort((a, b) => a - b), [top, bottom] = [y0, y1].sort((a, b) => a - b);
    const box = { left: (left - ox) / this.scale, right: (right - ox) / this.scale, low: (oy - bottom) / this.scale, high: (oy - top) / this.scale };
    const inside = this.order.filter((code) => this.points[2 * code] >= box.left && this.points[2 * code] <= box.right
      && this.points[2 * code + 1] >= box.low && this.points[2 * code + 1] <= box.high);
    this.onBox(inside, box);
  }

  // The box from code to code, both within.
  #around(one, other) {
    const [x0, y0] = this.place(one), [x1, y1] = this.place(other);
    return [Math.min(x0, x1) - 0.5, Math.min(y0, y1) - 0.5, Math.max(x0, x1) + 0.5, Math.max(y0, y1) + 0.5];
  }

  // The next code in a direction: the nearest of those that lie more this way than sideways.
  next(from, [dx, dy]) {
    const [x, y] = this.place(from);
    let best = from, least = Infinity;
    for (const code of this.order) {
      const [px, py] = this.place(code), along = (px - x) * dx + (py - y) * dy, aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0.5 && aside <= along && along + 2 * aside < least) [best, least] = [code, along + 2 * aside];
    }
    return best;
  }

  #listen() {
    const { canvas } = this;
    let dragged = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 1) return;
      canvas.setPointerCapture(event.pointerId);
      const [x, y] = this.point(event);
      dragged = { x, y, from: [x, y], moves: this.moving || event.shiftKey || event.button === 1, far: false };
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = this.point(event);
      if (!dragged) { this.hover(this.near(x, y)); return; }
      dragged.far ||= Math.hypot(x - dragged.from[0], y - dragged.from[1]) > 3;
      if (!dragged.far) return;
      if (this.cursor >= 0) this.hover(-1);
      if (dragged.moves) { this.view.x -= (x - dragged.x) / this.scale; this.view.y += (y - dragged.y) / this.scale; this.#stay(); }
      else this.box = [...dragged.from, x, y];
      Object.assign(dragged, { x, y });
      this.draw();
    });
    const up = (event) => {
      if (!dragged) return;
      const { far, moves, from } = dragged, box = this.box;
      dragged = this.box = null;
      if (event.type === "pointercancel") this.draw();
      else if (far && !moves) this.#select(box);
      else if (!far) {
        const code = this.near(...from);
        if (code >= 0) this.choose(code); else this.onBox(new Uint32Array(), null);
      }
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => { if (!dragged) this.hover(-1); });
    canvas.addEventListener("blur", () => this.hover(-1));
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return;  // the page scrolls past a plot that is not in use
      const factor = Math.min(Math.max(Math.exp(-0.002 * event.deltaY), 0.8), 1.25), before = this.view.zoom;
      this.zoom(factor, this.point(event));
      if (this.view.zoom !== before) event.preventDefault();
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      if (!plain(event)) return;
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) {
        const from = this.cursor >= 0 ? this.cursor : this.selected >= 0 ? this.selected : this.order.at(-1);
        if (!event.shiftKey) this.anchor = -1; else if (this.anchor < 0) this.anchor = from;
        const to = this.next(from, step);
        this.show(to); this.hover(to, true);
        if (event.shiftKey) this.#select(this.#around(this.anchor, to));
      } else if (event.key === "Enter" && !event.shiftKey || event.key === " ") this.choose(this.cursor);
      else if (event.key === "Escape") this.onBox(new Uint32Array(), null);
      else if (event.key === "+" || event.key === "=") this.zoom(2);
      else if (event.key === "-") this.zoom(0.5);
      else if (event.key === "0") this.reset();
      else return;
      keepEvent(event);
    });
  }
}
Scatter.MARGIN = [52, 8, 8, 36];  // left, right, top, bottom
Scatter.SINGLE = 5000;
Scatter.PATCHES = 1024;
Scatter.SQUARE = 4;
