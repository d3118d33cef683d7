// The codebook as a space: a scatter of the codes, and beside it the map, the chosen code and the patches of the selected ones.

const LISTED = 60;  // patches of selected codes

function render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "codebook-space");
  let counts = new Uint32Array(), total = 1, marked = null, known = new Map(), sheets = [], asked = [];

  const say = (code, others = 0) => `code ${code}: ${counts[code] ? `${tokens(counts[code])}, ${percent(counts[code] / total)}` : "never chosen"}`
    + (others > 0 ? `; ${count(others)} more ${others === 1 ? "code" : "codes"} here` : "");
  const sum = (codes) => codes.reduce((all, code) => all + counts[code], 0);
  const sayMany = (codes) => `${count(codes.length)} codes here: ${count(codes.filter((code) => counts[code]).length)} used, ${tokens(sum(codes))}; zoom in to see each`;
  const choose = (code) => { save(model, { selected: code }); showSelected(); };

  // Patches are asked for when one looks at them, one request at a time.
  function picture(code, wanted) {
    const found = known.get(code);
    if (!found && wanted) ask([code]);
    return found ?? null;
  }
  function ask(codes) {
    const missing = [...codes].filter((code) => !known.has(code)).slice(0, 64);
    if (!missing.length || !alive(model) || asked.some((code) => !known.has(code))) return;
    asked = missing;
    model.send({ do: "patches", codes: missing });
  }
  async function takePatches() {
    const { level, codes, columns, tile, picture: view } = model.get("patches");
    if (!view?.byteLength || level !== model.get("level")) return;
    const sheet = await bitmap(view);
    if (level !== model.get("level")) { sheet.close(); return; }
    sheets.push(sheet);
    u32(codes).forEach((code, i) => known.set(code, [sheet, i % columns * tile, Math.floor(i / columns) * tile, tile]));
    scatter.set({});
    if (scatter.cursor >= 0) scatter.tell(scatter.cursor);
    showSelected(); showMarked(); wish();
  }
  // Ask for patches that are in sight and not there yet.
  function wish() {
    if (scatter.shown === "patches" && !scatter.together && scatter.seen.length <= Scatter.PATCHES) ask(scatter.seen.toReversed());
    if (model.get("selected") >= 0) ask([model.get("selected")]);
    ask(listed());
  }
  function forget() {
    for (const sheet of sheets) sheet.close();
    known = new Map(); sheets = []; asked = [];
  }

  const scatter = new Scatter({ label: "codes as points; arrow keys go from code to code, with shift they select a box, Enter chooses, plus and minus zoom, Escape clears the selection",
    describe: say, describeMany: sayMany, picture, onSelect: choose, onDraw: () => { readScale(); if (scatter.shown === "patches") wish(); },
    onBox: (codes, ends) => {
      mark(codes);  // at once; Python says the same a moment later
      model.send(ends ? { do: "box", ...ends } : { do: "codes", codes: [] });
    } });
  const map = new CellMap({ width: 300, height: 300, label: "map of all codes, similar ones side by side; arrow keys move, Enter chooses", describe: say,
    describeBlock: sayMany, onSelect: choose });
  map.canvas.classList.add("map");

  // Controls.
  const level = node("select", { "aria-label": "level", class: "level", onchange: () => save(model, { level: +level.value }) });
  const projection = node("select", { class: "projection", onchange: () => save(model, { projection: projection.value }) });
  const shown = node("select", { class: "shown", onchange: () => scatter.set({ shown: shown.value }) },
    node("option", { value: "dots" }, "count"), node("option", { value: "patches" }, "decoded alone"));
  const move = node("button", { class: "move", "aria-pressed": "false", title: "drag to move instead of selecting; with shift, always", onclick: () => {
    scatter.moving = !scatter.moving;
    move.setAttribute("aria-pressed", scatter.moving); scatter.canvas.style.cursor = scatter.moving ? "grab" : "crosshair";
  } }, "move");
  const clear = node("button", { class: "clear", onclick: () => scatter.onBox(new Uint32Array(), null) }, "clear selection");
  const bar = node("div", { class: "bar" }, node("strong", { class: "name" }), level, node("label", {}, "lay out by ", projection), node("label", {}, "points ", shown),
    node("button", { "aria-label": "zoom in", class: "zoom-in", onclick: () => scatter.zoom(2) }, "+"),
    node("button", { "aria-label": "zoom out", onclick: () => scatter.zoom(0.5) }, "−"), node("button", { onclick: () => scatter.reset() }, "all"), move, clear);
  const scale = node("canvas", { role: "img", "aria-label": "colour scale", class: "scale" });
  const scaleText = node("p", { class: "caption number reading", style: "max-width:470px" }), note = node("p", { class: "caption note", style: "max-width:470px" });
  const patch = node("canvas", { role: "img", "aria-label": "the chosen code decoded alone", class: "patch chosen-patch" });
  const head = node("strong", { class: "number head" }), group = node("p", { class: "caption number group", "aria-live": "polite" });
  const list = node("div", { class: "bar", style: "gap:3px;max-width:300px" });
  const content = node("div", {}, bar, node("div", { class: "row" }, node("div", { class: "column" }, scatter.element, scale, scaleText, note),
    node("div", { class: "column", style: "max-width:300px" }, map.element, node("div", { class: "bar", "aria-live": "polite" }, patch, head), group, list)));

  const listed = () => [...u32(model.get("marked"))].sort((a, b) => counts[b] - counts[a]).slice(0, LISTED);

  function mark(codes) {
    marked = codes.length ? new Uint8Array(counts.length) : null;
    codes.forEach((code) => { marked[code] = 1; });
    scatter.set({ marked }); map.set({ marked });
  }
  function showMarked() {
    const codes = u32(model.get("marked")), best = listed();
    mark(codes);
    clear.disabled = !codes.length;
    group.textContent = codes.length ? `${codes.length === 1 ? "1 code" : `${count(codes.length)} codes`} selected, ${tokens(sum(codes))}, ${percent(sum(codes) / total)}${codes.length > LISTED ? `; the ${LISTED} most frequent:` : ":"}`
      : "Drag a box around points to select codes in all views.";
    replaceButtons(list, ...best.map((code) => {
      const tile = node("canvas", { "aria-hidden": "true" });
      drawSquare(tile, known.get(code), 24);
      return node("button", { class: "listed", style: "padding:1px", "aria-label": say(code), title: say(code), data: { code }, onclick: () => choose(code) }, tile);
    }));
    ask(best);
  }
  function showSelected() {
    const code = model.get("selected"), found = code >= 0 ? picture(code, true) : null;
    scatter.set({ selected: code }); map.set({ selected: code });
    head.textContent = code < 0 ? "no code is chosen" : say(code);
    drawSquare(patch, found, 48);
    if (code >= 0) patch.dataset.code = found ? code : -1;
  }
  function showPoints() {
    const points = f32(model.get("points")), axes = model.get("axes");
    if (points.length !== 2 * counts.length) return;  // the counts of another level are still to come
    scatter.set({ points, axes, units: axes[0].includes("variance"), counts });
    projection.value = model.get("projection");
    note.textContent = model.get("note");
  }
  function takeUp() {
    const sizes = model.get("sizes");
    content.hidden = sizes.length === 0;
    if (!sizes.length) return;
    counts = u32(model.get("counts")); total = Math.max(1, counts.reduce((all, value) => all + value, 0));
    bar.querySelector(".name").textContent = model.get("name");
    level.hidden = sizes.length < 2;
    level.replaceChildren(...levelOptions(sizes, model.get("level")));
    projection.replaceChildren(...model.get("methods").map(([name, title, missing]) =>
      node("option", { value: name, disabled: Boolean(missing) }, missing ? `${title} (pip install ${missing})` : title)));
    forget();
    map.set({ values: counts, order: u32(model.get("similar")), columns: model.get("columns"), marked: null });
    showPoints(); showMarked(); showSelected(); takePatches();
  }
  function readScale() {
    drawColours(scale, 470, 8);
    scale.style.display = scatter.shown === "patches" && !scatter.together ? "none" : "";
    scaleText.textContent = scatter.reading();
  }

  box.append(content);
  takeUp();
  const stopModel = listen(model, { "change:counts": takeUp, "change:points": showPoints, "change:projection": () => { projection.value = model.get("projection"); },
    "change:patches": takePatches, "change:selected": () => { showSelected(); scatter.show(model.get("selected")); }, "change:marked": showMarked });
  const stopTheme = onTheme(box, () => { scatter.draw(); map.draw(); });
  return () => { stopFrame(); stopModel(); stopTheme(); forget(); };
}
export default { initialize, render };
