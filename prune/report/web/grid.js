// Controls, keys, and what is told about the cell under the pointer or the focus.
function render() {
  const at = document.activeElement, m = at && at.dataset ? at.dataset.m : undefined, k = m === undefined ? undefined : at.dataset.k;
  hideTip();
  glance(); charts(); numbers();
  const again = m === undefined ? null : document.querySelector(`li[data-m="${m}"][data-k="${k}"]`);
  if (again) enter(again);
  const hidden = state.shown.filter(each => !each).length;
  $("told").textContent = "Compared with " + KERNELS[state.base].name + (hidden ? "; " + hidden + " kernels are not shown" : "");
}

function showTip(node) {
  const m = +node.dataset.m, k = +node.dataset.k, tip = $("tip"), list = make("dl");
  for (const [name, value] of details(m, k)) list.append(make("dt", name), make("dd", value));
  tip.replaceChildren(make("b", MEASURES[m].title + ": " + KERNELS[k].name), list);
  if (k !== state.base && node.tagName === "LI") tip.append(make("p", "Enter or double click: compare with this one."));
  tip.hidden = false;
  // Below what it is about, above where there is no room, and never over the edge.
  const about = node.getBoundingClientRect(), size = tip.getBoundingClientRect(), below = about.bottom + 6;
  tip.style.left = Math.max(8, Math.min(about.left + 24, innerWidth - size.width - 8)) + "px";
  tip.style.top = (below + size.height > innerHeight ? Math.max(8, about.top - size.height - 6) : below) + "px";
}

function hideTip() { $("tip").hidden = true; }

// One row of a card is a stop of the Tab key; arrows go on from there.
function enter(node) {
  for (const other of node.parentNode.children) other.tabIndex = other === node ? 0 : -1;
  node.focus();
}

function step(node, key) {
  const rows = [...node.parentNode.children], i = rows.indexOf(node);
  if (key === "ArrowDown") return rows[i + 1];
  if (key === "ArrowUp") return rows[i - 1];
  if (key === "Home") return rows[0];
  if (key === "End") return rows[rows.length - 1];
  const same = [...document.querySelectorAll(`.rows li[data-k="${node.dataset.k}"]`)];
  return same[same.indexOf(node) + (key === "ArrowRight" ? 1 : -1)];
}

function chooseBase(k) {
  state.base = k;
  $("base").value = String(k);
  render();
}

function listen() {
  const target = event => event.target.closest ? event.target.closest("[data-m]") : null;
  document.addEventListener("mouseover", event => { const node = target(event); if (node) showTip(node); else if (!$("tip").contains(event.target)) hideTip(); });
  document.addEventListener("click", event => { const node = target(event); if (node && node.tagName === "LI") enter(node); });
  document.addEventListener("dblclick", event => { const node = target(event); if (node && node.tagName === "LI") chooseBase(+node.dataset.k); });
  document.addEventListener("focusin", event => { const node = target(event); if (node) showTip(node); else hideTip(); });
  addEventListener("scroll", () => { const node = document.activeElement; if (node && node.dataset.m !== undefined && !$("tip").hidden) showTip(node); else hideTip(); }, {passive: true});
  document.addEventListener("keydown", event => {
    const node = target(event);
    if (event.key === "Escape") hideTip();
    if (!node || node.tagName !== "LI") return;
    if (event.key === "Enter") { event.preventDefault(); chooseBase(+node.dataset.k); return; }
    if (!/^(Arrow|Home$|End$)/.test(event.key)) return;
    event.preventDefault();
    const next = step(node, event.key);
    if (next) enter(next);
  });
  $("base").addEventListener("change", () => chooseBase(+$("base").value));
  $("order").addEventListener("change", () => { state.best = $("order").value === "best"; render(); });
  $("copy").addEventListener("click", () => copy(csvTable()));
  $("copy-all").addEventListener("click", () => copy(csvAll()));
}

function legend() {
  for (const kind of ["better", "worse", "unsure", "same"]) {
    const entry = make("span");
    entry.append(sign(kind), " " + MEANING[kind]);
    $("legend").append(entry);
  }
  const entry = make("span");
  entry.append(sign("maybe-better"), sign("maybe-worse"), " without intervals");
  $("legend").append(entry);
}

function begin() {
  document.title = "kprune: " + D.workload + ", " + KERNELS.length + " kernels";
  $("title").textContent = D.workload + ": " + KERNELS.length + " kernels side by side";
  $("facts").textContent = [...D.facts, D.command].filter(text => text).join(" \u00b7 ");
  KERNELS.forEach((kernel, k) => $("base").append(make("option", kernel.name, {value: k})));
  state.base = Math.max(0, KERNELS.findIndex(kernel => kernel.name === "gcc"));
  $("base").value = String(state.base);
  const parts = [["kernels", "Kernels"], ["glance", "At a glance"], ...D.groups.map((name, g) => [groupId(g), name]).filter((_, g) => inGroup(g).length), ["tables", "Every number"]];
  for (const [id, name] of parts) $("nav").append(make("a", name, {href: "#" + id}), " ");
  $("how").textContent = "Bars begin at zero; the dashed line is the value of the kernel that is compared with. Whiskers are a 95 % confidence interval, or the range of the samples. Two kernels differ when their intervals do not overlap, which asks for more than a test would; what is counted is the same each time and has none. Ratios are drawn on a logarithmic scale and differ from 1 when their interval does not contain it. Made by kprune from grid.json.";
  legend(); kernelTable(); levelButtons(); listen(); render();
  themes(() => {});
}
begin();
