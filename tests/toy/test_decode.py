"""``kprune decode`` with DWARF: addr2line is the oracle; ``--add`` writes what the next plan reads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from prune.cli import main
from prune.guests.heal import load_healed
from prune.guests.lines import source_lines
from prune.model.buildid import build_id
from tests.unit.pruned_run import write_run

HEADER = """\
static inline int twice(int x)
{
	return x * 2 + (x >> 1);
}
"""
SOURCE = """\
#include "lib.h"
__attribute__((noinline)) int gone(int x)
{
	if (x > 3)
		x += 5;
	return x;
}

int caller(int x)
{
	x = gone(x);
	return twice(x) + 1;
}
"""
OBJECT = "net/core/lib.o"
COMPILERS = {
    "dwarf5": ("gcc", "-gdwarf-5"), "dwarf4": ("gcc", "-gdwarf-4"), "32 bits": ("gcc", "-g", "-m32"),
    "no aranges": ("clang", "-g"), "compressed": ("gcc", "-g", "-gz=zlib"),
}  # fmt: skip


def build(folder: Path, compiler: str, *flags: str) -> Path:
    """A "kernel" of two functions, one of them with an inline function from a header."""
    source = folder / "src" / OBJECT.replace(".o", ".c")
    source.parent.mkdir(parents=True)
    source.write_text(SOURCE)
    (source.parent / "lib.h").write_text(HEADER)
    words = [compiler, *flags, "-O1", "-ffunction-sections", "-fno-pie", "-fno-ipa-ra", "-c", source]
    if compiler == "clang":
        words.remove("-fno-ipa-ra")
    subprocess.run([*words, "-o", folder / "lib.o"], check=True)
    (folder / "base").mkdir()
    emulation = "elf_i386" if "-m32" in flags else "elf_x86_64"
    subprocess.run(
        [
            "ld",
            "-m",
            emulation,
            "-e",
            "caller",
            "--build-id",
            "-o",
            folder / "base/vmlinux",
            folder / "lib.o",
        ],
        check=True,
    )
    return folder / "base" / "vmlinux"


def functions(vmlinux: Path) -> dict[str, tuple[int, int]]:
    """Name -> (address, size)."""
    said = subprocess.run(["nm", "-S", vmlinux], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()]
    return {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4}


@pytest.mark.parametrize("how", COMPILERS)
def test_lines_are_those_of_addr2line(how: str, tmp_path: Path) -> None:
    vmlinux = build(tmp_path, *COMPILERS[how])
    code = [at for start, size in functions(vmlinux).values() for at in range(start, start + size)]
    found = source_lines(vmlinux, dict.fromkeys(code, OBJECT))
    assert found.lack == "" and {name.rpartition(":")[0] for name in found.at.values()} == {
        "net/core/lib.c", "net/core/lib.h",
    }  # fmt: skip
    words = ["addr2line", "-e", vmlinux, *map(hex, code)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    lines = [line.partition(" (")[0].removeprefix(f"{tmp_path}/src/") for line in said]
    assert [found.at[address] for address in code] == lines


def test_no_line_is_no_failure(tmp_path: Path) -> None:
    bare = build(tmp_path / "bare", "gcc", "-g0")
    assert "has no DWARF" in source_lines(bare, {1: OBJECT}).lack
    assert source_lines(tmp_path / "none", {1: OBJECT}).lack
    (tmp_path / "text").write_text("x" * 100)
    assert source_lines(tmp_path / "text", {1: OBJECT}).lack
    whole = build(tmp_path / "whole", "gcc", "-g")
    assert source_lines(whole, {1: OBJECT}) == source_lines(whole, {})
    (tmp_path / "half").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert source_lines(tmp_path / "half", {1: OBJECT}).lack


def kprune(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["decode", *map(str, words)])
    return int(caught.value.code or 0)


def test_the_line_of_a_miss_and_of_its_call_and_what_joins_the_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vmlinux = build(tmp_path, "gcc", "-g")
    where = functions(vmlinux)
    rows = [[*where[name], OBJECT, f".text.{name}", name, True] for name in where]
    stone = {"symbol": "gone", "object": OBJECT, "section": ".text.gone", "names": ["gone"], "address": 4096}
    run = write_run(
        tmp_path, functions=rows, tombstones=[stone], start=4096, build_id=build_id(vmlinux),
        system_map="00001000 T _stext\n00002000 T caller\n",
    )  # fmt: skip
    dumped = subprocess.run(["objdump", "-d", vmlinux], capture_output=True, text=True, check=True).stdout
    call = next(line for line in dumped.splitlines() if "call" in line and "<gone>" in line)
    back = int(call.split(":")[0], 16) + 5 - where["caller"][0]
    log = tmp_path / "log"
    log.write_text(
        "invalid opcode: 0000 [#1]\nCPU: 0 PID: 5 Comm: web Not tainted 6.1 #1\n"
        f"RIP: 0010:0x1000\nCall Trace:\n ? caller+{back:#x}/0x40\n---[ end trace 0000000000000000 ]---\n"
    )
    assert kprune(log, run, "--add") == 5
    said = capsys.readouterr()
    assert f"missed gone ({OBJECT}), net/core/lib.c:3: a function that was dropped" in said.out
    assert f"caller   caller+{back:#x} ({OBJECT}), net/core/lib.c:11" in said.out
    assert "process  web, PID 5, CPU 0" in said.out and "the task was killed" in said.out
    assert f"1 new in {run / 'heal.json'}" in said.err and "no source lines" not in said.err
    assert "--add" not in said.out and f"kprune heal {run}" in said.out
    (healed,) = load_healed(run / "heal.json", build_id(vmlinux))
    assert (healed.function, healed.object, healed.section) == ("gone", OBJECT, ".text.gone")
    # Of no phase: what is missed on a machine stays in memory for good.
    assert (healed.caller, healed.app, healed.offset) == ("caller", "", -1)
    before = (run / "heal.json").read_bytes()
    assert kprune(log, run, "--add", "--json") == 5
    assert json.loads(capsys.readouterr().out)["added"] == []
    assert (run / "heal.json").read_bytes() == before
