"""Which relocated fields of code are addresses that an instruction reads or writes at, and that go nowhere
else.

Most tell by the byte before them: relative to the instruction pointer, a field is the operand of the ModRM
byte that it follows (``linkerscripts/``, ``memory_operand``). Of the others, the functions are disassembled.
"""

from __future__ import annotations

import capstone
import numpy as np

from prune.elf import SHF_EXECINSTR, SHF_MERGE, Rows
from prune.knowledge import Knowledge


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
    for unit in np.unique(relocations["unit"][rows]).tolist():
        mine = rows[relocations["unit"][rows] == unit]
        at = int(units["at"][unit])
        fields = memory_operands(data[at : at + int(units["size"][unit])].tobytes(), knowledge)
        found[mine] = [offset in fields for offset in relocations["offset"][mine].tolist()]
    # What is read through the global offset table is an address, and that goes anywhere.
    found &= ~np.isin(relocations["type"], knowledge.kinds("got"))
    return found


def memory_operands(code: bytes, knowledge: Knowledge) -> set[int]:
    """Offsets of the fields in some code that are the address of a memory operand."""
    known = knowledge.disassembler
    decoder = capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"]))
    decoder.detail = True
    return {
        instruction.address + instruction.disp_offset
        for instruction in decoder.disasm(code, 0)
        if instruction.disp_offset and instruction.mnemonic not in known["addresses"]
    }
