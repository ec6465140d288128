"""drcov's module tables of every version, and its blocks."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged, survives
from tracer.host import UserError
from tracer.readers.drcov import read_drcov
from tracer.readers.sightings import ForeignTrace, Sighting

COLUMNS = {
    2: "id, base, end, entry, path",
    3: "id, containing_id, start, end, entry, path",
    4: "id, containing_id, start, end, entry, offset, path",
}
WINDOWS = {
    2: "id, base, end, entry, checksum, timestamp, path",
    3: "id, containing_id, start, end, entry, checksum, timestamp, path",
    4: "id, containing_id, start, end, entry, offset, checksum, timestamp, path",
}
BASE = 0xFFFFFFFF81000000


def drcov(
    modules: list[tuple[int, str]], blocks: list[tuple[int, int]], version: int = 4, columns: str = ""
) -> bytes:
    """``modules``: (start, path); ``blocks``: (offset, module)."""
    columns = columns or COLUMNS[version]
    text = (
        f"DRCOV VERSION: 2\nDRCOV FLAVOR: drcov-64\nModule Table: version {version}, count {len(modules)}\n"
    )
    text += f"Columns: {columns}\n"
    for number, (start, path) in enumerate(modules):
        row = {"id": str(number), "containing_id": str(number), "path": path}
        row |= dict.fromkeys(("base", "start"), f"0x{start:016x}")
        text += ", ".join(row.get(name, "0x0") for name in columns.split(", ")) + "\n"
    text += f"BB Table: {len(blocks)} bbs\n"
    return text.encode() + b"".join(struct.pack("<IHH", offset, 5, module) for offset, module in blocks)


def at(*addresses: int) -> ForeignTrace:
    return ForeignTrace("drcov", ("a",), tuple(Sighting("a", None, address=each) for each in addresses))


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("all_columns", [COLUMNS, WINDOWS])
def test_blocks_of_the_kernel(version: int, all_columns: dict[int, str]) -> None:
    modules = [(0x400000, "/bin/ls"), (BASE, "/boot/a, b/vmlinux"), (0x500000, "/lib/libc.so")]
    blocks = [(0x300, 1), (0x10, 0), (0x100, 1), (0x300, 1), (0x10, 0xFFFF), (0x20, 2)]
    data = drcov(modules, blocks, version, all_columns[version])
    assert read_drcov(data, "a") == at(BASE + 0x100, BASE + 0x300)


def test_the_only_module_is_the_kernel() -> None:
    # As QEMU writes it: no name, no base, the low half of every address.
    data = drcov([(0, "(null)")], [(0x81000100, 0), (0x81000000, 0)], 2)
    assert read_drcov(data, "a") == at(0x81000000, 0x81000100)
    assert read_drcov(drcov([(BASE, "[kernel]"), (0, "x")], [(4, 0), (4, 1)]), "a") == at(BASE + 4)


GOOD = drcov([(BASE, "vmlinux"), (0, "x")], [(4, 0), (8, 0), (4, 1)])


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no version"),
        (GOOD.replace(b"VERSION: 2", b"VERSION: 3"), "version 3; only version 2"),
        (GOOD.replace(b"version 4", b"version 5"), "table of version 5"),
        (GOOD.replace(b"start", b"begin"), "the columns"),
        (GOOD.replace(b"count 2", b"count 1"), "no table of blocks"),
        (GOOD.replace(b"count 2", b"count 99999"), "99999 modules"),
        (GOOD.replace(b"0xffffffff81000000", b"hello"), "module 0 of the table is malformed"),
        (GOOD.replace(b": 3 bbs", b": 4 bbs"), "24 bytes are not its 4 blocks"),
        (GOOD.replace(b": 3 bbs", b": 99999999999 bbs"), "24 bytes are not"),
        (GOOD + b"\n", "25 bytes are not"),
        (drcov([(BASE, "vmlinux")], [(4, 1)]), "a block is in a module"),
        (drcov([(BASE, "vmlinux"), (0, "x")], [(4, 1)]), "no block of a module whose name ends in vmlinux"),
        (GOOD.partition(b"bbs\n")[0] + b"bbs\nmodule id, start, size:\nmodule[0]: 0x1, 8\n", "-dump_text"),
    ],
)
def test_malformed(data: bytes, what: str) -> None:
    with pytest.raises(UserError, match=what):
        read_drcov(data, "a")


def test_the_app_must_be_named() -> None:
    with pytest.raises(UserError, match="name the app"):
        read_drcov(GOOD, "")


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**63), st.sampled_from(["/x/vmlinux", "libc.so", "[kernel]"])),
        min_size=2,
        max_size=5,
    ),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 4)), max_size=20),
    st.sampled_from([2, 3, 4]),
)
def test_every_block_is_seen(
    modules: list[tuple[int, str]], blocks: list[tuple[int, int]], version: int
) -> None:
    blocks = [(offset, module % len(modules)) for offset, module in blocks]
    expected = {modules[i][0] + offset for offset, i in blocks if modules[i][1] != "libc.so"}
    found = survives(read_drcov, drcov(modules, blocks, version))
    assert found == (at(*sorted(expected)) if expected else None)


def test_truncated() -> None:
    for length in range(len(GOOD)):
        assert survives(read_drcov, GOOD[:length]) is None


@settings(max_examples=200, deadline=None)
@given(damaged(GOOD))
def test_damaged(data: bytes) -> None:
    survives(read_drcov, data)
