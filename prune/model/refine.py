"""Give every function of a shared section a section of its own, in the object as the compiler made it.

``__init`` puts all such functions of a source file into ``.init.text``, and ``-ffunction-sections`` leaves it
alone. Here the object is taken apart behind the compiler's back, whatever compiler it was: from the
function symbols come the pieces, every relocation goes to the piece that holds its field, every symbol to
the piece that it points into, and a branch from one piece into another, which the assembler had resolved,
gets the relocation that it never had. The new section headers and tables go to the end; no byte of code moves
within the file.

Data is not taken apart: a reference to a static variable has become one to its section plus an offset,
where the end of one array and the beginning of the next are the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import capstone
import numpy as np

from prune.model.apart import Piece, Split, take_apart
from prune.model.elf import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_GROUP,
    SHF_LINK_ORDER,
    SHN_LORESERVE,
    SHT_PROGBITS,
    STT_FILE,
    STT_FUNC,
    ObjectFile,
    Rows,
    parse_object,
)
from prune.model.knowledge import Knowledge

#: What may lie between two functions: what the largest alignment that compilers give a function leaves.
_MOST_PADDING = 64
_CODE = SHF_ALLOC | SHF_EXECINSTR


def refine(file: ObjectFile, knowledge: Knowledge) -> tuple[ObjectFile, tuple[Split, ...]]:
    """The object with its shared code taken apart, and what was; the same object when there is none.

    A section stays whole when its functions do not tell all of it: hand-written assembly, overlaps, gaps.
    """
    splits = [split for index in _candidates(file, knowledge) if (split := _split(file, index, knowledge))]
    more = sum(2 * len(split.pieces) for split in splits)
    if not splits or len(file.sections) + more >= SHN_LORESERVE:
        return file, ()
    data = take_apart(file, splits, knowledge)
    return parse_object(file.path, data, knowledge.machine), tuple(splits)


def _candidates(file: ObjectFile, knowledge: Knowledge) -> list[int]:
    """Shared code that came from C: what an assembler source means by an offset nobody can tell."""
    wanted = [i for i, name in enumerate(file.section_names) if name in knowledge.split]
    if not wanted or not _from_c(file):
        return []
    sections = file.sections
    ordered = {int(s["link"]) for s in sections if int(s["flags"]) & SHF_LINK_ORDER}
    return [
        index
        for index in wanted
        if sections["type"][index] == SHT_PROGBITS
        and int(sections["flags"][index]) & (_CODE | SHF_GROUP) == _CODE
        and sections["size"][index] > 0
        and file.section_names.count(file.section_names[index]) == 1
        and index not in ordered
    ]  # fmt: skip


def _from_c(file: ObjectFile) -> bool:
    sources = np.flatnonzero(file.symbols["info"] & 15 == STT_FILE).tolist()
    return bool(sources) and all(file.symbol_name(index).endswith(".c") for index in sources)


def _split(file: ObjectFile, index: int, knowledge: Knowledge) -> Split | None:
    size = int(file.sections["size"][index])
    inside = np.flatnonzero((file.shndx == index) & (file.symbols["info"] & 15 == STT_FUNC))
    inside = inside[file.symbols["size"][inside] > 0]
    if not len(inside):
        return None
    begin = file.symbols["value"][inside].astype(np.int64)
    starts, which = np.unique(begin, return_inverse=True)
    ends = np.zeros(len(starts), np.int64)
    np.maximum.at(ends, which, begin + file.symbols["size"][inside].astype(np.int64))
    gaps = np.append(starts, size) - np.concatenate([[0], ends])
    if np.any(gaps < 0) or np.any(gaps >= _MOST_PADDING):
        return None
    starts[0] = 0
    bounds, branches = _unbreakable(file, index, starts, knowledge)
    starts = starts[bounds]
    label = {
        int(value): file.symbol_name(int(row)) for value, row in zip(begin[::-1], inside[::-1], strict=True)
    }
    name = file.section_names[index]
    names = _unique(
        f"{name}.{label.get(start) or file.symbol_name(int(inside[0]))}" for start in starts.tolist()
    )
    sizes = np.diff(np.append(starts, size))
    pieces = tuple(Piece(*row) for row in zip(names, starts.tolist(), sizes.tolist(), strict=True))
    split = Split(index, name, pieces, ())
    crossing = tuple(
        (field, target)
        for field, target in branches
        if split.piece_at(np.array([field]))[0] != split.piece_at(np.array([target]))[0]
    )
    return Split(index, name, pieces, crossing)


def _unique(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        unique, number = name, 1
        while unique in taken:
            number += 1
            unique = f"{name}.{number}"
        taken.add(unique)
        found.append(unique)
    return found


def _unbreakable(
    file: ObjectFile, index: int, starts: Rows, knowledge: Knowledge
) -> tuple[Rows, list[tuple[int, int]]]:
    """(which starts stay, (field, target) of every branch without a relocation that a linker could redirect).

    A branch of one byte from one function into another holds the two together with all that lies between.
    """
    stay = np.ones(len(starts), bool)
    if len(starts) == 1:
        return stay, []
    covered = set(file.relocated(index).tolist())
    long: list[tuple[int, int]] = []
    for begin, size, target, operand in branches_in(file.content(index), knowledge):
        if not 0 <= target < int(file.sections["size"][index]):
            continue
        ends = begin + size
        if any(offset in covered for offset in range(begin, ends)):
            continue
        if operand == 4:
            long.append((ends - 4, target))
        else:
            low, high = np.searchsorted(starts, sorted((begin, target)), "right") - 1
            stay[low + 1 : high + 1] = False
    return stay, long


def branches_in(code: bytes, knowledge: Knowledge) -> list[tuple[int, int, int, int]]:
    """(offset, size, target, bytes of the operand) of the direct calls and jumps in some code."""
    known = knowledge.disassembler
    decoder = capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"]))
    decoder.skipdata = True
    starts = tuple(known["branches"])
    found = []
    for offset, size, mnemonic, operand in decoder.disasm_lite(code, 0):
        if mnemonic.startswith(starts) and operand[:1].isdigit():
            # x86: a near branch has four bytes of operand behind one or two of opcode, a short one has one.
            found.append((offset, size, int(operand, 0), 4 if size >= 5 else 1))
    return found
