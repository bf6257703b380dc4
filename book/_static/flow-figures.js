/* Interactive figures without a kernel.

   A page places one with  <div class="flow-figure" data-figure="planar">…fallback…</div>.
   Classic scripts, because modules are refused when the book is opened from file://. */
"use strict";

(() => {
  const folder = new URL("figures/", document.currentScript.src);
  const shared = ["math.js", "kit.js", "plane.js", "line.js"];
  // files of figures that are more than one of their own name
  const parts = {
    "glow-read": ["network", "layers", "model", "pad", "read"].map((name) => `glow/${name}.js`),
    "glow-sample": ["network", "layers", "model", "sample"].map((name) => `glow/${name}.js`),
    choose: ["choose-data.js", "choose.js"],
    tarflow: ["tarflow_weights.js", "tarflow.js"],
    draw: [
      ...["part", "random", "mlp", "realnvp", "planar", "adam", "training", "serve"].map((name) => `train/${name}.js`),
      ...["points", "paper", "pictures", "draw"].map((name) => `draw/${name}.js`),
    ],
  };

  const load = (name) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = new URL(name, folder);
      script.async = false; // keeps the order of the list
      script.onload = resolve;
      script.onerror = () => reject(new Error(`The interactive figures need ${script.src}.`));
      document.head.append(script);
    });

  async function start() {
    const places = document.querySelectorAll("div.flow-figure[data-figure]");
    if (!places.length) return;
    const own = Array.from(places, ({ dataset: { figure } }) => parts[figure] ?? [`${figure}.js`]).flat();
    await Promise.all(shared.map(load));
    await Promise.allSettled([...new Set(own)].map(load)); // a name that is wrong is told below
    const built = [];
    for (const place of places) {
      const build = flowFigures.build[place.dataset.figure];
      if (build) built.push(build(place));
      else console.error(`No interactive figure is called "${place.dataset.figure}".`);
    }
    await Promise.all(built); // those that wait for a file of their own
  }

  const parsed = new Promise((resolve) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve);
    else resolve();
  });
  // `ready` settles once every figure of the page is drawn
  window.flowFigures = { math: {}, build: {}, load, ready: parsed.then(start) };
})();
