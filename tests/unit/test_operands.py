"""The byte before a field tells whether it is the address of a memory operand, as the disassembler has it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.model.elf import SHF_EXECINSTR
from prune.model.image import Image
from prune.model.operands import memory_operands
from tests.conftest import X86, image

from .elfwriter import ALLOC, R_64, R_PC32, WRITE, Rela, Section, Symbol, write_elf

SOURCE = """\
typedef unsigned long u64;
typedef float v4 __attribute__((vector_size(16)));
int a, b = 3, table[64]; char c; short s = 7; u64 big = 1;
struct { int x, y[9]; } node = { 1 };
int *pointer = &a; int (*callback)(int); const int limit = 9; int once[3]; void *head = &head;
void other(int *); int odd(int);
int load(void) { return a + b + c + s; }
u64 wide(void) { return big * 3 + (u64)table[3]; }
void store(int x) { a = x; b = 77; c = 1; s = 300; big = 0x12345678; node.y[4] = x; }
void add(int x) { a += x; b++; c |= 4; s -= 9; big <<= 2; table[5] ^= x; node.x &= 15; a *= x; }
int compare(int x) { return x > a ? b == 5 : c != 2 && limit < x; }
void take(void) { other(&a); other(&table[7]); pointer = &b; head = &node; }
int through(int x) { return callback(x) + callback(a); }
int indexed(int i) { return table[i] + node.y[i] + once[i & 1]; }
u64 address(void) { return (u64)&node + (u64)table; }
int branch(int x) { switch (x) { case 0: return a; case 1: return odd(b); case 2: return c;
    case 3: return s + 1; case 4: return odd(a) + 5; case 5: return b - 8; default: return 0; } }
int locked(int x) { return __atomic_fetch_add(&a, x, 5) + __sync_val_compare_and_swap(&b, 3, x) +
    __atomic_exchange_n(&table[1], x, 5) + (int)__atomic_or_fetch(&big, 8, 5); }
void copy(void) { __builtin_memcpy(table, once, sizeof once); __builtin_memset(&node, 0, sizeof node); }
#ifdef __SSE2__
double d = 2; v4 vector;
double real(double x) { return x * d + a; }
v4 lanes(v4 x) { vector += x; return vector * x; }
#endif
int bits(void) { return __builtin_popcount(a) + __builtin_ctz(b) + __builtin_bswap32(table[2]); }
int divided(int x) { return x / a + x % b; }
int chosen(int x) { return x ? a : table[9]; }
void grow(void) { for (int i = 0; i < 40; i++) table[i] += once[i % 3]; }
int same(int *p) { return p == &a || p == pointer; }
int tail(int x) { a = x; return odd(x); }
"""
COMPILERS = [("gcc", "-O2"), ("gcc", "-Os"), ("gcc", "-O0"), ("clang", "-O2"), ("clang", "-Os")]
FLAGS = "-c -mcmodel=kernel -fno-pic -fno-pie -ffunction-sections -fdata-sections -fno-common -x c - -o x.o"


def compiled(folder: Path, compiler: str, *flags: str) -> Image:
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    subprocess.run([compiler, *flags, *FLAGS.split()], cwd=folder, input=SOURCE, text=True, check=True)
    return image(folder, {"x.o": (folder / "x.o").read_bytes()})


def kinds(made: Image) -> tuple[list[bool], list[bool], list[bool]]:
    """Of each relocation of code into variables: what `reads` says, what the disassembler says, and
    whether the field is relative."""
    rows, units = made.relocations, made.units
    code = units["flags"][rows["unit"]] & SHF_EXECINSTR != 0
    alone = units["data"] & units["alone"]  # not the constants that the linker merges
    mine = np.flatnonzero(code & (rows["target"] >= 0) & alone[rows["target"]])
    fields = {
        unit: memory_operands(made.content(unit), X86) for unit in np.unique(rows["unit"][mine]).tolist()
    }
    said = [row["offset"] in fields[int(row["unit"])] for row in rows[mine]]
    return (
        rows["reads"][mine].tolist(), said, np.isin(rows["type"][mine], X86.kinds("pc32")).tolist()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("compiler", "level"), COMPILERS, ids=["gcc -O2", "gcc -Os", "gcc -O0", "clang -O2", "clang -Os"]
)
@pytest.mark.parametrize("more", [(), ("-mavx2", "-mbmi2"), ("-mno-sse",)], ids=["", "avx", "kernel"])
def test_the_byte_before_a_field_agrees_with_the_disassembler(
    tmp_path: Path, compiler: str, level: str, more: tuple[str, ...]
) -> None:
    reads, said, relative = kinds(compiled(tmp_path, compiler, level, *more))
    assert reads == said
    told = {(each, field) for each, field in zip(reads, relative, strict=True)}
    assert (True, True) in told and len(reads) > 40
    assert (False, True) in told or (False, False) in told


def code(body: bytes, offset: int, kind: int = R_PC32, data: Section | None = None) -> bytes:
    """An object with one instruction that has a field at an offset."""
    data = data or Section(".data.v", bytes(8), ALLOC | WRITE)
    return write_elf(
        [Section(".text.f", body + b"\xc3"), data],
        [Symbol("f", ".text.f"), Symbol("v", data.name, type=1)],
        [Rela(".text.f", offset, "v", kind, -4)],
    )


@pytest.mark.parametrize(
    ("body", "offset", "wanted"),
    [
        (b"\x8b\x05\0\0\0\0", 2, True),  # mov v(%rip), %eax
        (b"\x48\x8b\x3d\0\0\0\0", 3, True),  # mov v(%rip), %rdi
        (b"\xc7\x05\0\0\0\0\x01\0\0\0", 2, True),  # movl $1, v(%rip)
        (b"\x80\x3d\0\0\0\0\0", 2, True),  # cmpb $0, v(%rip)
        (b"\xf0\x0f\xc1\x05\0\0\0\0", 4, True),  # lock xadd %eax, v(%rip)
        (b"\xff\x15\0\0\0\0", 2, True),  # call *v(%rip)
        (b"\xff\x25\0\0\0\0", 2, True),  # jmp *v(%rip)
        (b"\x48\x8d\x05\0\0\0\0", 3, False),  # lea v(%rip), %rax
        (b"\x8d\x3d\0\0\0\0", 2, False),  # lea v(%rip), %edi
        (b"\xe8\0\0\0\0", 1, False),  # call v
        (b"\xe9\0\0\0\0", 1, False),  # jmp v
        (b"\x0f\x85\0\0\0\0", 2, False),  # jne v
    ],
)
def test_each_form_of_a_relative_field(tmp_path: Path, body: bytes, offset: int, wanted: bool) -> None:
    made = image(tmp_path, {"a.o": code(body, offset)})
    assert made.relocations["reads"].tolist() == [wanted]
    assert (offset in memory_operands(made.content(0), X86)) == wanted


@pytest.mark.parametrize(
    ("body", "offset", "kind", "wanted"),
    [
        (b"\x8b\x04\x25\0\0\0\0", 3, 11, True),  # mov v, %eax
        (b"\x8b\x04\x85\0\0\0\0", 3, 11, True),  # mov v(,%rax,4), %eax
        (b"\x48\xc7\xc0\0\0\0\0", 3, 11, False),  # mov $v, %rax
        (b"\x48\xc7\x05\0\0\0\0\0\0\0\0", 7, 11, False),  # movq $v, (%rip)
        (b"\x68\0\0\0\0", 1, 11, False),  # push $v
        (b"\x48\xb8\0\0\0\0\0\0\0\0", 2, R_64, False),  # movabs $v, %rax
        (b"\x48\xa1\0\0\0\0\0\0\0\0", 2, R_64, True),  # movabs v, %rax
    ],
)
def test_an_absolute_field_is_disassembled(
    tmp_path: Path, body: bytes, offset: int, kind: int, wanted: bool
) -> None:
    assert image(tmp_path, {"a.o": code(body, offset, kind)}).relocations["reads"].tolist() == [wanted]


@pytest.mark.parametrize(
    "data",
    [
        Section(".rodata.str1.1", b"x\0", ALLOC | 0x30),  # merged with those of others
        Section(".init.data", bytes(8), ALLOC | WRITE),  # goes anyway
        Section(".data", bytes(8), ALLOC | WRITE),  # shared
        Section(".text.g"),
    ],
    ids=lambda section: section.name,
)
def test_only_data_that_could_go_with_code_is_asked_about(tmp_path: Path, data: Section) -> None:
    made = image(tmp_path, {"a.o": code(b"\x8b\x05\0\0\0\0", 2, data=data)})
    assert made.relocations["reads"].tolist() == [False]


def test_what_is_in_data_is_no_operand(tmp_path: Path) -> None:
    data = write_elf(
        [Section(".text.f"), Section(".data.p", b"\x8b\x05" + bytes(6), 3), Section(".data.v", bytes(8), 3)],
        [Symbol("f", ".text.f"), Symbol("p", ".data.p", type=1), Symbol("v", ".data.v", type=1)],
        [Rela(".data.p", 2, "v", R_PC32)],
    )
    assert image(tmp_path, {"a.o": data}).relocations["reads"].tolist() == [False]


@pytest.mark.parametrize("kind", [9, 41, 42])
def test_what_the_global_offset_table_gives_goes_anywhere(tmp_path: Path, kind: int) -> None:
    """mov v@GOTPCREL(%rip), %rax reads the table: the variable's address is in a register."""
    data = code(b"\x48\x8b\x05\0\0\0\0", 3, kind)
    assert image(tmp_path, {"a.o": data}).relocations["reads"].tolist() == [False]
