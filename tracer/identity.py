"""Carry functions from the traced build to the production build.

The two are compiled with different options, so the compiler clones, splits and inlines differently:
``foo`` of one may be ``foo.isra.0`` with a ``foo.cold`` in the other. A function is therefore carried by
object and base symbol, and all of the variants in the production build follow it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from tracer.symbols import Identity, Symbols

# GCC's clones and parts; `.lto_priv` and `.llvm` come from link-time optimisation.
_SUFFIX = re.compile(r"(?:\.(?:isra|constprop|part|cold|localalias|lto_priv|llvm)(?:\.\d+)*)+$")


def base_symbol(symbol: str) -> str:
    """The function that a variant was made from: ``foo`` for ``foo.constprop.0.isra.0``."""
    return _SUFFIX.sub("", symbol)


class Carrier:
    """Finds the production functions that a function of another build is now."""

    def __init__(self, production: Symbols) -> None:
        self._variants: dict[tuple[str, str], list[Identity]] = defaultdict(list)
        for function in production.functions:
            self._variants[function.object, base_symbol(function.symbol)].append(function)

    def carry(self, function: Identity) -> list[Identity]:
        """All variants of the function in production; [] when it is not there (inlined, say)."""
        return self._variants.get((function.object, base_symbol(function.symbol)), [])

    def missing_from(self, other: Iterable[Identity]) -> list[Identity]:
        """Production functions of which ``other`` has no variant."""
        known = {(function.object, base_symbol(function.symbol)) for function in other}
        return [
            function for key, variants in self._variants.items() if key not in known for function in variants
        ]
