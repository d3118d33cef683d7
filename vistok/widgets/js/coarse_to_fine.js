// CoarseToFine: an image decoded from more and more of its tokens; one of these pictures large, beside the original, its error and
// how it differs from the one before.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "coarse-to-fine", ["step"]);
  const names = model.get("names"), scale = model.get("error_scale");
  if (!names.length) return stop;
  const LARGE = 256, SMALL = 96;
  let original = null, shown = [], asked = 0;

  const image = node("input", { type: "number", min: 0, max: names.length - 1, step: 1, style: "width:6em",
    onchange: () => save(model, { image: Number(image.value) }) });
  const title = node("span", { class: "caption", data: { role: "name" } });
  const slider = node("input", { type: "range", min: 0, step: 1, "aria-label": "part of the tokens", style: "width:min(100%,24em)", oninput: () => choose(Number(slider.value)) });
  const heading = node("span", { class: "number", "aria-live": "polite", data: { role: "step" } });
  const kinds = { now: "from these tokens", original: "original", error: "error", added: "change from before" };
  const large = Object.fromEntries(Object.entries(kinds).map(([kind, text]) => [kind, node("canvas", { role: "img", "aria-label": text, data: { picture: kind } })]));
  const strip = node("div", { class: "bar", role: "radiogroup", "aria-label": "part of the tokens", style: "align-items:flex-start;gap:6px" });
  box.append(
    node("div", { class: "bar" }, node("label", {}, "image ", image), title),
    node("div", { class: "bar" }, node("label", { style: "display:inline-flex;align-items:center;gap:6px" }, "tokens", slider), heading),
    node("div", { class: "pictures" }, ...Object.entries(kinds).map(([kind, text]) => node("div", { class: "column" }, node("p", { class: "caption" }, text), large[kind]))),
    errorBar(scale, "error and change"), strip);

  const choose = (step) => save(model, { step: Math.min(Math.max(step, 0), model.get("steps").length - 1) });
  const quality = (step) => model.get("psnr")[step] === null ? "exact" : decibels(model.get("psnr")[step]);
  const tokens = (number) => number === 1 ? "1 token" : `${count(number)} tokens`;
  const say = (step) => `${model.get("steps")[step]}: ${tokens(model.get("num_tokens")[step])} in all, PSNR ${quality(step)}`;

  function mark() {
    const step = model.get("step"), now = shown[step];
    slider.max = model.get("steps").length - 1;
    slider.value = step;
    slider.setAttribute("aria-valuetext", say(step));
    heading.textContent = say(step);
    for (const button of strip.children) {
      const chosen = Number(button.dataset.step) === step;
      button.setAttribute("aria-checked", chosen);
      button.tabIndex = chosen ? 0 : -1;
      button.style.boxShadow = chosen ? "0 0 0 2px var(--accent)" : "";
    }
    if (!now || !original) return;
    const times = enlargement(now, LARGE), [width, height] = [now.width * times, now.height * times];
    const before = step ? shown[step - 1] : null;
    paint(large.now, now, width, height);
    paint(large.original, original, width, height);
    paint(large.error, errorMap(original, now, scale), width, height);
    large.added.parentElement.style.visibility = before ? "" : "hidden";  // the first has none before it
    if (before) paint(large.added, errorMap(before, now, scale), width, height);
    large.now.dataset.step = step;
  }

  // Cut the row of pictures into the pictures; each is a canvas and its pixels.
  function cut(row, number) {
    const width = row.width / number, { height } = row;
    return Array.from({ length: number }, (_, i) => {
      const canvas = node("canvas");
      [canvas.width, canvas.height] = [width, height];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(row.canvas, i * width, 0, width, height, 0, 0, width, height);
      return { canvas, width, height, data: context.getImageData(0, 0, width, height).data };
    });
  }

  async function load() {
    const number = ++asked;
    image.value = model.get("image");
    title.textContent = names[model.get("image")];
    const [one, row] = await Promise.all([picture(model.get("original")), picture(model.get("pictures"))]);
    if (number !== asked || !one || !row) return;  // another image was chosen meanwhile
    original = one;
    shown = cut(row, model.get("steps").length);
    replaceButtons(strip, ...shown.map((made, step) => {
      const small = node("canvas", { "aria-hidden": "true" }), times = enlargement(made, SMALL) || SMALL / Math.max(made.width, made.height);
      paint(small, made, made.width * times, made.height * times);
      return node("button", { role: "radio", "aria-label": say(step), title: say(step), data: { step }, onclick: () => choose(step), style: "padding:3px" },
        small, node("div", { class: "caption number" }, model.get("steps")[step]), node("div", { class: "caption number" }, quality(step)));
    }));
    mark();
  }

  strip.addEventListener("keydown", (event) => {
    const to = { ArrowRight: model.get("step") + 1, ArrowDown: model.get("step") + 1, ArrowLeft: model.get("step") - 1, ArrowUp: model.get("step") - 1,
      Home: 0, End: shown.length - 1 }[event.key];
    if (to === undefined || !plain(event)) return;
    keepEvent(event);
    choose(to);
    strip.children[model.get("step")]?.focus();
  });
  const stopListening = listen(model, { "change:pictures": load, "change:original": load, "change:image": load, "change:step": mark });
  load();
  return () => { asked++; stopListening(); stop(); };
}
export default { initialize, render };
