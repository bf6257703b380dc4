/* What every figure is made of: canvases, sliders, a probe, the numbers, a button. */
"use strict";

(() => {
  const element = (tag, properties = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made && !name.startsWith("aria")) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  };

  /* A typographic minus, so that numbers keep their width when the sign changes. */
  const number = (value, digits = 2) => {
    if (!Number.isFinite(value)) return Number.isNaN(value) ? "undefined" : value > 0 ? "∞" : "−∞";
    const text = Math.abs(value).toFixed(digits);
    return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
  };
  const pair = (point) => `(${point.map((value) => number(value)).join(", ")})`;

  /* Calls `draw` once before the next frame, however often it was asked for. */
  function oncePerFrame(draw) {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        draw();
      });
    };
  }

  /* A frame for one figure: title, formula, and a place for each kind of part. `draw` runs when a
     value, the size or the page's theme changes. */
  function frame(place, { title, formula, note, draw }) {
    const parts = {
      drawing: element("div", { className: "flow-drawing" }),
      controls: element("div", { className: "flow-controls" }),
      // what the eye follows while dragging; the summary below is for the ear. "simple" keeps the
      // theme from laying the list out as the documentation of a function.
      readout: element("dl", { className: "flow-readout simple" }),
      summary: element("p", { className: "flow-summary", role: "status", "aria-live": "polite" }),
    };
    const shown = element("span", { className: "flow-formula", innerHTML: formula });
    place.replaceChildren(
      element("p", { className: "flow-title" }, title, shown),
      parts.drawing,
      parts.readout,
      parts.controls,
      element("p", { className: "flow-note", innerHTML: note }),
      parts.summary,
    );
    place.setAttribute("role", "group");
    place.setAttribute("aria-label", `Interactive figure: ${title}`);
    parts.redraw = oncePerFrame(draw);
    new ResizeObserver(parts.redraw).observe(parts.drawing);
    new MutationObserver(parts.redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    return parts;
  }

  /* A labelled native range input; `name` may hold <sub>, `label` is what is read aloud. */
  function slider(parts, { name, label, min, max, step, value, digits = 1 }) {
    const input = element("input", { type: "range", min, max, step, "aria-label": label });
    const shown = element("span", { className: "flow-value" });
    const symbol = element("span", { className: "flow-name", innerHTML: name });
    parts.controls.append(element("label", { className: "flow-slider" }, symbol, input, shown));
    const show = () => {
      shown.textContent = number(input.valueAsNumber, digits);
      input.setAttribute("aria-valuetext", shown.textContent);
      parts.redraw();
    };
    const set = (wanted) => {
      input.value = wanted;
      show();
    };
    input.addEventListener("input", show);
    set(value);
    return { input, set, get: () => input.valueAsNumber, reset: () => set(value) };
  }

  function choice(parts, { name, options, value }) {
    const items = Object.entries(options).map(([key, text]) => element("option", { value: key }, text));
    const select = element("select", {}, ...items);
    const word = element("span", { className: "flow-name" }, name);
    parts.controls.append(element("label", { className: "flow-choice" }, word, select));
    const set = (wanted) => {
      select.value = wanted;
      select.dispatchEvent(new Event("change"));
    };
    select.addEventListener("change", parts.redraw);
    select.value = value;
    return { select, set, get: () => select.value, reset: () => set(value) };
  }

  function resetButton(parts, reset) {
    const button = element("button", { type: "button", className: "flow-reset" }, "Reset");
    button.addEventListener("click", reset);
    parts.controls.append(button);
  }

  /* A place for canvases among the figure's pictures, with a caption. */
  function panel(parts, words, className = "flow-plane") {
    const holder = element("div", { className });
    const caption = element("p", { className: "flow-caption" }, words);
    parts.drawing.append(element("div", { className: "flow-panel" }, caption, holder));
    return holder;
  }

  /* A canvas in CSS pixels, sharp on any screen, that fills its holder. */
  function canvas(holder, label, className = "") {
    const made = element("canvas", { role: "img", "aria-label": label });
    made.className = className;
    holder.append(made);
    return made;
  }
  function clear(made) {
    const { width, height } = made.getBoundingClientRect();
    const sharp = window.devicePixelRatio || 1;
    made.width = Math.round(width * sharp);
    made.height = Math.round(height * sharp);
    const pen = made.getContext("2d");
    pen.scale(sharp, sharp);
    return { pen, width, height };
  }

  /* A handle that the reader drags, taps beside, or moves with the arrow keys. `area` is what the
     handle moves over; `point(x, y)` takes fractions of it, `step(dx, dy)` takes signs. */
  function probe(area, { label, twoDimensional, point, step }) {
    const handle = element("div", { className: "flow-probe", tabIndex: 0, role: "slider" });
    handle.setAttribute("aria-label", label);
    if (twoDimensional) handle.setAttribute("aria-roledescription", "two-dimensional slider");
    area.append(handle);
    const follow = (event) => {
      const box = area.getBoundingClientRect();
      point((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    };
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    handle.addEventListener("pointermove", (event) => {
      if (handle.hasPointerCapture(event.pointerId)) follow(event);
    });
    area.addEventListener("click", (event) => {
      if (event.target !== handle) follow(event); // a tap; a swipe scrolls the page instead
    });
    const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };
    handle.addEventListener("keydown", (event) => {
      const direction = directions[event.key];
      if (!direction || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      step(...direction.map((sign) => sign * (event.shiftKey ? 5 : 1)));
    });
    return handle;
  }

  /* Fills the readout with [term, value] rows and, once the reader pauses, tells a screen reader;
     not on opening the page, where nothing was asked for yet. */
  function tell(parts, rows, sentence) {
    while (parts.readout.children.length < rows.length)
      parts.readout.append(element("div", {}, element("dt"), element("dd")));
    rows.forEach(([term, value], i) => {
      const [name, shown] = parts.readout.children[i].children;
      if (name.innerHTML !== term) name.innerHTML = term;
      shown.textContent = value;
    });
    parts.sentence ??= sentence;
    if (sentence === parts.sentence) return;
    parts.sentence = sentence;
    clearTimeout(parts.pause);
    parts.pause = setTimeout(() => (parts.summary.textContent = sentence), 500);
  }

  /* The figure's colours are CSS custom properties, so that one place knows the two themes. */
  function colours(place) {
    const style = getComputedStyle(place);
    const names = ["paper", "ink", "faint", "first", "second", "guide", "probe", "dense"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--flow-${name}`).trim()]));
  }

  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  const tools = { element, number, pair, clamp, colours };
  flowFigures.kit = { ...tools, frame, slider, choice, resetButton, panel, canvas, clear, probe, tell };
})();
