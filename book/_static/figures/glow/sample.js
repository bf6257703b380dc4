/* Ask for a digit: two draws of latents under one label and temperature, and what lies between them. */
"use strict";

(() => {
  const SIDE = 8;
  const LABELS = Array.from({ length: 10 }, (_, label) => label);

  /* Images side by side, with a line under the one at `marked`. */
  function drawDigits(canvas, images, most, colours, marked = -1) {
    const { pen, width, height } = flowFigures.kit.clear(canvas);
    const gap = images.length > 1 ? 0.12 : 0; // between two images, as a share of one
    const size = width / (images.length + gap * (images.length - 1));
    pen.fillStyle = colours.ink;
    images.forEach(({ levels }, k) => {
      const start = k * (1 + gap) * size;
      const edge = (pixel) => Math.round((pixel * size) / SIDE); // pixels that meet without a seam
      levels.forEach((level, pixel) => {
        const [i, j] = [Math.floor(pixel / SIDE), pixel % SIDE];
        pen.globalAlpha = level / most;
        pen.fillRect(Math.round(start) + edge(j), edge(i), edge(j + 1) - edge(j), edge(i + 1) - edge(i));
      });
      if (k !== marked) return;
      pen.globalAlpha = 1;
      pen.fillStyle = colours.first;
      pen.fillRect(start, height - 3, size, 3);
      pen.fillStyle = colours.ink;
    });
  }

  flowFigures.build["glow-sample"] = async (place) => {
    const { kit, math } = flowFigures;
    const { normal } = math.generator(2);
    const latent = () => Array.from({ length: SIDE * SIDE }, normal);
    let ends = [latent(), latent()];
    let model = null;
    const parts = kit.frame(place, {
      title: "Ask for a digit",
      formula: "<i>x</i> = <i>f<sub>y</sub></i>(<i>T z</i>)",
      note:
        "Left and right, the same Glow’s images of two latents <i>z</i>, <i>z</i>′ of 64 normal numbers each, under " +
        "the label <i>y</i> at temperature <i>T</i>; in the middle, that of " +
        "cos(π<i>t</i>/2) <i>z</i> + sin(π<i>t</i>/2) <i>z</i>′, which is a normal draw for every <i>t</i>. Below, the " +
        "latent in the middle under all ten labels. Bits are those of the image in the middle, told its label.",
      draw,
    });
    parts.drawing.classList.add("flow-digits");
    const panel = (words) => kit.canvas(kit.panel(parts, words), `Image of 8 by 8 pixels: ${words}`);
    const canvases = ["one draw", "between", "another"].map(panel);
    const strip = kit.element("div", { className: "flow-ten" });
    parts.drawing.after(strip);
    const all = kit.canvas(strip, "The latent in the middle under the labels 0 to 9");
    const options = Object.fromEntries(LABELS.map((label) => [label, String(label)]));
    const label = kit.choice(parts, { name: "label", options, value: "3" });
    const temperature = kit.slider(parts, {
      name: "<i>T</i>",
      label: "T, temperature of the latents",
      min: 0,
      max: 1.2,
      step: 0.05,
      value: 0.7,
      digits: 2,
    });
    const between = kit.slider(parts, {
      name: "<i>t</i>",
      label: "t, from one draw to the other",
      min: 0,
      max: 1,
      step: 0.05,
      value: 0.5,
      digits: 2,
    });
    const again = kit.element("button", { type: "button", className: "flow-reset" }, "Another draw");
    parts.controls.append(again);

    again.addEventListener("click", () => {
      ends = [ends[1], latent()]; // what was the other is the one now
      parts.redraw();
    });

    function draw() {
      if (!model) return;
      const [T, t, y] = [temperature.get(), between.get(), Number(label.get())];
      const middle = math.glowBetween(...ends, t);
      const colours = kit.colours(place);
      const decode = (z, label) => model.decode(z.map((v) => T * v), label);
      const images = [ends[0], middle, ends[1]].map((z) => decode(z, y));
      images.forEach((image, k) => drawDigits(canvases[k], [image], model.levels - 1, colours));
      drawDigits(all, LABELS.map((label) => decode(middle, label)), model.levels - 1, colours, y);
      const bits = kit.number(model.bits(images[1].logProb));
      const length = kit.number(middle.reduce((sum, v) => sum + (T * v) ** 2, 0) / model.d);
      kit.tell(
        parts,
        [
          ["‖<i>T z</i>‖² / 64", length],
          ["bits per dim.", bits],
          ["held-out digits", kit.number(model.facts.told)],
        ],
        `A ${y} at temperature ${kit.number(T)}, ${kit.number(t)} of the way: ${bits} bits per dimension.`,
      );
    }

    model = await math.glowModel();
    parts.redraw();
  };
})();
