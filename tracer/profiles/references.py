"""What every function of a build refers to: what a profile needs to serve a build of another compiler.

A profile says which functions ran. Of a function that did not, the compiler may have put a copy into its
caller, and that copy ran. Whether it did shows in the build alone: a caller that still refers to the function
has no copy in its place. So the profile takes along which function refers to which, and how often.

In the file ``functions`` is object -> functions, each the names of one place (aliases) with a space between
them; they are counted through in that order, and ``refers`` has, for each, the numbers of those it refers to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class References:
    """``functions[i]``: (object, names) of function ``i`` of the build, sorted; ``refers[i]``: the functions
    that it calls, jumps to, or takes the address of, ascending, and each as often as it does."""

    functions: tuple[tuple[str, tuple[str, ...]], ...]
    refers: tuple[tuple[int, ...], ...]


def references_to_json(references: References | None) -> dict[str, Any] | None:
    """As it stands in a profile's file."""
    if references is None:
        return None
    functions: dict[str, list[str]] = {}
    for name, symbols in references.functions:
        functions.setdefault(name, []).append(" ".join(symbols))
    return {"functions": functions, "refers": [" ".join(map(str, row)) for row in references.refers]}


def references_of_json(raw: Any) -> References | None:
    """The same, back again.

    Raises:
        TypeError, ValueError: anything in it is not as described here.
    """
    if raw is None:
        return None
    if not isinstance(raw, dict) or raw.keys() != {"functions", "refers"}:
        raise ValueError("references must have functions and refers")
    functions = tuple(
        (name, tuple(_text(names).split())) for name, rows in _rows(raw["functions"]) for names in rows
    )
    if not isinstance(raw["refers"], list) or len(raw["refers"]) != len(functions):
        raise ValueError("references of too many functions, or of too few")
    refers = tuple(tuple(map(int, _text(row).split())) for row in raw["refers"])
    if any(not 0 <= number < len(functions) for row in refers for number in row):
        raise ValueError("a reference to a function that is not there")
    if any(not names for _, names in functions) or list(functions) != sorted(functions):
        raise ValueError("the functions that are referred to have no names, or no order")
    return References(functions, refers)


def _rows(raw: Any) -> list[tuple[str, list[Any]]]:
    if not isinstance(raw, Mapping) or not all(isinstance(rows, list) for rows in raw.values()):
        raise TypeError("functions that are referred to must be lists, by object")
    return list(raw.items())


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError(f"{str(raw)[:40]!r} has the wrong type")
    return raw
