"""``kprune security`` on a finished run, against what binutils say of both kernels."""

from __future__ import annotations

import bisect
import csv
import io
import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from tests.kernel.runs import ROOT, kprune

pytestmark = pytest.mark.kernel
LIST = ROOT / "examples/micro/cves.toml"
SIDES = ("base", "pruned")


@pytest.fixture(scope="module")
def out(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: the report of a run would be another with security.json."""
    return Path(shutil.copytree(micro, tmp_path_factory.mktemp("security") / "run"))


@pytest.fixture(scope="module")
def found(out: Path) -> Any:
    said = json.loads(kprune("security", out, "--cves", LIST, "--json").stdout)
    assert said == json.loads((out / "security.json").read_text())
    return said


def printed(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def symbols(vmlinux: Path) -> list[tuple[int, str, str]]:
    rows = (line.split() for line in printed("nm", "-n", vmlinux).splitlines())
    return [(int(row[0], 16), row[1], row[2]) for row in rows if len(row) == 3]


def test_system_calls_that_answer_have_an_entry_of_their_own(out: Path, found: Any) -> None:
    for side in SIDES:
        at = {name: (value, kind) for value, kind, name in symbols(out / side / "vmlinux")}
        refusing = at["__x64_sys_ni_syscall"][0]
        answers = {call["entry"] for call in found["system_calls"] if call[side]}
        assert all(at[entry][0] != refusing and at[entry][1] == "T" for entry in answers)
        assert found["kernels"][side]["system_calls"] == {"64": len(answers)}
        # What is left over has an entry that nothing leads to (stat of old programs), or none.
        others = {name for name, (value, kind) in at.items() if kind == "T" and value != refusing}
        others = {name for name in others - answers if name.startswith("__x64_sys_")}
        assert len(others) == {"base": 24, "pruned": 0}[side], others
    assert {"read", "execve", "socket"} <= {c["name"] for c in found["system_calls"] if c["pruned"]}
    assert {"ptrace", "add_key"} & {c["name"] for c in found["system_calls"] if c["pruned"]} == set()


@pytest.mark.parametrize("side", SIDES)
def test_what_calls_lead_to_is_what_objdump_shows(out: Path, found: Any, side: str) -> None:
    """Targets of call and jump instructions of the linked kernel, between its symbols; each system call."""
    vmlinux = out / side / "vmlinux"
    rows = symbols(vmlinux)
    at = {name: value for value, _, name in rows}
    rows = [row for row in rows if row[1] in "tTwW"]  # tombstones are "u"
    begin, end = at["__init_begin"], at["__init_end"]
    executable = [
        range(int(address, 16), int(address, 16) + int(size, 16))
        for address, size in re.findall(
            r"PROGBITS +([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) \S+ +\w*X", printed("readelf", "-SW", vmlinux)
        )
    ]
    starts = sorted({value for value, _, _ in rows if any(value in part for part in executable)})
    graph = nx.DiGraph()
    graph.add_nodes_from(starts)
    code = printed("objdump", "-d", "--no-show-raw-insn", vmlinux)
    for here, there in re.findall(r"^([0-9a-f]+):\t(?:bnd )?(?:call|j\w+) +([0-9a-f]+) <", code, re.M):
        source, target = (starts[bisect.bisect(starts, int(place, 16)) - 1] for place in (here, there))
        graph.add_edge(source, target)
    stones = range(at.get("__kprune_tombstones_start", 0), at.get("__kprune_tombstones_end", 0) + 1)
    graph.remove_nodes_from([node for node in starts if begin <= node < end or node in stones])
    wrong = {}
    for call in found["system_calls"]:
        if call[side]:
            theirs = 1 + len(nx.descendants(graph, at[call["entry"]]))
            if theirs != call[side]["direct"]["functions"]:
                wrong[call["name"]] = theirs - call[side]["direct"]["functions"]
    # A short branch holds schedule_hrtimeout and schedule_hrtimeout_range together: they are one for kprune.
    assert set(wrong.values()) <= {1} and len(wrong) < 5, wrong


def test_sums_are_in_order(found: Any) -> None:
    for side in SIDES:
        kernel = found["kernels"][side]
        sums = [kernel["reachable"][how] for how in ("direct", "referred", "pointers")] + [
            kernel["functions"]
        ]
        for less, more in pairwise(sums):
            assert less["functions"] < more["functions"] and less["bytes"] < more["bytes"]
    base, pruned = (found["kernels"][side] for side in SIDES)
    for key in ("gadgets", "indirect_targets"):
        assert pruned[key] < base[key] / 2
    for call in found["system_calls"]:
        if call["pruned"]:
            for how in ("direct", "referred"):
                assert call["pruned"][how]["functions"] <= call["base"][how]["functions"]


def test_what_is_resident_is_what_the_report_says(out: Path, found: Any) -> None:
    report = json.loads((out / "report.json").read_text())
    for side in SIDES:
        text = report[side]["resident_text_bytes"]
        # Tombstones, assembly before the first symbol and the like have no function.
        assert 0.98 * text < found["kernels"][side]["functions"]["bytes"] <= text


def test_functions_of_cves_are_where_system_map_says(out: Path, found: Any) -> None:
    kinds = {name: kind for _, kind, name in symbols(out / "pruned" / "vmlinux")}
    holes = {hole["id"]: hole for hole in found["cves"]}
    for name, verdict in {
        "CVE-2017-7308": "gone",
        "CVE-2020-14386": "gone", "CVE-2022-0847": "present",
        "CVE-2016-5195": "present", "CVE-2022-34918": "not in base", "CVE-2016-0728": "not in base",
    }.items():  # fmt: skip
        assert holes[name]["verdict"] == verdict
    assert holes["CVE-2018-5390"]["verdict"] in ("partly", "present"), "one of its functions runs"
    base = {name for _, _, name in symbols(out / "base" / "vmlinux")}
    for hole in holes.values():
        for each in hole["functions"]:
            assert (each["state"] != "not in base") == (each["function"] in base)
            for piece in each["pieces"]:
                there = kinds.get(piece["symbol"], "u") != "u"
                assert there == (piece["state"] in ("present", "until boot"))


def test_csv_and_the_page(out: Path, found: Any, tmp_path: Path) -> None:
    given = tmp_path / "own.csv"
    given.write_text("cve,function\nX-1,packet_set_ring\nX-1,no_such_function\n")
    rows = list(csv.DictReader(io.StringIO(kprune("security", out, "--csv").stdout)))
    assert len(rows) == len(found["system_calls"])
    rows = list(csv.DictReader(io.StringIO(kprune("security", out, "--cves", given, "--csv").stdout)))
    assert [(row["state"], row["verdict"]) for row in rows] == [("gone", "unknown"), ("unknown", "unknown")]
    kprune("report", out)
    assert "no_such_function: unknown" in (out / "report.html").read_text()
    value = json.loads((out / "security.json").read_text())
    value["build_id"]["pruned"] = "00"
    (out / "security.json").write_text(json.dumps(value))
    done = kprune("report", out)
    assert "is of other kernels" in done.stderr
    assert '"security":null' in (out / "report.html").read_text()
