// What all figures share: a heading, switches, the drawing when it comes into view, a line under it, a vector file.

const FIGURES = [];
const VISIBLE = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    const figure = FIGURES.find((each) => each.box === target);
    figure.near = isIntersecting;
    if (isIntersecting && figure.stale) draw(figure);
  }
}, { rootMargin: "300px" });

// make(rows, own) -> { traces, layout, told, height, config } or { empty: why }; key: how its legend's entries are drawn
function addFigure({ id, title, switches = [], key = null, make }) {
  const plot = element("div", { className: "plot", id: "plot-" + id });
  const told = element("p", { className: "told", id: "told-" + id });
  const controls = switches.map((each) => control(id, each));
  const save = element("button", { type: "button", textContent: "SVG", aria: { label: `${title} as SVG` } });
  const box = element("section", { className: "figure", aria: { label: title } }, element("h2", { textContent: title }), element("div", { className: "controls" }, ...controls, save), plot, told);
  const figure = { id, box, plot, told, make, key, save, stale: true, near: false };
  save.onclick = () => {
    if (figure.stale) draw(figure);
    Plotly.downloadImage(plot, vectors(figure));
  };
  document.getElementById("figures").append(box);
  FIGURES.push(figure);
  VISIBLE.observe(box);
}

function vectors({ id, plot }) {
  return { format: "svg", filename: "compare-" + id, width: 900, height: Math.max(520, parseInt(plot.style.height) || 0) };
}

function control(id, { key, label, options, range }) {
  const whole = `${id}.${key}`;
  if (range) {
    choice(whole, 1, (value) => Number.isFinite(value) && value >= 0.02 && value <= 1);
    const input = element("input", { type: "range", min: 0.02, max: 1, step: 0.02, data: { state: whole } });
    input.oninput = () => set({ [whole]: Number(input.value) });
    return element("label", {}, label + " ", input, element("output"));
  }
  choice(whole, options.length ? options[0].value : "", (value) => options.some((each) => each.value === value));
  const select = element("select", { data: { state: whole } }, ...options.map(({ value, words }) => element("option", { value, textContent: words })));
  select.onchange = () => set({ [whole]: select.value });
  return element("label", {}, label + " ", select);
}

function settleControls() {
  for (const input of document.querySelectorAll("[data-state]")) {
    input.value = state[input.dataset.state];
    if (input.type !== "range") continue;
    const words = `${Math.round(100 * input.value)} %`;
    input.setAttribute("aria-valuetext", words);
    input.nextElementSibling.textContent = " " + words;
  }
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layoutOf(own) {
  const ink = colour("--ink"), line = colour("--line");
  const axis = (more = {}) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...more });
  const { xaxis, yaxis, ...rest } = own;
  return {
    paper_bgcolor: colour("--back"), plot_bgcolor: colour("--back"), font: { color: ink, size: 12 },
    margin: { l: 60, r: 14, t: 30, b: 46 }, hovermode: "closest", hoverlabel: { namelength: -1 }, showlegend: true,
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 11 }, itemclick: false, itemdoubleclick: false },
    ...rest, xaxis: axis(xaxis), yaxis: axis(yaxis),
  };
}

function draw(figure) {
  figure.stale = false;
  const rows = chosen();
  let made;
  try {
    made = figure.make(rows, (key) => state[`${figure.id}.${key}`]);
  } catch (error) {
    made = { empty: `This figure cannot be drawn: ${error.message}` };
  }
  const { traces, layout, told, height, empty, config } = made;
  figure.box.classList.toggle("empty", Boolean(empty));
  figure.plot.hidden = Boolean(empty);
  figure.save.hidden = Boolean(empty);
  figure.told.textContent = empty || told + (figure.key ? lookTold() : "");
  if (empty) return;
  const key = figure.key ? keyOf(rows, figure.key) : [];
  figure.plot.style.height = (height || 350 + keyHeight(key, figure.plot.clientWidth)) + "px"; // the element's, which a narrower window keeps
  const whole = { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", toImageButtonOptions: vectors(figure), modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendChartToCloud"], ...config };
  Plotly.react(figure.plot, [...traces, ...key], layoutOf({ showlegend: key.length > 0, ...layout }), whole);
}

// About what a legend takes below a figure: its entries stand in columns as wide as the longest.
function keyHeight(key, width) {
  const columns = Math.max(1, Math.floor((width - 80) / (55 + 6 * Math.max(0, ...key.map(({ name }) => name.length)))));
  return 19 * Math.ceil(key.length / columns);
}

function redraw() {
  for (const figure of FIGURES) {
    figure.stale = true;
    if (figure.near) draw(figure);
  }
}

// A row's trace: its name stands beside what is hovered over, never in the template itself.
function trace(row, more) {
  const { hover, ...rest } = more;
  return { name: plain(row.name), showlegend: false, ...(hover ? { hovertemplate: `${hover}<extra>%{fullData.name}</extra>` } : {}), ...rest };
}

function band(x, low, high, tint) {
  return {
    x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: "toself", fillcolor: tint + "2e",
    line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false,
  };
}

function titled(words, better) {
  return { text: plain(words + (better ? ` (${better})` : "")) };
}

// A logarithmic scale drops what is not above 0: then the scale is linear, and the line under the figure says why.
function scaleOf(wanted, lists) {
  const below = lists.reduce((sum, values) => sum + values.filter((value) => !(value > 0)).length, 0);
  if (wanted !== "log" || !below) return { type: wanted, told: "" };
  return { type: "linear", told: ` The scale is linear: ${below.toLocaleString("en")} values are 0 or below it.` };
}

// Values that are all above 0 and lie far apart stand on a logarithmic axis, or one of them hides how the others differ.
function spread(values) {
  const known = values.filter((value) => Number.isFinite(value));
  return Math.min(...known) > 0 && Math.max(...known) > 20 * Math.min(...known) ? { type: "log", dtick: "D2", exponentformat: "power" } : {};
}

// Which chosen rows a figure lacks, and which stand in it by fewer seeds than they have; counts: seeds drawn, by row.
function lacking(rows, counts, why) {
  const out = rows.filter(({ id }) => !counts.get(id)).map(({ name }) => name);
  const fewer = rows.filter(({ id, n }) => counts.get(id) < n).map(({ id, name, n }) => `${name} (${counts.get(id)} of ${n})`);
  return (out.length ? ` Left out, ${why}: ${some(out)}.` : "") + (fewer.length ? ` Of fewer seeds than the row has: ${some(fewer)}.` : "");
}
