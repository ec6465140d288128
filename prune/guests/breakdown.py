"""Where the memory of a guest goes: every byte that the machine has, in a row.

The kernel says at boot how much of the machine is memory at all, and what it frees of itself; its file says
how large its parts are; its counters say what its pages are used for. What is left over between these has
rows of its own, so that all of it adds up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune.guests.memory import freed_of_image, present
from tracer.host import UserError

#: Rows, in order; what each means.
MEANING = {
    "text": "the kernel's code that stays, aligned as it is",
    "rodata": "its constants, tables, and names for oopses",
    "data": "its variables",
    "bss": "its variables that begin as zero",
    "image, rest": "what lies between these: alignment, tables of bugs",
    "set aside at boot": "struct pages, early hash tables, the first page tables",
    "firmware": "what the kernel does not get: the hole below 1 MB, tables of the firmware",
    "slab": "the kernel's small objects",
    "kernel stacks": "one for each task",
    "page tables": "of processes",
    "programs": "anonymous pages of processes: heap, stack, data that they changed",
    "tmpfs": "files in memory, the initial RAM file system among them, and shared memory",
    "page cache": "what was read of files and disks: it can be given up",
    "other pages": "pages that nobody counts: drivers' buffers, network buffers, vmalloc",
    "free": "nobody's",
}  # fmt: skip
_HASHES = re.compile(r"^(?:\[[^\]]*\] )?(.+?) hash table entries: \d+ \(order: -?\d+, (\d+) bytes", re.M)


@dataclass(frozen=True)
class Breakdown:
    """``rows``: name of :data:`MEANING` -> bytes, together ``memory``; ``init``: bytes that were freed after
    boot, which are among the others now; ``hashes``: hash table -> bytes, as far as the kernel says."""

    memory: int
    rows: Mapping[str, int]
    init: int
    hashes: Mapping[str, int]


def break_down(
    memory: int, parts: Mapping[str, int], console: str, counts: Mapping[str, int], page: int
) -> Breakdown:
    """The rows of one guest.

    Args:
        memory: bytes of the machine.
        parts: of the kernel's image (:func:`prune.guests.counters.part_sizes`).
        counts: pages, by the names of /proc/vmstat (:class:`prune.guests.counters.Counters`).
        page: bytes.

    Raises:
        UserError: the console does not say how much memory there is.
    """
    found = present(console)
    if found is None:
        raise UserError(
            "breaking down the memory: the kernel did not say how much there is",
            "no loglevel= or quiet on the kernel's command line",
        )
    freed = freed_of_image(console)
    whole = parts["reserved"] - freed
    rows = {part: parts[part] for part in ("text", "rodata", "data", "bss")}
    rows["image, rest"] = whole - sum(rows.values())
    rows["set aside at boot"] = found - whole - counts["total"] * page
    rows["firmware"] = memory - found
    stacks = counts.get("nr_kernel_stack", 0) * 1024
    pages = {
        "slab": counts["nr_slab_reclaimable"] + counts["nr_slab_unreclaimable"],
        "page tables": counts["nr_page_table_pages"],
        "programs": counts["nr_anon_pages"],
        "tmpfs": counts["nr_shmem"],
        "page cache": counts["nr_file_pages"] - counts["nr_shmem"],
        "free": counts["nr_free_pages"],
    }
    rows |= {name: count * page for name, count in pages.items()}
    rows["kernel stacks"] = stacks
    rows["other pages"] = (counts["total"] - sum(pages.values())) * page - stacks
    hashes = {name: int(size) for name, size in _HASHES.findall(console)}
    return Breakdown(memory, {name: rows[name] for name in MEANING}, freed, hashes)


def tightest(samples: Sequence[Mapping[str, int]]) -> Mapping[str, int]:
    """The sample with the fewest pages that are free or can be given up."""
    return min(samples, key=lambda s: s["nr_free_pages"] + s["nr_file_pages"] - s["nr_shmem"])
