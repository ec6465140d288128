"""A module that has to be refused: a copy of one that the kernel has; it needs a symbol that nobody exports.

How the loader refuses a module, by the missing symbol's name, no healthy workload shows: the modules that it
loads are all there. So every guest tries this one before it goes down, and what runs then is in the profile.
"""

from __future__ import annotations

import numpy as np

from prune.model.elf import SHN_UNDEF, STB_LOCAL, ObjectFile, add_name
from prune.model.knowledge import this_module
from prune.model.layout import like
from tracer.host import UserError

#: What it is called, and what it needs.
NAME, NEEDS = "kprune_refused", "kprune_needs_this"


def refused(file: ObjectFile, name: str) -> bytes:
    """The module ``name`` as one that is refused.

    Raises:
        UserError: it needs nothing, or does not say what it is called.
    """
    data = bytearray(file.data)
    _rename(data, file, name)
    bind = file.symbols["info"] >> 4
    undefined = np.flatnonzero((file.shndx == SHN_UNDEF) & (bind != STB_LOCAL)).tolist()
    if not undefined:
        raise UserError(f"making a module to be refused: {file.path} needs no symbol")
    layout = file.machine.layout
    sections, symbols = np.array(file.sections), np.array(file.symbols)
    strings = bytearray(file.strtab)
    symbols["name"][undefined[0]] = add_name(strings, NEEDS)
    data += bytes(-len(data) % 8)
    index = int(sections["link"][file.symtab])
    sections["offset"][index], sections["size"][index] = len(data), len(strings)
    data += strings
    rows = like(symbols, layout.symbol).tobytes()
    start = int(sections["offset"][file.symtab])
    data[start : start + len(rows)] = rows
    headers = like(sections, layout.section).tobytes()
    data[file.shoff : file.shoff + len(headers)] = headers
    return bytes(data)


def _rename(data: bytearray, file: ObjectFile, name: str) -> None:
    """The kernel knows a module by what stands in its struct module, and never has two of one name."""
    this = this_module()
    index = next((i for i, section in enumerate(file.section_names) if section == this), -1)
    at = file.content(index).find(name.encode() + b"\0") if index >= 0 else -1
    if at < 0:
        raise UserError(f"making a module to be refused: {file.path} has no struct module called {name}")
    start = int(file.sections["offset"][index]) + at
    both = max(len(name), len(NAME))
    data[start : start + both] = NAME.encode().ljust(both, b"\0")
