"""ftrace from the first moments of a boot: what ran before process 1 could open a window.

The traced kernel starts the function tracer by itself (``ftrace=function``; kernel/trace/ftrace.c,
``init_function_trace``, which ``start_kernel`` calls right after memory management is up). The agent stops
it, and sends the ring buffer in frames of the trace port, with what the kernel says of its format:

    boot-format  boot-page  boot-event      events/ftrace/function/format, events/header_page, header_event
    boot-stats.CPU                          how many events there are, and how many were lost
    boot-raw.CPU.PIECE                      whole pages

A boot makes tens of millions of calls, more than a buffer holds, most of them of a few functions of the
allocator. What is known to run most often is left out of the next boot (``ftrace_notrace=``), until a boot
loses nothing: all that it left out was seen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracer.outcome import LostEvents
from tracer.profiles.symbols import Identity, Symbols
from tracer.readers.call_events import CallFormats, call_formats, count_calls
from tracer.readers.common import COUNT
from tracer.readers.ftrace import NAME_WIDTH, Frame
from tracer.readers.ring_buffer import PageFormat, find_events, probe_pages, split_pages

SOURCE = "ftrace-boot"
#: init/main.c, kernel_init(): when it is called, the kernel has booted.
BOOT_ENDS = "free_initmem"
#: Bytes of the ring buffer of each processor.
BUFFER = 192 << 20
#: Characters of names on the kernel's command line, which has 2048 (arch/x86/include/asm/setup.h).
MAX_LEFT_OUT = 1200
#: init/main.c: the end of start_kernel, and the first two threads.
_FIRST = frozenset({"rest_init", "kernel_init", "kthreadd"})
DOING = "reading the trace of the boot"
_STAT = re.compile(rf"^(entries|overrun|commit overrun|dropped events): ({COUNT})\s*$", re.MULTILINE)
#: Bits of a page's commit that count its bytes (kernel/trace/ring_buffer.c, RB_WRITE_MASK).
_LENGTH = (1 << 20) - 1
#: Pages that are decoded at once; those with the end of booting in them count for before and after.
_BATCH = 64


@dataclass(frozen=True)
class BootTrace:
    """``calls``: how often what is at an address was called; ``lost``: events that had no room. ``before``,
    ``after``: the addresses that were called before the kernel freed its init memory, and since; what nobody
    can tell is in both."""

    calls: Mapping[int, int]
    lost: int
    before: frozenset[int] = frozenset()
    after: frozenset[int] = frozenset()


def command_line(leave_out: Iterable[str]) -> list[str]:
    """Words of the kernel's command line that start the tracer, without functions of these names."""
    # Where the clock turns out to be unstable the kernel would choose another, and forget what it has traced
    # (kernel/trace/trace.c, tracing_set_default_clock).
    words = ["kprune.boot=1", "ftrace=function", f"trace_buf_size={BUFFER >> 20}M", "trace_clock=local"]
    names = ",".join(leave_out)
    return [*words, f"ftrace_notrace={names}"] if names else words


def read_boot_trace(frames: Iterable[Frame], ends: Sequence[tuple[int, int]] = ()) -> BootTrace:
    """Decode the frames of a boot; the other frames are passed over. ``ends``: where :data:`BOOT_ENDS` lies.

    Raises:
        LostEvents: they are not complete.
        UserError: this kernel's ring buffer is none that is known.
    """
    parts = {frame.name.removeprefix("boot-"): frame.data for frame in frames if frame.name[:5] == "boot-"}
    raw: dict[str, list[bytes]] = {}
    for name, data in parts.items():
        if name.startswith("raw."):
            raw.setdefault(name.split(".")[1], []).append(data)
    if not {"format", "page", "event"} <= parts.keys() or not raw:
        raise LostEvents(f"{DOING}: the guest sent no function calls")
    layout = probe_pages(parts["page"], parts["event"], "little", DOING)
    formats = call_formats([parts["format"]], DOING)
    if formats is None:
        raise LostEvents(f"{DOING}: the kernel describes no function calls")
    calls: Counter[int] = Counter()
    before: set[int] = set()
    after: set[int] = set()
    lost = 0
    for cpu, pieces in raw.items():
        stats = {name: int(value) for name, value in _STAT.findall(_text(parts.get(f"stats.{cpu}", b"")))}
        found, parts_ = 0, []
        for piece in pieces:
            for events, part in _batches(piece, layout, formats):
                found += events
                parts_.append(part)
        for part in parts_:
            calls.update(part)
        first, since = _split(parts_, ends)
        before |= first
        after |= since
        if found != stats.get("entries"):
            raise LostEvents(f"{DOING}: processor {cpu} had {stats.get('entries')} events, {found} came")
        lost += sum(value for name, value in stats.items() if name != "entries")
    return BootTrace(calls, lost, frozenset(before), frozenset(after))


def boot_end_ranges(symbols: Symbols) -> list[tuple[int, int]]:
    """(start, end) of :data:`BOOT_ENDS`; a weak function of the name may be there, too."""
    return [
        (int(symbols.starts[i]), int(symbols.ends[i]))
        for i, function in enumerate(symbols.functions)
        if function.symbol == BOOT_ENDS
    ]


def _split(
    batches: Sequence[Mapping[int, int]], ends: Iterable[tuple[int, int]]
) -> tuple[set[int], set[int]]:
    """(called before init memory was freed, since) on one processor; on one that did not free it, both."""
    at = next(
        (
            i
            for i, batch in enumerate(batches)
            if any(low <= address < high for address in batch for low, high in ends)
        ),
        None,
    )
    before, after = (batches, batches) if at is None else (batches[: at + 1], batches[at:])
    return {address for batch in before for address in batch}, {a for batch in after for a in batch}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _batches(data: bytes, layout: PageFormat, formats: CallFormats) -> Iterator[tuple[int, Counter[int]]]:
    """(number of events, address -> calls) of some pages after another."""
    pages = split_pages(memoryview(data), layout, DOING).copy()
    # That events were lost before a page is in the statistics too, and no error here.
    at, size = layout.commit.offset, layout.commit.size
    commit = pages[:, at : at + size].copy().view(f"<u{size}")
    pages[:, at : at + size] = (commit & commit.dtype.type(_LENGTH)).view(np.uint8)
    for i in range(0, len(pages), _BATCH):
        batch = pages[i : i + _BATCH]
        found = find_events(batch, layout, DOING)
        calls: Counter[int] = Counter()
        for _, address, count in count_calls(batch, found, formats, layout.order, DOING):
            calls[address] += count
        yield len(found.page), calls


def has_beginning(functions: Iterable[Identity]) -> bool:
    """Whether a trace of a boot has what every kernel runs first of all that can be traced."""
    return any(function.symbol in _FIRST for function in functions)


def functions_at(calls: Mapping[int, int], symbols: Symbols) -> dict[Identity, int]:
    """The functions around the addresses, with their aliases, and how often each was called."""
    addresses = np.array(sorted(calls), np.uint64)
    rows = np.searchsorted(symbols.starts, addresses, side="right") - 1
    found: dict[Identity, int] = {}
    for address, row in zip(addresses.tolist(), rows.tolist(), strict=True):
        if row < 0 or address >= int(symbols.ends[row]):
            continue
        first = int(np.searchsorted(symbols.starts, symbols.starts[row], side="left"))
        for alias in range(first, row + 1):
            function = symbols.functions[alias]
            found[function] = found.get(function, 0) + calls[address]
    return found


def leave_out(
    calls: Mapping[str, int], symbols: Symbols, before: tuple[str, ...] = (), room: int = MAX_LEFT_OUT
) -> tuple[str, ...]:
    """Names for the next boot to leave out: ``before``, and of those that were called the most frequent ones
    that have room for ``room`` characters. A name of several functions is none of them: one may not have
    been seen."""
    number = Counter(function.symbol for i, function in enumerate(symbols.functions) if symbols.traceable[i])
    names = list(before)
    used = sum(len(name) + 1 for name in names)
    for name in sorted(calls, key=lambda name: (-calls[name], name)):
        if number[name] != 1 or len(name) >= NAME_WIDTH or name in before:
            continue
        used += len(name) + 1
        if used > min(room, MAX_LEFT_OUT):
            break
        names.append(name)
    return tuple(names)
