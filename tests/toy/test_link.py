"""Plans of every kind, linked by kprune-ld, against what binutils and the running program say."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.model.mapfile import read_link_map
from prune.plan.plan_file import load_plan, save_plan
from prune.plan.rules import KeepRule
from tracer.host import UserError

from .toy import CFLAGS, LINK, SOURCES, WRAPPER, Toy, build

TRAP = 0xD6


def names(path: Path) -> dict[str, set[int]]:
    """Name -> addresses, from nm: two locals may share a name."""
    said = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    found: dict[str, set[int]] = {}
    for line in said.splitlines():
        found.setdefault(line.split()[2], set()).add(int(line.split()[0], 16))
    return found


def stones(toy: Toy) -> dict[str, dict[str, object]]:
    rows = json.loads((toy.tree / "tombstones.json").read_text())["tombstones"]
    return {f"{row['object']}:{row['section']}": row for row in rows}


def contents(toy: Toy) -> dict[int, int]:
    """Address -> byte of .text in vmlinux, from objcopy."""
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", "vmlinux", "text.bin"], cwd=toy.tree, check=True
    )
    start = min(names(toy.tree / "vmlinux")["_stext"])
    return dict(enumerate((toy.tree / "text.bin").read_bytes(), start))


def one_clear_error(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("kprune-ld: ") and done.stderr.count("\n") == 1


# --- what binutils say of the result --------------------------------------------------------------


def test_dropped_names_are_gone_but_for_tombstones(built: Toy, pruned: Toy) -> None:
    """Oracle: nm of the base image, the plan, and nm of the result."""
    before, after = names(built.tree / "vmlinux"), names(pruned.tree / "vmlinux")
    plan, image = load_plan(pruned.tree / "plan.json"), pruned.image()
    at = {name: row["address"] for row in stones(pruned).values() for name in row["names"]}  # type: ignore[attr-defined]
    kept, dropped = set(), set()
    for unit, _, _, name in image.functions:
        (kept if plan.keep[unit] else dropped).add(name)
    assert kept and dropped
    for name in dropped - kept - set(at):
        assert name not in after, name
    for name in set(at):
        assert at[name] in after[name]
    assert kept <= set(after) and dropped | kept <= set(before)


def test_each_tombstone_is_one_trap_between_its_bounds(pruned: Toy) -> None:
    """But for that of a system call, which jumps."""
    text, at = contents(pruned), names(pruned.tree / "vmlinux")
    (start,), (end,) = at["__kprune_tombstones_start"], at["__kprune_tombstones_end"]
    addresses = sorted(int(str(row["address"])) for row in stones(pruned).values())
    *traps, call = addresses
    assert {call} == at["__x64_sys_cold"] and end - call == 7
    assert addresses == list(range(start, call + 1)) and all(text[address] == TRAP for address in traps)
    assert json.loads((pruned.tree / "tombstones.json").read_text())["start"] == start


def test_binutils_read_the_image_and_every_edited_object_without_a_word(pruned: Toy) -> None:
    (edited,) = pruned.tree.glob(".kprune/plan-*/objects/archive.a")
    for path in (pruned.tree / "vmlinux", edited):
        for command in (["readelf", "-aW", path], ["objdump", "-dr", path], ["nm", path]):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stderr == "", (path.name, command[0], done.stderr)


def test_ld_has_nothing_to_say_of_a_pruned_link(pruned: Toy) -> None:
    done = pruned.link(plan=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_second_link_prepares_nothing_anew(toy: Toy) -> None:
    toy.plan()
    assert toy.link(plan=True).returncode == 0
    files = {path: path.stat().st_mtime_ns for path in toy.tree.glob(".kprune/plan-*/**/*")}
    assert toy.link(plan=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in toy.tree.glob(".kprune/plan-*/**/*")} == files


def test_another_plan_takes_the_place_of_the_first(toy: Toy) -> None:
    toy.plan()
    assert toy.link(plan=True).returncode == 0
    toy.plan(width="callees")
    assert toy.link(plan=True).returncode == 0
    assert len(list(toy.tree.glob(".kprune/plan-*"))) == 1
    assert toy.verify().ok


# --- weak, strong, alias, compared pointers ---------------------------------------------------------


def test_without_the_strong_function_its_callers_miss_it(toy: Toy) -> None:
    """The weak one was not what they meant, and it goes too."""
    toy.plan(never=(".text.clock_read",))
    assert toy.link(plan=True).returncode == 0
    code, said = toy.run()
    assert (code, int(said["missed"], 16)) == (3, stones(toy)["lib/two.o:.text.clock_read"]["address"])
    assert "init/one.o:.text.clock_read" not in stones(toy) and toy.verify().ok


def test_a_kept_weak_function_does_not_answer_for_the_dropped_strong_one(toy: Toy) -> None:
    """It would return 1: a wrong answer instead of a miss."""
    toy.plan(never=(".text.clock_read",), rules=(KeepRule("clock_read", "the weak one", "init/*"),))
    assert toy.link(plan=True).returncode == 0
    code, said = toy.run()
    assert (code, int(said["missed"], 16)) == (3, stones(toy)["lib/two.o:.text.clock_read"]["address"])


def test_aliases_fall_together_at_one_address(toy: Toy) -> None:
    toy.plan(never=(".text.native_clock",))
    assert toy.link(plan=True).returncode == 0
    stone, at = stones(toy)["lib/two.o:.text.native_clock"], names(toy.tree / "vmlinux")
    assert stone["names"] == ["native_clock", "sched_clock"]
    assert at["native_clock"] == at["sched_clock"] == {stone["address"]}
    assert int(toy.run()[1]["missed"], 16) == stone["address"]


def test_compared_pointers_stay_unequal_when_all_of_them_are_dropped(toy: Toy) -> None:
    """table[0], [1] and [2] are three functions; [2] and [3] are one."""
    toy.plan(never=(".text.native_clock",), rules=())
    assert toy.link(plan=True).returncode == 0
    (table,) = names(toy.tree / "vmlinux")["table"]
    subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".data", "vmlinux", "data.bin"], cwd=toy.tree, check=True
    )
    said = subprocess.run(
        ["readelf", "-SW", "vmlinux"], cwd=toy.tree, capture_output=True, text=True, check=True
    ).stdout
    match = re.search(r" \.data +PROGBITS +([0-9a-f]+)", said)
    assert match
    at = table - int(match[1], 16)
    pointers = np.frombuffer((toy.tree / "data.bin").read_bytes(), "<u8", 4, at).tolist()
    assert len(set(pointers)) == 3 and 0 not in pointers and pointers[2] == pointers[3]
    assert set(pointers) <= {row["address"] for row in stones(toy).values()}


# --- any plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_any_plan_links_verifies_and_misses_by_name(built: Toy, toy: Toy, seed: int) -> None:
    """Half of the functions dropped at random: the program ends as it did, or at a tombstone."""
    chance = random.Random(seed)
    every = sorted(name for name in set(toy.image().names) if name.startswith(".text."))
    toy.plan(never=tuple(name for name in every if chance.random() < 0.5))
    done = toy.link(plan=True)
    assert (done.returncode, done.stderr) == (0, "")
    verdict = toy.verify()
    assert verdict.ok, str(verdict)
    code, said = toy.run()
    addresses = {row["address"] for row in stones(toy).values()}
    if "missed" in said:
        assert code == 3 and int(said.pop("missed"), 16) in addresses
    else:
        assert code in (0, -4)  # -SIGILL: what reports a miss was dropped itself
    kept = {label: value for label, value in said.items() if label not in COUNTS}
    assert kept.items() <= built.run()[1].items()


COUNTS = ("exceptions", "pointers", "bugs", "shifts", "unwind", "unwind ips")


# --- how kbuild calls it --------------------------------------------------------------------------


def test_an_object_of_kbuilds_own_is_linked_as_it_is(toy: Toy) -> None:
    """.tmp_vmlinux.kallsyms2.o is made between the links and is in no plan."""
    toy.plan()
    subprocess.run(
        ["gcc", "-c", "-x", "c", "-", "-o", ".tmp_vmlinux.kallsyms2.o"],
        cwd=toy.tree, input="const char kallsyms_names[] = \"names\";", text=True, check=True,
    )  # fmt: skip
    done = subprocess.run(
        [WRAPPER, *LINK, ".tmp_vmlinux.kallsyms2.o"], env={**os.environ, "KPRUNE_PLAN": "plan.json"},
        cwd=toy.tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kallsyms_names" in names(toy.tree / "vmlinux") and toy.run()[0] == 0


def test_the_script_may_be_given_as_two_words(toy: Toy) -> None:
    toy.plan()
    script = next(word for word in LINK if word.startswith("--script="))
    words = [part for word in LINK for part in (["-T", word[9:]] if word == script else [word])]
    done = subprocess.run(
        [WRAPPER, *words], cwd=toy.tree, capture_output=True, text=True, check=False,
        env={**os.environ, "KPRUNE_PLAN": "plan.json"},
    )  # fmt: skip
    assert done.returncode == 0 and toy.run()[0] == 0 and toy.verify().ok


def with_early_text(toy: Toy) -> None:
    """A last object whose function the script places ahead of all others."""
    for name, section in (("aa", ".text.aa"), ("zz", ".text.hot.zz")):
        text = f'__attribute__((section("{section}"))) int NAME(void) {{ return 1; }}\n'
        subprocess.run(
            ["gcc", *CFLAGS, "-c", "-x", "c", "-", "-o", f"init/{name}.o"],
            cwd=toy.tree, input=text.replace("NAME", name), text=True, check=True,
        )  # fmt: skip
    (toy.tree / "vmlinux.a").unlink()
    members = [f"init/{name}.o" for name in ("main", "one", "aa", "zz")]
    subprocess.run(["ar", "cDPrST", "vmlinux.a", *members], cwd=toy.tree, check=True)
    assert toy.link(plan=False).returncode == 0
    shutil.copy(toy.tree / "vmlinux.map", toy.tree / "base.map")


def test_the_order_of_objects_is_that_of_the_first_link(toy: Toy) -> None:
    """Initcalls of one level run in link order."""
    with_early_text(toy)
    order = [name for name in read_link_map(toy.tree / "base.map").objects if name.startswith("init/")]
    assert order == ["init/main.o", "init/one.o", "init/aa.o", "init/zz.o"]
    toy.plan()
    assert toy.link(plan=True).returncode == 0
    again = [name.rpartition("/objects/")[2] for name in read_link_map(toy.tree / "vmlinux.map").objects]
    assert again == [*order, "lib/two.o"]


# --- what is wrong with the input -----------------------------------------------------------------


def test_a_program_without_function_sections_is_refused(tmp_path: Path) -> None:
    """The first link is the user's business; there is just nothing to drop."""
    toy = build(tmp_path / "tree", [flag for flag in CFLAGS if flag != "-ffunction-sections"])
    with_sections = ".text.unlikely.hot_with_tail"
    source = (SOURCES / "one.c").read_text().replace(with_sections, ".text.unlikely")
    flags = [flag for flag in CFLAGS if flag != "-ffunction-sections"]
    subprocess.run(
        ["gcc", *flags, f"-I{SOURCES}", "-c", "-x", "c", "-", "-o", "init/one.o"],
        cwd=toy.tree, input=source, text=True, check=True,
    )  # fmt: skip
    assert toy.link(plan=False).returncode == 0 and toy.run()[0] == 0
    shutil.copy(toy.tree / "vmlinux.map", toy.tree / "base.map")
    with pytest.raises(UserError, match="no function has a section of its own; build with KCFLAGS="):
        toy.plan()


@pytest.mark.parametrize(
    "content", [b"this is text\n", b"", b"\x7fELF" + bytes(60)], ids=["text", "empty", "ELF"]
)
def test_what_is_no_object_fails_the_first_link(toy: Toy, content: bytes) -> None:
    (toy.tree / "vmlinux").unlink()
    (toy.tree / "init/one.o").write_bytes(content)
    done = toy.link(plan=False)
    assert done.returncode != 0 and "init/one.o" in done.stderr and "Traceback" not in done.stderr
    assert not (toy.tree / "vmlinux").exists()


@pytest.mark.parametrize("spoil", ["object", "section", "less", "more"])
def test_a_plan_of_units_that_do_not_exist_is_refused(toy: Toy, spoil: str) -> None:
    toy.plan()
    (toy.tree / "vmlinux").unlink()
    path = toy.tree / "plan.json"
    value = json.loads(path.read_text())
    if spoil == "object":
        value["units"][3][0] = "init/gone.o"
    elif spoil == "section":
        value["units"][3][1] = ".text.gone"
    elif spoil == "less":
        value["units"].pop()
    else:
        value["units"].append(["init/one.o", ".text.gone", 4, "drop", "cold"])
    path.write_text(json.dumps(value))
    one_clear_error(toy.link(plan=True), 2, "the units differ since the plan was made")
    assert not (toy.tree / "vmlinux").exists() and not list(toy.tree.glob(".kprune/plan-*"))


def test_a_plan_that_lists_an_object_that_is_gone_is_refused(toy: Toy) -> None:
    toy.plan()
    path = toy.tree / "plan.json"
    value = json.loads(path.read_text())
    value["objects"]["init/gone.o"] = "00"
    path.write_text(json.dumps(value))
    one_clear_error(toy.link(plan=True), 2, "init/gone.o went since the plan was made")


def test_a_plan_for_another_architecture_is_refused(toy: Toy) -> None:
    toy.plan()
    path = toy.tree / "plan.json"
    path.write_text(path.read_text().replace('"arch": "x86_64"', '"arch": "vax"'))
    one_clear_error(toy.link(plan=True), 2, "architecture vax: not supported")


def test_a_plan_that_drops_data_in_use_is_refused(toy: Toy) -> None:
    """Somebody edited the plan by hand."""
    plan = toy.plan()
    keep = plan.keep.copy()
    keep[[row[1] for row in plan.units].index(".data.table")] = False
    save_plan(type(plan)(**{**vars(plan), "keep": keep}), toy.tree / "plan.json")
    one_clear_error(toy.link(plan=True), 2, "drops init/one.o:.data.table, data that it refers to")


@pytest.mark.parametrize("spoil", ["gone", "cut", "empty"])
def test_the_map_beside_the_plan_is_needed_whole(toy: Toy, spoil: str) -> None:
    toy.plan()
    (toy.tree / "vmlinux").unlink()
    path = toy.tree / "vmlinux.base.map"
    text = path.read_text()
    path.unlink()
    if spoil != "gone":
        path.write_text(text[: len(text) // 2] if spoil == "cut" else "")
    one_clear_error(toy.link(plan=True), 2, "vmlinux.base.map")
    assert not (toy.tree / "vmlinux").exists()


# --- a full disk ----------------------------------------------------------------------------------

CAN_MOUNT = (
    os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
)
FULL = """
mount -t tmpfs -o size=4m none "$0" && cp -a . "$0" && cd "$0" || exit 99
spare=$1; shift
free=$(df -k --output=avail . | tail -n 1)
head -c $(( (free - spare) * 1024 )) /dev/zero > filler || exit 98
"$@"; echo "exit $?"
ls vmlinux vmlinux.map tombstones.json 2> /dev/null
grep -c '^OUTPUT(' vmlinux.map 2> /dev/null
true
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="needs root and a mount name space")
@pytest.mark.parametrize("pruned_too", [False, True], ids=["first link", "pruned link"])
def test_a_disk_that_fills_up_at_any_point(toy: Toy, tmp_path: Path, pruned_too: bool) -> None:
    """From no room at all to enough: either all files are there and whole, or no vmlinux is."""
    toy.plan()
    for name in ("vmlinux", "vmlinux.map", "base"):
        (toy.tree / name).unlink()
    shutil.rmtree(toy.tree / ".kprune")
    (tmp_path / "small").mkdir()
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    if pruned_too:
        environment["KPRUNE_PLAN"] = "plan.json"
    wanted = ["tombstones.json"] * pruned_too + ["vmlinux", "vmlinux.map"]
    codes = []
    for spare in range(0, 640, 40):
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", FULL, tmp_path / "small", str(spare), WRAPPER, *LINK],
            cwd=toy.tree, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        head, *files = done.stdout.splitlines()
        codes.append(int(head.removeprefix("exit ")))
        assert "Traceback" not in done.stderr
        if codes[-1] == 0:
            assert sorted(files[:-1]) == wanted and files[-1] == "1"
        else:
            assert "vmlinux" not in files, (spare, done)
            # ld's own failure keeps ld's own status.
            assert codes[-1] == 3 or (codes[-1] == 1 and "final link failed: No space" in done.stderr)
    assert codes[0] == 3 and codes[-1] == 0 and codes == sorted(codes, key=bool, reverse=True)
