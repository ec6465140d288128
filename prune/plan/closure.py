"""What ran although the function tracer could not see it: reasoned from the call graph and what it did see.

ftrace reports every call of a traceable function while it is on. What else ran is of three kinds, and each
has a closure of its own. That what was watched did not run is evidence too, and keeps them tight:

    watched   functions without a site for the tracer (notrace, assembly, of files built without it) that
              a function which ran calls, or whose address it takes or finds in a table that it refers to;
              through more of their kind, never into a function that would have been reported
    early     what runs before the tracer is up, from the kernel's entry on: calls, address-taken functions,
              entries of the tables referred to. Where it comes to a function that was seen running later, it
              stops: what such a function calls was seen as well, then. (One step further where code that
              runs once calls such a function itself)
    boot      all that booting can reach, from the initcall tables on, when no boot was watched: nothing is
              known then of what did not run
    shutdown  what runs after process 1 has sent its last counts

Early and shutdown are approximations from both sides: a function that was seen may have called something in
its early days only. Such a miss is reported and healed like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from prune.model.callgraph import ADDRESS, CALL, TABLE, TAIL_CALL
from prune.model.elf import Rows, distinct
from prune.model.functions import Functions
from prune.model.image import matches
from prune.model.knowledge import Knowledge
from tracer.phase_names import HEALED
from tracer.profiles.profile import Profile
from tracer.profiles.signatures import Signatures
from tracer.profiles.symbols import Identity

#: Sources of a profile that see whatever runs.
SEES_ALL = frozenset({"blocks", "drcov"})
#: The run of a profile that watched a boot, and how it ends (here, elsewhere) when nothing was lost.
BOOT_WATCHED, WHOLE = "ftrace-boot", ("powered off", "ok")
WATCHED = "cannot be traced, called by what ran"
_CODE = (CALL, TAIL_CALL, ADDRESS)


@dataclass(frozen=True)
class Watched:
    """``ran``: functions that are known to have run, and that no source which sees all has seen; ``seen``:
    those that a function tracer reported, so that it would have reported what they call; ``blind``: functions
    that it cannot report; ``boot``: whether it watched a boot too, or another source saw all of one
    (``complete``)."""

    ran: tuple[Identity, ...]
    seen: tuple[Identity, ...]
    blind: tuple[Identity, ...]
    boot: bool
    complete: bool = False


def watched(profile: Profile, kinds: Signatures) -> Watched | None:
    """What the closures need to know of a profile; None when nobody said what was not seen.

    Args:
        kinds: of the profile.
    """
    if not profile.blind_spots:
        return None
    complete = bool(SEES_ALL & set(profile.sources))
    tracers = kinds.mask_of(spot.source for spot in profile.blind_spots)
    # The VM has seen what was missed, and will see what that calls: beside a source that sees all, that
    # leaves nothing open.
    all_seeing = kinds.mask_of(SEES_ALL | {HEALED} if complete else SEES_ALL)
    saw = tuple(zip(profile.functions, kinds.masks, strict=True))
    return Watched(
        tuple(record.identity for record, mask in saw if not mask & all_seeing),
        tuple(record.identity for record, mask in saw if mask & tracers),
        tuple({function: None for spot in profile.blind_spots for function in spot.functions}),
        any(run.source == BOOT_WATCHED and run.outcome in WHOLE for run in profile.runs),
        complete,
    )


def infer(what: Watched, functions: Functions, knowledge: Knowledge) -> dict[int, str]:
    """Unit -> why it may have run, of function units that were not seen."""
    reasoner = _Reasoner(what, functions, knowledge)
    reasons: dict[int, str] = {}
    for why, reached in reasoner.closures(what):
        for unit in distinct(functions.of_unit[reached & functions.is_code]).tolist():
            if functions.image.units["function"][unit]:
                reasons.setdefault(unit, f"inferred: {why}")
    ran = set(functions.of_unit[reasoner.ran].tolist())
    return {unit: why for unit, why in reasons.items() if unit not in ran}


class _Reasoner:
    """Masks over the vertices, and the closures over them."""

    def __init__(self, what: Watched, functions: Functions, knowledge: Knowledge) -> None:
        self.functions = functions
        self.graph = functions.graph
        self.known = knowledge.closure
        self.ran, self._what = self._mask_of(what.ran), what
        self.blind = self._mask_of(what.blind) & ~self.ran
        units = functions.image.units
        shared = ~units["function"]
        if (
            not what.complete
        ):  # nobody saw all that ran of what shared a section: it is kept (prune.plan.plan)
            shared |= functions.image.was_shared
        shared = shared[functions.of_unit] & functions.is_code
        self.shared, self.init = shared, functions.is_code & units["init"][functions.of_unit]

    @cached_property
    def seen(self) -> Rows:
        return self._mask_of(self._what.seen)

    @cached_property
    def barred(self) -> Rows:
        return self._named(self.known["barriers"]["symbols"])

    def closures(self, what: Watched) -> Iterable[tuple[str, Rows]]:
        """(reason, what is reached), the most certain first."""
        if what.complete:
            yield WATCHED, self.graph.reach(self.ran, self._into_blind())
            return
        yield WATCHED, self._watched(what.boot)
        early = self.known["early"]
        yield "early boot", self._through(self._named(early["start"]) | self._arrays(early["arrays"]))
        if not what.boot:
            boot = self.known["boot"]
            start = self._named((*early["start"], *boot["start"]))
            arrays = self._arrays((*early["arrays"], *boot["arrays"]))
            yield "boot", self.graph.reach(start | arrays, ~self.barred[self.graph.source])
        yield "shutdown", self._shutdown()

    def _watched(self, boot: bool) -> Rows:
        start = self.ran | (self.shared & ~self.init)
        if boot:
            start |= self._arrays((*self.known["early"]["arrays"], *self.known["boot"]["arrays"]))
        return self.graph.reach(start, self._into_blind())

    def _into_blind(self) -> Rows:
        """Edges to what would not have been reported."""
        enter: Rows = ~self.functions.is_code | self.blind | (self.shared & ~self.init)
        if self._what.complete:
            # What many variables share would lead to all that any of them holds: in vmlinux.o, to a thousand
            # functions from the five that a source which sees all has not seen.
            units = self.functions.image.units
            enter &= self.functions.is_code | (units["data"] & units["alone"])[self.functions.of_unit]
        return enter[self.graph.target]

    def _through(self, start: Rows) -> Rows:
        """From ``start``, not past functions that were seen."""
        leave = (~self.seen | start) & ~self.barred
        reached = self.graph.reach(start, leave[self.graph.source])
        # One step further than what was seen, where code that runs once comes to it directly.
        source, target = self.graph.source, self.graph.target
        calls = np.isin(self.graph.kind, (CALL, TAIL_CALL))
        direct = np.zeros_like(reached)
        direct[target[calls & (reached & self.init & ~self.seen)[source]]] = True
        beyond = start | reached
        beyond[target[calls & (direct & self.seen & ~self.init & ~self.barred)[source]]] = True
        return self.graph.reach(beyond, leave[source])

    def _shutdown(self) -> Rows:
        known = self.known["shutdown"]
        pointed = np.zeros_like(self.seen)
        # The tables and registrations that code which ran refers to.
        through = self._watched(boot=False)[self.graph.source] & np.isin(self.graph.kind, (ADDRESS, TABLE))
        pointed[self.graph.target[through]] = True
        start = self._named(known["start"]) | (self._matching(known["named"]) & pointed)
        source = self.graph.source
        leave = (~self.barred & ~self.seen) | start
        return self.graph.reach(start, leave[source] & np.isin(self.graph.kind, _CODE))

    # ---- masks

    def _mask_of(self, identities: Iterable[Identity]) -> Rows:
        find = self.functions.find
        return self.functions.mask(vertex for identity in identities for vertex in find(*identity))

    def _named(self, names: Iterable[str]) -> Rows:
        named = self.functions.named
        return self.functions.mask(vertex for name in names for vertex in named.get(name, ()))

    def _matching(self, patterns: list[str]) -> Rows:
        """Code of which a symbol, without the compiler's suffixes, matches."""
        names = [name for name in self.functions.named if matches(name.partition(".")[0], patterns)]
        return self._named(names) & self.functions.is_code

    def _arrays(self, sections: Iterable[str]) -> Rows:
        """Parts of arrays, by the sections' names."""
        patterns = list(sections)
        image = self.functions.image
        hits = {name: any(fnmatchcase(name, pattern) for pattern in patterns) for name in set(image.names)}
        return self.functions.mask(unit for unit, name in enumerate(image.names) if hits[name])
