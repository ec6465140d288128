"""Programs that nobody profiled: reading a list of them, and judging what became of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from prune.commands.holdout import Held, policies_for, table
from prune.guests.boots import PrunedKernel
from prune.guests.graveyard import Graveyard
from prune.guests.held_out import (
    ANSWERED,
    ENOSYS,
    HUNG,
    KILLED,
    OUTCOMES,
    PANICKED,
    SAME,
    SCHEMA,
    VARIES,
    WRONG,
    Fate,
    Program,
    ProgramList,
    Ran,
    count,
    judge,
    read_holdout,
    read_programs,
)
from prune.guests.holdout import DoesNotBoot, Guests, own_files, with_programs
from prune.guests.system_map import SystemMap
from tracer.host import UserError
from tracer.workloads.workload_file import load_workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "holdout" / "programs.toml"
BASE = Ran(0, ("one", "two"))
HANGS = Ran(-1, (), ended="hung")
NO_BOOT = DoesNotBoot("pruned does not boot with what they need: missed groups_search (kernel/groups.o)")
ONE = '[[program]]\nname = "a"\ncommand = "/held/a"\n'
KILLS = Ran(-1, (), missed=("it",))


def test_the_example_has_more_than_a_hundred_programs() -> None:
    programs = read_programs(EXAMPLE).programs
    assert len(programs) >= 100
    assert all(program.timeout == 15 for program in programs)


class Scripted(Guests):
    """A kernel that does as it is told, guest after guest."""

    left: ClassVar[list[list[Ran] | DoesNotBoot]] = []

    def _one_guest(self, numbers: Sequence[int], programs: Sequence[Program]) -> list[Ran]:
        did = self.left.pop(0)
        if isinstance(did, DoesNotBoot):
            raise did
        return did


def scripted(guests: Sequence[list[Ran] | DoesNotBoot]) -> Guests:
    kernel = PrunedKernel(Path(), Graveyard({}, {}), SystemMap(()), smp=False)
    Scripted.left = list(guests)
    return Scripted("pruned", load_workload(EXAMPLE.parents[1] / "micro"), kernel, Path(), Path())


def test_a_kernel_that_misses_something_before_the_first_program_judges_none() -> None:
    with pytest.raises(UserError, match=r"does not boot with what they need: missed groups_search"):
        scripted([NO_BOOT, NO_BOOT]).run([Program("first", "", 1)])


@pytest.mark.parametrize(
    ("guests", "done"),
    [
        ([[BASE, HANGS], [BASE], [BASE]], [BASE, replace(BASE, repeated=True), BASE]),
        ([[BASE, HANGS], [HANGS], [BASE]], [BASE, replace(HANGS, repeated=True), BASE]),
        ([[BASE, KILLS], [BASE]], [BASE, KILLS, BASE]),
        ([NO_BOOT, [BASE, KILLS], NO_BOOT, [BASE]], [BASE, KILLS, BASE]),
    ],
)
def test_a_hang_is_tried_once_more(guests: list[list[Ran] | DoesNotBoot], done: list[Ran]) -> None:
    guest = scripted(guests)
    programs = [Program(name, "", 1) for name in ("first", "second", "third")]
    assert guest.run(programs) == done
    assert Scripted.left == []
    fates = [judge(program.name, [BASE], ran) for program, ran in zip(programs, done, strict=True)]
    assert [fate.repeated for fate in fates] == [ran.repeated for ran in done]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[program]", "at line 1"),
        ("schema_version = 1", 'the key "program" is missing'),
        ("schema_version = 2\nprogram = []", "schema_version is 2, not 1"),
        ("schema_version = 1\nprogram = []", "there is no [[program]]"),
        ('schema_version = 1\n[[program]]\nname = "a"', 'the key "command" is missing'),
        ('schema_version = 1\n[[program]]\nname = "boot"\ncommand = ""', "that of a phase"),
        ('schema_version = 1\n[[program]]\nname = "a b"\ncommand = ""', 'the name "a b" may hold only'),
        ('schema_version = 1\n[[program]]\nname = "a"\ncommand = ""\ntimeout = 0', "timeout is not between"),
        ('schema_version = 1\n[[program]]\nname = "a"\ncommand = ""\ntimeuot = 1', 'did you mean "timeout"'),
        ('schema_version = 1\npackages = ["-x"]\n[[program]]\nname = "a"\ncommand = ""', "not the name of a"),
        (f'schema_version = 1\nomit = ["share"]\n{ONE}', "omit: 'share' is not a pattern of absolute paths"),
        (f'schema_version = 1\nfiles = "tests"\n{ONE}', 'files: "tests" is not a folder beside the list'),
        (f'schema_version = 1\nfiles = ".."\n{ONE}', 'files: ".." is not a folder beside the list'),
        (f'schema_version = 1\nfiles = "/etc"\n{ONE}', 'files: "/etc" is not a folder beside the list'),
        (f'schema_version = 1\nmemory = "64"\n{ONE}', 'memory "64" is not a size'),
        ("schema_version = 1\n" + '[[program]]\nname = "a"\ncommand = ""\n' * 2, "two programs are called"),
    ],
)
def test_a_wrong_list_is_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "programs.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_programs(path)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def listed(folder: Path, head: str) -> ProgramList:
    (folder / "programs.toml").write_text(f"schema_version = 1\n{head}\n{ONE}")
    return read_programs(folder / "programs.toml")


def test_guests_have_what_a_list_brings(tmp_path: Path) -> None:
    workload = load_workload(EXAMPLE.parents[1] / "micro")
    (tmp_path / "tests/deep").mkdir(parents=True)
    (tmp_path / "tests/deep/a").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "tests/deep/a").chmod(0o755)
    head = 'packages = ["tar"]\nomit = ["/usr/share/doc/*"]\nfiles = "tests"\nmemory = "256M"'
    made = listed(tmp_path, head)
    tree = own_files(made, 256 << 20)
    assert sorted(tree) == ["held/deep/a", "kprune/held/a"]
    assert (tree["held/deep/a"].data, tree["held/deep/a"].mode) == (b"#!/bin/sh\n", 0o100755)
    other = with_programs(workload, made)
    assert other.machine == replace(workload.machine, memory=256 << 20)
    assert other.rootfs.packages == (*workload.rootfs.packages, "tar")
    assert other.rootfs.omit == ("/usr/share/doc/*",)
    assert not other.rootfs.owners
    same = with_programs(workload, listed(tmp_path, ""))
    assert (same.machine, same.rootfs.omit) == (workload.machine, workload.rootfs.omit)


def test_files_are_those_of_the_list_and_fit(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/a").write_bytes(bytes(4096))
    made = listed(tmp_path, 'files = "tests"')
    with pytest.raises(UserError, match=r"tests/a: guests have no room for it"):
        own_files(made, 4095)
    (tmp_path / "tests/b").symlink_to(EXAMPLE)
    with pytest.raises(UserError, match=r"tests/b: a link that leads out of"):
        own_files(made, 1 << 20)


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_programs(tmp_path / "programs.toml")


@pytest.mark.parametrize(
    ("wanted", "got", "outcome"),
    [
        ((BASE, BASE), BASE, SAME),
        # What was missed did not matter, or was killed in the background.
        ((BASE, BASE), Ran(0, BASE.lines, ("f (a.o)",)), SAME),
        ((BASE, BASE), Ran(139, ("one",), ("f (a.o)",)), KILLED),
        ((BASE, BASE), Ran(-1, (), ("f (a.o)",), ended="panicked"), PANICKED),
        ((BASE, BASE), Ran(1, ("one", "Function not implemented"), unanswered=("sync",)), ENOSYS),
        ((BASE, BASE), Ran(1, ("one", "Not a typewriter"), answered=("f (a.o) returned -ENOTTY",)), ANSWERED),
        ((BASE, BASE), Ran(1, BASE.lines), WRONG),
        ((BASE, BASE), Ran(0, ("one", "2")), WRONG),
        # It went down, and nobody can say for what.
        ((BASE, BASE), Ran(-1, (), ended="panicked"), HUNG),
        ((BASE, BASE), Ran(-1, (), ("f (a.o)",), ended="hung"), HUNG),
        ((BASE, Ran(0, ("one", "3"))), BASE, VARIES),
        ((BASE, Ran(-1, (), ended="hung")), BASE, VARIES),
    ],
)
def test_judgement(wanted: tuple[Ran, ...], got: Ran, outcome: str) -> None:
    assert judge("p", wanted, got).outcome == outcome


def test_the_first_line_that_differs_is_shown() -> None:
    assert judge("p", (BASE,), Ran(0, ("one", "2"))).differs == ("two", "2")
    assert judge("p", (BASE,), Ran(0, ("one",))).differs == ("two", "")
    assert judge("p", (BASE,), Ran(3, BASE.lines)).differs == ("status 0", "status 3")


def test_every_outcome_is_counted() -> None:
    found = count([Fate("a", SAME), Fate("b", HUNG), Fate("c", SAME)])
    assert list(found) == list(OUTCOMES)
    assert (found[SAME], found[HUNG], sum(found.values())) == (2, 1, 3)


def test_what_the_page_shows_is_read_again(tmp_path: Path) -> None:
    fates = (
        Fate("a", SAME),
        Fate("b", KILLED, ("f (a.o), called by g",), ("1", "")),
        Fate("c", WRONG, (), ("1", "2")),
    )
    held = Held("ran", "function", 1000, 800, fates)
    path = tmp_path / "holdout.json"
    value = {"schema_version": SCHEMA, "build_id": "aa", "kernels": [held.to_json()]}
    path.write_text(json.dumps(value))
    identity, shown = read_holdout(path)
    assert (identity, shown["outcomes"]) == ("aa", list(OUTCOMES))
    assert shown["kernels"] == [["--keep ran", 1000, [1, 0, 0, 1, 0, 1, 0, 0]]]
    assert shown["programs"] == [
        ["a", SAME, ""], ["b", KILLED, "f (a.o), called by g"], ["c", WRONG, '"2" instead of "1"'],
    ]  # fmt: skip
    assert "a: " not in table([held]) and '  c: wrong output: "2" instead of "1"' in table([held])
    for damage in ({"kernels": []}, {"kernels": [{}]}, {"kernels": [held.to_json() | {"outcomes": {}}]}):
        path.write_text(json.dumps(value | damage))
        with pytest.raises(UserError, match="make it again: kprune holdout"):
            read_holdout(path)


def test_what_a_policy_may_answer_is_said() -> None:
    killed = [
        Fate(name, KILLED, (f"{missed} (fs/a.o), called by f",))
        for name, missed in (
            ("a", "pipe_ioctl"),
            ("b", "tty_ioctl+0x12"),
            ("c", "proc_dostring"),
            ("d", "tcp_ack"),
        )
    ]
    (said,) = policies_for([Held("ran", "function", 1000, 800, (*killed, Fate("e", SAME)))])
    assert said.startswith("--keep ran: of 4 programs that were ended, ")
    assert "instead: ioctl for 2, sysctl for 1 (" in said and 'builtin = ["ioctl"]' in said
    assert list(policies_for([Held("ran", "function", 1000, 800, (killed[3],))])) == []
