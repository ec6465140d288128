"""Keep rules: what the user wants to stay although no app ran it.

A rules file is TOML, one table a rule::

    [[keep]]
    pattern = "tcp_retransmit*"      # glob over function names
    object = "net/ipv4/*"            # optional glob over object paths
    reason = "the trace had no packet loss"
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from prune.image import Image
from tracer.host import UserError


@dataclass(frozen=True)
class KeepRule:
    """Keep every function whose name and object match, because of ``reason``."""

    pattern: str
    reason: str
    object: str = "*"

    def __str__(self) -> str:
        return self.pattern if self.object == "*" else f"{self.object}:{self.pattern}"


def read_rules(path: Path) -> tuple[KeepRule, ...]:
    """Read a rules file.

    Raises:
        UserError: unreadable, not TOML, an unknown key, or a rule without pattern or reason.
    """
    try:
        value = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"reading keep rules {path}: {error}") from error
    unknown = set(value) - {"keep"}
    rows = value.get("keep", [])
    if unknown or not isinstance(rows, list):
        raise UserError(f"reading keep rules {path}: unknown key {', '.join(sorted(unknown)) or 'keep'}",
                        "a rules file holds [[keep]] tables only")  # fmt: skip
    return tuple(_rule(path, row) for row in rows)


def _rule(path: Path, row: object) -> KeepRule:
    if not isinstance(row, dict) or set(row) - {"pattern", "reason", "object"}:
        raise UserError(f"reading keep rules {path}: a rule has pattern, reason and object only: {row}")
    if not all(isinstance(row.get(key), str) and row[key] for key in ("pattern", "reason")):
        raise UserError(f"reading keep rules {path}: a rule needs a pattern and a reason: {row}")
    if not isinstance(row.get("object", "*"), str):
        raise UserError(f"reading keep rules {path}: object is a glob over object paths: {row}")
    return KeepRule(row["pattern"], row["reason"], row.get("object", "*"))


def apply_rules(
    image: Image, rules: tuple[KeepRule, ...]
) -> tuple[dict[int, KeepRule], tuple[KeepRule, ...]]:
    """(unit -> the first rule that keeps it, the rules that matched nothing).

    A function's variants (``.isra.0``, ``.part.0``, ``.cold``) match by the function's name too.
    """
    kept: dict[int, KeepRule] = {}
    used: set[KeepRule] = set()
    for rule in rules:
        for unit, _, _, name in image.functions:
            if not (fnmatchcase(name, rule.pattern) or fnmatchcase(name.split(".")[0], rule.pattern)):
                continue
            if fnmatchcase(image.objects[int(image.units["object"][unit])], rule.object):
                kept.setdefault(unit, rule)
                used.add(rule)
    return kept, tuple(rule for rule in rules if rule not in used)
