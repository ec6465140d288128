"""Keep the tombstones' names out of kallsyms, and in System.map.

Both are made with nm of each linked vmlinux. scripts/kallsyms passes over symbols that nm shows with a "u",
scripts/mksysmap does not: the unique global symbols of the GNU gABI supplement, which the kernel has none of.
So that is the binding which a tombstone's symbols get. One name stays, that of the first byte of them all:
an oops then shows how far into them it was.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from prune.model.elf import SHT_SYMTAB, Rows
from prune.model.layout import Layout, layout_of, like
from tracer.host import HostError

FIRST, LAST = "__kprune_tombstones_start", "__kprune_tombstones_end"
_UNIQUE = 10  # STB_GNU_UNIQUE; nm: "u"


def hide_tombstones(vmlinux: Path) -> None:
    """Change the binding of all symbols between :data:`FIRST` and :data:`LAST`, in place.

    Raises:
        HostError: the linker has left no whole file.
    """
    with _open(vmlinux, "r+b") as stream:
        symbols, strings, at, layout = _read(stream)
        inside = _between(symbols, strings) & np.isin(symbols["info"] >> 4, (1, _UNIQUE))
        inside &= symbols["name"] != strings.find(f"\0{FIRST}\0".encode()) + 1
        symbols["info"][inside] = _UNIQUE << 4 | symbols["info"][inside] & 15
        stream.seek(at)
        stream.write(like(symbols, layout.symbol).tobytes())


def tombstone_addresses(vmlinux: Path) -> dict[str, int]:
    """Name -> address of every tombstone.

    Raises:
        HostError: the linker has left no whole file.
    """
    with _open(vmlinux, "rb") as stream:
        symbols, strings, *_ = _read(stream)
        inside = symbols[_between(symbols, strings)]
        names = {
            strings[name : strings.index(b"\0", name)].decode("ascii", "surrogateescape"): value
            for name, value in zip(inside["name"].tolist(), inside["value"].tolist(), strict=True)
        }
    return {name: value for name, value in names.items() if name not in (FIRST, LAST)}


@contextlib.contextmanager
def _open(vmlinux: Path, mode: str) -> Iterator[BinaryIO]:
    try:
        with vmlinux.open(mode) as stream:
            yield cast(BinaryIO, stream)
    except (OSError, IndexError, ValueError, OverflowError) as error:
        raise HostError(f"reading symbols of {vmlinux}: {error}", "link again") from error


def _read(stream: BinaryIO) -> tuple[Rows, bytes, int, Layout]:
    """(the symbol table, its strings, where in the file it is, how the file is laid out)."""
    start, whole = stream.read(64), os.fstat(stream.fileno()).st_size
    layout = layout_of(start)
    if layout is None:
        raise ValueError("it is no little-endian ELF file")
    header = layout.header_of(start)
    stream.seek(int(header["shoff"]))
    count = int(header["shnum"])
    sections = layout.sections(stream.read(min(count * layout.section.itemsize, whole)), count, 0)
    table = sections[sections["type"] == SHT_SYMTAB][0]
    stream.seek(int(table["offset"]))
    content = stream.read(min(int(table["size"]), whole))
    symbols = layout.symbols(content, len(content) // layout.symbol.itemsize, 0).copy()
    names = sections[int(table["link"])]
    stream.seek(int(names["offset"]))
    return symbols, stream.read(min(int(names["size"]), whole)), int(table["offset"]), layout


def _between(symbols: Rows, strings: bytes) -> Rows:
    """Mask of the symbols of tombstones, the first one's among them; what was hidden is local by now."""
    first, last = (_value(symbols, strings, name) for name in (FIRST, LAST))
    if first is None or last is None:
        return np.zeros(len(symbols), bool)
    inside: Rows = (symbols["value"] >= first) & (symbols["value"] < last) & (symbols["info"] & 15 < 3)
    return inside


def _value(symbols: Rows, strings: bytes, name: str) -> int | None:
    at = strings.find(f"\0{name}\0".encode()) + 1
    found = symbols["value"][(symbols["name"] == at) & (at > 0)]
    return int(found[0]) if len(found) else None
