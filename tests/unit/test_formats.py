"""Formats are recognised by content, and everything else is refused with a way out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracer.readers.formats
from tests.unit.datwriter import Dat, Kernel
from tests.unit.test_read_drcov import GOOD
from tests.unit.test_read_lcov import NEW, OLD
from tests.unit.test_read_perf import CHAINS, LINES
from tests.unit.test_read_trace_stat import TIMED, table
from tracer.host import UserError
from tracer.outcome import LostEvents
from tracer.readers.formats import FORMATS, detect_format, read_foreign

KERNEL = Kernel()
DAT = Dat(KERNEL, (KERNEL.pages([KERNEL.call(7, 0x1000)]),), (), b"1000 T f\n")
EXAMPLES = [
    ("trace-cmd", DAT.v6()),
    ("trace-cmd", DAT.v7("zlib")),
    ("perf", CHAINS.encode()),
    ("perf", LINES.encode()),
    ("perf", b"sh \n\tffffffff821f236b halt ([kernel.kallsyms])\n"),
    ("perf", b"\tffffffff821f236b halt ([kernel.kallsyms])\n"),
    ("trace_stat", table([("f", 1)])),
    ("trace_stat", TIMED.encode()),
    ("drcov", GOOD),
    ("lcov", OLD.encode()),
    ("lcov", NEW.encode()),
]


@pytest.mark.parametrize(("name", "data"), EXAMPLES)
def test_recognised_and_read(tmp_path: Path, name: str, data: bytes) -> None:
    assert detect_format(data) == name
    path = tmp_path / "trace"
    path.write_bytes(data)
    found = read_foreign(path, "a")
    assert found == read_foreign(path, "a", name) == FORMATS[name].read(data, "a")
    assert (found.source, found.apps) == (name, ("a",))
    assert found.sightings


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "none of trace-cmd"),
        (
            b"\x7fELF",
            r"none of trace-cmd \(.*\), drcov \(.*\), trace_stat \(.*\), lcov \(.*\), perf \(perf script\)$",
        ),
        (b"PERFILE2", "it is perf.data; turn it into text with perf script"),
        (b"\x1f\x8b\x08", "gzip; uncompress it"),
    ],
)
def test_unknown(data: bytes, what: str) -> None:
    with pytest.raises(UserError, match=what):
        detect_format(data)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(str.encode)))
def test_anything(data: bytes) -> None:
    with contextlib.suppress(UserError):
        assert detect_format(data) in FORMATS


def test_errors_name_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace"
    with pytest.raises(UserError, match=f"reading {path}: No such file"):
        read_foreign(path, "a")
    with pytest.raises(UserError, match=f"reading {tmp_path}: Is a directory"):
        read_foreign(tmp_path, "a")
    path.write_bytes(b"?")
    with pytest.raises(UserError, match=f"{path}: recognising the trace"):
        read_foreign(path, "a")
    with pytest.raises(UserError, match="there is no format 'gcov'; known are trace-cmd"):
        read_foreign(path, "a", "gcov")
    path.write_bytes(DAT._replace(stats=("CPU: 0\noverrun: 5\n",)).v6())
    with pytest.raises(LostEvents, match=f"{path}: reading the trace-cmd file: processor 0 lost") as caught:
        read_foreign(path, "a")
    assert caught.value.exit_code == 1
    monkeypatch.setattr(tracer.readers.formats, "MAX_SIZE", 100)
    with pytest.raises(UserError, match="larger than"):
        read_foreign(path, "a")
