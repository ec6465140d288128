"""What only booting needs goes where the kernel frees it.

A function that ran before the kernel freed its init memory, and never since, is placed between
``__init_begin`` and ``__init_end`` (init/main.c, ``free_initmem()``), like ``__init`` code. That it is called
once more is a miss: the pages are not executable any more (arch/x86/mm/init.c, ``free_init_pages()``).

It stays resident when there is any other reason to keep it, and when resident code refers to it that did
not run in boot: that way was never seen to end there in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.callgraph import ADDRESS, CALL, TAIL_CALL, CallGraph
from prune.elf import SHF_EXECINSTR, Rows
from prune.image import Image, matches
from prune.knowledge import Knowledge

Place = tuple[str, str]


@dataclass(frozen=True)
class Phases:
    """(object, section) of units that ran in ``boot``, and of those that ran ``only`` there: nothing saw
    them later, and no task slept in them."""

    boot: frozenset[Place]
    only: frozenset[Place]


def boot_only(
    image: Image, graph: CallGraph, phases: Phases | None, candidates: Rows, kept: Rows, knowledge: Knowledge
) -> Rows:
    """Mask of the units to be freed after boot.

    Args:
        candidates: mask of the units that are kept for having run alone.
        kept: mask of all kept units.
    """
    boot = np.zeros(len(image.units), bool)
    if phases is None:
        return boot
    boot[[image.unit_of[place] for place in phases.only if place in image.unit_of]] = True
    movable = np.array([matches(name, knowledge.boot_code) for name in image.names])
    boot &= candidates & image.units["function"] & movable
    ran = np.zeros(len(image.units), bool)
    ran[[image.unit_of[place] for place in phases.boot if place in image.unit_of]] = True
    code = image.units["flags"] & SHF_EXECINSTR != 0
    init = np.array([knowledge.is_init(name) for name in image.names])
    # Resident code that boot did not run; what is promoted here ran in boot, so once is enough.
    late = kept & code & ~init & ~ran
    refers = np.isin(graph.kind, (CALL, TAIL_CALL, ADDRESS)) & late[graph.source]
    boot[graph.target[refers]] = False
    return boot
