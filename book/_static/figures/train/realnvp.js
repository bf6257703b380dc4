/* RealNVP of the plane, as flowlib's MODELS["realnvp"] builds it: affine couplings whose network sees the one
   entry that stays, and gives a raw log-scale and a shift to the one that moves. */
"use strict";

flowFigures.part(function realnvp(train) {
  train.realnvp = ({ layers = 8, hidden = [32, 32] } = {}) => {
    const BOUND = 2; // of the log-scale s = BOUND tanh(raw / BOUND)
    const PIECE = 256; // points that go through the networks together where no gradient is wanted
    const net = train.mlp([1, ...hidden, 2]);
    const size = layers * net.size;
    const one = net.trace(PIECE);
    let traces = [];
    let room = 0;

    /* What the network of coupling k says about n points: their raw log-scales, then their shifts. */
    function numbers(theta, k, points, first, n, trace) {
      const kept = k % 2; // the other entry moves
      for (let i = 0; i < n; i++) trace.values[0][i] = points[2 * (first + i) + kept];
      return net.forward(theta, k * net.size, n, trace);
    }

    /* x to z through coupling k, in place: z = (x − t) exp(−s); log-dets grow by −s. */
    function normalise(theta, k, points, logDet, first, n, trace) {
      const out = numbers(theta, k, points, first, n, trace);
      for (let i = 0; i < n; i++) {
        const at = 2 * (first + i) + 1 - (k % 2);
        const minusS = -BOUND * Math.tanh(out[i] / BOUND);
        points[at] = (points[at] - out[n + i]) * Math.exp(minusS);
        logDet[first + i] += minusS;
      }
    }

    const inPieces = (n, visit) => {
      for (let first = 0; first < n; first += PIECE) visit(first, Math.min(PIECE, n - first));
    };

    /* log p(x) of points that lie in one array, x₁, x₂, x₁, x₂, … */
    function logProb(theta, x) {
      const [z, result] = [x.slice(), new Float64Array(x.length / 2)];
      inPieces(result.length, (first, n) => {
        for (let k = layers - 1; k >= 0; k--) normalise(theta, k, z, result, first, n, one);
      });
      return result.map((logDet, i) => logDet - 0.5 * (z[2 * i] ** 2 + z[2 * i + 1] ** 2) - Math.log(2 * Math.PI));
    }

    /* x = f(z): z exp(s) + t, from the first coupling to the last. */
    function generate(theta, z) {
      const x = z.slice();
      inPieces(x.length / 2, (first, n) => {
        for (let k = 0; k < layers; k++) {
          const out = numbers(theta, k, x, first, n, one);
          for (let i = 0; i < n; i++) {
            const at = 2 * (first + i) + 1 - (k % 2);
            x[at] = x[at] * Math.exp(BOUND * Math.tanh(out[i] / BOUND)) + out[n + i];
          }
        }
      });
      return x;
    }

    /* The risk −1/n Σ log p(x), and its gradient, which is written into `gradient`. */
    function risk(theta, x, gradient) {
      const n = x.length / 2;
      if (n !== room) [traces, room] = [Array.from({ length: layers }, () => net.trace(n)), n];
      const [z, logDet] = [x.slice(), new Float64Array(n)];
      for (let k = layers - 1; k >= 0; k--) normalise(theta, k, z, logDet, 0, n, traces[k]);

      let sum = n * Math.log(2 * Math.PI);
      for (let i = 0; i < n; i++) sum += 0.5 * (z[2 * i] ** 2 + z[2 * i + 1] ** 2) - logDet[i];

      const d = z.map((value) => value / n); // by the points, first by z and at the end by x
      for (let k = 0; k < layers; k++) {
        const trace = traces[k];
        const out = trace.values[trace.values.length - 1];
        const back = trace.back[trace.back.length - 1];
        for (let i = 0; i < n; i++) {
          const at = 2 * i + 1 - (k % 2);
          const tanh = Math.tanh(out[i] / BOUND);
          const stretch = Math.exp(-BOUND * tanh);
          const byMinusS = d[at] * z[at] - 1 / n;
          back[i] = -byMinusS * (1 - tanh * tanh);
          back[n + i] = -d[at] * stretch;
          d[at] *= stretch;
          z[at] = z[at] / stretch + out[n + i]; // one coupling back towards x
        }
        const byKept = net.backward(theta, k * net.size, n, trace, gradient);
        for (let i = 0; i < n; i++) d[2 * i + (k % 2)] += byKept[i];
      }
      return sum / n;
    }

    function start(random) {
      const theta = new Float64Array(size);
      for (let k = 0; k < layers; k++) net.initialise(theta, k * net.size, random);
      return theta;
    }

    return { size, start, logProb, generate, risk };
  };
});
