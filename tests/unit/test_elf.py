"""Objects are read as binutils reads them, and damage is one clear error."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune.elf import parse_object, read_object
from tracer.host import UserError

from .elfwriter import LOCAL, R_64, Rela, Section, Symbol, write_elf

SAMPLE = write_elf(
    [Section(".text.one", b"\xe8\0\0\0\0\xc3"), Section(".data.ptr", bytes(8), 3)],
    [Symbol("one", ".text.one", 0, 6), Symbol("inner", ".text.one", 5, 1, LOCAL), Symbol("two")],
    [Rela(".text.one", 1, "two"), Rela(".data.ptr", 0, "inner", R_64, 0)],
)
HERE = Path("net/sample.o")


def readelf(option: str, path: Path) -> list[list[str]]:
    said = subprocess.run(["readelf", option, path], capture_output=True, text=True, check=True)
    assert "Warning" not in said.stderr, said.stderr
    return [line.split() for line in said.stdout.splitlines()]


@pytest.mark.parametrize("wide", [False, True])
def test_symbols_and_relocations_agree_with_readelf(tmp_path: Path, wide: bool) -> None:
    path = tmp_path / "sample.o"
    path.write_bytes(
        write_elf(
            [Section(".text.one", b"\xe8\0\0\0\0\xc3"), Section(".text.two")],
            [Symbol("one", ".text.one", 0, 6), Symbol("two", ".text.two")],
            [Rela(".text.one", 1, "two")],
            wide=wide,
        )
    )
    found = read_object(path)
    wanted = [
        (row[-1], row[6], int(row[1], 16))
        for row in readelf("-sW", path)
        if row[:1] and row[0][:-1].isdigit()
    ]
    mine = [
        (found.symbol_name(i), str(found.shndx[i]), int(found.symbols["value"][i]))
        for i in range(len(found.symbols))
    ]
    named = {row[0]: row[1:] for row in wanted}
    assert {name: ("UND" if where == "0" else where, value) for name, where, value in mine if name} == {
        name: rest for name, rest in named.items() if name in ("one", "two")
    }
    assert len(mine) == len(wanted)


def test_a_compilers_object_agrees_with_readelf(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text(
        "int g(int); static int f(int x) { return g(x) + 1; }\n"
        "int (*p)(int) = f; int h(int x) { return f(x); }\n"
    )
    path = tmp_path / "x.o"
    subprocess.run(["gcc", "-O1", "-ffunction-sections", "-fno-inline", "-c", source, "-o", path], check=True)
    found = read_object(path)
    wanted = [int(row[0], 16) for row in readelf("-rW", path) if row[2:3] and row[2].startswith("R_X86_64")]
    mine = [
        int(offset)
        for index, header in enumerate(found.sections)
        if header["type"] == 4
        for offset in found.relocations(index)["offset"]
    ]
    assert mine == wanted


@pytest.mark.parametrize("size", range(0, len(SAMPLE), 37))
def test_a_truncated_object_is_one_clear_error(size: int) -> None:
    with pytest.raises(UserError, match=r"net/sample\.o"):
        parse_object(HERE, SAMPLE[:size])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"!<arch>\n" + bytes(100), "no ELF header"),
        (SAMPLE[:4] + b"\x01" + SAMPLE[5:], "ELF64"),
        (write_elf([Section(".text.a")], [], machine=40), "EM_ARM"),
        (write_elf([Section(".text.a")], [], elf_type=2), "not a relocatable"),
        (write_elf([Section(".text.a"), Section(".rel.text.a", b"", 0, 9)], []), "REL relocations"),
        (write_elf([Section(".text.a")], [Symbol("a", ".text.a")], [Rela(".text.a", 9, "a")]), "outside its"),
    ],
)  # fmt: skip
def test_what_is_no_object_of_this_kernel_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_object(HERE, data)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_hostile_bytes_never_give_a_traceback(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for at, value in changes:
        data[at] = value
    try:
        found = parse_object(HERE, bytes(data))
    except UserError:
        return
    for index in range(len(found.symbols)):
        found.symbol_name(index)
