"""The size ledger: every byte of the base and of the pruned image has a row.

A row is one input section of one object, in both images. What no object has got rows of its own: tombstones,
the alignment in each output section, what kbuild and ld make, and what nobody can attribute. The rows add up
to the output sections of either link map, which is asserted.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from prune.ledger.paint import true_sizes
from prune.ledger.sizes import original_object, section_label, unit_placed
from prune.model.image import Image
from prune.model.knowledge import FOLDER, Knowledge, read_toml
from prune.model.linkmap import LinkMap, Output, take_apart
from prune.plan.plan_file import Plan
from tracer.host import UserError, whole_file

SCHEMA = 1
KINDS = (
    "text", "init text", "rodata", "data", "init data", "bss", "tables", "symbols", "tombstones", "alignment",
    "unattributed",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """``base`` and ``pruned`` in bytes; ``reason``: the plan's, for units; ``removed_by``: what the
    difference is due to; ``resident``: the pruned bytes are not freed after boot; ``fixed``: the
    configuration sets the size."""

    object: str
    section: str
    symbol: str
    output: str
    kind: str
    base: int
    pruned: int
    reason: str
    removed_by: str
    resident: bool
    fixed: bool


COLUMNS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True)
class Ledger:
    """The rows, the largest in the base image first."""

    rows: tuple[Row, ...]

    def sums(self, key: Callable[[Row], str]) -> dict[str, tuple[int, int]]:
        """Group -> (base, pruned) bytes."""
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in self.rows:
            both = found[key(row)]
            both[0] += row.base
            both[1] += row.pruned
        return {name: (base, pruned) for name, (base, pruned) in found.items()}

    @property
    def total(self) -> tuple[int, int]:
        return sum(row.base for row in self.rows), sum(row.pruned for row in self.rows)


@dataclass
class _Cell:
    unit: int | None
    output: str
    base: int = 0
    pruned: int = 0
    resident: bool = True


def save_ledger(ledger: Ledger, files: Mapping[str, Mapping[str, int]], path: Path) -> None:
    """Write ``ledger.json``, a row a line; ``files``: what the bytes of both vmlinux files are for."""
    rows = [json.dumps(list(astuple(row))) for row in ledger.rows]
    with whole_file(path) as stream:
        head: dict[str, Any] = {
            "schema_version": SCHEMA,
            "total": list(ledger.total),
            "columns": list(COLUMNS),
        }
        head["file"] = files
        stream.write(json.dumps(head)[:-1] + ',\n"rows": [\n' + ",\n".join(rows) + "\n]}\n")


def make_ledger(image: Image, knowledge: Knowledge, plan: Plan, base: LinkMap, pruned: LinkMap) -> Ledger:
    """The ledger of a pruned kernel.

    Raises:
        UserError: the rows do not add up to the images.
    """
    labels = image.labels(range(len(image.units)))
    cells: dict[tuple[str, str], _Cell] = {}
    others: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    totals = []
    for side, link_map in enumerate(map(true_sizes, (take_apart(base, image.pieces), pruned))):
        _add_units(image, knowledge, link_map, side, cells, others)
        totals.append(_add_rest(link_map, side, others))
    rows = [_unit_row(image, knowledge, plan, labels, key, cell) for key, cell in cells.items()]
    for (kind, output), (before, after) in others.items():
        removed = {"symbols": "symbols", "alignment": "alignment", "tombstones": "tombstones"}.get(kind, "")
        resident = not _is_freed(pruned, output)
        rows.append(Row("", "", kind, output, kind, before, after, "", removed, resident, False))
    ledger = Ledger(tuple(sorted(rows, key=lambda row: (-row.base, -row.pruned, row.object, row.section))))
    if ledger.total != tuple(totals):
        raise UserError(f"making the ledger: rows add up to {ledger.total}, the images have {tuple(totals)}")
    return ledger


def _add_units(
    image: Image, knowledge: Knowledge, link_map: LinkMap, side: int,
    cells: dict[tuple[str, str], _Cell], others: dict[tuple[str, str], list[int]],
) -> None:  # fmt: skip
    loaded = {output.name for output in link_map.outputs if _is_loaded(output)}
    begin, end = link_map.init
    for row in link_map.placed:
        if not row.size or row.output not in loaded:
            continue
        name = original_object(row.object)
        unit, _ = unit_placed(image, name, row.section)
        if unit is None:
            kind = "symbols" if knowledge.is_generated(name) else "rodata"
            others[kind, row.output][side] += row.size
            continue
        cell = cells.setdefault((name, image.names[unit]), _Cell(unit, row.output))
        if side:
            cell.pruned += row.size
            cell.resident = not begin <= row.address < end
        else:
            cell.base += row.size


def _add_rest(
    link_map: LinkMap, side: int, others: dict[tuple[str, str], list[int]]
) -> int:  # fmt: skip
    """Alignment, tombstones, and what is left; all bytes of the image."""
    placed: dict[str, int] = defaultdict(int)
    for row in link_map.placed:
        placed[row.output] += row.size
    fill: dict[str, int] = defaultdict(int)
    said: dict[str, int] = defaultdict(int)
    for each in link_map.fills:
        (said if each.script else fill)[each.output] += each.size
    whole = 0
    for output in link_map.outputs:
        if not _is_loaded(output):
            continue
        whole += output.size
        left = output.size - placed[output.name] - fill[output.name] - said[output.name]
        for kind, size in (("alignment", fill[output.name]), ("tombstones", said[output.name])):
            if size:
                others[kind, output.name][side] += size
        others["unattributed", output.name if left else ""][side] += left
    return whole


def _is_loaded(output: Output) -> bool:
    """Variables of each processor lie at address 0 (x86-64 with SMP); so does what is not loaded."""
    return bool(output.address) or output.name.startswith(".data..percpu")


def _is_freed(link_map: LinkMap, output: str) -> bool:
    begin, end = link_map.init
    return any(begin <= each.address < end for each in link_map.outputs if each.name == output)


def _unit_row(
    image: Image,
    knowledge: Knowledge,
    plan: Plan,
    labels: Mapping[int, str],
    key: tuple[str, str],
    cell: _Cell,
) -> Row:
    assert cell.unit is not None
    unit = cell.unit
    exported = knowledge.exported(key[1])
    table = bool(exported) or knowledge.table_of(key[1]) is not None
    label = section_label(image, knowledge, unit)
    init = knowledge.is_init(key[1])
    kind = "tables" if table else {"init_text": "init text"}.get(label, label)
    if init and kind in ("rodata", "data", "bss"):
        kind = "init data"
    own = image.units["function"][unit] or (image.units["data"][unit] and key[1] not in knowledge.shared)
    symbol = labels.get(unit) or key[1]
    if exported:
        symbol = exported
    elif own and not labels.get(unit) and ".str" not in key[1] and ".cst" not in key[1]:
        symbol = key[1].split(".", 2)[2]  # .data.NAME
    return Row(
        key[0], key[1], symbol, cell.output, kind, cell.base, cell.pruned, plan.reason[unit],
        _removed_by(cell, kind, bool(plan.keep[unit])), cell.resident or not cell.pruned, is_fixed(*key),
    )  # fmt: skip


def _removed_by(cell: _Cell, kind: str, kept: bool) -> str:
    if cell.base == cell.pruned:
        return ""
    if kind == "tables":
        return "table entries"
    if kept and kind in ("text", "init text"):
        return "cold blocks"
    if not kept and kind.startswith("init"):
        return "init"
    return "cold function" if kind == "text" and not kept else "dead data"


@cache
def _fixed() -> tuple[tuple[str, str], ...]:
    rows = read_toml(FOLDER / "fixed.toml")["fixed"]
    return tuple((row["object"], section) for row in rows for section in row["section"])


def is_fixed(object: str, section: str) -> bool:
    """Whether the configuration sets the size of a section (linkerscripts/fixed.toml)."""
    return any(fnmatchcase(section, name) and fnmatchcase(object, path) for path, name in _fixed())


def summary(ledger: Ledger) -> dict[str, Any]:
    """What ``report.json`` says of it: bytes by kind, by what removed them, and what the project aims at."""
    image = ("rodata", "data", "bss", "tables", "symbols")

    def both(rows: Iterable[Row]) -> dict[str, int]:
        found = list(rows)
        return {"base": sum(row.base for row in found), "pruned": sum(row.pruned for row in found)}

    stays = [row for row in ledger.rows if row.kind in image and not _in_init(row)]
    init = [row for row in ledger.rows if row.kind in ("init text", "init data") or _in_init(row)]
    return {
        "by_kind": {kind: list(pair) for kind, pair in sorted(ledger.sums(lambda row: row.kind).items())},
        "removed_by": {
            cause or "nothing": base - pruned
            for cause, (base, pruned) in sorted(ledger.sums(lambda row: row.removed_by).items())
        },
        "rodata_data_bss": both(row for row in stays if not row.fixed),
        "rodata_data_bss_fixed": both(row for row in stays if row.fixed),
        "init": both(row for row in init if not row.fixed),
        "init_fixed": both(row for row in init if row.fixed),
    }


def _in_init(row: Row) -> bool:
    """Data and tables that were always freed: those of the kernel's own init sections."""
    return row.kind == "tables" and row.output.startswith((".init", ".altinstr", ".con_initcall"))
