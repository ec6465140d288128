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
from tests.kernel.runs import edited_profile, kprune, until, without
from tracer.files.rootfs import build_root
from tracer.machines.machine import machine_kind
from tracer.machines.vm import Vm
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import run_session
from tracer.workloads.workload import App, Workload
from tracer.workloads.workload_file import load_workload

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


def test_what_is_missed_on_the_way_is_healed(micro: Path, tmp_path: Path) -> None:
    """A function that the app needs is not in the profile: the search goes on with a kernel that has it, and
    what is found was found by one kernel alone."""
    folder, given = edited_profile(micro, tmp_path, without("meminfo_proc_show"))
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    search = ("minram", folder, "--app", "free", "--grain", "16M", "--only", "pruned")
    until("it does not run in 131072K: missed meminfo_proc_show", *search, check=2)
    done = kprune(*search, "--heal")
    assert "heal: meminfo_proc_show, missed in little memory" in done.stderr
    assert "searching again" in done.stderr
    trials = json.loads((folder / "minram.json").read_text())["sides"]["pruned"]["trials"]
    assert not any("missed" in trial["reason"] for trial in trials), trials
    healed = {each["function"] for each in json.loads((folder / "heal.json").read_text())["healed"]}
    assert "meminfo_proc_show" in healed
    assert json.loads((folder / "verify.json").read_text())["ok"]


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


@pytest.mark.slow
def test_a_busybox_of_its_own(tmp_path: Path) -> None:
    """Built from Debian's sources with the options of a file; one that busybox does not have is no option."""
    script = EXAMPLES / "i586.sh"
    options = EXAMPLES / "small" / "busybox.config"
    folder = tmp_path / "own"
    subprocess.run(["sh", str(EXAMPLES / "small" / "own.sh"), str(folder)], check=True)
    workload = load_workload(folder)
    assert (workload.arch, workload.arches) == ("i386", ("i386",))
    assert build_root(workload, tmp_path, cache_folder()).stat().st_size < 512 << 10
    wrong = tmp_path / "wrong.config"
    wrong.write_text(options.read_text() + "CONFIG_COFFEE=y\n")
    done = subprocess.run(
        ["sh", str(script), f"busybox:{wrong}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "CONFIG_COFFEE=y" in done.stderr and "busybox does not have these options" in done.stderr
    assert not done.stdout
