"""Every unit is kept or dropped for one reason, the first that applies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import make_call_graph
from prune.model.digests import digests_of
from prune.model.image import Image
from prune.model.tables import find_tables
from prune.plan.evidence import evidence
from prune.plan.plan import make_plan
from prune.plan.plan_file import Plan, load_plan, save_plan
from prune.plan.roots import parameters_that_ran
from prune.plan.rules import KeepRule
from tests.conftest import X86, image
from tests.unit.test_stale import PROFILE, SEEN
from tracer.host import UserError
from tracer.profiles.profile import FunctionRecord
from tracer.profiles.signatures import signatures

from .elfwriter import ALLOC, LOCAL, R_64, R_PC32, WRITE, Rela, Section, Symbol, write_elf

CALL, JUMP, LEA = b"\xe8", b"\xe9", b"\x05"


def code(name: str, *steps: tuple[bytes, str]) -> tuple[Section, list[Rela]]:
    """A function: each step is an opcode and what its operand refers to."""
    section = f".text.{name}"
    body = b"".join(opcode + bytes(4) for opcode, _ in steps) + b"\xc3"
    kinds = [R_PC32 if opcode == LEA else 4 for opcode, _ in steps]
    relocations = [Rela(section, 5 * n + 1, to, kinds[n]) for n, (_, to) in enumerate(steps)]
    return Section(section, body), relocations


@pytest.fixture
def made(tmp_path: Path) -> Image:
    """busy calls near, jumps to tail, takes taken's address, uses v, which uses w; near calls far."""
    functions = [
        code("busy", (CALL, "near"), (JUMP, "tail"), (LEA, "taken"), (LEA, "v")),
        code("near", (CALL, "far")), code("far"), code("tail"), code("taken"),
        code("cold", (LEA, "only_cold"), (CALL, "busy")), code("named"), code("ruled", (LEA, "r")),
    ]  # fmt: skip
    sections = [section for section, _ in functions]
    relocations = [row for _, rows in functions for row in rows]
    data = ["v", "w", "only_cold", "r"]
    sections += [Section(f".data.{name}", bytes(8), ALLOC | WRITE) for name in data]
    relocations.append(Rela(".data.v", 0, "w", R_64, 0))
    sections += [Section(".text", b"\xc3"), Section("__ex_table", bytes(24), ALLOC)]
    relocations += [
        Rela("__ex_table", 0, ".text.busy", R_PC32, 0), Rela("__ex_table", 4, ".text.taken", R_PC32, 4),
        Rela("__ex_table", 12, ".text.cold", R_PC32, 0), Rela("__ex_table", 16, ".text.named", R_PC32, 4),
    ]  # fmt: skip
    symbols = [Symbol(s.name.removeprefix(".text."), s.name) for s, _ in functions]
    symbols += [Symbol(name, f".data.{name}", type=1) for name in data]
    return image(tmp_path, {"k/a.o": write_elf(sections, symbols, relocations)})


def plan(made: Image, *hot: str, **more: object) -> Plan:
    """A plan without the kernel's roots, for a profile in which the functions ``hot`` ran."""
    knowledge = replace(X86, roots=more.pop("roots", {"root": [], "barriers": {"symbols": []}}))  # type: ignore[arg-type]
    made = image(made.root, {name: (made.root / name).read_bytes() for name in made.objects}, (), knowledge)
    graph = make_call_graph(made, find_tables(made, X86), X86)
    ran = {made.unit_of["k/a.o", f".text.{name}"]: "app" for name in hot}
    missed: dict[str, str] = more.pop("healed", {})  # type: ignore[assignment]
    healed = {made.unit_of["k/a.o", f".text.{name}"]: why for name, why in missed.items()}
    rules: tuple[KeepRule, ...] = more.pop("rules", ())  # type: ignore[assignment]
    return make_plan(made, graph, ran, rules, knowledge, build_id="id", healed=healed, **more)  # type: ignore[arg-type]


def reasons(of: Plan) -> Mapping[str, str]:
    """Section without its prefix -> reason, of what is kept."""
    rows = zip(of.units, of.keep.tolist(), of.reason, strict=True)
    return {section.split(".")[-1]: why for (_, section, _), keep, why in rows if keep}


FIXED = {"text": "root: no section of its own", "__ex_table": "root: no section of its own"}


def test_what_ran_stays_with_its_data(made: Image) -> None:
    found = plan(made, "busy")
    assert reasons(found) == {
        "busy": "ran: app",
        "v": "referenced by k/a.o:.text.busy",
        "w": "referenced by k/a.o:.data.v",
        **FIXED,
    }
    dropped = [why for why, keep in zip(found.reason, found.keep, strict=True) if not keep]
    assert set(dropped) == {"cold"}


def test_nothing_ran(made: Image) -> None:
    assert reasons(plan(made)) == FIXED


def test_callees_are_what_hot_code_calls_or_jumps_to(made: Image) -> None:
    found = reasons(plan(made, "busy", width="callees"))
    assert {name for name, why in found.items() if why == "called by code that ran"} == {"near", "tail"}


def test_reachable_follows_every_reference(made: Image) -> None:
    found = reasons(plan(made, "busy", width="reachable"))
    assert set(found) == {"busy", "near", "far", "tail", "taken", "v", "w", *FIXED}
    assert {found[name] for name in ("near", "far", "tail", "taken", "v", "w")} == {"reachable"}


def test_the_table_entry_of_a_dropped_function_keeps_nothing(made: Image) -> None:
    """__ex_table is kept, but what an entry mentions is its owner's business."""
    assert "named" not in reasons(plan(made, "busy", width="reachable"))
    assert "named" in reasons(plan(made, "cold", width="reachable"))


def test_widths_nest(made: Image) -> None:
    kept = [plan(made, "busy", width=width).keep for width in ("ran", "callees", "reachable")]
    assert np.all(kept[0] <= kept[1]) and np.all(kept[1] <= kept[2])
    assert kept[0].sum() < kept[1].sum() < kept[2].sum()


def test_the_first_reason_that_applies_is_the_one_recorded(made: Image) -> None:
    roots = {"root": [{"reason": "dies", "start": ["near"], "follow": ["call"]}], "barriers": {"symbols": []}}
    everything: dict[str, object] = {
        "healed": dict.fromkeys(("busy", "near"), "boot 3"),
        "script_symbols": frozenset({"busy", "near", "far", "named"}),
        "roots": roots,
        "rules": (KeepRule("*", "all"),),
        "width": "reachable",
    }
    found = reasons(plan(made, "busy", **everything))
    assert found["busy"] == "ran: app"
    assert found["near"] == "healed: boot 3"
    assert found["far"] == "called by what was healed"
    assert found["named"] == "root: named by the linker script"
    assert found["ruled"] == "rule *: all"
    assert found["v"] == "reachable"
    assert reasons(plan(made, roots=roots, rules=(KeepRule("*", "all"),)))["far"] == "root: dies"


def test_what_healed_brings_what_it_calls_but_not_through_what_ran(made: Image) -> None:
    found = reasons(plan(made, healed={"busy": "boot 1"}))
    assert found["busy"] == "healed: boot 1"
    assert found["near"] == found["tail"] == found["far"] == "called by what was healed"
    # near ran without calling far: far is not on the way that was missed.
    found = reasons(plan(made, "near", healed={"busy": "boot 1"}))
    assert found["near"] == "ran: app" and "far" not in found


def test_what_is_missed_brings_what_its_caller_refers_to_besides(made: Image) -> None:
    found = reasons(plan(made, "busy", healed={"tail": "boot 1"}))
    assert found["near"] == found["taken"] == "referred to beside what was healed"
    assert not {"far", "only_cold", "named"} & set(found)
    assert found["v"] == "referenced by k/a.o:.text.busy"


def test_an_object_of_all_code_says_nothing_of_what_is_beside(
    made: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prune.plan.plan._FILE", 0)
    found = reasons(plan(made, "busy", healed={"tail": "boot 1"}))
    assert not {"near", "taken"} & set(found)


def test_what_is_small_and_next_to_what_ran_stays(made: Image) -> None:
    """near has 6 bytes, tail and taken have 1."""
    small = "small, and code that ran refers to it"
    found = reasons(plan(made, "busy", small=1))
    assert found["tail"] == found["taken"] == small and "near" not in found
    found = reasons(plan(made, "busy", small=6))
    assert found["near"] == small and "far" not in found
    # A soak missed sock_set_flag, 7 bytes that inet_child_forget calls, which stayed by chance.
    found = reasons(plan(made, small=1, inferred={made.unit_of["k/a.o", ".text.near"]: "chance"}))
    assert found["far"] == "small, and code that may run refers to it" and "tail" not in found


@pytest.mark.parametrize(
    ("follow", "barriers", "wanted"),
    [
        (["call"], [], {"busy", "near", "far"}),
        (["call", "tail call"], [], {"busy", "near", "far", "tail"}),
        (["call", "tail call", "address taken"], [], {"busy", "near", "far", "tail", "taken"}),
        (["call"], ["ne*"], {"busy", "near"}),
    ],
)
def test_roots_follow_their_kinds_up_to_the_barriers(
    made: Image, follow: list[str], barriers: list[str], wanted: set[str]
) -> None:
    row = {"reason": "dies", "start": ["busy", "not in this kernel"], "follow": follow}
    found = reasons(plan(made, roots={"root": [row], "barriers": {"symbols": barriers}}))
    assert {name for name, why in found.items() if why == "root: dies"} == wanted


def test_a_rule_brings_the_data_it_needs_and_an_unused_one_is_told(made: Image) -> None:
    found = plan(
        made, rules=(KeepRule("ruled", "why"), KeepRule("nobody", "typo"), KeepRule("busy", "w", "x/*"))
    )
    assert reasons(found)["ruled"] == "rule ruled: why"
    assert reasons(found)["r"] == "referenced by k/a.o:.text.ruled"
    assert found.unused_rules == ("nobody", "x/*:busy")


def test_a_profile_of_another_build_is_refused(made: Image) -> None:
    unheard = replace(PROFILE, functions=(FunctionRecord("k/a.o", ".text.unheard", "unheard", SEEN),))
    with pytest.raises(UserError, match=r"the profile knows k/a\.o:\.text\.unheard, this kernel does not"):
        evidence(unheard, signatures(unheard), made)


def test_what_answers_pruned_system_calls_is_a_root(tmp_path: Path) -> None:
    names = ["__x64_sys_ni_syscall", "__x64_sys_a"]
    data = write_elf(
        [Section(f".text.{name}") for name in names], [Symbol(name, f".text.{name}") for name in names]
    )
    found = reasons(plan(image(tmp_path, {"k/a.o": data})))
    assert found == {"__x64_sys_ni_syscall": "root: answers pruned system calls"}


def test_a_function_whose_section_is_called_as_a_group_stays(tmp_path: Path) -> None:
    """.text.hot may be the function hot, or where the compiler collects hot ones: it is kept either way."""
    data = write_elf([Section(".text.hot"), Section(".text.f")], [Symbol("hot", ".text.hot")])
    assert reasons(plan(image(tmp_path, {"k/a.o": data}))) == {"hot": "root: no section of its own"}


def test_locals_of_one_name_have_fates_of_their_own(tmp_path: Path) -> None:
    twin = write_elf([Section(".text.twin")], [Symbol("twin", ".text.twin", bind=LOCAL)])
    found = plan(image(tmp_path, {"k/a.o": twin, "k/b.o": twin}), "twin")
    assert found.keep.tolist() == [True, False]


def test_a_plan_survives_the_disk(made: Image, tmp_path: Path) -> None:
    found = plan(made, "busy", width="callees", rules=(KeepRule("nobody", "typo"),))
    save_plan(found, tmp_path / "plan.json")
    again = load_plan(tmp_path / "plan.json")
    assert again.keep.tolist() == found.keep.tolist()
    assert again.boot.tolist() == found.boot.tolist()
    assert replace(again, keep=found.keep, boot=found.boot) == replace(found)
    assert again.objects == (("k/a.o", digests_of([made.root / "k/a.o"])[0]),)


def test_a_plan_has_a_row_a_unit_for_diff(made: Image, tmp_path: Path) -> None:
    save_plan(plan(made, "busy"), tmp_path / "a.json")
    save_plan(plan(made, "busy", "far"), tmp_path / "b.json")
    texts = [(tmp_path / name).read_text().splitlines() for name in ("a.json", "b.json")]
    changed = [(a, b) for a, b in zip(*texts, strict=True) if a != b]
    assert [json.loads(b.rstrip(","))[1:] for _, b in changed] == [[".text.far", 1, "keep", "ran: app"]]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v.pop("units"),
        lambda v: v.pop("unused_rules"),
        lambda v: v["units"][0].pop(),
        lambda v: v["units"][0].__setitem__(3, "maybe"),
        lambda v: v["units"].__setitem__(0, 7),
        lambda v: v.__setitem__("objects", []),
        lambda v: v.__setitem__("schema_version", 99),
    ],
    ids=["no units", "no rules", "short row", "third fate", "no row", "no objects", "other schema"],
)
def test_a_damaged_plan_is_one_clear_error(made: Image, tmp_path: Path, spoil: object) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan(made, "busy"), path)
    value = json.loads(path.read_text())
    spoil(value)  # type: ignore[operator]
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"plan\.json") as caught:
        load_plan(path)
    assert "\n" not in str(caught.value)


def test_a_cut_plan_is_one_clear_error(made: Image, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    save_plan(plan(made, "busy"), path)
    text = path.read_text()
    for size in range(0, len(text) - 2, 61):
        path.write_text(text[:size])
        with pytest.raises(UserError, match=r"plan\.json"):
            load_plan(path)


def test_no_function_leads_to_another_by_what_both_put_aside(tmp_path: Path) -> None:
    functions = [code("one", (JUMP, ".altinstr_aux")), code("two", (JUMP, ".altinstr_aux"))]
    aside = ".altinstr_aux"
    back = [Rela(aside, 5 * n + 1, name, 4) for n, name in enumerate(("one", "two"))]
    sections = [*(section for section, _ in functions), Section(aside, (JUMP + bytes(4)) * 2)]
    symbols = [Symbol(name, f".text.{name}") for name in ("one", "two")]
    relocations = [row for _, rows in functions for row in rows]
    made = image(tmp_path, {"k/a.o": write_elf(sections, symbols, [*relocations, *back])})
    found = reasons(plan(made, "one", width="reachable"))
    assert found == {"one": "ran: app", "altinstr_aux": "root: no section of its own"}


def exporting(folder: Path) -> Image:
    """f and g are exported, and so is the variable v; f and v have versions."""
    rows = ["___ksymtab+f", "___ksymtab_gpl+g", "___ksymtab+v"]
    sections = [code(name)[0] for name in ("f", "g", "busy")] + [Section(".data.v", bytes(8), ALLOC | WRITE)]
    sections += [Section(name, bytes(12), ALLOC) for name in rows]
    sections += [Section(f"___kcrctab+{name}", bytes(4), ALLOC) for name in "fv"]
    symbols = [Symbol(name, f".text.{name}") for name in ("f", "g", "busy")]
    symbols.append(Symbol("v", ".data.v", type=1))
    relocations = [Rela(name, 0, name.partition("+")[2], R_PC32, 0) for name in rows]
    return image(folder, {"k/a.o": write_elf(sections, symbols, relocations)})


def test_an_export_row_stays_when_a_module_needs_it_whether_its_function_does_or_not(tmp_path: Path) -> None:
    made = exporting(tmp_path)
    kept = reasons(plan(made, "busy", exported={"f": "needed by m", "v": "needed by m"}))
    assert kept == {
        "busy": "ran: app", "___ksymtab+f": "needed by m", "___ksymtab+v": "needed by m",
        "___kcrctab+f": "needed by m", "___kcrctab+v": "needed by m",
        "v": "referenced by k/a.o:___ksymtab+v",
    }  # fmt: skip


def test_without_a_module_that_needs_it_no_export_row_stays(tmp_path: Path) -> None:
    assert set(reasons(plan(exporting(tmp_path), "busy", "f", "g"))) == {"busy", "f", "g"}


@pytest.mark.parametrize(("ran", "stays"), [("add_named", True), ("other", False)])
def test_a_parameter_without_a_variable_stays_when_one_of_its_operations_ran(
    tmp_path: Path, ran: str, stays: bool
) -> None:
    """mdadm writes the name of an array to one, and got no such file."""
    data = write_elf(
        [
            Section(".text.add_named"), Section(".text.other"), Section(".rodata.ops", bytes(32), ALLOC),
            Section(".rodata.name", b"new_array\0", ALLOC), Section("__param", bytes(40), ALLOC),
        ],
        [
            Symbol("add_named", ".text.add_named"), Symbol("other", ".text.other"),
            Symbol("ops", ".rodata.ops", type=1), Symbol("name", ".rodata.name", type=1),
        ],
        [
            Rela(".rodata.ops", 8, "add_named", R_64), Rela("__param", 0, "name", R_64),
            Rela("__param", 16, "ops", R_64),
        ],
    )  # fmt: skip
    made = image(tmp_path, {"k/a.o": data})
    tables = find_tables(made, X86)
    hot = {made.unit_of["k/a.o", f".text.{ran}"]}
    found = parameters_that_ran(made, make_call_graph(made, tables, X86), tables, hot)
    ops = made.unit_of["k/a.o", ".rodata.ops"]
    assert found == ({ops: "a parameter: k/a.o:.text.add_named ran"} if stays else {})
