"""A dropped ioctl is answered by policy, and the machine goes on; without one it kills who asked; where that
holds a lock, the machine stops. Boots say what was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prune.guests.boots import boot_once, boot_pruned, read_pruned
from prune.settings import cache_folder
from tests.kernel.runs import ROOT, kprune, until
from tracer.files.rootfs import Roots
from tracer.sessions.options import SessionOptions
from tracer.workloads.workload_file import load_workload

pytestmark = pytest.mark.kernel
#: What a busy machine makes late is not what this is about.
RULES = """\
builtin = ["ioctl", "xattr", "mmap"]

[[keep]]
pattern = "*"
object = "kernel/workqueue.o"
reason = "rare"

[[keep]]
pattern = "*"
object = "kernel/time/*"
reason = "rare"
"""
#: A file of /proc is no terminal: stty asks for its settings, and says that it cannot have them.
APPS = """\
[[app]]
name = "tty"
command = "stty -F /proc/uptime; test $? = 1"
timeout = 30

[[app]]
name = "ps"
command = "ps"
timeout = 30
"""
TTY = "stty -F /proc/uptime; test $? = 1"
ASKED = "proc_reg_unlocked_ioctl"
CALL = "__x64_sys_sethostname"


def planned(micro: Path, folder: Path, rules: str) -> tuple[Path, Path]:
    """(a copy of the run, rules for it)."""
    out = folder / "out"
    for name in ("base", "trace", "imports", "heal"):
        if (micro / name).is_dir():
            shutil.copytree(micro / name, out / name)
    for name in ("run.json", "heal.json"):
        if (micro / name).is_file():
            shutil.copy(micro / name, out)
    (folder / "rules.toml").write_text(rules)
    return out, folder / "rules.toml"


def other_apps(folder: Path, apps: str = APPS) -> Path:
    """The micro workload with ``apps`` instead of its own."""
    made = shutil.copytree(ROOT / "examples/micro", folder / "workload")
    path = made / "workload.toml"
    head = path.read_text().partition("[[app]]")[0].replace("any_order = true\n", "")
    path.write_text(head.replace("forward = [22, 80]\n", "") + apps)
    return made


@pytest.mark.parametrize(
    ("asks", "function", "caller", "stops"),
    [
        # dev_ioctl() holds the mutex of all network configuration (rtnl_lock), vfs_ioctl() nothing.
        ("ifconfig lo mtu 1400", "dev_ifsioc", "dev_ioctl", True),
        ("stty -F /proc/uptime", ASKED, "vfs_ioctl", False),
    ],
)
def test_the_machine_goes_on_unless_a_lock_is_held(
    micro: Path, tmp_path: Path, asks: str, function: str, caller: str, stops: bool
) -> None:
    made = load_workload(other_apps(tmp_path, APPS.replace(TTY, f"{asks}; true")))
    kernel = read_pruned(micro / "pruned", smp=False)
    root = Roots(made, tmp_path / "root", cache_folder()).of(kernel.image)
    boot = boot_once(made, kernel, root, SessionOptions(oops_panic=False), 0, "", tmp_path / "boot")
    assert [(miss.function, miss.caller) for miss in boot.misses] == [(function, caller)]
    console = tmp_path / "boot/console.log"
    said = console.read_text()
    assert ("Kernel panic - not syncing: Fatal exception in interrupt" in said) is stops
    assert ("reboot: Power down" in said) is not stops
    (oops,) = json.loads(kprune("decode", console, micro, "--json", check=5).stdout)["oopses"]
    assert (oops["at"]["function"], oops["caller"]["function"]) == (function, caller)
    answer = kprune("why", function, micro).stdout
    assert ("when it is called: stop, for a lock may be held there" in answer) is stops


def test_an_ioctl_is_answered_and_the_machine_goes_on(micro: Path, tmp_path: Path) -> None:
    out, rules = planned(micro, tmp_path, RULES)
    settings = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(settings | {"workload": str(other_apps(tmp_path))}))
    kprune("plan", out, "--rules", rules)
    said = kprune("why", ASKED, out).stdout
    assert "dropped" in said and "when it is called: return -ENOTTY, by policy ioctl" in said
    kprune("link", out)
    kprune("verify", out)
    check = next(
        c for c in json.loads((out / "verify.json").read_text())["checks"] if c["name"] == "tombstones"
    )
    assert "of them answer by policy" in check["note"]
    done = until("ran the whole workload", "boot", out, "--boots", "1", "--json", check=None)
    boots = json.loads(done.stdout)
    assert (boots["passed"], boots["misses"]) == (1, [])
    asked = {each["function"]: each for each in boots["answered"]}
    assert (asked[ASKED]["value"], asked[ASKED]["phase"]) == ("-ENOTTY", "tty")


def named(ends: str) -> str:
    """Apps that change the host's name, which nothing that was profiled did."""
    return f'[[app]]\nname = "name"\ncommand = "hostname pruned; {ends}"\ntimeout = 30\n'


def test_a_system_call_that_is_gone_is_named_and_fails_no_boot_that_can_do_without(
    micro: Path, tmp_path: Path
) -> None:
    made = load_workload(other_apps(tmp_path, named("true")))
    boots = boot_pruned(made, read_pruned(micro / "pruned", smp=False), [0, 2, 6], tmp_path / "boot")
    # On a busy host a boot may miss what has nothing to do with it.
    passed = [boot for boot in boots if not boot.misses]
    assert passed and {boot.problem for boot in passed} == {""}
    for boot in passed:
        (asked,) = boot.answered
        assert (asked.function, asked.value, asked.phase, asked.call) == (CALL, "-ENOSYS", "name", True)
    assert "when it is called: -ENOSYS, by __x64_sys_ni_syscall" in kprune("why", CALL, micro).stdout


def test_a_system_call_that_is_gone_is_healed_where_a_boot_fails_for_it(micro: Path, tmp_path: Path) -> None:
    out, _ = planned(micro, tmp_path, "")
    settings = json.loads((out / "run.json").read_text())
    made = other_apps(tmp_path, named("test $(hostname) = pruned"))
    (out / "run.json").write_text(json.dumps(settings | {"workload": str(made)}))
    kprune("plan", out)
    kprune("link", out)
    until(f"asked for system calls that are gone: {CALL}", "boot", out, "--boots", "1", check=5)
    kprune("heal", out, "--boots", "1")
    healed = {row["function"]: row for row in json.loads((out / "heal.json").read_text())["healed"]}
    assert (healed[CALL]["caller"], healed[CALL]["app"]) == ("a program", "name")
    assert json.loads((out / "boots.json").read_text())["passed"] == 1


@pytest.mark.parametrize(
    ("functions", "value", "says"),
    [
        ("pipe_ioctl", "NULL", "is long (struct file *, unsigned int, unsigned long): it returns no pointer"),
        ("pipe_wait_readable", "0", "is void (struct pipe_inode_info *): it returns nothing"),
    ],
)
def test_a_value_that_a_type_does_not_have(
    micro: Path, tmp_path: Path, functions: str, value: str, says: str
) -> None:
    """Debian's configuration has no debug information here: the one object is compiled once more."""
    rule = f'[[policy]]\nfunctions = ["{functions}"]\non_miss = "return"\nvalue = "{value}"\n'
    out, rules = planned(micro, tmp_path, rule)
    done = kprune("plan", out, "--rules", rules, check=2)
    assert says in done.stderr.splitlines()[-1] and functions in done.stderr.splitlines()[-1]
