// Evaluated in an open page before it is judged: unfolds everything, and keeps one specimen each of what repeats by the
// hundred. A formula becomes a box of its size, and a piece of code keeps the tokens whose colours are new on the page.
() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const size = (code) => ({ width: code.scrollWidth > code.clientWidth ? code.scrollWidth : 1, height: code.scrollHeight });
  const kept = [];
  for (const formula of document.querySelectorAll("mjx-container")) {
    const drawn = formula.querySelector("mjx-math");
    if (drawn) kept.push([formula, drawn.getBoundingClientRect(), [], "inline-block"]);
  }
  const seen = new Set();
  for (const code of document.querySelectorAll("article pre, article dt.sig")) {
    const fresh = [...code.querySelectorAll("*")].filter((token) => {
      const style = `${code.tagName} ${token.tagName} ${token.className}`;
      return !token.childElementCount && !seen.has(style) && seen.add(style);
    });
    kept.push([code, size(code), fresh, "block"]);
  }
  for (const [element, { width, height }, specimens, display] of kept) {
    const box = document.createElement("span");
    box.style.cssText = `display: ${display}; width: ${width}px; height: ${height}px`;
    for (const token of specimens) token.style.display = "block";
    element.replaceChildren(...specimens, box);
  }
  // text of one kind, by its own element and the two around it, has one colour
  const kind = (element) => element && `${element.tagName} ${element.className}`;
  for (const element of document.querySelectorAll("body *")) {
    const speaks = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const above = element.parentElement;
    const style = [element, above, above.parentElement].map(kind).join(" < ");
    if (!speaks || seen.has(style) || element.closest("svg, script, style")) continue;
    seen.add(style);
    element.dataset.text = "";
  }
}
