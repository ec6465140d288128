"""What a pruned kernel says on its console that the whole one never said, and what it says no longer.

A function that is asked for and gone is a miss, which has a name. A kernel may also do without in silence:
what looks a function up by its name or type, and does not find it, only says so. So the lines of all boots
that ran the whole workload are held against those of all runs of the kernel that has everything. Numbers do
not count, for they differ from boot to boot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prune.model.knowledge import expected_lines
from tracer.host import UserError
from tracer.machines.vm import POWERED_OFF
from tracer.profiles.profile import load_profile

#: Lines of each kind that are kept: who needs more has the consoles.
MOST = 50
#: Runs of whole kernels below which what they never said may well be chance.
LEAST = 3
_LONGEST = 400
# CONFIG_PRINTK_TIME, CONFIG_PRINTK_CALLER (kernel/printk/printk.c, print_time(), print_caller()).
_PREFIX = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ")
# A number below 0 is one as well: `Marking stable (824513209, -3161034)` (kernel/sched/clock.c).
_NUMBER = re.compile(r"(?:(?<=[\s(,=])-(?=\d))?(?:0x[0-9a-fA-F]+|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{4,}\b|\d+)")


@dataclass(frozen=True)
class Line:
    """A line, as a console had it first, and how many of the boots had it or one like it."""

    text: str
    boots: int


@dataclass(frozen=True)
class Said:
    """``new``: lines of pruned kernels alone; ``missing``: of every run of whole kernels, of no pruned one.
    ``runs`` of whole kernels were held against ``boots`` of pruned ones."""

    runs: int
    boots: int
    new: tuple[Line, ...] = ()
    missing: tuple[Line, ...] = ()


def whole_consoles(profiles: Iterable[Path]) -> tuple[Path, ...]:
    """The consoles of the runs that profiles were made of, beside them, as far as they powered off."""
    found = []
    for path in profiles:
        try:
            runs = load_profile(path).runs
        except UserError:
            continue  # of another build or damaged: the stage that needs it says so
        found += [path.parent / run.name / "console.log" for run in runs if run.outcome == POWERED_OFF]
    return tuple(found)


def read_consoles(paths: Iterable[Path]) -> Iterator[str]:
    """What they hold, one at a time."""
    for path in paths:
        if path.is_file():
            yield path.read_text(errors="replace")


def compare(whole: Iterable[str], pruned: Iterable[str]) -> Said:
    """What the texts of consoles differ in; nothing when there are too few of either kind."""
    before, after = [_forms(text) for text in whole], [_forms(text) for text in pruned]
    if len(before) < LEAST or not after:
        return Said(len(before), len(after))
    known, spoken = (set().union(*each) for each in (before, after))
    always = set.intersection(*(set(forms) for forms in before))
    return Said(len(before), len(after), _lines(after, spoken - known), _lines(before, always - spoken))


def _forms(text: str) -> dict[str, str]:
    """The lines of a console without what differs from boot to boot -> as they were first."""
    found: dict[str, str] = {}
    expected = expected_lines()
    for line in text.splitlines():
        bare = _PREFIX.sub("", line).strip()[:_LONGEST]
        if bare and not bare.startswith(expected):
            found.setdefault(_NUMBER.sub("#", bare), bare)
    return found


def _lines(consoles: Sequence[Mapping[str, str]], forms: Iterable[str]) -> tuple[Line, ...]:
    """The forms as lines, those first that most consoles have, then in the order of consoles."""
    order: dict[str, tuple[int, str]] = {}
    wanted = set(forms)
    for console in consoles:
        for form, text in console.items():
            if form in wanted:
                boots, first = order.get(form, (0, text))
                order[form] = (boots + 1, first)
    ordered = sorted(order.values(), key=lambda each: -each[0])
    return tuple(Line(text, boots) for boots, text in ordered[:MOST])
