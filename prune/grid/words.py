"""What the rows and columns of a grid mean, in words for people.

A row that is not described here is shown all the same: its unit is read from its label, and nobody says which
of two of its values is the better one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LESS, MORE = "less", "more"
GROUPS = ("Sizes", "Memory", "Speed", "Cost", "Attack surface", "Others")
OF_BASE = "of its base"


@dataclass(frozen=True)
class Measure:
    """One row of the grid.

    ``better``: less, more, or nothing. ``counted``: the same each time it is looked at, so that one look is
    enough; what is timed needs an interval before it says that two kernels differ.
    """

    group: str
    better: str
    note: str = ""
    counted: bool = True
    title: str = ""


def _timed(group: str, better: str, note: str) -> Measure:
    return Measure(group, better, note, counted=False)


MEASURES: Mapping[str, Measure] = {
    "text, bytes": Measure("Sizes", LESS, "code outside init and exit, tombstones included"),
    "resident text, bytes": Measure("Sizes", LESS, "of the text, what is not freed after boot"),
    "init text, bytes": Measure("Sizes", LESS, "code that every kernel frees after boot"),
    "rodata, bytes": Measure("Sizes", LESS, "constants, strings, tables"),
    "data, bytes": Measure("Sizes", LESS, "variables that begin with a value"),
    "bss, bytes": Measure("Sizes", LESS, "variables that begin as zero"),
    "boot image, bytes": Measure("Sizes", LESS, "compressed, as a boot loader reads it"),
    "functions": Measure("Sizes", LESS, "in the image"),
    "memory image, bytes": Measure("Memory", LESS, "all allocated sections, padding included"),
    "left when booted, KiB": Measure(
        "Memory", MORE, "memory that is left for others", title="left for others"
    ),
    "boots": Measure("Speed", MORE, "of those tried, how many ran the whole workload"),
    "boot to ready, s": _timed("Speed", LESS, "until the workload is ready"),
    "boot to ready, of its base": _timed("Speed", LESS, "the same as a ratio"),
    "requests per second": _timed("Speed", MORE, "answered by the workload"),
    "requests per second, of its base": _timed("Speed", MORE, "the same as a ratio"),
    "latency p50, ms": _timed("Speed", LESS, "half of the requests took no longer"),
    "latency p99, ms": _timed("Speed", LESS, "99 of 100 requests took no longer"),
    "latency p99, of its base": _timed("Speed", LESS, "the same as a ratio"),
    "build, s": _timed("Cost", LESS, "compiling and linking"),
    "link, s": _timed("Cost", LESS, "linking alone"),
    "link peak memory, MiB": _timed("Cost", LESS, "the most that linking held at once"),
    "gadgets": Measure("Attack surface", LESS, "different ones of at most ten bytes and a return"),
    "system calls": Measure("Attack surface", LESS, "entries, 64 and 32 bit, that do not answer -ENOSYS"),
    "indirect-call targets": Measure("Attack surface", LESS, "where an indirect call can go"),
}

#: Column without its -O2 or -Os -> what it is.
KERNELS: Mapping[str, str] = {
    "gcc": "as configured, by GCC",
    "gcc+gc": "GCC, and section garbage collection; no profile",
    "clang": "as configured, by clang and lld",
    "clang ThinLTO": "clang with ThinLTO",
    "clang full LTO": "clang with full LTO",
    "pruned (gcc)": "GCC, without the functions that never ran",
    "pruned (clang)": "clang, without the functions that never ran",
    "pruned on ThinLTO": "ThinLTO, without the functions that never ran",
    "pruned on full LTO": "full LTO, without the functions that never ran",
    "by the block (gcc)": "GCC, without the blocks that never ran",
}
_LEVELS = (" -O2", " -Os")


def measure_of(label: str) -> Measure:
    """What is known of a row."""
    return MEASURES.get(label, Measure("Others", "", counted=False))


def title_of(label: str) -> str:
    """A row's heading: the label without its unit."""
    head, _, tail = label.partition(", ")
    title = measure_of(label).title or head
    return f"{title}, {tail}" if tail == OF_BASE else title


def unit_of(label: str) -> str:
    """What is written behind a value."""
    tail = label.partition(", ")[2]
    if label.endswith("per second"):
        return "/s"
    return {"bytes": "B", OF_BASE: "\N{MULTIPLICATION SIGN}"}.get(tail, "%" if label == "boots" else tail)


def kernel_words(name: str) -> str:
    """What a column is; nothing for one that nobody knows."""
    plain, level = split_level(name)
    words = KERNELS.get(plain, "")
    return f"{words};{level}" if words and level else words


def split_level(name: str) -> tuple[str, str]:
    """A column's name without, and its -O2 or -Os with the space before it."""
    level = next((level for level in _LEVELS if name.endswith(level)), "")
    return name.removesuffix(level), level
