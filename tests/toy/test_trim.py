"""Cold blocks taken out of the toy: what ran runs as before, everything else meets a trap that can be named.

What ran is measured: the toy is executed an instruction at a time.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune.guests.graveyard import read_graveyard
from prune.linking.script import named_symbols
from prune.model.callgraph import make_call_graph
from prune.model.mapfile import read_link_map
from prune.model.tables import find_tables
from prune.plan.plan import make_plan
from prune.plan.plan_file import load_plan, save_plan
from prune.plan.trim import find_cold, trim

from .test_verify import patch
from .toy import CFLAGS, Toy, build

_TRACEME, _PEEKUSER, _STEP, _RIP = 0, 3, 9, 16 * 8
#: The toy's arguments that are profiled, by number; the others take other ways.
TRACED = (1, 5)
OTHERS = (2, 3, 4, 6, 7, 8, 9, 12)
#: A miss must be reported in all of its forms, as by the kernel's roots.
REPORTS = ("on_fault", "say", "say_number")


def executed(program: Path, arguments: int) -> set[int]:
    """Addresses of the instructions that a run executes."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    words = [str(program), *("x" for _ in range(arguments - 1))]
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        libc.ptrace(_TRACEME, 0, None, None)
        os.execv(program, words)
    found: set[int] = set()
    _, status = os.waitpid(child, 0)
    while os.WIFSTOPPED(status):
        found.add(libc.ptrace(_PEEKUSER, child, _RIP, None) & (1 << 64) - 1)
        libc.ptrace(_STEP, child, None, signal.SIGKILL if len(found) > 100_000 else None)
        _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status)
    return found


def plan_blocks(toy: Toy, ran: set[int]) -> None:
    """Plan with every function that ran, and without its blocks that did not."""
    image, knowledge = toy.image(), toy.knowledge
    tables = find_tables(image, knowledge)
    where = {
        unit: [(at - base, at - base + 1) for at in sorted(ran) if base <= at < base + size]
        for unit, (base, size) in enumerate(
            zip(image.units["address"].tolist(), image.units["size"].tolist(), strict=True)
        )
        if image.units["function"][unit]
    }
    report = {image.unit_of["init/main.o", f".text.{name}"] for name in REPORTS}
    where = {unit: ranges for unit, ranges in where.items() if ranges}
    hot_units = {*where, *report}
    blocks = {u: r for u, r in where.items() if u not in report}
    cold = find_cold(image, tables, blocks, knowledge)
    image, tables, _ = trim(image, tables, cold, knowledge)
    hot = dict.fromkeys(hot_units, "toy")
    script = named_symbols((toy.tree / "arch/x86/kernel/vmlinux.lds").read_text())
    plan = make_plan(
        image, make_call_graph(image, tables, knowledge), hot, (), knowledge,
        build_id="toy", script_symbols=script, cold=cold,
    )  # fmt: skip
    save_plan(plan, toy.tree / "plan.json")
    assert load_plan(toy.tree / "plan.json").cold == plan.cold
    shutil.copy(toy.tree / "base.map", toy.tree / "vmlinux.base.map")


@pytest.fixture(
    scope="module",
    params=[("-O1", "x86_64"), ("-Os", "x86_64"), ("-O2", "x86_64"), ("-Os", "i386"), ("-O2", "i386")],
    ids=" ".join,
)
def shaped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy with functions of all shapes, without its cold blocks."""
    level, arch = request.param
    flags = [level if flag == "-O1" else flag for flag in CFLAGS]
    toy = build(tmp_path_factory.mktemp("shapes"), flags, more=("shapes",), arch=arch)
    plan_blocks(toy, {at for number in TRACED for at in executed(toy.tree / "vmlinux", number)})
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    return toy


def runs(toy: Toy, program: str, number: int) -> tuple[int, dict[str, str]]:
    words = [toy.tree / program, *("x" for _ in range(number - 1))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    return done.returncode, dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize("number", TRACED)
def test_what_ran_runs_as_before(shaped: Toy, number: int) -> None:
    code, said = runs(shaped, "vmlinux", number)
    _, before = runs(shaped, "base", number)
    entries = {"exceptions", "pointers", "bugs", "shifts"} | (
        {"unwind", "unwind ips"} if shaped.arch == "x86_64" else set()
    )
    assert code == 0 and {key: said[key] for key in said.keys() - entries} == {
        key: before[key] for key in before.keys() - entries
    }
    assert all(int(said[key]) < int(before[key]) for key in entries)


@pytest.mark.parametrize("number", OTHERS)
def test_everything_else_is_the_same_or_a_trap_with_a_name(shaped: Toy, number: int) -> None:
    code, said = runs(shaped, "vmlinux", number)
    before_code, before = runs(shaped, "base", number)
    if code == before_code == 0:
        assert said["shapes"] == before["shapes"]
        return
    graveyard = read_graveyard(shaped.tree / "tombstones.json")
    address = int(said["missed"], 16)
    assert code == 3 and address in graveyard.stones
    assert said.keys() - {"missed"} <= before.keys()


def test_the_traps_are_needed(shaped: Toy) -> None:
    """Of the ways that were not profiled some are cold."""
    codes = [runs(shaped, "vmlinux", number)[0] for number in OTHERS]
    assert 3 in codes


def test_where_a_lock_may_be_held_the_trap_stops_the_machine(shaped: Toy, tmp_path: Path) -> None:
    toy = replace(shaped, tree=shutil.copytree(shaped.tree, tmp_path / "tree", symlinks=True))

    def trimmed() -> tuple[tuple[str, str], int, list[int]]:
        """The first function that lost blocks: place, address, first trap."""
        rows = json.loads((toy.tree / "tombstones.json").read_text())["trimmed"]
        row = next(row for row in rows if row["traps"])
        return (row["object"], row["section"]), row["address"], row["traps"][0]

    place, _, (_, was) = trimmed()
    plan = load_plan(toy.tree / "plan.json")
    save_plan(replace(plan, stops={place: (was,)}), toy.tree / "plan.json")
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    assert toy.verify().ok, str(toy.verify())
    # The same as without, but for that one trap.
    trap = bytes(toy.knowledge.trap)
    now = trimmed()[1] + trimmed()[2][0]
    patch(toy.tree / "vmlinux", now, trap)
    assert not toy.verify().ok
    patch(toy.tree / "vmlinux", now, bytes(toy.knowledge.answer["stop"])[: len(trap)])
    assert toy.verify().ok


def test_the_cold_blocks_are_gone(shaped: Toy) -> None:
    plan = load_plan(shaped.tree / "plan.json")
    cold = {place: sum(end - start for start, end in ranges) for place, ranges in plan.cold.items()}
    assert {("lib/shapes.o", f".text.{name}") for name in ("pick", "deep")} <= cold.keys()
    before, after = (
        {(p.object, p.section): p.size for p in read_link_map(shaped.tree / name).placed}
        for name in ("base.map", "vmlinux.map")
    )
    traps = {
        (row["object"], row["section"]): len(row["traps"]) * len(shaped.knowledge.trap)
        for row in json.loads((shaped.tree / "tombstones.json").read_text())["trimmed"]
    }
    edited = {
        (name.rpartition("/objects/")[2] if "/objects/" in name else name, section): size
        for (name, section), size in after.items()
    }
    for place, size in cold.items():
        assert edited[place] == before[place] - size + traps[place]


def test_verify_agrees(shaped: Toy) -> None:
    verdict = shaped.verify()
    assert verdict.ok, str(verdict)
    assert next(check for check in verdict.checks if check.name == "blocks").checked


Spoil = Callable[[Any], None]


@pytest.fixture
def spoilt(shaped: Toy, tmp_path: Path) -> Toy:
    shutil.copytree(shaped.tree, tmp_path / "tree", symlinks=True)
    return replace(shaped, tree=tmp_path / "tree")


def changed(path: Path, spoil: Spoil) -> None:
    value = json.loads(path.read_text())
    spoil(value)
    path.write_text(json.dumps(value))


def broken(toy: Toy) -> Mapping[str, str]:
    return {check.name: check.findings[0] for check in toy.verify().checks if not check.ok}


def traps(toy: Toy) -> Iterator[tuple[dict[str, Any], list[int]]]:
    for row in json.loads((toy.tree / "tombstones.json").read_text())["trimmed"]:
        for trap in row["traps"]:
            yield row, trap


def test_verify_sees_a_trap_that_is_none(spoilt: Toy) -> None:
    row, (now, _) = next(traps(spoilt))
    image = spoilt.tree / "vmlinux"
    data = bytearray(image.read_bytes())
    headers = subprocess.run(["readelf", "-WS", image], capture_output=True, text=True, check=True).stdout
    text = next(line.split("]")[1].split() for line in headers.splitlines() if "] .text " in line)
    data[row["address"] + now - int(text[2], 16) + int(text[3], 16)] = 0x90
    image.write_bytes(data)
    assert "is not what the compiler made" in broken(spoilt)["bytes"]


def test_verify_sees_a_way_without_a_trap(spoilt: Toy) -> None:
    def spoil(value: Any) -> None:
        row = next(row for row in value["trimmed"] if row["symbol"] == "deep")
        row["traps"].pop()

    changed(spoilt.tree / "tombstones.json", spoil)
    assert "which has no trap" in broken(spoilt)["blocks"]


def test_verify_sees_a_trap_for_another_place(spoilt: Toy) -> None:
    def spoil(value: Any) -> None:
        row = next(row for row in value["trimmed"] if row["symbol"] == "deep")
        row["traps"][0][1] += 1

    changed(spoilt.tree / "tombstones.json", spoil)
    assert "blocks" in broken(spoilt)


def test_verify_sees_that_a_cold_block_ran(spoilt: Toy) -> None:
    ran = {"object": "lib/shapes.o", "section": ".text.deep", "symbol": "deep", "ran": [0, 4096], "seen": []}
    profile = spoilt.tree / "profile.json"
    profile.write_text(json.dumps({"functions": [ran]}))
    from prune.verify.verify import verify_image

    verdict = verify_image(
        *(spoilt.tree / name for name in ("vmlinux", "vmlinux.map", "plan.json", "tombstones.json")),
        spoilt.tree, spoilt.arch, profile,
    )  # fmt: skip
    blocks = next(check for check in verdict.checks if check.name == "blocks")
    assert any("is cold, and ran" in finding for finding in blocks.findings)
