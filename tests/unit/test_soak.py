"""A soak: what it tells a person, what goes into the guest, and what happens to a guest that goes down."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from prune.cmd_soak import _troubles, table
from prune.misses import Miss
from prune.soaking import Guest, as_json
from tracer.host import UserError
from tracer.soak import IN_GUEST, TROUBLES, Stretch, scripts
from tracer.workload_file import load_workload

EXAMPLES = Path(__file__).parents[2] / "examples"
GUESTS = (
    Guest(
        (Stretch(0.5, "", 10.0, 4000), Stretch(10.5, "kill", 3.0, 0, "reset by peer")),
        (Miss("oom_kill", "mm/oom_kill.o", ".text.oom_kill", "out_of_memory", "nginx"),),
        "missed oom_kill",
    ),
    Guest((Stretch(60.0, "", 10.0, 6000), Stretch(70.0, "fill", 8.0, 2000, "", 7)), ()),
)


def test_requests_and_misses_in_the_course_of_time() -> None:
    found = as_json("pruned", GUESTS)
    assert (found["requests"], found["misses"], len(found["lost"])) == (12000, 1, 2)
    lines = table({"troubles": ["kill", "fill"], **found}).splitlines()
    assert lines[1].split() == ["0.0", "4,000", "1", "250.0", "0", "1"]
    assert lines[6].split()[1:] == ["8,000", "0", "0.0", "7", "0"]
    assert lines[7].split() == ["all", "12,000", "1", "83.3", "7", "1"]
    assert "calm          2 stretches,      500 requests/s, 0 unanswered, 0 lost" in lines
    assert "kill          1 stretches,        0 requests/s, 0 unanswered, 1 lost" in lines
    assert lines[-1] == "guest ended: missed oom_kill"
    nothing = as_json("pruned", (Guest((), (), "it hung"),))
    assert table({"troubles": [], **nothing}) == "pruned: nothing was answered; it hung"


def test_troubles_are_chosen_by_name() -> None:
    assert _troubles(None, TROUBLES) == list(TROUBLES)
    assert _troubles("none", TROUBLES) == []
    assert _troubles("loss,kill", TROUBLES) == ["loss", "kill"]
    with pytest.raises(UserError, match="there is no 'flood'; known: storm"):
        _troubles("flood", TROUBLES)


@pytest.mark.skipif(not shutil.which("busybox"), reason="busybox is not installed")
def test_scripts_are_for_the_guests_shell(tmp_path: Path) -> None:
    tree = scripts(load_workload(EXAMPLES / "redis"))
    assert {name.rpartition("-")[2] for name in tree} == set(IN_GUEST)
    for name, entry in tree.items():
        script = tmp_path / name.replace("/", "-")
        script.write_bytes(entry.data)
        done = subprocess.run(
            ["busybox", "sh", "-n", str(script)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_a_workload_without_a_load_cannot_be_soaked() -> None:
    with pytest.raises(UserError, match="no app of it has a load"):
        scripts(load_workload(EXAMPLES / "full"))
