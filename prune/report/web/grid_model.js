// What a cell says, and what it says against another one. Nothing here draws.
const KERNELS = D.kernels, MEASURES = D.measures;
const state = {base: 0, best: false, shown: KERNELS.map(() => true)};
const cell = (m, k) => D.cells[m][k];
const shown = () => KERNELS.map((_, k) => k).filter(k => state.shown[k]);
const measured = (m, k) => cell(m, k).value !== null;
const interval = c => c.low !== null;

// A sign for each verdict, so that colour is never alone.
const SIGNS = {better: "\u25cf", worse: "\u25c6", "maybe-better": "\u25cb", "maybe-worse": "\u25c7", unsure: "\u2248", same: "="};
const MEANING = {better: "better", worse: "worse", "maybe-better": "better, but without intervals", "maybe-worse": "worse, but without intervals", unsure: "no difference shown: intervals overlap", same: "the same"};

// Digits behind the point: as many for all values of a measure, so that they can be read down a column.
const DIGITS = MEASURES.map((measure, m) => {
  const values = D.cells[m].map(c => c.value).filter(v => v !== null).map(v => Math.abs(v) * measure.scale), most = Math.max(0, ...values);
  if (measure.ratio) return D.cells[m].every(c => c.value === null || (c.value > 0.9 && c.value < 1.1)) ? 3 : 2;
  if (values.every(Number.isInteger) || measure.unit === "%") return 0;
  return most >= 1000 ? 0 : most >= 10 ? 1 : most >= 1 ? 2 : 3;
});

const write = (m, value) => (value * MEASURES[m].scale).toLocaleString("en-US", {minimumFractionDigits: DIGITS[m], maximumFractionDigits: DIGITS[m]}).replace("-", "\u2212");
// The sign of a ratio and the letters of bytes are part of the number; other units stand apart.
const withUnit = (m, value) => write(m, value) + (MEASURES[m].unit ? (MEASURES[m].ratio ? "" : "\u00a0") + MEASURES[m].unit : "");
const range = (m, c) => write(m, c.low) + "\u2013" + write(m, c.high);

function better(m, value, than) {
  return MEASURES[m].better === "more" ? value > than : value < than;
}

// [verdict, why it is that]. A ratio is held against 1, all else against the chosen base.
function verdict(m, k) {
  const measure = MEASURES[m], c = cell(m, k);
  if (c.value === null || !measure.better) return ["", ""];
  if (!measure.ratio && k === state.base) return ["base", "it is what the others are compared with"];
  const other = measure.ratio ? {value: 1, low: 1, high: 1} : cell(m, state.base);
  if (other.value === null) return ["", KERNELS[state.base].name + " was not measured"];
  if (c.value === other.value && !interval(c)) return ["same", "the values are equal"];
  if (measure.counted && !measure.ratio && /^0\.0%$/.test(change(m, k))) return ["same", "they differ by less than 0.05%"];
  const side = better(m, c.value, other.value) ? "better" : "worse";
  if (!measure.counted && !(interval(c) && interval(other))) return ["maybe-" + side, "no interval says how far the values can be trusted"];
  const [low, high] = interval(c) ? [c.low, c.high] : [c.value, c.value], [from, to] = interval(other) ? [other.low, other.high] : [other.value, other.value];
  if (low <= to && from <= high) return c.value === other.value ? ["same", "the values are equal"] : ["unsure", measure.ratio ? "1 is inside the interval" : "the intervals overlap"];
  return [side, measure.ratio ? "1 is outside the interval" : interval(c) || interval(other) ? "the intervals do not overlap" : "both were counted"];
}

// Change against the base in words; nothing where there is none.
function change(m, k) {
  const c = cell(m, k), other = cell(m, state.base);
  if (MEASURES[m].ratio || c.value === null || other.value === null || k === state.base) return "";
  if (!other.value) return c.value === other.value ? "0.0%" : "";
  const far = c.value / other.value;
  return far >= 10 ? "\u00d7" + number(far) : percent(c.value, other.value).replace("+0.0%", "0.0%").replace("\u22120.0%", "0.0%");
}

// Kernels in the order that was asked for; what was not measured comes last, never first.
function ordered(m) {
  const order = shown();
  if (!state.best || !MEASURES[m].better) return order;
  const sign = MEASURES[m].better === "more" ? -1 : 1, key = k => measured(m, k) ? sign * cell(m, k).value : Infinity;
  return order.sort((a, b) => key(a) === key(b) ? a - b : key(a) < key(b) ? -1 : 1);
}

const missing = (m, k) => "not measured" + (cell(m, k).why ? ": " + cell(m, k).why : "");
const betterWords = m => MEASURES[m].better ? MEASURES[m].better + " is better" : "neither more nor less is better";
const ownBase = k => KERNELS[k].own || "the base of its run";

// All that is known of a cell: [name, value] pairs.
function details(m, k) {
  const measure = MEASURES[m], c = cell(m, k), [kind, why] = verdict(m, k), far = change(m, k), pairs = [];
  if (c.value === null) return [["value", missing(m, k)]];
  pairs.push(["value", withUnit(m, c.value)]);
  pairs.push(["interval", interval(c) ? write(m, c.low) + " to " + withUnit(m, c.high) : measure.counted ? "none: it is counted" : "none"]);
  if (c.n) pairs.push(["samples", number(c.n)]);
  if (measure.ratio) pairs.push(["base", ownBase(k)]);
  else if (k === state.base) pairs.push(["base", "this one"]);
  else if (measured(m, state.base)) pairs.push(["base", KERNELS[state.base].name + ", " + withUnit(m, cell(m, state.base).value)]);
  if (far) pairs.push(["change", far]);
  if (MEANING[kind]) pairs.push(["verdict", SIGNS[kind] + " " + MEANING[kind].replace(/[:,].*/, "") + ": " + why]);
  else if (why && kind !== "base") pairs.push(["verdict", "none: " + why]);
  if (c.why) pairs.push(["note", c.why]);
  return pairs;
}
