"""Strings that nothing kept refers to go; what stays is found again by whatever way it was referred to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune.edit import edit_object, plan_edits
from prune.elf import parse_object
from prune.strings import squeeze_strings
from prune.tables import find_tables
from prune.tombstones import bury_dropped
from tests.conftest import X86, image

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


def squeezed(folder: Path, relocations: list[Rela], drop: str = "", text: bytes = TEXT) -> bytes | None:
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
    assert squeeze_strings(made, tables, keep, X86).keys() <= {0}
    edits = plan_edits(made, tables, keep, np.zeros_like(keep), bury_dropped(made, tables, keep, X86), X86)
    if 0 not in edits:
        return None
    after = parse_object(folder / "after.o", edit_object(made.files[0], edits[0]))
    content = after.content(after.section_names.index(".rodata.str1.1"))
    for index in np.flatnonzero(after.sections["type"] == 4).tolist():
        if after.section_names[int(after.sections["info"][index])] == drop:
            continue
        for before, row in zip(made.files[0].relocations(index), after.relocations(index), strict=True):
            assert said(after, content, row) == said(made.files[0], text, before)
    return content


def said(file: object, content: bytes, row: np.void) -> bytes:
    """The string that a relocation means."""
    symbol = file.symbols[int(row["info"]) >> 32]  # type: ignore[attr-defined]
    at = int(symbol["value"]) + (int(row["addend"]) if symbol["info"] & 15 == 3 else 0)
    return content[at : content.index(b"\0", at)]


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
    assert squeezed(tmp_path, [relocation]) in (None, TEXT)
