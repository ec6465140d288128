"""Objects are edited in place, and binutils reads the result without a warning."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from prune.linking.edit import edit_image, first_byte_addends
from prune.linking.tombstones import bury_dropped
from prune.model.assemble import read_image
from prune.model.elf import ObjectFile, Rows
from prune.model.image import Image
from prune.model.mapfile import parse_link_map
from prune.model.tables import find_tables
from tests.conftest import X86, edited_objects, image
from tests.objects import parse_object
from tracer.host import UserError

from .damage import damaged_fields
from .elfwriter import (
    ALLOC,
    COMMON,
    LOCAL,
    MERGE,
    NOBITS,
    NOTYPE,
    OBJECT,
    R_64,
    R_PC32,
    STRINGS,
    WEAK,
    WRITE,
    Rela,
    Section,
    Symbol,
    write_elf,
    write_map,
)

TABLE = b"".join(bytes([n]) * 12 for n in range(4))


def sample(wide: bool = False) -> bytes:
    """hot calls cold, by its section, and gone, which is the same; every other exception is cold's."""
    relocations = [Rela(".text.hot", 1, ".text.cold", addend=-4), Rela(".text.hot", 6, "gone")]
    relocations += [
        Rela("__ex_table", 12 * n, ".text.cold" if n % 2 else ".text.hot", R_PC32, 0) for n in range(4)
    ]
    return write_elf(
        [Section(".text.hot", bytes(12)), Section(".text.cold", bytes(9)), Section("__ex_table", TABLE, 2)],
        [
            Symbol("inner", ".text.cold", 4, 1, LOCAL),
            Symbol("gone", ".text.cold", 0, 9),
            Symbol("hot", ".text.hot"),
        ],
        relocations,
        wide=wide,
    )


def edit(made: Image, *dropped: str, boot: Collection[str] = ()) -> Rows:
    """The bytes of an image that loses the sections of these names, and frees others."""
    keep = ~np.isin(np.array(made.names), dropped)
    tables = find_tables(made, X86)
    burial = bury_dropped(made, tables, keep)
    return edit_image(made, tables, keep, np.isin(np.array(made.names), list(boot)), burial, X86)


def read_edited(made: Image, data: Rows, folder: Path) -> dict[str, ObjectFile]:
    """Each object, read by binutils first."""
    found = {}
    for name, content in edited_objects(made, data).items():
        path = folder / f"edited-{name}"
        path.write_bytes(content)
        said = subprocess.run(["readelf", "-aW", path], capture_output=True, text=True, check=True)
        assert said.stderr == "", said.stderr
        found[name] = parse_object(path, content)
    return found


def edited(folder: Path, data: bytes, *dropped: str, boot: Collection[str] = ()) -> ObjectFile:
    """The only object of an image."""
    made = image(folder, {"a.o": data})
    return read_edited(made, edit(made, *dropped, boot=boot), folder)["a.o"]


def relocations(file: ObjectFile, name: str) -> list[tuple[int, str, int]]:
    rows = file.relocations(file.section_names.index(f".rela{name}"))
    return [(int(r["offset"]), file.symbol_name(int(r["info"]) >> 32), int(r["addend"])) for r in rows]


def index_of(file: ObjectFile, name: str) -> int:
    """The first symbol of a name."""
    return next(index for index in range(len(file.symbols)) if file.symbol_name(index) == name)


@pytest.mark.parametrize("wide", [False, True])
def test_a_reference_by_section_symbol_moves_to_the_tombstones_name(tmp_path: Path, wide: bool) -> None:
    data = sample(wide)
    found = edited(tmp_path, data, ".text.cold")
    assert relocations(found, ".text.hot") == [(1, "gone", -4), (6, "gone", -4)]
    index = len(parse_object(Path("a.o"), data).symbols)
    assert len(found.symbols) == index + 1
    assert (found.symbol_name(index), found.shndx[index], found.symbols["info"][index]) == ("gone", 0, 0x10)
    rows = found.relocations(found.section_names.index(".rela.text.hot"))
    assert (rows["info"] >> 32).tolist() == [index, index_of(found, "gone")]
    assert (rows["info"] & 0xFFFFFFFF).tolist() == [4, 4]


@pytest.mark.parametrize("wide", [False, True])
def test_a_dropped_definition_becomes_undefined(tmp_path: Path, wide: bool) -> None:
    file = parse_object(Path("a.o"), sample(wide))
    index = index_of(file, "gone")
    found = edited(tmp_path, file.data, ".text.cold")
    assert found.shndx[index] == 0 and found.symbols["size"][index] == 0
    others = [i for i in range(len(file.symbols)) if i != index]
    assert found.shndx[others].tolist() == file.shndx[others].tolist()
    assert found.symbols[others].tolist() == file.symbols[others].tolist()
    if wide:
        table = np.frombuffer(found.content(found.section_names.index(".symtab_shndx")), "<u4")
        assert table[index] == 0 and len(table) == len(found.symbols)


@pytest.mark.parametrize("bind", [1, WEAK])
def test_what_was_hidden_or_weak_is_looked_for_everywhere(tmp_path: Path, bind: int) -> None:
    """A hidden reference would end as a local symbol of vmlinux, a weak one would not fail."""
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".text.gone")],
        [Symbol("f", ".text.f"), Symbol("gone", ".text.gone", 0, 1, bind, visibility=2)],
        [Rela(".text.f", 1, "gone")],
    )
    found = edited(tmp_path, data, ".text.gone")
    row = found.symbols[index_of(found, "gone")]
    assert (row["info"], row["other"], row["shndx"], row["size"]) == (0x10, 0, 0, 0)


def test_a_definition_that_nobody_asks_for_goes_with_its_section(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".text.gone")], [Symbol("f", ".text.f"), Symbol("gone", ".text.gone")]
    )
    found = edited(tmp_path, data, ".text.gone")
    assert found.symbols.tolist() == parse_object(Path("a.o"), data).symbols.tolist()


def test_a_table_loses_entries_and_their_relocations(tmp_path: Path) -> None:
    found = edited(tmp_path, sample(), ".text.cold")
    table = found.section_names.index("__ex_table")
    assert found.content(table) == TABLE[:12] + TABLE[24:36]
    assert relocations(found, "__ex_table") == [(0, "", 0), (12, "", 0)]


def test_the_relocations_of_an_entry_go_with_it(tmp_path: Path) -> None:
    """Fields at 0, 4 and 8 of an entry, in an order that nobody promised."""
    fields = [(24, "g"), (0, "f"), (28, "g"), (4, "f"), (12, "f"), (32, "out"), (16, "out"), (8, "out")]
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".text.g", bytes(8)), Section("__ex_table", bytes(36), 2)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("out")],
        [Rela("__ex_table", at, name, R_PC32, at) for at, name in fields],
    )
    found = edited(tmp_path, data, ".text.g")
    assert relocations(found, "__ex_table") == [
        (0, "f", 0), (4, "f", 4), (12, "f", 12), (16, "out", 16), (8, "out", 8),
    ]  # fmt: skip
    found = edited(tmp_path, data, ".text.f")
    assert relocations(found, "__ex_table") == [(0, "g", 24), (4, "g", 28), (8, "out", 32)]


@pytest.mark.parametrize("wide", [False, True])
def test_a_table_can_lose_everything(tmp_path: Path, wide: bool) -> None:
    found = edited(tmp_path, sample(wide), ".text.cold", ".text.hot")
    assert found.content(found.section_names.index("__ex_table")) == b""
    assert relocations(found, "__ex_table") == []


def test_each_objects_share_of_a_table_is_cut_by_itself(tmp_path: Path) -> None:
    def share(name: str, owners: str, fill: int) -> bytes:
        content = b"".join(bytes([fill + n]) * 12 for n in range(len(owners)))
        return write_elf(
            [Section(f".text.{name}hot"), Section(f".text.{name}cold"), Section("__ex_table", content, 2)],
            [Symbol(f"{name}hot", f".text.{name}hot"), Symbol(f"{name}cold", f".text.{name}cold")],
            [
                Rela("__ex_table", 12 * n, f".text.{name}{'cold' if o == 'c' else 'hot'}", R_PC32, 0)
                for n, o in enumerate(owners)
            ],
        )

    shares = {"a.o": share("a", "chc", 10), "b.o": share("b", "hh", 20), "c.o": share("c", "cch", 30)}
    for dropped in ([".text.acold", ".text.bcold", ".text.ccold"], [".text.ahot", ".text.ccold"]):
        made = image(tmp_path, shares)
        files = read_edited(made, edit(made, *dropped), tmp_path)
        for (name, owners), fill in zip((("a", "chc"), ("b", "hh"), ("c", "cch")), (10, 20, 30), strict=True):
            file = files[f"{name}.o"]
            stay = [
                n
                for n, o in enumerate(owners)
                if f".text.{name}{'cold' if o == 'c' else 'hot'}" not in dropped
            ]
            wanted = b"".join(bytes([fill + n]) * 12 for n in stay)
            assert file.content(file.section_names.index("__ex_table")) == wanted
            assert [row[0] for row in relocations(file, "__ex_table")] == [12 * n for n in range(len(stay))]


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
    found = first_byte_addends(np.array([kind]), np.array([addend]), np.array([in_code]), X86)
    assert found.tolist() == [wanted]


def test_each_addend_by_itself() -> None:
    kinds, code = np.array([R_PC32, R_64, R_PC32, 11, 24]), np.array([True, True, False, True, False])
    assert first_byte_addends(kinds, np.array([-6, 8, -4, 7, 9]), code, X86).tolist() == [-6, 0, 0, 0, 0]
    nothing = np.array([], np.int64)
    assert len(first_byte_addends(nothing, nothing, nothing.astype(bool), X86)) == 0


def test_an_unknown_relocation_is_never_guessed() -> None:
    kinds, addends = np.array([R_PC32, 99]), np.array([-4, 0])
    with pytest.raises(UserError, match="type 99 is not supported"):
        first_byte_addends(kinds, addends, np.array([True, True]), X86)


def test_an_unknown_relocation_matters_where_it_refers_to_the_dead(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".text.g"), Section(".text.h")],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("h", ".text.h")],
        [Rela(".text.f", 1, "g", 99)],
    )
    with pytest.raises(UserError, match="type 99 is not supported on x86_64"):
        edited(tmp_path, data, ".text.g")
    assert relocations(edited(tmp_path, data, ".text.h"), ".text.f") == [(1, "g", -4)]


def test_a_global_reference_into_the_middle_keeps_its_symbol(tmp_path: Path) -> None:
    """gone+5 would lie five tombstones further."""
    data = write_elf(
        [Section(".text.hot", bytes(12)), Section(".text.cold", bytes(9))],
        [Symbol("hot", ".text.hot"), Symbol("gone", ".text.cold")],
        [Rela(".text.hot", 6, "gone", R_PC32, 1)],
    )
    found = edited(tmp_path, data, ".text.cold")
    assert relocations(found, ".text.hot") == [(6, "gone", -4)]
    assert len(found.symbols) == len(parse_object(Path("a.o"), data).symbols)


@pytest.mark.parametrize("wide", [False, True])
def test_everything_at_once_and_again(tmp_path: Path, wide: bool) -> None:
    """Moves, undefining and cuts of one object; what was edited can be read and edited once more."""
    data = write_elf(
        [
            Section(".text.f", bytes(24)), Section(".text.g"), Section(".text.h"),
            Section("__ex_table", TABLE[:36], 2),
        ],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("h", ".text.h", bind=LOCAL)],
        [
            Rela(".text.f", 1, ".text.g"), Rela(".text.f", 6, "g"),
            Rela(".text.f", 11, ".text.h", R_PC32, -5),
            *(Rela("__ex_table", 12 * n, f".text.{name}", R_PC32, 0) for n, name in enumerate("fgh")),
        ],
        wide=wide,
    )  # fmt: skip
    count = len(parse_object(Path("a.o"), data).symbols)
    found = edited(tmp_path, data, ".text.g")
    assert relocations(found, ".text.f") == [(1, "g", -4), (6, "g", -4), (11, "", -5)]
    assert found.shndx[index_of(found, "g")] == 0 and len(found.symbols) == count + 1
    assert found.content(found.section_names.index("__ex_table")) == TABLE[:12] + TABLE[24:36]
    again = edited(tmp_path, found.data, ".text.h")
    assert relocations(again, ".text.f") == [(1, "g", -4), (6, "g", -4), (11, "h", -5)]
    assert again.content(again.section_names.index("__ex_table")) == TABLE[:12]
    assert [row[0] for row in relocations(again, "__ex_table")] == [0]
    assert len(again.symbols) == count + 2 and again.shndx[count:].tolist() == [0, 0]


def test_offsets_of_what_was_there_do_not_move(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": sample()})
    (before,) = made.files
    found = read_edited(made, edit(made, ".text.cold"), tmp_path)["a.o"]
    for column in ("type", "flags", "offset", "link", "info", "align", "entsize"):
        assert found.sections[column].tolist() == before.sections[column].tolist()
    changed = {
        before.section_names[i] for i in np.flatnonzero(found.sections["size"] != before.sections["size"])
    }
    assert changed == {"__ex_table", ".rela__ex_table", ".symtab"}
    for index in (".text.hot", ".text.cold", ".strtab", ".shstrtab"):
        assert found.content(before.section_names.index(index)) == before.content(
            before.section_names.index(index)
        )
    assert len(found.data) == len(before.data)


def test_nothing_to_do_changes_no_byte(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": sample(True), "b.o": LAYOUT["a.o"]}, {"a.o"})
    data = edit(made)
    assert data is not made.data and np.array_equal(data, made.data)


def test_an_image_is_not_changed_by_an_edit(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": sample()})
    before = made.data.copy()
    one, two = edit(made, ".text.cold"), edit(made, ".text.cold")
    assert np.array_equal(one, two) and np.array_equal(made.data, before) and not np.array_equal(one, before)


def test_one_new_symbol_serves_all_references_to_it(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.hot", bytes(16)), Section(".text.warm", bytes(8)), Section(".text.cold", bytes(9))],
        [Symbol("hot", ".text.hot"), Symbol("cold", ".text.cold", bind=LOCAL)],
        [
            Rela(".text.hot", 1, ".text.cold"), Rela(".text.hot", 6, "cold"),
            Rela(".text.warm", 1, ".text.cold"),
        ],
    )  # fmt: skip
    found = edited(tmp_path, data, ".text.cold")
    assert len(found.symbols) == len(parse_object(Path("a.o"), data).symbols) + 1
    assert [row[1] for row in relocations(found, ".text.hot")] == ["cold", "cold"]
    assert [row[1] for row in relocations(found, ".text.warm")] == ["cold"]
    index = len(found.symbols) - 1
    numbers = found.relocations(found.section_names.index(".rela.text.hot"))["info"] >> 32
    assert numbers.tolist() == [index, index]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dropped", ["x", "y", "z", "xz", "yz", "xyz"])
def test_any_of_the_stand_ins_take_the_room_in_turn(tmp_path: Path, dropped: str, wide: bool) -> None:
    """Each object has names for all of its locals; which ones are needed is the plan's."""

    def three(user: str) -> bytes:
        return write_elf(
            [Section(f".text.{user}", bytes(24)), *(Section(f".text.{name}") for name in "xyz")],
            [Symbol(user, f".text.{user}"), *(Symbol(n, f".text.{n}", bind=LOCAL) for n in "xyz")],
            [Rela(f".text.{user}", 5 * n + 1, name) for n, name in enumerate("xyz")],
            wide=wide,
        )

    made = image(tmp_path, {"a.o": three("a"), "b.o": three("b")})
    files = read_edited(made, edit(made, *(f".text.{name}" for name in dropped)), tmp_path)
    for number, (user, ending) in enumerate((("a", ""), ("b", ".2"))):
        found, before = files[f"{user}.o"], made.files[number]
        added = [found.symbol_name(i) for i in range(len(before.symbols), len(found.symbols))]
        assert added == [name + ending for name in dropped]
        named = [row[1] for row in relocations(found, f".text.{user}")]
        assert named == [name + ending if name in dropped else name for name in "xyz"]
        assert found.shndx[len(before.symbols) :].tolist() == [0] * len(dropped)


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


def test_every_reference_to_what_was_dropped_is_moved(tmp_path: Path) -> None:
    found = edited(tmp_path, LAYOUT["a.o"], ".text.cold", ".text.lost")
    assert relocations(found, ".text.hot") == [
        (1, "cold", -4), (6, "cold", -4), (11, "lost", -4), (16, "cold", -4),
    ]  # fmt: skip
    assert relocations(found, ".data.p") == [(0, "cold", 0)]
    # The entry of cold is gone; that of hot stays, its fixup is the tombstone.
    assert [row[::2] for row in relocations(found, "__ex_table")] == [(0, 0), (4, 0)]
    assert relocations(found, "__ex_table")[1][1] == "lost"
    assert found.shndx[index_of(found, "cold")] == 0


def test_an_object_that_has_nothing_to_do_with_the_dead_is_not_edited(tmp_path: Path) -> None:
    other = write_elf([Section(".text.other")], [Symbol("other", ".text.other")])
    made = image(tmp_path, {**LAYOUT, "b.o": other})
    data = edit(made, ".text.cold", ".text.lost")
    before, after = edited_objects(made, made.data), edited_objects(made, data)
    assert {name for name in before if before[name] != after[name]} == {"a.o"}


@pytest.mark.parametrize("members", [(), ("a.o",), ("c.o",), ("a.o", "b.o", "c.o")])
def test_an_object_is_edited_alike_wherever_it_lies(tmp_path: Path, members: tuple[str, ...]) -> None:
    alone = edited(tmp_path, LAYOUT["a.o"], ".text.cold", ".text.lost")
    other = write_elf([Section(".text.other")], [Symbol("other", ".text.other")])
    objects = {"b.o": other, "a.o": LAYOUT["a.o"], "c.o": other.replace(b"other", b"third")}
    made = image(tmp_path, objects, members)
    found = read_edited(made, edit(made, ".text.cold", ".text.lost"), tmp_path)
    assert list(found) == list(made.objects) and found["a.o"].data == alone.data


def test_the_name_of_a_section_says_what_becomes_of_it(tmp_path: Path) -> None:
    data = write_elf(
        [
            Section(".text.kept", bytes(8)), Section(".text.once"), Section(".text.gone"),
            Section(".data.kept", bytes(8), ALLOC | WRITE), Section(".data.once", bytes(8), ALLOC | WRITE),
            Section(".bss.gone", bytes(8), ALLOC | WRITE, NOBITS), Section(".comment", b"gcc\0", 0),
        ],
        [Symbol("kept", ".text.kept"), Symbol("gone", ".text.gone"), Symbol("once", ".text.once")],
        [Rela(".text.kept", 1, "gone")],
    )  # fmt: skip
    found = edited(tmp_path, data, ".text.gone", ".bss.gone", boot=(".text.once", ".data.once"))
    assert found.section_names[1:] == (
        ".text.kept", ".init.text.text.once", ".dropped.init.text.text.gone",
        ".data.kept", ".init.data.data.once", ".dropped.init.data.bss.gone", ".comment",
        ".rela.text.kept", ".symtab", ".strtab", ".shstrtab",
    )  # fmt: skip


def test_a_common_symbol_and_an_alias_stay_what_they_are(tmp_path: Path) -> None:
    """Only what the script takes over becomes undefined; another name of a dropped function goes with it."""
    data = write_elf(
        [Section(".text.f", bytes(8)), Section(".text.gone")],
        [
            Symbol("f", ".text.f"), Symbol("gone", ".text.gone"), Symbol("alias", ".text.gone"),
            Symbol("v", COMMON, 8, 8, type=OBJECT),
        ],
        [Rela(".text.f", 1, "alias"), Rela(".text.f", 6, "v", R_PC32)],
    )  # fmt: skip
    found = edited(tmp_path, data, ".text.gone")
    before = parse_object(Path("a.o"), data)
    changed = {
        found.symbol_name(i) for i in range(len(found.symbols)) if found.symbols[i] != before.symbols[i]
    }
    assert changed == {"alias"} and relocations(found, ".text.f") == [(1, "alias", -4), (6, "v", -4)]


def test_a_weak_definition_beside_the_dropped_one_is_not_asked(tmp_path: Path) -> None:
    """The callers meant the strong one: the script defines its name, and a weak one gives way to that."""
    objects = {
        "w.o": write_elf([Section(".text.f")], [Symbol("f", ".text.f", bind=WEAK)]),
        "s.o": write_elf([Section(".text.f_")], [Symbol("f", ".text.f_")]),
        "u.o": write_elf([Section(".text.u", bytes(8))], [Symbol("f")], [Rela(".text.u", 1, "f")]),
    }
    made = image(tmp_path, objects)
    found = read_edited(made, edit(made, ".text.f_"), tmp_path)
    assert found["s.o"].shndx[index_of(found["s.o"], "f")] == 0
    assert found["w.o"].symbols.tolist() == made.files[0].symbols.tolist()


@pytest.mark.parametrize(
    ("symbol", "addend", "after"),
    [
        ("entry", -4, ("entry", -4)),  # by its name, which moves with it
        ("__ex_table", 12 - 4, ("", -4)),
        ("__ex_table", 24 - 4, ("", 12 - 4)),  # behind the last
    ],
)
def test_references_into_a_table_that_shrinks_follow(
    tmp_path: Path, symbol: str, addend: int, after: tuple[str, int]
) -> None:
    """In 7.x WARN() hands the address of its entry of __bug_table on."""
    data = _naming_an_entry(symbol, addend)
    found = edited(tmp_path, data, ".text.g")
    assert relocations(found, ".text.f") == [(1, *after)]
    assert int(found.symbols["value"][index_of(found, "entry")]) == 0


@pytest.mark.parametrize("symbol", ["entry", "__ex_table"])
def test_a_reference_to_an_entry_that_goes_is_refused(tmp_path: Path, symbol: str) -> None:
    data = _naming_an_entry(symbol, -4 - (12 if symbol == "entry" else 0))
    with pytest.raises(UserError, match=r"a\.o:\.text\.f refers to an entry of a\.o:__ex_table about"):
        edited(tmp_path, data, ".text.g")


def _naming_an_entry(symbol: str, addend: int) -> bytes:
    """f refers to a place in a table of two entries, the first of which is about g."""
    return write_elf(
        [Section(".text.f", bytes(8)), Section(".text.g"), Section("__ex_table", bytes(24), 2)],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g"), Symbol("entry", "__ex_table", 12, 12, LOCAL, 1)],
        [
            Rela(".text.f", 1, symbol, R_PC32, addend),
            Rela("__ex_table", 0, ".text.g", R_PC32, 0), Rela("__ex_table", 12, ".text.f", R_PC32, 0),
        ],
    )  # fmt: skip


def test_both_tables_of_a_pair_are_cut_alike(tmp_path: Path) -> None:
    data = write_elf(
        [
            Section(".text.f"), Section(".text.g"), Section(".orc_unwind_ip", bytes(12), 2),
            Section(".orc_unwind", b"".join(bytes([n]) * 6 for n in range(3)), 2),
        ],
        [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
        [Rela(".orc_unwind_ip", 4 * n, f".text.{name}", R_PC32, 0) for n, name in enumerate("fgf")],
    )  # fmt: skip
    found = edited(tmp_path, data, ".text.g")
    assert found.content(found.section_names.index(".orc_unwind")) == bytes(6) + bytes([2]) * 6
    assert [row[::2] for row in relocations(found, ".orc_unwind_ip")] == [(0, 0), (4, 0)]


def test_a_table_whose_relocations_are_in_two_sections_is_refused(tmp_path: Path) -> None:
    """ld -r may leave such; where to close the gaps is not known."""
    data = bytearray(
        write_elf(
            [Section(".text.f", bytes(8)), Section(".text.g"), Section("__ex_table", bytes(24), 2),
             Section(".spare", bytes(24), 0)],
            [Symbol("f", ".text.f"), Symbol("g", ".text.g")],
            [Rela("__ex_table", 0, ".text.g", R_PC32, 0), Rela(".spare", 12, ".text.f", R_PC32, 0)],
        )
    )  # fmt: skip
    file = parse_object(Path("a.o"), bytes(data))
    spare = file.section_names.index(".rela.spare")
    struct.pack_into("<I", data, file.shoff + 64 * spare + 44, file.section_names.index("__ex_table"))
    with pytest.raises(UserError, match=r"relocations of a\.o:__ex_table are in several sections"):
        edited(tmp_path, bytes(data), ".text.g")
    assert edited(tmp_path, bytes(data)).data  # nothing to cut


def test_objects_that_were_edited_link_with_a_script_that_defines_the_names(tmp_path: Path) -> None:
    """Oracle: ld resolves every moved reference to the tombstone, and nothing else."""
    made = image(tmp_path, LAYOUT)
    for name, content in edited_objects(made, edit(made, ".text.cold", ".text.lost")).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "x.lds").write_text(
        "SECTIONS { /DISCARD/ : { *(.dropped.*) } . = 0x1000; .text : { *(.text.*) cold = .; BYTE(1) "
        "lost = .; BYTE(2) } .data : { *(.data.*) } __ex_table : { *(__ex_table) } }"
    )
    subprocess.run("ld -T x.lds -o x a.o".split(), cwd=tmp_path, check=True)
    linked = section_contents(tmp_path / "x")
    text, table = linked[".text"], linked["__ex_table"]
    assert text[24:26] == b"\1\2" and len(text) == 26
    targets = {at: at + 4 + struct.unpack_from("<i", text, at)[0] for at in (1, 6, 11, 16)}
    assert targets == {1: 24, 6: 24, 11: 25, 16: 24}
    assert struct.unpack("<Q", linked[".data"]) == (0x1000 + 24,) and len(table) == 12


def section_contents(path: Path) -> Mapping[str, bytes]:
    """What each section of a linked file holds."""
    found = {}
    for name in (".text", ".data", "__ex_table"):
        raw = path.with_suffix(".raw")
        subprocess.run(["objcopy", "-O", "binary", "-j", name, path, raw], check=True)
        found[name] = raw.read_bytes()
    return found


#: Something of all that is edited: code that is referred to in every way, a table, strings.
HOSTILE_SECTIONS = [
    Section(".text.f", bytes(20)), Section(".text.cold", bytes(9)), Section("__ex_table", bytes(24), 2),
    Section(".rodata.str1.1", b"dead\0alive\0", ALLOC | MERGE | STRINGS),
]  # fmt: skip
HOSTILE_SYMBOLS = [
    Symbol("inner", ".text.cold", 4, 1, LOCAL), Symbol("gone", ".text.cold", 0, 9),
    Symbol("f", ".text.f"), Symbol("lc", ".rodata.str1.1", 5, bind=LOCAL, type=NOTYPE),
]  # fmt: skip
HOSTILE = write_elf(
    HOSTILE_SECTIONS, HOSTILE_SYMBOLS,
    [
        Rela(".text.f", 1, ".text.cold"), Rela(".text.f", 6, "gone"), Rela(".text.f", 5, "lc", R_PC32),
        Rela(".text.f", 3, ".rodata.str1.1", 10, 5), Rela("__ex_table", 0, ".text.f", R_PC32, 0),
        Rela("__ex_table", 12, ".text.cold", R_PC32, 0),
    ],
    wide=True,
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged_fields(HOSTILE))
def test_hostile_objects_are_edited_or_refused(tmp_path: Path, data: bytes) -> None:
    """Every place that is written was judged when the object was read."""
    (tmp_path / "a.o").write_bytes(data)
    sections = [(".text.f", 12), (".text.cold", 9), ("__ex_table", 24), (".rodata.str1.1", 11)]
    try:
        made = read_image(tmp_path, parse_link_map(write_map({"a.o": sections})), X86)
        found = edit(made, ".text.cold")
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert len(found) == len(made.data)


@pytest.mark.parametrize("wide", [False, True])
def test_names_of_entries_move_with_them_and_go_with_them(tmp_path: Path, wide: bool) -> None:
    content = write_elf(
        [Section(".text.hot", bytes(12)), Section(".text.cold", bytes(9)), Section("__ex_table", TABLE, 2)],
        [
            *(Symbol(f"entry_{n}", "__ex_table", 12 * n, 12, LOCAL) for n in range(4)),
            Symbol("behind", "__ex_table", 48, 0, LOCAL),
            Symbol("hot", ".text.hot"),
        ],
        [
            Rela("__ex_table", 12 * n, ".text.hot" if n in (1, 3) else ".text.cold", R_PC32, 0)
            for n in range(4)
        ],
        wide=wide,
    )
    found = edited(tmp_path, content, ".text.cold")
    names = [found.symbol_name(index) for index in range(len(found.symbols))]
    where = {
        name: (found.section_names[int(section)], int(value))
        for name, section, value in zip(names, found.shndx, found.symbols["value"], strict=True)
        if name.startswith(("entry", "behind"))
    }
    assert {name: at for name, (section, at) in where.items() if section == "__ex_table"} == {
        "entry_1": 0, "entry_3": 12, "behind": 24,
    }  # fmt: skip
    gone = {section for name, (section, _) in where.items() if name in ("entry_0", "entry_2")}
    assert len(gone) == 1 and gone.pop().startswith(".dropped")
