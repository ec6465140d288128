"""Tombstones: which dropped units are still referred to, and under which names the link will look.

A reference to a dropped unit that goes by a global name needs that name defined by the script. One that
goes by a local or section symbol needs a name first: the function's own when no object of the link uses
it, else the name with a number, so that two locals of one name stay two and the oops still reads well.
A name has a tombstone only when the definition that the link chose was dropped: a dropped weak
function never shadows the strong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prune.elf import SHF_EXECINSTR, STB_LOCAL, Rows
from prune.image import Image, matches
from prune.knowledge import Knowledge
from prune.script import Grave
from prune.tables import Tables
from tracer.host import UserError


@dataclass(frozen=True)
class Tombstone:
    """One dropped unit that is still referred to.

    ``names``: every name that the script gives the address; ``local_name`` is the one among them that
    references by local or section symbols are moved to, "" when there are none.
    """

    unit: int
    label: str
    names: tuple[str, ...]
    local_name: str

    @property
    def grave(self) -> Grave:
        return Grave(self.names)


@dataclass(frozen=True)
class Burial:
    """What the link needs to know of the dead.

    ``stones`` by unit; ``aliases`` maps a dropped name to the kept symbol that answers for it
    (pruned system calls); ``severed`` are the rows of ``image.relocations`` that refer to a dropped unit.
    """

    stones: dict[int, Tombstone]
    aliases: dict[str, str]
    severed: Rows


def bury_dropped(image: Image, tables: Tables, keep: Rows, knowledge: Knowledge) -> Burial:
    """Find the references that cross from kept to dropped units, and name a tombstone for each target.

    Raises:
        UserError: a kept unit refers to dropped data, which the plan must never do.
    """
    rows = image.relocations
    severed = np.flatnonzero(
        keep[rows["unit"]] & keep[tables.owner] & (rows["target"] >= 0) & ~keep[rows["target"]]
    )
    _no_dropped_data(image, rows[severed])
    local, global_rows = _by_symbol(image, severed)
    kept_names = {name: row for name, row in image.globals_.items() if _is_kept(image, keep, row)}
    aliases: dict[str, str] = {}
    names: dict[int, set[str]] = {}
    for row in sorted(global_rows):
        name, unit = image.symbol_name(row), global_rows[row]
        to = _answering(name, knowledge, kept_names)
        if to is not None:
            aliases[name] = to
        else:
            names.setdefault(unit, set()).add(name)
    stones: dict[int, Tombstone] = {}
    taken = set(image.global_names)
    labels = image.labels({*names, *local})
    for unit in sorted({*names, *local}):
        label = labels.get(unit) or image.names[unit].removeprefix(".text.")
        local_name = ""
        if unit in local:
            local_name = min(names.get(unit, ()), default="") or _free_name(label, taken)
            taken.add(local_name)
        all_names = tuple(sorted({*names.get(unit, ()), *([local_name] if local_name else [])}))
        stones[unit] = Tombstone(unit, label, all_names, local_name)
    return Burial(stones, aliases, severed)


def _no_dropped_data(image: Image, rows: Rows) -> None:
    executable = image.units["flags"][rows["target"]] & SHF_EXECINSTR != 0
    if not executable.all():
        row = rows[~executable][0]
        raise UserError(
            f"reading the plan: it keeps {image.unit_label(int(row['unit']))} and drops "
            f"{image.unit_label(int(row['target']))}, data that it refers to",
            "make the plan again: kprune plan",
        )


def _by_symbol(image: Image, severed: Rows) -> tuple[set[int], dict[int, int]]:
    """(units referred to by a local symbol, flat global symbol row -> unit)."""
    rows = image.relocations[severed]
    symbols, first = np.unique(rows["symbol"], return_index=True)
    local: set[int] = set()
    global_rows: dict[int, int] = {}
    for symbol, unit in zip(symbols.tolist(), rows["target"][first].tolist(), strict=True):
        obj, index = image.locate_symbol(symbol)
        if image.files[obj].symbols["info"][index] >> 4 == STB_LOCAL:
            local.add(unit)
        else:
            global_rows[symbol] = unit
    return local, global_rows


def _is_kept(image: Image, keep: Rows, row: int) -> bool:
    unit = int(image.symbol_unit[row])
    return unit < 0 or bool(keep[unit])


def _answering(name: str, knowledge: Knowledge, kept: Mapping[str, int]) -> str | None:
    for redirect in knowledge.redirects:
        if redirect.to in kept and name != redirect.to and matches(name, (redirect.pattern,)):
            return redirect.to
    return None


def _free_name(label: str, taken: set[str]) -> str:
    name, number = label, 1
    while name in taken:
        number += 1
        name = f"{label}.{number}"
    return name
