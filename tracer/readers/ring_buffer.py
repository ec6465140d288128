"""Pages of the kernel's trace ring buffer: where the events lie, and whether any were lost.

A page is a header (time stamp, commit), then events. The header's layout comes from the kernel's own
``events/header_page``, the events' encoding from ``events/header_event`` (kernel/trace/ring_buffer.c,
include/linux/ring_buffer.h):

    u32 type_len:5, time_delta:27   bit fields: the low bits on little endian, the high ones on big
    1..28     data of type_len words follow
    0         a word with the length of the data, itself included, then the data
    padding   time_delta 0: the rest of the page; otherwise a word with the length of what to skip
    time_extend, time_stamp   one more word

All pages of a batch are walked at once, event by event, so that the work is numpy's: as many steps as
the fullest page has events, whatever the number of pages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.common import text_lines

#: Flags above the length in ``commit``: events were lost before this page; their number follows the data.
MISSED_EVENTS, MISSED_STORED = 1 << 31, 1 << 30
#: The kernel's index into a page has 20 bits (RB_WRITE_MASK).
MAX_PAGE = 1 << 20
_EVENT_TYPES = {"padding": 29, "time_extend": 30, "time_stamp": 31}

Order = Literal["little", "big"]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Field:
    """Where a number lies, in bytes from the start of what holds it."""

    offset: int
    size: int


@dataclass(frozen=True)
class PageFormat:
    """A page's layout. ``data``: the part that holds events, to the end of the page."""

    order: Order
    commit: Field
    data: Field

    @property
    def size(self) -> int:
        return self.data.offset + self.data.size


@dataclass(frozen=True)
class Events:
    """Data events: for each, which page it is in, where in the page its data starts, and the data's
    length in bytes. In the order of steps of the walk, not of time."""

    page: Ints
    start: Ints
    length: Ints


def parse_fields(text: bytes, doing: str) -> dict[str, Field]:
    """The ``field:`` lines of an event's format, or of ``header_page``, by name. The first of a name counts.

    Raises:
        UserError: a line is malformed, or a field is where no kernel puts one.
    """
    fields: dict[str, Field] = {}
    for _, line in text_lines(text, doing):
        if not line.lstrip().startswith("field:"):
            continue
        found = re.fullmatch(
            r"\s*field:([^;]{1,200});\s*offset:(\d{1,8});\s*size:(\d{1,8});(\s*signed:\d;)?\s*", line
        )
        name = re.search(r"(\w+)(\[\w*\])?$", found[1].strip()) if found else None
        if not found or not name:
            raise UserError(f"{doing}: a format with the line {line.strip()[:60]!r}")
        fields.setdefault(name[1], Field(int(found[2]), int(found[3])))
    return fields


def probe_pages(header_page: bytes, header_event: bytes, order: Order, doing: str) -> PageFormat:
    """The layout that the traced kernel says it has.

    Raises:
        UserError: it says nothing, or something that this module does not know.
    """
    fields = parse_fields(header_page, doing)
    if "commit" not in fields or "data" not in fields:
        raise UserError(f"{doing}: its header_page has no fields commit and data")
    kinds = {}
    for _, line in text_lines(header_event, doing):
        if kind := re.fullmatch(r"\s*(\w{1,20})\s*: type == (\d{1,4})\s*", line):
            kinds[kind[1]] = int(kind[2])
    if kinds != _EVENT_TYPES:
        raise UserError(f"{doing}: its ring buffer encodes events in an unknown way ({kinds or 'unsaid'})")
    found = PageFormat(order, fields["commit"], fields["data"])
    sane = found.commit.size in (4, 8) and found.commit.offset + found.commit.size <= found.data.offset
    if not sane or found.data.offset % 4 or found.size % 4 or found.data.size == 0 or found.size > MAX_PAGE:
        raise UserError(f"{doing}: no ring buffer has pages as its header_page describes them")
    return found


def split_pages(data: memoryview, layout: PageFormat, doing: str) -> NDArray[np.uint8]:
    """A processor's data as an array of (pages, bytes); a view, not a copy.

    Raises:
        UserError: not whole pages.
    """
    if len(data) % layout.size:
        raise UserError(f"{doing}: {len(data)} bytes are not whole pages of {layout.size}; it is cut short")
    return np.frombuffer(data, np.uint8).reshape(-1, layout.size)


def find_events(pages: NDArray[np.uint8], layout: PageFormat, doing: str) -> Events:
    """Every data event of the pages.

    Raises:
        UserError: an event or a commit reaches past its end.
        LostEvents: the kernel says that it lost events.
    """
    live = np.arange(len(pages), dtype=np.int64)
    at = np.full(len(pages), layout.data.offset, np.int64)
    end = layout.data.offset + _committed(pages, layout, doing)
    words = pages.view("<u4" if layout.order == "little" else ">u4")
    found: list[tuple[Ints, Ints, Ints]] = []
    while True:
        more = at < end
        live, at, end = live[more], at[more], end[more]
        if not live.size:
            break
        size, head, kind = _measure(words, live, at, layout.order)
        # Padding may be longer than what of it was committed.
        size = np.where(kind == _EVENT_TYPES["padding"], np.minimum(size, end - at), size)
        if bool(np.any((at + size > end) | (size % 4 != 0) | (size < head))):
            raise UserError(f"{doing}: an event in the ring buffer is malformed")
        is_data = kind < _EVENT_TYPES["padding"]
        found.append((live[is_data], (at + head)[is_data], (size - head)[is_data]))
        at = at + size
    if not found:
        return Events(live, at, end)
    return Events(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _committed(pages: NDArray[np.uint8], layout: PageFormat, doing: str) -> Ints:
    """How many bytes of each page's data hold events."""
    here = np.arange(len(pages), dtype=np.int64)
    commit = gather(pages, here, np.zeros_like(here), layout.commit, layout.order)
    missed = np.flatnonzero(commit & np.uint64(MISSED_EVENTS | MISSED_STORED))
    if missed.size:
        raise LostEvents(
            f"{doing}: events are lost before {missed.size} of {len(pages)} pages of the ring buffer",
            remedy="record again with a larger buffer (trace-cmd record -b KILOBYTES)",
        )
    if bool(np.any((commit > np.uint64(layout.data.size)) | (commit % np.uint64(4) != 0))):
        raise UserError(f"{doing}: a page of the ring buffer says that it holds more than its size")
    return commit.astype(np.int64)


def _measure(words: NDArray[np.uint32], page: Ints, at: Ints, order: Order) -> tuple[Ints, Ints, Ints]:
    """Of the event at each position: its size, that of what precedes its data, its kind. Bytes."""
    index = at >> 2
    first = words[page, index].astype(np.int64)
    second = words[page, np.minimum(index + 1, words.shape[1] - 1)].astype(np.int64)
    if order == "little":
        kind, delta = first & 31, first >> 5
    else:
        kind, delta = first >> 27, first & ((1 << 27) - 1)
    size = 4 + 4 * kind
    size = np.where(kind == 0, 4 + second, size)
    whole_page = words.shape[1] * 4
    padding = np.where(delta == 0, whole_page, 4 + second)
    size = np.where(kind == _EVENT_TYPES["padding"], padding, size)
    size = np.where(kind > _EVENT_TYPES["padding"], 8, size)
    return size, np.where(kind == 0, 8, 4), kind


def gather(pages: NDArray[np.uint8], page: Ints, start: Ints, field: Field, order: Order) -> Words:
    """The unsigned number in ``field`` of whatever starts at ``start`` of ``page``; the caller has checked
    that it is inside."""
    flat = pages.reshape(-1)
    base = page * pages.shape[1] + start + field.offset
    value = np.zeros(len(page), np.uint64)
    for i in range(field.size):
        shift = i if order == "little" else field.size - 1 - i
        value |= flat[base + i].astype(np.uint64) << np.uint64(8 * shift)
    return value
