// Typesets every formula of a page with KaTeX. A formula that KaTeX cannot read stays as it is written, in
// red and with the reason as its title.
"use strict";

const ENVIRONMENTS = ["align", "align*", "alignat", "equation", "equation*", "gather", "gather*"];
const OPTIONS = {
  delimiters: [
    { left: "\\[", right: "\\]", display: true },
    { left: "\\(", right: "\\)", display: false },
    ...ENVIRONMENTS.map((name) => ({
      left: `\\begin{${name}}`,
      right: `\\end{${name}}`,
      display: true,
    })),
  ],
  throwOnError: false,
};

function typesetMathematics(root) {
  for (const element of root.querySelectorAll(".math")) {
    renderMathInElement(element, { ...OPTIONS, macros: { ...window.mathematicsMacros } });
  }
}

document.addEventListener("DOMContentLoaded", () => typesetMathematics(document));
