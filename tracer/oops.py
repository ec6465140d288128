"""Reports of a kernel that died, found in what it printed: the one reader of oopses.

A report begins with a headline or, where that is lost, with the registers. Lines are told apart by who
printed them, as far as printk says so, since two processors may print at a time; whatever is no part of a
report is passed over. How the lines of an architecture look is data (``oops.toml``).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

WORDS = Path(__file__).parent / "oops.toml"
#: Characters of a line that are looked at; no line of an oops is as long.
LONGEST = 2000
#: Lines between the headline of a report and its next one: page tables, and what others print.
_HEAD = 16
#: Lines between the end of an oops and the panic that it is: registers, and what others print.
_TAIL = 64
#: What a terminal obeys, as far as such sequences are in serial logs.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[^\[])")
#: A log daemon's words or its time, the level, times in brackets, and who printed (kernel/printk/printk.c,
#: info_print_prefix()).
_PREFIX = re.compile(
    r"(?:.{0,200}? kernel: |[\d:.,TZ/+-]{8,40} (?:[\d:.,]{8,20} )?)?(?:<\d+>)?"
    r"(?:\[(?! *[CT]\d+\])[^\]<]{1,40}\] ?){0,2}(?:\[ *(?P<who>[CT]\d+)\])? ?"
)
_PLACE = re.compile(
    r"(?:(?P<name>[^+\s]+)\+0x(?P<offset>[0-9a-f]{1,8})/0x(?P<size>[0-9a-f]{1,8})"
    r"|0x(?P<address>[0-9a-f]{1,16}))(?![0-9a-f])(?: \[(?P<module>\w{1,55})[^\]\s]*\])?"
)


@dataclass(frozen=True)
class Place:
    """Where in the kernel: ``offset`` bytes into function ``name``, which has ``size``; without kallsyms the
    name is "" and ``offset`` is the address. ``module``: whose function it is, "" for the kernel's own."""

    name: str
    offset: int
    size: int = 0
    module: str = ""

    def __str__(self) -> str:
        return f"{self.name}+{self.offset:#x}/{self.size:#x}" if self.name else f"{self.offset:#x}"


@dataclass(frozen=True)
class Entry:
    """One line of a call trace; not ``sure`` when it may be no caller, but something left on the stack."""

    place: Place
    sure: bool


@dataclass(frozen=True)
class Oops:
    """One report. ``line``: of the log, from 1; ``what``: its headline, "" when that is lost.

    ``died``: it is an oops, not a warning; ``own``: by BUG() or WARN(), the kernel's own traps. ``place``: of
    the instruction, or ``behind`` it by so many bytes; ``fetched``: the address that may not be executed.
    ``pid`` and ``cpu`` are -1 where the log does not say. ``ended``: to its last line; ``panic``: why the
    machine went down; ``recursive``: the task is stuck. ``slide``: by how much the kernel's addresses are
    higher than those that were linked, None when the log does not say; ``release``: of the kernel.
    """

    line: int
    what: str = ""
    died: bool = False
    own: bool = False
    place: Place | None = None
    behind: int = 0
    fetched: int | None = None
    comm: str = ""
    pid: int = -1
    cpu: int = -1
    trace: tuple[Entry, ...] = ()
    ended: bool = False
    panic: str = ""
    recursive: bool = False
    slide: int | None = None
    release: str = ""

    @property
    def linked(self) -> int:
        """``fetched`` in terms of the kernel as it was linked."""
        return (self.fetched or 0) - (self.slide or 0)


def parse_place(text: str) -> Place | None:
    """``tcp_close+0x0/0x1`` or ``0xffffffff81000000``; None for anything else, or half of it."""
    found = _PLACE.match(text)
    if not found:
        return None
    if found["address"]:
        return Place("", int(found["address"], 16))
    return Place(found["name"], int(found["offset"], 16), int(found["size"], 16), found["module"] or "")


def find_oopses(console: str) -> tuple[Oops, ...]:
    """All reports of a console, in order; ``console`` may be damaged in every way."""
    reader = _Reader()
    lines = _lines(console)
    for number, line in enumerate(lines, 1):
        start = _PREFIX.match(line)
        who = start["who"] or "" if start else ""
        # A log that was cut ends within a line, and half a number is another one.
        reader.take(number, who, line[start.end() if start else 0 :].rstrip(), number < len(lines))
    return reader.reports()


def _lines(console: str) -> list[str]:
    """Lines without what is for a terminal only, the last of them behind the last end of a line; serial ports
    end them in many ways."""
    lines = re.split(r"\r*\n|\r+", console)
    return [_ESCAPES.sub("", line[:LONGEST]).replace("\0", "") for line in lines]


@cache
def _words() -> tuple[Mapping[str, Any], ...]:
    """The tables of ``oops.toml``, its regular expressions compiled."""
    tables = tomllib.loads(WORDS.read_text())
    return tuple(
        {key: re.compile(value) if isinstance(value, str) else value for key, value in table.items()}
        for table in tables.values()
        if isinstance(table, dict)
    )


def _find(key: str, text: str) -> re.Match[str] | None:
    """What any of the tables has under ``key``, in a line; an entry is all of it."""
    patterns = (table[key] for table in _words() if key in table)
    found = (each.fullmatch(text) if key == "entry" else each.search(text) for each in patterns)
    return next(filter(None, found), None)


@dataclass
class _Draft:
    """A report that is being read. ``last``: the line of it that was read last; ``tracing``: within its call
    trace; ``summed_up``: its registers were repeated at its end (``oops_end()``); ``fault``: the address
    that was asked for in vain."""

    oops: Oops
    boot: int
    last: int
    tracing: bool = False
    summed_up: bool = False
    fault: int | None = None
    trace: list[Entry] = field(default_factory=list)

    def add(self, **changes: Any) -> None:
        self.oops = replace(self.oops, **changes)


class _Reader:
    """Takes a log in line by line. ``_open``: who prints -> the report that they are in."""

    def __init__(self) -> None:
        self._drafts: list[_Draft] = []
        self._open: dict[str, _Draft] = {}
        self._process: dict[str, tuple[int, dict[str, Any]]] = {}
        self._slides: dict[int, int] = {}
        self._releases: dict[int, str] = {}
        self._boot = 0

    def reports(self) -> tuple[Oops, ...]:
        """What was read, with what is known of its boot."""
        return tuple(
            replace(
                draft.oops, trace=tuple(draft.trace), slide=self._slides.get(draft.boot),
                release=self._releases.get(draft.boot, ""),
            )
            for draft in self._drafts
        )  # fmt: skip

    def take(self, number: int, who: str, text: str, whole: bool) -> None:
        """Line ``number``, of ``who``; of one that is not ``whole`` only how a report ends is believed."""
        if not whole:
            self._of_end(number, who, text)
            return
        draft = self._open.get(who)
        entry = _find("entry", text) if draft and draft.tracing else None
        if draft and entry:
            place = parse_place(entry["place"])
            draft.last = number
            if place:
                draft.trace.append(Entry(place, not entry["unsure"]))
        elif not (self._of_boot(text) or self._of_end(number, who, text) or self._of_head(number, who, text)):
            self._of_body(number, who, text)

    def _of_boot(self, text: str) -> bool:
        banner, slide = _find("banner", text), _find("slide", text)
        if banner:
            self._boot += 1
            self._open.clear()
            self._releases[self._boot] = banner["release"]
        elif slide:
            self._slides[self._boot] = int(slide["slide"] or "0", 16)
        return bool(banner or slide)

    def _of_end(self, number: int, who: str, text: str) -> bool:
        draft, panic = self._open.get(who), _find("panic", text)
        if panic:
            self._panicked(number, who, panic["panic"].strip())
        elif draft and _find("end", text):
            draft.add(ended=True)
            draft.tracing, draft.last = False, number
        elif draft and _find("recursive", text):
            draft.add(recursive=True)
        else:
            return False
        return True

    def _panicked(self, number: int, who: str, why: str) -> None:
        """A panic is the end of the oops before it, or a report of its own; only the first one counts."""
        drafts = [draft for draft in self._drafts if draft.boot == self._boot]
        if any(draft.oops.panic for draft in drafts):
            return
        begins = tuple(begin for table in _words() for begin in table.get("of_oops", ()))
        last = self._open.get(who, drafts[-1] if drafts else None)
        if last and number - last.last <= _TAIL and (
            why.startswith(begins) or (last.oops.died and not last.oops.ended)
        ):  # fmt: skip
            last.add(panic=why)
        else:
            self._begin(number, who, panic=why)

    def _of_head(self, number: int, who: str, text: str) -> bool:
        """A headline: of a new report, or one more of a report that has had nothing else yet."""
        die, own = _find("die", text), _find("own", text)
        head = own or _find("head", text)
        if not (die or head):
            return False
        what = die["what"] if die else head[0] if head else ""
        draft = self._open.get(who)
        fresh = draft and draft.oops.place is None and draft.oops.pid < 0 and number - draft.last <= _HEAD
        if draft is None or not fresh:
            draft = self._begin(number, who, what=what)
        draft.last = number
        draft.add(died=draft.oops.died or bool(die), own=draft.oops.own or bool(own))
        if die:
            draft.add(behind=_behind(die["what"]))
        fault = _find("fault", text)
        if fault:
            draft.fault = int(fault["fault"], 16)
        return True

    def _of_body(self, number: int, who: str, text: str) -> None:
        draft, process, at = self._open.get(who), _find("process", text), _find("at", text)
        if process:
            found = {key: int(process[key][-9:]) for key in ("cpu", "pid")} | {"comm": process["comm"]}
            self._process[who] = number, found
            if draft and draft.oops.pid < 0:
                draft.add(**found)
        elif at:
            self._stood(number, who, at["place"])
        elif draft and _find("fetch", text):
            draft.add(fetched=draft.fault)
        elif draft and _find("trace", text) and not draft.trace and not draft.oops.ended:
            draft.tracing = True

    def _stood(self, number: int, who: str, text: str) -> None:
        """Registers: of the open report, of what it interrupted, of its summary, or of a headless one."""
        draft, place = self._open.get(who), parse_place(text)
        if draft and draft.tracing:
            return
        if draft and draft.oops.ended and not draft.summed_up:
            draft.summed_up = True
        elif draft and draft.oops.place is None and not draft.oops.ended:
            draft.add(place=place)
        elif draft is None or draft.oops.place != place:
            said, process = self._process.get(who, (-_HEAD, {}))
            self._begin(number, who, place=place, **(process if number - said < _HEAD else {}))

    def _begin(self, number: int, who: str, **known: Any) -> _Draft:
        draft = _Draft(Oops(number, **known), self._boot, number)
        self._drafts.append(draft)
        self._open[who] = draft
        return draft


def _behind(what: str) -> int:
    """How far behind the instruction the place is that a report of this headline names."""
    tables = (table for table in _words() if "breakpoint" in table)
    return next((int(table["behind"]) for table in tables if table["breakpoint"].search(what)), 0)
