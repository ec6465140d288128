"""The linker script: the kernel's own ``vmlinux.lds``, with units placed, dropped and buried.

Four edits of the text, each on its own, nothing else is touched:

* place: function and data sections go where the script places ``.text``, ``.data`` and ``.bss``;
* pieces of sections that were taken apart go where those go;
* discard: one ``/DISCARD/`` statement at the top takes what the objects call dropped; for a person to read, a
  comment in it names every such unit by object and section;
* bury: behind the placed functions, ``name = .; BYTE(trap)`` for every tombstone, other bytes where a
  policy answers.

This module uses the standard library alone: the linker wrapper loads it on every kernel link.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from prune.model.knowledge import Align, Place
from tracer.host import UserError

# KEEP(*(...)) is one statement: nothing can be put inside.
_STATEMENT = re.compile(r"(?P<keep>KEEP\(\s*)?\*\((?P<patterns>[^()]*)\)(?(keep)\s*\))(?:\s*;)?")
_END_SYMBOL = re.compile(r"\s*\w*end\w* = \.;")
_NAMED = "[0-9a-zA-Z_]*"
_PLAIN_NAME = re.compile(r"[A-Za-z_.$][\w.$/+-]*\Z")


def place_units(script: str, places: Iterable[Place]) -> str:
    """Place function and data sections.

    Raises:
        UserError: the script places a token nowhere, so it is no kernel linker script.
    """
    for place in places:
        if place.patterns[0] in script:
            continue  # The kernel's own script does it: LTO or LD_DEAD_CODE_DATA_ELIMINATION.
        at = _insertion_point(script, place.token)
        script = f"{script[:at]} *({' '.join(place.patterns)}){script[at:]}"
    return script


def place_module_units(script: str, places: Iterable[Place]) -> str:
    """Place function and data sections of a module in one section each, where its script leaves them alone.

    Raises:
        UserError: it is no linker script.
    """
    statements = [
        f" {place.token} 0 : {{ *({place.token} {' '.join(place.patterns)}) }}\n"
        for place in places
        if place.patterns[0] not in script
    ]
    at = _inside_sections(script)
    return f"{script[:at]}\n{''.join(statements)}{script[at:]}"


def place_pieces(script: str, sections: Iterable[str]) -> str:
    """Place what sections were taken apart into beside them: ``.ref.text.NAME`` beside ``.ref.text``."""
    names = frozenset(sections)

    def beside(statement: re.Match[str]) -> str:
        words = statement["patterns"].split()
        more = [f"{word}.{_NAMED}" for word in words if word in names and f"{word}.*" not in words]
        if not more:
            return statement[0]
        patterns = statement["patterns"]
        return statement[0].replace(patterns, f"{patterns.rstrip()} {' '.join(more)}", 1)

    return _STATEMENT.sub(beside, script)


def realign(script: str, rules: Iterable[Align], options: frozenset[str]) -> str:
    """Give up alignment that no option of this kernel needs.

    Args:
        options: names of the options that are set to y.
    """
    for rule in rules:
        opening = re.search(rf"^\s*{re.escape(rule.output)}\s*:[^{{]*{{", script, re.M)
        if opening is None or options & set(rule.unless):
            continue
        end = _closing_brace(script, opening.end())
        inside = script[opening.end() : end].replace(f"ALIGN({rule.from_})", f"ALIGN({rule.to})")
        script = script[: opening.end()] + inside + script[end:]
    return script


def _insertion_point(script: str, token: str) -> int:
    """Behind the last statement of the token's output section that names a group of its prefix."""
    statements = list(_STATEMENT.finditer(script))
    first = next((s for s in statements if token in s["patterns"].split()), None)
    if first is None:
        raise UserError(
            f"reading the linker script: it places no {token} sections",
            "this is not a kernel's vmlinux.lds",
        )
    end = _closing_brace(script, first.start())
    group = re.compile(rf"{re.escape(token)}\.[A-Za-z]")
    last = first
    for statement in statements:
        if first.start() < statement.start() < end and any(map(group.match, statement["patterns"].split())):
            last = statement
    at = last.end()
    if last is not first:
        # A group may be bracketed by symbols (__start_once, __end_once): stay outside.
        bracket = _END_SYMBOL.match(script, at)
        at = bracket.end() if bracket else at
    return at


def _closing_brace(script: str, inside: int) -> int:
    depth = 0
    for brace in re.compile(r"[{}]").finditer(script, inside):
        depth += 1 if brace[0] == "{" else -1
        if depth < 0:
            return brace.start()
    raise UserError("reading the linker script: a brace is not closed")


def discard_units(script: str, prefix: str) -> str:
    """Drop every section whose name begins with ``prefix``: one pattern, which costs ld nothing."""
    at = _inside_sections(script)
    return f"{script[:at]}\n{_discarded(prefix)} }}{script[at:]}"


def _inside_sections(script: str) -> int:
    opening = re.search(r"^SECTIONS\s*\{", script, re.M)
    if opening is None:
        raise UserError("reading the linker script: there is no SECTIONS command")
    return opening.end()


def _discarded(prefix: str) -> str:
    return f" /DISCARD/ : {{\n  *({prefix}.*)\n"


def list_dropped(script: str, prefix: str, dropped: Mapping[str, Sequence[str]]) -> str:
    """The script for a person to read: a comment says what :func:`discard_units` drops. ld, which reads a
    comment byte by byte, gets the script without.

    Args:
        dropped: object -> what its dropped sections were called.
    """
    lines = [
        f"  {_said(name)}: {_said(' '.join(sections))}" for name, sections in dropped.items() if sections
    ]
    if not lines:
        return script
    statement = _discarded(prefix)
    body = "\n".join(lines)
    return script.replace(statement, f"{statement}  /*\n{body}\n  */\n", 1)


def _said(text: str) -> str:
    """In a comment, which no name may end."""
    return text.replace("*/", "* /")


def bury(
    script: str,
    place: Place,
    trap: bytes,
    graves: Sequence[Sequence[str]],
    others: Mapping[int, str] | None = None,
    *,
    bounds: bool = True,
) -> str:
    """Lay down the tombstones right behind the statement that :func:`place_units` made for ``.text``; all
    names of a grave have the same address.

    Args:
        others: index of a grave -> the statements of what lies there instead of the trap.
        bounds: symbols say where they begin and end.
    """
    if not graves:
        return script
    statement = f"*({' '.join(place.patterns)})"
    at = script.find(place.patterns[0])
    if at < 0:
        raise UserError(f"reading the linker script: {statement} is not placed")
    at = script.index(")", at) + 1
    bytes_ = " ".join(f"BYTE({value:#04x})" for value in trap)
    lines = [
        f"  {' '.join(f'{quoted(name)} = .;' for name in grave)} {(others or {}).get(number, bytes_)}"
        for number, grave in enumerate(graves)
    ]
    body = "\n".join(lines)
    if bounds:
        body = f"  __kprune_tombstones_start = .;\n{body}\n  __kprune_tombstones_end = .;"
    return f"{script[:at]}\n{body}\n{script[at:]}"


def assign(script: str, aliases: Mapping[str, str]) -> str:
    """Define every name of ``aliases`` as the symbol it maps to, behind the SECTIONS command."""
    if not aliases:
        return script
    lines = [f"{quoted(name)} = {quoted(to)};" for name, to in sorted(aliases.items())]
    return script.rstrip() + "\n" + "\n".join(lines) + "\n"


def named_symbols(script: str) -> frozenset[str]:
    """Every identifier that the script mentions: a symbol among them must stay."""
    return frozenset(re.findall(r"[A-Za-z_]\w*", script))


def quoted(name: str) -> str:
    """A name as the script's grammar takes it.

    Raises:
        UserError: it would end its own quotes, and the rest of it would be a part of the script.
    """
    if '"' in name or any(ord(sign) < 32 for sign in name):
        raise UserError(f"writing the linker script: no linker takes {name!r} for a name", "rename it")
    return name if _PLAIN_NAME.match(name) and not set(name) & set("=,~") else f'"{name}"'
