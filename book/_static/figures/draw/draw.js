/* Draw a density: the reader's points, a flow that learns them in the page, and a link that keeps both. */
"use strict";

flowFigures.build.draw = (place) => {
  const { kit, points, pictures, train } = flowFigures;
  const { steps, noise } = train.SETTINGS;
  const MODELS = { realnvp: "RealNVP", planar: "planar" };
  const OWN = "own";
  const spoken = (name) => name.replace("-", " ").replace("gauss", "Gauss");
  const NAMES = Object.fromEntries(points.names.map((name) => [name, spoken(name)]));

  const parts = kit.frame(place, {
    title: "Draw a density",
    formula:
      "<i>R̂</i>(<i>θ</i>) = −<sup>1</sup>⁄<sub><i>n</i></sub> ∑ log <i>p<sub>θ</sub></i>(<i>x<sub>i</sub></i>)",
    note:
      "Draw into the first square with the mouse or a finger: your points take the place of the example, and the " +
      "shade is the density that the flow has learned. Keys: arrows move a pen, Space leaves a dab, Enter sets the " +
      "pen down and lifts it. The second square shows the grid of <i>z</i>, carried to <i>x</i> = <i>f</i>(<i>z</i>).",
    draw,
  });

  /* `source` says where the points come from, `fresh` that the training waits at step 0 to be started. */
  const state = { source: points.names[0], points: null, shown: null, on: false, fresh: true, number: 0 };
  const risks = { realnvp: [], planar: [] };

  // --- the pictures
  const paper = kit.panel(parts, "draw here");
  const heat = kit.canvas(paper, "Density that the flow has learned");
  const dots = kit.canvas(paper, "Your drawing, or the example");
  const grid = kit.canvas(kit.panel(parts, "the grid of z, carried to x"), "Grid of z as the flow bends it");
  const strip = kit.element("div", { className: "flow-strip" });
  parts.drawing.append(strip);
  const curve = kit.canvas(strip, "Risk at each step of the training, with that of one Gaussian");
  paper.classList.add("flow-paper");

  // --- the controls
  const sources = kit.choice(parts, { name: "points", options: { ...NAMES, [OWN]: "my drawing" }, value: state.source });
  const model = kit.choice(parts, { name: "model", options: MODELS, value: "realnvp" });
  const pen = kit.choice(parts, { name: "pen", options: { draw: "draws", rub: "rubs out" }, value: "draw" });
  const seed = kit.element("input", { type: "number", min: 0, max: 9999, step: 1, value: 0, inputMode: "numeric" });
  const word = kit.element("span", { className: "flow-name" }, "seed");
  parts.controls.append(kit.element("label", { className: "flow-choice" }, word, seed));
  const row = kit.element("div", { className: "flow-buttons" });
  const button = (name, act) => {
    const made = kit.element("button", { type: "button", className: "flow-reset" }, name);
    made.addEventListener("click", act);
    row.append(made);
    return made;
  };
  const go = button("Train", () => {
    if (finished()) begin();
    order(state.on ? "pause" : "go");
  });
  const one = button("One step", () => order("step"));
  button("Reset", () => begin());
  button("Clear", () => take(new Float64Array(0), true));
  button("Copy link", share);
  const said = kit.element("p", { className: "flow-said", role: "status" });
  row.append(said);
  parts.drawing.before(row); // in sight on a phone, too
  go.classList.add("flow-main");

  // --- the training
  let pictured;
  const first = new Promise((resolve) => (pictured = resolve));
  const worker = flowFigures.trainer((message) => {
    if (message.run !== state.number) return; // of a training that was left
    state.shown = message;
    if (message.failed || message.step === steps) state.on = false;
    risks[model.get()].push(...message.risks);
    parts.redraw();
    pictured();
  });
  function order(name, more = {}) {
    if (name !== "points") state.on = name === "go";
    if (name === "go" || name === "step") state.fresh = false;
    worker.postMessage({ order: name, ...more });
    parts.redraw();
  }
  const finished = () => !state.fresh && state.shown.step === steps;

  /* A new training from step 0; it waits to be started. The other model's curve stays unless `all` is new. */
  function begin(all = false) {
    for (const name of all ? Object.keys(MODELS) : [model.get()]) risks[name] = [];
    Object.assign(state, { on: false, fresh: true, number: state.number + 1 });
    const setting = { model: model.get(), seed: seed.valueAsNumber, points: state.points };
    order("begin", { setting, number: state.number });
  }
  /* The pen's points. The first of a drawing begin a new training, which starts when the pen is lifted. */
  function take(wanted, lifted) {
    const another = state.source !== OWN || finished() || !wanted.length;
    [state.points, state.source] = [wanted, OWN];
    sources.select.value = OWN;
    if (another) begin(true);
    else order("points", { points: wanted });
    if (!lifted) return;
    if (state.fresh && wanted.length) order("go");
    remember();
  }
  /* An example, a seed or a model was chosen: from the start, and at once if a training ran. */
  function change(all) {
    const ran = state.on;
    state.source = sources.get();
    if (state.source !== OWN) state.points = points.example(state.source, seed.valueAsNumber);
    begin(all);
    if (ran) order("go");
    remember();
  }

  // --- the link
  function remember() {
    const list = state.source === OWN ? `~${points.toText(state.points)}` : state.source;
    const link = `#points=${list}&seed=${seed.valueAsNumber}&model=${model.get()}`;
    history.replaceState(history.state, "", link);
    said.textContent = "";
  }
  function recall() {
    const link = new URLSearchParams(location.hash.slice(1));
    const list = link.get("points") ?? "";
    const own = list.startsWith("~") ? points.fromText(list.slice(1)) : null;
    if (link.get("model") in MODELS) model.select.value = link.get("model");
    if (/^\d{1,4}$/.test(link.get("seed") ?? "")) seed.value = link.get("seed");
    if (own?.length) state.points = own;
    state.source = own?.length ? OWN : list in NAMES ? list : points.names[0];
    sources.select.value = state.source;
    if (list && state.source !== OWN && !(list in NAMES)) said.textContent = "The link’s points could not be read.";
    if (state.source !== OWN) state.points = points.example(state.source, seed.valueAsNumber);
    begin(true);
  }
  async function share() {
    remember();
    try {
      await navigator.clipboard.writeText(location.href);
      said.textContent = "The link is copied.";
    } catch {
      said.textContent = "The link is in the address bar.";
    }
  }

  function draw() {
    if (!state.shown) return; // before the worker's first picture
    const colours = kit.colours(place);
    const { step, density, grid: bent, failed } = state.shown;
    const empty = !state.points.length;
    const level = empty ? 1 + Math.log(2 * Math.PI) : points.gaussianRisk(state.points, noise);
    pictures.density(heat, density, 2 * Math.exp(-level), colours.dense);
    pictures.dots(dots, state.points, colours);
    pictures.grid(grid, bent, colours);
    const curves = [["realnvp", colours.first], ["planar", colours.second]]
      .map(([name, colour]) => ({ name: MODELS[name], risks: risks[name], colour }))
      .filter((one) => one.risks.length);
    pictures.curve(curve, curves, level, steps, colours);

    go.textContent = state.on ? "Pause" : step === 0 ? "Train" : step < steps ? "Go on" : "Train again";
    go.disabled = empty;
    one.disabled = empty || state.on || step === steps;
    if (failed) said.textContent = "The risk is not a finite number any more. Reset, or take another seed.";
    const risk = risks[model.get()].length ? kit.number(pictures.smooth(risks[model.get()]).at(-1), 3) : "–";
    kit.tell(
      parts,
      [
        ["step", `${step} of ${steps}`],
        ["<i>R̂</i>(<i>θ</i>), nats", risk],
        ["one Gaussian", empty ? "–" : kit.number(level, 3)],
        ["points", String(state.points.length / 2)],
      ],
      `${MODELS[model.get()]}, step ${step} of ${steps}: risk ${risk} nats; ${state.points.length / 2} points.`,
    );
  }

  flowFigures.paper(paper, {
    get: () => (state.source === OWN || pen.get() === "rub" ? state.points : new Float64Array(0)),
    set: take,
    rubbing: () => pen.get() === "rub",
  });
  sources.select.addEventListener("change", () => change(true));
  model.select.addEventListener("change", () => change(false));
  seed.addEventListener("change", () => {
    seed.value = kit.clamp(Math.round(seed.valueAsNumber || 0), 0, 9999);
    change(true);
  });
  window.addEventListener("hashchange", () => location.hash.includes("points=") && recall());
  recall();
  return first;
};
