/* Eight by eight pixels to draw on, by pen, finger or keyboard. As in the data, a pen of the width of a stroke
   marks points of a 32 × 32 grid, and a pixel's level is how many of its sixteen points are marked. */
"use strict";

(() => {
  const [SIDE, FINE, LEVELS] = [8, 4, 16];
  const RADIUS = 2.5; // of the pen, in points of the fine grid: as much ink as the data have

  /* The points of the fine grid within the pen's radius of the segment. */
  function near([x0, y0], [x1, y1], visit) {
    const [dx, dy] = [x1 - x0, y1 - y0];
    for (let row = 0; row < SIDE * FINE; row++) {
      for (let column = 0; column < SIDE * FINE; column++) {
        const [x, y] = [column + 0.5, row + 0.5];
        const along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy || 1);
        const t = Math.min(1, Math.max(0, along));
        if (Math.hypot(x - x0 - t * dx, y - y0 - t * dy) <= RADIUS) visit(row, column);
      }
    }
  }

  /* A canvas that fills `holder`; `changed` is called when a level has changed, `looked` when the picture has to
     be drawn again for another reason. */
  function pad(holder, { changed, looked }) {
    const { kit } = flowFigures;
    const canvas = kit.canvas(
      holder,
      "Eight by eight pixels to draw a digit on. Arrow keys move between pixels, space darkens one, " +
        "backspace whitens it.",
    );
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "application");
    canvas.className = "flow-pad";
    const levels = new Array(SIDE * SIDE).fill(0);
    const marked = new Set(); // points that the pen has touched
    let last = null;
    let [row, column] = [0, 3]; // the keyboard's pixel

    const pixelOf = (point) =>
      Math.floor(point / (SIDE * FINE * FINE)) * SIDE + Math.floor((point % (SIDE * FINE)) / FINE);
    function whiten(pixel) {
      levels[pixel] = 0;
      for (const point of marked) if (pixelOf(point) === pixel) marked.delete(point);
    }
    function mark(from, to) {
      near(from, to, (i, j) => {
        const point = i * SIDE * FINE + j;
        const pixel = pixelOf(point);
        if (marked.has(point) || levels[pixel] === LEVELS) return;
        marked.add(point);
        levels[pixel] += 1;
      });
      changed();
    }
    const where = ({ clientX, clientY }) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      return [((clientX - left) / width) * SIDE * FINE, ((clientY - top) / height) * SIDE * FINE];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || !event.isPrimary) return;
      canvas.setPointerCapture(event.pointerId);
      last = where(event);
      mark(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last || !canvas.hasPointerCapture(event.pointerId)) return;
      const now = where(event);
      mark(last, now);
      last = now;
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));

    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    canvas.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const pixel = row * SIDE + column;
      if (event.key in moves) {
        const [down, right] = moves[event.key];
        row = kit.clamp(row + down, 0, SIDE - 1);
        column = kit.clamp(column + right, 0, SIDE - 1);
        looked();
      } else if (event.key === " ") {
        levels[pixel] = Math.min(LEVELS, levels[pixel] + LEVELS / 4);
        changed();
      } else if (event.key === "Backspace" || event.key === "Delete") {
        whiten(pixel);
        changed();
      } else return;
      event.preventDefault();
    });
    for (const change of ["focus", "blur"]) canvas.addEventListener(change, looked);

    function draw(colours) {
      const { pen, width } = kit.clear(canvas);
      const edge = (k) => Math.round((k * width) / SIDE); // pixels that meet without a seam
      pen.strokeStyle = colours.faint;
      pen.lineWidth = 0.5;
      levels.forEach((level, pixel) => {
        const [i, j] = [Math.floor(pixel / SIDE), pixel % SIDE];
        const box = [edge(j), edge(i), edge(j + 1) - edge(j), edge(i + 1) - edge(i)];
        pen.fillStyle = colours.ink;
        pen.globalAlpha = level / LEVELS;
        pen.fillRect(...box);
        pen.globalAlpha = 1;
        pen.strokeRect(...box);
      });
      if (!canvas.matches(":focus-visible")) return;
      pen.strokeStyle = colours.second;
      pen.lineWidth = 3;
      pen.strokeRect(edge(column) + 1.5, edge(row) + 1.5, edge(1) - 3, edge(1) - 3);
    }

    return {
      canvas,
      levels,
      draw,
      empty: () => levels.every((level) => level === 0),
      place: () => `row ${row + 1}, column ${column + 1}, level ${levels[row * SIDE + column]} of ${LEVELS}`,
      clear() {
        levels.fill(0);
        marked.clear();
        changed();
      },
    };
  }

  flowFigures.pad = pad;
})();
