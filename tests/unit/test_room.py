"""Objects with room are the objects that they were, and binutils reads what is made of them."""

from __future__ import annotations

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from prune.model.elf import ObjectFile, section_names_at
from prune.model.room import DROPPED, FREED_AT, KEPT_AT, Roomy, Wanted, freed_name, lay_out, make_room
from tests.conftest import edited_objects, image
from tests.objects import parse_object

from .elfwriter import ALLOC, LOCAL, NOBITS, R_64, WRITE, Rela, Section, Symbol, write_elf


def sample(*, wide: bool = False, one_table: bool = False) -> ObjectFile:
    data = write_elf(
        [
            Section(".text.f", bytes(12)), Section(".text.g", bytes(9)),
            Section(".data.v", bytes(8), ALLOC | WRITE), Section(".bss.z", bytes(8), ALLOC | WRITE, NOBITS),
            Section(".comment", b"gcc\0", 0),
        ],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g", bind=LOCAL), Symbol("v", ".data.v", type=1)],
        [Rela(".text.f", 1, ".text.g"), Rela(".data.v", 0, "g", R_64, 0)],
        wide=wide, one_table=one_table,
    )  # fmt: skip
    return parse_object(Path("sample.o"), data)


UNITS = (1, 2, 3, 4)
FORMS = pytest.mark.parametrize(
    ("wide", "one_table"), [(False, False), (True, False), (False, True), (True, True)],
    ids=["gcc", "gcc, wide", "clang", "clang, wide"],
)  # fmt: skip


def said_by(path: Path, *command: str) -> str:
    """What a tool of binutils says, if it has nothing to complain of."""
    done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
    assert done.stderr == "", done.stderr
    return done.stdout


def text_at(table: bytes, at: int) -> str:
    return table[at : table.index(b"\0", at)].decode()


def the_same(before: ObjectFile, after: ObjectFile) -> None:
    """All but where the tables are."""
    assert after.section_names == before.section_names
    assert after.symbols.tolist() == before.symbols.tolist()
    assert after.shndx.tolist() == before.shndx.tolist()
    for column in ("type", "flags", "link", "info", "align", "entsize"):
        assert after.sections[column].tolist() == before.sections[column].tolist()
    tables = {section_names_at(before), int(before.sections["link"][before.symtab])}
    for index in sorted(set(range(len(before.sections))) - tables):
        assert after.content(index) == before.content(index)
    for index in tables:
        assert after.content(index).startswith(before.content(index))
    names = [before.symbol_name(index) for index in range(len(before.symbols))]
    assert [after.symbol_name(index) for index in range(len(after.symbols))] == names


@FORMS
def test_an_object_with_room_is_the_object(tmp_path: Path, wide: bool, one_table: bool) -> None:
    file = sample(wide=wide, one_table=one_table)
    made = make_room(file, Wanted(UNITS, ("g", "a longer name.2")))
    (tmp_path / "roomy.o").write_bytes(made.data)
    (tmp_path / "plain.o").write_bytes(file.data)
    the_same(file, parse_object(Path("roomy.o"), made.data))
    for command in (("nm",), ("objdump", "-dr"), ("readelf", "-srW")):
        roomy, plain = (said_by(tmp_path / name, *command) for name in ("roomy.o", "plain.o"))
        assert roomy.replace("roomy.o", "plain.o") == plain
    said_by(tmp_path / "roomy.o", "readelf", "-aW")


@FORMS
def test_what_was_in_the_file_stays_where_it_was(wide: bool, one_table: bool) -> None:
    """But for the section headers, which say where the tables are now."""
    file = sample(wide=wide, one_table=one_table)
    made = make_room(file, Wanted(UNITS, ("g",)))
    assert made.data[: file.shoff] == file.data[: file.shoff]
    headers = 64 * len(file.sections)
    assert made.data[file.shoff + headers : len(file.data)] == file.data[file.shoff + headers :]
    after = parse_object(Path("roomy.o"), made.data)
    moved = {
        file.section_names[index]
        for index in np.flatnonzero(after.sections["offset"] != file.sections["offset"])
    }
    assert moved == {".symtab", ".strtab"} | ({".symtab_shndx"} if wide else set()) | (
        set() if one_table else {".shstrtab"}
    )


@FORMS
def test_a_units_name_is_the_end_of_a_longer_one(wide: bool, one_table: bool) -> None:
    made = make_room(sample(wide=wide, one_table=one_table), Wanted(UNITS, ()))
    after = parse_object(Path("roomy.o"), made.data)
    names = after.content(section_names_at(after))
    assert set(made.labels) == set(UNITS)
    for index in UNITS:
        label, name = made.labels[index], after.section_names[index]
        group = ".init.text" if name.startswith(".text") else ".init.data"
        assert text_at(names, label) == f".dropped{group}{name}"
        assert text_at(names, label + FREED_AT) == f"{group}{name}"
        assert text_at(names, label + KEPT_AT) == name
        assert int(after.sections["name"][index]) == label + KEPT_AT


def test_both_groups_begin_equally_far_from_the_name() -> None:
    """KEPT_AT is one number for both."""
    assert freed_name(".text.f", executable=True) == ".init.text.text.f"
    assert freed_name(".data.v", executable=False) == ".init.data.data.v"
    assert (len(DROPPED), len(DROPPED) + len(".init.text")) == (FREED_AT, KEPT_AT)
    assert len(".init.text") == len(".init.data")


@FORMS
def test_there_is_room_for_each_stand_in(wide: bool, one_table: bool) -> None:
    file = sample(wide=wide, one_table=one_table)
    names = ("g", "of another.2", "g.3")
    made = make_room(file, Wanted(UNITS, names))
    after = parse_object(Path("roomy.o"), made.data)
    assert [text_at(after.strtab, at) for at in made.names] == list(names)
    _, size, headers, symtab_at, shndx_at, symtab, symbols, shndx, _ = made.part
    assert (size, headers, symtab, symbols) == (len(made.data), file.shoff, file.symtab, len(file.symbols))
    assert symtab_at == after.sections["offset"][symtab] and symtab_at % 8 == 0
    end = symtab_at + 24 * symbols
    assert made.data[end : end + 24 * len(names)] == bytes(24 * len(names))
    if wide:
        assert file.section_names[shndx] == ".symtab_shndx" and shndx_at == after.sections["offset"][shndx]
        end = shndx_at + 4 * symbols
        assert made.data[end : end + 4 * len(names)] == bytes(4 * len(names))
        assert len(made.data) >= end + 4 * len(names)
    else:
        assert (shndx, shndx_at) == (-1, -1) and len(made.data) >= end + 24 * len(names)
    # Nothing else is where there is room.
    spans = [(symtab_at, symtab_at + 24 * (symbols + len(names)))]
    spans += [(shndx_at, shndx_at + 4 * (symbols + len(names)))] if wide else []
    for index in range(1, len(after.sections)):
        begin, length = int(after.sections["offset"][index]), len(after.content(index))
        if index not in (symtab, shndx) and length:
            assert all(begin + length <= first or begin >= last for first, last in spans)


@pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")
def test_clangs_single_table_serves_sections_and_symbols(tmp_path: Path) -> None:
    source = "static int g(void) { return 1; } int f(int (*p)(void)) { return p == g ? g() : 2; } int v = 3;"
    flags = "-O0 -ffunction-sections -fdata-sections -x c -c - -o x.o".split()
    subprocess.run(["clang", *flags], cwd=tmp_path, input=source, text=True, check=True)
    file = parse_object(tmp_path / "x.o", (tmp_path / "x.o").read_bytes())
    assert section_names_at(file) == file.sections["link"][file.symtab]
    units = [file.section_names.index(name) for name in (".text.f", ".text.g", ".data.v")]
    made = make_room(file, Wanted(units, ("g", "g.2")))
    (tmp_path / "roomy.o").write_bytes(made.data)
    said_by(tmp_path / "roomy.o", "readelf", "-aW")
    after = parse_object(tmp_path / "roomy.o", made.data)
    the_same(file, after)
    assert [text_at(after.strtab, at) for at in made.names] == ["g", "g.2"]
    assert [text_at(after.strtab, made.labels[unit]) for unit in units] == [
        ".dropped.init.text.text.f", ".dropped.init.text.text.g", ".dropped.init.data.data.v",
    ]  # fmt: skip


def test_with_as_many_sections_as_need_wide_indices(tmp_path: Path) -> None:
    """The index of the names' table is in section header 0."""
    sections = [Section(f".text.f{n}") for n in range(65_300)]
    file = parse_object(Path("x.o"), write_elf(sections, [Symbol("f", ".text.f65299")]))
    made = make_room(file, Wanted(range(1, 65_301), ("g",)))
    after = parse_object(Path("roomy.o"), made.data)
    the_same(file, after)
    assert text_at(after.content(section_names_at(after)), made.labels[65_300]) == (
        ".dropped.init.text.text.f65299"
    )


# --- the archive ----------------------------------------------------------------------------------

LONG = "drivers/" + "a" * 90 + "/with_a_really_long_name.o"
PATHS = ("init/main.o", LONG, "lib/x.o", "arch/x86/kernel/head.o", "kernel/a.o", "kernel/fork.o")
MEMBERS = frozenset({"init/main.o", LONG, "kernel/a.o", "kernel/fork.o"})


def roomy(path: str) -> Roomy:
    """An object whose function is called as its path, of a size that is a multiple of nothing."""
    name = path.replace("/", "_")
    data = write_elf([Section(f".text.{name}")], [Symbol(name, f".text.{name}")], [])
    return make_room(parse_object(Path(path), data + b"." * (len(path) % 7)), Wanted((1,), ("x",)))


@pytest.fixture
def objects() -> list[Roomy]:
    return [roomy(path) for path in PATHS]


def test_members_are_an_archive_that_binutils_read(tmp_path: Path, objects: list[Roomy]) -> None:
    data, archive, _ = lay_out(PATHS, objects, MEMBERS)
    path = tmp_path / "archive.a"
    path.write_bytes(data[:archive].tobytes())
    assert said_by(path, "ar", "t").splitlines() == [name for name in PATHS if name in MEMBERS]
    said = said_by(path, "readelf", "-aW")
    assert [line for line in said.splitlines() if line.startswith("File: ")] == [
        f"File: {path}({name})" for name in PATHS if name in MEMBERS
    ]
    assert "init_main.o" in said_by(path, "nm")
    for name, made in zip(PATHS, objects, strict=True):
        if name in MEMBERS:
            content = subprocess.run(["ar", "pP", path, name], capture_output=True, check=True).stdout
            assert content[: len(made.data)] == made.data and len(content) - len(made.data) < 8
            assert content[len(made.data) :] == bytes(len(content) - len(made.data))


def test_members_are_aligned_and_the_positions_are_theirs(objects: list[Roomy]) -> None:
    data, archive, parts = lay_out(PATHS, objects, MEMBERS)
    assert data.dtype == np.uint8 and archive % 2 == 0 and parts["member"].tolist() == [
        name in MEMBERS for name in PATHS
    ]  # fmt: skip
    for part, made in zip(parts, objects, strict=True):
        at = int(part["at"])
        assert at % 8 == 0 and data[at : at + part["size"]].tobytes() == made.data
        own = tuple(part[name] for name in ("size", "symtab", "symbols", "shndx", "shndx_at"))
        assert own == (len(made.data), made.part[5], made.part[6], -1, -1)
        assert part["headers"] == at + made.part[2] and part["symtab_at"] == at + made.part[3]


def test_objects_that_are_no_members_lie_behind(objects: list[Roomy]) -> None:
    _, archive, parts = lay_out(PATHS, objects, MEMBERS)
    for name, part in zip(PATHS, parts, strict=True):
        inside = part["at"] + part["size"] <= archive
        assert inside == (name in MEMBERS) and (inside or part["at"] >= archive)
    spans = sorted((int(part["at"]), int(part["at"] + part["size"])) for part in parts)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_wide_indices_move_with_their_object() -> None:
    made = make_room(sample(wide=True), Wanted(UNITS, ("g",)))
    data, _, parts = lay_out(("a.o", "b.o"), (roomy("a.o"), made), frozenset(("a.o", "b.o")))
    part = parts[1]
    at = int(part["shndx_at"])
    table = np.frombuffer(data[at : at + 4 * int(part["symbols"])].tobytes(), "<u4")
    assert table.tolist() == sample(wide=True).shndx.tolist()


@pytest.mark.parametrize("members", [frozenset(), frozenset(PATHS)], ids=["none", "all"])
def test_all_or_none_may_be_members(tmp_path: Path, objects: list[Roomy], members: frozenset[str]) -> None:
    data, archive, parts = lay_out(PATHS, objects, members)
    (tmp_path / "archive.a").write_bytes(data[:archive].tobytes())
    assert said_by(tmp_path / "archive.a", "ar", "t").splitlines() == (list(PATHS) if members else [])
    for part, made in zip(parts, objects, strict=True):
        assert data[part["at"] : part["at"] + part["size"]].tobytes() == made.data


def test_ld_links_the_archive_as_it_links_its_members(tmp_path: Path, objects: list[Roomy]) -> None:
    data, archive, _ = lay_out(PATHS, objects, frozenset(PATHS))
    (tmp_path / "archive.a").write_bytes(data[:archive].tobytes())
    names = []
    for number, made in enumerate(objects):
        (tmp_path / f"{number}.o").write_bytes(made.data)
        names.append(f"{number}.o")
    script = "SECTIONS { .text : { *(.text.*) } }"
    (tmp_path / "x.lds").write_text(script)
    command = ["ld", "-T", "x.lds", "--build-id=none", "-e", "0", "-o"]
    together = ["--whole-archive", "archive.a", "--no-whole-archive"]
    for output, inputs in (("one", together), ("two", names)):
        subprocess.run([*command, output, *inputs], cwd=tmp_path, check=True)
    assert said_by(tmp_path / "one", "nm", "-n") == said_by(tmp_path / "two", "nm", "-n")


def test_an_image_knows_where_its_objects_are(tmp_path: Path) -> None:
    contents = {
        "b.o": write_elf([Section(".text.b")], [Symbol("b", ".text.b")]),
        "lib/a.o": write_elf(
            [Section(".text.a", bytes(8)), Section(".text.l", b"\x90\xc3")],
            [Symbol("a", ".text.a"), Symbol("l", ".text.l", bind=LOCAL)],
            [Rela(".text.a", 1, ".text.l")],
        ),
    }
    made = image(tmp_path, contents, {"lib/a.o"})
    assert made.objects == ("b.o", "lib/a.o") and made.parts["member"].tolist() == [False, True]
    for (name, edited), file in zip(edited_objects(made, made.data).items(), made.files, strict=True):
        assert edited == file.data
        the_same(parse_object(Path(name), contents[name]), file)
    unit = made.unit_of["lib/a.o", ".text.l"]
    assert made.content(unit) == b"\x90\xc3"
    ((row, name),) = zip(made.stand_ins.tolist(), made.text.stand_ins, strict=True)
    assert (row[0], row[2], name) == (unit, -1, "l") and made.units["stand_in"][unit] == 0
    assert text_at(made.files[1].strtab, int(made.stand_ins["name"][0])) == "l"
    header = int(made.headers[unit])
    number = int(np.frombuffer(made.data[header : header + 4].tobytes(), "<u4")[0])
    assert number == made.units["label"][unit] + KEPT_AT
    row = int(made.symbols_at[1]) + 2
    at = int(made.symbol_at(np.array([row]))[0])
    assert made.data[at : at + 24].tobytes() == made.symbols[row].tobytes()
