"""The grid for a terminal, and as CSV.

There are more rows than a line has room for, so they come in groups, each a table of its own with a line for
every kernel. What is no number says why below, once for all kernels of which it is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prune.grid.grid import COSTS, IS_BASE
from prune.grid.words import OF_BASE
from prune.measure.cell import Cell

WIDTH = 120
Cells = Mapping[str, Mapping[str, Cell]]
GROUPS: Mapping[str, tuple[str, ...]] = {
    "size": (
        "text, bytes", "resident text, bytes", "init text, bytes", "rodata, bytes", "data, bytes",
        "bss, bytes", "boot image, bytes", "memory image, bytes",
    ),
    "security": ("functions", "gadgets", "indirect-call targets", "system calls"),
    "running": ("boots", "left when booted, KiB", "boot to ready, s", "boot to ready, of its base"),
    "serving": (
        "requests per second", "requests per second, of its base", "latency p50, ms", "latency p99, ms",
        "latency p99, of its base",
    ),
    "cost": COSTS,
}  # fmt: skip
#: Heads where the label is too long for one.
_HEADS = {
    "left when booted, KiB": "left, KiB", "boot to ready, of its base": OF_BASE,
    "requests per second": "requests/s", "requests per second, of its base": OF_BASE,
    "latency p50, ms": "p50, ms", "latency p99, ms": "p99, ms", "latency p99, of its base": OF_BASE,
    "indirect-call targets": "indirect targets", "link peak memory, MiB": "link peak, MiB",
}  # fmt: skip
LEGEND = """\
(low..high): the interval of 95 % confidence, of links the smallest and the largest of three
of its base: as a ratio to the kernel of the same build that was not pruned, measured in turn with it"""
CSV_HEAD = ("kernel", "row", "value", "low", "high", "n", "why")


def table(cells: Cells) -> str:
    """Every group that has a number, and what is to be said of cells that have none."""
    blocks = []
    for group, rows in GROUPS.items():
        if any(cells[name][row].value is not None for name in cells for row in rows):
            blocks.append(_block(group, rows, cells))
    spread = any(cell.low is not None for column in cells.values() for cell in column.values())
    return "\n\n".join([*blocks, *([LEGEND] if spread else []), *_notes(cells)])


def csv_rows(cells: Cells) -> Iterable[tuple[object, ...]]:
    """A line for every cell, as :data:`CSV_HEAD` says."""
    for name, column in cells.items():
        for row, cell in column.items():
            found = cell.to_json()
            yield (name, row, *(found[key] for key in CSV_HEAD[2:]))


def _block(group: str, rows: tuple[str, ...], cells: Cells) -> str:
    columns = [[group, *cells]]
    for row in rows:
        head = _HEADS.get(row, row.partition(", bytes")[0])
        columns.append([head, *(_text(row, cells[name][row]) for name in cells)])
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for texts in zip(*columns, strict=True):
        first, *others = (f"{text:{'<' if not at else '>'}{widths[at]}}" for at, text in enumerate(texts))
        lines.append("  ".join([first, *others]).rstrip())
    return "\n".join(lines)


def _text(row: str, cell: Cell) -> str:
    if cell.value is None:
        return "-"
    if row == "boots":
        return f"{cell.value:.0%}"
    if isinstance(cell.value, int) or row.endswith("bytes"):
        return f"{cell.value:,.0f}"
    digits = 3 if row.endswith(OF_BASE) else 2 if cell.value < 10 else 1 if cell.value < 100 else 0
    value = f"{cell.value:,.{digits}f}"
    if cell.low is None or cell.high is None:
        return value
    return f"{value} ({cell.low:,.{digits}f}..{cell.high:,.{digits}f})"


def _notes(cells: Cells) -> list[str]:
    reasons: dict[str, dict[str, list[str]]] = {}
    for name, column in cells.items():
        for row, cell in column.items():
            if cell.value is None and cell.why != IS_BASE:
                reasons.setdefault(cell.why, {}).setdefault(name, []).append(row)
    lines = []
    for why, where in reasons.items():
        alone = {row for rows in where.values() for row in rows}
        rows = (
            "nothing was measured"
            if len(alone) == len(next(iter(cells.values())))
            else ", ".join(sorted(alone))
        )
        lines.append(f"{', '.join(where)}: {rows}: {why}")
    return ["\n".join(lines)] if lines else []
