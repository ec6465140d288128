"""The stages that measure: how fast the kernels of a run are, and what linking them costs.

They belong to a run's folder like the stages of the pipeline, and do nothing when their inputs are the
same: the two images, the workload, and the code that measures. What a pruned kernel misses under load it
learns as it does from any boot: it is healed, and measured again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tracer
from prune.build.build_time import build_time
from prune.build.doctor import require
from prune.folder import Folder
from prune.grid.grid import IS_BASE, SPEEDS
from prune.guests.graveyard import read_graveyard
from prune.guests.misses import Miss, find_misses
from prune.measure.cell import Cell, cell_of, read_cell
from prune.measure.cost import Cost
from prune.measure.estimate import spread
from prune.measure.link_cost import generation_costs, link_cost
from prune.measure.speed import SIDES, make_speed
from prune.model.knowledge import CODE
from prune.run import passes
from prune.run.pipeline import Pipeline
from prune.settings import cache_folder
from prune.stages import run_stage, source_hash
from tracer.files.rootfs import Roots
from tracer.host import KpruneError, say, write_json
from tracer.machines.machine import machine_kind
from tracer.phase_names import BOOT
from tracer.sessions.measure import Measured, measure, measured_app
from tracer.workloads.workload import Workload

SCHEMA = 1
#: Turns of the two kernels, and the seconds of a window of load, of which a turn has two for each.
TURNS, SECONDS = 8, 2.0


def measure_speed(pipeline: Pipeline, turns: int = TURNS, seconds: float = SECONDS) -> dict[str, Any]:
    """``speed.json`` of a run: see :func:`prune.measure.speed.make_speed`; and ``misses``, if any are left.

    What is missed joins the profile, as often as the settings of the run allow.

    Raises:
        KpruneError: as the pipeline, of the kernel that was healed.
    """
    rounds = pipeline.settings.heal_rounds if pipeline.settings.heal else 0
    for _ in range(rounds):
        found = _measured(pipeline, turns, seconds)
        misses = [Miss(**miss) for miss in found["misses"]]
        if not misses or not _learn(pipeline, misses):
            return found
        pipeline.heal()
    return _measured(pipeline, turns, seconds)


def _measured(pipeline: Pipeline, turns: int, seconds: float) -> dict[str, Any]:
    folder = pipeline.folder
    into = folder.path("speed.json")
    inputs: dict[str, str | int | Path | None] = {
        "base": folder.base("bzImage"),
        "pruned": folder.pruned("bzImage"),
        "workload": pipeline.workload.load_hash(),
        "code": source_hash(Path(tracer.__file__).parent),
        "turns": f"{turns} {seconds:g}",
        **_code("measure/speed.py", "measure/estimate.py", "run/measuring.py"),
    }
    run_stage(folder.out, "speed", inputs, [into], lambda: take_turns(pipeline, turns, seconds))
    return passes.read_result(into, "speed", ("base", "pruned", "ratio", "misses"))


def _code(*names: str) -> dict[str, Path]:
    """What a stage is measured by, as inputs of it."""
    return {name: CODE / name for name in names}


def take_turns(pipeline: Pipeline, turns: int, seconds: float) -> None:
    """Measure, and write ``speed.json``.

    Raises:
        UserError: the load does not say what it should.
        HostError: QEMU is not there.
    """
    folder, workload = pipeline.folder, pipeline.workload
    kind = machine_kind(workload.arch)
    require([kind.program, *workload.needs], {kind.program: kind.package})
    scratch = folder.path("speed")
    roots = Roots(workload, scratch, cache_folder())
    kernels = (folder.base("bzImage"), folder.pruned("bzImage"))
    measured = measure(
        kernels, (roots.of(kernels[0]), roots.of(kernels[1])), workload, turns, seconds, scratch
    )
    misses = _misses(folder, measured, workload)
    failure = "missed " + "; ".join(map(str, misses[:5])) if misses else _summary(measured.error)
    value = make_speed(measured, failure, workload.loaded_app() is not None)
    value |= {"window_seconds": seconds, "misses": [asdict(miss) for miss in misses]}
    write_json(folder.path("speed.json"), value)


def _summary(error: KpruneError | None) -> str:
    return str(getattr(error, "summary", error)) if error else ""


def _misses(folder: Folder, measured: Measured, workload: Workload) -> list[Miss]:
    """What the pruned kernel asked for before it went down, by its own account."""
    if measured.side != 1:
        return []
    app = measured_app(workload)
    graveyard = read_graveyard(folder.pruned("tombstones.json"))
    console = getattr(measured.error, "console", "")
    return list(find_misses(graveyard, (), console, ((0, app[1].name if app else BOOT),)))


def _learn(pipeline: Pipeline, misses: list[Miss]) -> bool:
    """Take misses over into the profile; whether any of them is new."""
    new = passes.learn(pipeline.folder, misses)
    if new:
        say(f"heal: {', '.join(each.function for each in new)}, missed under load")
    return bool(new)


def measure_links(pipeline: Pipeline) -> dict[str, Any]:
    """``link-cost.json`` of a run: of ``base`` and ``pruned``, ``seconds`` and ``peak_mib`` as cells."""
    folder = pipeline.folder
    into = folder.path("link-cost.json")
    inputs: dict[str, str | int | Path | None] = {
        "base": folder.base("vmlinux"),
        "pruned": folder.pruned("vmlinux"),
        **_code(
            "measure/link_cost.py",
            "build/recorded.py",
            "measure/cost.py",
            "measure/cost_child.py",
            "measure/estimate.py",
            "run/measuring.py",
        ),
    }

    def work() -> None:
        build = pipeline.production
        generated = generation_costs(build)
        costs = {
            "base": link_cost(build, None, generated=generated),
            "pruned": link_cost(build, folder.plan, generated=generated),
        }
        found = {side: _cost_cells(cost) for side, cost in costs.items()}
        write_json(into, {"schema_version": SCHEMA, **found})

    run_stage(folder.out, "link-cost", inputs, [into], work)
    return passes.read_result(into, "cost of linking", ("base", "pruned"))


def _cost_cells(rounds: Sequence[Cost]) -> dict[str, Any]:
    return {
        "seconds": cell_of(spread([cost.seconds for cost in rounds])).to_json(),
        "peak_mib": cell_of(spread([cost.peak_mib for cost in rounds])).to_json(),
    }


def measure_build(pipeline: Pipeline, report: Mapping[str, Any]) -> dict[str, Cell]:
    """Seconds to build each kernel. Of the pruned one, with plan and link on top, the profile being there."""
    took = build_time(pipeline.production.home)
    if took is None:
        why = "it was built before times were kept, or in pieces"
        return {"base": Cell(None, why), "pruned": Cell(None, why)}
    more = sum(report["seconds"].get(stage, 0.0) for stage in ("gather", "plan", "link"))
    return {"base": Cell(took[0]), "pruned": Cell(took[0] + more)}


def measured_rows(
    pipeline: Pipeline, report: Mapping[str, Any], speed: Mapping[str, Any] | str
) -> dict[str, dict[str, Cell]]:
    """``base`` and ``pruned``: the grid's rows of :data:`prune.grid.grid.SPEEDS` and
    :data:`prune.grid.grid.COSTS`.

    Args:
        report: the run's ``report.json``.
        speed: the run's ``speed.json``; a text says why there is none.
    """
    build = measure_build(pipeline, report)
    try:
        links: dict[str, Any] = measure_links(pipeline)
    except KpruneError as error:
        say(str(error))
        links = {
            side: dict.fromkeys(("seconds", "peak_mib"), Cell(None, str(error)).to_json()) for side in SIDES
        }
    rows: dict[str, dict[str, Cell]] = {}
    for side in SIDES:
        rows[side] = {label: _speed_cell(speed, side, kind, key) for label, (kind, key) in SPEEDS.items()}
        rows[side]["build, s"] = build[side]
        rows[side]["link, s"] = read_cell(links[side]["seconds"])
        rows[side]["link peak memory, MiB"] = read_cell(links[side]["peak_mib"])
    return rows


def _speed_cell(speed: Mapping[str, Any] | str, side: str, kind: str, key: str) -> Cell:
    if kind == "ratio" and side == "base":
        return Cell(None, IS_BASE)
    if isinstance(speed, str):
        return Cell(None, speed)
    return read_cell(speed[kind or side][key])
