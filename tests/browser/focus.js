// Elements that look the same with and without the keyboard's focus. Press a key before: only then browsers
// show the focus that a script sets.
() => {
  const LOOK = ["outlineStyle", "outlineWidth", "outlineColor", "boxShadow", "backgroundColor", "borderColor", "color", "textDecorationLine", "textDecorationThickness"];
  const look = (element) => {
    const style = getComputedStyle(element);
    return JSON.stringify(LOOK.map((name) => (name.startsWith("outline") && style.outlineStyle === "none" ? "" : style[name])));
  };
  const stops = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']");
  const silent = [];
  for (const stop of stops) {
    if (!stop.checkVisibility({ visibilityProperty: true }) || stop.disabled) continue;
    stop.blur();
    const before = look(stop);
    stop.focus({ preventScroll: true });
    if (document.activeElement === stop && look(stop) === before) silent.push(stop.outerHTML.slice(0, 120));
    stop.blur();
  }
  return silent;
}
