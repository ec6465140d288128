"""Strings that nothing kept refers to go; what stays is found again by whatever way it was referred to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune.linking.edit import edit_image
from prune.linking.tombstones import bury_dropped
from prune.model.strings import squeeze_strings
from prune.model.tables import find_tables
from tests.conftest import X86, edited_objects, image
from tests.objects import parse_object

from .elfwriter import (
    ALLOC,
    LOCAL,
    MERGE,
    NOTYPE,
    R_64,
    R_PC32,
    STRINGS,
    Rela,
    Section,
    Symbol,
    write_elf,
)

TEXT = b"dead one\0kept by section\0dead\0kept by symbol\0tail of this\0"
R_32S = 11
AT = {name: TEXT.index(name) for name in (b"kept by section", b"kept by symbol", b"tail", b"of this")}


def squeezed(folder: Path, relocations: list[Rela], drop: str = "", text: bytes = TEXT) -> bytes:
    """The strings that stay; every relocation means what it meant."""
    sections = [
        Section(".text.f", bytes(32)), Section(".text.g", bytes(32)),
        Section(".rodata.str1.1", text, ALLOC | MERGE | STRINGS),
    ]  # fmt: skip
    symbols = [
        Symbol("f", ".text.f"), Symbol("g", ".text.g"),
        Symbol("lc1", ".rodata.str1.1", AT[b"kept by symbol"], bind=LOCAL, type=NOTYPE),
    ]  # fmt: skip
    data = write_elf(sections, symbols, relocations)
    made = image(folder, {"a.o": data})
    keep = np.array([name != drop for name in made.names])
    tables = find_tables(made, X86)
    assert set(squeeze_strings(made, tables, keep).units) <= {made.unit_of["a.o", ".rodata.str1.1"]}
    burial = bury_dropped(made, tables, keep)
    data = edit_image(made, tables, keep, np.zeros_like(keep), burial, X86)
    after = parse_object(folder / "after.o", edited_objects(made, data)["a.o"])
    content = after.content(after.section_names.index(".rodata.str1.1"))
    for index in np.flatnonzero(after.sections["type"] == 4).tolist():
        if made.files[0].section_names[int(after.sections["info"][index])] == drop:
            continue
        for before, row in zip(made.files[0].relocations(index), after.relocations(index), strict=True):
            assert said(after, content, row) == said(made.files[0], text, before)
    return content


def said(file: object, content: bytes, row: np.void) -> bytes:
    """The string that a relocation means."""
    symbol = file.symbols[int(row["info"]) >> 32]  # type: ignore[attr-defined]
    at = int(symbol["value"]) + (int(row["addend"]) if symbol["info"] & 15 == 3 else 0)
    return content[at:].partition(b"\0")[0]


def test_only_what_is_referred_to_stays(tmp_path: Path) -> None:
    content = squeezed(
        tmp_path,
        [
            Rela(".text.f", 3, ".rodata.str1.1", R_32S, AT[b"kept by section"]),
            Rela(".text.f", 10, "lc1", R_PC32, -4),
        ],
    )
    assert content == b"kept by section\0kept by symbol\0"


def test_a_tail_keeps_its_string(tmp_path: Path) -> None:
    content = squeezed(tmp_path, [Rela(".text.f", 0, ".rodata.str1.1", R_64, AT[b"of this"])])
    assert content == b"tail of this\0"


def test_what_a_dropped_function_says_goes(tmp_path: Path) -> None:
    relocations = [
        Rela(".text.f", 0, ".rodata.str1.1", R_64, AT[b"tail"]), Rela(".text.g", 0, ".rodata.str1.1", R_64, 0)
    ]  # fmt: skip
    assert squeezed(tmp_path, relocations, drop=".text.g") == b"tail of this\0"


@pytest.mark.parametrize(
    "relocation",
    [
        Rela(".text.f", 0, ".rodata.str1.1", R_PC32, 4),  # by distance from the section: whose end counts?
        Rela(".text.f", 0, ".rodata.str1.1", R_64, len(TEXT)),  # its end
    ],
)
def test_what_is_not_understood_stays_whole(tmp_path: Path, relocation: Rela) -> None:
    assert squeezed(tmp_path, [relocation]) == TEXT


STR = ".rodata.str1.1"


def objects_with(texts: dict[str, bytes], align: int = 1) -> dict[str, bytes]:
    """Objects f of which each refers to the last string of its section."""
    return {
        f"{name}.o": write_elf(
            [
                Section(f".text.{name}", bytes(16)),
                Section(STR, text, ALLOC | MERGE | STRINGS, align=align),
            ],
            [Symbol(name, f".text.{name}")],
            [Rela(f".text.{name}", 4, STR, R_64, text.rindex(b"\0", 0, -1) + 1)],
        )
        for name, text in texts.items()
    }


def strings_of(folder: Path, objects: dict[str, bytes], *dropped: str) -> dict[str, tuple[bytes, bytes]]:
    """Object -> its strings, and the one that its first relocation means."""
    made = image(folder, objects)
    keep = ~np.isin(np.array(made.names), dropped)
    tables = find_tables(made, X86)
    burial = bury_dropped(made, tables, keep)
    data = edit_image(made, tables, keep, np.zeros_like(keep), burial, X86)
    found = {}
    for name, edited in edited_objects(made, data).items():
        file = parse_object(folder / name, edited)
        content = file.content(file.section_names.index(STR))
        (index, *_) = np.flatnonzero(file.sections["type"] == 4).tolist()
        found[name] = content, said(file, content, file.relocations(index)[0])
    return found


def test_each_objects_strings_close_up_by_themselves(tmp_path: Path) -> None:
    texts = {"a": b"gone\0alpha\0", "b": b"only\0dead\0beta\0", "c": b"\0gamma\0"}
    assert strings_of(tmp_path, objects_with(texts)) == {
        "a.o": (b"alpha\0", b"alpha"), "b.o": (b"beta\0", b"beta"), "c.o": (b"gamma\0", b"gamma"),
    }  # fmt: skip


def test_strings_stay_aligned_as_their_section_asks(tmp_path: Path) -> None:
    text = b"twelve bytes\0\0\0\0gone\0\0\0\0eight\0"
    data = write_elf(
        [Section(".text.f", bytes(24)), Section(STR, text, ALLOC | MERGE | STRINGS, align=8)],
        [Symbol("f", ".text.f")],
        [Rela(".text.f", 0, STR, R_64, 24), Rela(".text.f", 8, STR, R_64, 0)],
    )
    found = strings_of(tmp_path, {"a.o": data})
    assert found == {"a.o": (b"twelve bytes\0\0\0\0eight\0", b"eight")}


def test_a_string_of_a_section_that_goes_is_nobodys_business(tmp_path: Path) -> None:
    texts = {"a": b"gone\0alpha\0", "b": b"only\0beta\0"}
    objects = objects_with(texts)
    found = strings_of(tmp_path, objects, ".text.a")
    assert found["b.o"] == (b"beta\0", b"beta")


def test_what_is_all_referred_to_changes_no_byte(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f", bytes(16)), Section(STR, b"one\0two\0", ALLOC | MERGE | STRINGS)],
        [Symbol("f", ".text.f")],
        [Rela(".text.f", 0, STR, R_64, 4), Rela(".text.f", 8, STR, R_64, 0)],
    )
    made = image(tmp_path, {"a.o": data})
    keep = np.ones(len(made.units), bool)
    found = squeeze_strings(made, find_tables(made, X86), keep)
    assert not len(found.units) and not len(found.at) and not len(found.rows)


@pytest.mark.parametrize("strings", [b"", b"nobody says this\0"])
def test_an_image_in_which_nothing_refers_to_a_string(tmp_path: Path, strings: bytes) -> None:
    sections = [Section(".text.f", bytes(16)), Section(".text.g")]
    sections += [Section(STR, strings, ALLOC | MERGE | STRINGS)] if strings else []
    symbols = [Symbol("f", ".text.f"), Symbol("g", ".text.g")]
    made = image(tmp_path, {"a.o": write_elf(sections, symbols, [Rela(".text.f", 4, ".text.g")])})
    found = squeeze_strings(made, find_tables(made, X86), np.ones(len(made.units), bool))
    assert not len(found.units) and not len(found.at) and not len(found.rows)
