"""What lies at a tombstone: the trap, or for a policy code that returns a value, or panics.

A body is bytes and distances to symbols, which only the linker knows: it is laid down by the script. It has
no relocation, since it counts from its own place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prune.linking.script import quoted
from prune.linking.tombstones import Burial
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.plan.plan_file import Answer
from prune.plan.policy import PANIC, REFUSE, STOP, panic_text

#: The function that ends the machine (kernel/panic.c).
_PANIC = "panic"
#: Bytes of a field that reaches every place, and of one that reaches no further than :data:`_NEAR`.
_FIELD, _BYTE = 4, 1
_NEAR = 127


@dataclass(frozen=True)
class Toward:
    """A field of ``size`` bytes: how far it is from its end to ``behind`` bytes behind a symbol."""

    symbol: str
    size: int = _FIELD
    behind: int = 0


@dataclass(frozen=True)
class Body:
    """What one tombstone is made of."""

    parts: tuple[bytes | Toward, ...]

    @property
    def size(self) -> int:
        return sum(part.size if isinstance(part, Toward) else len(part) for part in self.parts)

    def statements(self, begin: str) -> str:
        """The same for a linker script.

        Args:
            begin: the symbol where it begins: lld knows no location counter within a statement.
        """
        words, at = [], 0
        for part in self.parts:
            if isinstance(part, Toward):
                at += part.size
                command = "LONG" if part.size == _FIELD else "BYTE"
                words.append(f"{command}({quoted(part.symbol)} - ({quoted(begin)} + {at - part.behind}))")
            else:
                at += len(part)
                words += [f"BYTE({value:#04x})" for value in part]
        return " ".join(words)


def answer_bodies(
    answers: Mapping[tuple[str, str], Answer], image: Image, knowledge: Knowledge, options: frozenset[str]
) -> dict[tuple[str, str], Body]:
    """What lies at the tombstone of each unit that answers, but for system calls."""
    known = knowledge.answer
    landing = _landing(knowledge, options)
    # A global one: a header may define an empty function of that name (arch/x86/include/asm/nospec-branch.h).
    ending: Sequence[bytes | Toward] = [bytes(known["return"])]
    if known["thunk"] in image.globals_:
        ending = [bytes(known["jump"]), Toward(known["thunk"]), bytes(known["return"])[1:]]

    def body(place: tuple[str, str], answer: Answer) -> Body:
        if answer.on_miss == STOP:
            return Body((bytes(known["stop"]),))
        if answer.on_miss == PANIC:
            return Body((landing, *_panic(place, answer, knowledge)))
        value = (answer.number & 0xFFFFFFFF).to_bytes(4, "little")
        return Body((landing, bytes(known["load"]) + value, *ending))

    return {place: body(place, answer) for place, answer in answers.items() if answer.on_miss != REFUSE}


def shared_answers(
    answers: Mapping[tuple[str, str], Answer], image: Image, knowledge: Knowledge, options: frozenset[str]
) -> dict[int, str]:
    """Unit -> the function that answers for the system call that it was, where the kernel checks what lies
    before a function that it calls: only a function will do, and none of them has a place of its own."""
    if not options & set(knowledge.answer["refused"]):
        return {}
    calls = {place: answer.policy for place, answer in answers.items() if answer.on_miss == REFUSE}
    return {image.unit_of[place]: to for place, to in calls.items()}


def refusals(
    answers: Mapping[tuple[str, str], Answer], image: Image, burial: Burial, knowledge: Knowledge,
    options: frozenset[str],
) -> tuple[Burial, dict[tuple[str, str], Body]]:  # fmt: skip
    """(the same with the entries of system calls side by side, behind all others; what lies at each of them).

    Two bytes each, which lead to one jump to what answers, behind the last of some dozens. That is at none of
    their addresses: it would be taken for whoever has it.
    """
    of = {unit: answers.get(image.rows[unit][:2]) for unit in burial.stones}
    calls = {unit: answer.policy for unit, answer in of.items() if answer and answer.on_miss == REFUSE}
    known, landing = knowledge.answer, _landing(knowledge, options)
    near = len(landing) + len(known["near"]) + _BYTE
    most = 1 + _NEAR // near
    bodies: dict[tuple[str, str], Body] = {}
    for to in sorted(set(calls.values())):
        units = [unit for unit in calls if calls[unit] == to]
        for first in range(0, len(units), most):
            some = units[first : first + most]
            last = burial.stones[some[-1]].names[0]
            lead = Body((landing, bytes(known["near"]), Toward(last, _BYTE, near)))
            bodies |= {image.rows[unit][:2]: lead for unit in some}
            bodies[image.rows[some[-1]][:2]] = Body((*lead.parts, bytes(known["jump"]), Toward(to)))
    # One list for each of those who answer, as they were taken just now.
    behind = sorted(calls, key=lambda unit: calls[unit])
    order = [unit for unit in burial.stones if unit not in calls] + behind
    return replace(burial, stones={unit: burial.stones[unit] for unit in order}), bodies


def _landing(knowledge: Knowledge, options: frozenset[str]) -> bytes:
    known = knowledge.answer["landing"]
    return bytes(known["code"]) if known["option"] in options else b""


def laid_down(bodies: Mapping[tuple[str, str], Body], image: Image, burial: Burial) -> dict[int, str]:
    """Number of a tombstone -> the statements of what lies there instead of the trap."""
    stones = enumerate(burial.stones.items())
    places = ((number, image.rows[unit][:2], stone) for number, (unit, stone) in stones)
    return {
        number: bodies[place].statements(stone.names[0]) for number, place, stone in places if place in bodies
    }


def _panic(place: tuple[str, str], answer: Answer, knowledge: Knowledge) -> tuple[bytes | Toward, ...]:
    text = panic_text(answer.function, place[0]).encode("ascii", "replace") + b"\0"
    over, call = bytes(knowledge.answer["over"]), bytes(knowledge.answer["call"])
    return over + len(text).to_bytes(4, "little") + text + call, Toward(_PANIC)
