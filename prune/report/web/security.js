// What each kernel offers to somebody who got in, and which known holes are gone.
const VERDICTS = {present: "#d55e00", partly: "#e69f00", several: "#cc79a7", unknown: "#999999", gone: "#009e73", "not in base": "#56b4e9"};

function security() {
  const found = D.security;
  if (!found) { $("offer-table").append(make("p", "Not looked at as yet: kprune security OUT --cves FILE, then kprune report OUT.")); return; }
  const rows = found.offers.map(([label, base, pruned]) => [label, base, pruned, percent(pruned, base), base ? meter(pruned, Math.max(base, pruned)) : ""]);
  $("offer-table").append(table(["", "base", "pruned", "change", ""], rows));
  if (found.cves.length) holes(found.cves);
  calls(found.calls);
}

function holes(cves) {
  const count = new Map();
  for (const each of cves) count.set(each[1], (count.get(each[1]) || 0) + 1);
  const parts = Object.keys(VERDICTS).filter(name => count.has(name)).map(name => [name, count.get(name), VERDICTS[name]]);
  const rows = cves.map(([id, verdict, states, note]) => [make("span", id, {class: "verdict"}), said(verdict), states, note]);
  $("hole-box").append(make("h3", "Known holes: what has become of their functions"), stacked(parts), table(["CVE", "verdict", "its functions", "note"], rows, [0, 1, 2, 3]));
}

function said(verdict) {
  const box = make("span", undefined, {class: "verdict"}), mark = make("i");
  mark.style.background = VERDICTS[verdict] || VERDICTS.unknown;
  box.append(mark, verdict);
  return box;
}

// Hundreds of rows: made when somebody opens them.
function calls(list) {
  const box = make("details"), answer = list.filter(call => call[3] !== null).length;
  box.append(make("summary", "System calls one by one: " + number(answer) + " of " + number(list.length) + " answer"));
  box.addEventListener("toggle", () => {
    if (box.children.length > 1) return;
    const show = value => value === null ? "\u2013" : value;
    const rows = [...list].sort((a, b) => (a[3] === null) - (b[3] === null)).map(([name, bits, ...counts]) => [name, bits, ...counts.map(show)]);
    box.append(make("p", "Functions behind each entry: by calls and jumps alone, and by all that such code and its data refer to. A pointer that somebody else has put into memory is not followed."),
      table(["system call", "bits", "calls: base", "pruned", "references: base", "pruned"], rows));
  });
  $("call-box").append(box);
}
