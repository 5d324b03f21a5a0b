// The figures, each a function from configurations to what Plotly draws.

const numbersOf = (test) => DATA.numbers.filter(({ name }) => test(name)).map(({ name, short }) => ({ value: name, words: short }));
const CURVES = (() => {
  const names = new Set(ALL.flatMap((each) => each.runs.flatMap((run) => Object.keys(run.curves))));
  return [...names].sort((a, b) => b.startsWith("val/") - a.startsWith("val/")).map((name) => ({ value: name, words: name }));
})();
const AXES = [
  { value: "step", words: "steps" },
  { value: "images", words: "images" },
  { value: "seconds", words: "seconds of training" },
];

function secondsAt(run, step) {
  const clock = run.clock;
  if (clock.length < 2) return NaN;
  let place = clock.findIndex(([at]) => step <= at);
  if (place < 1) place = place === 0 ? 1 : clock.length - 1;
  const [[before, first], [after, last]] = [clock[place - 1], clock[place]];
  return first + ((last - first) * (step - before)) / (after - before);
}

function along(run, steps, axis) {
  if (axis === "seconds") return steps.map((step) => secondsAt(run, step));
  return axis === "images" ? steps.map((step) => step * run.batch) : steps;
}

function pointsTold(runs, name) {
  const curves = runs.map((run) => run.curves[name]);
  const drawn = curves.reduce((sum, curve) => sum + curve.steps.length, 0);
  const all = curves.reduce((sum, curve) => sum + curve.of, 0);
  const told = `${runs.length} runs, ${drawn.toLocaleString("en")} points`;
  return drawn === all ? `Every point is drawn: ${told}.` : `Thinned to evenly spaced points: ${told} of ${all.toLocaleString("en")}; metrics.csv has all.`;
}

// Of seconds, which differ from run to run, the mean's are the mean's too.
function middle(runs, name, axis) {
  const whole = together(runs.map((run) => ({ x: run.curves[name].steps, y: run.curves[name].values })));
  const places = runs.map((run) => along(run, whole.x, axis));
  return { ...whole, x: whole.x.map((_, place) => mean(places.map((each) => each[place]))) };
}

addFigure({
  id: "curves", title: "Learning curves",
  switches: [
    { key: "number", label: "Number", options: CURVES },
    { key: "axis", label: "by", options: AXES },
    { key: "scale", label: "scale", options: [{ value: "log", words: "log" }, { value: "linear", words: "linear" }] },
  ],
  make(rows, own) {
    const name = own("number"), axis = own("axis"), traces = [], runs = [];
    for (const row of rows) {
      const having = row.runs.filter((run) => run.curves[name]);
      if (!having.length) continue;
      runs.push(...having);
      const { colour, dash } = LOOK[row.id];
      if (having.length > 1) {
        for (const run of having) traces.push({ x: along(run, run.curves[name].steps, axis), y: run.curves[name].values, mode: "lines", line: { color: colour, width: 0.6, dash }, opacity: 0.45, hoverinfo: "skip", showlegend: false });
      }
      const { x, mean: y } = middle(having, name, axis);
      traces.push({ x, y, mode: "lines", name: plain(row.name), line: { color: colour, width: 2, dash }, hovertemplate: `%{y:.4g} at %{x:,.4g}<extra>${plain(row.name)}</extra>` });
    }
    if (!traces.length) return { empty: `No chosen run tells ${name || "a number"} while it trains.` };
    const words = AXES.find(({ value }) => value === axis).words;
    return {
      traces, told: `${pointsTold(runs, name)} Thick: the mean over seeds; thin: each seed.`,
      layout: { showlegend: legendOf(rows.length), xaxis: { title: { text: words } }, yaxis: { title: { text: plain(name) }, type: own("scale"), exponentformat: "power" } },
    };
  },
});

const PROFILES = [...new Set(ALL.flatMap((each) => each.runs.flatMap((run) => Object.keys(run.profiles))))].map((name) => ({ value: name, words: name }));

addFigure({
  id: "profile", title: "Yardsticks by log-SNR",
  switches: [{ key: "number", label: "Curve", options: PROFILES }],
  make(rows, own) {
    const name = own("number"), traces = [];
    let points = 0, least = Infinity;
    for (const row of rows) {
      const having = row.runs.map((run) => run.profiles[name]).filter(Boolean);
      if (!having.length) continue;
      const { x, mean: y, se } = together(having.map(({ log_snr, values }) => {
        const known = log_snr.map((_, place) => place).filter((place) => values[place] !== null);
        return { x: known.map((place) => log_snr[place]), y: known.map((place) => values[place]) };
      }));
      points += having.reduce((sum, { values }) => sum + values.filter((value) => value !== null).length, 0);
      least = Math.min(least, ...y);
      const { colour, dash } = LOOK[row.id];
      if (having.length > 1) traces.push(band(x, y.map((value, place) => value - se[place]), y.map((value, place) => value + se[place]), colour));
      traces.push({ x, y, mode: "lines", name: plain(row.name), line: { color: colour, width: 2, dash }, hovertemplate: `%{y:.4g} at λ = %{x}<extra>${plain(row.name)}</extra>` });
    }
    if (!traces.length) return { empty: "No chosen run has a curve over log-SNR." };
    return {
      traces, told: `Every point is drawn: ${points.toLocaleString("en")} values. Line: the mean over seeds; band: one standard error to either side.`,
      layout: { showlegend: legendOf(rows.length), xaxis: { title: { text: "log-SNR λ  (noise ← → data)" } }, yaxis: { title: { text: plain(name) }, type: least > 0 ? "log" : "linear", exponentformat: "power" } },
    };
  },
});

addFigure({
  id: "cards", title: "Weight cards: what an objective looks at",
  make(rows) {
    const traces = rows.filter(({ card }) => card).map((row) => ({
      x: row.card.edges, y: [...row.card.density, row.card.density.at(-1)], mode: "lines", name: plain(row.name),
      line: { color: LOOK[row.id].colour, dash: LOOK[row.id].dash, width: 1.8, shape: "hv" }, hovertemplate: `%{y:.3g} at λ = %{x:.3g}<extra>${plain(row.name)}</extra>`,
    }));
    if (!traces.length) return { empty: "No chosen run has a weight card (card.csv)." };
    return {
      traces, told: `The weight on ‖ε − ε̂‖² by log-SNR, over its mean on [−4.8, 6.6]; cards that agree have the same expected gradient. ${traces.length} cards, at most 400 levels of each.`,
      layout: { showlegend: legendOf(rows.length), xaxis: { title: { text: "log-SNR λ  (noise ← → data)" }, range: [-21, 14] }, yaxis: { title: { text: "weight over its mean" }, type: "log", exponentformat: "power" } },
    };
  },
});

const COLUMNS = DATA.columns.map(({ name, short }) => ({ value: name, words: short }));
const EVERY = numbersOf((name) => name.startsWith("test/") || name.startsWith("val/") || name === "seconds" || name.includes(" to "));
const first = (options, ...names) => [...names.map((name) => options.find(({ value }) => value === name)).filter(Boolean), ...options];

function dots(rows, x, y) {
  return rows.map((row) => ({ row, x: meanOf(row, x), y: meanOf(row, y) })).filter((each) => each.x && each.y);
}

addFigure({
  id: "pareto", title: "Two numbers against each other",
  switches: [
    { key: "x", label: "Across", options: first(EVERY, "test/vlb_common", "test/vlb", "test/exact_nll", "test/simple") },
    { key: "y", label: "up", options: first(EVERY, "test/fid", "test/energy", "val/simple") },
  ],
  make(rows, own) {
    const x = own("x"), y = own("y"), points = dots(rows, x, y);
    if (!points.length) return { empty: "No chosen run has both numbers." };
    const signs = [better(x) || 1, better(y) || 1];
    const front = points.filter((a) => !points.some((b) => b !== a && signs[0] * b.x.mean <= signs[0] * a.x.mean && signs[1] * b.y.mean <= signs[1] * a.y.mean && (b.x.mean !== a.x.mean || b.y.mean !== a.y.mean)));
    front.sort((a, b) => a.x.mean - b.x.mean);
    const traces = [{ x: front.map((each) => each.x.mean), y: front.map((each) => each.y.mean), mode: "lines", line: { color: colour("--soft"), width: 1, dash: "dot" }, name: "not beaten in both", hoverinfo: "skip" }];
    for (const { row, x: across, y: up } of points) {
      traces.push({
        x: [across.mean], y: [up.mean], error_x: { array: [across.se || 0], thickness: 1 }, error_y: { array: [up.se || 0], thickness: 1 }, mode: "markers", name: plain(row.name),
        marker: { color: LOOK[row.id].colour, symbol: LOOK[row.id].symbol, size: 9 }, hovertemplate: `%{x:.4g}, %{y:.4g}<extra>${plain(row.name)}</extra>`,
      });
    }
    const title = (name) => ({ text: plain(`${NUMBER[name].short}${NUMBER[name].better ? " (" + NUMBER[name].better + ")" : ""}`) });
    return {
      traces, told: `Every point is drawn: ${points.length} means over seeds, bars of one standard error; the dotted line joins those that no other beats in both.`,
      layout: { showlegend: legendOf(points.length), xaxis: { title: title(x) }, yaxis: { title: title(y) } },
    };
  },
});

addFigure({
  id: "evaluations", title: "Fréchet distance by evaluations of the network",
  make(rows) {
    const traces = [];
    let points = 0;
    for (const row of rows) {
      const found = new Map();
      for (const run of row.runs) for (const { evaluations, fid } of run.evaluations) found.set(evaluations, [...(found.get(evaluations) || []), fid]);
      if (!found.size) continue;
      const x = [...found.keys()].sort((a, b) => a - b);
      points += x.length;
      traces.push({
        x, y: x.map((at) => mean(found.get(at))), error_y: { array: x.map((at) => standardError(found.get(at)) || 0), thickness: 1 }, mode: "lines+markers", name: plain(row.name),
        line: { color: LOOK[row.id].colour, dash: LOOK[row.id].dash, width: 1.2 }, marker: { symbol: LOOK[row.id].symbol, size: 8 }, hovertemplate: `%{y:.4g} with %{x:,} evaluations<extra>${plain(row.name)}</extra>`,
      });
    }
    if (!traces.length) return { empty: "No chosen run has a Fréchet distance." };
    return {
      traces, told: `Every point is drawn: ${points} means over seeds, bars of one standard error; runs at one place across are an equal number of evaluations. eval.py run=DIR sampler.steps=N and metrics=[budget] add points.`,
      layout: { showlegend: legendOf(traces.length), xaxis: { title: { text: "network evaluations for a sample" }, type: "log", dtick: 1 }, yaxis: { title: { text: "Fréchet distance (less is better)" } } },
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

// What each configuration has at an equal cost: of training by the clock, by images or steps; of sampling by evaluations.
function atEqualCost(rows, axis, share, name) {
  if (axis === ASKED.value) {
    const having = rows.filter((row) => row.runs.some((run) => run.evaluations.length));
    const costs = having.map((row) => new Set(row.runs.flatMap((run) => run.evaluations.map(({ evaluations }) => evaluations))));
    const common = [...(costs[0] || [])].filter((cost) => costs.every((each) => each.has(cost))).sort((x, y) => x - y);
    const cost = common[Math.min(common.length - 1, Math.floor(share * common.length))];
    const values = (row) => row.runs.flatMap((run) => run.evaluations.filter(({ evaluations }) => evaluations === cost).map(({ fid }) => fid));
    return { cost, of: "test/fid", found: cost === undefined ? [] : having.map((row) => ({ row, values: values(row) })) };
  }
  const having = rows.map((row) => ({ row, runs: row.runs.filter((run) => run.curves[name]) })).filter(({ runs }) => runs.length);
  const ends = having.flatMap(({ runs }) => runs.map((run) => along(run, run.curves[name].steps, axis).at(-1))).filter(Number.isFinite);
  const cost = share * Math.min(...ends);
  const values = (runs) => runs.map((run) => atCost(run, name, axis, cost)).filter((value) => value !== null);
  return { cost, of: name, found: ends.length ? having.map(({ row, runs }) => ({ row, values: values(runs) })) : [] };
}

addFigure({
  id: "equal", title: "At equal cost",
  switches: [
    { key: "axis", label: "Equal", options: [AXES[2], AXES[1], AXES[0], ASKED] },
    { key: "share", label: "as far as", range: true },
    { key: "number", label: "number", options: CURVES },
  ],
  make(rows, own) {
    const axis = own("axis");
    const { cost, of, found: all } = atEqualCost(rows, axis, own("share"), own("number"));
    const found = all.filter(({ values }) => values.length);
    if (!found.length) {
      return { empty: axis === ASKED.value ? "The chosen runs have no Fréchet distance at an equal number of evaluations." : `No chosen run tells ${own("number") || "a number"} while it trains.` };
    }
    const sign = better(of) || 1;
    found.sort((a, b) => sign * (mean(b.values) - mean(a.values)));
    const words = [...AXES, ASKED].find(({ value }) => value === axis).words;
    const told = axis === ASKED.value
      ? `With ${cost.toLocaleString("en")} ${words}, which all chosen runs have; the Fréchet distance, its mean over seeds and one standard error.`
      : `After ${Number(cost.toPrecision(3)).toLocaleString("en")} ${words}; at the slider's end as many as all chosen runs have. The last value told until then, its mean over seeds and one standard error.`;
    return {
      traces: [{
        x: found.map(({ values }) => mean(values)), y: found.map(({ row }) => plain(row.name)), error_x: { array: found.map(({ values }) => standardError(values) || 0), thickness: 1 }, mode: "markers", type: "scatter",
        marker: { color: found.map(({ row }) => LOOK[row.id].colour), symbol: found.map(({ row }) => LOOK[row.id].symbol), size: 9 }, hovertemplate: "%{x:.4g}<extra>%{y}</extra>",
      }],
      told: `${told} ${found.length} configurations, every one drawn.`,
      layout: { showlegend: false, height: Math.max(330, 60 + 17 * found.length), xaxis: { title: { text: plain(of) } }, yaxis: { tickfont: { size: 10 } } },
    };
  },
});

addFigure({
  id: "objectives", title: "Objective × objective",
  make(rows) {
    const names = [...new Set(rows.flatMap((row) => Object.keys(row.objectives)))];
    const having = rows.filter((row) => Object.keys(row.objectives).length);
    if (!names.length) return { empty: "No chosen run was measured by all objectives: metrics=[…,objectives] does." };
    const values = having.map((row) => names.map((name) => (row.objectives[name] ? mean(row.objectives[name]) : null)));
    const columns = names.map((_, place) => values.map((line) => line[place]).filter((value) => value !== null));
    const [leasts, mosts] = [Math.min, Math.max].map((end) => columns.map((column) => end(...column)));
    const colours = values.map((line) => line.map((value, place) => (value === null ? null : (value - leasts[place]) / (mosts[place] - leasts[place] || 1))));
    const text = values.map((line) => line.map((value) => shown(value)));
    return {
      traces: [{
        type: "heatmap", x: names, y: having.map((row) => plain(row.name)), z: colours, text, customdata: values, texttemplate: having.length <= 30 ? "%{text}" : "", xgap: 1, ygap: 1, zmin: 0, zmax: 1,
        colorscale: [[0, "#2a9d3f"], [0.4, "#d8d48a"], [1, "#c92a2a"]], colorbar: { tickvals: [0, 1], ticktext: ["least", "most"], thickness: 10 }, hovertemplate: "%{y} under %{x}: %{text}<extra></extra>",
      }],
      told: `Rows: what was trained; columns: what it is measured by, as a mean noise error under that objective's weights, which are those of the run's own schedule: rows of one schedule compare. Those below 0 lack a constant of the data. Colour: from a column's least to its most. Every cell is drawn, ${having.length} × ${names.length}, means over seeds.`,
      layout: { showlegend: false, height: Math.max(330, 90 + 18 * having.length), yaxis: { autorange: "reversed", tickfont: { size: 10 } }, xaxis: { side: "top" }, margin: { l: 60, r: 14, t: 40, b: 12 } },
    };
  },
});
