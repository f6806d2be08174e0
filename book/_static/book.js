// Small things that every page of the book needs.
"use strict";

// A wide table, formula or cell scrolls in its own box. Only then the box is a stop of the Tab key and
// has a shadow at the side where more is.
const WIDE = ".pst-scrollable-table-container, .wide-box, div.math, div.highlight > pre";

function markWide(box) {
  const hidden = box.scrollWidth - box.clientWidth;
  if (hidden > 1) {
    box.dataset.wide = box.scrollLeft < hidden - 1 ? "more" : "end";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Scrolls sideways");
  } else if (box.dataset.wide) {
    delete box.dataset.wide;
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}

function watchWide() {
  const boxes = document.querySelectorAll(WIDE);
  const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => markWide(target)));
  for (const box of boxes) {
    observer.observe(box);
    box.addEventListener("scroll", () => markWide(box), { passive: true });
  }
  const all = () => boxes.forEach(markWide); // the size of a box says nothing of what is in it
  document.fonts.ready.then(all); // formulas have their widths only then
  document.fonts.addEventListener("loadingdone", all);
  window.addEventListener("load", all);
}

// Without contents to mark, Bootstrap follows every link of the page, and fails at an address with a dot.
if (!document.querySelector(".bd-toc-nav")) document.body.removeAttribute("data-bs-spy");

// The arrow that unfolds a part of the table of contents is named after the page beside it.
for (const arrow of document.querySelectorAll("summary:has(> .toctree-toggle)")) {
  const page = arrow.closest("li")?.querySelector("a")?.textContent.trim();
  arrow.setAttribute("aria-label", `Pages under ${page}`);
}

document.addEventListener("DOMContentLoaded", watchWide);
