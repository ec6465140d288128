"""``kprune security``: its tables, and what it refuses before it measures anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune.commands.security import CALL_HEAD, CVE_HEAD, call_rows, cve_rows, table
from prune.security.exposure import read_exposure
from prune.settings import Settings
from tracer.host import UserError

KPRUNE = Path(sys.executable).with_name("kprune")


def kernel(count: int, **calls: int) -> dict[str, Any]:
    amounts = {"functions": count, "bytes": 10 * count}
    return {
        "system_calls": calls, "gadgets": count, "indirect_targets": count, "functions": amounts,
        "reachable": dict.fromkeys(("direct", "referred", "pointers"), amounts),
    }  # fmt: skip


def behind(count: int) -> dict[str, Any]:
    return {how: {"functions": count * n, "bytes": count} for n, how in ((1, "direct"), (2, "referred"))}


def piece(object: str, state: str) -> dict[str, Any]:
    gone = state == "gone"
    return {"symbol": "f.isra.0", "object": object, "state": state, "base": 9, "pruned": 0 if gone else 9}


RESULT: dict[str, Any] = {
    "schema_version": 1,
    "build_id": {"base": "aa", "pruned": "bb"},
    "kernels": {"base": kernel(2000, **{"64": 2, "32": 1}), "pruned": kernel(1000, **{"64": 1, "32": 1})},
    "system_calls": [
        {"name": "bpf", "bits": 64, "entry": "__x64_sys_bpf", "base": behind(50), "pruned": None},
        {"name": "read", "bits": 64, "entry": "__x64_sys_read", "base": behind(5000), "pruned": behind(40)},
        {"name": "read", "bits": 32, "entry": "__ia32_sys_read", "base": behind(7), "pruned": behind(6)},
    ],
    "cves": [
        {"id": "CVE-1", "note": "n", "verdict": "several", "functions": [
            {"function": "f", "file": "", "state": "several", "why": "",
             "pieces": [piece("a.o", "gone"), piece("b.o", "present")]},
            {"function": "g", "file": "x.c", "state": "unknown", "why": "no name", "pieces": []}]},
    ],
}  # fmt: skip


def test_the_table_has_sums_calls_that_answer_and_holes() -> None:
    lines = table(RESULT).splitlines()
    assert lines[1].split() == ["system", "calls,", "64", "bit", "2", "1"]
    assert lines[2].split() == ["system", "calls,", "32", "bit", "1", "1"]
    (wide, narrow) = (line for line in lines if line.startswith("read ("))
    assert wide.split() == ["read", "(64", "bit)", "5,000", "40", "10,000", "80"]
    assert narrow.split()[1] == "(32" and not any(line.startswith("bpf") for line in lines)
    assert lines[-1].split(maxsplit=2) == [
        "CVE-1", "several", "f: several (a.o: gone, b.o: present); g: unknown (no name)",
    ]  # fmt: skip
    assert not table({**RESULT, "cves": None}).endswith("\n")


def test_rows_for_programs_have_all_of_it() -> None:
    head, bpf, read, _ = call_rows(RESULT)
    assert tuple(head) == CALL_HEAD and {len(bpf), len(read)} == {len(head)}
    assert bpf == ["bpf", 64, "__x64_sys_bpf", 50, 50, 100, 50, "", "", "", ""]
    head, gone, _, unknown = cve_rows(RESULT)
    assert tuple(head) == CVE_HEAD
    assert gone == ["CVE-1", "several", "f", "", "gone", "f.isra.0", "a.o", 9, 0]
    assert unknown == ["CVE-1", "several", "g", "x.c", "unknown", "", "", "", ""]


def test_what_the_page_shows_is_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "security.json"
    path.write_text(json.dumps(RESULT))
    identities, shown = read_exposure(path)
    assert identities == {"base": "aa", "pruned": "bb"}
    assert shown["calls"][0] == ["bpf", 64, 50, None, 100, None]
    assert shown["offers"][-1] == ["indirect-call targets", 2000, 1000]
    path.write_text(json.dumps({**RESULT, "cves": [1]}))
    with pytest.raises(UserError, match=r"security\.json: .*kprune security"):
        read_exposure(path)


def test_a_bad_list_and_a_folder_without_a_run_are_exit_2(tmp_path: Path) -> None:
    Settings(workload=tmp_path / "w", out=tmp_path).save()
    bad = tmp_path / "bad.toml"
    bad.write_text("cve = 3")
    for words, said in (
        ([tmp_path, "--cves", bad], "reading the list of CVEs"),
        ([tmp_path, "--cves", tmp_path / "none"], "reading the list of CVEs"),
        ([tmp_path / "nothing"], "run.json does not exist"),
        ([tmp_path], "workload"),
        ([tmp_path, "--json", "--csv"], "not allowed with"),
    ):
        done = subprocess.run(
            [KPRUNE, "security", *map(str, words)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
        assert "Traceback" not in done.stderr
