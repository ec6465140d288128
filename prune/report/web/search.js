// Search over names and objects; at most 100 hits are ever in the page.
const LOWER = Array.from({length: COUNT}, (_, i) => U.name[i].toLowerCase());
const OBJECTS = D.objects.map(name => name.toLowerCase());
const MOST = 100;

function find(text) {
  const wanted = text.trim().toLowerCase(), exact = [], begins = [], holds = [];
  if (!wanted) return [];
  for (let i = 0; i < COUNT; i++) {
    if (LOWER[i] === wanted) exact.push(i);
    else if (LOWER[i].startsWith(wanted)) begins.push(i);
    else if (holds.length < MOST && (LOWER[i].includes(wanted) || OBJECTS[U.object[i]].includes(wanted))) holds.push(i);
  }
  return [...exact, ...begins, ...holds].slice(0, MOST);
}

function search() {
  const text = $("search").value, box = $("hits");
  box.textContent = "";
  for (const i of find(text)) {
    const hit = make("button", undefined, {type: "button", role: "option", "data-unit": i});
    hit.append(make("b", U.name[i]), " " + D.objects[U.object[i]] + " ", make("small", number(U.base[i]) + " bytes, " + FATES[U.fate[i]] + ": " + D.reasons[U.reason[i]]));
    hit.addEventListener("click", () => reveal(i));
    box.append(hit);
  }
  if (text && !box.firstChild) box.append(make("p", "Nothing is called that."));
  history.replaceState(null, "", text ? "#q=" + encodeURIComponent(text) : "#map");
}

function show(i) {
  const list = make("dl"), box = $("detail");
  const add = (name, value) => list.append(make("dt", name), make("dd", value));
  add("object", D.objects[U.object[i]] || "none");
  add("section", U.section[i]);
  add("kind", D.kinds[U.kind[i]]);
  add("bytes", number(U.base[i]) + " in the base, " + number(U.pruned[i]) + " in the pruned kernel");
  add("fate", FATES[U.fate[i]]);
  add("why", D.reasons[U.reason[i]] || "no plan decides about it");
  add("ran in", appsOf(i).join(", ") || "nothing that was traced");
  box.replaceChildren(make("b", U.name[i]), list);
}

function reveal(i) {
  let node = ROOT;
  for (const part of SPLIT[U.object[i]]) node = childrenOf(node).find(n => n.unit < 0 && n.name === part) || node;
  marked = i;
  if (!U[key()][i]) $("area").value = U.base[i] ? "b" : "p";
  go(node);
  show(i);
}

$("search").addEventListener("input", search);
document.addEventListener("keydown", event => {
  if (event.key === "/" && !/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
});
