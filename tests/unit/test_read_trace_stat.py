"""The profiler's files of several processors, and names that several functions have."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged, survives
from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.sightings import ForeignTrace, Sighting
from tracer.readers.trace_stat import read_trace_stat

LONG = "a_function_whose_name_is_too_long"
TIMED = """\
  Function                               Hit    Time            Avg             s^2
  --------                               ---    ----            ---             ---
  schedule                             22943    1994458706 us     86931.03 us     1.0 us
"""


def table(rows: list[tuple[str, int]]) -> bytes:
    """As kernel/trace/ftrace.c prints it: the name cut at and padded to 30."""
    heading = "  Function                               Hit\n  --------                               ---\n"
    return (heading + "".join(f"  {name:<30.30}  {hits:10}\n" for name, hits in rows)).encode()


def test_one_processor() -> None:
    data = table([("schedule", 3), ("init_once", 2), (LONG, 1), ("init_once", 1), ("idle", 0)])
    assert read_trace_stat(data, "a") == ForeignTrace(
        "trace_stat",
        ("a",),
        (
            Sighting("a", 3, "schedule"),
            Sighting("a", 2, "init_once"),
            Sighting("a", 1, "init_once"),
            Sighting("a", 1, LONG[:30], cut=True),
        ),
    )


def test_several_processors() -> None:
    data = table([("schedule", 3), ("init_once", 2)]) + TIMED.encode()
    data += table([]) + table([("init_once", 5), ("init_once", 1), (LONG, 1)])
    assert read_trace_stat(data, "a").sightings == (
        Sighting("a", 22946, "schedule"),
        # Two functions; which of them ran on the first processor is not known.
        Sighting("a", None, "init_once"),
        Sighting("a", None, "init_once"),
        Sighting("a", 1, LONG[:30], cut=True),
    )


@pytest.mark.parametrize(
    ("data", "error", "what"),
    [
        (b"", UserError, "cut short"),
        (b"nonsense\n", UserError, "does not begin with a heading"),
        (table([]), UserError, "it has no functions; switch function_profile_enabled on"),
        (table([("schedule", 3)])[:-1], UserError, "cut short"),
        (table([("schedule", 3)]) + b"  schedule\n", LostEvents, "with the line '  schedule'"),
        (table([("schedule", 3)]) + b"  f  " + b"9" * 5000 + b"\n", UserError, "line 4"),
    ],
)
def test_malformed(data: bytes, error: type[UserError], what: str) -> None:
    with pytest.raises(error, match=what):
        read_trace_stat(data, "a")


def test_the_app_must_be_named() -> None:
    with pytest.raises(UserError, match="name the app"):
        read_trace_stat(table([("schedule", 3)]), "")


ROWS = st.dictionaries(st.text("abc_", min_size=1, max_size=4), st.integers(1, 9), max_size=5)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_counts_are_added_up(processors: list[dict[str, int]]) -> None:
    expected: Counter[str] = Counter()
    for rows in processors:
        expected.update(rows)
    data = b"".join(table(list(rows.items())) for rows in processors)
    found = survives(read_trace_stat, data)
    assert (found is None) == (not expected)
    assert {each.name: each.count for each in found.sightings} == expected if found else True


WHOLE = table([("schedule", 3), (LONG, 2)]) + TIMED.encode()


def test_truncated() -> None:
    for length in range(len(WHOLE)):
        survives(read_trace_stat, WHOLE[:length])


@settings(max_examples=200, deadline=None)
@given(damaged(WHOLE))
def test_damaged(data: bytes) -> None:
    survives(read_trace_stat, data)
