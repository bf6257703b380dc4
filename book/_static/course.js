// A page opened from a folder may not read its neighbours, so the search lists titles without extracts there.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// On a phone a centred formula would leave as much room at its left as its number takes at its right.
if (window.MathJax && window.innerWidth < 600) window.MathJax.chtml.displayAlign = "left";

// Code that is too wide scrolls by keyboard: the theme looks for such code when the window changes, and folds hide it.
addEventListener("toggle", () => dispatchEvent(new Event("resize")), { capture: true });
