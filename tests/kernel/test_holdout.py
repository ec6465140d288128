"""Programs that were never profiled, on a real pruned kernel: each end is told from the others, by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prune.guests.held_out import ENOSYS, KILLED, SAME, VARIES, count
from tests.kernel.runs import kprune

pytestmark = pytest.mark.kernel
PROGRAMS = """
schema_version = 1
files = "files"

[[program]]
name = "brought-along"
command = '''[ "$(/held/own/said)" = here ] || head -c 16 /dev/urandom | md5sum'''

[[program]]
name = "asks-for-what-ran"
command = "seq 9 | sort -rn | head -n 2; exit 3"

[[program]]
name = "reads-what-is-gone"
command = "read -r line </proc/consoles; echo $line"

[[program]]
name = "goes-on-in-another-guest"
command = "seq 3 | tr 1-3 a-c"

[[program]]
name = "calls-what-is-gone"
command = "chroot / /kprune/busybox echo inside"

[[program]]
name = "never-the-same"
command = "head -c 16 /dev/urandom | md5sum"

[[program]]
name = "of-its-time"
command = "date +%s"
"""


def test_each_end_is_told_from_the_others(micro: Path, tmp_path: Path) -> None:
    out = shutil.copytree(micro, tmp_path / "run")
    (tmp_path / "files/own").mkdir(parents=True)
    (tmp_path / "files/own/said").write_text("#!/bin/sh\necho here\n")
    (tmp_path / "files/own/said").chmod(0o755)
    listed = tmp_path / "programs.toml"
    listed.write_text(PROGRAMS)
    said = kprune("holdout", out, "--programs", listed, "--json").stdout
    assert json.loads(said) == json.loads((out / "holdout.json").read_text())
    (kernel,) = json.loads(said)["kernels"]
    fates = {fate["name"]: fate for fate in kernel["fates"]}
    timely = fates.pop("of-its-time")["outcome"]  # the base may print one time twice, and no other guest
    assert timely in (SAME, VARIES)
    assert {name: fate["outcome"] for name, fate in fates.items()} == {
        "brought-along": SAME, "asks-for-what-ran": SAME, "reads-what-is-gone": KILLED,
        "goes-on-in-another-guest": SAME, "calls-what-is-gone": ENOSYS, "never-the-same": VARIES,
    }  # fmt: skip
    assert "(fs/proc/consoles.o), called by seq_read_iter" in fates["reads-what-is-gone"]["missed"][0]
    assert "not implemented" in fates["calls-what-is-gone"]["differs"][1]
    assert fates["calls-what-is-gone"]["missed"] == ["__x64_sys_chroot"]
    counts = {**dict.fromkeys(count([]), 0), SAME: 3, KILLED: 1, ENOSYS: 1, VARIES: 1}
    assert kernel["outcomes"] == {**counts, timely: counts[timely] + 1}
    report = json.loads((out / "report.json").read_text())
    assert (kernel["keep"], kernel["text_bytes"]) == ("ran", report["pruned"]["text_bytes"])
