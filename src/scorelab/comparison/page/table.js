// The table: sorted by a click on a head, filtered by words, a tick for what the figures show.

const COLOURS = ["#1f77b4", "#e07b00", "#2a9d3f", "#c92a2a", "#8456b8", "#8c564b", "#d957a8", "#6b7280", "#a3a300", "#0fa3b1"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star"];

// The first key that is swept tells the colour, the second the dash and the symbol.
const LOOK = (() => {
  const values = (key) => [...new Set(ALL.map((each) => each.choices[key]))];
  const [first, second] = DATA.keys;
  const firsts = values(first), seconds = values(second);
  return ALL.map((each, place) => {
    const colour = first === undefined ? place : firsts.indexOf(each.choices[first]);
    const other = second === undefined ? 0 : seconds.indexOf(each.choices[second]);
    return { colour: COLOURS[colour % COLOURS.length], dash: DASHES[other % DASHES.length], symbol: SYMBOLS[other % SYMBOLS.length] };
  });
})();

function cellWords(cell, have) {
  if (!cell || cell.mean === null) return "–";
  let words = withError(cell.mean, cell.se);
  if (cell.n < have) words += ` (${cell.n} of ${have})`;
  return cell.ranked ? words + (cell.wins ? " *" : "") : `(${words})`;
}

function toBest(cell) {
  if (!cell) return "";
  if (cell.best) return cell.wins ? "best" : better(state.by) < 0 ? "most" : "least";
  if (!cell.to_best) return "";
  const [middle, low, high] = cell.to_best;
  const signed = (middle > 0 ? "+" : "") + Number(middle.toPrecision(3));
  return low === null ? signed : `${signed} [${Number(low.toPrecision(3))}, ${Number(high.toPrecision(3))}]`;
}

// null stands last whichever way is up.
function sortValue(configuration) {
  const { sort } = state;
  if (sort.startsWith("key:")) {
    const word = configuration.choices[sort.slice(4)] ?? "";
    return word !== "" && Number.isFinite(Number(word)) ? Number(word) : word;
  }
  if (sort === "n") return configuration.n;
  if (sort === "improved") return configuration.improved;
  return configuration.cells[sort] ? configuration.cells[sort].mean : null;
}

function ordered(rows) {
  if (!state.sort) return rows;
  const sign = state.up ? 1 : -1;
  return [...rows].sort((a, b) => {
    const [x, y] = [sortValue(a), sortValue(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}

function head(key, words, hint, word = false) {
  const active = state.sort === key;
  const press = () => {
    const at = `#sections button[data-sort="${CSS.escape(key)}"]`;
    set(active ? { up: !state.up } : { sort: key, up: true });
    document.querySelector(at).focus();
    say(`Sorted by ${words}, ${state.up ? "rising" : "falling"}.`);
  };
  const mark = active ? (state.up ? " ▲" : " ▼") : "";
  const button = element("button", { type: "button", textContent: words + mark, title: hint, onclick: press, data: { sort: key } });
  const sort = active ? (state.up ? "ascending" : "descending") : "none";
  return element("th", { scope: "col", className: word ? "word" : "", aria: { sort } }, button);
}

function line(configuration) {
  const have = configuration.n;
  const tick = element("input", { type: "checkbox", checked: !state.off.includes(configuration.id), disabled: !have, aria: { label: `${configuration.name} in figures` } });
  tick.onchange = () => set({ off: tick.checked ? state.off.filter((id) => id !== configuration.id) : [...state.off, configuration.id] });
  const swatch = element("span", { className: "swatch", style: `background:${LOOK[configuration.id].colour}` });
  const words = DATA.keys.map((key) => {
    const edge = key === DATA.best_of && configuration.edge ? " | at the edge" : "";
    return element("td", { className: "word", textContent: (configuration.choices[key] ?? "") + edge });
  });
  const improved = configuration.improved === null ? "" : configuration.improved.toFixed(2);
  const beside = [toBest(configuration.cells[state.by]), improved].map((words) => element("td", { textContent: words, className: "aside" }));
  const numbers = DATA.columns.flatMap(({ name }) => {
    const cell = configuration.cells[name];
    const look = cell && cell.wins ? "wins" : cell && !cell.ranked ? "aside" : "";
    const made = element("td", { className: look, textContent: cellWords(cell, have), data: { number: name } });
    return name === state.by ? [made, ...beside] : [made];
  });
  const missing = Object.entries(configuration.missing).map(([name, why]) => `${name}: ${why}`).join("\n");
  const count = element("td", { textContent: have + (configuration.limited ? " t" : "") + (missing ? " !" : ""), title: missing });
  return element(
    "tr", { className: have ? "" : "failed", data: { id: configuration.id } },
    element("td", { className: "word" }, tick, swatch), ...words, count, ...numbers,
  );
}

// Right of the column that ranks.
function besideHeads() {
  return [
    element("th", { scope: "col", textContent: "to best", title: `difference in ${state.by}, over common seeds, 95 % interval` }),
    head("improved", "improved", "how likely a run of the first row's kind is better than one of this, across schedules and data"),
  ];
}

function drawTable() {
  const parts = DATA.sections.map((section) => {
    const rows = ordered(ALL.filter((each) => each.data === section.data && matches(each)));
    const heads = element(
      "tr", {}, element("th", { scope: "col", className: "word", textContent: "figures" }),
      ...DATA.keys.map((key) => head("key:" + key, key, "", true)), head("n", "n", "seeds with figures"),
      ...DATA.columns.flatMap(({ name, short, meaning, better, good }) => {
        const made = head(name, short, [meaning, better, good].filter(Boolean).join("; "));
        return name === state.by ? [made, ...besideHeads()] : [made];
      }),
    );
    const body = rows.length ? rows.map(line) : [element("tr", {}, element("td", { colSpan: 99, className: "word", textContent: "no row has all these words" }))];
    const made = element("table", {}, element("thead", {}, heads), element("tbody", {}, ...body));
    const title = DATA.sections.length > 1 ? element("h3", { textContent: "data=" + section.data }) : null;
    const notes = section.left_out.map((told) => element("p", { className: "told", textContent: told }));
    const box = element("div", { className: "scroll", tabIndex: 0, role: "region", aria: { label: "Table, scrolls sideways" } }, made);
    return element("div", {}, title, box, ...notes);
  });
  document.getElementById("sections").replaceChildren(...parts);
}

function drawLegend() {
  const told = DATA.columns.flatMap(({ short, meaning, better, good, taken }) => [
    element("dt", { textContent: short }),
    element("dd", { textContent: [meaning, better, good, taken].filter(Boolean).join("; ") }),
  ]);
  const marks = [
    ["±", "one standard error over seeds; n is how many seeds have figures"],
    ["*", "the best, and better than every other: paired t-test over common seeds, 95 %, Holm; none is marked below three seeds"],
    ["( )", "not ranked: other circumstances than those of the others, or not all runs have it"],
    ["t", "limited in time, and so by the machine's speed"],
    ["improved", "how likely a run of the first row's kind is better than one of this, across schedules and data"],
  ].flatMap(([sign, words]) => [element("dt", { textContent: sign }), element("dd", { textContent: words })]);
  const along = DATA.along.flatMap((words) => [element("dt", { textContent: "also" }), element("dd", { textContent: words })]);
  document.getElementById("meaning").open = innerWidth >= 600;
  document.getElementById("legend").replaceChildren(...told, ...marks, ...along);
}
