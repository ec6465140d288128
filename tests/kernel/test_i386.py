"""The whole of ``kprune run`` for another architecture than the host's: a 32-bit kernel with 32-bit programs.

One more kernel is built the first time (four minutes on two processors): where tasks sleep is known from the
other architecture's profile. The run itself is kept short.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prune.guests.boots import read_pruned, watched
from prune.run.pipeline import Pipeline
from prune.settings import cache_folder, load_settings
from tests.kernel.runs import edited_profile, kprune, until, without
from tracer.files.rootfs import Roots
from tracer.host import file_hash
from tracer.phase_names import START
from tracer.profiles.profile import load_profile
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import open_session

pytestmark = pytest.mark.kernel
BOOTS = 2


@pytest.fixture(scope="module")
def out(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("i386") / "micro"
    kprune(
        "run", "examples/micro", "--arch", "i386", "--out", folder, "--trace-runs", "3",
        "--boots", str(BOOTS), "--sources", "blocks",
        "--sleepers", micro / "trace/profile.json", "--accept-stale-profile",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "report.json").read_text())
    return value


def test_it_shrinks_and_runs_the_workload(report: dict[str, Any]) -> None:
    assert report["pruned"]["text_bytes"] <= 0.40 * report["base"]["text_bytes"]
    assert report["pruned"]["image_bytes"] <= 0.65 * report["base"]["image_bytes"]
    validation = report["validation"]
    assert (validation["boots"], validation["passed"], validation["verify"]) == (BOOTS, BOOTS, "ok")


def test_the_guest_is_of_that_architecture(out: Path) -> None:
    for kernel in ("base", "pruned"):
        assert (out / kernel / "vmlinux").read_bytes()[4:20:14] == b"\x01\x03", "not ELF32, EM_386"
    assert json.loads((out / "run.json").read_text())["arch"] == "i386"
    assert "--arch i386" in " ".join(json.loads((out / "metadata.json").read_text())["command"])


def test_the_profile_has_every_phase_and_the_path_of_a_miss(out: Path) -> None:
    profile = load_profile(out / "trace/profile.json")
    by_app: dict[str, set[str]] = {}
    for record in profile.functions:
        for seen in record.seen:
            by_app.setdefault(seen.app, set()).add(record.identity.symbol)
    # Before paging, before there is a console, then everything until it halts, for it has no ACPI.
    assert {"startup_32", "i386_start_kernel", "start_kernel"} <= by_app["boot"]
    assert "meminfo_proc_show" in by_app["free"]
    assert "tcp_v4_rcv" in by_app["web"]
    assert "machine_halt" in by_app["shutdown"]
    assert {"handle_bug", "die", "panic"} & by_app["miss"]
    assert {seen.source for record in profile.functions for seen in record.seen} >= {"blocks", "stack"}


def test_a_healthy_guest_is_not_thought_to_have_missed(out: Path, tmp_path: Path) -> None:
    """Where freed memory is watched, what frees it is in the log as well. Who missed is given little time:
    guests that ran for more than 20 seconds were called hung. Without apps, none can miss anything."""
    pipeline = Pipeline(load_settings(out))
    kernel = read_pruned(out / "pruned", smp=False)
    options = watched(SessionOptions(idle=True), pipeline.workload, kernel, tmp_path / "misses.log")
    root = Roots(pipeline.workload, tmp_path, cache_folder()).of(kernel.image)
    with open_session(kernel.image, root, pipeline.workload, options, tmp_path) as session:
        session.run()
        assert options.freed and START in [mark.phase for mark in session.marks]
        assert session.missed_deadline() == float("inf")


def test_a_missed_function_is_named_with_its_caller(out: Path, tmp_path: Path) -> None:
    folder, given = edited_profile(out, tmp_path, without("meminfo_proc_show"))
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    says = "missed meminfo_proc_show (fs/proc/meminfo.o), called by seq_read_iter"
    until(says, "boot", folder, "--boots", "1", check=5)
    assert json.loads((folder / "boots.json").read_text())["misses"][0]["phase"] == "free"


def test_what_was_freed_too_early_is_named_and_healed(out: Path, tmp_path: Path) -> None:
    """No processor of this kind faults when freed memory is executed: the VM sees it."""

    def for_booting_alone(profile: dict[str, Any]) -> None:
        for row in profile["functions"]:
            if row["symbol"] == "meminfo_proc_show":
                row["seen"] = [{**row["seen"][0], "app": "boot"}]

    folder, given = edited_profile(out, tmp_path, for_booting_alone)
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    until("missed meminfo_proc_show (fs/proc/meminfo.o)", "boot", folder, "--boots", "1", check=5)
    assert json.loads((folder / "boots.json").read_text())["misses"][0]["phase"] == "free"
    before = file_hash(folder / "plan.json")
    kprune("heal", folder, "--boots", "1")
    assert file_hash(folder / "plan.json") != before
