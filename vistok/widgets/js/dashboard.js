// TrainingDashboard: what Python sends is drawn anew, at most once a frame. What is chosen here - raw or weighted losses, the
// level - is the page's own; only the stop button speaks to Python.
const PHASES = { ready: () => "not started", training: () => "training", stopping: () => "stopping after this step …",
  stopped: (step) => `stopped: saved at step ${count(step)}`, finished: (step) => `finished: saved at step ${count(step)}`,
  failed: (step) => `failed at step ${count(step)}`,
  ended: (step, all) => `the training ended with its kernel at about step ${count(step)} of ${count(all)}; running the cell again goes on from its last checkpoint` };

// As `span` of system/progress.py says it, whose bar stands beside the dashboard.
const duration = (seconds, minutes = Math.round(seconds / 60)) => seconds < 99.5 ? `${Math.round(seconds)} s`
  : minutes < 100 ? `${minutes} min` : `${count(Math.floor(minutes / 60))} h ${minutes % 60} min`;

// Run to what was chosen for it, for all its views: at its end a training is shown anew, and the choice stays.
const CHOICES = new Map();

export default { initialize, render({ model, el }) {
  const [box, stopFrame] = frame(el, model, "training-dashboard", true);

  const progress = node("progress", { "aria-label": "steps taken", style: "flex:1 1 120px;max-width:220px" });
  const steps = node("span", { class: "number steps" }), speed = node("span", { class: "number caption speed" });
  const phase = node("span", { class: "phase", role: "status" });
  const stop = node("button", { class: "stop", onclick: () => { stop.disabled = true; model.send({ stop: true }); } }, "■ stop and save");

  const chosen = CHOICES.get(model.get("name")) ?? { losses: "raw", axis: "log", smoothing: 0, level: 0, views: new Set() };
  CHOICES.set(model.get("name"), chosen);
  const choose = (choice) => { Object.assign(chosen, choice); chosen.views.forEach((draw) => draw()); };
  const [kinds, showKind] = choice("losses", ["raw", "weighted"], (losses) => choose({ losses }));
  const [axes, showAxis] = choice("axis of the losses", ["log", "linear"], (axis) => choose({ axis }), "axis");
  const [smoothing, showSmoothing] = smoothingSlider((weight) => choose({ smoothing: weight }));
  const chart = (name) => node("canvas", { role: "img", class: name });
  const [losses, game, usage, perplexity] = ["losses", "game", "usage", "perplexity"].map(chart);
  const key = node("div"), gameKey = node("div"), gamePart = node("div", {}, game, gameKey);
  const ofCodes = node("div", { class: "small" }, node("div", {}, usage), node("div", {}, perplexity));
  const without = node("p", { class: "caption without" }, "There is no codebook, and so no usage.");
  const charts = node("div", { class: "charts" }, node("div", {}, losses, key), gamePart, ofCodes, without);

  const map = new CellMap({ width: 200, height: 200, label: "codebook, one cell a code", describe: (code) =>
    `code ${code}: ${count(map.values[code])} token${map.values[code] === 1 ? "" : "s"}${map.values[code] ? "" : ", dead"}`, onDraw: readMap });
  const levels = node("select", { "aria-label": "level", onchange: () => choose({ level: levels.selectedIndex }) });
  const codes = node("p", { class: "caption codes" });
  const picture = node("img", { class: "pixels" }), pictureText = node("p", { class: "caption pictured" });
  const scrubber = node("input", { type: "range", min: 0, step: 1, class: "scrubber", "aria-label": "reconstructions at step", style: "flex:1;max-width:360px",
    oninput: () => { const steps = model.get("pictured_steps"); scrub(scrubber.valueAsNumber === steps.length - 1 ? -1 : steps[scrubber.valueAsNumber]); } });
  const latest = node("button", { class: "latest", title: "follow the training again", onclick: () => scrub(-1) }, "latest");
  const scrubbing = node("div", { class: "bar", style: "margin:4px 0 0" }, scrubber, latest);
  const mapPart = node("div", { class: "column" }, levels, map.element, codes);
  const picturePart = node("div", {}, picture, pictureText, scrubbing);
  const state = node("div", { class: "state", style: "margin-top:8px" }, mapPart, picturePart);

  box.append(
    node("div", { class: "bar" }, progress, steps, speed, stop, phase),
    node("div", { class: "bar choices" }, kinds, axes, smoothing), charts, state);

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

  // The width that a chart's column has; before it stands on the page, a usual one.
  const wide = (canvas, usual) => Math.max(200, Math.floor(canvas.parentElement.clientWidth) || usual);

  function drawCurves() {
    const weighted = chosen.losses === "weighted";
    showKind(chosen.losses); showAxis(chosen.axis); showSmoothing(chosen.smoothing);
    const names = model.get("series"), numbers = f32(model.get("curves")), length = names.length ? numbers.length / names.length : 0;
    const column = (name) => {
      const place = names.indexOf(name);
      return place < 0 ? null : Float32Array.from({ length }, (_, point) => numbers[point * names.length + place]);
    };
    const x = column("step") ?? new Float32Array(), xrange = [0, x.at(-1) ?? 1], xlabel = "step", against = model.get("adversarial"), weights = model.get("weights");
    const line = (name, y, style = {}) => smooth({ name, x, y, ...style }, chosen.smoothing);
    const raw = names.slice(3).filter((name) => name !== "total" && name !== "adversarial_weight" && !against.includes(name));
    const shown = weighted ? [...raw.filter((name) => name in weights), ...["adversarial"].filter((name) => names.includes(name))] : raw;
    const own = column("adversarial_weight");  // it changes from step to step
    const terms = shown.map((name) => {
      const y = column(name);
      return line(name, weighted ? y.map((value, point) => value * (name === "adversarial" ? own[point] : weights[name])) : y);
    });
    if (names.includes("total")) terms.push(line("total", column("total"), { color: theme(box).ink }));
    const above = !terms.some((term) => term.y.some((value) => value <= 0)), ylog = chosen.axis === "log" && above;
    const axis = above || chosen.axis === "linear" ? "" : ", linear axis: some are not above 0";
    const players = against.filter((name) => names.includes(name));
    gamePart.style.display = players.length ? "" : "none";
    charts.classList.toggle("adversarial", players.length > 0);
    linePlot(losses, terms, { width: wide(losses, 400), height: 232, ylog, xrange, xlabel, ylabel: (weighted ? "loss × weight" : "loss") + axis });
    losses.setAttribute("aria-label", `${weighted ? "weighted" : "raw"} losses over steps${axis}: ${terms.map((term) => term.name).join(", ")}`);
    key.replaceChildren(legendOf(terms));
    const codebooks = model.get("levels").length, small = { height: 110, xrange, xlabel };
    ofCodes.style.display = codebooks ? "" : "none";
    without.style.display = codebooks ? "none" : "";
    linePlot(usage, length ? [line("usage, %", column("usage").map((share) => 100 * share), { color: LINES[2], dash: [] })] : [],
      { ...small, width: wide(usage, 300), yrange: [0, 103], ylabel: "codes in use, %" });
    linePlot(perplexity, length ? [line("perplexity", column("perplexity"), { color: LINES[3], dash: [] })] : [],
      { ...small, width: wide(perplexity, 300), yrange: [0, length ? 1.05 * Math.max(...column("perplexity")) : 1], ylabel: "perplexity, codes" });
    usage.setAttribute("aria-label", "codes in use over steps"); perplexity.setAttribute("aria-label", "perplexity over steps");
    if (players.length) {
      linePlot(game, players.map((name) => line(name, column(name))), { width: wide(game, 300), height: 232, xrange, xlabel, ylabel: "tokenizer and discriminator" });
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

  const scrub = (step) => save(model, { shown_step: step });

  const seen = new Map();  // step to the reconstructions that came here: scrubbing asks Python only for what is missing

  // The latest reconstructions, or those of the step that somebody went back to.
  function drawPicture() {
    const steps = model.get("pictured_steps"), newest = model.get("pictures_step");
    const there = model.get("pictures").byteLength > 0;
    picturePart.style.display = there ? "" : "none";
    if (!there) return;
    seen.set(newest, bytes(model.get("pictures")));
    for (const step of seen.keys()) if (step !== newest && !steps.includes(step)) seen.delete(step);  // Python has let it go
    const back = model.get("shown_step"), shown = alive(model) && steps.includes(back) ? back : newest;  // the others are Python's
    scrubbing.style.display = steps.length > 1 && alive(model) ? "" : "none";
    Object.assign(scrubber, { max: steps.length - 1, value: Math.max(0, steps.indexOf(shown)) });
    scrubber.setAttribute("aria-valuetext", `step ${count(shown)}`);
    latest.disabled = shown === newest;
    const what = `${model.get("pictured") || "pictures"} at step ${count(shown)}`;
    if (seen.has(shown)) setPicture(picture, seen.get(shown), what);
    else if (alive(model)) model.send({ pictures: shown });
    const text = what[0].toUpperCase() + what.slice(1);
    pictureText.textContent = seen.has(shown) ? `${text}.` : `${text}: asking Python for them …`;
    picture.style.visibility = seen.has(shown) ? "" : "hidden";
  }

  // Python's answer: reconstructions that this page has not seen.
  function takePicture(content, buffers) {
    if (content.pictures === undefined) return;
    seen.set(content.pictures, bytes(buffers[0]));
    drawPicture();
  }

  // As large as there is room, up to twice, in halves of a pixel; smooth only where it has to be smaller than it is.
  function sizePicture() {
    const room = picturePart.clientWidth, own = picture.naturalWidth;
    if (!room || !own) return;
    picture.style.width = own <= room ? `${own * Math.min(2, Math.floor(2 * room / own) / 2)}px` : "100%";
    picture.classList.toggle("pixels", own <= room);
  }
  picture.addEventListener("load", sizePicture);

  const redraw = () => { drawCurves(); drawCounts(); };
  const [laterProgress, laterCurves, laterCounts, laterPicture] = [drawProgress, drawCurves, drawCounts, drawPicture].map(later);
  drawProgress(); redraw(); drawPicture();
  chosen.views.add(redraw);
  const stopListening = listen(model, {
    "change:step": laterProgress, "change:phase": laterProgress, "change:images_per_second": laterProgress,
    "change:seconds_left": laterProgress, "change:curves": laterCurves, "change:counts": laterCounts, "change:pictures": laterPicture,
    "change:pictured_steps": laterPicture, "change:shown_step": drawPicture, "msg:custom": takePicture,
  });
  box.addEventListener("live", () => { drawProgress(); drawPicture(); });
  const stopTheme = onTheme(box, redraw);
  const stopWidth = onWidth(box, () => { laterCurves(); sizePicture(); });
  const stopCalling = comeIntoView(box, model);
  return () => { chosen.views.delete(redraw); stopWidth(); stopCalling(); stopListening(); stopTheme(); stopFrame(); setPicture(picture, null); };
} };

// When a training begins, show it, and keep it on the screen while it grows: "Run all" scrolls to the last cell, far below. Whoever
// scrolls, types or points from then on stays where he is, and so does whoever has gone elsewhere before: he is not where the notebook
// took him, which is its active cell. The focus stays where it is.
function comeIntoView(box, model) {
  if (!model.get("unseen")) return () => {};
  save(model, { unseen: false });
  const signs = ["wheel", "touchmove", "keydown", "pointerdown"];
  let placed = false;
  const growth = new ResizeObserver(() => {
    if (!box.offsetHeight) return;
    const active = box.closest(".jp-Notebook")?.querySelector(".jp-Cell.jp-mod-active"), rect = active?.getBoundingClientRect();
    if (!placed && rect && (rect.bottom < 0 || rect.top > window.innerHeight || active.querySelector(".cm-focused"))) return stop();
    placed = true;
    box.scrollIntoView({ block: "nearest" });
  });
  const stop = () => { growth.disconnect(); signs.forEach((sign) => document.removeEventListener(sign, stop, true)); };
  signs.forEach((sign) => document.addEventListener(sign, stop, { capture: true, passive: true }));
  growth.observe(box);
  return stop;
}
