// What is shown and how: one object, kept in the address so that a link carries it.

const DATA = bare(JSON.parse(document.getElementById("data").textContent));
const ALL = DATA.configurations;
const NUMBER = new Map([...DATA.curves, ...DATA.numbers].map((each) => [each.name, each]));
const START = { sort: "", up: true, filter: "", by: DATA.by, data: 0, off: [], step: null, theme: "" };
const state = { ...START };
const listeners = [];
const isColumn = (name) => DATA.columns.some((each) => each.name === name);
const ALLOWED = { // what a link may set; anything else in it is left aside
  sort: (value) => ["", "n", "improved", ...DATA.keys.map((key) => "key:" + key)].includes(value) || isColumn(value),
  up: (value) => typeof value === "boolean",
  filter: (value) => typeof value === "string",
  by: isColumn,
  data: (value) => Number.isInteger(value) && value >= 0 && value < DATA.sections.length,
  off: (value) => Array.isArray(value) && value.every(Number.isInteger),
  step: (value) => value === null || Number.isFinite(value),
  theme: (value) => ["", "light", "dark"].includes(value),
};

// Objects without a prototype: a key that is called "constructor" is a key like any other.
function bare(value) {
  if (Array.isArray(value)) {
    if (typeof value[0] === "object") value.forEach(bare);
  } else if (value && typeof value === "object") {
    Object.values(Object.setPrototypeOf(value, null)).forEach(bare);
  }
  return value;
}

// A figure adds what it can be switched to, and what it is at first.
function choice(key, first, allowed) {
  START[key] = first;
  state[key] = first;
  ALLOWED[key] = allowed;
}

function set(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", address());
  listeners.forEach((each) => each(Object.keys(changes)));
}

function address() {
  const told = Object.entries(state).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(START[key]));
  return told.length ? "#" + encodeURIComponent(JSON.stringify(Object.fromEntries(told))) : location.pathname + location.search;
}

function readAddress() {
  Object.assign(state, START);
  try {
    const found = JSON.parse(decodeURIComponent(location.hash.slice(1)) || "{}");
    for (const [key, value] of Object.entries(found)) {
      if (Object.hasOwn(START, key) && ALLOWED[key](value)) state[key] = value;
    }
  } catch {
    say("The link's view could not be read: the usual one is shown.");
  }
}

// Stands at the window's edge for a while: seen wherever the reader is, and read aloud.
function say(words) {
  const said = document.getElementById("said");
  said.textContent = words;
  clearTimeout(say.waits);
  say.waits = setTimeout(() => { said.textContent = ""; }, 5000);
}

function element(tag, properties = {}, ...children) {
  const { data, role, aria, ...plain } = properties;
  const made = Object.assign(document.createElement(tag), plain);
  for (const [key, value] of Object.entries(data || {})) made.dataset[key] = value;
  for (const [key, value] of Object.entries(aria || {})) made.setAttribute("aria-" + key, value);
  if (role) made.setAttribute("role", role);
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

// Plotly reads a little markup in texts and fills in %{x}: a run's words are words, by a joiner that has no width.
function plain(words) {
  return String(words).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll("%{", "%\u2060{");
}

// Words that fit beside an axis: the middle of long ones is left out.
function clipped(words, most = innerWidth < 600 ? 26 : 60) {
  const text = String(words).replaceAll("\n", " ");
  return plain(text.length <= most ? text : text.slice(0, most / 2 - 1) + "…" + text.slice(-most / 2 + 1));
}

// A row beside an axis: on a phone by its values alone.
function labelled(row) {
  return clipped(innerWidth < 600 && DATA.keys.length ? DATA.keys.map((key) => row.choices[key] ?? "").join(" ") : row.name);
}

function some(words) {
  return words.length <= 4 ? words.join(", ") : `${words.slice(0, 3).join(", ")} and ${words.length - 3} more`;
}

// The same digits as the printed table.
function shown(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 100 && Number.isInteger(value)) return String(value);
  return value === 0 || Math.abs(value) >= 0.1 ? value.toFixed(3) : String(Number(value.toPrecision(3)));
}

function matches(configuration) {
  const told = (configuration.name + " data=" + configuration.data).toLowerCase();
  return state.filter.toLowerCase().split(/\s+/).every((word) => told.includes(word));
}

// Rows that the filter leaves and that are not switched off.
function ticked() {
  return ALL.filter((each) => matches(each) && !state.off.includes(each.id) && each.runs.length);
}

// Which data set figures show: the one that is asked for, or the first that has a row left.
function dataShown() {
  const left = ticked().map(({ section }) => section);
  return left.includes(state.data) || !left.length ? state.data : Math.min(...left);
}

// Figures show one data set: the numbers of two are of two scales, and neither front nor colours span them.
function chosen() {
  const data = dataShown();
  return ticked().filter(({ section }) => section === data);
}

// -1 where more is better, 1 where less is, 0 where neither.
function better(name) {
  return { "more is better": -1, "less is better": 1 }[NUMBER.get(name)?.better] || 0;
}
