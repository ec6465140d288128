"""The grid: one workload and configuration, built in every way that a kernel developer would think of.

A column is one side of one run of the pipeline, so four builds serve ten columns. What a run could not do is
said in its columns; a number that nobody measured is no number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prune.build.toolchain import OPTIMISATIONS
from prune.measure.cell import Cell
from tracer.host import UserError

#: Of grid.json.
SCHEMA = 2
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
    """``side`` of a run: ``base`` or ``pruned``; ``opt``: how the compiler optimises; ``one``: the run takes
    the profile of :data:`FIRST` instead of tracing."""

    name: str
    run: str
    side: str
    opt: str = "config"
    one: bool = False

    @property
    def folder(self) -> str:
        """Of its run: one for every optimisation, and for what healing adds to a profile of its own."""
        return self.run + _SUFFIX[self.opt] + ("-one" if self.one and needs_first(self.run) else "")

    @property
    def first(self) -> Column:
        """A column of the run with a traced kernel that this one's takes something from."""
        return replace(self, run=FIRST, side="base")

    def optimised(self, opt: str) -> Column:
        """The same with another optimisation, which its name then tells."""
        return replace(self, name=f"{self.name} {_SUFFIX[opt]}".rstrip(), opt=opt)


_SUFFIX = {"config": "", "s": "-Os", "2": "-O2"}


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
#: Of the machine that the kernel runs, and how fast; of it and of its base, in turn
#: (:mod:`prune.run.measuring`). Label -> its part of ``speed.json``, "" for the column's own side, and its
#: key there.
SPEEDS: Mapping[str, tuple[str, str]] = {
    "boot to ready, s": ("", "ready_seconds"),
    "boot to ready, of its base": ("ratio", "ready_seconds"),
    "requests per second": ("", "requests_per_second"),
    "requests per second, of its base": ("ratio", "requests_per_second"),
    "latency p50, ms": ("", "latency_p50_ms"),
    "latency p99, ms": ("", "latency_p99_ms"),
    "latency p99, of its base": ("ratio", "latency_p99_ms"),
}
#: Why a base has no ratio: nobody would look for one.
IS_BASE = "is the base"
COSTS = ("build, s", "link, s", "link peak memory, MiB")
#: Label -> key of :func:`prune.security.security.measure_security`.
_SECURITY = {
    "gadgets": "gadgets", "system calls": "system_calls", "indirect-call targets": "indirect_targets",
}  # fmt: skip
ROWS = (
    *_SIZES, "memory image, bytes", "left when booted, KiB", *_SECURITY, "boots", *SPEEDS, *COSTS,
)  # fmt: skip


def chosen(names: Sequence[str], opts: Sequence[str] = ("config",)) -> tuple[Column, ...]:
    """The columns of these names, all for none, in each of the optimisations. A name that ends with -O2 or
    -Os is that column only.

    Raises:
        UserError: there is no such column or optimisation.
    """
    for opt in opts:
        if opt not in OPTIMISATIONS:
            raise UserError(f"choosing columns: there is no optimisation {opt}", ", ".join(OPTIMISATIONS))
    every = {column.optimised(opt): column.name for opt in dict.fromkeys(opts) for column in COLUMNS}
    known = dict.fromkeys([*every.values(), *(column.name for column in every)])
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"choosing columns: there is no {unknown[0]}", f"there are: {', '.join(known)}")
    return tuple(c for c, plain in every.items() if not names or plain in names or c.name in names)


def needs_first(run: str) -> bool:
    """Whether a run takes something from the profile of :data:`FIRST`: it has no traced kernel."""
    return "toolchain" in RUNS[run]


def make_column(
    column: Column,
    report: Mapping[str, Any] | str,
    security: Mapping[str, int] | None,
    measured: Mapping[str, Cell] | None = None,
) -> dict[str, Cell]:
    """Row -> cell of one column.

    Args:
        report: the run's ``report.json``; a text says why there is none.
        security: ``gadgets``, ``system_calls`` and ``indirect_targets`` of the column's vmlinux.
        measured: the rows of :data:`SPEEDS` and :data:`COSTS`, as far as they were measured.
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
        count = (security or {}).get(key)
        cells[row] = Cell(None, "not looked at") if count is None else Cell(count)
    passed = report["validation"]
    booted = (
        Cell(passed["passed"] / passed["boots"], n=passed["boots"])
        if passed["boots"]
        else Cell(None, "not booted")
    )
    cells["boots"] = booted if column.side == "pruned" else _base_boots(left)
    cells |= measured or {}
    return {row: cells.get(row) or Cell(None, "not measured") for row in ROWS}


def _base_boots(left: int | None) -> Cell:
    return Cell(1.0) if left else Cell(None, "not booted")
