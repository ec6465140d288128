// The same as tables: all changes on one screen, every number, and CSV.
const NUMBERS_SORTED = new Map();

function kernelTable() {
  const boots = MEASURES.findIndex(measure => measure.label === "boots"), made = make("table"), head = make("tr");
  for (const name of ["shown", "kernel", "what it is", "ran the workload", "more"]) head.append(make("th", name, {scope: "col", class: "text"}));
  made.append(make("thead"), make("tbody"));
  made.tHead.append(head);
  KERNELS.forEach((kernel, k) => {
    const line = make("tr"), box = make("input", undefined, {type: "checkbox", id: "shown-" + k, "aria-label": "show " + kernel.name}), name = make("th", undefined, {scope: "row", class: "text"}), link = make("td", undefined, {class: "text"}), tick = make("td", undefined, {class: "text"});
    box.checked = true;
    box.addEventListener("change", () => { state.shown[k] = box.checked; render(); });
    name.append(make("label", kernel.name, {for: "shown-" + k}));
    tick.append(box);
    if (kernel.report) link.append(make("a", "its run\u2019s report", {href: kernel.report, "aria-label": "report of the run that made " + kernel.name}));
    const all = D.cells.every(row => row[k].value === null), ran = boots < 0 ? "" : measured(boots, k) ? withUnit(boots, cell(boots, k).value) + (cell(boots, k).n > 1 ? " of " + cell(boots, k).n + " boots" : "") : missing(boots, k);
    line.append(tick, name, make("td", kernel.words, {class: "text"}), make("td", all ? "nothing was measured: " + (D.cells[0] ? D.cells[0][k].why : "") : ran, {class: all ? "text failed" : "text"}), link);
    made.tBodies[0].append(line);
  });
  $("kernel-table").append(scrolled(made));
}

// A grid of several optimisation levels has many kernels: one press shows those of one level.
function levelButtons() {
  const level = kernel => (/ (-O\w+)$/.exec(kernel.name) || ["", "as configured"])[1], levels = [...new Set(KERNELS.map(level))];
  if (levels.length < 2) return;
  for (const wanted of ["all", ...levels]) {
    const button = make("button", wanted === "all" ? "Show all" : "Only " + wanted, {type: "button"});
    button.addEventListener("click", () => {
      KERNELS.forEach((kernel, k) => { state.shown[k] = $("shown-" + k).checked = wanted === "all" || level(kernel) === wanted; });
      render();
    });
    $("only").append(button);
  }
}

function scrolled(node) {
  const box = make("div", undefined, {class: "scroll", tabindex: "0", role: "group", "aria-label": "table, scrolls"});
  box.append(node);
  return box;
}

// Against the base, all at once: what is lost stands beside what is won.
function glance() {
  const made = make("table", undefined, {class: "glance"}), head = make("tr"), kernels = shown();
  head.append(make("th", "", {scope: "col"}));
  for (const k of kernels) {
    const box = make("th", undefined, {scope: "col", class: k === state.base ? "is-base" : ""});
    // A name may be broken between words only, not within -O2.
    for (const word of KERNELS[k].name.split(" ")) box.append(make("span", word), " ");
    head.append(box);
  }
  made.append(make("thead"));
  made.tHead.append(head);
  D.groups.forEach((name, g) => {
    if (!inGroup(g).length) return;
    const body = make("tbody"), line = make("tr");
    line.append(make("th", name, {scope: "rowgroup", colspan: kernels.length + 1, class: "group"}));
    body.append(line, ...inGroup(g).map(m => glanceRow(m, kernels)));
    made.append(body);
  });
  $("glance-table").replaceChildren(scrolled(made));
  $("glance-words").textContent = "Change against " + KERNELS[state.base].name + ", whose own values are shown; ratios (\u00d7) are against the base of the same run. \u2193 less is better, \u2191 more is better, \u2014 not measured.";
}

function glanceRow(m, kernels) {
  const line = make("tr"), head = make("th", undefined, {scope: "row"}), arrow = {less: "\u2193", more: "\u2191"}[MEASURES[m].better];
  head.append(make("a", MEASURES[m].title, {href: "#measure-" + m}), " ", make("small", arrow || "", {role: "img", "aria-label": betterWords(m)}));
  line.append(head);
  for (const k of kernels) {
    const c = cell(m, k), kind = verdict(m, k)[0], box = make("td", undefined, {class: "cell " + (c.value === null ? "none" : kind || "open"), "data-m": m, "data-k": k});
    if (c.value === null) box.append(make("span", "\u2014", {role: "img", "aria-label": missing(m, k)}));
    else box.append(MEASURES[m].ratio || !change(m, k) ? withUnit(m, c.value) : change(m, k), " ", sign(kind));
    line.append(box);
  }
  return line;
}

// Tables of numbers: kernels down, measures across, sorted by the column whose head was pressed.
function numberTable(g) {
  const measures = inGroup(g), made = make("table", undefined, {class: "numbers"}), head = make("tr"), notes = [], [by, up] = NUMBERS_SORTED.get(g) || [-1, true];
  const column = (m, text, unit) => {
    const box = make("th", undefined, {scope: "col", "aria-sort": by === m ? up ? "ascending" : "descending" : "none"}), button = make("button", text, {type: "button", "data-sort": g + " " + m});
    if (unit) button.append(make("small", " " + unit));
    button.append(make("span", by === m ? up ? " \u25b2" : " \u25bc" : "", {"aria-hidden": "true"}));
    button.addEventListener("click", () => { NUMBERS_SORTED.set(g, m < 0 ? [-1, true] : [m, by === m ? !up : true]); numbers(); document.querySelector(`[data-sort="${g} ${m}"]`).focus(); });
    box.append(button);
    head.append(box);
  };
  column(-1, "kernel");
  for (const m of measures) column(m, MEASURES[m].title, MEASURES[m].unit);
  const key = k => by < 0 ? k : measured(by, k) ? (up ? 1 : -1) * cell(by, k).value : Infinity;
  made.append(make("caption", D.groups[g]), make("thead"), make("tbody"));
  made.tHead.append(head);
  for (const k of shown().sort((a, b) => key(a) === key(b) ? a - b : key(a) < key(b) ? -1 : 1)) made.tBodies[0].append(numberRow(k, measures, notes));
  const list = make("ol", undefined, {class: "notes"});
  for (const note of notes) list.append(make("li", note));
  const box = make("div", undefined, {class: "numbers-box"});
  box.append(scrolled(made), list);
  return box;
}

function numberRow(k, measures, notes) {
  const line = make("tr");
  line.append(make("th", KERNELS[k].name, {scope: "row"}));
  for (const m of measures) {
    const c = cell(m, k), box = make("td");
    if (c.value === null) {
      if (!notes.includes(c.why) && c.why) notes.push(c.why);
      box.append(make("span", "not measured", {class: "missing"}));
      if (c.why) box.append(make("sup", String(notes.indexOf(c.why) + 1)));
    } else {
      box.append(write(m, c.value));
      if (interval(c)) box.append(make("small", range(m, c), {class: "range"}));
    }
    line.append(box);
  }
  return line;
}

function numbers() {
  $("number-tables").replaceChildren(...D.groups.map((_, g) => g).filter(g => inGroup(g).length).map(numberTable));
}

const quoted = value => /[",\n\r]/.test(String(value)) ? '"' + String(value).replaceAll('"', '""') + '"' : String(value);
const lines = rows => rows.map(cells => cells.map(quoted).join(",")).join("\r\n") + "\r\n";
const plain = value => value === null ? "" : value;

// As the terminal has it: a line for each kernel.
function csvTable() {
  return lines([["kernel", ...MEASURES.map(m => m.label)], ...KERNELS.map((kernel, k) => [kernel.name, ...MEASURES.map((_, m) => plain(cell(m, k).value))])]);
}

// A line for each number, with all that is known of it.
function csvAll() {
  const rows = MEASURES.flatMap((measure, m) => KERNELS.map((kernel, k) => {
    const c = cell(m, k);
    return [measure.label, kernel.name, plain(c.value), plain(c.low), plain(c.high), c.n, c.why];
  }));
  return lines([["measure", "kernel", "value", "low", "high", "n", "why"], ...rows]);
}

// Where a page may not write to the clipboard, the text is there to be copied by hand.
async function copy(text) {
  const box = $("csv");
  box.value = text;
  try {
    await navigator.clipboard.writeText(text);
    box.hidden = true;
    $("copied").textContent = "Copied.";
  } catch {
    box.hidden = false;
    box.focus();
    box.select();
    $("copied").textContent = "The browser does not let this page copy; the text is selected below.";
  }
}
