"""The types of functions as gcc and clang write them, in the forms that configurations ask for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prune.plan.dwarf_types import ENUM, INTEGER, NOTHING, OTHER, POINTER, FunctionType, read_function_types
from prune.plan.typed import compile_words
from tests.conftest import I386, X86
from tracer.host import UserError

_SOURCE = """
typedef unsigned long size_t;
typedef long ssize_t;
typedef ssize_t deeper;
struct file { int x; };
struct pair { long a, b, c; };
union u { int i; };
enum state { OFF, ON = -3 };
typedef int (*callback)(struct file *, const char *);

long ioctl(struct file *f, unsigned int cmd, unsigned long arg) { return f->x + cmd + arg; }
ssize_t list(const struct file *f, char *p, size_t n) { return f->x + *p + n; }
deeper wide(short a, unsigned short b, unsigned char c, long long d) { return a + b + c + d; }
void nothing(void) { }
const struct file *find(union u *u, enum state s, char *const *names) { return u->i + s ? 0 : (void *)names; }
enum state state(volatile int *p) { return *p ? ON : OFF; }
_Bool truth(callback c) { return c(0, 0); }
void *call(int (*f)(void *, ...), int n, ...) { return f(0) ? 0 : f; }
struct pair pair(int x) { return (struct pair) { x, x, x }; }
double real(int x) { return x; }
static __attribute__((noinline)) int local(int x) { return x ? x * 3 : 1; }
int never(int x) { for (;;) asm volatile("" : "+r"(x)); }
int inlined(int x) { return x + 1; }
int declared(int x);
int user(int x) { return local(x) + inlined(x) + declared(x); }
"""
_TYPES = {
    "ioctl": "long (struct file *, unsigned int, unsigned long)",
    "list": "ssize_t (const struct file *, char *, size_t)",
    "wide": "deeper (short, unsigned short, unsigned char, long long)",
    "nothing": "void (void)",
    "find": "const struct file * (union u *, enum state, char * const *)",
    "state": "enum state (volatile int *)",
    "truth": "_Bool (callback)",
    "call": "void * (int (*)(void *, ...), int, ...)",
    "pair": "struct pair (int)",
    "real": "double (int)",
    "local": "int (int)",
    "never": "int (int)",
    "inlined": "int (int)",
    "user": "int (int)",
}


def compiled(folder: Path, *flags: str, compiler: str = "gcc") -> Path:
    (folder / "a.c").write_text(_SOURCE)
    words = [compiler, "-c", "-O2", "-ffunction-sections", "-fno-pic", *flags, "-o", "a.o", "a.c"]
    subprocess.run(words, cwd=folder, check=True)
    return folder / "a.o"


@pytest.mark.parametrize(
    "flags",
    [("-g",), ("-gdwarf-4",), ("-g", "-m32"), ("-g1", "-g"), ("-gdwarf-5", "-O1")],
    ids=" ".join,
)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_types_read_as_in_c(tmp_path: Path, compiler: str, flags: tuple[str, ...]) -> None:
    path = compiled(tmp_path, *flags, compiler=compiler)
    found = read_function_types(path, path.read_bytes(), I386 if "-m32" in flags else X86)
    assert {name: each.text for name, each in found.items() if each} == _TYPES


def test_what_is_returned(tmp_path: Path) -> None:
    path = compiled(tmp_path, "-g")
    found = read_function_types(path, path.read_bytes(), X86)
    kinds = {name: (each.kind, each.size) for name, each in found.items() if each}
    assert kinds["ioctl"] == kinds["list"] == kinds["wide"] == (INTEGER, 8)
    assert (kinds["nothing"], kinds["find"], kinds["state"]) == ((NOTHING, 0), (POINTER, 8), (ENUM, 4))
    assert (kinds["pair"], kinds["real"], kinds["local"]) == ((OTHER, 24), (OTHER, 8), (INTEGER, 4))
    assert found["truth"] == FunctionType(_TYPES["truth"], INTEGER, 1, 0, 1)
    state = found["state"]
    assert state and state.values == (0, -3)


def test_an_object_without_dwarf_says_nothing(tmp_path: Path) -> None:
    path = compiled(tmp_path)
    assert read_function_types(path, path.read_bytes(), X86) == {}


def test_a_cut_one_is_one_clear_error(tmp_path: Path) -> None:
    path = compiled(tmp_path, "-g")
    data = bytearray(path.read_bytes())
    at = data.index(b".debug_info")  # in the names of sections
    assert at > 0
    with pytest.raises(UserError, match="not a whole ELF file"):
        read_function_types(path, bytes(data[: len(data) // 2]), X86)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "cmd_a.o := gcc -Wp,-MMD,.a.o.d -O2 -c -o a.o a.c",
            "gcc -O2 -c a.c -g -gno-split-dwarf -gz=none -w",
        ),
        (
            "savedcmd_a.o := gcc -c -o a.o a.c ; objtool a.o\n\nsource_a.o := a.c\n",
            "gcc -c a.c -g -gno-split-dwarf -gz=none -w",
        ),
        (
            "cmd_a.o := gcc -DX='\"$(pound)\"' -c -o a.o a.c",
            'gcc -DX="#" -c a.c -g -gno-split-dwarf -gz=none -w',
        ),
        ("cmd_a.o := ld -r -o a.o b.o", ""),
        ("cmd_a.o := gcc -c a.c -o", ""),
        ("cmd_a.o := gcc 'unclosed", ""),
        ("", ""),
    ],
)
def test_the_command_that_compiled_an_object(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / ".a.o.cmd").write_text(text)
    assert compile_words(tmp_path, "a.o") == words.split()
    assert compile_words(tmp_path, "b.o") == []
