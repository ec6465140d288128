"""Where an indirect call of a linked kernel can lead: functions whose address something in the image holds.

A linked vmlinux has no relocations, so addresses are recognised by their value: that of a function's symbol,
and they are looked for where a compiler or an assembler puts addresses:

* in aligned words of an address's size outside code (operations, handlers), but not in kernel tables that
  only list places, such as ``__mcount_loc``;
* in the entries, relative to themselves, of the lists that booting calls (initcalls, PCI quirks);
* in the last 4 bytes of an instruction that is no branch: an immediate operand, or what ``lea`` adds to the
  address of the next instruction.

An address that is computed at run time from another (an offset into a function, a table of offsets) is
not seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import capstone
import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from numpy.typing import NDArray

from prune.model.knowledge import Knowledge

_EXECUTABLE, _ALLOCATED = 4, 2


@dataclass(frozen=True)
class _Part:
    """One section in memory."""

    address: int
    data: bytes
    executable: bool


def indirect_targets(file: ELFFile, knowledge: Knowledge) -> set[int]:
    """Addresses of functions that the image itself names; see the module for what counts."""
    table = file.get_section_by_name(".symtab")
    assert isinstance(table, SymbolTableSection)
    values, functions = _symbols(table)
    mask = np.uint64((1 << file.elfclass) - 1)
    found: list[NDArray[np.uint64]] = []
    for part in _parts(file):
        if part.executable:
            starts = np.unique(np.fromiter(values.values(), np.uint64))
            found.append(_in_code(part, starts, functions, knowledge, mask))
        else:
            found.append(_in_words(part, functions, _listed(values, knowledge), file.elfclass // 8))
            found.append(_in_lists(part, functions, values, knowledge, mask))
    return set(np.concatenate([np.empty(0, np.uint64), *found]).tolist())


def _parts(file: ELFFile) -> Iterator[_Part]:
    for section in file.iter_sections():
        if section["sh_flags"] & _ALLOCATED and section["sh_type"] == "SHT_PROGBITS":
            yield _Part(section["sh_addr"], section.data(), bool(section["sh_flags"] & _EXECUTABLE))


def _symbols(table: SymbolTableSection) -> tuple[dict[str, int], NDArray[np.uint64]]:
    """Name -> value of what is defined; the values of functions, sorted."""
    values: dict[str, int] = {}
    functions: set[int] = set()
    for symbol in table.iter_symbols():
        if symbol["st_shndx"] != "SHN_UNDEF":
            values[symbol.name] = symbol["st_value"]
            if symbol["st_info"]["type"] == "STT_FUNC":
                functions.add(symbol["st_value"])
    return values, np.array(sorted(functions), np.uint64)


def _listed(values: Mapping[str, int], knowledge: Knowledge) -> list[tuple[int, int]]:
    """Where the tables lie that list places in code which nobody calls through them."""
    return [
        (values[first], values[last])
        for each in knowledge.tables
        for first, last in each.brackets(values)
        if not each.calls and first in values and last in values
    ]


def _in_words(
    part: _Part, functions: NDArray[np.uint64], but: list[tuple[int, int]], size: int
) -> NDArray[np.uint64]:
    skip = -part.address % size
    words = _every(part.data, f"<u{size}", skip).astype(np.uint64, copy=False)
    held = _among(words, functions)
    for begin, end in but:
        first, last = (max(at - part.address - skip, 0) // size for at in (begin, end))
        held[first:last] = False
    return np.unique(words[held])


def _in_lists(
    part: _Part,
    functions: NDArray[np.uint64],
    values: Mapping[str, int],
    knowledge: Knowledge,
    mask: np.uint64,
) -> NDArray[np.uint64]:
    found = [np.empty(0, np.uint64)]
    called = (table for table in knowledge.tables if table.calls and table.field == "pc32")
    for each, bounds in ((table, bounds) for table in called for bounds in table.brackets(values)):
        begin, end = (values.get(name, 0) for name in bounds)
        if not part.address <= begin < end <= part.address + len(part.data):
            continue
        offsets = np.arange(begin - part.address + each.owner[0], end - part.address - 3, each.entry[0])
        octets = np.frombuffer(part.data, np.uint8)[offsets[:, None] + np.arange(4)]
        places = offsets.astype(np.uint64) + np.uint64(part.address)
        found.append((_wide(octets.view("<i4")[:, 0]) + places) & mask)
    targets = np.concatenate(found)
    return np.unique(targets[_among(targets, functions)])


def _every(data: bytes, kind: str, offset: int) -> NDArray[Any]:
    """All whole values from an offset on; lld leaves sections that are empty."""
    count = (len(data) - offset) // np.dtype(kind).itemsize
    return np.frombuffer(data, kind, count, offset) if count > 0 else np.empty(0, kind)


def _wide(values: NDArray[np.int32]) -> NDArray[np.uint64]:
    """As addresses: sign-extended to 64 bits."""
    return values.astype(np.int64).view(np.uint64)


def _among(values: NDArray[np.uint64], functions: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which values are a function's address; most are none of code at all, which is quick to see."""
    near: NDArray[np.bool_] = (values >= functions.min(initial=1)) & (values <= functions.max(initial=0))
    near[near] = np.isin(values[near], functions)
    return near


def _in_code(
    part: _Part,
    starts: NDArray[np.uint64],
    functions: NDArray[np.uint64],
    knowledge: Knowledge,
    mask: np.uint64,
) -> NDArray[np.uint64]:
    """By value at every byte first, which is cheap; then the few places decoded, to see what they are."""
    ends: list[NDArray[np.uint64]] = []
    for shift in range(4):
        value = _wide(_every(part.data, "<i4", shift)) & mask
        end = np.arange(len(value)).astype(np.uint64) * np.uint64(4) + np.uint64(part.address + shift + 4)
        ends.append(end[_among(value, functions) | _among((value + end) & mask, functions)])
    named = set(_operands(part, np.sort(np.concatenate(ends)), starts, knowledge, int(mask)))
    targets = np.array(sorted(named), np.uint64)
    return targets[_among(targets, functions)]


def _operands(
    part: _Part, ends: NDArray[np.uint64], starts: NDArray[np.uint64], knowledge: Knowledge, mask: int
) -> Iterator[int]:
    """What the last 4 bytes of instructions mean that end at ``ends``, in code that begins at ``starts``."""
    known = knowledge.disassembler
    decoder = capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"]))
    decoder.skipdata = True  # a trap byte inside a function is no instruction
    branches = (*known["branches"], *known["ends"])
    wanted = set(ends.tolist())
    symbols = starts[np.clip(np.searchsorted(starts, ends, "left") - 1, 0, None)]
    for start in np.unique(symbols):
        begin = max(int(start), part.address)
        code = part.data[begin - part.address : int(ends[symbols == start].max()) - part.address]
        for address, size, name, operands in decoder.disasm_lite(code, begin):
            end = address + size
            if end not in wanted or name.startswith(branches):
                continue
            value = int.from_bytes(code[end - begin - 4 : end - begin], "little", signed=True)
            if name in known["addresses"]:
                if known["here"] in operands:
                    yield (end + value) & mask
            # As capstone may write it: signed, or as wide as the other operand.
            elif any(hex(each) in operands for each in (value, value & mask, value % (1 << 32))):
                yield value & mask
