// The rest of the page: tables and bars, made once.
function sizes() {
  const rows = D.sizes.map(([label, base, pruned]) => [label, base, pruned, percent(pruned, base), base ? meter(pruned, Math.max(base, pruned)) : ""]);
  $("size-table").append(table(["", "base", "pruned", "change", ""], rows));
}

function apps() {
  const ran = D.apps.map(() => [0, 0, 0, 0]);
  const split = new Map();
  for (let i = 0; i < COUNT; i++) {
    if (D.kinds[U.kind[i]] !== "text") continue;
    const bits = [];
    D.apps.forEach((_, b) => { if (Math.floor(U.apps[i] / 2 ** b) % 2) bits.push(b); });
    for (const b of bits) { ran[b][0]++; ran[b][1] += U.base[i]; }
    if (bits.length === 1) { ran[bits[0]][2]++; ran[bits[0]][3] += U.base[i]; }
    if (!U.fate[i]) continue;
    const phases = new Set(bits.map(b => D.apps[b] === "boot" || D.apps[b] === "shutdown" ? D.apps[b] : "run"));
    const label = phases.size ? ["boot", "run", "shutdown"].filter(p => phases.has(p)).join(" + ") : "never seen running";
    split.set(label, (split.get(label) || 0) + U.pruned[i]);
  }
  const most = Math.max(1, ...ran.map(r => r[1]));
  $("app-table").append(table(["phase or app", "functions", "bytes", "only here", "bytes", ""], D.apps.map((name, b) => [name, ...ran[b], meter(ran[b][1], most)])));
  $("phase-bar").append(stacked([...split].sort((a, b) => b[1] - a[1]).map(([label, value], i) => [label, value, PALETTE[i % PALETTE.length]])));
}

function ledger() {
  const causes = D.causes.map(name => [name || "nothing", 0, 0]), kinds = D.kinds.map(name => [name, 0, 0]), dirs = new Map();
  let freed = 0;
  for (let i = 0; i < COUNT; i++) {
    for (const [rows, at] of [[causes, U.cause[i]], [kinds, U.kind[i]]]) { rows[at][1] += U.base[i]; rows[at][2] += U.pruned[i]; }
    if (U.moved[i]) freed += U.pruned[i];
    const dir = D.objects[U.object[i]].split("/").slice(0, -1).slice(0, 2).join("/") || "(no object)";
    const both = dirs.get(dir) || [0, 0];
    both[0] += U.base[i]; both[1] += U.pruned[i];
    dirs.set(dir, both);
  }
  const gone = causes.map(([name, base, pruned]) => [name, base - pruned]).filter(row => row[1] > 0 && row[0] !== "nothing");
  if (freed) gone.push(["boot-only, freed after boot", freed]);
  gone.sort((a, b) => b[1] - a[1]);
  $("cause-bar").append(stacked(gone.map(([name, value], i) => [name, value, PALETTE[i % PALETTE.length]])));
  $("cause-table").append(make("h3", "By kind"), table(["kind", "base", "pruned", "change", ""], kinds.filter(r => r[1] || r[2]).sort((a, b) => b[1] - a[1]).map(([n, b, p]) => [n, b, p, percent(p, b), meter(p, b)])));
  const rows = [...dirs].sort((a, b) => b[1][0] - a[1][0]).slice(0, 40).map(([n, [b, p]]) => [n, b, p, percent(p, b), meter(p, b)]);
  $("dir-table").append(make("h3", "By subsystem"), table(["directory", "base", "pruned", "change", ""], rows));
}

function svg(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attributes) node.setAttribute(name, attributes[name]);
  if (text !== undefined) node.textContent = text;
  return node;
}

function curve() {
  const runs = D.runs, box = $("curve");
  if (!runs.length) { box.append(make("p", "No run was traced here: the profile came from elsewhere.")); return; }
  let known = 0;
  const points = runs.map(run => known += run.new), top = points[points.length - 1] || 1, low = Math.min(...points) * 0.995;
  const W = 900, H = 240, L = 64, B = 36, x = i => L + (W - L - 20) * (runs.length > 1 ? i / (runs.length - 1) : 0.5), y = v => 14 + (H - B - 14) * (1 - (v - low) / Math.max(top - low, 1));
  const image = svg("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Functions known after each run", width: "100%"});
  for (let i = 0; i <= 4; i++) {
    const v = low + (top - low) * i / 4;
    image.append(svg("line", {x1: L, x2: W - 20, y1: y(v), y2: y(v), stroke: "var(--line)"}), svg("text", {x: L - 8, y: y(v) + 4, "text-anchor": "end"}, number(v)));
  }
  image.append(svg("polyline", {points: points.map((v, i) => x(i) + "," + y(v)).join(" "), fill: "none", stroke: "var(--stay)", "stroke-width": 2}));
  points.forEach((v, i) => {
    const dot = svg("circle", {cx: x(i), cy: y(v), r: 4, fill: "var(--stay)"});
    dot.append(svg("title", {}, runs[i].name + ": " + number(v) + " functions, " + runs[i].new + " new"));
    image.append(dot);
    if (runs.length < 16) image.append(svg("text", {x: x(i), y: H - 18, "text-anchor": "middle"}, String(i + 1)));
  });
  image.append(svg("text", {x: (W + L) / 2, y: H - 3, "text-anchor": "middle"}, "run"), svg("text", {x: 4, y: 10}, "functions known"));
  box.append(image, make("p", D.meta.trace));
}

// One scale for all kernels: a bar is as long as the memory that its kernel needs.
function memory() {
  const found = D.minram;
  if (!found) { $("memory-bars").append(make("p", "Not searched as yet: kprune minram OUT, then kprune report OUT.")); return; }
  const most = Math.max(...found.smallest), colour = new Map(found.rows.map((row, i) => [row[0], PALETTE[i % PALETTE.length]]));
  found.sides.forEach((side, s) => {
    const bar = stacked(found.rows.filter(row => row[s + 1] > 0).map(row => [row[0], row[s + 1], colour.get(row[0])]));
    bar.firstChild.style.width = found.smallest[s] / most * 100 + "%";
    $("memory-bars").append(make("h3", side + ": " + number(found.smallest[s] / 1024) + " KiB for " + found.apps.join(", ")), bar);
  });
  const rows = found.rows.map(row => [row[0], ...row.slice(1)]);
  $("memory-table").append(table(["bytes", ...found.sides], [["in all", ...found.smallest], ...rows]));
}

function boots() {
  $("boot-table").append(table(["boot", "variation", "seconds", "result"], D.boots.map(b => [String(b.number), b.variation, b.seconds.toFixed(1), b.problem || "ran the whole workload"]), [0, 1, 3]));
  const said = D.said, kinds = [[said.new, "only the pruned kernel"], [said.missing, "every run of the whole kernel, no boot of the pruned one"]];
  const lines = kinds.flatMap(([rows, who]) => rows.map(row => [row.text, who, String(row.boots)]));
  const compared = !said.runs ? "No run of the whole kernel is here to compare with." : (lines.length ? "" : "Nothing that ") + (lines.length ? "Lines that differ" : "differs") + ", numbers apart, between the consoles of " + said.runs + " runs of the whole kernel and " + said.boots + " boots of the pruned one.";
  $("said").append(make("p", compared));
  if (lines.length) $("said").append(table(["line", "said by", "times"], lines, [0, 1]));
  const write = () => {
    const wanted = $("log-filter").value.toLowerCase();
    $("log").textContent = D.log.split("\n").filter(line => line.toLowerCase().includes(wanted)).join("\n");
  };
  $("log-filter").addEventListener("input", write);
  write();
}

function legend() {
  const box = $("legend"), mode = $("colour").value;
  const entries = mode === "f" ? [["resident", css("--stay")], ["freed after boot", css("--freed")], ["dropped", css("--gone")]] : (mode === "k" ? D.kinds : D.apps).map((name, i) => [name, PALETTE[i % PALETTE.length]]);
  box.textContent = "";
  for (const [name, colour] of entries) {
    const entry = make("span"), mark = make("i");
    mark.style.background = colour;
    entry.append(mark, name);
    box.append(entry);
  }
}

function begin() {
  document.title = "kprune: " + D.meta.workload;
  $("title").textContent = D.meta.workload + ": text " + percent(D.meta.text[1], D.meta.text[0]) + ", " + number(D.meta.text[1]) + " bytes";
  $("facts").textContent = D.meta.facts.join(" \u00b7 ");
  sizes(); apps(); ledger(); curve(); memory(); security(); holdout(); soak(); boots();
  const repaint = () => { legend(); draw(); };
  themes(repaint);
  $("area").addEventListener("change", () => { levelTable(); draw(); });
  $("colour").addEventListener("change", repaint);
  new ResizeObserver(draw).observe($("map-box"));
  legend();
  go(ROOT);
  const asked = /^#q=(.*)/.exec(location.hash);
  if (asked) { $("search").value = decodeURIComponent(asked[1]); search(); }
}
begin();
