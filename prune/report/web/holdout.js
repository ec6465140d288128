// Programs that nobody profiled: what became of them on each pruned kernel, and how that goes with its size.
const ENDS = ["#009e73", "#56b4e9", "#0072b2", "#e69f00", "#cc79a7", "#d55e00", "#000000", "#999999"];

function holdout() {
  const found = D.holdout, box = $("held-bars");
  if (!found) { box.append(make("p", "Not tried as yet: kprune holdout OUT --programs FILE, then kprune report OUT.")); return; }
  for (const [label, text, counts] of found.kernels) {
    box.append(make("h3", label + ": " + number(text) + " bytes of text"), stacked(found.outcomes.map((name, i) => [name, counts[i], ENDS[i % ENDS.length]]).filter(part => part[1])));
  }
  if (found.kernels.length > 1) box.append(survival(found.kernels));
  programs(found);
}

// Bytes of text against the share of programs that print the same: how wide to prune is chosen here.
function survival(kernels) {
  const points = kernels.map(([label, text, counts]) => [label, text, counts[0] / Math.max(1, counts.reduce((a, b) => a + b, 0))]).sort((a, b) => a[1] - b[1]);
  const W = 900, H = 240, L = 64, B = 36, most = points[points.length - 1][1] * 1.1, x = v => L + (W - L - 20) * v / most, y = v => 14 + (H - B - 14) * (1 - v);
  const image = svg("svg", {viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Programs that print the same, by bytes of text", width: "100%"});
  for (let i = 0; i <= 4; i++) {
    image.append(svg("line", {x1: L, x2: W - 20, y1: y(i / 4), y2: y(i / 4), stroke: "var(--line)"}), svg("text", {x: L - 8, y: y(i / 4) + 4, "text-anchor": "end"}, i * 25 + "%"));
  }
  image.append(svg("polyline", {points: points.map(p => x(p[1]) + "," + y(p[2])).join(" "), fill: "none", stroke: "var(--stay)", "stroke-width": 2}));
  points.forEach(([label, text, share], i) => {
    image.append(svg("circle", {cx: x(text), cy: y(share), r: 4, fill: "var(--stay)"}), svg("text", {x: x(text), y: y(share) + (i % 2 ? 20 : -8), "text-anchor": "middle"}, label + ": " + Math.round(share * 100) + "%"));
  });
  image.append(svg("text", {x: (W + L) / 2, y: H - 3, "text-anchor": "middle"}, "bytes of text"));
  return image;
}

// Made when somebody opens it.
function programs(found) {
  const box = make("details"), heads = ["program", ...found.kernels.map(kernel => kernel[0]), "what was missed, or what it printed instead"];
  box.append(make("summary", "Programs one by one"));
  box.addEventListener("toggle", () => { if (box.children.length < 2) box.append(table(heads, found.programs, heads.map((_, i) => i))); });
  $("held-programs").append(box);
}
