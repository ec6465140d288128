"""What is in a linked kernel, whoever linked it: functions, their bytes, sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile

from prune.model.layout import ELF32, ELF64

_FUNCTION, _ALLOCATED = 2, 2


@dataclass(frozen=True)
class Linked:
    """``functions``: different addresses of function symbols; ``text``: their bytes, which alignment (2 MB in
    places) is no part of; ``sections``: name -> size of what is loaded."""

    functions: int
    text: int
    sections: Mapping[str, int]


def read_vmlinux(path: Path) -> Linked:
    """Count a little-endian vmlinux."""
    with path.open("rb") as stream:
        file = ELFFile(stream)
        table = file.get_section_by_name(".symtab")
        layout, content = {32: ELF32, 64: ELF64}[file.elfclass], table.data() if table else b""
        rows = layout.symbols(content, len(content) // layout.symbol.itemsize, 0)
        sections = {s.name: s["sh_size"] for s in file.iter_sections() if s["sh_flags"] & _ALLOCATED}
    functions = rows[(rows["info"] & 15 == _FUNCTION) & (rows["shndx"] != 0)]
    order = np.lexsort((functions["size"], functions["value"]))
    # Of several names for an address the largest counts: the last one of its address.
    last = np.append(np.diff(functions["value"][order]) != 0, True)[: len(order)]
    return Linked(int(last.sum()), int(functions["size"][order][last].sum()), sections)
