"""Objects are read as binutils reads them, and damage is one clear error."""

from __future__ import annotations

import io
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.objects import parse_object, read_object
from tracer.host import UserError

from .elfwriter import ABSOLUTE, COMMON, LOCAL, NOBITS, R_64, RELA, XINDEX, Rela, Section, Symbol, write_elf

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


SOURCE = """\
int g(int); extern int shared[]; int common[4];
static int f(int x) { return g(x) + shared[x & 3]; }
__attribute__((weak)) int w(int x) { return f(x) * 2; }
int h(int x) { return w(x) + common[1]; }
int alias(int) __attribute__((alias("h")));
int (*table[])(int) = { f, g, h, w, alias };
const char *say(int x) { return x ? "yes" : "no"; }
int sw(int x) { switch (x) { case 0: return g(1); case 1: return g(5); case 2: return h(2);
  case 3: return w(9);
  case 4: return g(77); case 5: return f(3); } return 0; }
asm(".globl big\\n.set big, 0x123456789\\n");
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "x.c").write_text(SOURCE)
    flags = "-O2 -g -ffunction-sections -fdata-sections -fno-inline -fcommon -mcmodel=kernel -fno-pie".split()
    subprocess.run(["gcc", *flags, "-c", "x.c"], cwd=folder, check=True)
    return folder / "x.o"


def test_a_compilers_symbols_agree_with_readelf(compiled: Path) -> None:
    found = read_object(compiled)
    reserved = {0: "UND", 0xFFF1: "ABS", 0xFFF2: "COM"}
    kinds = ["NOTYPE", "OBJECT", "FUNC", "SECTION", "FILE"]
    binds = ["LOCAL", "GLOBAL", "WEAK"]
    mine = []
    for i, row in enumerate(found.symbols):
        where, kind = int(found.shndx[i]), row["info"] & 15
        name = found.section_names[where] if kind == 3 else found.symbol_name(i)
        mine.append(
            (i, int(row["value"]), int(row["size"]), kinds[kind], binds[row["info"] >> 4],
             reserved.get(where, str(where)), name)
        )  # fmt: skip
    rows = [row for row in readelf("-sW", compiled) if row[:1] and row[0].rstrip(":").isdigit()]
    wanted = [
        (int(r[0][:-1]), int(r[1], 16), int(r[2], 0), r[3], r[4], r[6], r[7] if len(r) > 7 else "")
        for r in rows
    ]
    assert mine == wanted and {"ABS", "COM", "UND"} <= {row[5] for row in mine}


def test_a_compilers_relocations_agree_with_readelf(compiled: Path) -> None:
    found = read_object(compiled)
    mine = [
        (int(row["offset"]), int(row["info"]), int(row["addend"]))
        for index in range(len(found.sections))
        if found.sections[index]["type"] == RELA
        for row in found.relocations(index)
    ]
    wanted = []
    for row in readelf("-rW", compiled):
        if row[2:3] and row[2].startswith("R_X86_64"):
            tail = row[4:]  # value, then: name + addend, or name - addend
            addend = int(tail[-1], 16) * (-1 if tail[-2] == "-" else 1)
            wanted.append((int(row[0], 16), int(row[1], 16), addend))
    assert mine == wanted and len(mine) > 30


def test_a_compilers_object_agrees_with_pyelftools(compiled: Path) -> None:
    found = read_object(compiled)
    other = ELFFile(io.BytesIO(compiled.read_bytes()))
    assert found.section_names == tuple(section.name for section in other.iter_sections())
    for index, section in enumerate(other.iter_sections()):
        assert found.content(index) == (b"" if section["sh_type"] == "SHT_NOBITS" else section.data())
        if isinstance(section, RelocationSection):
            wanted = [(r["r_offset"], r["r_info_sym"], r["r_addend"]) for r in section.iter_relocations()]
            rows = found.relocations(index)
            assert [(r["offset"], r["info"] >> 32, r["addend"]) for r in rows] == wanted
        if isinstance(section, SymbolTableSection):
            names = [s.name for s in section.iter_symbols() if s["st_info"]["type"] != "STT_SECTION"]
            types = found.symbols["info"] & 15
            assert [found.symbol_name(i) for i in range(len(types)) if types[i] != 3] == names


def test_more_sections_than_a_header_can_count(tmp_path: Path) -> None:
    """gABI: the numbers move into section header 0, and symbols say SHN_XINDEX; readelf agrees."""
    count = 0xFF00 + 20
    sections = [Section(f".text.f{n}") for n in range(count)]
    data = write_elf(
        sections,
        [Symbol("low", ".text.f7"), Symbol("high", f".text.f{count - 1}"), Symbol("value", ABSOLUTE, 42)],
        [Rela(f".text.f{count - 1}", 0, "low", R_64, 0)],
    )
    path = tmp_path / "many.o"
    path.write_bytes(data)
    found = read_object(path)
    assert struct.unpack_from("<HH", data, 60) == (0, XINDEX)
    assert len(found.sections) == count + 6 and found.section_names[count] == f".text.f{count - 1}"
    where = {
        found.symbol_name(i): int(found.shndx[i])
        for i in range(len(found.symbols))
        if found.symbols["name"][i]
    }
    assert where == {"low": 8, "high": count, "value": 0xFFF1}
    rows = [row for row in readelf("-sW", path) if row[-1:] and row[-1] in where]
    assert {row[-1]: row[6] for row in rows} == {"low": "8", "high": str(count), "value": "ABS"}


@pytest.mark.parametrize("wide", [False, True])
def test_reserved_indices_stay_as_they_are(wide: bool) -> None:
    data = write_elf(
        [Section(".text.f")], [Symbol("a", ABSOLUTE, 7), Symbol("c", COMMON, 8, 4), Symbol("u")], wide=wide
    )
    found = parse_object(HERE, data)
    where = {found.symbol_name(i): int(found.shndx[i]) for i in range(2, len(found.symbols))}
    assert where == {"a": 0xFFF1, "c": 0xFFF2, "u": 0}


def test_a_truncated_compilers_object_is_one_clear_error(compiled: Path) -> None:
    data = compiled.read_bytes()
    for size in range(0, len(data), 64):
        with pytest.raises(UserError, match=r"net/sample\.o") as caught:
            parse_object(HERE, data[:size])
        assert "\n" not in str(caught.value)


def field(data: bytes, section: str, offset: int, form: str, value: int) -> bytes:
    """The object with one field of a section's header replaced."""
    at = parse_object(HERE, data)
    spoilt = bytearray(data)
    struct.pack_into(form, spoilt, at.shoff + 64 * at.section_names.index(section) + offset, value)
    return bytes(spoilt)


WIDE = write_elf([Section(".text.f")], [Symbol("f", ".text.f")], [Rela(".text.f", 0, "f")], wide=True)


def wide_index(value: int) -> bytes:
    at = parse_object(HERE, WIDE)
    spoilt = bytearray(WIDE)
    start = int(at.sections["offset"][at.section_names.index(".symtab_shndx")])
    struct.pack_into("<I", spoilt, start + 4, value)
    return bytes(spoilt)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(wide_index(9999), "lies in no section", id="wide index"),
        pytest.param(field(WIDE, ".text.f", 24, "<Q", 2**64 - 1), "beyond the end", id="offset wraps"),
        pytest.param(field(WIDE, ".text.f", 32, "<Q", 2**64 - 1), "beyond the end", id="size wraps"),
        pytest.param(field(WIDE, ".text.f", 4, "<I", 8), "without bytes", id="relocated bss"),
        pytest.param(
            field(write_elf([Section(".bss.z", b"", 3, NOBITS)], []), ".bss.z", 32, "<Q", 2**63),
            "larger than memory", id="endless bss",
        ),
        pytest.param(
            field(write_elf([Section(".text.f")], []), ".symtab", 40, "<I", 0), "no string table",
            id="no string table",
        ),
        pytest.param(field(WIDE, ".symtab_shndx", 4, "<I", 1), "SHN_XINDEX without", id="no wide table"),
        pytest.param(field(WIDE, ".symtab", 4, "<I", 1), "0 symbol tables", id="no symbols"),
        pytest.param(field(WIDE, ".symtab", 44, "<I", 2**31), "behind the last symbol", id="no globals"),
        pytest.param(field(WIDE, ".rela.text.f", 44, "<I", 99), "applies to nothing", id="relocates nothing"),
        pytest.param(field(WIDE, ".rela.text.f", 40, "<I", 1), "applies to nothing", id="not our symbols"),
    ],
)  # fmt: skip
def test_an_index_that_leads_nowhere_is_found_when_read(data: bytes, says: str) -> None:
    """Later passes follow these without looking."""
    with pytest.raises(UserError, match=says):
        parse_object(HERE, data)


def test_an_object_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.o: No such file"):
        read_object(tmp_path / "gone.o")
    with pytest.raises(UserError, match="Is a directory"):
        read_object(tmp_path)


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
