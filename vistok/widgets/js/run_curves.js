// RunCurves: the logs of runs as lines over each other. Python sends whole logs; what is chosen of them is drawn here.
const LABELS = { usage: "codes in use, %", perplexity: "perplexity, codes", images_per_second: "images/s" };
const AGAINST = { step: "step", images: "images seen" };

// Since when a line has no numbers any more, in words: of a training that diverged one would see nothing.
function diverged(line) {
  const last = line.y.findLastIndex(Number.isFinite);
  return last === line.y.length - 1 ? "" : last < 0 ? "no finite values" : `not finite after ${count(line.x[last])}`;
}

export default { initialize, render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "run-curves", ["quantity", "against", "axis", "smoothing"]);
  const quantity = node("select", { class: "quantity", onchange: () => save(model, { quantity: quantity.value, axis: quantity.value in LABELS ? "linear" : "log" }) });
  const against = node("select", { class: "against", onchange: () => save(model, { against: against.value }) },
    ...Object.entries(AGAINST).map(([value, text]) => node("option", { value }, text)));
  const [axes, showAxis] = choice("axis", ["log", "linear"], (axis) => save(model, { axis }));
  const [smoothing, showSmoothing] = smoothingSlider((weight) => save(model, { smoothing: weight }));
  const again = node("button", { class: "refresh", title: "of runs that are being trained", onclick: () => model.send({ do: "refresh" }) }, "read the logs again");
  const canvas = node("canvas", { role: "img", class: "curves" }), key = node("div");
  const content = node("div", {}, node("div", { class: "bar choices" }, node("label", {}, "curves of ", quantity), node("label", {}, "over ", against),
    axes, smoothing, again), canvas, key);
  box.append(content);

  function draw() {
    const labels = model.get("labels"), notes = model.get("notes"), columns = model.get("columns"), batches = model.get("batch_sizes");
    content.style.display = labels.length ? "" : "none";
    const chosen = model.get("quantity"), over = model.get("against"), weight = model.get("smoothing");
    quantity.replaceChildren(...model.get("quantities").map((name) => node("option", { value: name, selected: name === chosen }, name.replaceAll("_", " "))));
    quantity.value = chosen; against.value = over;
    showAxis(model.get("axis")); showSmoothing(weight);
    const lines = model.get("curves").map((view, run) => {
      const numbers = f32(view), names = columns[run], place = names.indexOf(chosen), length = place < 0 ? 0 : numbers.length / names.length;
      const column = (at, times) => Float64Array.from({ length }, (_, row) => times * numbers[row * names.length + at]);
      const line = { name: labels[run], x: column(0, over === "images" ? batches[run] : 1), y: column(place, chosen === "usage" ? 100 : 1) };
      return smooth(line, weight);
    });
    const above = !lines.some((line) => line.y.some((value) => value <= 0)), ylog = model.get("axis") === "log" && above;
    const name = LABELS[chosen] ?? `${chosen.replaceAll("_", " ")}${chosen.endsWith("weight") ? "" : " loss"}`;
    const axis = above || model.get("axis") === "linear" ? "" : ", linear axis: some are not above 0";
    const end = Math.max(0, ...lines.map((line) => line.x.at(-1) ?? 0));
    const width = Math.min(1000, Math.max(320, Math.floor(content.clientWidth) || 700));
    linePlot(canvas, lines, { width, height: 300, xlabel: AGAINST[over], ylabel: name + axis, ylog, xrange: [0, end || 1],
      yrange: chosen === "usage" && !ylog ? [0, 103] : undefined });
    canvas.setAttribute("aria-label", `${name} over ${AGAINST[over]}: ${labels.join(", ")}`);
    key.replaceChildren(legendOf(lines.map((line, run) => {
      const note = [notes[run], line.x.length ? diverged(line) : notes[run] ? "" : `no ${chosen.replaceAll("_", " ")}`].filter(Boolean).join(", ");
      return { ...line, name: note ? `${line.name} (${note})` : line.name };
    })));
    box.dataset.paints = Number(box.dataset.paints ?? 0) + 1;
  }

  draw();
  const laterDraw = later(draw);
  const stopListening = listen(model, Object.fromEntries(["labels", "notes", "columns", "curves", "quantities", "quantity", "against", "axis", "smoothing"]
    .map((name) => [`change:${name}`, laterDraw])));
  const stopTheme = onTheme(box, draw);
  const stopWidth = onWidth(box, laterDraw);
  return () => { stopWidth(); stopListening(); stopTheme(); stopFrame(); };
} };
