// A kernel under load and trouble: a picture for each side, with a lane for each kind of stretch, all lanes at
// one scale. Few elements, however long it took: each lane is a line, its dots and its marks.
const LANE = 42, LEFT = 58, TOP = 36, FOOT = 34, MISSED = "var(--mark)";
const SHADE = {base: "var(--dim)", pruned: "var(--stay)"};
// Of a stretch: its columns in the data.
const GUEST = 0, AT = 1, LASTS = 2, RATE = 3, REQUESTS = 4, KIND = 5, UNANSWERED = 6, LOST = 7;
const ring = (x, y) => `M${x - 3.5} ${y}a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0`;
const cross = (x, y) => `M${x - 3.5} ${y - 3.5}l7 7m0 -7l-7 7`;
const minute = seconds => (seconds / 60).toFixed(1);
const plural = (count, word) => number(count) + " " + word + (count === 1 ? "" : /(ch|s)$/.test(word) ? "es" : "s");

function soak() {
  const found = D.soak;
  if (!found) return;
  $("soak-link").hidden = $("soak-section").hidden = false;
  const top = nice(found.sides.flatMap(side => side.stretches).reduce((most, s) => Math.max(most, s[RATE]), 1), [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10]);
  const drawn = found.sides.map(side => panel(side, top));
  $("soak-sides").append(...drawn.map(each => each.box));
  // In the page first: a picture is as wide as its box.
  drawn.forEach(each => each.begin());
  $("soak-key").append(...marks());
  kinds(found.sides);
  ends(found);
}

// The base has everything, so there are no misses to count.
const canMiss = side => side.side !== "base";

// At least as much, with few digits: a mark on an axis, or its end.
function nice(value, steps) {
  const power = 10 ** Math.floor(Math.log10(value));
  return steps.map(times => times * power).find(step => step >= value * 0.999) || value;
}

function panel(side, top) {
  const box = make("div"), picture = make("div"), told = make("p", "\u00a0", {class: "told", "aria-live": "polite"});
  const all = side.sum, lost = number(all.unanswered) + " unanswered; " + number(all.lost) + " of " + plural(all.stretches, "stretch") + " lost.";
  const rate = all.per_million === null ? "" : ", " + all.per_million.toFixed(1) + " per million requests";
  box.append(make("h3", side.side + ": " + plural(all.requests, "request") + " in " + side.minutes.toFixed(1) + " minutes, " + plural(side.guests.length, "guest")),
    make("p", (canMiss(side) ? plural(all.misses, "miss") + rate + "; " : "") + lost));
  if (!side.stretches.length) {
    box.append(make("p", "Nothing was answered."));
    return {box, begin: () => {}};
  }
  box.append(picture, told, course(side), oneByOne(side));
  let width = 0;
  const paint = () => {
    const now = Math.max(260, Math.round(picture.clientWidth || 900));
    if (now === width) return;
    width = now;
    picture.replaceChildren(draws(side, top, width, told));
  };
  return {box, begin: () => { paint(); new ResizeObserver(paint).observe(picture); }};
}

function draws(side, top, W, told) {
  const lanes = side.kinds.map(kind => kind[0]), H = TOP + lanes.length * LANE + FOOT, last = side.stretches[side.stretches.length - 1];
  const end = Math.max(last[AT] + last[LASTS], 1), x = at => LEFT + (W - LEFT - 12) * at / end;
  const y = s => TOP + lanes.indexOf(s[KIND]) * LANE + LANE - 6 - (LANE - 12) * s[RATE] / top;
  const spot = s => [x(s[AT] + s[LASTS] / 2), y(s)];
  const image = svg("svg", {viewBox: `0 0 ${W} ${H}`, width: "100%", role: "img", tabindex: "0", class: "lanes",
    "aria-label": side.side + ": requests per second over " + minute(end) + " minutes, a lane each for " + lanes.join(", ") + ". Left and right arrow, Home and End go from stretch to stretch."});
  axes(image, lanes, top, W, H, end, x);
  for (const lane of lanes) lines(image, side.stretches.filter(s => s[KIND] === lane), SHADE[side.side], spot);
  falls(image, side, x, W, H);
  walk(image, side, spot, told, H);
  return image;
}

function axes(image, lanes, top, W, H, end, x) {
  const step = nice(end / 60 / (W < 480 ? 4 : 7), [1, 2, 5, 10]), foot = H - FOOT;
  lanes.forEach((name, i) => {
    const low = TOP + (i + 1) * LANE - 6;
    image.append(svg("line", {x1: LEFT, x2: W - 12, y1: low, y2: low, stroke: "var(--line)"}), svg("text", {x: 0, y: low - LANE / 2 + 10, class: "lane"}, name));
  });
  image.append(svg("text", {x: 0, y: 11}, "each lane from 0 to " + number(top) + " requests/s"));
  for (let at = 0; at <= end / 60 * 1.0001 && step > 0; at += step) {
    image.append(svg("line", {x1: x(at * 60), x2: x(at * 60), y1: foot - 2, y2: foot + 3, stroke: "var(--dim)"}), svg("text", {x: x(at * 60), y: foot + 15, "text-anchor": "middle"}, String(+at.toPrecision(6))));
  }
  image.append(svg("text", {x: (W + LEFT) / 2, y: H - 4, "text-anchor": "middle"}, "minutes"));
}

// A line for each guest: what is between two of them is no time of load.
function lines(image, stretches, colour, spot) {
  let line = "", dots = "", open = "", gone = "", guest = 0;
  for (const s of stretches) {
    const [x, y] = spot(s);
    line += (s[GUEST] === guest ? "L" : "M") + x + " " + y;
    guest = s[GUEST];
    if (s[LOST]) gone += cross(x, y);
    else dots += `M${x} ${y}h.01`;
    if (s[UNANSWERED]) open += ring(x, y);
  }
  const put = (d, colour, width, more) => { if (d) image.append(svg("path", {d, fill: "none", stroke: colour, "stroke-width": width, ...more})); };
  put(line, colour, 1, {opacity: 0.45});
  put(dots, colour, 3.4, {"stroke-linecap": "round"});
  put(open, "var(--freed)", 1.5);
  put(gone, MISSED, 2);
}

// Where guests went down, through all lanes.
function falls(image, side, x, W, H) {
  let free = 0;
  side.guests.forEach(([at, , misses, problem], i) => {
    if (!problem) return;
    const line = svg("line", {x1: x(at), x2: x(at), y1: TOP - 2, y2: H - FOOT, stroke: MISSED, "stroke-width": 1.5, "stroke-dasharray": misses ? "none" : "4 3"});
    line.append(svg("title", {}, "guest " + (i + 1) + ", minute " + minute(at) + ": " + problem));
    image.append(line);
    if (x(at) < free) return;
    free = x(at) + 22;
    image.append(svg("text", {x: x(at), y: TOP - 4, "text-anchor": "middle", class: "fell"}, String(i + 1)));
  });
}

// The mouse and the arrows choose a stretch; what it was is told below.
function walk(image, side, spot, told, H) {
  const all = side.stretches, cursor = svg("path", {fill: "none", stroke: "var(--fg)"});
  let chosen = -1;
  image.append(cursor);
  const choose = i => {
    chosen = Math.min(Math.max(i, 0), all.length - 1);
    const [x, y] = spot(all[chosen]);
    cursor.setAttribute("d", `M${x} ${TOP}V${y - 5}M${x} ${y + 5}V${H - FOOT}` + ring(x, y));
    told.textContent = sentence(all[chosen]);
  };
  image.addEventListener("keydown", event => {
    const to = {ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: all.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to);
  });
  image.addEventListener("mousemove", event => {
    const box = image.getBoundingClientRect(), at = (event.clientX - box.left) * image.viewBox.baseVal.width / box.width;
    let low = 0, high = all.length - 1;
    while (low < high) { const middle = (low + high) >> 1; if (spot(all[middle])[0] < at) low = middle + 1; else high = middle; }
    choose(low && at - spot(all[low - 1])[0] < spot(all[low])[0] - at ? low - 1 : low);
  });
}

function sentence(s) {
  const answered = s[LOST] ? "lost after " + s[LASTS].toFixed(1) + " s: " + s[LOST] : plural(s[REQUESTS], "request") + " in " + s[LASTS].toFixed(1) + " s, " + number(s[RATE]) + " a second";
  return "minute " + minute(s[AT]) + ", guest " + s[GUEST] + ", " + s[KIND] + ": " + answered + (s[UNANSWERED] ? "; " + number(s[UNANSWERED]) + " unanswered" : "");
}

function marks() {
  const shapes = [[ring(8, 7), "var(--freed)", "requests unanswered"], [cross(8, 7), MISSED, "lost as a whole"],
    ["M8 0V14", MISSED, "the guest went down: it missed something"], ["M8 0V4M8 7V11", MISSED, "the guest went down otherwise"]];
  return shapes.map(([d, colour, text]) => {
    const entry = make("span"), image = svg("svg", {width: 16, height: 14, "aria-hidden": "true"});
    image.append(svg("path", {d, fill: "none", stroke: colour, "stroke-width": 2}));
    entry.append(image, text);
    return entry;
  });
}

function course(side) {
  const all = side.sum, few = row => canMiss(side) ? row : row.filter((_, i) => i !== 2 && i !== 3);
  const row = ([from, requests, misses, rate, ...rest]) => few([from, requests, misses, rate === null ? "\u2013" : rate.toFixed(1), ...rest]);
  return table(few(["from minute", "requests", "misses", "per million", "unanswered", "lost"]),
    [...side.parts.map(([from, ...rest]) => row([from.toFixed(1), ...rest])), row(["all", all.requests, all.misses, all.per_million, all.unanswered, all.lost])]);
}

// Made when somebody opens it.
function oneByOne(side) {
  const box = make("details");
  box.append(make("summary", "Stretches one by one"));
  box.addEventListener("toggle", () => {
    if (box.children.length > 1) return;
    box.append(table(["from minute", "guest", "trouble", "requests", "requests/s", "unanswered", "lost"],
      side.stretches.map(s => [minute(s[AT]), s[GUEST], s[KIND], s[REQUESTS], s[LOST] ? "\u2013" : s[RATE], s[UNANSWERED], s[LOST] || ""]), [0, 2, 6]));
  });
  return box;
}

// Each kind once, its kernels below one another.
function kinds(sides) {
  const names = [...new Set(sides.flatMap(side => side.kinds.map(kind => kind[0])))], most = Math.max(...sides.flatMap(side => side.kinds.map(kind => kind[3])), 1);
  const rows = names.flatMap(name => sides.flatMap(side => side.kinds.filter(kind => kind[0] === name).map(([, stretches, requests, rate, unanswered, lost]) =>
    [name, side.side, stretches, requests, rate, unanswered, lost, meter(rate, most, SHADE[side.side])])));
  $("soak-kinds").append(make("h3", "By trouble"), table(["stretches", "kernel", "number", "requests", "requests/s", "unanswered", "lost", ""], rows, [0, 1]));
}

function ends(found) {
  const name = (side, i) => make("span", side.side + " " + (i + 1), {class: "verdict"});
  const fell = found.sides.flatMap(side => side.guests.map(([at, requests, , problem], i) => [name(side, i), minute(at), requests, problem])).filter(row => row[3]);
  if (found.missed.length) $("soak-missed").append(make("h3", "What was missed"), table(["function", "object", "called by", "while", "guests"], found.missed, [0, 1, 2, 3]));
  if (fell.length) $("soak-ends").append(make("h3", "Guests that went down"), table(["guest", "minute", "requests", "how"], fell, [0, 3]));
}
