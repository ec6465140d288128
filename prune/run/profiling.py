"""The stages that make ``profile.json``: run the workload, put everything that is known together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from prune.folder import Folder
from prune.guests.heal import healed_profile, load_healed
from prune.model.knowledge import option
from prune.options import read_options
from prune.settings import Settings, cache_folder
from tracer.collecting.collect import CollectOptions, KernelBuild, collect_profile, collect_runs
from tracer.host import UserError, say, write_json
from tracer.profiles.algebra import merge
from tracer.profiles.builds import kernel_id
from tracer.profiles.module_blocks import load_module_code
from tracer.profiles.phases import BLOCKS, sleepers
from tracer.profiles.profile import Profile, load_profile, save_profile
from tracer.profiles.references import References
from tracer.profiles.stale import accept
from tracer.profiles.symbols import Identity, load_symbols
from tracer.workloads.workload import Workload

SCHEMA = 1


def is_smp(config: Path) -> bool:
    """Whether a kernel of this ``.config`` can use a second processor."""
    return read_options(config).get(option("smp")) == "y"


def moves(config: Path) -> bool:
    """Whether a kernel of this ``.config`` chooses where it lies (KASLR)."""
    return read_options(config).get(option("moves")) == "y"


def _kernel(side: Callable[[str], Path]) -> KernelBuild:
    """A kernel as the tracer wants it."""
    return KernelBuild(side("bzImage"), side("symbols.json"), is_smp(side(".config")), moves(side(".config")))


def trace(settings: Settings, workload: Workload, folder: Folder) -> Profile:
    """Run the workload on the kernels that it takes and write ``trace/profile.json``."""
    options = CollectOptions(
        runs=settings.trace_runs, quiet=settings.quiet, sources=settings.sources, jobs=settings.jobs,
        sleepers=_sleepers(settings, folder),
    )  # fmt: skip
    traced = _kernel(folder.traced) if settings.traces_on_traced else None
    profile = collect_profile(
        workload, _kernel(folder.base), traced, folder.path("trace"), cache_folder(), options
    )
    save_profile(profile, folder.traced_profile)
    return profile


def _sleepers(settings: Settings, folder: Folder) -> tuple[Identity, ...] | None:
    """The functions that tasks sleep in, of the profile that says so; None when there is none.

    Raises:
        UserError: it does not say, or is of another program.
    """
    if settings.sleepers is None:
        return None
    doing = f"reading where tasks sleep, {settings.sleepers}"
    symbols = load_symbols(folder.base("symbols.json"), "production")
    profile, _ = accept(load_profile(settings.sleepers), symbols, settings.accept_stale, doing)
    found = tuple(record.identity for record in sleepers(profile))
    if not found:
        raise UserError(f"{doing}: it does not say", "trace with ftrace among the sources")
    return found


def retrace(
    settings: Settings, workload: Workload, folder: Folder, numbers: Sequence[int], round_number: int
) -> None:
    """Repeat these variations of the workload on a kernel that has everything, with the best of the sources.

    A boot ends at its first miss; the same run on the whole kernel shows the rest of the way.
    """
    profile = collect_runs(
        workload, _kernel(folder.base), folder.path("heal"), cache_folder(), numbers,
        None if BLOCKS in settings.sources else _kernel(folder.traced),
    )  # fmt: skip
    save_profile(profile, folder.path(f"heal/round-{round_number}.json"))


def given(settings: Settings, folder: Folder) -> tuple[Path, ...]:
    """The profiles that are put together, without what healing has added."""
    traced = settings.profile or folder.traced_profile
    wanted = traced.is_file() or settings.profile or not folder.imports
    return (*((traced,) if wanted else ()), *folder.imports)


def _without_modules(profile: Profile, folder: Folder) -> Profile:
    """The profile without functions of modules, which get a file of their own."""
    folder.module_profile.unlink(missing_ok=True)
    areas = load_module_code(folder.base("bzImage")).areas
    if not areas:
        return profile
    objects = {identity.object for area in areas for _, _, identity in area.functions}
    mine = tuple(each for each in profile.functions if each.object in objects)
    files = tuple(row for row in profile.files if row[0] in objects)
    save_profile(replace(profile, functions=mine, files=files, references=None), folder.module_profile)
    return replace(
        profile,
        functions=tuple(each for each in profile.functions if each.object not in objects),
        files=tuple(row for row in profile.files if row[0] not in objects),
    )


def carried(settings: Settings, folder: Folder, build_id: str) -> list[Profile]:
    """Those among them that are of another build than this, as they were made."""
    if settings.static:
        return []
    profiles = [load_profile(path) for path in given(settings, folder)]
    return [profile for profile in profiles if profile.kernel.build_id != build_id]


def gather(
    settings: Settings, folder: Folder, references: Callable[[], References | None] = lambda: None
) -> Profile:
    """Put everything that is known together, and write ``profile.json``; what was carried over from other
    builds, ``stale.json``.

    Args:
        references: what the functions of this build refer to; a profile that is all of this build takes it
            along.

    Raises:
        UserError: there is no profile yet, or one is of another build.
    """
    symbols = load_symbols(folder.base("symbols.json"), "production")
    if settings.static:
        nothing = healed_profile((), kernel_id(symbols), {})
        write_json(folder.stale, {"schema_version": SCHEMA, "stale": []})
        save_profile(replace(nothing, workload_name="none", sources=()), folder.profile)
        return nothing
    profiles, stale = [], []
    for path in given(settings, folder):
        profile, differs = accept(
            load_profile(path), symbols, settings.accept_stale, f"reading the profile {path}"
        )
        profiles.append(profile)
        if differs:
            stale.append(differs)
            say(f"{path}: {differs}: {differs.matched()}")
            if not differs.references:
                say(f"{path} does not say what functions of its build refer to: what hot code calls is kept")
    wanted = set(settings.sources.split("+"))
    again = [load_profile(path) for path in folder.retraced]
    profiles += [
        each for each in again if each.kernel.build_id == symbols.build_id and wanted & {*each.sources}
    ]
    healed = load_healed(folder.healed, symbols.build_id)
    if healed:
        profiles.append(healed_profile(healed, kernel_id(symbols), dict(symbols.files)))
    merged = _without_modules(replace(merge(profiles), kernel=kernel_id(symbols)), folder)
    merged = replace(merged, references=None if merged.moved_from else references())
    write_json(folder.stale, {"schema_version": SCHEMA, "stale": [asdict(s) for s in stale]})
    save_profile(merged, folder.profile)
    return merged
