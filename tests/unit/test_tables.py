"""Entry sizes are probed from the objects, and entries belong to the unit that they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.model.tables import find_tables
from tests.conftest import X86, image
from tracer.host import UserError

from .elfwriter import ALLOC, R_64, R_PC32, WEAK, Rela, Section, Symbol, write_elf


def with_table(entry: int, count: int, extra: int = 4) -> bytes:
    """An object whose __bug_table has a relocation at 0 and at ``extra`` of each entry."""
    relocations = [Rela("__bug_table", entry * n, ".text.f", R_PC32, 0) for n in range(count)]
    relocations += [Rela("__bug_table", entry * n + extra, ".rodata.s", R_PC32, 0) for n in range(count)]
    return write_elf(
        [
            Section(".text.f"),
            Section(".rodata.s", b"x\0", 2),
            Section("__bug_table", bytes(entry * count), 3),
        ],
        [Symbol("f", ".text.f")],
        relocations,
    )


@pytest.mark.parametrize("entry", [8, 12, 16])
def test_the_size_that_fits_every_object_is_found(tmp_path: Path, entry: int) -> None:
    made = image(tmp_path, {"a.o": with_table(entry, 6), "b.o": with_table(entry, 1)})
    parts = find_tables(made, X86).parts
    assert {part.entry for part in parts.values()} == {entry}
    assert sorted(len(part.owners) for part in parts.values()) == [1, 6]


def test_an_entry_twice_as_long_is_not_two(tmp_path: Path) -> None:
    """7.x: address, format and file, 16 bytes with 8 in the middle that begin with a relocation, too."""
    made = image(tmp_path, {"a.o": with_table(16, 2, 8), "b.o": with_table(16, 4, 8)})
    assert {part.entry for part in find_tables(made, X86).parts.values()} == {16}


def test_a_layout_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="__bug_table: no entry size"):
        find_tables(image(tmp_path, {"a.o": with_table(20, 3)}), X86)


@pytest.mark.parametrize(("section", "at"), [("patch_ptr_news", 2), ("__places", 1)])
def test_a_table_that_nobody_described_is_an_error(tmp_path: Path, section: str, at: int) -> None:
    """The kernel would patch instructions of functions that are not there any more."""
    sections = [Section(".text.f", bytes(8)), Section(section, bytes(4), ALLOC)]
    data = write_elf(sections, [Symbol("f", ".text.f")], [Rela(section, 0, ".text.f", R_PC32, at)])
    with pytest.raises(UserError, match=f"a.o:{section} lists places in code"):
        find_tables(image(tmp_path, {"a.o": data}), X86)


def test_constants_of_any_name_have_a_table_each(tmp_path: Path) -> None:
    """include/asm/runtime-const.h: 7.3 had seven that no earlier kernel has."""
    names = ["runtime_ptr_news", "runtime_mask_news"]
    sections = [Section(".text.f", bytes(8)), *(Section(name, bytes(4), ALLOC) for name in names)]
    data = write_elf(
        sections, [Symbol("f", ".text.f")], [Rela(name, 0, ".text.f", R_PC32, 2) for name in names]
    )
    made = image(tmp_path, {"a.o": data})
    parts = find_tables(made, X86).parts
    assert sorted(made.names[unit] for unit in parts) == sorted(names)
    (table,) = {part.table for part in parts.values()}
    symbols = ["__start_runtime_ptr_news", "__stop_runtime_ptr_news", "__start_runtime_other", "_text"]
    assert table.brackets(symbols) == [("__start_runtime_ptr_news", "__stop_runtime_ptr_news")]


def test_a_pointer_to_a_whole_function_is_no_table(tmp_path: Path) -> None:
    sections = [Section(".text.f", bytes(8)), Section(".of_functions", bytes(4), ALLOC)]
    data = write_elf(sections, [Symbol("f", ".text.f")], [Rela(".of_functions", 0, "f", R_PC32, 0)])
    assert not find_tables(image(tmp_path, {"a.o": data}), X86).parts


def test_what_an_entry_refers_to_counts_for_its_owner(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": with_table(12, 2)})
    owner = find_tables(made, X86).owner
    function = made.unit_of["a.o", ".text.f"]
    assert set(owner.tolist()) == {function}


def test_each_entry_has_the_owner_that_its_field_names(tmp_path: Path) -> None:
    owners = [".text.g", ".text.f", ".text.g"]
    data = write_elf(
        [Section(".text.f"), Section(".text.g"), Section("__ex_table", bytes(36), ALLOC)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [Rela("__ex_table", 12 * n, owner, R_PC32, 0) for n, owner in enumerate(owners)]
        + [Rela("__ex_table", 12 * n + 4, ".text.f", R_PC32, 4) for n in range(3)],
    )
    made = image(tmp_path, {"a.o": data})
    found = find_tables(made, X86)
    (part,) = found.parts.values()
    assert [made.names[unit] for unit in part.owners] == owners
    assert part.entry == 12 and part.pair is None
    rows = zip(made.relocations["offset"].tolist(), found.owner.tolist(), strict=True)
    assert {offset: made.names[unit] for offset, unit in rows} == {
        12 * n + field: owner for n, owner in enumerate(owners) for field in (0, 4)
    }


def test_absolute_addresses_own_as_relative_ones_do(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".text.g"), Section("__mcount_loc", bytes(16), ALLOC)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [Rela("__mcount_loc", 8 * n, f".text.{name}", R_64, 0) for n, name in enumerate("gf")],
    )
    made = image(tmp_path, {"a.o": data})
    (part,) = find_tables(made, X86).parts.values()
    assert [made.names[unit] for unit in part.owners] == [".text.g", ".text.f"]


def test_an_entry_without_its_relocation_is_no_layout_that_we_know(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section("__ex_table", bytes(24), ALLOC)],
        [Symbol("f", ".text.f")],
        [Rela("__ex_table", 0, ".text.f", R_PC32, 0)],
    )
    with pytest.raises(UserError, match="__ex_table: no entry size"):
        find_tables(image(tmp_path, {"a.o": data}), X86)


def test_an_entry_about_nobody_is_kept(tmp_path: Path) -> None:
    """Its symbol is undefined and weak: there is no unit whose fate it could share."""
    data = write_elf(
        [Section(".text.f"), Section("__mcount_loc", bytes(8), ALLOC)],
        [Symbol("f", ".text.f"), Symbol("nobody", bind=WEAK)],
        [Rela("__mcount_loc", 0, "nobody", R_64, 0)],
    )
    (part,) = find_tables(image(tmp_path, {"a.o": data}), X86).parts.values()
    assert part.owners.tolist() == [-1]


def orc(rows: int, size: int) -> bytes:
    """.orc_unwind_ip with ``rows`` rows beside an .orc_unwind of ``size`` bytes."""
    sections = [Section(".text.f", bytes(8)), Section(".orc_unwind_ip", bytes(4 * rows), ALLOC)]
    if size:
        sections.append(Section(".orc_unwind", bytes(size), ALLOC))
    relocations = [Rela(".orc_unwind_ip", 4 * n, ".text.f", R_PC32, n) for n in range(rows)]
    return write_elf(sections, [Symbol("f", ".text.f")], relocations)


def test_a_pair_has_a_row_for_each_row(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": orc(3, 18), "b.o": orc(1, 6)})
    parts = find_tables(made, X86).parts.values()
    pairs = {made.unit_label(part.pair): part.pair_entry for part in parts if part.pair is not None}
    assert pairs == {"a.o:.orc_unwind": 6, "b.o:.orc_unwind": 6}


@pytest.mark.parametrize("size", [0, 12, 24])
def test_a_pair_that_does_not_match_is_an_error(tmp_path: Path, size: int) -> None:
    with pytest.raises(
        UserError, match=r"\.orc_unwind_ip of a\.o: \.orc_unwind does not match it row by row"
    ):
        find_tables(image(tmp_path, {"a.o": orc(3, size)}), X86)


def test_a_glob_describes_every_table_of_its_kind(tmp_path: Path) -> None:
    """With LTO every initcall has a section of its own: .initcall4f.init, .initcall4g.init."""
    names = [".initcall4f.init", ".initcall4g.init"]
    data = write_elf(
        [Section(".text.f"), Section(".text.g"), *(Section(name, bytes(4), ALLOC) for name in names)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [Rela(name, 0, f".text.{name[10]}", R_PC32, 0) for name in names],
    )
    made = image(tmp_path, {"a.o": data})
    parts = find_tables(made, X86).parts.values()
    assert {made.names[part.unit]: made.names[int(part.owners[0])] for part in parts} == {
        ".initcall4f.init": ".text.f", ".initcall4g.init": ".text.g",
    }  # fmt: skip


def test_a_kernel_without_function_sections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="-ffunction-sections"):
        image(tmp_path, {"a.o": write_elf([Section(".text")], [Symbol("f", ".text")])})
