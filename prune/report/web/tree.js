// The directory tree: children are made when somebody goes there, since 60,000 leaves are never seen at once.
// Alignment is no part of any directory: the ledger has it.
const NOWHERE = new Set(["alignment", "unattributed"].map(name => D.kinds.indexOf(name)));
const ROOT = {name: D.meta.workload || "kernel", path: [], parent: null, items: Array.from({length: COUNT}, (_, i) => i).filter(i => !NOWHERE.has(U.kind[i])), children: null, base: 0, pruned: 0, unit: -1};
const SPLIT = D.objects.map(name => name ? name.split("/") : ["(no object)"]);

function measureNode(node) {
  node.base = node.pruned = 0;
  node.fate = [0, 0, 0];
  for (const i of node.items) {
    node.base += U.base[i];
    node.pruned += U.pruned[i];
    node.fate[U.fate[i]] += U.fate[i] ? U.pruned[i] : U.base[i];
  }
  return node;
}
measureNode(ROOT);

function childrenOf(node) {
  if (node.children || node.unit >= 0) return node.children || [];
  const depth = node.path.length, groups = new Map(), leaves = [];
  for (const i of node.items) {
    const parts = SPLIT[U.object[i]];
    if (depth >= parts.length) { leaves.push(i); continue; }
    if (!groups.has(parts[depth])) groups.set(parts[depth], []);
    groups.get(parts[depth]).push(i);
  }
  node.children = [...groups].map(([name, items]) => measureNode({name, path: [...node.path, name], parent: node, items, children: null, unit: -1}));
  node.children.push(...leaves.map(i => measureNode({name: U.name[i], path: [...node.path, U.name[i]], parent: node, items: [i], children: null, unit: i})));
  return node.children;
}

// Squarified treemap (Bruls, Huizing, van Wijk 2000).
function squarify(nodes, x, y, w, h, key) {
  const rest = nodes.filter(n => n[key] > 0).sort((a, b) => b[key] - a[key]), placed = [];
  let left = rest.reduce((sum, n) => sum + n[key], 0), at = 0;
  while (at < rest.length && w > 0.3 && h > 0.3) {
    const side = Math.min(w, h), scale = w * h / left;
    let sum = 0, end = at, worst = Infinity;
    while (end < rest.length) {
      const next = sum + rest[end][key] * scale, large = rest[at][key] * scale, small = rest[end][key] * scale;
      const ratio = Math.max(side * side * large / (next * next), next * next / (side * side * small));
      if (ratio > worst) break;
      worst = ratio; sum = next; end++;
    }
    const thick = sum / side;
    let offset = 0;
    for (; at < end; at++) {
      const long = rest[at][key] * scale / thick;
      placed.push(w >= h ? {node: rest[at], x, y: y + offset, w: thick, h: long} : {node: rest[at], x: x + offset, y, w: long, h: thick});
      offset += long;
      left -= rest[at][key];
    }
    if (w >= h) { x += thick; w -= thick; } else { y += thick; h -= thick; }
  }
  return placed;
}
