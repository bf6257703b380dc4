/* An affine coupling of the plane: z₁ passes and decides how z₂ is scaled and shifted. */
"use strict";

flowFigures.build.coupling = (place) => {
  const { kit, math } = flowFigures;
  const slider = (name, label, min, max, value) => ({ name, label, min, max, step: 0.1, value });

  flowFigures.plane(place, {
    title: "One affine coupling",
    formula:
      "<i>x</i><sub>1</sub> = <i>z</i><sub>1</sub>, " +
      "<i>x</i><sub>2</sub> = <i>z</i><sub>2</sub> exp <i>s</i>(<i>z</i><sub>1</sub>) + " +
      "<i>t</i>(<i>z</i><sub>1</sub>)",
    note:
      "Here <i>s</i>(<i>z</i><sub>1</sub>) = <i>a</i> tanh(<i>k</i> <i>z</i><sub>1</sub>) and " +
      "<i>t</i>(<i>z</i><sub>1</sub>) = <i>c</i> sin(<i>z</i><sub>1</sub>). Drag the sliders, and the round " +
      "probe on the left. Each vertical line, such as the dashed one, is stretched and shifted within " +
      "itself: log |det| is <i>s</i>(<i>z</i><sub>1</sub>).",
    start: [1.2, 0.5],
    sliders: {
      a: slider("<i>a</i>", "a, strength of the log-scale s", -1.5, 1.5, 0.8),
      k: slider("<i>k</i>", "k, steepness of the log-scale s", 0, 4, 1.5),
      c: slider("<i>c</i>", "c, size of the shift t", -2, 2, 1.2),
    },
    values: (get) => ({ a: get("a"), k: get("k"), c: get("c") }),
    layer: math.coupling,
    guides(pen, side, layer, values, [z1], colours) {
      pen.line([[z1, -20], [z1, 20]], colours.guide, 2.5, [8, 5]);
    },
    rows: (layer, values, [z1]) => [["<i>t</i>(<i>z</i><sub>1</sub>)", kit.number(layer.t(z1), 3)]],
  });
};
