"""``kprune soak OUT``: a pruned kernel serves under load for a long time, while things go wrong around it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.settings import load_settings
from tracer.host import GuestFailed, UserError, show, write_json

if TYPE_CHECKING:
    from prune.soaking import Guest

SCHEMA = 1
#: Parts of the time in the table of misses.
_PARTS = 6


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    text = "load and trouble for a long time; what is missed is healed"
    made = verbs.add_parser("soak", help=text, description=__doc__)
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument("--minutes", type=float, default=60.0, metavar="N", help="so long (default 60)")
    made.add_argument("--requests", type=int, default=0, metavar="N", help="end after so many requests")
    made.add_argument(
        "--troubles", metavar="NAMES", help="of storm,fill,kill,memory,loss,clock, or none (default all)"
    )
    made.add_argument("--base", action="store_true", help="soak the kernel that is not pruned")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Soak, write ``OUT/soak.json`` or ``soak-base.json`` and print it; 5 when the last guest failed.

    Raises:
        UserError: no app has a load, or there is no such trouble.
    """
    from prune.pipeline import Pipeline
    from prune.soaking import as_json, soak
    from tracer.soak import TROUBLES, loaded

    troubles = _troubles(options.troubles, TROUBLES)
    if not 0 < options.minutes <= 1e6 or options.requests < 0:
        raise UserError(
            f"soaking for {options.minutes:g} minutes, {options.requests} requests", "more than 0"
        )
    pipeline = Pipeline(load_settings(options.out.absolute()))
    loaded(pipeline.workload)
    side = "base" if options.base else "pruned"
    into = pipeline.folder.path("soak.json" if side == "pruned" else "soak-base.json")

    def keep(guests: Sequence[Guest]) -> None:
        write_json(into, {"schema_version": SCHEMA, "troubles": troubles, **as_json(side, guests)})

    guests = soak(pipeline, side, options.minutes * 60, troubles, options.requests, keep)
    result = json.loads(into.read_text())
    show(json.dumps(result, indent=1) if options.json else table(result))
    return GuestFailed.exit_code if guests[-1].problem else 0


def _troubles(text: str | None, known: Sequence[str]) -> list[str]:
    names = list(known) if text is None else [] if text == "none" else text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"reading --troubles: there is no {name!r}", f"known: {', '.join(known)}")
    return names


def table(result: Mapping[str, Any]) -> str:
    """For a person: requests and misses in the course of time, what each trouble cost, what was lost."""
    guests = result["guests"]
    stretches = [stretch for guest in guests for stretch in guest["stretches"]]
    if not stretches:
        return f"{result['side']}: nothing was answered; {guests[-1]['problem'] if guests else 'no guest'}"
    # A guest that went down missed what it missed after the last stretch that it finished.
    missed_at = [
        (guest["stretches"][-1]["at"] if guest["stretches"] else 0.0, len(guest["misses"]))
        for guest in guests
    ]
    end = max(stretch["at"] for stretch in stretches) + 1
    heads = f"{'requests':>12}{'misses':>8}{'per million':>13}{'unanswered':>12}{'lost':>6}"
    lines = [f"{'from minute':>12}{heads}"]
    for part in range(_PARTS):
        low, high = end * part / _PARTS, end * (part + 1) / _PARTS
        mine = [stretch for stretch in stretches if low <= stretch["at"] < high]
        misses = sum(number for at, number in missed_at if low <= at < high)
        lines.append(f"{low / 60:12.1f}{_row(mine, misses)}")
    lines += [f"{'all':>12}{_row(stretches, sum(number for _, number in missed_at))}", ""]
    for trouble in ("", *result["troubles"]):
        mine = [stretch for stretch in stretches if stretch["trouble"] == trouble]
        seconds = sum(stretch["seconds"] for stretch in mine if not stretch["lost"])
        rate = sum(stretch["requests"] for stretch in mine) / seconds if seconds else 0
        unanswered = sum(stretch["unanswered"] for stretch in mine)
        lost = f"{unanswered:,} unanswered, {sum(bool(stretch['lost']) for stretch in mine)}"
        lines.append(f"{trouble or 'calm':10}{len(mine):5} stretches, {rate:8,.0f} requests/s, {lost} lost")
    lines += [f"guest ended: {guest['problem']}" for guest in guests if guest["problem"]]
    return "\n".join(lines)


def _row(stretches: Sequence[Mapping[str, Any]], misses: int) -> str:
    requests = sum(stretch["requests"] for stretch in stretches)
    rate = f"{misses * 1e6 / requests:,.1f}" if requests else "-"
    unanswered = sum(stretch["unanswered"] for stretch in stretches)
    lost = sum(bool(stretch["lost"]) for stretch in stretches)
    return f"{requests:12,}{misses:8}{rate:>13}{unanswered:12,}{lost:6}"
