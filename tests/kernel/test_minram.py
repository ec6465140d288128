"""The smallest memory of real kernels, what their counters say, and root file systems on a disk."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from prune.build.kbuild import KernelBuild, build_kernel, describe_build
from prune.build.source import resolve_source
from prune.guests.counters import find_counters, read_kernel_file
from prune.settings import cache_folder
from tracer.machine import machine_kind
from tracer.rootfs import build_root
from tracer.runner import run_session
from tracer.session_options import SessionOptions
from tracer.vm import Vm
from tracer.workload import App, Workload
from tracer.workload_file import load_workload

KPRUNE = Path(sys.executable).with_name("kprune")
EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.kernel
#: /proc/meminfo -> how vm counters say it, in KiB.
SAME = {
    "MemTotal": lambda c: c["total"] * 4,
    "AnonPages": lambda c: c["nr_anon_pages"] * 4,
    "Shmem": lambda c: c["nr_shmem"] * 4,
    "Mapped": lambda c: c["nr_mapped"] * 4,
    "Slab": lambda c: (c["nr_slab_reclaimable"] + c["nr_slab_unreclaimable"]) * 4,
    "KernelStack": lambda c: c["nr_kernel_stack"],
    "PageTables": lambda c: c["nr_page_table_pages"] * 4,
}


def test_counters_are_those_of_meminfo(micro: Path, tmp_path: Path) -> None:
    """Read from outside while a guest sleeps that has just printed its own view."""
    command = "cat /proc/meminfo >/dev/console; echo MARK >/dev/console; sleep 3"
    workload = replace(load_workload(EXAMPLES / "micro"), apps=(App("look", command, "", "", (), "", 30.0),))
    kernel = read_kernel_file(micro / "base" / "vmlinux")
    counters = find_counters(kernel, kernel)
    offset = machine_kind(workload.arch).identity_offset
    seen: list[Mapping[str, int]] = []

    def watch(vm: Vm) -> None:
        seen.append(counters.read(lambda at, size: vm.physical_memory(at - offset, size)))

    root = build_root(workload, tmp_path, cache_folder())
    result = run_session(micro / "base" / "bzImage", root, workload, SessionOptions(watch=watch), tmp_path)
    said = dict(re.findall(r"^(\w+): +(\d+) kB", result.console.partition("MARK")[0], re.M))
    before, after = seen[0], seen[1]  # when the app's window had opened, and when it had ended
    for name, of in SAME.items():
        # cat itself is gone, and the shell that started it: some hundred KiB of the guest's programs.
        assert abs(int(said[name]) - of(before)) <= 512 or abs(int(said[name]) - of(after)) <= 512, name
    assert of_free(before) - 4096 < int(said["MemFree"]) < of_free(before) + 4096
    assert int(said["MemTotal"]) == before["total"] * 4


def of_free(counts: Mapping[str, int]) -> int:
    return counts["nr_free_pages"] * 4


def test_the_smallest_memory_of_both_kernels(micro: Path, tmp_path: Path) -> None:
    out = shutil.copytree(micro, tmp_path / "run")  # the report of a run would be another with minram.json
    words = [KPRUNE, "minram", out, "--app", "ps", "--grain", "8M", "--json"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((out / "minram.json").read_text())
    assert found["apps"] == ["ps"]
    base, pruned = (found["sides"][side] for side in ("base", "pruned"))
    assert pruned["smallest"] <= base["smallest"] < 128 << 20
    for side in (base, pruned):
        assert side["smallest"] - side["too_small"] == 8 << 20
        assert sum(side["rows"].values()) == side["smallest"]
        assert all(size >= 0 for size in side["rows"].values()), side["rows"]
        assert {trial["memory"] for trial in side["trials"]} >= {side["smallest"]}
    assert pruned["rows"]["text"] < base["rows"]["text"] / 2


@pytest.fixture(scope="module")
def small() -> tuple[KernelBuild, Workload]:
    """A kernel that can have its root file system on a disk; the first time, it is built."""
    workload = load_workload(EXAMPLES / "small", "x86_64")
    source = resolve_source(None, cache_folder())
    build = describe_build("production", source, workload.arch, workload.kernel_configs, None, cache_folder())
    build_kernel(build)
    return build, workload


@pytest.mark.slow
@pytest.mark.parametrize("device", ["romfs", "squashfs"])
def test_root_on_a_disk(small: tuple[KernelBuild, Workload], tmp_path: Path, device: str) -> None:
    """The whole workload runs, from a disk that nobody can write to."""
    build, workload = small
    workload = replace(workload, rootfs=replace(workload.rootfs, device=device))
    root = build_root(workload, tmp_path, cache_folder())
    result = run_session(
        build.artefacts / "bzImage", root, workload, SessionOptions(memory=24 << 20), tmp_path
    )
    assert f"VFS: Mounted root ({device} filesystem) readonly" in result.console
    assert "initrd" not in " ".join(result.command)
