"""What is behind a system call, against relocations as objdump prints them and networkx."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from prune.model.functions import make_functions
from prune.model.linkmap import take_apart
from prune.model.mapfile import read_link_map
from prune.model.tables import find_tables
from prune.security.cves import (
    GONE,
    NOT_BUILT,
    PARTLY,
    PRESENT,
    SEVERAL,
    UNKNOWN,
    UNTIL_BOOT,
    Hole,
    Named,
    judge,
)
from prune.security.security import look_at
from prune.security.surface import Kernel, Reached, find_entries, kernel_of, measure_calls
from tests.conftest import X86, image

from .toy import CFLAGS, SOURCES, Toy

OBJECT = "k/calls.o"
ENTRIES = {
    "__x64_sys_read": ("read", 64), "__x64_sys_open": ("open", 64), "__x64_sys_ioctl": ("ioctl", 64),
    "__x64_sys_umask": ("umask", 64), "__ia32_sys_read": ("read", 32),
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("surface") / "calls.o"
    subprocess.run(["gcc", *CFLAGS, "-fno-jump-tables", "-c", SOURCES / "calls.c", "-o", path], check=True)
    return path


@pytest.fixture(scope="module")
def kernel(compiled: Path) -> Kernel:
    made = image(compiled.parent, {OBJECT: compiled.read_bytes()})
    functions = make_functions(made, find_tables(made, X86), X86)
    return Kernel(functions, made.units["size"].copy(), made.units["init"].copy())


def printed(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


class Oracle:
    """Sections and what their relocations mean, of what objdump prints."""

    def __init__(self, path: Path) -> None:
        symbols = re.findall(
            r"^([0-9a-f]{16}) .{7} (\S+)\t([0-9a-f]{16}) (\S+)$", printed("objdump", "-t", path), re.M
        )
        self.of = {name: section for _, section, _, name in symbols}
        self.size = {
            section: int(size, 16) for _, section, size, name in symbols if f".text.{name}" == section
        }
        self.direct, self.all = nx.DiGraph(), nx.DiGraph()
        section = ""
        for line in printed("readelf", "-rW", path).splitlines():
            section = line.split("'")[1].removeprefix(".rela") if line.startswith("Relocation") else section
            words = line.split()
            if len(words) > 4 and words[2].startswith("R_X86_64_") and not section.startswith(".init"):
                self.all.add_edge(section, self.of.get(words[4], words[4]))
        for line in printed("objdump", "-drw", path).splitlines():
            section = line.split()[-1].rstrip(":") if line.startswith("Disassembly") else section
            # A call or jump to a place, not through a register or memory.
            for name in re.findall(r"\s(?:call|j\w+) +[0-9a-f]+ .*R_X86_64_P\w+32\s+([^\s+-]+)", line):
                if not section.startswith(".init"):
                    self.direct.add_edge(section, self.of.get(name, name))

    def behind(self, graph: nx.DiGraph, entry: str) -> tuple[int, int]:
        start = self.of[entry]
        reached = {start, *(nx.descendants(graph, start) if start in graph else ())} & self.size.keys()
        return len(reached), sum(self.size[section] for section in reached)


def measured(kernel: Kernel, answering: frozenset[str]) -> tuple[dict[str, Reached], int]:
    """What is behind each entry, and how many functions are behind all of them by any pointer."""
    entries = find_entries(kernel.functions, X86)
    both = {"base": kernel, "pruned": kernel}
    calls, sums = measure_calls(both, dict.fromkeys(both, answering), entries)
    assert {call.entry: (call.name, call.bits) for call in calls} == ENTRIES
    assert all(call.base == call.pruned for call in calls)
    return {call.entry: call.base for call in calls if call.base}, sums["base"].pointers.functions


@pytest.fixture(scope="module")
def answering(compiled: Path) -> frozenset[str]:
    linked = compiled.with_name("linked")
    subprocess.run(["ld", "--entry=x64_sys_call", compiled, "-o", linked], check=True)
    return look_at(linked, X86).system_calls


def test_weak_entries_and_what_answers_for_others_do_not_answer(answering: frozenset[str]) -> None:
    assert answering == {*ENTRIES, "__x64_sys_old"}


def test_behind_each_entry_is_what_networkx_finds(
    kernel: Kernel, compiled: Path, answering: frozenset[str]
) -> None:
    oracle = Oracle(compiled)
    found, _ = measured(kernel, answering)
    for entry, reached in found.items():
        for amount, graph in ((reached.direct, oracle.direct), (reached.referred, oracle.all)):
            assert (amount.functions, amount.bytes) == oracle.behind(graph, entry), entry
    assert found["__x64_sys_read"].direct.functions == 6
    assert found["__x64_sys_umask"].referred.functions == 1
    opened = found["__x64_sys_open"]
    assert (opened.direct.functions, opened.referred.functions) == (1, 5)
    assert found["__x64_sys_ioctl"].referred.functions == 1, "who registers is not followed"


def test_any_pointer_leads_to_what_was_registered_too(kernel: Kernel, answering: frozenset[str]) -> None:
    _, pointers = measured(kernel, answering)
    assert pointers == len(
        "read open ioctl umask read32 even odd leaf cloned cloned.part.0 by_address by_table "
        "by_table_of_table registered".split()
    )


def test_where_nothing_is_known_to_lead_to_entries_all_of_them_count(kernel: Kernel) -> None:
    silent = replace(X86, system_calls=tuple(replace(each, origins=()) for each in X86.system_calls))
    assert {*ENTRIES, "__x64_sys_old"} < set(find_entries(kernel.functions, silent))


def test_a_pruned_system_call_has_nothing_behind_it(built: Toy, pruned: Toy) -> None:
    made = built.image()
    functions = make_functions(made, find_tables(made, built.knowledge), built.knowledge)
    base = kernel_of(functions, take_apart(read_link_map(built.tree / "base.map"), made.pieces))
    after = kernel_of(functions, read_link_map(pruned.tree / "vmlinux.map"))
    answering = {
        "base": look_at(built.tree / "vmlinux", X86).system_calls,
        "pruned": look_at(pruned.tree / "vmlinux", X86).system_calls,
    }
    calls, sums = measure_calls({"base": base, "pruned": after}, answering, find_entries(functions, X86))
    assert {call.name: (call.base is None, call.pruned is None) for call in calls} == {
        "hot": (False, False), "cold": (False, True),
    }  # fmt: skip
    assert sums["pruned"].all.functions < sums["base"].all.functions
    assert sums["pruned"].all.bytes == after.size[made.units["flags"] & 4 != 0].sum()


def hole(*names: str | tuple[str, str]) -> Hole:
    return Hole("X", tuple(Named(*([name] if isinstance(name, str) else name)) for name in names))


def test_what_has_become_of_functions_in_a_pruned_link(built: Toy, pruned: Toy, tmp_path: Path) -> None:
    made = built.image()
    functions = make_functions(made, find_tables(made, built.knowledge), built.knowledge)
    base = kernel_of(functions, take_apart(read_link_map(built.tree / "base.map"), made.pieces))
    after = kernel_of(functions, read_link_map(pruned.tree / "vmlinux.map"))
    (tmp_path / "net").mkdir()
    (tmp_path / "net/off.c").touch()

    def verdict(*names: str | tuple[str, str]) -> str:
        (found,) = judge([hole(*names)], base, after, tmp_path)
        return found.verdict

    assert verdict("kept_twin") == PRESENT
    assert verdict("cold_one", "cold_two") == GONE
    assert verdict("cold_one", "kept_twin") == PARTLY
    assert verdict("twin") == SEVERAL
    assert verdict(("twin", "lib/two.c")) == GONE and verdict(("twin", "init/one.c")) == PRESENT
    assert verdict("cold_one", "no_such") == UNKNOWN and verdict("kept_twin", "no_such") == PRESENT
    assert verdict(("f", "net/off.c")) == NOT_BUILT and verdict(("f", "net/none.c")) == UNKNOWN
    assert verdict("cold_one", ("f", "net/off.c")) == GONE
    assert verdict(("cold_one", "lib/two.c")) == UNKNOWN, "it is in another file"
    (found,) = judge([hole("twin")], base, after, tmp_path)
    assert [(piece.object, piece.state) for piece in found.functions[0].pieces] == [
        ("init/one.o", PRESENT), ("lib/two.o", GONE),
    ]  # fmt: skip


def test_a_clone_counts_to_its_function(kernel: Kernel, tmp_path: Path) -> None:
    """All of it must be gone; what is freed after boot is said to be."""

    def state(change: Callable[[Kernel, dict[str, int]], None]) -> str:
        units = {name: vertices[0] for name, vertices in kernel.functions.named.items()}
        pruned = replace(kernel, size=kernel.size.copy(), freed=kernel.freed.copy())
        change(pruned, units)
        (found,) = judge([hole("cloned")], kernel, pruned, tmp_path)
        assert [piece.symbol for piece in found.functions[0].pieces] == ["cloned", "cloned.part.0"]
        return found.functions[0].state

    def drop(*names: str) -> Callable[[Kernel, dict[str, int]], None]:
        return lambda made, units: np.put(made.size, [units[name] for name in names], 0)

    assert state(drop()) == PRESENT
    assert state(drop("cloned")) == PRESENT
    assert state(drop("cloned", "cloned.part.0")) == GONE
    assert (
        state(lambda made, units: np.put(made.freed, [units[n] for n in ("cloned", "cloned.part.0")], True))
        == UNTIL_BOOT
    )
