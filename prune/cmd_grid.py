"""``kprune compare --grid``: one workload on kernels of every kind, side by side."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prune.grid import COLUMNS, FIRST, ROWS, RUNS, Cell, Column, chosen, make_column, needs_first, table
from prune.grid_page import write_grid_page
from prune.settings import Settings
from tracer.host import KpruneError, UserError, read_json, say, write_json

SCHEMA = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what belongs to the grid to the command line of ``kprune compare``."""
    names = ", ".join(column.name for column in COLUMNS)
    parser.add_argument(
        "--grid", type=Path, metavar="WORKLOAD", help="build it by GCC, clang and LTO, pruned and not"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="grid: a folder for each run (default out/grid-NAME)"
    )
    parser.add_argument("--kernel", type=Path, help="grid: a 6.x source tree or tarball (Debian's 6.1)")
    parser.add_argument("--columns", default="", metavar="A,B", help=f"grid: of {names} (default all)")
    parser.add_argument(
        "--boots", type=int, default=10, metavar="N", help="grid: of each pruned kernel (default 10)"
    )
    parser.add_argument(
        "--one-profile", action="store_true",
        help="grid: prune every compiler's kernel by the profile of GCC's (default: each is traced)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Make what is missing, and print the table.

    Raises:
        UserError: no such column or workload.
    """
    from tracer.workload import load_workload

    columns = chosen([name.strip() for name in options.columns.split(",") if name.strip()])
    workload = load_workload(options.grid)
    home = (options.out or Path("out") / f"grid-{workload.name}").absolute()
    if options.kernel and not options.kernel.exists():
        raise UserError(f"reading --kernel: {options.kernel} does not exist")
    kernel = options.kernel.absolute() if options.kernel else None
    base = Settings(options.grid.absolute(), home, kernel=kernel, boots=options.boots, heal_rounds=8)
    runs = [column.run for column in columns]
    if any(map(needs_first, runs)):
        runs.insert(0, FIRST)
    one = options.one_profile
    reports = {name: _run(base, name, one) for name in dict.fromkeys(runs)}
    cells = {
        column.name: _column(column, _folder(home, column.run, one), reports[column.run])
        for column in columns
    }
    write_json(
        home / "grid.json",
        {
            "schema_version": SCHEMA,
            "workload": workload.name,
            "columns": {
                name: {row: asdict(cell) for row, cell in rows.items()} for name, rows in cells.items()
            },
        },
    )
    write_grid_page(home)
    _show(options, columns, cells)
    failed = [error for error in reports.values() if isinstance(error, KpruneError)]
    return failed[0].exit_code if failed else 0


def _folder(home: Path, run: str, one: bool) -> Path:
    """Of a run; what it healed after tracing it does not know when it has one profile with the others."""
    return home / (f"{run}-one" if one and needs_first(run) else run)


def _run(base: Settings, name: str, one: bool) -> dict[str, Any] | KpruneError:
    """The report of one run; what went wrong, for one that has none."""
    from prune.pipeline import Pipeline

    settings = replace(base, out=_folder(base.out, name, one), **RUNS[name])
    say(f"grid: {name}")
    try:
        if needs_first(name):
            first = base.out / FIRST / "profile.json"
            if not first.is_file():
                raise UserError(f"tracing {name}: the run {FIRST} has left no profile")
            settings = replace(settings, profile=first) if one else replace(settings, sleepers=first)
        return Pipeline(settings).run()
    except KpruneError as error:
        say(f"grid: {name}: {error}")
        return error


def _column(column: Column, folder: Path, report: dict[str, Any] | KpruneError) -> dict[str, Cell]:
    from prune.knowledge import read_knowledge
    from prune.security import measure_security
    from tracer.workload import load_workload

    if isinstance(report, KpruneError):
        return make_column(column, str(report), None)
    arch = load_workload(Path(read_json(folder / "run.json", "settings of the run", SCHEMA)["workload"])).arch
    vmlinux = folder / column.side / "vmlinux"
    return make_column(column, report, measure_security(vmlinux, read_knowledge(arch)))


def _show(
    options: argparse.Namespace, columns: tuple[Column, ...], cells: dict[str, dict[str, Cell]]
) -> None:
    if options.json:
        values = {name: {row: cell.value for row, cell in rows.items()} for name, rows in cells.items()}
        print(json.dumps(values, indent=1))
    elif options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(["kernel", *ROWS])
        writer.writerows([name, *(cell.value for cell in rows.values())] for name, rows in cells.items())
    else:
        print(table(columns, cells))
