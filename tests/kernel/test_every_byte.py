"""Data, tables, init and boot-only code of a real kernel: what goes, what is freed; the ledger adds up."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from prune.folder import Folder
from prune.ledger.ledger import COLUMNS
from prune.run.passes import verify
from prune.run.steps import Steps
from prune.settings import load_settings
from tracer.host import GuestFailed
from tracer.profiles.profile import load_profile

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def report(micro: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((micro / "report.json").read_text())
    return value


@pytest.fixture(scope="module")
def rows(micro: Path) -> list[dict[str, Any]]:
    value = json.loads((micro / "ledger.json").read_text())
    assert tuple(value["columns"]) == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in value["rows"]]


def test_data_shrinks(report: dict[str, Any]) -> None:
    both = report["ledger"]["rodata_data_bss"]
    assert both["pruned"] <= 0.60 * both["base"]


def test_init_shrinks(report: dict[str, Any]) -> None:
    both = report["ledger"]["init"]
    assert both["pruned"] <= 0.70 * both["base"]


def test_what_only_booting_runs_is_freed(report: dict[str, Any]) -> None:
    # What chance decides is resident though booting alone ran it, or nobody; with `--chance none` it is 73%.
    assert report["pruned"]["resident_text_bytes"] <= 0.80 * report["pruned"]["text_bytes"]
    assert report["base"]["resident_text_bytes"] == report["base"]["text_bytes"]
    left = report["memory"]
    assert left["pruned"] - left["base"] > 2 << 20


@pytest.mark.parametrize("side", ["base", "pruned"])
def test_the_ledger_is_what_vmlinux_has(micro: Path, rows: list[dict[str, Any]], side: str) -> None:
    with (micro / side / "vmlinux").open("rb") as stream:
        allocated = [s for s in ELFFile(stream).iter_sections() if s["sh_flags"] & 2]
        outputs = {section.name: section["sh_size"] for section in allocated}
    assert sum(row[side] for row in rows) == sum(outputs.values())
    command = ["size", "-A", str(micro / side / "vmlinux")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in said.splitlines()]
    sizes = {line[0]: int(line[1]) for line in lines if len(line) == 3 and line[1].isdigit()}
    assert all(sizes[name] == size for name, size in outputs.items() if name in sizes)
    unknown = [row for row in rows if row["kind"] == "unattributed"]
    assert [row[side] for row in unknown] == [0]


def test_every_byte_of_the_file_is_accounted_for(micro: Path, report: dict[str, Any]) -> None:
    for side in ("base", "pruned"):
        count = report["ledger"]["file"][side]
        assert sum(count.values()) == (micro / side / "vmlinux").stat().st_size
        assert count["unattributed"] == 0 and count["loaded"] > count["symbols"] > 0


def test_every_grouping_has_the_same_total(micro: Path, rows: list[dict[str, Any]]) -> None:
    total = [sum(row["base"] for row in rows), sum(row["pruned"] for row in rows)]
    for by in ("function", "object", "directory", "section", "kind", "reason", "cause"):
        done = subprocess.run(
            [KPRUNE, "compare", micro, "--by", by, "--json"], capture_output=True, text=True, check=True
        )
        totals = json.loads(done.stdout)["totals"]
        assert [totals["before"], totals["after"]] == total, by


def test_kallsyms_has_real_names_only(micro: Path) -> None:
    stones = json.loads((micro / "pruned/tombstones.json").read_text())["tombstones"]
    names = {name for stone in stones for name in stone["names"]}
    listed = [line.split() for line in (micro / "pruned/System.map").read_text().splitlines()]
    at = {int(address, 16): kind for address, kind, name in listed if name in names and kind != "t"}
    assert set(at) == {stone["address"] for stone in stones}
    assert set(at.values()) == {"u"}  # scripts/kallsyms passes over these


def test_phases_are_told_apart(micro: Path) -> None:
    profile = load_profile(micro / "profile.json")
    apps: dict[str, set[str]] = {}
    for record in profile.functions:
        apps.setdefault(record.symbol, set()).update(f"{s.app}/{s.source}" for s in record.seen)
    assert apps["do_one_initcall"] == {"boot/blocks"}
    assert "start/blocks" in apps["run_init_process"] and "boot/blocks" not in apps["run_init_process"]
    assert "start/stack" in apps["kthreadd"]


@pytest.fixture
def copy(micro: Path, tmp_path: Path) -> Path:
    """A folder of its own, to break things in."""
    shutil.copytree(micro, tmp_path / "copy", ignore=shutil.ignore_patterns("trace", "boot", "heal"))
    settings = json.loads((tmp_path / "copy/run.json").read_text())
    (tmp_path / "copy/run.json").write_text(json.dumps({**settings, "out": str(tmp_path / "copy")}))
    return tmp_path / "copy"


def findings(out: Path) -> str:
    steps = Steps(load_settings(out))
    verdict = verify(Folder(out), steps.production.objtree, "x86_64")
    return "\n".join(finding for check in verdict.checks for finding in check.findings)


def change_fates(out: Path, change: Callable[[list[Any]], str | None]) -> None:
    value = json.loads((out / "plan.json").read_text())
    for row in value["units"]:
        row[3] = change(row) or row[3]
    (out / "plan.json").write_text(json.dumps(value))


def test_verify_sees_resident_code_that_leads_to_what_is_freed(copy: Path) -> None:
    assert findings(copy) == ""
    value = json.loads((copy / "profile.json").read_text())
    for row in value["functions"]:
        # What ran later, too, is resident: say that boot did not run it.
        row["seen"] = [seen for seen in row["seen"] if seen["app"] != "boot"] or row["seen"]
    (copy / "profile.json").write_text(json.dumps(value))
    assert "freed after boot, and boot did not run it" in findings(copy)


def test_verify_sees_that_what_is_freed_ran_later(copy: Path) -> None:
    plan = json.loads((copy / "plan.json").read_text())
    unit = next(row[:2] for row in plan["units"] if row[3] == "boot" and row[1].startswith(".text."))
    value = json.loads((copy / "profile.json").read_text())
    for row in value["functions"]:
        if [row["object"], row["section"]] == unit:
            row["seen"].append({"app": "ls", "source": "blocks", "count": 1})
    (copy / "profile.json").write_text(json.dumps(value))
    assert f"{':'.join(unit)} is freed after boot, and ls ran it" in findings(copy)


def test_verify_sees_a_unit_that_is_not_where_it_should_be(copy: Path) -> None:
    change_fates(copy, lambda row: "boot" if row[1] == ".text.ksys_write" else None)
    assert ".text.ksys_write is to be freed after boot, and lies where nothing is" in findings(copy)


def test_verify_sees_a_reference_to_dropped_data(copy: Path) -> None:
    change_fates(copy, lambda row: "drop" if row[1] == ".bss.init_net" else None)
    found = findings(copy)
    assert "refers to dropped net/core/net_namespace.o:.bss.init_net, which has no tombstone" in found


@pytest.mark.parametrize("table", ["kallsyms_offsets", "kallsyms_names"])
def test_verify_sees_a_byte_of_kallsyms_that_changed(copy: Path, table: str) -> None:
    with (copy / "pruned/vmlinux").open("r+b") as stream:
        elf = ELFFile(stream)
        begin = elf.get_section_by_name(".symtab").get_symbol_by_name(table)[0]["st_value"]
        (offset,) = list(elf.address_offsets(begin + 401))
        stream.seek(offset)
        (held,) = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([held ^ 1]))
    # What is wrong first depends on the byte: the tables' sizes, their order, or an entry.
    assert re.search(r"kallsyms_\w+ (says|is|has)|is no symbol of vmlinux", findings(copy))


def test_a_call_into_what_was_freed_is_told_by_name(copy: Path) -> None:
    """ksys_write runs all the time: here it is freed with what only booting needs."""
    change_fates(copy, lambda row: "boot" if row[1] == ".text.ksys_write" else None)
    for verb, code in (("link", 0), ("boot", GuestFailed.exit_code)):
        done = subprocess.run([KPRUNE, verb, copy], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == code, done.stderr
    (miss,) = json.loads((copy / "boots.json").read_text())["misses"]
    assert (miss["function"], miss["object"]) == ("ksys_write", "fs/read_write.o")
    assert re.fullmatch(r"\w*write\w*|x64_sys_call|do_syscall_64", miss["caller"]), miss
