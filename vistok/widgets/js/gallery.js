// QuantizerGallery: one photograph through every quantizer, as tiles; one that is clicked grows, and is wiped against the original.
const SMALL = 128;  // CSS pixels of a tile; one that has grown is twice as wide, and the gap

function render({ model, el }) {
  const [box, stop] = frame(el, model, "quantizer-gallery", true);
  const tiles = model.get("tiles"), images = model.get("images"), scale = model.get("error_scale");
  if (!tiles.length) return stop;
  let real = null, made = [], grown = null, split = 0.5, gone = false;

  const choices = node("div", { class: "row", role: "radiogroup", "aria-label": "photograph", style: "gap:6px" });
  const thumbnails = images.map((name, number) => {
    const canvas = node("canvas", { "aria-hidden": "true" });
    choices.append(node("button", { type: "button", role: "radio", title: name, "aria-label": name, style: "padding:2px;line-height:0",
      onclick: () => save(model, { image: number }), onkeydown: (event) => step(event, number) }, canvas));
    return canvas;
  });
  const order = node("select", { onchange: () => save(model, { order: order.value }) }, ...model.get("orders").map((name) => node("option", {}, name)));
  const errors = node("input", { type: "checkbox", onchange: () => save(model, { errors: errors.checked }) });
  const title = node("p", { class: "caption", "aria-live": "polite", data: { role: "title" } });
  const grid = node("div", { style: `display:grid;grid-template-columns:repeat(auto-fill, minmax(${SMALL}px, 1fr));gap:14px 12px;grid-auto-flow:dense` });
  const colours = errorBar(scale);
  const missing = model.get("missing");
  box.append(choices, node("div", { class: "bar", style: "margin:8px 0;gap:4px 18px" }, node("label", {}, "order ", order), node("label", {}, errors, " where the errors are"), title),
    grid, colours, ...(missing.length ? [node("p", { class: "caption", style: "margin-top:8px", data: { role: "missing" } }, `No pictures of ${missing.join(", ")}: python -m vistok.lessons.pictures makes them of runs.`)] : []));

  function step(event, number) {
    const way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!way || !plain(event)) return;
    keepEvent(event);
    const to = (number + way + images.length) % images.length;
    save(model, { image: to });
    choices.children[to].focus();
  }

  const line = (text, style = "") => node("span", { style: `display:block;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;${style}` }, text);
  function tile(name, about, number) {
    const canvas = node("canvas", { data: { picture: name }, style: "cursor:pointer" });
    const quality = line("", "font-size:14px");
    const label = node("button", { type: "button", "aria-pressed": "false", title: number < 0 ? "" : `enlarge ${name}`, disabled: number < 0,
      style: "text-align:left;background:none;border:none;box-shadow:none;padding:2px 0;width:100%;opacity:1;cursor:pointer", onclick: () => grow(number) },
      line(name, "font-weight:600"), quality, ...about.map((text) => line(text, "color:var(--faint);font-size:12px")));
    const shown = node("div", { data: { row: name }, style: "min-width:0" }, canvas, label);
    if (number >= 0) growAndWipe(canvas, number);
    return { name, canvas, label, quality, shown, number };
  }
  const bits = (row) => `${row.quantizer} · ${count(Math.round(row.bits))} bits`;
  const usage = (row) => row.usage == null ? "usage not measured" : `usage ${percent(row.usage)}`;
  const original = tile("original", ["the photograph"], -1);
  original.canvas.style.cursor = "default";
  const all = tiles.map((row, number) => tile(row.name, [bits(row), usage(row)], number));

  function grow(number) {
    grown = number < 0 || grown === number ? null : number;
    split = 0.5;
    for (const one of all) {
      const large = one.number === grown;
      one.label.setAttribute("aria-pressed", large);
      Object.assign(one.shown.style, { gridColumn: large ? "span 2" : "", gridRow: large ? "span 2" : "" });
      if (large) {
        one.canvas.tabIndex = 0;
        one.canvas.setAttribute("role", "slider");
        one.canvas.setAttribute("aria-label", `${one.name}: the original left of the line, ${one.name} right of it; arrow keys move the line`);
      } else for (const name of ["tabindex", "role", "aria-label", "aria-valuenow"]) one.canvas.removeAttribute(name);
    }
    draw();
  }

  // The line of a tile that has grown: left of it is the original.
  function growAndWipe(canvas, number) {
    wipeBy(canvas, { get: () => split, move: (share) => { split = share; paintTile(all[number]); }, step: () => 0.02, moves: () => grown === number });
    canvas.addEventListener("pointerdown", (event) => { if (plain(event) && grown !== number) grow(number); });
    canvas.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !plain(event)) return;
      keepEvent(event);
      grow(number);
      all[number].label.focus();
    });
  }

  function paintTile(one) {
    const large = one.number >= 0 && one.number === grown, side = large ? 2 * SMALL + 12 : SMALL, picture = made[one.number];
    const shown = one.number < 0 ? real : model.get("errors") ? picture.error : picture;
    paint(one.canvas, shown, side, side * real.height / real.width);
    one.canvas.style.cursor = one.number < 0 ? "default" : large ? "ew-resize" : "pointer";
    one.canvas.style.touchAction = large ? "none" : "";
    if (large) {
      wipe(one.canvas, real, split, side, side * real.height / real.width);
      one.canvas.setAttribute("aria-valuenow", Math.round(100 * split));
    }
    one.canvas.dataset.split = large ? split : "";
  }

  function draw() {
    if (!real) return;
    for (const one of [original, ...all]) paintTile(one);
    grid.dataset.painted = `${model.get("image")} ${model.get("errors")} ${grown}`;
  }

  function arrange() {
    const image = model.get("image"), quality = (row) => row.psnr[image] ?? Infinity;
    const keys = { "best first": (row) => -quality(row), "worst first": quality, "fewest bits first": (row) => row.bits - quality(row) / 1e6 };
    const key = keys[model.get("order")], sorted = [...all];
    if (model.get("order") === "by name") sorted.sort((a, b) => a.name < b.name ? -1 : 1);
    else if (key) sorted.sort((a, b) => key(tiles[a.number]) - key(tiles[b.number]));
    grid.replaceChildren(original.shown, ...sorted.map((one) => one.shown));
    for (const one of all) one.quality.textContent = decibels(quality(tiles[one.number]));
    order.value = model.get("order");
    errors.checked = model.get("errors");
    colours.style.display = errors.checked ? "" : "none";
    title.textContent = images[image];
    [...choices.children].forEach((button, number) => {
      button.setAttribute("aria-checked", number === image);
      button.tabIndex = number === image ? 0 : -1;
      button.style.borderColor = number === image ? "var(--accent)" : "transparent";
      button.style.boxShadow = number === image ? "0 0 0 1px var(--accent)" : "";
    });
    draw();
  }

  // The pictures of the photograph that is chosen, cut out of the strips.
  const strip = (view) => createImageBitmap(new Blob([bytes(view)], { type: "image/webp" }));
  function cut(whole, number) {
    const canvas = node("canvas"), width = whole.width / images.length, height = whole.height;
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(whole, number * width, 0, width, height, 0, 0, width, height);
    return { canvas, width, height, data: context.getImageData(0, 0, width, height).data };
  }
  let strips = null;
  function choose() {
    if (strips) {
      const image = model.get("image");
      real = cut(strips[0], image);
      made = strips.slice(1).map((whole) => { const picture = cut(whole, image); return { ...picture, error: errorMap(real, picture, scale) }; });
    }
    arrange();
  }
  async function open() {
    const opened = await Promise.all([model.get("originals"), ...tiles.map((row) => row.strip)].map(strip));
    if (gone) { opened.forEach((one) => one.close()); return; }
    strips = opened;
    thumbnails.forEach((canvas, number) => paint(canvas, cut(strips[0], number), 40, 40));
    choose();
  }

  const stopListening = listen(model, { "change:image": choose, "change:order": arrange, "change:errors": arrange });
  choose(); open();
  return () => { gone = true; strips?.forEach((one) => one.close()); stopListening(); stop(); };
}
export default { initialize, render };
