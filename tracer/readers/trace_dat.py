"""The container that trace-cmd writes, taken apart: ``trace.dat``, file versions 6 and 7.

Sources: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5), and what trace-cmd 3.1 really writes. Version 6 is one
part after another; version 7 is sections, found through a chain of options, which can be compressed.
Nothing here knows what an event is; that is :mod:`tracer.readers.ring_buffer` and
:mod:`tracer.readers.trace_cmd`.

Sizes in the file are claims: nothing is allocated for one before it is known to be true, and the data of
several processors may not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tracer.host import UserError
from tracer.readers.ring_buffer import MAX_PAGE, Order
from tracer.readers.trace_cursor import CONVERT, DOING, EXPANDERS, Cursor, Expander

MAGIC = b"\x17\x08\x44tracing"
#: Options; from HEADERS on they say where the section of the same number is.
DONE, CPUSTAT, BUFFER, CPUCOUNT = 0, 2, 3, 8
HEADERS, FTRACE_FORMATS, KALLSYMS, CMDLINES, BUFFER_TEXT = 16, 17, 19, 21, 22
_SECTIONS = (HEADERS, FTRACE_FORMATS, KALLSYMS, CMDLINES)
_COMPRESSED = 1
#: Options, event formats and processors in one file.
_MAX_ENTRIES = 1 << 20
#: Bytes of the number of chunks.
_CHUNKS = 4


@dataclass(frozen=True)
class CpuData:
    """What was recorded on one processor: whole pages of the ring buffer, or chunks of them, compressed."""

    cpu: int
    data: memoryview
    compressed: bool = False

    def chunks(self, order: Order, expander: Expander) -> Iterator[memoryview]:
        """The pages, in parts.

        Raises:
            UserError: see :meth:`Expander.block`.
        """
        if not self.compressed:
            yield self.data
        elif self.data:
            cursor = Cursor(self.data, order)
            for _ in range(cursor.number(_CHUNKS)):
                yield expander.block(cursor)


@dataclass(frozen=True)
class Buffer:
    """One tracing instance, "" the top one. ``page_size`` is 0 when the file has one size for all."""

    name: str
    page_size: int
    cpus: tuple[CpuData, ...]


@dataclass(frozen=True)
class TraceDat:
    """The parts of a file that say which functions ran. Texts are as the kernel's own files were."""

    order: Order
    header_page: bytes
    header_event: bytes
    ftrace_formats: tuple[bytes, ...]
    kallsyms: bytes
    cmdlines: bytes
    cpu_stats: tuple[str, ...]
    buffers: tuple[Buffer, ...]
    expander: Expander


def parse_trace_dat(data: bytes) -> TraceDat:
    """Take a file apart.

    Raises:
        UserError: malformed, cut short, of another version or compression, or with a latency report only.
    """
    view = memoryview(data)
    if bytes(view[: len(MAGIC)]) != MAGIC:
        raise UserError(f"{DOING}: it does not begin as trace-cmd's files do")
    start = Cursor(view, "little", len(MAGIC))
    version = start.string()
    order: Order = "big" if start.number(1) else "little"
    start.order = order
    start.take(1 + 4)  # the size of user space's long, the page size of the machine that wrote the file
    file = _File(start, order)
    if version == "6":
        found = _parse_6(file)
    elif version == "7":
        found = _parse_7(file)
    else:
        raise UserError(f"{DOING}: file version {version[:20]!r} is unknown", CONVERT)
    if sum(len(cpu.data) for buffer in found.buffers for cpu in buffer.cpus) > len(data):
        raise UserError(f"{DOING}: the parts of several processors overlap")
    return found


class _File:
    """What both versions need: the whole file, its limits, and the parts of one layout in both."""

    def __init__(self, cursor: Cursor, order: Order) -> None:
        self.cursor, self.order, self.expander = cursor, order, Expander()
        self._entries = 0

    def several(self, number: int) -> range:
        """Count something that there can be many of.

        Raises:
            UserError: more than any file has.
        """
        self._entries += number
        if self._entries > _MAX_ENTRIES:
            raise UserError(f"{DOING}: more than {_MAX_ENTRIES} parts; it is damaged")
        return range(number)

    def headers(self, cursor: Cursor) -> tuple[bytes, bytes]:
        """``header_page`` and ``header_event``."""
        texts = []
        for name in (b"header_page\0", b"header_event\0"):
            if bytes(cursor.take(len(name))) != name:
                raise UserError(f"{DOING}: {name[:-1].decode()} is not where it should be; it is damaged")
            texts.append(cursor.text(8))
        return texts[0], texts[1]

    def formats(self, cursor: Cursor) -> tuple[bytes, ...]:
        """A number of events and their formats."""
        return tuple(cursor.text(8) for _ in self.several(cursor.number(4)))


def _parse_6(file: _File) -> TraceDat:
    """Version 6: the parts follow each other; only processors' data are found by offset."""
    cursor = file.cursor
    header_page, header_event = file.headers(cursor)
    ftrace_formats = file.formats(cursor)
    for _ in file.several(cursor.number(4)):
        cursor.string()
        file.formats(cursor)
    kallsyms = cursor.text(4)
    cursor.text(4)  # printk formats
    cmdlines = cursor.text(8)
    cpus = cursor.number(4)
    options: list[tuple[int, memoryview]] = []
    cpus, top = _buffer_6(file, cursor, cpus, options)
    buffers = [Buffer("", 0, top)]
    for number, content in list(options):
        if number == BUFFER:
            option = Cursor(content, file.order)
            offset, name = option.number(8), option.string()
            buffers.append(Buffer(name, 0, _buffer_6(file, cursor.at(offset), cpus, [])[1]))
    return TraceDat(
        file.order, header_page, header_event, ftrace_formats, kallsyms, cmdlines, _cpu_stats(options),
        tuple(buffers), file.expander,
    )  # fmt: skip


def _buffer_6(
    file: _File, cursor: Cursor, cpus: int, options: list[tuple[int, memoryview]]
) -> tuple[int, tuple[CpuData, ...]]:
    """Options, which are added to ``options`` and can change the number of processors, then where the
    data of each lie: (number, data)."""
    tag = bytes(cursor.take(10))
    if tag == b"options  \0":
        for number, content in _options(file, cursor):
            options.append((number, content))
            if number == CPUCOUNT and len(content) == 4:
                cpus = int.from_bytes(content, file.order)
        tag = bytes(cursor.take(10))
    _refuse_latency(tag == b"latency  \0")
    if tag != b"flyrecord\0":
        raise UserError(f"{DOING}: no trace data where they should be; it is damaged")
    places = [(cpu, cursor.number(8), cursor.number(8)) for cpu in file.several(cpus)]
    return cpus, tuple(CpuData(cpu, cursor.slice(offset, size)) for cpu, offset, size in places)


def _parse_7(file: _File) -> TraceDat:
    """Version 7: everything is a section; a chain of sections with options says where the others are."""
    compression, _ = file.cursor.string(), file.cursor.string()
    if compression != "none" and compression not in EXPANDERS:
        raise UserError(f"{DOING}: it is compressed with {compression[:20]!r}", CONVERT)
    file.expander = Expander(compression)
    options = list(_chain(file, file.cursor.number(8)))
    _refuse_latency(any(number == BUFFER_TEXT for number, _ in options))
    places = {
        number: Cursor(content, file.order).number(8) for number, content in options if number in _SECTIONS
    }
    empty = Cursor(memoryview(bytes(8)), file.order)
    parts = {n: _section(file, places[n], n) if n in places else empty.at(0) for n in _SECTIONS}
    if HEADERS not in places:
        raise UserError(f"{DOING}: it has no header_page; it is damaged")
    header_page, header_event = file.headers(parts[HEADERS])
    return TraceDat(
        file.order, header_page, header_event, file.formats(parts[FTRACE_FORMATS]), parts[KALLSYMS].text(4),
        parts[CMDLINES].text(8), _cpu_stats(options),
        tuple(_buffer_7(file, content) for number, content in options if number == BUFFER), file.expander,
    )  # fmt: skip


def _chain(file: _File, offset: int) -> Iterator[tuple[int, memoryview]]:
    """All options of all sections with options."""
    seen = set()
    while offset:
        if offset in seen:
            raise UserError(f"{DOING}: its options are a circle; it is damaged")
        seen.add(offset)
        section = _section(file, offset, DONE)
        offset = 0
        for number, content in _options(file, section, sized_end=True):
            if number == DONE:
                offset = Cursor(content, file.order).number(8)
            else:
                yield number, content


def _section_header(file: _File, offset: int, wanted: int) -> tuple[Cursor, int, bool]:
    """A section's content (as it is in the file), the content's size, and whether it is compressed."""
    cursor = file.cursor.at(offset)
    number, flags, _, size = cursor.number(2), cursor.number(2), cursor.number(4), cursor.number(8)
    if number != wanted:
        raise UserError(f"{DOING}: section {number} at byte {offset} should be {wanted}; it is damaged")
    return cursor, size, bool(flags & _COMPRESSED)


def _section(file: _File, offset: int, wanted: int) -> Cursor:
    cursor, size, compressed = _section_header(file, offset, wanted)
    content = Cursor(cursor.take(size), file.order)
    return Cursor(file.expander.block(content), file.order) if compressed else content


def _buffer_7(file: _File, option: memoryview) -> Buffer:
    cursor = Cursor(option, file.order)
    _, _, compressed = _section_header(file, cursor.number(8), BUFFER)
    name, _ = cursor.string(), cursor.string()  # and the clock
    page_size = cursor.number(4)
    if not 0 < page_size <= MAX_PAGE or page_size % 4:
        raise UserError(f"{DOING}: pages of {page_size} bytes; it is damaged")
    cpus = []
    for _ in file.several(cursor.number(4)):
        cpu, offset, size = cursor.number(4), cursor.number(8), cursor.number(8)
        # The size of compressed data leaves out the number of chunks before them (seen in files of 3.1.6).
        size += _CHUNKS if compressed and size else 0
        cpus.append(CpuData(cpu, file.cursor.slice(offset, size), compressed))
    return Buffer(name, page_size, tuple(cpus))


def _options(file: _File, cursor: Cursor, sized_end: bool = False) -> Iterator[tuple[int, memoryview]]:
    """Options up to DONE; ``sized_end``: DONE has content as well, and is given."""
    while True:
        file.several(1)
        number = cursor.number(2)
        if number == DONE and not sized_end:
            return
        yield number, cursor.take(cursor.number(4))
        if number == DONE:
            return


def _cpu_stats(options: list[tuple[int, memoryview]]) -> tuple[str, ...]:
    return tuple(bytes(content).decode(errors="replace") for number, content in options if number == CPUSTAT)


def _refuse_latency(is_latency: bool) -> None:
    if is_latency:
        raise UserError(f"{DOING}: it holds a latency report", "record with trace-cmd record -p function")
