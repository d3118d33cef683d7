// Which codes appear at which place of the grid: a map of the places, and the chosen place's most frequent codes.

function render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "place-explorer");
  const [h, w] = model.get("grid");
  const perplexity = f32(model.get("perplexity")), codes = new Int32Array(bytes(model.get("codes")).buffer), counts = u32(model.get("counts"));
  const number = codes.length / (h * w || 1);
  const say = (place) => `row ${Math.floor(place / w)}, column ${place % w}: perplexity ${perplexity[place].toFixed(1)}; most frequent: code ${codes[place * number]}, ${count(counts[place * number])} images`;
  const map = new CellMap({ width: 300, height: 300, label: "places of the grid; arrow keys move, Enter chooses", describe: say,
    describeBlock: () => "", onSelect: (place) => { model.set("selected", place); model.save_changes(); } });
  const list = node("div", { class: "column list", "aria-live": "polite" });
  const caption = node("p", { class: "caption" });

  async function show() {
    const place = model.get("selected");
    if (!(place in perplexity)) return;  // the message says so
    const strip = model.get("tiles").byteLength ? await bitmap(model.get("tiles")) : null;
    map.set({ selected: place });
    if (place !== model.get("selected")) { strip?.close(); return; }
    const rows = [];
    for (let i = 0; i < number && codes[place * number + i] >= 0; i++) {
      const canvas = node("canvas", { role: "img", "aria-label": "decoded alone" }), context = sized(canvas, 22, 22), times = counts[place * number + i];
      context.imageSmoothingEnabled = false;
      if (strip && strip.width >= (i + 1) * strip.height) context.drawImage(strip, i * strip.height, 0, strip.height, strip.height, 0, 0, 22, 22);
      const share = times / model.get("num_images");
      rows.push(node("div", { class: "bar number", style: "margin:0" }, canvas, node("span", { style: "min-width:6em" }, `code ${codes[place * number + i]}`),
        node("span", { style: `display:inline-block;height:10px;background:#0072b2;width:${Math.max(1, 160 * share)}px` }), `${count(times)} images, ${percent(share)}`));
    }
    strip?.close();
    list.replaceChildren(node("strong", { class: "head" }, `row ${Math.floor(place / w)}, column ${place % w}: perplexity ${perplexity[place].toFixed(1)}`), ...rows);
  }

  if (h * w) {
    const [low, high] = [Math.min(...perplexity), Math.max(...perplexity)];
    caption.textContent = `perplexity of the codes at each place: ${low.toFixed(0)} (dark) to ${high.toFixed(0)} (bright)`;
    box.append(node("div", { class: "row" }, node("div", { class: "column" }, map.element, caption), list));
    map.set({ values: perplexity, columns: w, scale: "linear" });
    show();
  }
  const stopModel = listen(model, { "change:selected": show, "change:tiles": show });
  const stopTheme = onTheme(box, () => map.draw());
  return () => { stopFrame(); stopModel(); stopTheme(); };
}
export default { render };
