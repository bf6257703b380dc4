/* The arithmetic of the figures, without any drawing: the contract of flowlib's layers in
   JavaScript. forward(z) gives [x, log|det ∂f/∂z|], inverse(x) gives [z, log|det ∂f⁻¹/∂x|].
   The planar layer mirrors flowlib/planar.py and planar_root.py; the tests compare all of it. */
"use strict";

(() => {
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const sigmoid = (s) => 1 / (1 + Math.exp(-s));
  const tanhSlope = (s) => 4 * sigmoid(2 * s) * sigmoid(-2 * s);
  const logNormal = (z) => -0.5 * dot(z, z) - Math.log(2 * Math.PI);

  /* The root s of s + m tanh(s) = y for m > -1, by the monotone Newton iteration whose start
     and proof are in flowlib/planar_root.py. */
  function solvePlanar(y, m) {
    if (!(m > -1)) throw new RangeError(`m must be greater than -1 for a unique root; it is ${m}.`);
    const target = Math.abs(y);
    let s = m > 0 ? Math.max(target - m, target / (1 + m)) : Math.min(target - m, target / (1 + m));
    for (let step = 0; step < 32; step++) {
      const bend = m * Math.tanh(s);
      const residual = s + bend - target;
      s -= residual / (1 + m * tanhSlope(s));
      const rounding = 4 * Number.EPSILON * (Math.abs(s) + Math.abs(bend) + target);
      if (Math.abs(residual) <= rounding) return y < 0 ? -s : s;
    }
    return NaN;
  }

  /* Adds density(x) = p_Z(f⁻¹(x)) |det ∂f⁻¹/∂x| of a standard normal pushed through the layer. */
  function withDensity(layer) {
    const density = (x) => {
      const [z, logDet] = layer.inverse(x);
      return Math.exp(logNormal(z) + logDet);
    };
    return { ...layer, density };
  }

  const MARGIN = 1e-3;
  const TINY = 2 ** -1022; // the smallest normal number; below it w counts as 0
  const KEPT = -Math.expm1(MARGIN - 1);

  /* x = z + û tanh(w·z + b), with û·w = m > -1 whatever u is. */
  function planar({ u, w, b }) {
    const a = dot(w, u);
    const m =
      a > 0
        ? a + Math.log1p((1 - KEPT) * Math.expm1(-a))
        : Math.log1p(KEPT * Math.expm1(a));
    const square = dot(w, w);
    const along = square > TINY ? (m - a) / square : 0;
    const uHat = [u[0] + along * w[0], u[1] + along * w[1]];
    const move = (point, s, sign) => {
      const h = sign * Math.tanh(s);
      return [[point[0] + h * uHat[0], point[1] + h * uHat[1]], sign * Math.log1p(m * tanhSlope(s))];
    };
    return withDensity({
      uHat,
      m,
      forward: (z) => move(z, dot(w, z) + b, 1),
      inverse: (x) => move(x, solvePlanar(dot(w, x) + b, m), -1),
    });
  }

  /* x₁ = z₁, x₂ = z₂ exp(s(z₁)) + t(z₁), with s = a tanh(k z₁) and t = c sin(z₁). */
  function coupling({ a, k, c }) {
    const s = (z1) => a * Math.tanh(k * z1);
    const t = (z1) => c * Math.sin(z1);
    return withDensity({
      s,
      t,
      forward: ([z1, z2]) => [[z1, z2 * Math.exp(s(z1)) + t(z1)], s(z1)],
      inverse: ([x1, x2]) => [[x1, (x2 - t(x1)) * Math.exp(-s(x1))], -s(x1)],
    });
  }

  /* The flow for time t of v(x) = (a x₁ − ω x₂, ω x₁ + c tanh x₂), and the integral of the trace along
     the path, by the classical Runge–Kutta method of flowlib/layers/ffjord.py with as many steps. The
     density asks for thousands of paths at every change, so no step makes an array. */
  function field({ t, a, omega, c }, steps = 16) {
    const run = ([x1, x2], time, visit) => {
      const h = time / steps;
      let logDet = 0;
      for (let step = 0; step < steps; step++) {
        visit?.(x1, x2);
        let [y1, y2, sum1, sum2, sum3] = [x1, x2, 0, 0, 0];
        for (let k = 0; k < 4; k++) {
          const bend = Math.tanh(y2);
          const v1 = a * y1 - omega * y2;
          const v2 = omega * y1 + c * bend;
          const weight = k === 0 || k === 3 ? 1 : 2;
          sum1 += weight * v1;
          sum2 += weight * v2;
          sum3 += weight * (a + c * (1 - bend * bend));
          const on = k === 2 ? h : h / 2;
          y1 = x1 + on * v1;
          y2 = x2 + on * v2;
        }
        x1 += (h / 6) * sum1;
        x2 += (h / 6) * sum2;
        logDet += (h / 6) * sum3;
      }
      visit?.(x1, x2);
      return [[x1, x2], logDet];
    };
    const path = (z) => {
      const points = [];
      run(z, t, (...point) => points.push(point));
      return points;
    };
    return withDensity({
      velocity: ([x1, x2]) => [a * x1 - omega * x2, omega * x1 + c * Math.tanh(x2)],
      trace: ([, x2]) => a + c * tanhSlope(x2),
      path,
      forward: (z) => run(z, t),
      inverse: (x) => run(x, -t),
    });
  }

  /* One dimension: densities p_Z by name, and one-to-one maps by name with one parameter a.
     inverse(x) is NaN where no z is sent to x. */
  const bases = {
    uniform: (z) => (z >= 0 && z <= 2 ? 0.5 : 0),
    normal: (z) => Math.exp(-0.5 * z * z) / Math.sqrt(2 * Math.PI),
  };
  const maps = {
    stretch: (a) => ({ f: (z) => a * z, slope: () => a, inverse: (x) => x / a }),
    reverse: (a) => ({ f: (z) => -a * z, slope: () => -a, inverse: (x) => -x / a }),
    exp: (a) => ({
      f: (z) => Math.exp(a * z),
      slope: (z) => a * Math.exp(a * z),
      inverse: (x) => (x > 0 ? Math.log(x) / a : NaN),
    }),
    bend: (a) => ({
      f: (z) => z + a * Math.tanh(z),
      slope: (z) => 1 + a * tanhSlope(z),
      inverse: (x) => solvePlanar(x, a),
    }),
  };

  /* p_X(x) = p_Z(z) / |f'(z)| at z = f⁻¹(x); `uncorrected` is p_Z(f⁻¹(x)), without the slope. */
  function change({ base, map, a }) {
    const { f, slope, inverse } = maps[map](a);
    const baseDensity = bases[base];
    const uncorrected = (x) => {
      const z = inverse(x);
      return Number.isNaN(z) ? 0 : baseDensity(z);
    };
    const density = (x) => {
      const p = uncorrected(x);
      return p && p / Math.abs(slope(inverse(x)));
    };
    return { f, slope, inverse, baseDensity, density, uncorrected };
  }

  /* The coupling's curve of Flow++, z = g(x) = logit F(x) with F = Σ π_k σ((x - μ_k) / s_k), as in
     flowlib/layers/flowpp.py: all sums are of positive terms and taken as logarithms. inverse(x) is the
     closed form and forward(z) a bisection, as in flowlib the normalising direction is the fast one. */
  const logSigmoid = (t) => (t > 0 ? -Math.log1p(Math.exp(-t)) : t - Math.log1p(Math.exp(t)));
  const logSumExp = (terms) => {
    const top = Math.max(...terms);
    return top + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - top), 0));
  };

  function mixture({ pi, mu, s }) {
    const over = (term) => logSumExp(pi.map((weight, k) => Math.log(weight) + term(k)));
    const logs = (x) => {
      const t = mu.map((mean, k) => (x - mean) / s[k]);
      return {
        below: over((k) => logSigmoid(t[k])),
        above: over((k) => logSigmoid(-t[k])),
        density: over((k) => logSigmoid(t[k]) + logSigmoid(-t[k]) - Math.log(s[k])),
      };
    };
    const inverse = (x) => {
      const { below, above, density } = logs(x);
      return [below - above, density - below - above];
    };
    /* the bracket of the root of g(x) = z after n halvings, and its midpoint */
    const bisect = (z, n) => {
      const alone = mu.map((mean, k) => mean + s[k] * z);
      let [low, high] = [Math.min(...alone), Math.max(...alone)];
      for (let step = 0; step < n; step++) {
        const middle = (low + high) / 2;
        if (inverse(middle)[0] > z) high = middle;
        else low = middle;
      }
      return { low, high, middle: (low + high) / 2 };
    };
    return {
      F: (x) => Math.exp(logs(x).below),
      density: (x) => Math.exp(logs(x).density),
      inverse,
      forward: (z) => {
        const x = bisect(z, 60).middle;
        return [x, -inverse(x)[1]];
      },
      bisect,
    };
  }

  /* MADE's masks as flowlib has them: `order` lists the entries 0 … d−1 from first to last, a hidden unit
     of degree m hears the first m of them, and sees[i][j] is the number of paths from input j to output i. */
  function made({ order, hidden }) {
    const d = order.length;
    const places = order.map((_, entry) => order.indexOf(entry));
    const degrees = hidden.map((width) =>
      Array.from({ length: width }, (_, k) => 1 + Math.floor((k * (d - 1)) / width)),
    );
    const mask = (rows, columns, kept) => rows.map((row) => columns.map((column) => kept(row, column)));
    const hears = (after, before) => after >= before;
    const masks = [mask(degrees[0], places, (m, place) => m > place)];
    for (let l = 1; l < degrees.length; l++) masks.push(mask(degrees[l], degrees[l - 1], hears));
    masks.push(mask(places, degrees[degrees.length - 1], hears));
    const after = (paths, kept) =>
      kept.map((row) => places.map((_, j) => row.reduce((sum, on, k) => sum + (on ? paths[k][j] : 0), 0)));
    const start = places.map((_, i) => places.map((_, j) => Number(i === j)));
    return { degrees, places, masks, sees: masks.reduce(after, start) };
  }

  /* The area inside a closed polygon, by the shoelace formula. */
  function area(points) {
    let twice = 0;
    points.forEach(([x, y], i) => {
      const [nextX, nextY] = points[(i + 1) % points.length];
      twice += x * nextY - nextX * y;
    });
    return Math.abs(twice) / 2;
  }

  flowFigures.math = { solvePlanar, pushed: withDensity, planar, coupling, change, mixture, made, field, area };
})();
