// A reference shows what it refers to when the mouse rests on it or the keyboard reaches it: a citation, an
// equation, a figure, a proposition, a term. Escape or leaving it closes the preview.
"use strict";

const REFERENCES = "main a.footnote-reference, main a.reference.internal[href*='#']";
const SHOWN = "aside.footnote, div.math, figure, table, .proof, .exercise, dt";
const DELAY = 250; // milliseconds until it opens and closes

const preview = document.createElement("div");
preview.className = "preview";
preview.hidden = true;
preview.setAttribute("aria-hidden", "true"); // a screen reader follows the link instead
let timer = 0;

const pages = new Map(); // other pages of the book that were looked at

function pageOf(url) {
  const here = url.pathname === location.pathname;
  if (here) return Promise.resolve(document);
  if (!pages.has(url.pathname)) {
    const read = async () => {
      const response = await fetch(url.pathname);
      return new DOMParser().parseFromString(await response.text(), "text/html");
    };
    pages.set(url.pathname, read());
  }
  return pages.get(url.pathname);
}

// What the address names, if it is something small enough to show.
async function partOf(url) {
  const page = await pageOf(url);
  const target = page.getElementById(decodeURIComponent(url.hash.slice(1)));
  const part = target?.closest(SHOWN);
  if (!part) return null;
  const copy = document.createElement("div");
  copy.append(document.importNode(part, true));
  if (part.matches("dt") && part.nextElementSibling?.matches("dd")) {
    copy.append(document.importNode(part.nextElementSibling, true));
  }
  copy.querySelectorAll("[id]").forEach((element) => element.removeAttribute("id"));
  copy.querySelectorAll(".headerlink, .toggle-button, .copybtn").forEach((element) => element.remove());
  copy.querySelectorAll("[tabindex]").forEach((element) => element.removeAttribute("tabindex"));
  for (const image of copy.querySelectorAll("img")) image.src = new URL(image.getAttribute("src"), url).href;
  if (page !== document && window.typesetMathematics) typesetMathematics(copy);
  copy.querySelectorAll("a").forEach((link) => link.replaceWith(...link.childNodes));
  return copy;
}

function place(link) {
  const box = link.getClientRects()[0];
  const { offsetWidth, offsetHeight } = preview;
  const below = box.bottom + offsetHeight + 8 < innerHeight || box.top < offsetHeight + 8;
  preview.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - offsetWidth - 8))}px`;
  preview.style.top = `${below ? box.bottom + 4 : box.top - offsetHeight - 4}px`;
}

async function open(link) {
  const part = await partOf(new URL(link.href)).catch(() => null);
  await Promise.allSettled([...(part?.querySelectorAll("img") ?? [])].map((image) => image.decode()));
  if (!part || !(link.matches(":hover") || document.activeElement === link)) return;
  preview.replaceChildren(part);
  preview.hidden = false;
  place(link);
}

function close() {
  clearTimeout(timer);
  preview.hidden = true;
}

function soon(action) {
  clearTimeout(timer);
  timer = setTimeout(action, DELAY);
}

function watch(link) {
  link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && soon(() => open(link)));
  link.addEventListener("pointerleave", () => soon(close));
  link.addEventListener("focus", () => link.matches(":focus-visible") && soon(() => open(link)));
  link.addEventListener("blur", close);
}

document.addEventListener("DOMContentLoaded", () => {
  document.body.append(preview);
  document.querySelectorAll(REFERENCES).forEach(watch);
  preview.addEventListener("pointerenter", () => clearTimeout(timer));
  preview.addEventListener("pointerleave", () => soon(close));
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  document.addEventListener("scroll", () => (preview.hidden = true), { passive: true });
});
