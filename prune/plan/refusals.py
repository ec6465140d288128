"""Which dropped functions are entries of system calls: who asks for one is told that there is none.

That is no miss, and nobody is killed for it: as if it had been configured out (kernel/sys_ni.c). But each has
an address of its own, so that who watches can say by name what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prune.model.elf import Rows
from prune.model.image import Image, expression
from prune.model.knowledge import Knowledge, Redirect
from prune.plan.plan_file import Answer
from prune.plan.policy import REFUSE, Policy
from prune.plan.stops import referred_to


def find_refusals(
    image: Image, keep: Rows, policies: Sequence[Policy], knowledge: Knowledge
) -> dict[tuple[str, str], Answer]:
    """(object, section) -> what answers for the entry of a system call that is dropped there.

    Args:
        policies: what one of them speaks of, whatever it says, is left to it.
    """
    answering = who_answers(image, keep, knowledge)
    found: dict[tuple[str, str], Answer] = {}
    for unit, names in referred_to(image, keep).items():
        place = image.objects[int(image.units["object"][unit])]
        # An entry without arguments is the function itself by another name (SYSCALL_DEFINE0).
        entry = next(filter(answering, names), "")
        redirect = answering(entry)
        spoken = any(policy.names(name, place) for policy in policies for name in names)
        if redirect and not spoken:
            found[image.rows[unit][:2]] = Answer(entry, REFUSE, 0, redirect.value, redirect.to)
    return found


def who_answers(image: Image, keep: Rows, knowledge: Knowledge) -> Callable[[str], Redirect | None]:
    """Name -> what the kernel says for such a one when it is gone, if what says so is kept."""
    known = [(expression((each.pattern,)).match, each) for each in _kept(image, keep, knowledge.redirects)]

    def answering(name: str) -> Redirect | None:
        return next((each for matches, each in known if matches(name) and name != each.to), None)

    return answering


def _kept(image: Image, keep: Rows, redirects: Iterable[Redirect]) -> Iterable[Redirect]:
    for each in redirects:
        unit = int(image.symbol_unit[image.globals_[each.to]]) if each.to in image.globals_ else -2
        if unit == -1 or (unit >= 0 and keep[unit]):
            yield each
