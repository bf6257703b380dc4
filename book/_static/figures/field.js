/* A continuous flow of the plane: every point follows ẋ = v(x), for a time t that may be negative. */
"use strict";

flowFigures.build.field = (place) => {
  const { kit, math } = flowFigures;
  const slider = (name, label, limit, value) => ({ name, label, min: -limit, max: limit, step: 0.1, value });
  const ARROWS = [-3.75, -2.25, -0.75, 0.75, 2.25, 3.75];
  const LENGTH = 0.16; // units of time that an arrow lasts

  flowFigures.plane(place, {
    title: "A velocity field and its flow",
    formula:
      "<i>v</i>(<i>x</i>) = (<i>a</i> <i>x</i><sub>1</sub> − <i>ω</i> <i>x</i><sub>2</sub>, " +
      "<i>ω</i> <i>x</i><sub>1</sub> + <i>c</i> tanh <i>x</i><sub>2</sub>)",
    note:
      "Drag the round probe on the left, and the time <i>t</i>: the point follows the arrows on the right " +
      "from <i>z</i> to <i>x</i>, and its cell with it. Along the way log |det| grows by " +
      "tr ∂<i>v</i>/∂<i>x</i> = <i>a</i> + <i>c</i> / cosh² <i>x</i><sub>2</sub> per unit of time; that " +
      "integral is what is shown. With negative <i>t</i> the same field undoes the flow.",
    start: [1.2, 0.8],
    sliders: {
      t: slider("<i>t</i>", "t, the time", 1, 0.7),
      a: slider("<i>a</i>", "a, growth of the first entry", 1, -0.6),
      omega: slider("<i>ω</i>", "omega, the rate of turning", 3, 1.5),
      c: slider("<i>c</i>", "c, strength of the bend", 2, 2),
    },
    values: (get) => ({ t: get("t"), a: get("a"), omega: get("omega"), c: get("c") }),
    layer: math.field,
    guides(pen, side, layer, values, z, colours) {
      if (side === "z") return;
      for (const x1 of ARROWS) {
        for (const x2 of ARROWS) {
          const [v1, v2] = layer.velocity([x1, x2]);
          const end = [x1 + LENGTH * v1, x2 + LENGTH * v2];
          pen.line([[x1, x2], end], colours.ink, 1);
          pen.line([end, [x1 + 0.75 * LENGTH * v1, x2 + 0.75 * LENGTH * v2]], colours.ink, 2.5);
        }
      }
      pen.line(layer.path(z), colours.guide, 3.5);
      pen.dot(z, colours.paper, colours.ink, 4);
    },
    rows: (layer, values, z) => [
      ["trace at <i>z</i>", kit.number(layer.trace(z), 3)],
      ["trace at <i>x</i>", kit.number(layer.trace(layer.forward(z)[0]), 3)],
    ],
  });
};
