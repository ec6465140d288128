"""What a kernel says of its memory when it has booted, from its console."""

from __future__ import annotations

import re
from pathlib import Path

# mm/page_alloc.c, mem_init_print_info(); free_reserved_area().
_AVAILABLE = re.compile(r"Memory: (\d{1,15})K/(\d{1,15})K available")
_FREED = re.compile(r"Freeing (?!initrd)([\w ()/]+) memory: (\d{1,15})K")


def memory_after_boot(console: str) -> int | None:
    """Bytes that the kernel left for others: what was available at first, and what it freed of itself since;
    None when it does not say. ``free`` shows it as the total."""
    found = _AVAILABLE.search(console)
    if not found:
        return None
    return (int(found[1]) + sum(int(size) for _, size in _FREED.findall(console))) * 1024


def present(console: str) -> int | None:
    """Bytes of the machine that are memory to the kernel; None when it does not say."""
    found = _AVAILABLE.search(console)
    return int(found[2]) * 1024 if found else None


def freed_of_image(console: str) -> int:
    """Bytes of its own image that the kernel has freed: init, and gaps of alignment."""
    return sum(int(size) for name, size in _FREED.findall(console) if "kernel image" in name) * 1024


def console_of(guest: Path) -> str:
    """What a guest said on its console, by its folder; "" when there is no such log."""
    path = guest / "console.log"
    return path.read_text(errors="replace") if path.is_file() else ""
