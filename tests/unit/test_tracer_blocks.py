"""Block logs in QEMU's own words, and the functions that their blocks lie in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tracer.collecting.blocks import Blocks, read_blocks
from tracer.host import HostError, UserError, ValidationFailed
from tracer.profiles.symbols import SCHEMA_VERSION, Symbols, load_symbols, make_symbols, union
from tracer.sessions.options import Mark

START = 0xFFFFFFFF80000000
ENTRY = 0xFFFFFFFF81000000

# QEMU 7.2: firmware, the decompressor, the kernel before paging, the kernel, user space.
LOG = b"""----------------
IN:
0xfffffff0:  ea 5b e0 00 f0           ljmpw    $0xf000:$0xe05b

----------------
IN:
0x01800000:  fc                       cld

----------------
IN:
0x01000000:  48 8d 25 51 3f a0 00     leaq     0xa03f51(%rip), %rsp
0x01000007:  48 8d 3d f2 ff ff ff     leaq     -0xe(%rip), %rdi

----------------
IN:
0xffffffff810000ac:  0f 01 15 4d 2f a2 00     lgdtq    0xa22f4d(%rip)
0xffffffff810000b3:  31 c0                    xorl     %eax, %eax
0xffffffff810000b5:  8e d8                    movl     %eax, %ds

----------------
IN:
0xffffffff81000100:  48 c7 84 24 80 00 00 00  movq     $0, 0x80(%rsp)
0xffffffff81000108:  00 00 00 00

""".replace(b"IN:", b"IN: ")  # as QEMU has it when it knows no symbol
LATER = b"""----------------
IN:
0x0040a000:  90                       nop

----------------
IN:
0xffffffff81000200:  c3                       retq

"""

# QEMU 7.2 for i386: the firmware begins above the kernel; the kernel before paging, the kernel, user space.
LOG_32 = b"""----------------
IN:
0xfffffff0:  ea 5b e0 00 f0           ljmpw    $0xf000:$0xe05b

----------------
IN:
0x000fe05b:  2e 66 83 3e c8 61 00     cmpl     $0, %cs:0x61c8
0x000fe062:  0f 85 36 f0              jne      0xd09c

----------------
IN:
0x01000000:  8b 0d 00 c0 38 01        movl     0x138c000, %ecx
0x01000006:  0f 01 15 06 c0 38 01     lgdtl    0x138c006

----------------
IN:
0xc10000b3:  31 c0                    xorl     %eax, %eax

----------------
IN:
0x08049000:  90                       nop

""".replace(b"IN:", b"IN: ")


def read(path: Path, data: bytes, marks: list[Mark]) -> Blocks:
    log = path / "blocks.log"
    log.write_bytes(data)
    return read_blocks(log, marks, START, START, ENTRY)


def test_of_blocks_behind_the_image_the_bytes_are_read(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(LOG)
    found = read_blocks(tmp_path / "log", [Mark("boot", 0)], START, START, ENTRY, ENTRY + 0x100)
    (row,) = found.codes
    assert found.starts[row] == ENTRY + 0x100
    assert found.codes[row] == bytes.fromhex("48c784248000000000000000")
    assert not read_blocks(tmp_path / "log", [Mark("boot", 0)], START, START, ENTRY).codes


def test_ranges_and_phases(tmp_path: Path) -> None:
    blocks = read(tmp_path, LOG + LATER, [Mark("boot", 0), Mark("web", len(LOG))])
    found = [(int(s) - ENTRY, int(e) - ENTRY) for s, e in zip(blocks.starts, blocks.ends, strict=True)]
    assert found == [(0, 14), (0xAC, 0xB7), (0x100, 0x10C), (0x200, 0x201)]
    assert blocks.phases.tolist() == [0, 0, 0, 1]
    assert len(blocks.executed_by(0).starts) == 3
    assert len(blocks.executed_by(1).starts) == 4


def test_a_kernel_that_begins_in_its_init_code(tmp_path: Path) -> None:
    """In 7.3 startup_64 is not the first function of the image; ELF headers have its physical address."""
    log = tmp_path / "blocks.log"
    log.write_bytes(LOG.replace(b"0x0100000", b"0x0170000"))
    blocks = read_blocks(log, [Mark("boot", 0)], START, START, 0x01700000)
    assert int(blocks.starts[0]) == ENTRY + 0x700000


def test_a_kernel_below_the_firmware(tmp_path: Path) -> None:
    log = tmp_path / "blocks.log"
    log.write_bytes(LOG_32)
    blocks = read_blocks(log, [Mark("boot", 0)], 0xC0000000, 0xC0000000, 0xC1000000)
    assert blocks.starts.tolist() == [0xC1000000, 0xC10000B3]
    assert blocks.ends.tolist() == [0xC100000D, 0xC10000B5]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"0xffffffff81000000:  d503201f  nop\n0xffffffff81000004:  d65f03c0  ret\n", 8),  # words
        (b"0xffffffff81000000:\nOBJD-T: 48c7c0\n", 3),  # no disassembler
        (b"0xffffffff81000000:  retq\n", 1),  # no bytes at all
        (b"0xffffffff81000000:  f4                       hlt\n", 1),
    ],
)
def test_other_formats(tmp_path: Path, text: bytes, end: int) -> None:
    blocks = read(tmp_path, b"----------------\nIN: some_symbol\n" + text + b"\n", [Mark("boot", 0)])
    assert int(blocks.starts[0]) == ENTRY
    assert int(blocks.ends[0]) == ENTRY + end


def test_no_kernel_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValidationFailed, match="no kernel code"):
        read(tmp_path, b"", [Mark("boot", 0)])
    with pytest.raises(HostError):
        read_blocks(tmp_path / "gone", [], START, START, ENTRY)


def some_symbols() -> Symbols:
    rows = [
        [100, 0, "a.o", ".entry.text", "assembly", False],
        [110, 10, "a.o", ".text.f", "f", True],
        [110, 10, "a.o", ".text.f", "alias", True],
        [130, 100, "a.o", ".text.g", "g", True],
        [150, 10, "a.o", ".text.g", "inside_g", True],
    ]
    return make_symbols("production", "id", rows)


@pytest.mark.parametrize(
    ("start", "end", "names"),
    [
        (100, 101, {"assembly"}),
        (109, 111, {"assembly", "f", "alias"}),
        (119, 120, {"f", "alias"}),
        (120, 130, set()),
        (200, 201, {"g"}),
        (155, 156, {"g", "inside_g"}),
        (0, 1000, {"assembly", "f", "alias", "g", "inside_g"}),
    ],
)
def test_functions_of_a_range(start: int, end: int, names: set[str]) -> None:
    symbols = some_symbols()
    executed = union(np.array([start], dtype=np.uint64), np.array([end], dtype=np.uint64))
    touched = symbols.touched(executed)
    assert {symbols.functions[i].symbol for i in np.flatnonzero(touched)} == names
    assert symbols.outside(executed) == (not names)


def test_union_joins_what_meets() -> None:
    starts = np.array([30, 10, 15, 20], dtype=np.uint64)
    ends = np.array([40, 18, 16, 30], dtype=np.uint64)
    ranges = union(starts, ends)
    assert ranges.starts.tolist() == [10, 20]
    assert ranges.ends.tolist() == [18, 40]


ONE = [[1, 1, "o", "s", "f", True]]
WHOLE = {
    "schema_version": SCHEMA_VERSION, "kernel": "traced", "build_id": "x", "config": "c", "source": "s",
    "version": "6.1", "options": "", "entry": 1, "files": {}, "functions": ONE,
}  # fmt: skip
HEAD = json.dumps({**WHOLE, "functions": None})[: -len("null}")]


def test_symbols_are_read(tmp_path: Path) -> None:
    path = tmp_path / "symbols.json"
    path.write_text(HEAD + json.dumps(ONE) + "}")
    assert load_symbols(path, "traced").entry == 1


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema_version":1}',
        json.dumps({"schema_version": SCHEMA_VERSION}),
        json.dumps({"schema_version": SCHEMA_VERSION, "kernel": "traced"}),
        json.dumps({**WHOLE, "kernel": "production"}),
        json.dumps({**WHOLE, "schema_version": SCHEMA_VERSION - 1}),
        json.dumps({**WHOLE, "entry": "somewhere"}),
        json.dumps({key: value for key, value in WHOLE.items() if key != "entry"}),
        HEAD + "[]}",
        HEAD + "[[1]]}",
        HEAD + '[[2,1,"o","s","f",true],[1,1,"o","s","f",true]]}',
        HEAD + '[[-1,1,"o","s","f",true]]}',
        HEAD + '[[1,1,"o","s",null,true]]}',
        HEAD + '[[{},1,"o","s","f",true]]}',
        HEAD + "7}",
    ],
)
def test_damaged_symbols(tmp_path: Path, text: str) -> None:
    path = tmp_path / "symbols.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"symbols\.json"):
        load_symbols(path, "traced")
