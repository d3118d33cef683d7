// RunComparison: what two tokenizers make of the same images; a line that is dragged uncovers one or the other.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "run-comparison", ["share"]);
  const [images, names] = [model.get("images"), model.get("names")];
  if (!images.length) return stop;
  const scale = model.get("error_scale"), psnr = f32(model.get("psnr")), n = images.length;
  let shown = null, painted = 0, asked = 0;

  const table = node("table", { style: "border-collapse:collapse;color:inherit;font:inherit" });
  const cell = (tag, text, first) => node(tag, { class: "number", scope: tag === "th" ? (first ? "row" : "col") : null,
    style: `padding:2px 10px;text-align:${first ? "left" : "right"};border-bottom:1px solid var(--rule);font-weight:${tag === "th" ? 600 : 400}` }, text);
  for (const [number, row] of model.get("table").entries()) {
    table.append(node("tr", {}, ...row.map((text, i) => cell(number === 0 || i === 0 ? "th" : "td", text, i === 0))));
  }
  const image = node("select", { onchange: () => save(model, { image: Number(image.value) }) },
    ...images.map((name, i) => node("option", { value: i }, `${i}: ${name}`)));
  const slider = node("input", { type: "range", min: 0, max: 1, step: 0.005, style: "width:100%",
    oninput: () => model.set("share", Number(slider.value)), onchange: () => model.save_changes() });
  const quality = node("p", { class: "caption number", "aria-live": "polite", data: { role: "psnr" } });
  const canvas = (kind, label) => node("canvas", { data: { picture: kind }, ...label });
  const wiped = (kind) => canvas(kind, { tabindex: 0, role: "application", style: "cursor:ew-resize;touch-action:none",
    "aria-label": `${kind}: ${names[0]} left of the line, ${names[1]} right of it; arrow keys move the line` });
  const original = canvas("original", { role: "img", "aria-label": "original" });
  const wipes = [wiped("reconstructions"), wiped("errors")];
  const column = (title, made) => node("div", { class: "column" }, node("p", { class: "caption" }, title), made);
  const [left, right] = names.map((name, i) => node("span", { style: `overflow-wrap:anywhere;text-align:${i ? "right" : "left"}` },
    i ? `${name} ▶` : `◀ ${name}`));
  const both = node("div", { class: "column", style: "max-width:100%" },
    node("div", { class: "wipes" }, column("reconstructions", wipes[0]), column("errors", wipes[1])),
    node("label", {}, node("span", { class: "hidden-text" }, "share of the width that shows the first"), slider),
    node("div", { style: "display:flex;justify-content:space-between;gap:24px", data: { role: "sides" } }, left, right));
  box.append(node("div", { style: "overflow-x:auto" }, table), node("div", { class: "bar", style: "margin-top:8px" }, node("label", {}, "image ", image), quality),
    node("div", { class: "row" }, column("original", original), both), errorBar(scale));

  function draw() {
    const share = model.get("share");
    slider.value = share;
    slider.setAttribute("aria-valuetext", `${Math.round(100 * share)} % ${names[0]}, the rest ${names[1]}`);
    if (!shown) return;
    const times = enlargement(shown.original, 256), { width: wide, height: high } = shown.original;
    const [width, height] = [wide * times, high * times];
    both.style.width = `${2 * width + 12}px`;  // names may be longer than the pictures are wide
    paint(original, shown.original, width, height);
    wipes.forEach((canvas, i) => {
      const [first, second] = i ? shown.errors : shown.reconstructions;
      paint(canvas, second, width, height);
      Object.assign(canvas.dataset, { split: wipe(canvas, first, share, width, height), painted: ++painted });
    });
  }

  async function load() {
    const number = ++asked;
    const [real, first, second] = await Promise.all(["original", "first", "second"].map((name) => picture(model.get(name))));
    if (number !== asked || !real || !first || !second) return;  // another image was chosen meanwhile
    shown = { original: real, reconstructions: [first, second], errors: [first, second].map((made) => errorMap(real, made, scale)) };
    draw();
  }

  function name() {
    const chosen = model.get("image");
    image.value = chosen;
    quality.textContent = `PSNR: ${decibels(psnr[chosen])} (${names[0]}), ${decibels(psnr[n + chosen])} (${names[1]})`;
  }

  for (const canvas of wipes) wipeBy(canvas, { get: () => model.get("share"), move: (share) => model.set("share", share),
    done: () => model.save_changes(), step: (event) => event.shiftKey ? 0.1 : 0.01 });  // drawn at once, sent to the kernel at the end

  const stopListening = listen(model, { "change:original": load, "change:first": load, "change:second": load, "change:share": draw, "change:image": name });
  name(); draw(); load();
  return () => { asked++; stopListening(); stop(); };
}
export default { initialize, render };
