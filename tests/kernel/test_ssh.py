"""``kprune trace --ssh``: a real guest that is reached over ssh only, and runs the traced kernel."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune.settings import cache_folder
from tracer.files.rootfs import build_root
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import run_session
from tracer.workloads.workload_file import load_workload

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel

# The guest's root file system is that of examples/micro and an ssh server, which is its only app: what the
# server is used for, by its host command, is `kprune trace --ssh`.
SERVER = """
[[rootfs.file]]
source = "{key}.pub"
target = "/root/.ssh/authorized_keys"
mode = "0600"

[[app]]
name = "sshd"
command = '''
mkdir -p /etc/dropbear
dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key
exec dropbear -F -E -s -r /etc/dropbear/dropbear_ed25519_host_key
'''
ready = "netstat -ltn | grep -q :22"
client = '''
cat /proc/mounts /proc/sys/kernel/ftrace_enabled >/tmp/before
'''
host = '''{trace}'''
timeout = 300

# ftrace and the mounts are as they were, and nothing is left in /tmp.
[[app]]
name = "after"
command = '''
cat /proc/mounts /proc/sys/kernel/ftrace_enabled | cmp - /tmp/before
mount -t tracefs tracefs /sys/kernel/tracing && grep -q 0 /sys/kernel/tracing/function_profile_enabled
test -z "$(ls -d /tmp/kprune-* 2>/dev/null)"
'''
timeout = 30
"""


def guest_with_ssh(into: Path, trace: str) -> Path:
    """A workload whose host command is ``trace``; it finds the key in ``into``."""
    key = into / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    text = (ROOT / "examples/micro/workload.toml").read_text()
    apps = text.index("[[app]]")
    folder = into / "guest"
    shutil.copytree(ROOT / "examples/micro", folder)
    (folder / "workload.toml").write_text(text[:apps] + SERVER.format(key=key, trace=trace))
    return folder


def without_its_own_server(into: Path) -> Path:
    """examples/micro but for the ssh server: port 22 of this machine is taken."""
    folder = into / "board"
    shutil.copytree(ROOT / "examples/micro", folder)
    text = (folder / "workload.toml").read_text()
    (folder / "workload.toml").write_text(text[: text.index('[[app]]\nname = "ssh"')])
    return folder


@pytest.fixture(scope="module")
def traced(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that ``kprune build`` and ``kprune trace --ssh`` have filled: no guest of ours was traced."""
    into = tmp_path_factory.mktemp("ssh")
    out = into / "out"
    for name in ("base", "traced"):
        shutil.copytree(micro / name, out / name)
    settings = json.loads((micro / "run.json").read_text())
    settings["workload"] = str(without_its_own_server(into))
    for name in ("run.json", "out/run.json"):
        (into / name).write_text(json.dumps(settings))
    options = (
        f"-p $KPRUNE_PORT_22 -i {into / 'key'} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    )
    trace = (
        f'{shlex.quote(str(KPRUNE))} trace {out} --ssh root@127.0.0.1 --ssh-option "{options}" '
        f"--ssh-port-map 80:$KPRUNE_PORT_80 --trace-runs 2 --json >{into / 'said.json'}"
    )
    workload = load_workload(guest_with_ssh(into, trace))
    initrd = build_root(workload, into, cache_folder())
    ran = run_session(micro / "traced" / "bzImage", initrd, workload, SessionOptions(), into / "console")
    assert ran.outcome == "powered off"
    return out


def test_every_app_has_what_it_ran_over_there(traced: Path) -> None:
    said: dict[str, Any] = json.loads((traced.parent / "said.json").read_text())
    assert (said["source"], said["kernel"], said["runs"], said["failed"]) == ("ftrace", "traced", 2, [])
    assert said["names"] > 500
    profile = json.loads((traced / "imports" / "ssh-127.0.0.1.json").read_text())
    seen = {f["symbol"]: {each["app"] for each in f["seen"]} for f in profile["functions"]}
    # Functions that only the traced build has; every name is known.
    assert all(":" in name for name in profile["unmatched"])
    assert profile["apps"] == ["shell", "ps", "free", "ls", "web"]
    assert seen["meminfo_proc_show"] == {"free", "web"}  # CGI
    assert seen["tcp_v4_connect"] == {"web"}
    assert "web" in seen["tcp_sendmsg"] and seen["ksys_write"] == {*profile["apps"]}
    assert profile["workload_name"] == "micro"


def test_a_plan_can_be_made_of_it_alone(traced: Path) -> None:
    done = subprocess.run([KPRUNE, "plan", traced], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (traced / "plan.json").is_file()
    assert (traced / "run.json").read_bytes() == (traced.parent / "run.json").read_bytes()  # nothing of ssh
