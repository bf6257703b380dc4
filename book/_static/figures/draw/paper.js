/* The paper: points come by pointer, by finger, or by a pen that the arrow keys move and Space sets down. */
"use strict";

(() => {
  const { kit, points } = flowFigures;
  const { VIEW, MOST } = points;
  const SPREAD = 0.13; // of the points about the stroke
  const STRIDE = 0.045; // length of stroke that brings one point
  const RUBBER = 0.45; // radius

  const clamp = (value) => kit.clamp(value, -VIEW, VIEW);
  const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

  /* `get()` gives the points, `set(points, finished)` takes the new ones, `rubbing()` says what the pen does. */
  flowFigures.paper = (holder, { get, set, rubbing }) => {
    let pen = [0, 0];
    let last = null; // where a pointer that draws was
    let down = false; // by keyboard: the pen stays on the paper while it moves

    function mark(from, to) {
      if (rubbing()) {
        const far = (x, y) => Math.hypot(x - to[0], y - to[1]) > RUBBER;
        const all = get();
        return set(all.filter((_, i) => far(all[i - (i % 2)], all[i - (i % 2) + 1])), false);
      }
      const length = Math.hypot(to[0] - from[0], to[1] - from[1]);
      const many = length ? Math.ceil(length / STRIDE) : 12; // a tap leaves a dab
      const fresh = [];
      for (let i = 1; i <= many; i++) {
        for (const axis of [0, 1]) {
          const centre = from[axis] + (i / many) * (to[axis] - from[axis]);
          fresh.push(points.snap(clamp(centre + SPREAD * normal())));
        }
      }
      // the oldest points make room
      set(Float64Array.from([...get(), ...fresh].slice(-2 * MOST)), false);
    }

    const handle = kit.element("div", { className: "flow-pen", tabIndex: 0, role: "slider" });
    handle.setAttribute("aria-roledescription", "pen");
    handle.setAttribute(
      "aria-label",
      "Pen. Arrow keys move it, with Shift in larger steps. Space leaves a dab, Enter sets the pen down or lifts it.",
    );
    holder.append(handle);
    const show = () => {
      handle.style.left = `${(50 * (pen[0] + VIEW)) / VIEW}%`;
      handle.style.top = `${(50 * (VIEW - pen[1])) / VIEW}%`;
      handle.setAttribute("aria-valuemin", -VIEW);
      handle.setAttribute("aria-valuemax", VIEW);
      handle.setAttribute("aria-valuenow", pen[0].toFixed(1));
      handle.setAttribute("aria-valuetext", `${down ? "drawing, " : ""}at ${kit.pair(pen)}`);
      handle.classList.toggle("flow-down", down);
    };

    const place = (event) => {
      const box = holder.getBoundingClientRect();
      const [across, along] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
      return [clamp(VIEW * (2 * across - 1)), clamp(VIEW * (1 - 2 * along))];
    };
    holder.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      holder.setPointerCapture(event.pointerId);
      event.preventDefault();
      pen = last = place(event);
      mark(last, last);
      show();
    });
    holder.addEventListener("pointermove", (event) => {
      if (!last) return;
      pen = place(event);
      mark(last, pen);
      last = pen;
      show();
    });
    const lift = () => {
      if (last) set(get(), true);
      last = null;
    };
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) holder.addEventListener(end, lift);

    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
    handle.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const direction = directions[event.key];
      const from = pen;
      if (direction) pen = pen.map((value, axis) => clamp(value + direction[axis] * (event.shiftKey ? 1 : 0.2)));
      else if (event.key === "Enter") down = !down;
      else if (event.key !== " ") return;
      event.preventDefault();
      if (down || event.key === " ") {
        mark(from, pen);
        set(get(), true);
      }
      show();
    });
    show();
  };
})();
