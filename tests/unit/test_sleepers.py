"""Where tasks sleep, from the profile of another build: no traced kernel has to say so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prune.folder import Folder
from prune.run.profiling import _sleepers
from prune.settings import Settings
from tests.unit.test_imported import BASE
from tests.unit.test_stale import PROFILE
from tracer.collecting.accumulate import Sightings
from tracer.collecting.collect import CollectOptions, KernelBuild, collect_profile
from tracer.host import UserError
from tracer.profiles.phases import sleepers
from tracer.profiles.profile import FunctionRecord, KernelId, Seen, save_profile
from tracer.profiles.symbols import Identity, load_symbols
from tracer.workloads.workload_file import load_workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "micro"
WAITS = FunctionRecord("a.o", ".text.wait.isra.0", "wait.isra.0", (Seen("start", "stack", 1),))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    rows = [[BASE + 16 * i, 16, "a.o", f".text.{n}", n, True] for i, n in enumerate(("wait", "f"))]
    head = {"schema_version": 4, "kernel": "production", "build_id": "ours", "config": "c", "source": "s"}
    (tmp_path / "base").mkdir()
    (tmp_path / "base/symbols.json").write_text(
        json.dumps({**head, "options": "o", "version": "6.1", "entry": 0, "files": {}, "functions": rows})
    )
    kernel = KernelId("theirs", "c2", "s", "6.1", "o")
    save_profile(replace(PROFILE, kernel=kernel, functions=(WAITS,)), tmp_path / "theirs.json")
    return Folder(tmp_path)


def test_they_are_carried_over(folder: Folder) -> None:
    settings = Settings(folder.out, folder.out, sources="blocks", sleepers=folder.path("theirs.json"))
    found = _sleepers(settings, folder)
    assert found == (Identity("a.o", ".text.wait", "wait"),)
    sightings = Sightings(
        load_workload(EXAMPLE), load_symbols(folder.base("symbols.json"), "production"), None
    )
    sightings.add_sleepers(found)
    made = sightings.profile(["blocks"])
    assert sleepers(made) and [function.symbol for function in made.functions] == ["wait"]
    assert _sleepers(replace(settings, sleepers=None), folder) is None


def test_a_profile_that_does_not_say_is_refused(folder: Folder) -> None:
    functions = (WAITS._replace(seen=(Seen("boot", "blocks", 1),)),)
    kernel = KernelId("theirs", "c2", "s", "6.1", "o")
    save_profile(replace(PROFILE, kernel=kernel, functions=functions), folder.path("theirs.json"))
    settings = Settings(folder.out, folder.out, sources="blocks", sleepers=folder.path("theirs.json"))
    with pytest.raises(UserError, match="it does not say"):
        _sleepers(settings, folder)


@pytest.mark.parametrize(("sources", "known"), [("blocks", None), ("ftrace", ()), ("ftrace+blocks", ())])
def test_without_them_or_for_ftrace_a_traced_kernel_is_needed(
    folder: Folder, sources: str, known: tuple[Identity, ...] | None
) -> None:
    production = KernelBuild(folder.base("bzImage"), folder.base("symbols.json"))
    options = CollectOptions(sources=sources, sleepers=known)
    with pytest.raises(UserError, match="there is no traced kernel"):
        collect_profile(load_workload(EXAMPLE), production, None, folder.out, folder.out, options)
