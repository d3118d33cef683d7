// Whether Python is behind a view, what a view does where it is not, and what is saved of views for a day without it.

const GONE = "The kernel that made this view is gone: what needs Python needs the cell to be run again.";
const WIDGET_VIEW = "application/vnd.jupyter.widget-view+json", WIDGET_STATE = "application/vnd.jupyter.widget-state+json";

// A view's layout is a model of its own, connected as the view is, and says so; where there is none, Python is there.
const alive = (model) => model.get("layout")?.comm_live ?? true;

// Without Python nothing may look as if it were done: what only Python could deal with is refused, and the controls are drawn again
// as they were. anywidget makes a model for each view, whose methods are replaced here. ownTraits: names of the traits that the page
// deals with by itself, or true: all; refuse() tells the reader.
function refuseWithoutPython(model, ownTraits, refuse) {
  const { on, off, set, send } = model, heard = new Set();
  const own = (name) => name === "message" || ownTraits === true || ownTraits.includes(name);
  let drawing = false;  // a control that is drawn again may ask for more, and is refused in silence: or the page would never come to rest
  const draw = () => { drawing = true; try { heard.forEach((act) => act()); } finally { drawing = false; } };
  const refused = () => { if (!drawing) { refuse(); queueMicrotask(draw); } };
  Object.assign(model, {
    on: (event, act) => { if (event.startsWith("change:")) heard.add(act); on.call(model, event, act); },
    off: (event, act) => { heard.delete(act); off.call(model, event, act); },
    set: (name, value) => alive(model) || own(name) ? set.call(model, name, value) : refused(),
    send: (...content) => alive(model) ? send.apply(model, content) : refused(),
  });
}

// Let JupyterLab save with a notebook what its outputs show of widgets, so that a reader who comes back without the kernel finds
// them. JupyterLab has this as a setting, off at first, that loses the views of an earlier kernel at the next save. Other
// front ends have no such manager, and see the picture. The bytes of the traits that a view lists in `unsaved` are left out.
function saveWithNotebook(manager) {
  const context = manager?.context, done = Symbol.for("vistok: saves with the notebook");
  if (manager?.[done] || !context?.saveState || !manager.get_state_sync) return;
  manager[done] = true;
  const known = {};

  function take() {  // connected widgets only: those of an earlier kernel are as they were taken
    for (const [id, widget] of Object.entries(manager.get_state_sync({ drop_defaults: true }).state)) {
      const unsaved = widget.state.unsaved ?? [];
      for (const buffer of widget.buffers ?? []) if (unsaved.includes(buffer.path[0])) buffer.data = "";
      known[id] = widget;
    }
  }
  function write() {
    const state = {}, all = { ...savedModels(context), ...known };  // a file that was read anew brings its own
    const add = (id) => {
      if (id in state || !(id in all)) return;
      state[id] = all[id];
      // In a box, or among what an Output or `interact` has displayed.
      for (const [, other] of JSON.stringify(all[id].state).matchAll(/"(?:IPY_MODEL_|model_id":")(\w+)"/g)) add(other);
    };
    shownModels(context).forEach(add);
    if (JSON.stringify(state) === JSON.stringify(savedModels(context))) return;
    context.model.setMetadata("widgets", { [WIDGET_STATE]: { version_major: 2, version_minor: 0, state } });
  }
  // The manager notices a restart that a reader asks for; one of a kernel that died, and one that is shut down, it does not.
  const disconnect = () => { take(); manager.disconnect(); };
  context.saveState.connect((_, phase) => { if (phase === "started") { take(); write(); } });
  context.sessionContext.statusChanged.connect((_, status) => { if (/restarting|dead/.test(status)) disconnect(); });
  context.sessionContext.kernelChanged.connect((_, { oldValue }) => { if (oldValue) disconnect(); });
}

const savedModels = (context) => context.model.getMetadata("widgets")?.[WIDGET_STATE]?.state ?? {};

// The ids of the models that a notebook's outputs show.
const shownModels = (context) => context.model.toJSON().cells.flatMap((cell) => cell.outputs ?? [])
  .map((output) => output.data?.[WIDGET_VIEW]?.model_id).filter(Boolean);

// When JupyterLab opens a notebook, it reads the widgets of the kernel, then those that were saved. Where
// the kernel connects meanwhile, it may say that all are there before it has read the saved ones, and what is drawn in between says
// "model not found" for good. So once the saved ones are there, such outputs are drawn anew. anywidget calls this for every model.
function initialize({ model }) {
  const manager = model.widget_manager, context = manager?.context, done = Symbol.for("vistok: draws lost views anew");
  if (!context || !manager.restored?.connect || manager[done]) return;
  manager[done] = true;
  manager.restored.connect(() => {
    const clean = !context.model.dirty;
    for (const cell of context.model.cells) if (cell.type === "code") drawLostAnew(cell.outputs, manager);
    if (clean) context.model.dirty = false;
  });
  // A file that is read anew, an earlier version perhaps, shows other views, which JupyterLab does not look for.
  context.fileChanged.connect(() => {
    const saved = savedModels(context);
    if (shownModels(context).some((id) => id in saved && !manager.has_model(id))) manager.restoreWidgets(context.model, { loadKernel: false, loadNotebook: true });
  });
}
function drawLostAnew(outputs, manager) {
  const lost = [...document.querySelectorAll(".jp-OutputArea-output.jupyter-widgets")].some((output) => /model not found/.test(output.textContent));
  for (let place = 0; lost && place < outputs.length; place++) {
    const output = outputs.get(place), id = output.data[WIDGET_VIEW]?.model_id;
    if (id && manager.has_model(id)) outputs.set(place, output.toJSON());
  }
}
