/* The pictures of a training: the density as a heat map with the points on it, the warped grid, the risk's curve. */
"use strict";

(() => {
  const { kit, points, train } = flowFigures;
  const { PIXELS, LINES, BENDS } = train.SHOWN;
  const { VIEW } = points;

  /* `half` is the density that is drawn in half of the full tone. */
  function density(canvas, values, half, ink) {
    canvas.width = canvas.height = PIXELS; // the browser smooths it to the paper's size
    const pen = canvas.getContext("2d");
    const picture = pen.createImageData(PIXELS, PIXELS);
    const colour = [1, 3, 5].map((start) => parseInt(ink.slice(start, start + 2), 16));
    values.forEach((p, i) => {
      picture.data.set(colour, 4 * i);
      picture.data[4 * i + 3] = Math.round(255 * (1 - 2 ** (-p / half)));
    });
    pen.putImageData(picture, 0, 0);
  }

  /* A pen on a canvas that shows [−VIEW, VIEW]². */
  function plane(canvas, colours) {
    const { pen, width } = kit.clear(canvas);
    const x = (value) => ((value + VIEW) / (2 * VIEW)) * width;
    const y = (value) => ((VIEW - value) / (2 * VIEW)) * width;
    pen.strokeStyle = colours.faint;
    pen.lineWidth = 1;
    pen.beginPath();
    pen.moveTo(x(-VIEW), y(0));
    pen.lineTo(x(VIEW), y(0));
    pen.moveTo(x(0), y(-VIEW));
    pen.lineTo(x(0), y(VIEW));
    pen.stroke();
    return { pen, x, y };
  }

  function dots(canvas, all, colours) {
    const { pen, x, y } = plane(canvas, colours);
    pen.fillStyle = colours.second;
    pen.globalAlpha = 0.8;
    for (let i = 0; i < all.length; i += 2) {
      pen.beginPath();
      pen.arc(x(all[i]), y(all[i + 1]), 1.4, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  /* Lines of constant z₁, then of constant z₂, as the flow has bent them. */
  function grid(canvas, bent, colours) {
    const { pen, x, y } = plane(canvas, colours);
    for (let line = 0; line < 2 * LINES; line++) {
      pen.strokeStyle = line < LINES ? colours.first : colours.second;
      pen.lineWidth = line % LINES === (LINES - 1) / 2 ? 2 : 0.9;
      pen.beginPath();
      for (let i = 2 * line * BENDS; i < 2 * (line + 1) * BENDS; i += 2) pen.lineTo(x(bent[i]), y(bent[i + 1]));
      pen.stroke();
    }
  }

  /* `curves`: name, risks by step and colour of each; `level`: the risk of one Gaussian; `steps`: of a whole training. */
  function curve(canvas, curves, level, steps, colours) {
    const pen = flowFigures.line.penOf(canvas);
    const [left, right, top, bottom] = [42, pen.width - 8, 14, pen.height - 24];
    const seen = curves.flatMap(({ risks }) => [Math.min(...risks.slice(-200)), ...risks.slice(-1)]);
    const low = Math.floor(2 * Math.min(level, ...seen) - 0.5) / 2;
    const high = Math.ceil(2 * level + 2) / 2; // what lies above, at the start, is cut
    const across = flowFigures.line.scale([0, steps], [left, right]);
    const up = flowFigures.line.scale([low, high], [bottom, top]);
    pen.line([[left, top], [left, bottom], [right, bottom]], colours.faint);
    for (const tick of [low, high]) pen.text(kit.number(tick, 1), left - 6, up(tick), colours.ink, "right");
    for (const tick of [0, steps / 3, (2 * steps) / 3]) {
      pen.line([[across(tick), bottom], [across(tick), bottom + 4]], colours.faint);
      pen.text(String(tick), across(tick), bottom + 14, colours.ink, "center");
    }
    pen.text(`${steps} steps`, right, bottom + 14, colours.ink, "right");
    pen.within([left, top - 6, right, bottom], () => {
      pen.line([[left, up(level)], [right, up(level)]], colours.guide, 1.5, [6, 4]);
      for (const { risks, colour } of curves)
        pen.line(smooth(risks).map((risk, i) => [across(i + 1), up(risk)]), colour, 2.2);
    });
    curves.forEach(({ name, colour }, i) => pen.text(name, left + 8 + 70 * i, bottom - 10, colour));
    pen.text("one Gaussian", right, up(level) - 9, colours.guide, "right");
  }

  /* A batch's risk is noisy; the curve is its moving average. */
  function smooth(risks) {
    let mean = risks[0];
    return risks.map((risk, i) => (mean += (risk - mean) * Math.max(0.04, 1 / (i + 1))));
  }

  flowFigures.pictures = { density, dots, grid, curve, smooth };
})();
