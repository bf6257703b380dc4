/* The straightening of paths by reflow: Euler's steps from noise to four blobs, along the bent paths of the mean
   velocity and along the straight ones that a reflow makes of them. */
"use strict";

/* Both entries of the plane are independent mixtures of two normals, so the mean velocity of chance pairs has a
   closed form in each. `steps` is of Euler's method; `end` is where the path itself leads. */
flowFigures.math.reflow = (steps) => {
  const SHARES = [[0.4, 0.6], [0.5, 0.5]];
  const MEANS = [[-2.0, 1.4], [-1.5, 1.5]];
  const WIDTHS = [[0.35, 0.5], [0.4, 0.4]];
  const FINE = 100;

  const entry = (x, t, i) => {
    const parts = [0, 1].map((k) => {
      const [m, s] = [MEANS[i][k], WIDTHS[i][k]];
      const c = (1 - t) ** 2 + (t * s) ** 2;
      const off = x - t * m;
      const log = Math.log(SHARES[i][k]) - Math.log(c) / 2 - off ** 2 / (2 * c);
      return { log, u: m + ((t * s ** 2 - (1 - t)) / c) * off };
    });
    const most = Math.max(...parts.map((part) => part.log));
    const weights = parts.map((part) => Math.exp(part.log - most));
    return (weights[0] * parts[0].u + weights[1] * parts[1].u) / (weights[0] + weights[1]);
  };
  const velocity = (x, t) => [entry(x[0], t, 0), entry(x[1], t, 1)];
  const add = (x, h, v) => [x[0] + h * v[0], x[1] + h * v[1]];

  /* The classical Runge–Kutta method, in steps that leave no error to be seen. */
  const path = (z) => {
    const [h, places] = [1 / FINE, [z]];
    for (let k = 0; k < FINE; k++) {
      const [x, t] = [places[k], k * h];
      const k1 = velocity(x, t);
      const k2 = velocity(add(x, h / 2, k1), t + h / 2);
      const k3 = velocity(add(x, h / 2, k2), t + h / 2);
      const k4 = velocity(add(x, h, k3), t + h);
      places.push([0, 1].map((i) => x[i] + (h / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i])));
    }
    return places;
  };
  const euler = (z) => {
    const places = [z];
    for (let k = 0; k < steps; k++) places.push(add(places[k], 1 / steps, velocity(places[k], k / steps)));
    return places;
  };
  /* After a reflow the velocity along a path is that of its start, so every number of steps gives this. */
  const straight = (z, end) => Array.from({ length: steps + 1 }, (_, k) => z.map((a, i) => a + (k / steps) * (end[i] - a)));

  /* How much the velocity along the path differs from that of the straight way, by Simpson's rule. */
  const bend = (places) => {
    const way = [0, 1].map((i) => places[FINE][i] - places[0][i]);
    return places.reduce((sum, x, k) => {
      const v = velocity(x, k / FINE);
      const weight = k === 0 || k === FINE ? 1 : k % 2 ? 4 : 2;
      return sum + (weight / (3 * FINE)) * ((v[0] - way[0]) ** 2 + (v[1] - way[1]) ** 2);
    }, 0);
  };
  return { velocity, path, euler, straight, bend };
};

(() => {
  const [SIDE, POINTS] = [3.4, 72];
  const GOLDEN = Math.PI * (3 - Math.sqrt(5));
  /* Latents spread as a normal has them: equal shares of radius, turned on by the golden angle. */
  const latents = Array.from({ length: POINTS }, (_, i) => {
    const radius = Math.sqrt(-2 * Math.log(1 - (i + 0.5) / POINTS));
    return [radius * Math.cos(GOLDEN * i), radius * Math.sin(GOLDEN * i)];
  });
  const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

  /* The part of a walk up to time t: whole steps, and a share of the one that is under way. */
  function upTo(places, t) {
    const steps = places.length - 1;
    const whole = Math.min(Math.floor(t * steps), steps - 1);
    const part = t * steps - whole;
    const [from, to] = [places[whole], places[whole + 1]];
    return [...places.slice(0, whole + 1), from.map((a, i) => a + part * (to[i] - a))];
  }

  function drawWalks(canvas, walks, ends, t, colours) {
    const { penOf, scale } = flowFigures.line;
    const pen = penOf(canvas);
    const across = scale([-SIDE, SIDE], [0, pen.width]);
    const up = scale([-SIDE, SIDE], [pen.height, 0]);
    const at = ([x1, x2]) => [across(x1), up(x2)];
    const disc = (place, size, colour, opacity) => {
      const [x, y] = at(place);
      const corners = Array.from({ length: 12 }, (_, k) => [
        x + size * Math.cos((k * Math.PI) / 6),
        y + size * Math.sin((k * Math.PI) / 6),
      ]);
      pen.fill(corners, colour, opacity);
    };
    for (const end of ends) disc(end, 5, colours.faint, 0.8);
    walks.forEach((places, i) => {
      const walked = upTo(places, t);
      const blob = ends[i][0] > -0.3 === ends[i][1] > 0;
      const colour = blob ? colours.first : colours.second;
      pen.line(walked.map(at), colour, 1.2);
      disc(walked[walked.length - 1], 3.2, colour, 1);
    });
  }

  flowFigures.build.reflow = (place) => {
    const { kit, math } = flowFigures;
    const paths = latents.map(math.reflow(1).path);
    const ends = paths.map((places) => places[places.length - 1]);
    const bend = meanOf(paths.map(math.reflow(1).bend));
    const parts = kit.frame(place, {
      title: "Bent paths, and straight ones",
      formula: "<i>x</i> + <i>h v</i>(<i>x</i>, <i>t</i>), <i>h</i> = 1/<i>n</i>",
      note:
        "Latents walk from noise to four blobs in <i>n</i> steps of Euler’s method. Left, along the mean velocity of " +
        "chance pairs; right, after an exact reflow, which joins each latent with the end of its own path. The grey " +
        "discs are where the paths themselves end. In one step the bent field sends everything to one point.",
      draw,
    });
    const panel = (words, label, className) => kit.canvas(kit.panel(parts, words), label, className);
    const left = panel("before reflow", "Walks along the mean velocity of chance pairs", "flow-bent");
    const right = panel("after reflow", "Walks along the straight paths of a reflow", "flow-straight");

    const options = { 1: "1", 2: "2", 4: "4", 8: "8", 64: "64" };
    const steps = kit.choice(parts, { name: "steps", options, value: "4" });
    steps.select.setAttribute("aria-label", "n, the number of steps");
    const time = kit.slider(parts, {
      name: "<i>t</i>",
      label: "t, the time",
      min: 0,
      max: 1,
      step: 0.05,
      value: 1,
      digits: 2,
    });
    kit.resetButton(parts, () => {
      [steps, time].forEach((one) => one.reset());
      parts.redraw();
    });

    function draw() {
      const [n, t] = [Number(steps.get()), time.get()];
      const { euler, straight } = math.reflow(n);
      const colours = kit.colours(place);
      const bent = latents.map(euler);
      const even = latents.map((z, i) => straight(z, ends[i]));
      drawWalks(left, bent, ends, t, colours);
      drawWalks(right, even, ends, t, colours);
      const off = (walks) => kit.number(meanOf(walks.map((places, i) => distance(places[n], ends[i]))), 3);
      kit.tell(
        parts,
        [
          ["time <i>t</i>", kit.number(t, 2)],
          ["evaluations of <i>v</i>", String(n)],
          ["error before", off(bent)],
          ["error after", off(even)],
          ["bend before", kit.number(bend, 3)],
          ["bend after", kit.number(0, 3)],
        ],
        `${n} steps, time ${kit.number(t, 2)}: the ends are off by ${off(bent)} on average before the reflow, ` +
          `by ${off(even)} after it.`,
      );
    }
  };
})();
