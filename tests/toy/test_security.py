"""What security.py counts, against others who count it: ROPgadget, and the relocations of the link."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import capstone
from elftools.elf.elffile import ELFFile
from ropgadget.args import Args
from ropgadget.binary import Binary
from ropgadget.gadgets import Gadgets

from prune.model.knowledge import Knowledge, read_knowledge
from prune.security.security import DEPTH, find_gadgets, measure_security
from prune.security.targets import indirect_targets
from tests.unit.elfwriter import ALLOC, Section, Symbol, write_elf

from .toy import Toy

X86, I386 = read_knowledge("x86_64"), read_knowledge("i386")


def _code(path: Path) -> list[dict[str, Any]]:
    """The sections of code; ROPgadget would take segments, and a kernel's first one has its constants."""
    with path.open("rb") as stream:
        sections = [s for s in ELFFile(stream).iter_sections() if s["sh_flags"] & 4]
        return [{"vaddr": s["sh_addr"], "opcodes": s.data()} for s in sections]


def _ropgadget(path: Path) -> set[bytes]:
    """The bytes of the gadgets that end with a return; its depth counts the return's own place too."""
    options = Args(["--binary", str(path), "--depth", str(DEPTH + 1), "--dump", "--all"]).getArgs()
    finder = Gadgets(Binary(options), options, 0)
    return {gadget["bytes"] for section in _code(path) for gadget in finder.addROPGadgets(section)}


def _ours(path: Path) -> set[bytes]:
    return {gadget for section in _code(path) for gadget in find_gadgets(section["opcodes"], X86)}


def _names_of(gadget: bytes) -> list[str]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [name for _, _, name, _ in decoder.disasm_lite(gadget, 0)]


def _theirs_alone(gadget: bytes) -> bool:
    """What ROPgadget lists here and we do not count: a jump or call whose last byte looks like a return (it
    looks for those elsewhere, too). It also goes on behind conditional jumps, int1, and what has a prefix
    bnd, and takes f2 c3 for a return of two bytes: ten more in front of that are one too many."""
    *before, last = _names_of(gadget)
    return (
        "ret" not in last
        or any(name.startswith(("j", "loop", "int1", "bnd")) for name in before)
        or (gadget[-2:] == b"\xf2\xc3" and len(gadget) > DEPTH + 1)
    )


def _ours_alone(gadget: bytes) -> bool:
    """What it overlooks: retfq and bnd ret, which it does not know by these names, and a return whose first
    byte is in the operand of another of its kind."""
    *_, last = _names_of(gadget)
    return last in ("retfq", "bnd ret") or gadget[-3] in b"\xc2\xca"


def test_gadgets_are_those_of_ropgadget(built: Toy) -> None:
    theirs, ours = _ropgadget(built.tree / "vmlinux"), _ours(built.tree / "vmlinux")
    assert len(ours) > 50
    assert [gadget.hex() for gadget in theirs - ours if not _theirs_alone(gadget)] == []
    assert [gadget.hex() for gadget in ours - theirs if not _ours_alone(gadget)] == []


ASSEMBLY = """
.macro function name
 .section .text.\\name, "ax"; .globl \\name; .type \\name, @function
\\name:
.endm
.macro end name
 .size \\name, . - \\name
.endm
function _start
 call called; je jumped; jmp jumped
 mov $moved, %rdi; push $pushed; movq $stored, 8(%rsp); lea leaned(%rip), %rax
 mov word(%rip), %rax; mov $inside+1, %rdi
 .byte 0xd6                      # no instruction: what follows is read all the same
 mov $behind_trap, %rsi
end _start
.irp name, called, jumped, moved, pushed, stored, leaned, behind_trap, in_data, inside, listed, booted
function \\name
 nop; nop; ret
end \\name
.endr
.section .data, "aw"; .balign 8
word: .quad in_data, in_data + 1
.byte 0; .quad called            # a pointer that is not aligned is none
.section __mcount_loc, "a"; .balign 8; .quad listed
.section .initcall6.init, "a"; .balign 4; .long booted - .
"""
SCRIPT = """
ENTRY(_start) SECTIONS { . = 0xffffffff81000000; .text : { *(.text.*) } .data : { *(.data) }
 __mcount_loc : { __start_mcount_loc = .; KEEP(*(__mcount_loc)) __stop_mcount_loc = .; }
 .init.data : { __initcall6_start = .; KEEP(*(.initcall6.init)) __initcall7_start = .; } }
"""


def _assembled(folder: Path, bits: str, emulation: str, text: str, script: str) -> Path:
    (folder / "in.lds").write_text(script)
    subprocess.run(["as", bits, "-", "-o", "in.o"], cwd=folder, input=text, text=True, check=True)
    link = ["ld", "-m", emulation, "--no-warn-rwx-segments", "-T", "in.lds", "in.o", "-o", "out"]
    subprocess.run(link, cwd=folder, check=True)
    return folder / "out"


def _names(path: Path, knowledge: Knowledge) -> set[str]:
    file = ELFFile(io.BytesIO(path.read_bytes()))
    found = indirect_targets(file, knowledge)
    symbols = file.get_section_by_name(".symtab").iter_symbols()
    return {s.name for s in symbols if s["st_value"] in found and s["st_info"]["type"] == "STT_FUNC"}


def test_a_target_is_a_function_whose_address_is_held(tmp_path: Path) -> None:
    taken = {"moved", "pushed", "stored", "leaned", "behind_trap", "in_data", "booted"}
    assert _names(_assembled(tmp_path, "--64", "elf_x86_64", ASSEMBLY, SCRIPT), X86) == taken


def test_a_target_of_a_narrow_kernel_is_one_whose_address_is_held(tmp_path: Path) -> None:
    """No operand counts from the next instruction; words have four bytes, and so have pointers in lists."""
    text, script = ASSEMBLY, SCRIPT.replace("0xffffffff81000000", "0xc1000000")
    for wide, narrow in (
        ("movq", "movl"), ("leaned(%rip), %rax", "leaned, %eax"), ("word(%rip), %rax", "word, %eax"),
        ("%rdi", "%edi"), ("%rsi", "%esi"), ("8(%rsp)", "4(%esp)"), (".quad", ".long"),
        (".byte 0xd6  ", ".byte 0x0f, 0x0b"),
    ):  # fmt: skip
        assert wide in text
        text = text.replace(wide, narrow)
    taken = {"moved", "pushed", "stored", "behind_trap", "in_data", "booted"}
    assert _names(_assembled(tmp_path, "--32", "elf_i386", text, script), I386) == taken


def test_targets_are_those_of_the_relocations(built: Toy, tmp_path: Path) -> None:
    """The same link with relocations: every one that is no branch, to the beginning of a function."""
    words = ["ld", "-q", "-T", built.tree / ".kprune/vmlinux.lds", "-o", tmp_path / "q"]
    objects = ["init/main.o", "init/one.o", "lib/two.o"]
    subprocess.run([*words, *objects], cwd=built.tree, check=True)
    file = ELFFile(io.BytesIO((tmp_path / "q").read_bytes()))
    assert indirect_targets(file, X86) == _held(file)


def _held(file: ELFFile) -> set[int]:
    table = file.get_section_by_name(".symtab")
    functions = {s["st_value"] for s in table.iter_symbols() if s["st_info"]["type"] == "STT_FUNC"}
    absolute = {1, 10, 11}  # R_X86_64_64, 32, 32S; the toy's code is no position-independent one
    values = {
        table.get_symbol(row["r_info_sym"])["st_value"] + row["r_addend"]
        for section in file.iter_sections()
        if section["sh_type"] == "SHT_RELA"
        for row in section.iter_relocations()
        if row["r_info_type"] in absolute
    }
    return values & functions


def test_sections_may_be_empty_as_lld_leaves_them() -> None:
    parts = [Section(".text", b""), Section(".few", b"\xc3"), Section(".data", b"\0", ALLOC)]
    file = ELFFile(io.BytesIO(write_elf(parts, [Symbol("f", ".few")])))
    assert indirect_targets(file, X86) == set()


def test_all_three_are_counted(built: Toy) -> None:
    found = measure_security(built.tree / "vmlinux", X86)
    assert set(found) == {"gadgets", "indirect_targets", "system_calls"}
    assert found["indirect_targets"] > 0
