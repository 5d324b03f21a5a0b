// Means over seeds. Runs that repeat one seed say nothing new about how seeds differ: their mean stands for that seed.

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function standardError(values) {
  if (values.length < 2) return null;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1) / values.length);
}

// What runs have, a list for each seed; nothing of those that have none.
function bySeed(runs, value) {
  const found = new Map();
  for (const run of runs) {
    const own = value(run);
    if (own === undefined || own === null) continue;
    if (!found.has(run.unit)) found.set(run.unit, []);
    found.get(run.unit).push(own);
  }
  return [...found.values()];
}

// A number's mean over seeds; null where no run has it.
function overSeeds(runs, value) {
  const values = bySeed(runs, value).map(mean);
  return values.length ? { mean: mean(values), se: standardError(values), n: values.length } : null;
}

function meanOf(row, name) {
  return overSeeds(row.runs, (run) => run.values[name]);
}

// Curves {x, y} together: where all of them have a point, or with some = true where any has.
function together(curves, some = false) {
  const found = curves.map(({ x, y }) => new Map(x.map((value, place) => [value, y[place]])));
  const places = [...new Set(found.flatMap((each) => [...each.keys()]))].sort((a, b) => a - b);
  const x = some ? places : places.filter((value) => found.every((each) => each.has(value)));
  const values = x.map((value) => found.filter((each) => each.has(value)).map((each) => each.get(value)));
  return { x, y: values.map(mean), se: values.map(standardError), n: values.map(({ length }) => length) };
}

function curveOverSeeds(runs, curve, some = false) {
  const seeds = bySeed(runs, curve).map((repeats) => (repeats.length > 1 ? together(repeats, some) : repeats[0]));
  return { ...together(seeds, some), seeds: seeds.length };
}
