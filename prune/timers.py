"""What timers run: the functions that hot code sets a timer up for, and what those call that never ran.

Whether a timer goes off, and what it finds then, is chance: a host that is busy, an answer that comes late.
A trace sees some of it, and boots miss the rest one by one. The function is an argument of the call that sets
the timer up (``timer_setup``, include/linux/timer.h), so the relocation before that call names it.
"""

from __future__ import annotations

import numpy as np

from prune.callgraph import CALL, TAIL_CALL, CallGraph
from prune.elf import SHF_EXECINSTR, Rows, distinct
from prune.image import Image
from prune.knowledge import Knowledge

#: Calls away from a timer's function that stay. With examples/micro two steps are 0.1% of the kernel's text;
#: what boots missed of timers was no further away.
_STEPS = 2
#: Arguments are loaded before a call among the last few relocations, within so many bytes: compilers move
#: them to where they cost least.
_REFERENCES, _BYTES = 3, 256


def may_go_off(image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows) -> dict[int, str]:
    """Unit -> why it stays whole: what a timer may run that a unit of the mask ``ran`` sets up."""
    functions = timer_functions(image, knowledge, ran)
    reached = np.zeros(len(image.units), bool)
    reached[functions] = True
    calls = np.isin(graph.kind, (CALL, TAIL_CALL)) & ~ran[graph.target] & ~image.units["barred"][graph.target]
    source, target = graph.source[calls], graph.target[calls]
    for _ in range(_STEPS):
        reached[target[reached[source]]] = True
    reasons = dict.fromkeys(np.flatnonzero(reached).tolist(), "a timer that code sets up may call it")
    return reasons | dict.fromkeys(functions.tolist(), "code sets a timer up for it")


def timer_functions(image: Image, knowledge: Knowledge, ran: Rows) -> Rows:
    """The units that a unit of the mask ``ran`` hands to what sets timers up."""
    rows = image.relocations
    names = [image.globals_[name] for name in knowledge.closure["timers"]["setup"] if name in image.globals_]
    setters = image.symbol_unit[np.array(names, np.int64)]
    code = image.units["flags"] & SHF_EXECINSTR != 0
    hot = code & ran
    calling = np.isin(rows["target"], setters[setters >= 0]) & hot[rows["unit"]]
    # Objects list what they relocate in no order that anybody promises.
    rows = rows[np.isin(rows["unit"], rows["unit"][calling])]
    rows = rows[np.lexsort((rows["offset"], rows["unit"]))]
    calls = np.flatnonzero(np.isin(rows["target"], setters[setters >= 0]))
    loads = np.isin(rows["before"] & 0xFF, knowledge.kinds("second_argument"))
    found: list[Rows] = []
    for step in range(1, _REFERENCES + 1):
        row = calls - step
        near = (row >= 0) & (rows["unit"][row] == rows["unit"][calls])
        near &= rows["offset"][calls] - rows["offset"][row] <= _BYTES
        target = rows["target"][row[near & loads[row]]]
        found.append(target[(target >= 0) & image.units["function"][target]])
    return distinct(np.concatenate(found))
