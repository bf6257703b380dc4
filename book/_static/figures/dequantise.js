/* Dequantisation: a density for a staircase of integers, with and without noise that fills the cells. */
"use strict";

/* The shares of five grey levels, and the density p(x) = Σ share_v N(x; v + c, σ²). `raw` is the mean of log p at the
   integers, `bound` with uniform noise, `exact` that of log P(v), the mass of each cell; `ceiling` is −H. */
flowFigures.math.dequantise = ({ sigma, c }) => {
  const shares = [0.35, 0.1, 0.05, 0.2, 0.3];
  const PIECES = 2048; // Simpson's rule: the narrowest bump is 200 pieces wide
  const p = (x) =>
    shares.reduce((sum, share, v) => sum + share * Math.exp(-0.5 * ((x - v - c) / sigma) ** 2), 0) /
    (sigma * Math.sqrt(2 * Math.PI));
  /* far from all bumps p underflows, and its logarithm does not */
  const logP = (x) => {
    const logs = shares.map((share, v) => Math.log(share) - 0.5 * ((x - v - c) / sigma) ** 2);
    const top = Math.max(...logs);
    const sum = logs.reduce((total, value) => total + Math.exp(value - top), 0);
    return top + Math.log(sum) - Math.log(sigma * Math.sqrt(2 * Math.PI));
  };
  const over = (f, low) => {
    let sum = f(low) + f(low + 1);
    for (let i = 1; i < PIECES; i++) sum += (i % 2 ? 4 : 2) * f(low + i / PIECES);
    return sum / (3 * PIECES);
  };
  const mean = (f) => shares.reduce((sum, share, v) => sum + share * f(v), 0);
  return {
    shares,
    p,
    raw: mean(logP),
    bound: mean((v) => over(logP, v)),
    exact: mean((v) => Math.log(over(p, v))),
    ceiling: mean((v) => Math.log(shares[v])),
  };
};

flowFigures.build.dequantise = (place) => {
  const { kit, math, line } = flowFigures;
  const [VIEW, TOP] = [[-0.5, 5.5], 1];

  const parts = kit.frame(place, {
    title: "A density for integers",
    formula: "<i>P</i>(<i>v</i>) = ∫<sub>0</sub><sup>1</sup> <i>p</i>(<i>v</i> + <i>u</i>) d<i>u</i>",
    note:
      "The staircase is the data, five grey levels; the curve is the model. Put its bumps on the integers, " +
      "<i>c</i> = 0, and make them narrow: log <i>p</i> at the integers grows, and would without end, though the cells are " +
      "described worse and worse. With noise in [0, 1) no density passes the ceiling −<i>H</i>. The filled areas are " +
      "the cells’ masses <i>P</i>(<i>v</i>).",
    draw,
  });
  const holder = kit.element("div", { className: "flow-line flow-wave" });
  parts.drawing.append(holder);
  const canvas = kit.canvas(holder, "Shares of five grey levels as a staircase, and the model’s density over them");
  canvas.className = "flow-lines";
  const slider = (name, label, min, max, step, value) =>
    kit.slider(parts, { name: `<i>${name}</i>`, label, min, max, step, value, digits: 2 });
  const sigma = slider("σ", "sigma, width of the bumps", 0.1, 1.5, 0.02, 0.4);
  const c = slider("c", "c, where in its cell each bump stands", 0, 1, 0.05, 0.5);
  kit.resetButton(parts, () => [sigma, c].forEach((one) => one.reset()));

  function draw() {
    const spec = math.dequantise({ sigma: sigma.get(), c: c.get() });
    const colours = kit.colours(place);
    const pen = line.penOf(canvas);
    const [left, right, top, bottom] = [34, pen.width - 8, 12, pen.height - 26];
    const across = line.scale(VIEW, [left, right]);
    const up = line.scale([0, TOP], [bottom, top]);
    const xs = line.points(...VIEW, 480);
    pen.line([[left, top], [left, bottom], [right, bottom]], colours.faint);
    for (const tick of [0, 0.5, 1]) pen.text(String(tick), left - 6, up(tick), colours.ink, "right");
    pen.within([left, top, right, bottom + 1], () => {
      spec.shares.forEach((share, v) => {
        const cell = line.points(v, v + 1, 80).map((x) => [across(x), up(spec.p(x))]);
        pen.fill([[across(v), bottom], ...cell, [across(v + 1), bottom]], colours.first, v % 2 ? 0.18 : 0.32);
      });
      const stairs = spec.shares.flatMap((share, v) => [[across(v), up(share)], [across(v + 1), up(share)]]);
      pen.line([[across(0), bottom], ...stairs, [across(5), bottom]], colours.ink, 2);
      pen.line(xs.map((x) => [across(x), up(spec.p(x))]), colours.first, 2.5);
      spec.shares.forEach((_, v) => {
        pen.line([[across(v), bottom], [across(v), up(spec.p(v))]], colours.second, 2.5, [4, 3]);
      });
    });
    spec.shares.forEach((_, v) => pen.text(String(v), across(v), bottom + 14, colours.ink, "center"));
    pen.text("v", right, bottom + 14, colours.ink, "right");
    const shown = ["raw", "bound", "exact", "ceiling"].map((name) => kit.number(spec[name], 3));
    const rows = [
      ["mean log <i>p</i>(<i>v</i>)", shown[0]],
      ["with noise", shown[1]],
      ["mean log <i>P</i>(<i>v</i>)", shown[2]],
      ["ceiling −<i>H</i>", shown[3]],
    ];
    const said = `At the integers ${shown[0]}, with noise ${shown[1]}, log P ${shown[2]}, ceiling ${shown[3]} nats.`;
    kit.tell(parts, rows, said);
  }
};
