"""The grid's page in a real browser: what it says of each cell, hostile names, keys, colours, print."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from prune.grid.page import grid_page
from tests.page.made_up_grid import COLUMNS, FAILED, made_up_grid
from tests.page.test_page import browse

HOSTILE = "</script><img src=x onerror=document.title='broken'>, \"quoted\""
pytestmark = pytest.mark.kernel  # It needs a browser, as the others need QEMU.

# What a person does, done in the page; what came of it is left in the document.
ACTS = """
const seen = {errors: window.seenErrors, title: document.title, images: document.images.length};
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
const at = label => MEASURES.findIndex(measure => measure.label === label);
const rowOf = (label, name) => document.querySelector(`#charts li[data-m="${at(label)}"][data-k="${KERNELS.findIndex(k => k.name === name)}"]`);
const names = label => [...document.querySelectorAll(`#charts li[data-m="${at(label)}"] .name`)].map(n => n.textContent);
const choose = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event("change")); };
const wide = (label, name) => rowOf(label, name).querySelector(".fill").getBoundingClientRect().width;
seen.headings = [...document.querySelectorAll("h2")].map(h => h.textContent);
seen.links = [...document.querySelectorAll("#kernel-table a")].map(a => a.getAttribute("href"));
seen.failed = rowOf("text, bytes", "pruned on full LTO").textContent;
seen.failedBars = rowOf("text, bytes", "pruned on full LTO").querySelectorAll("i").length;
seen.nowhere = $("measure-" + at("indirect-call targets")).textContent;
seen.text = rowOf("text, bytes", "pruned (gcc)").textContent;
seen.share = wide("text, bytes", "pruned (gcc)") / wide("text, bytes", "gcc");
seen.whiskers = [rowOf("text, bytes", "gcc"), rowOf("link, s", "gcc")].map(r => r.querySelectorAll(".whisker").length);
seen.verdicts = {};
for (const [label, name] of CASES) seen.verdicts[label + " " + name] = verdict(at(label), KERNELS.findIndex(k => k.name === name))[0];
const dots = name => rowOf("latency p99, of its base", name).querySelector(".dot").style.left;
seen.dots = [parseFloat(dots("gcc+gc")), parseFloat(dots("by the block (gcc)"))];
seen.listed = names("requests per second");
choose("order", "best"); seen.best = names("requests per second"); seen.bestText = names("text, bytes"); choose("order", "listed");
choose("base", "2"); seen.base2 = rowOf("text, bytes", "pruned (clang)").textContent; seen.glance2 = $("glance-words").textContent;
const first = document.querySelector("#charts .rows li"); first.focus(); first.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
press("ArrowDown"); press("ArrowDown"); seen.third = document.activeElement.dataset.k;
press("ArrowRight"); seen.moved = [document.activeElement.dataset.m, document.activeElement.dataset.k];
press("ArrowLeft"); press("Home"); press("Enter"); seen.entered = $("base").value; seen.kept = document.activeElement.dataset.k;
press("End"); press("ArrowUp"); seen.tip = $("tip").textContent; seen.tipShown = !$("tip").hidden;
press("Escape"); seen.tipGone = $("tip").hidden;
seen.stops = [...document.querySelectorAll("#charts .rows")].map(list => list.querySelectorAll("li[tabindex='0']").length);
$("shown-2").click(); seen.fewer = names("text, bytes").length; $("shown-2").click();
const sortButton = () => document.querySelector(`[data-sort="0 ${at("text, bytes")}"]`), firstRow = () => document.querySelector(".numbers tbody th").textContent;
sortButton().click(); seen.smallest = firstRow(); seen.sorted = sortButton().parentNode.getAttribute("aria-sort");
sortButton().click(); seen.largest = firstRow();
seen.csv = csvTable(); seen.csvAll = csvAll();
const light = getComputedStyle(document.body).backgroundColor;
$("theme").click(); seen.themes = [light, getComputedStyle(document.body).backgroundColor];
seen.wider = document.documentElement.scrollWidth - innerWidth;
seen.requests = performance.getEntriesByType("resource").length;
seen.nodes = document.querySelectorAll("*").length;
const out = document.createElement("pre");
out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
"""  # noqa: E501
CASES = {
    ("text, bytes", "gcc"): "base",
    ("text, bytes", "pruned (gcc)"): "better",
    ("text, bytes", "clang full LTO"): "worse",
    ("bss, bytes", "clang full LTO"): "same",  # but for less than 0.05%
    ("boots", "pruned (gcc)"): "same",
    ("left when booted, KiB", "pruned (gcc)"): "better",
    ("boot to ready, s", "clang"): "unsure",
    ("boot to ready, s", "pruned (gcc)"): "better",
    ("build, s", "clang"): "maybe-worse",  # one sample
    ("link, s", "pruned (gcc)"): "worse",
    ("requests per second, of its base", "pruned (gcc)"): "unsure",
    ("requests per second, of its base", "pruned on ThinLTO"): "better",
    ("requests per second, of its base", "by the block (gcc)"): "worse",
    ("latency p99, of its base", "by the block (gcc)"): "worse",
    ("text, bytes", "pruned on full LTO"): "",
}


def look(folder: Path, value: dict[str, Any], acts: str, *words: str) -> dict[str, Any]:
    catcher = "<script>window.seenErrors=[];window.onerror=(m)=>window.seenErrors.push(m);</script>"
    page = grid_page(value).replace("<style>", f"{catcher}<style>", 1)
    dom = browse(folder, page.replace("</body>", f"<script>{acts}</script></body>"), "--dump-dom", *words)
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)
    assert found, dom[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    cases = f"const CASES = {json.dumps([list(case) for case in CASES])};"
    return look(tmp_path_factory.mktemp("grid"), made_up_grid(), cases + ACTS)


def test_everything_is_there_and_nothing_went_wrong(seen: dict[str, Any]) -> None:
    assert seen["errors"] == [] and seen["requests"] == 0 and seen["nodes"] < 6000
    assert seen["headings"] == [
        "Kernels", "At a glance", "Sizes", "Memory", "Speed", "Cost", "Attack surface", "Every number",
    ]  # fmt: skip
    assert seen["wider"] <= 0, "the page itself does not scroll sideways"


def test_each_kernel_leads_to_the_report_of_its_run(seen: dict[str, Any]) -> None:
    assert len(seen["links"]) == len(COLUMNS) - 1 and seen["links"][0] == "gcc/report.html"
    assert "gcc-block/report.html" in seen["links"]


def test_bars_are_as_long_as_their_values_and_say_them(seen: dict[str, Any]) -> None:
    assert seen["share"] == pytest.approx(1027551 / 3005508, abs=0.01)
    assert "1,027,551\u00a0B" in seen["text"] and "\u221265.8%" in seen["text"]
    assert seen["whiskers"] == [0, 1]


def test_what_was_not_measured_is_said_and_not_drawn(seen: dict[str, Any]) -> None:
    assert f"not measured: {FAILED}" in seen["failed"] and seen["failedBars"] == 0
    assert "not measured: not looked at" in seen["nowhere"]


def test_a_difference_is_claimed_only_when_intervals_allow(seen: dict[str, Any]) -> None:
    assert seen["verdicts"] == {" ".join(case): kind for case, kind in CASES.items()}


def test_ratios_lie_on_both_sides_of_one(seen: dict[str, Any]) -> None:
    less, more = seen["dots"]
    assert 40 < less < 50 < more < 100


def test_the_order_is_fixed_unless_asked_for(seen: dict[str, Any]) -> None:
    assert seen["listed"] == list(COLUMNS)
    assert seen["best"][0] == "pruned on ThinLTO" and seen["bestText"][0] == "by the block (gcc)"
    assert seen["best"][-1] == seen["bestText"][-1] == "pruned on full LTO", "what is missing never wins"


def test_another_base_changes_what_is_compared(seen: dict[str, Any]) -> None:
    assert "\u221266.2%" in seen["base2"] and "against clang," in seen["glance2"]


def test_keys_move_choose_and_tell(seen: dict[str, Any]) -> None:
    assert seen["third"] == "2" and seen["moved"] == ["1", "2"]
    assert (seen["entered"], seen["kept"]) == ("0", "0")
    assert seen["tipShown"] and FAILED in seen["tip"] and seen["tipGone"]
    assert set(seen["stops"]) == {1}


def test_kernels_can_be_left_out_and_tables_sorted(seen: dict[str, Any]) -> None:
    assert seen["fewer"] == len(COLUMNS) - 1
    assert (seen["smallest"], seen["sorted"]) == ("by the block (gcc)", "ascending")
    assert seen["largest"] == "clang full LTO"


def test_csv_has_everything(seen: dict[str, Any]) -> None:
    rows = seen["csv"].split("\r\n")
    assert rows[0].startswith('kernel,"text, bytes",') and rows[1].startswith("gcc,3005508,")
    assert f'"text, bytes",pruned on full LTO,,,,0,"{FAILED}"' in seen["csvAll"]
    assert '"link, s",gcc,5,4.8,5.2,5,' in seen["csvAll"]


def test_light_and_dark_differ(seen: dict[str, Any]) -> None:
    assert len(set(seen["themes"])) == 2


def test_hostile_names_and_reasons_are_text(tmp_path: Path) -> None:
    value = made_up_grid()
    value |= {"workload": HOSTILE, "kernel": {"version": HOSTILE}, "command": [HOSTILE]}
    cell = {"value": None, "low": None, "high": None, "n": 0, "why": HOSTILE}
    value["columns"][HOSTILE] = {HOSTILE: cell, "text, bytes": {**cell, "value": 1e999}}
    acts = """const seen = {errors: window.seenErrors, title: document.title, images: document.images.length,
      told: $("charts").textContent, csv: csvAll()};
    for (const node of document.querySelectorAll("[data-m]")) showTip(node);
    copy("text"); seen.imagesAfter = document.images.length;
    const out = make("pre", JSON.stringify(seen), {id: "seen"}); document.body.append(out);"""
    seen = look(tmp_path, value, acts)
    assert seen["errors"] == [] and (seen["images"], seen["imagesAfter"]) == (0, 0)
    assert HOSTILE in seen["title"] and HOSTILE in seen["told"]
    assert '"' + HOSTILE.replace('"', '""') + '"' in seen["csv"]


def test_a_grid_of_one_kernel_and_no_number_is_a_page(tmp_path: Path) -> None:
    value = made_up_grid() | {
        "columns": {"clang": {"boots": {"value": None, "why": "no clang"}}, "gcc": {}},
    }
    acts = """const seen = {errors: window.seenErrors, base: $("base").value, told: $("charts").textContent};
    document.body.append(make("pre", JSON.stringify(seen), {id: "seen"}));"""
    seen = look(tmp_path, value, acts)
    assert seen["errors"] == [] and seen["base"] == "1" and "no clang" in seen["told"]


def test_levels_of_optimisation_can_be_looked_at_alone(tmp_path: Path) -> None:
    value = made_up_grid()
    value["columns"] |= {f"{name} -O2": rows for name, rows in value["columns"].items()}
    acts = """const seen = {errors: window.seenErrors, only: [...$("only").children].map(b => b.textContent)};
      const first = () => [...document.querySelector(".rows").querySelectorAll(".name")];
      seen.cut = first().filter(n => n.scrollWidth > n.clientWidth).length;
      $("only").children[2].click(); seen.shown = first().map(n => n.textContent);
      document.body.append(make("pre", JSON.stringify(seen), {id: "seen"}));"""
    seen = look(tmp_path, value, acts)
    assert seen["errors"] == [] and seen["only"] == ["Show all", "Only as configured", "Only -O2"]
    assert seen["shown"] == [f"{name} -O2" for name in COLUMNS] and seen["cut"] == 0


def test_it_prints(tmp_path: Path) -> None:
    browse(tmp_path, grid_page(made_up_grid()), f"--print-to-pdf={tmp_path / 'grid.pdf'}")
    assert (tmp_path / "grid.pdf").read_bytes()[:5] == b"%PDF-"
