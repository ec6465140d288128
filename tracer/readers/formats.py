"""Traces made elsewhere: which formats there are, and how a file's is recognised by its content."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tracer.host import UserError, read_at_most
from tracer.outcome import LostEvents
from tracer.readers import drcov, lcov, perf, trace_cmd, trace_dat, trace_stat
from tracer.readers.sightings import ForeignTrace

MAX_SIZE = 1 << 31
#: How much of a file is looked at to recognise it.
_HEAD = 1 << 16


@dataclass(frozen=True)
class Format:
    """One format. ``name``: the profile's word for the source; ``made_by``: the command that makes such a
    file; ``recognise``: of the beginning of a file; ``read``: see the reader's own module."""

    name: str
    made_by: str
    recognise: Callable[[bytes], bool]
    read: Callable[[bytes, str], ForeignTrace]


def _first_line(head: bytes) -> str:
    """The first line that is neither empty nor a comment."""
    lines = (line for line in head.decode(errors="replace").splitlines() if line.strip())
    return next((line for line in lines if not line.startswith("#")), "")


FORMATS = {
    each.name: each
    for each in (
        Format(
            "trace-cmd", "trace-cmd record -p function COMMAND",
            lambda head: head.startswith(trace_dat.MAGIC), trace_cmd.read_trace_cmd,
        ),
        Format(
            "drcov", "drrun -t drcov, or QEMU's drcov plugin",
            lambda head: head.startswith(drcov.MAGIC), drcov.read_drcov,
        ),
        Format(
            "trace_stat", "cat /sys/kernel/tracing/trace_stat/function*",
            lambda head: trace_stat.is_heading(_first_line(head)), trace_stat.read_trace_stat,
        ),
        Format(
            "lcov", "lcov --capture",
            lambda head: _first_line(head).startswith(("TN:", "SF:")), lcov.read_lcov,
        ),
        Format(
            "perf", "perf script",
            perf.is_perf_text, perf.read_perf,
        ),
    )
}  # fmt: skip

#: Files that people have in hand, but of another kind: how they begin, what they are, the way out.
_OTHERS = (
    (b"PERFILE2", "perf.data", "turn it into text with perf script -i FILE"),
    (b"\x1f\x8b", "compressed with gzip", "uncompress it"),
    (b"\xfd7zXZ\0", "compressed with xz", "uncompress it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "uncompress it"),
)


def detect_format(data: bytes) -> str:
    """The name of the format that the content looks like.

    Raises:
        UserError: none that can be read.
    """
    head = data[:_HEAD]
    for known in FORMATS.values():
        if known.recognise(head):
            return known.name
    for magic, what, remedy in _OTHERS:
        if head.startswith(magic):
            raise UserError(f"recognising the trace: it is {what}", remedy)
    raise UserError("recognising the trace: it is none of " + _names())


def read_foreign(path: Path, app: str, format: str = "") -> ForeignTrace:
    """Read a trace of ``format``, or of the one that it looks like. ``app``: see the reader's own module.

    Raises:
        UserError: no such file or format, too large, or what the reader says; the message names the file.
        LostEvents: the trace is incomplete.
    """
    if format and format not in FORMATS:
        raise UserError(f"reading {path}: there is no format {format!r}", "known are " + _names())
    try:
        data = read_at_most(path, MAX_SIZE)
    except OSError as error:
        raise UserError(f"reading {path}: {error.strerror}") from error
    if len(data) > MAX_SIZE:
        raise UserError(f"reading {path}: larger than {MAX_SIZE >> 30} GiB", "trace less at a time")
    try:
        return FORMATS[format or detect_format(data)].read(data, app)
    except LostEvents as error:
        raise LostEvents(f"{path}: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _names() -> str:
    return ", ".join(f"{each.name} ({each.made_by})" for each in FORMATS.values())
