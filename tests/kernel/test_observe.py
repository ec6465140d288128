"""``kprune observe``: a kernel is watched for what the plan would drop, in a real guest."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prune.settings import cache_folder
from tracer.files.rootfs import build_root
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import run_session
from tracer.workloads.workload_file import load_workload

KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel

WORKLOAD = """\
schema_version = 1
name = "watched"
arch = "x86_64"

[rootfs]
busybox = true

[[rootfs.file]]
source = "{observe}/observe.sh"
target = "/observe/observe.sh"
mode = "0755"

[[rootfs.file]]
source = "{observe}/filter"
target = "/observe/filter"

# A named pipe, and a file with room ahead: examples/micro does neither. Then the result leaves through the
# console.
[[app]]
name = "week"
command = '''
set -e
/observe/observe.sh start
mkfifo /tmp/pipe
fallocate -l 4096 /tmp/a
/observe/observe.sh status
/observe/observe.sh stop /tmp/result
{{ echo; echo RESULT; base64 /tmp/result; echo DONE; }} >/dev/console
test ! -e /sys/kernel/tracing/instances/kprune
'''
timeout = 120
"""


def kprune(*words: str | Path, code: int = 0) -> str:
    done = subprocess.run([KPRUNE, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_watched_kernel_names_what_it_called(micro: Path, tmp_path: Path) -> None:
    """The traced kernel is the user's production kernel here: it has the function tracer, and runs on."""
    kprune("observe", micro)
    (tmp_path / "workload.toml").write_text(WORKLOAD.format(observe=micro / "observe"))
    workload = load_workload(tmp_path)
    initrd = build_root(workload, tmp_path, cache_folder())
    image = micro / "traced" / "bzImage"
    ran = run_session(image, initrd, workload, SessionOptions(), tmp_path / "guest")
    text = re.search(r"RESULT\n(.*?)DONE", ran.console, re.S)
    assert text, ran.console[-2000:]
    result = tmp_path / "result"
    result.write_bytes(base64.b64decode("".join(re.findall(r"^[A-Za-z0-9+/=]{4,76}$", text[1], re.M))))

    found = json.loads(kprune("observe", micro, "--read", result, "--output", tmp_path / "p.json", "--json"))
    called = {row["function"] for row in found["called"]}
    assert {"ksys_fallocate", "vfs_fallocate"} <= called
    assert found["watched"] > 5000

    merged = tmp_path / "merged.json"
    kprune("profile", "merge", micro, tmp_path / "p.json", "-o", merged)
    profile = json.loads(merged.read_text())
    seen = {f["symbol"]: {s["source"] for s in f["seen"]} for f in profile["functions"]}
    assert seen["vfs_fallocate"] == {"observe"}

    result.write_bytes(result.read_bytes()[:-40])
    assert "cut short" in kprune("observe", micro, "--read", result, code=2)
