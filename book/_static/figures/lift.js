/* A density on the line as the marginal of a flow's density in the plane of (x, e): the joint above, its
   slice p(e | x) beside it with the reader's q, and below the marginal p(x). */
"use strict";

/* The joint flow is one coupling, e = z₂ and x = σ z₁ + a tanh(k z₂); q(e | x) is N(m, r²) for the one x
   that is looked at. The trapezoidal rule is exact to rounding on functions as smooth as these. */
flowFigures.math.lift = ({ a, k, sigma, m, r }) => {
  const HALF = 0.5 * Math.log(2 * Math.PI);
  const logNormal = (value, mean, scale) => -0.5 * ((value - mean) / scale) ** 2 - Math.log(scale) - HALF;
  const [LOW, STEP, NODES] = [-13, 0.02, 1301]; // of e, from -13 to 13: q may lie far out
  const integral = (g) => {
    let sum = 0;
    for (let i = 0; i < NODES; i++) sum += g(LOW + STEP * i);
    return STEP * sum;
  };
  const logJoint = (x, e) => logNormal(e, 0, 1) + logNormal(x, a * Math.tanh(k * e), sigma);
  const logQ = (e) => logNormal(e, m, r);
  const marginal = (x) => integral((e) => Math.exp(logJoint(x, e)));
  const bound = (x) => integral((e) => Math.exp(logQ(e)) * (logJoint(x, e) - logQ(e)));
  return { logJoint, logQ, marginal, bound };
};

(() => {
  const [X, E] = [4, 3.2]; // what is shown: x in [-X, X], e in [-E, E]
  const START = 1.6;

  /* Where the joint, the slice to its right and the marginal below lie, in pixels. */
  function regions(width, height) {
    const [left, right, top] = [24, Math.round(0.68 * width), 26];
    const middle = Math.round(0.62 * height);
    return {
      joint: [left, top, right, middle],
      slice: [right + 12, top, width - 8, middle],
      below: [left, middle + 34, right, height - 30],
    };
  }

  function paintJoint(pen, joint, logJoint, dense) {
    const [columns, rows] = [120, 96];
    const made = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const picture = made.getContext("2d").createImageData(columns, rows);
    const ink = [1, 3, 5].map((start) => parseInt(dense.slice(start, start + 2), 16));
    for (let row = 0, at = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++, at += 4) {
        const x = X * ((2 * (column + 0.5)) / columns - 1);
        const p = Math.exp(logJoint(x, E * (1 - (2 * (row + 0.5)) / rows)));
        picture.data.set(ink, at);
        picture.data[at + 3] = Math.round(255 * (1 - Math.exp(-p / 0.08)));
      }
    }
    made.getContext("2d").putImageData(picture, 0, 0);
    pen.image(made, joint);
  }

  function drawFigure(canvas, spec, x, colours) {
    const { penOf, points, scale } = flowFigures.line;
    const pen = penOf(canvas);
    const { joint, slice, below } = regions(pen.width, pen.height);
    const acrossX = scale([-X, X], [joint[0], joint[2]]);
    const upE = scale([-E, E], [joint[3], joint[1]]);

    paintJoint(pen, joint, spec.logJoint, colours.dense);
    for (const [left, top, right, bottom] of [joint, slice, below]) {
      pen.line([[left, top], [left, bottom], [right, bottom]], colours.faint);
    }
    const whole = (tick) => flowFigures.kit.number(tick, 0);
    for (const tick of [-3, 0, 3]) pen.text(whole(tick), acrossX(tick), below[3] + 14, colours.ink, "center");
    for (const tick of [-2, 0, 2]) pen.text(whole(tick), joint[0] - 5, upE(tick), colours.ink, "right");

    // the slice of the joint at x, and q; both scaled by the higher of the two
    const [es, total] = [points(-E, E, 320), spec.marginal(x)];
    const given = es.map((e) => Math.exp(spec.logJoint(x, e)) / total);
    const q = es.map((e) => Math.exp(spec.logQ(e)));
    const highest = Math.max(...given, ...q);
    const out = (value) => slice[0] + (value / highest) * (slice[2] - slice[0] - 4);
    const curve = (values) => es.map((e, i) => [out(values[i]), upE(e)]);
    pen.fill([[slice[0], upE(-E)], ...curve(given), [slice[0], upE(E)]], colours.second, 0.35);
    pen.line(curve(given), colours.second, 2.5);
    pen.line(curve(q), colours.first, 2.5, [6, 4]);

    // the marginal: what is left of the joint once e is dropped
    const xs = points(-X, X, 160);
    const p = xs.map(spec.marginal);
    const top = Math.max(0.3, ...p);
    const up = (value) => below[3] - (value / top) * (below[3] - below[1]);
    const marginal = xs.map((value, i) => [acrossX(value), up(p[i])]);
    pen.fill([[acrossX(-X), below[3]], ...marginal, [acrossX(X), below[3]]], colours.guide, 0.35);
    pen.line(marginal, colours.guide, 2.5);
    pen.line([[acrossX(x), joint[1]], [acrossX(x), below[3]]], colours.probe, 2.5, [8, 5]);

    pen.text("p(x, e)", joint[0] + 6, 12, colours.ink);
    pen.text("p(e | x)", slice[0] + 4, 12, colours.second);
    pen.text("q(e)", slice[0] + 4, joint[3] + 14, colours.first);
    pen.text("p(x), e dropped", below[0] + 6, below[1] - 14, colours.guide);
    pen.text("x", below[2] + 10, below[3], colours.ink);
    pen.text("e", joint[0] - 5, 12, colours.ink, "right");
    return { left: acrossX(x), top: below[3] };
  }

  flowFigures.build.lift = (place) => {
    const { kit, math } = flowFigures;
    const parts = kit.frame(place, {
      title: "A density lifted into one more dimension",
      formula: "<i>p</i>(<i>x</i>) = ∫ <i>p</i>(<i>x</i>, <i>e</i>) d<i>e</i>",
      note:
        "The joint flow only bends one round blob: <i>e</i> = <i>z</i><sub>2</sub>, " +
        "<i>x</i> = <i>σ</i> <i>z</i><sub>1</sub> + <i>a</i> tanh(<i>k</i> <i>z</i><sub>2</sub>). Dropping " +
        "<i>e</i> leaves two bumps. Drag the round probe along the axis of <i>x</i>, then move the mean " +
        "<i>m</i> and the scale <i>r</i> of <i>q</i> until the dashed curve lies on the slice: the gap between " +
        "log <i>p</i>(<i>x</i>) and the bound is KL(<i>q</i> ‖ <i>p</i>(<i>e</i> | <i>x</i>)).",
      draw,
    });
    const holder = kit.element("div", { className: "flow-line" });
    parts.drawing.append(holder);
    const label = "Joint density of x and e, its slice at x beside it, the density of x below";
    const canvas = kit.canvas(holder, label);
    canvas.className = "flow-lines";

    const sliders = {};
    const add = (key, symbol, label, min, max, value) => {
      const name = `<i>${symbol}</i>`;
      sliders[key] = kit.slider(parts, { name, label, min, max, step: 0.05, value, digits: 2 });
    };
    let x = START;
    add("a", "a", "a, half the distance of the bumps", 0, 2.5, 2);
    add("k", "k", "k, steepness of the bend", 0.2, 4, 3);
    add("sigma", "σ", "sigma, width of the bumps", 0.25, 1, 0.4);
    add("m", "m", "m, mean of q", -2, 2, 0);
    add("r", "r", "r, scale of q", 0.2, 1.5, 1);

    const move = (wanted) => {
      x = kit.clamp(Math.round(wanted * 1000) / 1000, -3.5, 3.5);
      parts.redraw();
    };
    const handle = kit.probe(holder, {
      label: "Probe point x. Arrow keys move it, with Shift in larger steps.",
      point: (fraction) => {
        const { width, height } = holder.getBoundingClientRect();
        const [left, , right] = regions(width, height).below;
        move(X * ((2 * (fraction * width - left)) / (right - left) - 1));
      },
      step: (dx, dy) => move(x + 0.05 * (dx + dy)),
    });
    handle.setAttribute("aria-valuemin", -3.5);
    handle.setAttribute("aria-valuemax", 3.5);
    kit.resetButton(parts, () => {
      Object.values(sliders).forEach((slider) => slider.reset());
      move(START);
    });

    function draw() {
      const values = Object.entries(sliders).map(([key, slider]) => [key, slider.get()]);
      const spec = math.lift(Object.fromEntries(values));
      const at = drawFigure(canvas, spec, x, kit.colours(place));
      handle.style.left = `${at.left}px`;
      handle.style.top = `${at.top}px`;
      handle.setAttribute("aria-valuenow", x);

      const [p, bound] = [spec.marginal(x), spec.bound(x)];
      const [exact, below, gap] = [Math.log(p), bound, Math.log(p) - bound].map((v) => kit.number(v, 3));
      kit.tell(
        parts,
        [
          ["<i>x</i>", kit.number(x)],
          ["<i>p</i>(<i>x</i>)", kit.number(p, 4)],
          ["log <i>p</i>(<i>x</i>)", exact],
          ["bound", below],
          ["gap", gap],
        ],
        `x = ${kit.number(x)}: log p(x) is ${exact}, the bound ${below}, the gap ${gap}.`,
      );
    }
  };
})();
