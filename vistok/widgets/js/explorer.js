// The codebook explorer: the map of all codes and beside it the chosen one; below, all codes' frequencies and usage against tokens seen.

const CURVE = 260, PATCH = 96, SHOWN = 150;  // CSS pixels: width of a plot, sides of a patch and of an image

function render({ model, el }) {
  const arrived = performance.now();
  const [box, stopFrame] = frame(el, model, "codebook-explorer");
  let counts = new Uint32Array(), rank = new Uint32Array(), total = 0, similar = new Uint32Array(), byCount = new Uint32Array();
  let painted = false;

  const say = (code) => counts[code]
    ? `code ${code}: ${count(counts[code])} tokens, ${percent(counts[code] / total)}, rank ${count(rank[code])} of ${count(counts.length)}`
    : `code ${code}: never chosen`;
  const sayBlock = (codes) => {
    let tokens = 0, used = 0;
    for (const code of codes) { tokens += counts[code]; used += counts[code] > 0; }
    return `${codes.length} codes here: ${used} used, ${count(tokens)} tokens; zoom in to see each`;
  };
  const map = new CellMap({ label: "map of all codes; arrow keys move, Enter chooses, plus and minus zoom",
    describe: say, describeBlock: sayBlock, onSelect: choose, onDraw: readScale });
  map.canvas.classList.add("map");

  // Controls.
  const sort = node("select", { "aria-label": "order of the codes", class: "sort", onchange: arrange },
    ...["index", "count", "similarity"].map((name) => node("option", { value: name }, `by ${name}`)));
  const cells = node("select", { "aria-label": "what a cell shows", class: "cells", onchange: fill },
    node("option", { value: "count" }, "count"), node("option", { value: "patch" }, "decoded alone"));
  const level = node("select", { "aria-label": "level", class: "level", onchange: () => save(model, { level: +level.value }) });
  const go = node("input", { type: "number", min: 0, step: 1, "aria-label": "go to code", class: "go", style: "width:6em",
    onkeydown: (event) => { if (event.key === "Enter" && go.value !== "") choose(go.valueAsNumber); event.stopPropagation(); } });
  const zoomIn = node("button", { "aria-label": "zoom in", class: "zoom-in", onclick: () => map.zoom(2) }, "+");
  const zoomOut = node("button", { "aria-label": "zoom out", onclick: () => map.zoom(0.5) }, "−");
  const whole = node("button", { onclick: () => map.reset() }, "whole map");
  const bar = node("div", { class: "bar" }, node("strong", { class: "name" }), level, node("label", {}, "codes ", sort), node("label", {}, "cells ", cells),
    zoomIn, zoomOut, whole, node("label", {}, "code ", go));

  // Below: the whole codebook.
  const summary = node("p", { class: "caption summary", style: "max-width:75em" });
  const frequencies = node("canvas", { role: "img", "aria-label": "codes' frequencies, most frequent first", class: "frequencies" });
  const covered = node("canvas", { role: "img", "aria-label": "share of the tokens that the most frequent codes cover", class: "covered" });
  const growth = node("canvas", { role: "img", "aria-label": "codes seen against tokens seen", class: "growth" });
  const growthNames = ["in the images' order", "tokens drawn at random", "the last 65,536 tokens only"];
  const scale = node("canvas", { role: "img", "aria-label": "colour scale", class: "scale" });
  const scaleText = node("p", { class: "caption number", style: "max-width:420px" });
  const curves = node("div", { class: "curves" }, summary, node("div", { class: "row" }, frequencies, covered, growth), legend(growthNames));
  // Beside the map stands what matters first of the chosen code; the rest comes where there is room, beside it or below.
  const head = node("h4", { class: "number head", style: "margin:0" });
  const first = node("div", { class: "column first" }), rest = node("div", { class: "column rest" });
  const below = node("div", { class: "detail", "aria-live": "polite" }, node("div", { class: "column chosen" }, head, first), rest);
  const content = node("div", {}, bar, node("div", { class: "row" }, node("div", { class: "column" }, map.element, scale, scaleText), below), curves);

  function choose(code) {
    if (!Number.isInteger(code) || code < 0 || code >= counts.length) {
      save(model, { message: `There is no code ${code}: codes are 0 to ${counts.length - 1}.` });
      return;
    }
    performance.mark("vistok:click");
    save(model, { ...model.get("decoding") ? {} : { message: "" }, selected: code });
    map.set({ selected: code });
    map.show(code);
    head.textContent = say(code);
    below.classList.add("stale");  // below the name the former code is shown until Python has answered
  }

  function arrange() {
    map.set({ order: { index: null, count: byCount, similarity: similar }[sort.value], selected: model.get("selected") });
  }

  async function fill() {
    if (cells.value === "count") { map.set({ tiles: null }); return; }
    if (!model.get("atlas").byteLength) { model.send({ do: "atlas" }); cells.dataset.waiting = "true"; return; }
    const picture = await bitmap(model.get("atlas"));
    delete cells.dataset.waiting;
    if (cells.value === "patch") map.set({ tiles: picture, tileSize: model.get("tile") }); else picture.close();
  }

  function giveUp() {  // Python is through with decoding, and there is no atlas: the message says why
    if (model.get("decoding") || model.get("atlas").byteLength || !cells.dataset.waiting) return;
    delete cells.dataset.waiting;
    cells.value = "count";
  }

  function takeUp() {
    const sizes = model.get("sizes");
    content.hidden = sizes.length === 0;
    if (!sizes.length) return;
    bar.querySelector(".name").textContent = model.get("name");
    level.hidden = sizes.length < 2;
    level.replaceChildren(...levelOptions(sizes, model.get("level")));
    counts = u32(model.get("counts")); similar = u32(model.get("similar"));
    total = counts.reduce((sum, value) => sum + value, 0);
    go.max = counts.length - 1;
    // Sorted by count, then by index, as plain numbers: K may be 262,144.
    const keys = Float64Array.from(counts, (value, code) => value * 2 ** 20 + (2 ** 20 - 1 - code)).sort().reverse();
    byCount = Uint32Array.from(keys, (key) => 2 ** 20 - 1 - (key % 2 ** 20));
    rank = new Uint32Array(counts.length);
    byCount.forEach((code, place) => {  // equals share a rank
      rank[code] = place && counts[code] === counts[byCount[place - 1]] ? rank[byCount[place - 1]] : place + 1;
    });
    map.set({ values: counts, columns: model.get("columns"), tiles: null, marked: markedOf(model.get("marked"), counts.length), order: { index: null, count: byCount, similarity: similar }[sort.value], selected: model.get("selected") });
    map.canvas.dataset.total = total;
    drawPlots();
    if (cells.value === "patch") fill();
  }

  function drawPlots() {
    const k = counts.length;
    summary.textContent = model.get("description");
    const places = []; for (let place = 1; place <= k; place = Math.max(place + 1, Math.floor(place * 1.03))) places.push(place);
    if (places.at(-1) !== k) places.push(k);
    let sum = 0; const sums = Float64Array.from(byCount, (code) => (sum += counts[code]));
    linePlot(frequencies, [{ x: places, y: places.map((place) => counts[byCount[place - 1]]) }],
      { width: CURVE, height: 150, xlog: true, ylog: true, ylabel: "tokens of a code", xlabel: "codes, most frequent first" });
    linePlot(covered, [{ x: places, y: places.map((place) => 100 * sums[place - 1] / total) }],
      { width: CURVE, height: 150, xlog: true, ylabel: "% of all tokens covered", xlabel: "most frequent codes", yrange: [0, 103] });
    const curve = model.get("curve"), tokens = f32(curve.tokens);
    linePlot(growth, ["seen", "expected", "in_queue"].map((name, number) => ({ x: tokens, y: f32(curve[name]).map((value) => 100 * value / k),
      width: number === 2 ? 3 : 1.8 })),  // dots over a line that they may follow all along
      { width: CURVE, height: 150, xlog: true, ylabel: "codes seen, % of the codebook", xlabel: "tokens seen", yrange: [0, 103],
        marks: tokens.at(-1) > 65536 ? [{ x: 65536, label: "65,536" }] : [] });
    drawColours(scale, 420, 10);
    readScale();
  }

  function readScale() {
    const most = counts[byCount[0]] ?? 0, range = most > 1 ? `1 token to ${tokens(most)}, on a log scale` : most ? "1 token each" : "";
    const selected = map.marked ? `bright: the ${count(u32(model.get("marked")).length)} codes that are selected` : "";
    const text = [map.tiles ? "each code decoded alone" : range, map.reading("never chosen"), selected].filter(Boolean).join("; ");
    scale.style.display = map.tiles ? "none" : "";
    if (scaleText.textContent !== text) scaleText.textContent = text;
  }

  // The chosen code.
  function tile(strip, size, place, side, title, wide = size) {
    const canvas = node("canvas", { class: "tile", role: "img", "aria-label": title, title }), high = side * size / wide;
    const context = sized(canvas, side, high);
    context.imageSmoothingEnabled = false;
    context.drawImage(strip, place * wide, 0, wide, size, 0, 0, side, high);
    return canvas;
  }

  // The code by itself, and where in the grid it appears: `places`, or null where it does not.
  function aloneAndWhere(detail, alone, places) {
    const [h, w] = detail.grid, here = u32(detail.grid_counts), all = model.get("sequence") ? `at which of the ${w} tokens, line by line` : `where in the ${h}x${w} grid`;
    const where = places ? [node("p", { class: "caption" }, `${all}: ${ends(Math.min(...here), Math.max(...here))}`), places.element]
      : [node("p", { class: "caption" }, `${all}: nowhere`)];
    return node("div", { class: "row", style: "flex-wrap:nowrap;align-items:flex-end" },
      node("div", { class: "column", style: "flex:none" }, node("p", { class: "caption" }, model.get("sequence") ? "as all tokens" : "decoded alone"), tile(alone, alone.height, 0, PATCH, `code ${detail.code} decoded alone`)),
      node("div", { class: "column" }, ...where));
  }

  function nearestCodes(detail, alone) {
    return node("div", { class: "bar nearest-codes" }, ...detail.nearest.map((code, place) => {
      const distance = short(detail.distances[place]);
      return node("button", { class: "nearest", "aria-label": `code ${code}, at distance ${distance}`, onclick: () => choose(code) },
        tile(alone, alone.height, place + 1, 40, `code ${code} decoded alone`), `${code}`, node("div", { class: "caption number" }, distance));
    }));
  }

  // The images that use the code most, its tokens outlined.
  function imagesUsing(detail, images) {
    const names = detail.image_names, side = images.height, wide = images.width / names.length, [h, w] = detail.grid;
    const [cellWide, cellHigh] = [SHOWN / w, SHOWN * side / wide / h];
    return node("div", { class: "images" }, ...names.map((name, number) => {
      const canvas = tile(images, side, number, SHOWN, name, wide), context = canvas.getContext("2d");
      canvas.classList.add("image");
      for (const [y, x] of model.get("sequence") ? [] : detail.image_places[number]) {
        strokeTwice(context, "#d55e00", 1.5, () => context.rect(x * cellWide, y * cellHigh, cellWide, cellHigh), 3);
      }
      return node("div", { class: "column" }, canvas, node("p", { class: "caption", title: name }, name));
    }));
  }

  // Some of the patches with the code in the middle; below each comes what it decodes to in its image.
  function patchRow(detail, patches, from, to) {
    return node("div", { class: "bar" }, ...Array.from({ length: to - from }, (_, i) => {
      const [image, y, x] = detail.patch_places[from + i];
      return node("div", { class: "column pair", data: { place: from + i } }, marked(tile(patches, patches.height, from + i, 48, `image ${image}, row ${y}, column ${x}`)));
    }));
  }

  let turn = 0;
  async function show() {
    const detail = model.get("detail"), mine = ++turn;
    if (detail.code === undefined) return;
    const [alone, images, patches] = await Promise.all([detail.alone, detail.images, detail.patches].map((part) => part?.byteLength ? bitmap(part) : null));
    const free = () => [alone, images, patches].forEach((strip) => strip?.close());
    if (mine !== turn) return free();  // another code was chosen meanwhile
    const here = u32(detail.grid_counts);
    const places = Math.max(...here) > 0 && new CellMap({ width: PATCH, height: PATCH, label: "where in the grid this code appears", interactive: false });
    head.textContent = say(detail.code);
    const caption = (text) => node("p", { class: "caption" }, text);
    const parts = [aloneAndWhere(detail, alone, places)], more = [caption("nearest codes, and how far they are"), nearestCodes(detail, alone)];
    if (images) {
      parts.push(caption(`the images that use it most${model.get("sequence") ? "" : ", its tokens outlined"}`), imagesUsing(detail, images));
      if (!patches) more.push(node("p", { class: "caption no-patches" }, "No patches: tokens are a sequence, and lie nowhere in the image. What one does in an image, TokenEditor maps."));
      else more.push(caption("patches from these images, the token in the middle; below each, as decoded in its image"), patchRow(detail, patches, 0, detail.num_first),
        node("div", { class: "bar" }, node("span", { class: "caption" }, "a random sample of all its patches"),
          node("button", { class: "sample", onclick: () => model.send({ do: "sample" }) }, "another sample")), patchRow(detail, patches, detail.num_first, detail.patch_places.length));
    } else parts.push(node("p", { style: "margin:0" }, "No image uses this code."));
    free();
    const focused = [...below.querySelectorAll("button")].indexOf(below.querySelector("button:focus"));
    first.replaceChildren(...parts); rest.replaceChildren(...more);
    below.classList.remove("stale");
    below.dataset.code = detail.code;
    if (focused >= 0) below.querySelectorAll("button")[focused]?.focus({ preventScroll: true });  // it stays where it was
    if (places) places.set({ values: here, columns: model.get("sequence") ? Math.ceil(Math.sqrt(here.length)) : detail.grid[1], scale: "linear" });
    await addDecoded(mine);
    performance.mark("vistok:patches");
    if (performance.getEntriesByName("vistok:click").length) performance.measure("vistok:click-to-patches", "vistok:click", "vistok:patches");
    performance.clearMarks("vistok:click");
  }

  function marked(canvas) {  // outline the middle third: the token itself
    const context = canvas.getContext("2d");
    context.strokeStyle = "#fff"; context.lineWidth = 1; context.strokeRect(15.5, 15.5, 17, 17);
    return canvas;
  }

  async function addDecoded(mine) {
    const detail = model.get("detail"), decoded = model.get("decoded");
    if (decoded.code !== detail.code || decoded.level !== detail.level || !decoded.patches?.byteLength) return;
    const strip = await bitmap(decoded.patches);
    if (mine === turn) for (const pair of below.querySelectorAll(".pair")) {
      if (pair.children.length < 2) pair.append(marked(tile(strip, strip.height, +pair.dataset.place, 48, "decoded in its image")));
    }
    strip.close();
  }

  box.append(content);
  takeUp();
  show();
  requestAnimationFrame(() => requestAnimationFrame(() => {
    if (!painted) performance.measure("vistok:first-paint", { start: arrived, end: performance.now() });
    painted = true; box.dataset.painted = "true";
  }));
  const stopModel = listen(model, { "change:counts": takeUp, "change:description": drawPlots, "change:atlas": () => { if (cells.value === "patch") fill(); },
    "change:decoding": giveUp, "change:detail": show, "change:decoded": () => addDecoded(turn),
    "change:selected": () => { map.set({ selected: model.get("selected") }); map.show(model.get("selected")); },
    "change:marked": () => map.set({ marked: markedOf(model.get("marked"), counts.length) }) });
  const stopTheme = onTheme(box, () => { map.draw(); if (counts.length) drawPlots(); });
  return () => { stopFrame(); stopModel(); stopTheme(); map.tiles?.close(); };
}
export default { initialize, render };
