// TryPicture: a reader's own picture, the square of it that tokenizers see, its tokens to click and change, and what each
// tokenizer makes of it.
function render({ model, el }) {
  const [box, stop] = frame(el, model, "try-picture");
  const tokenizers = model.get("tokenizers"), scale = model.get("error_scale");
  if (!tokenizers.length) return stop;
  const CARD = 256;
  let asked = 0, taken = 0, shown = [];

  const busy = node("span", { class: "caption", role: "status", data: { role: "busy" } });
  const talk = asking(model, busy), { ask } = talk;
  const say = (message) => save(model, { message });
  const source = intake(box, take);
  const middle = { style: "display:inline-flex;align-items:center;gap:4px" };
  const button = (text, act, title) => node("button", { onclick: act, title }, text);

  const crop = cropper(model, talk);
  const grid = tokenGrid(model, talk, () => { code.focus(); code.select(); });
  const keys = "arrow keys select a token, with shift a region, enter goes to the code";
  const seen = grid.face("seen", `your picture as the tokenizer sees it, with its tokens; ${keys}`, 384, { numbers: true, whole: false });
  const decoded = grid.face("decoded", `what the tokens decode to; ${keys}`, 384, { whole: false });
  const seenTitle = node("p", { class: "caption", data: { role: "seen" } }), decodedTitle = node("p", { class: "caption", data: { role: "decoded" } });
  const [codeLabel, code] = numberField("code", { onkeydown: (event) => { if (event.key === "Enter" && plain(event)) replace(); } });
  const replace = () => ask("replace", { code: typed(code) });
  const undo = button("undo", () => ask("undo"), "take the last change back");
  const reset = button("reset", () => ask("reset"), "all tokens as they were encoded");
  const level = node("select", { onchange: () => ask("look_at", { tokenizer: model.get("active"), level: Number(level.value) }) });
  const levelLabel = node("label", {}, "level ", level);
  const [nearTitle, near, stopNear] = nearCodes(model, (code) => ask("replace", { code }));

  const maps = node("input", { type: "checkbox", onchange: () => { cards.dataset.errors = maps.checked; bar.hidden = !maps.checked; } });
  const bar = errorBar(scale), same = node("span");
  bar.hidden = true;
  const known = () => model.get("tokenizers"), sizeOf = (facts) => `${facts.size[1]} × ${facts.size[0]}`;
  const original = card("your picture", node("span", { class: "caption" }, "your picture"));
  const made = tokenizers.map((facts, number) => card(facts.title, tokenizers.length === 1 ? node("span", { class: "caption" }, facts.title)
    : button(facts.title, () => ask("look_at", { tokenizer: number, level: 0 }), `show and change the tokens of ${facts.name}`), true));
  // In one row, smaller the more there are; a crowd takes several rows.
  const columns = made.length < 5 ? `repeat(${made.length + 1}, minmax(0, 220px))` : "repeat(auto-fill, minmax(140px, 1fr))";
  const cards = node("div", { class: "cards", style: `grid-template-columns:${columns}` }, ...[original, ...made].map((one) => one.element));

  const body = node("div", {},
    node("div", { class: "trying" },
      crop.element,
      node("div", { class: "faces" },
        node("div", { class: "column" }, seenTitle, seen.element),
        node("div", { class: "column" }, decodedTitle, decoded.element))),
    node("div", { class: "bar", style: "margin:6px 0 2px" }, node("span", { style: "flex:1 1 16em" }, grid.status), codeLabel,
      button("replace", replace, "give all selected tokens this code"), undo, reset, levelLabel, node("label", middle, grid.lines, "grid"), node("label", middle, grid.codes, "codes")),
    grid.row, nearTitle, near,
    node("div", { class: "bar", style: "margin:12px 0 4px" },
      same,
      node("label", middle, maps, "error maps")),
    cards, bar);
  box.append(
    node("div", { class: "bar", style: "margin-bottom:2px" }, ...source.controls, node("span", { class: "caption" }, "or drop a picture here, or click here and paste one (Ctrl+V)"), busy),
    node("p", { class: "caption", style: "margin-bottom:8px", data: { role: "privacy" } }, "Only the notebook's own kernel gets your picture. A notebook that you save keeps it, made small."),
    source.viewfinder, body);
  box.tabIndex = -1;  // a click anywhere makes it the place where a picture is pasted

  function card(name, title, decodes) {
    const canvas = node("canvas", { role: "img", "aria-label": decodes ? `reconstruction by ${name}` : name, data: { card: name } });
    const error = node("canvas", { role: "img", "aria-label": `error of ${name}`, class: "error", data: { error: name } });
    const first = node("strong", { class: "number", data: { role: "psnr" } }), more = node("span", { class: "caption number" });
    return { canvas, error, title, first, more, element: node("div", { class: "column" }, node("div", { class: "card-title" }, title), canvas, node("div", { class: "card-text" }, first, more), decodes ? error : "") };
  }

  // Take a picture: a file, or a promise of one that may be rejected with a sentence. The last one counts.
  async function take(given) {
    let number = null;  // none yet: of a promise it is known when there is something, or the camera would be first for ever
    try {
      const file = await given;
      number = ++taken;
      busy.textContent = `reading ${file.name || "the picture"} …`;
      const small = await pictureOf(file, model.get("short"));
      if (number !== taken) return;
      crop.preview(small);
      talk.forget();  // a square of the picture before
      ask("take", { width: small.width, height: small.height, name: small.name, size: small.original }, [small.data.buffer]);
      busy.textContent = WAITING;
    } catch (sentence) {
      if (number !== null && number !== taken) return;
      if (number !== null) busy.textContent = "";
      if (sentence !== "") say(typeof sentence === "string" ? sentence : `The picture could not be read: ${sentence.message}`);
    }
  }

  // Write what stands beside the pictures.
  function tell() {
    const all = known(), active = model.get("active"), facts = all[active], [rows, columns] = model.get("grid"), sizes = model.get("codebook_sizes");
    body.hidden = !model.get("extent")[0];
    const mixed = new Set(all.map(sizeOf)).size > 1;  // then numbers say of how many pixels they are
    same.textContent = `The ${model.get("whole") ? "whole picture" : all.length > 1 ? "same square" : "square"} ${all.length > 1 ? "by each tokenizer" : "and its reconstruction"}`;
    seenTitle.textContent = `${sizeOf(facts)} pixels, ${model.get("sequence") ? `a sequence of ${columns} tokens` : `${columns} × ${rows} tokens`}`;
    decodedTitle.textContent = `decoded from ${count(facts.num_tokens)} tokens of ${facts.title}`;
    code.max = sizes[model.get("level")] - 1;
    code.placeholder = grid.first();
    if (level.length !== sizes.length) level.replaceChildren(...sizes.map((size, i) => node("option", { value: i }, `${i} (${count(size)} codes)`)));
    levelLabel.hidden = sizes.length < 2;
    level.value = model.get("level");
    const focused = box.querySelector(":focus");
    undo.disabled = reset.disabled = !model.get("can_undo");
    if (focused?.disabled) seen.canvas.focus({ preventScroll: true });  // it would be lost with the button
    original.first.textContent = `${sizeOf(facts)} pixels`;
    original.more.replaceChildren(...[`${count(24 * facts.size[0] * facts.size[1])} bits`, "24 bits a pixel"].map((line) => node("div", {}, line)));
    made.forEach(({ title, first, more }, i) => {
      const facts = all[i];
      title.setAttribute("aria-pressed", i === active);
      const ready = shown[i]?.seen, psnr = model.get("psnr")[i];
      first.textContent = ready ? psnr === null ? "exact" : decibels(psnr) : "…";
      more.replaceChildren(...[...mixed ? [`of ${sizeOf(facts)} pixels`] : [], `${count(facts.num_tokens)} tokens`, `${count(Math.round(facts.bits))} bits, ${short(Math.round(24 / facts.bits_per_pixel))} × fewer`,
        `${facts.bits_per_pixel.toFixed(2)} bits a pixel`].map((line) => node("div", {}, line)));
    });
  }

  async function load() {
    const number = ++asked, pairs = tokenizers.map((_, i) => [model.get("seen")[i], model.get("reconstructions")[i]]);
    const all = await Promise.all(pairs.map(([a, b]) => Promise.all([picture(a), picture(b)])));
    if (number !== asked) return;  // something newer came meanwhile
    shown = all.map(([seen, made]) => ({ seen, made }));
    const active = shown[model.get("active")];
    if (active?.seen) { seen.show(active.seen); decoded.show(active.made); put(original.canvas, active.seen); }
    made.forEach(({ canvas, error }, i) => {
      canvas.style.opacity = shown[i].seen ? 1 : 0.3;  // the picture before is shown
      if (!shown[i].seen) return;
      put(canvas, shown[i].made);
      put(error, errorMap(shown[i].seen, shown[i].made, scale));
      canvas.dataset.painted = number;
    });
    tell();
  }
  function put(canvas, picture) {
    const times = CARD / Math.max(picture.width, picture.height);
    paint(canvas, picture, picture.width * times, picture.height * times);
  }

  const handlers = { "change:seen": load, "change:reconstructions": load, "change:active": load };
  for (const name of ["sequence", "tokenizers", "whole", "grid", "codebook_sizes", "level", "can_undo", "psnr", "selection", "token_values", "extent"]) handlers[`change:${name}`] = tell;
  const stopListening = listen(model, handlers);
  tell(); load(); grid.draw();
  return () => { asked++; taken++; source.stop(); crop.stop(); stopListening(); stopNear(); grid.stop(); talk.stop(); stop(); };
}
export default { initialize, render };
