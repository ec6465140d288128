"""The kernel's script is changed in three places and nowhere else."""

from __future__ import annotations

import pytest

from prune.knowledge import read_places
from prune.ld import script_argument
from prune.script import Grave, assign, bury, discard_units, named_symbols, place_units
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


def test_discards_come_first_and_name_the_object_by_a_pattern() -> None:
    """ld would open a plain name as an input, ahead of the command line's."""
    script = discard_units(LDS, {"net/ipv4/tcp.o": [".text.a", ".data.b"], "mm/x.o": []})
    body = script[script.index("{") :]
    assert body.split("\n")[1:4] == [" /DISCARD/ : {", '  "[n]et/ipv4/tcp.o"(.text.a .data.b)', " }"]
    assert "mm/x.o" not in script


def test_names_that_the_grammar_would_take_apart_are_quoted() -> None:
    assert '(".text.a b")' in discard_units(LDS, {"x.o": [".text.a b"]})


def test_tombstones_lie_behind_the_functions_with_all_their_names() -> None:
    place = read_places()[0]
    script = bury(place_units(LDS, [place]), place, b"\xd6", [Grave(("a", "b")), Grave(("c",))])
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


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("-m elf_x86_64 --script=./arch/x86/kernel/vmlinux.lds -o vmlinux", 2),
        ("-T arch/arm64/kernel/vmlinux.lds -o vmlinux", 1),
        ("-r --script=arch/x86/kernel/vmlinux.lds -o vmlinux.o", None),
        ("-T arch/x86/boot/compressed/vmlinux.lds -o arch/x86/boot/compressed/vmlinux", None),
        ("-r --script=scripts/module.lds -o x.ko", None),
        ("--version", None),
    ],
)  # fmt: skip
def test_only_the_kernels_own_link_is_recognised(words: str, at: int | None) -> None:
    assert script_argument(words.split()) == at
