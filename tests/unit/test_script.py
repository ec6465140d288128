"""The kernel's script is changed in three places and nowhere else."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from prune.linking.script import (
    assign,
    bury,
    discard_units,
    list_dropped,
    named_symbols,
    place_units,
    quoted,
)  # fmt: skip
from prune.model.knowledge import read_places
from tracer.host import UserError

# As kbuild's preprocessor leaves it: several statements a line.
LDS = """\
OUTPUT_ARCH(i386:x86-64)
jiffies = jiffies_64;
SECTIONS
{
 .text : AT(ADDR(.text) - 0xffffffff80000000) {
  . = ALIGN(8); *(.text.hot .text.hot.*) *(.text .text.fixup) *(.text.unlikely .text.unlikely.*)
  *(.ref.text) *(.text.asan.* .text.tsan.*)
  . = ALIGN(8); __sched_text_start = .; *(.sched.text) __sched_text_end = .;
 } :text =0xcccc
 .data : { *(.xiptext) *(.data) *(.ref.data) *(.data.unlikely)
  __start_once = .; *(.data.once) __end_once = .; . = ALIGN(32); *(__tracepoints) }
 .bss : { *(.bss..page_aligned) *(.dynbss) *(.bss) *(COMMON) }
}
"""


def test_sections_go_behind_the_groups_of_their_prefix() -> None:
    placed = place_units(LDS, read_places())
    assert "*(.text.asan.* .text.tsan.*) *(.text.[0-9a-zA-Z_]*)" in placed
    assert "__end_once = .; *(.data.[0-9a-zA-Z_]* .data..L*" in placed
    assert "*(.bss) *(.bss.[0-9a-zA-Z_]*" in placed


def test_nothing_else_is_touched() -> None:
    placed = place_units(LDS, read_places())
    for place in read_places():
        placed = placed.replace(f" *({' '.join(place.patterns)})", "")
    assert placed == LDS


def test_a_script_that_places_them_itself_is_left_alone() -> None:
    placed = place_units(LDS, read_places())
    assert place_units(placed, read_places()) == placed


@pytest.mark.parametrize("text", ["", "SECTIONS { }", "SECTIONS { .text : { *(.text) "])
def test_what_is_no_kernel_script_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        place_units(text, read_places())


def discarded(script: str, dropped: Mapping[str, Sequence[str]]) -> str:
    return list_dropped(discard_units(script, ".dropped"), ".dropped", dropped)


def test_one_pattern_comes_first_and_takes_what_is_called_dropped() -> None:
    """What it was called in which object is said, for a person to read."""
    script = discarded(LDS, {"net/ipv4/tcp.o": [".text.a", ".data.b"], "mm/x.o": []})
    body = script[script.index("{") :]
    assert body.split("\n")[1:6] == [
        " /DISCARD/ : {", "  *(.dropped.*)", "  /*", "  net/ipv4/tcp.o: .text.a .data.b", "  */",
    ]  # fmt: skip
    assert "mm/x.o" not in script
    begin, end = script.index("\n /DISCARD/"), script.index("  */\n }") + len("  */\n }")
    assert script[:begin] + script[end:] == LDS


@pytest.mark.parametrize("name", ["a*/b", "*/", "a*//*b", "**//"])
def test_no_name_ends_the_comment(name: str) -> None:
    for dropped in ({name: [".text.a"]}, {"a.o": [name]}):
        script = discarded(LDS, dropped)
        assert script.count("*/") == 1 and script.replace("*/", "", 1).count(" }") == LDS.count(" }") + 1


def test_units_are_listed_in_the_order_of_the_link() -> None:
    script = discarded(LDS, {"b.o": [".text.z", ".text.a"], "a.o": [".text.b"]})
    assert "  b.o: .text.z .text.a\n  a.o: .text.b\n" in script


def test_tombstones_lie_behind_the_functions_with_all_their_names() -> None:
    place = read_places()[0]
    script = bury(place_units(LDS, [place]), place, b"\xd6", [("a", "b"), ("c",)])
    after = script[script.index(place.patterns[0]) :]
    assert after.split("\n")[1:5] == [
        "  __kprune_tombstones_start = .;",
        "  a = .; b = .; BYTE(0xd6)",
        "  c = .; BYTE(0xd6)",
        "  __kprune_tombstones_end = .;",
    ]


def test_aliases_are_assigned_at_the_end() -> None:
    assert assign(LDS, {"__x64_sys_a": "__x64_sys_ni_syscall"}).endswith(
        "\n__x64_sys_a = __x64_sys_ni_syscall;\n"
    )


def test_symbols_that_the_script_names_are_found() -> None:
    assert "jiffies_64" in named_symbols(LDS)


# arch/x86/kernel/vmlinux.lds of Linux 6.1 as kbuild's preprocessor leaves it, with long runs of statements
# that the generator has no business with left out.
KERNEL = """\
OUTPUT_FORMAT("elf64-x86-64")
OUTPUT_ARCH(i386:x86-64)
ENTRY(phys_startup_64)
jiffies = jiffies_64;
PHDRS {
 text PT_LOAD FLAGS(5);
 data PT_LOAD FLAGS(6);
 init PT_LOAD FLAGS(7);
 note PT_NOTE FLAGS(0);
}
SECTIONS
{
 . = (0xffffffff80000000 + ALIGN(0x1000000, 0x200000));
 phys_startup_64 = ABSOLUTE(startup_64 - 0xffffffff80000000);
 .text : AT(ADDR(.text) - 0xffffffff80000000) {
  _text = .;
  _stext = .;
  KEEP(*(.head.text))
  . = ALIGN(8); *(.text.hot .text.hot.*) *(.text .text.fixup) *(.text.unlikely .text.unlikely.*) \
*(.text.unknown .text.unknown.*) . = ALIGN(8); __noinstr_text_start = .; *(.noinstr.text) \
__noinstr_text_end = .; *(.text..refcount) *(.ref.text) *(.text.asan.* .text.tsan.*)
  . = ALIGN(8); __sched_text_start = .; *(.sched.text) __sched_text_end = .;
  . = ALIGN((1 << 21));
  . = ALIGN(8); __entry_text_start = .; *(.entry.text) __entry_text_end = .;
  *(.gnu.warning)
 } :text =0xcccc
 _etext = .;
 .data : AT(ADDR(.data) - 0xffffffff80000000) {
  _sdata = .;
  . = ALIGN(((1 << 12) << (2 + 0))); __start_init_task = .; init_thread_union = .; init_stack = .; \
KEEP(*(.data..init_task)) KEEP(*(.data..init_thread_info)) . = __start_init_task + ((1 << 12) << (2 + 0)); \
__end_init_task = .;
  . = ALIGN((1 << 12)); *(.data..page_aligned) . = ALIGN((1 << 12));
  *(.xiptext) *(.data) *(.data..decrypted) *(.ref.data) *(.data..shared_aligned) *(.data.unlikely) \
__start_once = .; *(.data.once) __end_once = .; . = ALIGN(32); *(__tracepoints)
  CONSTRUCTORS
  . = ALIGN((1 << 6)); *(.data..read_mostly) . = ALIGN((1 << 6));
  _edata = .;
 } :data
 . = ALIGN(8); __bug_table : AT(ADDR(__bug_table) - 0xffffffff80000000) { __start___bug_table = .; \
KEEP(*(__bug_table)) __stop___bug_table = .; }
 . = ALIGN((1 << 12)); .init.text : AT(ADDR(.init.text) - 0xffffffff80000000) { _sinittext = .; \
*(.init.text .init.text.*) *(.text.startup) *(.meminit.text*) _einittext = .; }
 :init
 .exit.text : AT(ADDR(.exit.text) - 0xffffffff80000000) {
  *(.exit.text) *(.text.exit)
 }
 .bss : AT(ADDR(.bss) - 0xffffffff80000000) {
  __bss_start = .;
  *(.bss..page_aligned)
  . = ALIGN((1 << 12));
  *(.bss)
  . = ALIGN((1 << 21)); __start_bss_decrypted = .; *(.bss..decrypted); . = ALIGN((1 << 12));
  __bss_stop = .;
 }
 /DISCARD/ : { *(.exitcall.exit) *(.discard) *(.discard.*) *(.modinfo) *(.gnu.version*) }
}
"""
TEXT, DATA, BSS = (f" *({' '.join(place.patterns)})" for place in read_places())


def test_the_kernels_script_gets_three_statements() -> None:
    placed = place_units(KERNEL, read_places())
    assert [placed.count(statement) for statement in (TEXT, DATA, BSS)] == [1, 1, 1]
    assert placed.replace(TEXT, "").replace(DATA, "").replace(BSS, "") == KERNEL


def test_functions_go_behind_every_group_of_text_of_the_same_output_section() -> None:
    """.init.text and .exit.text have groups of .text too: these are other output sections."""
    placed = place_units(KERNEL, read_places())
    assert f"*(.text.asan.* .text.tsan.*){TEXT}\n" in placed
    assert placed.index(TEXT) < placed.index("_etext")


def test_the_once_group_stays_bracketed() -> None:
    """DO_ONCE resets __start_once .. __end_once: a variable in between would be reset with it."""
    placed = place_units(KERNEL, read_places())
    assert f"__start_once = .; *(.data.once) __end_once = .;{DATA} . = ALIGN(32);" in placed


def test_variables_without_a_value_stay_out_of_the_decrypted_pages() -> None:
    placed = place_units(KERNEL, read_places())
    assert f"  *(.bss){BSS}\n  . = ALIGN((1 << 21)); __start_bss_decrypted" in placed


@pytest.mark.parametrize("gone", [".text .text.fixup", ".data", ".bss"])
def test_a_kernels_script_that_lost_a_token_is_refused(gone: str) -> None:
    with pytest.raises(UserError, match=rf"places no {gone.split()[0]} sections"):
        place_units(KERNEL.replace(f"*({gone})", ""), read_places())


def test_no_sections_command_is_an_error() -> None:
    with pytest.raises(UserError, match="no SECTIONS command"):
        discarded("PHDRS { }", {"a.o": [".text.a"]})


def test_nothing_to_do_changes_nothing() -> None:
    place = read_places()[0]
    assert list_dropped(KERNEL, ".d", {}) == list_dropped(KERNEL, ".d", {"a.o": []}) == KERNEL
    assert bury(KERNEL, place, b"\xd6", []) == assign(KERNEL, {}) == KERNEL


def test_tombstones_need_the_placed_functions() -> None:
    with pytest.raises(UserError, match="is not placed"):
        bury(KERNEL, read_places()[0], b"\xd6", [("a",)])


def test_a_trap_of_more_than_one_byte_is_laid_down_whole() -> None:
    place = read_places()[0]
    script = bury(place_units(KERNEL, [place]), place, b"\x0f\x0b", [("a",)])
    assert "a = .; BYTE(0x0f) BYTE(0x0b)" in script


@pytest.mark.parametrize("name", ["a b", "a=b", "a,b", "a*b", "1a", "a[0]", "", "a~b"])
def test_odd_names_are_quoted(name: str) -> None:
    assert quoted(name) == f'"{name}"'


@pytest.mark.parametrize("name", ["f", "f.isra.0", "_f", ".text.f", "f$1", "__pfx_f", ".data..L0"])
def test_names_as_compilers_make_them_are_not(name: str) -> None:
    assert quoted(name) == name


def test_ld_does_what_the_script_says(tmp_path: Path) -> None:
    """The kernel's statements, placed, dropped and buried, hold what they promise."""
    (tmp_path / "net").mkdir()
    source = (
        "int f(void) { return 1; } int g(void) { return 2; } int v = 3; int z[4];"
        'int hot __attribute__((section(".data.once"))) = 1; int once_more = 2;'
    )
    flags = "-O1 -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -x c -c - -o".split()
    for name in ("net/a.o", "net/b.o"):
        renamed = source if name == "net/a.o" else "int other(void) { return 1; }"
        subprocess.run(["gcc", *flags, name], cwd=tmp_path, input=renamed, text=True, check=True)
    called = [".text.f=.dropped.init.text.text.f", ".data.v=.dropped.init.data.data.v"]
    words = [word for name in called for word in ("--rename-section", name)]
    subprocess.run(["objcopy", *words, "net/a.o"], cwd=tmp_path, check=True)
    places = read_places()
    script = place_units(
        KERNEL.replace("startup_64 -", "other -").replace("jiffies = jiffies_64;", ""), places
    )
    script = bury(script, places[0], b"\xd6", [("f", "an alias")])
    script = discarded(script, {"net/a.o": [".text.f", ".data.v"]})
    script = assign(script, {"__x64_sys_g": "g"})
    (tmp_path / "x.lds").write_text(script)
    subprocess.run("ld -T x.lds -o x net/a.o net/b.o".split(), cwd=tmp_path, check=True)
    said = subprocess.run(["nm", "x"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    at = {line.split(maxsplit=2)[2]: int(line.split()[0], 16) for line in said.splitlines()}
    assert at["f"] == at["an alias"] == at["__kprune_tombstones_start"]
    assert at["__kprune_tombstones_end"] == at["f"] + 1
    assert at["__x64_sys_g"] == at["g"] and "v" not in at
    assert at["__start_once"] <= at["hot"] < at["__end_once"] <= at["once_more"]
    assert at["__bss_start"] <= at["z"] < at["__start_bss_decrypted"]


def test_nothing_is_put_inside_a_keep() -> None:
    script = "SECTIONS { .text : { *(.text) KEEP(*(.text.kept)) } .data : { *(.data) } .bss : { *(.bss) } }"
    assert "KEEP(*(.text.kept)) *(.text.[0-9a-zA-Z_]*) }" in place_units(script, read_places())
