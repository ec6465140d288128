"""Which functions may lose their cold blocks: those of which it is known, byte for byte, what ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from prune.model.callgraph import CallGraph
from prune.model.image import Image, matches
from prune.model.knowledge import Knowledge
from prune.plan.roots import find_roots
from prune.plan.rules import KeepRule, apply_rules
from prune.plan.trim import Range
from tracer.profiles.profile import Profile


def may_lose_blocks(
    image: Image,
    graph: CallGraph,
    profile: Profile,
    rules: tuple[KeepRule, ...],
    whole: Iterable[int],
    knowledge: Knowledge,
    script_symbols: frozenset[str],
) -> dict[int, list[Range]]:
    """Unit -> the byte ranges of it that were executed; without the units of ``whole``.

    A function that stays for another reason than having run stays whole: a root's way was not taken in every
    form that it must work in. So does what walks the kernel's tables, of which a pruned kernel has others,
    and what leads to system calls: those that are pruned answer.
    """
    barred = {*whole, *apply_rules(image, rules)[0]}
    walkers = [number for number, name in enumerate(image.objects) if matches(name, knowledge.walkers)]
    barred.update(np.flatnonzero(np.isin(image.units["object"], walkers)).tolist())
    leading = [name for calls in knowledge.system_calls for name in calls.origins]
    barred.update(image.defining(leading).tolist())
    for _, units in find_roots(image, graph, knowledge, script_symbols):
        barred.update(units.tolist())
    offsets: dict[tuple[int, str], int] = {}
    for unit, offset, _, name in image.functions:
        offsets.setdefault((unit, name), offset)
    found: dict[int, list[Range]] = {}
    for record in profile.functions:
        unit = image.unit_of.get((record.object, record.section), -1)
        at = offsets.get((unit, record.symbol))
        if at is None or not record.ran or not image.units["function"][unit]:
            barred.add(unit)
        else:
            found.setdefault(unit, []).extend((start + at, end + at) for start, end in record.ran)
    return _without(found, barred)


def _without(found: Mapping[int, list[Range]], barred: set[int]) -> dict[int, list[Range]]:
    return {unit: _joined(ranges) for unit, ranges in found.items() if unit not in barred}


def _joined(ranges: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
