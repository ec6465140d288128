"""Damage: a sample in, something that is nearly one out, the same for the same random numbers.

A mutator is ``(random numbers, samples) -> input``. Those for text know of lines and words, those for JSON of
values and keys, those for ELF of words of four bytes; each is joined by plain damage of bytes now and then.
"""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutator = Callable[[Random, Sequence[bytes]], bytes]
#: Name -> content of what a file holds that has sums or headers over it; see :func:`of_parts`.
Parts = dict[str, bytes]

#: What a name from elsewhere could hold to do harm.
HOSTILE = (
    "$(touch harm)", "`touch harm`", '"; } harm = .; /*', "../../../harm", "/harm", "</script><b>",
    "\x1b[2Jx",
    "a\nb", "a\r\nb", "*", "-rf", "--output=harm", "a b", "", "\u202e", "\ufeff", "*/", "' harm '", "%s%n",
    "x" * 5000, "@harm", "\\", "a\tb", "\x7f", "\x9b2J",
)  # fmt: skip
NUMBERS = (
    0, 1, -1, 2, 3, 7, 8, 12, 16, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 0x7FFFFFFF, 0x80000000,
    0xFFFFFFFF, 1 << 32, 1 << 47, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 63), 1 << 200,
)  # fmt: skip
_WORDS = (0, 1, 2, 3, 4, 5, 8, 9, 17, 18, 24, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFF1, 0xFFFF, 1 << 20)
#: Values of any other type than what is expected.
_VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, "", 0.5, 1e308, float("nan"), float("inf"), [[]], [None], {"a": 1}, [1, 2, 3],
    "\ud800", "\0", "é", *NUMBERS, *HOSTILE,
)  # fmt: skip


def of_bytes(random: Random, samples: Sequence[bytes]) -> bytes:
    """Bytes changed, put in, taken out, repeated, cut off, and taken from another sample."""
    data = bytearray(random.choice(samples))
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        _damage(random, data, samples)
    return bytes(data)


def _damage(random: Random, data: bytearray, samples: Sequence[bytes]) -> None:
    at = random.randrange(len(data) + 1)
    kind = random.randrange(9)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << random.randrange(8)
    elif kind == 1:
        data[at : at + 1] = bytes([random.randrange(256)])
    elif kind == 2:
        data[at:at] = random.randbytes(random.randint(1, 20))
    elif kind == 3:
        del data[at : at + random.choice((1, 2, 4, 8, 100))]
    elif kind == 4:
        del data[at:]
    elif kind == 5:
        size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
        number = random.choice(NUMBERS) & ((1 << 8 * size) - 1)
        data[at : at + size] = number.to_bytes(size, order)  # type: ignore[arg-type]
    elif kind == 6:
        chunk = data[at : at + random.choice((1, 8, 64, 512))]
        data[at:at] = chunk * random.choice((1, 2, 50))
    elif kind == 7:
        other = random.choice(samples)
        begin = random.randrange(len(other) + 1)
        data[at : at + random.choice((0, 64, 1 << 30))] = other[
            begin : begin + random.choice((8, 512, 1 << 30))
        ]
    else:
        text = random.choice(HOSTILE).encode("utf-8", "surrogatepass")
        data[at : at + len(text) * random.randrange(2)] = text


def of_text(random: Random, samples: Sequence[bytes]) -> bytes:
    """Lines taken out, moved, repeated, taken from other samples, and words in them changed."""
    if random.randrange(6) == 0:
        return of_bytes(random, samples)
    lines = random.choice(samples).split(b"\n")
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(lines)) if lines else 0
        kind = random.randrange(7)
        if kind == 0:
            del lines[at : at + random.choice((1, 1, 3))]
        elif kind == 1:
            lines[at:at] = lines[at : at + 3] * random.choice((1, 1, 300))
        elif kind == 2:
            lines.insert(at, random.choice(random.choice(samples).split(b"\n")))
        elif kind == 3 and lines:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 4 and lines:
            begin = random.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:begin] + _word(random) + lines[at][begin:]
        elif lines:
            words = lines[at].split(b" ")
            words[random.randrange(len(words))] = _word(random)
            lines[at] = b" ".join(words)
    return b"\n".join(lines)


def _word(random: Random) -> bytes:
    kind = random.randrange(6)
    number = random.choice(NUMBERS)
    if kind == 0:
        return b"%d" % number
    if kind == 1:
        return b"0x%x" % (number % (1 << 128))
    if kind == 2:
        return b"9" * random.choice((20, 400, 5000))
    if kind == 3:
        return random.randbytes(random.randint(1, 8))
    if kind == 4:
        return random.choice(
            (b"{", b"}", b"[", b"]", b"(", b")", b'"', b":", b"=", b"\0", b"\xff\xfe", b"\xe2\x80\xa8")
        )
    return random.choice(HOSTILE).encode("utf-8", "surrogatepass")


def of_json(random: Random, samples: Sequence[bytes]) -> bytes:
    """Values of other types and sizes, keys too many and too few, nesting without end, what JSON has not."""
    kind = random.randrange(12)
    if kind == 0:
        return of_bytes(random, samples)
    value = json.loads(random.choice(samples))
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        value = _changed(random, value)
    text = json.dumps(value)
    if kind == 1:
        deep = random.choice((100, 2000, 200_000))
        opening, closing = random.choice((("[", "]"), ('{"a":', "}")))
        return _replaced(random, text, opening * deep + "1" + closing * deep).encode()
    if kind == 2:
        return _replaced(
            random, text, random.choice(("9" * 5000, "1e999999", "-0", "1E400", "0" * 100))
        ).encode()
    return text.encode("utf-8", "surrogatepass")


def _replaced(random: Random, text: str, new: str) -> str:
    """One number or string of the text replaced."""
    starts = [at for at, sign in enumerate(text) if sign in ":[," and text[at + 1 : at + 2] == " "] or [0]
    at = random.choice(starts) + 1
    end = min((found for sign in ",]}" if (found := text.find(sign, at)) >= 0), default=len(text))
    return text[:at] + new + text[end:]


def _changed(random: Random, value: Any) -> Any:
    places = list(_places(value))
    if not places or random.randrange(40) == 0:
        return copy.deepcopy(random.choice(_VALUES))
    holder, key = random.choice(places)
    kind = random.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder[key:key] = [copy.deepcopy(holder[key])] * random.choice((1, 1, 100))
    elif kind == 1:
        holder[random.choice(HOSTILE)] = copy.deepcopy(holder[key])
    elif kind == 2:
        other, name = random.choice(places)
        if name in other if isinstance(other, dict) else name < len(other):
            holder[key] = copy.deepcopy(other[name])
    elif kind == 3 and isinstance(holder[key], str):
        text = holder[key]
        at = random.randrange(len(text) + 1)
        holder[key] = text[:at] + random.choice(HOSTILE) + text[at:]
    elif kind == 3 and isinstance(holder[key], int):
        holder[key] = random.choice(NUMBERS)
    else:
        holder[key] = copy.deepcopy(random.choice(_VALUES))
    return value


def _places(value: Any) -> Any:
    """(list or dict, index or key) of everything in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def of_elf(random: Random, samples: Sequence[bytes]) -> bytes:
    """Fields of headers, sections, symbols and relocations with other values that mean something."""
    if random.randrange(5) == 0:
        return of_bytes(random, samples)
    data = bytearray(random.choice(samples))
    headers = struct.unpack_from("<I", data, 32 if data[4] == 1 else 40)[0]
    for _ in range(random.choice((1, 1, 2, 3))):
        first = random.choice((16, headers, 64))
        at = random.randrange(first, max(len(data) - 8, first + 1)) & ~3
        kind = random.randrange(4)
        if kind == 0:
            value = random.choice(_WORDS)
        elif kind == 1:
            value = random.randrange(len(data))
        else:
            value = (
                struct.unpack_from("<I", data, at)[0] + random.choice((-24, -8, -4, -1, 1, 4, 8, 24, 64))
            ) & 0xFFFFFFFF
        struct.pack_into("<I", data, at, value)
    return bytes(data)


def of_parts(samples: Sequence[Parts], pack: Callable[[Parts], bytes]) -> Mutator:
    """Of a file whose parts have sums, sizes or compression over them: one part is damaged, or what it is
    called, and the file is packed anew, so that the damage gets past the sums."""

    def mutate(random: Random, packed: Sequence[bytes]) -> bytes:
        if random.randrange(4) == 0:
            return of_bytes(random, packed)
        parts = dict(random.choice(samples))
        for _ in range(random.choice((1, 1, 2))):
            name = random.choice(list(parts))
            kind = random.randrange(10)
            if kind == 0:
                parts[random.choice(HOSTILE)] = parts.pop(name)
            elif kind == 1:
                del parts[name]
            elif kind == 2:
                parts[name + random.choice(("0", "1", "9" * 20))] = parts[name]
            else:
                others = [parts[name], *random.choice(samples).values()]
                damage = random.choice((of_text, of_bytes))
                parts[name] = damage(random, [parts[name]] if random.randrange(3) else others)
            if not parts:
                break
        return pack(parts)

    return mutate


def of_some(*mutators: Mutator) -> Mutator:
    """One of several."""
    return lambda random, samples: random.choice(mutators)(random, samples)
