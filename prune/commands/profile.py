"""``kprune profile``: put profiles together, take them apart, and see what each app costs.

Wherever a profile is wanted, a run's folder will do. What makes a profile writes it to ``-o FILE``, or to
stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tracer.host import UserError, show
from tracer.profiles.algebra import diff, function_sizes, intersect, merge, shares, subtract, without
from tracer.profiles.profile import SCHEMA_VERSION, Profile, load_profile, save_profile, to_json
from tracer.profiles.saturation import saturation
from tracer.profiles.stale import accept
from tracer.profiles.symbols import Identity, Symbols, load_symbols


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "profile", help="merge, compare and show profiles", description=__doc__.splitlines()[0]
    )
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str, profiles: str | int) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
        parser.add_argument(
            "profiles", nargs=profiles, type=Path, metavar="PROFILE", help="a profile, or a run's folder"
        )
        parser.set_defaults(handler=run)
        return parser

    for name, text in (
        ("merge", "what any of them has"),
        ("intersect", "what all of them have"),
        ("subtract", "what the first has and no other"),
    ):
        action(name, text, "+").add_argument("-o", "--output", type=Path, metavar="FILE")
    left = action("without", "what is left when apps are dropped", "+")
    left.add_argument("--app", action="append", required=True, metavar="NAME", help="an app to drop")
    left.add_argument("-o", "--output", type=Path, metavar="FILE")
    compared = action("diff", "what two profiles do not have in common", "+")
    compared.add_argument("--json", action="store_true", help="print it as JSON, functions and all")
    matched = action("match", "how much of a profile fits another build, and what does not", 1)
    matched.add_argument("out", type=Path, metavar="OUT", help="folder of a run of that build")
    matched.add_argument("--json", action="store_true", help="print it as JSON")
    shown = action("show", "what each app ran, and what only it ran", "+")
    shown.add_argument("--app", metavar="NAME", help="list the functions that only this app brings")
    shown.add_argument("--symbols", type=Path, metavar="FILE", help="the kernel's symbols.json, for bytes")
    shown.add_argument("--json", action="store_true", help="print it as JSON")


def run(options: argparse.Namespace) -> int:
    """Do what was asked for.

    Raises:
        UserError: no such profile or app, or profiles of different kernels.
    """
    profiles = [load_profile(_file(path)) for path in options.profiles]
    if options.action == "diff":
        _diff(profiles, options.json)
    elif options.action == "match":
        _match(profiles[0], options)
    elif options.action == "show":
        _show(_one(profiles, "showing"), options)
    else:
        made = {
            "merge": lambda: merge(profiles),
            "intersect": lambda: intersect(profiles),
            "subtract": lambda: subtract(profiles[0], profiles[1:]),
            "without": lambda: without(_one(profiles, "leaving apps out of"), options.app or ()),
        }[options.action]()
        _write(made, options.output)
    return 0


def _file(path: Path) -> Path:
    return path / "profile.json" if path.is_dir() else path


def _one(profiles: Sequence[Profile], doing: str) -> Profile:
    if len(profiles) != 1:
        raise UserError(
            f"{doing} a profile: {len(profiles)} were given", "kprune profile merge makes one of several"
        )
    return profiles[0]


def _write(profile: Profile, output: Path | None) -> None:
    if output is None:
        show(json.dumps({"schema_version": SCHEMA_VERSION, **to_json(profile)}, indent=1))
        return
    save_profile(profile, output)
    print(f"kprune: {len(profile.functions):,} functions in {output}", file=sys.stderr)
    print(f"kprune: next: kprune plan OUT --profile {output}", file=sys.stderr)


def _diff(profiles: Sequence[Profile], as_json: bool) -> None:
    if len(profiles) != 2:
        raise UserError(f"comparing profiles: {len(profiles)} were given", "give two")
    found = diff(*profiles)
    if as_json:
        show(json.dumps(asdict(found), indent=1))
        return
    show(f"{'':12}{'only 1st':>10}{'only 2nd':>10}{'both':>10}")
    rows = [("all", (len(found.only_first), len(found.only_second), len(found.both))), *found.apps.items()]
    for app, numbers in rows:
        show(f"{app:12}" + "".join(f"{number:10,}" for number in numbers))
    for sign, functions in (("-", found.only_first), ("+", found.only_second)):
        for function in functions:
            show(f"{sign} {function.symbol} ({function.object})")


def _match(profile: Profile, options: argparse.Namespace) -> None:
    """The kernel of OUT need not be of the same source: this is the way to see what a profile is worth."""
    symbols = load_symbols(options.out / "base" / "symbols.json", "production")
    _, stale = accept(profile, symbols, True, f"matching profile {profile.workload_name}")
    if stale is None:
        show(
            "null"
            if options.json
            else f"the profile is of this very build: all {len(profile.functions):,} match"
        )
        return
    if options.json:
        show(json.dumps(asdict(stale), indent=1))
        return
    show(f"{stale}: {stale.matched()}")
    if not stale.references:
        show("it does not say what functions of its build refer to: a plan keeps what hot code calls")
    if stale.ambiguous:
        show(f"{stale.ambiguous:,} names stand for more functions here than ran there: all are kept")
    for name in stale.lost:
        show(f"unmatched: {name.rpartition(':')[2]} ({name.rpartition(':')[0]})")


def _show(profile: Profile, options: argparse.Namespace) -> None:
    symbols = _symbols(options)
    if symbols and symbols.build_id != profile.kernel.build_id:
        raise UserError(
            f"showing profile {profile.workload_name}: it is of build {profile.kernel.build_id[:12]}, "
            f"the symbols are of {symbols.build_id[:12]}",
            "name the right ones with --symbols",
        )
    sizes = function_sizes(symbols) if symbols else None
    if options.app:
        _show_app(profile, options.app, sizes or {}, options.json)
        return
    rows = shares(profile, sizes)
    how = saturation(profile)
    counted = {
        "sources": list(profile.sources),
        "ambiguous": len(profile.ambiguous),
        "unmatched": len(profile.unmatched),
        "healed": sum(any(seen.source == "heal" for seen in f.seen) for f in profile.functions),
        "blind": {f"{spot.source}: {spot.reason}": len(spot.functions) for spot in profile.blind_spots},
        "saturation": asdict(how) if how else None,
    }
    if options.json:
        show(json.dumps({"shares": [asdict(row) for row in rows], **counted}, indent=1))
        return
    show(f"{'':12}{'functions':>10}{'bytes':>12}{'only it':>10}{'bytes':>12}")
    for row in rows:
        only = (f"{row.marginal_functions:10,}", _bytes(row.marginal_bytes)) if row.app else ()
        show("".join([f"{row.app or 'all':12}{row.functions:10,}", _bytes(row.bytes), *only]))
    if sizes is None:
        show("no bytes: name the kernel's symbols with --symbols OUT/base/symbols.json")
    for label, value in counted.items():
        if isinstance(value, int) and value:
            show(f"{label}: {value:,}")
    if how:
        curve = f"{how.curve[-1]:,} functions after {how.runs} runs of {how.source}"
        show(f"saturation: {curve}, the last {how.quiet} of which added none")


def _bytes(number: int | None) -> str:
    return f"{'-':>12}" if number is None else f"{number:12,}"


def _symbols(options: argparse.Namespace) -> Symbols | None:
    """The symbols that were named, else those of the run that the profile lies in, if any."""
    if options.symbols:
        return load_symbols(options.symbols, "production")
    folder = options.profiles[0] if options.profiles[0].is_dir() else options.profiles[0].parent
    path = folder / "base" / "symbols.json"
    return load_symbols(path, "production") if path.is_file() else None


def _show_app(profile: Profile, app: str, sizes: dict[Identity, int], as_json: bool) -> None:
    known = {seen.app for function in profile.functions for seen in function.seen}
    if app not in known:
        raise UserError(
            f"showing app {app}: the profile has none of that name", f"it has {', '.join(sorted(known))}"
        )
    only = [f.identity for f in profile.functions if {seen.app for seen in f.seen} == {app}]
    only.sort(key=lambda function: (-sizes.get(function, 0), function))
    if as_json:
        show(json.dumps([{**f._asdict(), "bytes": sizes.get(f)} for f in only], indent=1))
        return
    for function in only:
        show(f"{sizes.get(function, 0):8,}  {function.symbol} ({function.object})")
