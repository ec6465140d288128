"""``kprune compare``: two kernels, piece by piece, the way scripts/bloat-o-meter of the kernel shows it.

What a run left is compared by its ledger, unit by unit. A folder with nothing but a vmlinux.map is compared
by what the map places.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune.commands import grid as cmd_grid
from tracer.host import MISSHAPEN, UserError, read_json, show

LEDGER_SCHEMA = 1
BY = ("function", "object", "directory", "section", "kind", "reason", "cause")
SORT = ("delta", "old", "new", "name")


@dataclass(frozen=True)
class Item:
    """One row of one kernel's."""

    object: str
    section: str
    symbol: str
    output: str
    kind: str
    size: int
    reason: str = ""
    cause: str = ""
    resident: bool = True


@dataclass(frozen=True)
class Change:
    """Bytes of one group in both kernels; None: it has none of them."""

    name: str
    old: int | None
    new: int | None

    @property
    def delta(self) -> int:
        return (self.new or 0) - (self.old or 0)


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser("compare", help="what differs between two kernels, and by how much")
    made.add_argument(
        "old", type=Path, metavar="A", nargs="?", help="OUT of a run, OUT/base, or a folder with vmlinux.map"
    )
    made.add_argument(
        "new", type=Path, metavar="B", nargs="?", help="the same; default: A's base with A's pruned"
    )
    made.add_argument("--by", choices=BY, default="function", help="what is added up (default function)")
    made.add_argument("--depth", type=int, default=2, metavar="N", help="of directories (default 2)")
    made.add_argument("--sort", choices=SORT, default="delta", help="order of the rows (default delta)")
    made.add_argument("--top", type=int, default=40, metavar="N", help="rows to show, 0 for all (default 40)")
    made.add_argument("--resident", action="store_true", help="count only what is not freed after boot")
    made.add_argument("--json", action="store_true", help="print JSON, all rows")
    made.add_argument("--csv", action="store_true", help="print CSV, all rows")
    cmd_grid.add_arguments(made)
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print the comparison.

    Raises:
        UserError: a folder holds no kernel that can be compared.
    """
    if options.grid:
        return cmd_grid.run(options)
    old, new = options.old, options.new
    if old is None:
        raise UserError(
            "comparing: nothing was named", "kprune compare OUT, or kprune compare --grid WORKLOAD"
        )
    if new is None:
        old, new = options.old / "base", options.old
    changes = compare(
        read_kernel(old), read_kernel(new), group_by(options.by, options.depth), options.resident
    )
    changes = _sorted(changes, options.sort)
    if options.json:
        show(json.dumps(_as_json(changes), indent=1))
    elif options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow([options.by, "old", "new", "delta"])
        writer.writerows([each.name, each.old or 0, each.new or 0, each.delta] for each in changes)
    else:
        show(table(changes, options.by, options.top))
    return 0


def read_kernel(folder: Path) -> list[Item]:
    """The rows of a kernel: a run's pruned one, its base, or what a map places.

    Raises:
        UserError: there is none.
    """
    if (folder / "ledger.json").is_file():
        return _from_ledger(folder / "ledger.json", "pruned")
    if folder.name in ("base", "pruned") and (folder.parent / "ledger.json").is_file():
        return _from_ledger(folder.parent / "ledger.json", folder.name)
    if (folder / "vmlinux.map").is_file():
        return _from_map(folder / "vmlinux.map")
    raise UserError(
        f"comparing {folder}: it has neither a ledger.json nor a vmlinux.map",
        "give the OUT of a run (kprune report OUT makes the ledger), or a folder with a link map",
    )


def _from_ledger(path: Path, side: str) -> list[Item]:
    value = read_json(path, "ledger", LEDGER_SCHEMA)
    try:
        at = {name: value["columns"].index(name) for name in value["columns"]}
        return [
            Item(
                str(row[at["object"]]), str(row[at["section"]]), str(row[at["symbol"]]),
                str(row[at["output"]]), str(row[at["kind"]]), int(row[at[side]]),
                str(row[at["reason"]]), str(row[at["removed_by"]]),
                bool(row[at["resident"]]) or side == "base",
            )
            for row in value["rows"]
            if row[at[side]]
        ]  # fmt: skip
    except MISSHAPEN as error:
        raise UserError(f"reading the ledger: {path}: {error!r}", "make it again: kprune report") from error


def _from_map(path: Path) -> list[Item]:
    from prune.ledger.sizes import original_object
    from prune.model.mapfile import read_link_map

    found = read_link_map(path)
    loaded = {output.name for output in found.outputs if output.address}
    items = [
        Item(
            original_object(row.object), row.section, row.section.rpartition(".")[2], row.output,
            row.output.removeprefix("."), row.size,
        )
        for row in found.placed
        if row.size and row.output in loaded
    ]  # fmt: skip
    items += [
        Item("", "", "tombstones" if each.script else "alignment", each.output, "alignment", each.size)
        for each in found.fills
        if each.output in loaded
    ]
    return items


def group_by(what: str, depth: int) -> Callable[[Item], str]:
    """The name of an item's group."""
    groups: dict[str, Callable[[Item], str]] = {
        "function": lambda item: f"{item.symbol} ({item.object or item.output})",
        "object": lambda item: item.object or f"[{item.symbol}]",
        "directory": lambda item: "/".join(item.object.split("/")[:-1][:depth]) or f"[{item.symbol}]",
        "section": lambda item: item.output,
        "kind": lambda item: item.kind,
        "reason": lambda item: item.reason.partition(":")[0] or f"[{item.symbol}]",
        "cause": lambda item: item.cause or "nothing",
    }
    return groups[what]


def compare(
    old: list[Item], new: list[Item], key: Callable[[Item], str], resident: bool = False
) -> list[Change]:
    """The groups of two kernels, those that are alike too."""
    sums = [_sum(items, key, resident) for items in (old, new)]
    return [Change(name, sums[0].get(name), sums[1].get(name)) for name in {**sums[0], **sums[1]}]


def _sum(items: list[Item], key: Callable[[Item], str], resident: bool) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for item in items:
        if item.resident or not resident:
            name = key(item)
            found[name] = found.get(name, 0) + item.size
    return found


def _sorted(changes: list[Change], how: str) -> list[Change]:
    keys: dict[str, Callable[[Change], tuple[int, str]]] = {
        "delta": lambda each: (-abs(each.delta), each.name),
        "old": lambda each: (-(each.old or 0), each.name),
        "new": lambda each: (-(each.new or 0), each.name),
        "name": lambda each: (0, each.name),
    }
    return sorted(changes, key=keys[how])


def _totals(changes: list[Change]) -> dict[str, int]:
    return {
        "added": sum(each.old is None for each in changes),
        "removed": sum(each.new is None for each in changes),
        "grown": sum(None not in (each.old, each.new) and each.delta > 0 for each in changes),
        "shrunk": sum(None not in (each.old, each.new) and each.delta < 0 for each in changes),
        "up": sum(max(each.delta, 0) for each in changes),
        "down": sum(min(each.delta, 0) for each in changes),
        "before": sum(each.old or 0 for each in changes),
        "after": sum(each.new or 0 for each in changes),
    }


def _as_json(changes: list[Change]) -> dict[str, Any]:
    rows = [
        {"name": each.name, "old": each.old or 0, "new": each.new or 0, "delta": each.delta}
        for each in changes
    ]
    return {"schema_version": 1, "totals": _totals(changes), "rows": rows}


def table(changes: list[Change], by: str, top: int) -> str:
    """The comparison for a person."""
    totals = _totals(changes)
    differ = [each for each in changes if each.delta]
    shown = differ[:top] if top else differ
    head = "add/remove: {added}/{removed} grow/shrink: {grown}/{shrunk} up/down: {up:,}/{down:,}"
    lines = [f"{head.format(**totals)} ({totals['up'] + totals['down']:+,})"]
    width = max([len(each.name) for each in shown] + [len(by)])
    lines.append(f"{by:{width}} {'old':>12} {'new':>12} {'delta':>12}")
    for each in shown:
        old, new = (f"{value:,}" if value is not None else "-" for value in (each.old, each.new))
        lines.append(f"{each.name:{width}} {old:>12} {new:>12} {each.delta:>+12,}")
    if len(differ) > len(shown):
        lines.append(f"and {len(differ) - len(shown):,} more: --top 0 shows all")
    change = totals["after"] / totals["before"] - 1 if totals["before"] else 0.0
    lines.append(f"Total: Before={totals['before']:,}, After={totals['after']:,}, chg {change:+.2%}")
    return "\n".join(lines)
