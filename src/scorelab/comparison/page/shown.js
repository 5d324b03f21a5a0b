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
  const now = steps[place].toLocaleString("en");
  slider.setAttribute("aria-valuetext", `${now} steps`);
  document.getElementById("stepnow").textContent = now;
  const shownNow = rows.map((row) => ({ row, picture: row.pictures.findLast(({ step }) => step <= steps[place]) })).filter(({ picture }) => picture);
  box.replaceChildren(...shownNow.map(({ row, picture }) => {
    const swatch = element("span", { className: "swatch", style: `background:${LOOK[row.id].colour}` });
    return element("figure", {}, element("img", { src: picture.image, alt: `Samples of ${row.name} after ${picture.step} steps`, loading: "lazy" }), element("figcaption", {}, swatch, `${row.name}, seed ${row.pictured}, step ${picture.step.toLocaleString("en")}`));
  }));
  const seeds = new Set(shownNow.map(({ row }) => row.pictured));
  document.getElementById("gridstitle").textContent = seeds.size > 1 ? "Samples" : "Samples at the same noise";
  const same = seeds.size > 1
    ? `The rows have no seed in common: the noise that their grids start from is not the same (seeds ${[...seeds].join(", ")}).`
    : "One seed of each row, the same of all: the grids start from the same noise.";
  const without = chosen().length - shownNow.length;
  told.textContent = `${same} ${shownNow.length} grids.${without ? ` ${without} rows have none at this step.` : ""}${left}`;
}

function drawDifferences() {
  const rows = ticked(), keys = Object.keys(DATA.differences);
  const table = document.getElementById("differing");
  if (!rows.length || !keys.length) {
    table.replaceChildren();
    document.getElementById("differingtold").textContent = rows.length ? "No key differs." : "No row is chosen.";
    return;
  }
  const head = element("tr", {}, wordCell("th", "key", { scope: "col" }), ...rows.map((row) => wordCell("th", row.name, { scope: "col" })));
  const lines = keys.map((key) => {
    const values = rows.map(({ id }) => DATA.differences[key][id]);
    return element("tr", {}, wordCell("th", key, { scope: "row" }), ...values.map((value) => wordCell("td", value, {}, value === values[0] ? "" : " differs")));
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...lines));
  document.getElementById("differingtold").textContent = `Every key in which any configuration differs from another, seeds aside; marked where a value is not that of the first column.`;
}

function settleTheme() {
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  document.getElementById("theme").setAttribute("aria-pressed", String(dark));
}

listeners.push((keys) => {
  const any = (...names) => names.some((key) => keys.includes(key));
  if (any("sort", "up", "by", "filter")) drawTable();
  if (any("off")) settleTicks();
  if (any("filter", "off")) drawDifferences();
  if (any("filter", "off", "step", "data")) drawPictures();
  if (any("filter", "off", "data")) data.value = dataShown();
  if (any("theme")) settleTheme();
});

document.getElementById("title").textContent = DATA.title;
document.title = DATA.title + " · scorelab";
const filter = document.getElementById("filter");
filter.oninput = () => set({ filter: filter.value });
const by = document.getElementById("by");
by.append(...DATA.columns.map(({ name, short }) => element("option", { value: name, textContent: short })));
by.onchange = () => set({ by: by.value });
const data = document.getElementById("dataset");
data.append(...DATA.sections.map((section, place) => element("option", { value: place, textContent: section.data })));
data.onchange = () => set({ data: Number(data.value) });
data.parentElement.hidden = DATA.sections.length < 2;
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // the address carries the view, not a place in the page
  document.getElementById("table").focus();
};
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
  data.value = dataShown();
  settleTheme();
  drawTable();
  drawPictures();
  drawDifferences();
}

drawLegend();
drawPage();
performance.mark("table");
