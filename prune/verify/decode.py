"""Machine code as verify reads it, by what ``linkerscripts/`` says of the architecture.

Bytes that the disassembler does not know are passed over one at a time and called ``.byte``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import capstone

#: What a byte that is no instruction is called.
UNKNOWN = ".byte"
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")

Row = tuple[int, int, str, str]
"""(address, size in bytes, mnemonic, operands) of one instruction."""


class Decoder:
    """The disassembler of one architecture.

    ``longest``: bytes of its longest instruction.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        known = facts["disassembler"]
        self._plain, self._closely = (
            capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"])) for _ in range(2)
        )
        self._plain.skipdata = self._closely.skipdata = self._closely.detail = True
        self.longest = int(known["longest"])
        self._branches, self._ends = tuple(known["branches"]), frozenset(known["ends"])
        self._addresses, self._idle = frozenset(known["addresses"]), frozenset(known["idle"])
        here = known.get("here")
        self._relative = re.compile(rf"\[{here} (?:([+-]) (0x[0-9a-f]+|\d+))?\]") if here else None
        self._kinds: dict[str, bool] = {}

    def rows(self, code: bytes, address: int = 0) -> Iterator[Row]:
        found: Iterator[Row] = self._plain.disasm_lite(code, address)
        return found

    def target(self, mnemonic: str, operands: str) -> int | None:
        """Where a direct branch or call leads, None for every other instruction."""
        branches = self._kinds.get(mnemonic)
        if branches is None:
            word = mnemonic.rpartition(" ")[2]  # behind prefixes
            branches = self._kinds[mnemonic] = word.startswith(self._branches)
        return int(operands, 0) if branches and _NUMBER.fullmatch(operands) else None

    def falls(self, mnemonic: str) -> bool:
        """Whether the next instruction may follow."""
        return mnemonic.rpartition(" ")[2] not in self._ends

    def address(self, row: Row) -> int | None:
        """The address that an instruction forms by counting from its own end, without going there."""
        begin, size, mnemonic, operands = row
        if self._relative is None or mnemonic not in self._addresses:
            return None
        found = self._relative.search(operands)
        if not found:
            return None
        distance = int(found[2] or "0", 0)
        return begin + size + (-distance if found[1] == "-" else distance)

    def is_idle(self, code: bytes) -> bool:
        """Whether these are instructions without effect alone."""
        return all(f"{mnemonic} {operands}".rstrip() in self._idle or mnemonic in self._idle
                   for _, _, mnemonic, operands in self.rows(code))  # fmt: skip

    def operands(self, code: bytes) -> set[int]:
        """Offsets of the fields that are the address of a memory operand which is read or written at."""
        return {
            each.address + each.disp_offset
            for each in self._closely.disasm(code, 0)
            if each.id and each.disp_offset and each.mnemonic not in self._addresses
        }
