"""What verify reads, with readers of its own: nothing here is shared with the code that wrote the files.

The link map comes through patterns, the plan and the tombstones as JSON. Kernel knowledge is the data in
``linkerscripts/``.
"""

from __future__ import annotations

import json
import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune.verify.elf import Linked
from prune.verify.lldmap import inputs_of, is_lld_map, outputs_of, rows_of
from tracer.host import MISSHAPEN, UserError, read_json

_KNOWLEDGE = Path(__file__).resolve().parents[2] / "linkerscripts"
# Edited objects stand for those that they were made of, as files and as members of one archive.
_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/(?:archive\.a\((?=.*\)$))?|(?<=\.o)\)$")
_AGAIN = "link again: kprune link"
_FIELD = re.compile(r"(?:abs|pc)\d+|none")

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
    """One tombstone, as ``tombstones.json`` tells it; ``answer``: the value that it returns, "" if it does
    not; ``call``: it is that of a system call."""

    of: Name
    address: int
    names: tuple[str, ...]
    answer: str = ""
    call: bool = False

    def __str__(self) -> str:
        return f"the tombstone of {self.of[0]}:{self.of[1]}"


_LOADED = re.compile(r"^LOAD (\S.*\.[oa])$", re.M)
_MEMBER = re.compile(r"^(\.kprune/plan-[0-9a-f]+/objects/archive\.a\(.+?\))(?:\s|$)", re.M)
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
    if is_lld_map(text):
        _check_outputs(path, outputs_of(text), linked)
        return LinkMap(
            tuple(
                Piece(_EDITED.sub("", name), section, output, address, size)
                for name, section, output, address, size in rows_of(text, linked)
            ),
            tuple(dict.fromkeys(_EDITED.sub("", name) for name in inputs_of(text))),
        )
    begin = text.find("\nLinker script and memory map\n")
    if begin < 0:
        raise UserError(f"verifying: {path} is not a link map", _AGAIN)
    found = list(_OUTPUT.finditer(text, begin))
    _check_outputs(path, {m[1]: (int(m[2], 16), int(m[3], 16)) for m in found}, linked)
    starts = [(m.start(), m[1]) for m in found]
    pieces = tuple(_pieces(text, begin, starts, linked))
    members = _MEMBER.findall(text, 0, begin)
    loaded = [members if name.endswith("/archive.a") else [name] for name in _LOADED.findall(text)]
    order = dict.fromkeys(_EDITED.sub("", name) for names in loaded for name in names)
    return LinkMap(pieces, tuple(order))


def _check_outputs(path: Path, outputs: dict[str, tuple[int, int]], linked: Linked) -> None:
    for name, output in linked.outputs.items():
        if outputs.get(name) != (output.address, output.size):
            raise UserError(
                f"verifying: {path} is truncated or of another link: {name} is not where vmlinux has it",
                _AGAIN,
            )


def _pieces(text: str, begin: int, starts: list[tuple[int, str]], linked: Linked) -> Iterator[Piece]:
    """Placed input sections of loaded outputs, in order."""
    current = 0
    for found in _PIECE.finditer(text, begin):
        while current + 1 < len(starts) and starts[current + 1][0] < found.start():
            current += 1
        if starts and starts[current][1] in linked.outputs:
            place = _EDITED.sub("", found[4])
            yield Piece(place, found[1], starts[current][1], int(found[2], 16), int(found[3], 16))


@dataclass(frozen=True)
class Fates:
    """The plan: its objects, unit -> kept, the units that are ``freed`` after boot, the ``pieces`` of
    sections that were taken apart: object -> section -> (name, start, size), the ranges of kept units
    that are ``cold``: object -> section -> (begin, end), whether kallsyms is to have the names of
    tombstones (``named``), and unit -> the places in cold ranges whose trap ``stops`` the machine."""

    objects: tuple[str, ...]
    kept: dict[Name, bool]
    freed: frozenset[Name]
    pieces: dict[str, dict[str, list[tuple[str, int, int]]]]
    cold: dict[str, dict[str, list[tuple[int, int]]]]
    named: bool
    stops: dict[Name, frozenset[int]]


def _name(object: Any, section: Any) -> Name:
    return str(object), str(section)


def read_fates(path: Path) -> Fates:
    """Read the plan.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "plan", 5)
    try:
        pieces: dict[str, dict[str, list[tuple[str, int, int]]]] = {}
        for name, section, parts in value["pieces"]:
            pieces.setdefault(str(name), {})[str(section)] = [
                (str(n), int(start), int(size)) for n, start, size in parts
            ]
        rows = value["units"]
        kept = {_name(row[0], row[1]): row[3] != "drop" for row in rows}
        freed = frozenset(_name(row[0], row[1]) for row in rows if row[3] == "boot")
        cold: dict[str, dict[str, list[tuple[int, int]]]] = {}
        for name, section, ranges in value["cold"]:
            cold.setdefault(str(name), {})[str(section)] = [(int(begin), int(end)) for begin, end in ranges]
        stops = {_name(row[0], row[1]): frozenset(map(int, row[2])) for row in value["stops"]}
        objects = tuple(map(str, value["objects"]))
        return Fates(objects, kept, freed, pieces, cold, bool(value["named"]), stops)
    except MISSHAPEN as error:
        raise UserError(f"verifying: {path}: {error!r}", "make the plan again: kprune plan") from error


def read_ran(path: Path) -> dict[Name, frozenset[str]]:
    """(object, section) -> the apps and phases that ran it, of a profile.

    Raises:
        UserError: missing or damaged.
    """
    try:
        rows = json.loads(path.read_text())["functions"]
        found: dict[Name, set[str]] = {}
        for row in rows:
            apps = (str(seen["app"]) for seen in row["seen"])
            found.setdefault(_name(row["object"], row["section"]), set()).update(apps)
    except (OSError, *MISSHAPEN) as error:
        raise UserError(f"verifying: reading the profile {path}: {error!r}", "kprune plan") from error
    return {place: frozenset(apps) for place, apps in found.items()}


def read_blocks(path: Path) -> dict[Name, dict[str, list[tuple[int, int]]]]:
    """(object, section) -> function -> the bytes of it that ran, by a profile; none where nobody can tell.

    Raises:
        UserError: missing or damaged.
    """
    found: dict[Name, dict[str, list[tuple[int, int]]]] = {}
    try:
        for row in json.loads(path.read_text())["functions"]:
            bounds = [int(bound) for bound in row["ran"]]
            ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
            found.setdefault((row["object"], row["section"]), {})[row["symbol"]] = ranges
    except (OSError, *MISSHAPEN) as error:
        raise UserError(f"verifying: reading the profile {path}: {error!r}", "kprune plan") from error
    return found


@dataclass(frozen=True)
class Trimmed:
    """A unit that lost cold blocks: the ranges of it and the places whose trap ``stops`` the machine, by the
    plan; where it lies and the ``traps`` in it, (place now, place that it stands for), by
    ``tombstones.json``."""

    cold: list[tuple[int, int]]
    address: int
    traps: list[tuple[int, int]]
    stops: frozenset[int] = frozenset()


def read_trimmed(path: Path, fates: Fates) -> dict[str, dict[str, Trimmed]]:
    """Object -> section -> how it was trimmed.

    Raises:
        UserError: missing or damaged, or the plan's are other ones.
    """
    value = read_json(path, "tombstones", 5)
    found: dict[str, dict[str, Trimmed]] = {}
    try:
        for row in value["trimmed"]:
            cold = fates.cold[row["object"]][row["section"]]
            traps = [(int(now), int(was)) for now, was in row["traps"]]
            stops = fates.stops.get((row["object"], row["section"]), frozenset())
            found.setdefault(row["object"], {})[row["section"]] = Trimmed(
                cold, int(row["address"]), traps, stops
            )
    except MISSHAPEN as error:
        raise UserError(f"verifying: {path}: {error!r}", _AGAIN) from error
    names = {(name, section) for name, sections in found.items() for section in sections}
    planned = {(name, section) for name, sections in fates.cold.items() for section in sections}
    if names != planned:
        raise UserError(f"verifying: {path}: the plan takes blocks out of other functions", _AGAIN)
    return found


def read_stones(path: Path) -> tuple[Stone, ...]:
    """Every tombstone.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "tombstones", 5)
    try:
        return tuple(
            Stone(
                _name(row["object"], row["section"]),
                int(row["address"]),
                tuple(map(str, row["names"])),
                str(row["answer"]),
                bool(row["call"]),
            )
            for row in value["tombstones"]
        )
    except MISSHAPEN as error:
        raise UserError(f"verifying: {path}: {error!r}", _AGAIN) from error


def read_facts(arch: str, word: int) -> dict[str, Any]:
    """The architecture's description with the common one joined in; of a table in both, its own holds.

    Args:
        word: bytes of an address; of 4, what the tables say of ``narrow`` ones holds.

    Raises:
        UserError: there is no such architecture.
    """
    try:
        common = tomllib.loads((_KNOWLEDGE / "common.toml").read_text())
        own = tomllib.loads((_KNOWLEDGE / f"{arch}.toml").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"verifying: architecture {arch}: {error}") from error
    tables = {
        row["section"]: row | (row.get("narrow", {}) if word == 4 else {})
        for row in (*common["table"], *own.get("table", ()))
    }
    return {**common, **own, "table": [*tables.values()]}


def relocation_kinds(facts: Mapping[str, Any]) -> dict[int, str]:
    """Relocation type -> how its field holds an address: ``abs`` or ``pc`` and its bits, or ``none``."""
    return {
        number: kind
        for kind, numbers in facts["relocations"].items()
        if _FIELD.fullmatch(kind)
        for number in numbers
    }


def relocation_widths(facts: Mapping[str, Any]) -> dict[int, int]:
    """Relocation type -> bytes of its field."""
    return {number: bits_of(kind) // 8 for number, kind in relocation_kinds(facts).items()}


def bits_of(kind: str) -> int:
    """``pc32`` -> 32; ``none`` -> 0."""
    return int(kind.strip(string.ascii_letters) or "0")
