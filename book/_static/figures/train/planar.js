/* A stack of planar layers, as flowlib's MODELS["planar"] builds it: all w, then all u, then all b. The way
   from x to z solves s + m tanh(s) = w·x + b for each point and layer. */
"use strict";

flowFigures.part(function planar(train) {
  const KEPT = -Math.expm1(1e-3 - 1); // û·w stays above −1 + 10⁻³; see flowlib/layers/planar.py
  const TINY = 2 ** -1022;

  /* The root of s + m tanh(s) = y for m > −1, by Newton's method from a start that cannot fail. */
  function solve(y, m) {
    const target = Math.abs(y);
    let s = m > 0 ? Math.max(target - m, target / (1 + m)) : Math.min(target - m, target / (1 + m));
    for (let step = 0; step < 32; step++) {
      const tanh = Math.tanh(s);
      const residual = s + m * tanh - target;
      s -= residual / (1 + m - m * tanh * tanh);
      if (Math.abs(residual) <= 4 * Number.EPSILON * (Math.abs(s) + target)) return y < 0 ? -s : s;
    }
    return NaN;
  }

  train.planar = ({ layers = 16 } = {}) => {
    const size = 5 * layers;

    /* Layer k with its effective û and m = û·w. */
    function effective(theta, k) {
      const [w1, w2] = theta.subarray(2 * k);
      const [u1, u2] = theta.subarray(2 * (layers + k));
      const a = w1 * u1 + w2 * u2;
      const bent = Math.min(a, 40);
      const m = Math.log1p(KEPT * Math.expm1(bent)) + a - bent;
      const square = Math.max(w1 * w1 + w2 * w2, TINY);
      const along = (m - a) / square;
      const slope = a > 40 ? 1 : (KEPT * Math.exp(a)) / (1 + KEPT * Math.expm1(a)); // dm/da
      const [h1, h2] = [u1 + along * w1, u2 + along * w2]; // û
      return { w1, w2, u1, u2, b: theta[4 * layers + k], m, square, along, slope, h1, h2 };
    }
    const stack = (theta) => Array.from({ length: layers }, (_, k) => effective(theta, k));

    /* x to z, in place. `visit(k, i, x1, x2, tanh)` hears of every point before it moves; returns Σ log-dets. */
    function normalise(all, points, i, visit) {
      let logDet = 0;
      for (let k = layers - 1; k >= 0; k--) {
        const { w1, w2, b, m, h1, h2 } = all[k];
        const [x1, x2] = [points[2 * i], points[2 * i + 1]];
        const tanh = Math.tanh(solve(w1 * x1 + w2 * x2 + b, m));
        points[2 * i] = x1 - tanh * h1;
        points[2 * i + 1] = x2 - tanh * h2;
        logDet -= Math.log1p(m * (1 - tanh * tanh));
        if (visit) visit(k, i, x1, x2, tanh);
      }
      return logDet;
    }
    const energy = (z, i) => 0.5 * (z[2 * i] ** 2 + z[2 * i + 1] ** 2) + Math.log(2 * Math.PI);

    function logProb(theta, x) {
      const [all, z] = [stack(theta), x.slice()];
      return Float64Array.from({ length: x.length / 2 }, (_, i) => normalise(all, z, i) - energy(z, i));
    }

    /* x = f(z): z + û tanh(w·z + b), from the first layer to the last. */
    function generate(theta, z) {
      const x = z.slice();
      for (const { w1, w2, b, h1, h2 } of stack(theta)) {
        for (let at = 0; at < x.length; at += 2) {
          const tanh = Math.tanh(w1 * x[at] + w2 * x[at + 1] + b);
          x[at] += tanh * h1;
          x[at + 1] += tanh * h2;
        }
      }
      return x;
    }

    /* The risk −1/n Σ log p(x), and its gradient, which is written into `gradient`. */
    function risk(theta, x, gradient) {
      const n = x.length / 2;
      const [all, z] = [stack(theta), x.slice()];
      const seen = new Float64Array(3 * n * layers); // x₁, x₂ and tanh(s) of every point at every layer
      const visit = (k, i, x1, x2, tanh) => {
        const at = 3 * (k * n + i);
        [seen[at], seen[at + 1], seen[at + 2]] = [x1, x2, tanh];
      };
      let sum = 0;
      for (let i = 0; i < n; i++) {
        sum -= normalise(all, z, i, visit);
        sum += energy(z, i);
      }

      gradient.fill(0);
      const d = z.map((value) => value / n); // by the points, first by z and at the end by x
      all.forEach(({ w1, w2, m, h1, h2, ...layer }, k) => {
        const by = { w1: 0, w2: 0, h1: 0, h2: 0, b: 0, m: 0 };
        for (let i = 0; i < n; i++) {
          const at = 3 * (k * n + i);
          const [x1, x2, tanh] = [seen[at], seen[at + 1], seen[at + 2]];
          const [d1, d2] = [d[2 * i], d[2 * i + 1]];
          const tanhSlope = 1 - tanh * tanh;
          const whole = 1 + m * tanhSlope; // ∂y/∂s, and the determinant
          by.h1 -= tanh * d1;
          by.h2 -= tanh * d2;
          // s is a root: ∂s/∂y = 1 / whole, ∂s/∂m = −tanh(s) / whole
          const byS = -(d1 * h1 + d2 * h2) * tanhSlope - (2 * m * tanh * tanhSlope) / (n * whole);
          const byY = byS / whole;
          by.m += tanhSlope / (n * whole) - tanh * byY;
          by.w1 += byY * x1;
          by.w2 += byY * x2;
          by.b += byY;
          d[2 * i] += byY * w1;
          d[2 * i + 1] += byY * w2;
        }
        const { u1, u2, square, along, slope } = layer;
        const byAlong = by.h1 * w1 + by.h2 * w2; // û = u + along · w with along = (m − a) / |w|²
        const byA = (by.m + byAlong / square) * slope - byAlong / square;
        const bySquare = square > TINY ? (-byAlong * along) / square : 0;
        gradient[2 * k] = by.w1 + along * by.h1 + 2 * w1 * bySquare + byA * u1;
        gradient[2 * k + 1] = by.w2 + along * by.h2 + 2 * w2 * bySquare + byA * u2;
        gradient[2 * (layers + k)] = by.h1 + byA * w1;
        gradient[2 * (layers + k) + 1] = by.h2 + byA * w2;
        gradient[4 * layers + k] = by.b;
      });
      return sum / n;
    }

    /* flowlib's start: near the identity, yet not at it. */
    function start(random) {
      return Float64Array.from({ length: size }, (_, i) => {
        const deviation = i < 2 * layers ? Math.SQRT1_2 : i < 4 * layers ? 0.1 : 1;
        return deviation * random.normal();
      });
    }

    return { size, start, logProb, generate, risk };
  };
});
