// What is not a figure: the table's surroundings, sample grids, differences. All of it is there before Plotly is.

function drawPictures() {
  const rows = chosen().filter(({ pictures }) => pictures.length);
  const box = document.getElementById("pictures");
  const told = document.getElementById("picturestold");
  const slider = document.getElementById("step");
  const steps = [...new Set(rows.flatMap(({ pictures }) => pictures.map(({ step }) => step)))].sort((a, b) => a - b);
  const left = DATA.pictures_left_out ? ` Pictures of ${DATA.pictures_left_out} configurations further down the table are left out, for the page's size.` : "";
  slider.disabled = steps.length < 2;
  if (!steps.length) {
    box.replaceChildren();
    document.getElementById("stepnow").textContent = "";
    told.textContent = "No chosen run has sample grids." + left;
    return;
  }
  const place = state.step === null ? steps.length - 1 : Math.max(0, steps.findLastIndex((step) => step <= state.step));
  slider.max = steps.length - 1;
  slider.value = place;
  slider.oninput = () => set({ step: steps[Number(slider.value)] });
  document.getElementById("stepnow").textContent = steps[place].toLocaleString("en");
  const shownNow = rows.map((row) => ({ row, picture: row.pictures.findLast(({ step }) => step <= steps[place]) })).filter(({ picture }) => picture);
  box.replaceChildren(...shownNow.map(({ row, picture }) => {
    const swatch = element("span", { className: "swatch", style: `background:${LOOK[row.id].colour}` });
    return element("figure", {}, element("img", { src: picture.image, alt: `Samples of ${row.name} after ${picture.step} steps`, loading: "lazy" }), element("figcaption", {}, swatch, `${row.name}, seed ${row.pictured}, step ${picture.step.toLocaleString("en")}`));
  }));
  told.textContent = `One seed of each configuration, the lowest; grids of one seed start from the same noise. ${shownNow.length} grids.` + left;
}

function drawDifferences() {
  const rows = chosen(), keys = Object.keys(DATA.differences);
  const table = document.getElementById("differing");
  if (!rows.length || !keys.length) {
    table.replaceChildren();
    document.getElementById("differingtold").textContent = rows.length ? "No key differs." : "No row is chosen.";
    return;
  }
  const head = element("tr", {}, element("th", { scope: "col", className: "word", textContent: "key" }), ...rows.map((row) => element("th", { scope: "col", className: "word", textContent: row.name })));
  const lines = keys.map((key) => {
    const values = rows.map(({ id }) => DATA.differences[key][id]);
    return element("tr", {}, element("th", { scope: "row", className: "word", textContent: key }), ...values.map((value) => element("td", { className: value === values[0] ? "word" : "word differs", textContent: value })));
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
  document.getElementById("differingtold").textContent = `Every key in which any configuration differs from another, seeds aside; marked where a value is not that of the first column.`;
}

function settleTheme() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  button.setAttribute("aria-pressed", String(dark));
  button.textContent = dark ? "Light" : "Dark";
  return dark;
}

listeners.push((keys) => {
  if (["sort", "up", "by", "filter", "off"].some((key) => keys.includes(key))) drawTable();
  if (["filter", "off"].some((key) => keys.includes(key))) drawDifferences();
  if (["filter", "off", "step"].some((key) => keys.includes(key))) drawPictures();
  if (keys.includes("theme")) settleTheme();
});

document.getElementById("title").textContent = DATA.title;
document.title = DATA.title + " · scorelab";
const filter = document.getElementById("filter");
filter.oninput = () => set({ filter: filter.value });
const by = document.getElementById("by");
by.append(...DATA.columns.map(({ name, short }) => element("option", { value: name, textContent: short })));
by.onchange = () => set({ by: by.value });
document.getElementById("all").onclick = () => set({ off: [] });
document.getElementById("none").onclick = () => set({ off: ALL.map(({ id }) => id) });
document.getElementById("theme").onclick = () => set({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" });
document.getElementById("link").onclick = async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    say("The link is copied.");
  } catch {
    say("The link stands in the address line.");
  }
};

function drawPage() {
  readAddress();
  filter.value = state.filter;
  by.value = state.by;
  settleTheme();
  drawTable();
  drawPictures();
  drawDifferences();
}

drawLegend();
drawPage();
performance.mark("table");
