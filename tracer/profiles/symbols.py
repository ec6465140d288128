"""The functions of a kernel build and where they are: ``symbols.json``, written by the build stage.

``build_id``, ``config``, ``source``, ``version``, ``options`` say which kernel it is
(:class:`tracer.profiles.profile.KernelId`); ``entry`` is where it is entered, as its ELF header has it;
``files`` is object -> hash of its source file, where known.

``functions`` is a list of [address, size in bytes, object, section, symbol, traceable], sorted by
address; the object's path is relative to the object tree; traceable means that the function has a site
for the function tracer. Aliases are rows with one address; a size of 0 (assembly) means up to the next
function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracer.host import MISSHAPEN, UserError, read_json

SCHEMA_VERSION = 4
Addresses = NDArray[np.uint64]
Flags = NDArray[np.bool_]


class Identity(NamedTuple):
    """What a function is called, in every file of kprune's: the object that defines it, section, symbol."""

    object: str
    section: str
    symbol: str


@dataclass(frozen=True)
class Ranges:
    """Half-open address ranges [start, end), sorted and disjoint."""

    starts: Addresses
    ends: Addresses

    def touch(self, starts: Addresses, ends: Addresses) -> Flags:
        """For each of the given ranges, whether any of ours has an address in common with it."""
        if not len(self.starts):
            return np.zeros(len(starts), dtype=np.bool_)
        candidate = np.searchsorted(self.ends, starts, side="right")
        inside = np.minimum(candidate, len(self.starts) - 1)
        result: Flags = (candidate < len(self.starts)) & (self.starts[inside] < ends)
        return result

    def within(self, start: int, end: int) -> tuple[tuple[int, int], ...]:
        """What [start, end) has in common with ours, counted from ``start``."""
        first, last = np.searchsorted(self.ends, start, side="right"), np.searchsorted(self.starts, end)
        parts = zip(self.starts[first:last].tolist(), self.ends[first:last].tolist(), strict=True)
        return tuple((max(one, start) - start, min(other, end) - start) for one, other in parts)


def union(starts: Addresses, ends: Addresses) -> Ranges:
    """The union of ranges in any order."""
    if not len(starts):
        return Ranges(starts, ends)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    gap = starts[1:] > ends[:-1]
    first = np.concatenate(([True], gap))
    last = np.concatenate((gap, [True]))
    return Ranges(starts[first], ends[last])


@dataclass(frozen=True)
class Symbols:
    """A build's functions. ``starts`` and ``ends`` are rows' addresses, in the order of ``functions``."""

    kernel: str
    build_id: str
    config: str
    source: str
    version: str
    files: Mapping[str, str]
    functions: tuple[Identity, ...]
    traceable: Flags
    starts: Addresses
    ends: Addresses
    options: str = ""
    entry: int = 0

    def touched(self, executed: Ranges) -> Flags:
        """Per function, whether any of its bytes is in ``executed``. All aliases count."""
        return executed.touch(self.starts, self.ends)

    def outside(self, executed: Ranges) -> int:
        """How many executed ranges lie in no function."""
        inside = union(self.starts, self.ends).touch(executed.starts, executed.ends)
        return int(np.count_nonzero(~inside))


def load_symbols(path: Path, kernel: str) -> Symbols:
    """Read a ``symbols.json``; ``kernel`` is "production" or "traced" and must be what the file says.

    Raises:
        UserError: missing, damaged, of another version or of the other kernel.
    """
    raw = read_json(path, "kernel's symbols", SCHEMA_VERSION)
    found = raw.get("kernel")
    if found != kernel:
        raise UserError(f"reading the kernel's symbols: {path} is of the {found} kernel, expected {kernel}")
    try:
        made = make_symbols(kernel, raw["build_id"], raw["functions"])
        files = {str(name): str(digest) for name, digest in raw["files"].items()}
        return replace(
            made,
            config=str(raw["config"]),
            source=str(raw["source"]),
            version=str(raw["version"]),
            options=str(raw["options"]),
            files=files,
            entry=int(raw["entry"]),
        )
    except MISSHAPEN as error:
        raise UserError(
            f"reading the kernel's symbols: {path} is damaged: {error!r}", "build the kernel again"
        ) from error


def make_symbols(kernel: str, build_id: str, rows: list[list[Any]]) -> Symbols:
    """Symbols from rows as in the file.

    Raises:
        ValueError, TypeError: a row is not as described.
    """
    if not isinstance(build_id, str) or not rows:
        raise ValueError("no build id, or no functions")
    addresses, sizes, objects, sections, names, traceable = zip(*rows, strict=True)
    if not all(isinstance(text, str) for texts in (objects, sections, names) for text in texts):
        raise TypeError("object, section and symbol must be strings")
    starts = np.array(addresses, dtype=np.uint64)
    if np.any(starts[1:] < starts[:-1]):
        raise ValueError("the functions are not sorted by address")
    return Symbols(
        kernel=kernel,
        build_id=build_id,
        config="",
        source="",
        version="",
        files={},
        functions=tuple(map(Identity, objects, sections, names)),
        traceable=np.array(traceable, dtype=np.bool_),
        starts=starts,
        ends=_ends(starts, np.array(sizes, dtype=np.uint64)),
    )


def _ends(starts: Addresses, sizes: Addresses) -> Addresses:
    """End addresses; a function without a size ends where the next one begins."""
    following = np.searchsorted(starts, starts, side="right")
    padded = np.append(starts, starts[-1] + np.uint64(1))
    ends: Addresses = np.where(sizes > 0, starts + sizes, padded[following])
    return ends
