"""Frames that prove they are whole, the profiler's rows, and the names that they stand for."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.outcome import LostEvents
from tracer.profiles.symbols import Identity, Symbols, make_symbols
from tracer.readers.ftrace import NAME_WIDTH, Row, parse_rows, read_frames, resolve, rows_by_app

HEADING = "  Function                               Hit\n  --------                               ---\n"


def table(rows: list[tuple[str, int]]) -> bytes:
    """As kernel/trace/ftrace.c prints it: the name cut at and padded to 30."""
    return (HEADING + "".join(f"  {name:<30.30}  {hits:10}\n" for name, hits in rows)).encode()


def frame(app: int, name: str, data: bytes) -> bytes:
    return f"frame {app} {name} {len(data)} {hashlib.md5(data).hexdigest()}\n".encode() + data + b"\n"


def symbols(names: list[str], traceable: bool = True) -> Symbols:
    rows = [[0x1000 * (i + 1), 16, f"o{i}.o", f".text.{n}", n, traceable] for i, n in enumerate(names)]
    return make_symbols("traced", "id", rows)


STREAM = (
    b"kprune 1\n"
    + frame(0, "function0", table([("schedule", 3)]))
    + frame(0, "capacity", b"100 pages:1 groups: 1\n")
    + b"end\n"
)


def test_whole_stream() -> None:
    assert rows_by_app(read_frames(STREAM), 1) == [[Row("schedule", 3)]]


@given(st.integers(0, len(STREAM) - 1))
def test_any_truncation_is_noticed(length: int) -> None:
    with pytest.raises(LostEvents) as caught:
        rows_by_app(read_frames(STREAM[:length]), 1)
    assert caught.value.exit_code == 1


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    damaged = STREAM[:at] + bytes([STREAM[at] ^ change]) + STREAM[at + 1 :]
    try:
        rows = rows_by_app(read_frames(damaged), 1)
    except LostEvents:
        return
    # A frame's own name is outside its checksum; what it holds is not.
    assert rows == [[Row("schedule", 3)]]


def test_missing_app_and_full_profiler() -> None:
    with pytest.raises(LostEvents, match="app 1 are missing"):
        rows_by_app(read_frames(STREAM), 2)
    room = frame(0, "capacity", b"100 pages:1 groups: 1\n")
    full = STREAM.replace(room, frame(0, "capacity", b"1 pages:1 groups: 1\n"))
    with pytest.raises(LostEvents, match="1 rows of at most 1"):
        rows_by_app(read_frames(full), 1)


def test_rows_with_and_without_times() -> None:
    timed = (
        "  Function                               Hit    Time            Avg             s^2\n"
        "  --------                               ---    ----            ---             ---\n"
        "  schedule                             22943    1994458706 us     86931.03 us     1.0 us\n"
    )
    assert parse_rows(timed.encode()) == [Row("schedule", 22943)]
    assert parse_rows(table([("do_exit", 1)])) == [Row("do_exit", 1)]


def test_a_function_of_a_module_that_was_unloaded_has_no_name_and_is_no_row() -> None:
    assert parse_rows(table([("do_exit", 1), ("", 100)])) == [Row("do_exit", 1)]


@pytest.mark.parametrize("damage", [b"", b"nonsense\n", HEADING.encode() + b"  schedule\n"])
def test_malformed_rows(damage: bytes) -> None:
    with pytest.raises(LostEvents):
        parse_rows(damage)


NAMES = st.text("abcdefgh_", min_size=1, max_size=40)


@given(st.lists(NAMES, min_size=1, max_size=20, unique=True), st.data())
def test_whoever_ran_is_found(names: list[str], data: st.DataObject) -> None:
    known = symbols(names)
    ran = data.draw(st.lists(st.sampled_from(names), unique=True))
    rows = parse_rows(table([(name, 7) for name in ran]))
    resolved = resolve(rows, known)
    found = {function.symbol for function in resolved.hits}
    assert set(ran) <= found
    assert not resolved.unknown
    # Nothing but the bearers of one cut name is added.
    assert all(name[:NAME_WIDTH] in {each[:NAME_WIDTH] for each in ran} for name in found)
    if not resolved.ambiguous:
        assert found == set(ran)


def test_ambiguity_is_counted_and_has_no_hits() -> None:
    known = symbols(["init_once", "init_once", "schedule"])
    one = resolve([Row("init_once", 5)], known)
    assert one.ambiguous == ("init_once",)
    assert list(one.hits.values()) == [None, None]
    both = resolve([Row("init_once", 5), Row("init_once", 1)], known)
    assert both.ambiguous == ()
    assert len(both.hits) == 2


def test_aliases_are_no_ambiguity() -> None:
    rows = [[4096, 8, "a.o", ".text.f", "f", True], [4096, 8, "a.o", ".text.f", "f", True]]
    assert resolve([Row("f", 2)], make_symbols("traced", "id", rows)).ambiguous == ()


def test_unknown_names_are_named() -> None:
    assert resolve([Row("nobody", 1)], symbols(["f"])).unknown == ("nobody",)
    assert resolve([Row("f", 1)], symbols(["f"], traceable=False)).unknown == ("f",)


def test_exact_hits() -> None:
    resolved = resolve([Row("f", 2), Row("g", 3)], symbols(["f", "g"]))
    assert resolved.hits == {Identity("o0.o", ".text.f", "f"): 2, Identity("o1.o", ".text.g", "g"): 3}
