"""Which dropped functions answer instead of trapping, by the policies of the rules file.

Only what something kept refers to is looked at. A function may return a value when the compiler says that its
type has it: of a width that one register holds, in the range of the type, and a pointer only where the policy
speaks of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.instructions import ever_returns
from prune.model.knowledge import Knowledge, debug_option
from prune.plan.dwarf_types import ENUM, INTEGER, NOTHING, POINTER, FunctionType
from prune.plan.plan_file import Answer
from prune.plan.policy import PANIC, RETURN, TRAP, Policy, Value
from prune.plan.stops import referred_to
from prune.plan.typed import Types
from tracer.host import UserError

#: The function that ends the machine (kernel/panic.c).
_PANIC = "panic"
_LEAVE_OUT = 'give it a policy of its own before that one: on_miss = "trap"'


def find_answers(
    image: Image,
    keep: Rows,
    policies: Sequence[Policy],
    types: Callable[[str], Types],
    knowledge: Knowledge,
    options: frozenset[str],
) -> tuple[dict[tuple[str, str], Answer], tuple[Policy, ...]]:
    """((object, section) -> what the dropped function there does, the user's own policies that name no
    function).

    Args:
        keep: mask of the units that stay.
        types: object -> the types of its functions.
        options: that the kernel's configuration sets to y.

    Raises:
        UserError: a policy cannot be followed; the message names the function.
    """
    answers: dict[tuple[str, str], Answer] = {}
    for unit, functions in referred_to(image, keep).items():
        place = image.objects[int(image.units["object"][unit])]
        found = _answer(place, functions, policies, types, knowledge)
        if found:
            if found.on_miss == RETURN:
                _check_returns(image, unit, place, found, knowledge)
            answers[image.rows[unit][:2]] = found
    for what in dict.fromkeys(answer.on_miss for answer in answers.values()):
        _check_kernel(what, image, keep, knowledge, options)
    unused = (policy for policy in policies if not policy.family and not _names_any(image, policy))
    return answers, tuple(unused)


def _check_returns(image: Image, unit: int, place: str, answer: Answer, knowledge: Knowledge) -> None:
    """A compiler that sees that a function never returns puts no code behind the calls of it."""
    rows = image.relocations
    relocated = np.sort(rows["offset"][rows["unit"] == unit])
    if not ever_returns(image.content(unit), relocated, knowledge):
        raise UserError(
            f"policy {answer.policy}: {answer.function} ({place}) never returns, whatever its type says: "
            "there may be nothing behind the calls of it",
            _LEAVE_OUT,
        )


def _names_any(image: Image, policy: Policy) -> bool:
    objects = image.units["object"]
    return any(policy.names(name, image.objects[int(objects[unit])]) for unit, _, _, name in image.functions)


def _check_kernel(what: str, image: Image, keep: Rows, knowledge: Knowledge, options: frozenset[str]) -> None:
    """Whether code of this kind works in this kernel.

    Args:
        what: ``return`` or ``panic``.

    Raises:
        UserError: it does not.
    """
    known = knowledge.answer
    refused = sorted(options & set(known["refused"]))
    if refused:
        raise UserError(
            f"policy: this kernel checks what it calls ({refused[0]}): no code may stand in for a function "
            f'(on_miss = "{what}")',
            'use "trap" or "keep"',
        )
    if what == RETURN and known["checked"] in image.globals_:
        raise UserError(
            f"policy: this kernel warns of returns that it does not know ({known['checked']}, with "
            'CONFIG_MITIGATION_RETHUNK): on_miss = "return" is not possible',
            'use "trap" or "keep", or configure without it',
        )
    if what == PANIC and not _is_kept(image, keep, _PANIC):
        raise UserError(f'policy: this kernel has no {_PANIC}(): on_miss = "panic" is not possible')


def _is_kept(image: Image, keep: Rows, name: str) -> bool:
    unit = int(image.symbol_unit[image.globals_[name]]) if name in image.globals_ else -1
    return unit >= 0 and bool(keep[unit])


def _answer(
    place: str, functions: Sequence[str], policies: Iterable[Policy], types: Callable[[str], Types],
    knowledge: Knowledge,
) -> Answer | None:  # fmt: skip
    """What the first policy that matches says of one function, which may have several names."""
    for policy in policies:
        name = next((each for each in functions if policy.names(each, place)), None)
        if name is None:
            continue
        typed = _type_of(place, functions, types) if policy.types or policy.on_miss == RETURN else None
        if policy.types and not _fits(policy, typed, place, name, types):
            continue
        if policy.on_miss == TRAP:
            return None
        if policy.value is None:
            return Answer(name, PANIC, 0, "", str(policy))
        why = _why_not(policy.value, typed, knowledge)
        if why:
            raise UserError(f"policy {policy}: {name} ({place}) {why}", _LEAVE_OUT)
        return Answer(name, RETURN, policy.value.number, policy.value.text, policy.family or str(policy))
    return None


def _type_of(place: str, functions: Iterable[str], types: Callable[[str], Types]) -> FunctionType | None:
    """The type of a function under any of its names; None: the object tells of none of them."""
    known = types(place)
    return next((known[name] for name in functions if known.get(name)), None)


def _fits(
    policy: Policy, typed: FunctionType | None, place: str, name: str, types: Callable[[str], Types]
) -> bool:
    if typed is None and not types(place):
        raise UserError(
            f"policy {policy}: there is no type information for {name}, nor for anything else in {place}",
            f"configure the kernel with {debug_option()}",
        )
    return typed is not None and any(fnmatchcase(typed.text, glob) for glob in policy.types)


def _why_not(value: Value, typed: FunctionType | None, knowledge: Knowledge) -> str:
    """Why a function of this type may not return the value, "" if it may."""
    if typed is None:
        more = debug_option()
        return f"has no type that its object tells of; {more} tells more, but never of variants (.isra.0)"
    said = f"is {typed.text}"
    if typed.kind == NOTHING:
        return f"{said}: it returns nothing"
    if typed.kind == POINTER:
        return "" if value.pointer else f'{said}: say "NULL" or "ERR_PTR(-ENODEV)" for a pointer'
    if value.pointer:
        return f"{said}: it returns no pointer"
    if typed.kind == ENUM:
        return "" if value.number in typed.values else f"{said}: {value.text} is none of its values"
    if typed.kind != INTEGER:
        return f"{said}: it returns neither an integer nor a pointer"
    if typed.size > knowledge.machine.layout.bits // 8:
        return f"{said}: what it returns takes more than one register"
    inside = typed.least <= value.number <= typed.most
    return "" if inside else f"{said}: {value.text} is outside {typed.least} to {typed.most}"
