"""Block coverage: which kernel code ran, from the log that QEMU writes with ``-d in_asm``.

QEMU writes a block of instructions when it translates it, which is the first time that it is about to
run; so the log names everything that ran, from the first instruction after power-on, for any kernel
and without touching it. The place in the log says in which phase of the session that first time was.

    IN:
    0xffffffff810000ac:  0f 01 15 4d 2f a2 00     lgdtq    0xa22f4d(%rip)
    0xffffffff810000b3:  31 c0                    xorl     %eax, %eax

An instruction of more than 8 bytes goes on in a second row with its own address and no mnemonic. Newer
versions write words instead of bytes for some architectures, and a QEMU without a disassembler writes
``OBJD-T:`` and the bytes; both are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tracer.collecting.moved import how_far
from tracer.host import HostError, ValidationFailed
from tracer.profiles.symbols import Addresses, Ranges, union
from tracer.sessions.options import Mark

_SEPARATOR = b"\nIN:"
_ROW = re.compile(rb"0x([0-9a-f]+):\s*((?:(?:[0-9a-f]{8}|[0-9a-f]{4}|[0-9a-f]{2})(?: |$))*)")
_RAW = re.compile(rb"^OBJD-T:\s*([0-9a-f ]+)", re.MULTILINE)


@dataclass(frozen=True)
class Blocks:
    """Kernel blocks in the order of their first run: addresses [start, end) and index of the phase;
    ``codes``: the bytes of those among them that lie where modules may, by their index."""

    starts: Addresses
    ends: Addresses
    phases: NDArray[np.int64]
    phase_names: tuple[str, ...]
    codes: Mapping[int, bytes] = field(default_factory=dict)

    def executed_by(self, phase: int) -> Ranges:
        """Everything that ran from power-on to the end of a phase."""
        chosen = self.phases <= phase
        return union(self.starts[chosen], self.ends[chosen])


def read_blocks(
    log: Path,
    marks: Sequence[Mark],
    kernel_start: int,
    identity_offset: int,
    entry: int,
    image_end: int | None = None,
    functions: Addresses | None = None,
) -> Blocks:
    """Read a block log.

    What runs before the kernel's ``entry`` point is firmware, wherever it lies (that of a 32-bit PC begins
    above the kernel). From there on the kernel runs at its physical addresses, which are moved up by
    ``identity_offset``, until the first block above ``kernel_start``; then what lies below is user space.
    Of blocks from ``image_end`` on the bytes are read, too. With ``functions``, where functions begin, the
    kernel has chosen where it lies: what ran with paging on is moved back to where ``vmlinux`` has it.

    Raises:
        HostError: the log cannot be read.
        ValidationFailed: there is no kernel block in it, or it is damaged.
    """
    try:
        data = log.read_bytes()
    except OSError as error:
        raise HostError(f"reading the block log: {log}: {error.strerror}") from error
    try:
        if functions is not None:
            blocks = _blocks(data, log, marks, kernel_start, identity_offset, None, image_end)
            far = np.uint64(how_far(blocks.starts, functions))
            return replace(blocks, starts=blocks.starts - far, ends=blocks.ends - far)
        return _blocks(data, log, marks, kernel_start, identity_offset, entry, image_end)
    except (ValueError, OverflowError) as error:
        raise ValidationFailed(f"reading the block log: {log} is damaged: {error}", "trace again") from error


def _blocks(
    data: bytes,
    log: Path,
    marks: Sequence[Mark],
    kernel_start: int,
    identity_offset: int,
    entry: int | None,
    image_end: int | None,
) -> Blocks:
    codes: dict[int, bytes] = {}
    rows: list[tuple[int, int, int]] = []
    paging, entered = False, entry is None
    offset = 0
    for chunk in (b"\n" + data).split(_SEPARATOR)[1:]:
        start, end = _block(chunk)
        entered = entered or (end > 0 and entry in (start, start + identity_offset))
        if entered and start >= kernel_start:
            paging = True
            if image_end is not None and start >= image_end:
                codes[len(rows)] = _code(chunk)
            rows.append((start, end, offset))
        elif entered and end and not paging and entry is not None:
            rows.append((start + identity_offset, end + identity_offset, offset))
        offset += len(chunk) + len(_SEPARATOR)
    if not paging:
        raise ValidationFailed(f"reading the block log: {log} has no kernel code in it")
    table = np.array(rows, dtype=np.uint64)
    begins = np.array([mark.offset for mark in marks], dtype=np.uint64)
    return Blocks(
        starts=table[:, 0],
        ends=table[:, 1],
        phases=np.searchsorted(begins, table[:, 2], side="right") - 1,
        phase_names=tuple(mark.phase for mark in marks),
        codes=codes,
    )


def _code(chunk: bytes) -> bytes:
    """The bytes of one block's text."""
    body = chunk.partition(b"\n\n")[0]
    rows = _RAW.findall(body) or [row[2] for line in body.split(b"\n") if (row := _ROW.match(line))]
    return bytes.fromhex(b"".join(rows).decode())


def _block(chunk: bytes) -> tuple[int, int]:
    """[start, end) of one block's text, (0, 0) if it has no instruction."""
    body = chunk.partition(b"\n\n")[0]
    first = body.find(b"\n0x")
    if first < 0:
        return 0, 0
    start = int(body[first + 3 : body.index(b":", first)], 16)
    last = _ROW.match(body, body.rfind(b"\n0x") + 1)
    if last is None:
        raise ValueError(f"a row without an address at {start:#x}")
    # Without bytes at least the last instruction's first byte is known to have run.
    length = len(last[2].replace(b" ", b"")) // 2 or 1
    if raw := _RAW.findall(body):
        length = sum(len(text.replace(b" ", b"")) for text in raw) // 2
    return start, int(last[1], 16) + length
