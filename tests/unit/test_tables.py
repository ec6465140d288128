"""Entry sizes are probed from the objects, and entries belong to the unit that they are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.image import Image, read_image
from prune.knowledge import read_knowledge
from prune.linkmap import parse_link_map
from prune.tables import find_tables
from prune.tombstones import bury_dropped
from tracer.host import UserError

from .elfwriter import LOCAL, R_64, R_PC32, WEAK, Rela, Section, Symbol, write_elf

X86 = read_knowledge("x86_64")


def image(folder: Path, objects: dict[str, bytes]) -> Image:
    """An image of these objects, everything placed, as a link map tells."""
    lines = ["", "Linker script and memory map", "", ".text           0x1000   0x9000"]
    address = 0x1000
    for name, data in objects.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        from prune.elf import parse_object

        file = parse_object(Path(name), data)
        for section, header in zip(file.section_names, file.sections, strict=True):
            if header["flags"] & 2:
                lines.append(f" {section}\n                0x{address:016x} {int(header['size']):#x} {name}")
                address += 16 + int(header["size"])
    return read_image(folder, parse_link_map("\n".join([*lines, "OUTPUT(vmlinux elf64-x86-64)"])), X86)


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


def test_a_layout_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="__bug_table: no entry size"):
        find_tables(image(tmp_path, {"a.o": with_table(20, 3)}), X86)


def test_what_an_entry_refers_to_counts_for_its_owner(tmp_path: Path) -> None:
    made = image(tmp_path, {"a.o": with_table(12, 2)})
    owner = find_tables(made, X86).owner
    function = made.unit_of["a.o", ".text.f"]
    assert set(owner.tolist()) == {function}


def two_of_a_name(folder: Path) -> Image:
    """a.o: weak f, a local g; b.o: strong f, a local g, a pointer to each through its section."""
    a = write_elf(
        [Section(".text.f"), Section(".text.g"), Section(".text.user", bytes(16))],
        [Symbol("f", ".text.f", bind=WEAK), Symbol("g", ".text.g", bind=LOCAL), Symbol("user", ".text.user")],
        [Rela(".text.user", 1, "f"), Rela(".text.user", 6, ".text.g")],
    )
    b = write_elf(
        [Section(".text.f"), Section(".text.g"), Section(".data.p", bytes(16), 3)],
        [
            Symbol("f", ".text.f"),
            Symbol("g", ".text.g", bind=LOCAL),
            Symbol("weak", bind=WEAK),
            Symbol("alias", ".text.f"),
        ],
        [Rela(".data.p", 0, ".text.g", R_64, 0), Rela(".data.p", 8, "alias", R_64, 0)],
    )
    return image(folder, {"a.o": a, "b.o": b})


def burial(made: Image, *dropped: tuple[str, str]) -> dict[tuple[str, str], tuple[str, ...]]:
    keep = made.units["size"] > 0
    for place in dropped:
        keep[made.unit_of[place]] = False
    stones = bury_dropped(made, find_tables(made, X86), keep, X86).stones
    places = {unit: place for place, unit in made.unit_of.items()}
    return {places[unit]: stone.names for unit, stone in stones.items()}


def test_a_name_means_the_strong_definition(tmp_path: Path) -> None:
    made = two_of_a_name(tmp_path)
    assert made.symbol_unit[made.globals_["f"]] == made.unit_of["b.o", ".text.f"]
    assert burial(made, ("a.o", ".text.f")) == {}
    assert burial(made, ("b.o", ".text.f")) == {("b.o", ".text.f"): ("alias", "f")}


def test_two_locals_of_one_name_stay_two(tmp_path: Path) -> None:
    found = burial(two_of_a_name(tmp_path), ("a.o", ".text.g"), ("b.o", ".text.g"))
    assert found == {("a.o", ".text.g"): ("g",), ("b.o", ".text.g"): ("g.2",)}


def test_a_locals_tombstone_never_takes_a_global_name(tmp_path: Path) -> None:
    """Someone asks weakly for g: it must stay unanswered."""
    a = write_elf(
        [Section(".text.g"), Section(".text.user", bytes(16))],
        [Symbol("g", ".text.g", bind=LOCAL), Symbol("user", ".text.user")],
        [Rela(".text.user", 1, ".text.g")],
    )
    b = write_elf([Section(".text.h", bytes(8))], [Symbol("g", bind=WEAK), Symbol("h", ".text.h")], [])
    assert burial(image(tmp_path, {"a.o": a, "b.o": b}), ("a.o", ".text.g")) == {("a.o", ".text.g"): ("g.2",)}


def test_sections_of_one_name_in_an_object_are_no_units_of_their_own(tmp_path: Path) -> None:
    data = write_elf([Section(".text.f"), Section(".text.f"), Section(".text.g")], [Symbol("g", ".text.g")])
    made = image(tmp_path, {"a.o": data})
    assert made.units["function"].tolist() == [False, False, True]


def test_a_kernel_without_function_sections_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="-ffunction-sections"):
        image(tmp_path, {"a.o": write_elf([Section(".text")], [Symbol("f", ".text")])})
