/* Points of the plane: the examples, and points as text for a link, three letters each. */
"use strict";

(() => {
  const VIEW = 4.5;
  const LEVELS = 512; // places along each axis: the points are kept on this lattice, so that a link loses nothing
  const MOST = 800;
  const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

  const level = (value) => Math.min(LEVELS - 1, Math.max(0, Math.floor(((value + VIEW) / (2 * VIEW)) * LEVELS)));
  const snap = (value) => (2 * VIEW * (level(value) + 0.5)) / LEVELS - VIEW;

  const circle = (angle, radius) => [radius * Math.cos(angle), radius * Math.sin(angle)];
  const blur = (point, deviation, random) => point.map((value) => value + deviation * random.normal());

  /* One point of each example; the first four are flowlib.data's, two of them enlarged. */
  const examples = {
    "two-moons"(random) {
      const [x, y] = blur(circle(Math.PI * random.uniform(), 1), 0.1, random);
      const [a, b] = random.below(2) ? [1 - x, 0.5 - y] : [x, y];
      return [2.2 * (a - 0.5), 2.2 * (b - 0.25)];
    },
    checkerboard(random) {
      const column = random.below(4);
      const row = 2 * random.below(2) + (column % 2);
      return [column, row].map((corner) => 2 * (corner + random.uniform()) - 4);
    },
    "eight-gaussians": (random) => blur(circle((Math.PI / 4) * random.below(8), 3), 0.3, random),
    rings: (random) => blur(circle(2 * Math.PI * random.uniform(), 1 + random.below(3)), 0.12, random),
    spiral(random) {
      const turn = Math.sqrt(random.uniform());
      return blur(circle(3.5 * Math.PI * turn, 0.3 + 3.4 * turn), 0.12, random);
    },
    letter(random) {
      const bars = [[-1.8, -3, 0.9, 6.2], [-0.9, 2.3, 3.1, 0.9], [-0.9, -0.3, 2.4, 0.9]]; // of an F
      const areas = bars.map(([, , width, height]) => width * height);
      let place = random.uniform() * areas.reduce((sum, area) => sum + area);
      const [left, low, width, height] = bars[areas.findIndex((area) => (place -= area) < 0)] ?? bars[0];
      return [left + width * random.uniform(), low + height * random.uniform()];
    },
  };

  /* Pairs in one array, as the models take them. */
  const example = (name, seed) => {
    const random = flowFigures.train.random(seed, 2);
    return Float64Array.from(Array.from({ length: MOST }, () => examples[name](random)).flat(), snap);
  };

  function toText(points) {
    const pair = (i) => level(points[i]) * LEVELS + level(points[i + 1]);
    let text = "";
    for (let i = 0; i < points.length; i += 2)
      for (const shift of [12, 6, 0]) text += LETTERS[(pair(i) >> shift) & 63];
    return text;
  }

  /* null where the text is no list of points */
  function fromText(text) {
    const digits = Array.from(text, (letter) => LETTERS.indexOf(letter));
    if (digits.length % 3 || digits.length > 3 * MOST || digits.includes(-1)) return null;
    const points = new Float64Array((2 * digits.length) / 3);
    for (let i = 0; i < digits.length / 3; i++) {
      const both = (digits[3 * i] << 12) | (digits[3 * i + 1] << 6) | digits[3 * i + 2];
      [both >> 9, both & 511].forEach((place, axis) => {
        points[2 * i + axis] = (2 * VIEW * (place + 0.5)) / LEVELS - VIEW;
      });
    }
    return points;
  }

  /* The risk of the one Gaussian that fits the points best: its entropy; `noise` is what each step adds. */
  function gaussianRisk(points, noise) {
    const n = points.length / 2;
    const moment = (f) => {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += f(points[2 * i], points[2 * i + 1]);
      return sum / n;
    };
    const [mean1, mean2] = [moment((x) => x), moment((x, y) => y)];
    const xx = moment((x) => (x - mean1) ** 2) + noise ** 2;
    const yy = moment((x, y) => (y - mean2) ** 2) + noise ** 2;
    const xy = moment((x, y) => (x - mean1) * (y - mean2));
    return 1 + Math.log(2 * Math.PI) + 0.5 * Math.log(xx * yy - xy * xy);
  }

  flowFigures.points = { VIEW, MOST, names: Object.keys(examples), example, snap, toText, fromText, gaussianRisk };
})();
