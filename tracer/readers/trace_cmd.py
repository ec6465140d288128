"""trace-cmd's ``trace.dat``: every call that the function tracer or the function graph tracer recorded.

A call is an event of the ring buffer with an address in it. Which events have which address where comes
from the formats that the traced kernel gave (``events/ftrace/*/format``), names from its
``/proc/kallsyms``, both embedded in the file. Repeats that the option ``func-no-repeats`` folded away are
not counted; their functions are in the file as ordinary calls.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.call_events import CallFormats, call_formats, count_calls
from tracer.readers.common import COUNT, MAX_SIGHTINGS, Tally, bad_line, text_lines
from tracer.readers.ring_buffer import (
    Field,
    PageFormat,
    find_events,
    probe_pages,
    split_pages,
)
from tracer.readers.sightings import ForeignTrace
from tracer.readers.trace_cursor import DOING
from tracer.readers.trace_dat import Buffer, TraceDat, parse_trace_dat

#: ftrace's own words for the task that idles, and for one whose name it had no room to save.
IDLE, UNSAVED = "<idle>", "<...>"
_LOSSES = re.compile(rf"^(overrun|commit overrun|dropped events): ({COUNT})\s*$", re.MULTILINE)
#: Bytes of pages that are looked at in one go.
_BATCH = 1 << 24

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Kallsyms:
    """Symbols of the traced kernel by address. ``starts`` ascend; ``names`` is parallel, "" for what is not
    code; ``modules``: the starts of symbols of modules.
    """

    starts: list[int]
    names: list[str]
    modules: frozenset[int]

    def find(self, address: int) -> tuple[str, bool]:
        """(name of what is there, whether it is in a module)."""
        i = bisect_right(self.starts, address) - 1
        return (self.names[i], self.starts[i] in self.modules) if i >= 0 else ("", False)


def read_trace_cmd(data: bytes, app: str) -> ForeignTrace:
    """Count the calls by function.

    With ``app`` "", an app is the name of a task as ftrace saved it; ftrace saves 128 of them unless told
    otherwise (``saved_cmdlines_size``), the others are one app called ``<...>``. Calls into modules are left
    out: a module is not part of the image. Without kallsyms, or with zeros in it (``kptr_restrict``),
    functions are given by address.

    Raises:
        UserError: malformed, unsupported, or without any call.
        LostEvents: the kernel dropped events while it recorded.
    """
    trace = parse_trace_dat(data)
    _check_stats(trace.cpu_stats)
    layout = probe_pages(trace.header_page, trace.header_event, trace.order, DOING)
    formats = call_formats(trace.ftrace_formats, DOING)
    counts = _count_calls(trace, layout, formats) if formats else {}
    if not counts:
        raise UserError(
            f"{DOING}: it holds no function events", "record with trace-cmd record -p function COMMAND"
        )
    symbols = parse_kallsyms(trace.kallsyms)
    tasks = _saved_tasks(trace.cmdlines)
    found = {address: symbols.find(address) for address in {address for _, address in counts}}
    tally = Tally(DOING)
    for (pid, address), count in counts.items():
        name, in_module = found[address]
        who = app or tasks.get(pid, UNSAVED)
        tally.apps.setdefault(who)
        if not in_module:
            tally.add(who, count, name, address=0 if name else address)
    return tally.trace("trace-cmd")


def _check_stats(stats: tuple[str, ...]) -> None:
    """The ring buffer's own counters at the end of the recording (``per_cpu/cpuN/stats``)."""
    for text in stats:
        lost = {name: int(number) for name, number in _LOSSES.findall(text) if int(number)}
        if lost:
            cpu = re.search(rf"^CPU: ({COUNT})", text, re.MULTILINE)
            raise LostEvents(
                f"{DOING}: processor {cpu[1] if cpu else '?'} lost events: "
                + ", ".join(f"{name} {number}" for name, number in lost.items()),
                remedy="record again with a larger buffer (trace-cmd record -b KILOBYTES)",
            )


def _count_calls(trace: TraceDat, layout: PageFormat, formats: CallFormats) -> dict[tuple[int, int], int]:
    """How often (process, address) is in the file, in order of first appearance."""
    counts: dict[tuple[int, int], int] = {}
    for buffer in trace.buffers:
        for pages, its_layout, cpu in _batches(trace, buffer, layout):
            events = find_events(pages, its_layout, f"{DOING}, processor {cpu}")
            for pid, address, count in count_calls(pages, events, formats, trace.order, DOING):
                counts[pid, address] = counts.get((pid, address), 0) + count
            if len(counts) > MAX_SIGHTINGS:
                raise UserError(f"{DOING}: more than {MAX_SIGHTINGS} places; no kernel has so many")
    return counts


def _batches(trace: TraceDat, buffer: Buffer, layout: PageFormat) -> Iterator[tuple[Bytes, PageFormat, int]]:
    """Some pages, their layout, and the processor that they come from."""
    if buffer.page_size:
        if buffer.page_size <= layout.data.offset:
            raise UserError(f"{DOING}: pages of {buffer.page_size} bytes; it is damaged")
        layout = replace(layout, data=Field(layout.data.offset, buffer.page_size - layout.data.offset))
    at_once = max(1, _BATCH // layout.size)
    for cpu in buffer.cpus:
        for chunk in cpu.chunks(trace.order, trace.expander):
            pages = split_pages(chunk, layout, DOING)
            for i in range(0, len(pages), at_once):
                yield pages[i : i + at_once], layout, cpu.cpu


def parse_kallsyms(text: bytes) -> Kallsyms:
    """``/proc/kallsyms``. Of several symbols at one address the first that is code counts, as in the kernel's
    own look-up (the build sorts names of boundaries last).

    Raises:
        UserError: not such a text.
    """
    first: dict[int, tuple[str, bool]] = {}
    for number, line in text_lines(text.rstrip(b"\0"), DOING + "'s kallsyms"):
        words = line.split()
        if not 3 <= len(words) <= 4 or not re.fullmatch(r"[0-9a-f]{1,16}", words[0]):
            raise bad_line(DOING + "'s kallsyms", number, line)
        if number > MAX_SIGHTINGS:
            raise UserError(f"{DOING}: more than {MAX_SIGHTINGS} symbols; no kernel has so many")
        address, is_code = int(words[0], 16), words[1] in "tTwW"
        # Where addresses are hidden from the user, all of them are zero.
        if address and (address not in first or (is_code and not first[address][0])):
            first[address] = (words[2] if is_code else "", len(words) == 4)
    starts = sorted(first)
    return Kallsyms(
        starts, [first[start][0] for start in starts], frozenset(at for at in starts if first[at][1])
    )


def _saved_tasks(text: bytes) -> dict[int, str]:
    """``saved_cmdlines``: a line per task, its number and its name."""
    tasks = {0: IDLE}
    for _, line in text_lines(text.rstrip(b"\0"), DOING + "'s list of tasks"):
        number, _, name = line.strip().partition(" ")
        if re.fullmatch(r"\d{1,10}", number) and name and len(tasks) < MAX_SIGHTINGS:
            tasks[int(number)] = name
    return tasks
