"""``kprune minram OUT``: the smallest memory in which each kernel boots and serves, and where it goes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.folder import Folder
from prune.guests.minram import Trial, short
from prune.settings import cache_folder, load_settings
from prune.stages import occupy
from tracer.host import UserError, say, write_json
from tracer.workloads.workload import Workload
from tracer.workloads.workload_file import load_workload, memory_size

if TYPE_CHECKING:
    from prune.run.smallest import Found, Healer

SCHEMA = 1
SIDES = ("base", "pruned")
#: QEMU gives memory in units of so many bytes (softmmu/vl.c: set_memory_options).
UNIT = 8192


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "minram",
        help="the smallest memory in which each kernel serves, and where it goes",
        description=__doc__,
    )
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument(
        "--app", action="append", default=[], metavar="NAME", help="serve only this app (may be repeated)"
    )
    made.add_argument(
        "--grain", type=_size, default=65536, metavar="SIZE", help="how exactly, as in 64K (the default)"
    )
    made.add_argument("--only", choices=SIDES, help="search for one kernel only")
    made.add_argument(
        "--heal", action="store_true",
        help="heal what the pruned kernel misses in less memory than was traced, and link it again",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def _size(text: str) -> int:
    size = memory_size(text)
    if not size or size % UNIT:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of {UNIT >> 10}K, as in 64K")
    return size


def run(options: argparse.Namespace) -> int:
    """Search, write ``OUT/minram.json`` and print it.

    Raises:
        UserError: there are no such kernels or apps, or a kernel does not run in the workload's own memory.
    """
    from prune.run.pipeline import Pipeline
    from prune.run.smallest import Healer

    settings = load_settings(options.out.absolute())
    occupy(settings.out)
    folder = Folder(settings.out)
    workload = only_apps(load_workload(settings.workload, settings.arch), options.app)
    sides = [options.only] if options.only else list(SIDES)
    if options.heal and sides == ["base"]:
        raise UserError("healing the base: it misses nothing", "leave out --heal, or --only base")
    healer = Healer(Pipeline(settings)) if options.heal else None
    found = search_both(workload, folder, sides, options.grain, healer)
    result = as_json(workload, options.grain, found)
    write_json(folder.minram, result)
    print(json.dumps(result, indent=1) if options.json else table(result))
    say(f"next: kprune report {settings.out} shows it in report.html")
    return 0


def only_apps(workload: Workload, names: Sequence[str]) -> Workload:
    """The workload with these apps, all of them for no name.

    Raises:
        UserError: it has no such app.
    """
    known = [app.name for app in workload.apps]
    for name in names:
        if name not in known:
            raise UserError(f"choosing apps: {workload.name} has no {name}", f"it has {', '.join(known)}")
    apps = tuple(app for app in workload.apps if not names or app.name in names)
    return replace(workload, apps=apps)


def search_both(
    workload: Workload, folder: Folder, sides: Sequence[str], grain: int, healer: Healer | None = None
) -> dict[str, Found]:
    """Side -> what was found; the guests of both sides run at the same time."""
    from prune.run.smallest import smallest_of
    from tracer.files.rootfs import Roots
    from tracer.machines.parallel import in_parallel

    roots = Roots(workload, folder.path("minram"), cache_folder())
    work = [
        partial(smallest_of, side, workload, folder, roots, grain, healer if side == "pruned" else None)
        for side in sides
    ]
    return dict(zip(sides, in_parallel(work), strict=True))


def as_json(workload: Workload, grain: int, found: Mapping[str, Found]) -> dict[str, Any]:
    """What ``minram.json`` holds."""
    return {
        "schema_version": SCHEMA,
        "workload": workload.name,
        "apps": [app.name for app in workload.apps],
        "grain": grain,
        "sides": {
            side: {
                "smallest": each.search.smallest,
                "too_small": each.search.too_small,
                "rows": dict(each.memory.rows),
                "freed_after_boot": each.memory.init,
                "hash_tables": dict(each.memory.hashes),
                "trials": [asdict(trial) for trial in each.search.trials],
            }
            for side, each in found.items()
        },
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for a person, in KiB."""
    sides: Mapping[str, Any] = result["sides"]
    lines = [f"{'KiB':18}" + "".join(f"{side:>10}" for side in sides)]
    lines.append(f"{'serves in':18}" + "".join(f"{each['smallest'] >> 10:10,}" for each in sides.values()))
    for name in next(iter(sides.values()))["rows"]:
        lines.append(f"  {name:16}" + "".join(f"{each['rows'][name] >> 10:10,}" for each in sides.values()))
    freed = "".join(f"{each['freed_after_boot'] >> 10:10,}" for each in sides.values())
    lines.append(f"{'freed after boot':18}{freed}")
    lines.append("")
    for side, each in sides.items():
        failed = [Trial(**trial) for trial in each["trials"] if trial["memory"] == each["too_small"]]
        why = short(failed[-1].reason) if failed else "it is what the kernel itself takes"
        lines.append(f"{side} does not in {each['too_small'] >> 10:,}: {why}")
        if why.startswith("missed "):
            lines.append("  what a kernel runs when memory is short is traced: [machine] tight = SIZE")
            lines.append("  or healed: kprune minram --heal")
    return "\n".join(lines)
