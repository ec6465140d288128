"""A guest that never stops talking is out of time like one that says nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from tracer.machines.vm import Vm, VmOptions
from tracer.outcome import GuestHung
from tracer.sessions.options import SessionOptions
from tracer.sessions.session import Session
from tracer.workloads.workload_file import load_workload

MICRO = Path(__file__).parents[2] / "examples/micro"


def session(tmp_path: Path, lines: list[str], **more: Any) -> Session:
    """With a guest that says ``lines`` whenever it is listened to."""

    def receive(seconds: float) -> list[str]:
        time.sleep(0.001)
        return lines

    vm = cast("Any", Vm.__new__(Vm))
    vm.options = VmOptions(0)
    vm.console = tmp_path / "console.log"
    vm.ending = ""
    vm.receive, vm.send = receive, lambda order: None
    vm.console_text, vm.processors_at = lambda: "", tuple
    return Session(vm, load_workload(MICRO), SessionOptions(**more), {})


def test_lines_that_are_no_answer_do_not_stop_the_clock(tmp_path: Path) -> None:
    of = session(tmp_path, ["| again", "nonsense"], grace=0.1)
    with pytest.raises(GuestHung, match=r'did not answer "start 1" in 0.2 seconds'):
        of.converse("start 1", 0.1)


def test_an_answer_that_is_a_little_late_counts(tmp_path: Path) -> None:
    of = session(tmp_path, ["done 3"], grace=5.0)
    assert of.converse("start 1", -5.0) == ("done", 3, [])


def test_after_a_miss_it_is_the_miss_that_is_blamed(tmp_path: Path) -> None:
    """Not an order that has had none of its time."""
    of = session(tmp_path, [], grace=0.1)
    cast("Any", of)._missed_at = time.monotonic()
    with pytest.raises(GuestHung, match=r"after a miss, it said nothing for 0\.1 seconds"):
        of.converse("start 1", 240.0)
