"""A guest that boots is waited for while it prints, but not for ever."""

from __future__ import annotations

from tracer.sessions.booting import TALKING, BootWait


def test_a_silent_guest_is_given_up_after_the_silence() -> None:
    wait = BootWait(60, began=1000)
    assert wait.deadline(0, 1030) == 1060
    assert "nothing new for 60 seconds" in wait.overdue()


def test_each_line_begins_the_silence_anew() -> None:
    wait = BootWait(60, began=1000)
    assert wait.deadline(10, 1050) == 1110
    assert wait.deadline(10, 1090) == 1110
    assert wait.deadline(11, 1100) == 1160
    assert "nothing new for 60 seconds" in wait.overdue()


def test_a_guest_that_prints_for_ever_is_given_up_as_well() -> None:
    wait = BootWait(60, began=1000)
    limit = 1000 + TALKING * 60
    for second in range(0, TALKING * 60, 10):
        assert wait.deadline(second + 1, 1000 + second) <= limit
    assert wait.deadline(10**6, limit - 1) == limit
    assert wait.overdue() == f"no end in {TALKING * 60} seconds, though it goes on printing"
