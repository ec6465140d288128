"""Calls in ftrace's ring buffer: which event is a call, where its address lies, how often each was made.

A call is an event with an address in it. Which events have which address where comes from the formats that
the traced kernel gave (``events/ftrace/*/format``; kernel/trace/trace_entries.h).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracer.host import UserError
from tracer.readers.ring_buffer import Events, Field, Order, gather, parse_fields

#: Events that are a call, and the field with the address of the called function.
CALLS = {b"function": "ip", b"funcgraph_entry": "func", b"fgraph_retaddr_entry": "func"}
_SIZES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Call:
    """An event that is a call: its number, and where in its data the address is."""

    number: int
    address: Field


@dataclass(frozen=True)
class CallFormats:
    """All of them, and the fields that every event has."""

    kind: Field
    pid: Field
    calls: tuple[Call, ...]


def call_formats(texts: Sequence[bytes], doing: str) -> CallFormats | None:
    """What the kernel says of the events that are calls; None when it has none.

    Raises:
        UserError: such an event has no usable address.
    """
    calls, common = [], None
    for text in texts:
        name = re.match(rb"name: (\w{1,100})\s", text)
        number = re.search(rb"\nID: (\d{1,9})\s", text)
        if not name or not number or name[1] not in CALLS:
            continue
        fields = parse_fields(text, doing)
        wanted = ("common_type", "common_pid", CALLS[name[1]])
        if any(each not in fields or fields[each].size not in _SIZES for each in wanted):
            raise UserError(f"{doing}: the event {name[1].decode()} has no usable {', '.join(wanted)}")
        calls.append(Call(int(number[1]), fields[wanted[2]]))
        common = common or (fields["common_type"], fields["common_pid"])
    return CallFormats(*common, tuple(calls)) if common else None


def count_calls(
    pages: NDArray[np.uint8], events: Events, formats: CallFormats, order: Order, doing: str
) -> Iterator[tuple[int, int, int]]:
    """(process, address, calls) of some pages, in order of first appearance.

    Raises:
        UserError: an event is too short for what it should hold.
    """
    common_end = max(field.offset + field.size for field in (formats.kind, formats.pid))
    if bool(np.any(events.length < common_end)):
        raise UserError(f"{doing}: an event is shorter than its header")
    kinds = gather(pages, events.page, events.start, formats.kind, order)
    pids, addresses = [], []
    for call in formats.calls:
        is_call = kinds == np.uint64(call.number)
        page, start = events.page[is_call], events.start[is_call]
        if bool(np.any(events.length[is_call] < call.address.offset + call.address.size)):
            raise UserError(f"{doing}: a function event is shorter than its address")
        pids.append(gather(pages, page, start, formats.pid, order))
        addresses.append(gather(pages, page, start, call.address, order))
    pid_values, pid_of = np.unique(np.concatenate(pids), return_inverse=True)
    values, address_of = np.unique(np.concatenate(addresses), return_inverse=True)
    pairs, first, counts = np.unique(
        pid_of.astype(np.int64) * len(values) + address_of, return_index=True, return_counts=True
    )
    for i in np.argsort(first, kind="stable"):
        pid, address = divmod(int(pairs[i]), len(values))
        yield int(pid_values[pid]), int(values[address]), int(counts[i])
