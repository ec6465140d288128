"""How ELF files are laid out: 32 or 64 bits, addends in the relocations or in the fields that they fill.

Passes count in rows of one kind, :data:`SECTION`, :data:`SYMBOL` and :data:`RELA`, which are those of ELF64
(gABI chapter 4), whatever the file is. What is read is widened to them, what is written goes through the
file's own :class:`Layout`. Of a machine without addends in its relocations (REL) there is one thing more to
know: how many bytes each relocation type fills, since those hold the addend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

Rows = np.ndarray[Any, np.dtype[Any]]

SHT_RELA, SHT_REL = 4, 9

SECTION = np.dtype(
    [
        ("name", "<u4"), ("type", "<u4"), ("flags", "<u8"), ("addr", "<u8"), ("offset", "<u8"),
        ("size", "<u8"), ("link", "<u4"), ("info", "<u4"), ("align", "<u8"), ("entsize", "<u8"),
    ]
)  # fmt: skip
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("shndx", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
RELA = np.dtype([("offset", "<u8"), ("info", "<u8"), ("addend", "<i8")])
#: In ``info`` of a ``RELA`` row the symbol's index stands above the type.
SYMBOL_SHIFT = 32


def _header(address: str) -> np.dtype[Any]:
    return np.dtype(
        [
            ("ident", "V16"), ("type", "<u2"), ("machine", "<u2"), ("version", "<u4"), ("entry", address),
            ("phoff", address), ("shoff", address), ("flags", "<u4"), ("ehsize", "<u2"), ("phentsize", "<u2"),
            ("phnum", "<u2"), ("shentsize", "<u2"), ("shnum", "<u2"), ("shstrndx", "<u2"),
        ]
    )  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One class of ELF files. ``header``, ``section``, ``symbol``, ``rel``, ``rela``: of what a file has;
    ``shift``: where in a relocation's ``info`` the symbol's index begins."""

    bits: int
    header: np.dtype[Any]
    section: np.dtype[Any]
    symbol: np.dtype[Any]
    rel: np.dtype[Any]
    rela: np.dtype[Any]
    shift: int

    def sections(self, data: Any, count: int, at: int) -> Rows:
        """The section headers at a place, as ``SECTION`` rows."""
        return like(np.frombuffer(data, self.section, count, at), SECTION)

    def symbols(self, data: Any, count: int, at: int) -> Rows:
        """The symbols at a place, as ``SYMBOL`` rows."""
        return like(np.frombuffer(data, self.symbol, count, at), SYMBOL)

    def header_of(self, data: Any) -> Any:
        """The header of a file, a single row."""
        return np.frombuffer(data, self.header, 1)[0]

    def info(self, symbol: Rows, kind: Rows) -> Rows:
        """What ``info`` of relocations holds."""
        return symbol.astype(np.uint64) << np.uint64(self.shift) | kind.astype(np.uint64)


ELF32 = Layout(
    32,
    _header("<u4"),
    np.dtype([(name, "<u4") for name in SECTION.names or ()]),
    np.dtype(
        [
            ("name", "<u4"),
            ("value", "<u4"),
            ("size", "<u4"),
            ("info", "u1"),
            ("other", "u1"),
            ("shndx", "<u2"),
        ]
    ),
    np.dtype([("offset", "<u4"), ("info", "<u4")]),
    np.dtype([("offset", "<u4"), ("info", "<u4"), ("addend", "<i4")]),
    8,
)
ELF64 = Layout(
    64, _header("<u8"), SECTION, SYMBOL, np.dtype([("offset", "<u8"), ("info", "<u8")]), RELA, SYMBOL_SHIFT
)
_LAYOUTS = {b"\x7fELF\x01\x01": ELF32, b"\x7fELF\x02\x01": ELF64}


def layout_of(data: bytes) -> Layout | None:
    """By the first bytes of a file; None: it is no little-endian ELF file."""
    return _LAYOUTS.get(bytes(data[:6]))


@dataclass(frozen=True)
class Machine:
    """Whose objects they are. ``name``: as pyelftools has it; ``widths``: relocation type -> the bytes of the
    field that it fills, where these hold the addends, empty where relocations do."""

    name: str
    layout: Layout
    widths: Mapping[int, int]

    @property
    def table(self) -> int:
        """The type of the sections that hold relocations."""
        return SHT_REL if self.widths else SHT_RELA

    @property
    def prefix(self) -> str:
        """How their names begin."""
        return ".rel" if self.widths else ".rela"

    @property
    def relocation(self) -> np.dtype[Any]:
        return self.layout.rel if self.widths else self.layout.rela

    def relocations(self, data: Any, count: int, at: int, field_at: int) -> Rows:
        """The relocations at a place, as ``RELA`` rows.

        Args:
            field_at: where the section begins whose fields they fill.

        Raises:
            KeyError: of a type, the argument, that nobody knows.
        """
        rows = np.frombuffer(data, self.relocation, count, at)
        if self.relocation is RELA:
            return rows
        made = like(rows, RELA)
        symbol, kind = made["info"] >> np.uint64(self.layout.shift), made["info"] & _ones(self.layout.shift)
        made["info"] = symbol << np.uint64(SYMBOL_SHIFT) | kind
        content = np.frombuffer(data, np.uint8)
        for mine, width in self._by_width(kind):
            fields = field_at + made["offset"][mine].astype(np.int64)
            made["addend"][mine] = content[fields[:, None] + np.arange(width)].view(f"<i{width}").reshape(-1)
        return made

    def reach(self, rows: Rows) -> int:
        """Behind which place of their section none of these relocations fills anything: by its first byte
        where nobody has to know the others."""
        if not self.widths:
            return int(rows["offset"].max()) + 1
        return int((rows["offset"].astype(np.int64) + self._widths(kinds_of(rows))).max())

    def as_written(self, rows: Rows) -> Rows:
        """``RELA`` rows as the file has them; addends in fields are :meth:`put_addends`' business."""
        if self.relocation is RELA:
            return rows
        made = like(rows, self.relocation)
        made["info"] = self.layout.info(rows["info"] >> np.uint64(SYMBOL_SHIFT), kinds_of(rows))
        return made

    def put_addends(self, data: Rows, at: Rows, fields: Rows, kinds: Rows, addends: Rows) -> None:
        """Write addends to where they belong.

        Args:
            at: where each relocation is; ``fields``: where what it fills begins; ``kinds``: the types.
        """
        if not self.widths:
            put_column(data, at, self.relocation, "addend", addends)
        for mine, width in self._by_width(kinds):
            put(data, fields[mine], addends[mine].astype(f"<i{width}"))

    def fill(self, data: Rows, fields: Rows, rows: Rows) -> None:
        """Write the addends of ``RELA`` rows that belong into the fields which they fill."""
        for mine, width in self._by_width(kinds_of(rows)):
            put(data, fields[mine], rows["addend"][mine].astype(f"<i{width}"))

    @cached_property
    def _width_of(self) -> Rows:
        """Relocation type -> its width, -1 for one that nobody knows; larger ones are like the last."""
        table = np.full(max(self.widths) + 2, -1, np.int64)
        table[list(self.widths)] = list(self.widths.values())
        return table

    def _widths(self, kinds: Rows) -> Rows:
        found: Rows = self._width_of[np.minimum(kinds, len(self._width_of) - 1).astype(np.int64)]
        if found.min(initial=0) < 0:
            raise KeyError(int(kinds[found < 0][0]))
        return found

    def _by_width(self, kinds: Rows) -> list[tuple[Any, int]]:
        """(which rows, how many bytes of addend their fields hold); those that hold none are left out."""
        if not self.widths:
            return []
        widths = self._widths(kinds)
        sizes = set(widths.tolist())
        if len(sizes) == 1:
            return [(slice(None), size) for size in sizes if size]
        return [(np.flatnonzero(widths == size), size) for size in sorted(sizes - {0})]


def kinds_of(rows: Rows) -> Rows:
    """The types of ``RELA`` rows."""
    found: Rows = rows["info"] & _ones(SYMBOL_SHIFT)
    return found


def like(rows: Rows, kind: np.dtype[Any]) -> Rows:
    """Rows with the columns of ``kind``, by name; the same rows if they are of that kind."""
    if rows.dtype is kind or rows.dtype == kind:
        return rows
    made = np.zeros(len(rows), kind)
    for name in kind.names or ():
        if name in (rows.dtype.names or ()):
            made[name] = rows[name]
    return made


def put(data: Rows, at: Rows, values: Rows) -> None:
    """Write each of the values, of one type, at its place."""
    if len(at):
        content = np.ascontiguousarray(values).view(np.uint8).reshape(len(at), -1)
        data[at[:, None] + np.arange(content.shape[1])] = content


def put_column(data: Rows, at: Rows, kind: np.dtype[Any], column: str, values: Rows) -> None:
    """Write a column of the rows of a kind that lie at these places."""
    form, skip = kind.fields[column][:2]  # type: ignore[index]
    put(data, at + skip, values.astype(form))


def _ones(bits: int) -> np.uint64:
    return np.uint64((1 << bits) - 1)
