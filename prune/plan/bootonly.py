"""What only booting needs goes where the kernel frees it.

A function that ran before the kernel freed its init memory, and never since, is placed between
``__init_begin`` and ``__init_end`` (init/main.c, ``free_initmem()``), like ``__init`` code. That it is called
once more is a miss: the pages are not executable any more (arch/x86/mm/init.c, ``free_init_pages()``).

It stays resident when there is any other reason to keep it, and when resident code refers to it that did
not run in boot: that way was never seen to end there in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prune.model.callgraph import ADDRESS, CALL, TAIL_CALL, CallGraph
from prune.model.elf import SHF_EXECINSTR, SHF_MERGE, Rows
from prune.model.image import Image


@dataclass(frozen=True)
class Phases:
    """The units that ran in ``boot``, and those that ran ``only`` there: nothing saw them later, and no task
    slept in them."""

    boot: Sequence[int]
    only: Sequence[int]


def boot_only(image: Image, graph: CallGraph, phases: Phases | None, candidates: Rows, kept: Rows) -> Rows:
    """Mask of the units to be freed after boot.

    Args:
        candidates: mask of the units that are kept for having run alone.
        kept: mask of all kept units.
    """
    boot = np.zeros(len(image.units), bool)
    if phases is None:
        return boot
    boot[list(phases.only)] = True
    boot &= candidates & image.units["function"] & image.units["movable"]
    ran = np.zeros(len(image.units), bool)
    ran[list(phases.boot)] = True
    code = image.units["flags"] & SHF_EXECINSTR != 0
    # Resident code that boot did not run; what is promoted here ran in boot, so once is enough.
    late = kept & code & ~image.units["init"] & ~ran
    refers = np.isin(graph.kind, (CALL, TAIL_CALL, ADDRESS)) & late[graph.source]
    boot[graph.target[refers]] = False
    return boot


def boot_data(image: Image, boot: Rows, kept: Rows, named: Rows) -> Rows:
    """Mask of the data that goes with the code which is freed.

    That nobody else refers to a variable is not enough: its address may be in a list by now. So every
    reference to it must be the memory operand of an instruction that is freed: it was never anywhere.

    Args:
        boot: mask of the code that is freed after boot, besides init code.
        named: units that the linker script names.
    """
    rows, units = image.relocations, image.units
    code = units["flags"] & SHF_EXECINSTR != 0
    found: Rows = units["data"] & kept & ~units["init"] & units["alone"] & (units["flags"] & SHF_MERGE == 0)
    found[named] = False
    refers = (rows["target"] >= 0) & kept[rows["unit"]]
    freed_code = code & (boot | units["init"])
    found[rows["target"][refers & ~(freed_code[rows["unit"]] & rows["reads"])]] = False
    reached = np.zeros(len(units), bool)
    reached[rows["target"][refers]] = True
    return found & reached
