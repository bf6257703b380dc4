/* The class-conditional Glow of lecture 9: from latents and a label to a digit, from a digit to its
   log-probability under each label. */
"use strict";

(() => {
  const LABELS = Array.from({ length: 10 }, (_, label) => label);
  const DRAWS = 8; // of dequantisation noise, always the same ones

  /* Each tensor lies as bytes from −127 to 127 in base64, times a power of two. */
  function readNumbers(layers) {
    for (const { tensors = {}, layers: inner = [] } of layers) {
      for (const tensor of Object.values(tensors)) {
        const whole = Int8Array.from(atob(tensor.numbers), (letter) => letter.charCodeAt(0));
        tensor.values = Float64Array.from(whole, (value) => value * 2 ** tensor.power);
      }
      readNumbers(inner);
    }
  }

  /* Uniform numbers that are the same at every visit (mulberry32), and normal ones from them. */
  function generator(seed) {
    let state = seed;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  }

  /* log Σ exp, without overflow. */
  function logSumExp(values) {
    const largest = Math.max(...values);
    return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  }

  function glow({ shape, levels, classes, layers, facts }) {
    readNumbers(layers);
    const flow = flowFigures.math.glowLayers({ layers }, classes);
    const d = shape.reduce((product, size) => product * size, 1);
    const base = (z) => -0.5 * (z.reduce((sum, v) => sum + v * v, 0) + d * Math.log(2 * Math.PI));
    const image = (values) => ({ values: Float64Array.from(values), shape });

    /* The image of a latent, as a density has it and in whole levels, and log p(x | label) of the first. */
    function decode(z, label) {
      const [{ values }, logDet] = flow.forward(image(z), label);
      const whole = Array.from(values, (v) => Math.min(levels - 1, Math.max(0, Math.floor(levels * v))));
      return { smooth: Array.from(values), levels: whole, logProb: base(z) - logDet - d * Math.log(levels) };
    }

    /* log p(x + u | label) of whole levels x with noise u, and the latent. */
    function encode(x, noise, label) {
      const [{ values }, logDet] = flow.inverse(image(x.map((v, k) => (v + noise[k]) / levels)), label);
      return { z: Array.from(values), logProb: base(values) + logDet - d * Math.log(levels) };
    }

    /* For one draw of noise log p(x + u | label) of the ten labels, log p(x + u), and by Bayes' rule their shares. */
    function read(x, noise) {
      const logs = LABELS.map((label) => encode(x, noise, label).logProb);
      const total = logSumExp(logs);
      return { logs, logProb: total - Math.log(classes), shares: logs.map((value) => Math.exp(value - total)) };
    }

    const bits = (logProb) => -logProb / (d * Math.LN2);
    const draw = generator(1);
    const noises = Array.from({ length: DRAWS }, () => Array.from({ length: d }, draw.uniform));
    return { d, levels, facts, decode, encode, read, bits, noises };
  }

  /* A latent between two: on the arc that keeps the length of normal draws, with both at its ends. */
  const between = (a, b, t) =>
    a.map((v, k) => Math.cos((t * Math.PI) / 2) * v + Math.sin((t * Math.PI) / 2) * b[k]);

  /* The model of the page, once its weights are there; both figures share it. */
  let model;
  const loaded = () =>
    (model ??= flowFigures.load("glow/weights.js").then(() => glow(flowFigures.glowWeights)));

  Object.assign(flowFigures.math, { glowModel: loaded, glowBetween: between, generator });
})();
