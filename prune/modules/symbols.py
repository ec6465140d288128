"""A module without the symbols that it needs no more.

The loader resolves whatever is undefined in a module's symbol table, whether something refers to it or not
(simplify_symbols() of kernel/module/main.c), and ld hands on what its inputs have there.
"""

from __future__ import annotations

import numpy as np

from prune.model.elf import SHN_UNDEF, STB_LOCAL, ObjectFile, Rows
from prune.model.layout import SYMBOL_SHIFT, kinds_of, like

_SHT_GROUP = 17


def without_unneeded(file: ObjectFile) -> bytes:
    """The file without its undefined symbols that no relocation names. Locals come first and stay, so only
    the numbers of global ones change."""
    undefined = (file.shndx == SHN_UNDEF) & (file.symbols["info"] >> 4 != STB_LOCAL)
    stays = ~undefined | _named(file)
    number = np.cumsum(stays) - 1
    data, layout = bytearray(file.data), file.machine.layout
    sections = np.array(file.sections)
    for index in file.relocation_sections():
        kind, at = file.machine.relocation, int(sections["offset"][index])
        rows = file.relocations(index)
        raw = np.frombuffer(file.data, kind, len(rows), at).copy()
        symbols = number[(rows["info"] >> SYMBOL_SHIFT).astype(np.int64)]
        raw["info"] = layout.info(symbols, kinds_of(rows))
        data[at : at + raw.nbytes] = raw.tobytes()
    for index in np.flatnonzero(sections["type"] == _SHT_GROUP).tolist():
        sections["info"][index] = number[int(sections["info"][index])]
    left = like(file.symbols[stays], layout.symbol).tobytes()
    at = int(sections["offset"][file.symtab])
    data[at : at + len(left)] = left
    sections["size"][file.symtab] = len(left)
    headers = like(sections, layout.section).tobytes()
    data[file.shoff : file.shoff + len(headers)] = headers
    return bytes(data)


def _named(file: ObjectFile) -> Rows:
    """Mask of the symbols that relocations name."""
    named = np.zeros(len(file.symbols), bool)
    for index in file.relocation_sections():
        named[(file.relocations(index)["info"] >> SYMBOL_SHIFT).astype(np.int64)] = True
    return named
