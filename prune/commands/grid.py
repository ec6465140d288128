"""``kprune compare --grid``: one workload on kernels of every kind, side by side."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.build.toolchain import OPTIMISATIONS
from prune.grid.grid import COLUMNS, RUNS, SCHEMA, Column, chosen, make_column, needs_first
from prune.grid.page import write_grid_page
from prune.grid.table import CSV_HEAD, csv_rows, table
from prune.measure.cell import Cell
from prune.settings import Settings
from tracer.host import KpruneError, UserError, read_json, say, show, write_json

if TYPE_CHECKING:
    from prune.run.pipeline import Pipeline

#: Of run.json and metadata.json.
_RUN_SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One run of the pipeline: its report, or what went wrong; of each side, the rows that are measured."""

    report: dict[str, Any] | KpruneError
    measured: dict[str, dict[str, Cell]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what belongs to the grid to the command line of ``kprune compare``."""
    names = ", ".join(column.name for column in COLUMNS)
    parser.add_argument(
        "--grid", type=Path, metavar="WORKLOAD", help="build it by GCC, clang and LTO, pruned and not"
    )
    parser.add_argument("--arch", default="", help="grid: one of the workload's architectures (its first)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="grid: a folder for each run (default out/grid-NAME)"
    )
    parser.add_argument("--kernel", type=Path, help="grid: a source tree, tarball or .deb (Debian's 6.1)")
    parser.add_argument("--columns", default="", metavar="A,B", help=f"grid: of {names} (default all)")
    parser.add_argument(
        "--opt", action="append", metavar="A,B",
        help=f"grid: the columns in each of {', '.join(OPTIMISATIONS)} (default config)",
    )  # fmt: skip
    parser.add_argument(
        "--boots", type=int, default=10, metavar="N", help="grid: of each pruned kernel (default 10)"
    )
    parser.add_argument(
        "--one-profile", action="store_true",
        help="grid: prune every compiler's kernel by the profile of GCC's (default: each is traced)",
    )  # fmt: skip
    parser.add_argument(
        "--no-speed", dest="speed", action="store_false",
        help="grid: measure no boots and no throughput (two to three minutes for each run)",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Make what is missing, and print the table.

    Raises:
        UserError: no such column or workload.
    """
    from tracer.workloads.workload_file import load_workload

    columns = chosen(_words(options.columns), _words(",".join(options.opt or ["config"])))
    workload = load_workload(options.grid, options.arch)
    home = (options.out or Path("out") / f"grid-{workload.title}").absolute()
    if options.kernel and not options.kernel.exists():
        raise UserError(f"reading --kernel: {options.kernel} does not exist")
    kernel = options.kernel.absolute() if options.kernel else None
    base = Settings(
        options.grid.absolute(), home, kernel=kernel, boots=options.boots, heal_rounds=8, arch=workload.arch
    )
    columns = tuple(replace(column, one=options.one_profile) for column in columns)
    runs = {column.first.folder: column.first for column in columns if needs_first(column.run)}
    runs |= {column.folder: column for column in columns}
    made = {folder: _run(base, column, options.speed) for folder, column in runs.items()}
    cells = {column.name: _column(column, home, made[column.folder]) for column in columns}
    value = {
        "schema_version": SCHEMA,
        "workload": workload.name,
        "kernel": {"architecture": workload.arch, **_kernel(home, made)},
        "command": _command(options),
        "runs": {column.name: [column.folder, column.side] for column in columns},
        "columns": {
            name: {row: cell.to_json() for row, cell in rows.items()} for name, rows in cells.items()
        },
    }
    write_json(home / "grid.json", value)
    write_grid_page(home)
    _show(options, value, cells)
    failed = [each.report for each in made.values() if isinstance(each.report, KpruneError)]
    return failed[0].exit_code if failed else 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _run(base: Settings, column: Column, speed: bool) -> Run:
    """One run, and what is measured of it; what went wrong, for one that has no report."""
    from prune.run.pipeline import Pipeline

    settings = replace(base, out=base.out / column.folder, opt=column.opt, **RUNS[column.run])
    say(f"grid: {column.folder}")
    try:
        if needs_first(column.run):
            settings = _with_first(settings, column, base.out)
        pipeline = Pipeline(settings)
        pipeline.run()
        return _measured(pipeline, speed)
    except KpruneError as error:
        say(f"grid: {column.folder}: {error}")
        return Run(error, {})


def _with_first(settings: Settings, column: Column, home: Path) -> Settings:
    """The settings with what a run without a traced kernel takes from the one that has it."""
    profile = home / column.first.folder / "profile.json"
    if not profile.is_file():
        raise UserError(f"tracing {column.folder}: the run {column.first.folder} has left no profile")
    return replace(settings, profile=profile) if column.one else replace(settings, sleepers=profile)


def _measured(pipeline: Pipeline, speed: bool) -> Run:
    """What is measured beside the report. A load that fails does not take the rest with it."""
    from prune.run.measuring import measure_speed, measured_rows

    found: dict[str, Any] | str = "not asked"
    if speed:
        try:
            found = measure_speed(pipeline)
        except UserError as error:
            say(f"grid: {error}")
            found = str(error)
    # What was missed under load has been healed: the report is another one then.
    report = pipeline.report()
    return Run(report, measured_rows(pipeline, report, found))


def _column(column: Column, home: Path, made: Run) -> dict[str, Cell]:
    from prune.model.knowledge import read_knowledge
    from prune.security.security import measure_security
    from tracer.workloads.workload_file import load_workload

    if isinstance(made.report, KpruneError):
        return make_column(column, str(made.report), None)
    folder = home / column.folder
    settings = read_json(folder / "run.json", "settings of the run", _RUN_SCHEMA)
    arch = load_workload(Path(settings["workload"]), settings["arch"]).arch
    security = measure_security(folder / column.side / "vmlinux", read_knowledge(arch))
    return make_column(column, made.report, security, made.measured[column.side])


def _kernel(home: Path, made: dict[str, Run]) -> dict[str, str]:
    """Version and source of the kernel that all runs are of; nothing when there is no finished run."""
    for folder, each in made.items():
        if not isinstance(each.report, KpruneError):
            known = read_json(home / folder / "metadata.json", "metadata of the run", _RUN_SCHEMA)
            return {"version": known["tools"]["kernel"], "source": known["inputs"]["source"]}
    return {}


def _command(options: argparse.Namespace) -> list[str]:
    """The command that repeats this."""
    return [
        "kprune", "compare", "--grid", str(options.grid),
        *(["--arch", options.arch] if options.arch else []),
        *(["--out", str(options.out)] if options.out else []),
        *(["--kernel", str(options.kernel)] if options.kernel else []),
        *(["--columns", options.columns] if options.columns else []),
        *(word for opt in options.opt or () for word in ("--opt", opt)),
        "--boots", str(options.boots),
        *(["--one-profile"] if options.one_profile else []),
        *([] if options.speed else ["--no-speed"]),
    ]  # fmt: skip


def _show(options: argparse.Namespace, value: dict[str, Any], cells: dict[str, dict[str, Cell]]) -> None:
    if options.json:
        show(json.dumps(value, indent=1))
    elif options.csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(CSV_HEAD)
        writer.writerows(csv_rows(cells))
    else:
        show(table(cells))
