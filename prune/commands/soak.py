"""``kprune soak OUT``: a pruned kernel serves under load for a long time, while things go wrong around it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.settings import load_settings
from prune.stages import occupy
from tracer.host import GuestFailed, UserError, say, show, write_json

if TYPE_CHECKING:
    from prune.guests.soaked import Guest, Soak, Sum


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
    made.add_argument(
        "--rehearse", type=float, default=0.0, metavar="N",
        help="first soak the whole kernel for so many minutes, and link again with what it ran",
    )  # fmt: skip
    made.add_argument("--base", action="store_true", help="soak the kernel that is not pruned")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Soak, write ``OUT/soak.json`` or ``soak-base.json`` and print it; 5 when the last guest failed.

    Raises:
        UserError: no app has a load, there is no such trouble, too little time, or a rehearsal for the base.
    """
    from prune.guests.soaked import Soak, to_json
    from prune.run.pipeline import Pipeline
    from prune.run.soaking import rehearse, soak
    from tracer.sessions.soak import SECONDS, TROUBLES, loaded

    troubles = _troubles(options.troubles, TROUBLES)
    if not 0 < options.minutes <= 1e6 or options.requests < 0:
        raise UserError(
            f"soaking for {options.minutes:g} minutes, {options.requests} requests", "more than 0"
        )
    if not 0 <= options.rehearse <= 1e6 or (options.base and options.rehearse):
        raise UserError(
            f"rehearsing for {options.rehearse:g} minutes", "from 0, and only for the kernel that is pruned"
        )
    pipeline = Pipeline(load_settings(options.out.absolute()))
    occupy(pipeline.folder.out)
    loaded(pipeline.workload)
    side = "base" if options.base else "pruned"
    into = pipeline.folder.soaked(side)

    def keep(guests: Sequence[Guest]) -> None:
        write_json(into, to_json(Soak(side, tuple(troubles), tuple(guests))))

    if options.rehearse:
        rehearse(pipeline, options.rehearse * 60, troubles)
    guests = soak(pipeline, side, options.minutes * 60, troubles, options.requests, keep)
    if not guests:
        raise UserError(
            f"soaking for {options.minutes:g} minutes: a stretch takes {SECONDS:g} seconds", "give it more"
        )
    result = Soak(side, tuple(troubles), tuple(guests))
    show(json.dumps(to_json(result), indent=1) if options.json else table(result))
    say(f"next: kprune report {options.out}, which draws it")
    return GuestFailed.exit_code if guests[-1].problem else 0


def _troubles(text: str | None, known: Sequence[str]) -> list[str]:
    names = list(known) if text is None else [] if text == "none" else text.split(",")
    for name in names:
        if name not in known:
            raise UserError(f"reading --troubles: there is no {name!r}", f"known: {', '.join(known)}")
    return names


def table(soak: Soak) -> str:
    """For a person: requests and misses in the course of time, what each trouble cost, what was lost."""
    if not soak.stretches:
        return f"{soak.side}: nothing was answered; {soak.guests[-1].problem if soak.guests else 'no guest'}"
    heads = f"{'requests':>12}{'misses':>8}{'per million':>13}{'unanswered':>12}{'lost':>6}"
    lines = [f"{'from minute':>12}{heads}"]
    lines += [f"{low / 60:12.1f}{_row(part)}" for low, part in soak.parts()]
    lines += [f"{'all':>12}{_row(soak.whole())}", ""]
    for name, kind in soak.kinds().items():
        lost = f"{kind.unanswered:,} unanswered, {kind.lost} lost"
        lines.append(f"{name:10}{kind.stretches:5} stretches, {kind.per_second:8,.0f} requests/s, {lost}")
    lines += [f"guest ended: {guest.problem}" for guest in soak.guests if guest.problem]
    return "\n".join(lines)


def _row(part: Sum) -> str:
    rate = "-" if part.per_million is None else f"{part.per_million:,.1f}"
    return f"{part.requests:12,}{part.misses:8}{rate:>13}{part.unanswered:12,}{part.lost:6}"
