/* The change of variables on the line: base density below, graph of f above it, and to the left,
   on the vertical axis of x, the pushed density. One interval dz is carried along. */
"use strict";

(() => {
  const BASES = {
    uniform: { name: "uniform on [0, 2]", view: [-0.4, 2.4], limit: [0, 2], dz: 0.2, ticks: [0, 1, 2] },
    normal: { name: "standard normal", view: [-3.5, 3.5], limit: [-3, 3], dz: 0.4, ticks: [-2, 0, 2] },
  };
  /* `view` is what the axis of x shows over each base: fixed, so that a moving slider moves the curve */
  const MAPS = {
    stretch: { name: "x = a z", range: [0.4, 5, 4], view: { uniform: [-0.8, 10.4], normal: [-10.5, 10.5] } },
    exp: { name: "x = exp(a z)", range: [0.4, 1.2, 1], view: { uniform: [-0.8, 10.4], normal: [-0.8, 10.4] } },
    bend: { name: "x = z + a tanh z", range: [-0.9, 4, 2], view: { uniform: [-0.4, 6.4], normal: [-7, 7] } },
    reverse: { name: "x = −a z", range: [0.4, 3, 1], view: { uniform: [-6.4, 0.4], normal: [-7, 7] } },
  };
  const START = 0.7; // where the probe is at first
  const CEILINGS = [0.5, 1, 2, 4, 8];

  const { points, scale, penOf } = flowFigures.line;

  /* Round ticks: at most seven of them. */
  function ticksOf([low, high]) {
    const step = [1, 2, 5].find((size) => (high - low) / size <= 7.5);
    const [first, last] = [Math.ceil(low / step), Math.floor(high / step)];
    return points(first, last, last - first).map((k) => k * step);
  }

  /* Where the three parts lie; below and left of the graph there is room for ticks. */
  function regions(width, height) {
    const [left, right, top] = [Math.round(0.36 * width), width - 8, 24];
    const middle = Math.round(0.64 * height);
    return {
      graph: [left, top, right, middle],
      below: [left, middle + 38, right, height - 38],
      beside: [16, top, left - 38, middle],
    };
  }

  function drawFigure(canvas, spec, setting, z, colours) {
    const { base, view } = setting;
    const pen = penOf(canvas);
    const { graph, below, beside } = regions(pen.width, pen.height);
    const toZ = scale(base.view, [graph[0], graph[2]]);
    const toX = scale(view, [graph[3], graph[1]]);
    const toBase = scale([0, 0.6], [below[3], below[1]]);

    const zs = points(...base.view, 400);
    const xs = points(...view, 800);
    const pushed = xs.map(spec.density);
    const highest = Math.max(0.5, ...pushed); // 0.5 for the dashed curve
    const ceiling = CEILINGS.find((value) => value >= highest) ?? highest;
    const toPushed = scale([0, 1.08 * ceiling], [beside[2], beside[0]]);

    // axes and ticks
    pen.line([[graph[0], graph[1]], [graph[0], graph[3]], [graph[2], graph[3]]], colours.faint);
    pen.line([[below[0], below[3]], [below[2], below[3]]], colours.faint);
    pen.line([[beside[2], beside[1]], [beside[2], beside[3]]], colours.faint);
    for (const tick of base.ticks) {
      pen.line([[toZ(tick), below[3]], [toZ(tick), below[3] + 5]], colours.faint);
      pen.text(flowFigures.kit.number(tick, 0), toZ(tick), below[3] + 28, colours.ink, "center");
    }
    for (const tick of ticksOf(view)) {
      pen.line([[beside[2], toX(tick)], [beside[2] + 5, toX(tick)]], colours.faint);
      pen.text(flowFigures.kit.number(tick, 0), graph[0] - 10, toX(tick), colours.ink, "right");
    }
    pen.line([[toPushed(ceiling), beside[3]], [toPushed(ceiling), beside[3] + 5]], colours.faint);
    pen.text(String(ceiling), toPushed(ceiling), beside[3] + 16, colours.ink, "center");
    pen.text("0", beside[2], beside[3] + 16, colours.ink, "center");
    pen.line([[below[0] - 5, toBase(0.5)], [below[0], toBase(0.5)]], colours.faint);
    pen.text("0.5", below[0] - 9, toBase(0.5), colours.ink, "right");
    pen.text("0", below[0] - 9, toBase(0), colours.ink, "right");

    // the interval dz, the strip that carries it up to the graph and over to dx, and the two masses
    const arc = points(z - base.dz / 2, z + base.dz / 2, 24).map((v) => ({ v, x: spec.f(v) }));
    const graphOf = arc.map(({ v, x }) => [toZ(v), toX(x)]);
    const onZ = (top) => [[toZ(arc[0].v), below[3]], ...top, [toZ(arc[24].v), below[3]]];
    const onX = (top) => [[beside[2], toX(arc[0].x)], ...top, [beside[2], toX(arc[24].x)]];
    pen.within([0, graph[1], pen.width, pen.height], () => {
      pen.fill(onZ(graphOf), colours.probe, 0.28);
      pen.fill(onX(graphOf), colours.probe, 0.28);
      pen.fill(onZ(arc.map(({ v }) => [toZ(v), toBase(spec.baseDensity(v))])), colours.probe, 0.9);
      pen.fill(onX(arc.map(({ x }) => [toPushed(spec.density(x)), toX(x)])), colours.probe, 0.9);
    });

    // the three curves, and the dashed one that forgets the slope
    pen.line(zs.map((v) => [toZ(v), toBase(spec.baseDensity(v))]), colours.first, 2.5);
    pen.within(graph, () => pen.line(zs.map((v) => [toZ(v), toX(spec.f(v))]), colours.ink, 2.5));
    pen.within([0, beside[1], beside[2], beside[3]], () => {
      pen.line(xs.map((x) => [toPushed(spec.uncorrected(x)), toX(x)]), colours.first, 1.8, [5, 4]);
      pen.line(xs.map((x, i) => [toPushed(pushed[i]), toX(x)]), colours.second, 2.5);
    });
    pen.text("x", graph[0] - 10, 10, colours.ink, "right");
    pen.text("z", below[2], below[3] + 28, colours.ink, "right");
    pen.text("density of x", beside[0], 10, colours.second);
    pen.text(setting.name, graph[0] + 8, 10, colours.ink);
    pen.text("density of z", below[0] + 8, below[1] - 10, colours.first);
    return { left: toZ(z), top: below[3] };
  }

  flowFigures.build.change = (place) => {
    const { kit, math } = flowFigures;
    const parts = kit.frame(place, {
      title: "Change of variables on the line",
      formula: "<i>p</i><sub>X</sub>(<i>x</i>) = <i>p</i><sub>Z</sub>(<i>z</i>) ÷ |<i>f</i> ′(<i>z</i>)|",
      note:
        "Drag the round probe along the axis of <i>z</i>. The filled area above d<i>z</i> and the one " +
        "beside d<i>x</i> are equal: probability is carried along. The dashed curve carries the height of the " +
        "base over without dividing by |<i>f</i> ′|: the area beside it is in general not 1.",
      draw,
    });
    const holder = kit.element("div", { className: "flow-line" });
    parts.drawing.append(holder);
    const canvas = kit.canvas(holder, "Base density below, graph of f above it, pushed density on the left");
    canvas.className = "flow-lines";

    const names = (table) => Object.fromEntries(Object.entries(table).map(([key, { name }]) => [key, name]));
    const base = kit.choice(parts, { name: "base", options: names(BASES), value: "uniform" });
    const map = kit.choice(parts, { name: "map", options: names(MAPS), value: "stretch" });
    const [low, high, start] = MAPS.stretch.range;
    const a = kit.slider(parts, {
      name: "<i>a</i>",
      label: "a, the map’s parameter",
      min: low,
      max: high,
      step: 0.1,
      value: start,
    });
    let z = START;

    const move = (wanted) => {
      const [least, most] = BASES[base.get()].limit;
      z = kit.clamp(Math.round(wanted * 1000) / 1000, least, most);
      parts.redraw();
    };
    const handle = kit.probe(holder, {
      label: "Probe point z. Arrow keys move it, with Shift in larger steps.",
      point: (fraction) => {
        const { width, height } = holder.getBoundingClientRect();
        const { graph } = regions(width, height);
        move(scale([graph[0], graph[2]], BASES[base.get()].view)(fraction * width));
      },
      step: (dx, dy) => move(z + 0.05 * (dx + dy)),
    });

    base.select.addEventListener("change", () => move(z));
    map.select.addEventListener("change", () => {
      const [least, most, usual] = MAPS[map.get()].range;
      Object.assign(a.input, { min: least, max: most });
      a.set(usual);
    });
    kit.resetButton(parts, () => {
      base.reset();
      map.set("stretch");
      move(START);
    });

    function draw() {
      const here = BASES[base.get()];
      const setting = { base: here, view: MAPS[map.get()].view[base.get()], name: MAPS[map.get()].name };
      const spec = math.change({ base: base.get(), map: map.get(), a: a.get() });
      const at = drawFigure(canvas, spec, setting, z, kit.colours(place));
      handle.style.left = `${at.left}px`;
      handle.style.top = `${at.top}px`;
      handle.setAttribute("aria-valuemin", here.limit[0]);
      handle.setAttribute("aria-valuemax", here.limit[1]);
      handle.setAttribute("aria-valuenow", z);

      const [x, slope] = [spec.f(z), Math.abs(spec.slope(z))];
      const dx = Math.abs(spec.f(z + here.dz / 2) - spec.f(z - here.dz / 2));
      kit.tell(
        parts,
        [
          ["<i>z</i>", kit.number(z)],
          ["<i>x</i>", kit.number(x)],
          ["<i>p</i><sub>Z</sub>(<i>z</i>)", kit.number(spec.baseDensity(z), 4)],
          ["<i>p</i><sub>X</sub>(<i>x</i>)", kit.number(spec.baseDensity(z) / slope, 4)],
          ["|<i>f</i> ′(<i>z</i>)|", kit.number(slope, 3)],
          ["d<i>x</i> ÷ d<i>z</i>", kit.number(dx / here.dz, 3)],
          ["log |<i>f</i> ′(<i>z</i>)|", kit.number(Math.log(slope), 3)],
          ["log <i>p</i><sub>X</sub>(<i>x</i>)", kit.number(Math.log(spec.baseDensity(z) / slope), 3)],
        ],
        `z = ${kit.number(z)} with density ${kit.number(spec.baseDensity(z), 4)} ` +
          `goes to x = ${kit.number(x)}; slope ${kit.number(slope, 3)}, ` +
          `density of x ${kit.number(spec.baseDensity(z) / slope, 4)}.`,
      );
    }
  };
})();
