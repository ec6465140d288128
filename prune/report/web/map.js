// The treemap on its canvas: two levels are drawn, one is entered at a time.
const canvas = $("treemap"), pen = canvas.getContext("2d");
let here = ROOT, tiles = [], chosen = -1, marked = -1;
const key = () => $("area").value === "b" ? "base" : "pruned";

function colourOf(node) {
  const mode = $("colour").value, i = node.unit;
  if (mode === "f") {
    if (i >= 0) return css(["--gone", "--stay", "--freed"][U.fate[i]]);
    const [gone, stay, freed] = node.fate, most = Math.max(gone, stay, freed);
    return css(most === gone ? "--gone" : most === stay ? "--stay" : "--freed");
  }
  if (mode === "k") return PALETTE[(i >= 0 ? U.kind[i] : U.kind[largest(node)]) % PALETTE.length];
  const first = i >= 0 ? i : largest(node), bit = D.apps.findIndex((_, b) => Math.floor(U.apps[first] / 2 ** b) % 2);
  return bit < 0 ? css("--gone") : PALETTE[bit % PALETTE.length];
}

function largest(node) {
  let best = node.items[0];
  for (const i of node.items) if (U[key()][i] > U[key()][best]) best = i;
  return best;
}

function ink(colour) {
  const hex = colour.replace("#", ""), [r, g, b] = [0, 2, 4].map(at => parseInt(hex.slice(at, at + 2), 16));
  return r * 0.299 + g * 0.587 + b * 0.114 > 140 ? "#111" : "#fff";
}

function shareBar(tile) {
  // What of a directory stays, is freed, is gone: a strip at its lower edge.
  const {node, x, y, w, h} = tile, whole = node.fate[0] + node.fate[1] + node.fate[2];
  if (node.unit >= 0 || !whole || w < 12 || h < 26 || $("colour").value !== "f") return;
  let at = x + 1;
  [["--stay", 1], ["--freed", 2], ["--gone", 0]].forEach(([name, f]) => {
    const part = (w - 2) * node.fate[f] / whole;
    pen.fillStyle = css(name);
    pen.fillRect(at, y + h - 7, part, 6);
    at += part;
  });
}

function draw() {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  if (!box.width) return;
  canvas.width = box.width * ratio;
  canvas.height = box.height * ratio;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  tiles = squarify(childrenOf(here), 0, 0, box.width, box.height, key());
  chosen = Math.min(chosen, tiles.length - 1);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "top";
  tiles.forEach((tile, i) => drawTile(tile, i));
  $("print-map").src = canvas.toDataURL("image/png");
}

function drawTile(tile, i) {
  const {node, x, y, w, h} = tile, colour = colourOf(node);
  pen.fillStyle = colour;
  pen.fillRect(x, y, Math.max(w - 1, 0.5), Math.max(h - 1, 0.5));
  if (w > 60 && h > 60) drawInside(node, x + 2, y + 18, w - 5, h - 27);
  shareBar(tile);
  if (w > 34 && h > 16) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, w - 3, 17);
    pen.clip();
    pen.fillStyle = ink(colour);
    pen.fillText(node.name + (w > 130 ? "  " + number(node[key()]) : ""), x + 4, y + 3);
    pen.restore();
  }
  if (i === chosen || (marked >= 0 && node.unit === marked)) {
    pen.strokeStyle = css("--mark");
    pen.lineWidth = 3;
    pen.strokeRect(x + 1.5, y + 1.5, Math.max(w - 4, 1), Math.max(h - 4, 1));
    pen.lineWidth = 1;
  }
}

// What is inside, and inside of that, as long as there is room to see it.
function drawInside(node, x, y, w, h) {
  if (node.unit >= 0) return;
  for (const inner of squarify(childrenOf(node), x, y, w, h, key())) {
    if (inner.w < 1.5 || inner.h < 1.5) continue;
    pen.fillStyle = colourOf(inner.node);
    pen.fillRect(inner.x, inner.y, inner.w - 0.6, inner.h - 0.6);
    pen.strokeStyle = "rgba(0,0,0,.22)";
    pen.strokeRect(inner.x, inner.y, inner.w - 0.6, inner.h - 0.6);
    if (inner.w * inner.h > 1600 && inner.w > 24 && inner.h > 24) drawInside(inner.node, inner.x + 1, inner.y + 1, inner.w - 3, inner.h - 3);
  }
}

function describe(node) {
  const words = (node.path.join("/") || node.name) + ": " + number(node.base) + " bytes, " + number(node.pruned) + " left";
  return node.unit >= 0 ? words + ", " + FATES[U.fate[node.unit]] : words + ", " + number(node.items.length) + " pieces";
}

function go(node) {
  if (node.unit >= 0) { show(node.unit); return; }
  here = node;
  chosen = -1;
  const crumbs = $("crumbs");
  crumbs.textContent = "";
  for (let n = node, first = true; n; n = n.parent, first = false) {
    const target = n, button = make(first ? "strong" : "button", n.name);
    if (!first) button.addEventListener("click", () => go(target));
    if (!first) crumbs.prepend(" / ");
    crumbs.prepend(button);
  }
  $("hover").textContent = describe(node);
  levelTable();
  draw();
}

function levelTable() {
  const rows = [...childrenOf(here)].sort((a, b) => b[key()] - a[key()]).slice(0, 200);
  $("level").replaceChildren(table(["name", "base", "pruned", "change"], rows.map(n => [n.name, n.base, n.pruned, percent(n.pruned, n.base)])));
}

function tileAt(event) {
  const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  return tiles.findIndex(t => x >= t.x && x < t.x + t.w && y >= t.y && y < t.y + t.h);
}

function move(dx, dy) {
  if (chosen < 0) { chosen = 0; return; }
  const from = tiles[chosen], cx = from.x + from.w / 2, cy = from.y + from.h / 2;
  let best = -1, distance = Infinity;
  tiles.forEach((t, i) => {
    const x = t.x + t.w / 2 - cx, y = t.y + t.h / 2 - cy, along = x * dx + y * dy;
    if (i === chosen || along <= 0) return;
    const far = along + 2 * Math.abs(x * dy + y * dx);
    if (far < distance) { distance = far; best = i; }
  });
  if (best >= 0) chosen = best;
}

canvas.addEventListener("mousemove", event => { const i = tileAt(event); if (i >= 0) $("hover").textContent = describe(tiles[i].node); });
canvas.addEventListener("click", event => { const i = tileAt(event); if (i >= 0) go(tiles[i].node); });
canvas.addEventListener("keydown", event => {
  const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  if (arrows[event.key]) { move(...arrows[event.key]); draw(); $("hover").textContent = describe(tiles[chosen].node); }
  else if (event.key === "Enter" && chosen >= 0) go(tiles[chosen].node);
  else if ((event.key === "Escape" || event.key === "Backspace") && here.parent) go(here.parent);
  else return;
  event.preventDefault();
});
