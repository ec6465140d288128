"""What verify reads, with readers of its own: nothing here is shared with the code that wrote the files.

The link map comes through patterns, the plan and the tombstones as JSON. Kernel knowledge is the data in
``linkerscripts/``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune.verify_elf import Linked
from tracer.host import UserError, read_json

_KNOWLEDGE = Path(__file__).resolve().parent.parent / "linkerscripts"
_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/")
_AGAIN = "link again: kprune link"

Name = tuple[str, str]
"""An object and the name of one of its sections: how plan, map and tombstones call a unit."""


@dataclass(frozen=True)
class Piece:
    """One input section where the map says that it lies: ``output`` is the section of the image."""

    object: str
    section: str
    output: str
    address: int
    size: int

    @property
    def end(self) -> int:
        return self.address + self.size

    def __str__(self) -> str:
        return f"{self.object}:{self.section}"


@dataclass(frozen=True)
class LinkMap:
    """``order`` are the objects as they were loaded."""

    pieces: tuple[Piece, ...]
    order: tuple[str, ...]


@dataclass(frozen=True)
class Stone:
    """One tombstone, as ``tombstones.json`` tells it."""

    of: Name
    address: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"the tombstone of {self.of[0]}:{self.of[1]}"


_LOADED = re.compile(r"^LOAD (\S.*\.o)$", re.M)
_OUTPUT = re.compile(r"^([^\s*]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)", re.M)
# One space, a name; a long name has its line to itself. "*fill*" and "*(.text)" begin with a star.
_PIECE = re.compile(r"^ ([^\s*]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$", re.M)


def read_map(path: Path, linked: Linked) -> LinkMap:
    """Read the link map of ``linked``.

    Raises:
        UserError: not a map, or not the map of this kernel from end to end.
    """
    try:
        text = path.read_text(errors="surrogateescape")
    except OSError as error:
        raise UserError(f"verifying: {path}: {error.strerror}", _AGAIN) from error
    begin = text.find("\nLinker script and memory map\n")
    if begin < 0:
        raise UserError(f"verifying: {path} is not a link map", _AGAIN)
    found = list(_OUTPUT.finditer(text, begin))
    outputs = {m[1]: (int(m[2], 16), int(m[3], 16)) for m in found}
    for name, output in linked.outputs.items():
        if outputs.get(name) != (output.address, output.size):
            raise UserError(
                f"verifying: {path} is truncated or of another link: {name} is not where vmlinux has it",
                _AGAIN,
            )
    starts = [(m.start(), m[1]) for m in found]
    pieces = tuple(_pieces(text, begin, starts, linked))
    order = dict.fromkeys(_EDITED.sub("", name) for name in _LOADED.findall(text))
    return LinkMap(pieces, tuple(order))


def _pieces(text: str, begin: int, starts: list[tuple[int, str]], linked: Linked) -> Iterator[Piece]:
    """Placed input sections of loaded outputs, in order."""
    current = 0
    for found in _PIECE.finditer(text, begin):
        while current + 1 < len(starts) and starts[current + 1][0] < found.start():
            current += 1
        if starts and starts[current][1] in linked.outputs:
            place = _EDITED.sub("", found[4])
            yield Piece(place, found[1], starts[current][1], int(found[2], 16), int(found[3], 16))


def read_fates(path: Path) -> tuple[tuple[str, ...], dict[Name, bool]]:
    """The plan's objects, and unit -> kept.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "plan", 1)
    try:
        return tuple(value["objects"]), {(row[0], row[1]): row[3] == "keep" for row in value["units"]}
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"verifying: {path}: {error!r}", "make the plan again: kprune plan") from error


def read_stones(path: Path) -> tuple[Stone, ...]:
    """Every tombstone.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "tombstones", 1)
    try:
        return tuple(
            Stone((row["object"], row["section"]), int(row["address"]), tuple(row["names"]))
            for row in value["tombstones"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"verifying: {path}: {error!r}", _AGAIN) from error


def read_facts(arch: str) -> dict[str, Any]:
    """The architecture's description with the common one joined in.

    Raises:
        UserError: there is no such architecture.
    """
    try:
        common = tomllib.loads((_KNOWLEDGE / "common.toml").read_text())
        own = tomllib.loads((_KNOWLEDGE / f"{arch}.toml").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"verifying: architecture {arch}: {error}") from error
    return {**common, **own, "table": [*common["table"], *own.get("table", [])]}
