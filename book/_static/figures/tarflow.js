/* Sampling a TarFlow patch by patch: four blocks with causal attention, in turned orders, on 8 × 8 digits.
   The network mirrors flowlib/layers/tarflow.py; the tests compare the two. */
"use strict";

(() => {
  const [SIDE, PATCH, TOKENS, HEADS, BLOCKS, BOUND] = [8, 2, 16, 2, 4, 2];

  /* The tensors by name, as rows of numbers, or one row if they have one dimension. */
  function unpack({ tensors, numbers }) {
    const bytes = Uint8Array.from(atob(numbers), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    let place = 0;
    const row = (length, scale) =>
      Array.from({ length }, () => scale * view.getInt16(2 * place++, true));
    return Object.fromEntries(
      tensors.map(([name, shape, scale]) => [
        name,
        shape.length === 1
          ? row(shape[0], scale)
          : Array.from({ length: shape[0] }, () => row(shape[1], scale)),
      ]),
    );
  }

  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const plus = (a, b) => a.map((value, i) => value + b[i]);
  const linear = (weight, bias, h) => weight.map((row, i) => dot(row, h) + (bias ? bias[i] : 0));
  const silu = (x) => x / (1 + Math.exp(-x));
  const sum = (values) => values.reduce((total, value) => total + value, 0);

  function norm(gain, offset, h) {
    const mean = sum(h) / h.length;
    const centred = h.map((value) => value - mean);
    const deviation = Math.sqrt(dot(centred, centred) / h.length + 1e-5);
    return centred.map((value, i) => (value / deviation) * gain[i] + offset[i]);
  }

  /* One head: how much the query asks each key, and the mixture of the values. */
  function attend(query, keys, values) {
    const scores = keys.map((key) => dot(query, key) / Math.sqrt(query.length));
    const top = Math.max(...scores);
    const weights = scores.map((score) => Math.exp(score - top));
    const total = sum(weights);
    return query.map((_, i) => dot(weights, values.map((value) => value[i])) / total);
  }

  /* The network of block k for its next token; `past` keeps the keys and values of those before, and is extended. */
  function next(weights, k, token, label, past) {
    const of = (name) => weights[`${k}.net.${name}`];
    let h = plus(linear(of("first.weight"), of("first.bias"), token), of("positions")[past.length]);
    h = plus(h, linear(of("context.weight"), null, label));
    const inner = linear(
      of("layers.0.inner.weight"),
      null,
      norm(of("layers.0.norm.weight"), of("layers.0.norm.bias"), h),
    );
    const [width, size] = [h.length, h.length / HEADS];
    const head = (part, i) => inner.slice(part * width + i * size, part * width + (i + 1) * size);
    const heads = Array.from({ length: HEADS }, (_, i) => i);
    past.push({ keys: heads.map((i) => head(1, i)), values: heads.map((i) => head(2, i)) });
    const mixed = heads.flatMap((i) =>
      attend(head(0, i), past.map((one) => one.keys[i]), past.map((one) => one.values[i])),
    );
    h = plus(h, linear(of("layers.0.outer.weight"), of("layers.0.outer.bias"), mixed));
    const mlp = (j) => [of(`layers.0.mlp.${j}.weight`), of(`layers.0.mlp.${j}.bias`)];
    const wide = linear(...mlp(1), norm(...mlp(0), h)).map(silu);
    h = plus(h, linear(...mlp(3), wide));
    const raw = linear(of("last.1.weight"), of("last.1.bias"), norm(of("last.0.weight"), of("last.0.bias"), h));
    const half = raw.length / 2;
    return {
      alpha: raw.slice(0, half).map((value) => BOUND * Math.tanh(value / BOUND)),
      mu: raw.slice(half),
    };
  }

  /* Where patch i of block k lies: its upper left pixel. */
  function corner(k, i) {
    const place = k % 2 ? TOKENS - 1 - i : i;
    const across = SIDE / PATCH;
    return [PATCH * Math.floor(place / across), PATCH * (place % across)];
  }
  const cells = (k, i) => {
    const [top, left] = corner(k, i);
    return [0, 1].flatMap((di) => [0, 1].map((dj) => [top + di, left + dj]));
  };

  /* All states of sampling: for each block its z, its x, and Σα after each patch. Images are rows of numbers. */
  function tarflow(z, digit) {
    const weights = (tarflow.weights ??= unpack(flowFigures.tarflowWeights));
    const label = Array.from({ length: 10 }, (_, c) => (c === digit ? 1 : 0));
    const blocks = [];
    let image = z;
    for (let k = 0; k < BLOCKS; k++) {
      const [from, x, past, logDets] = [image, image.map((row) => [...row]), [], [0]];
      for (let i = 1; i < TOKENS; i++) {
        const token = cells(k, i - 1).map(([a, b]) => x[a][b]);
        const { alpha, mu } = next(weights, k, token, label, past);
        cells(k, i).forEach(([a, b], j) => (x[a][b] = from[a][b] * Math.exp(alpha[j]) + mu[j]));
        logDets.push(logDets[i - 1] + sum(alpha));
      }
      blocks.push({ z: from, x, logDets });
      image = x;
    }
    return blocks;
  }

  /* Standard normals that depend on the number of the draw alone. */
  function noise(draw) {
    let state = (draw * 2654435761 + 12345) >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    return Array.from({ length: SIDE }, () => Array.from({ length: SIDE }, normal));
  }

  flowFigures.math.tarflow = tarflow;

  flowFigures.build.tarflow = (place) => {
    const { kit } = flowFigures;
    const parts = kit.frame(place, {
      title: "Patch by patch, block by block",
      formula:
        "<i>x</i><sub>i</sub> = <i>z</i><sub>i</sub> e<sup><i>α</i></sup> + <i>μ</i>, from <i>x</i><sub>&lt;i</sub>",
      note:
        "A trained TarFlow of four blocks runs in this page. Left is what a block is given, right what it has made " +
        "so far: the patch it writes is framed, those it has not reached are left out. Every second block starts at the " +
        "other end. Move <i>s</i> through all 64 patches; ask for another digit, or for other noise.",
      draw,
    });
    const panel = (words, label, className) => kit.canvas(kit.panel(parts, words), label, className);
    const given = panel("given to the block", "The image that the block is given", "flow-density");
    const made = panel("made so far", "The patches that the block has made so far", "flow-lines");

    const step = kit.slider(parts, {
      name: "<i>s</i>",
      label: "s, patches written so far, over all four blocks",
      min: 1,
      max: BLOCKS * TOKENS,
      step: 1,
      value: 56,
      digits: 0,
    });
    const names = Object.fromEntries(Array.from({ length: 10 }, (_, c) => [c, String(c)]));
    const digit = kit.choice(parts, { name: "digit", options: names, value: "3" });
    let [draws, shown] = [1, {}];
    const another = kit.element("button", { type: "button", className: "flow-reset" }, "Other noise");
    another.addEventListener("click", () => {
      draws += 1;
      parts.redraw();
    });
    parts.controls.append(another);
    kit.resetButton(parts, () => {
      draws = 1;
      [step, digit].forEach((one) => one.reset());
      parts.redraw();
    });

    /* Grey from paper to ink as the last block's numbers are pixels: through the logistic curve. */
    function paint(canvas, image, keep, frame, colours) {
      const { pen, width } = kit.clear(canvas);
      const edge = (n) => Math.round((n * width) / SIDE);
      image.forEach((row, a) =>
        row.forEach((value, b) => {
          if (!keep(a, b)) return;
          pen.fillStyle = colours.ink;
          pen.globalAlpha = 1 / (1 + Math.exp(-value));
          pen.fillRect(edge(b), edge(a), edge(b + 1) - edge(b), edge(a + 1) - edge(a));
        }),
      );
      pen.globalAlpha = 1;
      pen.strokeStyle = colours.faint;
      pen.lineWidth = 1;
      for (let n = PATCH; n < SIDE; n += PATCH) {
        pen.strokeRect(edge(n), -1, 0, width + 2);
        pen.strokeRect(-1, edge(n), width + 2, 0);
      }
      pen.strokeStyle = colours.second;
      pen.lineWidth = 3;
      const [top, left] = frame;
      pen.strokeRect(edge(left) + 1, edge(top) + 1, edge(PATCH) - 2, edge(PATCH) - 2);
    }

    function draw() {
      const wanted = `${draws} ${digit.get()}`;
      if (shown.wanted !== wanted) shown = { wanted, blocks: tarflow(noise(draws), Number(digit.get())) };
      const k = Math.floor((step.get() - 1) / TOKENS);
      const i = (step.get() - 1) % TOKENS;
      const { z, x, logDets } = shown.blocks[k];
      const colours = kit.colours(place);
      const known = new Set(Array.from({ length: i + 1 }, (_, j) => cells(k, j).map(String)).flat());
      paint(given, z, () => true, corner(k, i), colours);
      paint(made, x, (a, b) => known.has(`${a},${b}`), corner(k, i), colours);
      const before = sum(shown.blocks.slice(0, k).map((block) => block.logDets[TOKENS - 1]));
      const logDet = kit.number(before + logDets[i], 2);
      const order = k % 2 ? "last patch first" : "first patch first";
      kit.tell(
        parts,
        [
          ["block", `${k + 1} of ${BLOCKS}`],
          ["patch", `${i + 1} of ${TOKENS}`],
          ["order", order],
          ["log |det|", logDet],
        ],
        `Block ${k + 1} of ${BLOCKS}, ${order}: ${i + 1} of ${TOKENS} patches written, log determinant ${logDet}.`,
      );
    }
  };
})();
