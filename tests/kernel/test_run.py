"""The whole of ``kprune run`` on examples/micro: real kernel, real QEMU, real programs.

What the project promises is asserted here on the report of one run, which is made once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel


def kprune(*words: str | Path, check: int | None = 0, env: dict[str, str] | None = None) -> Any:
    done = subprocess.run(
        [KPRUNE, *map(str, words)], capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of examples/micro."""
    folder = tmp_path_factory.mktemp("run") / "micro"
    kprune("run", "examples/micro", "--out", folder)
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "report.json").read_text())
    return value


def test_text_shrinks_by_two_thirds(report: dict[str, Any]) -> None:
    assert report["pruned"]["text_bytes"] <= 0.35 * report["base"]["text_bytes"]


def test_boot_image_shrinks(report: dict[str, Any]) -> None:
    assert report["pruned"]["image_bytes"] <= 0.60 * report["base"]["image_bytes"]


def test_every_boot_runs_the_workload(report: dict[str, Any]) -> None:
    validation = report["validation"]
    assert (validation["boots"], validation["passed"], validation["misses"]) == (10, 10, [])
    assert validation["verify"] == "ok"


def test_report_agrees_with_the_linked_kernel(out: Path, report: dict[str, Any]) -> None:
    """nm, which shares nothing with the report, counts the functions that are left."""
    for side in ("base", "pruned"):
        said = subprocess.run(
            ["nm", out / side / "vmlinux"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        text = {line.split()[0] for line in said if line.split()[1] in "tTwW"}
        stones = report["tombstones"] if side == "pruned" else 0
        # nm also lists assembly labels, and not a weak function that a strong one replaces.
        assert abs(len(text) - stones - report[side]["functions"]) <= 0.05 * len(text)


def test_second_run_does_nothing(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    done = kprune("run", "examples/micro", "--out", out)
    for stage in ("build", "trace", "plan", "link", "verify", "boot"):
        assert f"{stage}: unchanged" in done.stderr
    changed = {
        path.name for path, time in before.items() if path.exists() and path.stat().st_mtime_ns != time
    }
    assert changed <= {"report.json", "metadata.json", "run.json"}


def test_why_names_the_path(out: Path) -> None:
    kept = json.loads(kprune("why", "tcp_v4_rcv", out, "--json").stdout)
    assert kept[0]["kept"] and kept[0]["reason"].startswith("ran")
    plan = json.loads((out / "plan.json").read_text())
    section = next(row[1] for row in plan["units"] if row[3] == "drop" and row[1].startswith(".text."))
    dropped = json.loads(kprune("why", section.removeprefix(".text."), out, "--json").stdout)
    assert any(not answer["kept"] for answer in dropped)
    assert "no function of that name" in kprune("why", "no_such_function", out, check=2).stderr


def test_profile_of_another_build_is_refused(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out, tmp_path / "run")
    profile = json.loads((folder / "profile.json").read_text())
    profile["production_build_id"] = "00" * 20
    (folder / "profile.json").write_text(json.dumps(profile))
    done = kprune("plan", folder, check=2)
    assert "trace this build" in done.stderr


def test_missed_function_is_named_with_its_caller(out: Path, tmp_path: Path) -> None:
    """A function that the workload needs is taken out of the profile: the boot must say which, and fail."""
    folder = shutil.copytree(out, tmp_path / "run")
    profile = json.loads((folder / "profile.json").read_text())
    profile["functions"] = [f for f in profile["functions"] if f["symbol"] != "meminfo_proc_show"]
    (folder / "profile.json").write_text(json.dumps(profile))
    kprune("plan", folder)
    kprune("link", folder)
    kprune("verify", folder)
    done = kprune("boot", folder, "--boots", "1", check=5)
    assert "missed meminfo_proc_show (fs/proc/meminfo.o), called by seq_read_iter" in done.stderr


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ('[[app]]\nname = "never"\ncommand = "sleep 100"\nready = "false"\ntimeout = 3\n', 1, "never"),
        ('[[app]]\nname = "fails"\ncommand = "exit 7"\ntimeout = 10\n', 1, "7"),
        ('[[app]]\nname = "x"\ncomand = "true"\ntimeout = 10\n', 2, "command"),
    ],
)  # fmt: skip
def test_bad_workloads_name_their_fault(out: Path, tmp_path: Path, text: str, code: int, says: str) -> None:
    folder = tmp_path / "workload"
    folder.mkdir()
    shutil.copy(ROOT / "examples/micro/kernel.config", folder)
    head = 'schema_version = 1\nname = "bad"\narch = "x86_64"\nkernel_config = "kernel.config"\n'
    (folder / "workload.toml").write_text(head + "[rootfs]\nbusybox = true\n" + text)
    result = tmp_path / "out"
    done = kprune("run", folder, "--out", result, check=code)
    assert says in done.stderr
    assert not (result / "profile.json").exists()


def test_guest_that_panics_at_boot(out: Path, tmp_path: Path) -> None:
    """A command line that asks for an init that is not there: the guest panics, with its last words."""
    folder = tmp_path / "workload"
    shutil.copytree(ROOT / "examples/micro", folder)
    toml = (folder / "workload.toml").read_text()
    (folder / "workload.toml").write_text(
        toml.replace('memory = "128M"', 'memory = "128M"\ncmdline = "rdinit=/nothing init=/nothing"')
    )
    done = kprune("run", folder, "--out", tmp_path / "out", check=5)
    assert "Requested init /nothing failed" in done.stderr or "panic" in done.stderr.lower()
    assert not (tmp_path / "out" / "profile.json").exists()


def test_option_that_does_not_survive_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "workload"
    shutil.copytree(ROOT / "examples/micro", folder)
    with (folder / "kernel.config").open("a") as stream:
        stream.write("CONFIG_NO_SUCH_OPTION=y\n")
    done = kprune("run", folder, "--out", tmp_path / "out", check=2)
    assert "CONFIG_NO_SUCH_OPTION=y became n" in done.stderr


def test_missing_compiler_is_named_with_its_mend(tmp_path: Path) -> None:
    done = kprune("build", "examples/micro", "--out", tmp_path / "out", check=3, env={"PATH": str(tmp_path)})
    assert "gcc" in done.stderr and "apt-get install" in done.stderr


def test_dry_run_prints_the_commands_and_makes_nothing(out: Path, tmp_path: Path) -> None:
    done = kprune("run", "examples/micro", "--out", tmp_path / "out", "--dry-run")
    assert "KPRUNE_PLAN=" in done.stdout and "make -C" in done.stdout
    assert not (tmp_path / "out").exists()
