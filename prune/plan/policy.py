"""Policies: what a dropped function does when it is called after all.

A rules file may hold them beside its keep rules, and may ask for families that
``linkerscripts/policies.toml`` knows::

    builtin = ["ioctl"]

    [[policy]]
    functions = ["foo_probe_*"]          # globs over function names
    object = "drivers/foo/*"             # optional glob over object paths
    types = ["int (struct foo *, *)"]    # optional globs over the function's type
    on_miss = "return"                   # or "trap" (the default), "panic", "keep"
    value = "-ENODEV"                    # or a number; for pointers "NULL" or "ERR_PTR(-ENODEV)"

The first policy that matches a function holds, those of the file before families. What "keep" matches
stays, whatever stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from prune.model.knowledge import FOLDER, read_toml
from tracer.host import UserError
from tracer.shapes import WrongShape, check_shape

RETURN, TRAP, PANIC, KEEP = "return", "trap", "panic", "keep"
#: What no file asks for: a trap that takes the machine down, for functions that are called under locks.
STOP = "stop"
#: Of the entry of a system call: the kernel's own answer for one that it does not have.
REFUSE = "refuse"
ON_MISS = (RETURN, TRAP, PANIC, KEEP)
_POINTER = re.compile(r"ERR_PTR\((-\w+)\)")
_NUMBER = re.compile(r"-?\d{1,10}")
_PANICKED = re.compile(r"kprune: (\S+) \((\S+)\) was pruned")
#: Of the immediate that is loaded, sign-extended where the register is wider.
LEAST, MOST = -(1 << 31), (1 << 31) - 1


@dataclass(frozen=True)
class Value:
    """What a function returns. ``text``: as the policy says it; ``pointer``: it stands for a pointer."""

    text: str
    number: int
    pointer: bool = False


@dataclass(frozen=True)
class Policy:
    """``on_miss`` for every function whose name, object and type match; ``value`` with ``return`` alone. No
    ``types``: of any type. ``family``: the builtin one that it belongs to, "" for the user's own."""

    functions: tuple[str, ...]
    on_miss: str
    value: Value | None = None
    object: str = "*"
    types: tuple[str, ...] = ()
    family: str = ""

    def __str__(self) -> str:
        where = "" if self.object == "*" else f"{self.object}:"
        return f"{where}{' '.join(self.functions)} = {self.value.text if self.value else self.on_miss}"

    def names(self, function: str, object: str) -> bool:
        """Whether it speaks of a function, its type aside."""
        return fnmatchcase(object, self.object) and any(
            fnmatchcase(function, glob) for glob in self.functions
        )


def make_policies(rows: Any, doing: str) -> tuple[Policy, ...]:
    """The ``[[policy]]`` tables of a rules file.

    Args:
        doing: how an error begins.

    Raises:
        UserError: a table that has another shape, or a value that nobody knows.
    """
    if not isinstance(rows, list):
        raise UserError(f"{doing}: policy is no table", "write [[policy]]")
    try:
        return tuple(_policy(check_shape(row, "policy"), doing) for row in rows)
    except WrongShape as error:
        raise UserError(f"{doing}: [[policy]]: {error}", error.remedy) from None


def builtin_policies(names: Any, doing: str) -> tuple[Policy, ...]:
    """The families that a rules file asks for.

    Raises:
        UserError: there is no family of that name.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{doing}: builtin is no list of names: {names}")
    known = families()
    lost = [name for name in names if name not in known]
    if lost:
        raise UserError(f"{doing}: no builtin policy is called {lost[0]}", f"there are {', '.join(known)}")
    return tuple(
        Policy(
            tuple(row["functions"]), RETURN, make_value(row["value"], "reading policies.toml"),
            types=tuple(row["types"]), family=name,
        )
        for name in dict.fromkeys(names) for row in known[name]
    )  # fmt: skip


def families() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """The builtin policies by name."""
    known = read_toml(FOLDER / "policies.toml")
    return {name: rows for name, rows in known.items() if name != "schema_version"}


def may_answer(function: str) -> tuple[str, ...]:
    """The families that speak of functions with such a name; whether of this one, its type decides."""
    name = function.partition(".")[0]  # compilers add to it (.isra.0)
    return tuple(
        family
        for family, rows in families().items()
        if any(fnmatchcase(name, glob) for row in rows for glob in row["functions"])
    )


def make_value(value: Any, doing: str) -> Value:
    """The value of a policy: an integer, a number or an error's name with a minus, ``NULL``,
    ``ERR_PTR(-...)``.

    Raises:
        UserError: it is none of these.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise UserError(f"{doing}: a value is a number or a name: {value}")
    pointer = _POINTER.fullmatch(text)
    number = _number(pointer[1] if pointer else text) if text != "NULL" else 0
    if number is None:
        raise UserError(
            f"{doing}: no value is called {text}", 'say "-ENOTTY", 0, "NULL" or "ERR_PTR(-ENOENT)"'
        )
    return Value(text, number, bool(pointer) or text == "NULL")


def _number(text: str) -> int | None:
    """What a number or the name of an error means."""
    if _NUMBER.fullmatch(text) and LEAST <= int(text) <= MOST:
        return int(text)
    known: int | None = read_toml(FOLDER / "errno.toml")["errno"].get(text.removeprefix("-"))
    return -known if known is not None and text.startswith("-") else None


def _policy(row: Mapping[str, Any], doing: str) -> Policy:
    on_miss, place = row.get("on_miss", TRAP), row.get("object", "*")
    if on_miss not in ON_MISS:
        raise UserError(f"{doing}: on_miss is {on_miss}", f"it can be {', '.join(ON_MISS)}")
    if (on_miss == RETURN) != ("value" in row):
        raise UserError(f'{doing}: a value belongs to on_miss = "return", and to no other: {row}')
    if on_miss == KEEP and "types" in row:
        raise UserError(f"{doing}: what is kept is not chosen by its type: {row}")
    return Policy(
        _globs(row, "functions", doing, some=True),
        on_miss,
        make_value(row["value"], doing) if on_miss == RETURN else None,
        place,
        _globs(row, "types", doing),
    )


def _globs(row: Mapping[str, Any], key: str, doing: str, some: bool = False) -> tuple[str, ...]:
    value = row.get(key, [])
    if not all(isinstance(glob, str) and glob for glob in value):
        raise UserError(f"{doing}: {key} is a list of globs: {row}")
    if some and not value:
        raise UserError(f"{doing}: a policy needs functions: {row}")
    return tuple(value)


def panic_text(function: str, object: str) -> str:
    """What the kernel says when a policy makes it panic; names are no formats."""
    return f"kprune: {function} ({object}) was pruned".replace("%", "?")


def panicked_for(text: str) -> tuple[str, str] | None:
    """(function, object) of a panic that a policy made."""
    found = _PANICKED.fullmatch(text)
    return (found[1], found[2]) if found else None
