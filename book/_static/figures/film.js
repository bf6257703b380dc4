/* Noise becomes data: the opening picture of lecture 1 as a film that runs both ways. */
"use strict";

/* Points that follow the mean speed of all straight ways from N(0, I) to two half-moons of width 0.12, by the midpoint
   rule in 50 steps; the velocity has a closed form, since the data are a mixture of Gaussians. */
flowFigures.math.film = (() => {
  const [WIDTH, STEPS] = [0.12, 50];
  const angles = Array.from({ length: 60 }, (_, i) => (Math.PI * i) / 59);
  const moon = angles.map((t) => [Math.cos(t) - 0.5, Math.sin(t) - 0.25]);
  const centres = [...moon, ...moon.map(([x, y]) => [-x, -y])].map((point) => point.map((value) => 1.6 * value));

  function velocity([x, y], t) {
    const spread = (1 - t) ** 2 + (t * WIDTH) ** 2;
    const logs = centres.map(([a, b]) => -((x - t * a) ** 2 + (y - t * b) ** 2) / (2 * spread));
    const top = Math.max(...logs);
    let [sum, endX, endY] = [0, 0, 0];
    centres.forEach(([a, b], i) => {
      const weight = Math.exp(logs[i] - top);
      [sum, endX, endY] = [sum + weight, endX + weight * a, endY + weight * b];
    });
    const pull = (t * WIDTH ** 2 - (1 - t)) / spread;
    return [endX / sum + pull * (x - (t * endX) / sum), endY / sum + pull * (y - (t * endY) / sum)];
  }

  /* Where a point is at t = 0, 1/50, …, 1. */
  function path(start) {
    const [points, dt] = [[start], 1 / STEPS];
    for (let k = 0; k < STEPS; k++) {
      const [x, y] = points[k];
      const [a, b] = velocity([x, y], k * dt);
      const [c, d] = velocity([x + (dt / 2) * a, y + (dt / 2) * b], (k + 0.5) * dt);
      points.push([x + dt * c, y + dt * d]);
    }
    return points;
  }
  return { STEPS, velocity, path };
})();

flowFigures.build.film = (place) => {
  const { kit, math, line } = flowFigures;
  const { STEPS } = math.film;
  const POINTS = 360;
  const VIEW = 3;
  // an even spread of normal points: the golden angle, and a normal's quantiles of the radius
  const start = Array.from({ length: POINTS }, (_, i) => {
    const [radius, angle] = [Math.sqrt(-2 * Math.log(1 - (i + 0.5) / POINTS)), i * Math.PI * (3 - Math.sqrt(5))];
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
  const paths = start.map(math.film.path);

  const parts = kit.frame(place, {
    title: "Noise becomes data",
    formula: "<i>z</i> ⟷ <i>x</i>",
    note:
      "Move the time <i>t</i>, or press Play: each point keeps its tint and its way, and no two meet. Play once more " +
      "at <i>t</i> = 1, and the film runs back to the same noise.",
    draw,
  });
  const holder = kit.element("div", { className: "flow-plane flow-screen" });
  parts.drawing.append(holder);
  const canvas = kit.canvas(holder, "Points on their way from a round cloud to two half-moons");
  canvas.className = "flow-lines";
  const time = kit.slider(parts, {
    ...{ name: "<i>t</i>", label: "t, the time", min: 0, max: 1, step: 1 / STEPS, value: 0.6, digits: 2 },
  });

  let playing = false;
  const play = kit.element("button", { type: "button", className: "flow-reset" }, "Play");
  const stop = () => {
    playing = false;
    play.textContent = "Play";
  };
  play.addEventListener("click", () => {
    if (playing) return stop();
    playing = true;
    play.textContent = "Pause";
    const first = time.get();
    const sign = first < 1 ? 1 : -1; // from the end it runs back
    let began = null;
    const frame = (now) => {
      if (!playing) return;
      began ??= now;
      const wanted = first + (sign * (now - began)) / 4000;
      time.set(kit.clamp(wanted, 0, 1));
      if (sign > 0 ? wanted < 1 : wanted > 0) requestAnimationFrame(frame);
      else stop();
    };
    requestAnimationFrame(frame);
  });
  time.input.addEventListener("input", stop);
  parts.controls.append(play);
  kit.resetButton(parts, () => {
    stop();
    time.reset();
  });

  function draw() {
    const at = Math.round(time.get() * STEPS);
    const colours = kit.colours(place);
    const tints = [colours.first, colours.second, colours.guide, colours.dense];
    const pen = line.penOf(canvas);
    const across = line.scale([-VIEW, VIEW], [0, pen.width]);
    const up = line.scale([-VIEW, VIEW], [pen.height, 0]);
    const ring = Array.from({ length: 9 }, (_, i) => [2.6 * Math.cos(0.7 * i), 2.6 * Math.sin(0.7 * i)]);
    const dot = ([x, y]) => ring.map(([dx, dy]) => [across(x) + dx, up(y) + dy]);
    paths.forEach((path, i) => {
      const tint = tints[2 * (start[i][1] > 0) + (start[i][0] > 0)];
      const tail = path.slice(Math.max(0, at - 6), at + 1).map(([x, y]) => [across(x), up(y)]);
      pen.line(tail, colours.faint, 1);
      pen.fill(dot(path[at]), tint, 0.9);
    });
    const ways = paths.map((path) => Math.hypot(path[at][0] - path[0][0], path[at][1] - path[0][1]));
    const mean = kit.number(ways.reduce((sum, way) => sum + way) / POINTS, 3);
    const said = `t = ${kit.number(at / STEPS)}: ${mean} from the noise on average.`;
    kit.tell(parts, [["mean distance from the noise", mean]], said);
  }
};
