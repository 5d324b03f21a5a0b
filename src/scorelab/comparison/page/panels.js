// Figures of numbers at the end: two against each other, distances by cost, all at equal cost, objective by objective.

const numbersOf = (test) => DATA.numbers.filter(({ name }) => test(name)).map(({ name, short }) => ({ value: name, words: short }));
const EVERY = numbersOf((name) => name.startsWith("test/") || name.startsWith("val/") || name === "seconds" || name.includes(" to "));
const first = (options, ...names) => [...new Set([...names.map((name) => options.find(({ value }) => value === name)).filter(Boolean), ...options])];
const bars = (values, row) => ({ array: values.map((se) => se || 0), thickness: 1, color: LOOK[row.id].colour });

// Whether a number of a row may be set against others': all its seeds have it, and the table ranks it.
function isRanked(row, name, told) {
  return told.n === row.n && (row.cells[name] ? row.cells[name].ranked : true);
}

function dots(rows, x, y) {
  return rows
    .map((row) => ({ row, x: meanOf(row, x), y: meanOf(row, y) }))
    .filter((each) => each.x && each.y)
    .map((each) => ({ ...each, ranked: isRanked(each.row, x, each.x) && isRanked(each.row, y, each.y) }));
}

// Those that no other beats in both; of what is not ranked none counts, nor where neither direction is the better one.
function frontOf(points, x, y) {
  const signs = [better(x), better(y)];
  if (!signs[0] || !signs[1]) return [];
  const ranked = points.filter((each) => each.ranked);
  const beats = (a, b) => signs[0] * a.x.mean <= signs[0] * b.x.mean && signs[1] * a.y.mean <= signs[1] * b.y.mean && (a.x.mean !== b.x.mean || a.y.mean !== b.y.mean);
  return ranked.filter((each) => !ranked.some((other) => beats(other, each))).sort((a, b) => a.x.mean - b.x.mean);
}

addFigure({
  id: "pareto", title: "Two numbers against each other", key: "markers",
  switches: [
    { key: "x", label: "Across", options: first(EVERY, "test/vlb_common", "test/vlb", "test/exact_nll", "test/simple") },
    { key: "y", label: "up", options: first(EVERY, "test/fid", "test/energy", "val/simple") },
  ],
  make(rows, own) {
    const x = own("x"), y = own("y"), points = dots(rows, x, y);
    if (!points.length) return { empty: "No chosen run has both numbers." };
    const front = frontOf(points, x, y), open = points.filter(({ ranked }) => !ranked).length;
    const traces = [{ x: front.map((each) => each.x.mean), y: front.map((each) => each.y.mean), mode: "lines", line: { color: colour("--soft"), width: 1, dash: "dot" }, meta: "front", showlegend: false, hoverinfo: "skip" }];
    for (const { row, x: across, y: up, ranked } of points) {
      traces.push(trace(row, {
        x: [across.mean], y: [up.mean], error_x: bars([across.se], row), error_y: bars([up.se], row), mode: "markers",
        marker: { color: LOOK[row.id].colour, symbol: LOOK[row.id].symbol + (ranked ? "" : "-open"), size: 9 }, hover: "%{x:.4g}, %{y:.4g}",
      }));
    }
    const line = front.length ? "the dotted line joins those that no other beats in both" : "no line joins the best: of one number neither less nor more is better, or no point is ranked";
    const hollow = open ? ` ${open} hollow: not ranked, or of fewer seeds than the row has, and no part of the line.` : "";
    const counts = new Map(points.map(({ row, x, y }) => [row.id, Math.min(x.n, y.n)]));
    return {
      traces, told: `Every point is drawn: ${points.length} means over seeds, bars of one standard error; ${line}.${hollow}${lacking(rows, counts, "without one of the two")}`,
      layout: {
        xaxis: { title: titled(NUMBER.get(x).short, NUMBER.get(x).better), ...spread(points.map((each) => each.x.mean)) },
        yaxis: { title: titled(NUMBER.get(y).short, NUMBER.get(y).better), ...spread(points.map((each) => each.y.mean)) },
      },
    };
  },
});

// A row's Fréchet distances: a mean over seeds for each number of evaluations.
function distances(row) {
  const costs = [...new Set(row.runs.flatMap((run) => run.evaluations.map(({ evaluations }) => evaluations)))].sort((a, b) => a - b);
  return costs.map((cost) => ({ cost, ...distanceAt(row, cost) }));
}

function distanceAt(row, cost) {
  return overSeeds(row.runs, (run) => run.evaluations.find(({ evaluations }) => evaluations === cost)?.fid);
}

addFigure({
  id: "evaluations", title: "Fréchet distance by evaluations of the network", key: "lines+markers",
  make(rows) {
    const found = rows.map((row) => ({ row, points: distances(row) })).filter(({ points }) => points.length);
    if (!found.length) return { empty: "No chosen run has a Fréchet distance." };
    const traces = found.map(({ row, points }) => trace(row, {
      x: points.map(({ cost }) => cost), y: points.map(({ mean }) => mean), error_y: bars(points.map(({ se }) => se), row), mode: "lines+markers",
      line: { color: LOOK[row.id].colour, dash: LOOK[row.id].dash, width: 1.2 },
      marker: { symbol: points.map(({ n }) => LOOK[row.id].symbol + (n < row.n ? "-open" : "")), size: 8, color: LOOK[row.id].colour }, hover: "%{y:.4g} with %{x:,} evaluations",
    }));
    const all = found.reduce((sum, { points }) => sum + points.length, 0);
    const open = found.reduce((sum, { row, points }) => sum + points.filter(({ n }) => n < row.n).length, 0);
    return {
      traces, told: `Every point is drawn: ${all} means over seeds, bars of one standard error; the sampler is each run's own, at other steps.${open ? ` ${open} hollow: of fewer seeds than the row has.` : ""} eval.py run=DIR sampler.steps=N and metrics=[budget] add points.${lacking(rows, new Map(found.map(({ row }) => [row.id, row.n])), "without a distance")}`,
      layout: { xaxis: { title: { text: "network evaluations for a sample" }, type: "log", dtick: 1 }, yaxis: { title: { text: "Fréchet distance (less is better)" }, ...spread(found.flatMap(({ points }) => points.map(({ mean }) => mean))) } },
    };
  },
});

// The last value at or before a cost, by run.
function atCost(run, name, axis, cost) {
  const curve = run.curves[name];
  const where = along(run, curve.steps, axis);
  const place = where.findLastIndex((each) => each <= cost * (1 + 1e-9));
  return place < 0 ? null : curve.values[place];
}

const ASKED = { value: "evaluations", words: "network evaluations for a sample" };

// What each row has at an equal cost: of training by the clock, by images or steps; of sampling by evaluations.
function atEqualCost(rows, axis, share, name) {
  if (axis === ASKED.value) {
    const having = rows.map((row) => ({ row, costs: distances(row).map(({ cost }) => cost) })).filter(({ costs }) => costs.length);
    const common = (having[0]?.costs || []).filter((cost) => having.every(({ costs }) => costs.includes(cost)));
    const cost = common[Math.min(common.length - 1, Math.floor(share * common.length))];
    return { cost, of: "test/fid", found: cost === undefined ? [] : having.map(({ row }) => ({ row, at: distanceAt(row, cost) })) };
  }
  const having = rows.map((row) => ({ row, runs: withCurve(row, name, axis) })).filter(({ runs }) => runs.length);
  const runs = having.flatMap((each) => each.runs);
  const cost = share * Math.min(...runs.map((run) => along(run, run.curves[name].steps, axis).at(-1)));
  const found = having.map(({ row, runs }) => ({ row, at: overSeeds(runs, (run) => atCost(run, name, axis, cost)) }));
  return { cost, of: name, found: found.filter(({ at }) => at), thin: runs.some((run) => run.curves[name].of > run.curves[name].steps.length) };
}

addFigure({
  id: "equal", title: "At equal cost",
  switches: [
    { key: "axis", label: "Equal", options: [AXES[2], AXES[1], AXES[0], ASKED] },
    { key: "share", label: "as far as", range: true },
    { key: "number", label: "number", options: CURVES },
  ],
  make(rows, own) {
    const axis = own("axis"), asked = axis === ASKED.value;
    const { cost, of, found, thin } = atEqualCost(rows, axis, own("share"), own("number"));
    if (!found.length) return { empty: asked ? "The chosen runs have no Fréchet distance at an equal number of evaluations." : `No chosen run tells ${own("number") || "a number"} while it trains${axis === "seconds" ? ", by the clock" : ""}.` };
    const whole = ({ row, at }) => at.n === row.n;
    const sign = better(of) || 1;
    found.sort((a, b) => whole(a) - whole(b) || sign * (b.at.mean - a.at.mean)); // the best on top, what lacks seeds below all
    const words = [...AXES, ASKED].find(({ value }) => value === axis).words;
    const told = asked
      ? `With ${cost.toLocaleString("en")} ${words}, which all chosen runs have; the Fréchet distance, its mean over seeds and one standard error.`
      : `After ${Number(cost.toPrecision(3)).toLocaleString("en")} ${words}; at the slider's end as many as all chosen runs have. The last value told until then${thin ? ", of the points that a thinned curve keeps" : ""}, its mean over seeds and one standard error.`;
    const open = found.filter((each) => !whole(each)).length;
    const places = found.map((_, place) => place), names = found.map(({ row }) => row.name);
    return {
      traces: [{
        x: found.map(({ at }) => at.mean), y: places, text: names.map(plain), error_x: { array: found.map(({ at }) => at.se || 0), thickness: 1, color: colour("--soft") }, mode: "markers", type: "scatter", showlegend: false,
        marker: { color: found.map(({ row }) => LOOK[row.id].colour), symbol: found.map((each) => LOOK[each.row.id].symbol + (whole(each) ? "" : "-open")), size: 9 }, hovertemplate: "%{x:.4g}<extra>%{text}</extra>",
      }],
      told: `${told} ${found.length} rows are drawn.${open ? ` ${open} hollow: of fewer seeds than the row has, below the others.` : ""}${lacking(rows, new Map(found.map(({ row, at }) => [row.id, at.n])), asked ? "without a distance" : `${lackingCurve(own("number"), axis)} until then`)}`,
      height: Math.max(330, 90 + 17 * found.length),
      layout: { xaxis: { title: titled(of, NUMBER.get(of)?.better) }, yaxis: { tickfont: { size: 10 }, tickvals: places, ticktext: found.map(({ row }) => labelled(row)), range: [-0.7, found.length - 0.3] } },
    };
  },
});

addFigure({
  id: "objectives", title: "Objective × objective",
  make(rows) {
    const names = numbersOf((name) => name.startsWith("test/objective_")).map(({ value }) => value).filter((name) => rows.some((row) => meanOf(row, name)));
    const having = rows.filter((row) => names.some((name) => meanOf(row, name)));
    if (!names.length) return { empty: "No chosen run was measured by all objectives: metrics=[…,objectives] does." };
    const cells = having.map((row) => names.map((name) => meanOf(row, name)));
    const values = cells.map((line) => line.map((cell) => (cell ? cell.mean : null)));
    const columns = names.map((_, place) => values.map((line) => line[place]).filter((value) => value !== null));
    const [leasts, mosts] = [Math.min, Math.max].map((end) => columns.map((column) => end(...column)));
    const colours = values.map((line) => line.map((value, place) => (value === null ? null : (value - leasts[place]) / (mosts[place] - leasts[place] || 1))));
    const drawn = columns.reduce((sum, column) => sum + column.length, 0), all = having.length * names.length;
    const counts = new Map(having.map((row, place) => [row.id, Math.min(...cells[place].filter(Boolean).map(({ n }) => n))]));
    const across = names.map((_, place) => place), up = having.map((_, place) => place), objectives = names.map((name) => name.slice("test/objective_".length));
    return {
      traces: [{
        type: "heatmap", x: across, y: up, z: colours, text: values.map((line) => line.map(shown)), customdata: having.map(({ name }, place) => objectives.map((objective, at) => [plain(name), plain(objective), values[place][at]])),
        texttemplate: having.length <= 30 && innerWidth >= 600 ? "%{text}" : "", xgap: 1, ygap: 1, zmin: 0, zmax: 1,
        colorscale: [[0, "#2a9d3f"], [0.4, "#d8d48a"], [1, "#c92a2a"]], colorbar: { tickvals: [0, 1], ticktext: ["least", "most"], thickness: 10 }, hovertemplate: "%{customdata[0]} under %{customdata[1]}: %{text}<extra></extra>",
      }],
      told: `Rows: what was trained; columns: what it is measured by, as a mean noise error under that objective's weights, which are those of the run's own schedule: rows of one schedule compare. Those below 0 lack a constant of the data. Colour: from a column's least to its most. ${drawn === all ? "Every cell is drawn" : `${drawn} of ${all} cells are known and drawn`}, ${having.length} × ${names.length}, means over seeds.${lacking(rows, counts, "not measured by them")}`,
      height: Math.max(330, 110 + 18 * having.length), config: { displayModeBar: false }, // it would cover the columns' names
      layout: { yaxis: { autorange: "reversed", tickfont: { size: 10 }, tickvals: up, ticktext: having.map(labelled) }, xaxis: { side: "top", tickvals: across, ticktext: objectives.map((name) => clipped(name, 24)) }, margin: { l: 60, r: 14, t: 40, b: 12 } },
    };
  },
});
