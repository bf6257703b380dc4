/* Draw a digit: the bits that each label would need for it, and by Bayes' rule the label it is taken for. */
"use strict";

(() => {
  const [LEAST, LEVELS] = [1.4, 17]; // bits at the top of the columns; of grey
  const range = (n) => Array.from({ length: n }, (_, k) => k);
  const ZEROS = range(10).map(() => 0);

  /* Ten columns that stand on a uniform guess, and grow as bits fall. */
  function drawColumns(canvas, { bits, winner, uniform, told }, colours) {
    const { line } = flowFigures;
    const pen = line.penOf(canvas);
    const [left, right, top, bottom] = [38, pen.width - 6, 8, pen.height - 24];
    const up = line.scale([uniform, LEAST], [bottom, top]);
    const step = (right - left) / 10;
    const across = (value, ...style) => pen.line([[left, up(value)], [right, up(value)]], ...style);
    for (const tick of [3, 2]) across(tick, colours.faint, 0.5);
    range(10).forEach((label) => {
      const middle = left + (label + 0.5) * step;
      const height = Math.min(bottom, Math.max(top, up(bits ? bits[label] : uniform)));
      const [from, to] = [middle - 0.34 * step, middle + 0.34 * step];
      const [colour, strength] = label === winner ? [colours.first, 1] : [colours.dense, 0.45];
      pen.fill([[from, bottom], [to, bottom], [to, height], [from, height]], colour, strength);
      pen.text(String(label), middle, bottom + 13, colours.ink, "center");
    });
    across(told, colours.guide, 1.5, [5, 4]);
    across(uniform, colours.ink);
    pen.text("held-out digits", right, up(told) - 9, colours.ink, "right");
    for (const [words, value] of [["2", 2], ["3", 3], [uniform.toFixed(2), uniform]])
      pen.text(words, left - 6, up(value), colours.ink, "right");
  }

  flowFigures.build["glow-read"] = async (place) => {
    const { kit, math } = flowFigures;
    const parts = kit.frame(place, {
      title: "Draw a digit",
      formula: "<i>p</i>(<i>y</i> | <i>x</i>) ∝ <i>p</i>(<i>x</i> | <i>y</i>)",
      note:
        "Draw with mouse, pen or finger, and large, as the data are. By keyboard: arrow keys move between pixels, " +
        "space darkens one by four levels, backspace whitens it. A column stands on a uniform guess and grows as the " +
        "bits fall that a trained Glow needs for your digit, told that label; Bayes’ rule chooses among them. The bits " +
        "in numbers are without a label: of your digit, and on average of 360 that the Glow never saw. All are upper " +
        "bounds, averaged over eight fixed draws of dequantisation noise.",
      draw,
    });
    const pad = flowFigures.pad(kit.panel(parts, "draw here"), { changed, looked: parts.redraw });
    const columns = kit.canvas(
      kit.panel(parts, "bits per dimension, by label", "flow-columns"),
      "Bits per dimension by label",
    );
    const clear = kit.element("button", { type: "button", className: "flow-reset" }, "Clear");
    clear.addEventListener("click", pad.clear);
    parts.controls.append(clear);

    let model = null;
    let sums = null; // over the draws of noise so far; of the drawing before until there is one of this
    let started = false;
    let waiting = 0;
    function changed() {
      const busy = model !== null && !pad.empty();
      started = false;
      if (!busy) sums = null;
      clearTimeout(waiting);
      if (busy) waiting = setTimeout(think);
      place.setAttribute("aria-busy", String(busy));
      parts.redraw();
    }

    /* One draw of noise more, then the page has its turn. */
    function think() {
      const so = started ? sums : { draws: 0, logs: ZEROS, shares: ZEROS, logProb: 0 };
      const found = model.read(pad.levels, model.noises[so.draws]);
      const add = (name) => found[name].map((value, label) => value + so[name][label]);
      sums = { draws: so.draws + 1, logs: add("logs"), shares: add("shares"), logProb: so.logProb + found.logProb };
      started = true;
      if (sums.draws < model.noises.length) waiting = setTimeout(think);
      else place.setAttribute("aria-busy", "false");
      parts.redraw();
    }

    function draw() {
      const colours = kit.colours(place);
      pad.draw(colours);
      const mean = (values) => values.map((value) => value / sums.draws);
      const shares = sums && mean(sums.shares);
      const winner = sums && shares.indexOf(Math.max(...shares));
      const bits = sums && mean(sums.logs).map(model.bits);
      const [told, untold] = [model?.facts.told ?? NaN, model?.facts.untold ?? NaN];
      drawColumns(columns, { bits, winner, told, uniform: Math.log2(LEVELS) }, colours);
      const own = sums ? kit.number(model.bits(sums.logProb / sums.draws)) : "–";
      const share = sums ? kit.number(shares[winner], 3) : "–";
      const said = sums ? `Taken for ${winner}, share ${share}, ${own} bits per dimension` : "Nothing drawn yet";
      kit.tell(
        parts,
        [
          ["taken for", sums ? String(winner) : "–"],
          ["<i>p</i>(<i>y</i> | <i>x</i>)", share],
          ["bits per dim.", own],
          ["held-out digits", model ? kit.number(untold) : "–"],
        ],
        `${said}; ${pad.place()}.`,
      );
    }

    model = await math.glowModel();
    changed();
  };
})();
