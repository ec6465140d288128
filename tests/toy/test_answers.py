"""Dropped functions that answer by policy: linked, executed, and proved by verify."""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path
from signal import SIGTRAP

import pytest

from prune.guests.graveyard import read_graveyard
from prune.model.knowledge import debug_option
from prune.plan.plan_file import Answer, Plan, save_plan
from prune.plan.policy import REFUSE, STOP, Policy, make_policies
from prune.plan.typed import FOLDER
from tracer.host import BuildFailed, UserError

from .test_toy import stones
from .test_verify import address_of, broken, edit, patch
from .toy import CFLAGS, SOURCES, TARGETS, Toy, build

HOT = ("shapes", "panic")
#: The sum of what shapes() finds right: everything.
RIGHT = "255"
IBT = "CONFIG_X86_KERNEL_IBT"


def policies(**values: str) -> tuple[Policy, ...]:
    """Function -> the value that it returns, or what else happens."""
    rows = [
        {"functions": [name], "on_miss": value}
        if value in ("trap", "panic")
        else {"functions": [name], "on_miss": "return", "value": value}
        for name, value in values.items()
    ]
    return make_policies(rows, "testing")


ALL = policies(
    cold_int="-ENOTTY", cold_long="-ENOSYS", cold_thing="ERR_PTR(-ENOENT)", cold_null="NULL", cold_bool="1",
    cold_state="7", cold_local="-5", cold_panic="panic",
)  # fmt: skip


def made(arch: str, tree: Path, *more: str) -> Toy:
    return build(tree, [*CFLAGS, "-g"], ("answers", *more), arch=arch)


def linked(toy: Toy, rules: tuple[Policy, ...] = ALL, option: str = "") -> Toy:
    if option:
        with (toy.tree / ".config").open("a") as stream:
            stream.write(f"{option}=y\n")
    toy.plan(also=HOT, policies=rules, options=frozenset({option}))
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    return toy


@pytest.fixture(scope="module", params=TARGETS)
def typed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy with DWARF and no plan."""
    return made(request.param, tmp_path_factory.mktemp("typed"))


@pytest.fixture(scope="module")
def answering(typed: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Pruned, with all policies."""
    tree = tmp_path_factory.mktemp("answering") / "tree"
    shutil.copytree(typed.tree, tree, symlinks=True)
    return linked(replace(typed, tree=tree))


@pytest.fixture
def toy(typed: Toy, tmp_path: Path) -> Toy:
    shutil.copytree(typed.tree, tmp_path / "tree", symlinks=True)
    return replace(typed, tree=tmp_path / "tree")


@pytest.fixture
def spoilt(answering: Toy, tmp_path: Path) -> Toy:
    shutil.copytree(answering.tree, tmp_path / "tree", symlinks=True)
    return replace(answering, tree=tmp_path / "tree")


def test_every_answer_is_the_one_that_was_asked_for(answering: Toy) -> None:
    code, said = answering.run()
    assert (code, said["shapes"]) == (0, RIGHT)


def test_what_goes_on_afterwards_misses_as_before(answering: Toy) -> None:
    code, said = answering.run("x", "y")
    assert (code, said["shapes"]) == (3, RIGHT)
    assert int(said["missed"], 16) == stones(answering)["lib/two.o:.text.cold_two"]["address"]


def test_a_panic_names_the_function(answering: Toy) -> None:
    code, said = answering.run(*"abcde")
    assert code == 3 and said["kprune: cold_panic (lib/answers.o) was"] == "pruned"


def test_verify_agrees_and_counts_them(answering: Toy) -> None:
    verdict = answering.verify()
    assert verdict.ok, str(verdict)
    assert next(check.note for check in verdict.checks if check.name == "tombstones") == (
        "1 of them refuse a system call, 8 of them answer by policy"
    )


def test_addresses_stay_unique_and_the_list_says_what_answers(answering: Toy) -> None:
    graves = read_graveyard(answering.tree / "tombstones.json")
    rows = stones(answering).values()
    assert len({row["address"] for row in rows}) == len(rows)
    names = {graves.stones[address][0]: value for address, value in graves.answers.items()}
    assert names == {
        "cold_int": "-ENOTTY", "cold_long": "-ENOSYS", "cold_thing": "ERR_PTR(-ENOENT)", "cold_null": "NULL",
        "cold_bool": "1", "cold_state": "7", "cold_local": "-5", f"{answering.target.calls}cold": "-ENOSYS",
    }  # fmt: skip
    assert {graves.stones[address][0] for address in graves.calls} == {f"{answering.target.calls}cold"}
    start, end = (address_of(answering, f"__kprune_tombstones_{name}") for name in ("start", "end"))
    assert graves.size == end - start


def test_without_a_policy_they_are_traps(toy: Toy) -> None:
    linked(toy, ())
    code, said = toy.run()
    assert code == 3 and int(said["missed"], 16) == stones(toy)["lib/answers.o:.text.cold_int"]["address"]
    assert not broken(toy)


def test_what_is_called_under_a_lock_stops(toy: Toy) -> None:
    place = ("lib/two.o", ".text.cold_two")
    plan = toy.plan(also=HOT, policies=ALL)
    stop = Answer("cold_two", STOP, 0, "", "a lock may be held")
    save_plan(replace(plan, answers={**plan.answers, place: stop}), toy.tree / "plan.json")
    done = toy.link(plan=True)
    assert done.returncode == 0, done.stderr
    code, _ = toy.run("x", "y")
    assert code == -SIGTRAP
    verdict = toy.verify()
    assert verdict.ok, str(verdict)
    assert next(check.note for check in verdict.checks if check.name == "tombstones") == (
        "1 of them stop the machine, 1 of them refuse a system call, 8 of them answer by policy"
    )
    address = stones(toy)[":".join(place)]["address"]
    assert isinstance(address, int)
    patch(toy.tree / "vmlinux", address, b"\x90")
    assert "does not stop the machine: 90 cc" in broken(toy)["tombstones"].findings[0]


def _by_policy(plan: Plan) -> list[str]:
    return [answer.function for answer in plan.answers.values() if answer.on_miss != REFUSE]


def test_the_first_policy_that_matches_holds(toy: Toy) -> None:
    first = policies(cold_int="trap")
    plan = toy.plan(also=HOT, policies=(*first, *policies(cold_int="-ENOTTY"), *policies(cold_nowhere="0")))
    assert not _by_policy(plan) and plan.unused_rules == ("cold_nowhere = 0",)


def test_with_a_thunk_for_returns_answers_use_it(toy: Toy, tmp_path: Path) -> None:
    """Where the kernel's own code returns by a jump, a plain return would be one that nobody guards."""
    through = linked(made(toy.arch, tmp_path / "thunk", "thunk"))
    assert through.run()[1]["shapes"] == RIGHT
    assert not broken(through)
    address = stones(through)["lib/answers.o:.text.cold_int"]["address"]
    assert isinstance(address, int)
    patch(through.tree / "vmlinux", address + (7 if toy.arch == "x86_64" else 5), b"\xc3")
    assert "goes on with ret, not with jmp" in broken(through)["tombstones"].findings[0]


def test_a_kernel_that_checks_indirect_calls_finds_its_mark(toy: Toy) -> None:
    linked(toy, option=IBT)
    assert toy.run()[1]["shapes"] == RIGHT
    assert not broken(toy)
    mark = struct.pack("<I", 0xFA1E0FF3 if toy.arch == "x86_64" else 0xFB1E0FF3)
    begin = address_of(toy, "cold_long")
    patch(toy.tree / "vmlinux", begin, b"\x90" * 4)
    assert f"does not begin with {mark.hex(' ')}" in broken(toy)["tombstones"].findings[0]


@pytest.mark.parametrize(
    ("option", "more", "says"),
    [("CONFIG_CFI_CLANG", (), "CONFIG_CFI_CLANG"), ("", ("warned",), "warn_thunk_thunk")],
)
def test_what_the_kernel_would_object_to_is_refused(
    typed: Toy, tmp_path: Path, option: str, more: tuple[str, ...], says: str
) -> None:
    toy = made(typed.arch, tmp_path / "toy", *more)
    with pytest.raises(UserError, match=says):
        toy.plan(also=HOT, policies=ALL, options=frozenset({option}))


def test_nothing_panics_without_a_panic(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"this kernel has no panic\(\)"):
        toy.plan(also=("shapes",), policies=policies(cold_panic="panic"))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("cold_nothing", "0", r"cold_nothing .lib/answers.o. is void \(int \*\): it returns nothing"),
        ("cold_short", "-EINVAL", r"is unsigned short \(int\): -EINVAL is outside 0 to 65535"),
        ("cold_bool", "2", "outside 0 to 1"),
        ("cold_state", "1", r"is enum state \(int\): 1 is none of its values"),
        ("cold_thing", "-ENOENT", r"is struct thing \* \(struct thing \*\): say .NULL. or"),
        ("cold_never", "0", r"cold_never .* never returns, whatever its type says"),
        ("cold_long", "NULL", r"is answer_t \(void\): it returns no pointer"),
    ],
)
def test_a_type_that_has_no_such_value_is_an_error(toy: Toy, name: str, value: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        toy.plan(also=HOT, policies=policies(**{name: value}))


def test_a_value_in_two_registers_is_an_error(toy: Toy) -> None:
    rules = policies(cold_wide="0")
    if toy.arch == "i386":
        with pytest.raises(UserError, match=r"is long long \(long long\): .* more than one register"):
            toy.plan(also=HOT, policies=rules)
    else:
        assert toy.plan(also=HOT, policies=rules).answers


def test_a_policy_may_choose_by_type(toy: Toy) -> None:
    row = {
        "functions": ["cold_*"],
        "types": ["int (struct thing *, *)"],
        "on_miss": "return",
        "value": "-ENOTTY",
    }
    plan = toy.plan(also=HOT, policies=make_policies([row], "testing"))
    assert _by_policy(plan) == ["cold_int"]


def test_without_type_information_the_error_says_what_gives_it(typed: Toy, tmp_path: Path) -> None:
    bare = build(tmp_path / "bare", more=("answers",), arch=typed.arch)
    with pytest.raises(UserError, match=rf"cold_int .* has no type .*{debug_option()}"):
        bare.plan(also=HOT, policies=policies(cold_int="-ENOTTY"))
    with pytest.raises(UserError, match=rf"no type information for cold_.*{debug_option()}"):
        row = {"functions": ["cold_*"], "types": ["int *"], "on_miss": "return", "value": 0}
        bare.plan(also=HOT, policies=make_policies([row], "testing"))


def record(toy: Toy, source: Path) -> None:
    """What kbuild writes beside an object."""
    words = [
        "gcc",
        "-Wp,-MMD,lib/.answers.o.d",
        *CFLAGS,
        *toy.target.flags,
        '-DKBUILD_STR="a$(pound)b"',
        "-c",
    ]
    command = f"{shlex.join([*words, '-o', 'lib/answers.o', str(source)])} ; ./tools/objtool lib/answers.o"
    (toy.tree / "lib/.answers.o.cmd").write_text(f"savedcmd_lib/answers.o := {command}\n\nsource := x\n")


def test_types_come_from_compiling_once_more(typed: Toy, tmp_path: Path) -> None:
    """A kernel without debug information keeps the objects that it has; what was read is kept."""
    bare = build(tmp_path / "bare", more=("answers",), arch=typed.arch)
    before = (bare.tree / "lib/answers.o").read_bytes()
    record(bare, SOURCES / "answers.c")
    linked(bare)
    assert bare.run()[1]["shapes"] == RIGHT and not broken(bare)
    assert (bare.tree / "lib/answers.o").read_bytes() == before
    assert len(list((bare.tree / FOLDER).iterdir())) == 1
    record(bare, tmp_path / "gone.c")  # not looked at any more
    assert bare.plan(also=HOT, policies=ALL).answers
    shutil.rmtree(bare.tree / FOLDER)
    with pytest.raises(BuildFailed, match=r"compiling lib/answers.o again .* gcc exited 1: .*gone.c"):
        bare.plan(also=HOT, policies=ALL)


def test_lld_lays_down_the_same(toy: Toy) -> None:
    if toy.arch == "x86_64":
        toy.plan(also=HOT, policies=ALL)
        done = toy.link(plan=True, env={"KPRUNE_LD": "ld.lld"})
        assert done.returncode == 0, done.stderr
        assert toy.run()[1]["shapes"] == RIGHT and not broken(toy)


@pytest.mark.parametrize(
    ("name", "at", "byte", "says"),
    [
        ("cold_int", -6, 0xE6, "does not load -ENOTTY but does mov"),
        ("cold_int", -2, 0x90, "goes on with nop, not with ret"),
        ("cold_int", -1, 0x90, "has 90 behind its return"),
        ("cold_null", -6, 1, "does not load NULL"),
        ("cold_panic", 8, ord("x"), "says b"),
        ("cold_panic", -2, 0xFE, "not panic"),
        ("cold_panic", 0, 0x90, "does not call over its text"),
    ],
)
def test_a_damaged_answer_is_found(spoilt: Toy, name: str, at: int, byte: int, says: str) -> None:
    row = stones(spoilt)[f"lib/answers.o:.text.{name}"]
    address, size = row["address"], row["size"]
    assert isinstance(address, int) and isinstance(size, int)
    patch(spoilt.tree / "vmlinux", address + (at if at >= 0 else size + at), bytes([byte]))
    found = broken(spoilt)["tombstones"].findings
    assert f"of {name}" in found[0] and says in found[0]


def test_an_answer_that_nobody_planned_is_found(spoilt: Toy) -> None:
    path, value = edit(spoilt, "plan.json")
    value["answers"] = [row for row in value["answers"] if row[2] != "cold_int"]
    path.write_text(json.dumps(value))
    found = broken(spoilt)["tombstones"].findings
    assert any("lib/answers.o:.text.cold_int holds no trap" in finding for finding in found)
    assert any("is said to answer '-ENOTTY', planned was ''" in finding for finding in found)


def test_an_answer_for_what_was_kept_is_found(spoilt: Toy) -> None:
    path, value = edit(spoilt, "plan.json")
    value["answers"].append(["lib/answers.o", ".text.shapes", "shapes", "return", -1, "-1", "x"])
    path.write_text(json.dumps(value))
    found = broken(spoilt)["tombstones"].findings
    assert "something answers for lib/answers.o:.text.shapes, which was not dropped" in found


def test_a_planned_answer_that_is_a_trap_is_found(toy: Toy) -> None:
    linked(toy, ())
    path, value = edit(toy, "plan.json")
    value["answers"] = [["lib/answers.o", ".text.cold_int", "cold_int", "return", -25, "-ENOTTY", "x"]]
    path.write_text(json.dumps(value))
    assert "does not load -ENOTTY" in " ".join(broken(toy)["tombstones"].findings)


def test_linking_twice_gives_the_same_bytes(answering: Toy, spoilt: Toy) -> None:
    shutil.rmtree(spoilt.tree / ".kprune")
    linked(spoilt)
    assert (spoilt.tree / "vmlinux").read_bytes() == (answering.tree / "vmlinux").read_bytes()
    said = subprocess.run(["nm", spoilt.tree / "vmlinux"], capture_output=True, text=True, check=True).stdout
    assert " u cold_int\n" in said  # not in kallsyms
