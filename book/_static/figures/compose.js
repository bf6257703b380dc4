/* Four layers, one after the other: a probe's path through them, and log-dets that add up. */
"use strict";

/* The first k of: a planar layer that pulls the plane apart, a shift of the second entry seen from the first, a scale
   of the first seen from the second, a shift of the first seen from the second. */
flowFigures.math.compose = ({ k, a, b, c, w }) => {
  const { planar, pushed } = flowFigures.math;
  const steps = [
    planar({ u: [a, 0], w: [2.5, 0], b: 0 }),
    {
      forward: ([z1, z2]) => [[z1, z2 + b * (z1 * z1 - 2)], 0],
      inverse: ([x1, x2]) => [[x1, x2 - b * (x1 * x1 - 2)], 0],
    },
    {
      forward: ([z1, z2]) => [[z1 * Math.exp(-c * Math.tanh(z2)), z2], -c * Math.tanh(z2)],
      inverse: ([x1, x2]) => [[x1 * Math.exp(c * Math.tanh(x2)), x2], c * Math.tanh(x2)],
    },
    {
      forward: ([z1, z2]) => [[z1 + w * Math.sin(1.5 * z2), z2], 0],
      inverse: ([x1, x2]) => [[x1 - w * Math.sin(1.5 * x2), x2], 0],
    },
  ].slice(0, k);
  /* Where the point is before each step and at the end, and the steps' log-dets. */
  const path = (z) => {
    const [points, logDets] = [[z], []];
    for (const { forward } of steps) {
      const [point, logDet] = forward(points.at(-1));
      points.push(point);
      logDets.push(logDet);
    }
    return { points, logDets };
  };
  const through = (all, start) => {
    let [point, sum] = [start, 0];
    for (const step of all) {
      const [next, logDet] = step(point);
      [point, sum] = [next, sum + logDet];
    }
    return [point, sum];
  };
  const forwards = steps.map(({ forward }) => forward);
  const inverses = steps.map(({ inverse }) => inverse).reverse();
  return pushed({ path, forward: (z) => through(forwards, z), inverse: (x) => through(inverses, x) });
};

flowFigures.build.compose = (place) => {
  const { kit, math } = flowFigures;
  const slider = (name, label, min, max, value) => ({ name: `<i>${name}</i>`, label, min, max, step: 0.1, value });
  const NAMES = ["planar", "bend", "squeeze", "wave"];

  flowFigures.plane(place, {
    title: "Layers, one after the other",
    formula: "<i>u<sup>k</sup></i> = <i>f<sub>k</sub></i>(<i>u</i><sup><i>k</i>−1</sup>)",
    note:
      "Move <i>k</i>, the number of layers, from 0 to 4: noise becomes a shape step by step, and <i>k</i> back to 0 " +
      "is the film in reverse. The dashed line is the probe’s way <i>u</i><sup>0</sup>, <i>u</i><sup>1</sup>, … " +
      "Each layer adds its own log-det to the sum; the bend and the wave only shift, and add 0.",
    start: [0.8, 0.9],
    sliders: {
      k: { ...slider("k", "k, the number of layers", 0, 4, 4), step: 1, digits: 0 },
      a: slider("a", "a, how far the planar layer pulls apart", -0.3, 1.5, 1.1),
      b: slider("b", "b, the bend of the second entry", -0.8, 0.8, 0.5),
      c: slider("c", "c, strength of the squeeze", -1, 1, 0.6),
      w: slider("w", "w, height of the wave", -1, 1, 0.6),
    },
    values: (get) => Object.fromEntries(["k", "a", "b", "c", "w"].map((name) => [name, get(name)])),
    layer: math.compose,
    guides(pen, side, layer, values, z, colours) {
      if (side === "z") return;
      const { points } = layer.path(z);
      pen.line(points, colours.guide, 2.5, [6, 4]);
      points.slice(0, -1).forEach((point) => pen.dot(point, colours.paper, colours.ink, 4));
    },
    rows(layer, values, z) {
      const { logDets } = layer.path(z);
      return NAMES.map((name, i) => [name, i < logDets.length ? kit.number(logDets[i], 3) : "–"]);
    },
  });
};
