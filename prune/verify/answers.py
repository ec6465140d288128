"""Prove what lies at tombstones that do not just trap: for a policy, code that returns a value, or panics;
a trap that stops the machine; for the entry of a system call, what leads to the kernel's own refusal.

Such code is decoded here from vmlinux. To return is one instruction that loads the value which the plan says
into the register for it, then a return, or a jump to the kernel's thunk for returns, and filling behind it.
To panic is a call over the text, which names the function, then a call of ``panic``. Where the kernel wants a
mark at whatever is called by address, that comes first. To refuse is to jump to a jump to the function that
returns -ENOSYS. Nothing else is accepted, and nothing of it where the
plan says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from prune.verify.decode import Decoder, Row
from prune.verify.elf import Linked, Object
from tracer.host import MISSHAPEN, UserError, read_json

Name = tuple[str, str]
_LONGEST = 512
_PANIC, STOP, REFUSE = "panic", "stop", "refuse"
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


@dataclass(frozen=True)
class Planned:
    """What the plan says of one unit: ``on_miss`` is ``return``, of ``number``, or ``panic``, or ``stop``; or
    ``refuse``."""

    function: str
    on_miss: str
    number: int
    value: str


@dataclass(frozen=True)
class Found:
    """``size``: bytes that an answer takes; ``wrong``: what is the matter with it, "" for nothing."""

    size: int
    wrong: str = ""


def read_planned(path: Path) -> dict[Name, Planned]:
    """(object, section) -> what answers for it, of a plan.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "plan", 5)
    try:
        return {
            (str(row[0]), str(row[1])): Planned(str(row[2]), str(row[3]), int(row[4]), str(row[5]))
            for row in value["answers"]
        }
    except MISSHAPEN as error:
        raise UserError(f"verifying: {path}: {error!r}", "make the plan again: kprune plan") from error


def read_option(config: Path, option: str) -> bool:
    """Whether a kernel's configuration has an option.

    Raises:
        UserError: it cannot be read.
    """
    try:
        text = config.read_text(errors="replace")
    except OSError as error:
        raise UserError(f"verifying: {config}: {error.strerror}", "build the kernel again") from error
    return re.search(rf"^{re.escape(option)}=y$", text, re.M) is not None


def thunk_of(objects: Iterable[Object], name: str) -> str:
    """The name of the thunk for returns if the kernel has it: a global one, since a header may define an
    empty function of that name (arch/x86/include/asm/nospec-branch.h)."""
    there = any(symbol.name == name and not symbol.local for each in objects for symbol in each.symbols)
    return name if there else ""


@dataclass(frozen=True)
class Judge:
    """What code may answer in one kernel: ``marked``: it begins with what an indirect call must find;
    ``through``: the thunk by which it returns, "" for none; ``shared``: the kernel checks what lies before a
    function that it calls, so that all names of dropped system calls are those of what refuses; ``stones``:
    where all tombstones lie."""

    linked: Linked
    decoder: Decoder
    facts: Mapping[str, Any]
    planned: Mapping[Name, Planned]
    marked: bool = False
    through: str = ""
    shared: bool = False
    stones: frozenset[int] = frozenset()

    def size(self, of: Name, address: int) -> int:
        """Bytes of the tombstone of a unit."""
        return self.at(of, address).size if of in self.planned else len(self.facts["trap"])

    def at(self, of: Name, address: int) -> Found:
        """What lies at the tombstone of a unit that the plan has an answer for."""
        planned = self.planned[of]
        code = self.linked.read(address, _LONGEST)
        if planned.on_miss == STOP:
            stop = bytes(self.facts["answer"]["stop"])
            held = code[: len(stop)]
            return Found(len(stop), "" if held == stop else f"does not stop the machine: {held.hex(' ')}")
        mark = bytes(self.facts["answer"]["landing"]["code"]) if self.marked else b""
        if not code.startswith(mark):
            return Found(len(mark), f"does not begin with {mark.hex(' ')}")
        begin = address + len(mark)
        if planned.on_miss == REFUSE:
            found = self._refuses(planned, begin, len(mark))
        elif planned.on_miss == _PANIC:
            found = self._panics(planned, of[0], begin, code[len(mark) :])
        else:
            found = self._returns(planned, begin, code[len(mark) :])
        return Found(found.size + len(mark), found.wrong)

    def _refuses(self, planned: Planned, begin: int, mark: int) -> Found:
        """A jump to a jump to what refuses: who executes the second has no name. It is one for many, and lies
        behind one of them, whose it is."""
        refuser = self.refuser(planned.function)
        wanted = self.linked.symbols.get(refuser, 0)
        size, over = self._jump(begin)
        if over is not None and {over, over - mark} & self.stones:
            return Found(size, f"leads to that of another, at {over:#x}")
        further, to = self._jump(over) if over else (0, None)
        right = bool(wanted) and to == wanted
        size += further if over == begin + size else 0
        return Found(size, "" if right else f"leads to {to or 0:#x}, not to {refuser or 'what refuses'}")

    def refuser(self, function: str) -> str:
        """Who answers for a system call, of those that vmlinux has."""
        for redirect in self.facts.get("redirect", ()):
            if fnmatchcase(function, redirect["pattern"]) and redirect["to"] in self.linked.symbols:
                return str(redirect["to"])
        return ""

    def _jump(self, address: int) -> tuple[int, int | None]:
        """(bytes of the instruction there, where it jumps to)."""
        for row in self.decoder.rows(self.linked.read(address, 16), address):
            if row[2] == self.facts["answer"]["says"]["jump"]:
                return row[1], self.decoder.target(row[2], row[3])
            return row[1], None
        return 1, None

    def _returns(self, planned: Planned, begin: int, code: bytes) -> Found:
        known = self.facts["answer"]
        rows = list(self.decoder.rows(code[:32], begin))[:3]
        if len(rows) < 2:
            return Found(len(code), "is cut short")
        load, leave = rows[0], rows[1]
        bits = 8 * self.linked.word
        number = planned.number & ((1 << bits) - 1)
        if not _is_load(load, known, number):
            return Found(load[1], f"does not load {planned.value} but does {_said(load)}")
        says = known["says"]
        thunk = f"{says['jump']} {self.linked.symbols.get(self.through, 0):#x}"
        wanted = thunk if self.through else says["return"]
        if _said(leave) != wanted:
            return Found(load[1] + leave[1], f"goes on with {_said(leave)}, not with {wanted}")
        fill = bytes(known["return"])[1:]
        size = load[1] + leave[1]
        behind = code[size : size + len(fill)]
        return Found(size + len(fill), "" if behind == fill else f"has {behind.hex(' ')} behind its return")

    def _panics(self, planned: Planned, place: str, begin: int, code: bytes) -> Found:
        says = self.facts["answer"]["says"]
        rows = list(self.decoder.rows(code[:16], begin))
        over = self.decoder.target(rows[0][2], rows[0][3]) if rows and rows[0][2] == says["call"] else None
        if over is None or not begin + rows[0][1] < over < begin + len(code):
            return Found(1, "does not call over its text")
        text = code[rows[0][1] : over - begin]
        size = over - begin
        for row in self.decoder.rows(code[size : size + 32], over):
            size += row[1]
            if row[2] == says["call"]:
                if self.decoder.target(row[2], row[3]) != self.linked.symbols.get(_PANIC, 0):
                    return Found(size, f"calls {row[3]}, not {_PANIC}")
                break
            if _said(row) not in says["before_call"]:  # arguments are handed over
                return Found(size, f"does {_said(row)} before it calls {_PANIC}")
        names = f"kprune: {planned.function} ({place}) was pruned".replace("%", "?")
        whole = text == names.encode("ascii", "replace") + b"\0"
        return Found(size, "" if whole else f"says {text!r}, not {names}")


def _is_load(row: Row, known: Mapping[str, Any], number: int) -> bool:
    """Whether an instruction loads a number into the whole of the register for what is returned."""
    to, _, operand = row[3].partition(", ")
    right = row[2] in known["says"]["load"] and to == known["register"]
    return right and _unsigned(operand) == number


def _unsigned(operand: str) -> int | None:
    return int(operand, 0) if _NUMBER.fullmatch(operand) else None


def _said(row: Row) -> str:
    return f"{row[2]} {row[3]}".rstrip()
