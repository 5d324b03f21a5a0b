// The table: sorted by a click on a head, filtered by words, a tick for what the figures show.

function cellWords(cell) {
  if (!cell) return "–";
  return cell.ranked ? cell.words + (cell.wins ? " *" : "") : `(${cell.words})`;
}

function toBest(cell) {
  if (!cell) return "";
  if (cell.best) return cell.wins ? "best" : better(state.by) < 0 ? "most" : "least";
  return cell.to_best || "";
}

// null stands last whichever way is up: what has no number, and what may not be ranked by the one it has.
function sortValue(configuration) {
  const { sort } = state;
  if (sort.startsWith("key:")) {
    const word = configuration.choices[sort.slice(4)] ?? "";
    return word !== "" && Number.isFinite(Number(word)) ? Number(word) : word;
  }
  if (sort === "n") return configuration.n;
  if (sort === "improved") return configuration.improved;
  return configuration.cells[sort]?.ranked ? configuration.cells[sort].mean : null;
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

function head(section, key, words, hint, word = false) {
  const active = state.sort === key;
  const press = () => {
    set(active ? { up: !state.up } : { sort: key, up: true });
    say(`Sorted by ${words}, ${state.up ? "rising" : "falling"}.`);
  };
  const mark = active ? (state.up ? " ▲" : " ▼") : "";
  const button = element("button", { type: "button", textContent: words + mark, title: hint, onclick: press, data: { sort: key, place: `${section} ${key}` } });
  const sort = active ? (state.up ? "ascending" : "descending") : "none";
  return element("th", { scope: "col", className: word ? "word" : "", aria: { sort } }, button);
}

function tick(configuration) {
  const made = element("input", { type: "checkbox", disabled: !configuration.n, data: { tick: configuration.id }, aria: { label: `${configuration.name} in figures` } });
  made.onchange = () => set({ off: made.checked ? state.off.filter((id) => id !== configuration.id) : [...state.off, configuration.id] });
  return made;
}

// The ticks alone: the table stays as it is, and with it the focus and how far it was scrolled.
function settleTicks() {
  for (const each of document.querySelectorAll("[data-tick]")) each.checked = !each.disabled && !state.off.includes(Number(each.dataset.tick));
}

// A cell of words: long ones wrap.
function wordCell(tag, words, more = {}, look = "") {
  return element(tag, { className: `word${words.length > 40 ? " long" : ""}${look}`, textContent: words, ...more });
}

function line(configuration) {
  const have = configuration.n;
  const swatch = element("span", { className: "swatch", style: `background:${LOOK[configuration.id].colour}` });
  const words = DATA.keys.map((key) => {
    const edge = key === DATA.best_of && configuration.edge ? " | at the edge" : "";
    return wordCell("td", (configuration.choices[key] ?? "") + edge);
  });
  const beside = (words) => element("td", { textContent: words, className: "aside" });
  const numbers = DATA.columns.flatMap(({ name }) => {
    const cell = configuration.cells[name];
    const look = cell && cell.wins ? "wins" : cell && !cell.ranked ? "aside" : "";
    const made = [element("td", { className: look, textContent: cellWords(cell), data: { number: name } })];
    if (name === state.by) made.push(beside(toBest(cell)));
    if (name === DATA.by) made.push(beside(configuration.improved === null ? "" : configuration.improved.toFixed(2)));
    return made;
  });
  const missing = Object.entries(configuration.missing).map(([name, why]) => `${name}: ${why}`).join("\n");
  const count = element("td", { textContent: have + (configuration.limited ? " t" : "") + (missing ? " !" : ""), title: missing });
  return element(
    "tr", { className: have ? "" : "failed", data: { id: configuration.id } },
    element("td", { className: "word" }, tick(configuration), swatch), ...words, count, ...numbers,
  );
}

const IMPROVED = `how likely a run of the first row's kind is better by ${NUMBER.get(DATA.by).short} than one of this, across schedules and data`;

// Columns of numbers; right of the one that differences are by, and of the one that ranks, what follows from it.
function heads(section) {
  return DATA.columns.flatMap(({ name, short, meaning, better, good }) => {
    const made = [head(section, name, short, [meaning, better, good].filter(Boolean).join("; "))];
    if (name === state.by) made.push(element("th", { scope: "col", textContent: "to best", title: `difference in ${short}, over common seeds, 95 % interval` }));
    if (name === DATA.by) made.push(head(section, "improved", `improved by ${short}`, IMPROVED));
    return made;
  });
}

function drawTable() {
  const box = document.getElementById("sections");
  const scrolled = [...box.querySelectorAll(".scroll")].map(({ scrollLeft }) => scrollLeft);
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.place : undefined;
  const parts = DATA.sections.map((section, place) => {
    const rows = ordered(ALL.filter((each) => each.section === place && matches(each)));
    const top = element(
      "tr", {}, element("th", { scope: "col", className: "word", textContent: "figures" }),
      ...DATA.keys.map((key) => head(place, "key:" + key, key, "", true)), head(place, "n", "n", "seeds with figures"), ...heads(place),
    );
    const body = rows.length ? rows.map(line) : [element("tr", {}, element("td", { colSpan: 99, className: "word", textContent: "no row has all these words" }))];
    const made = element("table", {}, element("thead", {}, top), element("tbody", {}, ...body));
    const title = DATA.sections.length > 1 ? element("h3", { textContent: "data=" + section.data }) : null;
    const label = `Table${title ? " of data=" + section.data : ""}, scrolls sideways`;
    return element("div", {}, title, element("div", { className: "scroll", tabIndex: 0, role: "region", aria: { label } }, made), ...notes(section.missing, section.left_out));
  });
  box.replaceChildren(...parts, ...notes(DATA.unknown, []));
  box.querySelectorAll(".scroll").forEach((each, place) => { each.scrollLeft = scrolled[place] || 0; });
  if (focused !== undefined) box.querySelector(`[data-place="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  settleTicks();
}

// What the table does not show, and why: folded where it is long.
function notes(missing, others) {
  const lost = Object.entries(missing).map(([name, why]) => `without figures: ${name}: ${why}`);
  return [[lost, `${lost.length} runs without figures`], [others, `${others.length} notes on what is not ranked`]].flatMap(([lines, title]) => {
    const told = lines.map((words) => element("p", { className: "told", textContent: words }));
    return told.length > 5 ? [element("details", {}, element("summary", { textContent: title }), ...told)] : told;
  });
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
    ["!", "some of its runs have no figures: they are listed under the table"],
    ...(DATA.best_of ? [["?", `no val/simple to choose ${DATA.best_of} by`]] : []),
    ["improved", IMPROVED],
  ].flatMap(([sign, words]) => [element("dt", { textContent: sign }), element("dd", { textContent: words })]);
  const along = DATA.along.flatMap((words) => [element("dt", { textContent: "also" }), element("dd", { textContent: words })]);
  document.getElementById("meaning").open = innerWidth >= 600;
  document.getElementById("legend").replaceChildren(...told, ...marks, ...along);
}
