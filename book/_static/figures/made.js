/* MADE's masks: a network from the inputs below to the outputs above, with the paths into one output, and
   the table of who sees whom. */
"use strict";

(() => {
  const ORDERS = {
    forward: { name: "first to last", of: (entries) => entries },
    backward: { name: "last to first", of: (entries) => [...entries].reverse() },
    odd: {
      name: "odd ones first",
      of: (entries) => [...entries.filter((k) => k % 2 === 0), ...entries.filter((k) => k % 2 === 1)],
    },
  };
  const [LEFT, TOP, RADIUS] = [28, 30, 12]; // margins leave room for the probe, which is 44 px wide

  const upTo = (n) => Array.from({ length: n }, (_, k) => k);
  const list = (entries) => entries.map((k) => k + 1).join(", ") || "none";

  /* Where unit k of n stands in row `level` of `levels`, counted from the inputs. */
  const spot = (width, height, n, levels) => (level, k) => [
    LEFT + ((k + 0.5) * (width - 2 * LEFT)) / n,
    height - TOP - (level * (height - 2 * TOP)) / (levels - 1),
  ];

  /* Which units feed the chosen output: one list of booleans a row, from the inputs up. */
  function feeding(masks, output) {
    const alive = [masks[masks.length - 1].map((_, i) => i === output)];
    for (const mask of [...masks].reverse())
      alive.unshift(mask[0].map((_, j) => mask.some((row, i) => alive[0][i] && row[j])));
    return alive;
  }

  function drawNetwork(canvas, made, output, colours) {
    const { pen, width, height } = flowFigures.kit.clear(canvas);
    const d = made.places.length;
    const rows = [upTo(d), ...made.degrees, upTo(d)]; // entries below and above, degrees between
    const at = rows.map((row, level) => {
      const place = spot(width, height, row.length, rows.length);
      return row.map((_, k) => place(level, k));
    });
    const alive = feeding(made.masks, output);
    for (const chosen of [false, true]) // the paths into the output lie above the others
      made.masks.forEach((mask, level) =>
        mask.forEach((row, i) =>
          row.forEach((kept, j) => {
            if (!kept || chosen !== (alive[level + 1][i] && alive[level][j])) return;
            pen.beginPath();
            pen.moveTo(...at[level][j]);
            pen.lineTo(...at[level + 1][i]);
            pen.strokeStyle = chosen ? colours.first : colours.faint;
            pen.lineWidth = chosen ? 2.5 : 1;
            pen.stroke();
          }),
        ),
      );
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    rows.forEach((row, level) =>
      row.forEach((value, k) => {
        const [x, y] = at[level][k];
        const [end, on] = [level === 0 || level === rows.length - 1, alive[level][k]];
        pen.beginPath();
        if (end) pen.rect(x - RADIUS, y - RADIUS, 2 * RADIUS, 2 * RADIUS);
        else pen.arc(x, y, RADIUS, 0, 2 * Math.PI);
        pen.fillStyle = colours.paper;
        pen.fill();
        pen.strokeStyle = on ? colours.first : colours.faint;
        pen.lineWidth = on ? 3 : 1.5;
        pen.stroke();
        pen.fillStyle = colours.ink;
        pen.fillText(String(end ? value + 1 : value), x, y + 1);
      }),
    );
    return at[rows.length - 1][output];
  }

  /* Filled where the row's output sees the column's input; crossed where the order allows it and no path
     is left. */
  function drawTable(canvas, made, output, colours) {
    const { pen, width, height } = flowFigures.kit.clear(canvas);
    const d = made.places.length;
    const [left, top] = [24, 24];
    const cell = Math.min((width - left - 4) / d, (height - top - 4) / d);
    pen.font = "13px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    for (const i of upTo(d)) {
      pen.fillStyle = colours.ink;
      pen.fillText(String(i + 1), left + (i + 0.5) * cell, top - 12);
      pen.fillText(String(i + 1), left - 12, top + (i + 0.5) * cell);
      for (const j of upTo(d)) {
        const [x, y] = [left + j * cell, top + i * cell];
        if (made.sees[i][j]) {
          pen.fillStyle = colours.first;
          pen.globalAlpha = i === output ? 1 : 0.45;
          pen.fillRect(x, y, cell, cell);
          pen.globalAlpha = 1;
        } else if (made.places[j] < made.places[i]) {
          pen.fillStyle = colours.second;
          pen.fillText("×", x + cell / 2, y + cell / 2);
        }
        pen.strokeStyle = colours.faint;
        pen.lineWidth = 1;
        pen.strokeRect(x, y, cell, cell);
      }
    }
    pen.strokeStyle = colours.ink;
    pen.lineWidth = 2.5;
    pen.strokeRect(left, top + output * cell, d * cell, cell);
  }

  flowFigures.build.made = (place) => {
    const { kit, math } = flowFigures;
    const parts = kit.frame(place, {
      title: "MADE’s masks, and who sees whom",
      formula:
        "<i>M</i> = [<i>m</i><sub>k</sub> ≥ <i>m</i><sub>j</sub>], " +
        "<i>M</i><sup>out</sup> = [<i>i</i> &gt; <i>m</i><sub>k</sub>]",
      note:
        "<i>d</i> inputs stand below, <i>d</i> outputs above, and between them <i>L</i> layers of <i>n</i> " +
        "hidden units with their degrees. Drag the round probe along the outputs, or tap one: its paths are " +
        "drawn thick. The table has a row for each output. With too few hidden units some pairs lose every " +
        "path (×), but none is ever gained.",
      draw,
    });
    const network = kit.element("div", { className: "flow-network" });
    const table = kit.element("div", { className: "flow-table" });
    parts.drawing.append(network, table);
    const lines = kit.canvas(network, "The network, with the paths into the chosen output");
    const pairs = kit.canvas(table, "Table of who sees whom: outputs in rows, inputs in columns");
    lines.className = "flow-lines";
    pairs.className = "flow-pairs";

    const slider = (name, label, min, max, value) =>
      kit.slider(parts, { name, label, min, max, step: 1, value, digits: 0 });
    const entries = slider("<i>d</i>", "d, number of entries", 2, 6, 4);
    const width = slider("<i>n</i>", "n, units in each hidden layer", 1, 8, 6);
    const layers = slider("<i>L</i>", "L, number of hidden layers", 1, 3, 2);
    const names = Object.fromEntries(Object.entries(ORDERS).map(([key, { name }]) => [key, name]));
    const order = kit.choice(parts, { name: "order", options: names, value: "forward" });
    let output = 2;

    const move = (wanted) => {
      output = kit.clamp(Math.round(wanted), 0, entries.get() - 1);
      parts.redraw();
    };
    const handle = kit.probe(network, {
      label: "Chosen output. Arrow keys move it.",
      point: (x) => {
        const { width: across } = network.getBoundingClientRect();
        move((entries.get() * (x * across - LEFT)) / (across - 2 * LEFT) - 0.5);
      },
      step: (dx, dy) => move(output + Math.sign(dx + dy)),
    });
    kit.resetButton(parts, () => {
      for (const one of [entries, width, layers, order]) one.reset();
      move(2);
    });

    function draw() {
      const d = entries.get();
      output = Math.min(output, d - 1);
      const made = math.made({
        order: ORDERS[order.get()].of(upTo(d)),
        hidden: upTo(layers.get()).map(() => width.get()),
      });
      const colours = kit.colours(place);
      const [x, y] = drawNetwork(lines, made, output, colours);
      drawTable(pairs, made, output, colours);
      handle.style.left = `${x}px`;
      handle.style.top = `${y}px`;
      handle.setAttribute("aria-valuemin", 1);
      handle.setAttribute("aria-valuemax", d);
      handle.setAttribute("aria-valuenow", output + 1);

      const seen = upTo(d).filter((j) => made.sees[output][j]);
      const weights = made.masks.flat(2);
      const kept = weights.filter(Boolean).length;
      const lost = made.sees
        .flatMap((row, i) => row.map((paths, j) => !paths && made.places[j] < made.places[i]))
        .filter(Boolean).length;
      kit.tell(
        parts,
        [
          ["output", String(output + 1)],
          ["sees inputs", list(seen)],
          ["paths into it", String(made.sees[output].reduce((sum, paths) => sum + paths, 0))],
          ["weights kept", `${kept} / ${weights.length}`],
          ["pairs lost", String(lost)],
        ],
        `Output ${output + 1} sees inputs ${list(seen)}; weights kept ${kept} / ${weights.length}, pairs lost ${lost}.`,
      );
    }
  };
})();
