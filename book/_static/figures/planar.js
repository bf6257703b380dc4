/* One planar layer: x = z + û tanh(w·z + b). */
"use strict";

flowFigures.build.planar = (place) => {
  const { kit, math } = flowFigures;
  const slider = (name, label, limit, value) => ({ name, label, min: -limit, max: limit, step: 0.1, value });

  flowFigures.plane(place, {
    title: "One planar layer",
    formula: "<i>x</i> = <i>z</i> + <i>û</i> tanh(<i>w</i>·<i>z</i> + <i>b</i>)",
    note:
      "Drag the sliders, and the round probe on the left. Points on the dashed line " +
      "<i>w</i>·<i>z</i> + <i>b</i> = 0 stay where they are; all others move along the arrow <i>û</i>, " +
      "or against it. Here <i>û</i> is <i>u</i>, changed along <i>w</i> so that " +
      "<i>û</i>·<i>w</i> stays above −1: the plane cannot fold.",
    start: [0.9, 0.6],
    sliders: {
      u1: slider("<i>u</i><sub>1</sub>", "u1, first entry of the direction u", 2, 1.2),
      u2: slider("<i>u</i><sub>2</sub>", "u2, second entry of the direction u", 2, 0.6),
      w1: slider("<i>w</i><sub>1</sub>", "w1, first entry of the normal w", 3, 1.5),
      w2: slider("<i>w</i><sub>2</sub>", "w2, second entry of the normal w", 3, -0.6),
      b: slider("<i>b</i>", "b, the offset", 3, 0),
    },
    values: (get) => ({ u: [get("u1"), get("u2")], w: [get("w1"), get("w2")], b: get("b") }),
    layer: math.planar,
    guides(pen, side, layer, { w, b }, z, colours) {
      const square = w[0] ** 2 + w[1] ** 2;
      if (!square) return; // no line: the layer is a translation by û tanh(b)
      const foot = [(-b * w[0]) / square, (-b * w[1]) / square];
      const reach = 20 / Math.sqrt(square);
      const end = (sign) => [foot[0] - sign * reach * w[1], foot[1] + sign * reach * w[0]];
      pen.line([end(-1), end(1)], colours.guide, 2.5, [8, 5]);
      if (side === "x") pen.arrow(foot, [foot[0] + layer.uHat[0], foot[1] + layer.uHat[1]], colours.guide);
    },
    rows: (layer, { u, w }) => [
      ["<i>û</i>", kit.pair(layer.uHat)],
      ["<i>u</i>·<i>w</i>", kit.number(u[0] * w[0] + u[1] * w[1])],
      ["<i>û</i>·<i>w</i>", kit.number(layer.m, 3)],
    ],
  });
};
