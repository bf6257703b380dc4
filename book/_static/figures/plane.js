/* A layer of the plane, drawn twice: z with the base density, x = f(z) with the pushed density.
   planar.js, coupling.js and field.js say which layer. */
"use strict";

(() => {
  const VIEW = 4.5; // both panels show [-4.5, 4.5]², so that areas can be compared by eye
  const GRID = 3; // the grid covers [-3, 3]², where the base has 99.5 % of its mass
  const SPACING = 0.5;
  const CELL = 0.8; // side of the small cell around the probe
  const PIXELS = 140; // of the density, each side

  const steps = (low, high, n) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);

  /* Four sides of the square around z, in order, with enough points to bend. */
  function cellAround(z, pieces = 16) {
    const [left, right, low, high] = [z[0] - CELL / 2, z[0] + CELL / 2, z[1] - CELL / 2, z[1] + CELL / 2];
    const along = (from, to) => steps(from, to, pieces).slice(0, -1);
    return [
      ...along(left, right).map((v) => [v, low]),
      ...along(low, high).map((v) => [right, v]),
      ...along(right, left).map((v) => [v, high]),
      ...along(high, low).map((v) => [left, v]),
    ];
  }

  /* One tone scale for both panels: the same shade is the same density. */
  const shade = (density) => 1 - Math.exp(-density / 0.12);

  function paintDensity(canvas, density, dense) {
    canvas.width = canvas.height = PIXELS;
    const pen = canvas.getContext("2d");
    const picture = pen.createImageData(PIXELS, PIXELS);
    const ink = [1, 3, 5].map((start) => parseInt(dense.slice(start, start + 2), 16));
    const width = (2 * VIEW) / PIXELS;
    for (let row = 0, at = 0; row < PIXELS; row++) {
      for (let column = 0; column < PIXELS; column++, at += 4) {
        const p = density([-VIEW + (column + 0.5) * width, VIEW - (row + 0.5) * width]);
        picture.data.set(ink, at);
        picture.data[at + 3] = Math.round(255 * shade(p));
      }
    }
    pen.putImageData(picture, 0, 0);
  }

  /* A pen in the coordinates of the plane. */
  function planePen(canvas) {
    const { pen, width } = flowFigures.kit.clear(canvas);
    const scale = width / (2 * VIEW);
    const at = ([x, y]) => [(x + VIEW) * scale, (VIEW - y) * scale];
    const path = (points) => {
      pen.beginPath();
      points.forEach((point) => pen.lineTo(...at(point)));
    };
    const line = (points, colour, thickness, dash = []) => {
      path(points);
      pen.setLineDash(dash);
      pen.strokeStyle = colour;
      pen.lineWidth = thickness;
      pen.stroke();
      pen.setLineDash([]);
    };
    const fill = (points, colour, opacity) => {
      path(points);
      pen.closePath();
      pen.fillStyle = colour;
      pen.globalAlpha = opacity;
      pen.fill();
      pen.globalAlpha = 1;
    };
    const dot = (point, colour, rim, radius = 5) => {
      pen.beginPath();
      pen.arc(...at(point), radius, 0, 2 * Math.PI);
      pen.fillStyle = colour;
      pen.fill();
      pen.strokeStyle = rim;
      pen.lineWidth = 2;
      pen.stroke();
    };
    const arrow = (from, to, colour) => {
      const [[x, y], [endX, endY]] = [at(from), at(to)];
      const length = Math.hypot(endX - x, endY - y);
      if (length < 3) return;
      const [dx, dy] = [(endX - x) / length, (endY - y) / length];
      const head = Math.min(10, length);
      line([from, to], colour, 2.5);
      pen.beginPath();
      pen.moveTo(endX, endY);
      pen.lineTo(endX - head * (dx - 0.45 * dy), endY - head * (dy + 0.45 * dx));
      pen.lineTo(endX - head * (dx + 0.45 * dy), endY - head * (dy - 0.45 * dx));
      pen.fillStyle = colour;
      pen.fill();
    };
    const text = (words, x, y, colour, halo) => {
      pen.font = "13px system-ui, sans-serif";
      pen.textAlign = "right";
      pen.strokeStyle = halo;
      pen.lineWidth = 4;
      pen.strokeText(words, x, y);
      pen.fillStyle = colour;
      pen.fillText(words, x, y);
    };
    return { line, fill, dot, arrow, text, width };
  }

  function drawGrid(pen, map, colours) {
    const fine = steps(-GRID, GRID, 80);
    for (const fixed of steps(-GRID, GRID, (2 * GRID) / SPACING)) {
      const thickness = Math.abs(fixed) < 1e-9 ? 2 : 0.9;
      pen.line(fine.map((v) => map([v, fixed])), colours.second, thickness);
      pen.line(fine.map((v) => map([fixed, v])), colours.first, thickness);
    }
  }

  function drawAxes(pen, colours) {
    pen.line([[-VIEW, 0], [VIEW, 0]], colours.faint, 1);
    pen.line([[0, -VIEW], [0, VIEW]], colours.faint, 1);
    for (const tick of [-4, -2, 2, 4]) {
      pen.line([[tick, -0.12], [tick, 0.12]], colours.faint, 1);
      pen.line([[-0.12, tick], [0.12, tick]], colours.faint, 1);
    }
  }

  const NOTE =
    "The area ratio is that of the small cell’s image to the cell: the smaller the cell, the closer to " +
    "|det|. The same shade is the same density on both sides.";

  /* spec: title, formula, note, sliders by name, start, values(get) → the layer's parameters,
     layer(values), guides(pen, side, layer, values, z, colours), rows(layer, values, z). */
  flowFigures.plane = (place, spec) => {
    const { kit, math } = flowFigures;
    let z = [...spec.start];
    const sliders = {};
    const values = () => spec.values((name) => sliders[name].get());
    const parts = kit.frame(place, { ...spec, note: `${spec.note} ${NOTE}`, draw });

    const panels = ["z", "x"].map((side) => {
      const caption = side === "z" ? "z, drawn from N(0, I)" : "x = f(z), pushed forward";
      const holder = kit.panel(parts, caption);
      const density = kit.canvas(holder, `Density of ${side} in the plane`);
      const lines = kit.canvas(holder, `Grid, probe and small cell in the plane of ${side}`);
      density.className = "flow-density";
      lines.className = "flow-lines";
      return { side, holder, density, lines };
    });

    const limit = (value) => kit.clamp(Math.round(value * 1000) / 1000, -GRID, GRID);
    const move = (point) => {
      z = point.map(limit);
      parts.redraw();
    };
    const handle = kit.probe(panels[0].holder, {
      label: "Probe point z. Arrow keys move it, with Shift in larger steps.",
      twoDimensional: true,
      point: (x, y) => move([VIEW * (2 * x - 1), VIEW * (1 - 2 * y)]),
      step: (dx, dy) => move([z[0] + 0.1 * dx, z[1] + 0.1 * dy]),
    });
    handle.setAttribute("aria-valuemin", -GRID);
    handle.setAttribute("aria-valuemax", GRID);

    for (const [name, options] of Object.entries(spec.sliders)) sliders[name] = kit.slider(parts, options);
    kit.resetButton(parts, () => {
      Object.values(sliders).forEach((one) => one.reset());
      move(spec.start);
    });

    function draw() {
      const parameters = values();
      const layer = spec.layer(parameters);
      const colours = kit.colours(place);
      const [x, logDet] = layer.forward(z);
      const cell = cellAround(z);
      const identity = math.planar({ u: [0, 0], w: [0, 0], b: 0 });
      for (const { side, density, lines } of panels) {
        const map = side === "z" ? (point) => point : (point) => layer.forward(point)[0];
        paintDensity(density, side === "z" ? identity.density : layer.density, colours.dense);
        const pen = planePen(lines);
        drawAxes(pen, colours);
        drawGrid(pen, map, colours);
        spec.guides(pen, side, layer, parameters, z, colours);
        pen.text(`${side}₁`, pen.width - 5, pen.width / 2 - 6, colours.ink, colours.paper);
        pen.text(`${side}₂`, pen.width / 2 - 7, 14, colours.ink, colours.paper);
        const outline = cell.map(map);
        pen.fill(outline, colours.probe, 0.55);
        pen.line([...outline, outline[0]], colours.ink, 1.5);
        if (side === "x") pen.dot(x, colours.probe, colours.ink);
      }
      handle.style.left = `${(50 * (z[0] + VIEW)) / VIEW}%`;
      handle.style.top = `${(50 * (VIEW - z[1])) / VIEW}%`;
      handle.setAttribute("aria-valuenow", z[0]);
      handle.setAttribute("aria-valuetext", `z = ${kit.pair(z)}`);

      const ratio = math.area(cell.map((point) => layer.forward(point)[0])) / CELL ** 2;
      kit.tell(
        parts,
        [
          ["<i>z</i>", kit.pair(z)],
          ["<i>x</i>", kit.pair(x)],
          ["log |det|", kit.number(logDet, 3)],
          ["|det|", kit.number(Math.exp(logDet), 3)],
          ["<i>p</i><sub>Z</sub>(<i>z</i>)", kit.number(identity.density(z), 4)],
          ["<i>p</i><sub>X</sub>(<i>x</i>)", kit.number(layer.density(x), 4)],
          ["area ratio", kit.number(ratio, 3)],
          ...spec.rows(layer, parameters, z),
        ],
        `z = ${kit.pair(z)} goes to x = ${kit.pair(x)}; log determinant ${kit.number(logDet, 3)}, ` +
          `area ratio ${kit.number(ratio, 3)}.`,
      );
    }
  };
})();
