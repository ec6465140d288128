"""``security.json`` in words, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracer.host import MISSHAPEN, UserError, read_json

SCHEMA = 1
SIDES = ("base", "pruned")
#: How functions behind system calls are counted (:mod:`prune.security.surface`), and what to call it.
HOW = {
    "direct": "behind system calls, by calls alone",
    "referred": "behind system calls, by all references",
    "pointers": "behind system calls, by any pointer",
}
#: Those that each system call has numbers of.
EACH = ("direct", "referred")


def read_exposure(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Side -> build id, and what the page shows. ``offers``: rows of label, base, pruned; ``calls``: of name,
    bits, functions behind it by calls (base, pruned) and by references (base, pruned), None where it does not
    answer; ``cves``: of name, verdict, functions, note.

    Raises:
        UserError: missing or damaged.
    """
    found = read_json(path, "security view", SCHEMA)
    try:
        shown = {
            "offers": [[str(label), int(base), int(pruned)] for label, base, pruned in offers(found)],
            "calls": [
                [str(call["name"]), int(call["bits"])]
                + [call[side] and int(call[side][how]["functions"]) for how in EACH for side in SIDES]
                for call in found["system_calls"]
            ],
            "cves": [
                [str(each["id"]), str(each["verdict"]), states(each), str(each["note"])]
                for each in found["cves"] or ()
            ],
        }
        return {str(side): str(found["build_id"][side]) for side in SIDES}, shown
    except MISSHAPEN as error:
        raise UserError(
            f"reading the security view: {path}: {error!r}", "make it again: kprune security"
        ) from error


def offers(found: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
    """(label, base, pruned) of what is counted for a whole kernel."""
    base, pruned = (found["kernels"][side] for side in SIDES)
    for bits, count in base["system_calls"].items():
        yield f"system calls, {bits} bit", count, pruned["system_calls"][bits]
    yield "functions, resident", base["functions"]["functions"], pruned["functions"]["functions"]
    for how, text in HOW.items():
        before, after = (each["reachable"][how]["functions"] for each in (base, pruned))
        yield text, before, after
    yield "gadgets", base["gadgets"], pruned["gadgets"]
    yield "indirect-call targets", base["indirect_targets"], pruned["indirect_targets"]


def states(hole: Mapping[str, Any]) -> str:
    """What has become of each function of a CVE, on one line."""
    return "; ".join(f"{each['function']}: {each['state']}{_where(each)}" for each in hole["functions"])


def _where(found: Mapping[str, Any]) -> str:
    """Why nothing is known of a function, or what is not the same everywhere."""
    if found["why"]:
        return f" ({found['why']})"
    objects = {piece["object"] for piece in found["pieces"]}
    if len(objects) < 2:
        return ""
    return " (" + ", ".join(f"{piece['object']}: {piece['state']}" for piece in found["pieces"]) + ")"
