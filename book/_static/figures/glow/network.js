/* A residual network of 3×3 convolutions, flowlib's ConvNet. An image is {values, shape: [C, H, W]}, its
   values in one Float64Array, channel by channel and row by row. */
"use strict";

(() => {
  /* The image in a frame of zeros, one pixel wide. */
  function framed({ values, shape: [channels, height, width] }) {
    const wide = width + 2;
    const larger = new Float64Array(channels * (height + 2) * wide);
    for (let c = 0, from = 0; c < channels; c++)
      for (let i = 0; i < height; i++) {
        const start = (c * (height + 2) + i + 1) * wide + 1;
        for (let j = 0; j < width; j++) larger[start + j] = values[from++];
      }
    return larger;
  }

  /* `weight` has the shape (out, in, 3, 3). Nearly all of the page's arithmetic is in these loops. */
  function convolution({ values: w, shape: [outputs, inputs] }, bias) {
    return (image) => {
      const [, height, width] = image.shape;
      const x = framed(image);
      const wide = width + 2;
      const result = new Float64Array(outputs * height * width);
      for (let o = 0; o < outputs; o++) {
        result.fill(bias.values[o], o * height * width, (o + 1) * height * width);
        for (let i = 0; i < inputs; i++) {
          const k = (o * inputs + i) * 9;
          // one by one: to destructure them from an array would take longer than to multiply by them
          const w0 = w[k], w1 = w[k + 1], w2 = w[k + 2];
          const w3 = w[k + 3], w4 = w[k + 4], w5 = w[k + 5];
          const w6 = w[k + 6], w7 = w[k + 7], w8 = w[k + 8];
          for (let row = 0; row < height; row++) {
            const up = (i * (height + 2) + row) * wide;
            const at = up + wide;
            const down = at + wide;
            const to = (o * height + row) * width;
            for (let j = 0; j < width; j++)
              result[to + j] +=
                w0 * x[up + j] + w1 * x[up + j + 1] + w2 * x[up + j + 2] +
                w3 * x[at + j] + w4 * x[at + j + 1] + w5 * x[at + j + 2] +
                w6 * x[down + j] + w7 * x[down + j + 1] + w8 * x[down + j + 2];
          }
        }
      }
      return { values: result, shape: [outputs, height, width] };
    };
  }

  const silu = ({ values, shape }) => {
    const result = new Float64Array(values.length);
    for (let k = 0; k < values.length; k++) result[k] = values[k] / (1 + Math.exp(-values[k]));
    return { values: result, shape };
  };
  const add = (a, b) => {
    const result = new Float64Array(a.values.length);
    for (let k = 0; k < result.length; k++) result[k] = a.values[k] + b.values[k];
    return { values: result, shape: a.shape };
  };

  /* A weight for some of the inputs alone. */
  function inputsOf({ values, shape: [outputs, inputs] }, from, to) {
    const kept = Array.from({ length: outputs }, (_, o) =>
      Array.from(values.subarray((o * inputs + from) * 9, (o * inputs + to) * 9)),
    );
    return { values: Float64Array.from(kept.flat()), shape: [outputs, to - from, 3, 3] };
  }

  /* h₀ = C₀ * [z, label], then h ← h + C′ * σ(C * σ(h)) for each block, and C * σ(h) at last. The label is as
     many more channels, one of them 1 at every pixel: what they add to h₀ is the same for all images. */
  function convNet(tensors, classes) {
    const weight = (name) => tensors[`conditioner.${name}.weight`];
    const bias = (name) => tensors[`conditioner.${name}.bias`];
    const at = (name) => convolution(weight(name), bias(name));
    const channels = weight("first").shape[1] - classes;
    const nothing = { values: new Float64Array(weight("first").shape[0]) };
    const first = convolution(inputsOf(weight("first"), 0, channels), bias("first"));
    const ofLabels = Array.from({ length: classes }, (_, label) =>
      convolution(inputsOf(weight("first"), channels + label, channels + label + 1), nothing),
    );
    const added = []; // to h₀, by label
    const blocks = [];
    while (weight(`blocks.${blocks.length}.1`))
      blocks.push([at(`blocks.${blocks.length}.1`), at(`blocks.${blocks.length}.3`)]);
    const last = at("last.1");
    return (image, label) => {
      const [, height, width] = image.shape;
      const ones = { values: new Float64Array(height * width).fill(1), shape: [1, height, width] };
      added[label] ??= ofLabels[label](ones);
      let hidden = add(first(image), added[label]);
      for (const [inner, outer] of blocks) hidden = add(hidden, outer(silu(inner(silu(hidden)))));
      return last(silu(hidden));
    };
  }

  flowFigures.math.convNet = convNet;
})();
