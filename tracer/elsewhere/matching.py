"""Find the functions of a build that a trace from elsewhere is about.

A sighting is matched against the kernel that ran, when that is the production or the traced build of this
folder (its build id says so, or the user does), and carried to the production build. Of any other kernel only
the names are known: they are matched by what is left of them without the compiler's suffixes.

    by name      all functions of that name; if nothing tells several apart, the name is ambiguous
    by address   the function around it; only when the kernel that ran is known
    by file      the function in the object of that source file, else by its name

A name that may have been cut stands for all that begin so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from tracer.host import UserError
from tracer.profiles.algebra import total
from tracer.profiles.identity import Carrier, base_symbol
from tracer.profiles.symbols import Identity, Symbols
from tracer.readers.ftrace import NAME_WIDTH
from tracer.readers.sightings import ForeignTrace, Sighting

PRODUCTION, TRACED, ANOTHER = "production", "traced", "another"
#: Sources that see what ftrace sees: functions with a site for the function tracer.
FTRACE_LIKE = frozenset({"ftrace", "trace_stat", "trace-cmd"})
#: A trace of blocks has the first block of nearly every function that it is in, if the addresses fit.
_BLOCKS = frozenset({"drcov"})
_ENOUGH, _FITS = 20, 0.5
#: How many symbols that lie within another (assembly) are looked past.
_NESTED = 8


@dataclass(frozen=True)
class Kernels:
    """The builds of a folder; ``traced`` is None where there is none."""

    production: Symbols
    traced: Symbols | None = None

    def that_ran(self, build_id: str, of: str = "") -> Symbols | None:
        """The one of that build id, or which the user says it is (``of``); None for any other kernel.

        Raises:
            UserError: what the user says cannot be.
        """
        known = {PRODUCTION: self.production, TRACED: self.traced}
        ours = next((kernel for kernel in known.values() if kernel and kernel.build_id == build_id), None)
        if not of:
            return ours if build_id else None
        named = known[of]
        if named is None:
            raise UserError(f"matching the trace: --of {of}: the folder has no {of} kernel", "kprune build")
        if build_id and named.build_id != build_id:
            raise UserError(
                f"matching the trace: --of {of}: the trace is of build {build_id[:12]}, "
                f"the {of} kernel is {named.build_id[:12]}",
                "leave --of out: it is then matched by name",
            )
        return named


@dataclass(frozen=True)
class Matched:
    """``kernel``: which one ran; ``hits``: (function of the production build, app) -> how often, None where
    that is not known; ``names`` of the trace, and its places without one; ``unmatched`` of them, which
    no function has; ``lost``: functions, "object:symbol", that only the traced build has."""

    kernel: str
    hits: dict[tuple[Identity, str], int | None]
    names: frozenset[str]
    ambiguous: frozenset[str]
    unmatched: frozenset[str]
    lost: frozenset[str]


def match(trace: ForeignTrace, kernels: Kernels, of: str = "", full_names: Iterable[str] = ()) -> Matched:
    """Match a trace. ``full_names``: of the functions of the kernel that ran, where they are known, to
    complete the ones that were cut.

    Raises:
        UserError: addresses of a kernel that is not known, or that do not fit; nothing matches.
    """
    ran = kernels.that_ran(trace.build_id, of)
    finder = _Finder(ran or kernels.production, ran is not None, trace.source in FTRACE_LIKE, full_names)
    found: dict[tuple[Identity, str], list[int | None]] = defaultdict(list)
    names: set[str] = set()
    ambiguous: set[str] = set()
    matched: set[str] = set()
    finder.prepare(trace)
    for sighting, number, count in _grouped(trace.sightings):
        rows, places = finder.find(sighting)
        label = _label(sighting)
        if not sighting.name and not rows and not finder.is_kernel(sighting.address):
            continue
        names.add(label)
        if rows:
            matched.add(label)
        if places > number:
            ambiguous.add(label)
        for row in rows:
            found[finder.symbols.functions[row], sighting.app].append(count if places == 1 else None)
    hits, lost = _carried(found, kernels) if ran is kernels.traced and ran else (found, frozenset())
    if not hits:
        raise UserError(
            f"matching the trace: none of its {len(names)} names and addresses is in this kernel",
            "is it a trace of a Linux kernel, and of this architecture?",
        )
    return Matched(
        ANOTHER if ran is None else ran.kernel,
        {key: total(counts) for key, counts in hits.items()},
        frozenset(names),
        frozenset(ambiguous),
        frozenset(names - matched),
        lost,
    )


def _label(sighting: Sighting) -> str:
    return sighting.name or f"{sighting.address:#x}"


def _grouped(sightings: Iterable[Sighting]) -> Iterable[tuple[Sighting, int, int | None]]:
    """(sighting, how many there are of the same place, their counts' sum) in order of first appearance."""
    groups: dict[Hashable, list[Sighting]] = defaultdict(list)
    for each in sightings:
        groups[each.app, each.name, each.file, each.address, each.cut].append(each)
    for group in groups.values():
        yield group[0], len(group), total([each.count for each in group])


def _carried(
    found: dict[tuple[Identity, str], list[int | None]], kernels: Kernels
) -> tuple[dict[tuple[Identity, str], list[int | None]], frozenset[str]]:
    """What the traced build ran, in functions of the production build; and what that has not."""
    carrier = Carrier(kernels.production)
    hits: dict[tuple[Identity, str], list[int | None]] = defaultdict(list)
    lost = set()
    for (function, app), counts in found.items():
        targets = carrier.carry(function)
        if not targets:
            lost.add(f"{function.object}:{function.symbol}")
        for target in targets:
            hits[target, app] += counts
    return hits, frozenset(lost)


class _Finder:
    """Finds rows of ``symbols``. ``exact``: these are of the kernel that ran, so that whole symbols count;
    ``traceable``: only functions that ftrace can report come into question, if the kernel has any."""

    def __init__(self, symbols: Symbols, exact: bool, traceable: bool, full_names: Iterable[str]) -> None:
        self.symbols = symbols
        self._exact = exact
        self._window = 0
        self._first, self._last = int(symbols.starts[0]), int(symbols.ends.max())
        rows = np.flatnonzero(symbols.traceable) if exact and traceable else ()
        self._rows = [int(row) for row in rows] or list(range(len(symbols.functions)))
        self._symbol = self._index(lambda function: function.symbol)
        self._cut = self._index(lambda function: function.symbol[:NAME_WIDTH])
        self._base = self._index(lambda function: base_symbol(function.symbol))
        self._base_cut = self._index(lambda function: base_symbol(function.symbol)[:NAME_WIDTH])
        self._inside = self._index(lambda function: (function.object, base_symbol(function.symbol)))
        self._objects: dict[str, set[str]] = defaultdict(set)
        for function in symbols.functions:
            stem = function.object.removesuffix(".o")
            self._objects[stem.rpartition("/")[2]].add(stem)
        self._full: dict[str, set[str]] = defaultdict(set)
        for name in full_names:
            if len(name) >= NAME_WIDTH:
                self._full[name[:NAME_WIDTH]].add(name)

    def _index(self, key: Callable[[Identity], Hashable]) -> dict[Hashable, list[int]]:
        index: dict[Hashable, list[int]] = defaultdict(list)
        for row in self._rows:
            index[key(self.symbols.functions[row])].append(row)
        return dict(index)

    def find(self, sighting: Sighting) -> tuple[list[int], int]:
        """(rows, in how many places these functions are: aliases and parts of one are one place)."""
        if not sighting.name:
            rows = self._around(sighting.address)
            return rows, min(len(rows), 1)
        rows = self._in_file(sighting) if sighting.file else []
        if not rows and self._exact:
            rows = (self._cut if sighting.cut else self._symbol).get(sighting.name, [])
            if rows:
                return rows, len({int(self.symbols.starts[row]) for row in rows})
        if not rows:
            rows = self._by_base(sighting)
        functions = [self.symbols.functions[row] for row in rows]
        return rows, len({(function.object, base_symbol(function.symbol)) for function in functions})

    def _by_base(self, sighting: Sighting) -> list[int]:
        """Rows of the same base symbol. C has no dots in names: what has one was not cut before it."""
        if not sighting.cut:
            return self._base.get(base_symbol(sighting.name), [])
        stem, dot, _ = sighting.name.partition(".")
        if dot and stem:
            return self._base.get(stem, [])
        full = self._full.get(sighting.name, set())
        if full:
            return sorted({row for name in full for row in self._base.get(base_symbol(name), [])})
        return self._base_cut.get(sighting.name, [])

    def _in_file(self, sighting: Sighting) -> list[int]:
        """Rows in the object of the source file: the longest path that is the end of the file's."""
        path = PurePosixPath(sighting.file).with_suffix("").as_posix() if sighting.file.strip("/.") else ""
        stems = [
            stem for stem in self._objects.get(path.rpartition("/")[2], ()) if f"/{path}".endswith(f"/{stem}")
        ]
        if not stems:
            return []
        return self._inside.get((f"{max(stems, key=len)}.o", base_symbol(sighting.name)), [])

    # ---- addresses

    def prepare(self, trace: ForeignTrace) -> None:
        """Look at a trace's addresses as a whole.

        Raises:
            UserError: they are of a kernel that is not known, or that was loaded elsewhere.
        """
        addresses = [each.address for each in trace.sightings if not each.name]
        # Among names, the odd address is code that no symbol tells of (a trampoline, say).
        if addresses and len(addresses) == len(trace.sightings) and not self._exact:
            raise UserError(
                "matching the trace: it has addresses, and does not say of which kernel",
                "say --of traced or --of production",
            )
        if addresses and trace.source in _BLOCKS:
            # QEMU's drcov plugin writes the low 32 bits.
            self._window = self._first >> 32 << 32 if max(addresses) < 1 << 32 else 0
            self._check_fit({self._window + address for address in addresses})

    def _check_fit(self, addresses: set[int]) -> None:
        touched = {row for address in addresses for row in self._around(address - self._window)}
        entered = sum(1 for row in touched if int(self.symbols.starts[row]) in addresses)
        if len(touched) >= _ENOUGH and entered < _FITS * len(touched):
            raise UserError(
                f"matching the trace: it has blocks of {len(touched)} functions of the "
                f"{self.symbols.kernel} kernel, but the first block of only {entered}",
                "it ran another kernel, or at another address: boot with nokaslr",
            )

    def is_kernel(self, address: int) -> bool:
        """Whether an address, found in no function, is of the kernel's code at all, as far as we can tell."""
        return not self._exact or self._first <= self._window + address < self._last

    def _around(self, address: int) -> list[int]:
        """The function around an address, with its aliases, and what it is a part of."""
        address += self._window
        if not self._exact or not 0 <= address < 1 << 64:
            return []
        starts, ends = self.symbols.starts, self.symbols.ends
        last = int(np.searchsorted(starts, np.uint64(address), side="right")) - 1
        if last < 0:
            return []
        first = min(int(np.searchsorted(starts, starts[last], side="left")), max(last - _NESTED, 0))
        return [row for row in range(first, last + 1) if address < int(ends[row])]
