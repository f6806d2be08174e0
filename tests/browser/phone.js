// What does not fit a narrow window: elements that make the page scroll sideways or are cut off, and boxes
// that scroll without a sign, or do not show how they begin.
() => {
  const width = document.documentElement.clientWidth;
  const name = (e) => `${e.tagName.toLowerCase()}.${[...e.classList].join(".")}: ${e.textContent.trim().slice(0, 60)}`;
  const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  const wider = [];
  if (document.documentElement.scrollWidth > width) wider.push(`the page: ${document.documentElement.scrollWidth}`);
  for (const element of document.querySelectorAll("main table, main pre, main img, main .math, main p, main li, main svg")) {
    if (element.closest(".katex, .bd-sidebar-secondary") || !element.checkVisibility({ visibilityProperty: true })) continue;
    const box = element.getBoundingClientRect();
    if (box.right <= width + 1 && element.scrollWidth <= element.clientWidth + 1) continue;
    if (getComputedStyle(element).display === "inline") continue;
    let holder = element;
    while (holder && !scrolls(holder)) holder = holder.parentElement;
    if (!holder || holder.matches("html, body, main")) wider.push(name(element));
    else if (holder.scrollWidth > holder.clientWidth + 1 && !(holder.dataset.wide && holder.tabIndex === 0))
      wider.push(`no sign: ${name(holder)}`);
  }
  for (const formula of document.querySelectorAll("main div.math > span:not(.eqno)")) {
    const [start, holder] = [formula, formula.parentElement].map((e) => e.getBoundingClientRect().left);
    if (formula.checkVisibility() && start < holder - 1) wider.push(`begins out of sight: ${name(formula)}`);
  }
  return [...new Set(wider)];
}
