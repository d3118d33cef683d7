// CellMap: a canvas of cells, one a code or a place of a grid, coloured by count on a log scale. From afar cells are drawn
// together in blocks; one zooms in until every cell is seen. Pointer and keyboard do the same things.
//
// options: width, height in CSS pixels; label, the accessible name; describe(item) and describeBlock(items), texts of the
// tip; onSelect(item); interactive: false for a picture only.
// set({values, order, columns, scale, tiles, tileSize, selected}): values Float32Array or Uint32Array, one an item; order, the
// item of each cell, or null; scale "log" (zero is dead, and marked) or "linear"; tiles, a canvas of patches to draw instead
// of colours, tileSize pixels each, in the order of the items, tiles.width / tileSize a row; or null.
class CellMap {
  constructor({ width = 420, height = 420, label = "", describe = String, describeBlock, onSelect = () => {}, interactive = true }) {
    Object.assign(this, { width, height, describe, onSelect });
    this.describeBlock = describeBlock ?? ((items) => `${count(items.length)} cells: zoom in to see each`);
    this.canvas = node("canvas", { role: interactive ? "application" : "img", "aria-label": label, tabindex: interactive ? 0 : null });
    this.tip = node("div", { class: "tip" });
    this.status = node("p", { class: "hidden-text", "aria-live": "polite" });
    this.element = node("div", { style: "position:relative" }, this.canvas, this.tip, this.status);
    this.values = new Uint32Array(); this.order = null; this.columns = 1; this.scale = "log"; this.tiles = null;
    this.selected = -1; this.cursor = -1; this.paints = 0; this.view = { x: 0, y: 0, zoom: 1 };
    if (interactive) this.#listen();
  }

  get rows() { return Math.ceil(this.values.length / this.columns); }
  get fit() { return Math.min(this.width / this.columns, this.height / Math.max(1, this.rows)); }
  get cell() { return this.fit * this.view.zoom; }  // CSS pixels a cell
  item(cell) { return this.order ? this.order[cell] : cell; }

  set(changes) {
    const former = this.values.length;
    Object.assign(this, changes);
    if (this.values.length !== former) { this.view = { x: 0, y: 0, zoom: 1 }; this.cursor = -1; }
    if ("values" in changes || "order" in changes || "columns" in changes || "scale" in changes) this.levels = null;
    if ("tiles" in changes || "order" in changes) this.atlas = null;
    if ("order" in changes || !this.cellOf) {
      this.cellOf = null;
      if (this.order) { this.cellOf = new Uint32Array(this.order.length); this.order.forEach((item, cell) => { this.cellOf[item] = cell; }); }
    }
    this.draw();
  }

  // Averages over blocks of 1, 2, 4, ... cells on a side, each as a small canvas with a pixel a block.
  #level(number) {
    this.levels ??= [];
    const { values, columns, rows } = this;
    if (!this.levels[0]) {
      let most = 0, least = Infinity;
      for (const value of values) { if (value > most) most = value; if (value < least) least = value; }
      const shares = new Float32Array(columns * rows).fill(NaN), log = this.scale === "log";
      for (let cell = 0; cell < values.length; cell++) {
        const value = values[this.item(cell)];
        shares[cell] = log ? (value > 0 ? (most > 1 ? Math.log(value) / Math.log(most) : 1) : -1) : (value - least) / (most - least || 1);
      }
      this.levels[0] = { shares, columns, rows };
    }
    for (let n = 1; n <= number; n++) {
      if (this.levels[n]) continue;
      const fine = this.levels[n - 1], wide = Math.ceil(fine.columns / 2), high = Math.ceil(fine.rows / 2);
      const shares = new Float32Array(wide * high).fill(NaN);
      for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
        let sum = 0, alive = 0, dead = 0;
        for (let dy = 0; dy < 2; dy++) for (let dx = 0; dx < 2; dx++) {
          if (2 * x + dx >= fine.columns || 2 * y + dy >= fine.rows) continue;
          const share = fine.shares[(2 * y + dy) * fine.columns + 2 * x + dx];
          if (share >= 0) { sum += share; alive++; } else if (share < 0) dead++;
        }
        shares[y * wide + x] = alive ? sum / alive : dead ? -1 : NaN;
      }
      this.levels[n] = { shares, columns: wide, rows: high };
    }
    const level = this.levels[number];
    if (!level.canvas) {
      const picture = new ImageData(Math.max(1, level.columns), Math.max(1, level.rows));
      const table = Array.from({ length: 256 }, (_, i) => heat(i / 255));
      level.shares.forEach((share, place) => {
        if (Number.isNaN(share)) return;
        const colour = share < 0 ? CellMap.DEAD : table[Math.round(255 * Math.min(1, share))];
        picture.data.set([...colour, 255], 4 * place);
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

  draw() {
    const context = sized(this.canvas, Math.min(this.width, this.fit * this.columns), Math.min(this.height, this.fit * this.rows));
    const colours = theme(this.canvas), { cell, view, columns, rows } = this;
    context.imageSmoothingEnabled = false;
    context.fillStyle = colours.paper; context.fillRect(0, 0, this.width, this.height);
    const number = this.tiles ? 0 : this.block;
    const source = this.tiles ? this.#ordered() : this.#level(number), step = 2 ** number;
    const [wide, high] = this.tiles ? [columns, rows] : [source.width * step, source.height * step];
    context.imageSmoothingEnabled = Boolean(this.tiles) && cell < this.tileSize;
    context.drawImage(source, -view.x * cell, -view.y * cell, wide * cell, high * cell);
    const first = { x: Math.floor(view.x), y: Math.floor(view.y) };
    const last = { x: Math.min(columns, Math.ceil(view.x + this.width / cell)), y: Math.min(rows, Math.ceil(view.y + this.height / cell)) };
    const each = (act) => {
      for (let y = first.y; y < last.y; y++) for (let x = first.x; x < last.x; x++) {
        const place = y * columns + x;
        if (place < this.values.length) act(place, (x - view.x) * cell, (y - view.y) * cell);
      }
    };
    if (cell >= 6 && this.scale === "log") {  // a dead code is crossed out: not by colour alone
      context.strokeStyle = this.tiles ? "#d55e00" : CellMap.CROSS; context.lineWidth = 1; context.beginPath();
      each((place, x, y) => {
        if (this.values[this.item(place)] > 0) return;
        context.moveTo(x + cell * 0.25, y + cell * 0.25); context.lineTo(x + cell * 0.75, y + cell * 0.75);
        context.moveTo(x + cell * 0.75, y + cell * 0.25); context.lineTo(x + cell * 0.25, y + cell * 0.75);
      });
      context.stroke();
    }
    if (cell >= 8 && !this.tiles) {
      context.strokeStyle = colours.paper; context.lineWidth = 1; context.beginPath();
      for (let x = first.x; x <= last.x; x++) { context.moveTo((x - view.x) * cell, 0); context.lineTo((x - view.x) * cell, this.height); }
      for (let y = first.y; y <= last.y; y++) { context.moveTo(0, (y - view.y) * cell); context.lineTo(this.width, (y - view.y) * cell); }
      context.stroke();
    }
    const outline = (place, colour, width) => {
      if (place < 0) return;
      const x = (place % columns - view.x) * cell, y = (Math.floor(place / columns) - view.y) * cell, size = Math.max(cell, 5);
      context.strokeStyle = "#fff"; context.lineWidth = width + 2; context.strokeRect(x, y, size, size);
      context.strokeStyle = colour; context.lineWidth = width; context.strokeRect(x, y, size, size);
    };
    outline(this.cursor, "#000", 1);
    if (this.selected >= 0 && this.selected < this.values.length) outline(this.cellOf ? this.cellOf[this.selected] : this.selected, "#d55e00", 2);
    Object.assign(this.canvas.dataset, { paints: ++this.paints, cells: this.values.length, columns, selected: this.selected, zoom: view.zoom, block: step, drawn: this.tiles ? "tiles" : "colours" });
  }

  // The level of blocks that is drawn: the finest whose blocks are at least 2 pixels.
  get block() { let number = 0; while (this.cell * 2 ** number < 1.999 && 2 ** number < this.columns) number++; return number; }

  // The cell under a point of the page, or -1.
  at(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const x = Math.floor((clientX - box.left) / this.cell + this.view.x), y = Math.floor((clientY - box.top) / this.cell + this.view.y);
    const place = y * this.columns + x;
    return clientX >= box.left && clientY >= box.top && x >= 0 && x < this.columns && y >= 0 && place < this.values.length ? place : -1;
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
      const text = this.text(place), x = (place % this.columns - this.view.x + 1) * this.cell, y = (Math.floor(place / this.columns) - this.view.y + 1) * this.cell;
      this.tip.textContent = text;
      this.tip.style.left = `${Math.min(x + 6, Math.max(0, this.width - 180))}px`; this.tip.style.top = `${y + 6}px`;
      if (speak) this.status.textContent = text;
    }
    this.draw();
  }

  choose(place) { if (place >= 0) this.onSelect(this.item(place)); }

  // Zoom by a factor, keeping the point at (x, y) CSS pixels of the canvas where it is.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.cell, zoom = Math.min(Math.max(this.view.zoom * factor, 1), Math.max(1, 64 / this.fit));
    this.view.x += x / before; this.view.y += y / before;
    this.view.zoom = zoom;
    this.view.x -= x / this.cell; this.view.y -= y / this.cell;
    this.#stay(); this.draw();
  }

  reset() { this.view = { x: 0, y: 0, zoom: 1 }; this.draw(); }

  // Bring an item into view.
  show(item) {
    const place = this.cellOf ? this.cellOf[item] : item, wide = this.width / this.cell, high = this.height / this.cell;
    const x = place % this.columns, y = Math.floor(place / this.columns);
    if (x < this.view.x || x + 1 > this.view.x + wide) this.view.x = x - wide / 2;
    if (y < this.view.y || y + 1 > this.view.y + high) this.view.y = y - high / 2;
    this.#stay(); this.draw();
  }

  #stay() {
    this.view.x = Math.max(0, Math.min(this.view.x, this.columns - this.width / this.cell));
    this.view.y = Math.max(0, Math.min(this.view.y, this.rows - this.height / this.cell));
  }

  #listen() {
    let dragged = null;
    this.canvas.addEventListener("pointermove", (event) => {
      if (dragged && event.buttons) {
        const [dx, dy] = [event.clientX - dragged.x, event.clientY - dragged.y];
        if (dragged.moved || Math.hypot(dx, dy) > 3) {
          dragged = { x: event.clientX, y: event.clientY, moved: true };
          this.view.x -= dx / this.cell; this.view.y -= dy / this.cell; this.#stay(); this.draw();
          return;
        }
      }
      this.hover(this.at(event.clientX, event.clientY));
    });
    this.canvas.addEventListener("pointerdown", (event) => { dragged = { x: event.clientX, y: event.clientY, moved: false }; });
    this.canvas.addEventListener("pointerleave", () => { dragged = null; this.hover(-1); });
    this.canvas.addEventListener("click", (event) => {
      const moved = dragged?.moved;
      dragged = null;
      if (!moved) this.choose(this.at(event.clientX, event.clientY));
    });
    this.canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== this.canvas && !event.ctrlKey) return;  // the page scrolls past a map that is not in use
      event.preventDefault();
      const box = this.canvas.getBoundingClientRect();
      this.zoom(event.deltaY < 0 ? 1.25 : 0.8, event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
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
      event.preventDefault(); event.stopPropagation();  // JupyterLab has its own use for these keys
    });
  }
}
CellMap.DEAD = [205, 205, 205];
CellMap.CROSS = "#8a3ffc";
