"""``System.map``: which function lies around an address of the pruned kernel."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prune.model.image import expression
from prune.model.knowledge import FOLDER, read_toml
from tracer.host import UserError

#: Letters of nm for functions; tombstones have another.
_FUNCTION = re.compile(r"^([0-9a-f]{1,16}) [tTwW] (\S+)$", re.M)


@dataclass(frozen=True)
class SystemMap:
    """``functions``: (address, name), sorted."""

    functions: Sequence[tuple[int, str]]

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(name for _, name in self.functions)

    def name_of(self, address: int) -> str:
        """The function around an address, or the last one below it; "" for none."""
        found = self.around(address)
        return found[0] if found else ""

    def around(self, address: int) -> tuple[str, int] | None:
        """(function, how far into it the address is)."""
        index = bisect.bisect_right(self.functions, (address, "\U0010ffff")) - 1
        return (self.functions[index][1], address - self.functions[index][0]) if index >= 0 else None

    def names_at(self, address: int) -> set[str]:
        """All names of the function around an address."""
        index = bisect.bisect_right(self.functions, (address, "\U0010ffff")) - 1
        start = self.functions[index][0] if index >= 0 else -1
        first = bisect.bisect_left(self.functions, (start, ""))
        return {name for at, name in self.functions[first : index + 1] if at == start}

    def has(self, address: int) -> bool:
        """Whether the address is one of the kernel's code."""
        functions = self.functions
        return bool(functions) and functions[0][0] <= address <= functions[-1][0]


def read_system_map(path: Path) -> SystemMap:
    """Read a ``System.map``; names of what lies before a function are none.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise UserError(
            f"reading the kernel's functions: {path}: {error.strerror}", "link again: kprune link"
        ) from error
    before = expression(tuple(read_toml(FOLDER / "common.toml")["units"]["prefixes"]))
    rows = (row for row in _FUNCTION.findall(text) if not before.match(row[1]))
    return SystemMap(tuple(sorted((int(address, 16), name) for address, name in rows)))
