/* Temperature: the latents are drawn from N(0, T² I), and the same coupling carries them to x. */
"use strict";

/* x = f(T z) with f the affine coupling of `math.coupling`; `model` is f itself. */
flowFigures.math.temperature = ({ T, a }) => {
  const { coupling, pushed } = flowFigures.math;
  const model = coupling({ a, k: 1.5, c: 1.2 });
  const cooling = 2 * Math.log(T);
  return pushed({
    model,
    forward(z) {
      const [x, logDet] = model.forward(z.map((value) => T * value));
      return [x, logDet + cooling];
    },
    inverse(x) {
      const [z, logDet] = model.inverse(x);
      return [z.map((value) => value / T), logDet - cooling];
    },
  });
};

flowFigures.build.temperature = (place) => {
  const { kit, math } = flowFigures;
  // the same draws at every temperature: a sunflower's spread of angles, with a normal's quantiles of the radius
  const DRAWS = Array.from({ length: 200 }, (_, i) => {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - (i + 0.5) / 200)), i * Math.PI * (3 - Math.sqrt(5))];
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });

  flowFigures.plane(place, {
    title: "Temperature",
    formula: "<i>x</i> = <i>f</i>(<i>T</i> <i>z</i>), &nbsp; <i>z</i> ∼ <i>N</i>(0, <i>I</i>)",
    note:
      "Cool the draws by <i>T</i>: they gather at <i>f</i>(0). The <i>rest</i> is log <i>p<sub>T</sub></i>(<i>x</i>) " +
      "− <i>T</i><sup>−2</sup> log <i>p</i>(<i>x</i>), and <i>D</i> the log-det of <i>f</i><sup>−1</sup>. Drag the round " +
      "probe: at <i>a</i> = 0 the coupling only shifts, <i>D</i> is 0 and the rest is the same everywhere; otherwise it is not.",
    start: [1.1, 0.6],
    sliders: {
      T: { name: "<i>T</i>", label: "T, the temperature", min: 0.1, max: 1.5, step: 0.05, value: 0.7, digits: 2 },
      a: { name: "<i>a</i>", label: "a, strength of the log-scale", min: -1.5, max: 1.5, step: 0.1, value: 0.8 },
    },
    values: (get) => ({ T: get("T"), a: get("a") }),
    layer: math.temperature,
    guides(pen, side, layer, { T }, z, colours) {
      for (const draw of DRAWS) {
        const point = side === "z" ? draw : layer.forward(draw)[0];
        pen.dot(point, colours.guide, colours.guide, 0.8);
      }
    },
    rows(layer, { T }, z) {
      const [x] = layer.forward(z);
      const [log, logT] = [Math.log(layer.model.density(x)), Math.log(layer.density(x))];
      return [
        ["log <i>p</i>(<i>x</i>)", kit.number(log, 3)],
        ["log <i>p<sub>T</sub></i>(<i>x</i>)", kit.number(logT, 3)],
        ["rest", kit.number(logT - log / T ** 2, 3)],
        ["<i>D</i>(<i>x</i>)", kit.number(layer.model.inverse(x)[1], 3)],
      ];
    },
  });
};
