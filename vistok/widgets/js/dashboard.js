// TrainingDashboard: what Python sends is drawn anew, at most once a frame. What is chosen here - raw or weighted losses, the
// level - is the page's own; only the stop button speaks to Python.
const PHASES = { ready: () => "not started", training: () => "training", stopping: () => "stopping after this step …",
  stopped: (step) => `stopped: saved at step ${count(step)}`, finished: (step) => `finished: saved at step ${count(step)}`,
  failed: (step) => `failed at step ${count(step)}`,
  ended: (step, all) => `the training ended with its kernel at about step ${count(step)} of ${count(all)}; running the cell again goes on from its last checkpoint` };

const duration = (seconds) => seconds < 60 ? `${Math.ceil(seconds)} s` : seconds < 3600 ? `${Math.ceil(seconds / 60)} min`
  : seconds < 360000 ? `${Math.floor(seconds / 3600)} h ${Math.ceil(seconds % 3600 / 60)} min` : "more than 100 h";

// Run to what was chosen for it, for all its views: at its end a training is shown anew, and the choice stays.
const CHOICES = new Map();

// Draw at the next frame, once, however often it is asked for.
function later(draw) {
  let asked = 0;
  return () => { asked ||= requestAnimationFrame(() => { asked = 0; draw(); }); };
}

export default { render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "training-dashboard", true);

  const progress = node("progress", { "aria-label": "steps taken", style: "width:220px" });
  const steps = node("span", { class: "number steps" }), speed = node("span", { class: "number caption speed" });
  const phase = node("span", { class: "phase", role: "status" });
  const stop = node("button", { class: "stop", onclick: () => { stop.disabled = true; model.send({ stop: true }); } }, "■ stop and save");

  const chosen = CHOICES.get(model.get("name")) ?? { losses: "raw", level: 0, views: new Set() };
  CHOICES.set(model.get("name"), chosen);
  const choose = (choice) => { Object.assign(chosen, choice); chosen.views.forEach((draw) => draw()); };
  const toggles = ["raw", "weighted"].map((name) => node("button", { onclick: () => choose({ losses: name }) }, name));
  const losses = node("canvas", { role: "img", class: "losses" }), key = node("div", { style: "max-width:400px" });
  const usage = node("canvas", { role: "img", class: "usage" }), perplexity = node("canvas", { role: "img", class: "perplexity" });
  const game = node("canvas", { role: "img", class: "game" }), gameKey = node("div", { style: "max-width:300px" }), gamePart = node("div", {}, game, gameKey);

  const map = new CellMap({ width: 300, height: 300, label: "codebook, one cell a code", describe: (code) =>
    `code ${code}: ${count(map.values[code])} token${map.values[code] === 1 ? "" : "s"}${map.values[code] ? "" : ", dead"}`, onDraw: readMap });
  const levels = node("select", { "aria-label": "level", onchange: () => choose({ level: levels.selectedIndex }) });
  const codes = node("p", { class: "caption codes", style: "max-width:300px" });
  const picture = node("img", { class: "pixels", style: "width:560px" }), pictureText = node("p", { class: "caption" });
  const mapPart = node("div", { class: "column" }, levels, map.element, codes);
  const picturePart = node("div", { class: "column" }, picture, pictureText);

  box.append(
    node("div", { class: "bar" }, progress, steps, speed, stop, phase),
    node("div", { class: "row" },
      node("div", {}, node("div", { class: "bar", role: "group", "aria-label": "losses" }, "losses", ...toggles), losses, key),
      gamePart, node("div", { class: "column" }, usage, perplexity)),
    node("div", { class: "row", style: "margin-top:8px" }, mapPart, picturePart));

  function drawProgress() {
    const [step, all, said, left] = ["step", "steps", "phase", "seconds_left"].map((key) => model.get(key));
    const name = !alive(model) && (said === "training" || said === "stopping") ? "ended" : said;
    progress.max = all; progress.value = step;
    steps.textContent = `step ${count(step)} of ${count(all)}`;
    const rate = model.get("images_per_second"), busy = name === "training" || name === "stopping";
    speed.textContent = [rate > 0 && `${rate.toFixed(rate < 10 ? 1 : 0)} images/s`,
      name === "training" && left >= 0 && `${duration(left)} left`].filter(Boolean).join(" · ");
    phase.textContent = (PHASES[name] ?? String)(step, all);
    stop.disabled = name !== "training";
    stop.style.display = busy ? "" : "none";
    box.dataset.phase = name;
  }

  function drawCurves() {
    const weighted = chosen.losses === "weighted";
    toggles.forEach((button) => button.setAttribute("aria-pressed", String(button.textContent === chosen.losses)));
    const names = model.get("series"), numbers = f32(model.get("curves")), length = names.length ? numbers.length / names.length : 0;
    const column = (name) => {
      const place = names.indexOf(name);
      return place < 0 ? null : Float32Array.from({ length }, (_, point) => numbers[point * names.length + place]);
    };
    const x = column("step") ?? new Float32Array(), xrange = [0, x.at(-1) ?? 1], xlabel = "step", played = model.get("played"), weights = model.get("weights");
    const line = (name, y, style = {}) => ({ name, x, y, ...style });
    const raw = names.slice(3).filter((name) => name !== "total" && name !== "adversarial_weight" && !played.includes(name));
    const shown = weighted ? [...raw.filter((name) => name in weights), ...["adversarial"].filter((name) => names.includes(name))] : raw;
    const own = column("adversarial_weight");  // it changes from step to step
    const terms = shown.map((name) => {
      const y = column(name);
      return line(name, weighted ? y.map((value, point) => value * (name === "adversarial" ? own[point] : weights[name])) : y);
    });
    if (names.includes("total")) terms.push(line("total", column("total"), { color: theme(box).ink }));
    const ylog = !terms.some((term) => term.y.some((value) => value <= 0)), axis = ylog ? "" : ", linear axis: some are not above 0";
    linePlot(losses, terms, { width: 400, height: 250, ylog, xrange, xlabel, ylabel: (weighted ? "loss × weight" : "loss") + axis });
    losses.setAttribute("aria-label", `${weighted ? "weighted" : "raw"} losses over steps${axis}: ${terms.map((term) => term.name).join(", ")}`);
    const colours = terms.map((term, number) => term.color ?? LINES[number % LINES.length]);
    key.replaceChildren(legend(terms.map((term) => term.name), colours));
    const small = { width: 300, height: 140, xrange, xlabel };
    linePlot(usage, length ? [line("usage", column("usage").map((share) => 100 * share), { color: LINES[2] })] : [],
      { ...small, yrange: [0, 103], ylabel: "codes in use, %" });
    linePlot(perplexity, length ? [line("perplexity", column("perplexity"), { color: LINES[3] })] : [],
      { ...small, yrange: [0, length ? 1.05 * Math.max(...column("perplexity")) : 1], ylabel: "perplexity, codes" });
    usage.setAttribute("aria-label", "codes in use over steps"); perplexity.setAttribute("aria-label", "perplexity over steps");
    const players = played.filter((name) => names.includes(name));
    gamePart.style.display = players.length ? "" : "none";
    if (players.length) {
      linePlot(game, players.map((name) => line(name, column(name))), { width: 300, height: 250, xrange, xlabel, ylabel: "tokenizer and discriminator" });
      game.setAttribute("aria-label", `over steps: ${players.join(", ")}`);
      gameKey.replaceChildren(legend(players));
    }
    box.dataset.points = length; box.dataset.paints = Number(box.dataset.paints ?? 0) + 1;
  }

  function drawCounts() {
    const sizes = model.get("levels"), all = u32(model.get("counts"));
    mapPart.style.display = all.length ? "" : "none";
    if (!all.length) return;
    const level = Math.min(chosen.level, sizes.length - 1);
    levels.style.display = sizes.length > 1 ? "" : "none";
    if (levels.options.length !== sizes.length) levels.replaceChildren(...sizes.map((_, number) => node("option", { selected: number === level }, `level ${number}`)));
    levels.selectedIndex = level;
    const first = sizes.slice(0, level).reduce((sum, size) => sum + size, 0), values = all.subarray(first, first + sizes[level]);
    map.set({ values, columns: Math.ceil(Math.sqrt(values.length)) });
    if (map.cursor >= 0) map.hover(map.cursor);  // its number has changed
  }

  function readMap() {
    const dead = map.values.reduce((sum, value) => sum + (value === 0), 0);
    const text = `Tokens of each code since the report before; brighter: more, on a log scale; ${map.reading("chosen by none")}, `
      + `${count(dead)} of ${count(map.values.length)}.`;
    if (codes.textContent !== text) codes.textContent = text;
  }

  function drawPicture() {
    const there = model.get("pictures").byteLength > 0;
    picturePart.style.display = there ? "" : "none";
    if (!there) return;
    setPicture(picture, model.get("pictures"), "originals, and below them their reconstructions");
    pictureText.textContent = `Originals, and below them their reconstructions at step ${count(model.get("pictures_step"))}.`;
  }

  const redraw = () => { drawCurves(); drawCounts(); };
  const [laterProgress, laterCurves, laterCounts, laterPicture] = [drawProgress, drawCurves, drawCounts, drawPicture].map(later);
  drawProgress(); redraw(); drawPicture();
  chosen.views.add(redraw);
  const stopListening = listen(model, {
    "change:step": laterProgress, "change:phase": laterProgress, "change:images_per_second": laterProgress,
    "change:seconds_left": laterProgress, "change:curves": laterCurves, "change:counts": laterCounts, "change:pictures": laterPicture,
  });
  box.addEventListener("live", drawProgress);
  const stopTheme = onTheme(box, redraw);
  return () => { chosen.views.delete(redraw); stopListening(); stopTheme(); stopFrame(); setPicture(picture, null); };
} };
