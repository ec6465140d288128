// The data of one run, and the tables and bars that its sections share.
const U = D.units, COUNT = U.base.length;
const FATES = ["dropped", "resident", "freed after boot"];
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7a6fb0", "#8c6d4f", "#5f9e9e", "#999999"];

// cells: strings go left, numbers right, nodes as they are.
function table(heads, rows, textColumns) {
  const left = new Set(textColumns || [0]);
  const made = make("table"), head = make("tr");
  heads.forEach((name, i) => head.append(make("th", name, {scope: "col", class: left.has(i) ? "text" : name === "" ? "chart" : ""})));
  made.append(make("thead"), make("tbody"));
  made.tHead.append(head);
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell, i) => {
      const box = make("td", undefined, {class: cell instanceof Node && heads[i] === "" ? "chart" : left.has(i) ? "text" : ""});
      if (cell instanceof Node) box.append(cell); else box.textContent = typeof cell === "number" ? number(cell) : cell;
      line.append(box);
    });
    made.tBodies[0].append(line);
  }
  const scroll = make("div", undefined, {class: "scroll"});
  scroll.append(made);
  return scroll;
}

function meter(part, whole, colour) {
  const box = make("div", undefined, {class: "meter", role: "img", "aria-label": percent(part, whole)}), fill = make("i");
  fill.style.width = Math.min(100, whole ? part / whole * 100 : 0) + "%";
  if (colour) fill.style.background = colour;
  box.append(fill);
  return box;
}

// parts: [label, value, colour]
function stacked(parts) {
  const whole = parts.reduce((sum, part) => sum + part[1], 0) || 1, box = make("div"), bar = make("div", undefined, {class: "stack"}), key = make("div", undefined, {class: "key"});
  for (const [label, value, colour] of parts) {
    const piece = make("i", undefined, {title: label + ": " + number(value)});
    piece.style.width = value / whole * 100 + "%";
    piece.style.background = colour;
    bar.append(piece);
    const entry = make("span"), mark = make("i");
    mark.style.background = colour;
    entry.append(mark, label + " " + number(value) + " (" + (value / whole * 100).toFixed(1) + "%)");
    key.append(entry);
  }
  box.append(bar, key);
  return box;
}

function appsOf(i) {
  return D.apps.filter((name, bit) => Math.floor(U.apps[i] / 2 ** bit) % 2 === 1);
}
