"""Carry functions from one build to another: from the traced to the production build, from gcc to clang.

The two are compiled with different options, or by different compilers, so that functions are cloned, split
and inlined differently: ``foo`` of one may be ``foo.isra.0`` with a ``foo.cold`` in the other. A function is
therefore carried by object and base symbol, and all of the variants in the other build follow it. An object
that only one of the builds has says nothing: with link-time optimisation all code is in one. Between such
objects functions are carried by symbol alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tracer.profiles.symbols import Identity, Symbols

# GCC's clones and parts; `.lto_priv` and `.llvm` come from link-time optimisation, as does a mere number:
# of static functions of one name in one object.
_PART = r"\.(?:isra|constprop|part|cold|localalias)(?:\.\d+)*"
_SUFFIX = re.compile(rf"(?:{_PART}|\.(?:lto_priv|llvm)(?:\.\d+)*|\.\d+)+$")
_PARTS = re.compile(rf"(?:{_PART})+$")
_SPLIT = re.compile(r"\.(?:part|cold)(?:\.|$)")

Key = tuple[str, str]


def base_symbol(symbol: str) -> str:
    """The function that a variant was made from: ``foo`` for ``foo.constprop.0.isra.0``."""
    return _SUFFIX.sub("", symbol)


def whole_symbol(symbol: str) -> str:
    """The function that a part belongs to, ``foo.7`` for ``foo.7.cold``: several of one name stay several."""
    return _PARTS.sub("", symbol)


def is_part(symbol: str) -> bool:
    """Whether it is the rest of a function, of which the beginning is elsewhere: with its callers, say."""
    return _SPLIT.search(symbol) is not None


@dataclass(frozen=True)
class Counterparts:
    """What is one function in two builds. ``common``: objects that both of them have."""

    common: frozenset[str]

    @classmethod
    def between(cls, one: Collection[str], other: Collection[str]) -> Counterparts:
        """For two builds with functions in these objects."""
        return cls(frozenset(one) & frozenset(other))

    def key(self, object: str, symbol: str) -> Key:
        """The same for functions of both builds that are counterparts: (object or "", base symbol)."""
        return object if object in self.common else "", base_symbol(symbol)


class Carrier:
    """Finds the production functions that a function of another build is now."""

    def __init__(self, production: Symbols, objects: Collection[str] | None = None) -> None:
        """``objects``: those of the other build, None when it has the same ones."""
        ours = {function.object for function in production.functions}
        self.counterparts = Counterparts.between(ours, ours if objects is None else objects)
        self._variants: dict[Key, list[Identity]] = defaultdict(list)
        for function in production.functions:
            self._variants[self._key(function)].append(function)

    def carry(self, function: Identity) -> list[Identity]:
        """All variants of the function in production; [] when it is not there (inlined, say)."""
        return self._variants.get(self._key(function), [])

    def missing_from(self, other: Iterable[Identity]) -> list[Identity]:
        """Production functions of which ``other`` has no variant."""
        known = {self._key(function) for function in other}
        return [
            function for key, variants in self._variants.items() if key not in known for function in variants
        ]

    def _key(self, function: Identity) -> Key:
        return self.counterparts.key(function.object, function.symbol)


def copies(functions: Iterable[Identity]) -> int:
    """How many functions these are, parts not counted."""
    return len({(function.object, whole_symbol(function.symbol)) for function in functions})
