"""What a profile of another build leaves open is kept, and no more than that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from prune.model.functions import Functions, make_functions
from prune.model.tables import find_tables
from prune.plan.carried import ABSENT, CALLED, LATE, WITHIN, uncertain
from prune.plan.references import find_references
from tests.conftest import X86, image
from tracer.profiles.profile import FunctionRecord, KernelId, Profile, Seen
from tracer.profiles.references import References

from .elfwriter import ALLOC, GLOBAL, LOCAL, R_64, R_PC32, WRITE, Rela, Section, Symbol, write_elf

#: Function -> what it calls; "=name" takes an address, "@table" refers to data.
Code = Mapping[str, Sequence[str]]
Build = Mapping[str, Code]


def build(folder: Path, objects: Build, tables: Mapping[str, Sequence[str]] | None = None) -> Functions:
    """A build of these objects; ``tables``: data of the first object -> functions in it."""
    made = {}
    for number, (name, code) in enumerate(objects.items()):
        mine = (tables or {}) if number == 0 else {}
        sections, relocations = [], []
        for function, refers in code.items():
            section = f".text.{function}"
            sections.append(Section(section, b"".join(_opcode(to) + bytes(4) for to in refers) + b"\xc3"))
            for place, to in enumerate(refers):
                target = to.removeprefix("=").removeprefix("@")
                relocations.append(Rela(section, 5 * place + 1, target, R_PC32 if to[0] in "=@" else 4))
        for table, functions in mine.items():
            sections.append(Section(f".data.{table}", bytes(8 * len(functions)), ALLOC | WRITE))
            relocations += [Rela(f".data.{table}", 8 * i, to, R_64, 0) for i, to in enumerate(functions)]
        static = {function for other in objects.values() if other is not code for function in other}
        symbols = [Symbol(f, f".text.{f}", bind=LOCAL if f in static else GLOBAL) for f in code]
        symbols += [Symbol(table, f".data.{table}", type=1) for table in mine]
        defined = {symbol.name for symbol in symbols}
        symbols += [Symbol(name) for name in sorted({r.symbol for r in relocations} - defined)]
        made[name] = write_elf(sections, symbols, relocations)
    folder.mkdir(parents=True, exist_ok=True)
    whole = image(folder, made)
    return make_functions(whole, find_tables(whole, X86), X86)


def _opcode(to: str) -> bytes:
    return b"\x05" if to[0] in "=@" else b"\xe8"


def profile(references: References | None, *ran: str, boot: Sequence[str] = ()) -> Profile:
    """Of functions, "object:symbol"; those in ``boot`` ran in boot alone."""
    functions = tuple(
        FunctionRecord(obj, f".text.{name}", name, (Seen("boot" if name in boot else "web", "blocks", 1),))
        for obj, _, name in (each.partition(":") for each in sorted(ran))
    )
    return Profile(
        KernelId("other", "", "", ""), "", "w", "", ("web",), ("blocks",), (), functions, (), (), (), (),
        references,
    )  # fmt: skip


def kept(there: Build, here: Build, folder: Path, *ran: str, **more: Sequence[str]) -> dict[str, str]:
    """Function -> why it is kept here, when these ran there."""
    target = build(folder / "here", here)
    found = uncertain(profile(find_references(build(folder / "there", there)), *ran, **more), target, ())
    return {target.image.names[unit].removeprefix(".text."): why for unit, why in found.items()}


def test_references_are_those_of_the_code(tmp_path: Path) -> None:
    made = build(
        tmp_path,
        {"b.o": {"g": ["f", "=h", "@ops"], "h": []}, "a.o": {"f": ["f"], "k": ["h"]}},
        {"ops": ["k"]},
    )
    assert find_references(made) == References(
        (("a.o", ("f",)), ("a.o", ("k",)), ("b.o", ("g",)), ("b.o", ("h",))), ((), (3,), (0, 3), ())
    )


def test_the_same_code_leaves_nothing_open(tmp_path: Path) -> None:
    code = {"a.o": {"g": ["f", "h"], "f": ["k"], "h": [], "k": []}}
    assert kept(code, code, tmp_path, "a.o:g", "a.o:h") == {}


def test_what_was_inlined_throughout_is_kept_with_what_it_leads_to(tmp_path: Path) -> None:
    """f and deep were inlined into g; known was not, and g did not get there."""
    there = {"a.o": {"g": ["known"], "known": [], "cold": []}}
    here = {
        "a.o": {"g": ["f"], "f": ["deep", "known"], "deep": [], "known": [], "cold": ["lost"], "lost": []}
    }
    assert kept(there, here, tmp_path, "a.o:g") == {"f": ABSENT, "deep": ABSENT}


def test_what_was_inlined_there_and_not_needed_by_itself_is_kept(tmp_path: Path) -> None:
    """f is a function there as well, which other code calls; g has a copy of it, and of what it calls."""
    there = {"a.o": {"g": ["known"], "other": ["f"], "f": ["next", "known"], "next": [], "known": []}}
    here = {"a.o": {"g": ["f"], "other": ["f"], "f": ["next", "known"], "next": [], "known": []}}
    assert kept(there, here, tmp_path, "a.o:g") == {"f": WITHIN, "next": WITHIN}


@pytest.mark.parametrize("how", ["f", "=f"])
def test_a_caller_that_refers_to_it_there_proves_that_it_did_not_run(tmp_path: Path, how: str) -> None:
    code = {"a.o": {"g": [how], "f": ["next"], "next": []}}
    assert kept(code, code, tmp_path, "a.o:g") == {}


def test_so_does_what_is_inlined_here(tmp_path: Path) -> None:
    """g calls f there, and has a copy of it here, which refers to known; f never ran, nor did known."""
    there = {"a.o": {"g": ["f"], "f": ["known"], "known": []}}
    assert kept(there, {"a.o": {"g": ["known"], "known": []}}, tmp_path, "a.o:g") == {}
    # But where g still calls f, known is not there for the sake of f.
    here = {"a.o": {"g": ["f", "known"], "f": ["known"], "known": []}}
    assert kept(there, here, tmp_path / "more", "a.o:g") == {"known": WITHIN}


def test_more_references_here_than_there_leave_it_open(tmp_path: Path) -> None:
    """Of the two calls in g one was inlined there: that one may have run."""
    there = {"a.o": {"g": ["f"], "f": []}}
    here = {"a.o": {"g": ["f", "f"], "f": []}}
    assert kept(there, here, tmp_path, "a.o:g") == {"f": WITHIN}
    assert kept(here, here, tmp_path / "same", "a.o:g") == {}
    assert kept(here, there, tmp_path / "fewer", "a.o:g") == {}


def test_but_not_of_what_is_in_another_object(tmp_path: Path) -> None:
    """Nothing of another object was put into g, so f would have run by itself."""
    there = {"a.o": {"g": ["f"]}, "b.o": {"f": []}}
    here = {"a.o": {"g": ["f", "f"]}, "b.o": {"f": []}}
    assert kept(there, here, tmp_path, "a.o:g") == {}
    # It was there without any reference: g does what the other compiler does in another way.
    assert kept({"a.o": {"g": []}, "b.o": {"f": []}}, here, tmp_path / "none", "a.o:g") == {"f": WITHIN}


def test_nor_of_what_has_come_with_inlined_code(tmp_path: Path) -> None:
    there = {"a.o": {"g": ["h"], "h": ["f"], "f": []}}
    assert kept(there, {"a.o": {"g": ["f", "f"], "f": []}}, tmp_path, "a.o:g") == {}


def test_another_part_of_the_caller_may_refer_to_it(tmp_path: Path) -> None:
    there = {"a.o": {"g.isra.0": ["g.isra.0.cold"], "g.isra.0.cold": ["f"], "f": []}}
    assert kept(there, {"a.o": {"g": ["f"], "f": []}}, tmp_path, "a.o:g.isra.0") == {}


def test_a_part_that_did_not_run_says_nothing_of_the_rest(tmp_path: Path) -> None:
    """GCC has put the beginning of f into g, and left the rest for when it is needed."""
    there = {"a.o": {"g": ["f.part.0"], "f.part.0": ["next"], "next": []}}
    here = {"a.o": {"g": ["f"], "f": ["next"], "next": []}}
    assert kept(there, here, tmp_path, "a.o:g")["f"] == WITHIN
    assert kept(there, there, tmp_path / "same", "a.o:g") == {}


def test_a_copy_of_a_header_s_function_in_another_object_is_another_function(tmp_path: Path) -> None:
    there = {"a.o": {"g": ["f"], "f": []}, "b.o": {"h": []}}
    here = {"a.o": {"g": ["f"], "f": []}, "b.o": {"h": ["f"], "f": []}}
    target = build(tmp_path / "here", here)
    references = find_references(build(tmp_path / "there", there))
    found = uncertain(profile(references, "a.o:g", "b.o:h"), target, ())
    assert {target.image.unit_label(unit): why for unit, why in found.items()} == {"b.o:.text.f": ABSENT}


def test_data_leads_to_what_the_other_compiler_has_folded(tmp_path: Path) -> None:
    """`one` and `two` are the same code: there `two` is gone, and its entry names `one`, which ran."""
    there = build(
        tmp_path / "there", {"a.o": {"g": ["@ops"], "one": ["x"], "x": [], "cold": []}}, {"ops": ["one"]}
    )
    code = {"g": ["@ops"], "one": ["x"], "two": ["y", "new"], "x": [], "y": [], "new": [], "cold": []}
    here = build(tmp_path / "here", {"a.o": code}, {"ops": ["one", "two", "cold"]})
    found = uncertain(profile(find_references(there), "a.o:g", "a.o:one"), here, ())
    names = {here.image.names[unit].removeprefix(".text."): why for unit, why in found.items()}
    assert names == {"two": ABSENT, "y": ABSENT, "new": ABSENT}
    code["y"] = ["cold"]
    known = replace(profile(find_references(there), "a.o:one"), references=find_references(there))
    assert uncertain(known, here, ()) == {}  # nobody refers to the table


def test_lists_that_booting_goes_through_lead_on(tmp_path: Path) -> None:
    there = build(tmp_path / "there", {"a.o": {"g": []}})
    here = build(tmp_path / "here", {"a.o": {"stub": ["g"], "g": []}}, {"calls": ["stub"]})
    lists = [here.image.unit_of["a.o", ".data.calls"]]
    found = uncertain(profile(find_references(there), "a.o:g"), here, lists)
    assert [here.image.names[unit] for unit in found] == [".text.stub"]


def test_with_lto_a_copy_too_many_is_one_that_nobody_knows(tmp_path: Path) -> None:
    """Of two static functions f only one was a function of its own there; the other may be in the table."""
    there = build(tmp_path / "there", {"a.o": {"g": ["@ops"], "f": []}}, {"ops": ["f"]})
    here = build(tmp_path / "here", {"v.o": {"g": ["@ops"], "f": [], "f.7": []}}, {"ops": ["f", "f.7"]})
    found = uncertain(profile(find_references(there), "a.o:g"), here, ())
    assert {here.image.names[unit]: why for unit, why in found.items()} == {
        ".text.f": ABSENT, ".text.f.7": ABSENT,
    }  # fmt: skip


def test_aliases_are_one_function(tmp_path: Path) -> None:
    references = References((("a.o", ("f", "weak_f")), ("a.o", ("g",))), ((), (0,)))
    here = build(tmp_path, {"a.o": {"g": ["weak_f"], "weak_f": []}})
    assert uncertain(profile(references, "a.o:g"), here, ()) == {}


def test_without_references_what_hot_code_calls_is_kept(tmp_path: Path) -> None:
    here = build(tmp_path, {"a.o": {"g": ["f", "=taken"], "f": ["next"], "next": [], "taken": []}})
    found = uncertain(profile(None, "a.o:g"), here, ())
    assert {here.image.names[unit]: why for unit, why in found.items()} == {".text.f": CALLED}


def test_what_may_have_run_after_boot_within_its_caller_is_said(tmp_path: Path) -> None:
    """f ran in boot by itself, and g has a copy of it; k is called by g, which never did after boot."""
    there = {"a.o": {"g": ["k"], "start": ["f"], "f": [], "k": []}}
    here = {"a.o": {"g": ["f", "k"], "start": ["f"], "f": [], "k": []}}
    ran = ("a.o:g", "a.o:start", "a.o:f", "a.o:k")
    assert kept(there, here, tmp_path, *ran, boot=("start", "f", "k")) == {"f": LATE}
