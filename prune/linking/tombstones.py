"""Tombstones: which dropped units are still referred to, and under which names the link will look.

A reference to a dropped unit that goes by a global name needs that name defined by the script. One that
goes by a local or section symbol goes by that of the unit's stand-in from now on (:mod:`prune.model.room`).
A name has a tombstone only when the definition that the link chose was dropped: a dropped weak
function never shadows the strong one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from prune.model.elf import SHF_EXECINSTR, STB_LOCAL, Rows, distinct
from prune.model.image import Image
from prune.model.tables import Tables
from tracer.host import UserError


class Tombstone(NamedTuple):
    """One dropped unit that is still referred to.

    ``names``: every name that the script gives the address; ``local_name`` is the one among them that
    references by local or section symbols are moved to, "" when there are none.
    """

    unit: int
    label: str
    names: tuple[str, ...]
    local_name: str


@dataclass(frozen=True)
class Burial:
    """What the link needs to know of the dead.

    ``stones`` by unit; ``aliases`` maps a dropped name to the kept symbol that answers for it; ``severed``
    are the rows of ``image.relocations`` that refer to a dropped unit, ``local`` says which of them do so
    by a local or section symbol; ``undefined`` are the flat symbol rows of definitions that the script takes
    over.
    """

    stones: dict[int, Tombstone]
    aliases: dict[str, str]
    severed: Rows
    local: Rows
    undefined: Rows


def bury_dropped(
    image: Image, tables: Tables, keep: Rows, shared: Mapping[int, str] = MappingProxyType({})
) -> Burial:
    """Find the references that cross from kept to dropped units, and name a tombstone for each target.

    Args:
        shared: dropped unit -> the kept symbol that is meant by its global names from now on.

    Raises:
        UserError: a kept unit refers to dropped data, which the plan must never do.
    """
    rows = image.relocations
    target = rows["target"]
    severed = np.flatnonzero((target >= 0) & keep[rows["unit"]] & keep[tables.owner] & ~keep[target])
    _no_dropped_data(image, rows[severed])
    local = image.symbols["info"][rows["symbol"][severed]] >> 4 == STB_LOCAL
    meant = distinct(image.definition[rows["symbol"][severed[~local]]])
    labels = [image.text.globals[row] for row in np.searchsorted(image.global_rows, meant).tolist()]
    aliases: dict[str, str] = {}
    names: dict[int, set[str]] = {}
    for name, unit in zip(labels, image.symbol_unit[meant].tolist(), strict=True):
        if unit in shared:
            aliases[name] = shared[unit]
        else:
            names.setdefault(unit, set()).add(name)
    by_local = distinct(target[severed[local]])
    stand_ins = image.units["stand_in"][by_local]
    for unit, number in zip(by_local.tolist(), stand_ins.tolist(), strict=True):
        names.setdefault(unit, set()).add(image.text.stand_ins[number])
    local_name = {
        unit: image.text.stand_ins[number]
        for unit, number in zip(by_local.tolist(), stand_ins.tolist(), strict=True)
    }
    units = sorted(names)
    known = image.labels(units)
    stones = {
        unit: Tombstone(
            unit, known.get(unit) or image.names[unit].removeprefix(".text."), tuple(sorted(names[unit])),
            local_name.get(unit, ""),
        )
        for unit in units
    }  # fmt: skip
    taken_over = image.stand_ins["row"][stand_ins]
    undefined = distinct(np.concatenate([meant, taken_over[taken_over >= 0]]))
    return Burial(stones, aliases, severed, local, undefined)


def _no_dropped_data(image: Image, rows: Rows) -> None:
    executable = image.units["flags"][rows["target"]] & SHF_EXECINSTR != 0
    if not executable.all():
        row = rows[~executable][0]
        raise UserError(
            f"reading the plan: it keeps {image.unit_label(int(row['unit']))} and drops "
            f"{image.unit_label(int(row['target']))}, data that it refers to",
            "make the plan again: kprune plan",
        )
