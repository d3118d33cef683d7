// A reader's own picture: dropped, pasted, chosen as a file or taken by the camera, and made small here, so that little travels
// to the kernel. Formats are those of the browser, which turns photographs as their camera says. Nothing leaves the machine.

const MAX_MEGAPIXELS = 120;  // 4 bytes a pixel while it is made small
const MAX_BYTES = 400e6;  // a file has no more
const SENT_PIXELS = 2e6;  // 3 bytes each: a message to the kernel holds 10 MB

// The size of a picture file, turned as its camera says, without decoding it: {width, height, image}; null: no picture.
async function measured(file) {
  const image = new Image(), address = URL.createObjectURL(file);
  try {
    await new Promise((loaded, failed) => Object.assign(image, { onload: loaded, onerror: failed, src: address }));
  } catch {
    URL.revokeObjectURL(address);
    return null;
  }
  // Drawings may have no size of their own: as large as is useful.
  const [width, height] = image.naturalWidth ? [image.naturalWidth, image.naturalHeight] : [1024, 1024];
  return { image, width, height, release: () => URL.revokeObjectURL(address) };
}

// How large a picture travels: its short side is `short` pixels at most, and all of it at most `SENT_PIXELS`.
function travelling(width, height, short) {
  const times = Math.min(1, short / Math.min(width, height), Math.sqrt(SENT_PIXELS / (width * height)));
  return [width, height].map((side) => Math.max(1, Math.round(side * times)));
}

// The pixels of something that a canvas draws, over white, made small: bytes of red, green and blue. It stands on its own, for it
// runs beside the page too.
function smallPixels(source, width, height, canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height), rgb = new Uint8Array(3 * width * height);
  for (let at = 0, to = 0; at < data.length; at += 4) { rgb[to++] = data[at]; rgb[to++] = data[at + 1]; rgb[to++] = data[at + 2]; }
  return rgb;
}

// Decode a file and make it small beside the page, so that the page does not stand still.
const SHRINKER = `${smallPixels}
onmessage = async ({ data: { file, width, height } }) => {
  const made = await createImageBitmap(file, { resizeWidth: width, resizeHeight: height, resizeQuality: "high" });
  const rgb = smallPixels(made, width, height, new OffscreenCanvas(width, height));
  postMessage(rgb, [rgb.buffer]);
};
onunhandledrejection = (event) => { throw event.reason; };`;
async function shrunkBeside(file, width, height) {
  const address = URL.createObjectURL(new Blob([SHRINKER], { type: "text/javascript" })), worker = new Worker(address);
  try {
    return await new Promise((done, failed) => {
      worker.onmessage = ({ data }) => done(data);
      worker.onerror = (event) => { event.preventDefault(); failed(event); };
      worker.postMessage({ file, width, height });
    });
  } finally {
    worker.terminate();
    URL.revokeObjectURL(address);
  }
}

// A file as small pixels; throws a sentence where it is no picture, or too large a one.
async function pictureOf(file, short) {
  const name = file.name || "the picture";
  if (!file.size) throw `${name} is empty: there is no picture in it.`;
  if (file.size > MAX_BYTES) throw `${name} has ${count(Math.round(file.size / 1e6))} MB, but at most ${MAX_BYTES / 1e6} MB are read.`;
  const found = await measured(file);
  if (!found) throw `${name} is no picture that this browser can read: JPEG, PNG, WebP, GIF, AVIF and SVG are.${/\.(hei[cf]|tiff?)$/i.test(name) ? " Make a JPEG of it first, or show(file) it from Python." : ""}`;
  try {
    const { width, height, image } = found, megapixels = width * height / 1e6;
    if (megapixels > MAX_MEGAPIXELS) {
      throw `${name} has ${count(width)} × ${count(height)} pixels, but at most ${MAX_MEGAPIXELS} million are read here: make it smaller first, or show(file) it from Python.`;
    }
    const [wide, high] = travelling(width, height, short);
    return { name, ...await shrunk(file, image, wide, high), original: [width, height] };
  } finally {
    found.release();
  }
}

// Made small beside the page where the browser can; drawings, and what it cannot, on the page. A canvas of it, and its bytes.
async function shrunk(file, image, width, height) {
  const canvas = node("canvas", { width, height });
  try {
    if (file.type === "image/svg+xml") throw "decoded on pages only";
    const data = await shrunkBeside(file, width, height), context = canvas.getContext("2d"), made = context.createImageData(width, height);
    for (let at = 0, from = 0; at < made.data.length; at += 4) { made.data.set([data[from++], data[from++], data[from++], 255], at); }
    context.putImageData(made, 0, 0);
    return { canvas, width, height, data };
  } catch {
    return { canvas, width, height, data: smallPixels(image, width, height, canvas) };
  }
}

// The first picture among what was dropped or pasted: a file, or a promise of one; a sentence is thrown where there is none.
function fileAmong(transfer, how) {
  const files = [...transfer?.files ?? []], pictures = files.filter((one) => one.type.startsWith("image/"));
  if (pictures.length > 1) return new File([pictures[0]], `${pictures[0].name} (the first of ${pictures.length} pictures)`, { type: pictures[0].type });
  const file = pictures[0] ?? files[0], items = [...transfer?.items ?? []];
  const folder = !pictures.length && items.map((item) => item.webkitGetAsEntry?.()).find((entry) => entry?.isDirectory);
  if (folder) throw `${folder.name} is a folder: ${how === "pasted" ? "copy" : "drop"} one picture of it.`;
  if (file) return file;
  const shown = new DOMParser().parseFromString(transfer?.getData("text/html") ?? "", "text/html").querySelector("img[src]");
  if (shown) return fileAt(new URL(shown.getAttribute("src"), location.href), shown.alt);
  throw transfer?.types?.length ? `What was ${how} is text, not a picture: ${how === "pasted" ? "copy a picture, or " : ""}choose a file.`
    : `Nothing was ${how} that is a picture.`;
}

// A picture of this page or of its server, an output of a cell perhaps; to others nothing is sent.
async function fileAt(address, name) {
  const elsewhere = `This is the address of a picture on ${address.host}, not the picture: copy the picture there and paste it here, or save it and choose the file.`;
  if (!/^(data|blob):$/.test(address.protocol) && address.origin !== location.origin) throw elsewhere;
  const answer = await fetch(address).catch(() => null);
  if (!answer?.ok) throw "The picture could not be read from the page: save it and choose the file.";
  return new File([await answer.blob()], name || "picture of the page", { type: answer.headers.get("content-type") ?? "" });
}

// The promise of a file that is dragged from JupyterLab's list, in events of its own; null: something else is dragged.
function fileOfLab(dragged) {
  if (!dragged?.hasData("application/x-jupyter-icontents")) return null;
  const one = dragged.getData("application/x-jupyter-icontentsrich");
  return async () => {
    if (!one || one.model.type === "directory") throw `${one?.model.name ?? "This"} is a folder: drop one picture of it.`;
    const { name, mimetype, format, content } = await one.withContent();
    const data = format === "base64" ? await (await fetch(`data:;base64,${content.replace(/\s/g, "")}`)).blob() : content;
    return new File([data], name, { type: mimetype ?? "" });
  };
}

// Let a view take pictures: by drop anywhere on `box`, by paste while the focus is in it, as a file, by the camera. `take` gets
// each, or a promise that is rejected with a sentence. Returns {controls, viewfinder, stop}: elements, and what stops it.
function intake(box, take) {
  const given = (find) => { try { take(find()); } catch (sentence) { take(Promise.reject(sentence)); } };
  const input = node("input", { type: "file", accept: "image/*", hidden: true, "aria-label": "picture file",
    onchange: () => { if (input.files[0]) take(input.files[0]); input.value = ""; } });
  const choose = node("button", { onclick: () => input.click() }, "choose a picture …");
  const viewfinder = camera(take);
  const over = (event) => {
    if (![...event.dataTransfer?.types ?? []].length) return;
    keepEvent(event);
    event.dataTransfer.dropEffect = "copy";
    box.classList.add("receiving");
  };
  const leave = (event) => { if (!box.contains(event.relatedTarget)) box.classList.remove("receiving"); };
  const drop = (event) => {
    keepEvent(event);  // the browser would open the picture in place of the notebook
    box.classList.remove("receiving");
    given(() => fileAmong(event.dataTransfer, "dropped"));
  };
  const paste = (event) => {
    if (event.target.matches?.("input:not([type=file]), textarea") && !event.clipboardData?.files.length) return;  // into a field
    keepEvent(event);
    given(() => fileAmong(event.clipboardData, "pasted"));
  };
  const overOfLab = (event) => {
    if (!fileOfLab(event.mimeData)) return;
    keepEvent(event);
    event.dropAction = event.proposedAction;
    box.classList.add("receiving");
  };
  const dropOfLab = (event) => {
    const file = fileOfLab(event.mimeData);
    if (!file) return;
    keepEvent(event);
    event.dropAction = event.proposedAction;
    box.classList.remove("receiving");
    take(file());
  };
  const events = { dragenter: over, dragover: over, dragleave: leave, drop, paste,
    "lm-dragenter": overOfLab, "lm-dragover": overOfLab, "lm-dragleave": leave, "lm-drop": dropOfLab };
  for (const [name, act] of Object.entries(events)) box.addEventListener(name, act);
  const stop = () => {
    viewfinder.stop();
    for (const [name, act] of Object.entries(events)) box.removeEventListener(name, act);
  };
  return { controls: [choose, input, viewfinder.button], viewfinder: viewfinder.element, stop };
}
