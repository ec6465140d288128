"""``perf script``: the kernel functions that perf's samples caught, with their callers if there are chains.

Samples are statistics. What ran between two of them was not seen, and most of what ran is never seen:
such a profile is a lower bound, good to add to another, not to prune with alone. A count is the number of
samples that a function was in.

The text is what perf prints by default, or with any selection of fields that has ``ip``, ``sym`` and ``dso``
(tools/perf/builtin-script.c, process_event; util/evsel_fprintf.c). One sample:

    bash  1234 [002] 16746.399618:     250000 cpu-clock:
    <tab>ffffffff821f3e75 default_idle+0x5 ([kernel.kallsyms])
    <tab>    7fa5dd994a5b main+0x2b (/usr/bin/bash)

or, without a chain, both on one line. What perf prints between (comments, source lines) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.common import COUNT, MAX_LINE, Tally, bad_line, need_app, text_lines
from tracer.readers.sightings import ForeignTrace

DOING = "reading the output of perf script"
_REMEDY = "make it with perf script -F comm,tid,time,event,ip,sym,dso"
_TIME = re.compile(r"(?:^|(?<=\s))\d{1,20}\.\d{6,9}: ")
_FRAME = re.compile(r"(?:^|(?<=\s))([0-9a-f]{1,16}) (\S+) \(([^()]+)\)$")
#: A frame of anything: a program's symbol can be a whole signature, its file "... (deleted)".
_USER_FRAME = re.compile(r"(?:^|(?<=\s))[0-9a-f]{1,16} .*\)$")
_LOST = re.compile(
    rf"PERF_RECORD_LOST\w*(?: lost ({COUNT}))?"
    rf"|\bLOST ({COUNT}) events|\blost ({COUNT}) (?:chunks|events|samples)"
)
_OFFSET = re.compile(r"\+0x[0-9a-f]+$")
#: The upper halves of address spaces of 64 and 32 bits, but for their ends: perf uses error codes as marks.
#: What of that is not the kernel's falls out when it is matched.
_UPPER_HALVES = tuple((1 << bits - 1, (1 << bits) - 4095) for bits in (64, 32))


@dataclass
class _Sample:
    """One sample. ``timed``: its first line had a time, so that it is one even without a frame.

    ``places``: (name, address) of the kernel's frames, one of the two.
    """

    task: str = ""
    line: int = 0
    timed: bool = False
    frames: int = 0
    places: set[tuple[str, int]] = field(default_factory=set)

    def add(self, frame: re.Match[str] | None) -> None:
        self.frames += 1
        place = _kernel_place(frame) if frame else None
        if place:
            self.places.add(place)


def read_perf(data: bytes, app: str) -> ForeignTrace:
    """Count samples by kernel function. With ``app`` "", an app is the name of a task.

    Raises:
        UserError: not such a text, or no sample in it was in the kernel.
        LostEvents: perf says that it lost some.
    """
    tally = Tally(DOING)
    found = 0
    for sample in _samples(data):
        if not sample.frames and not sample.timed:
            raise UserError(f"{DOING}: line {sample.line} is no sample", _REMEDY)
        who = app or need_app(sample.task, DOING)
        found += 1
        tally.apps.setdefault(who)
        for name, address in sorted(sample.places):
            tally.add(who, 1, name, address=address)
    if not tally.counts:
        raise UserError(
            f"{DOING}: none of its {found} samples was in the kernel",
            "record as root, the kernel too (perf record -a -g -e cycles:k)",
        )
    return tally.trace("perf")


def is_perf_text(head: bytes) -> bool:
    """Whether a text begins as perf's does: a sample with a time, or one whose first or second line is a
    frame."""
    lines = [line for line in head.decode(errors="replace").splitlines()[:200] if not line.startswith("#")]
    first = [line[:MAX_LINE] for line in lines if line.strip()][:2]
    return any(_any_frame(line) for line in first) or (bool(first) and _TIME.search(first[0]) is not None)


def _samples(data: bytes) -> Iterator[_Sample]:
    """The samples, in order."""
    sample: _Sample | None = None
    for number, line in text_lines(data, DOING):
        if line.startswith("#"):
            continue
        _check_lost(number, line)
        begun = _first_line(number, line)
        if begun or not line.strip():
            if sample:
                yield sample
            sample = begun
        elif line.startswith("\t") and _any_frame(line):
            sample = sample or _Sample("", number)
            sample.add(_FRAME.search(line))
        elif not (sample and sample.frames and line.startswith("  ")):  # a source line
            raise bad_line(DOING, number, line, _REMEDY)
    if sample:
        yield sample


def _first_line(number: int, line: str) -> _Sample | None:
    """The sample that this line begins, if it does."""
    if line.startswith("\t") or not line.strip():
        return None
    time, frame, any_frame = _TIME.search(line), _FRAME.search(line), _any_frame(line)
    if not time and not any_frame:
        # Only the task is printed before a chain.
        return _Sample(_task(line), number) if line[0] != " " else None
    before = time or frame or any_frame
    sample = _Sample(_task(line[: before.start()] if before else ""), number, timed=bool(time))
    if any_frame:
        sample.add(frame)
    return sample


def _any_frame(line: str) -> re.Match[str] | None:
    return _USER_FRAME.search(line) if line.endswith(")") else None


def _task(text: str) -> str:
    """The task's name out of ``name number/number [processor]``; a name can have spaces and digits."""
    text = text.strip()
    for pattern in (r"\[\d+\]", r"\d+(/\d+)?"):
        name, _, last = text.rpartition(" ")
        if name and re.fullmatch(pattern, last):
            text = name.rstrip()
    return text


def _kernel_place(frame: re.Match[str]) -> tuple[str, int] | None:
    """What a frame's function is called or where it is; None outside the kernel's image."""
    address, name, file = int(frame[1], 16), _OFFSET.sub("", frame[2]), frame[3]
    is_kernel = file.startswith(("[kernel.kallsyms]", "[kernel.vmlinux]", "[kernel]"))
    is_kernel = is_kernel or re.fullmatch(r"vmlinux([-.].*)?", file.rpartition("/")[2]) is not None
    # Where symbols are hidden from the user, perf knows no file for the kernel's addresses either.
    hidden = file == "[unknown]" and any(first <= address < end for first, end in _UPPER_HALVES)
    if name == "[unknown]":
        return ("", address) if (is_kernel or hidden) and address else None
    return (name, 0) if is_kernel else None


def _check_lost(number: int, line: str) -> None:
    lost = _LOST.search(line) if "LOST" in line or "lost " in line else None
    how_many = next((each for each in lost.groups() if each), "some") if lost else "0"
    if how_many.strip("0"):
        raise LostEvents(
            f"{DOING}: line {number} says that perf lost {how_many} events",
            remedy="record again with a larger buffer (perf record -m PAGES) or fewer samples",
        )
