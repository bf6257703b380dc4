// A page opened from a folder may not read its neighbours, so the search lists titles without extracts there.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// Formulas are entered under their bare numbers, and readers ask for them as the pages print them: (6.3), eq 6.3.
if (location.pathname.endsWith("search.html")) {
  const query = (new URLSearchParams(location.search).get("q") ?? "").trim();
  const number = /^(?:eq|equation|formula)?\.?\s*\(?(\d+\.\d+[a-z]?)\)?$/i.exec(query)?.[1];
  if (number && number !== query) location.replace(`?q=${number}`);
}

// What the search finds on the API page would all be called by that page's title.
addEventListener("DOMContentLoaded", () => {
  const results = document.querySelector("#search-results");
  const name = () =>
    results.querySelectorAll('a[href*="api.html#flowlib"]').forEach((link) => {
      const found = link.hash.slice(1).replace(/^flowlib\.(?:\w+\.)*?(?=[A-Z]|\w+$)/, "");
      if (link.textContent === "API reference") link.textContent = `${found}: API reference`;
    });
  if (results) new MutationObserver(name).observe(results, { childList: true, subtree: true });
});

// Paper is white: the dark scheme's pale letters would hardly be seen on it.
addEventListener("beforeprint", () => {
  const root = document.documentElement.dataset;
  const scheme = root.theme;
  root.theme = "light";
  addEventListener("afterprint", () => (root.theme = scheme), { once: true });
});

// On a phone a centred formula would leave as much room at its left as its number takes at its right.
if (window.MathJax && window.innerWidth < 600) window.MathJax.chtml.displayAlign = "left";

// Code that is too wide scrolls by keyboard: the theme looks for such code when the window changes, and folds hide it.
addEventListener("toggle", () => dispatchEvent(new Event("resize")), { capture: true });
