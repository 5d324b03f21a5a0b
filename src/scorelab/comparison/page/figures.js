// What all figures share: a heading, switches, the drawing when it comes into view, a line under it, a vector file.

const FIGURES = [];
const VISIBLE = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    const figure = FIGURES.find((each) => each.box === target);
    figure.near = isIntersecting;
    if (isIntersecting && figure.stale) draw(figure);
  }
}, { rootMargin: "300px" });

// make(traces of chosen()) -> { traces, layout, told } or { empty: why }
function addFigure({ id, title, switches = [], make }) {
  const plot = element("div", { className: "plot", id: "plot-" + id });
  const told = element("p", { className: "told", id: "told-" + id });
  const controls = switches.map((each) => control(id, each));
  const save = element("button", { type: "button", textContent: "SVG", aria: { label: `${title} as SVG` } });
  save.onclick = () => Plotly.downloadImage(plot, { format: "svg", filename: "compare-" + id, width: 900, height: 520 });
  const box = element("section", { className: "figure", aria: { label: title } }, element("h2", { textContent: title }), element("div", { className: "controls" }, ...controls, save), plot, told);
  const figure = { id, box, plot, told, make, save, switches, stale: true, near: false };
  document.getElementById("figures").append(box);
  FIGURES.push(figure);
  VISIBLE.observe(box);
}

function control(id, { key, label, options, range }) {
  const whole = `${id}.${key}`;
  if (range) {
    choice(whole, 1);
    const input = element("input", { type: "range", min: 0.02, max: 1, step: 0.02, data: { state: whole } });
    input.oninput = () => set({ [whole]: Number(input.value) });
    return element("label", {}, label + " ", input);
  }
  choice(whole, options.length ? options[0].value : "");
  const select = element("select", { data: { state: whole } }, ...options.map(({ value, words }) => element("option", { value, textContent: words })));
  select.onchange = () => set({ [whole]: select.value });
  return element("label", {}, label + " ", select);
}

function settleControls() {
  for (const input of document.querySelectorAll("[data-state]")) {
    const value = state[input.dataset.state];
    if (input.tagName === "SELECT" && ![...input.options].some((each) => each.value === value)) continue;
    input.value = value;
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
    margin: { l: 60, r: 14, t: 12, b: 46 }, hovermode: "closest", showlegend: true,
    legend: { orientation: "h", y: innerWidth < 600 ? -0.4 : -0.22, font: { size: 11 }, itemclick: false, itemdoubleclick: false },
    ...rest, xaxis: axis(xaxis), yaxis: axis(yaxis),
  };
}

function draw(figure) {
  figure.stale = false;
  const own = (key) => state[`${figure.id}.${key}`];
  const { traces, layout, told, empty } = figure.make(chosen(), own);
  figure.box.classList.toggle("empty", Boolean(empty));
  figure.plot.hidden = Boolean(empty);
  figure.save.hidden = Boolean(empty);
  figure.told.textContent = empty || told;
  if (empty) return;
  const config = { displaylogo: false, responsive: true, toImageButtonOptions: { format: "svg", filename: "compare-" + figure.id }, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  Plotly.react(figure.plot, traces, layoutOf(layout), config);
}

function redraw() {
  for (const figure of FIGURES) {
    figure.stale = true;
    if (figure.near) draw(figure);
  }
}

// Legends of sixty lines hide the figure: from thirteen on only hovering and the table's colours tell.
function legendOf(count) {
  return count <= 12;
}

function band(x, low, high, tint) {
  return {
    x: [...x, ...[...x].reverse()], y: [...high, ...[...low].reverse()], fill: "toself", fillcolor: tint + "2e",
    line: { width: 0 }, mode: "lines", hoverinfo: "skip", showlegend: false,
  };
}

// Curves of several runs at the points that all of them have, their mean and its standard error.
function together(curves) {
  const [first, ...others] = curves.map(({ x, y }) => new Map(x.map((value, place) => [value, y[place]])));
  const x = [...first.keys()].filter((value) => others.every((each) => each.has(value)));
  const each = x.map((value) => [first, ...others].map((curve) => curve.get(value)));
  return { x, mean: each.map(mean), se: each.map(standardError) };
}
