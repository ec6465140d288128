"""The toy, pruned and executed: each test is one trap that a real kernel has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from prune.plan.rules import KeepRule

from .toy import TARGETS, WRAPPER, Toy, link_words

pytestmark = pytest.mark.parametrize("built", list(TARGETS), indirect=True)
#: What the toy counts of its tables.
COUNTED = {
    "exceptions": "5", "pointers": "5", "bugs": "4", "shifts": "3", "unwind": "5", "unwind ips": "5"
}  # fmt: skip


def entries(toy: Toy, counted: dict[str, str]) -> dict[str, str]:
    """Only x86_64 has tables to unwind by."""
    return {key: "0" if toy.arch == "i386" and key.startswith("unwind") else n for key, n in counted.items()}


def symbols(path: Path) -> dict[str, int]:
    said = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    return {line.split()[2]: int(line.split()[0], 16) for line in said.splitlines()}


def stones(toy: Toy) -> dict[str, dict[str, object]]:
    rows = json.loads((toy.tree / "tombstones.json").read_text())["tombstones"]
    return {f"{row['object']}:{row['section']}": row for row in rows}


def test_the_unpruned_link_is_the_program(built: Toy) -> None:
    code, said = built.run()
    assert code == 0
    assert said == {
        "clock": "42", "alias": "7", "twin": "12", "tail": "4", "same": "0", "alias same": "1", "null": "0",
        "once": "5", "once group": "1", "hot call": "8", "own entry": "77", "wrong": "0",
        **entries(built, COUNTED),
    }  # fmt: skip


def test_what_was_kept_behaves_the_same(built: Toy, pruned: Toy) -> None:
    code, said = pruned.run()
    _, base = built.run()
    counted = {
        "exceptions": "2", "pointers": "2", "bugs": "2", "shifts": "1", "unwind": "2", "unwind ips": "2"
    }  # fmt: skip
    assert (code, said) == (0, {**base, **entries(built, counted)})


def test_the_weak_function_never_shadows_the_strong_one(pruned: Toy) -> None:
    assert not any("clock_read" in row["names"] for row in stones(pruned).values())


def test_dropped_functions_that_are_referenced_have_unique_traps(pruned: Toy) -> None:
    found = stones(pruned)
    assert set(found) == {
        "init/one.o:.text.cold_one", "init/one.o:.text.unlikely.hot_with_tail", "lib/two.o:.text.cold_two",
        "lib/two.o:.text.twin", f"lib/two.o:.text.{pruned.target.calls}cold",
    }  # fmt: skip
    addresses = [row["address"] for row in found.values()]
    trap = len(pruned.knowledge.trap)
    assert all(after - before >= trap for before, after in pairwise(sorted(addresses)))


def test_data_that_only_cold_code_used_is_gone(built: Toy, pruned: Toy) -> None:
    assert "cold_counter" in symbols(built.tree / "vmlinux")
    assert "cold_counter" not in symbols(pruned.tree / "vmlinux")
    assert b"only cold code says this" in (built.tree / "vmlinux").read_bytes()
    assert b"only cold code says this" not in (pruned.tree / "vmlinux").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("x", "y"), "lib/two.o:.text.cold_two"),
        (("x", "y", "z"), "lib/two.o:.text.twin"),
        (("x", "y", "z", "w"), "init/one.o:.text.unlikely.hot_with_tail"),
    ],
    ids=["by pointer", "a local by its section", "a tail"],
)
def test_a_miss_names_its_function_by_address(pruned: Toy, arguments: tuple[str, ...], place: str) -> None:
    code, said = pruned.run(*arguments)
    assert code == 3
    assert int(said["missed"], 16) == stones(pruned)[place]["address"]


def test_a_pruned_system_call_is_not_implemented(built: Toy, pruned: Toy) -> None:
    assert built.run("x")[1]["cold call"] == "7"
    assert pruned.run("x")[1]["cold call"] == "-38"


def test_a_pruned_system_call_is_answered_however_small_it_is(toy: Toy) -> None:
    """Its entry would lead to what is not there."""
    plan = toy.plan(small=64)
    fate = {unit[:2]: keep for unit, keep in zip(plan.units, plan.keep.tolist(), strict=True)}
    assert not fate["lib/two.o", f".text.{toy.target.calls}cold"]
    assert fate["init/one.o", ".text.unlikely.hot_with_tail"]


def test_the_local_of_the_same_name_that_was_kept_is_not_the_tombstone(pruned: Toy) -> None:
    """nm lists the kept local twin and the tombstone of the other, at two addresses."""
    said = subprocess.run(["nm", pruned.tree / "vmlinux"], capture_output=True, text=True, check=True).stdout
    twins = [line.split() for line in said.splitlines() if line.split()[2].split(".")[0] == "twin"]
    assert len(twins) == 2 and twins[0][0] != twins[1][0]


def test_only_real_names_go_into_the_symbol_table(pruned: Toy, built: Toy) -> None:
    real = {name.split(".")[0] for name in symbols(built.tree / "vmlinux")}
    new = {name.split(".")[0] for name in symbols(pruned.tree / "vmlinux")} - real
    assert new == {"__kprune_tombstones_start", "__kprune_tombstones_end"}


#: Checks of what the toy does not have.
NOTHING_HERE = ("blocks", "kallsyms", "exports")


def test_verify_agrees(pruned: Toy) -> None:
    verdict = pruned.verify()
    assert verdict.ok, str(verdict)
    assert all(check.checked for check in verdict.checks if check.name not in NOTHING_HERE)


def test_widths_nest(toy: Toy) -> None:
    kept = [int(toy.plan(width=width).keep.sum()) for width in ("ran", "callees", "reachable")]
    assert kept[0] < kept[1] <= kept[2]


def test_reachable_runs_what_was_cold(toy: Toy, built: Toy) -> None:
    toy.plan(width="reachable")
    assert toy.link(plan=True).returncode == 0
    for arguments in ((), ("x",), ("x", "y"), ("x", "y", "z"), ("x", "y", "z", "w")):
        assert toy.run(*arguments) == built.run(*arguments)
    assert toy.verify().ok


def test_what_was_healed_brings_what_it_calls(toy: Toy) -> None:
    plan = toy.plan(healed=(("init/one.o", ".text.hot_with_tail"), ("lib/two.o", ".text.cold_two")))
    reasons = dict(zip([row[:2] for row in plan.units], plan.reason, strict=True))
    assert reasons["lib/two.o", ".text.cold_two"] == "healed: missed by a boot"
    assert reasons["init/one.o", ".text.unlikely.hot_with_tail"] == "called by what was healed"
    assert toy.link(plan=True).returncode == 0
    assert toy.run("x", "y")[1]["cold"] == "3"


def test_a_rule_keeps_and_an_unused_rule_is_told(toy: Toy) -> None:
    plan = toy.plan(rules=(KeepRule("cold_t*", "needed later"), KeepRule("nothing", "a typing error")))
    assert plan.unused_rules == ("nothing",)
    reasons = dict(zip([row[:2] for row in plan.units], plan.reason, strict=True))
    assert reasons["lib/two.o", ".text.cold_two"] == "rule cold_t*: needed later"


def test_linking_twice_gives_the_same_bytes(toy: Toy) -> None:
    toy.plan()
    assert toy.link(plan=True).returncode == 0
    first = (toy.tree / "vmlinux").read_bytes()
    shutil.rmtree(toy.tree / ".kprune")
    assert toy.link(plan=True).returncode == 0
    assert (toy.tree / "vmlinux").read_bytes() == first


def test_an_object_that_changed_since_the_plan_is_refused(toy: Toy) -> None:
    toy.plan()
    (toy.tree / "vmlinux").unlink()
    with (toy.tree / "init/one.o").open("ab") as stream:
        stream.write(b"\0")
    done = toy.link(plan=True)
    assert (done.returncode, "init/one.o changed since the plan" in done.stderr) == (2, True)
    assert not (toy.tree / "vmlinux").exists() and not list(toy.tree.glob(".kprune/plan-*"))


@pytest.mark.parametrize("spoil", ["cut", "text", "gone"])
def test_a_bad_object_is_one_clear_error(toy: Toy, spoil: str) -> None:
    toy.plan()
    victim = toy.tree / "init/one.o"
    content = victim.read_bytes()
    if spoil == "gone":
        victim.unlink()
    else:
        victim.write_bytes(content[: len(content) // 2] if spoil == "cut" else b"not an object\n")
    done = toy.link(plan=True)
    assert done.returncode == 2 and "init/one.o" in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") == 1


def test_a_missing_plan_is_one_clear_error(toy: Toy) -> None:
    done = toy.link(plan=True)
    assert (done.returncode, "plan.json does not exist" in done.stderr) == (2, True)


def test_a_full_disk_leaves_nothing_half_written(toy: Toy) -> None:
    """A limit on the size of files stands for the disk: the edited objects do not fit."""
    toy.plan()
    (toy.tree / "vmlinux").unlink()
    # Python would leave byte code cut at the limit.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "KPRUNE_PLAN": str(toy.tree / "plan.json")}
    words = [str(WRAPPER), *link_words(toy.target.emulation)]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; trap "" XFSZ; exec "$0" "$@"', *words],
        cwd=toy.tree, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert not (toy.tree / "vmlinux").exists() and not list(toy.tree.glob(".kprune/plan-*/prepared.json"))
