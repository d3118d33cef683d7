// TokenEditor: the tokens of an image over what they decode to; replaced, swapped with another image's, or mixed with them.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "token-editor");
  if (!model.get("images")) return stop;
  const scale = model.get("error_scale"), levels = model.get("codebook_sizes");
  const SIDE = 384, SMALL = 192;
  let asked = 0;

  const middle = { style: "display:inline-flex;align-items:center;gap:4px" };
  const busy = node("span", { class: "caption", role: "status", data: { role: "busy" } });
  const talk = asking(model, busy), { ask, behind } = talk;
  const [imageLabel, image] = numberField("image", { max: model.get("images") - 1 });
  const [otherLabel, other] = numberField("other image", { max: model.get("images") - 1 });
  const images = whenTyped([image, other], () => ask("choose", { image: typed(image), other: typed(other) }));
  const level = node("select", { onchange: () => ask("look_at", { level: Number(level.value) }) },
    ...levels.map((size, i) => node("option", { value: i }, `${i} (${count(size)} codes)`)));
  const follow = following(model, () => model.get("grid")[1]);
  const grid = tokenGrid(model, talk, () => { code.focus(); code.select(); }, follow.shares);
  const face = grid.face("decoded", "tokens over what they decode to; arrow keys select a token, with shift a region, enter goes to the code", SIDE);
  const [codeLabel, code] = numberField("code", { onkeydown: (event) => { if (event.key === "Enter" && plain(event)) replace(); } });
  const replace = () => ask("replace", { code: typed(code) });
  const button = (text, act, title) => node("button", { onclick: act, title }, text);
  const swap = button("swap region", () => ask("swap"), "exchange the selected tokens with the other image's");
  const undo = button("undo", () => ask("undo"), "take the last change back");
  const reset = button("reset", () => ask("reset"), "both images as they were encoded");
  const share = node("input", { type: "range", min: 0, max: 1, step: 0.01, oninput: () => mix() });
  const shareText = node("span", { class: "number caption", data: { role: "share" } });
  const snap = node("input", { type: "checkbox", onchange: () => mix() });
  const [nearTitle, near, stopNear] = nearCodes(model, (code) => ask("replace", { code }));
  const change = node("p", { class: "number", "aria-live": "polite", data: { role: "change" }, style: "margin:8px 0 4px;max-width:62em" });
  const kinds = { original: "original", before: "decoded before any edit", difference: "difference from before", other_decoded: "other image, decoded now" };
  const prefix = node("input", { type: "range", min: 1, step: 1, "aria-label": "decode the first tokens alone", oninput: () => {
    prefixText.textContent = `${prefix.value} of ${prefix.max}`;
    talk.last("show_prefix", { number: Number(prefix.value) });
  } });
  const prefixText = node("span", { class: "number caption", data: { role: "prefix" } });
  const every = button("map every token", () => ask("map_all"), "how far the picture follows each token: 5 pictures a token");
  const ofSequence = node("div", { class: "of-sequence", style: "margin-top:8px", data: { role: "of-sequence" } },
    node("div", { class: "bar" }, node("label", middle, "decode the first tokens alone", prefix), prefixText), follow.element, every);
  const small = Object.fromEntries(Object.entries(kinds).map(([kind, text]) => [kind, node("canvas", { role: "img", "aria-label": text, data: { picture: kind } })]));
  const titles = Object.fromEntries(Object.entries(kinds).map(([kind, text]) => [kind, node("p", { class: "caption" }, text)]));
  box.append(
    node("div", { class: "bar" }, imageLabel, otherLabel, levels.length > 1 ? node("label", {}, "level ", level) : "", node("label", middle, grid.lines, "grid"), busy),
    grid.row,
    node("div", { class: "beside" },  // the picture, and what acts on it
      node("div", { class: "column" }, node("p", { class: "caption" }, "decoded now"), face.element, grid.status),
      node("div", { class: "column" },
        node("div", { class: "bar" }, codeLabel, button("replace", replace, "give all selected tokens this code"), undo, reset),
        nearTitle, near,
        node("div", { class: "bar", style: "margin-top:8px" }, swap),
        node("div", { class: "bar" }, node("label", middle, "interpolate", share), shareText, node("label", middle, snap, "snap to codes")))),
    model.get("sequence") ? ofSequence : "",
    change,
    node("div", { class: "pictures" }, ...Object.keys(kinds).map((kind) => node("div", { class: "column" }, titles[kind], small[kind]))),
    errorBar(scale, "difference"));

  function mix() {
    const wanted = { share: Number(share.value), to_codes: snap.checked };
    shareText.textContent = wanted.share.toFixed(2);
    talk.last("interpolate", wanted);
  }
  function slide() {
    share.value = model.get("share"); shareText.textContent = model.get("share").toFixed(2); snap.checked = model.get("to_codes");
  }

  // A number that the kernel refused stays to be mended, and one that is being typed to be finished; it is overwritten only when
  // the kernel's own changes.
  const numbers = () => { if (images.pending()) return; image.value = model.get("image"); other.value = model.get("other"); };
  function controls() {
    prefix.max = model.get("grid")[1];
    if (!behind()) { prefix.value = model.get("prefix") || prefix.max; prefixText.textContent = `${prefix.value} of ${prefix.max}`; }
    every.hidden = !f32(model.get("followed")).some(Number.isNaN);
    level.value = model.get("level");
    code.max = levels[model.get("level")] - 1;
    code.placeholder = grid.first();
    const [first, second] = model.get("titles");
    titles.original.textContent = `original: ${first}`; titles.other_decoded.textContent = `other image, now: ${second}`;
    const focused = box.querySelector(":focus");
    undo.disabled = reset.disabled = !model.get("can_undo");
    if (focused?.disabled) face.canvas.focus({ preventScroll: true });  // it would be lost with the button
    if (!behind()) slide();
    change.textContent = model.get("change");
  }

  async function load() {
    const number = ++asked, kinds = ["original", "decoded_png", "before", "other_decoded"];
    const [original, decoded, before, other_decoded] = await Promise.all(kinds.map((kind) => picture(model.get(kind))));
    if (number !== asked || !decoded || !before) return;  // something newer came meanwhile
    const shown = { original, before, other_decoded, difference: errorMap(decoded, before, scale) };
    face.show(decoded);
    for (const [kind, made] of Object.entries(small)) {
      if (!shown[kind]) continue;
      follow.size(shown.original ?? decoded);
      const times = enlargement(shown[kind], SMALL);
      paint(made, shown[kind], shown[kind].width * times, shown[kind].height * times);
      made.dataset.painted = number;  // it rises with a new picture only
    }
  }

  const offer = () => {  // the code that was chosen in another view is at hand to paint with
    if (model.get("offered") >= 0 && document.activeElement !== code) code.value = model.get("offered");
  };
  const handlers = { "change:offered": offer, "change:answered": () => { if (!behind()) slide(); }, "change:image": numbers, "change:other": numbers };
  for (const name of ["original", "decoded_png", "before", "other_decoded"]) handlers[`change:${name}`] = load;
  for (const name of ["maps", "followed"]) handlers[`change:${name}`] = () => { follow.draw(); grid.draw(); controls(); };
  for (const name of ["sequence", "prefix", "titles", "level", "share", "to_codes", "can_undo", "change", "selection", "token_values"]) handlers[`change:${name}`] = controls;
  const stopListening = listen(model, handlers);
  numbers(); controls(); load(); offer(); follow.draw(); grid.draw();
  return () => { asked++; images.stop(); stopListening(); stopNear(); grid.stop(); talk.stop(); stop(); };
}

// Which pixels follow the selected token of a sequence: a map where it becomes the nearest code, one where it becomes random ones,
// and for each token a share of the most that any moves the picture. Returns {element, shares, size, draw}.
function following(model, number) {
  const names = ["the nearest code", "random codes"], SIDE = 192;
  const maps = names.map((name, i) => node("canvas", { role: "img", data: { map: i ? "random" : "nearest" },
    "aria-label": `pixels that change where the token becomes ${name}` }));
  const titles = names.map(() => node("p", { class: "caption number" })), scale = node("p", { class: "caption scale" });
  const heading = node("p", { class: "caption" }), bar = node("canvas", { role: "img", "aria-label": "colours of the maps" });
  drawColours(bar, 96, 10);
  bar.style.cssText += "display:inline-block;vertical-align:middle";
  const element = node("div", { data: { role: "influence" } },
    heading,
    node("div", { class: "pictures", style: "max-width:408px" }, ...maps.map((map, i) => node("div", { class: "column" }, titles[i], map))), scale);
  let shape = [1, 1];
  const means = (i) => f32(model.get("followed")).slice(i * number(), (i + 1) * number());
  function shares() {
    const known = means(1), most = Math.max(...known.filter(Number.isFinite), 0);
    return known.length ? known.map((value) => most > 0 ? value / most : value) : null;
  }
  function draw() {
    const values = f32(model.get("maps")), [width, height] = shape, pixels = width * height;
    element.hidden = values.length !== 2 * pixels;
    if (element.hidden) return;
    const most = values.reduce((a, b) => Math.max(a, b), 0), token = model.get("selection")[1];
    heading.textContent = `What does token ${token} do? Pixels that change, of the image as encoded, where it becomes …`;
    maps.forEach((canvas, i) => {
      const made = new ImageData(width, height), whole = node("canvas");
      [whole.width, whole.height] = [width, height];
      for (let at = 0; at < pixels; at++) made.data.set([...heat(most > 0 ? values[i * pixels + at] / most : 0), 255], 4 * at);
      whole.getContext("2d").putImageData(made, 0, 0);
      const times = enlargement(whole, SIDE);
      paint(canvas, { canvas: whole, width, height }, width * times, height * times);
      canvas.dataset.token = token;
      titles[i].textContent = `${names[i]}: ${short(100 * means(i)[token])} %`;
    });
    scale.replaceChildren("mean change over the channels, colours from 0 ", bar,
      ` to ${short(most)}, of a range 0 to 1; the row is coloured by the mean over pixels, random codes`);
  }
  const size = ({ width, height }) => { if (shape[0] !== width || shape[1] !== height) { shape = [width, height]; draw(); } };
  return { element, shares, size, draw };
}
export default { initialize, render };
