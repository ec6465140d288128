"""``kprune why FUNCTION``: the shortest path from what ran or a root, or the reason for dropping."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import networkx as nx
import numpy as np

from prune.model.callgraph import CallGraph
from prune.model.image import Image
from prune.plan.plan_file import Answer as Said
from prune.plan.plan_file import Plan
from prune.plan.policy import REFUSE, STOP
from tracer.host import UserError


@dataclass(frozen=True)
class Step:
    """One unit on the path: how the unit before refers to it (``edge`` is "" for the first)."""

    unit: str
    edge: str


@dataclass(frozen=True)
class Answer:
    """Why one unit is kept or dropped. ``path`` leads to it from what ran or from a root.

    For a dropped unit the path says how kept code could still reach it, at its tombstone. ``cold``: the
    ranges of a kept one that were taken out; ``policy``: what it does when it is called although it was
    dropped.
    """

    function: str
    unit: str
    kept: bool
    reason: str
    path: tuple[Step, ...]
    referenced_by: int
    cold: tuple[tuple[int, int], ...] = ()
    policy: str = ""

    def __str__(self) -> str:
        lines = [f"{self.function} ({self.unit}): {'kept' if self.kept else 'dropped'}, {self.reason}"]
        if not self.kept:
            lines.append(f"  kept units that refer to it: {self.referenced_by}")
        if self.policy:
            lines.append(f"  when it is called: {self.policy}")
        if self.cold:
            size = sum(end - begin for begin, end in self.cold)
            where = ", ".join(f"{begin:#x}-{end:#x}" for begin, end in self.cold[:8])
            lines.append(f"  without {size:,} bytes of cold blocks: {where}{' ...' * (len(self.cold) > 8)}")
        for step in self.path:
            lines.append(f"  {step.edge + ' ' if step.edge else 'from '}{step.unit}")
        return "\n".join(lines)


def explain(image: Image, graph: CallGraph, plan: Plan, function: str) -> tuple[Answer, ...]:
    """One answer for each unit that holds a function of this name.

    Raises:
        UserError: no function or unit of that name.
    """
    units = sorted({unit for unit, _, _, name in image.functions if name == function})
    units = units or [u for u in range(len(image.units)) if function in (image.names[u], image.unit_label(u))]
    if not units:
        raise UserError(
            f"looking for {function}: this kernel has no function of that name",
            "it may be inlined into its callers; try object:section",
        )
    return tuple(_answer(image, graph, plan, function, unit) for unit in units)


def _answer(image: Image, graph: CallGraph, plan: Plan, function: str, unit: int) -> Answer:
    sources = np.array(
        [
            reason.startswith(("ran", "root", "rule", "healed", "inferred", "carried"))
            for reason in plan.reason
        ],
        bool,
    ) & plan.keep.astype(bool)
    into = graph.source[graph.target == unit]
    if plan.keep[unit] and sources[unit]:
        path: tuple[Step, ...] = ()
    else:
        path = _path(image, graph, plan, np.flatnonzero(sources).tolist(), unit)
    return Answer(
        function,
        image.unit_label(unit),
        bool(plan.keep[unit]),
        plan.reason[unit] if plan.keep[unit] else "it never ran, no root and no rule reaches it",
        path,
        int(plan.keep[np.unique(into)].sum()) if len(into) else 0,
        plan.cold.get(plan.units[unit][:2], ()),
        _policy(plan.answers.get(plan.units[unit][:2])),
    )


def _policy(answer: Said | None) -> str:
    if answer and answer.on_miss == STOP:
        return f"stop, for {answer.policy} there"
    if answer and answer.on_miss == REFUSE:
        return f"{answer.value}, by {answer.policy}"
    return f"{answer.on_miss} {answer.value}".rstrip() + f", by policy {answer.policy}" if answer else ""


def _path(image: Image, graph: CallGraph, plan: Plan, sources: list[int], unit: int) -> tuple[Step, ...]:
    kept = graph.graph.subgraph([*np.flatnonzero(plan.keep).tolist(), unit])
    try:
        _, nodes = nx.multi_source_dijkstra(kept, set(sources), unit, weight=lambda *_: 1)
    except nx.NetworkXNoPath:
        return ()
    steps = [Step(image.unit_label(nodes[0]), "")]
    for before, after in pairwise(nodes):
        steps.append(Step(image.unit_label(after), f"-- {kept.edges[before, after]['kind']} -->"))
    return tuple(steps)
