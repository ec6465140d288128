"""Which relocated fields of code are addresses that an instruction reads or writes at, and that go nowhere
else.

Most tell by the byte before them: relative to the instruction pointer, a field is the operand of the ModRM
byte that it follows (``linkerscripts/``, ``memory_operand``). Of the others, the functions are disassembled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from functools import cache

import capstone
import numpy as np

from prune.model.elf import SHF_EXECINSTR, SHF_MERGE, Rows
from prune.model.knowledge import Knowledge


def reads(units: Rows, relocations: Rows, data: Rows, knowledge: Knowledge) -> Rows:
    """Mask of the relocations of code that are such fields, of those into data that could go with code.

    Args:
        units, relocations: ``UNIT`` and ``RELOCATION`` rows.
        data: the bytes that ``units["at"]`` speaks of.
    """
    movable = units["data"] & units["alone"] & ~units["init"] & (units["flags"] & SHF_MERGE == 0)
    code = units["flags"] & SHF_EXECINSTR != 0
    asked = code[relocations["unit"]] & (relocations["target"] >= 0) & movable[relocations["target"]]
    known = knowledge.disassembler["memory_operand"]
    modrm, opcode = relocations["before"] & 0xFF, relocations["before"] >> 8
    told = asked & np.isin(relocations["type"], knowledge.kinds("pc32"))
    found: Rows = told & (modrm & known["mask"] == known["value"]) & ~np.isin(opcode, known["addresses"])
    rows = np.flatnonzero(asked & ~told)
    rows = rows[np.argsort(relocations["unit"][rows], kind="stable")]
    owners, first = np.unique(relocations["unit"][rows], return_index=True)
    bounds = [*first.tolist(), len(rows)]
    for unit, start, end in zip(owners.tolist(), bounds, bounds[1:], strict=False):
        at, size = int(units["at"][unit]), int(units["size"][unit])
        offsets = relocations["offset"][rows[start:end]].tolist()
        fields = memory_operands(data[at : at + size].tobytes(), knowledge, offsets)
        found[rows[start:end]] = [offset in fields for offset in offsets]
    # What is read through the global offset table is an address, and that goes anywhere.
    found &= ~np.isin(relocations["type"], knowledge.kinds("got"))
    return found


def memory_operands(code: bytes, knowledge: Knowledge, offsets: Iterable[int] | None = None) -> set[int]:
    """Offsets of the fields in some code that are the address of a memory operand.

    Args:
        offsets: only these are asked for; all for None.
    """
    known = knowledge.disassembler
    plain, closely = _decoders(known["arch"], known["mode"])
    wanted = None if offsets is None else sorted(offsets)
    found = set()
    for at, size, mnemonic, _ in plain.disasm_lite(code, 0):
        # Looking closely at an instruction takes ten times as long as finding where it ends.
        if wanted is not None and bisect_left(wanted, at) == bisect_left(wanted, at + size):
            continue
        if mnemonic not in known["addresses"]:
            for instruction in closely.disasm(code[at : at + size], at):
                if instruction.disp_offset:
                    found.add(at + instruction.disp_offset)
    return found


@cache
def _decoders(arch: str, mode: str) -> tuple[capstone.Cs, capstone.Cs]:
    """One that tells instructions apart, one that knows all of each."""
    plain, closely = (capstone.Cs(getattr(capstone, arch), getattr(capstone, mode)) for _ in range(2))
    closely.detail = True
    return plain, closely
