// Evaluated in an open page: what a reader of that page would see go wrong.
() => {
  const article = document.querySelector("article.bd-article, main");
  const all = (selector) => [...article.querySelectorAll(selector)];
  const brief = (element) => element.textContent.trim().replace(/\s+/g, " ").slice(0, 60);
  const visible = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest("mjx-container, .visually-hidden, .sr-only");

  // --- formulas -----------------------------------------------------------------------
  const spoken = (element) => element.querySelector("mjx-assistive-mml")?.textContent ?? "";
  const numbered = all('div.math[id^="formula-"]');
  const wrong = all("mjx-merror, mjx-mtext[style*='red'], mjx-mstyle[style*='red'], [data-mjx-error]");

  // --- what sticks out on a phone -------------------------------------------------------
  const scrolls = (element) => {
    for (let up = element; up && up !== article; up = up.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(up).overflowX)) return up;
    return null;
  };
  for (const fold of all("details")) fold.open = true;
  const cut = [];
  for (const element of all("p, li, pre, table, img, svg, h1, h2, h3, dt, blockquote, mjx-container")) {
    if (element.closest("mjx-container") !== element && element.closest("mjx-container")) continue;
    const box = element.getBoundingClientRect();
    if (!box.width) continue;
    const frame = scrolls(element);
    if (!frame && (box.right > innerWidth + 1 || box.left < -1)) cut.push(`${element.tagName} ${brief(element)}`);
    // what lies left of a frame's start can never be scrolled to
    if (frame && frame !== element && box.left + frame.scrollLeft < frame.getBoundingClientRect().left - 2)
      cut.push(`${element.tagName} ${spoken(element) || brief(element)} (left end)`);
  }

  // --- contrast ---------------------------------------------------------------------------
  const channels = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number);
    return colour.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
  const behind = (element) => {
    const layers = [];
    for (let up = element; up; up = up.parentElement) layers.unshift(channels(getComputedStyle(up).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const faint = (theme) => {
    document.documentElement.dataset.theme = theme;
    const seen = new Set();
    const found = [];
    for (const element of all("*")) {
      if (!speaks(element) || !visible(element) || element.closest("svg, script, style")) continue;
      const style = getComputedStyle(element);
      const below = behind(element);
      const key = `${style.color} on ${below.map(Math.round)}`;
      const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
      if (seen.has(key + large)) continue;
      seen.add(key + large);
      const [dim, bright] = [luminance(over(channels(style.color), below)), luminance(below)].sort((a, b) => a - b);
      const ratio = (bright + 0.05) / (dim + 0.05);
      if (ratio < (large ? 3 : 4.5)) found.push(`${ratio.toFixed(2)} for "${brief(element)}" (${key})`);
    }
    return found;
  };

  const faint_light = faint("light");
  const faint_dark = faint("dark");
  const pictures = all(".cell_output img, figure img");
  const white = (image) => getComputedStyle(image).backgroundColor === "rgb(255, 255, 255)" && getComputedStyle(image).filter === "none";
  return {
    formulas: all("mjx-container").length,
    raw: all(".math").filter((math) => !math.querySelector("mjx-container")).map(brief),
    wrong: wrong.map((error) => error.closest("mjx-container")?.parentElement.id + " " + (error.getAttribute("data-mjx-error") ?? brief(error))),
    unnumbered: numbered.filter((math) => !spoken(math).includes(`(${math.id.slice(8).replaceAll("-", ".")})`)).map((math) => `${math.id}: ${spoken(math)}`),
    width: document.documentElement.scrollWidth,
    cut,
    faint_light,
    faint_dark,
    figures: pictures.length,
    not_white: pictures.filter((image) => !white(image)).map((image) => image.src),
  };
}
