"""Names for the dead: what references by local symbols go by when their targets are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prune.model.elf import SHF_EXECINSTR, STB_LOCAL, Rows
from prune.model.image import STAND_IN, matches


def find_stand_ins(
    units: Rows,
    names: Sequence[str],
    relocations: Rows,
    symbols: Rows,
    functions: Sequence[tuple[int, str]],
    symbol_unit: Rows,
    chosen: Sequence[tuple[int, str]],
    everyone: frozenset[str],
    answered: Sequence[str],
) -> tuple[Rows, tuple[str, ...]]:
    """A name for each unit of code that its object refers to by a local or section symbol.

    It is a global name of the unit's own when the link chose that; else the function's when no object
    has a global name like it; else that with a number, so that two locals of one name stay two and an oops
    still reads well. A name that matches one of ``answered`` may come to mean what answers for it.
    """
    local = symbols["info"][relocations["symbol"]] >> 4 == STB_LOCAL
    code = units["flags"][relocations["target"]] & SHF_EXECINSTR != 0
    wanted = np.unique(relocations["target"][local & code & (relocations["target"] >= 0)])
    own: dict[int, tuple[str, int]] = {}
    for row, name in sorted(chosen, key=lambda pair: pair[1], reverse=True):
        if not matches(name, answered):
            own[int(symbol_unit[row])] = (name, row)
    labels: dict[int, str] = {}
    for unit, name in functions:
        labels.setdefault(unit, name)
    taken = set(everyone)
    found = []
    for unit in wanted.tolist():
        name, row = own.get(unit, ("", -1))
        if not name:
            label = name = labels.get(unit) or names[unit].removeprefix(".text.")
            number = 1
            while name in taken:
                number += 1
                name = f"{label}.{number}"
            taken.add(name)
        found.append((unit, name, row))
    made = np.array([(unit, 0, row) for unit, _, row in found], STAND_IN)
    return made, tuple(name for _, name, _ in found)
