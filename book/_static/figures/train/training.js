/* Maximum likelihood as flowlib's fit does it: batches, clipping, Adam, a cosine schedule. */
"use strict";

flowFigures.part(function training(train) {
  train.SETTINGS = { steps: 1500, batch: 256, lr: 5e-3, clip: 5, noise: 0.06 };

  /* A training stands at its step 0 and goes on by `advance()`, which returns the batch's risk. `points` may be
     changed meanwhile: each step draws from those that are there, and moves each by a little noise, since a
     flow could otherwise put all its mass on a few hundred points. */
  train.training = ({ model, seed, points, ...changes }) => {
    const { steps, batch, lr, clip, noise } = { ...train.SETTINGS, ...changes };
    const flow = train[model]();
    const theta = flow.start(train.random(seed, 0));
    const draw = train.random(seed, 1);
    const descend = train.adam(flow.size);
    const gradient = new Float64Array(flow.size);
    const x = new Float64Array(2 * batch);
    const state = { flow, theta, points, step: 0, steps, advance };

    function advance() {
      for (let i = 0; i < batch; i++) {
        const chosen = draw.below(state.points.length / 2);
        for (const axis of [0, 1]) x[2 * i + axis] = state.points[2 * chosen + axis] + noise * draw.normal();
      }
      const risk = flow.risk(theta, x, gradient);
      const length = Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0));
      if (!Number.isFinite(risk + length)) return NaN; // the parameters stay as they were
      const shorter = clip / (length + 1e-6); // torch's own guard against a division by 0
      if (length > clip) gradient.forEach((value, i) => (gradient[i] = value * shorter));
      descend(theta, gradient, 0.5 * lr * (1 + Math.cos((Math.PI * state.step) / steps)));
      state.step += 1;
      return risk;
    }
    return state;
  };
});
