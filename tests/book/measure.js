// Evaluated in an open page: what a reader of that page would see go wrong.
() => {
  const article = document.querySelector("article.bd-article, main");
  const all = (selector) => [...article.querySelectorAll(selector)];
  const brief = (element) => element.textContent.trim().replace(/\s+/g, " ").slice(0, 60);

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

  // --- pictures, in the dark ---------------------------------------------------------------
  document.documentElement.dataset.theme = "dark";
  const pictures = all(".cell_output img, figure img");
  const white = (image) => getComputedStyle(image).backgroundColor === "rgb(255, 255, 255)" && getComputedStyle(image).filter === "none";
  return {
    formulas: all("mjx-container").length,
    raw: all(".math").filter((math) => !math.querySelector("mjx-container")).map(brief),
    wrong: wrong.map((error) => error.closest("mjx-container")?.parentElement.id + " " + (error.getAttribute("data-mjx-error") ?? brief(error))),
    unnumbered: numbered.filter((math) => !spoken(math).includes(`(${math.id.slice(8).replaceAll("-", ".")})`)).map((math) => `${math.id}: ${spoken(math)}`),
    width: document.documentElement.scrollWidth,
    cut,
    figures: pictures.length,
    not_white: pictures.filter((image) => !white(image)).map((image) => image.src),
  };
}
