/* The table of lecture 16: sorted by a column, filtered, and drawn with the front of what is left.
   The numbers come from choose-data.js, which benchmarks/lecture_16.py writes; the tests compare both. */
"use strict";

(() => {
  /* What a model costs, each better if less: the column's head, what it is in words, digits, and the axis. */
  const COSTS = {
    bits: { head: "bits", words: "bits per dimension", digits: 3 },
    sampling: { head: "ms", words: "ms for 100 samples", digits: 1, log: true },
    memory: { head: "MB", words: "megabytes of memory in training", digits: 0, log: true },
    parameters: { head: "k", words: "thousands of parameters", digits: 0, log: true },
    looks: { head: "looks", words: "Fréchet distance of the samples", digits: 1, log: true },
    seconds: { head: "s", words: "seconds of training", digits: 1, log: true },
  };
  const MARKS = { exact: "■", bound: "●", estimate: "▲" };

  /* Rows in the order of a column; equal ones keep their order. */
  function sorted(rows, key, descending = false) {
    const sign = descending ? -1 : 1;
    const compare = (a, b) => (a[key] < b[key] ? -sign : a[key] > b[key] ? sign : 0);
    return [...rows].sort(compare);
  }

  /* Rows whose entries are those that were asked for; "all" asks for nothing. */
  function filtered(rows, asked) {
    const wanted = Object.entries(asked).filter(([, value]) => value !== "all");
    return rows.filter((row) => wanted.every(([key, value]) => String(row[key]) === value));
  }

  /* Rows that no other row beats: never worse in these costs, and better in one. */
  function front(rows, keys) {
    const beats = (a, b) => keys.every((key) => a[key] <= b[key]) && keys.some((key) => a[key] < b[key]);
    return rows.filter((row) => !rows.some((other) => beats(other, row)));
  }

  /* How many rectangles (left, top, right, bottom) one more would lie upon. */
  const crowd = (one, others) =>
    others.filter((other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3]).length;

  flowFigures.math.choose = { sorted, filtered, front, crowd };

  flowFigures.build.choose = (place) => {
    const { kit } = flowFigures;
    const rows = flowFigures.chooseData;
    const order = { key: "bits", descending: false };
    const parts = kit.frame(place, {
      title: "Choosing a model",
      formula: "<i>a</i> beats <i>b</i>: never worse, once better",
      note:
        "Digits of 8 × 8 pixels, means of the seeds. ■ exact, ● bound, ▲ estimate. The line joins the front: models that no " +
        "other one beats in both directions. A heading sorts the table, and again the other way round. Front in " +
        "bold. A number with labels answers an easier question.",
      draw,
    });
    const holder = kit.element("div", { className: "flow-line" });
    parts.drawing.append(holder);
    const canvas = kit.canvas(holder, "Bits per dimension over the chosen cost, with the front");
    canvas.className = "flow-lines";

    const distinct = (key) => [...new Set(rows.map((row) => String(row[key])))];
    const all = (key, every) => ({ all: every, ...Object.fromEntries(distinct(key).map((value) => [value, value])) });
    const choose = (name, options, value) => kit.choice(parts, { name, options, value });
    const across = Object.entries(COSTS).slice(1).map(([key, { words }]) => [key, words]);
    const budgets = Object.fromEntries(distinct("budget").map((value) => [value, `${value} s`]));
    const choices = {
      budget: choose("trained", { all: "any time", ...budgets }, distinct("budget").at(-1)),
      kind: choose("value", all("kind", "of any kind"), "all"),
      labels: choose("labels", { all: "with or without", false: "without", true: "with" }, "false"),
      family: choose("family", all("family", "every family"), "all"),
    };
    const axis = choose("across", Object.fromEntries(across), "sampling");

    const heads = Object.entries({ model: { head: "model", words: "name" }, ...COSTS }).map(([key, { head, words }]) => {
      const button = kit.element("button", { type: "button", "aria-label": `Sort by ${words}` }, head);
      button.addEventListener("click", () => {
        order.descending = order.key === key && !order.descending;
        order.key = key;
        parts.redraw();
      });
      return [key, kit.element("th", { scope: "col" }, button)];
    });
    heads[0][1].style.width = "26%"; // so that a phone has 44 px for each of the six columns of numbers
    const body = kit.element("tbody");
    const head = kit.element("thead", {}, kit.element("tr", {}, ...heads.map(([, cell]) => cell)));
    const table = kit.element("table", { className: "flow-models" }, head, body);
    parts.readout.before(table);
    kit.resetButton(parts, () => {
      [...Object.values(choices), axis].forEach((one) => one.reset());
      Object.assign(order, { key: "bits", descending: false });
      parts.redraw();
    });

    function draw() {
      const asked = Object.fromEntries(Object.entries(choices).map(([key, one]) => [key, one.get()]));
      const shown = sorted(filtered(rows, asked), order.key, order.descending);
      const best = front(shown, [axis.get(), "bits"]);
      tabulate(shown, best);
      scatter(shown, sorted(best, axis.get()));
      const least = sorted(shown, "bits")[0];
      const fewest = least ? kit.number(least.bits, 3) : "none";
      kit.tell(
        parts,
        [
          ["shown", `${shown.length} of ${rows.length}`],
          ["on the front", String(best.length)],
          ["fewest bits", fewest],
        ],
        `${shown.length} of ${rows.length} rows, sorted by ${order.key}` +
          `${order.descending ? ", largest first" : ""}. Fewest bits ${fewest}. ` +
          `On the front: ${best.map((row) => row.model).join("; ") || "nobody"}.`,
      );
    }

    function named(row) {
      return choices.budget.get() === "all" ? `${row.model}, ${row.budget} s` : row.model;
    }

    function tabulate(shown, best) {
      for (const [key, cell] of heads) {
        const sort = key !== order.key ? "none" : order.descending ? "descending" : "ascending";
        cell.setAttribute("aria-sort", sort);
      }
      const lines = shown.map((row) => {
        const name = `${MARKS[row.kind]} ${named(row)}`;
        const numbers = Object.entries(COSTS).map(([key, { digits }]) =>
          kit.element("td", {}, kit.number(row[key], digits)),
        );
        const line = kit.element("tr", {}, kit.element("th", { scope: "row" }, name), ...numbers);
        line.className = best.includes(row) ? "flow-front" : "";
        return line;
      });
      body.replaceChildren(...lines);
    }

    function scatter(shown, best) {
      const colours = kit.colours(place);
      const { pen, width, height } = kit.clear(canvas);
      const key = axis.get();
      const box = { left: 52, right: width - 12, top: 10, bottom: height - 40 };
      const scale = (values, log, low, high) => {
        const bend = log ? Math.log : (value) => value;
        const [least, most] = [Math.min(...values), Math.max(...values)].map(bend);
        const span = most - least || 1;
        return (value) => low + ((bend(value) - least + 0.06 * span) / (1.12 * span)) * (high - low);
      };
      pen.font = "12px system-ui, sans-serif";
      pen.strokeStyle = colours.faint;
      pen.strokeRect(box.left, box.top, box.right - box.left, box.bottom - box.top);
      pen.fillStyle = colours.ink;
      pen.textAlign = "center";
      pen.fillText(COSTS[key].words, (box.left + box.right) / 2, height - 6);
      pen.save();
      pen.translate(12, (box.top + box.bottom) / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText(COSTS.bits.words, 0, 0);
      pen.restore();
      if (!shown.length) return;
      const x = scale(shown.map((row) => row[key]), true, box.left, box.right);
      const y = scale(shown.map((row) => row.bits), false, box.bottom, box.top);
      const ticks = (values, count) => {
        const [least, most] = [Math.min(...values), Math.max(...values)];
        return least === most ? [least] : Array.from({ length: count }, (_, i) => [least, most, i / (count - 1)]);
      };
      for (const tick of ticks(shown.map((row) => row.bits), 4)) {
        const value = Array.isArray(tick) ? tick[0] + tick[2] * (tick[1] - tick[0]) : tick;
        pen.textAlign = "right";
        pen.fillText(kit.number(value, 2), box.left - 4, y(value) + 4);
      }
      for (const tick of ticks(shown.map((row) => row[key]), 3)) {
        const value = Array.isArray(tick) ? tick[0] * (tick[1] / tick[0]) ** tick[2] : tick;
        pen.textAlign = "center";
        pen.fillText(value < 10 ? kit.number(value, 1) : kit.number(value, 0), x(value), box.bottom + 16);
      }
      pen.strokeStyle = colours.guide;
      pen.lineWidth = 2;
      pen.beginPath();
      best.forEach((row, i) => (i ? pen.lineTo(x(row[key]), y(row.bits)) : pen.moveTo(x(row[key]), y(row.bits))));
      pen.stroke();
      for (const row of shown) {
        const on = best.includes(row);
        pen.fillStyle = on ? colours.second : colours.first;
        pen.textAlign = "center";
        pen.font = `${on ? 17 : 13}px system-ui, sans-serif`;
        pen.fillText(MARKS[row.kind], x(row[key]), y(row.bits) + 5);
      }
      pen.fillStyle = colours.ink;
      pen.font = "12px system-ui, sans-serif";
      pen.textAlign = "left";
      const taken = shown.map((row) => [x(row[key]) - 7, y(row.bits) - 7, x(row[key]) + 7, y(row.bits) + 7]);
      for (const row of best) {
        const name = named(row);
        const wide = pen.measureText(name).width;
        const boxes = [[8, -8], [-8 - wide, -8], [8, 16], [-8 - wide, 16]].map(([right, down]) => {
          const [from, line] = [x(row[key]) + right, y(row.bits) + down];
          return [from, line - 10, from + wide, line + 3];
        });
        const free = boxes.map((one) => crowd(one, taken) + 9 * (one[0] < box.left || one[2] > box.right));
        const [from, , to, under] = boxes[free.indexOf(Math.min(...free))];
        taken.push([from, under - 13, to, under]);
        pen.fillText(name, from, under - 3);
      }
    }
  };
})();
