"""Who gets a tombstone, and under which names the link will look for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from prune.linking.bodies import Toward, refusals, shared_answers
from prune.linking.tombstones import Burial, bury_dropped
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.tables import find_tables
from prune.plan.plan_file import Answer
from prune.plan.policy import REFUSE, make_policies
from prune.plan.refusals import find_refusals
from tests.conftest import X86, image
from tracer.host import UserError

from .elfwriter import ALLOC, LOCAL, R_64, R_PC32, WEAK, WRITE, Rela, Section, Symbol, write_elf


def kept(made: Image, *dropped: tuple[str, str]) -> Rows:
    keep: Rows = made.units["size"] > 0
    for place in dropped:
        keep[made.unit_of[place]] = False
    return keep


def bury(
    made: Image, *dropped: tuple[str, str], shared: Mapping[tuple[str, str], str] | None = None
) -> Burial:
    others = {made.unit_of[place]: to for place, to in (shared or {}).items()}
    return bury_dropped(made, find_tables(made, X86), kept(made, *dropped), others)


def stones(made: Image, *dropped: tuple[str, str]) -> dict[str, tuple[tuple[str, ...], str]]:
    """Label of the unit -> (its names, the name for local references)."""
    found = bury(made, *dropped).stones
    return {made.unit_label(unit): (stone.names, stone.local_name) for unit, stone in found.items()}


def function(name: str, *refers_to: str, bind: int = 1) -> bytes:
    """An object with one function that calls each of the given names."""
    section = f".text.{name}"
    return write_elf(
        [Section(section, bytes(5 * len(refers_to) + 1))],
        [Symbol(name, section, bind=bind), *(Symbol(other) for other in refers_to)],
        [Rela(section, 5 * n + 1, other) for n, other in enumerate(refers_to)],
    )


def test_what_nothing_kept_refers_to_needs_none(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": function("a", "b"), "b.o": function("b", "c"), "c.o": function("c")})
    assert stones(made, ("b.o", ".text.b"), ("c.o", ".text.c")) == {"b.o:.text.b": (("b",), "")}


def test_a_dropped_weak_function_leaves_the_strong_one_alone(tmp_path: Path) -> None:
    objects = {"w.o": function("f", bind=WEAK), "s.o": function("f"), "u.o": function("u", "f")}
    made = image(tmp_path, objects)
    found = bury(made, ("w.o", ".text.f"))
    assert found.stones == {} and found.severed.size == 0


def test_a_dropped_strong_function_is_not_answered_by_the_kept_weak_one(tmp_path: Path) -> None:
    """The callers meant the strong one."""
    objects = {"w.o": function("f", bind=WEAK), "s.o": function("f"), "u.o": function("u", "f")}
    assert stones(image(tmp_path, objects), ("s.o", ".text.f")) == {"s.o:.text.f": (("f",), "")}


def test_aliases_share_one_tombstone(tmp_path: Path) -> None:
    clock = write_elf(
        [Section(".text.native")], [Symbol("native", ".text.native"), Symbol("clock", ".text.native")]
    )
    made = image(tmp_path, {"c.o": clock, "u.o": function("u", "native", "clock")})
    assert stones(made, ("c.o", ".text.native")) == {"c.o:.text.native": (("clock", "native"), "")}


def local_pair(name: str, user: str) -> bytes:
    """A local function that its object reaches through the section symbol."""
    return write_elf(
        [Section(f".text.{name}"), Section(f".text.{user}", bytes(8))],
        [Symbol(name, f".text.{name}", bind=LOCAL), Symbol(user, f".text.{user}")],
        [Rela(f".text.{user}", 1, f".text.{name}")],
    )


def test_a_local_keeps_its_real_name_when_nobody_has_it(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": local_pair("g", "u")})
    assert stones(made, ("a.o", ".text.g")) == {"a.o:.text.g": (("g",), "g")}


def test_locals_of_one_name_stay_apart(tmp_path: Path) -> None:
    made = image(tmp_path, {f"{n}.o": local_pair("g", f"u{n}") for n in "abc"})
    found = stones(made, *((f"{n}.o", ".text.g") for n in "abc"))
    assert sorted(names for names, _ in found.values()) == [("g",), ("g.2",), ("g.3",)]


def test_a_number_that_is_taken_is_not_given_again(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": local_pair("g", "u"), "b.o": function("g"), "c.o": function("g.2")})
    assert stones(made, ("a.o", ".text.g")) == {"a.o:.text.g": (("g.3",), "g.3")}


def test_a_weak_reference_is_not_answered_by_a_locals_tombstone(tmp_path: Path) -> None:
    asks = write_elf(
        [Section(".text.h", bytes(8))],
        [Symbol("h", ".text.h"), Symbol("g", bind=WEAK)],
        [Rela(".text.h", 1, "g")],
    )
    made = image(tmp_path, {"a.o": local_pair("g", "u"), "b.o": asks})
    assert stones(made, ("a.o", ".text.g")) == {"a.o:.text.g": (("g.2",), "g.2")}


def test_a_global_that_is_also_reached_by_its_section_has_one_name(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".text.u", bytes(16))],
        [Symbol("f", ".text.f"), Symbol("u", ".text.u")],
        [Rela(".text.u", 1, "f"), Rela(".text.u", 6, ".text.f")],
    )
    assert stones(image(tmp_path, {"a.o": data}), ("a.o", ".text.f")) == {"a.o:.text.f": (("f",), "f")}


def test_a_pointer_in_data_counts_as_a_reference(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".data.p", bytes(8), ALLOC | WRITE)],
        [Symbol("f", ".text.f"), Symbol("p", ".data.p", type=1)],
        [Rela(".data.p", 0, "f", R_64, 0)],
    )
    assert stones(image(tmp_path, {"a.o": data}), ("a.o", ".text.f")) == {"a.o:.text.f": (("f",), "")}


@pytest.mark.parametrize("owner_too", [False, True])
def test_a_table_entry_speaks_for_its_owner(tmp_path: Path, owner_too: bool) -> None:
    """The entry of a dropped function goes, so what it mentions needs no tombstone."""
    relocations = [
        Rela("__ex_table", 0, ".text.f", R_PC32, 0),
        Rela("__ex_table", 4, ".text.fixup_f", R_PC32, 4),
    ]
    data = write_elf(
        [Section(".text.f"), Section(".text.fixup_f"), Section("__ex_table", bytes(12), ALLOC)],
        [Symbol("f", ".text.f"), Symbol("fixup_f", ".text.fixup_f", bind=LOCAL)],
        relocations,
    )
    dropped = [("a.o", ".text.fixup_f"), *([("a.o", ".text.f")] if owner_too else [])]
    found = stones(image(tmp_path, {"a.o": data}), *dropped)
    assert set(found) == (set() if owner_too else {"a.o:.text.fixup_f"})


CALL = ("a.o", ".text.__x64_sys_a")


def test_a_dropped_system_call_is_refused_when_what_refuses_is_kept(tmp_path: Path) -> None:
    objects = {
        "t.o": function("table", "__x64_sys_a", "__x64_sys_b", "__x64_sys_ni_syscall", "c"),
        "a.o": function("__x64_sys_a"),
        "b.o": function("__x64_sys_b"),
        "c.o": function("c"),
        "n.o": function("__x64_sys_ni_syscall"),
    }
    made = image(tmp_path, objects)
    dropped = CALL, ("c.o", ".text.c")
    refused = Answer("__x64_sys_a", REFUSE, 0, "-ENOSYS", "__x64_sys_ni_syscall")
    assert find_refusals(made, kept(made, *dropped), (), X86) == {CALL: refused}
    assert find_refusals(made, kept(made, *dropped, ("n.o", ".text.__x64_sys_ni_syscall")), (), X86) == {}
    spoken = make_policies([{"functions": ["__x64_sys_*"], "on_miss": "trap"}], "testing")
    assert find_refusals(made, kept(made, *dropped), spoken, X86) == {}


def test_an_entry_that_is_a_function_by_another_name(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.__do_sys_a")],
        [Symbol("__do_sys_a", ".text.__do_sys_a", bind=LOCAL), Symbol("__x64_sys_a", ".text.__do_sys_a")],
    )
    objects = {"a.o": data, "n.o": function("__x64_sys_ni_syscall"), "t.o": function("table", "__x64_sys_a")}
    made = image(tmp_path, objects)
    place = ("a.o", ".text.__do_sys_a")
    (found,) = find_refusals(made, kept(made, place), (), X86).values()
    assert (found.function, found.policy) == ("__x64_sys_a", "__x64_sys_ni_syscall")


def test_an_entry_that_link_time_optimization_made_local(tmp_path: Path) -> None:
    data = write_elf(
        [Section(f".text.{name}", bytes(8)) for name in ("table", "__x64_sys_a", "__x64_sys_ni_syscall")],
        [
            Symbol("table", ".text.table"), Symbol("__x64_sys_a", ".text.__x64_sys_a", bind=LOCAL),
            Symbol("__x64_sys_ni_syscall", ".text.__x64_sys_ni_syscall"),
        ],
        [Rela(".text.table", 1, ".text.__x64_sys_a")],
    )  # fmt: skip
    made = image(tmp_path, {"vmlinux.o": data})
    place = ("vmlinux.o", ".text.__x64_sys_a")
    answers = find_refusals(made, kept(made, place), (), X86)
    burial, bodies = refusals(answers, made, bury(made, place), X86, frozenset())
    assert list(bodies) == [place] and bodies[place].parts[-1] == Toward("__x64_sys_ni_syscall")
    assert [stone.local_name for stone in burial.stones.values()] == ["__x64_sys_a"]


def test_where_the_kernel_checks_what_it_calls_names_mean_what_refuses(tmp_path: Path) -> None:
    made = image(tmp_path, {"t.o": function("table", "__x64_sys_a"), "a.o": function("__x64_sys_a")})
    answers = {CALL: Answer("__x64_sys_a", REFUSE, 0, "-ENOSYS", "refuser")}
    assert shared_answers(answers, made, X86, frozenset({"CONFIG_SMP"})) == {}
    (to,) = shared_answers(answers, made, X86, frozenset({"CONFIG_CFI_CLANG"})).values()
    found = bury(made, CALL, shared={CALL: to})
    assert (found.stones, found.aliases) == ({}, {"__x64_sys_a": "refuser"})


@pytest.mark.parametrize("option", ["", "CONFIG_X86_KERNEL_IBT"])
def test_entries_of_system_calls_lie_together_each_within_reach_of_one_that_leads_further(
    tmp_path: Path, option: str
) -> None:
    names = [f"__x64_sys_{number:03}" for number in range(200)]
    objects = {"t.o": function("table", "b", *names), "b.o": function("b")}
    made = image(tmp_path, {**objects, **{f"{name}.o": function(name) for name in names}})
    places = [(f"{name}.o", f".text.{name}") for name in names]
    answers = {
        place: Answer(name, REFUSE, 0, "-ENOSYS", "ni") for place, name in zip(places, names, strict=True)
    }
    burial = bury(made, ("b.o", ".text.b"), *places)
    burial, bodies = refusals(answers, made, burial, X86, frozenset({option}))
    assert len(burial.stones) == 201 and len(bodies) == 200
    order = [made.rows[unit][:2] for unit in burial.stones]
    assert order[0] == ("b.o", ".text.b")  # which traps
    mark = bytes(X86.answer["landing"]["code"]) if option else b""
    assert all(body.parts[0] == mark for body in bodies.values())
    at, behind = {}, 0
    for place in order[1:]:
        at[place[1].removeprefix(".text.")] = behind
        behind += bodies[place].size
    # Each leads to a jump that leads further, which has none of their addresses.
    ends, led = {}, set()
    for place in order[1:]:
        name, parts = place[1].removeprefix(".text."), bodies[place].parts
        lead, here = parts[2], at[name] + len(mark) + 2
        assert isinstance(lead, Toward) and lead.size == 1
        to = at[lead.symbol] + lead.behind
        led.add(to)
        assert 0 <= to - here < 128 and to not in at.values()
        if len(parts) > 3:
            assert (to, parts[4]) == (here, Toward("ni"))
            ends[to] = bodies[place].size - len(mark) - 2
    assert led == set(ends) and set(ends.values()) == {5} and len(ends) == (10 if option else 4)


def test_a_plan_that_drops_data_in_use_is_refused(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".data.v", bytes(8), ALLOC | WRITE)],
        [Symbol("f", ".text.f"), Symbol("v", ".data.v", type=1)],
        [Rela(".text.f", 1, "v", R_PC32)],
    )
    with pytest.raises(UserError, match=r"keeps a\.o:\.text\.f and drops a\.o:\.data\.v"):
        bury(image(tmp_path, {"a.o": data}), ("a.o", ".data.v"))


def test_names_do_not_depend_on_what_is_dropped(tmp_path: Path) -> None:
    """They are given when the image is read: any plan finds the same ones in the string tables."""
    made = image(tmp_path, {f"{n}.o": local_pair("g", f"u{n}") for n in "abc"})
    assert stones(made, ("c.o", ".text.g")) == {"c.o:.text.g": (("g.3",), "g.3")}
    assert stones(made, ("b.o", ".text.g")) == {"b.o:.text.g": (("g.2",), "g.2")}
    assert made.text.stand_ins == ("g", "g.2", "g.3")


def test_what_is_reached_by_global_names_alone_has_no_stand_in(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": function("a", "b"), "b.o": function("b")})
    assert made.text.stand_ins == () and (made.units["stand_in"] == -1).all()


def test_a_definition_that_a_stand_in_takes_over_becomes_undefined(tmp_path: Path) -> None:
    """It is reached by its section alone, and the script defines its name."""
    data = write_elf(
        [Section(".text.f"), Section(".text.u", bytes(8))],
        [Symbol("f", ".text.f"), Symbol("u", ".text.u")],
        [Rela(".text.u", 1, ".text.f")],
    )
    made = image(tmp_path, {"a.o": data})
    found = bury(made, ("a.o", ".text.f"))
    assert [made.symbol_name(row) for row in found.undefined.tolist()] == ["f"]
    assert found.severed.tolist() == [0] and found.local.tolist() == [True]
    assert bury(made).undefined.size == 0


def test_a_name_that_another_answers_for_is_no_tombstone_of_a_local_reference(tmp_path: Path) -> None:
    """By its section the function itself is meant, whose place is a trap."""
    data = write_elf(
        [Section(".text.__x64_sys_a"), Section(".text.u", bytes(16))],
        [Symbol("__x64_sys_a", ".text.__x64_sys_a"), Symbol("u", ".text.u")],
        [Rela(".text.u", 1, ".text.__x64_sys_a"), Rela(".text.u", 6, "__x64_sys_a")],
    )
    made = image(tmp_path, {"a.o": data, "n.o": function("__x64_sys_ni_syscall")})
    found = bury(made, CALL, shared={CALL: "__x64_sys_ni_syscall"})
    assert found.aliases == {"__x64_sys_a": "__x64_sys_ni_syscall"}
    (stone,) = found.stones.values()
    assert (stone.names, stone.local_name) == (("__x64_sys_a.2",), "__x64_sys_a.2")
