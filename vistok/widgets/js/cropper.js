// The whole picture with the square of it that is seen: dragged with the pointer, moved by arrow keys, sized by a slider; or the
// whole of it is seen, until a square is chosen again.
// Returns {element, preview, stop}; `preview` shows a picture before the kernel has it.
function cropper(model, talk) {
  const SIDE = 160, THINNEST = 20;  // CSS pixels of the longer side, and of the shorter at least, or it could not be dragged
  const SMALLEST = 16;  // pixels of the smallest square
  const name = node("p", { class: "caption file-name", data: { role: "name" } }), size = node("p", { class: "caption number" });
  const canvas = node("canvas", { tabindex: 0, role: "application", data: { picture: "whole" }, style: "cursor:move;touch-action:none",
    "aria-label": "the whole picture; arrow keys move the square that is seen, plus and minus size it" });
  const zoom = node("input", { type: "range", min: 0, max: 1, step: 0.01, style: "width:100%;min-width:0;box-sizing:border-box", oninput: () => sizeTo(Number(zoom.value)) });
  const centre = node("button", { onclick: () => sizeTo(0, true), title: "the largest square in the middle" }, "centre");
  const all = node("input", { type: "checkbox", data: { role: "whole" }, onchange: () => talk.last("see_whole", { whole: all.checked }) });
  const element = node("div", { class: "column cropper" }, name, canvas, size, node("label", { style: "display:flex;gap:6px;align-items:center;width:100%" }, "zoom", zoom), centre,
    node("label", { style: "display:flex;gap:4px;align-items:center", title: "not a square: its short side has the size of the tokenizer's images" }, all, "whole picture"));
  let whole = null, dragged = null, number = 0;
  let loaded = null;  // the kernel's picture that is shown; null: the page's own, which is newer
  let crop, extent, file, pixels, whole_seen;
  const known = () => { [crop, extent, file, pixels, whole_seen] = ["crop", "extent", "picture_name", "picture_size", "whole"].map((trait) => model.get(trait)); };

  const within = ([left, top, side]) => {
    const [width, height] = extent;
    return [Math.round(Math.min(Math.max(left, 0), width - side)), Math.round(Math.min(Math.max(top, 0), height - side)), side];
  };
  function move(wanted) {
    crop = within(wanted); whole_seen = false;
    draw();
    talk.last("crop_to", { left: crop[0], top: crop[1], side: crop[2] });
  }
  const bounds = () => { const most = Math.min(...extent); return [Math.min(SMALLEST, most), most]; };
  function sizeTo(share, middle) {
    const [least, most] = bounds(), side = Math.round(most * (least / most) ** share), [width, height] = extent;
    const [x, y] = middle ? [width / 2, height / 2] : [crop[0] + crop[2] / 2, crop[1] + crop[2] / 2];
    move([x - side / 2, y - side / 2, side]);
  }
  function draw() {
    const [least, most] = bounds();
    zoom.disabled = least >= most;
    zoom.value = least < most ? Math.log(crop[2] / most) / Math.log(least / most) : 0;
    name.textContent = name.title = file;
    size.textContent = `${count(pixels[0])} × ${count(pixels[1])} pixels`;
    if (!whole) return;
    const times = SIDE / Math.max(whole.width, whole.height);
    const [across, up] = [whole.width, whole.height].map((side) => Math.max(side * times, THINNEST)), context = paint(canvas, whole, across, up);
    const [left, top, right, bottom] = whole_seen ? [0, 0, ...extent] : [crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[2]];
    const [x, y, wide, high] = [left / extent[0] * across, top / extent[1] * up, (right - left) / extent[0] * across, (bottom - top) / extent[1] * up];
    all.checked = whole_seen;
    context.fillStyle = "rgba(0,0,0,.5)";  // all but the square
    context.beginPath(); context.rect(0, 0, across, up); context.rect(x, y, wide, high); context.fill("evenodd");
    outline(context, x + 1, y + 1, Math.max(wide - 2, 1), Math.max(high - 2, 1));
    canvas.dataset.crop = crop.join(",");
  }
  const at = (event) => { const [x, y] = pointed(canvas, event), [width, height] = extent; return [x * width, y * height]; };
  canvas.addEventListener("pointerdown", (event) => {
    if (!plain(event)) return;
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = at(event), [left, top, side] = crop;
    const inside = x >= left && x < left + side && y >= top && y < top + side;
    dragged = inside ? [x - left, y - top] : [side / 2, side / 2];  // a click beside it brings it there
    if (!inside) move([x - side / 2, y - side / 2, side]);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const [x, y] = at(event);
    move([x - dragged[0], y - dragged[1], crop[2]]);
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { dragged = null; });
  canvas.addEventListener("keydown", (event) => {
    const step = Math.max(1, crop[2] / (event.shiftKey ? 4 : 16)), [left, top, side] = crop;
    const to = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    const larger = { "+": -0.05, "=": -0.05, "-": 0.05 }[event.key];
    if (!(to || larger) || !plain(event)) return;
    keepEvent(event);
    if (to) move([left + to[0], top + to[1], side]);
    else sizeTo(Math.min(Math.max(Number(zoom.value) + larger, 0), 1));
  });

  async function load() {
    if (talk.behind() || loaded === model.get("preview")) return;  // the kernel still has a picture before the page's
    loaded = model.get("preview");
    const mine = ++number, made = await picture(loaded);
    if (mine !== number || !made) return;
    whole = made;
    known(); draw();
  }
  const kernels = () => { if (!dragged && !talk.behind()) { known(); draw(); } };
  function preview(small) {
    number++; loaded = null;
    whole = small; file = small.name; pixels = small.original; extent = [small.width, small.height]; dragged = null; whole_seen = false;
    const side = Math.min(...extent);
    crop = within([(extent[0] - side) / 2, (extent[1] - side) / 2, side]);
    draw();
  }
  const stop = listen(model, { "change:preview": load, "change:crop": kernels, "change:whole": kernels, "change:answered": () => { kernels(); load(); } });
  known(); draw(); load();
  return { element, preview, stop: () => { number++; stop(); } };
}
