"""ELF notes, of a file or of ``/sys/kernel/notes`` (gABI chapter 5, Note Section)."""

from __future__ import annotations

import struct

_GNU_BUILD_ID = 3


def read_build_id(notes: bytes) -> str:
    """The GNU build id among ELF notes, in hex, "" without one; of either byte order."""
    for order in "<>":
        at = 0
        while at + 12 <= len(notes):
            name_size, size, kind = struct.unpack_from(f"{order}3I", notes, at)
            name = notes[at + 12 : at + 12 + name_size]
            begin = at + 12 + (name_size + 3 & ~3)
            if name == b"GNU\0" and kind == _GNU_BUILD_ID and 0 < size <= 64:
                return notes[begin : begin + size].hex()
            at = begin + (size + 3 & ~3)
    return ""
