"""Prove kallsyms: by its own bytes, every entry is a symbol of vmlinux, and of something that was kept.

The tables lie where their symbols say, and hold what write_src() of scripts/kallsyms.c puts there. What
differs from kernel to kernel is told by what is there. The order of the tables has changed (6.4): each ends
where the next one begins. Addresses are words in ``kallsyms_addresses``, or in ``kallsyms_offsets`` distances
from ``kallsyms_relative_base``, which are negative where per-cpu symbols are absolute (kallsyms_sym_address()
of kernel/kallsyms.c); in 7.x there is no base: each counts from itself, or on 32 bit is the address.
``kallsyms_seqs_of_names``, the order by name, is there since 6.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate, pairwise

from prune.verify.elf import COMMON, CONSTANT, NOWHERE, Linked
from prune.verify.model import TOMBSTONES, Check, Model, Tally

_COUNT, _NAMES, _MARKERS, _BASE = (
    f"kallsyms_{what}" for what in ("num_syms", "names", "markers", "relative_base")
)
_TOKENS, _INDEX, _ORDER = (f"kallsyms_{what}" for what in ("token_table", "token_index", "seqs_of_names"))
_WORDS, _OFFSETS = "kallsyms_addresses", "kallsyms_offsets"
_ALL = (_COUNT, _NAMES, _MARKERS, _BASE, _TOKENS, _INDEX, _ORDER, _WORDS, _OFFSETS)
_EACH_PROCESSOR = ("__per_cpu_start", "__per_cpu_end")
_MARKED = 256  # names from one marker to the next


class _Damaged(Exception):
    """A table that cannot be what scripts/kallsyms.c writes; the message says which and why."""


@dataclass(frozen=True)
class Entry:
    """``kind`` is the letter that nm has for it."""

    address: int
    kind: str
    name: str


@dataclass(frozen=True)
class _Known:
    """The symbols of the objects: those that were kept and where, the names of those in merged constants,
    and all names; ``entries``: (name, first address, last) of those in kernel tables, which lose entries."""

    kept: frozenset[tuple[str, int]]
    merged: frozenset[str]
    names: frozenset[str]
    entries: Mapping[str, Sequence[tuple[int, int]]]


def check_kallsyms(model: Model) -> Check:
    """Every entry of kallsyms, and the tables themselves."""
    tally = Tally("kallsyms")
    first = model.linked.symbols.get(_COUNT, 0)
    if model.linked.output_at(first) is None:
        return tally.done("this kernel has none")
    try:
        entries = read_entries(model)
    except _Damaged as damaged:
        tally.expect(False, str(damaged))
        return tally.done()
    known, answered = _known(model), 0
    for number, entry in enumerate(entries):
        wrong, redirected = _wrong(model, known, entry)
        answered += redirected
        tally.expect(not wrong, f"entry {number}, {entry.name} at {entry.address:#x}, {wrong}")
    return tally.done(f"{answered:,} names of dropped functions that another one answers for")


def _known(model: Model) -> _Known:
    kept: set[tuple[str, int]] = set()
    merged: set[str] = set()
    names: set[str] = set()
    entries: dict[str, list[tuple[int, int]]] = {}
    for original in model.objects.values():
        dropped = {
            index
            for index, section in original.sections.items()
            if model.fates.get((original.path, section.name)) is False
        }
        for symbol in original.symbols:
            names.add(symbol.name)
            if symbol.section in dropped:
                continue
            if symbol.section in (CONSTANT, NOWHERE):
                kept.add((symbol.name, symbol.value))
            elif symbol.section == COMMON:
                kept.add((symbol.name, model.linked.symbols.get(symbol.name, 0)))
            elif (piece := model.placed.get((original.path, symbol.section))) is not None:
                if model.table_of(original.sections[symbol.section].name):
                    entries.setdefault(symbol.name, []).append((piece.address, piece.end))
                    continue
                kept.add((symbol.name, piece.address + symbol.value))
                if original.sections[symbol.section].is_merged:
                    merged.add(symbol.name)
            elif symbol.section in original.empty:
                lies = model.empty.get((original.path, original.empty[symbol.section]))
                if lies is not None:
                    kept.add((symbol.name, lies + symbol.value))
    return _Known(frozenset(kept), frozenset(merged), frozenset(names), entries)


def _wrong(model: Model, known: _Known, entry: Entry) -> tuple[str, bool]:
    """(what is wrong with an entry, "" when nothing is; whether it is a dropped name and another's place)."""
    there = [kind for address, kind in model.linked.named.get(entry.name, ()) if address == entry.address]
    if not there:
        return f"is no symbol of vmlinux: {model.name_of(entry.address)}", False
    begin, end = (model.linked.symbols.get(name) for name in _EACH_PROCESSOR)
    if begin is not None and end is not None and begin <= entry.address <= end:
        there.append("A")  # make_percpus_absolute()
    if entry.kind not in there:
        return f"is called {entry.kind}, and vmlinux has {', '.join(sorted(set(there)))}", False
    first, last = (model.linked.symbols.get(name, 0) for name in TOMBSTONES)
    if first <= entry.address < last and entry.name not in TOMBSTONES:
        stone = model.stone_at.get(entry.address)
        meant = model.named and stone is not None and entry.name in stone.names
        return "" if meant else f"is a name of {model.name_of(entry.address)}", False
    if (entry.name, entry.address) in known.kept or entry.name not in known.names:
        return "", False
    if any(begin <= entry.address <= end for begin, end in known.entries.get(entry.name, ())):
        return "", False
    piece = model.merged.at(entry.address)
    if entry.name in known.merged and piece is not None:
        return "", False
    for redirect in model.facts.get("redirect", ()) if model.judge.shared else ():
        answers = model.linked.symbols.get(redirect["to"]) == entry.address
        if answers and fnmatchcase(entry.name, redirect["pattern"]):
            return "", True
    return "is the name of nothing that was kept there", False


def read_entries(model: Model) -> list[Entry]:
    """Decode all of the tables.

    Raises:
        _Damaged: they are not what scripts/kallsyms.c writes.
    """
    tables = _Tables(model)
    (count,) = tables.numbers(_COUNT, "I", 1)
    compressed, starts = _split(tables.content(_NAMES), count)
    tables.rest_is_padding(_NAMES, starts[-1])
    if list(tables.numbers(_MARKERS, "I", -(-count // _MARKED))) != starts[:-1:_MARKED]:
        raise _Damaged(f"{_MARKERS} does not say where every {_MARKED}th name begins")
    tokens = _tokens(tables)
    texts = [b"".join(map(tokens.__getitem__, row)).decode("ascii", "backslashreplace") for row in compressed]
    if not all(len(text) > 1 for text in texts):
        raise _Damaged(f"{_NAMES} has an entry without a name")
    names = [text[1:] for text in texts]
    if tables.has(_ORDER):
        _check_order(tables.content(_ORDER, 3 * count), names)
        tables.rest_is_padding(_ORDER, 3 * count)
    addresses = _addresses(tables, names, model.mask)
    return [Entry(*row) for row in zip(addresses, (text[0] for text in texts), names, strict=True)]


class _Tables:
    """The tables' bytes, by name: each ends where the next one begins, the last with its input section."""

    def __init__(self, model: Model) -> None:
        self.linked: Linked = model.linked
        found = sorted((self.linked.symbols[name], name) for name in _ALL if name in self.linked.symbols)
        piece = model.memory.at(found[-1][0])
        ends = [*(address for address, _ in found[1:]), piece.end if piece else found[-1][0]]
        self.places = {name: (begin, end) for (begin, name), end in zip(found, ends, strict=True)}

    def has(self, name: str) -> bool:
        return name in self.places

    def content(self, name: str, size: int | None = None) -> bytes:
        """A table, or its first ``size`` bytes."""
        if name not in self.places:
            raise _Damaged(f"vmlinux has no {name}")
        begin, end = self.places[name]
        content = self.linked.read(begin, end - begin)
        if size is not None and len(content) < size:
            raise _Damaged(f"{name} has {len(content):,} bytes of {size:,}")
        return content[:size]

    def numbers(self, name: str, code: str, count: int) -> tuple[int, ...]:
        """All of a table of numbers, of the ``struct`` format ``code``."""
        size = count * struct.calcsize(f"<{code}")
        found = struct.unpack(f"<{count}{code}", self.content(name, size))
        self.rest_is_padding(name, size)
        return found

    def rest_is_padding(self, name: str, used: int) -> None:
        """Tables begin at a word's boundary (ALGN), whatever the one before has used."""
        rest = self.content(name)[used:]
        if any(rest) or len(rest) >= self.linked.word:
            raise _Damaged(f"{name} has {len(rest):,} bytes that are not in use")


def _split(names: bytes, count: int) -> tuple[list[bytes], list[int]]:
    """The compressed names, and where each begins; behind the last, where it ends."""
    found: list[bytes] = []
    starts, at = [0], 0
    for _ in range(count):
        size, begin = names[at] if at < len(names) else 0, at + 1
        if size & 0x80 and begin < len(names):  # up to two bytes of ULEB128
            size, begin = size & 0x7F | names[begin] << 7, begin + 1
        at = begin + size
        if not size or at > len(names):
            raise _Damaged(f"{_NAMES} has {len(found):,} names, and {_COUNT} says {count:,}")
        found.append(names[begin:at])
        starts.append(at)
    return found, starts


def _tokens(tables: _Tables) -> Sequence[bytes]:
    """What each of the 256 codes stands for."""
    parts = tables.content(_TOKENS).split(b"\0", 256)
    starts = list(accumulate((len(part) + 1 for part in parts[:256]), initial=0))
    if len(parts) != 257 or list(tables.numbers(_INDEX, "H", 256)) != starts[:256]:
        raise _Damaged(f"{_INDEX} does not say where the strings of {_TOKENS} begin")
    tables.rest_is_padding(_TOKENS, starts[256])
    return parts[:256]


def _addresses(tables: _Tables, names: Sequence[str], mask: int) -> Iterator[int]:
    word, count = "Q" if tables.linked.word == 8 else "I", len(names)
    if tables.has(_WORDS):
        return iter(tables.numbers(_WORDS, word, count))
    offsets = tables.numbers(_OFFSETS, "i", count)
    if not tables.has(_BASE):
        begin, _ = tables.places[_OFFSETS]
        near = [begin + 4 * number + offset & mask for number, offset in enumerate(offsets)]
        first = {address for name in names[:1] for address, _ in tables.linked.named.get(name, ())}
        return iter(near if word == "Q" or first & {*near[:1]} else [offset & mask for offset in offsets])
    (base,) = tables.numbers(_BASE, word, 1)
    if 2 * sum(offset < 0 for offset in offsets) > count:
        return (offset if offset >= 0 else base - 1 - offset & mask for offset in offsets)
    return (base + (offset & 0xFFFFFFFF) & mask for offset in offsets)


def _check_order(rows: bytes, names: Sequence[str]) -> None:
    """The entries by name: each once, and in order; with LTO what is behind a full stop does not count
    (cleanup_symbol_name())."""
    order = [int.from_bytes(rows[at : at + 3], "big") for at in range(0, len(rows), 3)]
    if sorted(order) != list(range(len(names))):
        raise _Damaged(f"{_ORDER} does not have every entry once")
    sorted_ = [names[number] for number in order]
    stems = [name.partition(".")[0] for name in sorted_]
    if not any(all(one <= other for one, other in pairwise(each)) for each in (sorted_, stems)):
        raise _Damaged(f"{_ORDER} is not in the order of names")
