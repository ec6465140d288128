"""The stage that reports: both kernels measured, and what is known of the run, for programs and people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune.build.kbuild import KernelBuild
from prune.folder import Folder
from prune.guests.graveyard import read_graveyard
from prune.guests.held_out import read_holdout
from prune.guests.soaked import read_soak, shown
from prune.ledger.file_ledger import account_file
from prune.ledger.ledger import Ledger, make_ledger, save_ledger, summary
from prune.ledger.sizes import measure
from prune.model.buildid import build_id
from prune.model.mapfile import read_link_map
from prune.modules.sizes import module_sizes
from prune.plan.plan_file import load_plan
from prune.report.page import make_page
from prune.report.page_data import page_data
from prune.report.report import make_report, metadata
from prune.run import results
from prune.run.passes import read_result
from prune.run.planning import Model
from prune.security.exposure import SIDES, read_exposure
from prune.settings import Settings
from prune.stages import STAGES, stage_seconds
from tracer.host import say, whole_file, write_json
from tracer.profiles.profile import load_profile
from tracer.workloads.workload import Workload


def write_report(settings: Settings, model: Model, production: KernelBuild, workload: Workload) -> None:
    """Write ``report.json``, ``ledger.json``, ``report.html`` and ``metadata.json``."""
    image, knowledge, folder = model.image, model.knowledge, model.folder
    graveyard = read_graveyard(folder.pruned("tombstones.json"))
    traps = len(graveyard.offsets)  # in functions, which are counted as they are
    stones = len(graveyard.stones) - traps
    plan = load_plan(folder.plan)
    base, pruned = (read_link_map(side("vmlinux.map")) for side in (folder.base, folder.pruned))
    ledger = make_ledger(image, knowledge, plan, base, pruned)
    files = {
        "base": account_file(folder.base("vmlinux")),
        "pruned": account_file(folder.pruned("vmlinux")),
    }
    save_ledger(ledger, files, folder.ledger)
    report = make_report(
        measure(image, knowledge, base, folder.base("bzImage"), 0),
        measure(image, knowledge, pruned, folder.pruned("bzImage"), graveyard.size),
        stones,
        results.validation(folder),
        results.knowledge(folder),
        stage_seconds(settings.out, STAGES),
        results.healing(folder),
        results.counts(plan),
        plan.unused_rules,
        {
            "ledger": {**summary(ledger), "file": files},
            "memory": results.memory(folder),
            "block_traps": traps,
            "modules": module_sizes(folder, plan, knowledge),
        },
    )
    write_json(folder.path("report.json"), report)
    source = production.source
    _write_page(folder, ledger, report, source.version, workload.arch)
    tools = {"kernel": source.version, **production.toolchain.versions()}
    inputs = {"workload": workload.content_hash(), "source": source.content_hash}
    made = metadata(results.command_of(settings), tools, inputs, results.file_hashes(folder))
    write_json(folder.path("metadata.json"), made)


def _write_page(folder: Folder, ledger: Ledger, report: Mapping[str, Any], version: str, arch: str) -> None:
    each = read_result(folder.boots, "boots", ("each",))["each"] if folder.boots.is_file() else []
    logs = [folder.path(f"boot/{boot['number']}/console.log") for boot in each]
    log = next((path.read_text(errors="replace") for path in logs if path.is_file()), "")
    validation = report["validation"]
    facts = [
        f"Linux {version}", arch, f"build {build_id(folder.base('vmlinux'))[:12]}",
        f"verify: {validation['verify'] or 'not run'}",
        f"{validation['passed']} of {validation['boots']} boots ran the whole workload",
    ]  # fmt: skip
    minram = read_result(folder.minram, "smallest memory", ("sides",)) if folder.minram.is_file() else None
    security, holdout = _security(folder), _holdout(folder)
    soaks = [read_soak(folder.soaked(side), side) for side in SIDES if folder.soaked(side).is_file()]
    data = page_data(
        ledger, load_profile(folder.profile), report, each, log, facts, minram, security, holdout,
        shown(soaks),
    )  # fmt: skip
    with whole_file(folder.page) as stream:
        stream.write(make_page(data))
    say(f"the report to look at: {folder.page}")


def _holdout(folder: Folder) -> dict[str, Any] | None:
    """What ``kprune holdout`` found, if it was about these kernels."""
    if not folder.holdout.is_file():
        return None
    identity, found = read_holdout(folder.holdout)
    if identity != build_id(folder.pruned("vmlinux")):
        say(f"{folder.holdout} is of another kernel and not shown; again: kprune holdout {folder.out}")
        return None
    return found


def _security(folder: Folder) -> dict[str, Any] | None:
    """What ``kprune security`` found, if it was about these kernels."""
    if not folder.security.is_file():
        return None
    identities, found = read_exposure(folder.security)
    if identities != {side: build_id(folder.path(f"{side}/vmlinux")) for side in SIDES}:
        say(f"{folder.security} is of other kernels and not shown; again: kprune security {folder.out}")
        return None
    return found
