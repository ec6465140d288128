"""trace-cmd's files: every encoding of a call, both versions, and trace-cmd itself as the oracle."""

from __future__ import annotations

import re
import shutil
import subprocess
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged, survives
from tests.unit.datwriter import GRAPH_ENTRY, MAGIC, OTHER, Dat, Kernel
from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.sightings import ForeignTrace, Sighting
from tracer.readers.trace_cmd import IDLE, UNSAVED, parse_kallsyms, read_trace_cmd

SCHEDULE, DO_EXIT, MODULE, DATA = 0x81000100, 0x81000200, 0xA0000010, 0x82000000
KALLSYMS = b"""\
0000000000000000 A fixed_percpu_data
0000000081000100 t schedule
0000000081000100 T __sched_text_start
0000000081000200 T do_exit
0000000082000000 D _sdata
0000000082000100 B _end
00000000a0000000 t init\t[nf_tables]
00000000a0001000 t beyond\t[nf_tables]
"""
CMDLINES = b"7 sh\n8 Web Content\n"
CLEAN = "CPU: 0\nentries: 9\noverrun: 0\ncommit overrun: 0\ndropped events: 0\nread events: 3\n"
X86_64, SMALL = Kernel(), Kernel(page=256)
KERNELS = [X86_64, Kernel(word=4), Kernel("big", 8), Kernel("big", 4), SMALL]


def written(dat: Dat, how: str) -> bytes:
    return dat.v6() if how == "6" else dat.v7(how.partition(" ")[2] or "none")


def small_dat(kernel: Kernel, **changes: object) -> Dat:
    """Two processors, three tasks, one call of each kind of place."""
    one = [kernel.call(7, SCHEDULE), kernel.call(7, SCHEDULE + 8, how="long"), kernel.call(8, MODULE)]
    two = [kernel.call(8, DO_EXIT, GRAPH_ENTRY), kernel.call(0, SCHEDULE), kernel.call(9, DATA)]
    noise = kernel.call(7, SCHEDULE, OTHER)
    dat = Dat(
        kernel, (kernel.pages([*one, noise]), kernel.pages(two), b""), (), KALLSYMS, CMDLINES, (CLEAN, CLEAN)
    )
    return dat._replace(**changes)  # type: ignore[arg-type]


HOWS = pytest.mark.parametrize("how", ["6", "7", "7 zlib", "7 zstd"])


@HOWS
@pytest.mark.parametrize("kernel", KERNELS)
def test_exact(kernel: Kernel, how: str) -> None:
    data = written(small_dat(kernel), how)
    assert read_trace_cmd(data, "") == ForeignTrace(
        "trace-cmd",
        ("sh", "Web Content", IDLE, UNSAVED),
        (
            Sighting("sh", 2, "schedule"),
            Sighting(IDLE, 1, "schedule"),
            # Not code, so that its name is no function's.
            Sighting(UNSAVED, 1, address=DATA),
            Sighting("Web Content", 1, "do_exit"),
        ),
    )
    assert read_trace_cmd(data, "web") == ForeignTrace(
        "trace-cmd",
        ("web",),
        (Sighting("web", 3, "schedule"), Sighting("web", 1, address=DATA), Sighting("web", 1, "do_exit")),
    )


@HOWS
def test_instances_count_as_well(how: str) -> None:
    pages = X86_64.pages([X86_64.call(7, DO_EXIT)] * 200)
    dat = Dat(
        X86_64, (X86_64.pages([X86_64.call(7, SCHEDULE)]),), (("a", (pages,)), ("b", (b"", pages))), KALLSYMS
    )
    if how == "6":
        # Version 6 has as many processors in every instance.
        dat = dat._replace(instances=(("a", (pages,)), ("b", (pages,))))
    found = read_trace_cmd(written(dat, how), "a")
    assert found.sightings == (Sighting("a", 1, "schedule"), Sighting("a", 400, "do_exit"))


ENDS = [b"", X86_64.head(29, 0) + bytes(12), X86_64.head(29) + X86_64.pack("I", 400) + bytes(8)]


@HOWS
@pytest.mark.parametrize("end", ENDS, ids=["none", "unsized", "sized"])
def test_padding_at_the_end_of_a_page(how: str, end: bytes) -> None:
    dat = small_dat(X86_64, cpus=(X86_64.pages([X86_64.call(7, DO_EXIT)], end=end),))
    assert read_trace_cmd(written(dat, how), "a").sightings == (Sighting("a", 1, "do_exit"),)


@HOWS
@pytest.mark.parametrize("how_much", [4, 8, 16])
def test_an_event_past_the_end_of_its_page(how: str, how_much: int) -> None:
    call = X86_64.call(7, DO_EXIT)
    dat = small_dat(X86_64, cpus=(X86_64.pages([call, call[:-how_much]]),))
    with pytest.raises(UserError, match="an event in the ring buffer is malformed"):
        read_trace_cmd(written(dat, how), "a")


@pytest.mark.parametrize("said", [0, 1, 5])
def test_an_option_corrects_the_number_of_processors(said: int) -> None:
    data = small_dat(X86_64, said_cpus=said).v6()
    assert read_trace_cmd(data, "a") == read_trace_cmd(small_dat(X86_64).v6(), "a")


@HOWS
@pytest.mark.parametrize("number", [1, 77, 65535])
def test_the_kernel_says_which_event_is_a_call(how: str, number: int) -> None:
    dat = small_dat(X86_64, formats=tuple(X86_64.formats(number)))
    dat = dat._replace(cpus=(X86_64.pages([X86_64.call(7, DO_EXIT, number), X86_64.call(7, SCHEDULE, 2)]),))
    assert read_trace_cmd(written(dat, how), "a").sightings == (Sighting("a", 1, "do_exit"),)


@HOWS
@pytest.mark.parametrize("line", ["overrun: 5", "commit overrun: 5", "dropped events: 5"])
def test_the_kernels_counters_tell_of_losses(how: str, line: str) -> None:
    name = line.partition(":")[0]
    stats = re.sub(f"^{name}: 0", line, CLEAN.replace("CPU: 0", "CPU: 3"), flags=re.MULTILINE)
    with pytest.raises(LostEvents, match=f"processor 3 lost events: {line.replace(':', '')}") as caught:
        read_trace_cmd(written(small_dat(X86_64, stats=(CLEAN, stats)), how), "a")
    assert "\n" not in str(caught.value)


@HOWS
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("flags", [1 << 31, 1 << 30, 3 << 30, (1 << 64) - (1 << 31)])
def test_a_page_tells_of_losses(kernel: Kernel, how: str, flags: int) -> None:
    flags %= 1 << 8 * kernel.word
    dat = small_dat(kernel, cpus=(b"", kernel.pages([kernel.call(7, DO_EXIT)], flags)))
    with pytest.raises(LostEvents, match="processor 1: events are lost before 1 of 1 pages"):
        read_trace_cmd(written(dat, how), "a")


@HOWS
def test_no_calls(how: str) -> None:
    noise = X86_64.pages([X86_64.call(7, SCHEDULE, OTHER)])
    for cpus in ((), (b"",), (noise,)):
        with pytest.raises(UserError, match="no function events"):
            read_trace_cmd(written(small_dat(X86_64, cpus=cpus), how), "a")
    with pytest.raises(UserError, match="no function events"):
        read_trace_cmd(written(small_dat(X86_64, formats=(X86_64.formats()[2],)), how), "a")


@HOWS
def test_only_modules_ran(how: str) -> None:
    dat = small_dat(X86_64, cpus=(X86_64.pages([X86_64.call(7, MODULE)]),))
    assert read_trace_cmd(written(dat, how), "") == ForeignTrace("trace-cmd", ("sh",), ())


@pytest.mark.parametrize("kallsyms", [b"", b"0000000000000000 T schedule\n0000000000000000 t x\t[m]\n"])
def test_hidden_names_leave_addresses(kallsyms: bytes) -> None:
    dat = small_dat(X86_64, kallsyms=kallsyms, cpus=(X86_64.pages([X86_64.call(7, DO_EXIT)]),))
    assert read_trace_cmd(dat.v6(), "a").sightings == (Sighting("a", 1, address=DO_EXIT),)


def test_kallsyms_prefers_code_and_the_kernels_order() -> None:
    symbols = parse_kallsyms(b"10 D data\n10 t first\n10 T second\n20 W weak\n30 V object\n")
    assert [symbols.find(at) for at in (0xF, 0x10, 0x1F, 0x20, 0x30)] == [
        ("", False), ("first", False), ("first", False), ("weak", False), ("", False),
    ]  # fmt: skip
    with pytest.raises(UserError, match="line 1 is 'nonsense'"):
        parse_kallsyms(b"nonsense\n")


def test_what_cannot_be_read_says_the_way_out() -> None:
    dat = small_dat(X86_64)
    with pytest.raises(UserError, match="compressed with 'lzma'; trace-cmd convert --file-version 6"):
        read_trace_cmd(dat.v7("lzma"), "a")
    with pytest.raises(UserError, match="file version '8'"):
        read_trace_cmd(dat.v6().replace(b"tracing6", b"tracing8"), "a")
    with pytest.raises(UserError, match="latency"):
        read_trace_cmd(dat.v6().replace(b"flyrecord\0", b"latency  \0"), "a")
    with pytest.raises(UserError, match="does not begin"):
        read_trace_cmd(b"ELF", "a")
    with pytest.raises(UserError, match="encodes events in an unknown way"):
        read_trace_cmd(dat.v6().replace(b"padding     : type == 29", b"padding     : type == 28"), "a")


CALLS = st.tuples(
    st.integers(0, 3), st.sampled_from([7, 8, 0, 2**22]), st.integers(0, 30),
    st.sampled_from(["short", "long", "extend", "stamp", "discarded"]), st.booleans(),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KERNELS),
    st.sampled_from(["6", "7", "7 zlib", "7 zstd"]),
    st.lists(CALLS, min_size=1, max_size=60),
)
def test_whatever_was_called_is_counted(
    kernel: Kernel, how: str, calls: list[tuple[int, int, int, str, bool]]
) -> None:
    names = {0x81000000 + 0x40 * i: f"function_{i}" for i in range(31)}
    kallsyms = "".join(f"{at:016x} T {name}\n" for at, name in names.items()).encode()
    cpus: list[list[bytes]] = [[], [], [], []]
    expected: Counter[tuple[str, str]] = Counter()
    for cpu, pid, function, encoding, graph in calls:
        ip = 0x81000000 + 0x40 * function
        cpus[cpu].append(kernel.call(pid, ip + 4, GRAPH_ENTRY if graph else 1, encoding))
        expected[{7: "sh", 8: "Web Content", 0: IDLE}.get(pid, UNSAVED), names[ip]] += 1
    dat = Dat(kernel, tuple(map(kernel.pages, cpus)), (), kallsyms, CMDLINES, (CLEAN,))
    found = read_trace_cmd(written(dat, how), "")
    assert {(each.app, each.name): each.count for each in found.sightings} == expected
    assert set(found.apps) == {app for app, _ in expected}


WHOLE = [written(small_dat(SMALL), how) for how in ("6", "7", "7 zlib", "7 zstd")]


@pytest.mark.parametrize("whole", WHOLE, ids=["6", "7", "7 zlib", "7 zstd"])
def test_truncated(whole: bytes) -> None:
    full = read_trace_cmd(whole, "a")
    for length in [*range(0, 200), *range(200, len(whole), 37)]:
        # Only padding can be missing from what is still whole.
        assert survives(read_trace_cmd, whole[:length]) in (None, full)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(WHOLE).flatmap(damaged))
def test_damaged(data: bytes) -> None:
    survives(read_trace_cmd, data)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KERNELS), st.binary(max_size=300))
def test_damaged_pages(kernel: Kernel, content: bytes) -> None:
    survives(read_trace_cmd, small_dat(kernel, cpus=(kernel.pages([content[:200], content[200:]]),)).v6())


#: A frame that does not say how long it is.
FRAME = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100))
BOMB = zlib.compress(bytes(100 << 20))
START = MAGIC + b"%d\0\0\x08" + bytes(4)
CLAIMS = {
    "bytes are missing": START % 6 + b"header_page\0" + (1 << 40).to_bytes(8, "little") + b"x" * 50,
    "parts; it is damaged": WHOLE[1].replace(SMALL.pack("II", 256, 3), SMALL.pack("II", 256, 1 << 31)),
    "pages of 2147483648 bytes": WHOLE[1].replace(SMALL.pack("II", 256, 3), SMALL.pack("II", 1 << 31, 3)),
    # Says that it is 100 KiB, and is 100 MiB.
    "does not have the 100000 bytes": START % 7 + b"zlib\x001\0" + SMALL.pack("Q", 33)
    + SMALL.pack("HHIQ", 0, 1, 0, len(BOMB) + 8) + SMALL.pack("II", len(BOMB), 100_000) + BOMB,
    "does not have the 100 bytes": START % 7 + b"zlib\x001\0" + SMALL.pack("Q", 33)
    + SMALL.pack("HHIQ", 0, 1, 0, 16) + SMALL.pack("II", 8, 100) + zlib.compress(bytes(100))[:8],
    # Says that it is 1 GiB, and is 100 bytes.
    "does not have the 1073741824 bytes": START % 7 + b"zstd\x001\0" + SMALL.pack("Q", 33)
    + SMALL.pack("HHIQ", 0, 1, 0, len(FRAME) + 8) + SMALL.pack("II", len(FRAME), 1 << 30) + FRAME,
    "more than 2 GiB": START % 7 + b"zlib\x001\0" + SMALL.pack("Q", 33)
    + SMALL.pack("HHIQ", 0, 1, 0, 12) + SMALL.pack("II", 4, (1 << 32) - 1) + bytes(4),
    "are a circle": START % 7 + b"none\0\0" + SMALL.pack("Q", 32)
    + SMALL.pack("HHIQ", 0, 0, 0, 14) + SMALL.pack("HIQ", 0, 8, 32),
    "overlap": WHOLE[0].replace(SMALL.pack("QQ", 8192, 256), SMALL.pack("QQ", 0, len(WHOLE[0]))),
}  # fmt: skip


@pytest.mark.parametrize("what", CLAIMS)
def test_claims_are_not_believed(what: str) -> None:
    tracemalloc.start()
    with pytest.raises(UserError, match=what):
        read_trace_cmd(CLAIMS[what], "a")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.skipif(shutil.which("trace-cmd") is None, reason="trace-cmd is not installed")
@pytest.mark.parametrize("kernel", [X86_64, Kernel("big", 4)])
@pytest.mark.parametrize("how", ["6", "7"])
def test_trace_cmd_sees_the_same(tmp_path: Path, kernel: Kernel, how: str) -> None:
    names = {0x81000000 + 0x40 * i: f"function_{i}" for i in range(31)}
    kallsyms = "".join(f"{at:016x} T {name}\n" for at, name in names.items()).encode()
    cpus = []
    for cpu in range(2):
        hows = ["short", "long", "extend", "discarded"]
        cpus.append(kernel.pages([
            kernel.call((7, 8)[i % 2], 0x81000000 + 0x40 * (i * (cpu + 3) % 31), how=hows[i % 4])
            for i in range(500)
        ]))  # fmt: skip
    dat = Dat(kernel, tuple(cpus), (), kallsyms, CMDLINES, (CLEAN, CLEAN))
    path = tmp_path / "trace.dat"
    path.write_bytes(written(dat, how))
    said = subprocess.run(
        ["trace-cmd", "report", "-i", path], capture_output=True, text=True, check=True
    ).stdout
    rows = re.findall(r"^ *(\S.*)-\d+ +\[\d+\] .*: function: +(\S+)", said, re.MULTILINE)
    found = read_trace_cmd(path.read_bytes(), "")
    assert len(rows) == 1000
    assert {(each.app, each.name): each.count for each in found.sightings} == Counter(rows)
