// What is wrong with the page that is shown, by subject: each a list of texts, empty where all is well.
() => {
  const clip = (text) => text.trim().replace(/\s+/g, " ").slice(0, 120);
  const shown = (element) => element.checkVisibility({ visibilityProperty: true });
  const page = document.querySelector("main") ?? document.body;

  // TeX that a reader would see: outside code and outside what KaTeX keeps for screen readers.
  function rawTex() {
    const found = [];
    const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const { textContent, parentElement } = walker.currentNode;
      if (parentElement.closest("code, pre, script, style, .katex")) continue;
      if (/\\[([a-zA-Z]|\$\$|\$[^$\s][^$]*\$/.test(textContent)) found.push(clip(textContent));
    }
    return found;
  }

  const mathematics = () => [
    ...rawTex(),
    ...[...page.querySelectorAll(".katex-error")].map((e) => `${e.title}: ${clip(e.textContent)}`),
    ...[...page.querySelectorAll(".math")].filter((e) => !e.querySelector(".katex")).map((e) => clip(e.textContent)),
  ];

  const images = () =>
    [...document.images]
      .filter((image) => !image.naturalWidth || (page.contains(image) && !image.alt.trim()))
      .map((image) => image.currentSrc);

  // Icons are glyphs: without their font they would be as wide as nothing, or as an empty square.
  const icons = () =>
    [...document.querySelectorAll("i[class*='fa-'], span[class*='fa-']")]
      .filter((icon) => shown(icon) && getComputedStyle(icon, "::before").content === "none")
      .map((icon) => icon.className);

  const anchors = () => [...document.querySelectorAll("[id], a[name]")].map((e) => e.id || e.name);
  const links = () =>
    [...document.querySelectorAll("a[href]")].map((e) => e.href).filter((href) => href.startsWith("http"));

  return {
    mathematics: mathematics(),
    images: images(),
    icons: icons(),
    anchors: anchors(),
    links: [...new Set(links())],
  };
}
