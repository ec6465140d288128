"""The instructions of one piece of code, as rows, and where its direct branches lead."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import capstone
import numpy as np

from prune.model.elf import Rows
from prune.model.knowledge import Knowledge

#: An operand relative to the instruction itself.
_RELATIVE = re.compile(r"\[rip\b")


@dataclass(frozen=True)
class Instructions:
    """One row each: ``start`` and ``size`` in bytes; ``target``: where a direct branch leads that the
    assembler resolved, -1 for none; ``operand``: bytes of its displacement; ``falls``: the next instruction
    may follow; ``idle``: it does nothing, as what compilers fill code with; ``anywhere``: a branch to where a
    register or a table says."""

    start: Rows
    size: Rows
    target: Rows
    operand: Rows
    falls: Rows
    idle: Rows
    anywhere: Rows

    @property
    def end(self) -> Rows:
        found: Rows = self.start + self.size
        return found


def read_instructions(code: bytes, relocated: Rows, knowledge: Knowledge) -> Instructions | None:
    """Disassemble; None when there is something in it that nobody could move: bytes that are no instruction,
    an address that counts from its own place, a branch out of the code.

    Args:
        relocated: offsets of the fields that the linker fills in, sorted.
    """
    known = knowledge.disassembler
    starts, ends, idle = tuple(known["branches"]), frozenset(known["ends"]), tuple(known["idle"])
    fields, field = [*relocated.tolist(), len(code)], 0
    rows: list[tuple[int, int, int, int, bool, bool, bool]] = []
    at = 0
    for offset, size, mnemonic, operands in _decoder(known["arch"], known["mode"]).disasm_lite(code, 0):
        word = mnemonic.rpartition(" ")[2]
        nothing = f"{word} {operands}".startswith(idle)
        target, operand = -1, 0
        linked = fields[field] < offset + size
        while fields[field] < offset + size < len(code):
            field += 1
        if not linked and "rip" in operands and _RELATIVE.search(operands):
            return None
        if not linked and word.startswith(starts) and operands[:1].isdigit():
            target, operand = int(operands, 0), 4 if size >= 5 else 1
            distance = int.from_bytes(code[offset + size - operand : offset + size], "little", signed=True)
            if not 0 <= target < len(code) or offset + size + distance != target:
                return None
        falls = word not in ends
        anywhere = not falls and word.startswith(starts) and not operands[:1].isdigit()
        rows.append((offset, size, target, operand, falls, nothing, anywhere))
        at = offset + size
    if at != len(code):
        return None
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    found = Instructions(*columns)
    branches = found.target[found.target >= 0]
    return found if np.isin(branches, found.start).all() else None


def ever_returns(code: bytes, relocated: Rows, knowledge: Knowledge) -> bool:
    """Whether code has a way back to its caller: a return, or a jump to elsewhere.

    Args:
        relocated: as for :func:`read_instructions`.
    """
    known = knowledge.disassembler
    branches, ends = tuple(known["branches"]), frozenset(known["ends"])
    for offset, size, mnemonic, operands in _decoder(known["arch"], known["mode"]).disasm_lite(code, 0):
        word = mnemonic.rpartition(" ")[2]
        if word in ends:
            linked = np.searchsorted(relocated, offset) != np.searchsorted(relocated, offset + size)
            if linked or not word.startswith(branches) or not operands[:1].isdigit():
                return True
    return False


@cache
def _decoder(arch: str, mode: str) -> capstone.Cs:
    return capstone.Cs(getattr(capstone, arch), getattr(capstone, mode))
