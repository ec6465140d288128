"""The link map says what GNU ld placed, and where."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prune.model.linkmap import LinkMap
from prune.model.mapfile import parse_link_map, read_link_map
from tracer.host import UserError

from .elfwriter import write_map

# ld 2.40's own lines: what it discards comes before the map, a long name has its line to itself, merged
# strings say their size twice, fills and symbols are no sections.
MAP = """\
Archive member included to satisfy reference by file (symbol)

drivers/x.o                   (--whole-archive)
net/ipv4/a_member_of_a_really_long_name.o
                              (--whole-archive)
net/ipv4/tcp.o                init/main.o (tcp_init)

Discarded input sections

 .text.gone     0x0000000000000000       0x10 init/main.o
 .comment       0x0000000000000000       0x1f init/main.o

Memory Configuration

Name             Origin             Length             Attributes
*default*        0x0000000000000000 0xffffffffffffffff

Linker script and memory map

LOAD init/main.o
LOAD vmlinux.a
LOAD init/last.o
LOAD lib/lib.a
                0xffffffff81000000                . = 0xffffffff81000000

.text           0xffffffff81000000       0x50 load address 0x0000000001000000
                0xffffffff81000000                _text = .
 *(.text .text.fixup)
 .text          0xffffffff81000000        0x0 init/main.o
 .text          0xffffffff81000000       0x10 init/main.o
                0xffffffff81000000                start_kernel
 *(.text.[0-9a-zA-Z_]*)
 .text.a_function_of_a_long_name.isra.0
                0xffffffff81000010       0x20 net/ipv4/a_member_of_a_really_long_name.o
                0xffffffff81000010                a_function_of_a_long_name
 *fill*         0xffffffff81000030       0x10 cccc
 .text.f        0xffffffff81000040       0x10 net/ipv4/tcp.o

.altinstr_replacement
                0xffffffff81000050        0x8
 .altinstr_replacement
                0xffffffff81000050        0x8 net/ipv4/tcp.o

.rodata         0xffffffff81001000        0x9
 .rodata.str1.1
                0xffffffff81001000        0x9 net/ipv4/tcp.o
                                         0x20 (size before relaxing)

/DISCARD/
 *(.discard .discard.*)
 *(.modinfo)

.bss            0xffffffff81002000        0x8
 COMMON         0xffffffff81002000        0x8 net/ipv4/tcp.o
OUTPUT(vmlinux elf64-x86-64)
"""


def rows(found: LinkMap) -> list[tuple[str, str, int, int, str]]:
    return [(p.object, p.section, p.address & 0xFFFFFF, p.size, p.output) for p in found.placed]


def test_each_kind_of_line_is_read() -> None:
    tcp = "net/ipv4/tcp.o"
    assert rows(parse_link_map(MAP)) == [
        ("init/main.o", ".text", 0, 0, ".text"),
        ("init/main.o", ".text", 0, 0x10, ".text"),
        (
            "net/ipv4/a_member_of_a_really_long_name.o",
            ".text.a_function_of_a_long_name.isra.0",
            0x10,
            0x20,
            ".text",
        ),
        (tcp, ".text.f", 0x40, 0x10, ".text"),
        (tcp, ".altinstr_replacement", 0x50, 8, ".altinstr_replacement"),
        (tcp, ".rodata.str1.1", 0x1000, 9, ".rodata"),
        (tcp, "COMMON", 0x2000, 8, ".bss"),
    ]


def test_objects_are_in_link_order_and_once() -> None:
    """Members stand where the first archive stands; where their sections lie says nothing."""
    assert parse_link_map(MAP).objects == (
        "init/main.o", "drivers/x.o", "net/ipv4/a_member_of_a_really_long_name.o", "net/ipv4/tcp.o",
        "init/last.o",
    )  # fmt: skip


def test_output_sections_have_their_sizes() -> None:
    found = [(o.name, o.size) for o in parse_link_map(MAP).outputs]
    assert found == [(".text", 0x50), (".altinstr_replacement", 8), (".rodata", 9), (".bss", 8)]


def test_what_kbuild_takes_out_of_the_finished_vmlinux_is_not_placed() -> None:
    """7.x places .modinfo behind the image, and objcopy removes it."""
    row = ".modinfo       0xffffffff81003000       0x10"
    more = f"\n{row}\n {row} net/ipv4/tcp.o\n"
    assert parse_link_map(MAP.replace("OUTPUT(vmlinux", more + "OUTPUT(vmlinux")) == parse_link_map(MAP)


def test_what_ld_discarded_is_not_placed() -> None:
    assert not any("gone" in p.section or p.section == ".comment" for p in parse_link_map(MAP).placed)


@pytest.mark.parametrize("size", range(0, len(MAP) - 30, 64))
def test_a_truncated_map_is_never_a_smaller_kernel(size: int) -> None:
    with pytest.raises(UserError, match="not a whole GNU ld map"):
        parse_link_map(MAP[:size])


@pytest.mark.parametrize("text", ["", "hello\n", MAP.replace("OUTPUT(", "OUT(")])
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not a whole GNU ld map"):
        parse_link_map(text)


def test_a_map_that_places_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="places no section"):
        parse_link_map(write_map({}))


def test_a_map_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.map: No such file"):
        read_link_map(tmp_path / "nowhere.map")


SOURCE = """\
int N(a_function_whose_name_is_really_quite_long)(int x) { return x * 3; }
int N(f)(int x) { return x + 1; }
int N(dropped)(int x) { return x + 2; }
int N(variable) = 3;
int N(zeros)[9];
const char *N(word)(void) { return "word"; }
"""
SCRIPT = """\
ENTRY(f_one)
SECTIONS
{
 /DISCARD/ : { "[t]wo.o"(.text.dropped_two) }
 . = 0x400000;
 .text : { *(.text.f_two) . = ALIGN(64); *(.text .text.*) } =0xcccc
 .rodata : { *(.rodata .rodata.*) }
 .data : { *(.data .data.*) }
 .bss : { *(.bss .bss.*) }
 /DISCARD/ : { *(.comment .note .note.* .eh_frame) }
}
"""


def test_a_real_links_map_agrees_with_nm(tmp_path: Path) -> None:
    """Oracle: every function and variable that nm sees in the image lies where the map put its section."""
    flags = "-O1 -c -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables".split()
    (tmp_path / "x.c").write_text(SOURCE)
    for name in ("one", "two"):
        command = ["gcc", *flags, f"-DN(x)=x##_{name}", "x.c", "-o", f"{name}.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "x.lds").write_text(SCRIPT)
    subprocess.run("ld -T x.lds -Map=x.map one.o two.o -o x".split(), cwd=tmp_path, check=True)
    found = read_link_map(tmp_path / "x.map")
    assert found.objects == ("one.o", "two.o")
    at = {p.section.split(".", 2)[-1]: p for p in found.placed if p.size}
    said = subprocess.run(["nm", "-S", "x"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    seen = {line.split()[3]: line.split()[:2] for line in said.splitlines()}
    assert len(seen) == 11 and "dropped_one" in seen and "dropped_two" not in {*seen, *at}
    for symbol, (address, size) in seen.items():
        assert (at[symbol].address, at[symbol].size) == (int(address, 16), int(size, 16)), symbol
    said = subprocess.run(
        ["readelf", "-SW", "x"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    headers = [
        line.split("]")[1].split() for line in said.splitlines() if "PROGBITS" in line or "NOBITS" in line
    ]
    assert {(o.name, o.address, o.size) for o in found.outputs if o.size} == {
        (row[0], int(row[2], 16), int(row[4], 16)) for row in headers
    }
