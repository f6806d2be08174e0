// The search shows a few words around what it found, taken from the page's HTML: here formulas become
// readable text. A displayed or a long one becomes an ellipsis.
"use strict";

const LONGEST_FORMULA = 40; // characters of TeX

const formulaText = new Map(); // the same symbols come again and again

function asText(tex) {
  if (!formulaText.has(tex)) {
    const options = { output: "mathml", throwOnError: false, macros: { ...window.mathematicsMacros } };
    const box = document.createElement("span");
    box.innerHTML = katex.renderToString(tex, options);
    box.querySelectorAll("annotation").forEach((annotation) => annotation.remove());
    formulaText.set(tex, box.textContent.trim());
  }
  return formulaText.get(tex);
}

function readable(formula) {
  const text = formula.textContent.trim();
  const inline = text.startsWith("\\(") && text.length <= LONGEST_FORMULA;
  return inline ? asText(text.slice(2, -2)) : "…";
}

const htmlToText = Search.htmlToText;
Search.htmlToText = (html, anchor) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  for (const formula of page.querySelectorAll(".math")) formula.replaceWith(readable(formula));
  return htmlToText(page.documentElement.outerHTML, anchor);
};
