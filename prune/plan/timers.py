"""What timers, RCU, work queues and threads run: functions that hot code hands them, and what those call.

Whether a timer goes off, and what it finds then, is chance: a host that is busy, an answer that comes late.
So is whether something is called at once or put off. A trace sees some of it, and boots miss the rest one by
one. The function is an argument of the call that hands it on (``timer_setup``, include/linux/timer.h;
``call_rcu``; ``kthread_run``; constructors of slabs), so the relocation before that call names it; or it is
in the variable that is handed on (``DECLARE_WORK``, include/linux/workqueue.h); or it is stored just before
or behind the call that sets up its timer (``INIT_DELAYED_WORK``, ``hrtimer_init``). Where a function passes
an argument on, its caller names it.
"""

from __future__ import annotations

import numpy as np

from prune.model.callgraph import CALL, TAIL_CALL, CallGraph
from prune.model.elf import SHF_EXECINSTR, Rows, distinct
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.plan.plan import SMALL

#: Calls away from such a function that stay. With examples/micro all of it is 0.9% of the kernel's text;
#: what boots missed of timers was no further away.
_STEPS = 2
#: Arguments are loaded before a call among the last few relocations, within so many bytes: compilers move
#: them to where they cost least.
_REFERENCES, _BYTES = 3, 256


def may_go_off(
    image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows, lasting: Rows
) -> dict[int, str]:
    """Unit -> why it stays whole: what may be called later because a unit of the mask ``ran`` asks for it.
    ``lasting``: those among them that were seen to run after boot."""
    functions = _handed_on(image, graph, knowledge, ran)
    reached = np.zeros(len(image.units), bool)
    reached[functions] = True
    calls = (
        np.isin(graph.kind, (CALL, TAIL_CALL)) & ~lasting[graph.target] & ~image.units["barred"][graph.target]
    )
    source, target = graph.source[calls], graph.target[calls]
    for _ in range(_STEPS):
        reached[target[reached[source]]] = True
    reasons = dict.fromkeys(np.flatnonzero(reached).tolist(), "what code hands on for later may call it")
    return reasons | dict.fromkeys(functions.tolist(), "code hands it on, to be called later")


def with_jumps(image: Image, graph: CallGraph, units: Rows) -> Rows:
    """The mask ``units``, and the functions that these call and that are hardly more than a jump."""
    small = image.units["function"] & (image.units["size"] <= SMALL)
    called = graph.target[units[graph.source] & np.isin(graph.kind, (CALL, TAIL_CALL))]
    found: Rows = units.copy()
    found[called[small[called]]] = True
    return found


def _handed_on(image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows) -> Rows:
    """The functions that a unit of the mask ``ran`` hands to what calls them later."""
    known = knowledge.closure["timers"]
    # One that is hardly more than a jump does it for others (schedule_work): a boot on a busy host missed
    # what the watchdog of clocks has scheduled.
    hot = (image.units["flags"] & SHF_EXECINSTR != 0) & with_jumps(image, graph, ran)
    # What many variables share would hand on all that any of them holds: in vmlinux.o, half a kernel.
    function, data = image.units["function"], image.units["data"] & image.units["alone"]
    second = _Calls(image, knowledge, image.defining(known["setup"]), hot)
    given = second.loaded(function, knowledge.kinds("second_argument"))
    carrying = given[0][np.isin(given[1], image.defining(known["carriers"]))]
    beside = second.loaded(function)
    carried = beside[1][np.isin(beside[0], carrying)]
    behind = _Calls(image, knowledge, image.defining(known["behind"]), hot).stored_behind(function)
    forwarded = _Calls(image, knowledge, second.callers_but(given), hot).loaded(function)
    anywhere = _Calls(image, knowledge, image.defining(known["anywhere"]), hot).loaded(function)
    queued = np.zeros(len(image.units), bool)
    queued[_Calls(image, knowledge, image.defining(known["queue"]), hot).loaded(data)[1]] = True
    held = graph.target[queued[graph.source] & function[graph.target]]
    return distinct(np.concatenate([given[1], carried, behind, forwarded[1], anywhere[1], held]))


class _Calls:
    """The relocations of the hot units that refer to some ``callees``; ``calls``: which rows those are."""

    def __init__(self, image: Image, knowledge: Knowledge, callees: Rows, hot: Rows) -> None:
        rows = image.relocations
        calling = np.isin(rows["target"], callees) & hot[rows["unit"]]
        # Objects list what they relocate in no order that anybody promises.
        rows = rows[np.isin(rows["unit"], rows["unit"][calling])]
        self.rows = rows[np.lexsort((rows["offset"], rows["unit"]))]
        self.calls = np.flatnonzero(np.isin(self.rows["target"], callees))
        self.branches = knowledge.kinds("call") + knowledge.kinds("jump")

    def loaded(self, wanted: Rows, opcodes: tuple[int, ...] = ()) -> tuple[Rows, Rows]:
        """(row of ``calls``, unit of the mask ``wanted``) of what is loaded shortly before a call; by
        instructions that end with one of ``opcodes``, or by any but branches."""
        last = self.rows["before"] & 0xFF
        loads = np.isin(last, opcodes) if opcodes else ~np.isin(last, self.branches)
        calls: list[Rows] = []
        units: list[Rows] = []
        for step in range(1, _REFERENCES + 1):
            row = np.maximum(self.calls - step, 0)
            near = (self.calls >= step) & (self.rows["unit"][row] == self.rows["unit"][self.calls])
            near &= self.rows["offset"][self.calls] - self.rows["offset"][row] <= _BYTES
            near &= loads[row] & (self.rows["target"][row] >= 0)
            near[near] = wanted[self.rows["target"][row[near]]]
            calls.append(np.flatnonzero(near))
            units.append(self.rows["target"][row[near]])
        return np.concatenate(calls), np.concatenate(units)

    def stored_behind(self, wanted: Rows) -> Rows:
        """The units of the mask ``wanted`` that the next relocation behind a call refers to."""
        row = np.minimum(self.calls + 1, len(self.rows) - 1)
        near = (row > self.calls) & (self.rows["unit"][row] == self.rows["unit"][self.calls])
        near &= self.rows["offset"][row] - self.rows["offset"][self.calls] <= _BYTES
        near &= ~np.isin(self.rows["before"][row] & 0xFF, self.branches) & (self.rows["target"][row] >= 0)
        near[near] = wanted[self.rows["target"][row[near]]]
        found: Rows = self.rows["target"][row[near]]
        return found

    def callers_but(self, given: tuple[Rows, Rows]) -> Rows:
        """The units with a call for which nothing of ``given`` (of :meth:`loaded`) is loaded: they pass an
        argument of their own on."""
        return distinct(self.rows["unit"][np.delete(self.calls, given[0])])
