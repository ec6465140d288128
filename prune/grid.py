"""The grid: one workload and configuration, built in every way that a kernel developer would think of.

A column is one side of one run of the pipeline, so four builds serve ten columns. What a run could not do is
said in its columns; a number that nobody measured is no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracer.host import UserError

#: Folder of a run -> the settings that it differs by.
RUNS: Mapping[str, Mapping[str, Any]] = {
    "gcc": {},
    "gcc-gc": {"static": True, "boots": 2, "heal": False},
    "gcc-block": {"grain": "block", "heal_rounds": 12},
    "clang": {"toolchain": "clang", "sources": "blocks"},
    "clang-thin": {"toolchain": "clang", "lto": "thin", "sources": "blocks"},
    "clang-full": {"toolchain": "clang", "lto": "full", "sources": "blocks"},
}
#: The run with a traced kernel. Its profile tells those of other compilers where tasks sleep; or everything.
FIRST = "gcc"


@dataclass(frozen=True)
class Column:
    """``side`` of a run: ``base`` or ``pruned``."""

    name: str
    run: str
    side: str


COLUMNS = (
    Column("gcc", "gcc", "base"),
    Column("gcc+gc", "gcc-gc", "pruned"),
    Column("clang", "clang", "base"),
    Column("clang ThinLTO", "clang-thin", "base"),
    Column("clang full LTO", "clang-full", "base"),
    Column("pruned (gcc)", "gcc", "pruned"),
    Column("pruned (clang)", "clang", "pruned"),
    Column("pruned on ThinLTO", "clang-thin", "pruned"),
    Column("pruned on full LTO", "clang-full", "pruned"),
    Column("by the block (gcc)", "gcc-block", "pruned"),
)
#: Label -> key of a side in ``report.json``.
_SIZES = {
    "text, bytes": "text_bytes", "resident text, bytes": "resident_text_bytes",
    "init text, bytes": "init_text_bytes", "rodata, bytes": "rodata_bytes", "data, bytes": "data_bytes",
    "bss, bytes": "bss_bytes", "boot image, bytes": "image_bytes", "functions": "functions",
}  # fmt: skip
#: Label -> key of what security.py measures.
_SECURITY = {
    "gadgets": "gadgets", "indirect-call targets": "indirect_targets", "system calls": "system_calls",
}  # fmt: skip
ROWS = (*_SIZES, "memory image, bytes", "left when booted, KiB", *_SECURITY, "boots")


@dataclass(frozen=True)
class Cell:
    """``value`` is None where nothing was measured; ``why`` not."""

    value: float | None
    why: str = ""


def chosen(names: Sequence[str]) -> tuple[Column, ...]:
    """The columns of these names, all for none.

    Raises:
        UserError: there is no such column.
    """
    known = {column.name: column for column in COLUMNS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"choosing columns: there is no {unknown[0]}", f"there are: {', '.join(known)}")
    return tuple(column for column in COLUMNS if not names or column.name in names)


def needs_first(run: str) -> bool:
    """Whether a run takes something from the profile of :data:`FIRST`: it has no traced kernel."""
    return "toolchain" in RUNS[run]


def make_column(
    column: Column, report: Mapping[str, Any] | str, security: Mapping[str, int] | None
) -> dict[str, Cell]:
    """Row -> cell of one column.

    Args:
        report: the run's ``report.json``; a text says why there is none.
        security: what :func:`prune.security.measure_security` found in the column's vmlinux.
    """
    if isinstance(report, str):
        return {row: Cell(None, report) for row in ROWS}
    side = report[column.side]
    index = ("base", "pruned").index(column.side)
    left = report["memory"][column.side]
    cells = {label: Cell(side[key]) for label, key in _SIZES.items()}
    cells["memory image, bytes"] = Cell(sum(pair[index] for pair in report["ledger"]["by_kind"].values()))
    cells["left when booted, KiB"] = Cell(left // 1024) if left else Cell(None, "not asked")
    for row, key in _SECURITY.items():
        cells[row] = Cell(security[key]) if security else Cell(None, "not looked at")
    passed = report["validation"]
    booted = Cell(passed["passed"] / passed["boots"]) if passed["boots"] else Cell(None, "not booted")
    cells["boots"] = booted if column.side == "pruned" else Cell(1.0 if left else None, "not booted")
    return cells


def table(columns: Sequence[Column], cells: Mapping[str, Mapping[str, Cell]]) -> str:
    """For the terminal: a line for each column, since there are more of those than a line has room for."""
    heads = [row.partition(",")[0] for row in ROWS]
    width = [max(len(head), 11) for head in heads]
    lines = [f"{'':20}" + "".join(f"{head:>{size + 2}}" for head, size in zip(heads, width, strict=True))]
    for column in columns:
        found = [_text(row, cells[column.name][row]) for row in ROWS]
        texts = "".join(f"{text:>{size + 2}}" for text, size in zip(found, width, strict=True))
        lines.append(f"{column.name:20}{texts}")
    for column in columns:
        why = next((cell.why for cell in cells[column.name].values() if cell.value is None and cell.why), "")
        if why and all(cell.value is None for cell in cells[column.name].values()):
            lines.append(f"{column.name}: {why}")
    return "\n".join(lines)


def _text(row: str, cell: Cell) -> str:
    if cell.value is None:
        return "-"
    return f"{cell.value:.0%}" if row == "boots" else f"{cell.value:,.0f}"
