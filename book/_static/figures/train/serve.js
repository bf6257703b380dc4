/* The worker's day: steps in short slices, so that messages are heard between them, and now and then a picture. */
"use strict";

flowFigures.part(function serve(train) {
  const VIEW = 4.5; // the square [−4.5, 4.5]²
  const PIXELS = 72; // of the density, each side
  const [LINES, BENDS, REACH] = [13, 91, 3]; // the grid of z on [−3, 3]²: its lines, and points on each
  train.SHOWN = { VIEW, PIXELS, LINES, BENDS };

  const pixels = new Float64Array(2 * PIXELS * PIXELS);
  for (let i = 0; i < PIXELS * PIXELS; i++) {
    pixels[2 * i] = VIEW * ((2 * ((i % PIXELS) + 0.5)) / PIXELS - 1);
    pixels[2 * i + 1] = VIEW * (1 - (2 * (Math.floor(i / PIXELS) + 0.5)) / PIXELS);
  }
  const grid = new Float64Array(2 * 2 * LINES * BENDS); // first the lines of constant z₁, then those of z₂
  for (let i = 0; i < LINES * BENDS; i++) {
    const along = REACH * ((2 * (i % BENDS)) / (BENDS - 1) - 1);
    const fixed = REACH * ((2 * Math.floor(i / BENDS)) / (LINES - 1) - 1);
    grid.set([fixed, along], 2 * i);
    grid.set([along, fixed], 2 * (LINES * BENDS + i));
  }

  train.serve = (port, slice) => {
    let [training, run, on, failed, asked, due] = [null, 0, false, false, false, 0];
    let risks = [];

    function show() {
      const { flow, theta, step } = training;
      const began = performance.now();
      const density = flow.logProb(theta, pixels).map(Math.exp);
      port.postMessage({ run, step, failed, risks, density, grid: flow.generate(theta, grid) });
      risks = [];
      const now = performance.now();
      due = now + Math.max(100, 2.5 * (now - began)); // pictures take a third of the time at most
    }

    function advance() {
      const risk = training.advance();
      failed = Number.isNaN(risk);
      if (!failed) risks.push(risk);
      on &&= !failed && training.step < training.steps;
    }

    function work() {
      asked = false;
      if (!on) return;
      const end = performance.now() + slice;
      while (on && performance.now() < end) advance();
      if (!on || performance.now() >= due) show();
      again();
    }
    function again() {
      if (on && !asked) [asked] = [true, setTimeout(work)];
    }

    const orders = {
      begin({ setting, number }) {
        [training, run, on, failed, risks] = [train.training(setting), number, false, false, []];
        show();
      },
      points: ({ points }) => (training.points = points),
      step() {
        on = false;
        if (training.step < training.steps) advance();
        show();
      },
      pause() {
        on = false;
        show();
      },
      go() {
        on = training.step < training.steps;
        again();
      },
    };
    port.onmessage = ({ data }) => orders[data.order](data);
  };
});
