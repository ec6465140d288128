"""Objects of 32 bits with addends in their fields mean what those of 64 bits mean, edited or not."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune.linking.edit import edit_image
from prune.linking.tombstones import bury_dropped
from prune.model.buildid import build_id
from prune.model.elf import ObjectFile
from prune.model.knowledge import Knowledge
from prune.model.layout import ELF32, ELF64, SYMBOL, like
from prune.model.refine import refine
from prune.model.tables import find_tables
from tests.conftest import I386, X86, edited_objects, image
from tests.objects import parse_object, read_object
from tests.unit.test_edit import HOSTILE_SECTIONS, HOSTILE_SYMBOLS
from tracer.host import UserError

from .damage import damaged_fields
from .elfwriter import (
    ALLOC,
    LOCAL,
    MERGE,
    NOBITS,
    NOTYPE,
    OBJECT,
    R_64,
    R_PC32,
    R_PLT32,
    STRINGS,
    WEAK,
    WRITE,
    Rela,
    Section,
    Symbol,
    write_elf,
)

HERE = Path("net/sample.o")
KNOWN = {32: I386, 64: X86}
TEXT = b"dead one\0kept by section\0dead\0kept by symbol\0"
SIZE = 40


def parse(data: bytes) -> ObjectFile:
    return parse_object(HERE, data, I386.machine)


Meaning = tuple[object, ...]


def meaning(file: ObjectFile) -> Mapping[str, Meaning]:
    """What an object says, however it is laid out: contents but for the fields, symbols, relocations."""
    found: dict[str, Meaning] = {}
    names = [name.replace(".rela", ".rel") for name in file.section_names]
    contents = [bytearray(file.content(index)) for index in range(len(names))]
    for index in file.relocation_sections():
        applies = int(file.sections["info"][index])
        rows = file.relocations(index).tolist()
        found[names[index]] = tuple((at, info >> 32, info & 0xFF, addend) for at, info, addend in rows)
        for at, info, _ in rows:
            width = 8 if info & 0xFF == R_64 else 4
            contents[applies][at : at + width] = bytes(width)
    symbols = zip(file.symbols.tolist(), file.shndx.tolist(), strict=True)
    found["symbols"] = tuple(
        (file.symbol_name(row), info, other, shndx, value, size)
        for row, ((_, info, other, _, value, size), shndx) in enumerate(symbols)
    )
    tables = {".symtab", ".strtab", ".shstrtab", ".symtab_shndx"}
    for name, content, row in zip(names, contents, file.sections, strict=True):
        if name not in tables and not name.startswith(".rel"):
            found[name] = (bytes(content), *(int(row[column]) for column in ("type", "flags", "align")))
    return found


Parts = tuple[list[Section], list[Symbol], list[Rela]]


@st.composite
def programs(draw: st.DrawFn) -> Parts:
    """Functions that refer to functions, data and strings in all ways, and a table about them."""
    functions = [f"f{n}" for n in range(draw(st.integers(2, 5)))]
    binds = {name: draw(st.sampled_from([LOCAL, 1, WEAK])) for name in functions}
    fill = draw(st.integers(0, 255))
    sections = [Section(f".text.{name}", bytes([fill]) * SIZE) for name in functions]
    symbols = [Symbol(name, f".text.{name}", 0, SIZE, binds[name]) for name in functions]
    sections += [
        Section(".data.v", bytes(SIZE), ALLOC | WRITE),
        Section(".bss.z", b"", ALLOC | WRITE, NOBITS),
        Section(".rodata.str1.1", TEXT, ALLOC | MERGE | STRINGS),
    ]
    symbols += [
        Symbol("v", ".data.v", 8, 8, LOCAL, OBJECT),
        Symbol("lc", ".rodata.str1.1", TEXT.index(b"kept by symbol"), 0, LOCAL, NOTYPE),
    ]
    code = [*functions, *(f".text.{name}" for name in functions)]
    relocations = []
    for name in functions:
        for at in range(1, SIZE - 8, 8):
            to = draw(st.sampled_from(["", *code, "v", ".data.v", "lc", ".rodata.str1.1", "out"]))
            kind = draw(st.sampled_from([R_64, R_PC32, R_PLT32]))
            low = 0 if to.startswith(".rodata") else -4
            if to:
                addend = draw(st.integers(low, 8)) if kind == R_64 else -4 + draw(st.sampled_from([0, 0, 6]))
                relocations.append(Rela(f".text.{name}", at, to, kind, addend))
    for at in range(0, SIZE, 8):
        to = draw(st.sampled_from(["", *code, "out"]))
        if to:
            relocations.append(Rela(".data.v", at, to, R_64, draw(st.sampled_from([0, 0, 4]))))
    count = draw(st.integers(0, 5))
    if count:
        table = b"".join(bytes([n]) * 12 for n in range(count))
        sections.append(Section("__ex_table", table, ALLOC))
        for n in range(count):
            to = draw(st.sampled_from(functions))
            place = draw(st.integers(0, 9))
            relocations.append(Rela("__ex_table", 12 * n, f".text.{to}", R_PC32, place))
            relocations.append(Rela("__ex_table", 12 * n + 4, f".text.{to}", R_PC32, place + 4))
    return sections, [*symbols, Symbol("out")], relocations


def edited(folder: Path, data: bytes, dropped: set[str], boot: set[str], knowledge: Knowledge) -> ObjectFile:
    """The object without some sections, and with others freed after boot."""
    made = image(folder, {"a.o": data}, knowledge=knowledge)
    names = np.array(made.names)
    keep = ~np.isin(names, list(dropped))
    tables = find_tables(made, knowledge)
    burial = bury_dropped(made, tables, keep)
    after = edit_image(made, tables, keep, keep & np.isin(names, list(boot)), burial, knowledge)
    return parse_object(HERE, edited_objects(made, after)["a.o"], knowledge.machine)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs(), st.data())
def test_an_edit_means_the_same_whatever_the_layout(
    tmp_path: Path, parts: Parts, data: st.DataObject
) -> None:
    functions = [section.name for section in parts[0] if section.name.startswith(".text")]
    dropped = data.draw(st.sets(st.sampled_from(functions)))
    boot = data.draw(st.sets(st.sampled_from(functions)))
    wide = data.draw(st.booleans())
    found = []
    for bits, knowledge in KNOWN.items():
        written = write_elf(*parts, bits=bits, wide=wide)
        assert meaning(parse_object(HERE, written, knowledge.machine))
        found.append(meaning(edited(tmp_path, written, dropped, boot, knowledge)))
    assert found[0] == found[1]


def test_what_is_edited_reads_well_elsewhere(tmp_path: Path) -> None:
    """binutils has nothing to complain of, and finds the addends where they are written now."""
    written = write_elf(
        [
            Section(".text.hot", bytes(24)), Section(".text.cold", bytes(16)),
            Section("__ex_table", b"".join(bytes([n]) * 12 for n in range(3)), ALLOC),
        ],
        [Symbol("hot", ".text.hot"), Symbol("cold", ".text.cold", bind=LOCAL), Symbol("out")],
        [
            Rela(".text.hot", 1, ".text.cold", R_PC32, 4), Rela(".text.hot", 6, ".text.cold", R_64, 8),
            Rela(".text.hot", 11, "out", R_PLT32, -4), Rela(".text.hot", 16, "out", R_64, -12),
            Rela("__ex_table", 0, ".text.hot", R_PC32, 2), Rela("__ex_table", 12, ".text.cold", R_PC32, 3),
            Rela("__ex_table", 24, ".text.hot", R_PC32, 4),
        ],
        bits=32,
    )  # fmt: skip
    file = edited(tmp_path, written, {".text.cold"}, set(), I386)
    (tmp_path / "after.o").write_bytes(file.data)
    said = subprocess.run(
        ["readelf", "-aW", tmp_path / "after.o"], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    hot = file.content(file.section_names.index(".text.hot"))
    assert [struct.unpack_from("<i", hot, at)[0] for at in (1, 6, 11, 16)] == [-4, 0, -4, -12]
    table = file.content(file.section_names.index("__ex_table"))
    assert [struct.unpack_from("<i", table, at)[0] for at in (0, 12)] == [2, 4]
    assert table[4:12] + table[16:] == bytes(8) + b"\2" * 8


# --- a compiler's objects -------------------------------------------------------------------------

SOURCE = """\
int g(int); extern int shared[];
static int f(int x) { return g(x) + shared[x & 3] + shared[7]; }
__attribute__((weak)) int w(int x) { return f(x) * 2; }
int (*table[])(int) = { f, g, w };
const char *say(int x) { return x ? "yes" : "no"; }
int sw(int x) { switch (x) { case 0: return g(1); case 1: return g(5); case 2: return w(2);
  case 3: return w(9); case 4: return g(77); case 5: return f(3); } return 0; }
__attribute__((section(".init.text"))) int one(int x) { return f(x); }
__attribute__((section(".init.text"))) int two(int x) { return one(x) + one(x + 1); }
asm(".section .narrow, \\"a\\"\\n.byte near + 3\\n.word near - 5\\n.byte near - . + 1\\n.word near - . - 2\\n"
    ".long near + 0x70000000\\n.previous");
"""
FLAGS = "-m32 -O2 -ffreestanding -g -ffunction-sections -fdata-sections -fno-inline -fno-pie".split()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "x.c").write_text(SOURCE)
    subprocess.run(["gcc", *FLAGS, "-c", "x.c"], cwd=folder, check=True)
    return folder / "x.o"


def test_a_compilers_object_agrees_with_pyelftools(compiled: Path) -> None:
    found = read_object(compiled, I386.machine)
    with compiled.open("rb") as stream:
        other = ELFFile(stream)
        assert found.section_names == tuple(section.name for section in other.iter_sections())
        table = other.get_section_by_name(".symtab")
        assert [(int(r["value"]), int(r["size"])) for r in found.symbols] == [
            (s["st_value"], s["st_size"]) for s in table.iter_symbols()
        ]
        several = 0
        for index, section in enumerate(other.iter_sections()):
            assert found.content(index) == (b"" if section["sh_type"] == "SHT_NOBITS" else section.data())
            if isinstance(section, RelocationSection):
                content = other.get_section(section["sh_info"]).data()
                wanted = [
                    (r["r_offset"], r["r_info_sym"], r["r_info_type"], addend_at(content, r))
                    for r in section.iter_relocations()
                ]
                rows = found.relocations(index).tolist()
                assert [(at, info >> 32, info & 0xFF, addend) for at, info, addend in rows] == wanted
                several += len(wanted)
    assert several > 30


def addend_at(content: bytes, relocation: Mapping[str, int]) -> int:
    """psABI i386, table 4.9: R_386_8 and PC8, R_386_16 and PC16, the others of four bytes."""
    form = {22: "<b", 23: "<b", 20: "<h", 21: "<h"}.get(relocation["r_info_type"], "<i")
    found: int = struct.unpack_from(form, content, relocation["r_offset"])[0]
    return found


def test_narrow_fields_hold_narrow_addends(compiled: Path) -> None:
    found = read_object(compiled, I386.machine)
    rows = found.relocations(found.section_names.index(".rel.narrow"))
    assert rows["addend"].tolist() == [3, -5, 1, -2, 0x70000000]
    data = np.frombuffer(found.data, np.uint8).copy()
    at = int(found.sections["offset"][found.section_names.index(".narrow")])
    rows = rows.copy()
    rows["addend"] = [-128, 32767, -1, 5, -1]
    found.machine.fill(data, at + rows["offset"].astype(np.int64), rows)
    assert data[at : at + 10].tobytes() == struct.pack("<bhbhi", -128, 32767, -1, 5, -1)


def test_code_that_shares_a_section_is_taken_apart(compiled: Path, tmp_path: Path) -> None:
    before = read_object(compiled, I386.machine)
    after, splits = refine(before, I386)
    (split,) = (each for each in splits if each.name == ".init.text")
    assert [piece.name for piece in split.pieces] == [".init.text.one", ".init.text.two"]
    rows = after.relocations(after.section_names.index(".rel.init.text.two"))
    assert {int(after.symbols["shndx"][symbol]) for symbol in (rows["info"] >> 32).tolist()} == {
        after.section_names.index(".init.text.one")
    }
    assert rows["addend"].tolist() == [-4, -4]
    (tmp_path / "apart.o").write_bytes(after.data)
    said = subprocess.run(
        ["readelf", "-aW", tmp_path / "apart.o"], capture_output=True, text=True, check=True
    )
    assert said.stderr == ""
    # Debug information says of the same places what it said: their fields moved with the pieces.
    (tmp_path / "f.lds").write_text(
        "SECTIONS { . = 64; .narrow : { *(.narrow) } .init.text : { *(.init.text*) } .text : { *(.text*) } }"
    )
    line = [
        "ld",
        "-m",
        "elf_i386",
        "-T",
        "f.lds",
        "--defsym",
        "g=9",
        "--defsym",
        "near=80",
        "--defsym",
        "shared=9",
    ]
    for name, source in (("old", compiled), ("new", tmp_path / "apart.o")):
        subprocess.run([*line, source, "-o", name], cwd=tmp_path, check=True)
    command = ["objdump", "--dwarf=decodedline,info"]
    lines = [
        subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=True)
        .stdout.replace(f"{name}:", "")
        for name in ("old", "new")
    ]  # fmt: skip
    assert lines[0] == lines[1] and "x.c" in lines[0]


def test_every_size_that_a_file_was_cut_to_is_one_clear_error(compiled: Path) -> None:
    data = compiled.read_bytes()
    for size in range(0, len(data), 61):
        with pytest.raises(UserError, match=r"net/sample\.o") as caught:
            parse(data[:size])
        assert "\n" not in str(caught.value)


def test_a_build_id_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.c").write_text("void _start(void) {}")
    command = "gcc -m32 -ffreestanding -nostdlib -static -Wl,--build-id=0xabcdef0123 x.c -o x".split()
    subprocess.run(command, cwd=tmp_path, check=True)
    assert build_id(tmp_path / "x") == "abcdef0123"
    (tmp_path / "cut").write_bytes((tmp_path / "x").read_bytes()[:40])
    with pytest.raises(UserError, match="not a whole ELF file"):
        build_id(tmp_path / "cut")


# --- what is refused ------------------------------------------------------------------------------

NARROW = write_elf(
    [Section(".text.one", b"\xe8\0\0\0\0\xc3"), Section(".data.ptr", bytes(8), 3)],
    [Symbol("one", ".text.one", 0, 6), Symbol("inner", ".text.one", 5, 1, LOCAL), Symbol("two")],
    [Rela(".text.one", 1, "two"), Rela(".data.ptr", 0, "inner", R_64, 0)],
    bits=32,
)
#: Another class, another machine, a field that ends outside, a type that nobody knows, RELA.
REFUSED = [
    (write_elf([Section(".text.a")], []), "it is EM_X86_64, ELF64; this kernel is EM_386, ELF32"),
    (write_elf([Section(".text.a")], [], bits=32, machine=62), "it is EM_X86_64, ELF32"),
    (
        write_elf([Section(".text.a", bytes(8))], [Symbol("a")], [Rela(".text.a", 5, "a")], bits=32),
        "points outside its section",
    ),
    (
        write_elf([Section(".text.a", bytes(8))], [Symbol("a")], [Rela(".text.a", 1, "a", 37)], bits=32),
        "relocation type 37 is not known on EM_386; describe it in linkerscripts/",
    ),
    (write_elf([Section(".text.a"), Section(".rela.text.a", b"", 0, 4)], [], bits=32), "RELA relocations"),
    (NARROW[:51], "no ELF header"),
    (NARROW[:5] + b"\2" + NARROW[6:], "only little-endian ELF files"),
]


@pytest.mark.parametrize(("data", "says"), REFUSED, ids=[says[:20] for _, says in REFUSED])
def test_what_is_no_object_of_this_kernel_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse(data)


def test_a_kernel_of_64_bits_has_no_objects_of_32() -> None:
    with pytest.raises(UserError, match="it is EM_386, ELF32; this kernel is EM_X86_64, ELF64"):
        parse_object(HERE, NARROW)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(NARROW) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_hostile_bytes_never_give_a_traceback(changes: list[tuple[int, int]]) -> None:
    data = bytearray(NARROW)
    for at, value in changes:
        data[at] = value
    try:
        found = parse(bytes(data))
    except UserError as error:
        assert "\n" not in str(error)
        return
    for index in range(len(found.symbols)):
        found.symbol_name(index)
    for index in found.relocation_sections():
        found.relocations(index)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hostile_objects_are_edited_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    hostile = data.draw(damaged_fields(HOSTILE, headers_at=struct.unpack_from("<I", HOSTILE, 32)[0]))
    try:
        file = edited(tmp_path, hostile, {".text.cold"}, set(), I386)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert len(file.data) >= len(hostile)


HOSTILE = write_elf(
    HOSTILE_SECTIONS, HOSTILE_SYMBOLS,
    [
        Rela(".text.f", 1, ".text.cold"), Rela(".text.f", 6, "gone"), Rela(".text.f", 11, "lc", R_64),
        Rela(".text.f", 15, ".rodata.str1.1", R_64, 5), Rela("__ex_table", 0, ".text.f", R_PC32, 0),
        Rela("__ex_table", 12, ".text.cold", R_PC32, 0),
    ],
    wide=True, bits=32,
)  # fmt: skip


# --- tables whose fields are pointers -------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "entry", "owner"),
    [("__jump_table", 12, 0), (".init.setup", 12, 4), ("__param", 20, 16), ("__mcount_loc", 4, 0)],
)
def test_pointers_of_four_bytes_make_smaller_entries(
    tmp_path: Path, section: str, entry: int, owner: int
) -> None:
    """As many entries as make a whole number of wider ones."""
    names = "fgfgfg"
    written = write_elf(
        [Section(".text.f"), Section(".text.g"), Section(section, bytes(entry * len(names)), ALLOC | WRITE)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [
            Rela(section, entry * n + at, f".text.{name}", R_PC32 if section == "__jump_table" else R_64, 0)
            for n, name in enumerate(names)
            for at in sorted({0, 4, owner})
            if at < entry
        ],
        bits=32,
    )
    made = image(tmp_path, {"a.o": written}, knowledge=I386)
    (part,) = find_tables(made, I386).parts.values()
    assert part.entry == entry and [made.names[unit][-1] for unit in part.owners] == list(names)


def test_rows_are_like_each_other_by_name() -> None:
    rows = np.zeros(2, SYMBOL)
    rows["value"], rows["size"], rows["info"] = [1, 2], [3, 4], [5, 6]
    narrow = like(rows, ELF32.symbol)
    assert like(narrow, SYMBOL).tolist() == rows.tolist() and like(rows, ELF64.symbol) is rows
    assert narrow.tobytes()[4:13] == struct.pack("<IIB", 1, 3, 5)
