// A picture by the camera: a viewfinder that opens in the view, and closes with the picture. `take` gets a promise of the
// picture as a file, rejected with a sentence. Returns {button, element, stop}.
function camera(take) {
  const element = node("div", { class: "column", hidden: true, style: "align-items:flex-start;margin-bottom:8px" });
  let stream = null, leave = null, turn = 0;  // number of the last time that the camera was asked for or left
  const close = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null; element.hidden = true; element.replaceChildren();
  };
  async function open(mine) {
    if (!navigator.mediaDevices?.getUserMedia) throw "This page may not use a camera: browsers allow that on https and on localhost only.";
    let opened;
    try {
      opened = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    } catch (error) {
      throw { NotAllowedError: "The camera may not be used: the browser, or whoever it asked, did not allow it.",
        NotFoundError: "There is no camera here." }[error.name] ?? `The camera cannot be used: ${error.message}`;
    }
    if (mine === turn) { stream = opened; return; }
    opened.getTracks().forEach((track) => track.stop());  // meanwhile asked for again, or the view is gone
    throw "";
  }
  async function snapshot() {
    const mine = ++turn;
    leave?.(""); close();
    await open(mine);
    const video = node("video", { autoplay: true, playsinline: true, style: "width:320px;max-width:100%" });
    video.muted = true; video.srcObject = stream;
    try {
      await new Promise((done, left) => {
        leave = left;
        const shoot = node("button", { onclick: () => { if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) done(); } }, "take the picture");
        element.replaceChildren(video, node("div", { class: "bar" }, shoot, node("button", { onclick: () => left("") }, "close the camera")));
        element.onkeydown = (event) => { if (event.key === "Escape") left(""); };
        element.hidden = false;
        shoot.focus();
      });
      const canvas = node("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      return new File([await new Promise((done) => canvas.toBlob(done))], "camera picture", { type: "image/png" });
    } finally { if (mine === turn) close(); }
  }
  const button = node("button", { onclick: () => take(snapshot()), title: "opens the camera of this machine in the view" }, "camera");
  return { button, element, stop: () => { turn++; leave?.(""); close(); } };
}
