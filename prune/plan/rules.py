"""Rules: what the user wants to stay although no app ran it, and policies for what does not.

A rules file is TOML, one table a rule::

    [[keep]]
    pattern = "tcp_retransmit*"      # glob over function names
    object = "net/ipv4/*"            # optional glob over object paths
    reason = "the trace had no packet loss"

and the tables of :mod:`prune.plan.policy`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from prune.model.image import Image
from prune.plan.policy import KEEP, Policy, builtin_policies, make_policies
from tracer.host import UserError


@dataclass(frozen=True)
class KeepRule:
    """Keep every function whose name and object match, because of ``reason``."""

    pattern: str
    reason: str
    object: str = "*"

    def __str__(self) -> str:
        return self.pattern if self.object == "*" else f"{self.object}:{self.pattern}"


@dataclass(frozen=True)
class Rules:
    """What a rules file says: what stays, and what happens to whom of the rest, in order."""

    keep: tuple[KeepRule, ...] = ()
    policies: tuple[Policy, ...] = ()


def read_rules(path: Path) -> Rules:
    """Read a rules file.

    Raises:
        UserError: unreadable, not TOML, an unknown key, or a rule without pattern or reason.
    """
    doing = f"reading keep rules {path}"
    try:
        value = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{doing}: {error}") from error
    unknown = set(value) - {"keep", "policy", "builtin"}
    rows = value.get("keep", [])
    if unknown or not isinstance(rows, list):
        raise UserError(f"{doing}: unknown key {', '.join(sorted(unknown)) or 'keep'}",
                        "a rules file holds [[keep]] and [[policy]] tables, and builtin = [...]")  # fmt: skip
    policies = make_policies(value.get("policy", []), doing)
    return Rules(
        (*(_rule(path, row) for row in rows), *_kept_by(policies)),
        (
            *(policy for policy in policies if policy.on_miss != KEEP),
            *builtin_policies(value.get("builtin", []), doing),
        ),
    )


def _kept_by(policies: Iterable[Policy]) -> Iterator[KeepRule]:
    """Policies that keep are keep rules."""
    for policy in policies:
        if policy.on_miss == KEEP:
            yield from (KeepRule(glob, "a policy keeps it", policy.object) for glob in policy.functions)


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
