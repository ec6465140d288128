"""What the agent hands on of an app that failed, and what it does before the first one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prune.settings import cache_folder
from tests.kernel.runs import ROOT
from tracer.files.rootfs import build_root
from tracer.host import ValidationFailed
from tracer.profiles.profile import load_profile
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import run_session
from tracer.workloads.workload import App
from tracer.workloads.workload_file import load_workload

pytestmark = pytest.mark.kernel


def test_the_end_of_what_an_app_said_whose_last_line_has_no_end(micro: Path, tmp_path: Path) -> None:
    command = "seq 1 40; printf 'and no more'; exit 3"
    apps = (App("bad", command, "", "", (), "", 30.0),)
    workload = replace(load_workload(ROOT / "examples" / "micro"), apps=apps)
    root = build_root(workload, tmp_path, cache_folder())
    with pytest.raises(
        ValidationFailed, match=r"exited with status 3; it said: 37 \| 38 \| 39 \| 40 \| and no more"
    ):
        run_session(micro / "base" / "bzImage", root, workload, SessionOptions(), tmp_path)


def test_what_a_second_app_takes_is_in_a_profile_of_one(micro: Path) -> None:
    """The file that all apps print to is emptied for the next one. Three servers, each traced alone, missed
    that in each of ten boots of the one kernel for the three."""
    profile = load_profile(micro / "profile.json")
    emptied = next(record for record in profile.functions if record.symbol == "shmem_setattr")
    # Which app comes first differs from run to run.
    runs = {seen.app: seen.count for seen in emptied.seen if seen.source == "blocks"}
    counts = {runs.get(app) for app in profile.apps}
    assert len(counts) == 1 and None not in counts
