/* Interactive figures without a kernel.

   A page places one with  <div class="flow-figure" data-figure="planar">…fallback…</div>.
   Classic scripts, because modules are refused when the book is opened from file://. */
"use strict";

(() => {
  const folder = new URL("figures/", document.currentScript.src);
  const parts = [
    "math.js", "kit.js", "plane.js", "line.js", "planar.js", "coupling.js", "change.js",
    "made.js", "mixture.js", "lift.js", "haar.js", "field.js", "tarflow_weights.js", "tarflow.js",
  ];

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
    const wanted = (name) => name !== "tarflow_weights.js" || document.querySelector("[data-figure=tarflow]");
    await Promise.all(parts.filter(wanted).map(load));
    for (const place of places) {
      const build = flowFigures.build[place.dataset.figure];
      if (build) build(place);
      else console.error(`No interactive figure is called "${place.dataset.figure}".`);
    }
  }

  const parsed = new Promise((resolve) => {
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve);
    else resolve();
  });
  // `ready` settles once every figure of the page is drawn
  window.flowFigures = { math: {}, build: {}, ready: parsed.then(start) };
})();
