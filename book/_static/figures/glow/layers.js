/* Glow's layers, each with flowlib's name and its two directions: `forward` from latents to images, `inverse`
   back, both with the logarithm of their |det|. The tests compare them with flowlib. */
"use strict";

(() => {
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const like = (image, values) => ({ values, shape: image.shape });
  const part = ({ values, shape: [, height, width] }, first, last) => ({
    values: values.slice(first * height * width, last * height * width),
    shape: [last - first, height, width],
  });
  function join(a, b) {
    const values = new Float64Array(a.values.length + b.values.length);
    values.set(a.values);
    values.set(b.values, a.values.length);
    return { values, shape: [a.shape[0] + b.shape[0], a.shape[1], a.shape[2]] };
  }

  /* Each 2×2 block of pixels becomes four channels of one pixel. */
  function Squeeze() {
    const walk = ([channels, height, width], visit) => {
      for (let c = 0; c < channels; c++)
        for (let i = 0; i < height; i++)
          for (let j = 0; j < width; j++) {
            const channel = 4 * c + 2 * (i % 2) + (j % 2);
            visit(
              (c * height + i) * width + j,
              ((channel * height) / 2 + (i >> 1)) * (width / 2) + (j >> 1),
            );
          }
    };
    return {
      forward({ values, shape: [channels, height, width] }) {
        const squeezed = new Float64Array(values.length);
        walk([channels, height, width], (fine, coarse) => (squeezed[coarse] = values[fine]));
        return [{ values: squeezed, shape: [4 * channels, height / 2, width / 2] }, 0];
      },
      inverse({ values, shape }) {
        const wide = [shape[0] / 4, 2 * shape[1], 2 * shape[2]];
        const unfolded = new Float64Array(values.length);
        walk(wide, (fine, coarse) => (unfolded[fine] = values[coarse]));
        return [{ values: unfolded, shape: wide }, 0];
      },
    };
  }

  /* z = (x − μ) e^{−s}, one μ and s for each channel. */
  function ActNorm({ tensors: { shift, log_scale: logScale } }) {
    const pixels = ({ shape }) => shape[1] * shape[2];
    const channel = (image, k) => Math.floor(k / pixels(image));
    const [mu, s] = [shift.values, logScale.values];
    return {
      forward: (z) => [
        like(z, z.values.map((v, k) => mu[channel(z, k)] + v * Math.exp(s[channel(z, k)]))),
        pixels(z) * sum(s),
      ],
      inverse: (x) => [
        like(x, x.values.map((v, k) => (v - mu[channel(x, k)]) * Math.exp(-s[channel(x, k)]))),
        -pixels(x) * sum(s),
      ],
    };
  }

  /* The 1×1 convolution z = P L U x at every pixel; forward solves its two triangular systems. */
  function ConvolutionLU({ tensors }) {
    const C = tensors.sign.values.length;
    const [lower, upper, s] = [tensors.lower.values, tensors.upper.values, tensors.log_diagonal.values];
    const diagonal = s.map((value, c) => tensors.sign.values[c] * Math.exp(value));
    const row = Array.from({ length: C }, (_, c) =>
      tensors.permutation.values.subarray(c * C, (c + 1) * C).indexOf(1),
    ); // (P y)_c = y_row(c)
    const eachPixel = (image, change) => {
      const pixels = image.values.length / C;
      const changed = new Float64Array(image.values.length);
      for (let p = 0; p < pixels; p++) {
        const column = Float64Array.from({ length: C }, (_, c) => image.values[c * pixels + p]);
        change(column).forEach((value, c) => (changed[c * pixels + p] = value));
      }
      return [like(image, changed), pixels * sum(s)];
    };
    function solve(z) {
      const x = new Float64Array(C);
      for (let c = 0; c < C; c++) x[row[c]] = z[c]; // y = Pᵀ z
      for (let c = 0; c < C; c++) for (let k = 0; k < c; k++) x[c] -= lower[c * C + k] * x[k];
      for (let c = C - 1; c >= 0; c--) {
        for (let k = c + 1; k < C; k++) x[c] -= upper[c * C + k] * x[k];
        x[c] /= diagonal[c];
      }
      return x;
    }
    function multiply(x) {
      const y = x.map((value, c) => diagonal[c] * value);
      for (let c = 0; c < C; c++) for (let k = c + 1; k < C; k++) y[c] += upper[c * C + k] * x[k];
      const z = Float64Array.from(y);
      for (let c = 0; c < C; c++) for (let k = 0; k < c; k++) z[c] += lower[c * C + k] * y[k];
      return Array.from(row, (from) => z[from]);
    }
    return {
      forward(z) {
        const [x, logDet] = eachPixel(z, solve);
        return [x, -logDet];
      },
      inverse: (x) => eachPixel(x, multiply),
    };
  }

  /* The first channels stay, and a network of them and the label moves the others. */
  function ChannelCoupling({ bound, tensors }, classes) {
    const net = flowFigures.math.convNet(tensors, classes);
    const kept = tensors["conditioner.first.weight"].shape[1] - classes;
    const move = (image, label, change, sign) => {
      const [stays, moves] = [part(image, 0, kept), part(image, kept, image.shape[0])];
      const numbers = net(stays, label).values;
      const count = moves.values.length;
      const s = numbers.slice(0, count).map((raw) => bound * Math.tanh(raw / bound));
      const moved = moves.values.map((value, k) => change(value, s[k], numbers[count + k]));
      return [join(stays, like(moves, moved)), sign * sum(s)];
    };
    return {
      forward: (z, label) => move(z, label, (v, s, t) => v * Math.exp(s) + t, 1),
      inverse: (x, label) => move(x, label, (v, s, t) => (v - t) * Math.exp(-s), -1),
    };
  }

  /* The layers one after the other on the first channels; the others are latents already. */
  function OnChannels({ channels, layers }, classes) {
    const inner = Compose({ layers }, classes);
    const on = (way) => (image, label) => {
      const [changed, logDet] = inner[way](part(image, 0, channels), label);
      return [join(changed, part(image, channels, image.shape[0])), logDet];
    };
    return { forward: on("forward"), inverse: on("inverse") };
  }

  function Inverse({ layers }, classes) {
    const inner = Compose({ layers }, classes);
    return { forward: inner.inverse, inverse: inner.forward };
  }

  /* From the real line to the unit interval. */
  function Logit({ alpha }) {
    const [inner, size] = [1 - 2 * alpha, Math.log1p(-2 * alpha)];
    return {
      forward(z) {
        const y = z.values.map((v) => 1 / (1 + Math.exp(-v)));
        return [like(z, y.map((v) => (v - alpha) / inner)), sum(y.map((v) => Math.log(v) + Math.log1p(-v) - size))];
      },
      inverse(x) {
        const y = x.values.map((v) => alpha + inner * v);
        return [
          like(x, y.map((v) => Math.log(v) - Math.log1p(-v))),
          sum(y.map((v) => size - Math.log(v) - Math.log1p(-v))),
        ];
      },
    };
  }

  function Compose({ layers }, classes) {
    const made = layers.map((layer) => kinds[layer.kind](layer, classes));
    const run = (order, way) => (image, label) =>
      order.reduce(
        ([points, total], layer) => {
          const [next, logDet] = layer[way](points, label);
          return [next, total + logDet];
        },
        [image, 0],
      );
    return { forward: run(made, "forward"), inverse: run([...made].reverse(), "inverse") };
  }

  const kinds = { Squeeze, ActNorm, ConvolutionLU, ChannelCoupling, OnChannels, Inverse, Logit, Compose };
  flowFigures.math.glowLayers = Compose;
})();
