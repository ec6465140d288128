"""The page in a real browser: 60,000 units, hostile names, mouse and keyboard, light and dark, print."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from prune.ledger.ledger import KINDS
from prune.report.page import as_script, make_page
from tests.page.made_up_soak import made_up_soaks

UNITS = 60_000
HOSTILE = "</script><img src=x onerror=document.title='broken'>\u2028"
pytestmark = pytest.mark.kernel  # It needs a browser, as the others need QEMU.


def data(units: int) -> dict[str, Any]:
    dice = random.Random(1)
    objects = [f"d{i % 17}/s{i % 41}/f{i}.o" for i in range(1500)]
    base = [dice.randint(1, 3000) for _ in range(units)]
    fate = [dice.randint(0, 2) for _ in range(units)]
    columns = {
        "object": [i % len(objects) for i in range(units)],
        "section": [f".text.function_{i}" for i in range(units)],
        "name": [HOSTILE if i == 7 else f"function_{i}" for i in range(units)],
        "base": base,
        "pruned": [size if kept else 0 for size, kept in zip(base, fate, strict=True)],
        "fate": fate,
        "moved": [int(each == 2) for each in fate],
        "kind": [0] * units,
        "reason": list(fate),
        "cause": [int(not each) for each in fate],
        "apps": [dice.randint(0, 7) for _ in range(units)],
    }
    return {
        "meta": {"workload": HOSTILE, "facts": ["Linux", HOSTILE], "text": [100, 50], "trace": "saturated"},
        "sizes": [["text", 100, 50]], "apps": ["boot", "start", "web"], "kinds": list(KINDS),
        "units": columns, "objects": objects, "reasons": ["cold", "ran: web", "ran: boot"],
        "causes": ["", "cold function"],
        "runs": [{"name": name, "source": "blocks", "new": new} for name, new in (("one", 10), ("two", 1))],
        "boots": [{"number": 1, "variation": HOSTILE, "seconds": 2.0, "problem": ""}],
        "said": {
            "runs": 3, "boots": 2, "new": [{"text": f"only it says {HOSTILE}", "boots": 2}],
            "missing": [{"text": "rcu: 7 callbacks", "boots": 3}],
        },
        "log": f"booting\n{HOSTILE}\ndone",
        "minram": {
            "sides": ["base", "pruned"], "apps": [HOSTILE], "smallest": [8 << 20, 4 << 20],
            "rows": [["text", 6 << 20, 1 << 20], ["free", 2 << 20, 3 << 20]],
        },
        "security": {
            "offers": [["system calls, 64 bit", 300, 80], ["gadgets", 50_000, 20_000]],
            "calls": [*(["c", 64, 10, None, 20, None] for _ in range(400)), [HOSTILE, 64, 10, 5, 20, 10]],
            "cves": [["CVE-1", "gone", HOSTILE, HOSTILE], ["CVE-2", HOSTILE, "f: unknown", ""]],
        },
        "holdout": {
            "outcomes": ["same output", "hang"],
            "kernels": [["--keep ran", 100, [3, 1]], ["--keep reachable", 300, [4, 0]]],
            "programs": [*([f"p{i}", "same output", "hang", ""] for i in range(200)), ["q", *[HOSTILE] * 3]],
        },
        "soak": made_up_soaks(HOSTILE),
    }  # fmt: skip


# What a person does, done in the page; what came of it is left in the document.
ACTS = """
const seen = {errors: window.seenErrors, nodes: document.querySelectorAll("*").length};
const press = (key, on) => (on || document.activeElement).dispatchEvent(
  new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
seen.headings = [...document.querySelectorAll("h2")].map(h => h.textContent);
press("/", document.body);
seen.focused = document.activeElement.id;
$("search").value = "function_4242"; $("search").dispatchEvent(new Event("input"));
seen.first = $("hits").firstChild.textContent;
seen.hits = $("hits").children.length;
$("hits").firstChild.click();
seen.detail = $("detail").textContent;
seen.crumbs = $("crumbs").textContent;
seen.hash = location.hash;
$("search").value = "function"; $("search").dispatchEvent(new Event("input"));
seen.most = $("hits").children.length;
go(ROOT); canvas.focus();
press("ArrowRight"); seen.chosen = chosen; press("Enter"); seen.inside = here.path.length;
press("Escape"); seen.outside = here.path.length;
const box = canvas.getBoundingClientRect();
canvas.dispatchEvent(new MouseEvent("click", {clientX: box.left + 5, clientY: box.top + 5, bubbles: true}));
seen.clicked = here.path.length;
const light = getComputedStyle(document.body).backgroundColor;
$("theme").click();
seen.themes = [light, getComputedStyle(document.body).backgroundColor];
seen.requests = performance.getEntriesByType("resource").length;
seen.title = document.title;
seen.nodesAfter = document.querySelectorAll("*").length;
seen.tiles = tiles.length;
seen.painted = new Set(pen.getImageData(0, 0, canvas.width, canvas.height).data).size;
seen.answering = document.querySelector("#call-box summary").textContent;
document.querySelector("#call-box details").dispatchEvent(new Event("toggle"));
seen.callRows = document.querySelectorAll("#call-box tbody tr").length;
seen.firstCall = document.querySelector("#call-box tbody td").textContent;
seen.holes = $("hole-box").textContent;
seen.held = $("held-bars").textContent;
seen.said = $("said").textContent;
document.querySelector("#held-programs details").dispatchEvent(new Event("toggle"));
seen.heldRows = document.querySelectorAll("#held-programs tbody tr").length;
seen.soakHidden = [$("soak-section").hidden, $("soak-link").hidden];
seen.soak = $("soak-section").textContent;
const lanes = document.querySelectorAll(".lanes"), told = document.querySelectorAll(".told");
seen.lanes = [...lanes].map(each => each.getAttribute("aria-label"));
seen.drawn = lanes[1].querySelectorAll("*").length;
lanes[1].focus(); press("ArrowRight"); press("ArrowRight"); seen.told = [told[1].textContent];
press("ArrowLeft"); press("ArrowLeft"); seen.told.push(told[1].textContent);
press("End"); seen.told.push(told[1].textContent);
const from = lanes[1].getBoundingClientRect().left;
lanes[1].dispatchEvent(new MouseEvent("mousemove", {clientX: from + 1, bubbles: true}));
seen.told.push(told[1].textContent);
seen.fits = [...lanes].every(each => each.getBoundingClientRect().right <= innerWidth);
document.querySelectorAll("#soak-sides details")[1].dispatchEvent(new Event("toggle"));
seen.stretches = document.querySelectorAll("#soak-sides details")[1].textContent;
seen.stretchRows = document.querySelectorAll("#soak-sides details tbody tr").length;
const out = document.createElement("pre");
out.id = "seen"; out.textContent = JSON.stringify(seen); document.body.append(out);
"""


def browse(folder: Path, page: str, *words: str) -> str:
    browser = shutil.which("chromium")
    assert browser, "apt-get install chromium (make setup does)"
    target = folder / "page.html"
    target.write_text(page)
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--window-size=1200,900", "--virtual-time-budget=20000", *words, target.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    page = make_page(data(UNITS))
    catcher = "<script>window.seenErrors=[];window.onerror=(m)=>window.seenErrors.push(m);</script>"
    page = page.replace("<style>", f"{catcher}<style>", 1).replace(
        "</body>", f"<script>{ACTS}</script></body>"
    )
    dom = browse(tmp_path_factory.mktemp("page"), page, "--dump-dom")
    found = re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)
    assert found, dom[-2000:]
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    value: dict[str, Any] = json.loads(text)
    return value


def test_everything_is_there_and_nothing_went_wrong(seen: dict[str, Any]) -> None:
    assert seen["errors"] == [] and seen["requests"] == 0
    assert len(seen["headings"]) == 10
    assert seen["tiles"] > 5 and seen["painted"] > 20


def test_search_finds_a_function_and_says_why(seen: dict[str, Any]) -> None:
    assert seen["focused"] == "search"
    assert seen["first"].startswith("function_4242 ") and seen["hits"] >= 1
    assert "why" in seen["detail"] and ("cold" in seen["detail"] or "ran: " in seen["detail"])
    assert seen["crumbs"].count(" / ") == 3 and seen["hash"] == "#q=function_4242"


def test_mouse_and_keyboard_go_in_and_out(seen: dict[str, Any]) -> None:
    assert (seen["chosen"], seen["inside"], seen["outside"], seen["clicked"]) == (0, 1, 0, 1)


def test_system_calls_and_holes_are_shown(seen: dict[str, Any]) -> None:
    """Those that answer come first; all rows are made when somebody asks."""
    assert "1 of 401 answer" in seen["answering"] and seen["callRows"] == 401
    assert seen["firstCall"].startswith("</script>")
    assert "--keep reachable: 300 bytes of text" in seen["held"] and "75%" in seen["held"]
    assert seen["heldRows"] == 201
    assert "CVE-1gone</script>" in seen["holes"] and "f: unknown" in seen["holes"]


def test_a_soak_is_drawn(seen: dict[str, Any]) -> None:
    """A lane for each trouble, few elements; what was missed and how guests ended in words."""
    assert seen["soakHidden"] == [False, False] and seen["fits"]
    assert [label.partition(":")[0] for label in seen["lanes"]] == ["base", "pruned"]
    assert all("calm, storm, fill, kill, memory, loss, clock" in label for label in seen["lanes"])
    assert seen["drawn"] < 100
    assert "3 misses, " in seen["soak"] and "oom_kill_processmm/oom_kill.oout_of_memorynginx2" in seen["soak"]
    assert f"nothing was heard of the guest for 60 seconds {HOSTILE}" in seen["soak"]


def test_stretches_of_a_soak_are_told_one_by_one(seen: dict[str, Any]) -> None:
    second, first, last, pointed = seen["told"]
    assert second.startswith("minute 0.2, guest 1, storm: ") and " a second; " in second
    assert first.startswith("minute 0.0, guest 1, calm: ") and first == pointed
    assert ", guest 5, " in last and seen["stretchRows"] == 340
    assert f"Connection reset by peer {HOSTILE}" in seen["stretches"]


def test_without_a_soak_there_is_no_such_section(tmp_path: Path) -> None:
    dom = browse(tmp_path, make_page(data(2000) | {"soak": None}), "--dump-dom")
    assert re.search(r'<a href="#soak" id="soak-link" hidden', dom)
    assert re.search(r'<section [^>]*id="soak-section" hidden', dom)
    # What is drawn after it is there.
    assert '<td class="text">ran the whole workload</td>' in dom


def test_what_only_one_kernel_says_is_shown(seen: dict[str, Any]) -> None:
    assert "3 runs of the whole kernel and 2 boots" in seen["said"]
    assert "only it says </script>" in seen["said"] and "rcu: 7 callbacks" in seen["said"]


def test_light_and_dark_differ(seen: dict[str, Any]) -> None:
    assert len(set(seen["themes"])) == 2


def test_sixty_thousand_units_are_few_elements(seen: dict[str, Any]) -> None:
    assert seen["most"] <= 100 and seen["nodes"] < 1500 and seen["nodesAfter"] < 3000


def test_a_hostile_name_is_text(seen: dict[str, Any]) -> None:
    assert HOSTILE.replace("\u2028", "") in seen["title"].replace("\u2028", "")


def test_it_prints(tmp_path: Path) -> None:
    browse(tmp_path, make_page(data(2000)), f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"


def test_no_name_can_end_the_script() -> None:
    text = as_script({"name": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text) and json.loads(text) == {"name": HOSTILE}
