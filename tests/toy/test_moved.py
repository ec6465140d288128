"""One profile for two compilers: traced with the one, the other's toy is pruned by it, and runs the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prune.linking.script import named_symbols
from prune.model.callgraph import make_call_graph
from prune.model.functions import Functions, make_functions
from prune.model.symbols import write_symbols
from prune.model.tables import find_tables
from prune.plan.carried import uncertain
from prune.plan.plan import make_plan
from prune.plan.plan_file import Plan, save_plan
from prune.plan.references import find_references
from tracer.profiles.builds import kernel_id
from tracer.profiles.profile import FunctionRecord, Profile, Seen
from tracer.profiles.stale import accept
from tracer.profiles.symbols import Symbols, load_symbols

from .test_trim import REPORTS, TRACED, executed, runs
from .toy import CFLAGS, CLANG_FLAGS, Toy, build

_PLAIN = ["-fno-ipa-icf"]
BUILDS = {
    "gcc -O2": ("gcc", ["-O2" if flag == "-O1" else flag for flag in CFLAGS if flag not in _PLAIN]),
    "gcc -fno-inline": ("gcc", [*CFLAGS, "-fno-inline"]),
    "clang -O2": ("clang", ["-O2" if flag == "-O1" else flag for flag in CLANG_FLAGS]),
    "clang -fno-inline": ("clang", [*CLANG_FLAGS, "-fno-inline"]),
}


def made(kind: str, into: Path) -> tuple[Toy, Functions, Symbols]:
    """The toy by one of the compilers."""
    compiler, flags = BUILDS[kind]
    toy = build(into, flags, ("moved",), compiler)
    image = toy.image()
    identity = {"build_id": kind, "config": kind, "source": "s", "version": "", "options": "o"}
    write_symbols(image, "production", identity, 0, into / "symbols.json")
    functions = make_functions(image, find_tables(image, toy.knowledge), toy.knowledge)
    return toy, functions, load_symbols(into / "symbols.json", "production")


def traced(toy: Toy, functions: Functions, symbols: Symbols) -> Profile:
    """What runs, and what tells of a miss."""
    ran = {at for number in TRACED for at in executed(toy.tree / "base", number)}
    rows = zip(symbols.functions, symbols.starts.tolist(), symbols.ends.tolist(), strict=True)
    found = [
        FunctionRecord(*function, (Seen("toy", "blocks", 1),))
        for function, start, end in rows
        if function.symbol in REPORTS or any(at in ran for at in range(start, end))
    ]
    return Profile(
        kernel_id(symbols), "", "toy", "", ("toy",), ("blocks",), (), tuple(sorted(found, key=str)),
        (), (), (), (), find_references(functions),
    )  # fmt: skip


def plan_by(profile: Profile, toy: Toy, functions: Functions, symbols: Symbols) -> Plan:
    """The plan for a toy by another one's profile."""
    carried, stale = accept(profile, symbols, False, "planning")
    assert stale is not None and stale.moved
    image, knowledge = functions.image, toy.knowledge
    tables = find_tables(image, knowledge)
    plan = make_plan(
        image, make_call_graph(image, tables, knowledge),
        {image.unit_at(record.object, record.section): "toy" for record in carried.functions}, (), knowledge,
        build_id=symbols.build_id, inferred=uncertain(profile, functions, ()),
        script_symbols=named_symbols((toy.tree / "arch/x86/kernel/vmlinux.lds").read_text()),
    )  # fmt: skip
    save_plan(plan, toy.tree / "plan.json")
    shutil.copy(toy.tree / "base.map", toy.tree / "vmlinux.base.map")
    return plan


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ("gcc -O2", "clang -O2"), ("gcc -O2", "clang -fno-inline"),
        ("clang -O2", "gcc -fno-inline"), ("clang -fno-inline", "gcc -O2"),
    ],
)  # fmt: skip
def test_it_runs_the_same(there: str, here: str, tmp_path: Path) -> None:
    profile = traced(*made(there, tmp_path / "there"))
    toy, functions, symbols = made(here, tmp_path / "here")
    plan = plan_by(profile, toy, functions, symbols)
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    verdict = toy.verify()
    assert verdict.ok, str(verdict)
    for number in TRACED:
        code, said = runs(toy, "vmlinux", number)
        assert code == 0 and said["shapes"] == runs(toy, "base", number)[1]["shapes"]
    fates = {unit[1].removeprefix(".text."): why for unit, why in zip(plan.units, plan.reason, strict=True)}
    assert fates["cold_way"] == "cold"
    if there.endswith("-O2") and here.endswith("-fno-inline"):
        assert all(fates[name].startswith("carried:") for name in ("inner", "outer", "both")), fates
