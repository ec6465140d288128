// A card for each measure, with a row for each kernel: bars from zero, or dots around 1 for ratios.
const AXES = [[0.1, 10], [0.2, 5], [0.5, 2], [0.67, 1.5], [0.8, 1.25], [0.9, 1.1], [0.95, 1.05], [0.98, 1.02], [0.99, 1.01]];

function piece(name, at, width) {
  const node = make("i", undefined, {class: name});
  node.style.left = at + "%";
  if (width !== undefined) node.style.width = Math.max(0, width) + "%";
  return node;
}

const sign = kind => SIGNS[kind] ? make("span", SIGNS[kind], {class: "sign " + kind, role: "img", "aria-label": MEANING[kind]}) : make("span", "", {class: "sign"});

// Bars begin at zero, always: what looks half as long is half as much.
function barScale(m) {
  const ends = [...shown(), state.base].map(k => cell(m, k)).flatMap(c => [c.value, c.high]).filter(v => v !== null), most = Math.max(0, ...ends) || 1;
  return value => Math.min(100, Math.max(0, value / most * 100));
}

// Logarithmic, with 1 in the middle: twice as fast is as far from it as half as fast.
function ratioScale(m) {
  const ends = shown().map(k => cell(m, k)).flatMap(c => [c.value, c.low, c.high]).filter(v => v > 0);
  const reach = Math.max(Math.log(1.012), ...ends.map(v => Math.abs(Math.log(v)))) * 1.12;
  const scale = value => Math.min(100, Math.max(0, 50 + Math.log(Math.max(value, 1e-9)) / reach * 50));
  scale.ticks = AXES.find(([, high]) => Math.log(high) <= reach * 0.9) || [];
  return scale;
}

function barTrack(m, k, scale) {
  const c = cell(m, k), track = make("span", undefined, {class: "track", "aria-hidden": "true"});
  track.append(piece("fill " + (verdict(m, k)[0] || "open"), 0, scale(c.value)));
  if (measured(m, state.base)) track.append(piece("base-line", scale(cell(m, state.base).value)));
  if (interval(c)) track.append(piece("whisker", scale(c.low), scale(c.high) - scale(c.low)));
  return track;
}

function ratioTrack(m, k, scale) {
  const c = cell(m, k), kind = verdict(m, k)[0] || "open", track = make("span", undefined, {class: "track ratio", "aria-hidden": "true"});
  for (const tick of scale.ticks) track.append(piece("tick", scale(tick)));
  track.append(piece("one", 50));
  if (interval(c)) track.append(piece("whisker " + kind, scale(c.low), scale(c.high) - scale(c.low)));
  track.append(piece("dot " + kind, scale(c.value)));
  return track;
}

function ratioAxis(m, scale) {
  const axis = make("div", undefined, {class: "axis", "aria-hidden": "true"}), line = make("span", undefined, {class: "track"});
  const put = (text, at) => { const label = make("span", text); label.style.left = at + "%"; line.append(label); };
  for (const tick of scale.ticks) put(String(tick), scale(tick));
  put("1", 50);
  const less = MEASURES[m].better === "less";
  axis.append(line, make("span", less ? "\u2190 better" : "\u2190 worse", {class: "left"}), make("span", less ? "worse \u2192" : "better \u2192", {class: "right"}));
  return axis;
}

function row(m, k, scale) {
  const c = cell(m, k), measure = MEASURES[m], line = make("li", undefined, {"data-m": m, "data-k": k, tabindex: "-1", "aria-describedby": "tip", class: k === state.base && !measure.ratio ? "is-base" : ""});
  line.append(make("span", KERNELS[k].name, {class: "name"}));
  if (c.value === null) {
    line.append(make("span", missing(m, k), {class: "missing"}));
    return line;
  }
  const value = make("span", write(m, c.value), {class: "value"});
  value.append(make("small", (measure.ratio ? "" : "\u00a0") + measure.unit));
  const last = make("span", undefined, {class: "change"});
  last.append(make("span", measure.ratio ? (interval(c) ? range(m, c) : "") : k === state.base ? "base" : change(m, k)), sign(verdict(m, k)[0]));
  line.append(measure.ratio ? ratioTrack(m, k, scale) : barTrack(m, k, scale), value, last);
  return line;
}

// Where nothing was measured there is no chart, and the reason is said once.
function emptyCard(m) {
  const reasons = new Map();
  for (const k of shown()) reasons.set(missing(m, k), [...(reasons.get(missing(m, k)) || []), KERNELS[k].name]);
  const list = make("ul", undefined, {class: "reasons"});
  for (const [why, names] of reasons) list.append(make("li", reasons.size === 1 ? why : names.join(", ") + ": " + why));
  return list;
}

function card(m) {
  const measure = MEASURES[m], box = make("section", undefined, {class: "card", "aria-label": measure.title, id: "measure-" + m}), head = make("h3", measure.title);
  head.append(" ", make("small", betterWords(m), {class: "direction " + (measure.better || "neither")}));
  box.append(head, make("p", measure.ratio ? measure.note + ", against its own base, not the chosen one" : measure.note || measure.label, {class: "note"}));
  if (!shown().some(k => measured(m, k))) { box.append(emptyCard(m)); return box; }
  const list = make("ul", undefined, {class: "rows" + (measure.ratio ? " ratios" : ""), "aria-label": measure.title + ", arrow keys move"}), scale = measure.ratio ? ratioScale(m) : barScale(m);
  for (const k of ordered(m)) list.append(row(m, k, scale));
  list.firstChild.tabIndex = 0;
  box.append(list);
  if (measure.ratio) box.append(ratioAxis(m, scale));
  return box;
}

const groupId = g => "group-" + D.groups[g].toLowerCase().replace(/\W+/g, "-");
const inGroup = g => MEASURES.map((_, m) => m).filter(m => MEASURES[m].group === g);

function charts() {
  const box = $("charts"), longest = Math.max(...shown().map(k => KERNELS[k].name.length), 0);
  box.textContent = "";
  // As wide as the longest name: what tells two kernels apart is often its end.
  box.style.setProperty("--name", Math.min(190, 24 + longest * 6.6) + "px");
  D.groups.forEach((name, g) => {
    if (!inGroup(g).length) return;
    const section = make("section", undefined, {"aria-labelledby": groupId(g)}), cards = make("div", undefined, {class: "cards"});
    cards.append(...inGroup(g).map(card));
    section.append(make("h2", name, {id: groupId(g)}), cards);
    box.append(section);
  });
}
