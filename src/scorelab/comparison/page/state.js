// What is shown and how: one object, kept in the address so that a link carries it.

const DATA = JSON.parse(document.getElementById("data").textContent);
const ALL = DATA.configurations;
const NUMBER = Object.fromEntries(DATA.numbers.map((each) => [each.name, each]));
const START = { sort: "", up: true, filter: "", by: DATA.by, off: [], step: null, theme: "" };
const state = { ...START };
const listeners = [];

// A figure adds what it can be switched to, and what it is at first.
function choice(key, first) {
  START[key] = first;
  state[key] = first;
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
      const kind = (each) => (Array.isArray(each) ? "list" : typeof each);
      if (key in START && (START[key] === null ? kind(value) === "number" : kind(value) === kind(START[key]))) state[key] = value;
    }
  } catch {
    say("The link's view could not be read: the usual one is shown.");
  }
}

function say(words) {
  document.getElementById("said").textContent = words;
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

// Plotly reads a little markup in texts: a run's words are words.
function plain(words) {
  return String(words).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

// The same digits as the printed table.
function shown(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Math.abs(value) >= 100 && Number.isInteger(value)) return String(value);
  return value === 0 || Math.abs(value) >= 0.1 ? value.toFixed(3) : String(Number(value.toPrecision(3)));
}

// A number and its standard error as one writes them: two digits of the error, the number to the same place.
function withError(value, se) {
  if (se === null || !(se > 0)) return shown(value) + (se === null ? "" : " ± " + shown(se));
  const places = Math.max(0, 1 - Math.floor(Math.log10(Number(se.toExponential(1)))));
  return `${value.toFixed(places)} ± ${se.toFixed(places)}`;
}

function matches(configuration) {
  const told = (configuration.name + " data=" + configuration.data).toLowerCase();
  return state.filter.toLowerCase().split(/\s+/).every((word) => told.includes(word));
}

// Figures show the rows that the filter leaves and that are not switched off.
function chosen() {
  return ALL.filter((each) => matches(each) && !state.off.includes(each.id) && each.runs.length);
}

function better(name) {
  return (NUMBER[name] || {}).better === "more is better" ? -1 : (NUMBER[name] || {}).better ? 1 : 0;
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function standardError(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1) / values.length);
}

function meanOf(configuration, name) {
  const units = new Map(); // runs that repeat a seed count as one
  for (const run of configuration.runs) {
    if (run.values[name] !== undefined) units.set(run.unit, [...(units.get(run.unit) || []), run.values[name]]);
  }
  const values = [...units.values()].map(mean);
  return values.length ? { mean: mean(values), se: standardError(values), n: values.length } : null;
}
