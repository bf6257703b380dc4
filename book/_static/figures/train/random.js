/* Random numbers that a seed repeats on every machine: Mulberry32, and normal ones by Box and Muller. */
"use strict";

flowFigures.part(function random(train) {
  train.random = (seed, stream = 0) => {
    let state = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b)) >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let bits = Math.imul(state ^ (state >>> 15), state | 1);
      bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
      return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    const below = (n) => Math.floor(n * uniform());
    return { uniform, normal, below };
  };
});
