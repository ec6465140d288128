"""Objects are edited in place, and binutils reads the result without a warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.edit import Cut, Edit, Move, edit_object, first_byte_addend, plan_edits
from prune.elf import ObjectFile, parse_object
from prune.image import Image
from prune.tables import find_tables
from prune.tombstones import bury_dropped
from tests.conftest import X86, image
from tracer.host import UserError

from .elfwriter import LOCAL, R_64, R_PC32, Rela, Section, Symbol, write_elf

TABLE = b"".join(bytes([n]) * 12 for n in range(4))


def sample(wide: bool = False) -> ObjectFile:
    relocations = [Rela(".text.hot", 1, ".text.cold", addend=-4), Rela(".text.hot", 6, "gone")]
    relocations += [
        Rela("__ex_table", 12 * n, ".text.cold" if n % 2 else ".text.hot", R_PC32, n) for n in range(4)
    ]
    data = write_elf(
        [Section(".text.hot", bytes(12)), Section(".text.cold", bytes(9)), Section("__ex_table", TABLE, 2)],
        [
            Symbol("inner", ".text.cold", 4, 1, LOCAL),
            Symbol("gone", ".text.cold", 0, 9),
            Symbol("hot", ".text.hot"),
        ],
        relocations,
        wide=wide,
    )
    return parse_object(Path("sample.o"), data)


def edited(file: ObjectFile, edit: Edit, folder: Path) -> ObjectFile:
    path = folder / "edited.o"
    path.write_bytes(edit_object(file, edit))
    said = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
    assert "Warning" not in said.stderr and "Error" not in said.stderr, said.stderr
    return parse_object(path, path.read_bytes())


def relocations(file: ObjectFile, name: str) -> list[tuple[int, str, int]]:
    rows = file.relocations(file.section_names.index(f".rela{name}"))
    return [(int(r["offset"]), file.symbol_name(int(r["info"]) >> 32), int(r["addend"])) for r in rows]


@pytest.mark.parametrize("wide", [False, True])
def test_a_reference_by_section_symbol_moves_to_the_tombstones_name(tmp_path: Path, wide: bool) -> None:
    file = sample(wide)
    at = int(file.sections["offset"][file.section_names.index(".rela.text.hot")])
    found = edited(file, Edit((Move(at, "cold", -4),), (), ()), tmp_path)
    assert relocations(found, ".text.hot") == [(1, "cold", -4), (6, "gone", -4)]
    index = len(found.symbols) - 1
    assert (found.symbol_name(index), found.shndx[index], found.symbols["info"][index]) == ("cold", 0, 0x10)


@pytest.mark.parametrize("wide", [False, True])
def test_a_dropped_definition_becomes_undefined(tmp_path: Path, wide: bool) -> None:
    file = sample(wide)
    index = next(i for i in range(len(file.symbols)) if file.symbol_name(i) == "gone")
    found = edited(file, Edit((), (index,), ()), tmp_path)
    assert found.shndx[index] == 0 and found.symbols["size"][index] == 0
    assert found.shndx.tolist()[:index] == file.shndx.tolist()[:index]
    if wide:
        table = np.frombuffer(found.content(found.section_names.index(".symtab_shndx")), "<u4")
        assert table[index] == 0 and len(table) == len(found.symbols)


def test_a_table_loses_entries_and_their_relocations(tmp_path: Path) -> None:
    file = sample()
    table = file.section_names.index("__ex_table")
    found = edited(file, Edit((), (), (Cut(table, 12, np.array([True, False, True, False])),)), tmp_path)
    assert found.content(table) == TABLE[:12] + TABLE[24:36]
    assert [row[::2] for row in relocations(found, "__ex_table")] == [(0, 0), (12, 2)]


def test_a_table_can_lose_everything(tmp_path: Path) -> None:
    file = sample()
    table = file.section_names.index("__ex_table")
    found = edited(file, Edit((), (), (Cut(table, 12, np.zeros(4, bool)),)), tmp_path)
    assert found.content(table) == b"" and relocations(found, "__ex_table") == []


@pytest.mark.parametrize(
    ("kind", "addend", "in_code", "wanted"),
    [
        (R_PC32, -4, True, -4),  # call f
        (R_PC32, -5, True, -5),  # cmpb $1, f(%rip): an immediate follows
        (R_PC32, -8, True, -8),
        (R_PC32, 12, True, -4),  # into the middle: the tombstone has no middle
        (R_PC32, 0, False, 0),  # .long f - .
        (R_PC32, 16, False, 0),
        (R_64, 0, False, 0),
        (R_64, 32, False, 0),
    ],
)
def test_the_addend_means_the_first_byte(kind: int, addend: int, in_code: bool, wanted: int) -> None:
    assert first_byte_addend(kind, addend, in_code, X86) == wanted


def test_an_unknown_relocation_is_never_guessed() -> None:
    with pytest.raises(UserError, match="type 99 is not supported"):
        first_byte_addend(99, 0, True, X86)


def test_a_global_reference_into_the_middle_keeps_its_symbol(tmp_path: Path) -> None:
    """gone+5 would lie five tombstones further."""
    file = sample()
    at = int(file.sections["offset"][file.section_names.index(".rela.text.hot")]) + 24
    found = edited(file, Edit((Move(at, "", -4),), (), ()), tmp_path)
    assert relocations(found, ".text.hot")[1] == (6, "gone", -4)
    assert len(found.symbols) == len(file.symbols)


@pytest.mark.parametrize("wide", [False, True])
def test_everything_at_once_and_again(tmp_path: Path, wide: bool) -> None:
    """Moves, undefining and cuts of one object; what was edited can be read and edited once more."""
    file = sample(wide)
    at = int(file.sections["offset"][file.section_names.index(".rela.text.hot")])
    gone = next(i for i in range(len(file.symbols)) if file.symbol_name(i) == "gone")
    table = file.section_names.index("__ex_table")
    cut = Cut(table, 12, np.array([True, False, True, False]))
    found = edited(file, Edit((Move(at, "cold", -4), Move(at + 24, "", -4)), (gone,), (cut,)), tmp_path)
    assert relocations(found, ".text.hot") == [(1, "cold", -4), (6, "gone", -4)]
    assert found.shndx[gone] == 0 and len(found.content(table)) == 24
    again = edited(found, Edit((Move(at + 24, "other", -5),), (), ()), tmp_path)
    assert relocations(again, ".text.hot") == [(1, "cold", -4), (6, "other", -5)]
    assert len(again.symbols) == len(file.symbols) + 2


def test_offsets_of_what_was_there_do_not_move(tmp_path: Path) -> None:
    file = sample()
    at = int(file.sections["offset"][file.section_names.index(".rela.text.hot")])
    found = edited(file, Edit((Move(at, "cold", -4),), (), ()), tmp_path)
    moved = {
        i for i in range(len(file.sections)) if file.sections["offset"][i] != found.sections["offset"][i]
    }
    assert {file.section_names[i] for i in moved} == {".symtab", ".strtab"}
    assert all(int(found.sections["offset"][i]) >= len(file.data) for i in moved)
    assert found.symbols.tolist()[: len(file.symbols)] == file.symbols.tolist()


def test_nothing_to_do_changes_no_table(tmp_path: Path) -> None:
    file = sample(True)
    found = edited(file, Edit((), (), ()), tmp_path)
    assert found.symbols.tolist() == file.symbols.tolist() and found.shndx.tolist() == file.shndx.tolist()


def test_one_new_symbol_serves_all_references_to_it(tmp_path: Path) -> None:
    file = sample()
    at = int(file.sections["offset"][file.section_names.index(".rela.text.hot")])
    moves = (Move(at, "cold", -4), Move(at + 24, "cold", -4))
    found = edited(file, Edit(moves, (), ()), tmp_path)
    assert len(found.symbols) == len(file.symbols) + 1
    assert [row[1] for row in relocations(found, ".text.hot")] == ["cold", "cold"]


LAYOUT = {
    "a.o": write_elf(
        [
            Section(".text.hot", bytes(24)), Section(".text.cold", bytes(32)), Section(".text.lost"),
            Section(".data.p", bytes(8), 3), Section("__ex_table", bytes(24), 2),
        ],
        [
            Symbol("hot", ".text.hot"), Symbol("cold", ".text.cold"),
            Symbol("lost", ".text.lost", bind=LOCAL),
            Symbol("inner", ".text.cold", 4, 1, LOCAL),
        ],
        [
            Rela(".text.hot", 1, "cold"),                          # by its name: the script defines it
            Rela(".text.hot", 6, "cold", R_PC32, 8),               # into the middle
            Rela(".text.hot", 11, ".text.lost"),                   # by the section
            Rela(".text.hot", 16, ".text.cold", R_PC32, -4 + 20),  # section symbol + offset
            Rela(".data.p", 0, "inner", R_64, 0),
            Rela("__ex_table", 0, ".text.hot", R_PC32, 0), Rela("__ex_table", 4, ".text.lost", R_PC32, 4),
            Rela("__ex_table", 12, ".text.cold", R_PC32, 0), Rela("__ex_table", 16, ".text.cold", R_PC32, 8),
        ],
    )
}  # fmt: skip


def planned(folder: Path, objects: dict[str, bytes], *dropped: str) -> tuple[Image, dict[int, Edit]]:
    made = image(folder, objects)
    keep = ~np.isin(np.array(made.names), dropped)
    tables = find_tables(made, X86)
    return made, plan_edits(
        made, tables, keep, np.zeros_like(keep), bury_dropped(made, tables, keep, X86), X86
    )


def test_every_reference_to_what_was_dropped_is_moved(tmp_path: Path) -> None:
    made, edits = planned(tmp_path, LAYOUT, ".text.cold", ".text.lost")
    found = edited(made.files[0], edits[0], tmp_path)
    assert relocations(found, ".text.hot") == [
        (1, "cold", -4), (6, "cold", -4), (11, "lost", -4), (16, "cold", -4),
    ]  # fmt: skip
    assert relocations(found, ".data.p") == [(0, "cold", 0)]
    # The entry of cold is gone; that of hot stays, its fixup is the tombstone.
    assert [row[::2] for row in relocations(found, "__ex_table")] == [(0, 0), (4, 0)]
    assert relocations(found, "__ex_table")[1][1] == "lost"
    index = next(i for i in range(len(found.symbols)) if found.symbol_name(i) == "cold")
    assert found.shndx[index] == 0


def test_an_object_that_has_nothing_to_do_with_the_dead_is_not_edited(tmp_path: Path) -> None:
    other = write_elf([Section(".text.other")], [Symbol("other", ".text.other")])
    made, edits = planned(tmp_path, {**LAYOUT, "b.o": other}, ".text.cold", ".text.lost")
    assert {made.objects[obj] for obj in edits} == {"a.o"}
    assert planned(tmp_path, LAYOUT)[1] == {}


def test_a_reference_into_a_table_that_shrinks_is_refused(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".text.g"), Section("__ex_table", bytes(24), 2)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("entry", "__ex_table", 12, 12, LOCAL, 1)],
        [
            Rela(".text.f", 1, "entry", R_PC32),
            Rela("__ex_table", 0, ".text.g", R_PC32, 0), Rela("__ex_table", 12, ".text.f", R_PC32, 0),
        ],
    )  # fmt: skip
    with pytest.raises(UserError, match=r"a\.o:\.text\.f refers to an entry of a\.o:__ex_table"):
        planned(tmp_path, {"a.o": data}, ".text.g")


def test_both_tables_of_a_pair_are_cut_alike(tmp_path: Path) -> None:
    data = write_elf(
        [
            Section(".text.f"), Section(".text.g"), Section(".orc_unwind_ip", bytes(12), 2),
            Section(".orc_unwind", b"".join(bytes([n]) * 6 for n in range(3)), 2),
        ],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [Rela(".orc_unwind_ip", 4 * n, f".text.{name}", R_PC32, n) for n, name in enumerate("fgf")],
    )  # fmt: skip
    made, edits = planned(tmp_path, {"a.o": data}, ".text.g")
    found = edited(made.files[0], edits[0], tmp_path)
    assert found.content(found.section_names.index(".orc_unwind")) == bytes(6) + bytes([2]) * 6
    assert [row[::2] for row in relocations(found, ".orc_unwind_ip")] == [(0, 0), (4, 2)]
