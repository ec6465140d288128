"""The whole of ``kprune run`` on examples/micro: real kernel, real QEMU, real programs.

What the project promises is asserted here on the report of one run, which is made once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.runs import ROOT, edited_profile, kprune, until, without
from tracer.profiles.profile import load_profile
from tracer.profiles.saturation import estimate, expected_new
from tracer.sessions.jitter import SLOWNESS

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def out(micro: Path) -> Path:
    """A finished run of examples/micro."""
    return micro


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "report.json").read_text())
    return value


def test_text_shrinks_by_more_than_three_fifths(report: dict[str, Any]) -> None:
    """Of a shell and a web server two thirds went; the ssh server takes what terminals and select need, and
    what chance decides (prune/plan/chance.py, timers.py) a twentieth of the rest."""
    assert report["pruned"]["text_bytes"] <= 0.40 * report["base"]["text_bytes"]


def test_boot_image_shrinks(report: dict[str, Any]) -> None:
    assert report["pruned"]["image_bytes"] <= 0.60 * report["base"]["image_bytes"]


def test_every_boot_runs_the_workload(report: dict[str, Any]) -> None:
    validation = report["validation"]
    assert (validation["boots"], validation["passed"], validation["misses"]) == (10, 10, [])
    assert validation["verify"] == "ok"
    assert validation["console"]["boots"] == 10 and validation["console"]["runs"] > 3


def test_report_agrees_with_the_linked_kernel(out: Path, report: dict[str, Any]) -> None:
    """nm, which shares nothing with the report, counts the functions that are left."""
    for side in ("base", "pruned"):
        said = subprocess.run(
            ["nm", out / side / "vmlinux"], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        text = {line.split()[0] for line in said if line.split()[1] in "tTwW"}
        # nm also lists assembly labels, and not a weak function that a strong one replaces.
        assert abs(len(text) - report[side]["functions"]) <= 0.05 * len(text)


def test_second_run_does_nothing(out: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    done = kprune("run", "examples/micro", "--out", out)
    for stage in ("build", "trace", "gather", "plan", "link", "verify", "boot", "report"):
        assert f"{stage}: unchanged" in done.stderr
    changed = {
        path.name for path, time in before.items() if path.exists() and path.stat().st_mtime_ns != time
    }
    assert changed <= {"run.json", "lock"}


def test_why_names_the_path(out: Path) -> None:
    kept = json.loads(kprune("why", "tcp_v4_rcv", out, "--json").stdout)
    assert kept[0]["kept"] and kept[0]["reason"].startswith("ran")
    plan = json.loads((out / "plan.json").read_text())
    section = next(
        row[1]
        for row in plan["units"]
        if row[3] == "drop" and row[1].startswith(".text.") and row[1].count(".") == 2
    )
    dropped = json.loads(kprune("why", section.removeprefix(".text."), out, "--json").stdout)
    assert any(not answer["kept"] for answer in dropped)
    assert "no function of that name" in kprune("why", "no_such_function", out, check=2).stderr


def test_profile_of_another_build_is_refused_unless_told(out: Path, tmp_path: Path) -> None:
    def other_build(profile: dict[str, Any]) -> None:
        profile["kernel"] |= {"build_id": "00" * 20, "source": "another"}
        profile["functions"].append({**profile["functions"][0], "symbol": "from_another_tree"})

    folder, given = edited_profile(out, tmp_path, other_build)
    before = (folder / "plan.json").read_bytes()
    done = kprune("plan", folder, "--profile", given, check=2)
    assert "another source, the same config" in done.stderr and "--accept-stale-profile" in done.stderr
    assert (folder / "plan.json").read_bytes() == before
    kprune("plan", folder, "--profile", given, "--accept-stale-profile")
    assert json.loads((folder / "stale.json").read_text())["stale"][0]["lost"] == [
        f"{json.loads((folder / 'profile.json').read_text())['functions'][0]['object']}:from_another_tree"
    ]


def test_missed_function_is_named_with_its_caller(out: Path, tmp_path: Path) -> None:
    """A function that the workload needs is taken out of the profile: the boot must say which, and fail."""
    folder, given = edited_profile(out, tmp_path, without("meminfo_proc_show"))
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    kprune("verify", folder)
    says = "missed meminfo_proc_show (fs/proc/meminfo.o), called by seq_read_iter"
    until(says, "boot", folder, "--boots", "1", check=5)
    miss = json.loads((folder / "boots.json").read_text())["misses"][0]
    assert miss["phase"] == "free"


def test_miss_that_kills_without_a_word_is_attributed(out: Path, tmp_path: Path) -> None:
    """One of the first functions that the kernel calls is missed before there is a console: it hangs. The VM
    knows who was called, and by whom. Healing mends it."""
    functions = json.loads((out / "profile.json").read_text())["functions"]
    name = next(f["symbol"] for f in functions if f["symbol"].startswith("sanitize_boot_params"))
    folder, given = edited_profile(out, tmp_path, without(name))
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    done = kprune("boot", folder, "--boots", "1", check=5)
    assert f"missed {name} (arch/x86/kernel/head64.o), called by copy_bootdata" in done.stderr
    kprune("heal", folder, "--boots", "2")
    heal = json.loads((folder / "report.json").read_text())["heal"]
    assert heal["converged"] and heal["added"][0]["function"] == name
    assert heal["added"][0]["app"] == "boot"


def test_heal_says_why_it_did_not_converge(out: Path, tmp_path: Path) -> None:
    """Two functions, one behind the other, and one round only."""
    folder, given = edited_profile(
        out, tmp_path, without("meminfo_proc_show", "uptime_proc_show", "loadavg_proc_show")
    )
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    done = kprune("heal", folder, "--boots", "2", "--heal-rounds", "1", check=None)
    report = json.loads((folder / "report.json").read_text())
    healed = {each["function"] for each in report["heal"]["added"]}
    assert "meminfo_proc_show" in healed
    assert report["heal"]["converged"] == (done.returncode == 0)
    assert report["heal"]["converged"] or report["heal"]["why"].startswith("still missed: ")


def test_saturation_is_reported_and_foretells_runs_that_we_have(out: Path, report: dict[str, Any]) -> None:
    saturation = report["saturation"]
    assert saturation["curve"] == sorted(saturation["curve"])
    assert len(saturation["curve"]) == saturation["runs"] >= len(SLOWNESS)
    assert saturation["unseen_estimate"] >= 0
    profile = load_profile(out / "profile.json")
    traced = [n for n, run in enumerate(profile.runs) if run.name.startswith("blocks-")]
    assert not any(profile.runs[n].new for n in traced[-2:])
    incidence = [function.runs for function in profile.functions]
    for left_out in range(2, len(traced) // 2 + 1):
        some = traced[:-left_out]
        known = estimate("blocks", incidence, some).curve[-1]
        new = estimate("blocks", incidence, traced).curve[-1] - known
        # What later runs add is of the size foretold, but for one event more or less: functions do not come
        # alone (a retransmission runs some twenty at once), and the estimate takes them for independent.
        assert new <= 3 * expected_new(incidence, some, left_out) + 24
        assert expected_new(incidence, some, left_out) <= 3 * new + 24


def test_every_app_has_what_it_ran(out: Path) -> None:
    """Block coverage is exact for each app: what all of them run is seen in all of them."""
    seen = {
        (f["symbol"], each["app"]) for f in json.loads((out / "profile.json").read_text())["functions"]
        for each in f["seen"] if each["source"] == "blocks"
    }  # fmt: skip
    apps = ("start", "shell", "ps", "free", "ls", "web", "shutdown")
    assert {app for symbol, app in seen if symbol == "ksys_write"} >= set(apps)
    assert {app for symbol, app in seen if symbol == "meminfo_proc_show"} == {"free", "web"}  # CGI
    assert {app for symbol, app in seen if symbol == "tcp_v4_connect"} == {"web"}


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
