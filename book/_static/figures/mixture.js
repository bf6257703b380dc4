/* The curve of a mixture coupling: the mixture's density and distribution function below, its logit
   above, and the brackets that bisection runs through on the way back from z to x. */
"use strict";

(() => {
  const { points, scale, penOf } = flowFigures.line;
  const VIEW = [-6, 6]; // of x
  const LEVELS = [-8, 8]; // of z
  const START = 1.2;

  function regions(width, height) {
    const [left, right] = [46, width - 10];
    const middle = Math.round(0.56 * height);
    return { graph: [left, 26, right, middle], below: [left, middle + 30, right, height - 36] };
  }

  function drawFigure(canvas, spec, x, n, colours) {
    const pen = penOf(canvas);
    const { graph, below } = regions(pen.width, pen.height);
    const toX = scale(VIEW, [graph[0], graph[2]]);
    const toZ = scale(LEVELS, [graph[3], graph[1]]);
    const toHeight = scale([0, 1.3], [below[3], below[1]]);
    const xs = points(...VIEW, 600);
    const z = spec.inverse(x)[0];

    // axes and ticks
    pen.line([[graph[0], graph[1]], [graph[0], graph[3]], [graph[2], graph[3]]], colours.faint);
    pen.line([[below[0], below[1]], [below[0], below[3]], [below[2], below[3]]], colours.faint);
    for (const tick of [-4, 0, 4]) {
      pen.line([[toX(tick), below[3]], [toX(tick), below[3] + 5]], colours.faint);
      pen.text(flowFigures.kit.number(tick, 0), toX(tick), below[3] + 26, colours.ink, "center");
      pen.text(flowFigures.kit.number(tick, 0), graph[0] - 8, toZ(tick), colours.ink, "right");
    }
    for (const tick of [0, 1]) pen.text(String(tick), below[0] - 8, toHeight(tick), colours.ink, "right");

    // the area left of x is F(x); the level z = g(x)
    const left = [VIEW[0], ...xs.filter((v) => v < x), x].map((v) => [toX(v), toHeight(spec.density(v))]);
    pen.within([below[0], below[1], below[2], below[3] + 1], () => {
      pen.fill([[toX(VIEW[0]), below[3]], ...left, [toX(x), below[3]]], colours.probe, 0.5);
      pen.line(xs.map((v) => [toX(v), toHeight(spec.density(v))]), colours.first, 2);
      pen.line(xs.map((v) => [toX(v), toHeight(spec.F(v))]), colours.second, 2.5);
    });
    pen.within(graph, () => {
      pen.line([[toX(x), graph[3]], [toX(x), toZ(z)], [graph[0], toZ(z)]], colours.guide, 1.5, [5, 4]);
      pen.line(xs.map((v) => [toX(v), toZ(spec.inverse(v)[0])]), colours.ink, 2.5);
      // brackets, the newest lowest and thickest, with its midpoint
      for (let step = 0; step <= n; step++) {
        const { low, high, middle } = spec.bisect(z, step);
        const height = graph[1] + 8 + 6 * step;
        const last = step === n;
        pen.line([[toX(low), height], [toX(high), height]], last ? colours.second : colours.faint, last ? 4 : 2);
        if (last) pen.line([[toX(middle), height], [toX(middle), graph[3]]], colours.second, 1.2, [2, 3]);
      }
    });
    pen.text("z = g(x)", graph[0] - 30, 12, colours.ink);
    pen.text("bracket", graph[2], 12, colours.second, "right");
    pen.text("F(x)", below[2] - 4, below[1] - 10, colours.second, "right");
    pen.text("density F′(x)", below[0] + 8, below[1] - 10, colours.first);
    pen.text("x", below[2], below[3] + 26, colours.ink, "right");
    return { left: toX(x), top: below[3] };
  }

  flowFigures.build.mixture = (place) => {
    const { kit, math } = flowFigures;
    const parts = kit.frame(place, {
      title: "The mixture’s distribution function, and its inverse",
      formula: "<i>z</i> = <i>g</i>(<i>x</i>) = logit <i>F</i>(<i>x</i>)",
      note:
        "Drag the round probe along the axis of <i>x</i>. The filled area is <i>F</i>(<i>x</i>), and the curve above " +
        "is its logit: flat between the humps. Going back from <i>z</i>, bisection starts from a bracket and halves " +
        "it <i>n</i> times; the dotted line is its midpoint.",
      draw,
    });
    const holder = kit.element("div", { className: "flow-line" });
    parts.drawing.append(holder);
    const canvas = kit.canvas(holder, "Density and distribution function below, its logit and the brackets above");
    canvas.className = "flow-lines";

    const slider = (name, label, min, max, step, value, digits) =>
      kit.slider(parts, { name, label, min, max, step, value, digits });
    const sliders = {
      pi: slider("<i>π</i><sub>1</sub>", "pi 1, weight of the first component", 0.05, 0.95, 0.05, 0.4, 2),
      mu1: slider("<i>μ</i><sub>1</sub>", "mu 1, mean of the first component", -4, 4, 0.1, -2, 1),
      mu2: slider("<i>μ</i><sub>2</sub>", "mu 2, mean of the second component", -4, 4, 0.1, 2, 1),
      s1: slider("<i>s</i><sub>1</sub>", "s 1, scale of the first component", 0.2, 2, 0.1, 0.8, 1),
      s2: slider("<i>s</i><sub>2</sub>", "s 2, scale of the second component", 0.2, 2, 0.1, 0.6, 1),
      n: slider("<i>n</i>", "n, the number of halvings", 0, 12, 1, 5, 0),
    };
    let x = START;

    const move = (wanted) => {
      x = kit.clamp(Math.round(wanted * 1000) / 1000, -5.5, 5.5);
      parts.redraw();
    };
    const handle = kit.probe(holder, {
      label: "Probe point x. Arrow keys move it, with Shift in larger steps.",
      point: (fraction) => {
        const { width, height } = holder.getBoundingClientRect();
        const { graph } = regions(width, height);
        move(scale([graph[0], graph[2]], VIEW)(fraction * width));
      },
      step: (dx, dy) => move(x + 0.05 * (dx + dy)),
    });
    kit.resetButton(parts, () => {
      Object.values(sliders).forEach((one) => one.reset());
      move(START);
    });

    function draw() {
      const value = Object.fromEntries(Object.entries(sliders).map(([key, one]) => [key, one.get()]));
      const spec = math.mixture({
        pi: [value.pi, 1 - value.pi],
        mu: [value.mu1, value.mu2],
        s: [value.s1, value.s2],
      });
      const at = drawFigure(canvas, spec, x, value.n, kit.colours(place));
      handle.style.left = `${at.left}px`;
      handle.style.top = `${at.top}px`;
      handle.setAttribute("aria-valuemin", -5.5);
      handle.setAttribute("aria-valuemax", 5.5);
      handle.setAttribute("aria-valuenow", x);

      const [z, logSlope] = spec.inverse(x);
      const { low, high, middle } = spec.bisect(z, value.n);
      kit.tell(
        parts,
        [
          ["<i>x</i>", kit.number(x)],
          ["<i>z</i>", kit.number(z)],
          ["<i>F</i>(<i>x</i>)", kit.number(spec.F(x), 4)],
          ["<i>F</i> ′(<i>x</i>)", kit.number(spec.density(x), 4)],
          ["log <i>g</i> ′(<i>x</i>)", kit.number(logSlope, 3)],
          ["midpoint", kit.number(middle, 4)],
          ["its error", kit.number(Math.abs(middle - x), 4)],
          ["at most", kit.number((high - low) / 2, 4)],
        ],
        `z = ${kit.number(z)} for x = ${kit.number(x)}, where F is ${kit.number(spec.F(x), 4)}; ` +
          `after ${value.n} halvings the midpoint is ${kit.number(middle, 4)}.`,
      );
    }
  };
})();
