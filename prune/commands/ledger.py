"""``kprune ledger OUT...``: what a part of the sources costs in each kernel, and for each application."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.folder import Folder
from prune.ledger.feature import (
    BY_APP,
    COLUMNS,
    AppCost,
    Cost,
    Part,
    Unit,
    app_costs,
    cost,
    is_one_object,
    places,
)
from prune.ledger.ledger import SCHEMA as LEDGER_SCHEMA
from tracer.host import MISSHAPEN, UserError, read_json

if TYPE_CHECKING:
    from prune.run.pipeline import Pipeline

SCHEMA = 1
SIDES = ("base", "pruned")
#: The network stack and its drivers.
DEFAULT = ("net/", "drivers/net/")


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "ledger", help="what a part of the sources costs, such as net/", description=__doc__
    )
    made.add_argument("out", type=Path, nargs="+", metavar="OUT", help="folders of runs")
    made.add_argument(
        "--under", action="append", metavar="PATH",
        help=f"a folder of the kernel's sources; may be repeated (default {' and '.join(DEFAULT)})",
    )  # fmt: skip
    made.add_argument(
        "--but", action="append", default=[], metavar="PATH", help="without this folder; may be repeated"
    )
    made.add_argument(
        "--names", type=Path, metavar="OUT",
        help="for kernels of LTO, which are one object: a run of the same sources and options without LTO",
    )  # fmt: skip
    made.add_argument("--resident", action="store_true", help="count only what is not freed after boot")
    made.add_argument("--apps", action="store_true", help="what each app needs of it, too (plans anew)")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print the ledger.

    Raises:
        UserError: a folder has no ledger, or nothing lies under a path.
    """
    part = Part(_folders(options.under or DEFAULT), _folders(options.but))
    names = None
    if options.names:
        reference = read_units(options.names, "base")
        check_paths(part, reference, options.names)
        names = places(reference, part)
    kernels: dict[str, Cost] = {}
    apps: dict[str, tuple[AppCost, ...]] = {}
    for out in options.out:
        for side in SIDES:
            kernels[f"{out.name} {side}"] = kernel_cost(
                read_units(out, side, options.resident), part, names, out
            )
        if options.apps:
            apps[out.name] = of_apps(out, part)
    if options.json:
        print(json.dumps(as_json(part, kernels, apps), indent=1))
    else:
        print(table(part, kernels, apps))
    return 0


def _folders(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip("/") + "/" for name in names)


def kernel_cost(
    units: Sequence[Unit], part: Part, names: Mapping[str, bool | None] | None, out: Path
) -> Cost:
    """Of one kernel, by names if it is one object.

    Raises:
        UserError: it is one object and there are no names, or nothing lies under a path.
    """
    if is_one_object(units):
        if names is None:
            raise UserError(
                f"reading the ledger: the kernel of {out} is one object: it does not say what is from where",
                "name a run without LTO: --names OUT",
            )
        return cost(units, part, names)
    check_paths(part, units, out)
    return cost(units, part)


def check_paths(part: Part, units: Sequence[Unit], out: Path) -> None:
    for path in (*part.paths, *part.but):
        if not any(unit.object.startswith(path) for unit in units):
            raise UserError(
                f"reading the ledger: the kernel of {out} has nothing under {path}",
                "give a folder of the kernel's sources, such as net/ipv4",
            )


def read_units(out: Path, side: str, resident: bool = False) -> list[Unit]:
    """The rows of one kernel that have an object; ``resident``: without what is freed after boot.

    Raises:
        UserError: there is no ledger.
    """
    path = Folder(out).ledger
    value = read_json(path, "ledger", LEDGER_SCHEMA)
    try:
        at = {name: value["columns"].index(name) for name in ("object", "section", "symbol", "kind", side)}
        stays = value["columns"].index("resident")
        units = []
        for row in value["rows"]:
            obj, section, symbol, kind, size = (row[i] for i in at.values())
            unit = Unit(str(obj), str(section), str(symbol), str(kind), int(size))
            if unit.object and not (resident and _is_freed(unit.kind, side, row[stays])):
                units.append(unit)
        return units
    except MISSHAPEN as error:
        raise UserError(f"reading the ledger: {path}: {error!r}", "make it again: kprune report") from error


def _is_freed(kind: str, side: str, stays: bool) -> bool:
    """Init goes in both kernels; what only booting ran, in the pruned one."""
    return kind.startswith("init ") or (side == "pruned" and not stays)


def of_apps(out: Path, part: Part) -> tuple[AppCost, ...]:
    """What each app needs, from plans for it alone and for all but it.

    Raises:
        UserError: the run has no profile.
    """
    from prune.run.pipeline import Pipeline
    from prune.settings import load_settings
    from tracer.profiles.algebra import without
    from tracer.profiles.profile import load_profile

    settings = load_settings(out.absolute())
    if settings.static:
        raise UserError(f"asking what apps need: {out} was made without a profile", "leave out --apps")
    pipeline = Pipeline(replace(settings, grain="function"))
    profile = load_profile(pipeline.folder.profile, references=False, ran=False)
    names = list(profile.apps)
    alone = {app: _kept(pipeline, without(profile, [n for n in names if n != app])) for app in names}
    less = {app: _kept(pipeline, without(profile, [app])) for app in names}
    return app_costs(read_units(out, "base"), part, alone, less, _kept(pipeline, profile))


def _kept(pipeline: Pipeline, profile: Any) -> set[tuple[str, str]]:
    """(object, section) of every unit that a plan for the profile keeps."""
    from prune.run.planning import decide

    plan = decide(pipeline.settings, pipeline.folder, pipeline.model, profile)
    return {row[:2] for row, keep in zip(plan.units, plan.keep.tolist(), strict=True) if keep}


def as_json(
    part: Part, kernels: Mapping[str, Cost], apps: Mapping[str, tuple[AppCost, ...]]
) -> dict[str, Any]:
    """The result for programs."""
    return {
        "schema_version": SCHEMA,
        "under": list(part.paths),
        "but": list(part.but),
        "kernels": {name: {**asdict(each), "total": each.total} for name, each in kernels.items()},
        "apps": {name: [asdict(row) for row in rows] for name, rows in apps.items()},
    }


def table(part: Part, kernels: Mapping[str, Cost], apps: Mapping[str, tuple[AppCost, ...]]) -> str:
    """The result for a person."""
    width = max(len(name) for name in (*kernels, *(row.app for rows in apps.values() for row in rows)))
    lines = [f"bytes under {part}", "", _row("", [*COLUMNS, "all"], width)]
    lines += [_row(name, [*each.bytes.values(), each.total], width) for name, each in kernels.items()]
    left = {f"{name}, {why}": found for name, each in kernels.items() for why, found in each.open.items()}
    if left:
        width = max(map(len, left))
        lines += ["", "besides, what may be from there or not", _row("", [*COLUMNS, "all"], width)]
        lines += [_row(name, [*found.values(), sum(found.values())], width) for name, found in left.items()]
    for name, rows in apps.items():
        for head, pick in (("a kernel for this app alone", "alone"), ("only because of this app", "more")):
            lines += ["", f"{name}, {head}", _row("", [*BY_APP, "all"], width)]
            for row in rows:
                values = list(getattr(row, pick).values())
                lines.append(_row(row.app, [*values, sum(values)], width))
    return "\n".join(lines)


def _row(name: str, values: Sequence[int | str], width: int) -> str:
    cells = (f"{value:,}" if isinstance(value, int) else value for value in values)
    return f"{name:{width}}" + "".join(f"{cell:>11}" for cell in cells)
