// Figures of curves: while a run trains, and over log-SNR.

const CURVES = DATA.curves.map(({ name }) => ({ value: name, words: name })).sort((a, b) => b.value.startsWith("val/") - a.value.startsWith("val/"));
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

// The runs that can be drawn: with the number, and with a clock where that is asked.
function withCurve(row, name, axis) {
  return row.runs.filter((run) => run.curves[name] && (axis !== "seconds" || run.clock.length > 1));
}

const lackingCurve = (name, axis) => `no ${name}` + (axis === "seconds" ? " or no clock (train/it_per_s)" : "");

function pointsTold(runs, name) {
  const curves = runs.map((run) => run.curves[name]);
  const drawn = curves.reduce((sum, curve) => sum + curve.steps.length, 0);
  const all = curves.reduce((sum, curve) => sum + curve.of, 0);
  const told = `${runs.length} runs, ${drawn.toLocaleString("en")} points`;
  return drawn === all ? `Every point is drawn: ${told}.` : `Thinned to evenly spaced points: ${told} of ${all.toLocaleString("en")}; metrics.csv has all.`;
}

// Where the mean stands along an axis other than steps, which differs from run to run: at the mean too.
function middle(runs, name, axis) {
  const whole = curveOverSeeds(runs, (run) => ({ x: run.curves[name].steps, y: run.curves[name].values }));
  const places = curveOverSeeds(runs, (run) => ({ x: run.curves[name].steps, y: along(run, run.curves[name].steps, axis) }));
  return { ...whole, x: places.y };
}

addFigure({
  id: "curves", title: "Learning curves", key: "lines",
  switches: [
    { key: "number", label: "Number", options: CURVES },
    { key: "axis", label: "by", options: AXES },
    { key: "scale", label: "scale", options: [{ value: "log", words: "log" }, { value: "linear", words: "linear" }] },
  ],
  make(rows, own) {
    const name = own("number"), axis = own("axis"), traces = [], runs = [], counts = new Map(), apart = [];
    for (const row of rows) {
      const having = withCurve(row, name, axis);
      if (!having.length) continue;
      runs.push(...having);
      const { colour, dash } = LOOK[row.id];
      if (having.length > 1) {
        for (const run of having) traces.push({ x: along(run, run.curves[name].steps, axis), y: run.curves[name].values, mode: "lines", line: { color: colour, width: 0.6, dash }, opacity: 0.45, hoverinfo: "skip", showlegend: false });
      }
      const { x, y, seeds } = middle(having, name, axis);
      counts.set(row.id, seeds);
      if (!x.length) apart.push(row.name);
      traces.push(trace(row, { x, y, mode: "lines", line: { color: colour, width: 2, dash }, hover: "%{y:.4g} at %{x:,.4g}" }));
    }
    if (!traces.length) return { empty: `No chosen run tells ${name || "a number"} while it trains${axis === "seconds" ? ", by the clock" : ""}.` };
    const scale = scaleOf(own("scale"), runs.map((run) => run.curves[name].values));
    const noMean = apart.length ? ` No mean, as its seeds share no step: ${some(apart)}.` : "";
    return {
      traces, told: `${pointsTold(runs, name)} Thick: the mean over seeds, as far as all of a row go; thin: each seed.${noMean}${scale.told}${lacking(rows, counts, lackingCurve(name, axis))}`,
      layout: { xaxis: { title: { text: AXES.find(({ value }) => value === axis).words } }, yaxis: { title: titled(name, NUMBER.get(name)?.better), type: scale.type, exponentformat: "power" } },
    };
  },
});

const PROFILES = DATA.profiles.filter(({ name }) => ALL.some((each) => each.runs.some((run) => run.profiles[name]))).map(({ name }) => ({ value: name, words: name }));

// A run's curve over log-SNR where it has a value.
function profile(run, name) {
  const found = run.profiles[name];
  if (!found) return null;
  const known = found.values.map((_, place) => place).filter((place) => Number.isFinite(found.values[place]));
  return known.length ? { x: known.map((place) => found.log_snr[place]), y: known.map((place) => found.values[place]) } : null;
}

addFigure({
  id: "profile", title: "Yardsticks by log-SNR", key: "lines",
  switches: [{ key: "number", label: "Curve", options: PROFILES }],
  make(rows, own) {
    const name = own("number"), found = [], counts = new Map();
    for (const row of rows) {
      const curve = curveOverSeeds(row.runs, (run) => profile(run, name), true);
      if (curve.x.length) found.push({ row, ...curve });
      if (curve.x.length) counts.set(row.id, curve.seeds);
    }
    if (!found.length) return { empty: "No chosen run has a curve over log-SNR." };
    const scale = scaleOf("log", found.map(({ y }) => y));
    let below = 0;
    const traces = found.flatMap(({ row, x, y, se, seeds }) => {
      const { colour, dash } = LOOK[row.id];
      const low = y.map((value, place) => {
        if (scale.type === "linear" || value > se[place]) return value - se[place];
        below += 1;
        return value / 10;
      });
      const line = trace(row, { x, y, mode: "lines", line: { color: colour, width: 2, dash }, hover: "%{y:.4g} at λ = %{x}" });
      return seeds > 1 ? [band(x, low, y.map((value, place) => value + se[place]), colour), line] : [line];
    });
    const points = found.reduce((sum, { n }) => sum + n.reduce((a, b) => a + b, 0), 0);
    const partly = found.reduce((sum, { n, seeds }) => sum + n.filter((each) => each < seeds).length, 0);
    const told = [
      `Every point is drawn: ${points.toLocaleString("en")} values. Line: the mean over seeds; band: one standard error to either side.`,
      partly ? ` At ${partly.toLocaleString("en")} points of the lines a seed has no value: there the mean is over the others.` : "",
      below ? ` At ${below.toLocaleString("en")} points the band reaches 0, which this scale cannot show: it is cut at a tenth of the line.` : "",
    ];
    return {
      traces, told: told.join("") + scale.told + lacking(rows, counts, "without such a curve"),
      layout: { xaxis: { title: { text: "log-SNR λ  (noise ← → data)" } }, yaxis: { title: titled(name, DATA.profiles.find((each) => each.name === name).better), type: scale.type, exponentformat: "power" } },
    };
  },
});

addFigure({
  id: "cards", title: "Weight cards: what an objective looks at", key: "lines",
  make(rows) {
    const having = rows.filter(({ card }) => card);
    const traces = having.map((row) => trace(row, {
      x: row.card.edges, y: [...row.card.density, row.card.density.at(-1)], mode: "lines",
      line: { color: LOOK[row.id].colour, dash: LOOK[row.id].dash, width: 1.8, shape: "hv" }, hover: "%{y:.3g} at λ = %{x:.3g}",
    }));
    if (!traces.length) return { empty: "No chosen run has a weight card (card.csv)." };
    const merged = having.filter(({ card }) => card.density.length < card.of);
    const levels = merged.length ? `of ${merged.length} of them neighbouring levels are merged, ${merged[0].card.of.toLocaleString("en")} to ${merged[0].card.density.length.toLocaleString("en")}, their weight kept` : "every level is drawn";
    const none = having.reduce((sum, { card }) => sum + card.density.filter((value) => !(value > 0)).length, 0);
    const gaps = none ? ` ${none.toLocaleString("en")} levels without weight are gaps.` : "";
    return {
      traces, told: `The weight on ‖ε − ε̂‖² by log-SNR, over its mean on [−4.8, 6.6]; cards that agree have the same expected gradient. ${traces.length} cards, each of a row's first seed; ${levels}. Levels that end nowhere are left out.${gaps}${lacking(rows, new Map(having.map(({ id, n }) => [id, n])), "without a card")}`,
      layout: { xaxis: { title: { text: "log-SNR λ  (noise ← → data)" } }, yaxis: { title: { text: "weight over its mean" }, type: "log", exponentformat: "power" } },
    };
  },
});
