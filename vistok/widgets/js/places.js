// The codes that appear at each place of the grid: a map of the places, where the chosen codes are, and the chosen place's most frequent codes.

function render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "place-explorer");
  let perplexity = new Float32Array(), codes = new Int32Array(), counts = new Uint32Array(), where = new Uint32Array(), number = 0;
  // Positions of a sequence are no places of the image: they are drawn in lines, as text is.
  const sequence = model.get("sequence"), width = () => sequence ? Math.ceil(Math.sqrt(model.get("grid")[1])) : model.get("grid")[1];
  const choose = (place) => save(model, { selected: place });
  const named = (place) => sequence ? `token ${place}` : `row ${Math.floor(place / width())}, column ${place % width()}`;
  const images = (number) => number === 1 ? "1 image" : `${count(number)} images`;
  const say = (place) => `${named(place)}: perplexity ${perplexity[place].toFixed(1)}; most frequent: code ${codes[place * number]}, ${images(counts[place * number])}`;
  const options = { width: 228, height: 228, describeBlock: () => "", onSelect: choose };
  const map = new CellMap({ ...options, label: `${sequence ? "tokens of the sequence" : "places of the grid"}; arrow keys move, Enter chooses`, describe: say });
  const there = new CellMap({ ...options, label: "where the chosen codes appear; arrow keys move, Enter chooses a place",
    describe: (place) => `${named(place)}: ${images(where[place])} with ${model.get("whose")}` });
  const list = node("div", { class: "column list", "aria-live": "polite" });
  const caption = node("p", { class: "caption" }), whereCaption = node("p", { class: "caption where" });
  const whereColumn = node("div", { class: "column", style: "max-width:228px" }, there.element, whereCaption);
  const content = node("div", { class: "row" }, node("div", { class: "column", style: "max-width:228px" }, map.element, caption), whereColumn, list);

  async function show() {
    const place = model.get("selected");
    if (!(place in perplexity)) return;  // the message says so
    const strip = model.get("tiles").byteLength ? await bitmap(model.get("tiles")) : null;
    map.set({ selected: place }); there.set({ selected: place });
    if (place !== model.get("selected")) { strip?.close(); return; }
    const rows = [];
    for (let i = 0; i < number && codes[place * number + i] >= 0; i++) {
      const code = codes[place * number + i], times = counts[place * number + i], share = times / model.get("num_images");
      const canvas = node("canvas", { role: "img", "aria-label": "decoded alone" });
      drawSquare(canvas, strip && strip.width >= (i + 1) * strip.height ? [strip, i * strip.height, 0, strip.height] : null, 22);
      rows.push(node("div", { class: "bar number", style: "margin:0" }, canvas,
        node("button", { style: "min-width:6em", title: "choose it in all views", onclick: () => model.send({ do: "choose", code }) }, `code ${code}`),
        node("span", { style: `display:inline-block;height:10px;background:#0072b2;width:${Math.max(1, 60 * share)}px` }), `${images(times)}, ${percent(share)}`));
    }
    strip?.close();
    replaceButtons(list, node("strong", { class: "head" }, `${named(place)}: perplexity ${perplexity[place].toFixed(1)}`), ...rows);
  }

  function showWhere() {
    where = u32(model.get("where"));
    whereColumn.hidden = !where.length;
    if (!where.length) return;
    const [low, high] = [Math.min(...where), Math.max(...where)];
    whereCaption.textContent = high ? `images with ${model.get("whose")} there: ${ends(low, high)}` : `no image has ${model.get("whose")}`;
    there.set({ values: where, columns: width(), scale: "linear", selected: model.get("selected") });
  }

  function takeUp() {
    perplexity = f32(model.get("perplexity")); codes = new Int32Array(bytes(model.get("codes")).buffer); counts = u32(model.get("counts"));
    content.hidden = !perplexity.length;
    if (!perplexity.length) return;
    number = codes.length / perplexity.length;
    const [low, high] = [Math.min(...perplexity), Math.max(...perplexity)];
    caption.textContent = `perplexity of the codes at each ${sequence ? "token of the sequence, line by line: no place of the image" : "place"}: ${ends(low, high, (value) => value.toFixed(0))}`;
    map.set({ values: perplexity, columns: width(), scale: "linear" });
    show();
    showWhere();
  }

  box.append(content);
  takeUp();
  const stopModel = listen(model, { "change:selected": show, "change:tiles": show, "change:perplexity": takeUp, "change:where": showWhere, "change:whose": showWhere });
  const stopTheme = onTheme(box, () => { map.draw(); there.draw(); });
  return () => { stopFrame(); stopModel(); stopTheme(); };
}
export default { initialize, render };
