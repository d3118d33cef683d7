// Shared by the widgets that compare pictures: pixels of PNG files, maps of how far two pictures are apart, enlargements.

// Decode the bytes of a PNG file: a canvas of the picture's own size, and its pixels. null where there is none.
async function picture(view) {
  if (!bytes(view).length) return null;
  const decoded = await bitmap(view), canvas = node("canvas");
  [canvas.width, canvas.height] = [decoded.width, decoded.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(decoded, 0, 0);
  decoded.close();  // or its memory stays until the page is tidied
  const { width, height } = canvas;
  return { canvas, width, height, data: context.getImageData(0, 0, width, height).data };
}

// The mean over the channels of the absolute difference of two pictures, as a canvas; `scale`, of the range 0 to 1, is where
// the colours end.
function errorMap(a, b, scale) {
  const canvas = node("canvas"), made = new ImageData(a.width, a.height), table = Array.from({ length: 766 }, (_, sum) => heat(sum / 765 / scale));
  [canvas.width, canvas.height] = [a.width, a.height];
  for (let at = 0; at < made.data.length; at += 4) {
    const sum = Math.abs(a.data[at] - b.data[at]) + Math.abs(a.data[at + 1] - b.data[at + 1]) + Math.abs(a.data[at + 2] - b.data[at + 2]);
    made.data.set([...table[sum], 255], at);
  }
  canvas.getContext("2d").putImageData(made, 0, 0);
  return { canvas, width: a.width, height: a.height };
}

// How many times a picture is enlarged to be about `side` CSS pixels: a whole number, so that its pixels stay equal squares.
const enlargement = (shown, side) => {
  const longer = Math.max(shown.width, shown.height);
  return longer <= side ? Math.floor(side / longer) : side / longer;
};

// Draw a picture, or the part [x, y, width, height] of it, over a whole canvas of a size in CSS pixels; returns the context.
function paint(canvas, shown, width, height, part = [0, 0, shown.width, shown.height]) {
  const context = sized(canvas, width, height);
  context.imageSmoothingEnabled = width < part[2];
  context.drawImage(shown.canvas, ...part, 0, 0, width, height);
  return context;
}

// Draw a picture over what a canvas shows, up to a line so many pixels from the left; returns these.
function wipe(canvas, shown, share, width, height) {
  const context = canvas.getContext("2d"), split = Math.round(share * width);
  context.save();
  context.beginPath(); context.rect(0, 0, split, height); context.clip();
  context.drawImage(shown.canvas, 0, 0, width, height);
  context.restore();
  context.fillStyle = "#fff"; context.fillRect(split - 2, 0, 4, height);  // black between white: seen on any picture
  context.fillStyle = "#000"; context.fillRect(split - 1, 0, 2, height);
  return split;
}

// Move the line of a wipe by pointer and keys. move(share) is told where to, done() when the pointer is let go; the line of a
// canvas rests where `moves` says so; get() tells where it is, step(event) how far a key moves it.
function wipeBy(canvas, { get, move, done = () => {}, step, moves = () => true }) {
  const drag = (event) => { if (moves() && event.buttons & 1) move(pointed(canvas, event)[0]); };
  canvas.addEventListener("pointerdown", (event) => {
    if (!plain(event) || !moves()) return;
    canvas.setPointerCapture(event.pointerId);
    drag(event);
  });
  canvas.addEventListener("pointermove", drag);
  canvas.addEventListener("pointerup", done);
  canvas.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: get() - step(event), ArrowRight: get() + step(event), Home: 0, End: 1 }[event.key];
    if (to === undefined || !plain(event)) return;
    keepEvent(event);
    move(Math.min(Math.max(to, 0), 1));
    done();
  });
}

// Outline a rectangle so that it is seen on any picture: black between white.
function outline(context, x, y, width, height, thick = 1.5) {
  context.strokeStyle = "#fff"; context.lineWidth = thick + 2; context.strokeRect(x, y, width, height);
  context.strokeStyle = "#000"; context.lineWidth = thick; context.strokeRect(x, y, width, height);
}

// The point of a canvas under the pointer, as shares of its width and height in [0, 1].
function pointed(canvas, event) {
  const box = canvas.getBoundingClientRect(), within = (share) => Math.min(Math.max(share, 0), 1);
  return [within((event.clientX - box.left) / box.width), within((event.clientY - box.top) / box.height)];
}

// The colours of an error map beside the numbers that they stand for.
function errorBar(scale, what = "error") {
  const bar = node("canvas", { role: "img", "aria-label": `colours from 0 to ${scale}`, style: "display:inline-block;vertical-align:middle" });
  drawColours(bar, 96, 10);
  return node("p", { class: "caption scale" }, `${what}: mean over the channels, colours from 0 `, bar, ` to ${scale} or more, of a range 0 to 1`);
}

const decibels = (psnr) => Number.isFinite(psnr) ? `${psnr.toFixed(1)} dB` : "exact";
