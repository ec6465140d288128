"""A program whose functions share a section runs as before when each has one of its own, in any order."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from prune.model.elf import ObjectFile
from prune.model.refine import refine
from tests.conftest import I386, X86
from tests.objects import read_object

from .toy import SOURCES

CFLAGS = (
    "-fno-pie", "-fcf-protection=none", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    "-fno-optimize-sibling-calls",  # a tail call to a neighbour is a short jump, which holds the two together
)  # fmt: skip


#: Where nothing of a C library for it is installed, tiny.c is what there is.
FLAGS = {"x86_64": (), "i386": ("-m32", "-ffreestanding", "-mregparm=3")}
LINKS = {
    "x86_64": ("gcc", "-no-pie"),
    "i386": (
        "gcc", "-m32", "-march=i686", "-Os", "-mregparm=3", "-static", "-nostdlib", "-no-pie", "-fno-pie",
        "-fno-stack-protector", str(SOURCES / "tiny.c"),
    ),
}  # fmt: skip
KNOWN = {"x86_64": X86, "i386": I386}


def compiled(folder: Path, level: str, arch: str = "x86_64") -> Path:
    target = folder / "shared.o"
    command = ["gcc", level, *CFLAGS, *FLAGS[arch], "-c", str(SOURCES / "shared.c"), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def output(program: Path) -> str:
    done = subprocess.run([program, "x"], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout


@pytest.mark.parametrize("arch", list(KNOWN))
@pytest.mark.parametrize("level", ["-Os", "-O0", "-O1", "-O2", "-O3"])
def test_it_runs_as_before_in_any_order(tmp_path: Path, level: str, arch: str) -> None:
    original, machine = compiled(tmp_path, level, arch), KNOWN[arch].machine
    subprocess.run([*LINKS[arch], original, "-o", tmp_path / "before"], check=True)
    file, splits = refine(read_object(original, machine), KNOWN[arch])
    split = next(each for each in splits if each.name == ".init.text")
    assert len(split.pieces) >= 4 and split.branches
    assert [piece.start for piece in split.pieces] == sorted(piece.start for piece in split.pieces)
    before = read_object(original, machine)
    assert sum(piece.size for piece in split.pieces) == before.sections["size"][split.section]
    (tmp_path / "apart.o").write_bytes(file.data)
    names = [piece.name for piece in split.pieces]
    random.Random(level).shuffle(names)
    # Each piece far from the others: a branch that was not found would land nowhere.
    lines = "\n".join(f" .far{i} : {{ . += 0x3000; *({name}) }}" for i, name in enumerate(names))
    (tmp_path / "far.lds").write_text(f"SECTIONS {{\n{lines}\n}}\nINSERT AFTER .text;\n")
    subprocess.run([*LINKS[arch], "-Wl,-T,far.lds", "apart.o", "-o", "after"], cwd=tmp_path, check=True)
    assert output(tmp_path / "after") == output(tmp_path / "before")


def test_readelf_agrees_that_it_is_a_sound_object(tmp_path: Path) -> None:
    file, _ = refine(read_object(compiled(tmp_path, "-Os")), X86)
    (tmp_path / "apart.o").write_bytes(file.data)
    command = ["readelf", "--wide", "--all", "--lint", str(tmp_path / "apart.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = [
        line for line in done.stderr.splitlines() if "size" not in line
    ]  # the section itself is empty now
    assert not said
    assert ".init.text.chosen" in done.stdout


def test_assembly_stays_whole(tmp_path: Path) -> None:
    """What a label means in hand-written code, nobody can tell."""
    (tmp_path / "a.S").write_text(
        '.section .init.text,"ax"\n.globl a\n.type a,@function\na: nop\n.size a,.-a\n'
        ".globl b\n.type b,@function\nb: ret\n.size b,.-b\n"
    )
    subprocess.run(["gcc", "-c", tmp_path / "a.S", "-o", tmp_path / "a.o"], check=True)
    assert refine(read_object(tmp_path / "a.o"), X86)[1] == ()


def test_a_short_branch_holds_two_functions_together(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text(
        '__attribute__((section(".init.text"))) void one(void) { __asm__("jmp two"); }\n'
        '__attribute__((section(".init.text"))) static __attribute__((used)) void two(void) {}\n'
        '__attribute__((section(".init.text"))) void three(void) {}\n'
    )
    command = ["gcc", "-O1", *CFLAGS, "-c", str(tmp_path / "a.c"), "-o", str(tmp_path / "a.o")]
    subprocess.run(command, check=True)
    _, (split,) = refine(read_object(tmp_path / "a.o"), X86)
    pieces = {piece.name.rpartition(".")[2] for piece in split.pieces}
    assert len(pieces) == 2, pieces


def test_a_branch_is_found_in_a_section_without_any_relocation(tmp_path: Path) -> None:
    """gas has resolved the call; taken apart it is the only thing in the object that needs a relocation."""
    (tmp_path / "a.c").write_text(
        '#define INIT __attribute__((section(".init.text"), used, noinline, noclone))\n'
        "static INIT int leaf(int x) { return x + 1; }\n"
        "static INIT int caller(int x) { return leaf(x) * 3; }\n"
    )
    command = ["gcc", "-O1", *CFLAGS, "-c", str(tmp_path / "a.c"), "-o", str(tmp_path / "a.o")]
    subprocess.run(command, check=True)
    before = read_object(tmp_path / "a.o")
    assert not [i for i in before.relocation_sections() if before.sections["info"][i] == _init(before)]
    after, (split,) = refine(before, X86)
    assert len(split.branches) == 1
    (owner,) = (after.sections["info"][i] for i in after.relocation_sections())
    assert after.section_names[owner] == ".init.text.caller"


def _init(file: ObjectFile) -> int:
    return file.section_names.index(".init.text")
