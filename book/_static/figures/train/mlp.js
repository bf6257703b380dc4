/* The conditioner: flowlib.nets.MLP with SiLU, forward and backward, many points at once. Its parameters lie
   in one array in torch's order, each layer's weight row by row and then its bias. */
"use strict";

flowFigures.part(function mlp(train) {
  /* to[a + p] += Σ_r weights[w + r · stride] · from[r · n + p] for n points p: four rows at a time, so that
     the sums are read and written a quarter as often. */
  function addRows(to, a, weights, w, stride, from, rows, n) {
    let r = 0;
    for (; r + 3 < rows; r += 4) {
      const [w0, w1] = [weights[w + r * stride], weights[w + (r + 1) * stride]];
      const [w2, w3] = [weights[w + (r + 2) * stride], weights[w + (r + 3) * stride]];
      const [b, c, d, e] = [r * n, (r + 1) * n, (r + 2) * n, (r + 3) * n];
      for (let p = 0; p < n; p++)
        to[a + p] += w0 * from[b + p] + w1 * from[c + p] + w2 * from[d + p] + w3 * from[e + p];
    }
    for (; r < rows; r++) {
      const [w0, b] = [weights[w + r * stride], r * n];
      for (let p = 0; p < n; p++) to[a + p] += w0 * from[b + p];
    }
  }

  /* to[a + c] = Σ_p left[b + p] · rows[c n + p] for all columns c: four at a time, so that `left` is read a
     quarter as often, and no sum waits for another. */
  function dots(to, a, left, b, rows, columns, n) {
    let c = 0;
    for (; c + 3 < columns; c += 4) {
      const [r0, r1, r2, r3] = [c * n, (c + 1) * n, (c + 2) * n, (c + 3) * n];
      let [sum0, sum1, sum2, sum3] = [0, 0, 0, 0];
      for (let p = 0; p < n; p++) {
        const value = left[b + p];
        sum0 += value * rows[r0 + p];
        sum1 += value * rows[r1 + p];
        sum2 += value * rows[r2 + p];
        sum3 += value * rows[r3 + p];
      }
      to[a + c] = sum0;
      to[a + c + 1] = sum1;
      to[a + c + 2] = sum2;
      to[a + c + 3] = sum3;
    }
    for (; c < columns; c++) {
      let sum = 0;
      for (let p = 0; p < n; p++) sum += left[b + p] * rows[c * n + p];
      to[a + c] = sum;
    }
  }

  function silu(values, slopes, size) {
    for (let i = 0; i < size; i++) {
      const x = values[i];
      const gate = 1 / (1 + Math.exp(-x));
      values[i] = x * gate;
      slopes[i] = gate * (1 + x * (1 - gate));
    }
  }

  train.mlp = (widths) => {
    const layers = [];
    let size = 0;
    for (let k = 0; k + 1 < widths.length; k++) {
      const [columns, rows] = [widths[k], widths[k + 1]];
      layers.push({ columns, rows, weight: size, bias: size + rows * columns, last: k + 2 === widths.length });
      size += rows * columns + rows;
    }
    const depth = layers.length;

    /* Room for n points. All rows are over the points: entry j of point p lies at j n + p. */
    const trace = (n) => {
      const rows = () => widths.map((width) => new Float64Array(n * width));
      return { values: rows(), slopes: rows(), back: rows() };
    };

    /* From trace.values[0], the inputs, to the outputs, which it returns. */
    function forward(theta, start, n, { values, slopes }) {
      layers.forEach(({ columns, rows, weight, bias, last }, k) => {
        const output = values[k + 1];
        for (let row = 0; row < rows; row++) {
          output.fill(theta[start + bias + row], row * n, (row + 1) * n);
          addRows(output, row * n, theta, start + weight + row * columns, 1, values[k], columns, n);
        }
        if (!last) silu(output, slopes[k + 1], rows * n);
      });
      return values[depth];
    }

    /* From trace.back[depth], the risk's derivatives by the outputs, to those by the inputs, which it returns;
       those by the parameters are written into `gradient`. */
    function backward(theta, start, n, { values, slopes, back }, gradient) {
      for (let k = depth - 1; k >= 0; k--) {
        const { columns, rows, weight, bias, last } = layers[k];
        const [d, slope, input] = [back[k + 1], slopes[k + 1], values[k]];
        if (!last) for (let i = 0; i < rows * n; i++) d[i] *= slope[i];
        for (let row = 0; row < rows; row++) {
          let sum = 0;
          for (let p = 0; p < n; p++) sum += d[row * n + p];
          gradient[start + bias + row] = sum;
          dots(gradient, start + weight + row * columns, d, row * n, input, columns, n);
        }
        back[k].fill(0, 0, columns * n);
        for (let i = 0; i < columns; i++) addRows(back[k], i * n, theta, start + weight + i, columns, d, rows, n);
      }
      return back[0];
    }

    /* flowlib's start: a sharp first layer, torch's uniform numbers inside, zeros at the end. */
    function initialise(theta, start, random) {
      const sharpness = 3; // for one input, see MLP's docstring
      for (const { columns, rows, weight, bias, last } of layers) {
        const reach = 1 / Math.sqrt(columns);
        const inner = () => reach * (2 * random.uniform() - 1);
        const side = () => (random.uniform() < 0.5 ? -sharpness : sharpness);
        for (let i = weight; i < bias + rows; i++) {
          if (last) theta[start + i] = 0;
          else if (weight > 0) theta[start + i] = inner();
          else theta[start + i] = i < bias ? side() : sharpness * random.normal();
        }
      }
    }

    return { size, trace, forward, backward, initialise };
  };
});
