/* What figures over a line of numbers share: grids, scales, and a pen in CSS pixels. */
"use strict";

(() => {
  const points = (low, high, n) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);
  const scale = ([low, high], [from, to]) => (value) => from + ((value - low) / (high - low)) * (to - from);

  /* Pen with the few shapes these figures need, in CSS pixels. */
  function penOf(canvas) {
    const { pen, width, height } = flowFigures.kit.clear(canvas);
    const path = (corners) => {
      pen.beginPath();
      corners.forEach(([x, y]) => pen.lineTo(x, y));
    };
    return {
      width,
      height,
      line(corners, colour, thickness = 1, dash = []) {
        path(corners);
        pen.setLineDash(dash);
        pen.strokeStyle = colour;
        pen.lineWidth = thickness;
        pen.stroke();
        pen.setLineDash([]);
      },
      fill(corners, colour, opacity) {
        path(corners);
        pen.fillStyle = colour;
        pen.globalAlpha = opacity;
        pen.fill();
        pen.globalAlpha = 1;
      },
      text(words, x, y, colour, align = "left") {
        pen.font = "13px system-ui, sans-serif";
        pen.fillStyle = colour;
        pen.textAlign = align;
        pen.textBaseline = "middle";
        pen.fillText(words, x, y);
      },
      image(picture, [left, top, right, bottom]) {
        pen.drawImage(picture, left, top, right - left, bottom - top);
      },
      within([left, top, right, bottom], draw) {
        pen.save();
        pen.beginPath();
        pen.rect(left, top, right - left, bottom - top);
        pen.clip();
        draw();
        pen.restore();
      },
    };
  }

  flowFigures.line = { points, scale, penOf };
})();
