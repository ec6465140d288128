"""What a linked kernel offers to somebody who got in: gadgets, targets of indirect calls, system calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import capstone
from elftools.common.exceptions import ELFError
from elftools.elf.sections import SymbolTableSection

from prune.linking.nameless import FIRST, LAST
from prune.model.extents import open_whole
from prune.model.knowledge import Knowledge
from prune.security.targets import indirect_targets
from tracer.host import UserError

#: A gadget is at most so many bytes before its return, as with ROPgadget --depth 11.
DEPTH = 10


@dataclass(frozen=True)
class Offered:
    """How many ``gadgets`` and ``indirect_targets``; the entries of the ``system_calls`` that answer."""

    gadgets: int
    indirect_targets: int
    system_calls: frozenset[str]


def measure_security(vmlinux: Path, knowledge: Knowledge) -> dict[str, int]:
    """``gadgets``, ``indirect_targets``, ``system_calls``: how many of each."""
    found = look_at(vmlinux, knowledge)
    return {
        "gadgets": found.gadgets,
        "indirect_targets": found.indirect_targets,
        "system_calls": len(found.system_calls),
    }


def look_at(vmlinux: Path, knowledge: Knowledge) -> Offered:
    """What a linked kernel offers, by its file alone.

    Raises:
        UserError: not an ELF file with symbols.
    """
    try:
        with vmlinux.open("rb") as stream:
            file = open_whole(stream)
            table = file.get_section_by_name(".symtab")
            if not isinstance(table, SymbolTableSection):
                raise ELFError("it has no symbols")
            code = [
                section.data()
                for section in file.iter_sections()
                if section["sh_flags"] & 4 and section["sh_type"] == "SHT_PROGBITS"
            ]
            gadgets = {gadget for data in code for gadget in find_gadgets(data, knowledge)}
            return Offered(
                len(gadgets), len(indirect_targets(file, knowledge)), frozenset(_answering(table, knowledge))
            )
    except OSError as error:
        raise UserError(f"reading kernel {vmlinux}: {error.strerror}", "link it: kprune link OUT") from error
    except ELFError as error:
        raise UserError(f"reading kernel {vmlinux}: {error}", "link it again") from error


def find_gadgets(code: bytes, knowledge: Knowledge) -> Iterator[bytes]:
    """Different byte strings that are whole instructions up to a return, from any byte on."""
    known = knowledge.disassembler
    decoder = capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"]))
    leaves = tuple(known["leaves"])
    seen: set[bytes] = set()
    for end in _returns(known["returns"]).finditer(code):
        for start in range(max(end.start() - DEPTH, 0), end.start() + 1):
            gadget = code[start : end.end(1)]
            if gadget not in seen:
                seen.add(gadget)
                if _is_gadget(decoder, gadget, known["return"], leaves):
                    yield gadget


def _returns(known: Sequence[Mapping[str, int]]) -> re.Pattern[bytes]:
    """Whatever may be a return; every byte may begin one, also a byte of another one's operand."""
    each = (re.escape(bytes([row["opcode"]])) + b"." * row["operand"] for row in known)
    return re.compile(b"(?=(" + b"|".join(each) + b"))", re.S)


def _is_gadget(decoder: capstone.Cs, code: bytes, back: str, leaves: tuple[str, ...]) -> bool:
    """Whether it decodes to its last byte, ends with a return, and nothing before that leaves."""
    rows = list(decoder.disasm_lite(code, 0))
    if not rows or rows[-1][0] + rows[-1][1] != len(code):
        return False
    gone = [any(word.startswith(leaves) for word in row[2].split()) for row in rows]
    return back in rows[-1][2] and not any(gone[:-1])


def _answering(table: SymbolTableSection, knowledge: Knowledge) -> set[str]:
    """System calls whose entry is code of its own, not a tombstone or what answers for pruned ones, and not
    the weak one that stands for a system call which is not configured (COND_SYSCALL of the architecture's
    asm/syscall_wrapper.h): both return -ENOSYS. LTO makes weak entries local ones, which are counted.
    """
    entries: dict[str, int] = {}
    refused: set[int] = set()
    for symbol in table.iter_symbols():
        name = symbol.name
        if any(name == each.to for each in knowledge.redirects):
            refused.add(symbol["st_value"])
        elif symbol["st_info"]["bind"] != "STB_WEAK" and any(
            re.fullmatch(each.pattern.replace("*", ".*"), name) for each in knowledge.redirects
        ):
            entries[name] = symbol["st_value"]
    first, last = (
        next((each["st_value"] for each in table.get_symbol_by_name(name) or ()), 0) for name in (FIRST, LAST)
    )
    return {name for name, value in entries.items() if value not in refused and not first <= value < last}
