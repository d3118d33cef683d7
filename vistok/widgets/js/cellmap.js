// CellMap: a canvas of cells, one a code or a place of a grid, coloured by count on a log scale. From afar cells are drawn
// together in blocks; one zooms in until every cell is seen. Pointer and keyboard do the same things.
//
// options: width, height in CSS pixels; label, the accessible name; describe(item) and describeBlock(items), texts of the
// tip; onSelect(item); onDraw(), after each drawing; interactive: false for a picture only.
// set({values, order, columns, scale, tiles, tileSize, selected, marked}): values Float32Array or Uint32Array, one an item; order, the
// item of each cell, or null; scale "log" (zero is dead, and marked) or "linear"; tiles, a canvas of patches to draw instead
// of colours, tileSize pixels each, in the order of the items, tiles.width / tileSize a row; or null. Replaced tiles are closed. marked, Uint8Array, 1 for
// each item that is selected with others, or null: the rest steps back.
class CellMap {
  constructor({ width = 420, height = 420, label = "", describe = String, describeBlock, onSelect = () => {}, onDraw = () => {}, interactive = true }) {
    Object.assign(this, { width, height, describe, onSelect, onDraw });
    this.describeBlock = describeBlock ?? ((items) => `${count(items.length)} cells: zoom in to see each`);
    this.canvas = node("canvas", { role: interactive ? "application" : "img", "aria-label": label, tabindex: interactive ? 0 : null });
    this.tip = node("div", { class: "tip" });
    this.status = node("p", { class: "hidden-text", "aria-live": "polite" });
    this.element = node("div", { style: "position:relative" }, this.canvas, this.tip, this.status);
    this.values = new Uint32Array(); this.order = null; this.columns = 1; this.scale = "log"; this.tiles = null; this.marked = null;
    this.selected = -1; this.cursor = -1; this.paints = 0; this.view = { x: 0, y: 0, zoom: 1 };
    if (interactive) this.#listen();
  }

  get rows() { return Math.ceil(this.values.length / this.columns); }
  get fit() { return Math.min(this.width / this.columns, this.height / Math.max(1, this.rows)); }
  get cell() { return this.fit * this.view.zoom; }  // CSS pixels a cell
  get size() { return [Math.min(this.width, this.fit * this.columns), Math.min(this.height, this.fit * this.rows)]; }
  get crossed() { return this.cell >= 6 && this.scale === "log"; }
  item(cell) { return this.order ? this.order[cell] : cell; }

  set(changes) {
    const former = this.values.length;
    if ("tiles" in changes && changes.tiles !== this.tiles) this.tiles?.close?.();  // tens of megabytes
    Object.assign(this, changes);
    if (this.values.length !== former) { this.view = { x: 0, y: 0, zoom: 1 }; this.cursor = -1; }
    if ("values" in changes || "order" in changes || "columns" in changes || "scale" in changes) this.levels = null;
    if ("tiles" in changes || "order" in changes) this.atlas = null;
    if ("marked" in changes) this.numMarked = this.marked ? this.marked.reduce((sum, value) => sum + value, 0) : 0;
    if ("marked" in changes || "order" in changes || "columns" in changes) this.veil = null;
    if ("order" in changes || !this.cellOf) {
      this.cellOf = null;
      if (this.order) { this.cellOf = new Uint32Array(this.order.length); this.order.forEach((item, cell) => { this.cellOf[item] = cell; }); }
    }
    this.draw();
  }

  // Sums over blocks of 1, 2, 4, ... cells on a side: of shares of the scale, of cells alive, of all cells. Each as a small canvas
  // with a pixel a block: the mean colour of the living, and the greyer the more of the block are dead.
  #level(number) {
    if (!this.levels) {
      const { values, columns, rows } = this, log = this.scale === "log", cells = columns * rows;
      let most = 0, least = Infinity;
      for (const value of values) { if (value > most) most = value; if (value < least) least = value; }
      const [share, alive, all] = [0, 1, 2].map(() => new Float32Array(cells));
      for (let cell = 0; cell < values.length; cell++) {
        const value = values[this.item(cell)];
        all[cell] = 1;
        if (log && value <= 0) continue;
        alive[cell] = 1;
        share[cell] = log ? (most > 1 ? Math.log(value) / Math.log(most) : 1) : (value - least) / (most - least || 1);
      }
      this.levels = [{ share, alive, all, columns, rows }];
    }
    for (let n = this.levels.length; n <= number; n++) {
      const fine = this.levels[n - 1], columns = Math.ceil(fine.columns / 2), rows = Math.ceil(fine.rows / 2);
      const coarse = { columns, rows };
      for (const name of ["share", "alive", "all"]) {
        coarse[name] = new Float32Array(columns * rows);
        fine[name].forEach((value, place) => { coarse[name][(Math.floor(place / fine.columns) >> 1) * columns + (place % fine.columns >> 1)] += value; });
      }
      this.levels.push(coarse);
    }
    const level = this.levels[number];
    if (!level.canvas) {
      const picture = new ImageData(Math.max(1, level.columns), Math.max(1, level.rows));
      const table = Array.from({ length: 256 }, (_, i) => heat(i / 255));
      level.all.forEach((all, place) => {
        if (!all) return;
        const alive = level.alive[place], colour = alive ? table[Math.round(255 * Math.min(1, level.share[place] / alive))] : CellMap.DEAD;
        picture.data.set([...colour.map((value, c) => CellMap.DEAD[c] + alive / all * (value - CellMap.DEAD[c])), 255], 4 * place);
      });
      level.canvas = document.createElement("canvas");
      [level.canvas.width, level.canvas.height] = [picture.width, picture.height];
      level.canvas.getContext("2d").putImageData(picture, 0, 0);
    }
    return level.canvas;
  }

  // All patches in the order of the cells, made once an order; patches are made smaller where a canvas would be too large.
  #ordered() {
    if (!this.atlas) {
      const size = Math.max(1, Math.min(this.tileSize, Math.floor(4096 / Math.max(this.columns, this.rows)))), perRow = this.tiles.width / this.tileSize;
      const atlas = document.createElement("canvas");
      [atlas.width, atlas.height] = [this.columns * size, this.rows * size];
      const context = atlas.getContext("2d");
      for (let cell = 0; cell < this.values.length; cell++) {
        const item = this.item(cell), x = (item % perRow) * this.tileSize, y = Math.floor(item / perRow) * this.tileSize;
        context.drawImage(this.tiles, x, y, this.tileSize, this.tileSize, (cell % this.columns) * size, Math.floor(cell / this.columns) * size, size, size);
      }
      this.atlas = atlas;
    }
    return this.atlas;
  }

  // A cover over all cells but the marked ones, a pixel a cell.
  #veil(paper) {
    if (this.veil?.dataset.paper === paper) return this.veil;
    const veil = this.veil = document.createElement("canvas");
    veil.dataset.paper = paper;
    [veil.width, veil.height] = [this.columns, this.rows];
    const context = veil.getContext("2d");
    context.fillStyle = paper; context.globalAlpha = 0.8; context.fillRect(0, 0, veil.width, veil.height);
    this.marked.forEach((marked, item) => {
      if (!marked) return;
      const place = this.cellOf ? this.cellOf[item] : item;
      context.clearRect(place % this.columns, Math.floor(place / this.columns), 1, 1);
    });
    return veil;
  }

  draw() {
    const [width, height] = this.size, context = sized(this.canvas, width, height);
    const colours = theme(this.canvas), { cell, view, columns, rows } = this;
    context.imageSmoothingEnabled = false;
    context.fillStyle = colours.paper; context.fillRect(0, 0, width, height);
    const number = this.tiles ? 0 : this.block;
    const source = this.tiles ? this.#ordered() : this.#level(number), step = 2 ** number;
    const [wide, high] = this.tiles ? [columns, rows] : [source.width * step, source.height * step];
    context.imageSmoothingEnabled = Boolean(this.tiles) && cell < this.tileSize;
    context.drawImage(source, -view.x * cell, -view.y * cell, wide * cell, high * cell);
    const first = { x: Math.floor(view.x), y: Math.floor(view.y) };
    const last = { x: Math.min(columns, Math.ceil(view.x + width / cell)), y: Math.min(rows, Math.ceil(view.y + height / cell)) };
    const each = (act) => {
      for (let y = first.y; y < last.y; y++) for (let x = first.x; x < last.x; x++) {
        const place = y * columns + x;
        if (place < this.values.length) act(place, (x - view.x) * cell, (y - view.y) * cell);
      }
    };
    if (this.crossed) {  // a dead code is crossed out: not by colour alone
      context.strokeStyle = this.tiles ? "#d55e00" : CellMap.CROSS; context.lineWidth = 1; context.beginPath();
      each((place, x, y) => {
        if (this.values[this.item(place)] > 0) return;
        traceCross(context, x + cell / 2, y + cell / 2, cell / 4);
      });
      context.stroke();
    }
    if (cell >= 8 && !this.tiles) {
      context.strokeStyle = colours.paper; context.lineWidth = 1; context.beginPath();
      for (let x = first.x; x <= last.x; x++) { context.moveTo((x - view.x) * cell, 0); context.lineTo((x - view.x) * cell, height); }
      for (let y = first.y; y <= last.y; y++) { context.moveTo(0, (y - view.y) * cell); context.lineTo(width, (y - view.y) * cell); }
      context.stroke();
    }
    if (this.marked) context.drawImage(this.#veil(colours.paper), -view.x * cell, -view.y * cell, columns * cell, rows * cell);
    const outline = (place, colour, thick) => {
      if (place < 0) return;
      const x = (place % columns - view.x) * cell, y = (Math.floor(place / columns) - view.y) * cell, size = Math.max(cell, 5);
      strokeTwice(context, colour, thick, () => context.rect(x, y, size, size));
    };
    outline(this.cursor, "#000", 1);
    if (this.selected >= 0 && this.selected < this.values.length) outline(this.cellOf ? this.cellOf[this.selected] : this.selected, "#d55e00", 2);
    this.canvas.style.touchAction = view.zoom > 1 ? "none" : "";  // a finger moves the map where there is more of it, else the page
    Object.assign(this.canvas.dataset, { paints: ++this.paints, cells: this.values.length, columns, selected: this.selected, zoom: view.zoom, block: step, marked: this.numMarked ?? 0, drawn: this.tiles ? "tiles" : "colours" });
    this.onDraw();
  }

  // The level of blocks that is drawn: the finest whose blocks are at least 2 pixels.
  get block() { let number = 0; while (this.cell * 2 ** number < 1.999 && 2 ** number < this.columns) number++; return number; }

  // How dead items are seen now, for a caption; `dead` says what they are.
  reading(dead) {
    const side = this.tiles ? 1 : 2 ** this.block;
    if (side > 1) return `each square is the mean of ${side}x${side} codes, the greyer the more of them ${dead}`;
    const marks = [!this.tiles && "grey", this.crossed && "crossed"].filter(Boolean).join(" and ");
    return marks && `${marks}: ${dead}`;
  }

  // The point of the map under the pointer; on a narrow page the canvas is shown smaller than it is drawn.
  point({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect(), [width, height] = this.size;
    return [(clientX - box.left) * width / box.width, (clientY - box.top) * height / box.height];
  }

  // The cell under the pointer, or -1.
  at(event) {
    const [left, top] = this.point(event), x = Math.floor(left / this.cell + this.view.x), y = Math.floor(top / this.cell + this.view.y);
    const place = y * this.columns + x;
    return left >= 0 && top >= 0 && x < this.columns && place < this.values.length ? place : -1;
  }

  // The text for a cell: of its item, or of the block that it is drawn in.
  text(place) {
    const step = this.tiles ? 1 : 2 ** this.block;
    if (step === 1) return this.describe(this.item(place));
    const items = [], x0 = Math.floor(place % this.columns / step) * step, y0 = Math.floor(Math.floor(place / this.columns) / step) * step;
    for (let y = y0; y < y0 + step; y++) for (let x = x0; x < Math.min(x0 + step, this.columns); x++) {
      if (y * this.columns + x < this.values.length) items.push(this.item(y * this.columns + x));
    }
    return this.describeBlock(items);
  }

  hover(place, speak) {
    this.cursor = place;
    this.tip.style.display = place < 0 ? "none" : "block";
    if (place >= 0) {
      const text = this.text(place), shown = this.canvas.clientWidth / this.size[0] * this.cell, room = this.element.closest(".vistok")?.clientWidth ?? Infinity;
      const x = (place % this.columns - this.view.x + 1) * shown, y = (Math.floor(place / this.columns) - this.view.y + 1) * shown;
      this.tip.textContent = text;
      Object.assign(this.tip.style, { left: "0", top: `${y + 6}px` });  // at the left it takes its full width
      this.tip.style.left = `${Math.max(0, Math.min(x + 6, room - this.element.offsetLeft - this.tip.offsetWidth))}px`;
      if (speak) this.status.textContent = text;
    }
    this.draw();
  }

  choose(place) { if (place >= 0) this.onSelect(this.item(place)); }

  // The zoom after a change by a factor.
  zoomed(factor) { return Math.min(Math.max(this.view.zoom * factor, 1), Math.max(1, 64 / this.fit)); }

  // Zoom by a factor, keeping the point (x, y) of the map where it is.
  zoom(factor, [x, y] = this.size.map((side) => side / 2)) {
    const before = this.cell;
    this.view.x += x / before; this.view.y += y / before;
    this.view.zoom = this.zoomed(factor);
    this.view.x -= x / this.cell; this.view.y -= y / this.cell;
    this.#stay(); this.draw();
  }

  reset() { this.view = { x: 0, y: 0, zoom: 1 }; this.draw(); }

  // Bring an item into view.
  show(item) {
    const place = this.cellOf ? this.cellOf[item] : item, [wide, high] = this.size.map((side) => side / this.cell);
    const x = place % this.columns, y = Math.floor(place / this.columns);
    if (x < this.view.x || x + 1 > this.view.x + wide) this.view.x = x - wide / 2;
    if (y < this.view.y || y + 1 > this.view.y + high) this.view.y = y - high / 2;
    this.#stay(); this.draw();
  }

  #stay() {
    const [width, height] = this.size;
    this.view.x = Math.max(0, Math.min(this.view.x, this.columns - width / this.cell));
    this.view.y = Math.max(0, Math.min(this.view.y, this.rows - height / this.cell));
  }

  #listen() {
    let dragged = null;
    this.canvas.addEventListener("pointermove", (event) => {
      if (dragged && event.buttons) {
        const [x, y] = this.point(event), [dx, dy] = [x - dragged.x, y - dragged.y];
        if (dragged.moved || Math.hypot(dx, dy) > 3) {
          dragged = { x, y, moved: true };
          this.view.x -= dx / this.cell; this.view.y -= dy / this.cell; this.#stay(); this.draw();
          return;
        }
      }
      this.hover(this.at(event));
    });
    this.canvas.addEventListener("pointerdown", (event) => { const [x, y] = this.point(event); dragged = { x, y, moved: false }; });
    this.canvas.addEventListener("pointerleave", () => { dragged = null; this.hover(-1); });
    this.canvas.addEventListener("blur", () => this.hover(-1));
    this.canvas.addEventListener("click", (event) => {
      const moved = dragged?.moved;
      dragged = null;
      if (!moved) this.choose(this.at(event));
    });
    this.canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== this.canvas && !event.ctrlKey) return;  // the page scrolls past a map that is not in use
      const factor = Math.min(Math.max(Math.exp(-0.002 * event.deltaY), 0.8), 1.25);  // trackpads send many small steps
      if (this.zoomed(factor) === this.view.zoom) return;  // sideways, or there is no more to zoom: the page may scroll
      event.preventDefault();
      this.zoom(factor, this.point(event));
      this.hover(this.at(event));
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      if (!plain(event) || (event.shiftKey && event.key === "Enter")) return;
      const last = this.values.length - 1, page = this.columns * 8;
      const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
      if (event.key in moves) {
        const from = this.cursor >= 0 ? this.cursor : this.selected >= 0 ? (this.cellOf ? this.cellOf[this.selected] : this.selected) : -1;
        const to = from < 0 ? 0 : Math.min(Math.max(from + moves[event.key], 0), last);
        this.show(this.item(to)); this.hover(to, true);
      } else if (event.key === "Enter" || event.key === " ") this.choose(this.cursor);
      else if (event.key === "+" || event.key === "=") this.zoom(2);
      else if (event.key === "-") this.zoom(0.5);
      else if (event.key === "0") this.reset();
      else return;
      keepEvent(event);
    });
  }
}
CellMap.DEAD = [205, 205, 205];
CellMap.CROSS = "#8a3ffc";

// Both ends of a scale of colours, or the one number that there is.
const ends = (low, high, words = count) => words(low) === words(high) ? `${words(low)} everywhere` : `${words(low)} (dark) to ${words(high)} (bright)`;

const tokens = (number) => number === 1 ? "1 token" : `${count(number)} tokens`;

// A 1 for each of so many codes that is among these, as CellMap and Scatter take them; null: none.
function markedOf(view, size) {
  const codes = u32(view), marked = new Uint8Array(size);
  codes.forEach((code) => { marked[code] = 1; });
  return codes.length ? marked : null;
}
