"""Functions of two builds by classes: what is one function has one number, in the one and in the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from prune.model.elf import Rows
from prune.model.functions import Functions
from tracer.profiles.identity import Counterparts, Key, is_part, whole_symbol
from tracer.profiles.references import References


@dataclass(frozen=True)
class Classes:
    """Numbers for what is one function: ``here[v]``: of this build's vertex, -1 for what is no function;
    ``there[i]``: of the other build's function; ``of``: of a name. ``parts_here`` and ``parts_there``: masks
    of what is a part of a function alone (:func:`tracer.profiles.identity.is_part`)."""

    here: Rows
    there: Rows
    parts_here: Rows
    parts_there: Rows
    of: dict[Key, int]
    counterparts: Counterparts

    def __len__(self) -> int:
        return max(self.of.values(), default=-1) + 1


@dataclass(frozen=True)
class Edges:
    """Edges by their source: those of ``i`` go to ``target[first[i]:first[i + 1]]``, and stand for as many
    references as ``times`` says."""

    first: Rows
    target: Rows
    times: Rows

    def follow(self, sources: Rows) -> tuple[Rows, Rows, Rows]:
        """(index into ``sources``, target, how often) of every edge from them."""
        start, count = self.first[sources], self.first[sources + 1] - self.first[sources]
        row = np.repeat(np.arange(len(sources)), count)
        at = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count) + start[row]
        return row, self.target[at], self.times[at]


def edges_by_source(source: Rows, target: Rows, times: Rows, size: int) -> Edges:
    """Edges in any order, for sources below ``size``."""
    order = np.argsort(source, kind="stable")
    first = np.searchsorted(source[order], np.arange(size + 1))
    return Edges(first, target[order], times[order])


@dataclass(frozen=True)
class Together:
    """Which classes have functions in one object. ``first[c]``: an object of class ``c``; ``several[c]``: it
    has more of them; ``known[c]``: it has any; ``pairs``: object * classes + class, ascending."""

    first: Rows
    several: Rows
    known: Rows
    pairs: Rows

    def holds(self, one: Rows, other: Rows) -> Rows:
        """For each pair of classes, whether it may be so: where both are in several objects, or one in none
        that is known, nobody looks further."""
        classes = len(self.first)
        by_one = np.isin(self.first[one] * classes + other, self.pairs)
        by_other = np.isin(self.first[other] * classes + one, self.pairs)
        found = np.where(self.several[one], by_other | self.several[other], by_one)
        result: Rows = found | ~self.known[one] | ~self.known[other]
        return result


def together(numbers: Rows, objects: Rows, classes: int) -> Together:
    """Of functions of these classes in these objects."""
    pairs = np.unique(objects * classes + numbers)
    count = np.bincount(pairs % classes, minlength=classes) if len(pairs) else np.zeros(classes, np.int64)
    first = np.zeros(classes, np.int64)
    first[pairs % classes] = pairs // classes
    return Together(first, count > 1, count > 0, pairs)


def classify(functions: Functions, references: References, objects: Iterable[str]) -> Classes:
    """Number the functions of both builds, counterparts alike. Names of one place are one function.

    Args:
        objects: of the other build.
    """
    image = functions.image
    owner = image.units["object"][functions.of_unit].tolist()
    ours = [
        (v, image.objects[owner[v]], names) for v, names in functions.symbols.items() if functions.is_code[v]
    ]
    counterparts = Counterparts.between({name for _, name, _ in ours}, frozenset(objects))
    rows = [*references.functions, *((name, names) for _, name, names in ours)]
    numbers, of = _joined([[counterparts.key(name, symbol) for symbol in names] for name, names in rows])
    here = np.full(len(functions.of_unit), -1, np.int64)
    here[[vertex for vertex, _, _ in ours]] = numbers[len(references.functions) :]
    parts = np.array([all(map(is_part, names)) for _, names in rows], bool)
    parts_here = np.zeros(len(here), bool)
    parts_here[[vertex for vertex, _, _ in ours]] = parts[len(references.functions) :]
    there = numbers[: len(references.functions)]
    return Classes(here, there, parts_here, parts[: len(there)], of, counterparts)


def _joined(rows: Sequence[Sequence[Key]]) -> tuple[Rows, dict[Key, int]]:
    """A number for each row and key; rows that have a key in common, at whatever remove, have one number."""
    parent: dict[Key, Key] = {}

    def root(key: Key) -> Key:
        while parent.setdefault(key, key) != key:
            parent[key] = key = parent[parent[key]]
        return key

    for keys in rows:
        for key in keys:
            parent[root(key)] = root(keys[0])
    numbers: dict[Key, int] = {}
    of = {key: numbers.setdefault(root(key), len(numbers)) for key in list(parent)}
    return np.array([of[keys[0]] for keys in rows], np.int64), of


def copies_of(rows: Iterable[tuple[str, Sequence[str], int]]) -> Counter[int]:
    """Class -> how many functions it has, parts not counted."""
    known = {(name, whole_symbol(names[0]), int(number)) for name, names, number in rows}
    return Counter(number for _, _, number in known)
