/* What a determinant costs: Gaussian elimination, column by column, beside a triangular matrix. */
"use strict";

/* A fixed d × d matrix with k of its columns eliminated, rows swapped so as not to divide by a small pivot; the
   divisions, products and logarithms until then, and the sum of log|pivot|. k = d is the whole determinant. */
flowFigures.math.cost = ({ d, k }) => {
  const entry = (i, j) => Math.sin(3 + 5 * i * i + 7 * j + 11 * i * j) + (i === j ? 1 : 0);
  const matrix = Array.from({ length: d }, (_, i) => Array.from({ length: d }, (_, j) => entry(i, j)));
  let [count, logDet] = [0, 0];
  for (let column = 0; column < Math.min(k, d); column++) {
    let pivot = column;
    for (let i = column; i < d; i++) if (Math.abs(matrix[i][column]) > Math.abs(matrix[pivot][column])) pivot = i;
    [matrix[column], matrix[pivot]] = [matrix[pivot], matrix[column]];
    logDet += Math.log(Math.abs(matrix[column][column]));
    count += 1;
    for (let i = column + 1; i < d; i++) {
      const factor = matrix[i][column] / matrix[column][column];
      count += 1;
      matrix[i][column] = 0;
      for (let j = column + 1; j < d; j++) matrix[i][j] -= factor * matrix[column][j];
      count += d - column - 1;
    }
  }
  return { matrix, count, logDet, dense: (d ** 3 - d) / 3 + d, triangular: d };
};

flowFigures.build.cost = (place) => {
  const { kit, math, line } = flowFigures;
  const LARGEST = 16;

  const parts = kit.frame(place, {
    title: "What a determinant costs",
    formula: "<i>N</i>(<i>d</i>) = (<i>d</i><sup>3</sup> − <i>d</i>)/3 + <i>d</i> &nbsp; or &nbsp; <i>d</i>",
    note:
      "Move <i>k</i>: each step clears one column below the diagonal and has to change the whole block to its " +
      "right, drawn in orange; the marked entries of the diagonal are done. A Jacobian that is triangular from the " +
      "start has nothing to clear: its <i>d</i> logarithms are all. Then move <i>d</i>, and compare.",
    draw,
  });
  const make = (name, label) => {
    const holder = kit.element("div", { className: name });
    parts.drawing.append(holder);
    const made = kit.canvas(holder, label);
    made.className = "flow-lines";
    return made;
  };
  const table = make("flow-table", "Matrix during the elimination");
  const graph = make("flow-network", "Operations for dense and for triangular matrices, by dimension");
  const slider = (name, label, min, max, value) =>
    kit.slider(parts, { name: `<i>${name}</i>`, label, min, max, step: 1, value, digits: 0 });
  const size = slider("d", "d, the dimension", 2, LARGEST, 8);
  const done = slider("k", "k, columns cleared", 0, LARGEST, 3);
  size.input.addEventListener("input", () => done.get() > size.get() && done.set(size.get()));
  done.input.addEventListener("input", () => done.get() > size.get() && done.set(size.get()));
  kit.resetButton(parts, () => [size, done].forEach((one) => one.reset()));

  function drawMatrix(matrix, k, colours) {
    const pen = line.penOf(table);
    const d = matrix.length;
    const cell = (pen.width - 2) / d;
    const square = (i, j, colour, opacity, gap = 1) => {
      const [left, top] = [1 + j * cell + gap, 1 + i * cell + gap];
      const side = cell - 2 * gap;
      pen.fill([[left, top], [left + side, top], [left + side, top + side], [left, top + side]], colour, opacity);
    };
    matrix.forEach((row, i) =>
      row.forEach((value, j) => {
        const strength = 0.15 + 0.75 * (1 - Math.exp(-Math.abs(value)));
        if (i > j && j < k) square(i, j, colours.faint, 0.25); // cleared
        else if (i >= k && j >= k) square(i, j, colours.second, strength); // still to change
        else square(i, j, colours.first, strength);
        if (i === j && i < k) square(i, j, colours.ink, 1, 0.36 * cell);
      }),
    );
  }

  function drawCounts(d, spec, colours) {
    const pen = line.penOf(graph);
    const [left, right, top, bottom] = [52, pen.width - 12, 16, pen.height - 28];
    const across = line.scale([0, Math.log(4096)], [left, right]);
    const up = line.scale([0, Math.log(1e11)], [bottom, top]);
    const sizes = line.points(Math.log(2), Math.log(4096), 60);
    const curve = (count) => sizes.map((x) => [across(x), up(Math.log(count(Math.exp(x))))]);
    pen.line([[left, top], [left, bottom], [right, bottom]], colours.faint);
    for (const [tick, name] of [[1e3, "10³"], [1e6, "10⁶"], [1e9, "10⁹"]])
      pen.text(name, left - 6, up(Math.log(tick)), colours.ink, "right");
    for (const tick of [2, 16, 128, 3072])
      pen.text(String(tick), across(Math.log(tick)), bottom + 14, colours.ink, "center");
    pen.line(curve((n) => (n ** 3 - n) / 3 + n), colours.second, 2.5);
    pen.line(curve((n) => n), colours.first, 2.5);
    const bar = (count, colour) => {
      const [x, y] = [across(Math.log(d)), up(Math.log(Math.max(count, 1)))];
      pen.line([[x, bottom], [x, y]], colour, 1.5, [4, 3]);
      pen.fill(Array.from({ length: 20 }, (_, i) => [x + 5 * Math.cos(i / 3), y + 5 * Math.sin(i / 3)]), colour, 1);
    };
    bar(spec.dense, colours.second);
    bar(spec.count, colours.probe);
    bar(spec.triangular, colours.first);
    pen.text("dense", across(Math.log(300)), up(Math.log(1e9)), colours.second, "right");
    pen.text("triangular", across(Math.log(400)), up(Math.log(4)), colours.first, "center");
    pen.text("d = 3072: a colour image", right, top - 6, colours.ink, "right");
    pen.line([[across(Math.log(3072)), top + 4], [across(Math.log(3072)), bottom]], colours.faint, 1);
  }

  function draw() {
    const [d, k] = [size.get(), Math.min(done.get(), size.get())];
    const spec = math.cost({ d, k });
    const colours = kit.colours(place);
    drawMatrix(spec.matrix, k, colours);
    drawCounts(d, spec, colours);
    const rows = [
      ["cleared", `${k} of ${d}`],
      ["operations", String(spec.count)],
      ["dense, in all", String(spec.dense)],
      ["triangular", String(spec.triangular)],
      ["ratio", kit.number(spec.dense / spec.triangular, 1)],
      ["∑ log |pivot|", kit.number(spec.logDet, 3)],
    ];
    const said = `${spec.count} operations for ${k} of ${d} columns; dense ${spec.dense}, triangular ${spec.triangular}.`;
    kit.tell(parts, rows, said);
  }
};
