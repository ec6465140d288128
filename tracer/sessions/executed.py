"""Which blocks a guest ran, by QEMU's log of what it translates (``-d in_asm``): their first addresses."""

from __future__ import annotations

import re

_BLOCK = re.compile(rb"^IN:[^\n]*\n0x([0-9a-f]+):", re.M)


def executed_blocks(log: bytes) -> tuple[tuple[int, int], ...]:
    """(first address, offset in the log) of the blocks, in order; one whose address is cut short is none."""
    return tuple((int(block[1], 16), block.start()) for block in _BLOCK.finditer(log))
