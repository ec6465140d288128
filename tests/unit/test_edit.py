"""Objects are edited in place, and binutils reads the result without a warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.edit import Cut, Edit, Move, edit_object, first_byte_addend
from prune.elf import ObjectFile, parse_object
from prune.knowledge import read_knowledge
from tracer.host import UserError

from .elfwriter import LOCAL, R_64, R_PC32, Rela, Section, Symbol, write_elf

TABLE = b"".join(bytes([n]) * 12 for n in range(4))
X86 = read_knowledge("x86_64")


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
