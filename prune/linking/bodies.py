"""What lies at a tombstone: the trap, or for a policy code that returns a value, or panics.

A body is bytes and distances to symbols, which only the linker knows: it is laid down by the script. It has
no relocation, since it counts from its own place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune.linking.script import quoted
from prune.linking.tombstones import Burial
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.plan.plan_file import Answer
from prune.plan.policy import PANIC, STOP, panic_text

#: The function that ends the machine (kernel/panic.c).
_PANIC = "panic"
_FIELD = 4


@dataclass(frozen=True)
class Toward:
    """A field of four bytes: how far it is from its end to a symbol."""

    symbol: str


@dataclass(frozen=True)
class Body:
    """What one tombstone is made of."""

    parts: tuple[bytes | Toward, ...]

    @property
    def size(self) -> int:
        return sum(_FIELD if isinstance(part, Toward) else len(part) for part in self.parts)

    def statements(self, begin: str) -> str:
        """The same for a linker script.

        Args:
            begin: the symbol where it begins: lld knows no location counter within a statement.
        """
        words, at = [], 0
        for part in self.parts:
            if isinstance(part, Toward):
                at += _FIELD
                words.append(f"LONG({quoted(part.symbol)} - ({quoted(begin)} + {at}))")
            else:
                at += len(part)
                words += [f"BYTE({value:#04x})" for value in part]
        return " ".join(words)


def answer_bodies(
    answers: Mapping[tuple[str, str], Answer], image: Image, knowledge: Knowledge, options: frozenset[str]
) -> dict[tuple[str, str], Body]:
    """What lies at the tombstone of each unit that answers."""
    known = knowledge.answer
    landing = bytes(known["landing"]["code"]) if known["landing"]["option"] in options else b""
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

    return {place: body(place, answer) for place, answer in answers.items()}


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
