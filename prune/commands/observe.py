"""``kprune observe OUT``: watch a production kernel for what the plan would drop, before it is dropped."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import tracer
from prune.folder import Folder
from prune.plan.plan_file import load_plan
from tracer.elsewhere.observed import filter_names, filter_text, observed_profile, read_observed
from tracer.host import UserError, show, whole_file
from tracer.profiles.profile import save_profile
from tracer.profiles.symbols import Symbols, load_symbols

_SCRIPT = Path(tracer.__file__).parent / "observe.sh"


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "observe", help="watch a running kernel for what the plan would drop", description=__doc__
    )
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument("--read", type=Path, metavar="RESULT", help="what observe.sh stop has written")
    made.add_argument("-o", "--output", type=Path, metavar="FILE", help="with --read: write it as a profile")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Write ``OUT/observe/``, or read what came of it.

    Raises:
        UserError: there is no plan, or the result is damaged or of another build.
        LostEvents: events were lost while the kernel was watched.
    """
    folder = Folder(options.out.absolute())
    symbols = load_symbols(folder.base("symbols.json"), "production")
    plan = load_plan(folder.plan)
    if plan.build_id != symbols.build_id:
        raise UserError(f"reading the plan: {folder.plan} is of another build", "make it again: kprune plan")
    dropped = [row[:2] for row, keep in zip(plan.units, plan.keep.tolist(), strict=True) if not keep]
    if options.read:
        _read(options, folder, symbols, dropped)
    else:
        _write(options, folder, symbols, dropped)
    return 0


def _write(
    options: argparse.Namespace, folder: Folder, symbols: Symbols, dropped: list[tuple[str, str]]
) -> None:
    watched, ambiguous = filter_names(symbols, dropped)
    into = folder.path("observe")
    for name, text in (
        ("filter", filter_text(symbols.build_id, watched)),
        ("ambiguous", "".join(f"{each}\n" for each in ambiguous)),
        ("observe.sh", _SCRIPT.read_text()),
    ):
        with whole_file(into / name) as stream:
            stream.write(text)
    (into / "observe.sh").chmod(0o755)
    if options.json:
        show(
            json.dumps({"folder": str(into), "watched": len(watched), "ambiguous": len(ambiguous)}, indent=1)
        )
    else:
        show(f"{into}: {len(watched):,} functions to watch")
        if ambiguous:
            show(f"{len(ambiguous):,} are left out, since a kept function has the name: {into / 'ambiguous'}")
    print(f"kprune: next: copy {into} to the machine and run ./observe.sh start", file=sys.stderr)


def _read(
    options: argparse.Namespace, folder: Folder, symbols: Symbols, dropped: list[tuple[str, str]]
) -> None:
    observed = read_observed(options.read)
    profile = observed_profile(observed, symbols, dropped)
    if options.output:
        save_profile(profile, options.output)
    if options.json:
        show(
            json.dumps(
                {
                    "kernel": observed.kernel, "seconds": observed.seconds, "watched": observed.watched,
                    "called": [
                        {"function": f.symbol, "object": f.object, "calls": f.seen[0].count}
                        for f in profile.functions
                    ],
                    "unmatched": list(profile.unmatched),
                },
                indent=1,
            )
        )  # fmt: skip
    else:
        _table(observed.seconds, observed.watched, profile.functions)
    if profile.functions and options.output:
        merge = f"kprune profile merge {folder.profile} {options.output} -o MERGED"
        print(f"kprune: next: {merge}; kprune plan {folder.out} --profile MERGED", file=sys.stderr)


def _table(seconds: int, watched: int, functions: Any) -> None:
    show(f"{len(functions):,} of {watched:,} watched functions were called in {seconds:,} seconds")
    for function in sorted(functions, key=lambda f: (-(f.seen[0].count or 0), f.symbol)):
        calls = function.seen[0].count
        show(f"{'?' if calls is None else calls:>8}  {function.symbol} ({function.object})")
