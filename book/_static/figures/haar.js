/* Coarse to fine: a digit, its Haar transform, and the image that the kept details give back.
   The transform mirrors flowlib/layers/wavelet.py; the tests compare the two. */
"use strict";

(() => {
  const BANDS = 3;

  /* One transform: an image, as rows of numbers, to its average and three bands of details. */
  function split(image) {
    const half = image.length / 2;
    const parts = Array.from({ length: 1 + BANDS }, () => Array.from({ length: half }, () => []));
    for (let i = 0; i < half; i++) {
      for (let j = 0; j < half; j++) {
        const [p, q] = [image[2 * i][2 * j], image[2 * i][2 * j + 1]];
        const [r, s] = [image[2 * i + 1][2 * j], image[2 * i + 1][2 * j + 1]];
        mix(p, q, r, s).forEach((value, band) => (parts[band][i][j] = value));
      }
    }
    return parts;
  }

  /* The matrix of entries 1/2 and -1/2. It is its own inverse, so `join` uses it again. */
  const mix = (p, q, r, s) => [
    (p + q + r + s) / 2,
    (p - q + r - s) / 2,
    (p + q - r - s) / 2,
    (p - q - r + s) / 2,
  ];

  function join(parts) {
    const half = parts[0].length;
    const image = Array.from({ length: 2 * half }, () => []);
    for (let i = 0; i < half; i++) {
      for (let j = 0; j < half; j++) {
        const [p, q, r, s] = mix(...parts.map((part) => part[i][j]));
        Object.assign(image[2 * i], { [2 * j]: p, [2 * j + 1]: q });
        Object.assign(image[2 * i + 1], { [2 * j]: r, [2 * j + 1]: s });
      }
    }
    return image;
  }

  const energyOf = (parts) => parts.flat(2).reduce((sum, value) => sum + value * value, 0);

  /* The details of the `kept` coarsest scales times `factor`, of the others times 0. `details` holds the bands
     of each scale, coarsest first. The map has a log-determinant only where no detail is lost. */
  function haar({ image, kept, factor }) {
    const details = [];
    let average = image;
    while (average.length > 1) {
      const [coarser, ...bands] = split(average);
      details.unshift(bands);
      average = coarser;
    }
    const scaled = details.map((bands, i) =>
      bands.map((band) => band.map((row) => row.map((value) => (i < kept ? factor : 0) * value))),
    );
    const number = details.flat(3).length;
    return {
      average,
      details: scaled,
      picture: scaled.reduce((coarse, bands) => join([coarse, ...bands]), average),
      energy: (energyOf([average]) + energyOf(scaled.flat())) / energyOf([image]),
      logDet: kept < details.length ? -Infinity : number * Math.log(factor),
    };
  }

  /* Training digits, 8 rows of 8 pixels from 0 to 16, one figure or letter each. */
  const DIGITS = {
    zero: "005fc80000dgad3005g9084004d104800480084001e00b3000c99f00004ef400",
    two: "02dga0000cf9g2000a81g6000112g600000af200002f900002fg986001dgggg3",
    three: "0029d80001eb8e0009e0e6000024f0000006cc200000099000ed4ab0003aef50",
    five: "00fdcc2004ggc60000g4000000b70000007e0000000e6000045e800001fg4000",
  };
  const pixels = (text) =>
    Array.from({ length: 8 }, (_, i) => Array.from(text.slice(8 * i, 8 * i + 8), (c) => parseInt(c, 17)));

  /* Fills a square canvas with squares: value(i, j) gives a colour and how strong it is, 0 to 1. */
  function paint(canvas, side, cell, lines, colours) {
    const { pen, width } = flowFigures.kit.clear(canvas);
    const size = width / side;
    const edge = (k) => Math.round(k * size); // cells that meet without a seam
    for (let i = 0; i < side; i++) {
      for (let j = 0; j < side; j++) {
        const [colour, strength] = cell(i, j);
        pen.fillStyle = colour;
        pen.globalAlpha = flowFigures.kit.clamp(strength, 0, 1);
        const [left, top] = [edge(j), edge(i)];
        pen.fillRect(left, top, edge(j + 1) - left, edge(i + 1) - top);
      }
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = colours.faint;
    pen.lineWidth = 1.5;
    for (const [x, y, dx, dy] of lines) {
      pen.beginPath();
      pen.moveTo(x * size, y * size);
      pen.lineTo((x + dx) * size, (y + dy) * size);
      pen.stroke();
    }
  }

  /* Where the transform's numbers lie: the average at the top left, each scale's bands around the coarser ones. */
  function mosaic({ average, details }) {
    const cells = [[average[0][0] / 8]]; // its blocks' mean, in grey levels
    for (const [right, below, diagonal] of details) {
      const half = right.length;
      for (let i = 0; i < half; i++) {
        cells[i].push(...right[i]);
        cells[half + i] = [...below[i], ...diagonal[i]];
      }
    }
    return cells;
  }

  flowFigures.math.haar = haar;
  flowFigures.math.haarDigits = () => Object.values(DIGITS).map(pixels);

  flowFigures.build.haar = (place) => {
    const { kit } = flowFigures;
    const parts = kit.frame(place, {
      title: "Coarse to fine",
      formula: "<i>a</i><sub>i</sub> = <i>H</i> (<i>a</i><sub>i−1</sub>, <i>t d</i><sub>i</sub>)",
      note:
        "Left, the transform: the average <i>a</i><sub>0</sub> in the upper left corner, around it the details " +
        "<i>d</i><sub>1</sub>, <i>d</i><sub>2</sub>, <i>d</i><sub>3</sub>, two colours for the two signs. Right, the image " +
        "that they give back. Keep <i>k</i> scales of details and multiply them by <i>t</i>. With all kept, the map is " +
        "invertible for every <i>t</i> > 0, and each of the 63 details adds log <i>t</i> to log |det|.",
      draw,
    });
    const panel = (words, label, className) => kit.canvas(kit.panel(parts, words), label, className);
    const left = panel("64 numbers, transformed", "The Haar transform of the digit", "flow-density");
    const right = panel("the image they give", "The digit from its kept details", "flow-lines");

    const names = Object.fromEntries(Object.keys(DIGITS).map((name) => [name, name]));
    const digit = kit.choice(parts, { name: "digit", options: names, value: "three" });
    const kept = kit.slider(parts, {
      name: "<i>k</i>",
      label: "k, scales of details that are kept",
      min: 0,
      max: 3,
      step: 1,
      value: 2,
      digits: 0,
    });
    const factor = kit.slider(parts, {
      name: "<i>t</i>",
      label: "t, factor on the kept details",
      min: 0,
      max: 2,
      step: 0.1,
      value: 1,
    });
    kit.resetButton(parts, () => {
      [digit, kept, factor].forEach((one) => one.reset());
      parts.redraw();
    });

    function draw() {
      const image = pixels(DIGITS[digit.get()]);
      const [k, t] = [kept.get(), factor.get()];
      const result = haar({ image, kept: k, factor: t });
      const colours = kit.colours(place);
      const cells = mosaic(result);
      const signed = (i, j) => {
        if (i + j === 0) return [colours.ink, cells[0][0] / 16];
        return [cells[i][j] < 0 ? colours.second : colours.first, Math.abs(cells[i][j]) / 16];
      };
      const lines = [1, 2, 4].flatMap((side) => [[side, 0, 0, 2 * side], [0, side, 2 * side, 0]]);
      paint(left, 8, signed, lines, colours);
      paint(right, 8, (i, j) => [colours.ink, result.picture[i][j] / 16], [], colours);

      const error = Math.max(...image.flatMap((row, i) => row.map((v, j) => Math.abs(v - result.picture[i][j]))));
      const logDet = kit.number(result.logDet, 3);
      const energy = `${kit.number(100 * result.energy, 1)} %`;
      kit.tell(
        parts,
        [
          ["kept", `${4 ** k} of 64`],
          ["energy", energy],
          ["log |det|", logDet],
          ["largest error", kit.number(error, 2)],
        ],
        `${k} scales of details kept, times ${kit.number(t, 1)}: ${4 ** k} of 64 numbers, ` +
          `${energy} of the energy, log determinant ${logDet}, largest error ${kit.number(error, 2)} of 16.`,
      );
    }
  };
})();
