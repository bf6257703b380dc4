/* A latent space that one can hear: five amplitudes make a sound of 4,000 numbers. */
"use strict";

/* x = S z + noise, half a second at 8,000 samples a second; S holds the sampled sines of 220 Hz and its multiples.
   Over half a second they fit whole periods, so SᵀS = (d/2) I, and the best latents of x are (2/d) Sᵀx. */
flowFigures.math.latent = (() => {
  const [RATE, D, PITCH] = [8000, 4000, 220];
  const sine = (j, n) => Math.sin((2 * Math.PI * PITCH * (j + 1) * n) / RATE);

  /* Numbers that are the same on every machine: Park and Miller's, made normal by Box and Muller. */
  const white = new Float64Array(D);
  let state = 7;
  const uniform = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (let n = 0; n < D; n++) white[n] = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

  return ({ z, noise }) => {
    const x = white.map((value, n) => noise * value + z.reduce((sum, z_j, j) => sum + z_j * sine(j, n), 0));
    const energy = (values) => values.reduce((sum, value) => sum + value * value, 0);
    const best = z.map((_, j) => (2 / D) * x.reduce((sum, value, n) => sum + value * sine(j, n), 0));
    const explained = (D / 2) * energy(best);
    const all = energy(x);
    const residual = all > 0 ? Math.sqrt(Math.max(0, all - explained) / all) : 0;
    return { x, best, residual, loudness: Math.sqrt(all / D), white, sine, rate: RATE };
  };
})();

flowFigures.build.latent = (place) => {
  const { kit, math, line } = flowFigures;
  const SHOWN = 120; // samples: 15 milliseconds
  const START = [0.8, 0.5, 0, 0.3, 0];

  const parts = kit.frame(place, {
    title: "A latent space that you can hear",
    formula: "<i>x</i>(<i>t</i>) = ∑<sub><i>j</i></sub> <i>z<sub>j</sub></i> sin(2π · 220 <i>j</i> <i>t</i>)",
    note:
      "Move the five latents: every choice is a valid sound, and the 4,000 numbers of half a second have no other " +
      "freedom. Then add a little noise to each of the 4,000: <i>e</i>(<i>x</i>), the share that no latent explains, " +
      "leaves 0 at once, and you hear it.",
    draw,
  });
  const holder = kit.element("div", { className: "flow-line flow-wave" });
  parts.drawing.append(holder);
  const canvas = kit.canvas(holder, "The sound’s first 15 milliseconds, with its five sines");
  canvas.className = "flow-lines";

  const sliders = START.map((value, j) =>
    kit.slider(parts, {
      name: `<i>z</i><sub>${j + 1}</sub>`,
      label: `z ${j + 1}, amplitude of ${220 * (j + 1)} hertz`,
      ...{ min: -1, max: 1, step: 0.05, value, digits: 2 },
    }),
  );
  const noise = kit.slider(parts, {
    name: "<i>σ</i>",
    label: "sigma, noise added to every sample",
    ...{ min: 0, max: 0.5, step: 0.01, value: 0, digits: 2 },
  });
  const sound = () => math.latent({ z: sliders.map((one) => one.get()), noise: noise.get() });

  /* The browser's sound is asked for at the first press, not before. */
  let context = null;
  const play = kit.element("button", { type: "button", className: "flow-reset" }, "Play half a second");
  play.addEventListener("click", () => {
    context ??= new AudioContext();
    const { x, rate } = sound();
    const fade = (n) => Math.min(1, n / 160, (x.length - n) / 160); // no clicks at the ends
    const buffer = context.createBuffer(1, x.length, rate);
    const loudest = x.reduce((most, value) => Math.max(most, Math.abs(value)), 1);
    buffer.copyToChannel(Float32Array.from(x, (value, n) => (0.25 * fade(n) * value) / loudest), 0);
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(context.destination);
    context.resume();
    source.start();
  });
  parts.controls.append(play);
  kit.resetButton(parts, () => [...sliders, noise].forEach((one) => one.reset()));

  function draw() {
    const { x, residual, loudness, sine } = sound();
    const colours = kit.colours(place);
    const pen = line.penOf(canvas);
    const [left, right, top, bottom] = [34, pen.width - 8, 8, pen.height - 26];
    const across = line.scale([0, SHOWN], [left, right]);
    const up = line.scale([-3, 3], [bottom, top]);
    const curve = (f) => Array.from({ length: SHOWN + 1 }, (_, n) => [across(n), up(f(n))]);
    pen.line([[left, up(0)], [right, up(0)]], colours.faint);
    for (const tick of [-2, 0, 2]) pen.text(kit.number(tick, 0), left - 6, up(tick), colours.ink, "right");
    for (const tick of [0, 5, 10]) pen.text(String(tick), across(8 * tick), bottom + 14, colours.ink, "center");
    pen.text("15 ms", right, bottom + 14, colours.ink, "right");
    pen.within([left, top, right, bottom], () => {
      sliders.forEach((one, j) => pen.line(curve((n) => one.get() * sine(j, n)), colours.faint, 1));
      pen.line(curve((n) => x[n]), colours.first, 2.5);
    });
    const rows = [
      ["latents", "5"],
      ["samples", String(x.length)],
      ["loudness", kit.number(loudness, 3)],
      ["<i>e</i>(<i>x</i>)", kit.number(residual, 3)],
    ];
    kit.tell(parts, rows, `Loudness ${kit.number(loudness, 3)}, residual ${kit.number(residual, 3)}.`);
  }
};
