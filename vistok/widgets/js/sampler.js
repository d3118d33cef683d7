// Sampler: a generator that draws while one watches. Which image is drawn and how is asked of Python with each drawing; of what is
// drawn Python tells the picture, the tokens, and how unsure it was of each.
const STEPS = { temperature: 0.05, top_p: 0.05, top_k: 1, guidance: 0.25, num_steps: 1, noise: 0.5 };
const LEAST = { temperature: 0, top_p: 0.05, top_k: 1, guidance: 0, num_steps: 1, noise: 0 };
const MOST = { top_p: 1 };
const ABOUT = { temperature: "logits are divided by it: 0 the likeliest token, 1 as learned", top_p: "the fewest likeliest codes that together are so likely; 1: all",
  top_k: "so many of the likeliest codes; empty: all", guidance: "how far towards the class, away from none; 1: as learned",
  num_steps: "in so many steps the image is drawn", noise: "of what is sure, which falls to 0: more, more varied" };
const PACES = [[5, "5 tokens a second"], [20, "20 tokens a second"], [100, "100 tokens a second"], [0, "as fast as they come"]];

function render({ model, el }) {
  const [box, stop] = frame(el, model, "sampler");
  if (!model.get("fields").length) return stop;
  const SIDE = 320, classes = model.get("classes");
  let shown = null, asked = 0;

  const busy = node("span", { class: "caption", role: "status", data: { role: "busy" } });
  const talk = asking(model, busy);
  const button = (text, act, title) => node("button", { onclick: act, title }, text);
  const label = node("select", { "aria-label": "class" }, ...model.get("without_class") && classes.length ? [node("option", { value: "" }, "no class")] : [],
    ...classes.map((name, number) => node("option", { value: number }, name)));
  const [seedLabel, seed] = numberField("seed", {});
  const advance = node("input", { type: "checkbox" });
  const inputs = Object.fromEntries(model.get("fields").map((name) => [name, node("input", { type: "number", step: STEPS[name], min: LEAST[name], max: MOST[name],
    style: "width:5em", title: ABOUT[name], placeholder: name === "top_k" ? "all" : "" })]));
  const pace = node("select", { "aria-label": "pace" }, ...PACES.map(([value, text]) => node("option", { value }, text)));
  const values = () => ({
    ...Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value === "" && name === "top_k" ? null : number(input)])),
    label: label.value === "" ? null : Number(label.value), seed: number(seed), advance: advance.checked, pace: Number(pace.value) });
  // A number as Python tells whole ones from others.
  const number = (input) => input.value === "" ? null : Number(input.value);

  const drawing = () => model.get("phase") === "drawing" && alive(model);
  // One button, so that the focus stays where it is.
  const sample = node("button", { class: "sample-or-stop", style: "min-width:5.5em", onclick: () => drawing() ? talk.ask("stop") : talk.ask("sample", values()) });
  const given = button("show the photograph", () => talk.ask("show_picture"), "its tokens, to be completed from where you click");
  const first = () => { const [top, left] = chosen(); return top * model.get("grid")[1] + left; };
  const chosen = () => face.canvas.dataset.selection?.split(",").map(Number) ?? model.get("selection");
  const beginHere = button("draw from the chosen token on", () => begin(), "what comes before it is kept; the enter key does the same");
  const begin = (place = first()) => talk.ask("begin_at", { place, ...values() });
  // One token that is clicked begins there; a region is drawn anew by itself. Of a sequence a click only chooses.
  function released([top, left, bottom, right]) {
    if ((bottom - top) * (right - left) === 1) begin(top * model.get("grid")[1] + left);
    else talk.ask("draw_region", { top, left, bottom, right, ...values() });
  }

  const unsure = () => f32(model.get("entropy"));
  const share = (bits) => Number.isFinite(bits) ? bits / model.get("most_bits") : NaN;
  const words = (code, place) => {
    const bits = unsure()[place];
    const known = Number.isFinite(bits) ? `, next token's entropy ${bits.toFixed(1)} bits` : "";
    return code === NOT_DRAWN ? `not drawn yet${known}` : `code ${code}${known}`;
  };
  const grid = tokenGrid(model, talk, () => begin(), () => unsure().length ? Array.from(unsure(), share) : null, { words, released });
  const keys = "a click begins there, a drag draws a region anew; arrow keys choose a token, with shift a region, enter begins there";
  const face = grid.face("drawn", `the picture so far; ${keys}`, SIDE, { whole: false });
  const heatFace = grid.face("entropy", `how unsure the generator was of each token; ${keys}`, SIDE, { whole: false });
  grid.lines.checked = false;
  const title = node("p", { class: "caption", data: { role: "title" } }), heatTitle = node("p", { class: "caption", data: { role: "entropy" } });
  const colours = node("canvas", { role: "img", "aria-label": "colours of the entropy", style: "display:inline-block;vertical-align:middle" });
  const heatColumn = node("div", { class: "column" }, heatTitle, heatFace.element);
  const nearTitle = node("p", { class: "caption", data: { role: "likely" } }), near = node("div", { class: "near likely" });
  const likely = node("div", { class: "column" }, nearTitle, near);
  const progress = node("progress", { "aria-label": "tokens drawn", style: "width:120px" }), drawn = node("span", { class: "number caption", data: { role: "drawn" } });
  const middle = { style: "display:inline-flex;align-items:center;gap:4px" };
  const named = (name) => name.replace("top_", "top-").replace("num_steps", "steps");
  box.append(
    node("div", { class: "bar" }, classes.length ? node("label", {}, "class ", label) : "", seedLabel,
      node("label", { ...middle, title: "each drawing takes the next seed" }, advance, "then the next"), sample, given, progress, drawn, busy),
    node("div", { class: "bar" }, ...Object.entries(inputs).map(([name, input]) => node("label", {}, `${named(name)} `, input)), pace),
    grid.row,
    node("div", { class: "faces drawing" }, node("div", { class: "column" }, title, face.element), heatColumn, likely),
    node("div", { class: "bar", style: "margin-top:6px" }, node("span", { style: "flex:1 1 20em" }, grid.status), beginHere, node("label", middle, grid.lines, "grid")));

  function tellSettings() {
    const settings = model.get("settings"), put = (input, value) => { if (input !== document.activeElement) input.value = value; };  // it is typed into
    for (const [name, input] of Object.entries(inputs)) put(input, settings[name] ?? "");
    put(seed, settings.seed);
    label.value = settings.label ?? "";
    if (!PACES.some(([value]) => value === settings.pace)) pace.append(node("option", { value: settings.pace }, `${count(settings.pace)} tokens a second`));
    pace.value = settings.pace;
    advance.checked = settings.advance;
  }

  function tell() {
    const [done, all] = model.get("drawn_of");
    Object.assign(progress, { max: all, value: done });
    progress.hidden = !drawing();
    drawn.textContent = done < all ? `${count(done)} of ${count(all)} tokens${drawing() ? "" : model.get("phase") === "failed" ? ", failed" : ", stopped"}` : "";
    sample.textContent = drawing() ? "■ stop" : "sample";
    sample.title = drawing() ? "what is not drawn stays empty" : "draw an image from its first token on";
    given.hidden = !model.get("picture_name");
    given.title = `the tokens of ${model.get("picture_name")}, to be completed from where you click`;
    title.textContent = title.title = model.get("title");
    box.dataset.phase = model.get("phase");
    box.dataset.drawn = done;
  }

  // The picture, enlarged in whole pixels and left empty where no token is drawn: such places are hatched on the page's own ground.
  function compose() {
    if (!shown) return;
    const [rows, columns] = model.get("grid"), codes = u32(model.get("token_values")), { paper, rule } = theme(box);
    const times = Math.max(1, Math.ceil(2 * SIDE / Math.max(shown.width, shown.height))), canvas = node("canvas");
    const [width, height] = [canvas.width, canvas.height] = [shown.width * times, shown.height * times];
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(shown.canvas, 0, 0, width, height);
    if (!model.get("sequence")) codes.forEach((code, place) => {
      if (code === NOT_DRAWN) empty(context, (place % columns) * width / columns, Math.floor(place / columns) * height / rows, width / columns, height / rows, paper, rule);
    });
    face.show({ canvas, width, height });
    drawHeat(paper);
  }
  function empty(context, x, y, wide, high, paper, rule) {
    context.fillStyle = paper; context.fillRect(x, y, wide, high);
    context.strokeStyle = rule; context.lineWidth = 2;
    context.strokeRect(x + 1, y + 1, wide - 2, high - 2);
    context.beginPath(); context.moveTo(x + 2, y + high - 2); context.lineTo(x + wide - 2, y + 2); context.stroke();
  }
  function drawHeat(paper) {
    const bits = unsure(), [rows, columns] = model.get("grid");
    heatColumn.hidden = !bits.length || model.get("sequence");
    likely.hidden = !bits.length;
    if (heatColumn.hidden) return;
    const canvas = node("canvas"), SIZE = 16;
    [canvas.width, canvas.height] = [columns * SIZE, rows * SIZE];
    const context = canvas.getContext("2d");
    bits.forEach((value, place) => {
      context.fillStyle = Number.isFinite(value) ? `rgb(${heat(share(value))})` : paper;
      context.fillRect((place % columns) * SIZE, Math.floor(place / columns) * SIZE, SIZE, SIZE);
    });
    heatFace.show({ canvas, width: canvas.width, height: canvas.height });
    drawColours(colours, 72, 10);
    heatTitle.replaceChildren("entropy of the next token,", node("span", { style: "white-space:nowrap" }, "0 ", colours, ` ${model.get("most_bits").toFixed(0)} bits`));
  }

  async function load() {
    const mine = ++asked, made = await picture(model.get("picture"));
    if (mine !== asked || !made) return;
    shown = made;
    compose();
    box.dataset.painted = mine;
  }

  async function tellLikely() {
    const codes = model.get("likely_codes"), shares = model.get("likely_shares"), made = await picture(model.get("likely_tiles"));
    if (codes !== model.get("likely_codes")) return;
    nearTitle.textContent = codes.length ? `likeliest codes of the chosen token, each decoded ${model.get("sequence") ? "as all tokens" : "alone"}` : "what may come at the chosen token is not known yet";
    near.replaceChildren(...codes.map((code, place) => {
      const tile = node("canvas", { "aria-hidden": "true" });
      if (made) paint(tile, made, 32, 32, [place * made.height, 0, made.height, made.height]);
      return node("div", { class: "code", data: { code } }, tile, node("div", { class: "number" }, String(code)), node("div", { class: "caption number" }, percent(shares[place])));
    }));
  }

  const handlers = { "change:settings": tellSettings, "change:picture": load, "change:likely_codes": tellLikely,
    "change:entropy": compose, "change:token_values": compose };
  for (const name of ["phase", "drawn_of", "title", "picture_name"]) handlers[`change:${name}`] = tell;
  const stopListening = listen(model, handlers), stopTheme = onTheme(box, () => { compose(); grid.draw(); });
  box.addEventListener("live", tell);
  tellSettings(); tell(); load(); tellLikely(); grid.draw();
  return () => { asked++; stopListening(); stopTheme(); grid.stop(); talk.stop(); stop(); };
}
export default { initialize, render };
