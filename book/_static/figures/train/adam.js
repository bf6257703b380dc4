/* torch.optim.Adam with its usual numbers, on one array of parameters. */
"use strict";

flowFigures.part(function adam(train) {
  train.adam = (size) => {
    const [first, second, tiny] = [0.9, 0.999, 1e-8];
    const mean = new Float64Array(size);
    const square = new Float64Array(size);
    let step = 0;
    return (theta, gradient, lr) => {
      step += 1;
      const rate = lr / (1 - first ** step);
      const correction = Math.sqrt(1 - second ** step);
      for (let i = 0; i < size; i++) {
        mean[i] += (1 - first) * (gradient[i] - mean[i]);
        square[i] += (1 - second) * (gradient[i] * gradient[i] - square[i]);
        theta[i] -= (rate * mean[i]) / (Math.sqrt(square[i]) / correction + tiny);
      }
    };
  };
});
