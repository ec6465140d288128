"""One definition for each name, one target for each relocation, as ld would choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from prune.model.assemble import read_image
from prune.model.image import Image
from prune.model.mapfile import parse_link_map
from tests.conftest import X86, image
from tracer.host import UserError

from .damage import damaged_fields
from .elfwriter import (
    ABSOLUTE,
    ALLOC,
    COMMON,
    LOCAL,
    NOBITS,
    NOTYPE,
    R_64,
    WEAK,
    WRITE,
    Rela,
    Section,
    Symbol,
    write_elf,
    write_map,
)


def definer(bind: int = 1) -> bytes:
    return write_elf([Section(".text.f")], [Symbol("f", ".text.f", bind=bind)])


USER = write_elf(
    [Section(".text.user", bytes(8))],
    [Symbol("user", ".text.user"), Symbol("f", bind=WEAK), Symbol("nowhere", bind=WEAK)],
    [Rela(".text.user", 1, "f")],
)


def target(made: Image, place: tuple[str, str], number: int = 0) -> str:
    """Label of the unit that relocation ``number`` of a unit resolves to, "" for none."""
    rows = made.relocations[made.relocations["unit"] == made.unit_of[place]]
    unit = int(rows["target"][number])
    return made.unit_label(unit) if unit >= 0 else ""


@pytest.mark.parametrize(
    ("objects", "wanted"),
    [
        ({"w.o": WEAK, "s.o": 1}, "s.o"),
        ({"s.o": 1, "w.o": WEAK}, "s.o"),
        ({"w.o": WEAK, "v.o": WEAK}, "w.o"),
        ({"w.o": WEAK, "v.o": WEAK, "s.o": 1}, "s.o"),
    ],
)
def test_strong_before_weak_then_the_first(tmp_path: Path, objects: dict[str, int], wanted: str) -> None:
    made = image(tmp_path, {"u.o": USER, **{name: definer(bind) for name, bind in objects.items()}})
    assert target(made, ("u.o", ".text.user")) == f"{wanted}:.text.f"


def test_a_common_symbol_gives_way_to_a_variable_but_not_to_a_weak_one(tmp_path: Path) -> None:
    """As ld has it, wherever the objects stand."""
    common = write_elf([Section(".text.a")], [Symbol("v", COMMON, 8, 8, type=1)])
    variable = Section(".data.v", bytes(8), ALLOC | WRITE)
    strong = write_elf([variable], [Symbol("v", ".data.v", type=1)])
    weak = write_elf([variable], [Symbol("v", ".data.v", bind=WEAK, type=1)])
    made = image(tmp_path, {"c.o": common, "s.o": strong})
    assert made.symbol_unit[made.globals_["v"]] == made.unit_of["s.o", ".data.v"]
    made = image(tmp_path, {"w.o": weak, "c.o": common})
    assert made.locate_symbol(made.globals_["v"])[0] == 1


def test_a_weak_reference_that_nobody_answers_has_no_target(tmp_path: Path) -> None:
    made = image(tmp_path, {"u.o": USER})
    assert target(made, ("u.o", ".text.user")) == ""
    assert "nowhere" not in made.globals_
    (row,) = (i for i in range(len(made.symbols)) if made.symbol_name(i) == "nowhere")
    assert made.definition[row] == -1


def test_a_local_never_answers_for_another_object(tmp_path: Path) -> None:
    made = image(tmp_path, {"l.o": definer(LOCAL), "u.o": USER})
    assert target(made, ("u.o", ".text.user")) == "" and "f" not in made.globals_


def test_two_locals_of_one_name_each_mean_their_own(tmp_path: Path) -> None:
    def local(name: str) -> bytes:
        return write_elf(
            [Section(".text.twin"), Section(f".text.{name}", bytes(8))],
            [Symbol("twin", ".text.twin", bind=LOCAL), Symbol(name, f".text.{name}")],
            [Rela(f".text.{name}", 1, "twin")],
        )

    made = image(tmp_path, {"a.o": local("a"), "b.o": local("b")})
    assert target(made, ("a.o", ".text.a")) == "a.o:.text.twin"
    assert target(made, ("b.o", ".text.b")) == "b.o:.text.twin"


def test_an_alias_means_the_same_unit(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.native_clock", bytes(4)), Section(".text.user", bytes(16))],
        [Symbol("native_clock", ".text.native_clock"), Symbol("sched_clock", ".text.native_clock")],
        [Rela(".text.user", 1, "native_clock"), Rela(".text.user", 6, "sched_clock")],
    )
    made = image(tmp_path, {"a.o": data})
    assert target(made, ("a.o", ".text.user"), 0) == target(made, ("a.o", ".text.user"), 1)
    unit = made.unit_of["a.o", ".text.native_clock"]
    assert {name for of, _, _, name in made.functions if of == unit} == {"native_clock", "sched_clock"}
    assert made.labels([unit]) == {unit: "native_clock"}


def test_a_global_that_is_not_in_a_section_has_no_unit(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(8))],
        [Symbol("f", ".text.f"), Symbol("size", ABSOLUTE, 42)],
        [Rela(".text.f", 0, "size", R_64, 0)],
    )
    made = image(tmp_path, {"a.o": data})
    assert target(made, ("a.o", ".text.f")) == "" and made.symbol_unit[made.globals_["size"]] == -1


def test_sections_of_one_name_are_neither_droppable(tmp_path: Path) -> None:
    """A discard names object and section: it would drop both."""
    data = write_elf([Section(".text.f"), Section(".text.f", b"\x90\xc3"), Section(".text.g")], [])
    made = image(tmp_path, {"a.o": data})
    assert list(zip(made.names, made.units["function"].tolist(), strict=True)) == [
        (".text.f", False), (".text.f", False), (".text.g", True),
    ]  # fmt: skip
    assert made.units["placed"].tolist() == [1, 2, 1]


def test_one_section_name_in_two_objects_is_two_units(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": definer(LOCAL), "b.o": definer(LOCAL)})
    assert made.units["function"].all() and len(made.unit_of) == 2


def test_kinds_of_units(tmp_path: Path) -> None:
    data = write_elf(
        [
            Section(".text.f"), Section(".text"), Section(".text.unlikely"), Section(".text.unlikely.f"),
            Section(".init.text"), Section(".data.v", bytes(4), ALLOC | WRITE),
            Section(".data.once", bytes(1), ALLOC | WRITE),
            Section(".bss.z", bytes(4), ALLOC | WRITE, NOBITS),
            Section(".rodata.str1.1", b"x\0", ALLOC), Section(".data", bytes(4), ALLOC | WRITE),
        ],
        [Symbol("f", ".text.f")],
    )  # fmt: skip
    made = image(tmp_path, {"a.o": data})
    units = zip(made.names, made.units["function"].tolist(), made.units["data"].tolist(), strict=True)
    assert {name for name, function, _ in units if function} == {".text.f", ".text.unlikely.f"}
    units = zip(made.names, made.units["function"].tolist(), made.units["data"].tolist(), strict=True)
    assert {name for name, _, data_ in units if data_} == {
        ".data.v", ".bss.z", ".rodata.str1.1", ".data", ".data.once",
    }  # fmt: skip


def test_a_section_that_the_link_dropped_is_no_unit(tmp_path: Path) -> None:
    """A discarded .comdat or .discard section is not in the map."""
    made = image(tmp_path, {"a.o": write_elf([Section(".text.f"), Section(".text.g")], [])})
    again = read_image(tmp_path, parse_link_map(write_map({"a.o": [(".text.g", 1)]})), X86)
    assert len(made.units) == 2 and again.names == (".text.g",)


def test_what_link_vmlinux_generates_is_left_out(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": definer()})
    text = write_map({"a.o": [(".text.f", 1)], ".tmp_vmlinux.kallsyms2.o": [(".rodata", 99)]})
    assert read_image(tmp_path, parse_link_map(text), X86).objects == made.objects


def test_the_opcode_before_a_field_is_read(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", b"\x90\xe8\0\0\0\0\x0f\x84\0\0\0\0")],
        [Symbol("f", ".text.f"), Symbol("g")],
        [Rela(".text.f", 2, "g"), Rela(".text.f", 8, "g")],
    )
    assert image(tmp_path, {"a.o": data}).relocations["before"].tolist() == [0x90E8, 0x0F84]


@pytest.mark.parametrize("wide", [False, True])
def test_wide_section_indices_resolve_alike(tmp_path: Path, wide: bool) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".text.user", bytes(8))],
        [Symbol("f", ".text.f"), Symbol("user", ".text.user"), Symbol("size", ABSOLUTE, 1)],
        [Rela(".text.user", 1, "f")],
        wide=wide,
    )
    made = image(tmp_path, {"a.o": data})
    assert target(made, ("a.o", ".text.user")) == "a.o:.text.f"
    assert made.symbol_unit[made.globals_["size"]] == -1


def test_assembly_labels_count_but_not_the_compilers(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(8))],
        [Symbol("entry", ".text.f", 4, type=NOTYPE), Symbol(".L5", ".text.f", 2, 0, LOCAL, NOTYPE)],
    )
    assert [row[1:] for row in image(tmp_path, {"a.o": data}).functions] == [(4, 0, "entry")]


def test_an_archive_that_is_not_thin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lib\.a\(x\.o\) is in an archive that is not thin"):
        read_image(tmp_path, parse_link_map(write_map({"lib.a(x.o)": [(".text.f", 1)]})), X86)


def test_an_object_of_the_map_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.o: No such file"):
        read_image(tmp_path, parse_link_map(write_map({"gone.o": [(".text.f", 1)]})), X86)


SAMPLE = write_elf(
    [Section(".text.f", b"\xe8\0\0\0\0\xc3"), Section(".bss.z", bytes(8), ALLOC | WRITE, NOBITS)],
    [Symbol("f", ".text.f"), Symbol("z", ".bss.z", type=1), Symbol("g")],
    [Rela(".text.f", 1, "g")],
    wide=True,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged_fields(SAMPLE))
def test_hostile_headers_never_give_a_traceback(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.o").write_bytes(data)
    text = write_map({"a.o": [(".text.f", 6), (".bss.z", 8)]})
    try:
        made = read_image(tmp_path, parse_link_map(text), X86)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert made.functions is not None and made.labels(range(len(made.units))) is not None
    for row in range(len(made.symbol_unit)):
        made.symbol_name(row)
    for index in range(len(made.files[0].sections)):
        made.files[0].content(index)
