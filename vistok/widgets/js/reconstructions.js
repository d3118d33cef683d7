// ReconstructionViewer: original, reconstruction and error of one image; a lens that shows the same place of all three; and
// all images as thumbnails, by PSNR.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "reconstruction-viewer", ["lens", "zoom", "order"]);
  const names = model.get("names");
  if (!names.length) return stop;
  const psnr = f32(model.get("psnr")), scale = model.get("error_scale");
  const kinds = ["original", "reconstruction", "error"];
  let shown = [], thumbnails = null, painted = 0, asked = 0;

  const heading = node("span", { class: "number", data: { role: "psnr" } });
  const zoom = node("select", { onchange: () => save(model, { zoom: Number(zoom.value) }) },
    ...[2, 4, 8, 16].map((times) => node("option", { value: times }, `${times} ×`)));
  const order = node("select", { onchange: () => save(model, { order: order.value }) },
    ...["worst first", "best first", "by number"].map((name) => node("option", { value: name }, name)));
  const wholes = kinds.map((kind) => node("canvas", { tabindex: 0, role: "application", data: { picture: kind },
    "aria-label": `${kind}; arrow keys move the lens, with shift by 8 pixels`, style: "cursor:crosshair" }));
  const details = kinds.map((kind) => node("canvas", { role: "img", "aria-label": `the lens on the ${kind}`, data: { detail: kind } }));
  const place = node("p", { class: "caption number", "aria-live": "polite", data: { role: "place" } });
  // The list is as high as three whole rows and rests at whole rows; what it hides is counted, as many systems hide scrollbars.
  const HIGH = "54px + 1.4em";
  const strip = node("div", { class: "bar", role: "radiogroup", "aria-label": "image", onscroll: () => rest(),
    style: `position:relative;gap:4px;max-height:calc(3 * (${HIGH}) + 14px);box-sizing:border-box;padding:3px;margin-bottom:0;`
      + "align-items:flex-start;overflow-y:auto;scrollbar-color:var(--faint) transparent;scroll-snap-type:y mandatory;scroll-padding:3px" });
  const more = node("p", { class: "caption", data: { role: "more" } });
  box.append(
    node("div", { class: "bar" }, heading, node("label", {}, "lens ", zoom)),
    node("div", { class: "pictures" }, ...kinds.map((kind, i) => node("div", { class: "column" },
      node("p", { class: "caption" }, kind), wholes[i], details[i]))),
    place, errorBar(scale),
    node("div", { class: "bar", style: "margin-top:6px" }, node("label", {}, "images ", order)), strip, more);

  // The square of pixels under the lens: [left, top, side, side].
  function lens() {
    const { width, height } = shown[0], [y, x] = model.get("lens");
    const side = Math.max(1, Math.round(Math.min(width, height) / model.get("zoom")));
    const start = (centre, whole) => Math.min(Math.max(Math.floor(centre - side / 2 + 0.5), 0), whole - side);
    return [start(x, width), start(y, height), side, side];
  }

  function draw() {
    if (!shown.length) return;
    zoom.value = model.get("zoom");
    const times = enlargement(shown[0], 256), [width, height] = [shown[0].width * times, shown[0].height * times];
    const part = lens(), where = part.slice(0, 3).join(",");
    shown.forEach((whole, i) => {
      outline(paint(wholes[i], whole, width, height), ...part.map((pixels) => pixels * times));
      paint(details[i], whole, width, width, part);
      Object.assign(wholes[i].dataset, { painted: ++painted, lens: where });
      details[i].dataset.lens = where;
    });
    place.textContent = `lens: rows ${part[1]} to ${part[1] + part[3] - 1}, columns ${part[0]} to ${part[0] + part[2] - 1}`;
  }

  async function load() {
    const number = ++asked;
    mark();
    const [original, reconstruction] = await Promise.all([picture(model.get("original")), picture(model.get("reconstruction"))]);
    if (number !== asked || !original || !reconstruction) return;  // another image was chosen meanwhile
    shown = [original, reconstruction, errorMap(original, reconstruction, scale)];
    draw();
  }

  function list() {
    const by = model.get("order"), sorted = names.map((_, i) => i);
    order.value = by;
    if (by !== "by number") sorted.sort((a, b) => (by === "worst first" ? 1 : -1) * (psnr[a] === psnr[b] ? 0 : psnr[a] < psnr[b] ? -1 : 1));
    const high = thumbnails ? thumbnails.height : 0, wide = thumbnails ? thumbnails.width / names.length : 0, times = 48 / Math.max(wide, high);
    const focused = strip.querySelector(":focus");
    strip.replaceChildren(...sorted.map((image) => {
      const small = node("canvas", { "aria-hidden": "true" });
      if (thumbnails) paint(small, thumbnails, wide * times, high * times, [image * wide, 0, wide, high]);
      return node("button", { role: "radio", "aria-label": `image ${image}, ${names[image]}, ${decibels(psnr[image])}`,
        title: `image ${image}: ${names[image]}`, data: { image }, onclick: () => save(model, { image }),
        style: `padding:2px;box-sizing:border-box;height:calc(${HIGH});scroll-snap-align:start` },
      small, node("span", { class: "caption number" }, decibels(psnr[image])));
    }));
    mark();
    rest();
    if (focused) strip.querySelector("[tabindex='0']").focus();
  }

  // Say how many thumbnails are out of sight.
  function rest() {
    const [top, bottom] = [strip.scrollTop, strip.scrollTop + strip.clientHeight];
    const hidden = [...strip.children].filter((button) => button.offsetTop < top || button.offsetTop + button.offsetHeight > bottom);
    more.textContent = hidden.length ? `${count(hidden.length)} more: scroll` : "";
  }

  // One thumbnail is chosen, and that one is reached by the tab key; arrow keys go from there.
  function mark() {
    const image = model.get("image");
    heading.textContent = `image ${image}: ${names[image]}, PSNR ${decibels(psnr[image])}`;
    for (const button of strip.children) {
      const chosen = Number(button.dataset.image) === image;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      button.style.boxShadow = chosen ? "0 0 0 2px var(--accent)" : "";
    }
  }

  strip.addEventListener("keydown", (event) => {
    const all = [...strip.children], from = all.findIndex((button) => button.tabIndex === 0);
    const to = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to === undefined || !plain(event)) return;
    keepEvent(event);
    const next = all[Math.min(Math.max(to, 0), all.length - 1)];
    save(model, { image: Number(next.dataset.image) });
    next.focus();
  });
  wholes.forEach((canvas) => {
    canvas.addEventListener("pointermove", (event) => {
      if (!shown.length) return;
      const [x, y] = pointed(canvas, event);
      model.set("lens", [y * shown[0].height, x * shown[0].width]);  // drawn at once, sent to the kernel at the end
    });
    canvas.addEventListener("pointerleave", () => model.save_changes());
    canvas.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 8 : 1;
      const move = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [-step, 0], ArrowDown: [step, 0] }[event.key];
      if (!move || !shown.length || !plain(event)) return;
      keepEvent(event);
      const [left, top, side] = lens();  // from where it is seen, not from beyond the edge
      save(model, { lens: [top + side / 2 + move[0], left + side / 2 + move[1]] });
    });
  });

  const stopListening = listen(model, { "change:original": load, "change:reconstruction": load, "change:image": mark,
    "change:lens": draw, "change:zoom": draw, "change:order": list });
  const watch = new ResizeObserver(rest);
  watch.observe(strip);
  list();
  load();
  picture(model.get("thumbnails")).then((made) => { thumbnails = made; list(); });
  return () => { asked++; watch.disconnect(); stopListening(); stop(); };
}
export default { initialize, render };
