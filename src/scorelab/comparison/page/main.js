// What follows for the figures when something is switched.

listeners.push((keys) => {
  settleControls();
  const own = keys.filter((key) => key.includes("."));
  if (own.length === keys.length) {
    for (const figure of FIGURES.filter(({ id }) => own.some((key) => key.startsWith(id + ".")))) figure.near ? draw(figure) : (figure.stale = true);
    return;
  }
  if (["theme", "filter", "off", "data"].some((key) => keys.includes(key))) redraw();
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { settleTheme(); redraw(); });
window.addEventListener("hashchange", () => { drawPage(); settleControls(); redraw(); });
readAddress(); // now that the figures' switches are known
settleControls();
document.documentElement.dataset.ready = "true";
performance.mark("ready");
