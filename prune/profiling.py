"""The stages that make ``profile.json``: run the workload, put everything that is known together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from prune.folder import Folder
from prune.heal import healed_profile, load_healed
from prune.settings import Settings, cache_folder
from tracer.accumulate import kernel_id
from tracer.algebra import merge
from tracer.collect import CollectOptions, KernelBuild, collect_profile, collect_runs
from tracer.coverage import BLOCKS
from tracer.host import write_json
from tracer.profile import Profile, load_profile, save_profile
from tracer.stale import accept
from tracer.symbols import load_symbols
from tracer.workload import Workload

SCHEMA = 1


def is_smp(config: Path) -> bool:
    """Whether a kernel of this ``.config`` can use a second processor."""
    return "\nCONFIG_SMP=y\n" in config.read_text()


def _traceable(folder: Folder) -> tuple[KernelBuild, KernelBuild]:
    """(production, traced) as the tracer wants them."""
    production, traced = (
        KernelBuild(side("bzImage"), side("symbols.json"), is_smp(side(".config")))
        for side in (folder.base, folder.traced)
    )
    return production, traced


def trace(settings: Settings, workload: Workload, folder: Folder) -> Profile:
    """Run the workload on both kernels and write ``trace/profile.json``."""
    options = CollectOptions(
        runs=settings.trace_runs, quiet=settings.quiet, sources=settings.sources, jobs=settings.jobs
    )
    profile = collect_profile(workload, *_traceable(folder), folder.path("trace"), cache_folder(), options)
    save_profile(profile, folder.traced_profile)
    return profile


def retrace(
    settings: Settings, workload: Workload, folder: Folder, numbers: Sequence[int], round_number: int
) -> None:
    """Repeat these variations of the workload on a kernel that has everything, with the best of the sources.

    A boot ends at its first miss; the same run on the whole kernel shows the rest of the way.
    """
    production, traced = _traceable(folder)
    profile = collect_runs(
        workload, production, folder.path("heal"), cache_folder(), numbers,
        None if BLOCKS in settings.sources else traced,
    )  # fmt: skip
    save_profile(profile, folder.path(f"heal/round-{round_number}.json"))


def gather(settings: Settings, folder: Folder) -> Profile:
    """Put everything that is known together, and write ``profile.json``; what was stale, ``stale.json``.

    Raises:
        UserError: there is no profile yet, or one is of another build.
    """
    symbols = load_symbols(folder.base("symbols.json"), "production")
    if settings.static:
        nothing = healed_profile((), kernel_id(symbols), {})
        write_json(folder.stale, {"schema_version": SCHEMA, "stale": []})
        save_profile(replace(nothing, workload_name="none", sources=()), folder.profile)
        return nothing
    traced = settings.profile or folder.traced_profile
    named = [traced] if traced.is_file() or settings.profile or not folder.imports else []
    profiles, stale = [], []
    for path in (*named, *folder.imports):
        profile, differs = accept(
            load_profile(path), symbols, settings.accept_stale, f"reading the profile {path}"
        )
        profiles.append(profile)
        stale += [differs] if differs else []
    wanted = set(settings.sources.split("+"))
    again = [load_profile(path) for path in folder.retraced]
    profiles += [
        each for each in again if each.kernel.build_id == symbols.build_id and wanted & {*each.sources}
    ]
    healed = load_healed(folder.healed, symbols.build_id)
    if healed:
        profiles.append(healed_profile(healed, kernel_id(symbols), dict(symbols.files)))
    merged = merge(profiles)
    write_json(folder.stale, {"schema_version": SCHEMA, "stale": [asdict(s) for s in stale]})
    save_profile(merged, folder.profile)
    return merged
