"""The boot's function trace: every event is counted or the trace is refused; what to leave out is certain."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.host import KpruneError, UserError
from tracer.outcome import LostEvents
from tracer.profiles.symbols import Identity, make_symbols
from tracer.readers.boot_trace import MAX_LEFT_OUT, command_line, functions_at, leave_out, read_boot_trace
from tracer.readers.ftrace import Frame
from tracer.readers.ring_buffer import MISSED_EVENTS, MISSED_STORED

from .datwriter import Kernel

KERNEL = Kernel(page=512)
BASE = 0xFFFFFFFF81000000


def stats(entries: int, overrun: int = 0) -> bytes:
    text = f"entries: {entries}\noverrun: {overrun}\ncommit overrun: 0\nbytes: 9\ndropped events: 0\n"
    return text.encode()


def frames(raw: bytes, said: bytes, cpu: int = 0, kernel: Kernel = KERNEL) -> list[Frame]:
    page, event = kernel.texts()
    size = 4 * kernel.page
    pieces = [raw[i : i + size] for i in range(0, len(raw), size)]
    return [
        Frame(0, "boot-format", kernel.formats()[0]), Frame(0, "boot-page", page.encode()),
        Frame(0, "boot-event", event.encode()), Frame(0, f"boot-stats.{cpu}", said),
        *(Frame(0, f"boot-raw.{cpu}.{i}", piece) for i, piece in enumerate(pieces)),
        Frame(1, "function0", b"of another window"),
    ]  # fmt: skip


@given(st.lists(st.integers(0, 20), min_size=1, max_size=300), st.integers(0, 2))
@settings(max_examples=30, deadline=None)
def test_every_call_is_counted(calls: list[int], cpu: int) -> None:
    raw = KERNEL.pages([KERNEL.call(1, BASE + 16 * i) for i in calls])
    found = read_boot_trace(frames(raw, stats(len(calls)), cpu))
    assert found.calls == {BASE + 16 * i: calls.count(i) for i in set(calls)}
    assert found.lost == 0


def test_what_the_buffer_had_no_room_for_is_said() -> None:
    raw = KERNEL.pages([KERNEL.call(1, BASE)] * 40, flags=MISSED_EVENTS | MISSED_STORED)
    found = read_boot_trace(frames(raw, stats(40, overrun=7)))
    assert (found.calls, found.lost) == ({BASE: 40}, 7)


# Of a boot of Linux 6.1 for i386: what it says of its pages, and how one begins; its commit is of that alone.
PAGE_32 = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:4;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:12;\tsize:4084;\tsigned:1;
"""
CALLS_32 = """
f6e54c8508000000 3c000000
04000000 0100000001000000 a03412c1 e6920ec1
24b20000 0100000001000000 593e30c1 0a3512c1
a4790000 0100000001000000 622530c1 313512c1
"""


def test_pages_of_a_32_bit_kernel() -> None:
    raw = bytes.fromhex("".join(CALLS_32.split()))
    kernel = Kernel(word=4)
    assert kernel.texts()[0] == PAGE_32
    found = read_boot_trace(frames(raw.ljust(4096, b"\0"), stats(3), kernel=kernel))
    assert found.calls == {0xC11234A0: 1, 0xC1303E59: 1, 0xC1302562: 1}


@pytest.mark.parametrize("said", [stats(41), stats(39), b"", b"entries: many\n"])
def test_events_that_did_not_come_refuse(said: bytes) -> None:
    raw = KERNEL.pages([KERNEL.call(1, BASE)] * 40)
    with pytest.raises(LostEvents, match="processor 0 had"):
        read_boot_trace(frames(raw, said))


@pytest.mark.parametrize("lost", ["boot-format", "boot-page", "boot-event", "boot-raw.0.0"])
def test_a_frame_that_did_not_come_refuses(lost: str) -> None:
    raw = KERNEL.pages([KERNEL.call(1, BASE)])
    with pytest.raises(LostEvents):
        read_boot_trace([frame for frame in frames(raw, stats(1)) if frame.name != lost])


@given(st.binary(max_size=1024), st.sampled_from(["boot-format", "boot-page", "boot-event", "boot-raw.0.0"]))
@settings(max_examples=60, deadline=None)
def test_hostile_frames_are_one_clear_error(data: bytes, where: str) -> None:
    raw = KERNEL.pages([KERNEL.call(1, BASE)] * 3)
    made = [Frame(0, f.name, data) if f.name == where else f for f in frames(raw, stats(3))]
    with pytest.raises(KpruneError) as error:
        read_boot_trace(made)
    assert isinstance(error.value, UserError | LostEvents)


ROWS = [
    ("a.o", "hot", 0), ("a.o", "twin", 16), ("b.o", "twin", 32), ("b.o", "alias", 48), ("b.o", "ailas", 48),
    ("b.o", "warm", 64), ("c.o", "x" * 30, 80),
]  # fmt: skip
SYMBOLS = make_symbols(
    "traced", "id", [[BASE + at, 16, obj, f".text.{name}", name, True] for obj, name, at in ROWS]
)


def test_addresses_are_functions_with_their_aliases() -> None:
    found = functions_at({BASE + 4: 2, BASE + 52: 3, BASE + 4096: 9, 12: 1}, SYMBOLS)
    assert found == {
        Identity("a.o", ".text.hot", "hot"): 2,
        Identity("b.o", ".text.alias", "alias"): 3,
        Identity("b.o", ".text.ailas", "ailas"): 3,
    }


def test_only_names_of_one_function_are_left_out() -> None:
    calls = {"twin": 100, "warm": 5, "hot": 50, "x" * 30: 40, "elsewhere": 30}
    assert leave_out(calls, SYMBOLS) == ("hot", "warm")
    assert leave_out(calls, SYMBOLS, room=4) == ("hot",)
    assert leave_out(calls, SYMBOLS, before=("warm",)) == ("warm", "hot")
    assert command_line(("hot", "warm"))[-1] == "ftrace_notrace=hot,warm"
    assert not any("notrace" in word for word in command_line(()))


def test_the_command_line_has_room_for_what_is_left_out() -> None:
    names = [f"function_{i:03}" for i in range(400)]
    many = make_symbols("traced", "id", [[BASE + i, 1, "a.o", ".text", n, True] for i, n in enumerate(names)])
    chosen = leave_out(dict.fromkeys(names, 1), many, room=10**6)
    assert MAX_LEFT_OUT - 20 < len(",".join(chosen)) <= MAX_LEFT_OUT
