// How a row looks in every figure: the first key that is swept tells the colour, the second the dash and the mark.

const COLOURS = ["#1f77b4", "#d67500", "#2a9d3f", "#c92a2a", "#8456b8", "#8c564b", "#d957a8", "#6b7280", "#8a8500", "#0d96a3"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "x", "star"];
const OTHERS = DATA.keys.slice(2); // keys that neither tells

const TOLD = DATA.keys.slice(0, 2).map((key) => [...new Set(ALL.map((each) => each.choices[key]))]);
const LOOK = ALL.map((each) => {
  const [colour, other] = [0, 1].map((place) => (TOLD[place] ? TOLD[place].indexOf(each.choices[DATA.keys[place]]) : 0));
  return { colour: COLOURS[colour % COLOURS.length], dash: DASHES[other % DASHES.length], symbol: SYMBOLS[other % SYMBOLS.length] };
});

// The key to colours, dashes and marks as entries of the figure's own legend, and so in its SVG too.
function keyOf(rows, mode) {
  const entry = (name, look) => ({
    x: [null], y: [null], mode, name: clipped(name, 44), meta: "key", showlegend: true, hoverinfo: "skip",
    line: { color: look.colour, dash: look.dash, width: 2 }, marker: { color: look.colour, symbol: look.symbol, size: 8 },
  });
  if (!TOLD.length) return rows.slice(0, 1).map((row) => entry(row.name, LOOK[row.id]));
  const usual = { colour: colour("--soft"), dash: DASHES[0], symbol: SYMBOLS[0] };
  return TOLD.flatMap((values, place) => {
    const key = DATA.keys[place], most = place ? DASHES.length : COLOURS.length;
    const present = values.filter((value) => rows.some((row) => row.choices[key] === value));
    const entries = present.slice(0, most).map((value) => {
      const at = values.indexOf(value);
      const own = place ? { dash: DASHES[at % DASHES.length], symbol: SYMBOLS[at % SYMBOLS.length] } : { colour: COLOURS[at % COLOURS.length] };
      return entry(`${key}=${value ?? ""}`, { ...usual, ...own });
    });
    if (present.length > most) entries.push({ ...entry(`${present.length - most} more of ${key}, alike again`, usual), mode: "none" });
    return entries;
  });
}

function lookTold() {
  return OTHERS.length ? ` Rows that differ in ${some(OTHERS)} alone look alike here: hovering tells them apart.` : "";
}
